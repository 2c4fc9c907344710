//! Every row of linux.resources: what is written where, and what is refused.

use super::*;
use serde_json::{Value, json};

fn v1() -> Hierarchies {
    let lists = [
        "cpu,cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "hugetlb",
        "net_cls,net_prio",
        "rdma",
        "name=systemd",
    ];
    Hierarchies {
        v1: lists
            .iter()
            .map(|l| Hierarchy {
                mount: format!("/cg/{l}"),
                controllers: l.split(',').map(String::from).collect(),
                own: "/user/me".into(),
            })
            .collect(),
        v2: None,
    }
}

fn v2() -> Hierarchies {
    let all = ["cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma"];
    let controllers = all.iter().map(|c| c.to_string()).collect();
    Hierarchies { v1: vec![], v2: Some(Unified { mount: "/cg".into(), controllers, own: "/user/me".into() }) }
}

fn run(resources: Value, h: &Hierarchies) -> Result<CgroupPlan> {
    let r: config::Resources = serde_json::from_value(resources).expect("it parses");
    plan(Some(&r), None, "web", &[], h, Who::Root, &mut vec![])
}

/// `file=value` of every write but those for devices.
fn writes(resources: Value, h: &Hierarchies) -> Vec<String> {
    let plan = run(resources, h).expect("a plan");
    let all = plan.v1.iter().flat_map(|v| &v.writes).chain(plan.v2.iter().flat_map(|v| &v.writes));
    all.filter(|w| !w.file.starts_with("devices.")).map(|w| format!("{}={}", w.file, w.value)).collect()
}

#[test]
fn values_and_their_order_on_both_versions() {
    for (resources, on_v1, on_v2) in [
        (json!({}), vec![], vec![]),
        (
            json!({ "memory": { "limit": 100, "swap": 300, "reservation": 50 } }),
            vec![
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=300",
                "memory.soft_limit_in_bytes=50",
            ],
            vec!["memory.max=100", "memory.swap.max=200", "memory.low=50"],
        ),
        (
            json!({ "memory": { "limit": -1, "swap": -1, "reservation": -1 } }),
            vec![
                "memory.limit_in_bytes=-1",
                "memory.memsw.limit_in_bytes=-1",
                "memory.soft_limit_in_bytes=-1",
            ],
            vec!["memory.max=max", "memory.swap.max=max", "memory.low=max"],
        ),
        (
            json!({ "memory": { "limit": 100, "swap": 100 } }),
            vec!["memory.limit_in_bytes=100", "memory.memsw.limit_in_bytes=100"],
            vec!["memory.max=100", "memory.swap.max=0"],
        ),
        // What engines send for fields that were left alone.
        (
            json!({
                "memory": { "limit": 0, "swap": 0, "reservation": 0, "kernel": 0, "kernelTCP": 0, "disableOOMKiller": false },
                "cpu": { "shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": "" },
                "blockIO": { "weight": 0, "leafWeight": 0, "weightDevice": [] },
                "pids": {}, "hugepageLimits": [], "network": { "classID": 0 }, "rdma": {}, "unified": {},
            }),
            vec![],
            vec![],
        ),
        (
            json!({ "cpu": { "shares": 512, "quota": 50000, "period": 200000, "burst": 1000, "idle": 1 } }),
            vec![
                "cpu.shares=512",
                "cpu.cfs_period_us=200000",
                "cpu.cfs_quota_us=50000",
                "cpu.cfs_burst_us=1000",
                "cpu.idle=1",
            ],
            vec!["cpu.weight=59", "cpu.max=50000 200000", "cpu.max.burst=1000", "cpu.idle=1"],
        ),
        (json!({ "cpu": { "quota": -1 } }), vec!["cpu.cfs_quota_us=-1"], vec!["cpu.max=max 100000"]),
        (json!({ "cpu": { "period": 5000 } }), vec!["cpu.cfs_period_us=5000"], vec!["cpu.max=max 5000"]),
        (
            json!({ "cpu": { "cpus": "0-1", "mems": "0" } }),
            vec!["cpuset.cpus=0-1", "cpuset.mems=0"],
            vec!["cpuset.cpus=0-1", "cpuset.mems=0"],
        ),
        (json!({ "pids": { "limit": 0 } }), vec!["pids.max=0"], vec!["pids.max=0"]),
        (json!({ "pids": { "limit": -1 } }), vec!["pids.max=max"], vec!["pids.max=max"]),
        (
            json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 18446744073709551615u64 }] }),
            vec![
                "hugetlb.2MB.limit_in_bytes=18446744073709551615",
                "hugetlb.2MB.rsvd.limit_in_bytes=18446744073709551615",
            ],
            vec!["hugetlb.2MB.max=18446744073709551615", "hugetlb.2MB.rsvd.max=18446744073709551615"],
        ),
        (
            json!({ "blockIO": { "weight": 500, "weightDevice": [{ "major": 8, "minor": 0, "weight": 10 }] } }),
            vec!["blkio.weight=500", "blkio.weight_device=8:0 10"],
            vec!["io.bfq.weight=500", "io.bfq.weight=8:0 10"],
        ),
        (
            json!({ "blockIO": {
                "throttleReadBpsDevice": [{ "major": 8, "minor": 0, "rate": 1 }],
                "throttleWriteBpsDevice": [{ "major": 8, "minor": 0, "rate": 2 }],
                "throttleReadIOPSDevice": [{ "major": 8, "minor": 0, "rate": 3 }],
                "throttleWriteIOPSDevice": [{ "major": 8, "minor": 1, "rate": 0 }],
            } }),
            vec![
                "blkio.throttle.read_bps_device=8:0 1",
                "blkio.throttle.write_bps_device=8:0 2",
                "blkio.throttle.read_iops_device=8:0 3",
                "blkio.throttle.write_iops_device=8:1 0",
            ],
            vec!["io.max=8:0 rbps=1", "io.max=8:0 wbps=2", "io.max=8:0 riops=3", "io.max=8:1 wiops=max"],
        ),
        (
            json!({ "rdma": { "mlx5_1": { "hcaHandles": 3, "hcaObjects": 10 }, "rxe": { "hcaObjects": 1 } } }),
            vec!["rdma.max=mlx5_1 hca_handle=3 hca_object=10", "rdma.max=rxe hca_object=1"],
            vec!["rdma.max=mlx5_1 hca_handle=3 hca_object=10", "rdma.max=rxe hca_object=1"],
        ),
        (json!({ "memory": { "useHierarchy": true } }), vec!["memory.use_hierarchy=1"], vec![]),
    ] {
        assert_eq!(writes(resources.clone(), &v1()), on_v1, "v1: {resources}");
        assert_eq!(writes(resources.clone(), &v2()), on_v2, "v2: {resources}");
    }
}

