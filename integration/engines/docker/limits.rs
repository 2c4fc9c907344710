//! Limits: cgroups, rlimits, sysctls.

use super::{container, prints, run, script};
use crate::image::NAME;
use crate::support::until;
use crate::world::Engine;
use crate::{Check, check};
use std::time::{SystemTime, UNIX_EPOCH};

pub const CHECKS: &[Check] = &[
    check!(cgroup_files),
    check!(cgroup_of_the_container),
    check!(cgroup_parent),
    check!(cgroup_namespace),
    check!(out_of_memory),
    check!(out_of_memory_of_a_child),
    check!(memory_below_what_is_possible),
    check!(pids_limit),
    check!(cpuset),
    check!(cpus_are_throttled),
    check!(update),
    check!(update_of_one_thing),
    check!(block_weight).cannot("the kernel has no blkio.weight"),
    check!(real_time).cannot("no real-time budget in the parent cgroup"),
    check!(oom_kill_disabled),
    check!(ulimits),
    check!(ulimit_above_the_hosts).cannot("no CAP_SYS_RESOURCE for a higher hard limit"),
    check!(oom_score),
    check!(sysctls),
    check!(sysctl_that_is_refused),
];

fn cgroup_files(e: &Engine) {
    let device = "/dev/null"; // throttling asks for a block device
    assert!(std::path::Path::new(device).exists());
    for (option, controller, file, value) in [
        ("--memory=64m", "memory", "memory.limit_in_bytes", "67108864"),
        ("--memory-reservation=32m", "memory", "memory.soft_limit_in_bytes", "33554432"),
        ("--memory-swappiness=7", "memory", "memory.swappiness", "7"),
        ("--pids-limit=23", "pids", "pids.max", "23"),
        ("--cpus=1.5", "cpu", "cpu.cfs_quota_us", "150000"),
        ("--cpu-shares=77", "cpu", "cpu.shares", "77"),
        ("--cpuset-cpus=0", "cpuset", "cpuset.cpus", "0"),
        ("--cpuset-mems=0", "cpuset", "cpuset.mems", "0"),
    ] {
        let c = container(&[option], "sleep 1000");
        assert_eq!(c.cgroup(e, controller, file), value, "{option}");
    }
    let c = container(&["--memory=64m", "--memory-swap=96m"], "sleep 1000");
    assert_eq!(c.cgroup(e, "memory", "memory.memsw.limit_in_bytes"), "100663296");
    let c = container(&["--memory=64m", "--memory-swap=-1"], "sleep 1000");
    assert!(c.cgroup(e, "memory", "memory.memsw.limit_in_bytes").len() > 15, "unlimited");
    let c = container(&["--memory=64m"], "sleep 1000");
    assert_eq!(c.cgroup(e, "memory", "memory.memsw.limit_in_bytes"), "134217728");
    let c = container(&["--cpu-period=50000", "--cpu-quota=20000"], "sleep 1000");
    assert_eq!(c.cgroup(e, "cpu", "cpu.cfs_period_us"), "50000");
    assert_eq!(c.cgroup(e, "cpu", "cpu.cfs_quota_us"), "20000");
}

fn cgroup_of_the_container(e: &Engine) {
    let c = container(&[], "sleep 1000");
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).expect("its init");
    let path = format!(":{}/{}", e.cgroup, c.id);
    let outside: Vec<_> = text.lines().filter(|l| !l.ends_with(&path) && !l.starts_with("0::")).collect();
    assert!(text.contains(&path) && outside.is_empty(), "{text}");
    assert_eq!(c.exec("cat /sys/fs/cgroup/pids/cgroup.procs | head -n 1"), "1");
}

fn cgroup_parent(e: &Engine) {
    let parent = format!("{}/sub", e.cgroup);
    let c = container(&["--cgroup-parent", &parent], "sleep 1000");
    assert_eq!(e.cgroup_file("pids", &format!("sub/{}", c.id), "cgroup.procs"), c.pid().to_string());
}

fn cgroup_namespace(e: &Engine) {
    let text = prints(&["--cgroupns", "private"], "cat /proc/self/cgroup");
    assert!(text.lines().all(|l| l.ends_with(":/")), "{text}");
    let text = prints(&["--cgroupns", "host"], "cat /proc/self/cgroup");
    assert!(text.contains(&e.cgroup), "{text}");
}

fn out_of_memory(_: &Engine) {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let begin = now().to_string();
    // Not before the shim watches.
    let script = "until [ -e /go ]; do sleep 0.02; done; exec tail /dev/zero";
    let c = container(&["--memory", "24m", "--memory-swap", "24m"], script);
    c.exec_with(&[], ": > /go").ok();
    assert_eq!(c.wait(), 137);
    until("Docker knows", || c.inspect(".State.OOMKilled") == "true");
    let filter = format!("container={}", c.id);
    // Whole seconds: until the next one.
    let (end, filter) = ((now() + 1).to_string(), filter.as_str());
    let events =
        ["events", "--since", &begin, "--until", &end, "--filter", filter, "--format", "{{.Action}}"];
    let events = run(&events).ok().stdout;
    assert!(events.lines().any(|l| l == "oom"), "{events}");
    let c = container(&[], "exit 137");
    c.wait();
    assert_eq!(c.inspect(".State.OOMKilled"), "false");
}

fn out_of_memory_of_a_child(_: &Engine) {
    let c =
        container(&["--memory", "24m", "--memory-swap", "24m"], "tail /dev/zero; echo code $?; sleep 1000");
    c.await_log("code 137");
    assert_eq!(c.inspect(".State.Running"), "true");
}

fn memory_below_what_is_possible(_: &Engine) {
    run(&["run", "--rm", "--memory", "1m", NAME, "true"]).fails("Minimum memory limit");
}

