//! linux.cgroupsPath and linux.resources where the host has cgroup v2 alone, or seems to.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;

use cgroups::{DEVICES, NULL, Own, dir, read, sleeping, within};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Bundle, cgroups_named, finish, is_root, skip, unique, until};

const V2: &str = "mount -t cgroup2 none /sys/fs/cgroup";

/// On a v2 host, or in a mount namespace that looks like one, without limits of controllers that v1 holds.
struct Unified {
    bundle: Bundle,
    root: PathBuf,
}

impl Unified {
    fn new(bundle: Bundle) -> Option<Self> {
        if !is_root() {
            skip("needs root");
            return None;
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root = mounts.lines().find(|l| l.contains(" - cgroup2 ")).and_then(|l| l.split(' ').nth(4));
        let Some(root) = root else {
            skip("needs a mounted v2 hierarchy");
            return None;
        };
        bundle.write();
        Some(Self { root: root.into(), bundle })
    }

    fn orlop(&self, args: &[&str]) -> support::Outcome {
        let mut c = within(Some(V2));
        c.arg("--root").arg(self.bundle.state_root()).args(args);
        finish(&mut c)
    }

    fn create(&self) -> support::Outcome {
        self.bundle.write();
        self.orlop(&["create", "--bundle", self.bundle.path().to_str().unwrap(), &self.bundle.id])
    }

    fn read(&self, file: &str) -> String {
        let file = self.root.join(&self.bundle.id).join(file);
        fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim_end().to_string()
    }
}

impl Drop for Unified {
    fn drop(&mut self) {
        let _ = self.orlop(&["delete", "--force", &self.bundle.id]);
    }
}

#[test]
fn v2_is_joined_limited_frozen_killed_and_removed() {
    let limits = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let Some(u) = Unified::new(sleeping().set("/linux/resources/hugepageLimits", limits)) else { return };
    if !fs::read_to_string(u.root.join("cgroup.controllers")).unwrap().contains("hugetlb") {
        skip("needs hugetlb on v2");
        return;
    }
    u.create().ok();
    let pid = u.orlop(&["state", &u.bundle.id]).ok().json()["pid"].to_string();
    assert_eq!(u.read("cgroup.procs"), pid);
    assert_eq!(u.read("hugetlb.2MB.max"), "4194304");
    u.orlop(&["start", &u.bundle.id]).ok();
    fs::create_dir_all(u.root.join(&u.bundle.id).join("x/y")).unwrap();
    fs::write(u.root.join(&u.bundle.id).join("cgroup.freeze"), "1").unwrap();
    until("it is frozen", || u.read("cgroup.events").contains("frozen 1"));
    assert_eq!(u.orlop(&["state", &u.bundle.id]).ok().json()["status"], "paused");
    u.orlop(&["delete", "--force", &u.bundle.id]).ok();
    assert_eq!(cgroups_named(&u.bundle.id), Vec::<PathBuf>::new());
}

#[test]
fn v2_limits_of_controllers_that_are_elsewhere_are_refused() {
    let limits = json!({ "unified": { "memory.high": "100000000" } });
    let Some(u) = Unified::new(sleeping().set("/linux/resources", limits)) else { return };
    if fs::read_to_string(u.root.join("cgroup.controllers")).unwrap().contains("memory") {
        skip("needs a v2 hierarchy without memory");
        return;
    }
    u.create().fails("linux.resources.unified[\"memory.high\"]: needs the cgroup controller \"memory\"");
    assert_eq!(cgroups_named(&u.bundle.id), Vec::<PathBuf>::new());
}

#[test]
fn v2_devices_are_refused_by_a_program() {
    let caps = json!(["CAP_MKNOD"]);
    let b = Bundle::new()
        .sh(DEVICES)
        .set("/process/capabilities/bounding", caps.clone())
        .set("/process/capabilities/effective", caps.clone())
        .set("/process/capabilities/permitted", caps);
    let Some(mut u) = Unified::new(b) else { return };
    let run = |u: &Unified| {
        u.bundle.write();
        u.orlop(&["run", "--bundle", u.bundle.path().to_str().unwrap(), &u.bundle.id]).stdout
    };
    assert_eq!(run(&u), format!("{NULL}passed mknod loop\nrefused read loop\nrefused write loop\n"));
    let set = |u: &mut Unified, rules: Value| u.bundle.config["linux"]["resources"]["devices"] = rules;
    set(
        &mut u,
        json!([{ "allow": false }, { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "r" }]),
    );
    assert_eq!(run(&u), format!("{NULL}passed mknod loop\npassed read loop\nrefused write loop\n"));
    set(
        &mut u,
        json!([{ "allow": true }, { "allow": false, "type": "b", "major": 7, "minor": 0, "access": "w" }]),
    );
    assert_eq!(run(&u), format!("{NULL}passed mknod loop\npassed read loop\nrefused write loop\n"));
}

#[test]
fn an_ordinary_user_has_limits_in_a_delegated_cgroup_and_none_elsewhere() {
    needs_program!("setpriv");
    let limits = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] });
    let Some(mut u) = Unified::new(sleeping()) else { return };
    if !fs::read_to_string(u.root.join("cgroup.subtree_control")).unwrap().contains("hugetlb") {
        skip("needs hugetlb handed down on v2");
        return;
    }
    const USER: u32 = 1234;
    const USER_ALONE: [&str; 5] = ["--reuid", "1234", "--regid", "1234", "--clear-groups"];
    let own = |path: &Path| std::os::unix::fs::chown(path, Some(USER), Some(USER)).expect("chown");
    let name = format!("{}-user", u.bundle.id);
    let place = u.root.join(&name);
    let (above, inside) = (Own(place.clone()), Own(place.join("own")));
    for dir in [&above.0, &inside.0] {
        fs::create_dir(dir).unwrap();
        own(dir);
        for file in ["cgroup.procs", "cgroup.subtree_control"] {
            own(&dir.join(file));
        }
    }
    let as_user = |b: &Bundle, args: &[&str]| {
        let enter = format!("{V2}; echo 0 > /sys/fs/cgroup/{name}/own/cgroup.procs; exec \"$@\"");
        let mut c = Command::new("unshare");
        c.args(["-m", "sh", "-ec", &enter, "sh", "setpriv"]).args(USER_ALONE).arg(b.path().join("orlop"));
        finish(c.arg("--root").arg(b.path().join("theirs")).args(args).stdin(Stdio::null()))
    };
    support::copy_orlop(&u.bundle.path().join("orlop"));
    fs::create_dir(u.bundle.path().join("theirs")).unwrap();
    own(&u.bundle.path().join("theirs"));
    let map = |host| json!([{ "containerID": 0, "hostID": host, "size": 1 }]);
    u.bundle.config["linux"]["uidMappings"] = map(USER);
    u.bundle.config["linux"]["gidMappings"] = map(USER);
    u.bundle.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    u.bundle.config["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    let mounts = u.bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| m["destination"] == "/proc" || m["destination"] == "/dev");
    for (resources, made) in [(json!({}), place.join("own")), (limits, place.clone())] {
        u.bundle.config["linux"]["resources"] = resources;
        u.bundle.write();
        let id = u.bundle.id.as_str();
        as_user(&u.bundle, &["create", "--bundle", u.bundle.path().to_str().unwrap(), id]).ok();
        let there = cgroups_named(id);
        let limit = fs::read_to_string(made.join(id).join("hugetlb.2MB.max"));
        as_user(&u.bundle, &["delete", "--force", id]).ok();
        assert_eq!(there, [made.join(id)]);
        assert_eq!(limit.is_ok_and(|l| l.trim() == "4194304"), made == place);
        assert!(cgroups_named(id).is_empty());
    }
    // v1 belongs to root alone.
    if Path::new("/sys/fs/cgroup/pids/tasks").exists() {
        u.bundle.config["linux"]["resources"] = json!({ "pids": { "limit": 5 } });
        u.bundle.write();
        let mut c = Command::new("setpriv");
        c.args(USER_ALONE).arg(u.bundle.path().join("orlop"));
        c.arg("--root").arg(u.bundle.path().join("theirs")).args(["run", "--bundle"]).arg(u.bundle.path());
        let message = "permission denied; a limit needs a cgroup that was delegated to this user";
        finish(c.arg(&u.bundle.id).stdin(Stdio::null())).fails(message);
    }
    drop(inside);
}

