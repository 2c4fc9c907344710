//! config-linux.md#namespaces: which are new, which are joined, which are inherited; and the shape of the clone.

use super::Draft;
use super::idmap::Maps;
use super::step::{Open, OpenWhat, Slot};
use crate::config;
use crate::error::{Error, Result};

pub const NEWTIME: i32 = libc::CLONE_NEWTIME;
pub const NEWNS: i32 = libc::CLONE_NEWNS;
pub const NEWCGROUP: i32 = libc::CLONE_NEWCGROUP;
pub const NEWUTS: i32 = libc::CLONE_NEWUTS;
pub const NEWIPC: i32 = libc::CLONE_NEWIPC;
pub const NEWUSER: i32 = libc::CLONE_NEWUSER;
pub const NEWPID: i32 = libc::CLONE_NEWPID;
pub const NEWNET: i32 = libc::CLONE_NEWNET;

/// Name in config.json, CLONE_NEW* flag, name under /proc/PID/ns.
pub const KINDS: [(&str, i32, &str); 8] = [
    ("user", NEWUSER, "user"),
    ("pid", NEWPID, "pid"),
    ("network", NEWNET, "net"),
    ("mount", NEWNS, "mnt"),
    ("ipc", NEWIPC, "ipc"),
    ("uts", NEWUTS, "uts"),
    ("cgroup", NEWCGROUP, "cgroup"),
    ("time", NEWTIME, "time"),
];

/// What config.json says of each kind of namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// CLONE_NEW* flags of those made for the container.
    pub new: i32,
    /// Those joined: flag, path, index in `linux.namespaces`.
    pub joined: Vec<(i32, String, usize)>,
}

impl Namespaces {
    /// Made for the container.
    pub fn is_new(&self, kind: i32) -> bool {
        self.new & kind != 0
    }

    /// Made for the container or joined: not that of the runtime.
    pub fn is_own(&self, kind: i32) -> bool {
        self.is_new(kind) || self.is_joined(kind)
    }

    pub fn is_joined(&self, kind: i32) -> bool {
        self.joined.iter().any(|j| j.0 == kind)
    }
}

/// Reads `linux.namespaces`. An unknown or repeated type and a relative path are errors (config-linux.md).
pub fn namespaces(linux: Option<&config::Linux>) -> Result<Namespaces> {
    let mut out = Namespaces::default();
    let mut seen = 0;
    for (n, ns) in linux.and_then(|l| l.namespaces.as_deref()).unwrap_or_default().iter().enumerate() {
        let at = format!("linux.namespaces[{n}]");
        let name = ns.kind.as_deref().unwrap_or_default();
        let Some(&(_, flag, _)) = KINDS.iter().find(|k| k.0 == name) else {
            let known: Vec<_> = KINDS.iter().map(|k| k.0).collect();
            return Err(Error::invalid(
                format!("{at}.type"),
                format!("{name:?} is no namespace; known are {}", known.join(", ")),
            ));
        };
        if seen & flag != 0 {
            return Err(Error::invalid(format!("{at}.type"), format!("{name:?} is listed twice")));
        }
        seen |= flag;
        match ns.path.as_deref().unwrap_or_default() {
            "" => out.new |= flag,
            p if !p.starts_with('/') => {
                return Err(Error::invalid(format!("{at}.path"), format!("{p:?} is not absolute")));
            }
            p => out.joined.push((flag, p.to_string(), n)),
        }
    }
    Ok(out)
}

/// How the container's init process comes to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Flags of the clone that makes init.
    pub clone: i32,
    /// A pid namespace that the parent enters, for its children, before the clone.
    pub join_pid: Option<Slot>,
    /// One process more: a user namespace is joined or made late, and what belongs under it is made after that.
    /// These run in the middle process, which then clones init as its sibling.
    pub staged: bool,
    /// Namespaces that the first process joins, in order.
    pub join: Vec<(Slot, i32)>,
    /// Namespaces that init makes itself, once it sits in its cgroup or in its user namespace.
    pub late: i32,
}

