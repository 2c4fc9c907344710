//! What the group has and uses, in the structure that runc's `events` prints as `intel_rdt`.

use super::Recorded;
use crate::error::Result;
use serde::Serialize;
use std::fs;

/// All of it is left out without resctrl.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<L3CacheInfo>,
    /// The lines of the default group.
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_schema_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<MemBwInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_schema_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_schema: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schemata: Vec<String>,
    /// By L3 domain; of the monitoring group, if there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mbm_stats: Vec<Bandwidth>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmt_stats: Vec<Occupancy>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct L3CacheInfo {
    cbm_mask: String,
    min_cbm_bits: u64,
    num_closids: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct MemBwInfo {
    bandwidth_gran: u64,
    delay_linear: u64,
    min_bandwidth: u64,
    num_closids: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Bandwidth {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

impl Recorded {
    /// Numbers of now; of a counter that has none ("Unavailable"), zero.
    pub fn stats(&self) -> Result<Stats> {
        if self.is_none() {
            return Ok(Stats::default());
        }
        let (root, schemata) = (self.schemata(&self.mount)?, self.schemata(&self.group)?);
        let line = |list: &[String], name: &str| list.iter().find(|l| l.starts_with(name)).cloned();
        let number = |file: &str| self.number(file).unwrap_or(0);
        let mut stats = Stats::default();
        if let Some(cbm_mask) = self.text("info/L3/cbm_mask") {
            let (min_cbm_bits, num_closids) = (number("info/L3/min_cbm_bits"), number("info/L3/num_closids"));
            stats.l3_cache_info = Some(L3CacheInfo { cbm_mask, min_cbm_bits, num_closids });
            stats.l3_cache_schema_root = line(&root, "L3");
            stats.l3_cache_schema = line(&schemata, "L3");
        }
        if let Some(min_bandwidth) = self.number("info/MB/min_bandwidth") {
            stats.mem_bw_info = Some(MemBwInfo {
                bandwidth_gran: number("info/MB/bandwidth_gran"),
                delay_linear: number("info/MB/delay_linear"),
                min_bandwidth,
                num_closids: number("info/MB/num_closids"),
            });
            stats.mem_bw_schema_root = line(&root, "MB");
            stats.mem_bw_schema = line(&schemata, "MB");
        }
        stats.schemata = schemata;
        self.counters(&mut stats);
        Ok(stats)
    }

    fn counters(&self, stats: &mut Stats) {
        let features = self.text("info/L3_MON/mon_features").unwrap_or_default();
        let has = |name: &str| features.lines().any(|f| f == name);
        let data = format!("{}/mon_data", if self.monitor.is_empty() { &self.group } else { &self.monitor });
        let entries = fs::read_dir(&data).into_iter().flatten().flatten().map(|e| e.path());
        let mut domains: Vec<_> = entries.filter(|p| p.is_dir()).collect();
        domains.sort();
        for domain in domains {
            let count = |name: &str| {
                let text = fs::read_to_string(domain.join(name)).ok().filter(|_| has(name));
                text.and_then(|t| t.trim().parse().ok()).unwrap_or(0)
            };
            if has("mbm_total_bytes") || has("mbm_local_bytes") {
                let (mbm_total_bytes, mbm_local_bytes) = (count("mbm_total_bytes"), count("mbm_local_bytes"));
                stats.mbm_stats.push(Bandwidth { mbm_total_bytes, mbm_local_bytes });
            }
            if has("llc_occupancy") {
                stats.cmt_stats.push(Occupancy { llc_occupancy: count("llc_occupancy") });
            }
        }
    }
}
