//! The container's cgroup in every hierarchy: made, joined, limited, read, frozen, killed, removed.

mod create;
mod dir;
mod freeze;
mod join;
mod oom;
mod probe;
mod stats;
pub mod systemd;
mod update;
mod v2;

pub use join::Below;
pub use oom::Oom;
pub use probe::{mount_of, probe, unescape};
pub use stats::Stats;

use crate::error::{Error, Kind, Result, os};
use crate::plan::cgroup::CgroupPlan;
use crate::plan::cgroup::systemd as plan;
use crate::sys::{Errno, Sys, fd};
use dir::{Dir, cstring};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use systemd::{Owner, Systemd};

/// What delete must know, on record before anything is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Recorded {
    pub places: Vec<Place>,
    pub unit: Option<systemd::Recorded>,
}

impl Recorded {
    /// A cgroup of this path was there before us: it will not be removed.
    pub fn was_found(&self) -> bool {
        self.places.iter().any(|p| p.found == p.parts())
    }
}

/// The container's cgroup in one hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Place {
    pub mount: String,
    /// Below the mount, without a leading slash.
    pub path: String,
    pub v2: bool,
    /// It has the v1 freezer.
    pub freezer: bool,
    /// So many parts of the path were there before us; they stay (runtime.md#delete: what create did not make must not
    /// be deleted), and when that is all of them so do the cgroups in the last: the container's cannot be told from a
    /// stranger's.
    pub found: usize,
    /// systemd makes it, and what is above it.
    pub managed: bool,
}

impl Place {
    fn of(mount: &str, path: &str, v2: bool, freezer: bool) -> Place {
        let parts = path.split('/').count();
        let there = |n: &usize| std::path::Path::new(&format!("{mount}/{}", prefix(path, *n))).exists();
        let found = (1..=parts).take_while(there).count();
        Place { mount: mount.into(), path: path.into(), v2, freezer, found, managed: false }
    }

    /// Slices are systemd's, and the unit is ours once it is started.
    fn managed_if(mut self, managed: bool) -> Place {
        if managed {
            (self.managed, self.found) = (true, self.parts() - 1);
        }
        self
    }

    fn parts(&self) -> usize {
        self.path.split('/').count()
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.mount, self.path)
    }

    fn open(&self) -> Sys<Dir> {
        Dir::open(&self.name())
    }

    /// A short file of it.
    fn value(&self, file: &str) -> Sys<String> {
        let mut buf = [0; 256];
        let len = fd::read_value(&cstring(&format!("{}/{file}", self.name()))?, &mut buf)?;
        Ok(String::from_utf8_lossy(&buf[..len]).into_owned())
    }
}

/// The first `parts` parts of a path.
fn prefix(path: &str, parts: usize) -> &str {
    path.match_indices('/').nth(parts - 1).map_or(path, |(at, _)| &path[..at])
}

/// The container's cgroup, in all hierarchies.
#[derive(Debug, Default)]
pub struct Cgroup {
    places: Vec<Place>,
    unit: Option<systemd::Recorded>,
    /// `tasks` of each v1 place.
    tasks: Vec<OwnedFd>,
    /// What was read and written, to be closed with these.
    spent: Vec<OwnedFd>,
    /// The v2 place, to be born in.
    born_in: Option<OwnedFd>,
    /// Undo on drop.
    undo: bool,
}

/// Why a process outlives SIGKILL.
pub const FROZEN_ABOVE: &str = "a cgroup above is frozen, and nothing frozen can die";

impl Cgroup {
    /// Where it will be, to be recorded before it is made.
    pub fn recorded(plan: &CgroupPlan) -> Recorded {
        let v1 = plan.v1.iter().map(|p| {
            let freezer = p.controllers.iter().any(|c| c == "freezer");
            let managed = plan.unit.is_some() && plan::makes(&p.controllers);
            Place::of(&p.mount, &p.path, false, freezer).managed_if(managed)
        });
        let v2 = plan.v2.iter();
        let v2 = v2.map(|p| Place::of(&p.mount, &p.path, true, false).managed_if(plan.unit.is_some()));
        Recorded { places: v1.chain(v2).collect(), unit: plan.unit.as_ref().map(systemd::Recorded::of) }
    }

    /// Makes it in every hierarchy, where it was recorded to be, and writes every limit; what was made is undone on an
    /// error and on drop.
    pub fn create(plan: &CgroupPlan, recorded: &Recorded) -> Result<Cgroup> {
        create::create(plan, recorded)
    }

