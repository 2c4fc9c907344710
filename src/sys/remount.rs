//! mount(2) as it changes a mount that is attached: the way before mount_setattr(2), Linux 5.12.

use super::path::Buf;
use super::{Sys, check_int};
use crate::plan::mounts::options::{
    ATIME, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY, STRICTATIME,
};
use crate::plan::step::Attr;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

/// MS_NOSYMFOLLOW, Linux 5.10.
const MS_NOSYMFOLLOW: u64 = 0x100;
/// ST_NOSYMFOLLOW of statfs(2).
const ST_NOSYMFOLLOW: u64 = 0x2000;

/// MOUNT_ATTR_*, the flag of mount(2), and that of statfs(2). relatime and strictatime are told apart by neither's value.
const FLAGS: [(u64, u64, u64); 7] = [
    (RDONLY, libc::MS_RDONLY, libc::ST_RDONLY),
    (NOSUID, libc::MS_NOSUID, libc::ST_NOSUID),
    (NODEV, libc::MS_NODEV, libc::ST_NODEV),
    (NOEXEC, libc::MS_NOEXEC, libc::ST_NOEXEC),
    (NOATIME, libc::MS_NOATIME, libc::ST_NOATIME),
    (NODIRATIME, libc::MS_NODIRATIME, libc::ST_NODIRATIME),
    (NOSYMFOLLOW, MS_NOSYMFOLLOW, ST_NOSYMFOLLOW),
];

/// Attributes of the mount at `fd`, its root, alone; and its propagation, with all below when `recursive`.
pub fn set(fd: impl AsFd, attr: Attr, propagation: u64, recursive: bool) -> Sys {
    let mut buf = Buf::new();
    let path = of_descriptor(&mut buf, fd.as_fd().as_raw_fd())?;
    if !attr.is_empty() {
        // What is not named would be cleared.
        let now = of_statfs(super::fd::mount_flags(&fd)?);
        call(path, libc::MS_REMOUNT | libc::MS_BIND | of_mount(now & !attr.clear | attr.set))?;
    }
    if propagation == 0 { Ok(()) } else { propagate(path, propagation, recursive) }
}

/// The propagation of the mount at `path`.
pub fn propagate(path: &CStr, propagation: u64, recursive: bool) -> Sys {
    call(path, propagation | if recursive { libc::MS_REC } else { 0 })
}

fn of_statfs(flags: u64) -> u64 {
    let plain = FLAGS.iter().filter(|f| flags & f.2 != 0).fold(0, |all, f| all | f.0);
    let strict = flags & (libc::ST_RELATIME | libc::ST_NOATIME) == 0;
    plain | if strict { STRICTATIME } else { 0 }
}

fn of_mount(attr: u64) -> u64 {
    let plain = FLAGS.iter().filter(|f| attr & f.0 != 0).fold(0, |all, f| all | f.1);
    plain
        | match attr & ATIME {
            STRICTATIME => libc::MS_STRICTATIME,
            0 => libc::MS_RELATIME,
            _ => 0,
        }
}

/// mount(2) takes no descriptor; the link of procfs leads to the very mount.
fn of_descriptor(buf: &mut Buf, fd: i32) -> Sys<&CStr> {
    let (mut digits, mut at, mut rest) = ([0; 10], 10, fd.unsigned_abs());
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return buf.join(&[b"/proc/self/fd/", &digits[at..]]);
        }
    }
}

fn call(path: &CStr, flags: u64) -> Sys {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the path is a C string; source, type and data may be null for what changes a mount.
    check_int(unsafe { libc::mount(none, path.as_ptr(), none, flags, none.cast()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_mount_are_kept_unless_named() {
        for (statfs, attr, mount) in [
            (libc::ST_RELATIME, 0, libc::MS_RELATIME),
            (libc::ST_NOATIME | libc::ST_RDONLY, NOATIME | RDONLY, libc::MS_NOATIME | libc::MS_RDONLY),
            (libc::ST_NODIRATIME, STRICTATIME | NODIRATIME, libc::MS_STRICTATIME | libc::MS_NODIRATIME),
            (ST_NOSYMFOLLOW | libc::ST_RELATIME, NOSYMFOLLOW, MS_NOSYMFOLLOW | libc::MS_RELATIME),
        ] {
            assert_eq!((of_statfs(statfs), of_mount(attr)), (attr, mount));
        }
        let mut buf = Buf::new();
        assert_eq!(of_descriptor(&mut buf, 0).unwrap(), c"/proc/self/fd/0");
        assert_eq!(of_descriptor(&mut buf, 1_234_567_890).unwrap(), c"/proc/self/fd/1234567890");
    }
}
