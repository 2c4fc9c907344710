//! config.md#linux-process: scheduler, ioPriority, execCPUAffinity; config-linux.md#personality, #memory-policy.

use crate::config;
use crate::error::{Error, Result};
use crate::plan::step::{Act, Scheduler, Step};

/// sched(7). ISO is reserved: the kernel has yet to implement it.
const POLICIES: [(&str, u64); 7] = [
    ("SCHED_OTHER", OTHER),
    ("SCHED_FIFO", FIFO),
    ("SCHED_RR", RR),
    ("SCHED_BATCH", BATCH),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", DEADLINE),
];
const OTHER: u64 = 0;
const FIFO: u64 = 1;
const RR: u64 = 2;
const BATCH: u64 = 3;
const DEADLINE: u64 = 6;

/// sched_setattr(2)
const SCHED_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

/// ioprio_set(2)
const IO_CLASSES: [(&str, u64); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// personality(2)
const DOMAINS: [(&str, u64); 2] = [("LINUX", 0), ("LINUX32", 8)];

/// set_mempolicy(2)
const MODES: [(&str, u64); 7] = [
    ("MPOL_DEFAULT", MPOL_DEFAULT),
    ("MPOL_PREFERRED", MPOL_PREFERRED),
    ("MPOL_BIND", MPOL_BIND),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", MPOL_LOCAL),
    ("MPOL_PREFERRED_MANY", MPOL_PREFERRED_MANY),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];
const MPOL_DEFAULT: u64 = 0;
const MPOL_PREFERRED: u64 = 1;
const MPOL_BIND: u64 = 2;
const MPOL_LOCAL: u64 = 4;
const MPOL_PREFERRED_MANY: u64 = 5;

/// The names of `linux.memoryPolicy`, for `features`: modes and flags.
pub fn memory_policies() -> (Vec<&'static str>, Vec<&'static str>) {
    (MODES.iter().map(|m| m.0).collect(), MEMORY_FLAGS.iter().map(|m| m.0).collect())
}

const MEMORY_FLAGS: [(&str, u64); 3] = [
    ("MPOL_F_NUMA_BALANCING", NUMA_BALANCING),
    ("MPOL_F_RELATIVE_NODES", RELATIVE_NODES),
    ("MPOL_F_STATIC_NODES", STATIC_NODES),
];
const NUMA_BALANCING: u64 = 1 << 13;
const RELATIVE_NODES: u64 = 1 << 14;
const STATIC_NODES: u64 = 1 << 15;

/// The kernel reads masks of at most one page.
const MAX_NUMBER: usize = 4096 * 8 - 1;

/// Steps in the order in which they are done.
pub fn plan(p: &config::Process, linux: Option<&config::Linux>) -> Result<Vec<Step>> {
    let personality = linux.and_then(|l| l.personality.as_ref());
    let memory = linux.and_then(|l| l.memory_policy.as_ref());
    let steps = [
        personality.map(plan_personality).transpose()?,
        memory.map(plan_memory).transpose()?,
        p.scheduler.as_ref().map(plan_scheduler).transpose()?,
        p.io_priority.as_ref().map(plan_io).transpose()?,
    ];
    Ok(steps.into_iter().flatten().collect())
}

/// Whether what this step sets is inherited by a fork, and allows one (sched(7)).
pub fn outlives_fork(step: &Step) -> bool {
    const RESET_ON_FORK: u64 = 0x01;
    !matches!(&step.act, Act::Scheduler(s) if u64::from(s.policy) == DEADLINE || s.flags & RESET_ON_FORK != 0)
}

/// The value of a name, or an error that says which there are.
fn value(at: &str, table: &[(&str, u64)], name: Option<&str>) -> Result<u64> {
    let Some(name) = name.filter(|n| !n.is_empty()) else { return Err(Error::invalid(at, "is required")) };
    table.iter().find(|t| t.0 == name).map(|t| t.1).ok_or_else(|| {
        let known: Vec<_> = table.iter().map(|t| t.0).collect();
        Error::invalid(at, format!("{name:?} is unknown; known are {}", known.join(", ")))
    })
}

fn flags(at: &str, table: &[(&str, u64)], names: Option<&[String]>) -> Result<u64> {
    let names = names.unwrap_or_default().iter().enumerate();
    names.map(|(n, f)| value(&format!("{at}[{n}]"), table, Some(f))).try_fold(0, |sum, f| Ok(sum | f?))
}

fn plan_personality(p: &config::Personality) -> Result<Step> {
    let domain = value("linux.personality.domain", &DOMAINS, p.domain.as_deref())?;
    if let Some(flag) = p.flags.as_ref().and_then(|f| f.first()) {
        let what = format!("{flag:?} is unknown; the specification defines none");
        return Err(Error::invalid("linux.personality.flags[0]", what));
    }
    Ok(Step::new("linux.personality", Act::Personality(domain)))
}

/// Zero counts as absent, as callers write it. What the policy does not use is refused rather than ignored.
fn plan_scheduler(s: &config::Scheduler) -> Result<Step> {
    let at = |property: &str| format!("process.scheduler.{property}");
    let name = s.policy.as_deref();
    let policy = value(&at("policy"), &POLICIES, name)?;
    let name = name.unwrap_or_default();
    let flags = flags(&at("flags"), &SCHED_FLAGS, s.flags.as_deref())?;
    let (nice, priority) = (s.nice.unwrap_or(0), s.priority.unwrap_or(0));
    let unused = |property: &str, value: u64, owners: &str| {
        let what = format!("{value} is only for {owners}, not for {name}");
        Err(Error::invalid(at(property), what))
    };
    if !(-20..=19).contains(&nice) {
        return Err(Error::invalid(at("nice"), format!("{nice} is not in -20 to 19")));
    }
    if nice != 0 && !matches!(policy, OTHER | BATCH) {
        let what = format!("{nice} is only for SCHED_OTHER and SCHED_BATCH, not for {name}");
        return Err(Error::invalid(at("nice"), what));
    }
    match policy {
        FIFO | RR if !(1..=99).contains(&priority) => {
            return Err(Error::invalid(
                at("priority"),
                format!("{priority} is not in 1-99, as {name} needs"),
            ));
        }
        FIFO | RR => {}
        _ if priority != 0 => {
            let what = format!("{priority} is only for SCHED_FIFO and SCHED_RR, not for {name}");
            return Err(Error::invalid(at("priority"), what));
        }
        _ => {}
    }
    let times = [("runtime", s.runtime), ("deadline", s.deadline), ("period", s.period)];
    let [runtime, deadline, period] = times.map(|t| t.1.unwrap_or(0));
    if policy != DEADLINE {
        if let Some((property, Some(v))) = times.into_iter().find(|t| t.1.unwrap_or(0) != 0) {
            return unused(property, v, "SCHED_DEADLINE");
        }
    } else {
        deadline_rules(runtime, deadline, period)?;
    }
    let (nice, priority) = (nice as i32, priority as u32); // both are in range
    let planned = Scheduler { policy: policy as u32, flags, nice, priority, runtime, deadline, period };
    Ok(Step::new("process.scheduler", Act::Scheduler(planned)))
}

/// sched(7): a runtime of at least 1024 ns, runtime <= deadline <= period, where no period means the deadline.
fn deadline_rules(runtime: u64, deadline: u64, period: u64) -> Result<()> {
    let broken =
        |property: &str, what: String| Err(Error::invalid(format!("process.scheduler.{property}"), what));
    if runtime < 1024 {
        return broken("runtime", format!("{runtime} ns is below 1024, the least of SCHED_DEADLINE"));
    }
    if deadline < runtime {
        return broken("deadline", format!("{deadline} is below runtime {runtime}"));
    }
    if period != 0 && period < deadline {
        return broken("period", format!("{period} is below deadline {deadline}"));
    }
    if (deadline | period) >> 63 != 0 {
        return broken("deadline", "is above 9223372036854775807 ns, or the period is".into());
    }
    Ok(())
}

fn plan_io(io: &config::IoPriority) -> Result<Step> {
    let class = value("process.ioPriority.class", &IO_CLASSES, io.class.as_deref())?;
    let Some(priority) = io.priority else {
        return Err(Error::invalid("process.ioPriority.priority", "is required"));
    };
    if !(0..=7).contains(&priority) {
        return Err(Error::invalid("process.ioPriority.priority", format!("{priority} is not in 0-7")));
    }
    Ok(Step::new("process.ioPriority", Act::IoPriority((class as u32) << 13 | priority as u32)))
}

fn plan_memory(m: &config::MemoryPolicy) -> Result<Step> {
    let at = |property: &str| format!("linux.memoryPolicy.{property}");
    let mode = value(&at("mode"), &MODES, m.mode.as_deref())?;
    let name = m.mode.as_deref().unwrap_or_default();
    let flags = flags(&at("flags"), &MEMORY_FLAGS, m.flags.as_deref())?;
    let text = m.nodes.as_deref().unwrap_or_default();
    let nodes = if text.is_empty() { Vec::new() } else { list(&at("nodes"), text)? };
    match mode {
        MPOL_DEFAULT | MPOL_LOCAL if !nodes.is_empty() => {
            return Err(Error::invalid(at("nodes"), format!("{text:?} is given, but {name} takes none")));
        }
        MPOL_DEFAULT | MPOL_LOCAL | MPOL_PREFERRED => {}
        _ if nodes.is_empty() => return Err(Error::invalid(at("nodes"), format!("is required by {name}"))),
        _ => {}
    }
    let place = flags & (RELATIVE_NODES | STATIC_NODES);
    if place == RELATIVE_NODES | STATIC_NODES {
        return Err(Error::invalid(at("flags"), "MPOL_F_RELATIVE_NODES excludes MPOL_F_STATIC_NODES"));
    }
    if place != 0 && nodes.is_empty() {
        return Err(Error::invalid(at("flags"), format!("{name} without nodes takes no flags about them")));
    }
    if flags & NUMA_BALANCING != 0 && !matches!(mode, MPOL_BIND | MPOL_PREFERRED_MANY) {
        let what =
            format!("MPOL_F_NUMA_BALANCING is only for MPOL_BIND and MPOL_PREFERRED_MANY, not for {name}");
        return Err(Error::invalid(at("flags"), what));
    }
    Ok(Step::new("linux.memoryPolicy", Act::MemoryPolicy { mode: (mode | flags) as i32, nodes }))
}

/// Processors of a process that `exec` starts, as bit masks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// Before it joins the container's cgroup.
    pub initial: Option<Vec<u64>>,
    /// From then on.
    pub last: Option<Vec<u64>>,
}

