//! The seccomp section (config-linux.md#seccomp): a profile becomes one BPF program for all architectures whose
//! programs the native kernel runs.
//!
//! A program looks at the architecture first, then finds the span of system call numbers by bisection, then tests
//! arguments. What the specification leaves open is as runc with libseccomp has it:
//! - The native architecture is always covered. One that is not listed kills the thread, and so do x32 numbers where
//!   x32 is not listed.
//! - Calls whose names no architecture of the profile knows are skipped; so are rules that ask for the default action.
//! - Which of several rules for one call wins: see `precedence`.
//! - i386 makes some calls through `socketcall` and `ipc`: a rule for one of them covers both ways.
//! - Calls newer than the profile answer ENOSYS: see `newer_calls`.

mod emit;
mod interpret;
mod precedence;
mod profile;
mod tables;
#[cfg(test)]
mod tests;
mod vocabulary;

pub use vocabulary::{flag, known_actions, known_arches, known_flags, known_operators};

use super::Draft;
use super::step::{Act, Step};
use crate::config;
use crate::error::{Error, Result};
use emit::{Section, Span};
use precedence::{Branch, Decision};
use profile::{Profile, Test};
use seccompiler::sock_filter;
use tables::{ARM_PRIVATE, Arch, Row, X32_BIT};
use vocabulary::Op;

/// As `sys::clone` has it.
const SIBLING: u64 = (libc::CLONE_PARENT | libc::SIGCHLD) as u64;

/// What init calls from the closing of the host's descriptors, before the clone, to its session, but read(2), write(2)
/// and execve(2), without which no program runs.
const TO_SESSION: &[i64] = &[libc::SYS_close_range, libc::SYS_exit_group, libc::SYS_setsid];

/// What it calls from the working directory until it asks its parent, but these three.
const TO_READY: &[i64] = &[
    libc::SYS_chdir,
    libc::SYS_getcwd,
    libc::SYS_openat2,
    libc::SYS_newfstatat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    libc::SYS_fstat,
    libc::SYS_faccessat2,
    libc::SYS_close,
    libc::SYS_umask,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
];

/// linux/bpf_common.h BPF_MAXINSNS.
const MAX_INSTRUCTIONS: usize = 4096;

/// The compiled section.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    pub program: Vec<sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*` for seccomp(2), without NEW_LISTENER, which is wanted if there is a `listener`.
    pub flags: u32,
    pub listener: Option<Listener>,
}

impl Filter {
    /// Whether this host's kernel still lets init close what leads to the host and clone the process that goes on, and
    /// that make a session, take its terminal and do its `own` steps, scheduler and limits; with `whole`, and do what
    /// else it does until it asks its parent.
    pub fn lets_through(&self, own: &[Step], whole: bool) -> bool {
        let audit = Native::host().runs()[0][0].audit();
        let program: Vec<_> = self.program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
        let answer = |nr: i64, args: [u64; 2]| {
            let args = [args[0], args[1], 0, 0, 0, 0];
            interpret::run(&program, &interpret::Call { nr: nr as u32, arch: audit, args }).0
        };
        let passes = |nr, args| {
            let lenient = [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG];
            lenient.contains(&(answer(nr, args) & libc::SECCOMP_RET_ACTION_FULL))
        };
        let clone = passes(libc::SYS_clone, [SIBLING, 0]);
        let plain = |calls: &[i64]| calls.iter().all(|nr| passes(*nr, [0; 2]));
        let terminal = passes(libc::SYS_ioctl, [0, libc::TIOCSCTTY]);
        let of_step = |step: &Step| match step.act {
            Act::Scheduler(_) => libc::SYS_sched_setattr,
            _ => libc::SYS_prlimit64,
        };
        let own = own.iter().all(|step| passes(of_step(step), [0; 2]));
        clone && terminal && own && plain(TO_SESSION) && (!whole || plain(TO_READY))
    }
}

/// Who gets the descriptor through which SCMP_ACT_NOTIFY asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// A Unix stream socket.
    pub path: String,
    pub metadata: String,
}

/// The architecture of the kernel; it decides what other programs it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Native {
    X86_64,
    Aarch64,
    Riscv64,
}

impl Native {
    /// The one this binary is built for.
    pub const fn host() -> Native {
        #[cfg(target_arch = "x86_64")]
        return Native::X86_64;
        #[cfg(target_arch = "aarch64")]
        return Native::Aarch64;
        #[cfg(target_arch = "riscv64")]
        return Native::Riscv64;
    }

    /// The architectures whose programs run here, by `AUDIT_ARCH_*`; the native one is the very first.
    fn runs(self) -> &'static [&'static [Arch]] {
        match self {
            Native::X86_64 => &[&[Arch::X86_64, Arch::X32], &[Arch::X86]],
            Native::Aarch64 => &[&[Arch::Aarch64], &[Arch::Arm]],
            Native::Riscv64 => &[&[Arch::Riscv64]],
        }
    }
}

