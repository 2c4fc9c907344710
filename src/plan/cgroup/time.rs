//! config-linux.md#cpu: shares, quotas, and the CPUs themselves.

use super::{Need, Sheet, Side, unset_if_zero, v1_only};
use crate::config::Cpu;
use crate::error::{Error, Result};

const AT: &str = "linux.resources.cpu";
/// Microseconds, as the kernel has it without our word.
const PERIOD: u64 = 100_000;

fn bad<T>(name: &str, what: String) -> Result<T> {
    Err(Error::invalid(format!("{AT}.{name}"), what))
}

pub fn plan(c: &Cpu, sheet: &mut Sheet) -> Result<()> {
    shares(c, sheet)?;
    quota(c, sheet)?;
    realtime(c, sheet)?;
    // After shares, which the kernel refuses for an idle cgroup.
    if let Some(idle) = c.idle {
        if idle != 0 && idle != 1 {
            return bad("idle", format!("{idle} is neither 0 nor 1"));
        }
        let at = format!("{AT}.idle");
        let side = sheet.side("cpu", &at)?;
        let write = sheet.put(side, "cpu.idle", idle, &at);
        if idle == 0 {
            write.need(Need::IfThere); // kernels before 5.15 know no other value
        }
    }
    for (name, list) in [("cpus", &c.cpus), ("mems", &c.mems)] {
        let Some(list) = list.as_deref().map(str::trim).filter(|l| !l.is_empty()) else { continue };
        let at = format!("{AT}.{name}");
        if let Some(why) = list_error(list) {
            return Err(Error::invalid(at, format!("{list:?} {why}")));
        }
        let side = sheet.side("cpuset", &at)?;
        sheet.put(side, &format!("cpuset.{name}"), list, &at);
    }
    Ok(())
}

fn shares(c: &Cpu, sheet: &mut Sheet) -> Result<()> {
    let Some(shares) = unset_if_zero(c.shares) else { return Ok(()) };
    let at = format!("{AT}.shares");
    match sheet.side("cpu", &at)? {
        Side::V2 if !(2..=262_144).contains(&shares) => bad("shares", format!("{shares} is not in 2-262144")),
        Side::V2 => {
            sheet.put(Side::V2, "cpu.weight", weight(shares), &at);
            Ok(())
        }
        side => {
            sheet.put(side, "cpu.shares", shares, &at); // the kernel brings it into its range
            Ok(())
        }
    }
}

/// 2-262144 to 1-10000, such that 1024 is 100, each side's default: a quadratic curve in the logarithms.
fn weight(shares: u64) -> u64 {
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent) - 1e-9).ceil().clamp(1.0, 10_000.0) as u64
}

fn quota(c: &Cpu, sheet: &mut Sheet) -> Result<()> {
    let (quota, period) = (unset_if_zero(c.quota), unset_if_zero(c.period));
    if let Some(q) = quota.filter(|q| (1..1000).contains(q)) {
        return bad("quota", format!("{q} is below 1000 microseconds"));
    }
    if let Some(p) = period.filter(|p| !(1000..=1_000_000).contains(p)) {
        return bad("period", format!("{p} is not in 1000-1000000 microseconds"));
    }
    if let (Some(burst), Some(q)) = (c.burst, quota.filter(|q| *q > 0)) {
        if burst > q as u64 {
            return bad("burst", format!("{burst} is above cpu.quota {q}"));
        }
    }
    let at = format!("{AT}.{}", if quota.is_some() { "quota" } else { "period" });
    if quota.is_some() || period.is_some() {
        match sheet.side("cpu", &at)? {
            Side::V2 => {
                let quota = quota.filter(|q| *q > 0).map_or("max".into(), |q| q.to_string());
                sheet.put(Side::V2, "cpu.max", format!("{quota} {}", period.unwrap_or(PERIOD)), &at);
            }
            side => {
                if let Some(p) = period {
                    sheet.put(side, "cpu.cfs_period_us", p, &format!("{AT}.period"));
                }
                if let Some(q) = quota {
                    sheet.put(side, "cpu.cfs_quota_us", q.max(-1), &at); // after the period it is a share of
                }
            }
        }
    }
    if let Some(burst) = c.burst {
        let at = format!("{AT}.burst");
        let side = sheet.side("cpu", &at)?;
        let file = if side == Side::V2 { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
        let write = sheet.put(side, file, burst, &at); // after the quota it may not exceed
        if burst == 0 {
            write.need(Need::IfThere); // kernels before 5.14 know no other value
        }
    }
    Ok(())
}

fn realtime(c: &Cpu, sheet: &mut Sheet) -> Result<()> {
    let period = unset_if_zero(c.realtime_period).map(|p| p.to_string());
    let runtime = unset_if_zero(c.realtime_runtime).map(|r| r.to_string());
    for (name, file, value) in
        [("realtimePeriod", "cpu.rt_period_us", period), ("realtimeRuntime", "cpu.rt_runtime_us", runtime)]
    {
        let Some(value) = value else { continue };
        let at = format!("{AT}.{name}");
        match sheet.side("cpu", &at)? {
            Side::V2 => return Err(v1_only(&at)),
            side => sheet.put(side, file, value, &at),
        };
    }
    Ok(())
}

/// What is wrong with a list like `0-3,5` (cpuset(7), "List format"), if anything is.
fn list_error(list: &str) -> Option<String> {
    list.split(',').map(str::trim).find_map(|part| {
        let (range, stride) = part.split_once(':').map_or((part, None), |(r, s)| (r, Some(s)));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |n: &str| n.bytes().all(|b| b.is_ascii_digit()).then(|| n.parse::<u32>().ok()).flatten();
        let stride_ok = stride.is_none_or(|s| {
            s.split_once('/').is_some_and(|(used, group)| number(used).is_some() && number(group).is_some())
        });
        match (number(first), number(last)) {
            (Some(a), Some(b)) if stride_ok && a <= b => None,
            (Some(a), Some(b)) if stride_ok => Some(format!("has the range {a}-{b}, which runs backwards")),
            _ => Some(format!("has {part:?}, which is neither a number nor a range")),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_keeps_the_ends_and_the_default() {
        for (shares, expected) in
            [(2, 1), (3, 2), (256, 35), (512, 59), (1024, 100), (2048, 174), (4096, 303), (262_144, 10_000)]
        {
            assert_eq!(weight(shares), expected, "{shares}");
        }
    }

    #[test]
    fn lists() {
        for list in ["0", "0-3", "0-3,5", "1,2,3", "0-31:2/4", "0, 2"] {
            assert_eq!(list_error(list), None, "{list}");
        }
        for list in ["a", "-1", "3-1", "0-", "0,,1", "1.5", "0-3:2", "0\n1", "+1", "99999999999"] {
            assert!(list_error(list).is_some(), "{list:?}");
        }
    }
}
