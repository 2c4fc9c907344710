//! Paths inside a directory that may be hostile: every component is resolved below it.

use super::fd::owned;
use super::{Errno, Sys, check, check_int};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Links and `..` are followed as if the directory were the root.
pub const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// Nothing may lead out, not even over a mount.
pub const BENEATH: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS | libc::RESOLVE_NO_XDEV;
/// No link at all.
pub const NO_LINKS: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;

/// One name, and no link as the last component.
pub const NO_FOLLOW: u64 = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;

/// openat2(2), always close-on-exec. EAGAIN (a rename in the tree while it resolved `..`) is tried again, bounded.
pub fn open(dir: impl AsFd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Sys<OwnedFd> {
    // SAFETY: zero is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = mode as u64;
    how.resolve = resolve;
    let mut tries = 0;
    loop {
        // SAFETY: path and `how` outlive the call, and the size passed is that of `how`.
        let ret = check(unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir.as_fd().as_raw_fd(),
                path.as_ptr(),
                &how,
                size_of::<libc::open_how>(),
            )
        });
        match ret {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if tries < 128 => tries += 1,
            other => return owned(other),
        }
    }
}

/// mkdirat(2)
pub fn mkdir(dir: impl AsFd, name: &CStr, mode: u32) -> Sys {
    // SAFETY: the name is a C string.
    check_int(unsafe { libc::mkdirat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode) }).map(drop)
}

/// mknodat(2)
pub fn mknod(dir: impl AsFd, name: &CStr, mode: u32, dev: u64) -> Sys {
    // SAFETY: the name is a C string.
    check_int(unsafe { libc::mknodat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode, dev) }).map(drop)
}

/// symlinkat(2)
pub fn symlink(target: &CStr, dir: impl AsFd, name: &CStr) -> Sys {
    // SAFETY: both are C strings.
    check_int(unsafe { libc::symlinkat(target.as_ptr(), dir.as_fd().as_raw_fd(), name.as_ptr()) }).map(drop)
}

/// unlinkat(2)
pub fn unlink(dir: impl AsFd, name: &CStr, flags: i32) -> Sys {
    // SAFETY: the name is a C string.
    check_int(unsafe { libc::unlinkat(dir.as_fd().as_raw_fd(), name.as_ptr(), flags) }).map(drop)
}

/// rmdir(2)
pub fn remove_dir(path: &CStr) -> Sys {
    // SAFETY: the path is a C string.
    check_int(unsafe { libc::rmdir(path.as_ptr()) }).map(drop)
}

/// fchmodat(2) of a name in a directory, which the caller has just made.
pub fn chmod(dir: impl AsFd, name: &CStr, mode: u32) -> Sys {
    // SAFETY: the name is a C string.
    check_int(unsafe { libc::fchmodat(dir.as_fd().as_raw_fd(), name.as_ptr(), mode, 0) }).map(drop)
}

/// fchownat(2), never following a link.
pub fn chown(dir: impl AsFd, name: &CStr, uid: u32, gid: u32) -> Sys {
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the name is a C string.
    check_int(unsafe { libc::fchownat(dir.as_fd().as_raw_fd(), name.as_ptr(), uid, gid, flags) }).map(drop)
}

