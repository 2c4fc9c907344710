//! update: the order of writes that the kernel checks against each other, what is refused, and what is put back then.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;
#[path = "support/update.rs"]
mod verb;

use cgroups::{Own, dir, is_unified, read, settings, sleeping};
use serde_json::json;
use std::fs;
use support::{Bundle, skip, unique, until};
use verb::{has, limits, running, update, update_by};

#[test]
fn both_versions_of_memory_and_swap_grow_and_shrink_together() {
    needs_controllers!("memory");
    let b = running(json!({ "memory": { "limit": 64 << 20, "swap": 64 << 20 } }));
    // Both grow beyond the old sum, both shrink below the old limit, they cross, they become none and some.
    for (limit, swap) in [
        (256, 512),
        (32, 48),
        (48, 48),
        (512, 512),
        (64, 1024),
        (900, 1000),
        (-1, -1),
        (32, 32),
        (64, -1),
        (32, 64),
    ] {
        let bytes = |n: i64| if n < 0 { "-1".to_string() } else { (n << 20).to_string() };
        update(&b, &["--memory", &bytes(limit), "--memory-swap", &bytes(swap)]).ok();
        let v1 = |n: i64| if n < 0 { 9_223_372_036_854_771_712 } else { n << 20 }.to_string();
        let v2 = |n: i64| if n < 0 { "max".to_string() } else { (n << 20).to_string() };
        let (files, values) = match is_unified() {
            true => {
                (["memory.max", "memory.swap.max"], [v2(limit), v2(if swap < 0 { -1 } else { swap - limit })])
            }
            false => (["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"], [v1(limit), v1(swap)]),
        };
        for (file, value) in files.iter().zip(values) {
            assert_eq!(read("memory", &b.id, file), value, "{file} of {limit} and {swap}");
        }
    }
}

#[test]
fn quota_and_period_change_between_a_parent_and_a_child_with_limits() {
    needs_version!(1);
    needs_controllers!("cpu");
    let name = format!("orlop-test-{}", unique());
    let above = Own::new("cpu", &name);
    fs::write(above.0.join("cpu.cfs_quota_us"), "50000").expect("half of a CPU");
    let b = sleeping()
        .set("/linux/cgroupsPath", json!(format!("/{name}/c")))
        .set("/linux/resources/cpu", json!({ "quota": 50000, "period": 100000, "burst": 20000 }));
    b.create().ok();
    let own = above.0.join("c");
    let _below = Own::new("cpu", &format!("{name}/c/below"));
    let read = |file: &str| fs::read_to_string(own.join(file)).expect("it is there").trim().to_string();
    // The child has a tenth: the container may have a tenth to a half, at every moment.
    fs::write(own.join("below/cpu.cfs_quota_us"), "10000").expect("a tenth");
    for (quota, period, burst) in [
        ("5000", "10000", "0"), // half as before: neither value can go first
        ("500000", "1000000", "100000"),
        ("100000", "1000000", "100000"),
        ("1000", "10000", "1000"),
        ("50000", "100000", "50000"),
        ("-1", "20000", "0"),
        ("2000", "20000", "2000"),
        ("-1", "1000000", "700000"),
        ("100000", "1000000", "0"),
    ] {
        update(&b, &["--cpu-quota", quota, "--cpu-period", period, "--cpu-burst", burst]).ok();
        let is = ["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"].map(read);
        assert_eq!(is, [quota, period, burst]);
    }
    let message = "--cpu-quota: write \"50000\" to cpu.cfs_quota_us: invalid argument; a cgroup above allows less, or one below has more";
    update(&b, &["--cpu-quota", "600000"]).fails(&message.replace("50000", "600000"));
    update(&b, &["--cpu-quota", "50000", "--cpu-period", "1000000"]).fails(message);
    let is = ["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"].map(read);
    assert_eq!(is, ["100000", "1000000", "0"], "what could be changed is changed back");
    fs::remove_dir(own.join("below")).expect("rmdir");
    b.delete().ok();
}

#[test]
fn real_time_limits_change_in_the_order_that_the_kernel_takes() {
    needs_version!(1);
    let b = running(json!({}));
    let file = |f: &str| read("cpu", &b.id, f);
    if !dir("cpu", &b.id).join("cpu.rt_runtime_us").exists() {
        skip("the kernel has no real-time groups");
        return;
    }
    for (runtime, period) in [("5000", "2000000"), ("4000", "4500"), ("9000", "3000000")] {
        let out = update(&b, &["--cpu-rt-runtime", runtime, "--cpu-rt-period", period]);
        if out.stderr.contains("no real-time budget left") {
            skip("no real-time budget for another cgroup");
            return;
        }
        out.ok();
        assert_eq!(
            (file("cpu.rt_runtime_us").as_str(), file("cpu.rt_period_us").as_str()),
            (runtime, period)
        );
    }
    update(&b, &["--cpu-rt-runtime", "4000000"])
        .fails("--cpu-rt-runtime: write \"4000000\" to cpu.rt_runtime_us: invalid argument");
}