/// Decides the shape. New namespaces are made by the clone itself, the user namespace first, which thus owns the
/// others. When others are *joined* beside a new user namespace, the joining must come before it, since it needs
/// rights over their owners: then the user namespace is made by unshare(2), after it.
pub fn shape(d: &mut Draft) -> Result<Shape> {
    let ns = d.ns.clone();
    let mut s = Shape { late: ns.new & (NEWCGROUP | NEWTIME), ..Shape::default() };
    for (flag, path, n) in &ns.joined {
        let what = OpenWhat::Namespace {
            path: super::cstring(&format!("linux.namespaces[{n}].path"), path)?,
            kind: *flag,
        };
        let slot = d.open(Open { at: format!("linux.namespaces[{n}].path"), what });
        if *flag == NEWUSER && d.maps != Maps::default() {
            let what = OpenWhat::SameMaps { namespace: slot, maps: d.maps.clone() };
            d.open(Open { at: "linux.uidMappings".into(), what });
        }
        if *flag == NEWPID && !ns.is_own(NEWUSER) {
            s.join_pid = Some(slot);
        } else {
            s.join.push((slot, *flag));
        }
    }
    // All others first: in the user namespace we have lost the rights over those that the host owns.
    s.join.sort_by_key(|j| j.1 == NEWUSER);
    s.clone = ns.new & !(NEWCGROUP | NEWTIME);
    let others_joined = s.join.iter().any(|j| j.1 != NEWUSER) || s.join_pid.is_some();
    let user_joined = ns.is_joined(NEWUSER);
    if user_joined || (ns.is_new(NEWUSER) && others_joined) {
        s.staged = true;
    } else if ns.is_new(NEWUSER) {
        // Whoever makes it owns the root of its mqueue file system: that is the container's root only after the maps.
        s.late |= s.clone & NEWIPC;
        s.clone &= !NEWIPC;
    }
    Ok(s)
}

/// The name of a kind in config.json.
pub fn name_of(kind: i32) -> &'static str {
    KINDS.iter().find(|k| k.1 == kind).map_or("?", |k| k.0)
}

/// The name of a kind below /proc/PID/ns.
pub fn file_of(kind: i32) -> &'static str {
    KINDS.iter().find(|k| k.1 == kind).map_or("?", |k| k.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{Sample, sample};
    use serde_json::json;

    fn joined(s: Sample, kinds: &[&str]) -> Sample {
        kinds.iter().fold(s, |s, k| s.without(k).namespace(json!({ "type": k, "path": format!("/ns/{k}") })))
    }

    fn error(namespace: serde_json::Value) -> String {
        let linux = serde_json::from_value(json!({ "namespaces": [{ "type": "pid" }, namespace] })).unwrap();
        namespaces(Some(&linux)).unwrap_err().to_string()
    }

    #[test]
    fn unknown_repeated_and_relative_namespaces_are_errors() {
        let known = "user, pid, network, mount, ipc, uts, cgroup, time";
        for (namespace, message) in [
            (json!({}), format!("linux.namespaces[1].type: \"\" is no namespace; known are {known}")),
            (
                json!({ "type": "net" }),
                format!("linux.namespaces[1].type: \"net\" is no namespace; known are {known}"),
            ),
            (
                json!({ "type": "pid", "path": "/p" }),
                "linux.namespaces[1].type: \"pid\" is listed twice".to_string(),
            ),
            (
                json!({ "type": "ipc", "path": "ns/ipc" }),
                "linux.namespaces[1].path: \"ns/ipc\" is not absolute".to_string(),
            ),
        ] {
            assert_eq!(error(namespace), message);
        }
    }

    #[test]
    fn what_is_new_alone_is_made_by_the_clone_itself() {
        let s = sample()
            .user_namespace()
            .namespace(json!({ "type": "cgroup" }))
            .namespace(json!({ "type": "time" }));
        let shape = s.run(shape).unwrap();
        let clone = NEWPID | NEWNET | NEWUTS | NEWNS | NEWUSER;
        assert_eq!(shape, Shape { clone, late: NEWIPC | NEWCGROUP | NEWTIME, ..Shape::default() });
    }

    #[test]
    fn the_parent_enters_a_joined_pid_namespace() {
        let shape = joined(sample(), &["pid", "network"]).run(shape).unwrap();
        let clone = NEWIPC | NEWUTS | NEWNS;
        assert_eq!(shape, Shape { clone, join_pid: Some(0), join: vec![(1, NEWNET)], ..Shape::default() });
    }

    #[test]
    fn a_user_namespace_beside_joined_ones_takes_a_process_more() {
        let new = joined(sample().user_namespace(), &["pid", "network"]);
        let shape_of = |s: Sample| s.run(|d| (shape(d).unwrap(), d.opens.len()));
        let (s, opens) = shape_of(new);
        assert!(s.staged && s.join_pid.is_none() && opens == 2);
        assert_eq!(s.join, [(0, NEWPID), (1, NEWNET)]);
        // The user namespace comes last: over the others it may have no rights.
        let (s, opens) = shape_of(joined(sample(), &["user", "uts"]));
        assert!(s.staged && opens == 2);
        assert_eq!((s.join, s.clone & NEWUSER), (vec![(1, NEWUTS), (0, NEWUSER)], 0));
    }

    #[test]
    fn mappings_beside_a_joined_user_namespace_are_compared() {
        let s = joined(sample().user_namespace(), &["user"]);
        s.run(|d| {
            shape(d).unwrap();
            let what = OpenWhat::SameMaps { namespace: 0, maps: d.maps.clone() };
            assert_eq!(d.opens[1], Open { at: "linux.uidMappings".into(), what });
        });
    }
}
