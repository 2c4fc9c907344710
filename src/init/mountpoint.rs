//! Mount points in the rootfs: found, or made.

use super::{Done, During, Fault};
use crate::sys::{Errno, fd, path};
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Opens `target` inside the rootfs, and makes it and its missing parents first when it is not there: one component
/// at a time, never following a link in what we made (CVE-2024-45310).
pub fn find_or_make(root: BorrowedFd, target: &CStr, directory: bool, strict: bool) -> Done<OwnedFd> {
    if directory {
        return Ok(find_or_make_dir(root, target, strict)?.0);
    }
    match path::open(root, target, libc::O_PATH, 0, in_root(strict)) {
        Err(Errno::ENOENT) => make_file(root, target, strict),
        other => other.during("openat2 of the mount point"),
    }
}

/// The directory `target`, and whether it was made for this.
pub fn find_or_make_dir(root: BorrowedFd, target: &CStr, strict: bool) -> Done<(OwnedFd, bool)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match path::open(root, target, flags, 0, in_root(strict)) {
        Err(Errno::ENOENT) => Ok((make_dirs(root, target, strict)?, true)),
        other => Ok((other.during("openat2 of the mount point")?, false)),
    }
}

fn make_file(root: BorrowedFd, target: &CStr, strict: bool) -> Done<OwnedFd> {
    let (mut dir_buf, mut name_buf, mut now) = (path::Buf::new(), path::Buf::new(), path::Buf::new());
    now.set(target.to_bytes()).during("openat of the mount point")?;
    for _ in 0..MAX_LINKS {
        let split = path::split(now.as_c_str(), &mut dir_buf, &mut name_buf);
        let Some((parent, name)) = split.during("openat of the mount point")? else {
            return Err(Fault { call: "openat of the mount point", errno: Errno::EISDIR });
        };
        let dir = make_dirs(root, parent, strict)?;
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
pub fn make_dirs(root: BorrowedFd, path: &CStr, strict: bool) -> Done<OwnedFd> {
    match path::open(root, path, libc::O_PATH | libc::O_DIRECTORY, 0, in_root(strict)) {
        Err(Errno::ENOENT) => {}
        other => return other.during("openat2"),
    }
    let mut now = path::Buf::new();
    now.set(path.to_bytes()).during("mkdirat")?;
    for _ in 0..MAX_LINKS {
        let mut next = path::Buf::new();
        match make_dirs_to_link(root, now.as_c_str(), strict, &mut next)? {
            Some(dir) => return Ok(dir),
            None => now = next,
        }
    }
    Err(Fault { call: "openat2", errno: Errno::ELOOP })
}

/// As [`make_dirs`]; `None` when a link to what is missing is in the way: then `next` is where it leads.
fn make_dirs_to_link(
    root: BorrowedFd,
    path: &CStr,
    strict: bool,
    next: &mut path::Buf,
) -> Done<Option<OwnedFd>> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
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
