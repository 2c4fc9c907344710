//! Pseudoterminals of the container (pts(4), tty_ioctl(4)).

use super::fd::owned;
use super::{Sys, check, check_int};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// ioctl(2) TIOCSPTLCK with 0: the slave may be opened.
pub fn unlock(master: impl AsFd) -> Sys {
    let zero: libc::c_int = 0;
    // SAFETY: this request reads one int.
    check_int(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSPTLCK as _, &zero) }).map(drop)
}

/// ioctl(2) TIOCGPTPEER: the slave, without a path that could be swapped.
pub fn peer(master: impl AsFd) -> Sys<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: this request takes flags as an integer.
    let fd = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTPEER as _, flags) };
    owned(check(fd as libc::c_long))
}

/// ioctl(2) TIOCGPTN: the number of the pty, N of /dev/pts/N.
pub fn number(master: impl AsFd) -> Sys<u32> {
    let mut n: libc::c_uint = 0;
    // SAFETY: this request writes one unsigned int.
    check_int(unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTN as _, &mut n) })?;
    Ok(n)
}

/// ioctl(2) TIOCSWINSZ, in characters.
pub fn set_size(tty: impl AsFd, rows: u16, columns: u16) -> Sys {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: this request reads one winsize.
    check_int(unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCSWINSZ as _, &size) }).map(drop)
}

/// ioctl(2) TIOCSCTTY: the terminal of our session.
pub fn make_controlling(tty: impl AsFd) -> Sys {
    // SAFETY: this request takes an integer.
    check_int(unsafe { libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCSCTTY as _, 0) }).map(drop)
}
