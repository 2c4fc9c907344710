//! linux.cgroupsPath and linux.resources, against the kernel's cgroupfs.

#[macro_use]
#[path = "support/mod.rs"]
mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use support::{Bundle, ORLOP, cgroups_named, finish, is_root, skip, unique, until};

const ROOT: &str = "/sys/fs/cgroup";

/// Leaves the test, counted as skipped, unless limits can be set in the v1 hierarchies of these controllers.
macro_rules! needs_v1 {
    ($($controller:expr),*) => {
        needs_root!();
        for c in [$($controller),*] {
            if !Path::new(ROOT).join(c).join("tasks").exists() {
                skip(&format!("needs the v1 controller {c}"));
                return;
            }
        }
    };
}

fn dir(controller: &str, name: &str) -> PathBuf {
    Path::new(ROOT).join(controller).join(name)
}

fn read(controller: &str, name: &str, file: &str) -> String {
    let file = dir(controller, name).join(file);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim_end().to_string()
}

/// A cgroup made by the test, gone at its end.
struct Own(PathBuf);

impl Own {
    fn new(controller: &str, name: &str) -> Self {
        let path = dir(controller, name);
        fs::create_dir_all(&path).expect("mkdir");
        Self(path)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A process of the test, ended with it.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().expect("sleep"))
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("wait").is_none()
    }

    fn enter(&self, cgroup: &Path) {
        fs::write(cgroup.join("cgroup.procs"), self.0.id().to_string()).expect("it joins");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeping() -> Bundle {
    Bundle::new().args(&["sleep", "1000"])
}

#[test]
fn limits_are_in_force_before_the_program_runs() {
    needs_v1!("memory", "cpu", "cpuset", "pids", "blkio", "devices");
    let b = sleeping().set(
        "/linux/resources",
        json!({
            "memory": { "limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20, "swappiness": 7, "disableOOMKiller": true },
            "cpu": { "shares": 512, "quota": 50000, "period": 200000, "burst": 1000, "cpus": "0", "mems": "0" },
            "pids": { "limit": 77 },
            "blockIO": { "weight": 300 },
        }),
    );
    b.create().ok();
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        ("memory", "memory.soft_limit_in_bytes", "33554432"),
        ("memory", "memory.swappiness", "7"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.cfs_period_us", "200000"),
        ("cpu", "cpu.cfs_burst_us", "1000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "77"),
    ] {
        assert_eq!(read(controller, &b.id, file), value, "{file}");
    }
    assert!(read("memory", &b.id, "memory.oom_control").starts_with("oom_kill_disable 1"));
    let pid = b.state()["pid"].to_string();
    let joined = cgroups_named(&b.id);
    for place in &joined {
        assert_eq!(fs::read_to_string(place.join("cgroup.procs")).unwrap().trim(), pid, "{place:?}");
    }
    assert!(joined.len() >= 9, "{joined:?}");
    b.delete().ok();
    assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
}

#[test]
fn only_keys_that_are_set_are_written() {
    needs_v1!("memory", "cpu", "pids");
    let b = sleeping().set(
        "/linux/resources",
        json!({ "memory": { "limit": 0, "swap": 0 }, "cpu": { "shares": 0, "quota": 0 }, "pids": {} }),
    );
    b.create().ok();
    let fresh = Own::new("cpu", &format!("{}-fresh", b.id));
    for file in ["cpu.shares", "cpu.cfs_quota_us"] {
        assert_eq!(read("cpu", &b.id, file), fs::read_to_string(fresh.0.join(file)).unwrap().trim_end());
    }
    assert_eq!(read("pids", &b.id, "pids.max"), "max");
    assert!(read("memory", &b.id, "memory.limit_in_bytes").len() > 15);
}

/// Every setting below a container's cgroups: file to content.
fn settings(name: &str) -> BTreeMap<String, String> {
    const MEASURED: [&str; 14] = [
        "usage",
        "stat",
        "tasks",
        "procs",
        "failcnt",
        "slabinfo",
        "serviced",
        "service_bytes",
        "events",
        "pressure",
        "effective",
        "peak",
        "current",
        "shown_ram",
    ];
    let mut all = BTreeMap::new();
    for place in cgroups_named(name) {
        for entry in fs::read_dir(&place).expect("read").flatten() {
            let file = entry.file_name().into_string().expect("UTF-8");
            if entry.path().is_dir() || MEASURED.iter().any(|m| file.contains(m)) {
                continue;
            }
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            let mut lines: Vec<_> = text.lines().collect();
            lines.sort_unstable();
            let hierarchy = place.parent().expect("a parent").display();
            all.insert(format!("{hierarchy}: {file}"), lines.join("\n"));
        }
    }
    all
}

#[test]
fn every_file_has_what_runc_writes() {
    needs_v1!("memory", "devices");
    needs_program!("runc");
    let b = sleeping().set(
        "/linux/resources",
        json!({
            "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" },
                { "allow": true, "type": "b", "major": 7, "minor": 1, "access": "r" },
            ],
            "memory": { "limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20, "swappiness": 7 },
            "cpu": { "shares": 512, "quota": 50000, "period": 200000, "cpus": "0", "mems": "0" },
            "pids": { "limit": 77 },
            "blockIO": { "weight": 300 },
        }),
    );
    b.create().ok();
    let theirs = format!("{}-runc", b.id);
    // Without a path runc begins at its own cgroup.
    let b = b.set("/linux/cgroupsPath", json!(format!("/{theirs}")));
    b.write();
    let mut runc = Command::new("runc");
    runc.arg("--root")
        .arg(b.path().join("runc-state"))
        .args(["create", "--bundle"])
        .arg(b.path())
        .arg(&theirs);
    finish(runc.stdin(Stdio::null())).ok();
    let (ours, theirs) = (settings(&b.id), settings(&theirs));
    // runc of that age has no cgroup in a hybrid host's v2 hierarchy.
    for (file, value) in theirs.iter().filter(|(f, _)| !f.contains("/unified")) {
        assert_eq!(ours.get(file), Some(value), "{file}");
    }
    assert!(theirs.len() > 40, "{theirs:?}");
}

/// Makes and opens null, a default device, and loop0, which need not be there: what is refused is not permitted.
const DEVICES: &str = "cd /dev; refused() { grep -q 'not permitted' && echo refused $* || echo passed $*; }; \
                       for d in 'null c 1 3' 'loop b 7 0'; do set -- $d; mknod x$1 $2 $3 $4 2>&1 | refused mknod $1; \
                       (: < x$1) 2>&1 | refused read $1; (: > x$1) 2>&1 | refused write $1; done";
const NULL: &str = "passed mknod null\npassed read null\npassed write null\n";

#[test]
fn devices_are_refused_unless_allowed() {
    needs_root!();
    let b = Bundle::new().sh(DEVICES).set("/process/capabilities/bounding", json!(["CAP_MKNOD"]));
    let b = b.set("/process/capabilities/effective", json!(["CAP_MKNOD"]));
    let b = b.set("/process/capabilities/permitted", json!(["CAP_MKNOD"]));
    assert_eq!(b.run().stdout, format!("{NULL}passed mknod loop\nrefused read loop\nrefused write loop\n"));
    let b = b.set(
        "/linux/resources/devices",
        json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "r" }]),
    );
    assert_eq!(b.run().stdout, format!("{NULL}passed mknod loop\npassed read loop\nrefused write loop\n"));
}

