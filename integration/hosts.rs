//! What only some hosts have: AppArmor, weights of block devices, classes of traffic, RDMA, and root with every
//! capability. `hack/vm` has such hosts.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;

use cgroups::{ROOT, dir, is_unified, read, sleeping};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Bundle, finish, skip, unique};

/// A profile that the kernel knows for as long as the test runs.
struct Profile {
    name: String,
    text: String,
}

impl Profile {
    fn new() -> Self {
        let name = format!("orlop-test-{}", unique());
        let rules =
            "file, capability, network, mount, umount, pivot_root, signal, ptrace, deny /tmp/denied w,";
        let text = format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules} }}\n");
        let profile = Self { name, text };
        assert!(profile.parser("--add"), "the profile is not taken");
        profile
    }

    fn parser(&self, action: &str) -> bool {
        let mut parser = Command::new("apparmor_parser");
        parser
            .args([action, "--skip-cache"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut parser = parser.spawn().expect("apparmor_parser");
        parser.stdin.take().expect("a pipe").write_all(self.text.as_bytes()).expect("write");
        parser.wait().expect("wait").success()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove");
    }
}

#[test]
fn the_program_is_confined_by_its_apparmor_profile() {
    needs_root!();
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if !enabled.starts_with('Y') {
        return skip("needs AppArmor");
    }
    needs_program!("apparmor_parser");
    let profile = Profile::new();
    let show = "cat /proc/self/attr/current; (echo x > /tmp/denied) 2>&- || echo refused; echo x > /tmp/other && echo taken";
    let said = format!("{} (enforce)\nrefused\ntaken\n", profile.name);
    let b = Bundle::new().sh(show).set("/root/readonly", json!(false));
    assert_eq!(b.set("/process/apparmorProfile", json!(profile.name)).run().ok().stdout, said);

    let b = sleeping().set("/root/readonly", json!(false));
    b.create().ok();
    let exec = |more: &[&str]| {
        let words = ["exec"].iter().chain(more).copied().chain([b.id.as_str(), "sh", "-c", show]);
        finish(&mut b.orlop(words)).ok().stdout
    };
    assert!(exec(&[]).starts_with("unconfined\n"));
    assert_eq!(exec(&["--apparmor", &profile.name]), said);

    let b = Bundle::new().set("/process/apparmorProfile", json!("orlop-test-no-such-profile"));
    b.run().fails("process.apparmorProfile");
    b.is_clean();
}

/// A block device whose scheduler is BFQ: the one that knows weights.
fn weighted_device() -> Option<(u64, u64)> {
    let list = fs::read_dir("/sys/block").ok()?.flatten().map(|d| d.path());
    let mut list = list.filter(|d| {
        fs::read_to_string(d.join("queue/scheduler")).is_ok_and(|schedulers| schedulers.contains("[bfq]"))
    });
    let number = fs::read_to_string(list.next()?.join("dev")).ok()?;
    let (major, minor) = number.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn block_devices_are_shared_by_weight() {
    needs_controllers!(if is_unified() { "io" } else { "blkio" });
    let Some((major, minor)) = weighted_device() else {
        return skip("needs a block device with the scheduler bfq");
    };
    let (controller, files) = match is_unified() {
        true => ("io", ["io.bfq.weight"; 2]),
        false => ("blkio", ["blkio.bfq.weight", "blkio.bfq.weight_device"]),
    };
    let io = json!({ "weight": 300, "weightDevice": [{ "major": major, "minor": minor, "weight": 500 }] });
    let b = sleeping().set("/linux/resources/blockIO", io);
    b.create().ok();
    let of_cgroup = read(controller, &b.id, files[0]);
    assert!(of_cgroup.lines().any(|l| l.trim_start_matches("default ") == "300"), "{of_cgroup}");
    let of_device = read(controller, &b.id, files[1]);
    assert!(of_device.lines().any(|l| l == format!("{major}:{minor} 500")), "{of_device}");

    let leaf = sleeping().set("/linux/resources/blockIO", json!({ "leafWeight": 300 }));
    leaf.create().fails("linux.resources.blockIO.leafWeight: ");
    leaf.is_clean();
}

#[test]
fn traffic_has_its_class_and_priorities() {
    needs_controllers!("net_cls", "net_prio");
    let network = json!({ "classID": 0x10_0001, "priorities": [{ "name": "lo", "priority": 5 }] });
    let b = sleeping().set("/linux/resources/network", network);
    b.create().ok();
    assert_eq!(read("net_cls", &b.id, "net_cls.classid"), "1048577");
    let map = read("net_prio", &b.id, "net_prio.ifpriomap");
    assert!(map.lines().any(|l| l == "lo 5"), "{map}");
    for (network, words) in [
        (json!({ "priorities": [{ "name": "nowhere", "priority": 5 }] }), "network.priorities[0]: "),
        (json!({ "classID": 1u64 << 32 }), "network.classID: 4294967296 is above 4294967295"),
    ] {
        let b = sleeping().set("/linux/resources/network", network);
        b.create().fails(words);
        b.is_clean();
    }
}

#[test]
fn rdma_devices_are_limited() {
    needs_controllers!("rdma");
    let list = fs::read_dir("/sys/class/infiniband").into_iter().flatten().flatten();
    let Some(device) = list.map(|d| d.file_name().into_string().expect("UTF-8")).next() else {
        return skip("needs an RDMA device");
    };
    let b = sleeping()
        .set(&format!("/linux/resources/rdma/{device}"), json!({ "hcaHandles": 3, "hcaObjects": 100 }));
    b.create().ok();
    assert_eq!(read("rdma", &b.id, "rdma.max"), format!("{device} hca_handle=3 hca_object=100"));
    let b = sleeping().set("/linux/resources/rdma/nowhere", json!({ "hcaHandles": 3 }));
    b.create().fails("linux.resources.rdma[\"nowhere\"]: ");
    b.is_clean();
}

#[test]
fn huge_pages_are_limited_on_v1() {
    needs_version!(1);
    needs_controllers!("hugetlb");
    let limit = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    let b = sleeping().set("/linux/resources/hugepageLimits", limit);
    b.create().ok();
    for file in ["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.rsvd.limit_in_bytes"] {
        assert_eq!(read("hugetlb", &b.id, file), "4194304", "{file}");
    }
}

#[test]
fn every_v1_hierarchy_has_the_containers_cgroup() {
    needs_version!(1);
    let b = sleeping();
    b.create().ok();
    let pid = b.state()["pid"].to_string();
    let mine = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    for line in mine.lines() {
        let (controllers, path) =
            line.split_once(':').and_then(|(_, rest)| rest.split_once(':')).expect("three");
        if controllers.is_empty() && !Path::new(ROOT).join("unified").exists() {
            continue; // the kernel tells of v2 once anybody has mounted it anywhere
        }
        assert!(path.ends_with(&b.id), "{line}");
        let name = controllers.trim_start_matches("name=");
        let place =
            if name.is_empty() { Path::new(ROOT).join("unified") } else { Path::new(ROOT).join(name) };
        let tasks = fs::read_to_string(place.join(path.trim_start_matches('/')).join("cgroup.procs"));
        assert!(tasks.expect("a mounted hierarchy").lines().any(|l| l == pid), "{line}");
    }
    assert!(dir("pids", &b.id).is_dir());
}

#[test]
fn with_the_capability_a_limit_may_be_above_our_own() {
    needs_root!();
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:")).expect("capabilities").trim();
    if u64::from_str_radix(line, 16).expect("hexadecimal") >> 24 & 1 == 0 {
        return skip("needs CAP_SYS_RESOURCE");
    }
    let list = json!([{ "type": "RLIMIT_NPROC", "soft": 10, "hard": 1u64 << 40 }]);
    let b =
        Bundle::new().set("/process/rlimits", list).sh("grep processes /proc/self/limits | sed 's/  */ /g'");
    b.write();
    let mut low = Command::new("prlimit");
    low.args(["--nproc=100000:100000", support::ORLOP, "--root"]).arg(b.state_root());
    let out = finish(low.args(["run", "--bundle"]).arg(b.path()).arg(&b.id).stdin(Stdio::null())).ok();
    assert_eq!(out.stdout.trim(), "Max processes 10 1099511627776 processes");
}

#[test]
fn v2_is_found_beside_a_hierarchy_of_v1_that_is_elsewhere() {
    needs_version!(1);
    let b = Bundle::new()
        .set("/linux/resources", json!({}))
        .sh("cat /proc/self/cgroup")
        .without_namespace("cgroup");
    let elsewhere = b.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("mkdir");
    let script = r#"mount --bind /sys/fs/cgroup/pids "$0"; mount -t cgroup2 none /sys/fs/cgroup; exec "$@""#;
    let run = b.making("run");
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&elsewhere);
    let out = finish(apart.arg(run.get_program()).args(run.get_args())).ok().stdout;
    for hierarchy in ["0::", "pids:"] {
        assert!(out.lines().any(|l| l.contains(hierarchy) && l.ends_with(&b.id)), "{hierarchy}: {out}");
    }
}
