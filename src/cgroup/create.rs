//! A new cgroup: directories, controllers, limits.

use super::dir::{Dir, cstring, describe};
use super::{Cgroup, Place, Recorded, prefix, unlisted, v2};
use crate::error::{Error, Kind, Result, os};
use crate::plan::cgroup::{CgroupPlan, Need, V1, V2, Write};
use crate::sys::{Errno, Sys, fd};
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;

const AT: &str = "linux.cgroupsPath";

pub fn create(plan: &CgroupPlan, recorded: &Recorded) -> Result<Cgroup> {
    let mut cgroup = Cgroup::default();
    cgroup.undo = true;
    if plan.without_devices {
        tracing::debug!("linux.resources.devices: left out, only the root of the host may set device rules");
    }
    for (n, place) in recorded.places.iter().enumerate().filter(|(_, p)| !p.managed) {
        let fit = match plan.v1.get(n) {
            Some(v1) => make_v1(&mut cgroup, v1, place),
            None => plan.v2.as_ref().map_or(Ok(()), |v2| make_v2(&mut cgroup, v2, place)),
        };
        if let Err(refusal) = fit {
            give_up(plan, n, place, refusal)?;
        }
    }
    cgroup.tasks = open_tasks(&cgroup.places)?;
    Ok(cgroup)
}

/// After all else, so that what init shall have open and what it shall not are each closed by one call.
fn open_tasks(places: &[Place]) -> Result<Vec<OwnedFd>> {
    let open = |place: &Place| {
        let file = format!("{}/tasks", place.name());
        let opened = cstring(&file).and_then(|path| fd::open(&path, libc::O_WRONLY, 0));
        opened.map_err(os(AT, format!("open {file}")))
    };
    places.iter().filter(|p| !p.v2).map(open).collect()
}

/// What systemd made gets what is planned; `pid` is in its unit, and waits. Whatever of it is missing is made.
pub fn admit(plan: &CgroupPlan, recorded: &Recorded, pid: i32) -> Result<()> {
    for (n, place) in recorded.places.iter().enumerate().filter(|(_, p)| p.managed) {
        let v1 = plan.v1.get(n);
        let v2 = plan.v2.as_ref().filter(|_| v1.is_none());
        let mut hand_down = |above: &Dir, name: &str| v2.map_or(Ok(()), |v2| v2::hand_down(above, name, v2));
        let whole = Place { found: 0, ..place.clone() }; // slices are made, too, where systemd did not
        let dir = match make(&whole, &mut hand_down, &mut |_, _, _| Ok(())) {
            Ok(dir) => dir,
            Err(refusal) => {
                give_up(plan, n, place, refusal)?;
                continue;
            }
        };
        thawed(place)?;
        // It is in there already, unless systemd does not use this hierarchy.
        if !dir.pids().map_err(unlisted(place))?.contains(&pid) {
            let failed =
                |e| Error::os(AT, format!("write \"{pid}\" to {}/cgroup.procs", place.name()), e as i32);
            dir.write("cgroup.procs", &pid.to_string()).map_err(failed)?;
        }
        match (v1, v2) {
            (Some(v1), _) => apply_all(&dir, &v1.writes).map(drop)?,
            (None, Some(v2)) => give(v2, place, &dir)?,
            (None, None) => {}
        }
    }
    Ok(())
}

/// Why a place cannot be had.
enum Refusal {
    /// mkdir(2) of the cgroup itself.
    Mkdir(Errno),
    Error(Error),
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        Refusal::Error(e)
    }
}

