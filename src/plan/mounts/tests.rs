use super::options::*;
use super::*;
use crate::plan::sample::{Sample, sample};
use crate::plan::step::Attr;
use serde_json::{Value, json};

/// The sample with these mounts.
pub fn mounts(list: Value) -> Sample {
    sample().set("/mounts", list)
}

fn one(kind: &str, options: &[&str]) -> Sample {
    mounts(json!([{ "destination": "/x", "type": kind, "source": "src", "options": options }]))
}

fn run(s: &Sample) -> Result<Mounts> {
    s.run(|d| plan(d, "/web"))
}

/// The first mount.
pub fn mount_of(s: &Sample) -> Mount {
    match run(s).unwrap().steps.remove(0).act {
        Act::Mount(m) => m,
        other => panic!("{other:?}"),
    }
}

fn new_of(s: &Sample) -> (String, Vec<String>, bool, bool) {
    let MountWhat::New { fstype, source, params, copy_up, inherit_mode, .. } = mount_of(s).what else {
        panic!()
    };
    let text = |c: &CString| c.to_str().unwrap().to_string();
    let params =
        params.iter().map(|(k, v)| v.as_ref().map_or(text(k), |v| format!("{}={}", text(k), text(v))));
    (format!("{} {}", text(&fstype), text(&source)), params.collect(), copy_up, inherit_mode)
}

#[test]
fn broken_entries_are_errors_that_name_them() {
    for (entry, message) in [
        (json!({}), "mounts[0].destination: is required"),
        (json!({ "destination": "" }), "mounts[0].destination: is required"),
        (
            json!({ "destination": "/a\u{0}", "type": "tmpfs" }),
            "mounts[0].destination: \"/a\\0\" has a NUL byte",
        ),
        (json!({ "destination": "/a", "type": "t\u{0}" }), "mounts[0].type: \"t\\0\" has a NUL byte"),
        (json!({ "destination": "/a", "source": "\u{0}" }), "mounts[0].source: \"\\0\" has a NUL byte"),
        (json!({ "destination": "/a/../../b" }), "mounts[0].destination: \"/a/../../b\" is above the rootfs"),
        (
            json!({ "destination": "/a/..", "type": "tmpfs" }),
            "mounts[0].destination: \"/a/..\" is the rootfs itself; mount it beforehand and name it in root.path",
        ),
        (
            json!({ "destination": "/a" }),
            "mounts[0] (/a): the type is required, unless an option is bind or rbind",
        ),
        (
            json!({ "destination": "/a", "options": ["rbind"] }),
            "mounts[0] (/a).source: is required for a bind mount",
        ),
        (
            json!({ "destination": "/a", "source": "/b", "options": ["rbind", "size=1m", "roo"] }),
            "mounts[0] (/a).options: \"roo\" is unknown",
        ),
        (
            json!({ "destination": "/a", "type": "proc", "options": ["tmpcopyup"] }),
            "mounts[0] (/a).options: tmpcopyup is for the type tmpfs alone",
        ),
        (
            json!({ "destination": "/a", "source": "/b", "options": ["bind", "idmap"] }),
            "mounts[0] (/a).options: idmap needs uidMappings and gidMappings, of the mount or of linux",
        ),
        (
            json!({ "destination": "/a", "source": "/b", "options": ["bind"], "uidMappings": [] }),
            "mounts[0] (/a): uidMappings without gidMappings",
        ),
        (
            json!({ "destination": "/a", "type": "tmpfs", "options": ["idmap"] }),
            "mounts[0] (/a): id mappings are for bind mounts alone",
        ),
    ] {
        assert_eq!(run(&mounts(json!([entry]))).unwrap_err().to_string(), message);
    }
    let s = || mounts(json!([{ "destination": "/a", "type": "tmpfs" }])).without("mount");
    assert_eq!(run(&s()).unwrap().steps.len(), 1);
    assert_eq!(
        run(&s().user_namespace()).unwrap_err().to_string(),
        "mounts: need a mount namespace in linux.namespaces: over the host's a user namespace has no rights"
    );
}

#[test]
fn a_destination_is_absolute_and_without_dots() {
    for (destination, target, warned) in [
        ("/a//b/./c/", c"/a/b/c", false),
        ("/a/../b", c"/b", false),
        ("a/b", c"/a/b", true),
        ("/", c"/", false),
    ] {
        let s = mounts(json!([{ "destination": destination, "type": "tmpfs" }]));
        if destination == "/" {
            assert!(run(&s).is_err());
            continue;
        }
        assert_eq!(mount_of(&s).target.as_c_str(), target);
        let warnings = s.run(|d| plan(d, "/web").map(|_| d.warnings.clone())).unwrap();
        assert_eq!(!warnings.is_empty(), warned, "{warnings:?}");
    }
}

