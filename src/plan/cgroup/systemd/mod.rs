//! The container's cgroup as a unit of systemd: `linux.cgroupsPath` as `slice:prefix:name`, limits as properties, so
//! that nothing that systemd does later undoes them, and `org.systemd.property.*` annotations.

mod properties;
pub mod value;

use super::CgroupPlan;
use super::devices;
use crate::error::{Error, Result};
use crate::plan::{Draft, document};
pub use properties::{Setting, of_limits, settings};
use std::collections::BTreeMap;
use value::Value;

const AT: &str = "linux.cgroupsPath";
/// Annotations that become properties; features.md calls them potentially unsafe.
pub const ANNOTATION: &str = "org.systemd.property.";
/// What systemd makes cgroups for on v1; v2 is its own whole (systemd.resource-control(5)).
const V1: [&str; 7] = ["name=systemd", "cpu", "cpuacct", "blkio", "memory", "devices", "pids"];

/// The systemd that is asked; asked itself once, by `cgroup::systemd::manager`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manager {
    /// Of its bus (dbus-specification, "Server Addresses").
    pub address: String,
    /// It is a user's, in whose session the container will be.
    pub user: bool,
    pub version: u32,
    /// Its own cgroup, below which all units are; empty for the root.
    pub control_group: String,
}

/// A property of a unit, and what asks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    pub name: String,
    pub value: Value,
    pub at: String,
}

/// The unit that will be started for the container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unit {
    /// `prefix-name.scope`, or a slice.
    pub name: String,
    pub address: String,
    pub user: bool,
    /// By it the unit is known to be this container's.
    pub description: String,
    pub properties: Vec<Property>,
}

/// Where a unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub unit: String,
    /// The slice that it is in.
    pub slice: String,
    /// Absolute path of its cgroup.
    pub path: String,
}

fn bad<T>(what: String) -> Result<T> {
    Err(Error::invalid(AT, what))
}

/// `slice:prefix:name` to the unit `prefix-name.scope` in `slice`; a name that ends in `.slice` is a slice itself. An
/// empty slice is the manager's usual one, and without a path it is `:orlop:ID` (runc's rules).
pub fn place(path: Option<&str>, id: &str, manager: &Manager) -> Result<Place> {
    let default = format!(":orlop:{id}");
    let path = path.filter(|p| !p.is_empty()).unwrap_or(&default);
    let parts: Vec<_> = path.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return bad(format!("{path:?} is not slice:prefix:name, as systemd's cgroups need it"));
    };
    let slice = match slice {
        "" if manager.user => "user.slice",
        "" => "system.slice",
        "-" => "-.slice",
        slice => slice,
    };
    if name.is_empty() {
        return bad(format!("{path:?} has no name after the last colon"));
    }
    let above = expand(slice)?;
    let (unit, inside) = if name.ends_with(".slice") {
        let inside = expand(name)?;
        let parent = inside.rsplit_once('/').map_or("", |p| p.0);
        if parent != above {
            let parent = parent.rsplit('/').next().filter(|p| !p.is_empty()).unwrap_or("-.slice");
            return bad(format!("{path:?}: the slice {name:?} can only be in {parent:?}"));
        }
        (name.to_string(), inside)
    } else {
        let unit = format!("{prefix}-{name}.scope");
        check_name(&unit)?;
        let inside = format!("{above}/{}", escape(&unit));
        (unit, inside)
    };
    Ok(Place { unit, slice: slice.into(), path: manager.control_group.clone() + &inside })
}

/// `a-b.slice` is in `a.slice`, and `-.slice` is the root (systemd.slice(5)).
fn expand(slice: &str) -> Result<String> {
    let Some(name) = slice.strip_suffix(".slice") else {
        return bad(format!("the slice {slice:?} does not end in .slice"));
    };
    if name == "-" {
        return Ok(String::new());
    }
    check_name(slice)?;
    let (mut path, mut prefix) = (String::new(), String::new());
    for part in name.split('-') {
        if part.is_empty() {
            return bad(format!("the slice {slice:?} has an empty part between its dashes"));
        }
        path += &format!("/{}", escape(&format!("{prefix}{part}.slice")));
        prefix += &format!("{part}-");
    }
    Ok(path)
}

/// systemd.unit(5): at most 255 bytes of ASCII letters, digits and `:-_.\`.
fn check_name(unit: &str) -> Result<()> {
    if unit.len() > 255 {
        return bad(format!("the unit {unit:?} has a name of more than 255 bytes"));
    }
    match unit.chars().find(|c| !c.is_ascii_alphanumeric() && !":-_.\\".contains(*c)) {
        Some(c) => bad(format!("{c:?} may not be in the name of the unit {unit:?}")),
        None => Ok(()),
    }
}

