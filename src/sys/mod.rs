//! One function per system call, no policy: no retries but EINTR (and, bounded, openat2's EAGAIN), no logging, no
//! defaults. The only room with unsafe code. Nothing here allocates, so that `init` may call all of it.
#![allow(unsafe_code)]

#[cfg(debug_assertions)]
pub mod alloc;
pub mod bpf;
pub mod clone;
pub mod cred;
pub mod dir;
pub mod fd;
pub mod mount;
pub mod ns;
pub mod path;
pub mod pty;
pub mod remount;
pub mod seccomp;
pub mod shared;
pub mod signal;
pub mod start;
pub mod tty;

pub use nix::errno::Errno;

/// Result of a bare system call.
pub type Sys<T = ()> = Result<T, Errno>;

/// -1 becomes errno.
fn check(ret: libc::c_long) -> Sys<libc::c_long> {
    if ret == -1 { Err(Errno::last()) } else { Ok(ret) }
}

/// As [`check`] for calls that answer with an `int`.
fn check_int(ret: libc::c_int) -> Sys<libc::c_int> {
    if ret == -1 { Err(Errno::last()) } else { Ok(ret) }
}

/// Repeats a call that a signal interrupted.
fn retry(mut call: impl FnMut() -> libc::c_long) -> Sys<libc::c_long> {
    loop {
        match check(call()) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// The digits of a number, for paths and messages where nothing may be allocated.
pub fn decimal(mut value: u32, buf: &mut [u8; 10]) -> &[u8] {
    let mut at = buf.len();
    loop {
        at -= 1;
        buf[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &buf[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn decimals_of_numbers() {
        for n in [0, 1, 9, 10, 255, u32::MAX] {
            assert_eq!(super::decimal(n, &mut [0; 10]), n.to_string().as_bytes());
        }
    }
}