#[test]
fn binds_into_a_user_namespace_are_opened_by_the_parent_and_flags_cleared_too() {
    let s = mounts(
        json!([{ "destination": "/x", "source": "data", "options": ["rbind", "rw", "nosuid", "rro"] }]),
    );
    let s = s.user_namespace();
    s.run(|d| {
        let m = plan(d, "/web").unwrap();
        let Act::Mount(m) = &m.steps[0].act else { panic!() };
        assert_eq!(m.attr, Attr { set: NOSUID, clear: RDONLY });
        assert_eq!(m.rattr, Attr { set: RDONLY, clear: 0 });
        assert_eq!(m.what, MountWhat::Bind(Tree::Slot(0)));
        let path = c"/bundle/data".to_owned();
        assert_eq!(
            d.opens[0].what,
            OpenWhat::Tree { path, recursive: true, nofollow: false, propagation: libc::MS_SLAVE }
        );
        assert_eq!(d.opens[0].at, "mounts[0] (/x)");
    });
    for (kind, options, recursive) in
        [("none", &["bind"][..], false), ("bind", &["ro"], false), ("ext4", &["rbind"], true)]
    {
        let bound = |s: Sample| match mount_of(&s).what {
            MountWhat::Bind(Tree::Path { recursive: r, .. }) if r == recursive => "when its turn comes",
            MountWhat::Bind(Tree::Slot(0)) => "by the parent",
            _ => "otherwise",
        };
        assert_eq!(bound(one(kind, options)), "when its turn comes", "{kind}");
        let shared = one(kind, options).set("/linux/rootfsPropagation", json!("rshared"));
        assert_eq!(bound(shared), "by the parent", "{kind}");
    }
    let ordinary = one("bind", &["bind"]).user_namespace().host(|h| h.privileged = false);
    assert!(matches!(mount_of(&ordinary).what, MountWhat::Bind(Tree::Path { .. })));
}

#[test]
fn bind_sources_relate_to_the_host_as_the_root_does() {
    for (value, user, want) in [
        (json!(null), false, libc::MS_SLAVE),
        (json!("rslave"), false, libc::MS_SLAVE),
        (json!("private"), false, libc::MS_PRIVATE),
        (json!("rprivate"), false, libc::MS_PRIVATE),
        (json!("unbindable"), false, libc::MS_PRIVATE),
        (json!("rshared"), false, 0),
        (json!("shared"), true, libc::MS_SLAVE),
    ] {
        let s = sample().set("/linux/rootfsPropagation", value.clone());
        let s = if user { s.user_namespace() } else { s };
        assert_eq!(s.run(|d| tree_propagation(d)), want, "{value}");
    }
}

#[test]
fn new_instances_get_flags_and_data() {
    for (kind, options, want) in [
        ("tmpfs", &["nosuid", "size=1m", "sync"][..], ("tmpfs src", vec!["size=1m", "sync"], false, true)),
        ("tmpfs", &["mode=700", "tmpcopyup"], ("tmpfs src", vec!["mode=700"], true, false)),
        ("ext4", &["ro", "iversion"], ("ext4 src", vec!["ro", "i_version"], false, false)),
        ("sysfs", &["ro"], ("sysfs src", vec![], false, false)),
        ("devpts", &["newinstance", "gid=5"], ("devpts src", vec!["newinstance", "gid=5"], false, false)),
    ] {
        let (name, params, copy_up, inherit) = want;
        let params: Vec<_> = params.iter().map(|p: &&str| p.to_string()).collect();
        assert_eq!(new_of(&one(kind, options)), (name.to_string(), params, copy_up, inherit), "{kind}");
    }
    let s = mounts(json!([{ "destination": "/proc", "type": "proc" }]));
    assert_eq!(new_of(&s).0, "proc proc");
}

