//! Directories, read without memory of their own.

use super::fd::owned;
use super::{Sys, check, check_int};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// getdents64(2): the number of bytes filled, 0 at the end.
pub fn entries(dir: impl AsFd, buf: &mut [u8]) -> Sys<usize> {
    let fd = dir.as_fd().as_raw_fd();
    // SAFETY: the buffer is valid for its length.
    check(unsafe { libc::syscall(libc::SYS_getdents64, fd, buf.as_mut_ptr(), buf.len()) }).map(|n| n as usize)
}

/// inotify(7): a descriptor that is readable once this directory is removed, and nobody has it open any more.
pub fn watch_removal(path: &CStr) -> Sys<OwnedFd> {
    let flags = libc::IN_CLOEXEC | libc::IN_NONBLOCK;
    // SAFETY: no memory is passed.
    let watch = owned(check(unsafe { libc::syscall(libc::SYS_inotify_init1, flags) }))?;
    let mask = libc::IN_DELETE_SELF | libc::IN_ONLYDIR;
    // SAFETY: the path is a C string.
    check_int(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), mask) })?;
    Ok(watch)
}

/// The next name in what [`entries`] filled, and the rest behind it.
pub fn next(buf: &[u8]) -> Option<(&CStr, &[u8])> {
    const NAME: usize = 19; // behind d_ino, d_off, d_reclen and d_type
    let length = u16::from_ne_bytes([*buf.get(16)?, *buf.get(17)?]) as usize;
    let record = buf.get(..length)?;
    Some((CStr::from_bytes_until_nul(record.get(NAME..)?).ok()?, &buf[length..]))
}
