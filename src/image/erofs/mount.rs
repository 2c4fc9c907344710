//! Mounts of images, detached: they go with the last descriptor, however the process ends.

use crate::error::{Error, Result};
use crate::image::view::proc_path;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Mounts the image in a file (Linux 6.12) without a place; the descriptor is that of its root.
pub fn open(path: &Path) -> Result<OwnedFd> {
    let at = path.display().to_string();
    let os = |call: &'static str| {
        let at = at.clone();
        move |e: Errno| Error::os(at, call, e.raw_os_error())
    };
    let fs = mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(os("fsopen erofs"))?;
    let set = |source: &str| mount::fsconfig_set_string(fs.as_fd(), "source", source);
    let file; // open until the file system has opened it
    // A value has 256 bytes (fsconfig(2)).
    let set = match path.to_str().filter(|p| p.len() < 256) {
        Some(path) => set(path),
        None => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            file = rustix::fs::open(path, flags, Mode::empty()).map_err(os("open"))?;
            set(&proc_path(&file))
        }
    };
    set.map_err(os("fsconfig erofs source"))?;
    mount::fsconfig_create(fs.as_fd()).map_err(os("mount erofs"))?;
    mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
        .map_err(os("fsmount erofs"))
}
