//! Resources: at creation, changed, and exceeded.

use super::{Pod, call};
use crate::support::until;
use crate::world::Engine;
use crate::{Check, check};
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[
    check!(resources_at_creation),
    check!(resources_of_a_running_container),
    check!(resources_before_the_start),
    check!(update_leaves_devices_alone),
    check!(killed_for_memory),
    check!(oom_score),
];

fn resources(of: Value) -> Value {
    json!({"linux": {"resources": of}})
}

fn resources_at_creation(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod.sleeping(resources(json!({
        "memory_limit_in_bytes": 64 << 20, "memory_swap_limit_in_bytes": 128 << 20, "cpu_shares": 204,
        "cpu_period": 50000, "cpu_quota": 25000, "cpuset_cpus": "0", "cpuset_mems": "0",
    })));
    for (controller, file, want) in [
        ("memory", "memory.limit_in_bytes", "67108864"),
        ("memory", "memory.memsw.limit_in_bytes", "134217728"),
        ("cpu", "cpu.shares", "204"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpu", "cpu.cfs_quota_us", "25000"),
        ("cpuset", "cpuset.cpus", "0"),
    ] {
        assert_eq!(c.cgroup_file(controller, file), want, "{file}");
    }
    assert_eq!(c.prints("grep Cpus_allowed_list /proc/1/status | cut -f 2"), "0");
    assert!(!c.cgroup_file("pids", "cgroup.procs").is_empty());
    pod.remove();
}

#[track_caller]
fn update(id: &str, of: Value) {
    call("UpdateContainerResources", json!({"container_id": id, "linux": of}));
}

fn resources_of_a_running_container(e: &Engine) {
    let pod = Pod::new(e);
    let first = json!({"memory_limit_in_bytes": 64 << 20, "cpu_shares": 204, "cpu_period": 100_000, "cpu_quota": 50_000});
    let c = pod.sleeping(resources(first));
    let files = || {
        let memory = c.cgroup_file("memory", "memory.limit_in_bytes");
        let [shares, period, quota] =
            ["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"].map(|f| c.cgroup_file("cpu", f));
        [memory, shares, period, quota].map(|v| v.parse::<i64>().expect("a number"))
    };
    for (change, want) in [
        (json!({"memory_limit_in_bytes": 128 << 20}), [128 << 20, 204, 100_000, 50_000]),
        (json!({"memory_limit_in_bytes": 32 << 20}), [32 << 20, 204, 100_000, 50_000]),
        (json!({"cpu_shares": 512}), [32 << 20, 512, 100_000, 50_000]),
        (json!({"cpu_period": 20_000, "cpu_quota": 15_000}), [32 << 20, 512, 20_000, 15_000]),
        (json!({"cpu_period": 20_000, "cpu_quota": -1}), [32 << 20, 512, 20_000, -1]),
    ] {
        update(&c.id, change.clone());
        assert_eq!(files(), want, "{change}");
    }
    update(&c.id, json!({"cpuset_cpus": "0"}));
    assert_eq!(c.cgroup_file("cpuset", "cpuset.cpus"), "0");
    assert_eq!(c.prints("echo alive"), "alive");
    pod.remove();
}

fn resources_before_the_start(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod.create(&["sleep", "1000"], resources(json!({"memory_limit_in_bytes": 64 << 20})));
    update(&c.id, json!({"memory_limit_in_bytes": 96 << 20}));
    c.start();
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), (96 << 20).to_string());
    pod.remove();
}

fn update_leaves_devices_alone(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod.sleeping(resources(json!({"memory_limit_in_bytes": 64 << 20})));
    let script =
        "head -c 2 /dev/urandom | wc -c; echo > /dev/null; mknod /x b 1 0 2>&1; head -c 1 /x 2>&1; true";
    let (before, rules) = (c.prints(script), c.cgroup_file("devices", "devices.list"));
    assert!(before.starts_with("2\n") && before.contains("not permitted"), "{before}");
    update(&c.id, json!({"memory_limit_in_bytes": 80 << 20, "cpu_shares": 100}));
    c.prints("rm -f /x");
    assert_eq!((c.prints(script), c.cgroup_file("devices", "devices.list")), (before, rules));
    pod.remove();
}

fn killed_for_memory(e: &Engine) {
    let pod = Pod::new(e);
    // Not before the shim watches.
    let script = "until [ -e /go ]; do sleep 0.02; done; exec dd if=/dev/zero of=/dev/null bs=200M count=1";
    let c = pod.start(&["sh", "-c", script], resources(json!({"memory_limit_in_bytes": 24 << 20})));
    c.prints(": > /go");
    let status = c.ended();
    assert_eq!(status["exit_code"], 137, "{status}");
    until("the reason is known", || c.status()["reason"] == "OOMKilled");
    pod.remove();
}

fn oom_score(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod.sleeping(resources(json!({"oom_score_adj": 987})));
    assert_eq!(c.prints("cat /proc/1/oom_score_adj /proc/self/oom_score_adj"), "987\n987");
    pod.remove();
}
