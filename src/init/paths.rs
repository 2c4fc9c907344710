//! config-linux.md#masked-paths and #readonly-paths: one lookup each, and what is not there needs no cover.

use super::detached::Detached;
use super::mount::{FIXED, is_directory, small_tmpfs};
use super::{Done, During, Fault, Init};
use crate::plan::step::Attr;
use crate::sys::{Errno, fd, mount, path};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

impl Init<'_> {
    fn existing(&self, path: &CStr) -> Done<Option<OwnedFd>> {
        let mut buf = path::Buf::new();
        let (at, path) = match self.within(path.to_bytes()) {
            Some((mount, rest)) => (mount.as_fd(), buf.set(rest).during("openat2")?),
            None => (self.root()?, path),
        };
        match path::open(at, path, libc::O_PATH, 0, path::IN_ROOT) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(Fault { call: "openat2", errno }),
        }
    }

    /// The mount of /proc or /sys that it is in, and where.
    fn within<'p>(&self, path: &'p [u8]) -> Option<(&OwnedFd, &'p [u8])> {
        FIXED.iter().zip(&self.fixed).find_map(|(name, mount)| {
            let rest = path.strip_prefix(name.to_bytes())?.strip_prefix(b"/")?;
            Some((mount.as_ref()?, rest))
        })
    }

    pub(super) fn readonly_path(&mut self, path: &CStr) -> Done {
        let Some(target) = self.existing(path)? else { return Ok(()) };
        let copy = Detached::copy(&target, true, Attr::READ_ONLY, "open_tree")?;
        let copy = copy.attach(&target, "move_mount")?;
        self.leave(copy);
        self.leave(target);
        Ok(())
    }

    /// A file is covered by the host's null device, a directory by an empty tmpfs.
    pub(super) fn mask_path(&mut self, path: &CStr) -> Done {
        let Some(target) = self.existing(path)? else { return Ok(()) };
        let directory = is_directory(&target)?;
        let first = if directory { &mut self.mask } else { &mut self.null };
        match first {
            // With its attributes.
            Some(first) => {
                let copy = mount::clone_tree_at(first, false).during("open_tree of the mask")?;
                mount::attach(&copy, &target).during("move_mount of the mask")?;
                self.leave(copy);
            }
            None if directory => {
                let (mask, context) = small_tmpfs(Attr::READ_ONLY.set)?;
                *first = Some(Detached::new(mask).attach(&target, "move_mount of the mask")?);
                self.leave(context);
            }
            None => *first = Some(null_mask()?.attach(&target, "move_mount of /dev/null")?),
        }
        self.leave(target);
        Ok(())
    }
}

/// Writes go to a device all the same, but mode, owner and times of the host's node stay out of reach.
fn null_mask() -> Done<Detached> {
    Detached::copy(host_null()?, false, Attr::READ_ONLY, "open_tree of /dev/null")
}

/// The host's null device, which is still reachable by path: we have not pivoted yet. Verified all the same.
fn host_null() -> Done<OwnedFd> {
    let null = fd::open(c"/dev/null", libc::O_PATH | libc::O_NOFOLLOW, 0).during("open of /dev/null")?;
    let st = fd::stat(&null).during("fstat of /dev/null")?;
    if super::console::is_null(&st) {
        return Ok(null);
    }
    Err(Fault { call: "/dev/null is not the null device", errno: Errno::ENODEV })
}
