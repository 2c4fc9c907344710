//! A directory of cgroupfs, by descriptor.

use crate::sys::{Errno, Sys, clone, dir, fd, path};
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

const OPEN: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW;
/// Descriptors that one pass of a sweep holds: far below any limit of them.
const BATCH: usize = 128;

#[derive(Debug)]
pub struct Dir(pub OwnedFd);

/// ENOENT for what no file can be called.
pub fn cstring(name: &str) -> Sys<CString> {
    CString::new(name).map_err(|_| Errno::ENOENT)
}

impl Dir {
    /// A mount of cgroupfs, or any absolute path.
    pub fn open(path: &str) -> Sys<Dir> {
        fd::open(&cstring(path)?, libc::O_RDONLY | libc::O_DIRECTORY, 0).map(Dir)
    }

    /// `name` may have several parts: cgroupfs has no symbolic links.
    pub fn sub(&self, name: &CStr) -> Sys<Dir> {
        fd::openat(&self.0, name, OPEN, 0).map(Dir)
    }

    pub fn make(&self, name: &CStr) -> Sys {
        path::mkdir(&self.0, name, 0o755)
    }

    /// Removes an empty cgroup.
    pub fn unmake(&self, name: &CStr) -> Sys {
        path::unlink(&self.0, name, libc::AT_REMOVEDIR)
    }

    pub fn file(&self, name: &str, flags: i32) -> Sys<OwnedFd> {
        fd::openat(&self.0, &cstring(name)?, flags, 0)
    }

    /// One value to one file, in one write(2): cgroupfs takes nothing in pieces.
    pub fn write(&self, name: &str, value: &str) -> Sys {
        fd::write(self.file(name, libc::O_WRONLY)?, value.as_bytes()).map(drop)
    }

    pub fn read(&self, name: &str) -> Sys<String> {
        let file = self.file(name, libc::O_RDONLY)?;
        let mut text = Vec::new();
        let mut buf = [0; 4096];
        loop {
            match fd::read(&file, &mut buf)? {
                0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
                n => text.extend_from_slice(&buf[..n]),
            }
        }
    }

    pub fn has(&self, name: &str) -> bool {
        // Not by a descriptor: one that cannot be had says nothing of the file.
        cstring(name).is_ok_and(|name| path::exists(&self.0, &name))
    }

    /// Is there a line `key value`?
    pub fn has_line(&self, name: &str, line: &str) -> bool {
        self.read(name).is_ok_and(|t| t.lines().any(|l| l == line))
    }

    /// Names of files (`false`) or of cgroups below.
    pub fn names(&self, cgroups: bool) -> Sys<Vec<CString>> {
        const KIND: usize = 18; // d_type in struct linux_dirent64
        fd::rewind(&self.0)?;
        let (mut names, mut buf) = (Vec::new(), [0u8; 4096]);
        loop {
            let n = dir::entries(&self.0, &mut buf)?;
            if n == 0 {
                return Ok(names);
            }
            let mut rest = &buf[..n];
            while let Some((name, behind)) = dir::next(rest) {
                let is_dir = rest.get(KIND) == Some(&libc::DT_DIR);
                if is_dir == cgroups && name != c"." && name != c".." {
                    names.push(name.to_owned());
                }
                rest = behind;
            }
        }
    }

    /// This cgroup and all below it, deepest first. One that vanishes meanwhile is left out.
    pub fn each(&self, visit: &mut dyn FnMut(&Dir)) {
        for name in self.names(true).unwrap_or_default() {
            if let Ok(below) = self.sub(&name) {
                below.each(visit);
            }
        }
        visit(self);
    }

    /// Processes in it and below, without those that this pid namespace does not see.
    pub fn pids(&self) -> BTreeSet<i32> {
        let mut pids = BTreeSet::new();
        self.each(&mut |d| {
            let text = match d.read("cgroup.procs") {
                Err(Errno::EOPNOTSUPP) => d.read("cgroup.threads"), // a threaded cgroup
                other => other,
            };
            pids.extend(
                text.unwrap_or_default().lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 0),
            );
        });
        pids
    }

    /// Signals every process, those forked meanwhile too, until a pass finds no new one. A pid is signalled only if it
    /// was in the cgroup after its descriptor was opened: it cannot have become another process.
    pub fn signal(&self, signal: i32) {
        let mut done = BTreeSet::new();
        for _ in 0..32 {
            let new: Vec<i32> = self.pids().into_iter().filter(|p| !done.contains(p)).collect();
            if new.is_empty() {
                return;
            }
            for batch in new.chunks(BATCH) {
                let open: Vec<_> = batch.iter().filter_map(|p| Some((*p, clone::pidfd(*p).ok()?))).collect();
                let still = self.pids();
                for (pid, pidfd) in open.iter().filter(|(pid, _)| still.contains(pid)) {
                    let _ = clone::signal(pidfd, signal); // gone already is as good
                    done.insert(*pid);
                }
            }
        }
    }

    /// Removes every cgroup below, deepest first, and says whether none is left.
    pub fn clear(&self) -> Sys<bool> {
        let mut clear = true;
        for name in self.names(true)? {
            match self.unmake(&name) {
                Ok(()) | Err(Errno::ENOENT) => continue,
                Err(_) => {}
            }
            if let Ok(below) = self.sub(&name) {
                let _ = below.clear(); // what stays is seen next
            }
            clear &= matches!(self.unmake(&name), Ok(()) | Err(Errno::ENOENT));
        }
        Ok(clear)
    }
}

/// `12 (sh), 14 (sleep)`: for errors.
pub fn describe(pids: &BTreeSet<i32>) -> String {
    const SHOWN: usize = 8;
    let mut words: Vec<_> = pids
        .iter()
        .take(SHOWN)
        .map(|p| {
            let name = std::fs::read_to_string(format!("/proc/{p}/comm")).unwrap_or_default();
            format!("{p} ({})", name.trim_end())
        })
        .collect();
    if pids.len() > SHOWN {
        words.push(format!("{} more", pids.len() - SHOWN));
    }
    words.join(", ")
}