#[test]
fn a_limit_of_processes_stops_a_fork() {
    needs_v1!("pids");
    let b = Bundle::new()
        .sh("true; echo one; (true); echo two")
        .set("/linux/resources/pids", json!({ "limit": 1 }));
    let out = b.run();
    assert!(out.stdout.contains("one") && !out.stdout.contains("two"), "{out:?}");
}

#[test]
fn a_program_beyond_its_memory_is_killed() {
    needs_v1!("memory");
    let b = Bundle::new().args(&["tail", "/dev/zero"]);
    let b = b.set("/linux/resources/memory", json!({ "limit": 16 << 20, "swap": 16 << 20 }));
    assert_eq!(b.run().code(), 137);
    assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
}

#[test]
fn a_limit_that_the_kernel_refuses_leaves_nothing() {
    needs_v1!("cpuset", "blkio");
    for (at, value, message) in [
        (
            "/linux/resources/cpu",
            json!({ "cpus": "1000" }),
            "linux.resources.cpu.cpus: write \"1000\" to cpuset.cpus: ",
        ),
        (
            "/linux/resources/blockIO",
            json!({ "throttleReadBpsDevice": [{ "major": 4000, "minor": 77, "rate": 5 }] }),
            "linux.resources.blockIO.throttleReadBpsDevice[0]: write \"4000:77 5\" to blkio.throttle.read_bps_device: \
             no such device; there is no block device of this number",
        ),
        ("/linux/resources/cpu", json!({ "cpus": "3-0" }), "linux.resources.cpu.cpus: "),
    ] {
        let b = sleeping().set(at, value);
        b.create().fails(message);
        assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
        assert!(fs::read_dir(b.state_root()).unwrap().next().is_none());
    }
}