#[test]
fn controllers_come_down_the_tree_and_all_limits_are_in_force() {
    needs_version!(2);
    needs_controllers!("memory", "cpu", "cpuset", "pids", "io", "hugetlb");
    let disk = fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .find_map(|d| fs::read_to_string(d.path().join("dev")).ok());
    let disk = disk.expect("a block device").trim().to_string();
    let (major, minor) = disk.split_once(':').unwrap();
    let number = |n: &str| n.parse::<u32>().unwrap();
    let rate = json!([{ "major": number(major), "minor": number(minor), "rate": 1 << 20 }]);
    let name = format!("orlop-test-{}", unique());
    let mut b = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/a/b"))).set(
        "/linux/resources",
        json!({
            "memory": { "limit": 64 << 20, "swap": 64 << 20 },
            "cpu": { "idle": 1, "cpus": "0", "mems": "0" },
            "pids": { "limit": 0 },
            "blockIO": { "throttleReadBpsDevice": rate, "throttleWriteIOPSDevice": rate },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }],
            "unified": { "memory.high": "50331648", "memory.oom.group": "1", "cgroup.max.depth": "3" },
        }),
    );
    let idle = cgroups::has_limit("cpu", "cpu.idle"); // Linux 5.15
    if !idle {
        b.create().fails(
            "linux.resources.cpu.idle: write \"1\" to cpu.idle: no such file or directory; this kernel has no such limit",
        );
        assert_eq!(cgroups_named(&name), Vec::<PathBuf>::new());
        b = b.unset("/linux/resources/cpu/idle");
    }
    b.create().ok();
    for above in ["", "/a"] {
        let on = read("", &format!("{name}{above}"), "cgroup.subtree_control");
        for c in ["memory", "cpu", "cpuset", "pids", "io", "hugetlb"] {
            assert!(on.split(' ').any(|o| o == c), "{c} is not in {on:?} of {name}{above}");
        }
    }
    for (file, value) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("memory.high", "50331648"),
        ("memory.oom.group", "1"),
        ("cpu.idle", "1"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "0"),
        ("io.max", &format!("{disk} rbps=1048576 wbps=max riops=max wiops=1048576")),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "4194304"),
        ("cgroup.max.depth", "3"),
        ("cgroup.type", "domain"),
        ("cgroup.procs", &b.state()["pid"].to_string()),
    ] {
        if file != "cpu.idle" || idle {
            assert_eq!(read("", &format!("{name}/a/b"), file), value, "{file}");
        }
    }
    b.delete().ok();
    assert_eq!(cgroups_named(&name), Vec::<PathBuf>::new());
}