#[test]
fn what_only_v1_has_is_refused_on_v2() {
    for (resources, on_v1, at) in [
        (json!({ "memory": { "kernelTCP": 5 } }), "memory.kmem.tcp.limit_in_bytes=5", "memory.kernelTCP"),
        (json!({ "memory": { "swappiness": 0 } }), "memory.swappiness=0", "memory.swappiness"),
        (
            json!({ "memory": { "disableOOMKiller": true } }),
            "memory.oom_control=1",
            "memory.disableOOMKiller",
        ),
        (json!({ "memory": { "useHierarchy": false } }), "memory.use_hierarchy=0", "memory.useHierarchy"),
        (json!({ "cpu": { "realtimeRuntime": 9 } }), "cpu.rt_runtime_us=9", "cpu.realtimeRuntime"),
        (json!({ "cpu": { "realtimePeriod": 9 } }), "cpu.rt_period_us=9", "cpu.realtimePeriod"),
        (json!({ "blockIO": { "leafWeight": 10 } }), "blkio.leaf_weight=10", "blockIO.leafWeight"),
        (json!({ "network": { "classID": 1 } }), "net_cls.classid=1", "network.classID"),
        (
            json!({ "network": { "priorities": [{ "name": "eth0", "priority": 5 }] } }),
            "net_prio.ifpriomap=eth0 5",
            "network.priorities[0]",
        ),
    ] {
        assert_eq!(writes(resources.clone(), &v1()), [on_v1]);
        let e = run(resources, &v2()).unwrap_err().to_string();
        assert_eq!(e, format!("linux.resources.{at}: exists on cgroup v1 only"));
    }
}

