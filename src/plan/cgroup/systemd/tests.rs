//! Names of units, properties of limits, annotations.

use super::*;
use crate::plan::cgroup::{Hierarchies, Hierarchy, Unified};
use crate::plan::sample::{Sample, sample};
use crate::plan::{Plan, Request};
use serde_json::{Value as Json, json};

fn system() -> Manager {
    Manager { version: 257, ..Manager::default() }
}

fn users() -> Manager {
    Manager { user: true, control_group: "/user.slice/user-7.slice/user@7.service".into(), ..system() }
}

#[test]
fn paths_name_a_unit_in_a_slice() {
    for (path, unit, slice, cgroup) in [
        (None, "orlop-web.scope", "system.slice", "/system.slice/orlop-web.scope"),
        (Some(""), "orlop-web.scope", "system.slice", "/system.slice/orlop-web.scope"),
        (Some("machine.slice:libpod:x"), "libpod-x.scope", "machine.slice", "/machine.slice/libpod-x.scope"),
        (Some(":p:x"), "p-x.scope", "system.slice", "/system.slice/p-x.scope"),
        (Some("::x"), "-x.scope", "system.slice", "/system.slice/-x.scope"), // as in runc
        (Some("a-b-c.slice:p:x"), "p-x.scope", "a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice/p-x.scope"),
        (Some("-.slice:p:x"), "p-x.scope", "-.slice", "/p-x.scope"),
        (Some("-:p:x"), "p-x.scope", "-.slice", "/p-x.scope"),
        (Some("a.slice:p:a-b.slice"), "a-b.slice", "a.slice", "/a.slice/a-b.slice"),
        (Some("-:p:b.slice"), "b.slice", "-.slice", "/b.slice"),
        (Some("cpu.slice:p:x"), "p-x.scope", "cpu.slice", "/_cpu.slice/p-x.scope"),
        (Some(":_p:x"), "_p-x.scope", "system.slice", "/system.slice/__p-x.scope"),
    ] {
        let place = place(path, "web", &system()).unwrap();
        assert_eq!((place.unit.as_str(), place.slice.as_str(), place.path.as_str()), (unit, slice, cgroup));
    }
    let place = place(Some(":p:x"), "web", &users()).unwrap();
    assert_eq!(place.slice, "user.slice");
    assert_eq!(place.path, "/user.slice/user-7.slice/user@7.service/user.slice/p-x.scope");
}

#[test]
fn bad_names_are_refused() {
    let long = "x".repeat(250);
    for (path, message) in [
        ("/a/b", "\"/a/b\" is not slice:prefix:name, as systemd's cgroups need it"),
        ("a.slice:b", "\"a.slice:b\" is not slice:prefix:name, as systemd's cgroups need it"),
        ("a.slice:b:c:d", "\"a.slice:b:c:d\" is not slice:prefix:name, as systemd's cgroups need it"),
        ("a.slice:b:", "\"a.slice:b:\" has no name after the last colon"),
        ("a:b:c", "the slice \"a\" does not end in .slice"),
        (".slice:b:c", "the slice \".slice\" has an empty part between its dashes"),
        ("a--b.slice:b:c", "the slice \"a--b.slice\" has an empty part between its dashes"),
        ("-a.slice:b:c", "the slice \"-a.slice\" has an empty part between its dashes"),
        ("a/b.slice:b:c", "'/' may not be in the name of the unit \"a/b.slice\""),
        ("a.slice:b:../c", "'/' may not be in the name of the unit \"b-../c.scope\""),
        ("a.slice:b:c d", "' ' may not be in the name of the unit \"b-c d.scope\""),
        (
            "a.slice:p:b-c.slice",
            "\"a.slice:p:b-c.slice\": the slice \"b-c.slice\" can only be in \"b.slice\"",
        ),
        ("a.slice:p:b.slice", "\"a.slice:p:b.slice\": the slice \"b.slice\" can only be in \"-.slice\""),
    ] {
        assert_eq!(place(Some(path), "web", &system()).unwrap_err().to_string(), format!("{AT}: {message}"));
    }
    let e = place(Some(&format!(":p:{long}")), "web", &system()).unwrap_err().to_string();
    assert!(e.ends_with("has a name of more than 255 bytes"), "{e}");
}

fn v2() -> Hierarchies {
    let controllers = ["cpu", "cpuset", "memory", "io", "pids", "hugetlb"].map(String::from).into();
    Hierarchies { v1: vec![], v2: Some(Unified { mount: "/cg".into(), controllers, own: "/".into() }) }
}

