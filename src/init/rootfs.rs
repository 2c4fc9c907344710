//! The rootfs: attached, entered, closed.

use super::mount::Params;
use super::{Done, During, Fault, Init};
use crate::bundle::is_plain;
use crate::plan::step::{Attr, Tree};
use crate::sys::{Errno, Sys, fd, mount, path};
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// Our copy of the host's mount table stops sending events to the host.
pub fn isolate(flag: u64) -> Done {
    mount::set_attr_path(c"/", Attr::default(), flag, true).during("mount_setattr of /")
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

impl Init<'_> {
    pub(super) fn attach_root(&mut self, tree: &Tree, path: &CStr) -> Done {
        let fd = self.tree(tree)?;
        self.cover(fd, path)
    }

    /// The tree goes onto the rootfs' own path: hooks that enter our mount namespace before the pivot find it there, with
    /// all that we mount below, and may mount more. We ourselves look nothing up by that path again.
    ///
    /// Nothing that is mounted in the rootfs may appear on the host, and pivot_root(2) refuses a shared mount. What the
    /// host mounts below it comes in, unless linux.rootfsPropagation made the tree private.
    fn cover(&mut self, fd: OwnedFd, path: &CStr) -> Done {
        mount::set_attr(&fd, Attr::default(), libc::MS_SLAVE, true).during("mount_setattr of the rootfs")?;
        let open = |path| fd::open(path, libc::O_PATH | libc::O_DIRECTORY, 0);
        let target = match open(path) {
            // A user namespace may not search the directories above; no hook that is inside can, either.
            Err(Errno::EACCES) => open(c"/"),
            other => other,
        };
        let target = target.during("open of the rootfs")?;
        mount::attach(&fd, &target).during("move_mount of the rootfs")?;
        self.root = Some(fd);
        Ok(())
    }

    /// The layers that `imgtool` left unmounted; the mount lives and dies with the container.
    pub(super) fn attach_overlay(&mut self, params: &Params, path: &CStr) -> Done {
        let fs = mount::fs_open(c"overlay").during("fsopen overlay")?;
        if let Err(errno) = stack(&fs, params) {
            self.note_log(&fs);
            return Err(Fault { call: "fsconfig overlay", errno });
        }
        let fd = mount::fs_mount(&fs, 0).during("fsmount overlay")?;
        self.cover(fd, path)
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
        mount::set_attr(self.root()?, Attr::default(), flag, recursive).during("mount_setattr of the rootfs")
    }

    pub(super) fn readonly_root(&mut self) -> Done {
        mount::set_attr(self.root()?, Attr::READ_ONLY, 0, false)
            .during("mount_setattr MOUNT_ATTR_RDONLY of the rootfs")
    }

    pub(super) fn make_readonly(&mut self, target: &CStr) -> Done {
        let fd = path::open(self.root()?, target, libc::O_PATH, 0, path::IN_ROOT).during("openat2")?;
        mount::set_attr(&fd, Attr::READ_ONLY, 0, false).during("mount_setattr MOUNT_ATTR_RDONLY")
    }

    /// Opens `target` inside the rootfs, and makes it and its missing parents first when it is not there: one component
    /// at a time, never following a link in what we made (CVE-2024-45310).
    pub(super) fn find_or_make(&self, target: &CStr, directory: bool, strict: bool) -> Done<OwnedFd> {
        if directory {
            return Ok(self.find_or_make_dir(target, strict)?.0);
        }
        match path::open(self.root()?, target, libc::O_PATH, 0, in_root(strict)) {
            Err(Errno::ENOENT) => self.make_file(target, strict),
            other => other.during("openat2 of the mount point"),
        }
    }

    /// The directory `target`, and whether it was made for this.
    pub(super) fn find_or_make_dir(&self, target: &CStr, strict: bool) -> Done<(OwnedFd, bool)> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        match path::open(self.root()?, target, flags, 0, in_root(strict)) {
            Err(Errno::ENOENT) => Ok((self.make_dirs(target, strict)?, true)),
            other => Ok((other.during("openat2 of the mount point")?, false)),
        }
    }

    fn make_file(&self, target: &CStr, strict: bool) -> Done<OwnedFd> {
        let (mut dir_buf, mut name_buf, mut now) = (path::Buf::new(), path::Buf::new(), path::Buf::new());
        now.set(target.to_bytes()).during("openat of the mount point")?;
        for _ in 0..MAX_LINKS {
            let split = path::split(now.as_c_str(), &mut dir_buf, &mut name_buf);
            let Some((parent, name)) = split.during("openat of the mount point")? else {
                return Err(Fault { call: "openat of the mount point", errno: Errno::EISDIR });
            };
            let dir = self.make_dirs(parent, strict)?;
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
            match fd::openat(&dir, name, flags, 0o755) {
                Ok(_) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(Fault { call: "openat O_CREAT|O_EXCL of the mount point", errno }),
            }
            match path::open(&dir, name, libc::O_PATH, 0, path::NO_LINKS) {
                Err(Errno::ELOOP) if !strict => follow(&dir, name, parent.to_bytes(), b"", &mut now)?,
                other => return other.during("openat2 of the mount point"),
            }
        }
        Err(Fault { call: "openat2 of the mount point", errno: Errno::ELOOP })
    }

    /// The directory `path`, with what is missing of it made 0755. A link to what is missing is followed inside the
    /// rootfs, and that is made: images have /etc/resolv.conf and /var/run so.
    pub(super) fn make_dirs(&self, path: &CStr, strict: bool) -> Done<OwnedFd> {
        match path::open(self.root()?, path, libc::O_PATH | libc::O_DIRECTORY, 0, in_root(strict)) {
            Err(Errno::ENOENT) => {}
            other => return other.during("openat2"),
        }
        let mut now = path::Buf::new();
        now.set(path.to_bytes()).during("mkdirat")?;
        for _ in 0..MAX_LINKS {
            let mut next = path::Buf::new();
            match self.make_dirs_to_link(now.as_c_str(), strict, &mut next)? {
                Some(dir) => return Ok(dir),
                None => now = next,
            }
        }
        Err(Fault { call: "openat2", errno: Errno::ELOOP })
    }

    /// As [`Self::make_dirs`]; `None` when a link to what is missing is in the way: then `next` is where it leads.
    fn make_dirs_to_link(&self, path: &CStr, strict: bool, next: &mut path::Buf) -> Done<Option<OwnedFd>> {
        let (root, flags) = (self.root()?, libc::O_PATH | libc::O_DIRECTORY);
        let bytes = path.to_bytes();
        let mut at = path::open(root, c".", flags, 0, path::IN_ROOT).during("openat2")?;
        let (mut made, mut prefix, mut name) = (false, path::Buf::new(), path::Buf::new());
        let mut end = 0;
        while end < bytes.len() {
            let start = end + usize::from(bytes[end] == b'/');
            end = bytes[start..].iter().position(|b| *b == b'/').map_or(bytes.len(), |n| start + n);
            let part = &bytes[start..end];
            if part.is_empty() || part == b"." {
                continue;
            }
            if !made {
                let so_far = prefix.set(&bytes[..end]).during("openat2")?;
                match path::open(root, so_far, flags, 0, in_root(strict)) {
                    Err(Errno::ENOENT) => made = true,
                    Ok(dir) => {
                        at = dir;
                        continue;
                    }
                    Err(errno) => return Err(Fault { call: "openat2", errno }),
                }
            }
            if part == b".." {
                return Err(Fault { call: "mkdirat", errno: Errno::ENOENT });
            }
            let name = name.set(part).during("mkdirat")?;
            match make_dir(&at, name) {
                Err(Fault { errno: Errno::ELOOP, .. }) if !strict => {
                    follow(&at, name, &bytes[..start], &bytes[end..], next)?;
                    return Ok(None);
                }
                other => at = other?,
            }
        }
        Ok(Some(at))
    }
}

/// How a path of the container is resolved; `strict`: not over any link.
pub(super) fn in_root(strict: bool) -> u64 {
    path::IN_ROOT | if strict { libc::RESOLVE_NO_SYMLINKS } else { 0 }
}

/// As many links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Puts into `next` the path that a link in `dir` makes of `before`/link/`after`; its own `..` are for the kernel to
/// resolve, below the rootfs.
fn follow(dir: &OwnedFd, link: &CStr, before: &[u8], after: &[u8], next: &mut path::Buf) -> Done {
    let mut buf = [0; 4096];
    let n = path::readlink(dir, link, &mut buf).during("readlinkat")?;
    let to = &buf[..n];
    let from = if to.first() == Some(&b'/') { &b""[..] } else { before };
    next.join(&[from, b"/", to, b"/", after]).during("readlinkat").map(drop)
}

fn make_dir(dir: &OwnedFd, name: &CStr) -> Done<OwnedFd> {
    match path::mkdir(dir, name, 0o755) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(Fault { call: "mkdirat", errno }),
    }
    path::open(dir, name, libc::O_PATH | libc::O_DIRECTORY, 0, path::NO_LINKS).during("openat2")
}
