//! A kernel that lacks calls, as a seccomp filter shows it: of an old kernel, or of an outer container.
#![allow(dead_code)] // each test program uses its part

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// CLOSE_RANGE_CLOEXEC, Linux 5.11.
const CLOEXEC: u64 = libc::CLOSE_RANGE_CLOEXEC as u64;
/// MOUNT_ATTR_NOSYMFOLLOW, Linux 5.14.
const NOSYMFOLLOW: u64 = 0x20_0000;
/// epoll_pwait2(2), the first that came with Linux 5.11; mount_setattr(2) is 442, of 5.12.
const FIRST_AFTER_5_10: i64 = 441;
const LAST: i64 = 480;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The command finds a kernel without these calls.
pub fn lack(c: &mut Command, calls: &[i64]) {
    load(c, calls.iter().map(|n| (*n, vec![])).collect(), libc::ENOSYS);
}

/// The command finds Linux 5.10: newer calls are not there, and newer flags of older calls are invalid.
pub fn linux_5_10(c: &mut Command) {
    let newer: Vec<_> = (FIRST_AFTER_5_10..=LAST).collect();
    lack(c, &newer);
    let flag = |argument, bit| {
        let bits = SeccompCmpOp::MaskedEq(bit);
        let is_set =
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, bits, bit).expect("a condition");
        vec![SeccompRule::new(vec![is_set]).expect("a rule")]
    };
    let flags = [(libc::SYS_close_range, flag(2, CLOEXEC)), (libc::SYS_fsmount, flag(2, NOSYMFOLLOW))];
    load(c, flags.into(), libc::EINVAL);
}

fn load(c: &mut Command, rules: Rules, errno: i32) {
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(errno as u32));
    let arch = std::env::consts::ARCH.try_into().expect("an architecture");
    let filter = SeccompFilter::new(rules, allow, refuse, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    let load = move || seccompiler::apply_filter(&program).map_err(std::io::Error::other);
    // SAFETY: it makes two system calls, on memory that was allocated before.
    unsafe { c.pre_exec(load) };
}