    /// Has systemd put this process into a unit of its own, and gives the cgroups of that what is planned.
    pub fn enter_unit(plan: &CgroupPlan, recorded: &Recorded, pid: i32) -> Result<()> {
        let Some(unit) = &plan.unit else { return Ok(()) };
        Systemd::connect(&unit.address, unit.user)?.start(unit, pid)?;
        create::admit(plan, recorded, pid)
    }

    /// A process more, for which the caller's own right may not do: a user's, from outside of what systemd delegated
    /// to it.
    pub fn join_unit(&self, pid: i32) -> Result<()> {
        let holds = |d: Dir| d.pids().is_ok_and(|pids| pids.contains(&pid));
        let there = self.places.iter().any(|p| p.managed && p.open().is_ok_and(holds));
        match &self.unit {
            Some(unit) if !there => Systemd::connect(&unit.address, unit.user)?.attach(&unit.name, pid),
            _ => Ok(()),
        }
    }

    /// Init is in it: it stays until `delete`.
    pub fn keep(mut self) {
        self.undo = false;
    }

    /// Where a container without a record may have it: the cgroups of its init, but for those that we share with it;
    /// when init is gone, the default ones of its id. Who else is in there is not known.
    pub fn lost(init: Option<i32>, id: &str) -> Result<Cgroup> {
        let ours = probe()?;
        let theirs = match init {
            Some(pid) => probe::seen_by(&format!("/proc/{pid}/cgroup"))?,
            None => ours.clone(),
        };
        let place = |mount: &str, own: &str, our: &str, v2, freezer| {
            let path = if init.is_some() { own } else { id }.trim_start_matches('/');
            let shared = init.is_some() && own == our || path.is_empty();
            let found = path.split('/').count() - 1;
            let (mount, path) = (mount.into(), path.into());
            (!shared).then_some(Place { mount, path, v2, freezer, found, managed: false })
        };
        let v1 = theirs.v1.iter().filter_map(|h| {
            let our = ours.v1.iter().find(|o| o.mount == h.mount).map_or("/", |o| &o.own);
            place(&h.mount, &h.own, our, false, h.controllers.iter().any(|c| c == "freezer"))
        });
        let our = ours.v2.as_ref().map_or("/", |o| &o.own);
        let v2 = theirs.v2.iter().filter_map(|h| place(&h.mount, &h.own, our, true, false));
        Ok(Cgroup::open(&Recorded { places: v1.chain(v2).collect(), unit: None }))
    }

    pub fn open(recorded: &Recorded) -> Cgroup {
        let mut cgroup = Cgroup::default();
        cgroup.places.clone_from(&recorded.places);
        cgroup.unit.clone_from(&recorded.unit);
        cgroup
    }

