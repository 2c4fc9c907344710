//! Planned writes to the properties that say the same to systemd (systemd.resource-control(5),
//! org.freedesktop.systemd1(5)). What has none is written to the files alone.

use super::Property;
use super::value::Value;
use crate::plan::cgroup::CgroupPlan;
use crate::plan::cgroup::devices::{Rule, lists};

/// One file with its value, and the property of the document that asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    pub file: &'a str,
    pub value: &'a str,
    pub at: &'a str,
}

/// systemd's word for no limit.
const INFINITY: u64 = u64::MAX;
/// Microseconds: the kernel's period of a quota, unless another is set.
const PERIOD: u64 = 100_000;

/// Every write of a plan, with its other form for kernels that have not the first.
pub fn settings(plan: &CgroupPlan) -> Vec<Setting<'_>> {
    let v1 = plan.v1.iter().flat_map(|v| &v.writes);
    let all = v1.chain(plan.v2.iter().flat_map(|v| &v.writes));
    let mut out = Vec::new();
    for w in all {
        out.push(Setting { file: &w.file, value: &w.value, at: &w.at });
        out.extend(w.or.iter().map(|(file, value)| Setting { file, value, at: &w.at }));
    }
    out
}

/// The properties that a running unit can be given, too. Of two writes of a file the last counts, as in the file.
pub fn of_limits(settings: &[Setting], version: u32) -> Vec<Property> {
    let mut out: Vec<Property> = Vec::new();
    let put = |out: &mut Vec<Property>, name: &str, value: Value, at: &str| {
        out.retain(|p| p.name != name);
        out.push(Property { name: name.into(), value, at: at.into() });
    };
    let weighed = settings.iter().any(|s| s.file == "cpu.weight");
    for s in settings {
        let Some((name, kind, since)) = known(s.file) else { continue };
        if version < since {
            continue;
        }
        let value = match kind {
            Kind::Number => number(s.value).map(Value::U64),
            Kind::Tasks => number(s.value).map(|n| Value::U64(n.max(1))), // 0 is no value for systemd
            Kind::Mask => mask(s.value),
            // 0 is systemd's word for an idle cgroup, and no weight the one for what is none any more.
            Kind::Idle if s.value == "1" => Some(Value::U64(0)),
            Kind::Idle => (s.value == "0" && !weighed).then_some(Value::U64(INFINITY)),
        };
        if let Some(value) = value {
            put(&mut out, name, value, s.at);
        }
    }
    if let Some((quota, period, at)) = quota(settings) {
        if version >= 242 {
            put(&mut out, "CPUQuotaPeriodUSec", Value::U64(period), at);
        }
        put(&mut out, "CPUQuotaPerSecUSec", Value::U64(quota), at);
    }
    out
}

enum Kind {
    /// `max`, and -1, are infinity.
    Number,
    Tasks,
    /// A list of CPUs or nodes.
    Mask,
    Idle,
}

/// Name and kind of a file's property, and the first version of systemd that knows it.
fn known(file: &str) -> Option<(&'static str, Kind, u32)> {
    Some(match file {
        "memory.max" => ("MemoryMax", Kind::Number, 0),
        "memory.high" => ("MemoryHigh", Kind::Number, 0),
        "memory.low" => ("MemoryLow", Kind::Number, 0),
        "memory.min" => ("MemoryMin", Kind::Number, 240),
        "memory.swap.max" => ("MemorySwapMax", Kind::Number, 0),
        "memory.zswap.max" => ("MemoryZSwapMax", Kind::Number, 253),
        "memory.limit_in_bytes" => ("MemoryLimit", Kind::Number, 0),
        "cpu.weight" => ("CPUWeight", Kind::Number, 0),
        "cpu.idle" => ("CPUWeight", Kind::Idle, 252),
        "cpu.shares" => ("CPUShares", Kind::Number, 0),
        "cpuset.cpus" => ("AllowedCPUs", Kind::Mask, 244),
        "cpuset.mems" => ("AllowedMemoryNodes", Kind::Mask, 244),
        "io.weight" => ("IOWeight", Kind::Number, 0),
        "blkio.weight" => ("BlockIOWeight", Kind::Number, 0),
        "pids.max" => ("TasksMax", Kind::Tasks, 0),
        _ => return None,
    })
}