/// Every setting that an update could change, the container's own and its memory left out.
fn unchanged(before: &std::collections::BTreeMap<String, String>, b: &Bundle, why: &str) {
    for (file, value) in settings(&b.id) {
        assert_eq!(before.get(&file), Some(&value), "{file} after {why}");
    }
}

#[test]
fn a_value_that_is_refused_leaves_all_others_as_they_were() {
    needs_controllers!("memory", "cpu", "cpuset", "pids", if is_unified() { "io" } else { "blkio" });
    let b = running(limits());
    let before = settings(&b.id);
    let (io, cpuset) = match is_unified() {
        true => ("io.max: no such device", "cpuset.cpus: "),
        false => ("blkio.throttle.write_iops_device: no such device", "cpuset.cpus: "),
    };
    let disk = fs::read_dir("/sys/block").unwrap().flatten();
    let disk = disk.filter(|d| !d.file_name().to_string_lossy().starts_with("zram")).find_map(|d| {
        let number = fs::read_to_string(d.path().join("dev")).ok()?;
        let (major, minor) = number.trim().split_once(':')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    let (major, minor) = disk.expect("a block device");
    // Linux 5.14 and 5.15; what is null is not given.
    let there = |file: &str| dir("cpu", &b.id).join(file).exists();
    let bursts = there(if is_unified() { "cpu.max.burst" } else { "cpu.cfs_burst_us" });
    let burst = bursts.then_some(5000);
    let idle = there("cpu.idle").then_some(1);
    for (resources, at, message) in [
        (
            json!({
                "memory": { "limit": 32 << 20, "swap": 256 << 20, "reservation": 1 << 20 },
                "cpu": { "shares": 99, "quota": 7000, "period": 20000, "burst": burst, "cpus": "9000" },
                "pids": { "limit": 5 },
            }),
            "linux.resources.cpu.cpus: write \"9000\" to ",
            cpuset,
        ),
        (
            json!({
                "memory": { "limit": 1 << 30, "swap": 1i64 << 31, "disableOOMKiller": !is_unified() },
                "cpu": { "quota": -1, "cpus": "0", "idle": idle },
                "pids": { "limit": -1 },
                "blockIO": {
                    "throttleReadBpsDevice": [{ "major": major, "minor": minor, "rate": 1 << 20 }],
                    "throttleWriteIOPSDevice": [
                        { "major": major, "minor": minor, "rate": 77 }, { "major": 4000, "minor": 77, "rate": 5 }
                    ],
                },
            }),
            "linux.resources.blockIO.throttleWriteIOPSDevice[1]: write \"4000:77 ",
            io,
        ),
    ] {
        let out = update_by(&b, &resources);
        assert!(out.stderr.contains(message), "{}", out.stderr);
        assert!(!out.stderr.contains("applied"), "{}", out.stderr);
        out.fails(at);
        unchanged(&before, &b, &resources.to_string());
    }
    // What can be told beforehand writes nothing at all.
    for (flags, message) in [
        ("--memory 1G --memory-swap 1M", "--memory-swap: 1048576 is below --memory 1073741824"),
        (
            "--memory 32M --memory-reservation 64M",
            "--memory-reservation: 67108864 is above --memory 33554432",
        ),
        ("--memory-swap 1M", "--memory-swap: 1048576 is below --memory 67108864"),
        ("--memory -5", "--memory: \"-5\" is no number of bytes like 67108864 or 64M"),
        ("--memory 1X", "--memory: \"1X\" is no number of bytes like 67108864 or 64M"),
        ("--pids-limit 3 --cpu-quota 5", "--cpu-quota: 5 is below 1000 microseconds"),
        ("--cpu-period 5", "--cpu-period: 5 is not in 1000-1000000 microseconds"),
        ("--cpu-burst 60000", "--cpu-burst: 60000 is above --cpu-quota 50000"),
        ("--cpu-idle 2", "--cpu-idle: 2 is neither 0 nor 1"),
        ("--cpuset-cpus 1-0", "--cpuset-cpus: \"1-0\" has the range 1-0, which runs backwards"),
        ("--cpuset-mems x", "--cpuset-mems: \"x\" has \"x\", which is neither a number nor a range"),
        ("--blkio-weight 9", "--blkio-weight: 9 is not in 10-1000"),
        ("--pids-limit -2", "--pids-limit: -2 is below -1 (unlimited)"),
        (
            "--l3-cache-schema L3:0=f",
            "--l3-cache-schema: linux.intelRdt was not set when the container was created",
        ),
        (
            "--mem-bw-schema MB:0=20",
            "--mem-bw-schema: linux.intelRdt was not set when the container was created",
        ),
    ] {
        update(&b, &flags.split(' ').collect::<Vec<_>>()).fails(message);
        unchanged(&before, &b, flags);
    }
    if bursts {
        update(&b, &["--cpu-burst", "40000"]).ok();
        update(&b, &["--cpu-quota", "30000"])
            .fails("--cpu-quota: 30000 is below the --cpu-burst in force, 40000");
    }
    if !is_unified() {
        let message = "--memory: 268435456 is above the memory.swap in force, 134217728; it counts memory and swap, and has to grow too";
        update(&b, &["--memory", "256M"]).fails(&message.replace("memory.swap", "--memory-swap"));
    }
}

#[test]
fn what_the_kernel_says_is_explained() {
    needs_controllers!("memory", "cpu");
    let b = Bundle::new()
        .sh("trap exit TERM; a=$(yes abcdefghij | head -n 400000); echo > /tmp/ready; sleep 1000 & wait");
    let b = b.set("/root/readonly", json!(false));
    b.create().ok();
    b.start().ok();
    until("it uses memory", || b.rootfs().join("tmp/ready").exists());
    if is_unified() {
        let resources = json!({ "memory": { "limit": 1 << 20, "checkBeforeUpdate": true } });
        let out = update_by(&b, &resources);
        assert!(out.stderr.contains(" bytes in use; memory.checkBeforeUpdate is set"), "{}", out.stderr);
        out.fails("linux.resources.memory.limit: 1048576 is below the ");
        assert_eq!(read("memory", &b.id, "memory.max"), "max");
    } else {
        let message = "--memory: write \"65536\" to memory.limit_in_bytes: device or resource busy; more than that is in use";
        update(&b, &["--memory", "65536"]).fails(message);
    }
    if dir("cpu", &b.id).join("cpu.idle").exists() {
        update(&b, &["--cpu-idle", "1"]).ok();
        let file = if is_unified() { "cpu.weight" } else { "cpu.shares" };
        update(&b, &["--cpu-share", "262144"])
            .fails(&format!("to {file}: invalid argument; an idle cgroup takes no shares"));
    } else {
        let message =
            "--cpu-idle: write \"1\" to cpu.idle: no such file or directory; this kernel has no such limit";
        update(&b, &["--cpu-idle", "1"]).fails(message);
    }
    let weight = update(&b, &["--blkio-weight", "300"]);
    let there = ["blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight"];
    let io = dir(if is_unified() { "io" } else { "blkio" }, &b.id);
    match there.iter().any(|f| io.join(f).exists()) {
        true => drop(weight.ok()),
        false => drop(weight.fails("; no I/O scheduler or cost model here takes weights")),
    }
}

#[test]
fn updates_at_once_all_come_to_be() {
    needs_controllers!("memory", "cpu", "pids");
    let b = running(limits());
    std::thread::scope(|s| {
        for n in 0..6 {
            let b = &b;
            s.spawn(move || {
                for turn in 0..4 {
                    let size = 64 + 16 * ((n + turn) % 5);
                    let (limit, swap) = (format!("{size}M"), format!("{}M", size + n));
                    update(b, &["--memory", &limit, "--memory-swap", &swap, "--cpu-quota", "20000"]).ok();
                }
            });
        }
    });
    update(&b, &["--memory", "64M", "--memory-swap", "65M"]).ok();
    let file = if is_unified() {
        "memory memory.swap.max=1048576"
    } else {
        "memory memory.memsw.limit_in_bytes=68157440"
    };
    has(&b, &[file], "all");
}

#[test]
fn what_cannot_be_undone_is_named() {
    needs_version!(2);
    needs_controllers!("memory", "pids");
    let b = running(json!({ "pids": { "limit": 77 } }));
    if !dir("", &b.id).join("memory.reclaim").exists() {
        skip("the kernel has no memory.reclaim");
        return;
    }
    let message = "linux.resources.unified[\"pids.max\"]: write \"x\" to pids.max: invalid argument; \
                   applied before that, and not to be undone: linux.resources.unified[\"memory.reclaim\"]";
    let unified = json!({ "memory.high": "50331648", "memory.reclaim": "0", "pids.max": "x" });
    update_by(&b, &json!({ "cpu": { "shares": 2 }, "unified": unified })).fails(message);
    has(&b, &["memory memory.high=max", "cpu cpu.weight=100", "pids pids.max=77"], "an error");
}
