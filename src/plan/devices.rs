//! config-linux.md#devices and #default-devices: the nodes and links of the container's /dev.

use super::step::{Act, Device, Open, OpenWhat, Step, Tree};
use super::{Draft, cstring, user};
use crate::config;
use crate::error::{Error, Result};
use libc::{MS_PRIVATE, S_IFBLK, S_IFCHR, S_IFIFO};

/// config-linux.md#default-devices; the console comes with the terminal, ptmx as a link.
const DEFAULTS: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// runtime-linux.md#dev-symbolic-links: link, target, and what must be there for it; /dev/core is what callers of
/// runc expect.
const LINKS: [(&str, &str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0", "/proc/self/fd"),
    ("/dev/stdout", "/proc/self/fd/1", "/proc/self/fd"),
    ("/dev/stderr", "/proc/self/fd/2", "/proc/self/fd"),
    ("/dev/core", "/proc/kcore", "/proc/kcore"),
];

#[derive(Debug)]
pub struct Devices {
    pub steps: Vec<Step>,
    /// Type and numbers of the default devices, which the cgroup must allow whatever `resources.devices` says. Those of
    /// `linux.devices` are not among them: a node gives no right to use it.
    pub nodes: Vec<(char, u32, u32)>,
}

/// Reads `linux.devices` and adds the default devices that it does not list. With a /dev that is the host's, nothing
/// is made.
pub fn plan(d: &mut Draft, dev_is_bind: bool) -> Result<Devices> {
    let list = d.config.linux.as_ref().and_then(|l| l.devices.as_deref()).unwrap_or_default();
    let mut listed: Vec<(String, Device)> = Vec::with_capacity(list.len());
    for (n, entry) in list.iter().enumerate() {
        let at = format!("linux.devices[{n}]");
        let device = read(&at, entry)?;
        let path = device.path.to_string_lossy().into_owned();
        let at = format!("{at} ({path})");
        match listed.iter().find(|(_, other)| other.path == device.path) {
            Some((_, o)) if (o.kind, o.major, o.minor) == (device.kind, device.major, device.minor) => {}
            Some((other, _)) => return Err(Error::invalid(at, format!("is not the device of {other}"))),
            None if path == "/dev/ptmx" => {} // the host's would open the host's terminals
            None => listed.push((at, device)),
        }
    }
    let nodes = DEFAULTS.iter().map(|(_, major, minor)| ('c', *major, *minor)).collect();
    if dev_is_bind {
        return Ok(Devices { steps: Vec::new(), nodes });
    }
    let mut steps = Vec::with_capacity(DEFAULTS.len() + listed.len() + LINKS.len() + 1);
    for (path, major, minor) in DEFAULTS {
        if listed.iter().any(|(_, other)| other.path.as_bytes() == path.as_bytes()) {
            continue;
        }
        let path = cstring("linux.devices", path)?;
        let device = Device { path, kind: S_IFCHR, major, minor, mode: 0o666, uid: 0, gid: 0, bind: None };
        steps.push(node(d, "linux.devices (default)".into(), device)?);
    }
    for (at, device) in listed {
        steps.push(node(d, at, device)?);
    }
    steps.push(link("/dev/ptmx", "pts/ptmx", None)?);
    for (path, target, source) in LINKS {
        steps.push(link(path, target, Some(source))?);
    }
    Ok(Devices { steps, nodes })
}

fn link(path: &str, target: &str, only_if: Option<&str>) -> Result<Step> {
    let at = "linux.devices (links)";
    Ok(Step::new(
        at,
        Act::Symlink {
            target: cstring(at, target)?,
            path: cstring(at, path)?,
            only_if: only_if.map(|f| cstring(at, f)).transpose()?,
            replace: only_if.is_none(), // a ptmx of the image is not that of the container's devpts
        },
    ))
}

/// mknod(2) of a device is for the root of the host alone; elsewhere the host's node is bound.
fn node(d: &mut Draft, at: String, mut device: Device) -> Result<Step> {
    if device.kind != S_IFIFO && (d.in_user_namespace() || !d.host.mknod) {
        let inside = device.path.to_string_lossy().into_owned();
        let wanted = (if device.kind == S_IFBLK { 'b' } else { 'c' }, device.major, device.minor);
        let path = match d.host.nodes.iter().find(|(node, _)| *node == wanted) {
            Some((_, path)) => path.clone(),
            None if DEFAULTS.contains(&(&inside, wanted.1, wanted.2)) => inside,
            None => {
                let (kind, major, minor) = wanted;
                return Err(Error::invalid(
                    at,
                    format!(
                        "the host's /dev has no node {kind} {major}:{minor}, which a user namespace needs"
                    ),
                ));
            }
        };
        let (path, recursive, propagation) = (cstring(&at, &path)?, false, MS_PRIVATE);
        device.bind = Some(if d.host.privileged {
            Tree::Slot(d.open(Open {
                at: at.clone(),
                what: OpenWhat::Tree { path, recursive, nofollow: false, propagation },
            }))
        } else {
            Tree::Path { path, recursive, nofollow: false, propagation }
        });
    }
    Ok(Step::new(at, Act::Device(device)))
}

fn read(at: &str, entry: &config::Device) -> Result<Device> {
    let path = entry.path.as_deref().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("{at}.path"), format!("{path:?} is not absolute")));
    }
    let names: Vec<_> = path.split('/').filter(|c| !matches!(*c, "" | ".")).collect();
    if names.last().is_none_or(|n| *n == "..") {
        return Err(Error::invalid(format!("{at}.path"), format!("{path:?} names no file")));
    }
    let kind = match entry.kind.as_deref().unwrap_or_default() {
        "c" | "u" => S_IFCHR,
        "b" => S_IFBLK,
        "p" => S_IFIFO,
        other => {
            let what = format!("{other:?} is no type of a device; known are c, b, u, p");
            return Err(Error::invalid(format!("{at}.type"), what));
        }
    };
    // The kernel's dev_t has 12 bits for the one and 20 for the other.
    let number = |name: &str, value: Option<i64>, max: u32| match value {
        _ if kind == S_IFIFO => Ok(0),
        None => Err(Error::invalid(format!("{at}.{name}"), "is required")),
        Some(v) => match u32::try_from(v) {
            Ok(n) if n <= max => Ok(n),
            _ => Err(Error::invalid(format!("{at}.{name}"), format!("{v} is not in 0-{max}"))),
        },
    };
    Ok(Device {
        path: cstring(&format!("{at}.path"), &format!("/{}", names.join("/")))?,
        kind,
        major: number("major", entry.major, 0xfff)?,
        minor: number("minor", entry.minor, 0xf_ffff)?,
        mode: mode(at, entry.file_mode, kind)?,
        uid: user::id(&format!("{at}.uid"), entry.uid.unwrap_or(0))?,
        gid: user::id(&format!("{at}.gid"), entry.gid.unwrap_or(0))?,
        bind: None,
    })
}

