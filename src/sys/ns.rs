//! Namespaces, host names, interfaces, sessions and keyrings.

use super::fd::owned;
use super::{Sys, check, check_int};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// setns(2), with the type that the file must have.
pub fn enter(fd: impl AsFd, kind: i32) -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::setns(fd.as_fd().as_raw_fd(), kind) }).map(drop)
}

/// unshare(2)
pub fn unshare(flags: i32) -> Sys {
    // SAFETY: no memory is passed; only namespaces are unshared, never descriptors.
    check_int(unsafe { libc::unshare(flags) }).map(drop)
}

/// ioctl_ns(2) NS_GET_NSTYPE: the CLONE_NEW* flag of a namespace file.
pub fn kind(fd: impl AsFd) -> Sys<i32> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    // SAFETY: this request takes no argument.
    check_int(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE as _) })
}

/// sethostname(2)
pub fn set_hostname(name: &CStr) -> Sys {
    // SAFETY: pointer and length are those of the string.
    check_int(unsafe { libc::sethostname(name.as_ptr(), name.to_bytes().len()) }).map(drop)
}

/// setdomainname(2)
pub fn set_domainname(name: &CStr) -> Sys {
    // SAFETY: pointer and length are those of the string.
    check_int(unsafe { libc::setdomainname(name.as_ptr(), name.to_bytes().len()) }).map(drop)
}

/// setsid(2)
pub fn new_session() -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::setsid() }).map(drop)
}

/// keyctl(2) KEYCTL_JOIN_SESSION_KEYRING
pub fn join_session_keyring(name: &CStr) -> Sys<i64> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the name is a C string.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
}

/// netlink(7): a socket of rtnetlink, in the network namespace that we are in.
pub fn route_socket() -> Sys<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    owned(check(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) as libc::c_long }))
}

/// netdevice(7): sets IFF_UP on `lo`, by a socket that is of no more use.
pub fn loopback_up() -> Sys<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    let socket = owned(check(unsafe { libc::socket(libc::AF_INET, kind, 0) as libc::c_long }))?;
    // SAFETY: zero is a valid ifreq; the name is NUL-terminated within its array, and the request reads `ifr_flags`,
    // which was set. The structure outlives the call.
    unsafe {
        let mut req: libc::ifreq = std::mem::zeroed();
        req.ifr_name[0] = b'l' as _;
        req.ifr_name[1] = b'o' as _;
        req.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
        check_int(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &req))?;
    }
    Ok(socket)
}
