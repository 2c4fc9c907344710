//! config-linux.md: pids, hugepageLimits, network, rdma and unified.

use super::{Need, Sheet, Side, or_max, unset_if_zero, v1_only};
use crate::config::{Network, Resources};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

const AT: &str = "linux.resources";

pub fn plan(r: &Resources, sheet: &mut Sheet) -> Result<()> {
    // 0 is a limit since 1.3.0; `pids: {}` is none.
    if let Some(limit) = r.pids.as_ref().and_then(|p| p.limit) {
        let at = format!("{AT}.pids.limit");
        if limit < -1 {
            return Err(Error::invalid(at, format!("{limit} is below -1 (unlimited)")));
        }
        let side = sheet.side("pids", &at)?;
        sheet.put(side, "pids.max", or_max(limit), &at);
    }
    hugepages(r, sheet)?;
    if let Some(n) = &r.network {
        network(n, sheet)?;
    }
    rdma(r, sheet)?;
    r.unified.as_ref().map_or(Ok(()), |map| unified(map, sheet))
}

fn hugepages(r: &Resources, sheet: &mut Sheet) -> Result<()> {
    for (n, h) in r.hugepage_limits.iter().flatten().enumerate() {
        let at = format!("{AT}.hugepageLimits[{n}]");
        let size = h.page_size.as_deref().unwrap_or_default();
        // It becomes part of a file's name.
        let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) || digits.starts_with('0') {
            return Err(Error::invalid(format!("{at}.pageSize"), format!("{size:?} is not a size like 2MB")));
        }
        let limit = h.limit.ok_or_else(|| Error::invalid(format!("{at}.limit"), "is required"))?;
        let side = sheet.side("hugetlb", &at)?;
        let file = if side == Side::V2 { "max" } else { "limit_in_bytes" };
        sheet.put(side, &format!("hugetlb.{size}.{file}"), limit, &at);
        // Reserving is refused where the plain limit kills with SIGBUS; since Linux 5.7.
        sheet.put(side, &format!("hugetlb.{size}.rsvd.{file}"), limit, &at).need(Need::IfThere);
    }
    Ok(())
}

fn network(n: &Network, sheet: &mut Sheet) -> Result<()> {
    let mut put = |controller: &str, at: String, file: &str, value: String| {
        if sheet.h.is_unified() {
            return Err(v1_only(&at));
        }
        let side = sheet.side(controller, &at)?;
        sheet.put(side, file, value, &at);
        Ok(())
    };
    if let Some(id) = unset_if_zero(n.class_id) {
        let at = format!("{AT}.network.classID");
        if id > u32::MAX.into() {
            return Err(Error::invalid(at, format!("{id} is above 4294967295")));
        }
        put("net_cls", at, "net_cls.classid", id.to_string())?;
    }
    for (i, p) in n.priorities.iter().flatten().enumerate() {
        let at = format!("{AT}.network.priorities[{i}]");
        let name = p.name.as_deref().unwrap_or_default();
        if !is_word(name) || name.len() > 15 {
            return Err(Error::invalid(format!("{at}.name"), format!("{name:?} is no name of an interface")));
        }
        let priority = p.priority.ok_or_else(|| Error::invalid(format!("{at}.priority"), "is required"))?;
        put("net_prio", at, "net_prio.ifpriomap", format!("{name} {priority}"))?;
    }
    Ok(())
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
}

fn rdma(r: &Resources, sheet: &mut Sheet) -> Result<()> {
    for (device, limits) in r.rdma.iter().flatten() {
        let at = format!("{AT}.rdma[{device:?}]");
        if !is_word(device) {
            return Err(Error::invalid(at, "is no name of a device"));
        }
        let mut value = device.clone();
        for (name, property, limit) in [
            ("hca_handle", "hcaHandles", limits.hca_handles),
            ("hca_object", "hcaObjects", limits.hca_objects),
        ] {
            let Some(limit) = limit else { continue };
            if limit > u32::MAX.into() {
                return Err(Error::invalid(
                    format!("{at}.{property}"),
                    format!("{limit} is above 4294967295"),
                ));
            }
            value.push_str(&format!(" {name}={limit}"));
        }
        if value == *device {
            return Err(Error::invalid(at, "has neither hcaHandles nor hcaObjects"));
        }
        let side = sheet.side("rdma", &at)?;
        sheet.put(side, "rdma.max", value, &at);
    }
    Ok(())
}

/// Files of the core that are no limits: they move, stop or end processes, of the host too.
const ACTIONS: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.type",
    "cgroup.subtree_control",
];

/// After the converted values, so that the user's word is the last.
fn unified(map: &BTreeMap<String, String>, sheet: &mut Sheet) -> Result<()> {
    for (key, value) in map {
        let at = format!("{AT}.unified[{key:?}]");
        if !sheet.h.is_unified() && !sheet.h.are_none() {
            return Err(Error::unsupported(at, "needs a host with cgroup v2 alone"));
        }
        let controller = key.split_once('.').map(|(c, _)| c).unwrap_or_default();
        let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if controller.is_empty() || !plain || key.contains("..") {
            return Err(Error::invalid(at, "is no name of a cgroup file"));
        }
        if ACTIONS.contains(&key.as_str()) {
            return Err(Error::invalid(at, "is an action, not a limit"));
        }
        let side = match controller {
            "cgroup" if sheet.h.is_unified() => Side::V2, // the core is always there
            c => sheet.side(c, &at)?,
        };
        // The kernel takes one line a write.
        for line in value.lines() {
            sheet.put(side, key, line, &at);
        }
    }
    Ok(())
}
