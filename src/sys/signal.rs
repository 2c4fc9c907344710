//! Signals: dispositions, the mask, and signals as data (signalfd(2)).

use super::fd::{owned, read};
use super::{Errno, Sys, check, check_int};
use std::os::fd::{AsFd, OwnedFd};

/// Default action for the ignored signals (we ignore SIGPIPE) and an empty mask: execve(2) keeps both.
pub fn reset(ignored: u64) -> Sys {
    for signal in 1..=64 {
        if ignored & bit(signal) != 0 {
            set_default(signal)?;
        }
    }
    set_mask(0)
}

/// sigaction(2): the default action.
pub fn set_default(signal: i32) -> Sys {
    set(signal, libc::SIG_DFL)
}

/// sigaction(2): ignored.
pub fn ignore(signal: i32) -> Sys {
    set(signal, libc::SIG_IGN)
}

fn set(signal: i32, handler: libc::sighandler_t) -> Sys {
    // SAFETY: these four words are a valid sigaction (handler, flags, restorer, mask) for a handler that is no function.
    unsafe {
        let action = [handler as u64, 0, 0, 0]; // the kernel's own structure: libc's call refuses its own two signals
        let none = std::ptr::null_mut::<u64>();
        check(libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), none, size_of::<u64>()))
            .map(drop)
    }
}

/// sigaction(2): is it ignored?
pub fn is_ignored(signal: i32) -> Sys<bool> {
    // SAFETY: zero is a valid sigaction, which the kernel overwrites; nothing is set.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        check_int(libc::sigaction(signal, std::ptr::null(), &mut action))?;
        Ok(action.sa_sigaction == libc::SIG_IGN)
    }
}

/// The bit of a signal in the kernel's set of 64.
pub const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// rt_sigprocmask(2) of this thread, the system call itself: libc's would spare its own two signals.
pub fn set_mask(mask: u64) -> Sys {
    let none = std::ptr::null_mut::<u64>();
    // SAFETY: the set outlives the call and its size is passed.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &mask, none, size_of::<u64>())
    })
    .map(drop)
}

/// rt_sigtimedwait(2) without waiting: a signal that is blocked and has come is forgotten.
pub fn forget(signal: i32) {
    let (mask, none, at_once) = (bit(signal), std::ptr::null_mut::<libc::siginfo_t>(), [0i64; 2]);
    // SAFETY: the set, whose size is passed, and the time outlive the call; nothing is written.
    unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &mask, none, at_once.as_ptr(), size_of::<u64>()) };
}

/// signalfd4(2) of these signals, which must be blocked; close-on-exec, and it never blocks.
pub fn descriptor(mask: u64) -> Sys<OwnedFd> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the set outlives the call and its size is passed.
    owned(check(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &mask, size_of::<u64>(), flags) }))
}

/// The next signal of a signalfd with the pid of its sender (0 for the kernel); `None` when there is none.
pub fn next(signals: impl AsFd) -> Sys<Option<(i32, i32)>> {
    const SIZE: usize = size_of::<libc::signalfd_siginfo>();
    let mut buf = [0u8; SIZE];
    match read(signals, &mut buf) {
        Ok(SIZE) => {}
        Ok(_) | Err(Errno::EAGAIN) => return Ok(None),
        Err(e) => return Err(e),
    }
    // SAFETY: the kernel filled one whole structure, of integers only; the buffer need not be aligned.
    let info = unsafe { std::ptr::read_unaligned(buf.as_ptr().cast::<libc::signalfd_siginfo>()) };
    Ok(Some((info.ssi_signo as i32, info.ssi_pid as i32)))
}
