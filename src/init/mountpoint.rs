//! Mount points in the rootfs: found, or made.

use super::{Done, During, Fault};
use crate::sys::{Errno, Sys, fd, path};
use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

/// A mount point.
pub struct Point {
    pub fd: OwnedFd,
    /// It was made for this.
    pub made: bool,
}

/// Opens `target` inside the rootfs, and makes it and its missing parents first when it is not there: one component
/// at a time, never following a link in what we made (CVE-2024-45310). `strict`: a link in it is an error.
pub fn find_or_make(root: BorrowedFd, target: &CStr, directory: bool, strict: bool) -> Done<Point> {
    let flags = libc::O_PATH | if directory { libc::O_DIRECTORY } else { 0 };
    let (fd, made) = match path::open(root, target, flags, 0, in_root(strict)) {
        Err(Errno::ENOENT) if directory => (make_missing(root, target, strict)?, true),
        Err(Errno::ENOENT) => (make_file(root, target, strict)?, true),
        found => (found.during("openat2 of the mount point")?, false),
    };
    Ok(Point { fd, made })
}

/// The directory `target`, and whether no link led there. Nearly always none is in the way, which is asked first: what was
/// found so needs no look at where it is.
pub fn find(root: BorrowedFd, target: &CStr, strict: bool) -> (Sys<OwnedFd>, bool) {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    match path::open(root, target, flags, 0, in_root(true)) {
        Err(Errno::ELOOP) if !strict => (path::open(root, target, flags, 0, in_root(false)), false),
        other => (other, true),
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
        Err(Errno::ENOENT) => make_missing(root, path, strict),
        other => other.during("openat2"),
    }
}

/// As [`make_dirs`], for what is known not to be there.
fn make_missing(root: BorrowedFd, path: &CStr, strict: bool) -> Done<OwnedFd> {
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

/// As [`make_missing`]; `None` when a link to what is missing is in the way: then `next` is where it leads.
fn make_dirs_to_link(
    root: BorrowedFd,
    path: &CStr,
    strict: bool,
    next: &mut path::Buf,
) -> Done<Option<OwnedFd>> {
    let bytes = path.to_bytes();
    let (mut at, mut end) = deepest(root, bytes, strict)?;
    let mut name = path::Buf::new();
    while end < bytes.len() {
        let start = end + usize::from(bytes[end] == b'/');
        end = bytes[start..].iter().position(|b| *b == b'/').map_or(bytes.len(), |n| start + n);
        let part = &bytes[start..end];
        if part.is_empty() || part == b"." {
            continue;
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

/// The longest part of a path that is there, and its length. Mostly it is the last name alone that is missing.
fn deepest(root: BorrowedFd, path: &[u8], strict: bool) -> Done<(OwnedFd, usize)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let mut prefix = path::Buf::new();
    let mut end = path.len();
    while let Some(slash) = path[..end].iter().rposition(|b| *b == b'/').filter(|n| *n > 0) {
        end = slash;
        match path::open(root, prefix.set(&path[..end]).during("openat2")?, flags, 0, in_root(strict)) {
            Err(Errno::ENOENT) => {}
            other => return Ok((other.during("openat2")?, end)),
        }
    }
    Ok((path::open(root, c".", flags, 0, path::IN_ROOT).during("openat2")?, 0))
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
