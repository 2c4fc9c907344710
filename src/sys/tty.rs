//! The caller's terminal (termios(3), tty_ioctl(4)).

use super::{Sys, check_int};
use std::os::fd::{AsFd, AsRawFd};

/// A terminal's settings.
#[derive(Clone, Copy)]
pub struct Modes(libc::termios);

/// tcgetattr(3); ENOTTY for what is no terminal.
pub fn modes(tty: impl AsFd) -> Sys<Modes> {
    // SAFETY: zero is a valid termios, which the call fills.
    unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        check_int(libc::tcgetattr(tty.as_fd().as_raw_fd(), &mut modes))?;
        Ok(Modes(modes))
    }
}

/// tcsetattr(3), at once: waiting for output could take as long as the reader likes.
pub fn set_modes(tty: impl AsFd, modes: &Modes) -> Sys {
    // SAFETY: the structure was filled by tcgetattr and outlives the call.
    check_int(unsafe { libc::tcsetattr(tty.as_fd().as_raw_fd(), libc::TCSANOW, &modes.0) }).map(drop)
}

impl Modes {
    /// cfmakeraw(3): every byte passes as it is.
    pub fn raw(mut self) -> Self {
        // SAFETY: it changes fields of the structure, nothing else.
        unsafe { libc::cfmakeraw(&mut self.0) };
        self
    }

    /// The byte that means end of file (VEOF).
    pub fn end_of_file(&self) -> u8 {
        self.0.c_cc[libc::VEOF]
    }
}

/// ioctl(2) TIOCGWINSZ: rows and columns.
pub fn size(tty: impl AsFd) -> Sys<(u16, u16)> {
    // SAFETY: zero is a valid winsize, which this request fills.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        check_int(libc::ioctl(tty.as_fd().as_raw_fd(), libc::TIOCGWINSZ as _, &mut size))?;
        Ok((size.ws_row, size.ws_col))
    }
}
