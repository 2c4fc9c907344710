//! config.md#posix-platform-user

use super::idmap::{IdMap, describe, setgroups_denied, to_host};
use super::{Draft, spawn};
use crate::error::{Error, Result};

/// Ids inside the container's user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Exactly the supplementary groups (CVE-2022-2989).
    pub groups: Vec<u32>,
    /// Those of our caller stay instead (`podman run --group-add keep-groups`).
    pub keep_groups: bool,
    pub umask: u32,
}

/// setgroups(2) takes no more (credentials(7), NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;

/// Reads `process.user`; absent, or without ids, means root of the container.
pub fn plan(d: &mut Draft) -> Result<User> {
    let user = d.config.process.as_ref().and_then(|p| p.user.clone()).unwrap_or_default();
    let uid = id("process.user.uid", user.uid.unwrap_or(0))?;
    let gid = id("process.user.gid", user.gid.unwrap_or(0))?;
    mapped(d, "process.user.uid", "linux.uidMappings", &d.maps.uid, uid)?;
    mapped(d, "process.user.gid", "linux.gidMappings", &d.maps.gid, gid)?;
    // crun's annotation: no setgroups(2) at all, when it is there and not 0.
    let keep_groups = d.config.annotation("run.oci.keep_original_groups").is_some_and(|v| v != "0");
    let additional = user.additional_gids.unwrap_or_default();
    if additional.len() > MAX_GROUPS {
        return Err(Error::invalid(
            "process.user.additionalGids",
            format!("has {} entries; the kernel takes {MAX_GROUPS}", additional.len()),
        ));
    }
    if !additional.is_empty() && keep_groups {
        let why = "are given, but the annotation run.oci.keep_original_groups keeps the caller's";
        return Err(Error::invalid("process.user.additionalGids", why));
    }
    if !additional.is_empty() && setgroups_denied(&d.maps, &d.ns, d.host) {
        let why = match d.host.setgroups_denied {
            true => "the runtime's own user namespace denies setgroups(2)",
            false => "an ordinary user that maps only its own group must give up setgroups(2)",
        };
        return Err(Error::invalid("process.user.additionalGids", format!("groups cannot be set: {why}")));
    }
    let mut groups = Vec::with_capacity(additional.len());
    for (n, &g) in additional.iter().enumerate() {
        let at = format!("process.user.additionalGids[{n}]");
        let g = id(&at, g)?;
        mapped(d, &at, "linux.gidMappings", &d.maps.gid, g)?;
        groups.push(g);
    }
    let umask = user.umask.unwrap_or(0o022);
    if !(0..=0o777).contains(&umask) {
        return Err(Error::invalid("process.user.umask", format!("{umask} is not in 0-511 (octal 0777)")));
    }
    Ok(User { uid, gid, groups, keep_groups, umask: umask as u32 })
}

/// 4294967295 is "leave as it is" to setresuid(2) and chown(2), and thus no id (CVE-2024-40635).
pub fn id(at: &str, value: i64) -> Result<u32> {
    match u32::try_from(value) {
        Ok(v) if v != u32::MAX => Ok(v),
        _ => Err(Error::invalid(at, format!("{value} is no id; ids are 0-4294967294"))),
    }
}