/// utimensat(2), never following a link: times of access and modification, as stat(2) told them.
pub fn set_times(dir: impl AsFd, name: &CStr, st: &libc::stat) -> Sys {
    let time = |tv_sec, tv_nsec| libc::timespec { tv_sec, tv_nsec };
    let times = [time(st.st_atime, st.st_atime_nsec), time(st.st_mtime, st.st_mtime_nsec)];
    let (dir, flags) = (dir.as_fd().as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: the name is a C string, and two times are passed.
    check_int(unsafe { libc::utimensat(dir, name.as_ptr(), times.as_ptr(), flags) }).map(drop)
}

/// readlinkat(2) into `buf`; the length of the target, which may have been cut to the buffer.
pub fn readlink(dir: impl AsFd, name: &CStr, buf: &mut [u8]) -> Sys<usize> {
    // SAFETY: the name is a C string, the buffer valid for its length.
    check(unsafe {
        libc::readlinkat(dir.as_fd().as_raw_fd(), name.as_ptr(), buf.as_mut_ptr().cast(), buf.len())
            as libc::c_long
    })
    .map(|n| n as usize)
}

/// faccessat(2) X_OK with the effective ids.
pub fn may_execute(path: &CStr) -> Sys {
    // SAFETY: the path is a C string.
    check(unsafe {
        libc::syscall(libc::SYS_faccessat2, libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS)
    })
    .map(drop)
}

/// faccessat(2) F_OK
pub fn exists(dir: impl AsFd, path: &CStr) -> bool {
    // SAFETY: the path is a C string.
    check(unsafe { libc::syscall(libc::SYS_faccessat, dir.as_fd().as_raw_fd(), path.as_ptr(), libc::F_OK) })
        .is_ok()
}

/// stat(2)
pub fn stat(path: &CStr) -> Sys<libc::stat> {
    let mut st = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the path is a C string; the kernel fills the buffer, which has the right size.
    check_int(unsafe { libc::stat(path.as_ptr(), st.as_mut_ptr()) })?;
    // SAFETY: filled by the successful call above.
    Ok(unsafe { st.assume_init() })
}

/// The part before the last slash and the last name of a path below a root, without trailing slashes; `None` for the
/// root itself or a name that is `.` or `..`.
pub fn split<'a>(path: &CStr, dir: &'a mut Buf, name: &'a mut Buf) -> Sys<Option<(&'a CStr, &'a CStr)>> {
    let Some((parent, last)) = cut(path) else { return Ok(None) };
    Ok(Some((dir.set(parent)?, name.set(last)?)))
}

/// As [`split`], in place; a parent other than `/` has no slash at its end.
pub fn cut(path: &CStr) -> Option<(&[u8], &[u8])> {
    let bytes = trimmed(path.to_bytes());
    let at = bytes.iter().rposition(|b| *b == b'/').map_or(0, |n| n + 1);
    let (parent, last) = bytes.split_at(at);
    let parent = match trimmed(parent) {
        b"" if at == 0 => b".",
        b"" => b"/",
        parent => parent,
    };
    (!last.is_empty() && last != b"." && last != b"..").then_some((parent, last))
}

/// Without slashes at its end.
fn trimmed(mut path: &[u8]) -> &[u8] {
    while let [rest @ .., b'/'] = path {
        path = rest;
    }
    path
}

/// A path of at most PATH_MAX bytes on the stack.
pub struct Buf([u8; 4096]);

impl Buf {
    pub fn new() -> Self {
        Self([0; 4096])
    }

    /// Copies `bytes`, which must have no NUL and leave room for one.
    pub fn set(&mut self, bytes: &[u8]) -> Sys<&CStr> {
        self.join(&[bytes])
    }

    /// What was copied last.
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }

    /// The bytes, for a table of pointers; they end with a NUL.
    pub fn as_ptr(&self) -> *const std::ffi::c_char {
        self.0.as_ptr().cast()
    }

    /// Copies the parts one behind the other.
    pub fn join(&mut self, parts: &[&[u8]]) -> Sys<&CStr> {
        let mut len = 0;
        for part in parts {
            let end = len + part.len();
            if end >= self.0.len() {
                return Err(Errno::ENAMETOOLONG);
            }
            self.0[len..end].copy_from_slice(part);
            len = end;
        }
        self.0[len] = 0;
        CStr::from_bytes_with_nul(&self.0[..=len]).map_err(|_| Errno::EINVAL)
    }
}

impl Default for Buf {
    fn default() -> Self {
        Self::new()
    }
}

/// fchdir(2)
pub fn enter(dir: BorrowedFd) -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fchdir(dir.as_raw_fd()) }).map(drop)
}

/// chdir(2)
pub fn chdir(path: &CStr) -> Sys {
    // SAFETY: the path is a C string.
    check_int(unsafe { libc::chdir(path.as_ptr()) }).map(drop)
}

/// getcwd(2) itself, which says `(unreachable)` for a directory outside the root; glibc's would walk the tree.
pub fn cwd(buf: &mut [u8]) -> Sys<usize> {
    // SAFETY: the buffer is valid for its length.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buf.as_mut_ptr(), buf.len()) }).map(|n| n as usize)
}
