//! Processes and huge pages.

use super::{Files, Groups, is_zero};
use crate::error::{Result, os};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Default, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// 0 for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Bytes.
#[derive(Debug, Default, Serialize)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

pub fn pids(groups: &Groups) -> Result<Pids> {
    let Some(f) = groups.v1("pids.current").or(groups.v2.as_ref()) else { return Ok(Pids::default()) };
    match f.number("pids.current")? {
        Some(current) => {
            let limit = f.number("pids.max")?.filter(|l| *l != u64::MAX);
            Ok(Pids { current, limit: limit.unwrap_or(0) })
        }
        // Without the controller, count. A threaded cgroup answers with EOPNOTSUPP.
        None => {
            let text = match f.text("cgroup.procs")? {
                Some(text) => text,
                None => f.text("cgroup.threads")?.unwrap_or_default(),
            };
            Ok(Pids { current: text.lines().count() as u64, limit: 0 })
        }
    }
}

/// Reservations where the kernel counts them (5.7), which are what a program sees refused. A hybrid host has them on
/// v2.
pub fn hugetlb(groups: &Groups) -> Result<BTreeMap<String, Hugetlb>> {
    let mut all = BTreeMap::new();
    for f in groups.v1.iter().chain(&groups.v2) {
        for size in page_sizes(f)? {
            let of = |name: &str| -> Result<u64> {
                let reserved = f.number(&format!("hugetlb.{size}.rsvd.{name}"))?;
                let used = || f.number(&format!("hugetlb.{size}.{name}"));
                Ok(match reserved {
                    Some(n) => n,
                    None => used()?.unwrap_or(0),
                })
            };
            let events = f.table(&format!("hugetlb.{size}.events"))?; // v2
            let hugetlb = match f.dir.has(&format!("hugetlb.{size}.max_usage_in_bytes")) {
                true => Hugetlb {
                    usage: of("usage_in_bytes")?,
                    max: of("max_usage_in_bytes")?,
                    failcnt: of("failcnt")?,
                },
                false => Hugetlb {
                    usage: of("current")?,
                    max: 0,
                    failcnt: events.get("max").copied().unwrap_or(0),
                },
            };
            all.insert(size, hugetlb);
        }
    }
    Ok(all)
}

/// `2MB` of `hugetlb.2MB.current`
fn page_sizes(f: &Files) -> Result<Vec<String>> {
    let names = f.dir.names(false).map_err(os(&f.name, "read"))?;
    let size = |n: &std::ffi::CString| {
        let (size, rest) = n.to_str().ok()?.strip_prefix("hugetlb.")?.split_once('.')?;
        matches!(rest, "usage_in_bytes" | "current").then(|| size.to_string())
    };
    Ok(names.iter().filter_map(size).collect())
}