#[test]
fn broken_rules_are_named() {
    for (resources, message) in [
        (json!({ "memory": { "limit": -2 } }), "memory.limit: -2 is below -1 (unlimited)"),
        (json!({ "memory": { "limit": 20, "swap": 10 } }), "memory.swap: 10 is below memory.limit 20"),
        (json!({ "memory": { "swap": 10 } }), "memory.swap: 10 needs a memory.limit below it"),
        (json!({ "memory": { "limit": -1, "swap": 10 } }), "memory.swap: 10 needs a memory.limit below it"),
        (
            json!({ "memory": { "limit": 5, "reservation": 6 } }),
            "memory.reservation: 6 is above memory.limit 5",
        ),
        (json!({ "memory": { "swappiness": 101 } }), "memory.swappiness: 101 is above 100"),
        (json!({ "cpu": { "quota": 999 } }), "cpu.quota: 999 is below 1000 microseconds"),
        (json!({ "cpu": { "period": 999 } }), "cpu.period: 999 is not in 1000-1000000 microseconds"),
        (json!({ "cpu": { "period": 1000001 } }), "cpu.period: 1000001 is not in 1000-1000000 microseconds"),
        (json!({ "cpu": { "quota": 1000, "burst": 1001 } }), "cpu.burst: 1001 is above cpu.quota 1000"),
        (json!({ "cpu": { "idle": 2 } }), "cpu.idle: 2 is neither 0 nor 1"),
        (json!({ "cpu": { "cpus": "3-1" } }), "cpu.cpus: \"3-1\" has the range 3-1, which runs backwards"),
        (
            json!({ "cpu": { "mems": "x" } }),
            "cpu.mems: \"x\" has \"x\", which is neither a number nor a range",
        ),
        (json!({ "blockIO": { "weight": 9 } }), "blockIO.weight: 9 is not in 10-1000"),
        (json!({ "blockIO": { "weight": 1001 } }), "blockIO.weight: 1001 is not in 10-1000"),
        (
            json!({ "blockIO": { "weightDevice": [{ "major": 8, "minor": 0 }] } }),
            "blockIO.weightDevice[0]: has neither weight nor leafWeight",
        ),
        (
            json!({ "blockIO": { "throttleReadBpsDevice": [{ "major": 8, "minor": 0 }] } }),
            "blockIO.throttleReadBpsDevice[0].rate: is required",
        ),
        (
            json!({ "blockIO": { "throttleReadIOPSDevice": [{ "minor": 0, "rate": 1 }] } }),
            "blockIO.throttleReadIOPSDevice[0].major: is required",
        ),
        (json!({ "pids": { "limit": -2 } }), "pids.limit: -2 is below -1 (unlimited)"),
        (
            json!({ "hugepageLimits": [{ "pageSize": "../2MB", "limit": 1 }] }),
            "hugepageLimits[0].pageSize: \"../2MB\" is not a size like 2MB",
        ),
        (json!({ "hugepageLimits": [{ "pageSize": "2MB" }] }), "hugepageLimits[0].limit: is required"),
        (json!({ "rdma": { "a": {} } }), "rdma[\"a\"]: has neither hcaHandles nor hcaObjects"),
        (json!({ "rdma": { "a\nb": { "hcaHandles": 1 } } }), "rdma[\"a\\nb\"]: is no name of a device"),
    ] {
        for h in [v1(), v2()] {
            let e = run(resources.clone(), &h).unwrap_err();
            assert_eq!(e.at + ": " + &e.what, format!("linux.resources.{message}"));
        }
    }
    let e = run(json!({ "cpu": { "shares": 1 } }), &v2()).unwrap_err().to_string();
    assert_eq!(e, "linux.resources.cpu.shares: 1 is not in 2-262144");
    assert_eq!(writes(json!({ "cpu": { "shares": 1 } }), &v1()), ["cpu.shares=1"]);
}

