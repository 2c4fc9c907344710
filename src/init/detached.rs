//! A mount that is attached nowhere yet: nobody can reach it, so what it gets before it is attached was never
//! otherwise.

use super::{Done, During, Fault, mount::is_directory};
use crate::plan::mounts::options::{ATIME, NODEV, NOEXEC, NOSUID, RDONLY};
use crate::plan::step::Attr;
use crate::sys::{Errno, mount};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// Attributes, propagation, and whether for all below as well.
type Change = (Attr, u64, bool);

pub struct Detached {
    pub fd: OwnedFd,
    /// Kernels before 5.12 change only what is attached: these wait. No program of the container runs meanwhile.
    waiting: [Option<Change>; 4],
}

impl Detached {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, waiting: [None; 4] }
    }

    /// A copy of the mount that `fd` is in, at the file `fd`, with these attributes: one call where the kernel has it.
    pub fn copy(fd: impl AsFd, recursive: bool, attr: Attr, call: &'static str) -> Done<Self> {
        if let Ok(copy) = mount::copy_tree_at(&fd, recursive, attr) {
            return Ok(Self::new(copy));
        }
        let mut copy = Self::new(mount::clone_tree_at(fd, recursive).during(call)?);
        copy.set(attr, 0, recursive)?;
        Ok(copy)
    }

    /// mount_setattr(2), now or when it is attached.
    pub fn set(&mut self, attr: Attr, propagation: u64, recursive: bool) -> Done {
        match mount::set_attr_detached(&self.fd, attr, propagation, recursive) {
            Err(Errno::ENOSYS) => self.wait(attr, propagation, recursive),
            other => other.map_err(|e| refused(&self.fd, attr, e, recursive)),
        }
    }

    /// For a kernel that is known not to set it now.
    pub fn wait(&mut self, attr: Attr, propagation: u64, recursive: bool) -> Done {
        let free = self.waiting.iter_mut().find(|w| w.is_none());
        *free.ok_or(Fault { call: "mount", errno: Errno::E2BIG })? = Some((attr, propagation, recursive));
        Ok(())
    }

    /// move_mount(2)
    pub fn attach(self, to: impl AsFd, call: &'static str) -> Done<OwnedFd> {
        if let Err(errno) = mount::attach(&self.fd, &to) {
            // What mount(2) says of a file onto a directory, and of the reverse; Docker has a hint for these words.
            let odd = errno == Errno::EINVAL && is_directory(&self.fd)? != is_directory(&to)?;
            return Err(Fault { call, errno: if odd { Errno::ENOTDIR } else { errno } });
        }
        self.attached()
    }

    /// As [`Detached::attach`], onto a name in our working directory, which nobody else can write to.
    pub fn attach_here(self, name: &CStr, call: &'static str) -> Done<OwnedFd> {
        mount::attach_path(&self.fd, name).during(call)?;
        self.attached()
    }

    fn attached(self) -> Done<OwnedFd> {
        for (attr, propagation, recursive) in self.waiting.into_iter().flatten() {
            set(&self.fd, attr, propagation, recursive)?;
        }
        Ok(self.fd)
    }
}

/// As [`Detached::set`], of what is attached.
pub fn set(fd: &OwnedFd, attr: Attr, propagation: u64, recursive: bool) -> Done {
    mount::set_attr(fd, attr, propagation, recursive).map_err(|e| refused(fd, attr, e, recursive))
}

/// In a user namespace flags of the host's mount are locked (mount_namespaces(7)): says which one was to be cleared.
fn refused(fd: &OwnedFd, attr: Attr, errno: Errno, recursive: bool) -> Fault {
    let alone = |clear| {
        let attr = Attr { set: attr.set & clear, clear };
        mount::set_attr(fd, attr, 0, recursive) == Err(Errno::EPERM)
    };
    let locked = LOCKED.iter().find(|l| errno == Errno::EPERM && attr.clear & l.0 == l.0 && alone(l.0));
    let call = match locked {
        Some((_, call)) => call,
        None if mount::lacks_set_attr() => "mount MS_REMOUNT",
        None if recursive => "mount_setattr AT_RECURSIVE",
        None => "mount_setattr",
    };
    Fault { call, errno }
}

const LOCKED: [(u64, &str); 5] = [
    (RDONLY, "clear ro, which the user namespace above has locked: mount_setattr"),
    (NOSUID, "clear nosuid, which the user namespace above has locked: mount_setattr"),
    (NODEV, "clear nodev, which the user namespace above has locked: mount_setattr"),
    (NOEXEC, "clear noexec, which the user namespace above has locked: mount_setattr"),
    (ATIME, "change the atime rule, which the user namespace above has locked: mount_setattr"),
];
