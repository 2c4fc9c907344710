//! The type `cgroup`: the host's hierarchies as the container may see them.

use super::Entry;
use super::options::{NODEV, NOEXEC, NOSUID, Options, RDONLY};
use crate::error::Result;
use crate::plan::cgroup::{Hierarchy, Who};
use crate::plan::spawn::NEWCGROUP;
use crate::plan::step::{Attr, CgroupV1Mount, MountWhat, Open, OpenWhat, Slot, Tree};
use crate::plan::{Draft, cstring};
use std::ffi::CString;

/// What to mount and with which attributes: all of v1's hierarchies below a tmpfs, or the one of v2.
pub fn plan(d: &mut Draft, e: &Entry, o: &mut Options, path: &str) -> Result<MountWhat> {
    if o.rattr.set & RDONLY != 0 {
        o.attr.set |= RDONLY;
    }
    let hierarchies = &d.host.cgroups;
    let own = d.ns.is_new(NEWCGROUP);
    let unknown = hierarchies.v1.is_empty() && hierarchies.v2.is_none();
    if unknown || !own && !d.host.privileged {
        // Cgroups are not ours to manage here, and there may be none of the container: the host's view, for reading.
        o.rattr.set |= o.attr.set | RDONLY;
        let (path, propagation) = (cstring(&e.at, "/sys/fs/cgroup")?, super::inward(d));
        return Ok(MountWhat::Bind(super::tree(d, &e.at, path, (true, false), propagation)));
    }
    match &hierarchies.v2 {
        Some(_) if hierarchies.v1.is_empty() && own => {
            let params = super::params(&e.at, &o.data)?;
            let (fstype, source) = (cstring(&e.at, "cgroup2")?, cstring(&e.at, e.source_or("cgroup"))?);
            Ok(MountWhat::New {
                fstype,
                source,
                params,
                page: None,
                copy_up: false,
                inherit_mode: false,
                fallback: None,
            })
        }
        Some(v2) if hierarchies.v1.is_empty() => {
            let (mount, own) = (v2.mount.clone(), v2.own.clone());
            Ok(MountWhat::Bind(Tree::Slot(tree(d, e, Attr::default(), (&mount, path, &own))?)))
        }
        _ => v1(d, e, o, path, own),
    }
}

/// A hybrid host's v2 hierarchy stays out, as the field has it: it has no limits there.
fn v1(d: &mut Draft, e: &Entry, o: &Options, path: &str, own: bool) -> Result<MountWhat> {
    if let Some((key, _)) = o.data.first() {
        d.warn(&e.at, format!("{key:?} means nothing to cgroup v1 mounts, left out"));
    }
    let (mut mounts, mut links) = (Vec::new(), Vec::new());
    // The superblock of a hierarchy is the host's: the mount alone is read-only.
    let attr = Attr { set: NOSUID | NODEV | NOEXEC | o.attr.set & RDONLY, clear: 0 };
    for h in d.host.cgroups.v1.clone() {
        let name = h.mount.rsplit('/').next().unwrap_or_default();
        let c_name = cstring(&e.at, name)?;
        if h.controllers.len() > 1 {
            for c in h.controllers.iter().filter(|c| *c != name) {
                links.push((cstring(&e.at, c)?, c_name.clone()));
            }
        }
        let bind = if own { None } else { Some(tree(d, e, attr, (&h.mount, path, &h.own))?) };
        mounts.push(CgroupV1Mount { name: c_name, bind, options: controllers(&e.at, &h)? });
    }
    Ok(MountWhat::CgroupV1 { hierarchies: mounts, links, read_only: o.attr.set & RDONLY != 0 })
}

/// The container's own cgroup in one hierarchy. Who is not the host's root may be unable to make it: then it stays
/// where we are.
fn tree(d: &mut Draft, e: &Entry, attr: Attr, (mount, path, own): (&str, &str, &str)) -> Result<Slot> {
    let own = (Who::of(d.host) != Who::Root).then(|| cstring(&e.at, &join(mount, own))).transpose()?;
    let (path, propagation) = (cstring(&e.at, &join(mount, path))?, super::inward(d));
    let what = OpenWhat::LateTree { path, own, attr, propagation };
    Ok(d.open(Open { at: e.at.clone(), what }))
}

/// cgroup v1 takes each controller as a flag; a named hierarchy has none.
fn controllers(at: &str, h: &Hierarchy) -> Result<CString> {
    match &h.controllers[..] {
        [name] if name.starts_with("name=") => cstring(at, &format!("none,{name}")),
        list => cstring(at, &list.join(",")),
    }
}