#[test]
fn a_missing_controller_matters_only_to_a_limit() {
    let mut h = v2();
    h.v2.as_mut().unwrap().controllers.retain(|c| c == "hugetlb");
    assert!(run(json!({ "memory": { "limit": 0 }, "pids": {} }), &h).is_ok());
    for (r, at, controller) in [
        (json!({ "memory": { "limit": 5 } }), "memory.limit", "memory"),
        (json!({ "pids": { "limit": 5 } }), "pids.limit", "pids"),
        (json!({ "cpu": { "cpus": "0" } }), "cpu.cpus", "cpuset"),
        (json!({ "blockIO": { "weight": 10 } }), "blockIO.weight", "io"),
        (json!({ "unified": { "memory.high": "1" } }), "unified[\"memory.high\"]", "memory"),
    ] {
        let e = run(r, &h).unwrap_err().to_string();
        let rule = format!("needs the cgroup controller {controller:?}, which this host does not have");
        assert_eq!(e, format!("linux.resources.{at}: {rule}"));
    }
}

#[test]
fn a_hybrid_host_has_each_controller_on_its_own_side() {
    let mut h = v1();
    h.v1.retain(|v| v.controllers[0] != "hugetlb" && v.controllers[0] != "devices");
    h.v2 = v2().v2;
    let r = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 1 }], "pids": { "limit": 3 } });
    let plan = run(r, &h).unwrap();
    let v2 = plan.v2.unwrap();
    assert_eq!(v2.writes[0].file, "hugetlb.2MB.max");
    assert!(v2.devices.is_some());
    assert_eq!(
        (v2.needed, v2.wanted),
        (vec![("hugetlb".into(), "linux.resources.hugepageLimits[0]".into())], vec![])
    );
    let pids = plan.v1.iter().find(|v| v.controllers == ["pids"]).unwrap();
    assert_eq!(pids.writes[0].value, "3");
}

#[test]
fn unified_keys_name_files_and_come_last() {
    let r = json!({ "unified": { "memory.high": "5", "io.max": "8:0 rbps=1\n8:16 rbps=2" }, "pids": { "limit": 3 } });
    assert_eq!(
        writes(r.clone(), &v2()),
        ["pids.max=3", "io.max=8:0 rbps=1", "io.max=8:16 rbps=2", "memory.high=5"]
    );
    assert!(run(r, &v1()).unwrap_err().to_string().contains("needs a host with cgroup v2 alone"));
    for key in [
        "",
        "memory",
        "../x",
        "memory/max",
        "memory..max",
        ".max",
        "memory.max\n",
        "cgroup.procs",
        "cgroup.kill",
        "cgroup.freeze",
    ] {
        let e = run(json!({ "unified": { key: "1" } }), &v2()).unwrap_err();
        assert_eq!(e.at, format!("linux.resources.unified[{key:?}]"));
    }
    assert_eq!(writes(json!({ "unified": { "cgroup.max.depth": "2" } }), &v2()), ["cgroup.max.depth=2"]);
}

#[test]
fn paths_start_at_the_root() {
    for (asked, is) in [
        (None, "/web"),
        (Some(""), "/web"),
        (Some("/a/b"), "/a/b"),
        (Some("a/b"), "/a/b"),
        (Some("//a/./b/"), "/a/b"),
        (Some("system.slice:orlop:web"), "/system.slice:orlop:web"),
    ] {
        assert_eq!(path(asked, "web").unwrap(), is, "{asked:?}");
    }
    for asked in ["/", ".", "/a/../b", "..", "/a\n", "/a\0", &"x".repeat(256)] {
        assert_eq!(path(Some(asked), "web").unwrap_err().at, "linux.cgroupsPath", "{asked:?}");
    }
}

#[test]
fn an_ordinary_user_stays_below_its_own_cgroup() {
    let r: config::Resources = serde_json::from_value(json!({ "pids": { "limit": 3 } })).unwrap();
    for (resources, asked, on_v1, on_v2) in [
        (None, None, "user/me/web", "user/me/web"),
        (None, Some("a/b"), "user/me/a/b", "user/me/a/b"),
        (None, Some("/a/b"), "a/b", "a/b"),
        // Controllers go only to cgroups beside our own, which has processes.
        (Some(&r), None, "user/me/web", "user/web"),
    ] {
        let p =
            |h: Hierarchies| plan(resources, asked, "web", &[], &h, Who::OrdinaryUser, &mut vec![]).unwrap();
        assert_eq!(p(v1()).v1[0].path, on_v1);
        assert_eq!(p(v2()).v2.unwrap().path, on_v2);
    }
}

