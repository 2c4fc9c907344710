//! Memory and swap, in bytes.

use super::psi::{Psi, psi};
use super::{Files, Groups, is_zero};
use crate::error::Result;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Debug, Default, Serialize)]
pub struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    pub usage: Entry,
    /// Memory and swap together, which v2 counts apart.
    pub swap: Entry,
    /// v1 alone, as is `kernelTCP`.
    pub kernel: Entry,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Entry,
    /// memory.stat as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

#[derive(Debug, Default, Serialize)]
pub struct Entry {
    pub limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

pub fn memory(groups: &Groups) -> Result<Memory> {
    let memory = match (groups.v1("memory.usage_in_bytes"), &groups.v2) {
        (Some(f), _) => v1(f)?,
        (None, Some(f)) => v2(f)?,
        (None, None) => Memory::default(),
    };
    Ok(Memory { psi: psi(groups, "memory.pressure")?, ..memory })
}

fn v1(f: &Files) -> Result<Memory> {
    let entry = |prefix: &str| -> Result<Entry> {
        let of = |key| f.number(&format!("{prefix}.{key}")).map(Option::unwrap_or_default);
        Ok(Entry {
            limit: of("limit_in_bytes")?,
            usage: of("usage_in_bytes")?,
            max: of("max_usage_in_bytes")?,
            failcnt: of("failcnt")?,
        })
    };
    let raw = f.table("memory.stat")?;
    Ok(Memory {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: entry("memory")?,
        swap: entry("memory.memsw")?,
        kernel: entry("memory.kmem")?,
        kernel_tcp: entry("memory.kmem.tcp")?,
        raw,
        psi: None,
    })
}

fn v2(f: &Files) -> Result<Memory> {
    let entry = |prefix: &str| -> Result<Entry> {
        let of = |key| f.number(&format!("{prefix}.{key}")).map(Option::unwrap_or_default);
        // peak since 5.19, of swap since 6.5
        Ok(Entry { limit: of("max")?, usage: of("current")?, max: of("peak")?, failcnt: 0 })
    };
    let (usage, swap) = (entry("memory")?, entry("memory.swap")?);
    let raw = f.table("memory.stat")?;
    Ok(Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        swap: Entry {
            // Without a limit on swap there is none on both.
            limit: if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_add(usage.limit) },
            usage: swap.usage.saturating_add(usage.usage),
            max: 0, // two peaks of different times are not one of both
            failcnt: 0,
        },
        usage,
        raw,
        ..Memory::default()
    })
}
