//! An update: the limits of config-linux.md#control-groups for a cgroup that has some in force.
//!
//! Properties become writes by the code that plans a creation. What is added here is what only an update has to ask:
//! which values are left alone, and which of two must be written first, since the kernel checks one against the other.

use super::{CgroupPlan, Hierarchies, Sheet, Write, unset_if_zero};
use crate::config::{Cpu, Memory, Resources};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Controllers and their files that an update looks at before it is planned.
pub const LOOKED_AT: [(&str, &str); 14] = [
    ("memory", "memory.limit_in_bytes"),
    ("memory", "memory.memsw.limit_in_bytes"),
    ("memory", "memory.max"),
    ("memory", "memory.swap.max"),
    ("memory", "memory.current"),
    ("cpu", "cpu.cfs_quota_us"),
    ("cpu", "cpu.cfs_period_us"),
    ("cpu", "cpu.cfs_burst_us"),
    ("cpu", "cpu.max"),
    ("cpu", "cpu.max.burst"),
    ("cpu", "cpu.shares"),
    ("cpu", "cpu.weight"),
    ("cpu", "cpu.rt_period_us"),
    ("cpu", "cpu.rt_runtime_us"),
];

/// Contents of those of [`LOOKED_AT`] that are there.
#[derive(Clone, Debug, Default)]
pub struct InForce(pub BTreeMap<&'static str, String>);

impl InForce {
    fn words(&self, file: &str) -> impl Iterator<Item = &str> {
        self.0.get(file).into_iter().flat_map(|t| t.split_ascii_whitespace())
    }

    /// The `n`th number of the file; `Some(UNLIMITED)` for none.
    fn number(&self, file: &str, n: usize) -> Option<i64> {
        let word = self.words(file).nth(n)?;
        // v1's counters of memory end some pages below 2^63.
        let limit = |v: &i64| (0..i64::MAX - (1 << 20)).contains(v);
        Some(word.parse().ok().filter(limit).unwrap_or(UNLIMITED))
    }

    /// The same, of whichever of two files is there.
    fn either(&self, v1: &str, v2: &str) -> Option<i64> {
        self.number(v1, 0).or_else(|| self.number(v2, 0))
    }

    fn quota(&self) -> Option<i64> {
        self.either("cpu.cfs_quota_us", "cpu.max")
    }

    fn period(&self) -> Option<i64> {
        self.number("cpu.cfs_period_us", 0).or_else(|| self.number("cpu.max", 1))
    }

    fn burst(&self) -> Option<i64> {
        self.either("cpu.cfs_burst_us", "cpu.max.burst")
    }
}

/// Above every limit, so that it compares as one.
const UNLIMITED: i64 = i64::MAX;

/// Decides every write, in order; [`V1::path`](super::V1) and [`V2::path`](super::V2) are those of the container's
/// record and stay empty. Device rules are left out: an update never touches them, whatever engines send along (the
/// CRI's whole list), and programs that others attached stay.
pub fn plan(r: &Resources, h: &Hierarchies, now: &InForce, warnings: &mut Vec<String>) -> Result<CgroupPlan> {
    let asked = r;
    let mut r = r.clone();
    r.devices = None;
    // Engines whose type has no absent limit say 0 for one that they leave alone.
    if r.pids.as_ref().is_some_and(|p| p.limit == Some(0)) {
        r.pids = None;
    }
    r.memory.as_mut().map_or(Ok(()), |m| memory(m, now))?;
    r.cpu.as_mut().map_or(Ok(()), |c| cpu(c, now))?;
    let mut sheet = Sheet { plan: CgroupPlan::default(), v2: Vec::new(), h, warnings };
    sheet.lay_out("/", false);
    sheet.limits(&r)?;
    if let Some(v2) = &mut sheet.plan.v2 {
        v2.wanted.clear();
        v2.writes = sheet.v2;
    }
    let plan = &mut sheet.plan;
    for writes in plan.v1.iter_mut().map(|v| &mut v.writes).chain(plan.v2.iter_mut().map(|v| &mut v.writes)) {
        order_memory(writes, now);
        order_cpu(writes, now);
        name_asked(writes, asked);
    }
    Ok(sheet.plan)
}

/// What is asked of memory together with what is in force.
fn memory(m: &mut Memory, now: &InForce) -> Result<()> {
    let at = |name: &str| format!("linux.resources.memory.{name}");
    let (limit, swap) = (unset_if_zero(m.limit), unset_if_zero(m.swap));
    // Swap counts with memory: a bound would bound memory as well (runc does the same).
    if limit == Some(-1) && swap.is_none() {
        m.swap = Some(-1);
    }
    // What the new sum is checked against, and taken from on v2.
    if limit.is_none() && swap.is_some_and(|s| s > 0) {
        let bound = now.either("memory.limit_in_bytes", "memory.max").filter(|l| *l != UNLIMITED);
        m.limit = bound.or(m.limit);
    }
    let Some(limit) = limit.filter(|l| *l > 0) else { return Ok(()) };
    if let (None, Some(sum)) = (swap, now.number("memory.memsw.limit_in_bytes", 0).filter(|s| *s < limit)) {
        let what = format!("{limit} is above the memory.swap in force, {sum}");
        return Err(Error::invalid(at("limit"), what).hint("it counts memory and swap, and has to grow too"));
    }
    // v1's kernel refuses by itself, v2's would kill.
    match now.number("memory.current", 0).filter(|used| *used > limit) {
        Some(used) if m.check_before_update == Some(true) => {
            let what = format!("{limit} is below the {used} bytes in use");
            Err(Error::invalid(at("limit"), what).hint("memory.checkBeforeUpdate is set"))
        }
        _ => Ok(()),
    }
}

/// Of quota, period and burst, the ones in force for those that are not asked for: v2 has the first two in one file,
/// and all are checked against each other. Writes of what is in force already are not done.
fn cpu(c: &mut Cpu, now: &InForce) -> Result<()> {
    let (quota, period) = (unset_if_zero(c.quota), unset_if_zero(c.period));
    if quota.is_none() && (period.is_some() || c.burst.is_some()) {
        c.quota = now.quota().map(|q| if q == UNLIMITED { -1 } else { q });
    }
    if period.is_none() && unset_if_zero(c.quota).is_some() {
        c.period = now.period().and_then(|p| u64::try_from(p).ok());
    }
    let burst = now.burst().filter(|_| c.burst.is_none());
    match (quota.filter(|q| *q > 0), burst) {
        (Some(q), Some(b)) if b > q => {
            let what = format!("{q} is below the cpu.burst in force, {b}");
            Err(Error::invalid("linux.resources.cpu.quota", what).hint("a burst may not exceed the quota"))
        }
        _ => Ok(()),
    }
}

/// cpu.max is named after the quota, unless the period alone was asked for.
fn name_asked(writes: &mut [Write], asked: &Resources) {
    let Some(cpu) = &asked.cpu else { return };
    if unset_if_zero(cpu.quota).is_none() && unset_if_zero(cpu.period).is_some() {
        let max = writes.iter_mut().filter(|w| w.file == "cpu.max" && w.at == "linux.resources.cpu.quota");
        max.for_each(|w| w.at = "linux.resources.cpu.period".into());
    }
}

fn find(writes: &[Write], file: &str) -> Option<usize> {
    writes.iter().position(|w| w.file == file)
}

/// The limit that a write sets.
fn limit(writes: &[Write], file: &str) -> Option<i64> {
    let value = &writes[find(writes, file)?].value;
    Some(value.parse().ok().filter(|v| *v >= 0).unwrap_or(UNLIMITED))
}

/// Moves the write to `first` before that to `second`.
fn before(writes: &mut Vec<Write>, first: &str, second: &str) {
    if let (Some(f), Some(s)) = (find(writes, first), find(writes, second)) {
        if f > s {
            let write = writes.remove(f);
            writes.insert(s, write);
        }
    }
}

/// v1 never lets memory exceed memory and swap together. v2 would kill for a lack of swap that is about to be allowed.
fn order_memory(writes: &mut Vec<Write>, now: &InForce) {
    const SUM: &str = "memory.memsw.limit_in_bytes";
    const SWAP: &str = "memory.swap.max";
    let grows = |new: Option<i64>, old: Option<i64>| new.is_some() && new > old;
    if grows(limit(writes, "memory.limit_in_bytes"), now.number(SUM, 0)) {
        before(writes, SUM, "memory.limit_in_bytes");
    }
    if grows(limit(writes, SWAP), now.number(SWAP, 0)) {
        before(writes, SWAP, "memory.max");
    }
}

fn order_cpu(writes: &mut Vec<Write>, now: &InForce) {
    const QUOTA: &str = "cpu.cfs_quota_us";
    const PERIOD: &str = "cpu.cfs_period_us";
    let in_force = |w: &Write| now.0.get(w.file.as_str()).is_some_and(|old| old.trim() == w.value);
    writes.retain(|w| ![QUOTA, PERIOD].contains(&w.file.as_str()) || !in_force(w));
    let old = now.quota().zip(now.period());
    let new = limit(writes, QUOTA).zip(limit(writes, PERIOD));
    if let (Some(old), Some(new)) = (old, new) {
        match between(old, new) {
            Some(true) => {}
            Some(false) => before(writes, QUOTA, PERIOD),
            None => {
                // The share in between would be more than a cgroup above has, or less than one below. None at all is
                // never refused.
                let n = find(writes, QUOTA).unwrap_or(0);
                let lift = Write { value: "-1".into(), ..writes[n].clone() };
                writes.insert(0, lift);
            }
        }
    }
    for (quota, burst) in [(QUOTA, "cpu.cfs_burst_us"), ("cpu.max", "cpu.max.burst")] {
        let last = writes.iter().rfind(|w| w.file == quota).and_then(|w| w.value.split(' ').next());
        let lowered = last.and_then(|q| q.parse::<i64>().ok()).filter(|q| *q >= 0);
        if lowered.is_some_and(|q| now.burst().is_some_and(|b| b > q)) {
            before(writes, burst, quota);
        }
    }
    // Runtime never exceeds its period.
    let runtime = now.number("cpu.rt_runtime_us", 0).filter(|r| *r != UNLIMITED);
    if limit(writes, "cpu.rt_period_us").is_some_and(|p| runtime.is_some_and(|r| r > p)) {
        before(writes, "cpu.rt_runtime_us", "cpu.rt_period_us");
    }
    order_idle(writes, now);
}

/// An idle cgroup takes no shares, and has those of a new one when it is none any more.
fn order_idle(writes: &mut Vec<Write>, now: &InForce) {
    let Some(n) = find(writes, "cpu.idle") else { return };
    for file in ["cpu.shares", "cpu.weight"] {
        match now.0.get(file) {
            _ if writes[n].value == "0" => before(writes, "cpu.idle", file),
            // For the way back.
            Some(shares) if find(writes, file).is_none() => {
                let keep = Write { file: file.into(), value: shares.trim().into(), ..writes[n].clone() };
                return writes.insert(n, keep);
            }
            _ => {}
        }
    }
}

/// May the period go first (`true`) or the quota? The share of the CPU in between must not leave the range from the old
/// to the new one, which are all that the cgroups above and below are known to allow.
fn between(old: (i64, i64), new: (i64, i64)) -> Option<bool> {
    if old.0 == UNLIMITED || new.0 == UNLIMITED {
        return Some(old.0 == UNLIMITED); // while there is no quota every period will do
    }
    let at_most =
        |a: (i64, i64), b: (i64, i64)| i128::from(a.0) * i128::from(b.1) <= i128::from(b.0) * i128::from(a.1);
    let (low, high) = if at_most(old, new) { (old, new) } else { (new, old) };
    let fits = |share| at_most(low, share) && at_most(share, high);
    match (fits((old.0, new.1)), fits((new.0, old.1))) {
        (true, _) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
    }
}

/// What brings `file` back to `old`, its content before `value` was written; `None` when nothing is known to.
pub fn restoring(file: &str, value: &str, old: &str) -> Option<String> {
    let old = old.trim_end();
    let key = value.split(' ').next().unwrap_or_default();
    let line =
        |key: &str| old.lines().find(|l| l.split_ascii_whitespace().next() == Some(key)).map(String::from);
    // Without a line there was no limit.
    let line_or = |none: &str| line(key).or_else(|| Some(format!("{key} {none}")));
    let is = |prefix: &str| file.starts_with(prefix);
    match file {
        "memory.oom_control" => old.split_ascii_whitespace().nth(1).map(String::from),
        "io.max" => line_or("rbps=max wbps=max riops=max wiops=max"),
        "rdma.max" => line_or("hca_handle=max hca_object=max"),
        _ if is("blkio.") && key.contains(':') => line_or("0"),
        _ if is("io.") && key.contains(':') && file.ends_with("weight") => line_or("default"),
        _ if is("io.") && !key.contains(':') && line("default").is_some() => line("default"),
        _ if old.is_empty() => Some("\n".into()), // of nothing, write(2) tells the file nothing
        _ if old.contains('\n') || is("net_prio.") => line(key),
        _ => Some(old.into()),
    }
}

#[cfg(test)]
mod tests;
