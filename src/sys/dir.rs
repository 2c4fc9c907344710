//! Directories, read without memory of their own.

use super::{Sys, check};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

/// getdents64(2): the number of bytes filled, 0 at the end.
pub fn entries(dir: impl AsFd, buf: &mut [u8]) -> Sys<usize> {
    let fd = dir.as_fd().as_raw_fd();
    // SAFETY: the buffer is valid for its length.
    check(unsafe { libc::syscall(libc::SYS_getdents64, fd, buf.as_mut_ptr(), buf.len()) }).map(|n| n as usize)
}

/// The next name in what [`entries`] filled, and the rest behind it.
pub fn next(buf: &[u8]) -> Option<(&CStr, &[u8])> {
    const NAME: usize = 19; // behind d_ino, d_off, d_reclen and d_type
    let length = u16::from_ne_bytes([*buf.get(16)?, *buf.get(17)?]) as usize;
    let record = buf.get(..length)?;
    Some((CStr::from_bytes_until_nul(record.get(NAME..)?).ok()?, &buf[length..]))
}
