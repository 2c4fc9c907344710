//! Time on processors, and which.

use super::psi::{Psi, psi};
use super::{Files, Groups, is_zero};
use crate::error::Result;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Default, Serialize)]
pub struct Cpu {
    pub usage: Usage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Nanoseconds; by processor on v1 alone.
#[derive(Debug, Default, Serialize)]
pub struct Usage {
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Files of the same names on v1.
#[derive(Debug, Default, Serialize)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

pub fn cpu(groups: &Groups) -> Result<Cpu> {
    let stat = match &groups.v2 {
        Some(f) => f.table("cpu.stat")?, // there without the controller too
        None => BTreeMap::new(),
    };
    let nanoseconds = |key| number(&stat, key).saturating_mul(1000);
    let usage = match groups.v1("cpuacct.usage") {
        Some(f) => usage_v1(f)?,
        None => Usage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
            ..Usage::default()
        },
    };
    let throttling = match groups.v1("cpu.stat") {
        Some(f) => {
            let stat = f.table("cpu.stat")?;
            throttling(&stat, number(&stat, "throttled_time"))
        }
        None => throttling(&stat, nanoseconds("throttled_usec")),
    };
    Ok(Cpu { usage, throttling, psi: psi(groups, "cpu.pressure")? })
}

fn number(table: &BTreeMap<String, u64>, key: &str) -> u64 {
    table.get(key).copied().unwrap_or(0)
}

fn throttling(stat: &BTreeMap<String, u64>, throttled_time: u64) -> Throttling {
    Throttling {
        periods: number(stat, "nr_periods"),
        throttled_periods: number(stat, "nr_throttled"),
        throttled_time,
    }
}

fn usage_v1(f: &Files) -> Result<Usage> {
    /// USER_HZ is 100 on every architecture that we run on.
    const TICK: u64 = 10_000_000;
    let stat = f.table("cpuacct.stat")?;
    let ticks = |key| number(&stat, key).saturating_mul(TICK);
    let percpu = f.text("cpuacct.usage_percpu")?.unwrap_or_default();
    let percpu = percpu.split_ascii_whitespace().map(|w| f.parse("cpuacct.usage_percpu", w));
    let mut usage = Usage {
        total: f.number("cpuacct.usage")?.unwrap_or(0),
        percpu: percpu.collect::<Result<_>>()?,
        kernel: ticks("system"),
        user: ticks("user"),
        ..Usage::default()
    };
    // A line for each processor: number, user, system; since 4.10
    for line in f.text("cpuacct.usage_all")?.unwrap_or_default().lines().skip(1) {
        let mut words = line.split(' ').skip(1);
        if let (Some(user), Some(kernel)) = (words.next(), words.next()) {
            usage.percpu_user.push(f.parse("cpuacct.usage_all", user)?);
            usage.percpu_kernel.push(f.parse("cpuacct.usage_all", kernel)?);
        }
    }
    Ok(usage)
}

pub fn cpuset(groups: &Groups) -> Result<Cpuset> {
    let Some(f) = groups.v1("cpuset.cpus") else { return Ok(Cpuset::default()) };
    let of = |file| f.number(file).map(Option::unwrap_or_default);
    let level = f.text("cpuset.sched_relax_domain_level")?;
    Ok(Cpuset {
        cpus: list(f, "cpuset.cpus")?,
        cpu_exclusive: of("cpuset.cpu_exclusive")?,
        mems: list(f, "cpuset.mems")?,
        mem_hardwall: of("cpuset.mem_hardwall")?,
        mem_exclusive: of("cpuset.mem_exclusive")?,
        memory_migrate: of("cpuset.memory_migrate")?,
        memory_spread_page: of("cpuset.memory_spread_page")?,
        memory_spread_slab: of("cpuset.memory_spread_slab")?,
        memory_pressure: of("cpuset.memory_pressure")?,
        sched_load_balance: of("cpuset.sched_load_balance")?,
        sched_relax_domain_level: level.and_then(|t| t.trim_end().parse().ok()).unwrap_or(0),
    })
}

/// `0-2,4` (cpuset(7))
fn list(f: &Files, file: &str) -> Result<Vec<u16>> {
    let text = f.text(file)?.unwrap_or_default();
    let mut all = Vec::new();
    for range in text.trim_end().split(',').filter(|r| !r.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) => all.extend(from..=to),
            _ => return Err(f.unlike(file, range)),
        }
    }
    Ok(all)
}
