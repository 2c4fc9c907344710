//! config-linux.md#devices: nodes and links in the container's /dev.

use super::{Done, During, Fault, Init};
use crate::plan::step::Device;
use crate::sys::{Errno, fd, path};
use std::ffi::CStr;
use std::os::fd::OwnedFd;

impl<'a> Init<'a> {
    /// Made by name in a directory that was opened, with its mode whatever the umask; what exists must be this very
    /// device (config-linux.md: "MUST generate an error").
    pub(super) fn device(&mut self, d: &'a Device) -> Done {
        let Some((parent, name)) = path::cut(&d.path) else {
            return Err(Fault { call: "mknodat", errno: Errno::EISDIR });
        };
        let near = self.near(parent, false)?;
        let (dir, mut buf) = (&near.dir, path::Buf::new());
        let name = buf.set(name).during("mknodat")?;
        if let Some(tree) = &d.bind {
            let from = self.tree(tree)?;
            check_node(&from.fd, d)?;
            let point = mount_point(dir, name, d)?;
            let node = from.attach(&point, "move_mount")?;
            self.leave(node);
            self.leave(point);
        } else {
            match path::mknod(dir, name, d.kind | d.mode, libc::makedev(d.major, d.minor)) {
                Err(Errno::EEXIST) => check_node(&open_node(dir, name)?, d)?,
                other => {
                    other.during("mknodat")?;
                    if (d.uid, d.gid) != (0, 0) {
                        path::chown(dir, name, d.uid, d.gid).during("fchownat")?;
                    }
                }
            }
        }
        self.near = Some(near);
        Ok(())
    }

    /// `only_if` is a file of the container that must be there. A link that is there already stays, unless it must be
    /// replaced (ptmx of an image).
    pub(super) fn symlink(
        &mut self,
        to: &CStr,
        at: &'a CStr,
        only_if: Option<&'a CStr>,
        replace: bool,
    ) -> Done {
        if only_if.map(|file| self.is_there(file)).transpose()? == Some(false) {
            return Ok(());
        }
        let Some((parent, name)) = path::cut(at) else {
            return Err(Fault { call: "symlinkat", errno: Errno::EISDIR });
        };
        let near = self.near(parent, false)?;
        let (dir, mut buf) = (&near.dir, path::Buf::new());
        let name = buf.set(name).during("symlinkat")?;
        match path::symlink(to, dir, name) {
            Err(Errno::EEXIST) if replace => {
                path::unlink(dir, name, 0).during("unlinkat")?;
                path::symlink(to, dir, name).during("symlinkat")?;
            }
            Err(Errno::EEXIST) => {}
            other => other.during("symlinkat")?,
        }
        self.near = Some(near);
        Ok(())
    }

    /// Several links ask for the same file.
    fn is_there(&mut self, file: &'a CStr) -> Done<bool> {
        if let Some((_, there)) = self.seen.filter(|seen| seen.0 == file) {
            return Ok(there);
        }
        let found = path::open(self.root()?, file, libc::O_PATH, 0, path::IN_ROOT);
        let there = found.is_ok();
        found.into_iter().for_each(|fd| self.leave(fd));
        self.seen = Some((file, there));
        Ok(there)
    }
}

fn open_node(dir: &OwnedFd, name: &CStr) -> Done<OwnedFd> {
    path::open(dir, name, libc::O_PATH | libc::O_NOFOLLOW, 0, path::NO_FOLLOW).during("openat2")
}

/// Never a link, which could lead the mount elsewhere: a new file, an empty one (of a run before), or the device.
fn mount_point(dir: &OwnedFd, name: &CStr, d: &Device) -> Done<OwnedFd> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
    match fd::openat(dir, name, flags, 0o644) {
        Ok(_) => return open_node(dir, name),
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Fault { call: "openat O_CREAT|O_EXCL", errno }),
    }
    let there = open_node(dir, name)?;
    let st = fd::stat(&there).during("fstat")?;
    if st.st_mode & libc::S_IFMT != libc::S_IFREG || st.st_size != 0 {
        check_node(&there, d)?;
    }
    Ok(there)
}

/// Type and number of a node, whoever made it (CVE-2025-31133).
fn check_node(node: &OwnedFd, d: &Device) -> Done {
    let st = fd::stat(node).during("fstat")?;
    let same_kind = st.st_mode & libc::S_IFMT == d.kind;
    if same_kind && (d.kind == libc::S_IFIFO || st.st_rdev == libc::makedev(d.major, d.minor)) {
        return Ok(());
    }
    Err(Fault { call: "the existing file is not this device: mknodat", errno: Errno::EEXIST })
}
