//! update: every flag and both forms of JSON, against the kernel's cgroupfs of either version and against runc.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;
#[path = "support/update.rs"]
mod verb;

use cgroups::{DEVICES, all_cpus, is_unified, read, settings, sleeping, within};
use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};
use support::{Bundle, Outcome, cgroups_named, finish, skip, unique, until};
use verb::{has, limits, running, update, update_by};

/// A flag with its value, and what it leaves where on v1 and on v2.
const FLAGS: &[(&str, &[&str], &[&str])] = &[
    ("--memory 100663296", &["memory memory.limit_in_bytes=100663296"], &["memory memory.max=100663296"]),
    ("--memory=64M", &["memory memory.limit_in_bytes=67108864"], &["memory memory.max=67108864"]),
    (
        "--memory-reservation 16m",
        &["memory memory.soft_limit_in_bytes=16777216"],
        &["memory memory.low=16777216"],
    ),
    (
        "--memory-swap 256M",
        &["memory memory.memsw.limit_in_bytes=268435456"],
        &["memory memory.swap.max=201326592"],
    ),
    (
        "--memory-swap -1",
        &["memory memory.memsw.limit_in_bytes=9223372036854771712"],
        &["memory memory.swap.max=max"],
    ),
    ("--memory-swap=64MiB", &["memory memory.memsw.limit_in_bytes=67108864"], &["memory memory.swap.max=0"]),
    (
        "--memory=-1",
        &[
            "memory memory.limit_in_bytes=9223372036854771712",
            "memory memory.memsw.limit_in_bytes=9223372036854771712",
        ],
        &["memory memory.max=max", "memory memory.swap.max=max"],
    ),
    (
        "--memory 64M --memory-swap 128M --memory-reservation -1",
        &[
            "memory memory.limit_in_bytes=67108864",
            "memory memory.memsw.limit_in_bytes=134217728",
            "memory memory.soft_limit_in_bytes=9223372036854771712",
        ],
        &["memory memory.max=67108864", "memory memory.swap.max=67108864", "memory memory.low=max"],
    ),
    ("--cpu-share 262144", &["cpu cpu.shares=262144"], &["cpu cpu.weight=10000"]),
    (
        "--cpu-period 200000",
        &["cpu cpu.cfs_period_us=200000", "cpu cpu.cfs_quota_us=50000"],
        &["cpu cpu.max=50000 200000"],
    ),
    (
        "--cpu-quota 40000",
        &["cpu cpu.cfs_period_us=200000", "cpu cpu.cfs_quota_us=40000"],
        &["cpu cpu.max=40000 200000"],
    ),
    ("--cpu-burst 5000", &["cpu cpu.cfs_burst_us=5000"], &["cpu cpu.max.burst=5000"]),
    (
        "--cpu-quota=-1",
        &["cpu cpu.cfs_period_us=200000", "cpu cpu.cfs_quota_us=-1"],
        &["cpu cpu.max=max 200000"],
    ),
    (
        "--cpu-quota 5000 --cpu-period 10000 --cpu-burst 0",
        &["cpu cpu.cfs_period_us=10000", "cpu cpu.cfs_quota_us=5000", "cpu cpu.cfs_burst_us=0"],
        &["cpu cpu.max=5000 10000", "cpu cpu.max.burst=0"],
    ),
    ("--cpu-idle 1", &["cpu cpu.idle=1"], &["cpu cpu.idle=1"]),
    (
        "--cpu-idle 0 --cpu-share 1024",
        &["cpu cpu.idle=0", "cpu cpu.shares=1024"],
        &["cpu cpu.idle=0", "cpu cpu.weight=100"],
    ),
    ("--cpu-share 2048 --cpu-idle 1", &["cpu cpu.idle=1"], &["cpu cpu.idle=1"]),
    ("--cpu-idle 0", &["cpu cpu.idle=0", "cpu cpu.shares=1024"], &["cpu cpu.idle=0", "cpu cpu.weight=100"]),
    ("--cpuset-cpus 0", &["cpuset cpuset.cpus=0"], &["cpuset cpuset.cpus=0"]),
    (
        "--cpuset-cpus ALL --cpuset-mems 0",
        &["cpuset cpuset.cpus=ALL", "cpuset cpuset.mems=0"],
        &["cpuset cpuset.cpus=ALL", "cpuset cpuset.mems=0"],
    ),
    ("--pids-limit 55", &["pids pids.max=55"], &["pids pids.max=55"]),
    ("--pids-limit 0", &["pids pids.max=55"], &["pids pids.max=55"]),
    ("--pids-limit -1", &["pids pids.max=max"], &["pids pids.max=max"]),
];

