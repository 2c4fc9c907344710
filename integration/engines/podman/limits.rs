//! Cgroups: limits, their files, what podman reports of them.

use super::{Container, podman, prints, run, says};
use crate::image::NAME;
use crate::support::until;
use crate::world::Engine;
use crate::{Check, check};
use std::fs;

pub const CHECKS: &[Check] = &[
    check!(memory),
    check!(out_of_memory),
    check!(cpu),
    check!(cpuset),
    check!(pids_limit_holds),
    check!(block_io),
    check!(devices_list),
    check!(update_changes_limits),
    check!(cgroup_parent),
    check!(cgroups_disabled),
    check!(cgroup_namespace),
    check!(ulimit),
];

const CGROUP: &str = "cd /sys/fs/cgroup;";

fn memory(e: &Engine) {
    let options = [
        "--memory",
        "64m",
        "--memory-swap",
        "96m",
        "--memory-reservation",
        "20m",
        "--memory-swappiness",
        "10",
    ];
    let files = "limit_in_bytes memory.memsw.limit_in_bytes memory.soft_limit_in_bytes memory.swappiness";
    let printed = prints(e, &options, &format!("{CGROUP} cd memory; cat memory.{files}"));
    assert_eq!(printed, format!("{}\n{}\n{}\n10", 64 << 20, 96 << 20, 20 << 20));
    let control =
        prints(e, &["--memory", "64m", "--oom-kill-disable"], "cat /sys/fs/cgroup/memory/memory.oom_control");
    assert!(control.contains("oom_kill_disable 1"), "{control}");
    assert_eq!(prints(e, &["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500");
}

fn out_of_memory(e: &Engine) {
    // conmon says so by a file in the directory where podman was called.
    let told = e.dir.join("oom");
    let c = Container::running(
        e,
        "out_of_memory",
        &["--memory", "16m", "--memory-swap", "16m"],
        "tail /dev/zero; echo killed: $?; grep oom_kill\\  /sys/fs/cgroup/memory/memory.oom_control; sleep 1000",
    );
    until("the kill", || says(e, &["logs", c.name]).lines().count() == 2);
    assert_eq!(says(e, &["logs", c.name]), "killed: 137\noom_kill 1");
    until("conmon's file", || told.exists());
    let o = podman(e, &["run", "--rm", "--memory", "16m", "--memory-swap", "16m", NAME, "tail", "/dev/zero"]);
    assert_eq!(o.code(), 137, "{}", o.stderr);
}

fn cpu(e: &Engine) {
    let files = format!("{CGROUP} cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu/cpu.shares");
    assert_eq!(prints(e, &["--cpus", "0.5"], &files), "50000\n100000\n1024");
    let options = ["--cpu-quota", "10000", "--cpu-period", "20000", "--cpu-shares", "99"];
    assert_eq!(prints(e, &options, &files), "10000\n20000\n99");
}

fn cpuset(e: &Engine) {
    let script = "grep _allowed_list: /proc/self/status | cut -f 2";
    assert_eq!(prints(e, &["--cpuset-cpus", "0", "--cpuset-mems", "0"], script), "0\n0");
    let o = run(e, &["--cpuset-cpus", "4000"], "true");
    assert_eq!(o.code(), 125, "{}", o.stderr);
}

fn pids_limit_holds(e: &Engine) {
    let o = run(
        e,
        &["--pids-limit", "10"],
        "cat /sys/fs/cgroup/pids/pids.max; for i in $(seq 20); do sleep 5 & done",
    );
    assert!(o.stdout == "10\n" && o.stderr.contains("can't fork"), "{o:?}");
    assert_eq!(prints(e, &["--pids-limit", "-1"], "cat /sys/fs/cgroup/pids/pids.max"), "max");
}

fn block_io(e: &Engine) {
    let disk = fs::read_dir("/sys/block").expect("/sys/block").flatten().map(|d| d.file_name()).next();
    let disk = disk.expect("a disk").into_string().expect("UTF-8");
    let number = fs::read_to_string(format!("/sys/block/{disk}/dev")).expect("its number");
    let (bps, iops) = (format!("/dev/{disk}:1mb"), format!("/dev/{disk}:100"));
    let options = ["--device-read-bps", &bps, "--device-write-iops", &iops];
    let printed = prints(
        e,
        &options,
        &format!("{CGROUP} cd blkio; cat blkio.throttle.read_bps_device blkio.throttle.write_iops_device"),
    );
    assert_eq!(printed, format!("{0} 1048576\n{0} 100", number.trim()));
}

fn devices_list(e: &Engine) {
    let options = ["--device", "/dev/fuse:/dev/other:rw", "--device-cgroup-rule", "c 7:* r"];
    let printed = prints(e, &options, "ls -l /dev/other | cut -c 1; cat /sys/fs/cgroup/devices/devices.list");
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0], "c");
    for rule in ["c 10:229 rw", "c 7:* r", "c 1:3 rwm", "c 136:* rwm", "c *:* m", "b *:* m"] {
        assert!(lines.contains(&rule), "{rule}: {printed}");
    }
    assert!(!lines.contains(&"a *:* rwm"), "{printed}");
    let denied = run(e, &["--cap-add", "MKNOD"], "mknod /tmp/fuse c 10 229 && cat /tmp/fuse");
    assert!(denied.stderr.contains("Operation not permitted"), "{denied:?}");
}

