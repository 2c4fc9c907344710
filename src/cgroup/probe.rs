//! How the host's cgroups are laid out.

use crate::error::{Error, Result};
use crate::plan::cgroup::{Hierarchies, Hierarchy, Unified};
use crate::sys::{Errno, Sys, fd};
use procfs::process::{MountInfo, MountInfos, Process};

const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
const ROOT: &str = "/sys/fs/cgroup";

/// /proc/self/cgroup says which hierarchies there are, statfs(2) whether they are where they always are; only those
/// that are elsewhere cost a look at mountinfo, which grows with the host's mounts. That of v2 is always named there, even
/// where it is not mounted: beside controllers of v1 it is used only in the two places where it always is.
pub fn probe() -> Result<Hierarchies> {
    seen_by("/proc/self/cgroup")
}

/// As [`probe`], with another process' own cgroups.
pub fn seen_by(file: &str) -> Result<Hierarchies> {
    let text = match cgroups(file) {
        Ok(text) => text,
        Err(Errno::ENOENT) => return Ok(Hierarchies::default()), // no CONFIG_CGROUPS
        Err(e) => return Err(Error::os(file, "read", e as i32)),
    };
    let mut h = Hierarchies::default();
    let mut mounts = None;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(list), Some(own)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let own = own.to_string();
        if list.is_empty() {
            // Named last, after those of v1.
            let is_v2 = |m: &String| magic(m) == Some(CGROUP2_SUPER_MAGIC);
            let mut usual = [ROOT.to_string(), format!("{ROOT}/unified")];
            if !h.v1.is_empty() {
                usual.reverse(); // whose root is a tmpfs, unless v1 is one of few beside v2
            }
            let has_controllers = |h: &Hierarchy| h.controllers.iter().any(|c| !c.starts_with("name="));
            let mount = usual.into_iter().find(is_v2).or_else(|| {
                let elsewhere = !h.v1.iter().any(has_controllers);
                let found = elsewhere.then(|| find(mounts.get_or_insert_with(mountinfo), ""));
                found.flatten().filter(is_v2)
            });
            h.v2 = mount.map(|mount| {
                let mut buf = [0; 4096];
                let file = super::dir::cstring(&format!("{mount}/cgroup.controllers"));
                let len = file.and_then(|f| fd::read_value(&f, &mut buf)).unwrap_or(0);
                let list = String::from_utf8_lossy(&buf[..len]).into_owned();
                Unified { controllers: list.split_ascii_whitespace().map(String::from).collect(), mount, own }
            });
        } else {
            let usual = format!("{ROOT}/{}", list.strip_prefix("name=").unwrap_or(list));
            let mount = match magic(&usual) {
                Some(CGROUP_SUPER_MAGIC) => Some(usual),
                _ => {
                    let found = find(mounts.get_or_insert_with(mountinfo), list);
                    found.filter(|m| magic(m) == Some(CGROUP_SUPER_MAGIC)) // not covered by another mount
                }
            };
            // One that is nowhere mounted cannot be used.
            if let Some(mount) = mount {
                h.v1.push(Hierarchy { mount, controllers: list.split(',').map(String::from).collect(), own });
            }
        }
    }
    Ok(h)
}

/// Mostly a few hundred bytes, and at most a path of 4 KiB for each of a dozen hierarchies.
fn cgroups(file: &str) -> Sys<String> {
    let file = super::dir::cstring(file)?;
    let mut buf = [0; 4096];
    match fd::read_value(&file, &mut buf)? {
        len if len < buf.len() => Ok(String::from_utf8_lossy(&buf[..len]).into_owned()),
        _ => {
            let mut buf = vec![0; 1 << 16];
            let len = fd::read_value(&file, &mut buf)?;
            Ok(String::from_utf8_lossy(&buf[..len]).into_owned())
        }
    }
}

fn magic(path: &str) -> Option<i64> {
    nix::sys::statfs::statfs(path).ok().map(|s| s.filesystem_type().0)
}

fn mountinfo() -> MountInfos {
    Process::myself().and_then(|me| me.mountinfo()).unwrap_or(MountInfos(Vec::new()))
}

/// Where the hierarchy with these controllers is mounted; the last mount covers earlier ones. Empty is v2.
fn find(mounts: &MountInfos, controllers: &str) -> Option<String> {
    let is_it = |m: &&MountInfo| {
        let has = |c: &str| match c.split_once('=') {
            Some((key, value)) => m.super_options.get(key).is_some_and(|v| v.as_deref() == Some(value)),
            None => m.super_options.contains_key(c),
        };
        match controllers {
            "" => m.fs_type == "cgroup2",
            list => m.fs_type == "cgroup" && list.split(',').all(has),
        }
    };
    mounts.0.iter().rev().find(is_it).and_then(|m| m.mount_point.to_str().map(unescape))
}

/// Where a file system of this type is mounted.
pub fn mount_of(fs_type: &str) -> Option<String> {
    let is_it = |m: &&MountInfo| m.fs_type == fs_type;
    mountinfo().0.iter().rev().find(is_it).and_then(|m| m.mount_point.to_str().map(unescape))
}

/// A path of mountinfo: space, tab, newline and backslash stand as three octal digits (proc(5)).
pub fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_string(), |p, (from, to)| p.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use procfs::FromBufRead;

    #[test]
    fn mounts_in_unusual_places_are_found() {
        let text = "30 25 0:26 / /cg/two rw - cgroup2 cgroup2 rw\n\
             31 25 0:27 / /cg/a\\040b rw,nosuid shared:9 - cgroup cgroup rw,cpuacct,cpu\n\
             32 25 0:28 / /cg/sys rw - cgroup none rw,xattr,name=systemd\n";
        let m = MountInfos::from_buf_read(text.as_bytes()).unwrap();
        for (list, mount) in [
            ("", Some("/cg/two")),
            ("cpu,cpuacct", Some("/cg/a b")),
            ("name=systemd", Some("/cg/sys")),
            ("pids", None),
        ] {
            assert_eq!(find(&m, list).as_deref(), mount, "{list}");
        }
    }
}
