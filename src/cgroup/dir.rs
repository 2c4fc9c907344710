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

    /// Visits this cgroup and all below it, deepest first; one that vanishes meanwhile is left out. Nothing else stops
    /// the rest: the first error is told at the end.
    pub fn each(&self, visit: &mut dyn FnMut(&Dir) -> Sys) -> Sys {
        self.walk(&mut Pass { enter: &mut |_, _| true, visit, leave: &mut |_, _| {} })
    }

    /// With two descriptors and no recursion: a container that may make cgroups makes them as deep as it likes.
    fn walk(&self, pass: &mut Pass) -> Sys {
        let (mut first, mut above) = (Ok(()), Vec::<Above>::new());
        let mut keep = |done: Sys| match done {
            Err(e) if !matches!(e, Errno::ENOENT | Errno::ENODEV) => first = first.and(Err(e)),
            _ => {}
        };
        let names = |dir: &Dir, keep: &mut dyn FnMut(Sys)| dir.names(true).map_err(|e| keep(Err(e)));
        let mut left = names(self, &mut keep).unwrap_or_default();
        let mut below: Option<Dir> = None; // where we are, unless that is `self`
        loop {
            let here = below.as_ref().unwrap_or(self);
            let Some(name) = left.pop() else {
                keep((pass.visit)(here));
                let Some(back) = above.pop() else { return first };
                below = match (&below, back.id) {
                    (Some(here), Some(id)) => Some(here.above(id)?),
                    _ => None,
                };
                left = back.left;
                (pass.leave)(below.as_ref().unwrap_or(self), &back.name);
                continue;
            };
            if !(pass.enter)(here, &name) {
                continue;
            }
            match here.sub(&name).and_then(|dir| Ok((dir, below.as_ref().map(Dir::id).transpose()?))) {
                Ok((dir, id)) => {
                    let next = names(&dir, &mut keep).unwrap_or_default();
                    above.push(Above { id, name, left: std::mem::replace(&mut left, next) });
                    below = Some(dir);
                }
                Err(e) => keep(Err(e)),
            }
        }
    }

    fn id(&self) -> Sys<(u64, u64)> {
        fd::stat(&self.0).map(|st| (st.st_dev, st.st_ino))
    }

    /// The cgroup above, which must be the one that we came from: ESTALE else. In cgroupfs none moves to another, and
    /// one that was removed still has it.
    fn above(&self, id: (u64, u64)) -> Sys<Dir> {
        let dir = self.sub(c"..")?;
        if dir.id()? == id { Ok(dir) } else { Err(Errno::ESTALE) }
    }

    /// Processes in it and below, without those that this pid namespace does not see. They are added to `pids`, also
    /// when an error keeps others from being found.
    fn add_pids(&self, pids: &mut BTreeSet<i32>) -> Sys {
        self.each(&mut |d| {
            let text = match d.read("cgroup.procs") {
                Err(Errno::EOPNOTSUPP) => d.read("cgroup.threads"), // a threaded cgroup
                other => other,
            }?;
            pids.extend(text.lines().filter_map(|l| l.parse::<i32>().ok()).filter(|p| *p > 0));
            Ok(())
        })
    }

    /// Every process in it and below.
    pub fn pids(&self) -> Sys<BTreeSet<i32>> {
        let mut pids = BTreeSet::new();
        self.add_pids(&mut pids).map(|()| pids)
    }

    /// Signals every process that is there now; SIGKILL also those forked meanwhile, until a pass finds no new one. What a
    /// program starts in answer to another signal is not meant by it, as with kill(2) of all processes. A pid is signalled
    /// only if it was in the cgroup after its descriptor was opened: it cannot have become another process.
    pub fn signal(&self, signal: i32) -> Sys {
        let passes = if signal == libc::SIGKILL { 32 } else { 1 };
        let mut done = BTreeSet::new();
        let mut all = Ok(());
        for _ in 0..passes {
            let mut new = BTreeSet::new();
            all = self.add_pids(&mut new);
            let new: Vec<i32> = new.into_iter().filter(|p| !done.contains(p)).collect();
            if new.is_empty() {
                break;
            }
            for batch in new.chunks(BATCH) {
                let open: Vec<_> = batch.iter().filter_map(|p| Some((*p, clone::pidfd(*p).ok()?))).collect();
                let mut still = BTreeSet::new();
                let _ = self.add_pids(&mut still); // what cannot be found was said, or the next pass says it
                for (pid, pidfd) in open.iter().filter(|(pid, _)| still.contains(pid)) {
                    let _ = clone::signal(pidfd, signal); // gone already is as good
                    done.insert(*pid);
                }
            }
        }
        all
    }

    /// Removes every cgroup below that can be, deepest first.
    pub fn clear(&self) -> Sys {
        self.walk(&mut Pass {
            enter: &mut |above, name| !matches!(above.unmake(name), Ok(()) | Err(Errno::ENOENT)),
            visit: &mut |_| Ok(()),
            leave: &mut |above, name| {
                let _ = above.unmake(name); // what stays keeps the one above, and the caller's rmdir from success
            },
        })
    }
}

