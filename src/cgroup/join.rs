//! The container's cgroup, opened for a process that joins it later: `exec`.

use super::dir::{Dir, cstring};
use super::{Cgroup, Place, Recorded, probe};
use crate::error::{Error, Result, os};
use crate::sys::{Errno, fd};

/// `--cgroup [CONTROLLER[,CONTROLLER]:]PATH`: a cgroup below the container's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// Empty means every hierarchy.
    controllers: Vec<String>,
    /// Without a leading slash; empty is the container's own.
    path: String,
}

impl Below {
    /// Reads one `--cgroup`; it must stay below the container's cgroup.
    pub fn parse(text: &str) -> Result<Below> {
        let (controllers, path) = text.split_once(':').unwrap_or(("", text));
        if path.split('/').any(|part| part == "..") {
            return Err(Error::invalid("--cgroup", format!("{text:?} leads out of the container's cgroup")));
        }
        let controllers = controllers.split(',').filter(|c| !c.is_empty()).map(String::from).collect();
        Ok(Below { controllers, path: path.trim_matches('/').to_string() })
    }
}

impl Cgroup {
    /// Opens it for a process more. v1: `tasks` of every hierarchy; v2: the directory to be born in. A hierarchy in
    /// which the container has none, since its creator had no right to make one, is left out. `init` is the pid of
    /// the container's init.
    pub fn for_another(recorded: &Recorded, below: &[Below], init: i32) -> Result<Cgroup> {
        let mut cgroup = Cgroup::default();
        for (place, below) in recorded.places.iter().zip(places(recorded, below)?) {
            let (at, name) = match below {
                None => ("linux.cgroupsPath", place.name()),
                Some(path) => ("--cgroup", format!("{}/{path}", place.name())),
            };
            let (name, flags) = match place.v2 {
                true => (name, libc::O_RDONLY | libc::O_DIRECTORY),
                false => (name + "/tasks", libc::O_WRONLY),
            };
            let file = match cstring(&name).and_then(|n| fd::open(&n, flags, 0)) {
                Err(Errno::ENOENT) if below.is_none() || place.open().is_err() => continue,
                other => other.map_err(os(at, format!("open {name}")))?,
            };
            if place.v2 {
                let dir = Dir(file);
                let own = below.is_none().then(|| inside(&dir, init)).flatten();
                cgroup.born_in = Some(own.unwrap_or(dir).0);
            } else {
                cgroup.tasks.push(file);
            }
        }
        Ok(cgroup)
    }
}

/// For each place the path below it that is asked for.
fn places<'a>(recorded: &Recorded, below: &'a [Below]) -> Result<Vec<Option<&'a str>>> {
    let mut out = vec![None; recorded.places.len()];
    if below.is_empty() {
        return Ok(out);
    }
    let host = probe()?;
    for b in below {
        let in_it = |place: &Place, controller: &String| match place.v2 {
            true => controller.is_empty(),
            false => host.v1.iter().any(|h| h.mount == place.mount && h.controllers.contains(controller)),
        };
        for controller in &b.controllers {
            if !recorded.places.iter().any(|p| in_it(p, controller)) {
                let what = format!("the container has no cgroup of the v1 controller {controller:?}");
                return Err(Error::invalid("--cgroup", what));
            }
        }
        for (place, out) in recorded.places.iter().zip(&mut out) {
            let hit = b.controllers.is_empty() || b.controllers.iter().any(|c| in_it(place, c));
            if hit && !b.path.is_empty() {
                *out = Some(b.path.as_str());
            }
        }
    }
    Ok(out)
}

/// A cgroup of v2 that hands controllers down takes no processes (cgroups(7)): a manager in the container, systemd, has
/// moved its own below, and where init is there is room.
fn inside(dir: &Dir, init: i32) -> Option<Dir> {
    if dir.read("cgroup.subtree_control").is_ok_and(|c| c.trim().is_empty()) {
        return None;
    }
    let unified = probe::seen_by(&format!("/proc/{init}/cgroup")).ok()?.v2?;
    Dir::open(&format!("{}{}", unified.mount, unified.own)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_below_by_controllers_and_path() {
        for (text, controllers, path) in [
            ("/a/b", vec![], "a/b"),
            ("a", vec![], "a"),
            ("/", vec![], ""),
            (":/a", vec![], "a"),
            ("cpu:/a", vec!["cpu"], "a"),
            ("cpu,cpuacct:a", vec!["cpu", "cpuacct"], "a"),
        ] {
            let b = Below::parse(text).unwrap();
            assert_eq!(
                (b.controllers, b.path.as_str()),
                (controllers.iter().map(|c| c.to_string()).collect(), path)
            );
        }
        for text in ["..", "/a/../../b", "cpu:../x"] {
            let e = Below::parse(text).unwrap_err().to_string();
            assert_eq!(e, format!("--cgroup: {text:?} leads out of the container's cgroup"));
        }
    }
}