/// Reads `process.execCPUAffinity`; an empty string counts as absent.
pub fn affinity(a: Option<&config::CpuAffinity>) -> Result<Affinity> {
    let Some(a) = a else { return Ok(Affinity::default()) };
    let mask = |property: &str, text: &Option<String>| {
        let text = text.as_deref().filter(|t| !t.is_empty());
        text.map(|t| list(&format!("process.execCPUAffinity.{property}"), t)).transpose()
    };
    Ok(Affinity { initial: mask("initial", &a.initial)?, last: mask("final", &a.last)? })
}

/// The kernel's list format, `0-3,7`, as a bit mask (cpuset(7)).
fn list(at: &str, text: &str) -> Result<Vec<u64>> {
    let broken = || Error::invalid(at, format!("{text:?} is no list of numbers and ranges like 0-3,7"));
    let number = |s: &str| {
        let digits = !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let n = digits.then(|| s.parse::<usize>().ok()).flatten().ok_or_else(broken)?;
        if n > MAX_NUMBER {
            return Err(Error::invalid(at, format!("{n} is above {MAX_NUMBER}")));
        }
        Ok(n)
    };
    let mut mask = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(Error::invalid(at, format!("{part:?} runs backwards")));
        }
        if mask.len() <= last / 64 {
            mask.resize(last / 64 + 1, 0);
        }
        (first..=last).for_each(|n| mask[n / 64] |= 1 << (n % 64));
    }
    Ok(mask)
}