#[test]
fn without_hierarchies_nothing_is_made_and_limits_are_warned_of() {
    let plan_of = |r: Value, warnings: &mut Vec<String>| {
        let r: config::Resources = serde_json::from_value(r).unwrap();
        plan(Some(&r), None, "web", &[], &Hierarchies::default(), Who::Root, warnings)
    };
    let mut warnings = vec![];
    let r = json!({
        "devices": [{ "allow": false }, { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "r" }],
        "memory": { "limit": 100, "swap": 0 }, "cpu": {}, "pids": { "limit": 3 },
        "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }], "unified": { "cgroup.max.depth": "1\n2", "io.max": "" },
    });
    let plan = plan_of(r, &mut warnings).unwrap();
    assert!(plan.v1.is_empty() && plan.v2.is_none());
    let of = |at: &str| format!("linux.resources.{at}: not applied, since no cgroup is used");
    let all =
        ["devices[1]", "memory.limit", "pids.limit", "hugepageLimits[0]", "unified[\"cgroup.max.depth\"]"];
    assert_eq!(warnings, all.map(of));
    // What is wrong is wrong everywhere.
    for (r, at) in [
        (json!({ "memory": { "limit": -2 } }), "memory.limit"),
        (json!({ "memory": { "limit": 9, "swap": 8 } }), "memory.swap"),
        (json!({ "cpu": { "cpus": "3-0" } }), "cpu.cpus"),
        (json!({ "pids": { "limit": -2 } }), "pids.limit"),
        (json!({ "blockIO": { "weight": 5 } }), "blockIO.weight"),
        (json!({ "devices": [{ "allow": true, "access": "x" }] }), "devices[0].access"),
        (json!({ "unified": { "cgroup.procs": "1" } }), "unified[\"cgroup.procs\"]"),
    ] {
        assert_eq!(plan_of(r, &mut vec![]).unwrap_err().at, format!("linux.resources.{at}"));
    }
}

#[test]
fn who_may_set_no_device_rules_does_without_those_of_engines() {
    let everything = json!({ "allow": false, "access": "rwm" });
    let allow =
        |access: &str| json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": access });
    let deny =
        |access: &str| json!({ "allow": false, "type": "c", "major": 1, "minor": 5, "access": access });
    for (rules, error) in [
        (json!([]), None),
        (json!([everything, allow("rwm"), allow("m"), allow("rw"), deny("m")]), None),
        (json!([everything, { "allow": true, "access": "rwm" }]), None),
        (json!([everything, allow("rm")]), Some("linux.resources.devices[1]")),
        (json!([{ "allow": true }, deny("w")]), Some("linux.resources.devices[1]")),
        (json!([{ "allow": false, "type": "b", "access": "rwm" }]), Some("linux.resources.devices[0]")),
    ] {
        let r: config::Resources = serde_json::from_value(json!({ "devices": rules })).unwrap();
        for (who, h) in [(Who::Nested, v1()), (Who::Nested, v2()), (Who::OrdinaryUser, v2())] {
            match (plan(Some(&r), None, "web", &[('c', 1, 3)], &h, who, &mut vec![]), error) {
                (Err(e), Some(at)) => {
                    assert_eq!((e.kind, e.at.as_str()), (crate::error::Kind::Unsupported, at))
                }
                (Ok(p), None) => {
                    assert!(p.v1.iter().all(|v| v.writes.is_empty()) && p.without_devices);
                    assert!(p.v2.is_none_or(|v| v.devices.is_none()));
                }
                (got, want) => panic!("{rules}: {got:?}, not {want:?}"),
            }
        }
        assert!(plan(Some(&r), None, "web", &[], &v2(), Who::Root, &mut vec![]).is_ok());
    }
}

#[test]
fn kernel_memory_is_warned_of() {
    let r: config::Resources = serde_json::from_value(json!({ "memory": { "kernel": 5 } })).unwrap();
    let mut warnings = vec![];
    plan(Some(&r), None, "web", &[], &v2(), Who::Root, &mut warnings).unwrap();
    assert!(warnings[0].starts_with("linux.resources.memory.kernel: ignored"));
}
