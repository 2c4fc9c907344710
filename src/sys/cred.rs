//! Ids, capabilities, limits, scheduling: what execve keeps.

use super::{Errno, Sys, check, check_int};
use crate::plan::step::{CapSets, Scheduler};

/// setgroups(2), the system call itself: libc's would broadcast to threads that do not exist.
pub fn set_groups(groups: &[u32]) -> Sys {
    // SAFETY: pointer and length are those of the slice; gid_t is u32.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// setresgid(2)
pub fn set_gid(gid: u32) -> Sys {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// setresuid(2)
pub fn set_uid(uid: u32) -> Sys {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

fn prctl(option: i32, a: u64, b: u64) -> Sys<i64> {
    // SAFETY: the options used in this file take integers only.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, a, b, 0u64, 0u64) })
}

/// prctl(PR_SET_DUMPABLE)
pub fn set_dumpable(on: bool) -> Sys {
    prctl(libc::PR_SET_DUMPABLE, on as u64, 0).map(drop)
}

/// prctl(PR_SET_KEEPCAPS)
pub fn keep_caps() -> Sys {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0).map(drop)
}

/// prctl(PR_SET_NO_NEW_PRIVS)
pub fn no_new_privs() -> Sys {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// prctl(PR_SET_CHILD_SUBREAPER)
pub fn become_subreaper() -> Sys {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0).map(drop)
}

/// prctl(PR_CAPBSET_DROP). EINVAL above the kernel's last capability.
pub fn drop_bounding(cap: u32) -> Sys {
    prctl(libc::PR_CAPBSET_DROP, cap as u64, 0).map(drop)
}

/// prctl(PR_CAP_AMBIENT): clears the set, then raises what the mask has.
pub fn set_ambient(mask: u64) -> Sys {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)?;
    for cap in 0..64 {
        if mask & (1 << cap) != 0 {
            prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, cap)?;
        }
    }
    Ok(())
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// capget(2) of this process: (effective, permitted, inheritable).
pub fn caps() -> Sys<(u64, u64, u64)> {
    let mut head = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapData::default(); 2];
    // SAFETY: version 3 fills two data structures.
    check(unsafe { libc::syscall(libc::SYS_capget, &mut head, data.as_mut_ptr()) })?;
    let join = |f: fn(&CapData) -> u32| f(&data[0]) as u64 | (f(&data[1]) as u64) << 32;
    Ok((join(|d| d.effective), join(|d| d.permitted), join(|d| d.inheritable)))
}

/// capset(2) of this process.
pub fn set_caps(caps: &CapSets) -> Sys {
    let head = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapData {
        effective: (caps.effective >> shift) as u32,
        permitted: (caps.permitted >> shift) as u32,
        inheritable: (caps.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads two data structures.
    check(unsafe { libc::syscall(libc::SYS_capset, &head, data.as_ptr()) }).map(drop)
}

/// prlimit(2) of a process, 0 for this one; `u64::MAX` is unlimited.
pub fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Sys {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the new limit outlives the call; the old one is not asked for.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &limit, none) }).map(drop)
}

/// getrlimit(2): (soft, hard).
pub fn limit(resource: u32) -> Sys<(u64, u64)> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let none = std::ptr::null::<libc::rlimit64>();
    // SAFETY: the kernel fills the structure.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, none, &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// umask(2)
pub fn set_umask(mask: u32) {
    // SAFETY: no memory is passed; it cannot fail.
    unsafe { libc::umask(mask) };
}

/// personality(2)
pub fn set_personality(persona: u64) -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::personality(persona as _) }).map(drop)
}

/// ioprio_set(2) of this process.
pub fn set_io_priority(value: u32) -> Sys {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// set_mempolicy(2)
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Sys {
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: the kernel reads `bits - 1` bits, all in the slice.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}

/// sched_setaffinity(2) of this process to every processor that its cpuset allows.
pub fn reset_affinity() -> Sys {
    set_affinity(&[u64::MAX; 128])
}

/// sched_setaffinity(2) of this process, a bit for each processor.
pub fn set_affinity(mask: &[u64]) -> Sys {
    // SAFETY: pointer and size are those of the slice.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) })
        .map(drop)
}

#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    /// Zero: the specification has flags for the clamps, but no values; without these fields the flags are refused.
    util_min: u32,
    util_max: u32,
}

/// sched_setattr(2) of a process, 0 for this one.
pub fn set_scheduler(pid: i32, s: &Scheduler) -> Sys {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        policy: s.policy,
        flags: s.flags,
        nice: s.nice,
        priority: s.priority,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
        util_min: 0,
        util_max: 0,
    };
    // SAFETY: the structure carries its own size and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &attr, 0) }).map(drop)
}

/// The errno that says a right is missing.
pub fn is_denied(e: Errno) -> bool {
    matches!(e, Errno::EPERM | Errno::EACCES)
}
