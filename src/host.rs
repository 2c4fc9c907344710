//! What the plan must know of the host, asked once, and only when the document makes it matter.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::plan::Facts;
use crate::plan::process::rlimits;
use crate::sys::{Errno, cred, fd, path};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Highest capability of the oldest kernel we run on (5.10): CAP_CHECKPOINT_RESTORE.
const LAST_CAP: u32 = 40;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_MKNOD: u32 = 27;

/// The facts for this document; without cgroups it is as if the host had none.
pub fn facts(config: &Config, with_cgroups: bool) -> Result<Facts> {
    let status = own_status().map_err(|e| Error::io("/proc/self/status", "read", &e))?;
    let mask = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        line.and_then(|l| u64::from_str_radix(l.trim(), 16).ok()).unwrap_or(0)
    };
    let id = |key: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(key));
        line.and_then(|l| l.split_ascii_whitespace().nth(1)?.parse().ok()).unwrap_or(u32::MAX)
    };
    let effective = mask("CapEff:");
    let process = config.process.as_ref();
    let labelled = process.is_some_and(|p| p.apparmor_profile.is_some() || p.selinux_label.is_some())
        || config.linux.as_ref().is_some_and(|l| l.mount_label.is_some());
    let mut hard_limits = [u64::MAX; 16];
    if effective & (1 << CAP_SYS_RESOURCE) == 0 {
        let named = process.and_then(|p| p.rlimits.as_deref()).unwrap_or_default().iter();
        for n in named.filter_map(|r| rlimits::number(r.kind.as_deref()?)) {
            hard_limits[n as usize] = cred::limit(n).map_or(u64::MAX, |l| l.1);
        }
    }
    let initial = in_initial_user_namespace();
    let mknod = initial && effective & (1 << CAP_MKNOD) != 0;
    let flag = |file: &str| fs::read(file).is_ok_and(|t| t.first() == Some(&b'Y'));
    Ok(Facts {
        euid: id("Uid:"),
        egid: id("Gid:"),
        privileged: effective & (1 << CAP_SYS_ADMIN) != 0,
        nested: !initial,
        setgroups_denied: !initial && fs::read("/proc/self/setgroups").is_ok_and(|t| t.starts_with(b"deny")),
        mknod,
        nodes: if mknod && !has_user_namespace(config) { Vec::new() } else { nodes(config) },
        bounding: mask("CapBnd:"),
        last_cap: LAST_CAP,
        ignored_signals: mask("SigIgn:"),
        apparmor: labelled && flag("/sys/module/apparmor/parameters/enabled"),
        selinux: labelled && fs::exists("/sys/fs/selinux/enforce").unwrap_or(false),
        hard_limits,
        resctrl: match config.linux.as_ref().is_some_and(|l| l.intel_rdt.is_some()) {
            true => crate::resctrl::probe(),
            false => Default::default(),
        },
        cgroups: if with_cgroups { crate::cgroup::probe()? } else { Default::default() },
        systemd: None,
    })
}

/// /proc/self/status: 1,500 bytes, unless we are in thousands of groups.
fn own_status() -> std::io::Result<String> {
    let mut buf = [0; 4096];
    match fd::read_value(c"/proc/self/status", &mut buf)? {
        len if len < buf.len() => Ok(String::from_utf8_lossy(&buf[..len]).into_owned()),
        _ => fs::read_to_string("/proc/self/status"),
    }
}

fn has_user_namespace(config: &Config) -> bool {
    let list = config.linux.as_ref().and_then(|l| l.namespaces.as_deref()).unwrap_or_default();
    list.iter().any(|n| n.kind.as_deref() == Some("user"))
}

/// Type and numbers of a device, and a node for it.
type Node = ((char, u32, u32), String);

/// The host's nodes for `linux.devices`: the path inside when it is that device here too, else any in /dev.
fn nodes(config: &Config) -> Vec<Node> {
    let mut found = Vec::new();
    for d in config.linux.as_ref().and_then(|l| l.devices.as_deref()).unwrap_or_default() {
        let kind = if d.kind.as_deref() == Some("b") { 'b' } else { 'c' };
        let (Some(Ok(major)), Some(Ok(minor))) = (d.major.map(u32::try_from), d.minor.map(u32::try_from))
        else {
            continue;
        };
        let wanted = (kind, major, minor);
        let inside = Path::new(d.path.as_deref().unwrap_or_default());
        let same = fs::symlink_metadata(inside).is_ok_and(|m| number(&m) == Some(wanted));
        let path = if same { Some(inside.to_path_buf()) } else { search(Path::new("/dev"), wanted, 4) };
        found.extend(path.and_then(|p| p.into_os_string().into_string().ok()).map(|p| (wanted, p)));
    }
    found
}

fn number(m: &fs::Metadata) -> Option<(char, u32, u32)> {
    let kind = match m.file_type() {
        t if t.is_char_device() => 'c',
        t if t.is_block_device() => 'b',
        _ => return None,
    };
    Some((kind, libc::major(m.rdev()), libc::minor(m.rdev())))
}

fn search(dir: &Path, wanted: (char, u32, u32), depth: u32) -> Option<PathBuf> {
    let entries: Vec<_> = fs::read_dir(dir).ok()?.flatten().collect();
    let is_it = |e: &&fs::DirEntry| e.metadata().is_ok_and(|m| number(&m) == Some(wanted));
    entries.iter().find(is_it).map(fs::DirEntry::path).or_else(|| {
        let dirs = entries.iter().filter(|e| depth > 0 && e.file_type().is_ok_and(|t| t.is_dir()));
        dirs.filter_map(|e| search(&e.path(), wanted, depth - 1)).next()
    })
}

/// PROC_USER_INIT_INO, the inode of the first user namespace (linux/nsfs.h).
const FIRST_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// Is our own user namespace that of the host? A kernel without them has no file.
pub fn in_initial_user_namespace() -> bool {
    match path::stat(c"/proc/self/ns/user") {
        Ok(st) => st.st_ino == FIRST_USER_NAMESPACE,
        Err(e) => e == Errno::ENOENT,
    }
}
