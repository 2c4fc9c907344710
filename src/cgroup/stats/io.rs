//! Block I/O.

use super::psi::{Psi, psi};
use super::{Files, Groups, is_zero};
use crate::error::Result;
use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub struct Blkio {
    #[serde(rename = "ioServiceBytesRecursive", skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<Entry>,
    #[serde(rename = "ioServicedRecursive", skip_serializing_if = "Vec::is_empty")]
    pub serviced: Vec<Entry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub queued: Vec<Entry>,
    #[serde(rename = "ioServiceTimeRecursive", skip_serializing_if = "Vec::is_empty")]
    pub service_time: Vec<Entry>,
    #[serde(rename = "ioWaitTimeRecursive", skip_serializing_if = "Vec::is_empty")]
    pub wait_time: Vec<Entry>,
    #[serde(rename = "ioMergedRecursive", skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<Entry>,
    #[serde(rename = "ioTimeRecursive", skip_serializing_if = "Vec::is_empty")]
    pub time: Vec<Entry>,
    #[serde(rename = "sectorsRecursive", skip_serializing_if = "Vec::is_empty")]
    pub sectors: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Entry {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

pub fn blkio(groups: &Groups) -> Result<Blkio> {
    let blkio = match (groups.v1("blkio.reset_stats"), &groups.v2) {
        (Some(f), _) => v1(f)?,
        (None, Some(f)) => v2(f)?,
        (None, None) => Blkio::default(),
    };
    Ok(Blkio { psi: psi(groups, "io.pressure")?, ..blkio })
}

/// Whoever schedules the I/O counts it: BFQ, CFQ (before 5.0), or the throttling layer.
fn v1(f: &Files) -> Result<Blkio> {
    for (prefix, suffix) in [
        ("blkio.bfq.", "_recursive"),
        ("blkio.", "_recursive"),
        ("blkio.throttle.", "_recursive"),
        ("blkio.throttle.", ""),
    ] {
        let of = |name: &str| entries(f, &format!("{prefix}{name}{suffix}"));
        let blkio = Blkio {
            bytes: of("io_service_bytes")?,
            serviced: of("io_serviced")?,
            queued: of("io_queued")?,
            service_time: of("io_service_time")?,
            wait_time: of("io_wait_time")?,
            merged: of("io_merged")?,
            time: of("time")?,
            sectors: of("sectors")?,
            psi: None,
        };
        if !blkio.serviced.is_empty() {
            return Ok(blkio);
        }
    }
    Ok(Blkio::default())
}

/// Lines `8:0 Read 4096` or `8:0 4096`; that of the total has no device.
fn entries(f: &Files, file: &str) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    for line in f.text(file)?.unwrap_or_default().lines() {
        let words: Vec<_> = line.split([' ', ':']).collect();
        let (major, minor, op, value) = match words[..] {
            [major, minor, op, value] => (major, minor, op, value),
            [major, minor, value] => (major, minor, "", value),
            _ => continue,
        };
        let number = |word| f.parse(file, word);
        all.push(Entry {
            major: number(major)?,
            minor: number(minor)?,
            op: op.to_string(),
            value: number(value)?,
        });
    }
    Ok(all)
}

/// Lines `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 ...`; v1 has no names for the others.
fn v2(f: &Files) -> Result<Blkio> {
    const FILE: &str = "io.stat";
    let mut blkio = Blkio::default();
    for line in f.text(FILE)?.unwrap_or_default().lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|d| d.split_once(':')) else { continue };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut blkio.bytes, "Read"),
                "wbytes" => (&mut blkio.bytes, "Write"),
                "rios" => (&mut blkio.serviced, "Read"),
                "wios" => (&mut blkio.serviced, "Write"),
                _ => continue,
            };
            table.push(Entry {
                major: f.parse(FILE, major)?,
                minor: f.parse(FILE, minor)?,
                op: op.to_string(),
                value: f.parse(FILE, value)?,
            });
        }
    }
    Ok(blkio)
}
