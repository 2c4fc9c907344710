//! config-linux.md#user-namespace-mappings

use super::Facts;
use super::spawn::{NEWUSER, Namespaces};
use crate::config;
use crate::error::{Error, Result};

/// One line of uid_map or gid_map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

/// The mappings of the container's user namespace; both empty when there is none, or when it is joined and the
/// document does not repeat its mappings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    pub uid: Vec<IdMap>,
    pub gid: Vec<IdMap>,
}

/// Lines that the kernel takes (user_namespaces(7), since Linux 4.15).
const MAX_LINES: usize = 340;

/// The id outside that `inside` stands for.
pub fn to_host(map: &[IdMap], inside: u32) -> Option<u32> {
    map.iter().find_map(|m| inside.checked_sub(m.inside).filter(|d| *d < m.size).map(|d| m.outside + d))
}

/// Reads `linux.uidMappings` and `linux.gidMappings`. Those beside a user namespace that is joined must equal its
/// own, which only the host can tell.
pub fn plan(linux: Option<&config::Linux>, ns: &Namespaces) -> Result<Maps> {
    let maps = Maps {
        uid: read("linux.uidMappings", "user", linux.and_then(|l| l.uid_mappings.as_deref()))?,
        gid: read("linux.gidMappings", "group", linux.and_then(|l| l.gid_mappings.as_deref()))?,
    };
    if !ns.is_own(NEWUSER) {
        for (at, map) in named(&maps) {
            if !map.is_empty() {
                return Err(Error::invalid(at, "mappings need a user namespace in linux.namespaces"));
            }
        }
        return Ok(maps);
    }
    if maps.uid.is_empty() && maps.gid.is_empty() && ns.is_joined(NEWUSER) {
        return Ok(maps);
    }
    for (at, map) in named(&maps) {
        if map.is_empty() {
            return Err(Error::invalid(at, "a user namespace needs a mapping"));
        }
        // init becomes id 0 of the namespace, which owns everything that is made in it.
        if ns.is_new(NEWUSER) && to_host(map, 0).is_none() {
            return Err(Error::invalid(at, format!("id 0 is not mapped; {}", describe(map))));
        }
    }
    Ok(maps)
}

