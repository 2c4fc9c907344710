//! seccomp(2).

use super::fd::owned;
use super::{Errno, Sys, check};
use std::os::fd::OwnedFd;

const SECCOMP_SET_MODE_FILTER: u32 = 1;
const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 8;

#[repr(C)]
struct Program {
    len: u16,
    filter: *const u64,
}

/// Loads a filter of `sock_filter` instructions, each in one u64. With `listener`, the notification descriptor.
pub fn load(program: &[u64], flags: u32, listener: bool) -> Sys<Option<OwnedFd>> {
    let prog = Program { len: program.len() as u16, filter: program.as_ptr() };
    let flags = flags | if listener { SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    // SAFETY: sock_filter is eight bytes without padding, and `len` of them stand behind the pointer.
    let ret = check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog) });
    if listener { owned(ret).map(Some) } else { ret.map(|_| None) }
}

/// Whether this kernel takes the flag: it looks at flags before it looks for the filter, which is missing here.
pub fn knows(flag: u32) -> bool {
    let beside = if flag == libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32 {
        SECCOMP_FILTER_FLAG_NEW_LISTENER // else EINVAL
    } else {
        0
    };
    let none = std::ptr::null::<Program>();
    // SAFETY: a null pointer is what EFAULT is for; nothing is loaded.
    let ret =
        check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flag | beside, none) });
    ret == Err(Errno::EFAULT)
}
