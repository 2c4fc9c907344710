//! resctrl (Documentation/filesystems/resctrl.rst): the container's group, made, given its share, joined, read,
//! removed.
//!
//! A process that is in a group begets all others there, so that only init, what `exec` starts and criu are written to
//! `tasks`. A group that goes hands its processes to the default one: its removal never waits.

mod stats;

pub use stats::Stats;

use crate::cgroup;
use crate::error::{Error, Kind, Result, os};
use crate::plan::cpath;
use crate::plan::rdt::{Line, Rdt, Resctrl, matches};
use crate::sys::fd;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

const AT: &str = "linux.intelRdt";
const USUAL: &str = "/sys/fs/resctrl";
const RDTGROUP_SUPER_MAGIC: i64 = 0x0765_5821;

/// Whether there is a resctrl file system, and where.
pub fn probe() -> Resctrl {
    let magic = nix::sys::statfs::statfs(USUAL).ok().map(|s| s.filesystem_type().0);
    if magic == Some(RDTGROUP_SUPER_MAGIC) {
        return Resctrl::At(USUAL.into());
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match cgroup::mount_of("resctrl") {
        Some(mount) => Resctrl::At(mount),
        None if known.lines().any(|l| l.ends_with("\tresctrl")) => Resctrl::NotMounted,
        None => Resctrl::Unknown,
    }
}

/// What delete must know, on record before anything is made. All empty: resctrl is not used, and not touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Recorded {
    /// Absolute path of the file system.
    mount: String,
    /// Absolute path of the group.
    group: String,
    /// It was not there before us.
    made: bool,
    /// The document named it: others may be in it by now.
    named: bool,
    /// Absolute path of the monitoring group.
    monitor: String,
}

/// Between two users of the file system, as the kernel's document asks them to lock it.
pub fn lock(plan: &Rdt) -> Result<OwnedFd> {
    let dir = fd::open(&cpath(AT, Path::new(&plan.mount))?, libc::O_RDONLY | libc::O_DIRECTORY, 0)
        .map_err(os(AT, format!("open {}", plan.mount)))?;
    fd::flock(&dir, libc::LOCK_EX).map_err(os(AT, format!("flock {}", plan.mount)))?;
    Ok(dir)
}

impl Recorded {
    /// Where it will be; with the lock held.
    pub fn of(plan: &Rdt) -> Recorded {
        let group = plan.path();
        let monitor = plan.monitor.as_ref().map(|m| format!("{group}/mon_groups/{m}"));
        Recorded {
            made: !plan.must_exist() && !Path::new(&group).exists(),
            named: plan.named,
            // One that is there already is another's.
            monitor: monitor.filter(|m| !Path::new(m).exists()).unwrap_or_default(),
            mount: plan.mount.clone(),
            group,
        }
    }

    pub fn is_none(&self) -> bool {
        self.group.is_empty()
    }

    /// Makes what is recorded, and writes every line; what was made is undone on an error. With the lock held.
    pub fn create(&self, plan: &Rdt) -> Result<()> {
        if self.made {
            self.mkdir(AT, &self.group)?;
        }
        self.fill(plan).inspect_err(|_| {
            let _ = self.made.then(|| fs::remove_dir(&self.group)); // the error before matters more
        })
    }

    fn fill(&self, plan: &Rdt) -> Result<()> {
        if !self.made && !Path::new(&self.group).is_dir() {
            let what = format!("there is no group {}, and no schema to make it with", self.group);
            return Err(Error::new(Kind::NotFound, format!("{AT}.closID"), what));
        }
        if !self.made {
            let in_force = self.schemata(&self.group)?;
            let granularity = self.number("info/MB/bandwidth_gran").unwrap_or(0);
            for l in plan.schemata.iter().filter(|l| l.must_match) {
                if !in_force.iter().any(|there| matches(&l.value, there, granularity)) {
                    let what =
                        format!("{:?} is not what {} has, {:?}", l.value, self.group, in_force.join(" "));
                    return Err(Error::invalid(&l.at, what).hint("a group that is there is not changed"));
                }
            }
        }
        plan.schemata.iter().try_for_each(|l| self.write_line(l))?;
        match (&plan.monitor, self.monitor.as_str()) {
            (None, _) => Ok(()),
            (Some(name), "") => {
                let at = format!("{}/mon_groups/{name}", self.group);
                Err(Error::new(
                    Kind::Exists,
                    format!("{AT}.enableMonitoring"),
                    format!("{at} is there already"),
                ))
            }
            (_, monitor) => self.mkdir(&format!("{AT}.enableMonitoring"), monitor),
        }
    }