fn pids_limit(e: &Engine) {
    let text = "for n in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all";
    let o = script(&["--pids-limit", "5"], text);
    assert!(o.stderr.contains("can't fork"), "{}{}", o.stdout, o.stderr);
    let c = container(&["--pids-limit", "-1"], "sleep 1000");
    assert_eq!(c.cgroup(e, "pids", "pids.max"), "max");
}

fn cpuset(_: &Engine) {
    let shown = "grep Cpus_allowed_list /proc/self/status | cut -f 2";
    assert_eq!(prints(&["--cpuset-cpus", "0"], shown), "0");
    let o = run(&["run", "--rm", "--cpuset-cpus", "4000", NAME, "true"]);
    assert_eq!(o.code(), 125, "{}", o.stderr);
}

fn cpus_are_throttled(e: &Engine) {
    let c = container(&["--cpus", "0.1"], "while :; do :; done");
    let throttled = || {
        c.cgroup(e, "cpu", "cpu.stat").lines().any(|l| l.starts_with("nr_throttled ") && !l.ends_with(" 0"))
    };
    until("it is throttled", throttled);
}

fn update(e: &Engine) {
    let c = container(&["--memory", "64m", "--memory-swap", "96m"], "sleep 1000");
    let options =
        ["update", "--memory", "128m", "--memory-swap", "256m", "--cpus", "0.5", "--pids-limit", "33"];
    c.verb(
        &[&options[..], &["--cpu-shares", "77", "--cpuset-cpus", "0", "--memory-reservation", "16m"]]
            .concat(),
    )
    .ok();
    for (controller, file, value) in [
        ("memory", "memory.limit_in_bytes", "134217728"),
        ("memory", "memory.memsw.limit_in_bytes", "268435456"),
        ("memory", "memory.soft_limit_in_bytes", "16777216"),
        ("cpu", "cpu.cfs_quota_us", "50000"),
        ("cpu", "cpu.shares", "77"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "33"),
    ] {
        assert_eq!(c.cgroup(e, controller, file), value, "{file}");
    }
    c.verb(&["update", "--memory", "32m", "--memory-swap", "40m"]).ok();
    assert_eq!(c.cgroup(e, "memory", "memory.limit_in_bytes"), "33554432");
    assert_eq!(c.cgroup(e, "memory", "memory.memsw.limit_in_bytes"), "41943040");
    assert_eq!(c.exec("echo it runs"), "it runs");
    // Above memory+swap alone is refused, and nothing changes.
    assert_ne!(c.verb(&["update", "--memory", "512m"]).code(), 0);
    assert_eq!(c.cgroup(e, "memory", "memory.limit_in_bytes"), "33554432");
}

fn update_of_one_thing(e: &Engine) {
    let options = ["--memory", "64m", "--cpu-shares", "99", "--pids-limit", "44", "--device", "/dev/kmsg"];
    let c = container(&options, "sleep 1000");
    let before = c.cgroup(e, "devices", "devices.list");
    c.verb(&["update", "--cpu-shares", "55"]).ok();
    assert_eq!(c.cgroup(e, "cpu", "cpu.shares"), "55");
    assert_eq!(c.cgroup(e, "memory", "memory.limit_in_bytes"), "67108864");
    assert_eq!(c.cgroup(e, "pids", "pids.max"), "44");
    assert_eq!(c.cgroup(e, "devices", "devices.list"), before);
    c.verb(&["update", "--restart", "always"]).ok();
    assert_eq!(c.inspect(".HostConfig.RestartPolicy.Name"), "always");
    // Of a stopped one it holds from the next start on.
    c.verb(&["stop", "--time", "0"]).ok();
    c.verb(&["update", "--pids-limit", "45"]).ok();
    c.verb(&["start"]).ok();
    assert_eq!(c.cgroup(e, "pids", "pids.max"), "45");
}

fn block_weight(e: &Engine) {
    let c = container(&["--blkio-weight", "300"], "sleep 1000");
    assert_eq!(c.cgroup(e, "blkio", "blkio.weight"), "300");
}

fn real_time(e: &Engine) {
    let c = container(&["--cpu-rt-runtime", "10000", "--cap-add", "SYS_NICE"], "sleep 1000");
    assert_eq!(c.cgroup(e, "cpu", "cpu.rt_runtime_us"), "10000");
}

fn oom_kill_disabled(e: &Engine) {
    let c = container(&["--memory", "64m", "--oom-kill-disable"], "sleep 1000");
    let control = c.cgroup(e, "memory", "memory.oom_control");
    assert!(control.contains("oom_kill_disable 1"), "{control}");
}

fn ulimits(_: &Engine) {
    let options = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "cpu=50"];
    assert_eq!(prints(&options, "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -t"), "100\n200\n0\n50");
}

fn ulimit_above_the_hosts(_: &Engine) {
    assert_eq!(prints(&["--ulimit", "nofile=1000000:1000000"], "ulimit -Hn"), "1000000");
}

fn oom_score(_: &Engine) {
    assert_eq!(prints(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500");
}

fn sysctls(_: &Engine) {
    let options = ["--sysctl", "net.ipv4.ip_unprivileged_port_start=7", "--sysctl", "kernel.msgmax=4000"];
    let files = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax";
    assert_eq!(prints(&options, files), "7\n4000");
}

fn sysctl_that_is_refused(_: &Engine) {
    for options in
        [&["--sysctl", "kernel.hostname=x"][..], &["--network=host", "--sysctl", "net.ipv4.ip_forward=1"]]
    {
        let o = run(&[&["run", "--rm"], options, &[NAME, "true"]].concat());
        assert_eq!(o.code(), 125, "{options:?}: {}", o.stderr);
    }
}