/// A cgroup that may not be made is done without, by whoever cannot have one: unless a limit needs it.
fn give_up(plan: &CgroupPlan, n: usize, place: &Place, refusal: Refusal) -> Result<()> {
    let errno = match refusal {
        Refusal::Error(e) => return Err(e),
        Refusal::Mkdir(e) => e,
    };
    let name = place.name();
    let limits = |w: &&Write| w.file != "devices.allow"; // which is what it is without a cgroup
    let first = match plan.v1.get(n) {
        Some(v1) => v1.writes.iter().find(limits).map(|w| w.at.as_str()),
        None => plan.v2.as_ref().and_then(|v2| {
            let devices = v2.devices.as_ref().map(|_| "linux.resources.devices");
            v2.writes.first().map(|w| w.at.as_str()).or(devices)
        }),
    };
    if matches!(errno, Errno::EACCES | Errno::EPERM | Errno::EROFS)
        && plan.tolerant.unwrap_or_else(is_confined)
    {
        let Some(at) = first else {
            tracing::debug!("{name}: mkdir: {errno}; the container goes on without, since no limit needs it");
            return Ok(());
        };
        return Err(Error::os(at, format!("mkdir {name}"), errno as i32)
            .hint("a limit needs a cgroup that was delegated to this user"));
    }
    let error = Error::os(AT, format!("mkdir {name}"), errno as i32);
    Err(if errno == Errno::EEXIST {
        error.hint("another container is made in it at this moment")
    } else {
        error
    })
}

/// Not the host's root.
pub fn is_confined() -> bool {
    !nix::unistd::geteuid().is_root() || !crate::host::in_initial_user_namespace()
}

fn make_v1(cgroup: &mut Cgroup, plan: &V1, place: &Place) -> Result<(), Refusal> {
    let cpuset = plan.controllers.iter().any(|c| c == "cpuset");
    // Nearly always only the last part is missing, and nothing above can be frozen or without CPUs.
    let plain = !(place.freezer && place.found > 0 || cpuset && place.parts() > 1);
    let dir = if plain && made_by_path(place) {
        cgroup.places.push(place.clone());
        if cpuset {
            inherit_cpuset(&place.mount, &place.name(), true, &mut cgroup.spent)?;
        }
        if plan.writes.is_empty() {
            return Ok(());
        }
        open(place)?
    } else {
        let mut inherit = |above: &str, name: &str, made: bool| match cpuset {
            true => inherit_cpuset(above, name, made, &mut Vec::new()),
            false => Ok(()),
        };
        let dir = make(place, &mut |_, _| Ok(()), &mut inherit)?;
        cgroup.places.push(place.clone());
        fit(place, &dir)?;
        dir
    };
    let spent = apply_all(&dir, &plan.writes)?;
    cgroup.spent.extend(spent.into_iter().chain([dir.0]));
    Ok(())
}

fn open(place: &Place) -> Result<Dir> {
    place.open().map_err(os(AT, format!("open {}", place.name())))
}

/// Made in one call, since all that is above was found there.
fn made_by_path(place: &Place) -> bool {
    place.found + 1 == place.parts() && DirBuilder::new().mode(0o755).create(place.name()).is_ok()
}

fn make_v2(cgroup: &mut Cgroup, plan: &V2, place: &Place) -> Result<(), Refusal> {
    // A cgroup above may be frozen or threaded, and has controllers to give.
    let plain = place.parts() == 1 && plan.needed.is_empty() && plan.wanted.is_empty();
    let dir = if plain && made_by_path(place) {
        cgroup.places.push(place.clone());
        open(place)?
    } else {
        let mut hand_down = |above: &Dir, name: &str| v2::hand_down(above, name, plan);
        let dir = make(place, &mut hand_down, &mut |_, _, _| Ok(()))?;
        cgroup.places.push(place.clone());
        fit(place, &dir)?;
        dir
    };
    give(plan, place, &dir)?;
    cgroup.born_in = Some(dir.0);
    Ok(())
}

/// Limits, device rules and owner of a cgroup of v2.
fn give(plan: &V2, place: &Place, dir: &Dir) -> Result<()> {
    if place.parts() > 1 {
        v2::check_type(dir, &place.name())?;
    }
    apply_all(dir, &plan.writes)?; // few on a host of v2
    if let Some(program) = &plan.devices {
        v2::attach(dir, program)?;
    }
    plan.owner.map_or(Ok(()), |uid| v2::hand_over(dir, &place.name(), uid))
}