/// systemd puts a `_` before names that could be those of the kernel's files.
fn escape(unit: &str) -> String {
    const CONTROLLERS: [&str; 8] = ["cpu", "cpuacct", "cpuset", "io", "blkio", "memory", "devices", "pids"];
    let stem = unit.rsplit_once('.').map_or(unit, |s| s.0);
    let taken = unit.starts_with(['_', '.']) || unit.starts_with("cgroup.") || CONTROLLERS.contains(&stem);
    if taken { format!("_{unit}") } else { unit.into() }
}

/// Does systemd make the cgroup of a hierarchy with these controllers?
pub fn makes(controllers: &[String]) -> bool {
    controllers.iter().any(|c| V1.contains(&c.as_str()))
}

/// Everything that is known of the unit before its first process is there. `nodes` are the devices that every container
/// has.
pub fn unit(
    d: &Draft,
    place: &Place,
    manager: &Manager,
    plan: &CgroupPlan,
    nodes: &[(char, u32, u32)],
) -> Result<Unit> {
    // With the record's path it is this container's alone, whatever other containers are called.
    let mut description =
        format!("container {}, on record in {}", d.request.id, d.request.dir.to_string_lossy());
    let ours = |name: &str, value: Value| Property { name: name.into(), value, at: AT.into() };
    let mut all = vec![
        ours("Description", Value::Str(description.clone())),
        ours("DefaultDependencies", Value::Bool(false)), // the container's manager ends it, not a target
        ours("CollectMode", Value::Str("inactive-or-failed".into())), // nobody looks at what failed
    ];
    if place.unit.ends_with(".slice") {
        all.push(ours("Wants", Value::strings(&[&place.slice])));
    } else {
        all.push(ours("Slice", Value::Str(place.slice.clone())));
        all.push(ours("Delegate", Value::Bool(true)));
    }
    let io = if plan.v1.is_empty() { "IOAccounting" } else { "BlockIOAccounting" };
    for name in ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"] {
        all.push(ours(name, Value::Bool(true)));
    }
    all.extend(of_limits(&settings(plan), manager.version));
    all.extend(properties::at_creation(plan, manager.version));
    if !plan.without_devices {
        let resources = document::resources(d.config);
        let rules = devices::rules(resources.as_deref().and_then(|r| r.devices.as_deref()), nodes)?;
        all.extend(properties::of_devices(&rules));
    }
    let mut asked = of_annotations(d.config.annotations.as_ref())?;
    if let Some(Value::Str(s)) = asked.iter_mut().find(|p| p.name == "Description").map(|p| &mut p.value) {
        // Two containers may ask for the same, and for the same unit: each has to know that it is another's.
        *s = format!("{s} ({description})");
        description.clone_from(s);
    }
    all.retain(|p| asked.iter().all(|a| a.name != p.name)); // the user's word is the last
    all.extend(asked);
    Ok(Unit {
        name: place.unit.clone(),
        address: manager.address.clone(),
        user: manager.user,
        description,
        properties: all,
    })
}

/// `org.systemd.property.NAME`, whose value is GVariant's text. Names that end in `Sec`, as in unit files, are for
/// numbers of seconds, which the bus takes as microseconds.
fn of_annotations(annotations: Option<&BTreeMap<String, String>>) -> Result<Vec<Property>> {
    let mut out = Vec::new();
    for (key, text) in annotations.into_iter().flatten() {
        let Some(name) = key.strip_prefix(ANNOTATION) else { continue };
        let at = format!("annotations[{key:?}]");
        if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
            let what = format!("{name:?} is no name of a property: three letters or more, and nothing else");
            return Err(Error::invalid(at, what));
        }
        let value = value::parse(text).map_err(|e| {
            Error::invalid(&at, format!("{text:?} is no value in GVariant's text format: {e}"))
        })?;
        // The U of `USec` says that it is converted already.
        let stem = name.strip_suffix("Sec").filter(|s| s.ends_with(|c: char| c.is_ascii_lowercase()));
        let (name, value) = match stem {
            Some(stem) => match value.seconds_to_microseconds() {
                Some(value) => (format!("{stem}USec"), value),
                None => return Err(Error::invalid(at, format!("{text:?} is no number of seconds"))),
            },
            None => (name.to_string(), value),
        };
        out.push(Property { name, value, at });
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