fn v1() -> Hierarchies {
    let lists = ["cpu,cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "name=systemd"];
    let one = |l: &str| Hierarchy {
        mount: format!("/cg/{l}"),
        controllers: l.split(',').map(String::from).collect(),
        own: "/".into(),
    };
    Hierarchies { v1: lists.map(one).into(), v2: None }
}

fn made(sample: &Sample) -> Result<Plan> {
    let config = serde_json::from_value(sample.config.clone()).unwrap();
    let request = Request { dir: "/run/orlop/web".into(), ..sample.request.clone() };
    Plan::for_create(&config, &sample.host, &request)
}

fn of(sample: Sample, h: Hierarchies, manager: Manager) -> Result<Unit> {
    let nested = manager.user;
    let sample = sample.host(|f| (f.cgroups, f.systemd, f.nested) = (h, Some(manager), nested));
    made(&sample).map(|p| p.cgroup.unit.unwrap())
}

fn limited(resources: Json) -> Sample {
    sample().set("/linux/resources", resources)
}

/// `NAME=VALUE` of these.
fn shown(unit: &Unit, names: &[&str]) -> Vec<String> {
    let show = |v: &Value| match v {
        Value::U64(u64::MAX) => "infinity".into(),
        Value::U64(n) => n.to_string(),
        Value::Str(s) => s.clone(),
        Value::Array(_, list) => {
            format!("{:?}", list.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(" "))
        }
        other => format!("{other:?}"),
    };
    let one = |name: &&str| {
        let all: Vec<_> = unit.properties.iter().filter(|p| p.name == **name).collect();
        assert!(all.len() < 2, "{name} twice");
        all.first().map(|p| format!("{name}={}", show(&p.value)))
    };
    names.iter().filter_map(one).collect()
}

const LIMITS: [&str; 20] = [
    "MemoryMax",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMin",
    "MemorySwapMax",
    "MemoryLimit",
    "CPUWeight",
    "CPUShares",
    "CPUQuotaPeriodUSec",
    "CPUQuotaPerSecUSec",
    "AllowedCPUs",
    "AllowedMemoryNodes",
    "IOWeight",
    "BlockIOWeight",
    "TasksMax",
    "OOMPolicy",
    "MemoryZSwapMax",
    "StartupCPUWeight",
    "IOReadBandwidthMax",
    "CPUQuota",
];

#[test]
fn limits_become_properties() {
    let bits = |list: &[u8]| {
        let bytes: Vec<_> = list.iter().map(|b| format!("Byte({b})")).collect();
        format!("{:?}", bytes.join(" "))
    };
    for (resources, on_v1, on_v2) in [
        (json!({}), vec![], vec![]),
        (
            json!({ "memory": { "limit": 100, "swap": 300, "reservation": 50 } }),
            vec!["MemoryLimit=100"],
            vec!["MemoryMax=100", "MemoryLow=50", "MemorySwapMax=200"],
        ),
        (
            json!({ "memory": { "limit": -1, "swap": -1 } }),
            vec!["MemoryLimit=infinity"],
            vec!["MemoryMax=infinity", "MemorySwapMax=infinity"],
        ),
        (json!({ "cpu": { "shares": 512 } }), vec!["CPUShares=512"], vec!["CPUWeight=59"]),
        (
            json!({ "cpu": { "quota": 50000, "period": 200000 } }),
            vec!["CPUQuotaPeriodUSec=200000", "CPUQuotaPerSecUSec=250000"],
            vec!["CPUQuotaPeriodUSec=200000", "CPUQuotaPerSecUSec=250000"],
        ),
        // A percent is the least that systemd keeps.
        (
            json!({ "cpu": { "quota": 12345 } }),
            vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=130000"],
            vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=130000"],
        ),
        (
            json!({ "cpu": { "quota": -1 } }),
            vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"],
            vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"],
        ),
        (json!({ "pids": { "limit": 7 } }), vec!["TasksMax=7"], vec!["TasksMax=7"]),
        (json!({ "pids": { "limit": 0 } }), vec!["TasksMax=1"], vec!["TasksMax=1"]),
        (json!({ "pids": { "limit": -1 } }), vec!["TasksMax=infinity"], vec!["TasksMax=infinity"]),
        (json!({ "blockIO": { "weight": 1000 } }), vec!["BlockIOWeight=1000"], vec!["IOWeight=10000"]),
        (
            json!({ "cpu": { "cpus": "0-2,9", "mems": "0" } }),
            vec![&*format!("AllowedCPUs={}", bits(&[7, 2])), &*format!("AllowedMemoryNodes={}", bits(&[1]))],
            vec![&*format!("AllowedCPUs={}", bits(&[7, 2])), &*format!("AllowedMemoryNodes={}", bits(&[1]))],
        ),
    ] {
        for (h, expected) in [(v1(), on_v1), (v2(), on_v2)] {
            let unit = of(limited(resources.clone()), h, system()).unwrap();
            assert_eq!(shown(&unit, &LIMITS), expected, "{resources}");
        }
    }
}

#[test]
fn unified_becomes_properties_where_there_are_some() {
    for (file, value, expected) in [
        ("memory.high", "100", vec!["MemoryHigh=100"]),
        ("memory.min", "max", vec!["MemoryMin=infinity"]),
        ("memory.oom.group", "1", vec!["OOMPolicy=kill"]),
        ("memory.oom.group", "0", vec!["OOMPolicy=continue"]),
        ("cpu.weight", "7", vec!["CPUWeight=7"]),
        ("cpu.idle", "1", vec!["CPUWeight=0"]),
        ("cpu.max", "max", vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=infinity"]),
        ("cpu.max", "1000 1000", vec!["CPUQuotaPeriodUSec=1000", "CPUQuotaPerSecUSec=1000000"]),
        ("cpu.max", "nonsense", vec![]), // the kernel refuses it
        ("io.weight", "default 50", vec!["IOWeight=50"]),
        ("pids.max", "max", vec!["TasksMax=infinity"]),
        ("hugetlb.2MB.max", "0", vec![]),
    ] {
        let unit = of(limited(json!({ "unified": { file: value } })), v2(), system()).unwrap();
        assert_eq!(shown(&unit, &LIMITS), expected, "{file} {value}");
    }
    // Of a value and its like in unified the last write counts, as in the file.
    let both = json!({ "memory": { "limit": 100 }, "unified": { "memory.max": "200" } });
    assert_eq!(shown(&of(limited(both), v2(), system()).unwrap(), &LIMITS), ["MemoryMax=200"]);
}

#[test]
fn an_old_systemd_is_asked_for_what_it_knows() {
    let r = json!({ "cpu": { "quota": 50000, "cpus": "0", "idle": 1 } });
    for (version, expected) in [
        (241, vec!["CPUQuotaPerSecUSec=500000"]),
        (243, vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=500000"]),
        (251, vec!["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=500000", "AllowedCPUs=\"Byte(1)\""]),
        (
            252,
            vec![
                "CPUWeight=0",
                "CPUQuotaPeriodUSec=100000",
                "CPUQuotaPerSecUSec=500000",
                "AllowedCPUs=\"Byte(1)\"",
            ],
        ),
    ] {
        let unit = of(limited(r.clone()), v2(), Manager { version, ..system() }).unwrap();
        assert_eq!(shown(&unit, &LIMITS), expected, "{version}");
    }
}

#[test]
fn a_unit_is_delegated_and_counted() {
    const NAMES: [&str; 11] = [
        "Description",
        "DefaultDependencies",
        "CollectMode",
        "Slice",
        "Wants",
        "Delegate",
        "MemoryAccounting",
        "CPUAccounting",
        "IOAccounting",
        "BlockIOAccounting",
        "TasksAccounting",
    ];
    let scope = of(sample(), v2(), system()).unwrap();
    let expected = [
        "Description=container web, on record in /run/orlop/web",
        "DefaultDependencies=Bool(false)",
        "CollectMode=inactive-or-failed",
        "Slice=system.slice",
        "Delegate=Bool(true)",
        "MemoryAccounting=Bool(true)",
        "CPUAccounting=Bool(true)",
        "IOAccounting=Bool(true)",
        "TasksAccounting=Bool(true)",
    ];
    assert_eq!(shown(&scope, &NAMES), expected);
    let path = json!("a.slice:p:a-b.slice");
    let slice = of(sample().set("/linux/cgroupsPath", path), v1(), system()).unwrap();
    assert_eq!(
        shown(&slice, &["Slice", "Wants", "Delegate", "BlockIOAccounting"]),
        ["Wants=\"Str(\\\"a.slice\\\")\"", "BlockIOAccounting=Bool(true)"]
    );
}

#[test]
fn device_rules_become_a_list_of_what_is_allowed() {
    let rules = |list: Json| limited(json!({ "devices": list }));
    let deny = json!({ "allow": false, "access": "rwm" });
    let allow = json!({ "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" });
    for h in [v1(), v2()] {
        let unit = of(rules(json!([deny, allow])), h.clone(), system()).unwrap();
        assert_eq!(shown(&unit, &["DevicePolicy"]), ["DevicePolicy=strict"]);
        let list = &unit.properties.iter().find(|p| p.name == "DeviceAllow").unwrap().value;
        for entry in [("/dev/char/10:229", "rw"), ("char-*", "m"), ("block-*", "m"), ("char-136", "rwm")] {
            let entry = Value::Struct(vec![Value::Str(entry.0.into()), Value::Str(entry.1.into())]);
            assert!(matches!(list, Value::Array(_, l) if l.contains(&entry)), "{entry:?} is not in {list:?}");
        }
        // What all but some are refused of, or a list cannot say, is systemd's business in no way.
        let all = json!({ "allow": true, "access": "rwm" });
        let odd = json!({ "allow": true, "type": "c", "minor": 3, "access": "rw" });
        for list in [json!([all]), json!([deny, odd])] {
            assert!(shown(&of(rules(list), h.clone(), system()).unwrap(), &["DevicePolicy"]).is_empty());
        }
        // Only the root of the host may set some.
        let users = of(rules(json!([deny, allow])), h, users()).unwrap();
        assert!(shown(&users, &["DevicePolicy"]).is_empty());
    }
}

#[test]
fn annotations_are_properties_too() {
    let with = |key: &str, value: &str| {
        let annotations = json!({ format!("{ANNOTATION}{key}"): value, "other": "1" });
        of(sample().set("/annotations", annotations), v2(), system())
    };
    for (key, value, name, expected) in [
        ("CollectMode", "'inactive'", "CollectMode", Value::Str("inactive".into())),
        ("TimeoutStopUSec", "uint64 5", "TimeoutStopUSec", Value::U64(5)),
        ("TimeoutStopSec", "5", "TimeoutStopUSec", Value::U64(5_000_000)),
        ("TimeoutStopSec", "1.5", "TimeoutStopUSec", Value::U64(1_500_000)),
        ("DefaultDependencies", "true", "DefaultDependencies", Value::Bool(true)),
        ("After", "['a.service']", "After", Value::strings(&["a.service"])),
    ] {
        let unit = with(key, value).unwrap();
        let all: Vec<_> = unit.properties.iter().filter(|p| p.name == name).collect();
        assert_eq!(all.iter().map(|p| &p.value).collect::<Vec<_>>(), [&expected], "{key}");
    }
    // It stays known by whatever its description is, and no other is taken for it.
    let mine = "mine (container web, on record in /run/orlop/web)";
    assert_eq!(with("Description", "'mine'").unwrap().description, mine);
    for (key, value, message) in [
        ("X", "1", "\"X\" is no name of a property: three letters or more, and nothing else"),
        (
            "Memory.Max",
            "1",
            "\"Memory.Max\" is no name of a property: three letters or more, and nothing else",
        ),
        ("", "1", "\"\" is no name of a property: three letters or more, and nothing else"),
        ("TimeoutStopSec", "'5'", "\"'5'\" is no number of seconds"),
        ("TimeoutStopSec", "-5", "\"-5\" is no number of seconds"),
        (
            "After",
            "a.service",
            "\"a.service\" is no value in GVariant's text format: expected a value of the type at byte 0",
        ),
    ] {
        let e = with(key, value).unwrap_err().to_string();
        assert_eq!(e, format!("annotations[{:?}]: {message}", format!("{ANNOTATION}{key}")));
    }
}

#[test]
fn limits_are_written_below_the_unit_and_init_asks_for_it_first() {
    use crate::plan::step::{Act, Ask};
    let asks = |h: Hierarchies, manager: Option<Manager>| {
        let sample =
            limited(json!({ "pids": { "limit": 7 } })).host(|f| (f.cgroups, f.systemd) = (h, manager));
        made(&sample).unwrap()
    };
    let plan = asks(v2(), Some(system()));
    assert_eq!(plan.cgroup.v2.as_ref().unwrap().path, "system.slice/orlop-web.scope");
    let at = |act: &Act| plan.steps.iter().position(|s| s.act == *act).unwrap();
    assert!(at(&Act::Ask(Ask::Unit)) < at(&Act::JoinCgroups));
    let plan = asks(v1(), Some(system()));
    assert!(plan.cgroup.v1.iter().all(|v| v.path == "system.slice/orlop-web.scope"));
    assert!(asks(v2(), None).steps.iter().all(|s| s.act != Act::Ask(Ask::Unit)));
}

#[test]
fn controllers_that_systemd_manages_on_v1() {
    let made: Vec<_> = v1().v1.iter().filter(|h| makes(&h.controllers)).map(|h| h.mount.clone()).collect();
    assert_eq!(
        made,
        ["cpu,cpuacct", "memory", "devices", "blkio", "pids", "name=systemd"].map(|c| format!("/cg/{c}"))
    );
}