fn number(text: &str) -> Option<u64> {
    match text.trim().strip_prefix("default ").unwrap_or(text.trim()) {
        "max" | "-1" => Some(INFINITY),
        n => n.parse().ok(),
    }
}

/// `0-3,8` to a bit for each, from the lowest of the first byte on.
fn mask(list: &str) -> Option<Value> {
    const MOST: usize = 8192; // CPUs that a kernel can be built for
    let mut bytes: Vec<u8> = Vec::new();
    for part in list.trim().split(',') {
        let (range, stride) = part.trim().split_once(':').unwrap_or((part.trim(), "1/1"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        let (used, group) = stride.split_once('/')?;
        let (used, group): (usize, usize) = (used.parse().ok()?, group.parse().ok()?);
        if last >= MOST || group == 0 {
            return None;
        }
        for n in (first..=last).filter(|n| (n - first) % group < used) {
            bytes.resize(bytes.len().max(n / 8 + 1), 0);
            bytes[n / 8] |= 1 << (n % 8);
        }
    }
    Some(Value::Array("y".into(), bytes.into_iter().map(Value::Byte).collect()))
}

/// Microseconds of CPU in a second, the period, and what asked for them.
fn quota<'a>(settings: &[Setting<'a>]) -> Option<(u64, u64, &'a str)> {
    let last = |file: &str| settings.iter().rfind(|s| s.file == file);
    let (quota, period, at) = match last("cpu.max") {
        Some(max) => {
            let mut words = max.value.split_ascii_whitespace();
            (number(words.next()?)?, words.next().map_or(Some(PERIOD), |w| w.parse().ok())?, max.at)
        }
        None => {
            let (quota, period) = (last("cpu.cfs_quota_us"), last("cpu.cfs_period_us"));
            let at = quota.or(period)?.at;
            (
                quota.map_or(Some(INFINITY), |s| number(s.value))?,
                period.map_or(Some(PERIOD), |s| s.value.trim().parse().ok())?,
                at,
            )
        }
    };
    if quota == INFINITY || period == 0 {
        return Some((INFINITY, period, at));
    }
    // systemd keeps whole percents, and less than what was asked for could not be handed on to a cgroup below.
    const PERCENT: u64 = 10_000;
    let per_second = quota.checked_mul(1_000_000)? / period;
    Some((per_second.div_ceil(PERCENT) * PERCENT, period, at))
}

/// What only a unit that is started is asked. Since 253 a scope has a policy for the OOM killer; it writes
/// memory.oom.group itself.
pub fn at_creation(plan: &CgroupPlan, version: u32) -> Option<Property> {
    let settings = settings(plan);
    let group = settings.iter().rfind(|s| s.file == "memory.oom.group").filter(|_| version >= 253)?;
    let policy = match group.value.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    let value = Value::Str(policy.into());
    Some(Property { name: "OOMPolicy".into(), value, at: group.at.into() })
}

/// Rules as systemd knows them: all but some are refused. Others have no property, and systemd then leaves devices
/// alone. On v1 it would open them all when it is reloaded without (it writes `a` to devices.allow).
pub fn of_devices(rules: &[Rule]) -> Vec<Property> {
    let Ok(writes) = lists(rules) else { return Vec::new() };
    let Some((deny, allow)) = writes.split_first().filter(|w| w.0.file == "devices.deny" && w.0.value == "a")
    else {
        return Vec::new();
    };
    let Some(nodes) = allow.iter().map(|w| node(&w.value)).collect() else { return Vec::new() };
    let put = |name: &str, value| Property { name: name.into(), value, at: deny.at.clone() };
    vec![
        put("DevicePolicy", Value::Str("strict".into())),
        put("DeviceAllow", Value::Array("(ss)".into(), nodes)),
    ]
}

/// `c 1:3 rwm` to `/dev/char/1:3`, `c 136:* rwm` to `char-136`, `c *:* m` to `char-*`.
fn node(line: &str) -> Option<Value> {
    let mut words = line.split(' ');
    let kind = if words.next()? == "b" { "block" } else { "char" };
    let name = match words.next()?.split_once(':')? {
        (major, "*") => format!("{kind}-{major}"),
        ("*", _) => return None, // no property says so
        (major, minor) => format!("/dev/{kind}/{major}:{minor}"),
    };
    Some(Value::Struct(vec![Value::Str(name), Value::Str(words.next()?.into())]))
}
