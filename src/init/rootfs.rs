//! The rootfs: attached, entered, closed.

use super::detached::Detached;
use super::mount::Params;
use super::{Done, During, Fault, Init, mountpoint};
use crate::bundle::is_plain;
use crate::plan::step::{Attr, Tree};
use crate::sys::{Errno, Sys, fd, mount, path};
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// Our copy of the host's mount table stops sending events to the host.
pub fn isolate(flag: u64) -> Done {
    mount::propagate_path(c"/", flag, true).during("mount_setattr of /")
}

/// Names the layers to overlayfs.
fn stack(fs: &OwnedFd, params: &Params) -> Sys {
    for (key, value) in params {
        let mut value = value.as_deref();
        if let Some(dir) = value.filter(|v| v.to_bytes().starts_with(b"/") && !is_plain(v.to_bytes())) {
            path::chdir(dir)?; // we leave it with the pivot
            value = Some(c".");
        }
        mount::fs_set(fs, key, value)?;
    }
    mount::fs_create(fs)
}

/// The layers as one detached mount. Of one that is refused the file system's context tells more.
pub fn overlay(params: &Params) -> Result<OwnedFd, (Fault, Option<OwnedFd>)> {
    let fs = mount::fs_open(c"overlay").during("fsopen overlay").map_err(|f| (f, None))?;
    match stack(&fs, params) {
        Ok(()) => mount::fs_mount(&fs, 0).during("fsmount overlay").map_err(|f| (f, None)),
        Err(errno) => Err((Fault { call: "fsconfig overlay", errno }, Some(fs))),
    }
}

impl Init<'_> {
    pub(super) fn attach_root(&mut self, tree: &Tree, path: &CStr) -> Done {
        let tree = self.tree(tree)?;
        self.cover(tree, path)
    }

    /// The tree goes onto the rootfs' own path: hooks that enter our mount namespace before the pivot find it there,
    /// with all that we mount below, and may mount more. We ourselves look nothing up by that path again.
    ///
    /// Nothing that is mounted in the rootfs may appear on the host, and pivot_root(2) refuses a shared mount. What the
    /// host mounts below it comes in, unless linux.rootfsPropagation made the tree private.
    fn cover(&mut self, mut tree: Detached, path: &CStr) -> Done {
        tree.set(Attr::default(), libc::MS_SLAVE, true)?;
        let open = |path| fd::open(path, libc::O_PATH | libc::O_DIRECTORY, 0);
        let target = match open(path) {
            // A user namespace may not search the directories above; no hook that is inside can, either.
            Err(Errno::EACCES) => open(c"/"),
            other => other,
        };
        let target = target.during("open of the rootfs")?;
        self.root = Some(tree.attach(&target, "move_mount of the rootfs")?);
        Ok(())
    }

    /// The layers that `imgtool` left unmounted; the mount lives and dies with the container.
    pub(super) fn attach_overlay(&mut self, params: &Params, path: &CStr) -> Done {
        let fd = overlay(params).map_err(|(fault, fs)| {
            fs.iter().for_each(|fs| self.note_log(fs));
            fault
        })?;
        self.cover(Detached::new(fd), path)
    }

    /// Keeps what the kernel says of a file system it refused (fsopen(2): messages start with `e `).
    pub(super) fn note_log(&mut self, fs: &OwnedFd) {
        let mut buf = [0; 512];
        if let Ok(n) = fd::read(fs, &mut buf) {
            let text = buf[..n].strip_prefix(b"e ").unwrap_or(&buf[..n]);
            let text = text.strip_suffix(b"\n").unwrap_or(text);
            self.set_detail(&[text]);
        }
    }

    pub(super) fn open_root(&mut self, path: &CStr) -> Done {
        self.root = Some(fd::open(path, libc::O_PATH | libc::O_DIRECTORY, 0).during("open of the rootfs")?);
        Ok(())
    }

    /// By its descriptor and not by its path: when it was taken away again, nothing can be mounted in it.
    pub(super) fn take_root(&mut self, tree: usize) -> Done {
        let tree = self.slots.get_mut(tree).and_then(Option::take);
        self.root = Some(tree.ok_or(Fault { call: "slot", errno: Errno::EBADF })?);
        Ok(())
    }

    pub(super) fn pivot(&mut self) -> Done {
        path::enter(self.root()?).during("fchdir to the rootfs")?;
        mount::pivot_here().during("pivot_root")?;
        mount::detach_here().during("umount of the old root")?;
        path::chdir(c"/").during("chdir to /")
    }

    /// As switch_root(8), for a host whose root is a ramfs, which pivot_root(2) refuses.
    pub(super) fn move_root(&mut self) -> Done {
        mount::attach_path(self.root()?, c"/").during("move_mount of the rootfs to /")?;
        self.chroot()
    }

    pub(super) fn chroot(&mut self) -> Done {
        path::enter(self.root()?).during("fchdir to the rootfs")?;
        mount::chroot_here().during("chroot")?;
        path::chdir(c"/").during("chdir to /")
    }

    pub(super) fn root_propagation(&mut self, flag: u64, recursive: bool) -> Done {
        mount::propagate_path(c"/", flag, recursive).during("mount_setattr of the rootfs")
    }

    pub(super) fn readonly_root(&mut self) -> Done {
        mount::set_attr(self.root()?, Attr::READ_ONLY, 0, false)
            .during("mount_setattr MOUNT_ATTR_RDONLY of the rootfs")
    }

    pub(super) fn make_readonly(&mut self, target: &CStr) -> Done {
        let fd = path::open(self.root()?, target, libc::O_PATH, 0, path::IN_ROOT).during("openat2")?;
        mount::set_attr(&fd, Attr::READ_ONLY, 0, false).during("mount_setattr MOUNT_ATTR_RDONLY")
    }

    pub(super) fn find_or_make(&self, target: &CStr, directory: bool, strict: bool) -> Done<OwnedFd> {
        mountpoint::find_or_make(self.root()?, target, directory, strict)
    }

    pub(super) fn find_or_make_dir(&self, target: &CStr, strict: bool) -> Done<(OwnedFd, bool)> {
        mountpoint::find_or_make_dir(self.root()?, target, strict)
    }

    pub(super) fn make_dirs(&self, path: &CStr, strict: bool) -> Done<OwnedFd> {
        mountpoint::make_dirs(self.root()?, path, strict)
    }
}