    /// Hands over the `tasks` files of v1, to which init writes "0".
    pub fn join_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.tasks)
    }

    /// Hands over what nobody needs any more.
    pub fn spent_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.spent)
    }

    /// Hands over the v2 cgroup, for CLONE_INTO_CGROUP.
    pub fn clone_fd(&mut self) -> Option<OwnedFd> {
        self.born_in.take()
    }

    /// A process is in it or below.
    pub fn populated(&self) -> Result<bool> {
        let v2 = self.places.iter().find(|p| p.v2).and_then(|p| p.open().ok());
        if v2.is_some_and(|d| d.has_line("cgroup.events", "populated 1")) {
            return Ok(true);
        }
        Ok(self.pids()?.is_some_and(|pids| !pids.is_empty()))
    }

    /// Every process in it and below; `None` when there is no cgroup.
    pub fn pids(&self) -> Result<Option<BTreeSet<i32>>> {
        self.lister()?.map(|(place, dir)| dir.pids().map_err(unlisted(place))).transpose()
    }

    /// The hierarchy in which processes are looked up, and frozen while they are; another, when it is gone from there.
    fn lister(&self) -> Result<Option<(&Place, Dir)>> {
        let mut places: Vec<_> = self.places.iter().collect();
        places.sort_by_key(|p| (!p.freezer, p.v2));
        let open = |p| match Place::open(p) {
            Err(Errno::ENOENT) => None,
            other => Some(other.map(|dir| (p, dir)).map_err(os(p.name(), "open"))),
        };
        places.into_iter().find_map(open).transpose()
    }

    /// Removes it, with all that is below it and the parents that we made; of one that was there before us only the
    /// processes go. Waits so long for these to end and then names them. `ours`: the container ran, so what is still in
    /// it is killed.
    pub fn remove(&self, patience: Duration, ours: bool) -> Result<()> {
        let deadline = Instant::now() + patience;
        let made = self.unit.as_ref().map_or(Some(ours), |unit| self.end_unit(unit, ours));
        for place in &self.places {
            let Some(ours) = (if place.managed { made } else { Some(ours) }) else { continue };
            let mut pause = Duration::from_millis(1);
            while !place.remove(ours)? {
                if Instant::now() >= deadline {
                    return Err(still_busy(place, patience));
                }
                if ours {
                    self.thaw()?;
                    self.kill_all(libc::SIGKILL)?;
                    place.kill_strays()?;
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    /// Ends the unit. What is left of what systemd made is to be removed, `Some`, and killed, `Some(true)`.
    fn end_unit(&self, unit: &systemd::Recorded, ours: bool) -> Option<bool> {
        let end = |mut systemd: Systemd| match systemd.owner(unit)? {
            Owner::Another => Ok(None),
            Owner::Nobody => Ok(Some(ours)),
            Owner::Us => {
                // systemd would ask them to end, and wait for long.
                self.thaw()?;
                self.kill_all(libc::SIGKILL)?;
                systemd.stop(&unit.name).map(|()| Some(true))
            }
        };
        Systemd::connect(&unit.address, unit.user).and_then(end).unwrap_or_else(|e| {
            tracing::warn!(
                "{e}: the cgroup is removed without systemd, whose unit {:?} ends by that",
                unit.name
            );
            Some(ours)
        })
    }
}

impl Place {
    /// Kills what is in this hierarchy's cgroup alone, and so not among the processes that are looked up in another; but
    /// only where we made it.
    fn kill_strays(&self) -> Result<()> {
        match self.open() {
            Ok(dir) if self.found < self.parts() => dir.signal(libc::SIGKILL).map_err(unlisted(self)),
            _ => Ok(()), // gone, or not ours
        }
    }

    /// One attempt: is it gone, or, where it was there before us, empty?
    fn remove(&self, ours: bool) -> Result<bool> {
        let failed = |e: Errno| Error::os(self.name(), "rmdir", e as i32);
        // Nearly always that is all.
        if self.found + 1 == self.parts() && std::fs::remove_dir(self.name()).is_ok() {
            return Ok(true);
        }
        let mount = match Dir::open(&self.mount) {
            Ok(d) => d,
            Err(Errno::ENOENT) => return Ok(true),
            Err(e) => return Err(Error::os(&self.mount, "open", e as i32)),
        };
        let path = cstring(&self.path).map_err(failed)?;
        if self.found == self.parts() {
            return match mount.sub(&path) {
                Ok(dir) if ours => Ok(dir.pids().map_err(unlisted(self))?.is_empty()),
                Err(e) if ours && e != Errno::ENOENT => Err(unlisted(self)(e)),
                _ => Ok(true),
            };
        }
        match mount.unmake(&path) {
            Ok(()) | Err(Errno::ENOENT) => {}
            // Said whether it is there or not: one that could not be made is not.
            Err(Errno::EROFS) if mount.sub(&path).err() == Some(Errno::ENOENT) => return Ok(true),
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {
                match mount.sub(&path) {
                    Ok(dir) => drop(dir.clear()), // what stays keeps the next call from succeeding
                    Err(Errno::ENOENT) => return Ok(true),
                    Err(e) => return Err(failed(e)),
                }
                match mount.unmake(&path) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(Errno::EBUSY | Errno::ENOTEMPTY) => return Ok(false),
                    Err(e) => return Err(failed(e)),
                }
            }
            Err(e) => return Err(failed(e)),
        }
        for n in (self.found + 1..self.parts()).rev() {
            let Ok(parent) = cstring(prefix(&self.path, n)) else { break };
            if mount.unmake(&parent).is_err() {
                break; // another container is in it
            }
        }
        Ok(true)
    }
}

/// The error of a search for processes.
fn unlisted(place: &Place) -> impl FnOnce(Errno) -> Error {
    os(place.name(), "look for its processes")
}

fn still_busy(place: &Place, patience: Duration) -> Error {
    let pids = place.open().and_then(|dir| dir.pids()).unwrap_or_default();
    let what = match pids.is_empty() {
        true => format!("is still in use after {} ms", patience.as_millis()),
        false => format!(
            "processes are left after {} ms of SIGKILL: {}",
            patience.as_millis(),
            dir::describe(&pids)
        ),
    };
    let error = Error::new(Kind::WrongState, place.name(), what);
    if !place.v2 && place.is_frozen() { error.hint(FROZEN_ABOVE) } else { error }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.undo {
            self.tasks.clear();
            self.spent.clear();
            self.born_in = None;
            // No process got in. The error that brought us here matters more than what stays.
            let _ = self.places.iter().try_for_each(|p| p.remove(false).map(drop));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (n, p) in [(1, "a"), (2, "a/bc"), (3, "a/bc/d")] {
            assert_eq!(prefix("a/bc/d", n), p);
        }
    }
}