/// Makes every part of the path. `above` is called with each parent before its child is there, `below` with the paths
/// of both, and whether it was made, after.
fn make(
    place: &Place,
    above: &mut dyn FnMut(&Dir, &str) -> Result<()>,
    below: &mut dyn FnMut(&str, &str, bool) -> Result<()>,
) -> Result<Dir, Refusal> {
    // A parent that was there may go with the last container in it.
    for _ in 0..8 {
        let made = try_make(place, above, below);
        // What is there since a moment is somebody else's, and all above it stays with it.
        if made.as_ref().is_err_and(|e| !matches!(e, Refusal::Mkdir(Errno::EEXIST))) {
            undo(place);
        }
        match made {
            Err(Refusal::Mkdir(Errno::ENOENT | Errno::ENODEV)) => {}
            other => return other,
        }
    }
    Err(Refusal::Mkdir(Errno::ENOENT))
}

fn try_make(
    place: &Place,
    above: &mut dyn FnMut(&Dir, &str) -> Result<()>,
    below: &mut dyn FnMut(&str, &str, bool) -> Result<()>,
) -> Result<Dir, Refusal> {
    let mut dir = Dir::open(&place.mount).map_err(os(&place.mount, "open"))?;
    for (n, part) in place.path.split('/').enumerate() {
        let above_name = match n {
            0 => place.mount.clone(),
            n => format!("{}/{}", place.mount, prefix(&place.path, n)),
        };
        let name = cstring(part).map_err(Refusal::Mkdir)?;
        above(&dir, &above_name)?;
        // What systemd made is there; what we looked for and did not find is another container's by now.
        let must_be_new = n + 1 == place.parts() && n >= place.found && !place.managed;
        let made = match if n < place.found { Err(Errno::EEXIST) } else { dir.make(&name) } {
            Err(Errno::EEXIST) if !must_be_new => false,
            other => other.map(|()| true).map_err(Refusal::Mkdir)?,
        };
        let child = dir.sub(&name).map_err(Refusal::Mkdir)?;
        below(&above_name, &format!("{above_name}/{part}"), made)?;
        dir = child;
    }
    Ok(dir)
}

/// Removes the parts that were made.
fn undo(place: &Place) {
    let Ok(mount) = Dir::open(&place.mount) else { return };
    for n in (place.found + 1..=place.parts()).rev() {
        let _ = cstring(prefix(&place.path, n)).and_then(|p| mount.unmake(&p)); // the error before matters more
    }
}

/// config-linux.md#control-groups: not frozen, and, for a new container, empty.
fn fit(place: &Place, dir: &Dir) -> Result<()> {
    if place.found == place.parts() {
        let pids = dir.pids().map_err(unlisted(place))?;
        if !pids.is_empty() {
            let what = format!("{} is not empty: {}", place.name(), describe(&pids));
            return Err(Error::new(Kind::WrongState, AT, what));
        }
    }
    thawed(place)
}

fn thawed(place: &Place) -> Result<()> {
    // A new one below the root has nobody above who could freeze it.
    if place.found > 0 && place.is_frozen() {
        return Err(Error::new(Kind::WrongState, AT, format!("{} is frozen", place.name())));
    }
    Ok(())
}

/// A new cpuset has no CPU and no memory node, and takes no process until it has. Files that are done with go to `spent`.
fn inherit_cpuset(above: &str, name: &str, made: bool, spent: &mut Vec<OwnedFd>) -> Result<()> {
    let path = |dir: &str, file: &str| cstring(&format!("{dir}/{file}"));
    let mut copy = |file: &str| -> Sys {
        let mut buf = [0; 4096];
        if !made && fd::read_value(&path(name, file)?, &mut buf)? > 1 {
            return Ok(());
        }
        let from = fd::open(&path(above, file)?, libc::O_RDONLY, 0)?;
        let len = fd::read(&from, &mut buf)?;
        let to = fd::open(&path(name, file)?, libc::O_WRONLY, 0)?;
        fd::write(&to, buf[..len].trim_ascii_end())?;
        spent.extend([from, to]);
        Ok(())
    };
    ["cpuset.cpus", "cpuset.mems"]
        .iter()
        .try_for_each(|f| copy(f).map_err(os(AT, format!("copy of {above}/{f} to {name}"))))
}

