//! System calls: bpf.

use super::fd::owned;
use super::{Sys, check};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
/// Programs of this cgroup and of those above and below all have to agree.
const ALLOW_MULTI: u32 = 2;

/// The first fields of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C, align(8))]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The first fields of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C, align(8))]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// bpf(2) BPF_PROG_LOAD of a BPF_PROG_TYPE_CGROUP_DEVICE program. EAGAIN when a signal came.
pub fn load_device_program(instructions: &[u64]) -> Sys<OwnedFd> {
    const LICENSE: &CStr = c"Apache-2.0"; // no helper that wants the GPL is called
    let attr = Load {
        kind: TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        ..Load::default()
    };
    // SAFETY: `attr`, the instructions and the license outlive the call, and the lengths passed are theirs.
    owned(check(unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &attr as *const Load, size_of::<Load>()) }))
}

/// bpf(2) BPF_PROG_ATTACH to a cgroup2 directory.
pub fn attach_device_program(cgroup: impl AsFd, program: impl AsFd) -> Sys {
    let attr = Attach {
        target: cgroup.as_fd().as_raw_fd() as u32,
        program: program.as_fd().as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `attr` outlives the call, and the size passed is its own.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &attr as *const Attach, size_of::<Attach>()) })
        .map(drop)
}