/// What a walk does.
struct Pass<'a> {
    /// Whether to look into the cgroup of this name.
    enter: &'a mut dyn FnMut(&Dir, &CStr) -> bool,
    visit: &'a mut dyn FnMut(&Dir) -> Sys,
    /// After all of the cgroup of this name.
    leave: &'a mut dyn FnMut(&Dir, &CStr),
}

/// A cgroup that a walk goes back to.
struct Above {
    /// `None` of the one where it began, which stays open.
    id: Option<(u64, u64)>,
    /// The one below that it is in meanwhile.
    name: CString,
    /// Others below.
    left: Vec<CString>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_walk_goes_as_deep_as_it_gets_and_never_out_of_the_tree() {
        let root = std::env::temp_dir().join(format!("orlop-walk-{}", std::process::id()));
        let tree = |path: &str| root.join("tree").join(path);
        let _ = fs::remove_dir_all(&root);
        for path in ["a/b/c/d", "a/e", "f"] {
            fs::create_dir_all(tree(path)).unwrap();
        }
        fs::create_dir_all(root.join("out/side")).unwrap();
        let top = Dir::open(tree("").to_str().unwrap()).unwrap();
        let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(tree(path)).unwrap());
        let all: BTreeSet<_> = ["", "a", "a/b", "a/b/c", "a/b/c/d", "a/e", "f"].map(inode).into();
        let (b, deepest) = (tree("a/b"), inode("a/b/c/d"));

        let mut seen = Vec::new();
        top.each(&mut |d| d.id().map(|id| seen.push(id.1))).unwrap();
        assert_eq!((seen.len(), seen.last()), (7, Some(&inode(""))));
        assert_eq!(seen.iter().copied().collect::<BTreeSet<_>>(), all);

        let mut seen = BTreeSet::new();
        let moved = top.each(&mut |d| {
            if d.id()?.1 == deepest {
                fs::rename(&b, root.join("out/b")).unwrap();
            }
            seen.insert(d.id()?.1);
            Ok(())
        });
        assert_eq!(moved, Err(Errno::ESTALE));
        assert!(seen.is_subset(&all) && seen.len() >= 3, "{seen:?}");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn an_error_keeps_no_other_cgroup_from_a_visit() {
        let root = std::env::temp_dir().join(format!("orlop-visit-{}", std::process::id()));
        for path in ["a", "b", "c"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        let mut count = 0;
        let done = Dir::open(root.to_str().unwrap()).unwrap().each(&mut |_| {
            count += 1;
            Err(if count == 1 { Errno::ENODEV } else { Errno::EMFILE })
        });
        assert_eq!((count, done), (4, Err(Errno::EMFILE)));
        fs::remove_dir_all(&root).unwrap();
    }
}
