//! New limits for a cgroup that has some: all of them, or none.

use super::create::refused;
use super::dir::Dir;
use super::systemd::{Recorded, Systemd};
use super::{Cgroup, Place, prefix, v2};
use crate::error::{Error, Result, os};
use crate::plan::cgroup::systemd::{Setting, of_limits, settings};
use crate::plan::cgroup::update::{InForce, LOOKED_AT, restoring};
use crate::plan::cgroup::{CgroupPlan, Hierarchies, Need, V2, Write};
use crate::sys::{Errno, Sys};
use std::collections::BTreeMap;

/// One write that will be done.
struct Change<'a> {
    /// Number of its cgroup.
    dir: usize,
    write: &'a Write,
    file: &'a str,
    value: &'a str,
    /// Content before; `None` of a file that cannot be read.
    old: Option<String>,
}

impl Change<'_> {
    fn is_in_force(&self) -> bool {
        self.old.as_deref().map(str::trim_end) == Some(self.value)
    }
}

impl Cgroup {
    /// What is in force and decides about an update; `None` when there is no cgroup.
    pub fn in_force(&self, h: &Hierarchies) -> Option<InForce> {
        let mut now = BTreeMap::new();
        let mut there = false;
        for place in &self.places {
            let Ok(dir) = place.open() else { continue };
            there = true;
            let v1 = h.v1.iter().find(|h| !place.v2 && h.mount == place.mount);
            let has = |c: &str| place.v2 || v1.is_some_and(|h| h.controllers.iter().any(|own| own == c));
            for (_, file) in LOOKED_AT.iter().filter(|(c, _)| has(c)) {
                now.extend(dir.read(file).ok().map(|text| (*file, text)));
            }
        }
        there.then_some(InForce(now))
    }

    /// Writes what is planned. When a value is refused the old ones are put back, and whatever could not be is named.
    pub fn update(&self, plan: &CgroupPlan) -> Result<()> {
        let mut dirs = Vec::new();
        let mut changes = Vec::new();
        let v1 = plan.v1.iter().map(|v| (&v.mount, false, &v.writes));
        let v2 = plan.v2.iter().map(|v| (&v.mount, true, &v.writes));
        for (mount, is_v2, writes) in v1.chain(v2) {
            let Some(first) = writes.first() else { continue };
            let (place, dir) = self.place(mount, is_v2, first)?;
            if let Some(plan) = plan.v2.as_ref().filter(|_| is_v2) {
                hand_down(place, &dir, plan)?;
            }
            for w in writes {
                changes.extend(change(&dir, dirs.len(), w)?);
            }
            dirs.push(dir);
        }
        write_all(&dirs, &mut changes)?;
        let Some(unit) = &self.unit else { return Ok(()) };
        let read = |c: &Change| dirs[c.dir].read(c.file).ok();
        let written: Vec<_> = changes.iter().map(read).collect();
        tell(unit, plan, &dirs).map_err(|e| name_left(e, &put_back(&dirs, &changes)))?;
        // systemd has written what it makes of it, a quota in whole percents.
        for (c, _) in changes.iter().zip(&written).filter(|(c, written)| read(c) != **written) {
            let again = dirs[c.dir].write(c.file, c.value);
            again.map_err(|e| refused(&dirs[c.dir], c.write, c.file, c.value, e))?;
        }
        Ok(())
    }

    /// The container's cgroup in a hierarchy that `w` is for.
    fn place(&self, mount: &str, is_v2: bool, w: &Write) -> Result<(&Place, Dir)> {
        let place = self.places.iter().find(|p| p.v2 == is_v2 && p.mount == mount);
        let open: Sys<_> = place.ok_or(Errno::ENOENT).and_then(|p| Ok((p, p.open()?)));
        open.map_err(|e| match e {
            Errno::ENOENT => Error::unsupported(&w.at, format!("the container has no cgroup in {mount}")),
            e => Error::os(&w.at, format!("open the container's cgroup in {mount}"), e as i32),
        })
    }
}