#[test]
fn every_flag_is_in_force_at_once() {
    needs_controllers!("memory", "cpu", "cpuset", "pids");
    let b = running(limits());
    let file = |v: &str| v.split(['=', ' ']).nth(1).unwrap().to_string();
    let cpus = all_cpus();
    for (flags, on_v1, on_v2) in FLAGS {
        let before = settings(&b.id);
        let flags = flags.replace("ALL", &cpus);
        let out = update(&b, &flags.split(' ').collect::<Vec<_>>());
        let expected = if is_unified() { on_v2 } else { on_v1 };
        let expected: Vec<_> = expected.iter().map(|v| v.replace("ALL", &cpus)).collect();
        // What the kernel has not is 0: bursts before Linux 5.14, and cpu.idle before 5.15.
        let (expected, absent): (Vec<&str>, Vec<&str>) = expected
            .iter()
            .map(String::as_str)
            .partition(|v| !v.starts_with("cpu ") || cgroups::dir("cpu", &b.id).join(file(v)).exists());
        if let Some(set) = absent.iter().find(|v| !v.ends_with("=0")) {
            let (flag, value) = (
                if set.contains("idle") { "--cpu-idle" } else { "--cpu-burst" },
                set.split_once('=').unwrap().1,
            );
            out.fails(&format!(
                "{flag}: write \"{value}\" to {}: no such file or directory; this kernel has no such limit",
                file(set)
            ));
            assert_eq!(before, settings(&b.id), "{flags}");
            continue;
        }
        let out = out.ok();
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""), "{flags}");
        has(&b, &expected, &flags);
        let files: Vec<_> = expected.iter().map(|v| file(v)).collect();
        for (file, value) in settings(&b.id) {
            let name = file.rsplit_once(": ").unwrap().1;
            // What an idle cgroup weighs is the kernel's decision.
            let follows = flags.contains("idle")
                && ["cpu.shares", "cpu.weight", "cpu.weight.nice"].contains(&name)
                || flags.contains("share") && name == "cpu.weight.nice";
            if !files.iter().any(|f| f == name) && !follows {
                assert_eq!(before.get(&file), Some(&value), "{file} after {flags}");
            }
        }
    }
}

/// The same bundle in Debian's runc, its program running.
struct Theirs<'a> {
    b: &'a Bundle,
    id: String,
}

impl Theirs<'_> {
    /// Both are of one bundle: without a path runc begins at its own cgroup.
    fn new(b: &mut Bundle) -> Theirs<'_> {
        let id = format!("{}-runc", b.id);
        b.config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        b.write();
        let theirs = Theirs { b, id };
        theirs.run(&["create", "--bundle", theirs.b.path().to_str().unwrap()], None).ok();
        theirs.run(&["start"], None).ok();
        theirs
    }

    fn run(&self, args: &[&str], stdin: Option<&std::path::Path>) -> Outcome {
        let mut c = Command::new("runc");
        c.arg("--root").arg(self.b.path().join("runc-state")).args(args).arg(&self.id);
        finish(c.stdin(stdin.map_or(Stdio::null(), |f| fs::File::open(f).expect("open").into())))
    }
}

