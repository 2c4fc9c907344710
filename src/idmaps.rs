//! uid_map and gid_map of a new user namespace, written by its parent (user_namespaces(7)).

use crate::error::{Error, Result, os};
use crate::plan::idmap::{IdMap, Maps};
use crate::plan::spawn::NEWUSER;
use crate::sys::{Errno, clone, fd, ns};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

/// Writes both maps for `pid`. An ordinary user may map itself alone; more is for newuidmap(1) and newgidmap(1),
/// which know the user's subordinate ranges.
pub fn write(pid: i32, maps: &Maps) -> Result<()> {
    let (euid, egid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    if euid == 0 {
        put(pid, "gid_map", "linux.gidMappings", &lines(&maps.gid))?;
        return put(pid, "uid_map", "linux.uidMappings", &lines(&maps.uid));
    }
    if itself(&maps.gid, egid) {
        // Without it a group that denies access could be dropped (CVE-2014-8989).
        put(pid, "setgroups", "linux.gidMappings", "deny")?;
        put(pid, "gid_map", "linux.gidMappings", &lines(&maps.gid))?;
    } else {
        helper("newgidmap", pid, "linux.gidMappings", &maps.gid)?;
    }
    if itself(&maps.uid, euid) {
        put(pid, "uid_map", "linux.uidMappings", &lines(&maps.uid))
    } else {
        helper("newuidmap", pid, "linux.uidMappings", &maps.uid)
    }
}

/// A user namespace with these maps, made only to id-map a mount by it.
pub fn namespace(maps: &Maps) -> Result<OwnedFd> {
    let at = "uidMappings";
    let call = |what: &'static str| os(at, what);
    let (read, write_end) = fd::pipe().map_err(call("pipe2"))?;
    let side = clone::clone(NEWUSER, None).map_err(call("clone3 CLONE_NEWUSER"))?;
    let clone::Side::Parent { pid, pidfd } = side else {
        drop(write_end);
        let _ = fd::read(&read, &mut [0]); // ends when the parent has what it wants, or is gone
        clone::exit(0)
    };
    let file = write(pid, maps).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        std::fs::File::open(&path).map_err(|e| Error::io(at, format!("open {path:?}"), &e))
    });
    let _ = clone::signal(&pidfd, libc::SIGKILL); // gone already is as good
    clone::wait(pid, true).map_err(call("waitpid"))?;
    file.map(OwnedFd::from)
}

/// Are these the mappings of a user namespace that is to be joined (config-linux.md#namespaces)?
pub fn same(namespace: Option<&OwnedFd>, maps: &Maps) -> Result<()> {
    let at = "linux.uidMappings";
    let Some(namespace) = namespace else { return Ok(()) };
    let theirs = read(namespace).map_err(os(at, "read the mappings of the user namespace that is joined"))?;
    for (at, ours, theirs) in [(at, &maps.uid, &theirs.uid), ("linux.gidMappings", &maps.gid, &theirs.gid)] {
        if normal(ours) != normal(theirs) {
            let what = "differs from the mapping of the user namespace that is joined, which is";
            return Err(Error::invalid(at, format!("{what} {:?}", lines(theirs).trim_end()))
                .hint("it may be left out"));
        }
    }
    Ok(())
}

/// A namespace file does not tell its mappings: they are read from procfs while a process sits in it.
fn read(namespace: &OwnedFd) -> Result<Maps, Errno> {
    let (ours, theirs) = fd::socketpair()?;
    let pid = match clone::clone(0, None)? {
        clone::Side::Parent { pid, .. } => pid,
        clone::Side::Child => {
            drop(ours); // so that it ends with its parent
            let errno = ns::enter(namespace, NEWUSER).err().map_or(0, |e| e as i32);
            let _ = fd::write(&theirs, &errno.to_ne_bytes()); // a parent that is gone needs no answer
            let _ = fd::read(&theirs, &mut [0]); // until the parent has read
            clone::exit(0)
        }
    };
    drop(theirs);
    let maps = joined(pid, &ours);
    let _ = fd::write(&ours, &[0]); // its end is all that is left, and is waited for
    let _ = clone::wait(pid, true);
    maps
}

