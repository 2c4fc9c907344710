//! config-linux.md#block-io

use super::{Sheet, Side, unset_if_zero, v1_only};
use crate::config::{BlockIo, ThrottleDevice, WeightDevice};
use crate::error::{Error, Result};

const AT: &str = "linux.resources.blockIO";

pub fn plan(b: &BlockIo, sheet: &mut Sheet) -> Result<()> {
    if let Some(w) = weight(&format!("{AT}.weight"), b.weight)? {
        put_weight(sheet, &format!("{AT}.weight"), None, w)?;
    }
    if let Some(w) = weight(&format!("{AT}.leafWeight"), b.leaf_weight)? {
        put_leaf(sheet, &format!("{AT}.leafWeight"), None, w)?;
    }
    for (n, w) in b.weight_device.iter().flatten().enumerate() {
        weight_device(w, &format!("{AT}.weightDevice[{n}]"), sheet)?;
    }
    for (list, name, v1, v2) in [
        (&b.throttle_read_bps_device, "throttleReadBpsDevice", "read_bps", "rbps"),
        (&b.throttle_write_bps_device, "throttleWriteBpsDevice", "write_bps", "wbps"),
        (&b.throttle_read_iops_device, "throttleReadIOPSDevice", "read_iops", "riops"),
        (&b.throttle_write_iops_device, "throttleWriteIOPSDevice", "write_iops", "wiops"),
    ] {
        for (n, t) in list.iter().flatten().enumerate() {
            throttle(t, &format!("{AT}.{name}[{n}]"), v1, v2, sheet)?;
        }
    }
    Ok(())
}

fn side(sheet: &mut Sheet, at: &str) -> Result<Side> {
    if sheet.plan.v1.iter().any(|v| v.controllers.iter().any(|c| c == "blkio")) {
        return sheet.side("blkio", at);
    }
    sheet.side("io", at)
}

fn weight(at: &str, value: Option<u64>) -> Result<Option<u64>> {
    match unset_if_zero(value) {
        Some(w) if !(10..=1000).contains(&w) => Err(Error::invalid(at, format!("{w} is not in 10-1000"))),
        w => Ok(w),
    }
}

/// `device` is empty for the cgroup's own weight. CFQ (before 5.0) had the plain file of v1, BFQ has one of its own in
/// both, and on v2 the io.cost controller takes 1-10000.
fn put_weight(sheet: &mut Sheet, at: &str, device: Option<&str>, weight: u64) -> Result<()> {
    let line = |w: u64| device.map_or(w.to_string(), |d| format!("{d} {w}"));
    let suffix = if device.is_some() { "_device" } else { "" };
    let (file, or) = match side(sheet, at)? {
        Side::V1(_) => (format!("blkio.weight{suffix}"), (format!("blkio.bfq.weight{suffix}"), line(weight))),
        Side::V2 => {
            let scaled = 1 + (weight - 10) * 9999 / 990;
            ("io.bfq.weight".to_string(), ("io.weight".to_string(), line(scaled)))
        }
    };
    let side = side(sheet, at)?;
    sheet.put(side, &file, line(weight), at).or = Some(or);
    Ok(())
}

/// CFQ's weight of the cgroup's own processes against its children's; gone with Linux 5.0.
fn put_leaf(sheet: &mut Sheet, at: &str, device: Option<&str>, weight: u64) -> Result<()> {
    match (side(sheet, at)?, device) {
        (Side::V2, _) => return Err(v1_only(at)),
        (s, None) => sheet.put(s, "blkio.leaf_weight", weight, at),
        (s, Some(d)) => sheet.put(s, "blkio.leaf_weight_device", format!("{d} {weight}"), at),
    };
    Ok(())
}

fn weight_device(w: &WeightDevice, at: &str, sheet: &mut Sheet) -> Result<()> {
    let device = device(at, w.major, w.minor)?;
    let own = weight(&format!("{at}.weight"), w.weight)?;
    let leaf = weight(&format!("{at}.leafWeight"), w.leaf_weight)?;
    if own.is_none() && leaf.is_none() {
        return Err(Error::invalid(at, "has neither weight nor leafWeight"));
    }
    if let Some(w) = own {
        put_weight(sheet, at, Some(&device), w)?;
    }
    leaf.map_or(Ok(()), |w| put_leaf(sheet, at, Some(&device), w))
}

fn throttle(t: &ThrottleDevice, at: &str, v1: &str, v2: &str, sheet: &mut Sheet) -> Result<()> {
    let device = device(at, t.major, t.minor)?;
    let rate = t.rate.ok_or_else(|| Error::invalid(format!("{at}.rate"), "is required"))?;
    match side(sheet, at)? {
        Side::V2 => {
            let rate = if rate == 0 { "max".into() } else { rate.to_string() }; // v1's 0 is no limit
            sheet.put(Side::V2, "io.max", format!("{device} {v2}={rate}"), at)
        }
        s => sheet.put(s, &format!("blkio.throttle.{v1}_device"), format!("{device} {rate}"), at),
    };
    Ok(())
}

fn device(at: &str, major: Option<i64>, minor: Option<i64>) -> Result<String> {
    let number = |name: &str, n: Option<i64>| match n.map(u32::try_from) {
        Some(Ok(n)) => Ok(n),
        Some(Err(_)) => Err(Error::invalid(format!("{at}.{name}"), "is no device number")),
        None => Err(Error::invalid(format!("{at}.{name}"), "is required")),
    };
    Ok(format!("{}:{}", number("major", major)?, number("minor", minor)?))
}