fn named(maps: &Maps) -> [(&'static str, &[IdMap]); 2] {
    [("linux.uidMappings", &maps.uid), ("linux.gidMappings", &maps.gid)]
}

/// The mappings of one mount (config.md#mounts): both lists or none, neither empty.
pub fn of_mount(at: &str, mount: &config::Mount) -> Result<Option<Maps>> {
    let (uid, gid) = match (&mount.uid_mappings, &mount.gid_mappings) {
        (None, None) => return Ok(None),
        (Some(u), Some(g)) => (u, g),
        (Some(_), None) => return Err(Error::invalid(at, "uidMappings without gidMappings")),
        (None, Some(_)) => return Err(Error::invalid(at, "gidMappings without uidMappings")),
    };
    for (name, list) in [("uidMappings", uid), ("gidMappings", gid)] {
        if list.is_empty() {
            return Err(Error::invalid(format!("{at}.{name}"), "is empty"));
        }
    }
    Ok(Some(Maps {
        uid: read(&format!("{at}.uidMappings"), "user", Some(uid))?,
        gid: read(&format!("{at}.gidMappings"), "group", Some(gid))?,
    }))
}

/// crun's `idmap=uids=0-1000-10#10-2000-5;gids=@0-1-10`: id of the file system, id that it shows as, count. Behind
/// `@` the second is an id of the container. A kind that is not named is mapped as in the container.
pub fn of_option(at: &str, text: &str, container: &Maps) -> Result<Maps> {
    let mut maps = container.clone();
    for part in text.split(';') {
        let (name, ranges) = part.split_once('=').unwrap_or((part, ""));
        let (what, own, map) = match name {
            "uids" => ("user", &container.uid, &mut maps.uid),
            "gids" => ("group", &container.gid, &mut maps.gid),
            _ => {
                let what = format!("{part:?} is no mapping like uids=0-1000-10 or gids=0-1000-10");
                return Err(Error::invalid(at, what));
            }
        };
        let list = ranges.split('#').map(|r| range_of(at, r, own)).collect::<Result<Vec<_>>>()?;
        *map = read(&format!("{at} ({name})"), what, Some(&list))?;
    }
    for (name, map) in [("uids", &maps.uid), ("gids", &maps.gid)] {
        if map.is_empty() {
            return Err(Error::invalid(
                at,
                format!("idmap has no {name}, and linux has no mappings for them"),
            ));
        }
    }
    Ok(maps)
}

fn range_of(at: &str, text: &str, own: &[IdMap]) -> Result<config::IdMapping> {
    let (relative, numbers) = text.strip_prefix('@').map_or((false, text), |rest| (true, rest));
    let parsed: Vec<Option<u32>> = numbers.split('-').map(|n| n.parse().ok()).collect();
    let [Some(id), Some(shown), Some(size)] = parsed[..] else {
        return Err(Error::invalid(at, format!("{text:?} is no range like 0-1000-10 or @0-1000-10")));
    };
    let shown = match relative {
        false => shown,
        true => to_host(own, shown).ok_or_else(|| {
            Error::invalid(
                at,
                format!("{text:?}: id {shown} is not mapped in the container; {}", describe(own)),
            )
        })?,
    };
    let number = |n: u32| Some(i64::from(n));
    Ok(config::IdMapping { container_id: number(id), host_id: number(shown), size: number(size) })
}

/// setgroups(2) is denied in the container: an ordinary user may write a gid map itself, of its one group, only after
/// it gave that up (user_namespaces(7), CVE-2014-8989).
pub fn setgroups_denied(maps: &Maps, ns: &Namespaces, host: &Facts) -> bool {
    let own_group = matches!(maps.gid[..], [IdMap { outside, size: 1, .. }] if outside == host.egid);
    host.setgroups_denied || ns.is_new(NEWUSER) && !host.privileged && own_group
}

/// The ranges of a mapping, `0-999, 2000`, for messages.
pub fn describe(map: &[IdMap]) -> String {
    let ranges: Vec<_> = map.iter().map(|m| range(m.inside, m.size)).collect();
    format!("mapped are {}", ranges.join(", "))
}

fn range(first: u32, size: u32) -> String {
    if size == 1 { first.to_string() } else { format!("{first}-{}", first + (size - 1)) }
}

fn read(at: &str, what: &str, list: Option<&[config::IdMapping]>) -> Result<Vec<IdMap>> {
    let list = list.unwrap_or_default();
    if list.len() > MAX_LINES {
        return Err(Error::invalid(at, format!("has {} entries; the kernel takes {MAX_LINES}", list.len())));
    }
    let mut map: Vec<IdMap> = Vec::with_capacity(list.len());
    for (n, entry) in list.iter().enumerate() {
        let at = format!("{at}[{n}]");
        let m = one(&at, entry)?;
        for (k, earlier) in map.iter().enumerate() {
            for (side, a, b) in
                [("container", m.inside, earlier.inside), ("host", m.outside, earlier.outside)]
            {
                if overlap((a, m.size), (b, earlier.size)) {
                    let (a, b) = (range(a, m.size), range(b, earlier.size));
                    return Err(Error::invalid(
                        at,
                        format!("{side} {what} ids {a} overlap {b} of entry {k}"),
                    ));
                }
            }
        }
        map.push(m);
    }
    Ok(map)
}

fn overlap(a: (u32, u32), b: (u32, u32)) -> bool {
    let end = |r: (u32, u32)| u64::from(r.0) + u64::from(r.1);
    u64::from(a.0) < end(b) && u64::from(b.0) < end(a)
}

fn one(at: &str, entry: &config::IdMapping) -> Result<IdMap> {
    let number = |name: &str, value: Option<i64>| {
        let value = value.ok_or_else(|| Error::invalid(format!("{at}.{name}"), "is required"))?;
        match u32::try_from(value) {
            Ok(v) => Ok(v),
            Err(_) => Err(Error::invalid(format!("{at}.{name}"), format!("{value} is not in 0-4294967295"))),
        }
    };
    let m = IdMap {
        inside: number("containerID", entry.container_id)?,
        outside: number("hostID", entry.host_id)?,
        size: number("size", entry.size)?,
    };
    if m.size == 0 {
        return Err(Error::invalid(format!("{at}.size"), "is 0"));
    }
    for (name, first) in [("containerID", m.inside), ("hostID", m.outside)] {
        // 4294967295 is no id: it means "leave as it is" to chown(2) and setresuid(2).
        if u64::from(first) + u64::from(m.size) > u64::from(u32::MAX) {
            return Err(Error::invalid(
                format!("{at}.{name}"),
                format!("{first} and size {} reach beyond 4294967294", m.size),
            ));
        }
    }
    Ok(m)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Linux;
    use crate::plan::{sample, spawn};
    use serde_json::{Value, json};

    fn plan_of(linux: Value) -> Result<Maps> {
        let linux: Linux = serde_json::from_value(linux).unwrap();
        let ns = spawn::namespaces(Some(&linux)).unwrap();
        plan(Some(&linux), &ns)
    }

    fn with_uid(uid: Value) -> Result<Maps> {
        let user = json!([{ "type": "user" }]);
        plan_of(json!({ "namespaces": user, "uidMappings": uid, "gidMappings": [one_map()] }))
    }

    fn one_map() -> Value {
        json!({ "containerID": 0, "hostID": 1000, "size": 10 })
    }

    #[test]
    fn broken_mappings_are_errors() {
        let many: Vec<_> = (0..341).map(|n| json!({ "containerID": n, "hostID": n, "size": 1 })).collect();
        for (uid, message) in [
            (json!([]), "linux.uidMappings: a user namespace needs a mapping"),
            (json!([{}]), "linux.uidMappings[0].containerID: is required"),
            (json!([{ "containerID": 0 }]), "linux.uidMappings[0].hostID: is required"),
            (json!([{ "containerID": 0, "hostID": 1 }]), "linux.uidMappings[0].size: is required"),
            (json!([{ "containerID": 0, "hostID": 1, "size": 0 }]), "linux.uidMappings[0].size: is 0"),
            (
                json!([{ "containerID": -1, "hostID": 1, "size": 1 }]),
                "linux.uidMappings[0].containerID: -1 is not in 0-4294967295",
            ),
            (
                json!([{ "containerID": 0, "hostID": 4_294_967_296_i64, "size": 1 }]),
                "linux.uidMappings[0].hostID: 4294967296 is not in 0-4294967295",
            ),
            (
                json!([{ "containerID": 0, "hostID": 1, "size": 4_294_967_295_i64 }]),
                "linux.uidMappings[0].hostID: 1 and size 4294967295 reach beyond 4294967294",
            ),
            (
                json!([one_map(), { "containerID": 9, "hostID": 5000, "size": 2 }]),
                "linux.uidMappings[1]: container user ids 9-10 overlap 0-9 of entry 0",
            ),
            (
                json!([one_map(), { "containerID": 10, "hostID": 1009, "size": 1 }]),
                "linux.uidMappings[1]: host user ids 1009 overlap 1000-1009 of entry 0",
            ),
            (
                json!([{ "containerID": 1, "hostID": 1, "size": 1 }]),
                "linux.uidMappings: id 0 is not mapped; mapped are 1",
            ),
            (json!(many), "linux.uidMappings: has 341 entries; the kernel takes 340"),
        ] {
            assert_eq!(with_uid(uid).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn mappings_and_the_namespace_belong_together() {
        let map = json!([one_map()]);
        let e = plan_of(json!({ "gidMappings": map })).unwrap_err();
        assert_eq!(e.to_string(), "linux.gidMappings: mappings need a user namespace in linux.namespaces");
        let e = plan_of(json!({ "namespaces": [{ "type": "user" }], "uidMappings": map })).unwrap_err();
        assert_eq!(e.to_string(), "linux.gidMappings: a user namespace needs a mapping");
        let joined = json!([{ "type": "user", "path": "/proc/1/ns/user" }]);
        assert_eq!(plan_of(json!({ "namespaces": joined })).unwrap(), Maps::default());
    }

    #[test]
    fn ids_are_translated() {
        let maps = with_uid(json!([one_map(), { "containerID": 10, "hostID": 9, "size": 1 }])).unwrap();
        for (inside, outside) in [(0, Some(1000)), (9, Some(1009)), (10, Some(9)), (11, None)] {
            assert_eq!(to_host(&maps.uid, inside), outside);
        }
    }

    #[test]
    fn mappings_of_a_mount_come_in_pairs() {
        let list = json!([one_map()]);
        for (mount, message) in [
            (json!({ "uidMappings": list }), "mounts[0]: uidMappings without gidMappings"),
            (json!({ "gidMappings": list }), "mounts[0]: gidMappings without uidMappings"),
            (json!({ "uidMappings": [], "gidMappings": list }), "mounts[0].uidMappings: is empty"),
            (
                json!({ "uidMappings": list, "gidMappings": [one_map(), one_map()] }),
                "mounts[0].gidMappings[1]: container group ids 0-9 overlap 0-9 of entry 0",
            ),
        ] {
            let mount = serde_json::from_value(mount).unwrap();
            assert_eq!(of_mount("mounts[0]", &mount).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn mappings_of_an_option_are_absolute_or_the_containers() {
        let line = |inside, outside, size| IdMap { inside, outside, size };
        let container = Maps { uid: vec![line(0, 5000, 100)], gid: vec![line(0, 6000, 100)] };
        let of = |text: &str| of_option("mounts[0] (/x).options", text, &container);
        let maps = of("uids=0-1-10#10-11-10;gids=0-3-10").unwrap();
        assert_eq!((maps.uid, maps.gid), (vec![line(0, 1, 10), line(10, 11, 10)], vec![line(0, 3, 10)]));
        let maps = of("uids=@1000-20-1").unwrap();
        assert_eq!((maps.uid, &maps.gid), (vec![line(1000, 5020, 1)], &container.gid));
        let none = of_option("mounts[0] (/x).options", "uids=0-1-1", &Maps::default());
        for (result, words) in [
            (of("users=0-1-1"), "\"users=0-1-1\" is no mapping like uids=0-1000-10 or gids=0-1000-10"),
            (of("uids=0-1"), "\"0-1\" is no range like 0-1000-10 or @0-1000-10"),
            (of("uids=a-1-1"), "\"a-1-1\" is no range like 0-1000-10 or @0-1000-10"),
            (of("gids=@0-100-1"), "\"@0-100-1\": id 100 is not mapped in the container; mapped are 0-99"),
            (none, "idmap has no gids, and linux has no mappings for them"),
        ] {
            let message = result.unwrap_err().to_string();
            assert_eq!(message, format!("mounts[0] (/x).options: {words}"));
        }
        let overlap = of("uids=0-1-10#5-100-10").unwrap_err().to_string();
        assert_eq!(
            overlap,
            "mounts[0] (/x).options (uids)[1]: container user ids 5-14 overlap 0-9 of entry 0"
        );
    }

    #[test]
    fn setgroups_is_denied_to_an_ordinary_user_with_its_own_group_only() {
        let host = |privileged| {
            let mut host = sample::sample().host;
            (host.privileged, host.egid) = (privileged, 1000);
            host
        };
        let ns = Namespaces { new: NEWUSER, ..Namespaces::default() };
        let map = |outside, size| Maps { uid: vec![], gid: vec![IdMap { inside: 0, outside, size }] };
        assert!(setgroups_denied(&map(1000, 1), &ns, &host(false)));
        assert!(!setgroups_denied(&map(1000, 2), &ns, &host(false)));
        assert!(!setgroups_denied(&map(5000, 1), &ns, &host(false)));
        assert!(!setgroups_denied(&map(1000, 1), &ns, &host(true)));
        let nested = Facts { setgroups_denied: true, ..host(true) };
        assert!(setgroups_denied(&map(0, 1000), &Namespaces::default(), &nested));
    }
}