fn joined(pid: i32, child: impl AsFd) -> Result<Maps, Errno> {
    let mut errno = [0; 4];
    if fd::read(child, &mut errno)? != errno.len() {
        return Err(Errno::ECHILD);
    }
    match i32::from_ne_bytes(errno) {
        0 => Ok(Maps { uid: parse(pid, "uid_map")?, gid: parse(pid, "gid_map")? }),
        errno => Err(Errno::from_raw(errno)),
    }
}

fn parse(pid: i32, file: &str) -> Result<Vec<IdMap>, Errno> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let line = |l: &str| {
        let mut n = l.split_ascii_whitespace().map(str::parse);
        let mut next = || n.next()?.ok();
        Some(IdMap { inside: next()?, outside: next()?, size: next()? })
    };
    text.lines().map(|l| line(l).ok_or(Errno::EIO)).collect()
}

/// In order, and what continues another joined with it: the kernel may tell the same mapping in other lines.
fn normal(map: &[IdMap]) -> Vec<IdMap> {
    let mut sorted = map.to_vec();
    sorted.sort_by_key(|m| m.inside);
    let mut out: Vec<IdMap> = Vec::with_capacity(sorted.len());
    for m in sorted {
        match out.last_mut() {
            Some(l) if (l.inside + l.size, l.outside + l.size) == (m.inside, m.outside) => l.size += m.size,
            _ => out.push(m),
        }
    }
    out
}

fn itself(map: &[IdMap], id: u32) -> bool {
    matches!(map, [one] if one.size == 1 && one.outside == id)
}

fn lines(map: &[IdMap]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.inside, m.outside, m.size)).collect()
}

fn put(pid: i32, file: &str, at: &str, text: &str) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/{file}"), text)
        .map_err(|e| Error::io(at, format!("write {:?} to {file}", text.trim_end()), &e))
}

fn helper(program: &str, pid: i32, at: &str, map: &[IdMap]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for m in map {
        command.args([m.inside.to_string(), m.outside.to_string(), m.size.to_string()]);
    }
    let out = command
        .output()
        .map_err(|e| Error::io(at, format!("run {program}"), &e).hint("install the package uidmap"))?;
    if out.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&out.stderr);
    let words = words.trim().strip_prefix(&format!("{program}: ")).unwrap_or(words.trim()).to_string();
    Err(Error::invalid(at, format!("{program}: {words}")).hint("see /etc/subuid and /etc/subgid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(list: &[(u32, u32, u32)]) -> Vec<IdMap> {
        list.iter().map(|&(inside, outside, size)| IdMap { inside, outside, size }).collect()
    }

    #[test]
    fn mappings_are_compared_by_what_they_mean() {
        let whole = map(&[(0, 1000, 100)]);
        assert_eq!(normal(&map(&[(50, 1050, 50), (0, 1000, 50)])), whole);
        assert_ne!(normal(&map(&[(0, 1000, 50), (50, 1051, 49)])), whole);
        assert_ne!(normal(&map(&[(0, 1000, 50), (51, 1051, 49)])), whole);
    }

    #[test]
    fn lines_are_those_of_uid_map() {
        assert_eq!(lines(&map(&[(0, 1000, 1), (1, 100_000, 65536)])), "0 1000 1\n1 100000 65536\n");
    }

    #[test]
    fn an_ordinary_user_maps_itself_alone_without_help() {
        assert!(itself(&map(&[(0, 1000, 1)]), 1000));
        for other in [&[(0, 1000, 2)][..], &[(0, 1001, 1)], &[(0, 1000, 1), (1, 100_000, 1)], &[]] {
            assert!(!itself(&map(other), 1000));
        }
    }
}