/// These calls of a command, without those of its children.
fn traced(command: &Command, calls: &str) -> String {
    let scratch = support::Scratch::new("strace");
    let log = scratch.path.join("log");
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-e", calls, "-o"]).arg(&log);
    finish(strace.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null())).ok();
    fs::read_to_string(&log).expect("the trace")
}

#[test]
fn init_is_born_in_its_cgroup_and_ended_by_it() {
    needs_version!(2);
    needs_program!("strace");
    let b = sleeping().without_namespace("pid");
    let calls = traced(&b.making("create"), "clone3,openat,bpf");
    assert!(calls.contains("CLONE_INTO_CGROUP") && !calls.contains("cgroup.procs"), "{calls}");
    // No process is there before its devices are decided.
    let at = |call: &str| calls.find(call).unwrap_or_else(|| panic!("no {call}: {calls}"));
    assert!(at("BPF_PROG_ATTACH") < at("CLONE_INTO_CGROUP"), "{calls}");
    b.start().ok();
    let calls = traced(&b.orlop(["kill", "--all", &b.id, "KILL"]), "openat");
    assert!(calls.contains("\"cgroup.kill\", O_WRONLY"), "{calls}");
    b.await_status("stopped");
}

#[test]
fn the_container_sees_its_own_cgroup_alone() {
    needs_version!(2);
    needs_controllers!("pids");
    let script = "cat /proc/self/cgroup; cd /sys/fs/cgroup; cat cgroup.procs | head -n 1; cat pids.max; mkdir x 2>&1; \
                  grep ' /sys/fs/cgroup ' /proc/self/mountinfo | cut -d' ' -f4,6";
    for own in [true, false] {
        let b = Bundle::new().sh(script).set("/linux/resources/pids", json!({ "limit": 77 }));
        let b = if own { b.namespace("cgroup", None) } else { b.without_namespace("cgroup") };
        let path = if own { "/".to_string() } else { format!("/{}", b.id) };
        let want = format!(
            "0::{path}\n1\n77\nmkdir: can't create directory 'x': Read-only file system\n{path} ro,nosuid,nodev,noexec,relatime\n"
        );
        assert_eq!(b.run().ok().stdout, want);
    }
}