/// The filter of the section, if there is one.
pub fn plan(d: &mut Draft) -> Result<Option<Filter>> {
    let doc = d.config.linux.as_ref().and_then(|l| l.seccomp.as_ref());
    doc.map_or(Ok(None), |doc| compile(doc, Native::host(), &mut d.warnings))
}

/// Checks and compiles the section. `None`, with a warning, for an object without any property, which is how some
/// callers say "no seccomp".
pub fn compile(doc: &config::Seccomp, native: Native, warnings: &mut Vec<String>) -> Result<Option<Filter>> {
    if *doc == config::Seccomp::default() {
        warnings.push("linux.seccomp: has no property, no filter is installed".into());
        return Ok(None);
    }
    let profile = profile::check(doc)?;
    let arches = arches(doc, native)?;
    let listener = listener(doc, &profile)?;
    let flags = flags(doc, listener.is_some())?;
    let mut sections = Vec::with_capacity(2);
    for group in native.runs() {
        let group: Vec<Arch> = group.iter().copied().filter(|a| arches.contains(a)).collect();
        if let Some(first) = group.first() {
            sections.push(Section { audit: first.audit(), spans: spans(&profile, &group, warnings) });
        }
    }
    let program = emit::program(&sections, profile.default, libc::SECCOMP_RET_KILL_THREAD);
    if program.len() > MAX_INSTRUCTIONS {
        let what = format!("needs {} instructions, the kernel takes {MAX_INSTRUCTIONS}", program.len());
        return Err(Error::invalid("linux.seccomp", what));
    }
    Ok(Some(Filter { program, flags, listener }))
}

/// The architectures to cover: the native one and those listed.
fn arches(doc: &config::Seccomp, native: Native) -> Result<Vec<Arch>> {
    let mut arches = vec![native.runs()[0][0]];
    for (n, name) in doc.architectures.iter().flatten().enumerate() {
        match vocabulary::arch(name) {
            None => {
                let at = format!("linux.seccomp.architectures[{n}]");
                return Err(Error::invalid(at, format!("\"{name}\" is not a seccomp architecture")));
            }
            Some(arch) => arches.extend(arch),
        }
    }
    Ok(arches)
}

fn listener(doc: &config::Seccomp, profile: &Profile) -> Result<Option<Listener>> {
    let path = doc.listener_path.as_deref().filter(|p| !p.is_empty());
    let metadata = doc.listener_metadata.as_deref().unwrap_or_default();
    let Some(path) = path else {
        if !metadata.is_empty() {
            return Err(Error::invalid("linux.seccomp.listenerMetadata", "needs linux.seccomp.listenerPath"));
        }
        if let Some(at) = &profile.notify {
            return Err(Error::invalid(at, "\"SCMP_ACT_NOTIFY\" needs linux.seccomp.listenerPath"));
        }
        return Ok(None);
    };
    Ok(profile.notify.as_ref().map(|_| Listener { path: path.into(), metadata: metadata.into() }))
}

fn flags(doc: &config::Seccomp, listener: bool) -> Result<u32> {
    let Some(names) = &doc.flags else {
        // runc's default: the speculation mitigations that a filter switched on before Linux 5.16 cost dearly.
        return Ok(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32);
    };
    let mut flags = 0;
    for (n, name) in names.iter().enumerate() {
        let at = || format!("linux.seccomp.flags[{n}]");
        let Some(flag) = vocabulary::flag(name) else {
            return Err(Error::invalid(at(), format!("\"{name}\" is not a seccomp flag")));
        };
        if flag == libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32 && !listener {
            // seccomp(2) says EINVAL, from which nobody could tell the cause.
            return Err(Error::invalid(at(), format!("\"{name}\" needs a rule with SCMP_ACT_NOTIFY")));
        }
        flags |= flag;
    }
    if listener && flags & libc::SECCOMP_FILTER_FLAG_TSYNC as u32 != 0 {
        // Both return a number, so seccomp(2) wants to be told to report a thread's failure as ESRCH.
        flags |= libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH as u32;
    }
    Ok(flags)
}

/// A rule that applies to a system call number.
struct Hit {
    nr: u32,
    rule: usize,
    name: &'static str,
    /// The number of the call inside `socketcall` or `ipc`.
    inner: Option<u8>,
}

