//! Which of a container's mounts are the host's: criu saves only their names, and is told on restore where each is.

use crate::cgroup::unescape;
use crate::error::{Error, Result};
use crate::sys::{fd, path};
use procfs::process::{MountInfo, Process};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// The null device, which covers masked files: one name for all of them, as in runc's images.
pub const NULL: &str = "/dev/null";

/// File systems that are not the host's though it may have them mounted: criu mounts what the namespaces of the
/// container show.
const OF_NAMESPACES: [&str; 5] = ["proc", "sysfs", "mqueue", "devpts", "cgroup2"];

/// One mount, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    device: String,
    /// Of the file system, what is mounted.
    root: PathBuf,
    point: PathBuf,
    kind: String,
}

impl Mount {
    fn of(m: MountInfo) -> Self {
        let point = unescape(&m.mount_point.to_string_lossy());
        Self { device: m.majmin, root: unescape(&m.root).into(), point: point.into(), kind: m.fs_type }
    }
}

fn table(pid: Option<i32>) -> Result<Vec<Mount>> {
    let at = pid.map_or("/proc/self/mountinfo".into(), |p| format!("/proc/{p}/mountinfo"));
    let process = pid.map_or_else(Process::myself, Process::new);
    let table = process.and_then(|p| p.mountinfo());
    let table = table.map_err(|e| Error::invalid(at, format!("cannot be read: {e}")))?;
    Ok(table.into_iter().map(Mount::of).collect())
}

/// Mounts of the host in the container of this init: (mount point, name). `own_cgroups`: it has a cgroup namespace, in
/// which criu mounts cgroups of v1 itself.
pub fn external(init: i32, own_cgroups: bool) -> Result<Vec<(PathBuf, String)>> {
    let (host, inside) = (table(None)?, table(Some(init))?);
    let root = fd::open(&cstring(&format!("/proc/{init}/root")), libc::O_PATH | libc::O_DIRECTORY, 0).ok();
    let name = |point: PathBuf| {
        let null = root.as_ref().is_some_and(|r| is_null(r, &point));
        let name = if null { NULL.to_string() } else { super::utf8(&point)? };
        Ok((point, name))
    };
    select(&host, &inside, own_cgroups).into_iter().map(name).collect()
}

/// A file system that the host has mounted too is the host's, but for what lies in the rootfs and what a namespace
/// shows.
fn select(host: &[Mount], inside: &[Mount], own_cgroups: bool) -> Vec<PathBuf> {
    let root = inside.iter().rfind(|m| m.point == Path::new("/"));
    let in_rootfs = |m: &Mount| root.is_some_and(|r| r.device == m.device && m.root.starts_with(&r.root));
    let is_host = |m: &Mount| host.iter().any(|h| h.device == m.device);
    let external = |m: &&Mount| match m.kind.as_str() {
        "cgroup" => !own_cgroups,
        kind if OF_NAMESPACES.contains(&kind) => false,
        _ => is_host(m) && !in_rootfs(m),
    };
    inside.iter().filter(external).map(|m| m.point.clone()).collect()
}

fn cstring(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn is_null(root: &OwnedFd, point: &Path) -> bool {
    let relative = cstring(&point.to_string_lossy());
    let file = path::open(root, &relative, libc::O_PATH, 0, path::IN_ROOT | libc::RESOLVE_NO_SYMLINKS);
    let st = file.and_then(fd::stat);
    st.is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFCHR && st.st_rdev == libc::makedev(1, 3))
}

/// Mount points of the host below `dir`, relative to it: what a recursive bind mount brings along.
pub fn below(dir: &Path) -> Result<Vec<PathBuf>> {
    let inside =
        |m: Mount| m.point.strip_prefix(dir).ok().filter(|p| !p.as_os_str().is_empty()).map(Into::into);
    Ok(table(None)?.into_iter().filter_map(inside).collect())
}

/// The mount point that a path without links lies on, in our own namespace.
pub fn holding(path: &Path) -> Result<PathBuf> {
    let points = table(None)?.into_iter().map(|m| m.point).filter(|p| path.starts_with(p));
    Ok(points.max_by_key(|p| p.components().count()).unwrap_or_else(|| "/".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(device: &str, root: &str, point: &str, kind: &str) -> Mount {
        Mount { device: device.into(), root: root.into(), point: point.into(), kind: kind.into() }
    }

    #[test]
    fn only_what_the_host_has_mounted_too_is_external() {
        let host = [
            mount("8:1", "/", "/", "ext4"),
            mount("0:5", "/", "/dev", "devtmpfs"),
            mount("0:22", "/", "/sys", "sysfs"),
            mount("0:30", "/", "/dev/shm", "tmpfs"),
        ];
        let mut inside = vec![
            mount("8:1", "/b/rootfs", "/", "ext4"),
            mount("0:40", "/", "/proc", "proc"),
            mount("0:40", "/sys", "/proc/sys", "proc"),
            mount("0:41", "/", "/dev", "tmpfs"),
            mount("0:22", "/", "/sys", "sysfs"),
            mount("8:1", "/b/rootfs/usr", "/usr", "ext4"),
            mount("0:9", "/ctr", "/sys/fs/cgroup/pids", "cgroup"),
        ];
        assert_eq!(select(&host, &inside, true), [] as [PathBuf; 0]);
        assert_eq!(select(&host, &inside, false), [Path::new("/sys/fs/cgroup/pids")]);
        inside.extend([
            mount("8:1", "/etc/hosts", "/etc/hosts", "ext4"),
            mount("8:1", "/b/rootfs-2", "/data", "ext4"),
            mount("0:5", "/null", "/proc/kcore", "devtmpfs"),
            mount("0:30", "/", "/dev/shm", "tmpfs"),
        ]);
        let want = ["/etc/hosts", "/data", "/proc/kcore", "/dev/shm"].map(PathBuf::from);
        assert_eq!(select(&host, &inside, true), want);
    }

    #[test]
    fn mount_points_may_have_spaces() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
    }
}