#[test]
fn the_cgroup_belongs_to_a_user_who_can_manage_it() {
    needs_version!(2);
    const USER: u32 = 100_000;
    let map = json!([{ "containerID": 0, "hostID": USER, "size": 1000 }]);
    let script = "cd /sys/fs/cgroup; mkdir own && echo 0 > own/cgroup.procs; exec sleep 1000";
    let mut b = Bundle::new().sh(script).namespace("cgroup", None).namespace("user", None);
    b = b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    for (writable, user) in [(true, 0), (true, 7), (false, 0)] {
        b = b.set("/process/user/uid", json!(user));
        let mounts = b.config["mounts"].as_array_mut().unwrap();
        for m in mounts.iter_mut().filter(|m| m["type"] == "cgroup") {
            m["options"] = json!(["nosuid", "noexec", "nodev", if writable { "rw" } else { "ro" }]);
        }
        b.create().ok();
        let uid = |file: &str| fs::metadata(dir("", &b.id).join(file)).unwrap().uid();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            assert_eq!(uid(file), if writable { USER + user } else { 0 }, "{file}");
        }
        for file in ["pids.max", "memory.max", "cgroup.freeze"] {
            assert_eq!(uid(file), 0, "{file}");
        }
        b.start().ok();
        if writable {
            let inside = dir("", &b.id).join("own/cgroup.procs");
            let pid = b.state()["pid"].to_string();
            until("it is in its own", || fs::read_to_string(&inside).is_ok_and(|p| p.trim() == pid));
        }
        b.delete().ok();
        assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
    }
}

/// What cgroups(7) calls the no-internal-process rule, and threaded subtrees.
#[test]
fn parents_that_cannot_have_the_container_are_named() {
    needs_version!(2);
    needs_controllers!("hugetlb");
    let name = format!("orlop-test-{}", unique());
    let above = Own::new("", &name);
    let b = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/box")));
    let b = b.set("/linux/resources/hugepageLimits", json!([{ "pageSize": "2MB", "limit": 4 << 20 }]));
    {
        let busy = cgroups::Sleeper::new();
        busy.enter(&above.0);
        b.create().fails(&format!("linux.resources.hugepageLimits[0]: write \"+hugetlb\" to /sys/fs/cgroup/{name}/cgroup.subtree_control: device or resource busy; that cgroup has processes of its own"));
        assert!(!above.0.join("box").exists());
        // What limits nothing needs no controller.
        let free = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/box")));
        free.create().ok();
        assert_eq!(read("", &format!("{name}/box"), "cgroup.procs"), free.state()["pid"].to_string());
        free.delete().ok();
    }
    fs::write(above.0.join("cgroup.type"), "threaded").unwrap();
    let threaded = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/box")));
    threaded.create().fails(&format!(
        "linux.cgroupsPath: /sys/fs/cgroup/{name}/box is in a threaded subtree (its cgroup.type is \"domain invalid\"); only threads can join it"
    ));
    assert!(!above.0.join("box").exists() && above.0.exists());
    // A cgroup above that is frozen would have a container that never starts.
    let other = Own::new("", &format!("{name}-frozen"));
    cgroups::freeze(&other.0);
    let frozen = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}-frozen/box")));
    frozen.create().fails("linux.cgroupsPath: ").fails("is frozen");
    assert!(!other.0.join("box").exists());
}

/// Linux 5.10 to 5.13 have no cgroup.kill: processes are frozen, and killed one by one.
#[test]
fn without_cgroup_kill_all_are_killed_all_the_same() {
    needs_version!(2);
    needs_program!("strace");
    let script =
        "trap '' TERM; sleep 1000 & setsid sleep 1000 & (sleep 1000 & sleep 1000 &) ; wait; sleep 1000";
    for verb in [&["kill", "--all"][..], &["delete", "--force"]] {
        let b = Bundle::new().sh(script).without_namespace("pid");
        b.create().ok();
        b.start().ok();
        let procs = dir("", &b.id).join("cgroup.procs");
        let count = || fs::read_to_string(&procs).map_or(0, |p| p.lines().count());
        until("all are there", || cgroups::sleepers(&dir("", &b.id)) == 4);
        let log = b.path().join("strace");
        let mut c = Command::new("strace");
        c.args(["-qq", "-P", "cgroup.kill", "-e", "inject=openat:error=ENOENT", "-o"]).arg(&log);
        c.arg(support::ORLOP).arg("--root").arg(b.state_root()).args(verb).arg(&b.id);
        if verb[0] == "kill" {
            c.arg("KILL");
        }
        finish(c.stdin(Stdio::null())).ok();
        assert!(fs::read_to_string(&log).unwrap().contains("(INJECTED)"), "{verb:?}");
        until("all are gone", || count() == 0);
        b.delete().ok();
        assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
    }
}