#[test]
fn unknown_page_sizes_are_answered_with_those_known() {
    needs_root!();
    let known = fs::read_dir("/sys/kernel/mm/hugepages").map(|d| d.flatten().count()).unwrap_or(0);
    let controllers = fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default();
    if known == 0 || !controllers.contains("hugetlb") {
        skip("needs huge pages and a hybrid host that limits them");
        return;
    }
    let limit = |size: &str| json!([{ "pageSize": size, "limit": 4 << 20 }]);
    let b = sleeping().set("/linux/resources/hugepageLimits", limit("3MB"));
    b.create().fails("linux.resources.hugepageLimits[0]: ").stderr.contains("2MB");
    let b = b.set("/linux/resources/hugepageLimits", limit("2MB"));
    b.create().ok();
    for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
        assert_eq!(read("unified", &b.id, file), "4194304", "{file}");
    }
}

#[test]
fn the_cgroup_is_where_the_path_says_and_parents_go_with_it() {
    needs_v1!("pids", "cpuset");
    let name = format!("orlop-test-{}", unique());
    for path in [format!("/{name}/a/b"), format!("{name}/a/b")] {
        let b = sleeping().set("/linux/cgroupsPath", json!(path));
        b.create().ok();
        assert_eq!(read("pids", &name, "a/b/cgroup.procs"), b.state()["pid"].to_string());
        assert_eq!(read("cpuset", &name, "a/b/cpuset.cpus"), read("cpuset", "", "cpuset.cpus"));
        // One that is still in use keeps its parents.
        let c = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/a/c")));
        c.create().ok();
        b.delete().ok();
        assert!(dir("pids", &name).join("a/c").exists() && !dir("pids", &name).join("a/b").exists());
        c.delete().ok();
        let left: Vec<_> = cgroups_named(&name);
        // Made by the first, which could not take them with it.
        left.iter().for_each(|d| drop((fs::remove_dir(d.join("a")), fs::remove_dir(d))));
    }
    let b = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/x")));
    b.create().ok();
    b.delete().ok();
    assert_eq!(cgroups_named(&name), Vec::<PathBuf>::new());
    for bad in ["/", "/a/../b"] {
        sleeping().set("/linux/cgroupsPath", json!(bad)).create().fails("linux.cgroupsPath: ");
    }
}

#[test]
fn what_the_container_made_below_goes_too() {
    needs_v1!("pids", "freezer");
    let b = sleeping();
    b.create().ok();
    b.start().ok();
    for c in ["pids", "freezer", "memory"] {
        fs::create_dir_all(dir(c, &b.id).join("x/y/z")).unwrap();
        fs::create_dir_all(dir(c, &b.id).join("x/w")).unwrap();
    }
    fs::write(dir("pids", &b.id).join("x/y/z/cgroup.procs"), b.state()["pid"].to_string()).unwrap();
    b.delete().ok();
    assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
}

