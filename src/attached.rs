//! The rootfs of a container that has no mount namespace of its own: attached in the runtime's, at its own path, with all
//! that is mounted in it, and taken away as a whole.

use crate::error::{Error, Result, os};
use crate::plan::Plan;
use crate::plan::step::{Act, Attr};
use crate::spawn::Slots;
use crate::sys::{Sys, fd, mount, remount};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

const AT: &str = "root.path";

/// What delete must know, on record before it is attached: the mount has its ids by then. All zero: there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Recorded {
    id: u64,
    unique: u64,
}

/// The tree, and where it belongs.
fn tree<'a>(plan: &'a Plan, slots: &'a Slots) -> Option<(&'a OwnedFd, &'a CStr)> {
    plan.steps.iter().find_map(|s| match &s.act {
        Act::TakeRoot { tree, path } => Some((slots[*tree].as_ref()?, path.as_c_str())),
        _ => None,
    })
}

/// Attaches the tree. What is mounted in it then stays in this mount namespace, and in it.
pub fn attach(plan: &Plan, slots: &Slots) -> Result<()> {
    let Some((tree, path)) = tree(plan, slots) else { return Ok(()) };
    let to = fd::open(path, libc::O_PATH | libc::O_DIRECTORY, 0).map_err(os(AT, "open"))?;
    mount::attach(tree, to).map_err(os(AT, "move_mount"))?;
    // On a shared mount it has become one.
    mount::set_attr(tree, Attr::default(), libc::MS_PRIVATE, true).map_err(os(AT, "mount_setattr"))
}

impl Recorded {
    /// Of what the plan will attach. The host's root is refused: whoever enters this mount namespace would be in it.
    pub fn of(plan: &Plan, slots: &Slots) -> Result<Self> {
        let Some((tree, path)) = tree(plan, slots) else { return Ok(Self::default()) };
        let path = std::fs::canonicalize(OsStr::from_bytes(path.to_bytes()));
        if path.map_err(|e| Error::io(AT, "resolve", &e))?.parent().is_none() {
            let rule = "need a mount namespace in linux.namespaces: root.path is the host's root";
            return Err(Error::invalid("mounts", rule));
        }
        let id = |unique| remount::mount_id(tree, unique).map_err(os(AT, "statx"));
        Ok(Self { id: id(false)?, unique: id(true)? })
    }

    /// Lazily unmounts it, with all that is mounted in it, wherever it is by now, unless somebody else has done so.
    pub fn remove(&self) -> Result<()> {
        let remove = || -> Sys {
            match remount::find(self.id)? {
                Some(at) if remount::mount_id(&at, true)? == self.unique => remount::detach(at),
                _ => Ok(()), // the kernel gives ids again
            }
        };
        if self.id == 0 { Ok(()) } else { remove().map_err(os(AT, "umount of the rootfs")) }
    }
}
