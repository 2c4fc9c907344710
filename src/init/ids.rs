//! Ids, capabilities and keyring.

use super::{Done, During, Fault};
use crate::plan::step::CapSets;
use crate::sys::{Errno, cred, ns};
use std::ffi::CStr;

/// The first process of a user namespace starts with unmapped ids and all capabilities in it.
pub fn become_root(clear_groups: bool) -> Done {
    cred::set_gid(0).during("setresgid")?;
    if clear_groups {
        // A user namespace that was joined may deny it (user_namespaces(7)); groups asked for fail in `set_user`.
        match cred::set_groups(&[]) {
            Err(crate::sys::Errno::EPERM) => {}
            other => other.during("setgroups")?,
        }
    }
    cred::set_uid(0).during("setresuid")
}

/// A full key quota or a kernel without keys must not stop a container: it then shares its caller's keyring.
pub fn new_keyring(name: &CStr) -> Done {
    match ns::join_session_keyring(name) {
        Ok(_) | Err(Errno::EDQUOT | Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Ok(()),
        Err(errno) => Err(Fault { call: "keyctl KEYCTL_JOIN_SESSION_KEYRING", errno }),
    }
}

/// Drops these from the bounding set; the kernel's last capability ends the walk.
pub fn drop_bounding(caps: u64) -> Done {
    for cap in (0..64).filter(|cap| caps & (1 << cap) != 0) {
        match cred::drop_bounding(cap) {
            Err(Errno::EINVAL) => break,
            other => other.during("prctl PR_CAPBSET_DROP")?,
        }
    }
    Ok(())
}

/// Groups first, since they need a right that the uid takes along (CVE-2022-2990).
pub fn set_user(uid: u32, gid: u32, groups: Option<&[u32]>) -> Done {
    if let Some(groups) = groups {
        cred::set_groups(groups).during("setgroups")?;
    }
    cred::set_gid(gid).during("setresgid")?;
    cred::set_uid(uid).during("setresuid")
}

pub fn set_caps(caps: &CapSets) -> Done {
    cred::set_caps(caps).during("capset")?;
    match cred::set_ambient(caps.ambient) {
        Err(Errno::EINVAL) if caps.ambient == 0 => Ok(()), // kernels without the ambient set
        other => other.during("prctl PR_CAP_AMBIENT"),
    }
}