/// Engines copy st_mode of the host's node: the bits of its own type are no mistake.
fn mode(at: &str, value: Option<i64>, kind: u32) -> Result<u32> {
    let Some(value) = value else { return Ok(0o666) };
    match u32::try_from(value) {
        Ok(v) if v & !0o7777 == 0 || v & !0o7777 == kind => Ok(v & 0o7777),
        _ => {
            let what = format!("{value} (octal {value:o}) is no mode of this device; modes are 0-07777");
            Err(Error::invalid(format!("{at}.fileMode"), what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{Sample, sample};
    use serde_json::{Value, json};

    fn with(devices: Value) -> Sample {
        sample().set("/linux/devices", devices)
    }

    fn made(s: &Sample) -> Vec<Device> {
        let steps = s.run(|d| plan(d, false)).unwrap().steps;
        let device = |s: Step| if let Act::Device(d) = s.act { Some(d) } else { None };
        steps.into_iter().filter_map(device).collect()
    }

    fn paths(s: &Sample) -> Vec<String> {
        made(s).into_iter().map(|d| d.path.into_string().unwrap()).collect()
    }

    #[test]
    fn default_devices_and_links_are_always_there() {
        let names = ["null", "zero", "full", "random", "urandom", "tty"].map(|n| format!("/dev/{n}"));
        assert_eq!(paths(&sample()), names);
        let steps = sample().run(|d| plan(d, false)).unwrap().steps;
        let links: Vec<_> = steps.iter().filter(|s| matches!(s.act, Act::Symlink { .. })).collect();
        assert_eq!(links.len(), 6);
        assert!(matches!(&links[0].act, Act::Symlink { target, only_if: None, replace: true, .. }
            if target.as_c_str() == c"pts/ptmx"));
    }

    #[test]
    fn with_the_dev_of_the_host_nothing_is_made_but_the_defaults_are_allowed() {
        let devices = sample().run(|d| plan(d, true)).unwrap();
        assert_eq!((devices.steps.len(), devices.nodes.len()), (0, 6));
        let broken = with(json!([{ "path": "x", "type": "c" }]));
        assert!(broken.run(|d| plan(d, true)).is_err());
    }

    #[test]
    fn entries_have_defaults_and_take_the_place_of_default_devices() {
        let s = with(json!([
            { "path": "/dev//null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 1, "gid": 2 },
            { "path": "/dev/fuse", "type": "u", "major": 10, "minor": 229 },
            { "path": "/pipes/a", "type": "p" },
            { "path": "/dev/loop0", "type": "b", "major": 7, "minor": 0, "fileMode": S_IFBLK | 0o660 },
            { "path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2 },
            { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 },
        ]));
        let devices = made(&s);
        let device = |path: &str| devices.iter().find(|d| d.path.to_str() == Ok(path)).unwrap();
        let null = device("/dev/null");
        assert_eq!((null.mode, null.uid, null.gid), (0o600, 1, 2));
        let fuse = device("/dev/fuse");
        assert_eq!((fuse.kind, fuse.mode, fuse.uid, fuse.bind.clone()), (S_IFCHR, 0o666, 0, None));
        assert_eq!((device("/pipes/a").kind, device("/pipes/a").major), (S_IFIFO, 0));
        assert_eq!((device("/dev/loop0").kind, device("/dev/loop0").mode), (S_IFBLK, 0o660));
        assert_eq!(devices.len(), 9); // 5 defaults more, no ptmx, fuse once
        assert!(!s.run(|d| plan(d, false)).unwrap().nodes.contains(&('c', 10, 229)));
    }

    #[test]
    fn broken_entries_are_errors() {
        for (entry, message) in [
            (json!({}), "linux.devices[0].path: \"\" is not absolute"),
            (json!({ "path": "dev/x" }), "linux.devices[0].path: \"dev/x\" is not absolute"),
            (json!({ "path": "/dev/.." }), "linux.devices[0].path: \"/dev/..\" names no file"),
            (json!({ "path": "/./" }), "linux.devices[0].path: \"/./\" names no file"),
            (
                json!({ "path": "/x", "type": "s" }),
                "linux.devices[0].type: \"s\" is no type of a device; known are c, b, u, p",
            ),
            (json!({ "path": "/x", "type": "c", "minor": 1 }), "linux.devices[0].major: is required"),
            (json!({ "path": "/x", "type": "b", "major": 1 }), "linux.devices[0].minor: is required"),
            (
                json!({ "path": "/x", "type": "c", "major": 4096, "minor": 1 }),
                "linux.devices[0].major: 4096 is not in 0-4095",
            ),
            (
                json!({ "path": "/x", "type": "c", "major": 1, "minor": -1 }),
                "linux.devices[0].minor: -1 is not in 0-1048575",
            ),
            (
                json!({ "path": "/x", "type": "p", "fileMode": S_IFBLK | 0o666 }),
                "linux.devices[0].fileMode: 25014 (octal 60666) is no mode of this device; modes are 0-07777",
            ),
            (
                json!({ "path": "/x", "type": "p", "fileMode": -1 }),
                "linux.devices[0].fileMode: -1 (octal 1777777777777777777777) is no mode of this device; modes are 0-07777",
            ),
            (
                json!({ "path": "/x", "type": "p", "uid": 4_294_967_295_i64 }),
                "linux.devices[0].uid: 4294967295 is no id; ids are 0-4294967294",
            ),
        ] {
            assert_eq!(with(json!([entry])).error(|d| plan(d, false)), message);
        }
        let twice = json!([
            { "path": "/dev/a", "type": "c", "major": 1, "minor": 3 },
            { "path": "/dev/./a", "type": "b", "major": 1, "minor": 3 },
        ]);
        let message = "linux.devices[1] (/dev/a): is not the device of linux.devices[0] (/dev/a)";
        assert_eq!(with(twice).error(|d| plan(d, false)), message);
    }

    #[test]
    fn in_a_user_namespace_nodes_of_the_host_are_bound_by_number() {
        let fuse = json!([
            { "path": "/dev/other", "type": "c", "major": 10, "minor": 229 }, { "path": "/p", "type": "p" },
        ]);
        let s = with(fuse).user_namespace();
        assert_eq!(
            s.error(|d| plan(d, false)),
            "linux.devices[0] (/dev/other): the host's /dev has no node c 10:229, which a user namespace needs"
        );
        let s = s.host(|h| h.nodes = vec![(('c', 10, 229), "/dev/fuse".into())]);
        s.run(|d| {
            let steps = plan(d, false).unwrap().steps;
            let bound = |s: &&Step| matches!(&s.act, Act::Device(Device { bind: Some(Tree::Slot(_)), .. }));
            assert_eq!(steps.iter().filter(bound).count(), 7); // a FIFO is made
            let opened = |o: &Open| match &o.what {
                OpenWhat::Tree { path, .. } => path.to_str() == Ok("/dev/fuse"),
                _ => false,
            };
            assert_eq!(d.opens.iter().filter(|o| opened(o)).count(), 1);
        });
        let ordinary = s.host(|h| h.privileged = false);
        assert!(
            matches!(&made(&ordinary)[0].bind, Some(Tree::Path { path, .. }) if path.as_c_str() == c"/dev/null")
        );
    }

    #[test]
    fn where_mknod_is_not_allowed_nodes_are_bound_too() {
        assert!(made(&sample().host(|h| h.mknod = false)).iter().all(|d| d.bind.is_some()));
    }
}