    fn mkdir(&self, at: &str, path: &str) -> Result<()> {
        fs::create_dir(path).map_err(|e| {
            let error = self.explained(Error::io(at, format!("mkdir {path}"), &e));
            match e.raw_os_error() {
                Some(libc::ENOSPC) => error.hint("the CPU has no class or counter left"),
                _ => error,
            }
        })
    }

    fn write_line(&self, line: &Line) -> Result<()> {
        self.write(&line.at, &format!("{}/schemata", self.group), &line.value)
    }

    /// The kernel takes whole lines, each in one write(2).
    fn write(&self, at: &str, file: &str, value: &str) -> Result<()> {
        let open = fs::OpenOptions::new().write(true).open(file);
        open.and_then(|mut f| f.write_all(format!("{value}\n").as_bytes()))
            .map_err(|e| self.explained(Error::io(at, format!("write {value:?} to {file}"), &e)))
    }

    /// With what the file system itself says of the last failure.
    fn explained(&self, e: Error) -> Error {
        match fs::read_to_string(format!("{}/info/last_cmd_status", self.mount)) {
            Ok(text) if !matches!(text.trim(), "" | "ok") => e.hint(text.trim()),
            _ => e,
        }
    }

    /// Puts a process in, before it runs anything of the container's.
    pub fn join(&self, pid: i32) -> Result<()> {
        let groups = [&self.group, &self.monitor];
        let groups = groups.iter().filter(|g| !g.is_empty());
        groups.into_iter().try_for_each(|g| self.write(AT, &format!("{g}/tasks"), &pid.to_string()))
    }

    /// Removes what was made for this container alone; of a creation that `failed`, its named group too, unless
    /// somebody else is in it by now (config-linux.md#intelrdt: one that `closID` names stays).
    pub fn remove(&self, failed: bool) -> Result<()> {
        let unused = || fs::read(format!("{}/tasks", self.group)).is_ok_and(|t| t.is_empty());
        let path = match self.made && (!self.named || failed && unused()) {
            true => &self.group, // its monitoring groups go with it
            false => &self.monitor,
        };
        if path.is_empty() {
            return Ok(());
        }
        match fs::remove_dir(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "rmdir", &e)),
            _ => Ok(()),
        }
    }

    /// Changes lines of the group, all or none; answers with the old ones.
    pub fn change(&self, lines: &[Line]) -> Result<Vec<Line>> {
        let there = self.schemata(&self.group)?;
        let name = |line: &str| line.split(':').next().map(|n| n.trim().to_string());
        let old = lines.iter().filter_map(|l| {
            let value = there.iter().find(|t| name(t) == name(&l.value))?;
            Some(Line { value: value.replace(' ', ""), ..l.clone() })
        });
        let old: Vec<_> = old.collect();
        for l in lines {
            self.write_line(l).inspect_err(|_| self.put_back(&old))?;
        }
        Ok(old)
    }

    /// Undoes a change; what cannot be undone is logged, since the cause matters more.
    pub fn put_back(&self, old: &[Line]) {
        for e in old.iter().filter_map(|l| self.write_line(l).err()) {
            tracing::warn!("{e}");
        }
    }

    /// The lines of a group's `schemata`.
    fn schemata(&self, group: &str) -> Result<Vec<String>> {
        let file = format!("{group}/schemata");
        let text = fs::read_to_string(&file).map_err(|e| Error::io(AT, format!("read {file}"), &e))?;
        Ok(text.lines().map(|l| l.trim().to_string()).filter(|l| !l.is_empty()).collect())
    }

    fn text(&self, file: &str) -> Option<String> {
        Some(fs::read_to_string(format!("{}/{file}", self.mount)).ok()?.trim().to_string())
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.text(file)?.parse().ok()
    }
}

#[cfg(test)]
mod tests;