#[test]
fn a_tmpfs_and_dev_become_read_only_at_last() {
    for (destination, kind, late) in [
        ("/x", "tmpfs", true),
        ("/dev", "tmpfs", true),
        ("/dev", "bind", true),
        ("/x", "bind", false),
        ("/x", "sysfs", false),
    ] {
        let s =
            mounts(json!([{ "destination": destination, "type": kind, "source": "/s", "options": ["ro"] }]));
        let m = run(&s).unwrap();
        let target = CString::new(destination).unwrap();
        let want: Vec<_> = late
            .then(|| Step::new(format!("mounts[0] ({destination})"), Act::MakeReadonly { target }))
            .into_iter()
            .collect();
        assert_eq!(m.late, want, "{destination} {kind}");
        assert_eq!(mount_of(&s).attr.set & RDONLY == 0, late);
        assert_eq!(m.dev_is_bind, destination == "/dev" && kind == "bind");
    }
}

#[test]
fn devpts_has_no_gid_that_is_not_mapped() {
    for (gid, want) in [("gid=5", vec!["gid=5"]), ("gid=1000", vec![])] {
        assert_eq!(new_of(&one("devpts", &[gid]).user_namespace()).1, want);
    }
}

#[test]
fn sysfs_falls_back_only_where_the_kernel_refuses_it() {
    let fallback = |s: Sample| match mount_of(&s).what {
        MountWhat::New { fallback, .. } => fallback.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(!fallback(one("sysfs", &[])));
    assert!(!fallback(one("sysfs", &[]).without("network")));
    assert!(!fallback(one("sysfs", &[]).user_namespace()));
    assert!(fallback(one("sysfs", &[]).user_namespace().without("network")));
}

#[test]
fn only_a_procfs_covers_proc_and_few_files_below_it_may_be_covered() {
    for (destination, kind, options, want) in [
        ("/proc", "proc", &[][..], Some((OnProc::Whole, true))),
        ("/proc", "none", &["rbind"], Some((OnProc::Whole, true))),
        ("/proc", "tmpfs", &[], None),
        ("/proc/../proc/", "tmpfs", &[], None),
        ("/proc/uptime", "bind", &["bind"], Some((OnProc::File, true))),
        ("/proc/./meminfo", "bind", &["bind"], Some((OnProc::File, true))),
        ("/proc/sys/kernel/ns_last_pid", "bind", &["bind"], Some((OnProc::File, true))),
        ("/proc/sys/kernel/core_pattern", "bind", &["bind"], None),
        ("/proc/self/attr", "tmpfs", &[], None),
        ("/proc/scsi", "tmpfs", &[], None),
        ("/proc/x", "proc", &[], None),
        ("/process", "tmpfs", &[], Some((OnProc::Never, false))),
        ("/host/proc", "proc", &[], Some((OnProc::Never, true))),
        ("/sys", "sysfs", &[], Some((OnProc::Never, true))),
        ("/sys/fs/cgroup", "tmpfs", &[], Some((OnProc::Never, true))),
    ] {
        let s =
            mounts(json!([{ "destination": destination, "type": kind, "source": "/s", "options": options }]));
        match want {
            Some(want) => {
                let m = mount_of(&s);
                assert_eq!((m.proc, m.strict_target), want, "{destination} {kind}");
            }
            None => {
                let e = run(&s).unwrap_err().to_string();
                assert!(e.contains("only a procfs may cover /proc"), "{destination} {kind}: {e}");
            }
        }
    }
}

#[test]
fn propagation_is_kept_in_order_and_nothing_is_added() {
    assert_eq!(mount_of(&one("bind", &["rbind"])).propagation, []);
    let want = [(libc::MS_PRIVATE, true), (libc::MS_SHARED, false)];
    assert_eq!(mount_of(&one("bind", &["rbind", "rprivate", "shared"])).propagation, want);
}

#[test]
fn id_mappings_are_the_mounts_or_the_namespaces() {
    let map = json!([{ "containerID": 0, "hostID": 7, "size": 2 }]);
    let own = mounts(json!([{
        "destination": "/x", "source": "/s", "options": ["rbind", "ridmap"], "uidMappings": map, "gidMappings": map
    }]));
    let of_linux = one("bind", &["rbind", "idmap"]).user_namespace();
    for (s, outside, deep) in [(own, 7, true), (of_linux, 100_000, false)] {
        s.run(|d| {
            plan(d, "/web").unwrap();
            let OpenWhat::MappedTree { maps, deep: is_deep, .. } = &d.opens[0].what else { panic!() };
            assert_eq!((maps.uid[0].outside, *is_deep), (outside, deep));
        });
    }
    let s = one("bind", &["rbind", "idmap"]).user_namespace().host(|h| h.privileged = false);
    assert_eq!(
        run(&s).unwrap_err().to_string(),
        "mounts[0] (/x): id-mapped mounts need the host's CAP_SYS_ADMIN"
    );
}

#[test]
fn options_too_long_for_fsconfig_come_in_one_page() {
    let of = |len: usize| {
        let lower = format!("lowerdir={}", "/x".repeat(len / 2));
        one("overlay", &["ro", "index=off", &lower, "userxattr"])
    };
    let MountWhat::New { page, .. } = mount_of(&of(254)).what else { panic!() };
    assert_eq!(page, None);
    let MountWhat::New { page, .. } = mount_of(&of(256)).what else { panic!() };
    let want = format!("index=off,lowerdir={},userxattr", "/x".repeat(128));
    assert_eq!(page.unwrap().options.to_str().unwrap(), want);
    assert_eq!(
        run(&of(5000)).unwrap_err().to_string(),
        "mounts[0] (/x).options: are 5029 bytes, and mount(2) takes 4095"
    );
}

#[test]
fn plain_file_systems_are_mounted_by_one_call() {
    let page = |kind: &str, options: &[&str]| match mount_of(&one(kind, options)).what {
        MountWhat::New { page, .. } => page.map(|p| (p.options.into_string().unwrap(), p.only)),
        other => panic!("{other:?}"),
    };
    let by = |options: &str| Some((options.to_string(), false));
    assert_eq!(page("mqueue", &["nosuid"]), by(""));
    assert_eq!(page("tmpfs", &["mode=755", "size=64k", "noexec"]), by("mode=755,size=64k"));
    assert_eq!(page("devpts", &["newinstance", "gid=5"]), by("newinstance,gid=5"));
    for (kind, options) in [
        ("tmpfs", &["size=64k"][..]),          // the mode of what it covers
        ("tmpfs", &["mode=755", "tmpcopyup"]), // filled before it is attached
        ("tmpfs", &["mode=755", "rnosuid"]),
        ("tmpfs", &["mode=755", "rshared"]),
        ("tmpfs", &["mode=755", "sync"]),
        ("proc", &[]),
        ("mqueue", &["ro"]), // MS_RDONLY would be the superblock's, too
        ("ext4", &[]),
    ] {
        assert_eq!(page(kind, options), None, "{kind} {options:?}");
    }
    // A page has commas between options.
    let s =
        one("tmpfs", &["mode=755"]).set("/linux/mountLabel", json!("u:r:t:c1,c2")).host(|h| h.selinux = true);
    assert!(matches!(mount_of(&s).what, MountWhat::New { page: None, .. }));
}

#[test]
fn a_label_is_set_where_selinux_is_and_left_out_with_a_warning_elsewhere() {
    let s = one("tmpfs", &[]).set("/linux/mountLabel", json!("u:r:t:c1,c2"));
    let warnings = s.run(|d| plan(d, "/web").map(|_| d.warnings.clone())).unwrap();
    let warning =
        "linux.mountLabel: \"u:r:t:c1,c2\" needs SELinux, which this host has not enabled; left out";
    assert_eq!(warnings, [warning]);
    assert!(new_of(&s).1.is_empty());
    let s = s.host(|h| h.selinux = true);
    assert_eq!(new_of(&s).1, ["context=u:r:t:c1,c2"]);
    let of = |kind: &str| json!({ "run.oci.mount_context_type": kind });
    let s = s.set("/annotations", of("rootcontext"));
    assert_eq!(new_of(&s).1, ["rootcontext=u:r:t:c1,c2"]);
    assert_eq!(
        run(&s.set("/annotations", of("x"))).unwrap_err().to_string(),
        "annotations[\"run.oci.mount_context_type\"]: \"x\" is unknown; known are context, fscontext, defcontext, rootcontext"
    );
    let s = one("proc", &[]).set("/linux/mountLabel", json!("u:r:t")).host(|h| h.selinux = true);
    assert!(new_of(&s).1.is_empty());
    assert!(run(&one("tmpfs", &[]).set("/linux/mountLabel", json!(""))).is_ok());
}

#[test]
fn remount_changes_what_is_there() {
    let m = mount_of(&one("tmpfs", &["remount", "ro", "size=2m"]));
    let params = vec![(c"size".to_owned(), Some(c"2m".to_owned()))];
    assert_eq!((m.what, m.attr.set), (MountWhat::Remount { params }, RDONLY));
}
