//! System calls: signal.

use super::{Sys, check, check_int};

/// Default action for SIGPIPE, which the Rust runtime ignores, and an empty mask: execve(2) keeps both.
pub fn reset() -> Sys {
    // SAFETY: zero is a valid sigaction and a valid, empty set; both outlive the calls.
    unsafe {
        let action: libc::sigaction = std::mem::zeroed();
        check_int(libc::sigaction(libc::SIGPIPE, &action, std::ptr::null_mut()))?;
        let empty = 0u64;
        let none = std::ptr::null_mut::<u64>();
        check(libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &empty, none, size_of::<u64>()))
            .map(drop)
    }
}