/// What the calls of one `AUDIT_ARCH_*` get, for all 2^32 numbers.
fn spans(profile: &Profile, group: &[Arch], warnings: &mut Vec<String>) -> Vec<Span> {
    let mut rest = vec![(0, profile.default)];
    let mut decided = Vec::new();
    for arch in group {
        let hits = hits(profile, *arch);
        let first = if *arch == Arch::X32 { X32_BIT } else { 0 };
        if *arch == Arch::X32 {
            rest.push((first, profile.default));
        }
        if let Some(newer) = newer_calls(profile, *arch, &hits) {
            rest.push((newer, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
        }
        if *arch == Arch::Arm {
            rest.push((ARM_PRIVATE, profile.default));
        }
        decide(profile, *arch, &hits, &mut decided, warnings);
    }
    if group == [Arch::X86_64] {
        // A tracer writes -1 to have a call skipped; it is not x32's.
        rest.extend([(X32_BIT, libc::SECCOMP_RET_KILL_THREAD), (u32::MAX, profile.default)]);
    }
    lay(&rest, decided)
}

/// The first number that answers ENOSYS: the one after the newest call that the profile names, since a C library that
/// tries a new call falls back on ENOSYS, and fails on EPERM. runc's rule: not if the default lets calls pass (ALLOW,
/// LOG, TRACE). Rules that ask for the default action name calls, too. arm's private calls are no sign of age.
fn newer_calls(profile: &Profile, arch: Arch, hits: &[Hit]) -> Option<u32> {
    let lenient = [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_LOG, libc::SECCOMP_RET_TRACE];
    if lenient.contains(&(profile.default & libc::SECCOMP_RET_ACTION_FULL)) {
        return None;
    }
    let limit = if arch == Arch::Arm { ARM_PRIVATE } else { u32::MAX };
    let newest = hits.iter().map(|h| h.nr).filter(|nr| *nr < limit).max()?;
    // runc takes 0 for "none", and a profile that names only x86_64's `read` is no statement about new calls.
    (newest > 0).then_some(newest + 1)
}

/// All calls of the profile that `arch` has, by number, then in the profile's order.
fn hits(profile: &Profile, arch: Arch) -> Vec<Hit> {
    let mut hits = Vec::with_capacity(512);
    for (rule, calls) in profile.rules.iter().map(|r| &r.calls).enumerate() {
        for row in calls {
            let row: &'static Row = row;
            let name = row.0;
            if arch == Arch::X86 {
                if let Some((nr, inner)) = tables::multiplexed(name) {
                    hits.push(Hit { nr, rule, name, inner: Some(inner) });
                }
            }
            if let Some(nr) = arch.number(row) {
                hits.push(Hit { nr, rule, name, inner: None });
            }
        }
    }
    hits.sort_by_key(|h| h.nr);
    hits
}

fn decide(
    profile: &Profile,
    arch: Arch,
    hits: &[Hit],
    decided: &mut Vec<(u32, Decision, bool)>,
    warnings: &mut Vec<String>,
) {
    for same in hits.chunk_by(|a, b| a.nr == b.nr) {
        let mut branches = Vec::new();
        for hit in same {
            let rule = &profile.rules[hit.rule];
            if rule.action == profile.default {
                continue;
            }
            for tests in &rule.any_of {
                branches.push(Branch { tests: inside(tests, hit.inner), action: rule.action });
            }
        }
        if branches.is_empty() {
            continue;
        }
        let mut conflict = false;
        let decision = precedence::decide(branches, arch.wide(), &mut conflict);
        if conflict {
            let name = same[0].name;
            let text = format!(
                "linux.seccomp.syscalls: rules for \"{name}\" contradict each other, the first is kept"
            );
            if !warnings.contains(&text) {
                warnings.push(text);
            }
        }
        decided.push((same[0].nr, decision, arch.wide()));
    }
}

/// The tests for a call made through a multiplexer: its first argument is the number of the call, the others stay (as
/// libseccomp has it, although `socketcall` finds its arguments in memory, where no filter can see them).
fn inside(tests: &[Test], inner: Option<u8>) -> Vec<Test> {
    let Some(inner) = inner else {
        return tests.to_vec();
    };
    let call = Test { arg: 0, op: Op::Eq, mask: u64::MAX, value: inner.into() };
    std::iter::once(call).chain(tests.iter().copied().filter(|t| t.arg != 0)).collect()
}

/// Lays single numbers over what the rest gets (`(from, action)`, ascending), and joins equal neighbours.
fn lay(rest: &[(u32, u32)], decided: Vec<(u32, Decision, bool)>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::with_capacity(decided.len());
    let mut push = |from, decision, wide| {
        if spans.last().is_none_or(|s| s.decision != decision || s.wide != wide && !is_always(&decision)) {
            spans.push(Span { from, decision, wide });
        }
    };
    let mut decided = decided.into_iter().peekable();
    for (n, (from, action)) in rest.iter().enumerate() {
        let end = rest.get(n + 1).map_or(1 << 32, |next| u64::from(next.0));
        let mut at = u64::from(*from);
        while let Some((nr, decision, wide)) = decided.next_if(|d| u64::from(d.0) < end) {
            if at < u64::from(nr) {
                push(at as u32, Decision::Always(*action), false);
            }
            push(nr, decision, wide);
            at = u64::from(nr) + 1;
        }
        if at < end {
            push(at as u32, Decision::Always(*action), false);
        }
    }
    spans
}

fn is_always(decision: &Decision) -> bool {
    matches!(decision, Decision::Always(_))
}
