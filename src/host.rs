//! What the plan must know of the host, asked once, and only when the document makes it matter.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::plan::Facts;
use crate::sys::cred;
use std::fs;

/// Highest capability of the oldest kernel we run on (5.10): CAP_CHECKPOINT_RESTORE.
const LAST_CAP: u32 = 40;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// The facts for this document; without cgroups it is as if the host had none.
pub fn facts(config: &Config, with_cgroups: bool) -> Result<Facts> {
    let status =
        fs::read_to_string("/proc/self/status").map_err(|e| Error::io("/proc/self/status", "read", &e))?;
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
    let limited = process.is_some_and(|p| p.rlimits.is_some()) && effective & (1 << CAP_SYS_RESOURCE) == 0;
    let flag = |file: &str| fs::read(file).is_ok_and(|t| t.first() == Some(&b'Y'));
    Ok(Facts {
        euid: id("Uid:"),
        egid: id("Gid:"),
        privileged: effective & (1 << CAP_SYS_ADMIN) != 0,
        bounding: mask("CapBnd:"),
        last_cap: LAST_CAP,
        apparmor: labelled && flag("/sys/module/apparmor/parameters/enabled"),
        selinux: labelled && fs::exists("/sys/fs/selinux/enforce").unwrap_or(false),
        hard_limits: std::array::from_fn(|n| {
            if limited { cred::limit(n as u32).map_or(u64::MAX, |l| l.1) } else { u64::MAX }
        }),
        cgroups: if with_cgroups { crate::cgroup::probe()? } else { Default::default() },
    })
}

/// The mappings of our own user namespace are the identity: it is the host's.
pub fn in_initial_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|t| {
        let numbers: Vec<_> = t.split_ascii_whitespace().collect();
        numbers == ["0", "0", "4294967295"]
    })
}