fn update_changes_limits(e: &Engine) {
    let c =
        Container::sleeping(e, "update", &["--memory", "64m", "--pids-limit", "77", "--device", "/dev/fuse"]);
    let devices = c.cgroup_file("devices", "devices.list");
    c.verb("update", &["--memory", "128m", "--cpus", "0.3", "--cpuset-cpus", "0", "--cpu-shares", "200"])
        .ok();
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), (128 << 20).to_string());
    assert_eq!(c.cgroup_file("cpu", "cpu.cfs_quota_us"), "30000");
    assert_eq!(c.cgroup_file("cpu", "cpu.shares"), "200");
    assert_eq!(c.cgroup_file("cpuset", "cpuset.cpus"), "0");
    c.verb("update", &["--memory", "32m", "--memory-swap", "48m"]).ok();
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), (32 << 20).to_string());
    assert_eq!(c.cgroup_file("memory", "memory.memsw.limit_in_bytes"), (48 << 20).to_string());
    assert_eq!(c.cgroup_file("pids", "pids.max"), "77");
    assert_eq!(c.cgroup_file("devices", "devices.list"), devices);
    assert_eq!(c.prints("cat /sys/fs/cgroup/cpu/cpu.shares"), "200");
}

fn cgroup_parent(e: &Engine) {
    let parent = format!("{}/one/two", e.cgroup);
    let printed =
        prints(e, &["--cgroup-parent", &parent], "grep -E ':(pids|memory|freezer):' /proc/self/cgroup");
    assert_eq!(printed.lines().filter(|l| l.contains(&format!(":{parent}/libpod-"))).count(), 3, "{printed}");
}

fn cgroups_disabled(e: &Engine) {
    let printed = prints(e, &["--cgroups", "disabled"], "cat /proc/self/cgroup");
    assert!(!printed.contains("libpod"), "{printed}");
    let ours = fs::read_to_string("/proc/self/cgroup").expect("our cgroup");
    assert_eq!(printed, ours.trim_end());
}

fn cgroup_namespace(e: &Engine) {
    let private = prints(e, &["--cgroupns", "private"], "cut -d : -f 3 /proc/self/cgroup | sort -u");
    assert_eq!(private, "/");
    let host = prints(e, &["--cgroupns", "host"], "grep -c libpod- /proc/self/cgroup");
    assert!(host.parse::<u32>().expect("a number") > 1, "{host}");
    let read_only = run(e, &[], "mkdir /sys/fs/cgroup/memory/x");
    assert!(read_only.stderr.contains("Read-only file system"), "{read_only:?}");
}

fn ulimit(e: &Engine) {
    let printed = prints(
        e,
        &["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "nproc=4000"],
        "ulimit -n; ulimit -Hn; ulimit -c",
    );
    assert_eq!(printed, "100\n200\n0");
    assert_eq!(prints(e, &[], "ulimit -n; ulimit -Hn"), "2048\n2048");
    let c = Container::sleeping(e, "ulimit", &["--ulimit", "nofile=100:200", "--ulimit", "nproc=4000"]);
    assert_eq!(c.prints("ulimit -n; ulimit -Hn"), "100\n200");
}