/// Writes all, and hands over the files.
fn apply_all(dir: &Dir, writes: &[Write]) -> Result<Vec<OwnedFd>> {
    let mut files: Vec<OwnedFd> = Vec::new();
    let mut open = "";
    for w in writes {
        // Device rules are many for one file.
        let written = match files.last() {
            Some(file) if open == w.file => fd::write(file, w.value.as_bytes()).map(drop),
            _ => dir.file(&w.file, libc::O_WRONLY).and_then(|file| {
                open = &w.file;
                let written = fd::write(&file, w.value.as_bytes()).map(drop);
                files.push(file);
                written
            }),
        };
        if let Err(e) = written {
            settle(dir, w, e)?;
        }
    }
    Ok(files)
}

/// What becomes of a write that failed.
fn settle(dir: &Dir, w: &Write, errno: Errno) -> Result<()> {
    let (file, value, errno) = match (errno, &w.or) {
        (Errno::ENOENT, _) if w.need == Need::IfThere => return Ok(()),
        (Errno::EPERM, _) if w.need == Need::IfPermitted => {
            tracing::debug!("{w}: not permitted by the cgroup above");
            return Ok(());
        }
        (Errno::ENOENT, Some((file, value))) => match dir.write(file, value) {
            Ok(()) => return Ok(()),
            Err(e) => (file, value, e),
        },
        (e, _) => (&w.file, &w.value, e),
    };
    Err(refused(dir, w, file, value, errno))
}

/// The error of a write that the kernel refused.
pub fn refused(dir: &Dir, w: &Write, file: &str, value: &str, errno: Errno) -> Error {
    let error = Error::os(&w.at, format!("write {value:?} to {file}"), errno as i32);
    match hint(dir, file, errno) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What the kernel's word means here.
fn hint(dir: &Dir, file: &str, errno: Errno) -> Option<String> {
    let is = |prefix: &str| file.starts_with(prefix);
    Some(match errno {
        // open(2) of a new file in cgroupfs is refused with EACCES
        Errno::ENOENT | Errno::EACCES if is("hugetlb.") => format!("this host has {}", page_sizes(dir)),
        Errno::ENOENT if is("memory.memsw") || is("memory.swap") => "the kernel does not account swap".into(),
        Errno::ENOENT if is("blkio.") || is("io.") => {
            "no I/O scheduler or cost model here takes weights".into()
        }
        Errno::ENOENT => "this kernel has no such limit".into(),
        Errno::EBUSY if is("memory.") => "more than that is in use".into(),
        Errno::EINVAL | Errno::EACCES | Errno::ERANGE | Errno::ENOSPC if is("cpuset.") => {
            "the cgroup above must have them, online".into()
        }
        Errno::EINVAL if is("cpu.shares") || is("cpu.weight") => "an idle cgroup takes no shares".into(),
        Errno::EINVAL if is("cpu.cfs_") => "a cgroup above allows less, or one below has more".into(),
        Errno::EINVAL if is("cpu.rt_") => "the cgroup above has no real-time budget left".into(),
        Errno::ENODEV if is("blkio.") || is("io.") => "there is no block device of this number".into(),
        Errno::EPERM if is("devices.") => "a cgroup cannot allow what the one above refuses".into(),
        _ => return None,
    })
}

fn page_sizes(dir: &Dir) -> String {
    let names = dir.names(false).unwrap_or_default();
    let mut sizes: Vec<_> = names
        .iter()
        .filter_map(|n| Some(n.to_str().ok()?.strip_prefix("hugetlb.")?.split_once('.')?.0.to_string()))
        .collect();
    sizes.sort();
    sizes.dedup();
    sizes.join(", ")
}