/// What engines send, and what users type: flags, or a document.
const STEPS: &[&str] = &[
    // Docker 20.10: docker update --memory 96M --memory-swap 192M
    r#"{"memory":{"limit":100663296,"reservation":0,"swap":201326592,"kernel":0},"cpu":{"shares":0,"quota":0,"period":0,"cpus":"","mems":""},"blockIO":{"weight":0}}"#,
    // … --cpus 1.5
    r#"{"memory":{"limit":0,"reservation":0,"kernel":0},"cpu":{"shares":0,"quota":150000,"period":100000},"blockIO":{"weight":0}}"#,
    // … --pids-limit 0
    r#"{"memory":{"limit":0,"reservation":0,"kernel":0},"cpu":{"shares":0,"quota":0,"period":0},"pids":{"limit":-1},"blockIO":{"weight":0}}"#,
    // Docker 26
    r#"{"memory":{"limit":67108864,"swap":134217728},"cpu":{},"pids":{"limit":88}}"#,
    r#"{"memory":{"reservation":16777216},"cpu":{"quota":50000,"period":200000,"cpus":"0"}}"#,
    // The CRI: the container's whole resources
    r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":83886080,"swap":83886080},"cpu":{"shares":262144,"quota":20000,"period":100000,"cpus":"ALL","mems":"0"}}"#,
    r#"{"pids":{"limit":0}}"#,
    r#"{"memory":{"limit":-1}}"#,
    r#"{"memory":{"limit":67108864,"swap":67108864}}"#,
    r#"{"memory":{"limit":134217728,"swap":-1}}"#,
    r#"{"memory":{"limit":67108864,"swap":134217728}}"#,
    r#"{}"#,
    "--memory 32M --memory-swap 48M",
    "--memory 128M --memory-swap 129M",
    "--memory 1G --memory-swap 2G",
    "--memory-swap -1",
    "--memory -1 --memory-swap -1",
    "--memory 64M --memory-swap 64M",
    "--memory -1",
    "--memory 0 --memory-swap 0 --cpu-share 0 --cpu-period 0 --cpu-quota 0 --pids-limit 0",
    "--cpu-period 10000 --cpu-quota 5000",
    "--cpu-period 1000000 --cpu-quota 1000000",
    "--cpu-period 50000 --cpu-quota -1",
    "--cpu-quota 25000 --cpu-period 100000",
    "--cpu-share 262144 --cpuset-cpus 0 --cpuset-mems 0",
    "--pids-limit 12",
    "--pids-limit -1",
];

#[test]
fn every_file_has_what_runc_writes_for_the_same_update() {
    needs_controllers!("memory", "cpu", "cpuset", "pids");
    needs_program!("runc");
    // Only the ends of the scale are weights of the same value to every runc.
    let mut b =
        sleeping().set("/linux/resources", limits()).set("/linux/resources/cpu/shares", json!(262_144));
    b.create().ok();
    b.start().ok();
    let theirs = Theirs::new(&mut b);
    let document = theirs.b.path().join("document");
    for step in STEPS {
        let step = step.replace("ALL", &all_cpus());
        if step.starts_with('{') {
            fs::write(&document, &step).expect("write");
            theirs.run(&["update", "--resources", "-"], Some(&document)).ok();
            update_by(theirs.b, &serde_json::from_str(&step).expect("JSON")).ok();
        } else {
            let flags: Vec<_> = step.split(' ').collect();
            theirs.run(&[&["update"], flags.as_slice()].concat(), None).ok();
            update(theirs.b, &flags).ok();
        }
        let (ours, runcs) = (settings(&theirs.b.id), settings(&theirs.id));
        // runc of that age has no cgroup in a hybrid host's v2 hierarchy.
        for (file, value) in runcs.iter().filter(|(f, _)| !f.contains("/unified")) {
            assert_eq!(ours.get(file), Some(value), "{file} after {step}");
        }
        assert!(runcs.len() > 30, "{runcs:?}");
    }
}