/// Of a joined user namespace the document need not repeat the mappings: then the kernel decides.
fn mapped(d: &Draft, at: &str, mappings: &str, map: &[IdMap], id: u32) -> Result<()> {
    if !d.ns.is_own(spawn::NEWUSER) || map.is_empty() || to_host(map, id).is_some() {
        return Ok(());
    }
    Err(Error::invalid(at, format!("{id} is not in {mappings}; {}", describe(map))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::sample;
    use serde_json::json;

    #[test]
    fn absent_and_empty_user_is_root() {
        let root = User { uid: 0, gid: 0, groups: vec![], keep_groups: false, umask: 0o022 };
        for user in [json!(null), json!({}), json!({ "username": "nobody" })] {
            assert_eq!(sample().set("/process/user", user).run(plan).unwrap(), root);
        }
    }

    #[test]
    fn ids_groups_and_umask_are_taken_as_given() {
        let user = json!({ "uid": 1000, "gid": 4_294_967_294_i64, "additionalGids": [5, 5, 0], "umask": 0 });
        let want = User { uid: 1000, gid: u32::MAX - 1, groups: vec![5, 5, 0], keep_groups: false, umask: 0 };
        assert_eq!(sample().set("/process/user", user).run(plan).unwrap(), want);
    }

    #[test]
    fn broken_ids_are_errors() {
        for (user, message) in [
            (json!({ "uid": -1 }), "process.user.uid: -1 is no id; ids are 0-4294967294"),
            (
                json!({ "uid": 4_294_967_295_i64 }),
                "process.user.uid: 4294967295 is no id; ids are 0-4294967294",
            ),
            (
                json!({ "gid": 4_294_967_296_i64 }),
                "process.user.gid: 4294967296 is no id; ids are 0-4294967294",
            ),
            (
                json!({ "additionalGids": [1, -2] }),
                "process.user.additionalGids[1]: -2 is no id; ids are 0-4294967294",
            ),
            (json!({ "umask": 512 }), "process.user.umask: 512 is not in 0-511 (octal 0777)"),
            (json!({ "umask": -1 }), "process.user.umask: -1 is not in 0-511 (octal 0777)"),
        ] {
            assert_eq!(sample().set("/process/user", user).error(plan), message);
        }
        let many = vec![1; MAX_GROUPS + 1];
        assert_eq!(
            sample().set("/process/user/additionalGids", json!(many)).error(plan),
            "process.user.additionalGids: has 65537 entries; the kernel takes 65536"
        );
    }

    #[test]
    fn an_unmapped_id_names_the_mapping() {
        for (user, message) in [
            (json!({ "uid": 1000 }), "process.user.uid: 1000 is not in linux.uidMappings; mapped are 0-999"),
            (json!({ "gid": 5000 }), "process.user.gid: 5000 is not in linux.gidMappings; mapped are 0-999"),
            (
                json!({ "additionalGids": [7, 1001] }),
                "process.user.additionalGids[1]: 1001 is not in linux.gidMappings; mapped are 0-999",
            ),
        ] {
            assert_eq!(sample().user_namespace().set("/process/user", user).error(plan), message);
        }
    }

    #[test]
    fn of_a_joined_user_namespace_the_kernel_decides() {
        let s = sample().namespace(json!({ "type": "user", "path": "/proc/7/ns/user" }));
        assert_eq!(s.set("/process/user/uid", json!(70_000)).run(plan).unwrap().uid, 70_000);
    }

    #[test]
    fn groups_of_the_caller_stay_only_instead_of_others() {
        let s = sample().set("/annotations", json!({ "run.oci.keep_original_groups": "1" }));
        assert!(s.run(plan).unwrap().keep_groups);
        let none = json!({ "run.oci.keep_original_groups": "0" });
        assert!(!sample().set("/annotations", none).run(plan).unwrap().keep_groups);
        assert_eq!(
            s.set("/process/user/additionalGids", json!([5])).error(plan),
            "process.user.additionalGids: are given, but the annotation run.oci.keep_original_groups keeps the caller's"
        );
    }

    #[test]
    fn groups_need_setgroups() {
        let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        let s = sample()
            .namespace(json!({ "type": "user" }))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
            .host(|h| (h.euid, h.egid, h.privileged) = (1000, 1000, false));
        assert!(s.run(plan).unwrap().groups.is_empty());
        assert_eq!(
            s.set("/process/user/additionalGids", json!([0])).error(plan),
            "process.user.additionalGids: groups cannot be set: an ordinary user that maps only its own group must \
             give up setgroups(2)"
        );
    }
}
