//! config-linux.md#cgroup-ownership

use crate::plan::spawn::NEWCGROUP;
use crate::plan::{Draft, idmap};

/// The user that runs the program, as a uid of the host, if the container may manage cgroups below its own: on cgroup
/// v2 alone, since delegation is not safe on v1, in a cgroup namespace of its own, and with a mount of it that can be
/// written.
pub fn owner(d: &Draft) -> Option<u32> {
    if !d.host.cgroups.is_unified() || !d.ns.is_new(NEWCGROUP) {
        return None;
    }
    let is_writable = |m: &&crate::config::Mount| {
        let options = m.options.iter().flatten();
        m.destination.as_deref().is_some_and(|d| d.trim_end_matches('/') == "/sys/fs/cgroup")
            && m.kind.as_deref().is_some_and(|k| k.starts_with("cgroup"))
            && options.rev().find(|o| ["ro", "rro", "rw"].contains(&o.as_str())).is_none_or(|o| o == "rw")
    };
    d.config.mounts.iter().flatten().find(is_writable)?;
    let user = d.config.process.as_ref().and_then(|p| p.user.as_ref()).and_then(|u| u.uid).unwrap_or(0);
    let uid = u32::try_from(user).ok()?;
    let uid = if d.in_user_namespace() { idmap::to_host(&d.maps.uid, uid)? } else { uid };
    (uid != d.host.euid).then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cgroup::{Hierarchies, Hierarchy, Unified};
    use crate::plan::sample::{Sample, sample};
    use serde_json::json;

    fn with(options: &[&str]) -> Sample {
        let mount = json!([{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options }]);
        let v2 = Some(Unified { mount: "/cg".into(), controllers: vec![], own: "/".into() });
        sample().set("/mounts", mount).host(|h| h.cgroups = Hierarchies { v1: vec![], v2 })
    }

    #[test]
    fn the_cgroup_is_handed_over_when_the_container_can_use_it() {
        let own = |s: Sample| s.namespace(json!({ "type": "cgroup" }));
        let user = |s: Sample| s.set("/process/user/uid", json!(7));
        let hybrid = |s: Sample| s.host(|h| h.cgroups.v1.push(Hierarchy::default()));
        for (sample, uid) in [
            (own(with(&["nosuid"])).user_namespace(), Some(100_000)),
            (own(with(&["ro", "rw"])).user_namespace(), Some(100_000)),
            (own(user(with(&[]))).user_namespace(), Some(100_007)),
            (own(user(with(&[]))), Some(7)),
            (own(with(&[])), None), // root has it already
            (own(with(&["nosuid", "ro"])).user_namespace(), None),
            (own(with(&["rro"])).user_namespace(), None),
            (with(&[]).user_namespace(), None),
            (hybrid(own(with(&[])).user_namespace()), None),
            (own(with(&[]).set("/mounts", json!([]))).user_namespace(), None),
        ] {
            assert_eq!(sample.run(|d| owner(d)), uid, "{}", sample.config);
        }
    }
}