#[test]
fn resources_come_from_a_file_and_from_standard_input_and_flags_are_ignored_then() {
    needs_controllers!("pids");
    let b = running(json!({}));
    let file = b.path().join("resources");
    let path = file.to_str().expect("UTF-8");
    let with = format!("--resources={path}");
    let forms: [&[&str]; 6] = [
        &["--resources", path],
        &[&with, "--pids-limit", "5"],
        &["-r", path, "--kernel-memory", "7"],
        &["--resources", "-"],
        &["--resources=-"],
        &["-r", "-", "--pids-limit=5"],
    ];
    for (n, form) in forms.iter().enumerate() {
        fs::write(&file, json!({ "pids": { "limit": 100 + n } }).to_string()).expect("write");
        let mut c = b.orlop(["update"].iter().chain(*form).copied().chain([b.id.as_str()]));
        finish(c.stdin(fs::File::open(&file).expect("open"))).ok();
        assert_eq!(read("pids", &b.id, "pids.max"), (100 + n).to_string(), "{form:?}");
    }
    for (text, message) in [
        ("", "--resources: EOF while parsing a value at line 1 column 0"),
        ("{", "--resources: EOF while parsing an object at line 1 column 1"),
        ("[]", "--resources: invalid type: sequence, expected an object"),
        (
            r#"{"memory":{"limit":"1G"}}"#,
            "--resources: memory.limit: invalid type: string \"1G\", expected i64",
        ),
        (r#"{"memory":{"limit":-2}}"#, "linux.resources.memory.limit: -2 is below -1 (unlimited)"),
        (r#"{"pids":{"limit":7}} {}"#, "--resources: has more behind the document's end"),
    ] {
        fs::write(&file, text).expect("write");
        update(&b, &["--resources", path]).fails(message);
        assert_eq!(read("pids", &b.id, "pids.max"), "105");
    }
    update(&b, &["--resources", "/nonexistent"])
        .fails("--resources: open \"/nonexistent\": no such file or directory");
    // Flags of old callers.
    let out = update(&b, &["--kernel-memory", "50M", "--kernel-memory-tcp", "-1", "--pids-limit", "9"]).ok();
    for flag in ["--kernel-memory", "--kernel-memory-tcp"] {
        assert!(out.stderr.contains(&format!("{flag}: ignored, ")), "{}", out.stderr);
    }
    assert_eq!(read("pids", &b.id, "pids.max"), "9");
}

#[test]
fn a_container_is_updated_in_each_status_but_not_when_it_is_stopped() {
    needs_controllers!("pids", "freezer");
    let b = sleeping();
    update(&b, &["--pids-limit", "5"]).fails("container does not exist");
    b.create().ok();
    update(&b, &["--pids-limit", "11"]).ok();
    has(&b, &["pids pids.max=11"], "created");
    b.start().ok();
    update(&b, &["--pids-limit", "12"]).ok();
    has(&b, &["pids pids.max=12"], "running");
    b.verb("pause", &[]).ok();
    update(&b, &["--pids-limit", "13"]).ok();
    has(&b, &["pids pids.max=13"], "paused");
    assert_eq!(b.state()["status"], "paused");
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
    update(&b, &["--pids-limit", "14"]).fails("container not running: cannot update a stopped container");
}

#[test]
fn a_container_without_a_cgroup_is_not_updated() {
    needs_root!();
    let b = sleeping();
    b.write();
    let mut create = b.orlop(["--cgroup-manager=disabled", "create", "--bundle"]);
    finish(create.arg(b.path()).arg(&b.id)).ok();
    update(&b, &["--pids-limit", "5"]).fails("cannot be updated: it has no cgroup");
}

#[test]
fn devices_are_the_same_before_and_after() {
    needs_controllers!("memory", "devices");
    let caps = json!(["CAP_MKNOD"]);
    let script = format!(
        "look() {{ ({DEVICES}) > /tmp/$1; rm -f /dev/x*; echo > /tmp/$1.done; }}; look a; \
         while [ ! -e /tmp/go ]; do sleep 0.02; done; look b; sleep 1000"
    );
    for rules in [
        json!([{ "allow": false, "access": "rwm" }]),
        json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "r" }]),
        json!([{ "allow": true, "access": "rwm" }]),
    ] {
        let b = Bundle::new()
            .sh(&script)
            .set("/root/readonly", json!(false))
            .set("/linux/resources/devices", rules);
        let b = b.set("/process/capabilities/bounding", caps.clone());
        let b = b.set("/process/capabilities/effective", caps.clone());
        let b = b.set("/process/capabilities/permitted", caps.clone());
        b.create().ok();
        b.start().ok();
        let tmp = b.rootfs().join("tmp");
        until("it has looked", || tmp.join("a.done").exists());
        for sent in [
            json!([{ "allow": false, "access": "rwm" }]),
            json!([{ "allow": true, "access": "rwm" }]),
            json!([]),
        ] {
            let limit = 64 << 20;
            update_by(&b, &json!({ "devices": sent, "memory": { "limit": limit } })).ok();
        }
        update(&b, &["--pids-limit", "500"]).ok();
        fs::write(tmp.join("go"), "").expect("write");
        until("it has looked again", || tmp.join("b.done").exists());
        let seen = ["a", "b"].map(|f| fs::read_to_string(tmp.join(f)).expect("it looked"));
        assert!(seen[0].contains("passed write null") && seen[0].contains("mknod loop"), "{}", seen[0]);
        assert_eq!(seen[0], seen[1]);
    }
}