#[test]
fn a_frozen_container_is_deleted_by_force_and_shows_as_paused() {
    needs_v1!("freezer");
    for nested in [false, true] {
        let b = sleeping();
        b.create().ok();
        b.start().ok();
        b.await_status("running");
        let mut frozen = dir("freezer", &b.id);
        if nested {
            frozen.push("in/side");
            fs::create_dir_all(&frozen).unwrap();
            fs::write(frozen.join("cgroup.procs"), b.state()["pid"].to_string()).unwrap();
        }
        fs::write(frozen.join("freezer.state"), "FROZEN").unwrap();
        if !nested {
            assert_eq!(b.state()["status"], "paused");
        }
        b.delete().ok();
        assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_cgroup_that_others_use_is_refused_and_left_alone() {
    needs_v1!("pids", "freezer");
    let name = format!("orlop-test-{}", unique());
    let own = Own::new("pids", &name);
    let mut other = Sleeper::new();
    other.enter(&own.0);
    let b = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}")));
    b.create().fails(&format!("/pids/{name} is not empty: {} (sleep)", other.0.id()));
    b.delete().ok();
    assert!(other.is_alive());
    assert_eq!(cgroups_named(&name), std::slice::from_ref(&own.0));
    drop(other);

    until("it is empty", || fs::read_to_string(own.0.join("cgroup.procs")).unwrap().is_empty());
    b.create().ok();
    b.delete().ok();
    assert_eq!(cgroups_named(&name), std::slice::from_ref(&own.0), "what was there before stays");

    let cold = Own::new("freezer", &name);
    fs::write(cold.0.join("freezer.state"), "FROZEN").unwrap();
    b.create().fails("is frozen");
    let below = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/below")));
    below.create().fails("is frozen");
    assert!(!cold.0.join("below").exists());
}

#[test]
fn two_containers_do_not_share_a_cgroup() {
    needs_v1!("pids");
    let first = sleeping();
    first.create().ok();
    first.start().ok();
    let second = sleeping().set("/linux/cgroupsPath", json!(format!("/{}", first.id)));
    second.create().fails("is not empty");
    second.delete().ok();
    first.await_status("running");
}

/// Processes that a container without a pid namespace leaves behind.
fn leaves_no_process(view: Option<&str>) {
    // An interactive shell goes on when it cannot fork.
    let bomb =
        "b() { yes '(sleep 1; sleep 1) & sleep 2 &' | sh -i 2>/dev/null; }; b & b & b & exec sleep 1000";
    let b =
        Bundle::new().sh(bomb).without_namespace("pid").set("/linux/resources/pids", json!({ "limit": 50 }));
    b.write();
    let run = |args: &[&str]| {
        let mut c = within(view);
        c.arg("--root").arg(b.state_root()).args(args);
        finish(&mut c).ok()
    };
    run(&["create", "--bundle", b.path().to_str().unwrap(), &b.id]);
    run(&["start", &b.id]);
    let procs = dir("pids", &b.id).join("cgroup.procs");
    until("the bomb is off", || fs::read_to_string(&procs).unwrap().lines().count() > 40);
    let begin = Instant::now();
    run(&["delete", "--force", &b.id]);
    assert!(begin.elapsed().as_secs() < 9, "{:?}", begin.elapsed());
    assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
}

/// The binary in a mount namespace where this was done before.
fn within(view: Option<&str>) -> Command {
    let Some(view) = view else {
        let mut c = Command::new(ORLOP);
        c.stdin(Stdio::null());
        return c;
    };
    let mut c = Command::new("unshare");
    c.args(["-m", "sh", "-ec", &format!("{view}; exec \"$@\""), "sh", ORLOP]).stdin(Stdio::null());
    c
}

#[test]
fn a_fork_bomb_is_killed_in_seconds() {
    needs_v1!("pids", "freezer");
    leaves_no_process(None);
}

#[test]
fn a_fork_bomb_is_killed_without_the_kernels_help() {
    needs_v1!("pids", "freezer");
    // No cgroup.kill: the v1 freezer has to do.
    leaves_no_process(Some("umount /sys/fs/cgroup/unified 2>/dev/null || true"));
}

#[test]
fn signals_for_all_reach_every_process() {
    needs_v1!("pids");
    let script =
        "trap '' TERM; sleep 1000 & setsid sleep 1000 & (sleep 1000 & sleep 1000 &) ; wait; sleep 1000";
    let b = Bundle::new().sh(script).without_namespace("pid");
    b.create().ok();
    b.start().ok();
    let count = || fs::read_to_string(dir("pids", &b.id).join("cgroup.procs")).unwrap().lines().count();
    until("all are there", || count() >= 5);
    finish(&mut b.orlop(["kill", "--all", &b.id, "KILL"])).ok();
    until("all are gone", || count() == 0);
    b.delete().ok();
}

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
        c.args([
            "-m",
            "sh",
            "-ec",
            &enter,
            "sh",
            "setpriv",
            "--reuid",
            "1234",
            "--regid",
            "1234",
            "--clear-groups",
        ]);
        let program = b.path().join("orlop");
        if !program.exists() {
            fs::copy(ORLOP, &program).unwrap();
        }
        finish(c.arg(program).arg("--root").arg(b.path().join("theirs")).args(args).stdin(Stdio::null()))
    };
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
        c.args(["--reuid", "1234", "--regid", "1234", "--clear-groups"]).arg(u.bundle.path().join("orlop"));
        c.arg("--root").arg(u.bundle.path().join("theirs")).args(["run", "--bundle"]).arg(u.bundle.path());
        let message = "permission denied; a limit needs a cgroup that was delegated to this user";
        finish(c.arg(&u.bundle.id).stdin(Stdio::null())).fails(message);
    }
    drop(inside);
}