/// A limit that would not hold must not be taken.
#[test]
fn limits_of_v1_alone_are_refused() {
    needs_version!(2);
    needs_controllers!("memory", "cpu", "io");
    for (at, value, property) in [
        ("memory", json!({ "kernelTCP": 1 << 20 }), "memory.kernelTCP"),
        ("memory", json!({ "swappiness": 10 }), "memory.swappiness"),
        ("memory", json!({ "disableOOMKiller": true }), "memory.disableOOMKiller"),
        ("memory", json!({ "useHierarchy": false }), "memory.useHierarchy"),
        ("cpu", json!({ "realtimeRuntime": 1000 }), "cpu.realtimeRuntime"),
        ("cpu", json!({ "realtimePeriod": 1000 }), "cpu.realtimePeriod"),
        ("blockIO", json!({ "leafWeight": 10 }), "blockIO.leafWeight"),
        ("network", json!({ "classID": 1 }), "network.classID"),
        ("network", json!({ "priorities": [{ "name": "lo", "priority": 1 }] }), "network.priorities[0]"),
    ] {
        let b = sleeping().set(&format!("/linux/resources/{at}"), value);
        b.create().fails(&format!("linux.resources.{property}: exists on cgroup v1 only"));
        b.is_clean();
    }
    sleeping().set("/linux/resources/memory", json!({ "useHierarchy": true })).create().ok();
}

/// Weights need a scheduler or a cost model, and rdma a device: where there are some the values hold, elsewhere that is said.
#[test]
fn weights_and_rdma_hold_or_name_what_is_missing() {
    needs_version!(2);
    needs_controllers!("io");
    let b = sleeping().set("/linux/resources/blockIO", json!({ "weight": 500 }));
    let out = b.create();
    let files = ["io.bfq.weight", "io.weight"].map(|f| fs::read_to_string(dir("", &b.id).join(f)).ok());
    match files {
        [Some(bfq), _] => assert_eq!(bfq.trim_end().trim_start_matches("default "), "500"),
        [None, Some(cost)] => assert_eq!(cost.trim_end(), "default 4950"),
        [None, None] => {
            let words = "linux.resources.blockIO.weight: write \"4950\" to io.weight: no such file or directory; \
                         no I/O scheduler or cost model here takes weights";
            drop(out.fails(words));
        }
    }
    b.delete().ok();
    let device = json!({ "weightDevice": [{ "major": 4000, "minor": 77, "weight": 500 }] });
    let b = sleeping().set("/linux/resources/blockIO", device);
    b.create().fails("linux.resources.blockIO.weightDevice[0]: write \"4000:77 ");
    let b = sleeping().set("/linux/resources/rdma", json!({ "nonesuch": { "hcaHandles": 3 } }));
    let what = match cgroups::has_controller("rdma") {
        true => "write \"nonesuch hca_handle=3\" to rdma.max: ",
        false => "needs the cgroup controller \"rdma\", which this host does not have",
    };
    b.create().fails(&format!("linux.resources.rdma[\"nonesuch\"]: {what}"));
    b.is_clean();
    let device = fs::read_dir("/sys/class/infiniband").ok().and_then(|mut d| d.next()?.ok());
    let Some(device) = device.filter(|_| cgroups::has_controller("rdma")) else { return };
    let device = device.file_name().into_string().unwrap();
    let b =
        sleeping().set("/linux/resources/rdma", json!({ &device: { "hcaHandles": 3, "hcaObjects": 10 } }));
    b.create().ok();
    let limits = read("", &b.id, "rdma.max");
    assert!(limits.lines().any(|l| l == format!("{device} hca_handle=3 hca_object=10")), "{limits}");
    b.delete().ok();
}

/// A limit below what is used would have the kernel kill: it is asked for before.
#[test]
fn a_limit_is_checked_against_what_is_in_use_when_that_is_asked_for() {
    needs_version!(2);
    needs_controllers!("memory");
    let script =
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=24 2>/dev/null; echo > /tmp/done; exec sleep 1000";
    let b = Bundle::new().sh(script).set("/root/readonly", json!(false));
    let b = b.set("/linux/resources/memory", json!({ "limit": 128 << 20 }));
    b.create().ok();
    b.start().ok();
    let done = b.rootfs().join("tmp/done");
    until("it has written", || done.exists());
    let file = b.path().join("resources.json");
    let update = |memory: Value| {
        fs::write(&file, json!({ "memory": memory }).to_string()).unwrap();
        finish(b.orlop(["update", "--resources"]).arg(&file).arg(&b.id))
    };
    update(json!({ "limit": 16 << 20, "checkBeforeUpdate": true }))
        .fails("linux.resources.memory.limit: 16777216 is below the ")
        .fails("bytes in use; memory.checkBeforeUpdate is set");
    assert_eq!(read("", &b.id, "memory.max"), "134217728");
    update(json!({ "limit": 64 << 20, "checkBeforeUpdate": true })).ok();
    assert_eq!(read("", &b.id, "memory.max"), "67108864");
    assert_eq!(b.state()["status"], "running");
}