#[test]
fn huge_pages_are_limited_though_their_controller_was_not_handed_down() {
    needs_root!();
    let v2 = if is_unified() { "" } else { "unified" };
    let root = std::path::Path::new(cgroups::ROOT).join(v2);
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    if !controllers.contains("hugetlb")
        || !std::path::Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists()
    {
        skip("needs huge pages, and cgroup v2 to limit them");
        return;
    }
    let name = format!("orlop-test-{}", unique());
    let b = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/a/b")));
    b.create().ok();
    let limit = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    update_by(&b, &json!({ "hugepageLimits": limit })).ok();
    for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        let value = fs::read_to_string(root.join(&name).join("a/b").join(file)).expect("it is there");
        assert_eq!(value.trim(), "4194304", "{file}");
    }
    update_by(&b, &json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 0 }] }))
        .fails("linux.resources.hugepageLimits[0]: write \"0\" to hugetlb.3MB.max: no such file or directory; this host has ");
    b.delete().ok();
    assert!(cgroups_named(&name).is_empty());
}

#[test]
fn a_limit_of_a_controller_that_is_nowhere_is_refused() {
    needs_version!(1);
    let b = sleeping();
    b.write();
    let run = |args: &[&str]| {
        // A v2 hierarchy that has not the memory controller.
        let mut c = within(Some("mount -t cgroup2 none /sys/fs/cgroup"));
        finish(c.arg("--root").arg(b.state_root()).args(args))
    };
    let made = run(&["create", "--bundle", b.path().to_str().unwrap(), &b.id]);
    if !made.status.success() {
        skip("needs a mounted v2 hierarchy");
        return;
    }
    let message = "--memory: needs the cgroup controller \"memory\", which this host does not have";
    let out = run(&["update", "--memory", "64M", &b.id]);
    run(&["delete", "--force", &b.id]).ok(); // first: its cgroup is nowhere in the usual view
    out.fails(message);
}

#[test]
fn a_new_limit_binds_the_program() {
    needs_controllers!("pids");
    let script = "while [ ! -e /tmp/go ]; do read -t 1 x; done < /dev/zero; (true) && echo forked > /tmp/out || echo refused > /tmp/out; read x";
    let b = Bundle::new().sh(script).set("/root/readonly", json!(false));
    let b = b.set("/linux/resources/pids", json!({ "limit": 5 }));
    b.create().ok();
    b.start().ok();
    update(&b, &["--pids-limit", "1"]).ok();
    fs::write(b.rootfs().join("tmp/go"), "").expect("write");
    b.await_status("stopped"); // sh ends when it cannot fork
    assert!(!fs::read_to_string(b.rootfs().join("tmp/out")).unwrap_or_default().contains("forked"));
}

#[test]
fn unified_keys_are_written_as_they_are_and_last() {
    needs_version!(2);
    needs_controllers!("memory", "pids", "cpuset");
    let b = running(limits());
    let unified = json!({ "memory.high": "50331648", "pids.max": "33", "cgroup.max.depth": "3" });
    update_by(&b, &json!({ "pids": { "limit": 22 }, "unified": unified })).ok();
    let values = ["memory memory.high=50331648", "pids pids.max=33", "cpuset cgroup.max.depth=3"];
    has(&b, &values, "unified");
    update_by(&b, &json!({ "unified": { "cgroup.freeze": "1" } }))
        .fails("linux.resources.unified[\"cgroup.freeze\"]: is an action, not a limit");
    assert_eq!(b.state()["status"], "running");
}