fn write_all(dirs: &[Dir], changes: &mut [Change]) -> Result<()> {
    for n in 0..changes.len() {
        let (done, rest) = changes.split_at_mut(n);
        let c = &mut rest[0];
        let dir = &dirs[c.dir];
        if done.iter().any(|d| (d.dir, d.file) == (c.dir, c.file)) {
            c.old = dir.read(c.file).ok(); // the way back has the same steps
        }
        if c.is_in_force() {
            continue;
        }
        if let Err(e) = dir.write(c.file, c.value) {
            let error = refused(dir, c.write, c.file, c.value, e);
            return Err(name_left(error, &put_back(dirs, done)));
        }
    }
    Ok(())
}

/// Has systemd know the new limits: without, the old ones would come back with its next reload.
fn tell(unit: &Recorded, plan: &CgroupPlan, dirs: &[Dir]) -> Result<()> {
    let mut settings = settings(plan);
    // Of v1's quota and period the one in force is not planned, but each is a share of the other.
    const SHARE: [&str; 2] = ["cpu.cfs_quota_us", "cpu.cfs_period_us"];
    let texts = SHARE.map(|file| dirs.iter().find_map(|d| d.read(file).ok()));
    if let Some(at) = settings.iter().find(|s| SHARE.contains(&s.file)).map(|s| s.at) {
        let there = SHARE.iter().zip(&texts).filter_map(|(file, text)| Some((file, text.as_ref()?)));
        settings.extend(there.map(|(file, text)| Setting { file, value: text.trim_end(), at }));
    }
    if settings.is_empty() {
        return Ok(());
    }
    let mut systemd = Systemd::connect(&unit.address, unit.user)?;
    let properties = of_limits(&settings, systemd.version()?);
    if properties.is_empty() { Ok(()) } else { systemd.set(&unit.name, &properties) }
}

/// A creation hands down what it needs and can have; what only now is needed may be missing.
fn hand_down(place: &Place, dir: &Dir, plan: &V2) -> Result<()> {
    let own = dir.read("cgroup.controllers").unwrap_or_default();
    if plan.needed.iter().all(|(c, _)| own.split_ascii_whitespace().any(|o| o == c)) {
        return Ok(());
    }
    let above = (0..place.parts()).map(|n| match n {
        0 => place.mount.clone(),
        n => format!("{}/{}", place.mount, prefix(&place.path, n)),
    });
    for name in above {
        let dir = Dir::open(&name).map_err(os(&name, "open"))?;
        v2::hand_down(&dir, &name, plan)?;
    }
    Ok(())
}

/// A write as it will be done here, with what it replaces; `None` if there is nothing to do.
fn change<'a>(dir: &Dir, number: usize, write: &'a Write) -> Result<Option<Change<'a>>> {
    let (file, value) = match &write.or {
        Some((file, value)) if !dir.has(&write.file) => (file, value),
        _ => (&write.file, &write.value),
    };
    let old = match dir.read(file) {
        Ok(old) => Some(old),
        Err(Errno::ENOENT) if write.need == Need::IfThere => return Ok(None),
        Err(e @ Errno::ENOENT) => return Err(refused(dir, write, file, value, e)),
        Err(_) => None, // for writing alone
    };
    Ok(Some(Change { dir: number, write, file, value, old }))
}

/// Undoes these changes, the last one first: each state on the way back was one on the way here. The properties that
/// stay changed.
fn put_back(dirs: &[Dir], changes: &[Change]) -> Vec<String> {
    let mut left: BTreeMap<(usize, &str), &str> = BTreeMap::new();
    for c in changes.iter().rev() {
        let value = c.old.as_deref().and_then(|old| restoring(c.file, c.value, old));
        // One that was in force is written too: another file may have changed it. Of two writes what came last counts.
        match value.is_some_and(|v| dirs[c.dir].write(c.file, &v).is_ok()) || c.is_in_force() {
            true => left.remove(&(c.dir, c.file)),
            false => left.insert((c.dir, c.file), &c.write.at),
        };
    }
    left.into_values().map(String::from).collect()
}

fn name_left(error: Error, left: &[String]) -> Error {
    if left.is_empty() {
        return error;
    }
    let applied = format!("applied before that, and not to be undone: {}", left.join(", "));
    let hint = match &error.hint {
        Some(hint) => format!("{hint}; {applied}"),
        None => applied,
    };
    error.hint(hint)
}
