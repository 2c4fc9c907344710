//! What a container uses, read from cgroupfs, in the structure that runc's `events` prints: its field names, with the
//! values of v2 under the names that v1 gave them.

mod cpu;
mod io;
mod memory;
mod psi;
mod rest;

use super::Cgroup;
use super::dir::Dir;
use crate::error::{Error, Kind, Result};
use crate::sys::Errno;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Display;

/// `data` of a `stats` event. Zeros and empty lists are left out where runc leaves them out.
#[derive(Debug, Serialize)]
pub struct Stats {
    pub cpu: cpu::Cpu,
    /// All zero on v2.
    pub cpuset: cpu::Cpuset,
    pub memory: memory::Memory,
    pub pids: rest::Pids,
    pub blkio: io::Blkio,
    /// By page size: `2MB`.
    pub hugetlb: BTreeMap<String, rest::Hugetlb>,
    /// Filled in by who knows the container's group.
    pub intel_rdt: crate::resctrl::Stats,
    /// null: runc has numbers only of interfaces that itself made, which its command line never does.
    pub network_interfaces: (),
}

impl Cgroup {
    /// Numbers of now. [`Kind::NotFound`] when there is no cgroup, or none any more.
    pub fn stats(&self) -> Result<Stats> {
        let files = |v2| {
            let places = self.places.iter().filter(move |p| p.v2 == v2);
            places.filter_map(|p| Some(Files { dir: p.open().ok()?, name: p.name() }))
        };
        let groups = Groups { v1: files(false).collect(), v2: files(true).next() };
        if groups.v1.is_empty() && groups.v2.is_none() {
            return Err(Error::new(Kind::NotFound, "", "the container has no cgroup to read from"));
        }
        Ok(Stats {
            cpu: cpu::cpu(&groups)?,
            cpuset: cpu::cpuset(&groups)?,
            memory: memory::memory(&groups)?,
            pids: rest::pids(&groups)?,
            blkio: io::blkio(&groups)?,
            hugetlb: rest::hugetlb(&groups)?,
            intel_rdt: crate::resctrl::Stats::default(),
            network_interfaces: (),
        })
    }
}

/// The container's cgroup in each hierarchy.
struct Groups {
    v1: Vec<Files>,
    v2: Option<Files>,
}

impl Groups {
    /// The v1 cgroup that has this file: it tells the controller.
    fn v1(&self, file: &str) -> Option<&Files> {
        self.v1.iter().find(|f| f.dir.has(file))
    }
}

/// One cgroup's files. One that is not there says nothing: kernels differ in what they have.
struct Files {
    dir: Dir,
    name: String,
}

impl Files {
    fn text(&self, file: &str) -> Result<Option<String>> {
        match self.dir.read(file) {
            Ok(text) => Ok(Some(text)),
            // EOPNOTSUPP: pressure is switched off
            Err(Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(None),
            Err(e) => Err(Error::os(self.at(file), "read", e as i32)),
        }
    }

    /// A file of one number; `max` is the highest of all.
    fn number(&self, file: &str) -> Result<Option<u64>> {
        self.text(file)?.map(|t| self.parse(file, t.trim_end())).transpose()
    }

    /// A file of lines `key value`; empty when there is none.
    fn table(&self, file: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.text(file)?.unwrap_or_default();
        let lines = text.lines().filter_map(|l| l.split_once(' '));
        lines.map(|(key, value)| Ok((key.to_string(), self.parse(file, value)?))).collect()
    }

    /// Counters of the memory controller were negative in some kernels: that is 0.
    fn parse(&self, file: &str, word: &str) -> Result<u64> {
        match word {
            "max" => Ok(u64::MAX),
            _ => word.parse().or_else(|_| match word.parse::<i64>() {
                Ok(_) => Ok(0),
                Err(_) => Err(self.unlike(file, word)),
            }),
        }
    }

    /// A file that has not the form which the kernel documents.
    fn unlike(&self, file: &str, found: impl Display) -> Error {
        Error::invalid(self.at(file), format!("has {:?}, not a number", found.to_string()))
    }

    fn at(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }
}

/// For `skip_serializing_if`: runc leaves out what is zero.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[cfg(test)]
mod tests;