fn join(mount: &str, path: &str) -> String {
    format!("{}/{}", mount.trim_end_matches('/'), path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{mount_of, mounts};
    use super::*;
    use crate::plan::cgroup::{Hierarchies, Unified};
    use crate::plan::sample::Sample;
    use libc::MS_SLAVE;
    use serde_json::json;

    fn v1() -> Vec<Hierarchy> {
        let of = |mount: &str, controllers: &[&str]| Hierarchy {
            mount: format!("/sys/fs/cgroup/{mount}"),
            controllers: controllers.iter().map(|c| c.to_string()).collect(),
            own: "/".into(),
        };
        vec![
            of("cpu,cpuacct", &["cpu", "cpuacct"]),
            of("memory", &["memory"]),
            of("systemd", &["name=systemd"]),
        ]
    }

    fn unified(mount: &str) -> Option<Unified> {
        Some(Unified { mount: mount.into(), controllers: vec![], own: "/".into() })
    }

    fn with(v1: Vec<Hierarchy>, v2: Option<Unified>) -> Sample {
        mounts(json!([{ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }]))
            .host(|h| h.cgroups = Hierarchies { v1, v2 })
    }

    fn own(s: Sample) -> Sample {
        s.namespace(json!({ "type": "cgroup" }))
    }

    #[test]
    fn v1_has_a_mount_for_each_hierarchy_and_links_for_joined_controllers() {
        for v2 in [None, unified("/sys/fs/cgroup/unified")] {
            let m = mount_of(&own(with(v1(), v2)));
            let MountWhat::CgroupV1 { hierarchies, links, read_only } = m.what else { panic!("{m:?}") };
            let names: Vec<_> = hierarchies.iter().map(|h| h.name.to_str().unwrap()).collect();
            assert_eq!((names, read_only), (vec!["cpu,cpuacct", "memory", "systemd"], true));
            let joined = c"cpu,cpuacct".to_owned();
            assert_eq!(links, [(c"cpu".to_owned(), joined.clone()), (c"cpuacct".to_owned(), joined)]);
            assert_eq!(hierarchies[0].options.as_c_str(), c"cpu,cpuacct");
            assert_eq!(hierarchies[2].options.as_c_str(), c"none,name=systemd");
            assert!(hierarchies.iter().all(|h| h.bind.is_none()));
        }
    }

    #[test]
    fn without_a_namespace_the_containers_own_cgroup_is_bound() {
        let attr = Attr { set: RDONLY | NOSUID | NODEV | NOEXEC, clear: 0 };
        with(v1(), None).run(|d| {
            let m = super::super::plan(d, "/web").unwrap();
            assert_eq!(m.steps.len(), 1);
            let path = c"/sys/fs/cgroup/memory/web".to_owned();
            assert_eq!(d.opens[1].what, OpenWhat::LateTree { path, own: None, attr, propagation: MS_SLAVE });
        });
        let nested = with(v1(), None).host(|h| {
            h.nested = true;
            h.cgroups.v1[1].own = "/user".into();
        });
        nested.run(|d| {
            super::super::plan(d, "/web").unwrap();
            let path = c"/sys/fs/cgroup/memory/web".to_owned();
            let own = Some(c"/sys/fs/cgroup/memory/user".to_owned());
            assert_eq!(d.opens[1].what, OpenWhat::LateTree { path, own, attr, propagation: MS_SLAVE });
        });
        with(vec![], unified("/sys/fs/cgroup")).run(|d| {
            super::super::plan(d, "/a/web").unwrap();
            let path = c"/sys/fs/cgroup/a/web".to_owned();
            let attr = Attr::default();
            assert_eq!(d.opens[0].what, OpenWhat::LateTree { path, own: None, attr, propagation: MS_SLAVE });
        });
    }

    #[test]
    fn v2_is_mounted_anew_in_a_namespace() {
        let m = mount_of(&own(with(vec![], unified("/sys/fs/cgroup"))));
        assert_eq!(m.attr.set, RDONLY);
        assert!(matches!(m.what, MountWhat::New { fstype, .. } if fstype.as_c_str() == c"cgroup2"));
    }

    #[test]
    fn where_cgroups_are_not_ours_the_hosts_are_seen_read_only() {
        let ordinary = with(v1(), None).user_namespace().host(|h| h.privileged = false);
        for s in [ordinary, with(vec![], None), own(with(vec![], None))] {
            let m = mount_of(&s);
            assert_eq!(m.rattr.set, RDONLY);
            assert!(matches!(m.what, MountWhat::Bind(_)));
        }
    }
}
