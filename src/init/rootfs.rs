//! The rootfs: attached, entered, closed.

use super::detached::Detached;
use super::mount::Params;
use super::mountpoint::Point;
use super::{Done, During, Fault, Init, mountpoint};
use crate::bundle::{IMAGE, MAX_LOWERS, is_plain};
use crate::plan::step::{Attr, Tree};
use crate::sys::{Errno, fd, mount, path};
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// Our copy of the host's mount table stops sending events to the host.
pub fn isolate(flag: u64) -> Done {
    mount::propagate_path(c"/", flag, true).during("mount_setattr of /")
}

/// Names the layers to overlayfs.
fn stack(fs: &OwnedFd, params: &Params) -> Done {
    // Without a place they end with their descriptors, so these stay until overlayfs has mounts of its own.
    let mut images = [const { None }; MAX_LOWERS];
    let mut free = images.iter_mut();
    for (key, value) in params {
        let mut value = value.as_deref();
        if let Some(path) = value.filter(|_| key.to_bytes() == IMAGE.as_bytes()) {
            let held =
                free.next().ok_or(Fault { call: "fsconfig overlay lowerdir+", errno: Errno::E2BIG })?;
            let root = held.insert(image(path)?);
            mount::fs_set_fd(fs, c"lowerdir+", root).during("fsconfig overlay lowerdir+")?;
            continue;
        }
        if let Some(dir) = value.filter(|v| v.to_bytes().starts_with(b"/") && !is_plain(v.to_bytes())) {
            path::chdir(dir).during("chdir to a layer")?; // we leave it with the pivot
            value = Some(c".");
        }
        mount::fs_set(fs, key, value).during("fsconfig overlay")?;
    }
    mount::fs_create(fs).during("fsconfig overlay")
}

/// The root of an EROFS image, mounted from its file for overlayfs alone.
fn image(path: &CStr) -> Done<OwnedFd> {
    let fs = mount::fs_open(c"erofs").during("fsopen erofs")?;
    let (mut source, mut buf) = (path, path::Buf::new());
    if let Some((dir, name)) = path::cut(path).filter(|_| path.to_bytes().len() > 255) {
        buf.set(dir).and_then(path::chdir).during("chdir to a layer")?;
        source = buf.set(name).during("chdir to a layer")?;
    }
    mount::fs_set(&fs, c"source", Some(source)).during("fsconfig erofs source")?;
    mount::fs_create(&fs).during("mount erofs")?;
    mount::fs_mount(&fs, Attr::READ_ONLY.set).during("fsmount erofs")
}

/// The layers as one detached mount. Of one that is refused the file system's context tells more.
pub fn overlay(params: &Params) -> Result<OwnedFd, (Fault, Option<OwnedFd>)> {
    let fs = mount::fs_open(c"overlay").during("fsopen overlay").map_err(|f| (f, None))?;
    match stack(&fs, params) {
        Ok(()) => mount::fs_mount(&fs, 0).during("fsmount overlay").map_err(|f| (f, None)),
        Err(fault) => Err((fault, Some(fs))),
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
        self.leave(target);
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

    pub(super) fn make_dirs(&self, path: &CStr, strict: bool) -> Done<OwnedFd> {
        mountpoint::make_dirs(self.root()?, path, strict)
    }
}

/// The directory that something was made in, opened once for all that follow there (CVE-2026-41579). Only steps that
/// cannot cover or move it are in between.
pub(super) struct Near<'a> {
    path: &'a [u8],
    pub dir: OwnedFd,
    /// No link led there.
    literal: bool,
}

impl<'a> Init<'a> {
    /// The directory `path`, made if it is missing; `strict`: a link in it is an error. The caller gives it back.
    pub(super) fn near(&mut self, path: &'a [u8], strict: bool) -> Done<Near<'a>> {
        match self.near.take() {
            Some(near) if near.path == path && (near.literal || !strict) => return Ok(near),
            Some(other) => self.leave(other.dir),
            None => {}
        }
        let mut name = path::Buf::new();
        let name = name.set(path).during("openat2")?;
        let (dir, literal) = match mountpoint::find(self.root()?, name, strict) {
            (Err(Errno::ENOENT), _) => (self.make_dirs(name, strict)?, strict),
            (found, literal) => (found.during("openat2")?, literal),
        };
        Ok(Near { path, dir, literal })
    }

    /// What follows may lie on another mount.
    pub(super) fn forget_near(&mut self) {
        if let Some(near) = self.near.take() {
            self.leave(near.dir);
        }
        self.seen = None;
    }

    /// The mount point `target`, made if it is missing.
    pub(super) fn point(&mut self, target: &'a CStr, directory: bool, strict: bool) -> Done<Point> {
        if !directory {
            return mountpoint::find_or_make(self.root()?, target, directory, strict);
        }
        if let Some(point) = self.point_near(target, strict)? {
            return Ok(point);
        }
        self.forget_near(); // a mount may cover it
        match (mountpoint::find(self.root()?, target, strict), path::cut(target)) {
            ((Ok(fd), _), _) => return Ok(Point { fd, made: false }),
            // The next one may be missing from the same directory.
            ((Err(Errno::ENOENT), true), Some((parent, _))) => {
                self.near = Some(self.near(parent, strict)?);
                if let Some(point) = self.point_near(target, strict)? {
                    return Ok(point);
                }
            }
            _ => {}
        }
        mountpoint::find_or_make(self.root()?, target, directory, strict)
    }

    /// The same in the directory that is open: made first, since in a new file system nothing is there. `None` where
    /// that is not the place, or not plain.
    fn point_near(&self, target: &'a CStr, strict: bool) -> Done<Option<Point>> {
        let (Some(near), Some((parent, name))) = (&self.near, path::cut(target)) else { return Ok(None) };
        if parent != near.path || strict && !near.literal {
            return Ok(None);
        }
        let mut buf = path::Buf::new();
        let name = buf.set(name).during("mkdirat")?;
        let made = match path::mkdir(&near.dir, name, 0o755) {
            Err(Errno::EEXIST) => false,
            Err(_) => return Ok(None),
            Ok(()) => true,
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let fd = path::open(&near.dir, name, flags, 0, path::NO_LINKS).ok();
        Ok(fd.map(|fd| Point { fd, made }))
    }
}
