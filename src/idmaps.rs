//! uid_map and gid_map of a new user namespace, written by its parent (user_namespaces(7)).

use crate::error::{Error, Result};
use crate::plan::idmap::{IdMap, Maps};
use crate::plan::spawn;
use crate::sys::{Errno, clone, fd};
use std::os::fd::OwnedFd;
use std::process::Command;

/// Writes both maps for `pid`. An ordinary user may map itself alone; more is for newuidmap(1) and newgidmap(1), which know
/// the user's subordinate ranges.
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
    let call = |what: &'static str| move |e: Errno| Error::os(at, what, e as i32);
    let (read, write_end) = fd::pipe().map_err(call("pipe2"))?;
    let side = clone::clone(spawn::NEWUSER, None, false).map_err(call("clone3 CLONE_NEWUSER"))?;
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
