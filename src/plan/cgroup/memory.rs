//! config-linux.md#memory

use super::{Need, Sheet, Side, or_max, unset_if_zero, v1_only};
use crate::config::Memory;
use crate::error::{Error, Result};

const AT: &str = "linux.resources.memory";

/// Bytes; -1 is unlimited, and 0 is unset: engines send it, and no process fits in it.
fn bytes(name: &str, value: Option<i64>) -> Result<Option<i64>> {
    match value {
        Some(v) if v < -1 => {
            Err(Error::invalid(format!("{AT}.{name}"), format!("{v} is below -1 (unlimited)")))
        }
        v => Ok(unset_if_zero(v)),
    }
}

pub fn plan(m: &Memory, sheet: &mut Sheet) -> Result<()> {
    let limit = bytes("limit", m.limit)?;
    let reservation = bytes("reservation", m.reservation)?;
    let swap = bytes("swap", m.swap)?;
    let bound = limit.filter(|l| *l > 0);
    if let (Some(r), Some(l)) = (reservation, bound) {
        if r > l {
            return Err(Error::invalid(
                format!("{AT}.reservation"),
                format!("{r} is above memory.limit {l}"),
            ));
        }
    }
    match (swap, bound) {
        (Some(s), Some(l)) if s > 0 && s < l => {
            return Err(Error::invalid(format!("{AT}.swap"), format!("{s} is below memory.limit {l}")));
        }
        (Some(s), None) if s > 0 => {
            return Err(Error::invalid(format!("{AT}.swap"), format!("{s} needs a memory.limit below it")));
        }
        _ => {}
    }
    if bytes("kernel", m.kernel)?.is_some_and(|k| k > 0) {
        sheet.warnings.push(format!("{AT}.kernel: ignored, Linux 5.16 and newer know no such limit"));
    }
    if let Some(limit) = limit {
        let at = format!("{AT}.limit");
        match sheet.side("memory", &at)? {
            s @ Side::V1(_) => sheet.put(s, "memory.limit_in_bytes", limit, &at),
            Side::V2 => sheet.put(Side::V2, "memory.max", or_max(limit), &at),
        };
    }
    if let Some(swap) = swap {
        let at = format!("{AT}.swap");
        let side = sheet.side("memory", &at)?;
        // The property counts memory and swap, and so does v1; v2 counts swap alone.
        let only = swap - if swap < 0 { 0 } else { bound.unwrap_or(0) };
        let write = match side {
            Side::V1(_) => sheet.put(side, "memory.memsw.limit_in_bytes", swap, &at), // after limit: never below it
            Side::V2 => sheet.put(side, "memory.swap.max", or_max(only), &at),
        };
        // Without swap accounting there is nothing to lift, and on v2 no swap to forbid.
        if swap < 0 || (side == Side::V2 && only == 0) {
            write.need(Need::IfThere);
        }
    }
    if let Some(reservation) = reservation {
        let at = format!("{AT}.reservation");
        match sheet.side("memory", &at)? {
            s @ Side::V1(_) => sheet.put(s, "memory.soft_limit_in_bytes", reservation, &at),
            Side::V2 => sheet.put(Side::V2, "memory.low", or_max(reservation), &at),
        };
    }
    only_v1(m, sheet)
}

fn only_v1(m: &Memory, sheet: &mut Sheet) -> Result<()> {
    if let Some(tcp) = bytes("kernelTCP", m.kernel_tcp)? {
        put(sheet, "kernelTCP", "memory.kmem.tcp.limit_in_bytes", tcp, tcp < 0)?;
    }
    // Engines of old sent -1, as an unsigned number, for unset.
    if let Some(swappiness) = m.swappiness.filter(|s| *s != u64::MAX) {
        if swappiness > 100 {
            return Err(Error::invalid(format!("{AT}.swappiness"), format!("{swappiness} is above 100")));
        }
        put(sheet, "swappiness", "memory.swappiness", swappiness as i64, false)?;
    }
    if m.disable_oom_killer == Some(true) {
        put(sheet, "disableOOMKiller", "memory.oom_control", 1, false)?;
    }
    if let Some(on) = m.use_hierarchy {
        put(sheet, "useHierarchy", "memory.use_hierarchy", on.into(), on)?;
    }
    Ok(())
}

/// `as_v2`: the value is what v2 does anyway.
fn put(sheet: &mut Sheet, name: &str, file: &str, value: i64, as_v2: bool) -> Result<()> {
    let at = format!("{AT}.{name}");
    match sheet.side("memory", &at)? {
        Side::V2 if as_v2 => {}
        Side::V2 => return Err(v1_only(&at)),
        side => {
            sheet.put(side, file, value, &at);
        }
    }
    Ok(())
}
