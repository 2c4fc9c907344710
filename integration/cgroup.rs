//! linux.cgroupsPath and linux.resources, against the kernel's cgroupfs of either version.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;

use cgroups::{
    DEVICES, NULL, Own, ROOT, Sleeper, dir, freeze, is_unified, read, settings, sleepers, sleeping, within,
};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{Bundle, ORLOP, cgroups_named, finish, skip, unique, until};

#[test]
fn limits_are_in_force_before_the_program_runs() {
    needs_controllers!("memory", "cpu", "cpuset", "pids", "devices");
    let mut b = sleeping().set(
        "/linux/resources",
        json!({
            "memory": { "limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20 },
            "cpu": { "shares": 512, "quota": 50000, "period": 200000, "burst": 1000, "cpus": "0", "mems": "0" },
            "pids": { "limit": 77 },
        }),
    );
    let burst = if is_unified() { "cpu.max.burst" } else { "cpu.cfs_burst_us" };
    let bursts = cgroups::has_limit("cpu", burst); // Linux 5.14
    if !bursts {
        let what =
            format!("write \"1000\" to {burst}: no such file or directory; this kernel has no such limit");
        b.create().fails(&format!("linux.resources.cpu.burst: {what}"));
        assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
        b = b.unset("/linux/resources/cpu/burst");
    }
    let values = if is_unified() {
        vec![
            ("memory", "memory.max", "67108864"),
            ("memory", "memory.swap.max", "67108864"),
            ("memory", "memory.low", "33554432"),
            ("cpu", "cpu.weight", "59"),
            ("cpu", "cpu.max", "50000 200000"),
        ]
    } else {
        b = b.set("/linux/resources/memory/swappiness", json!(7));
        b = b.set("/linux/resources/memory/disableOOMKiller", json!(true));
        b = b.set("/linux/resources/blockIO", json!({ "weight": 300 }));
        vec![
            ("memory", "memory.limit_in_bytes", "67108864"),
            ("memory", "memory.memsw.limit_in_bytes", "134217728"),
            ("memory", "memory.soft_limit_in_bytes", "33554432"),
            ("memory", "memory.swappiness", "7"),
            ("memory", "memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0"),
            ("cpu", "cpu.shares", "512"),
            ("cpu", "cpu.cfs_quota_us", "50000"),
            ("cpu", "cpu.cfs_period_us", "200000"),
        ]
    };
    b.create().ok();
    let both = [("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.mems", "0"), ("pids", "pids.max", "77")];
    let burst = bursts.then_some(("cpu", burst, "1000"));
    for (controller, file, value) in values.into_iter().chain(both).chain(burst) {
        assert_eq!(read(controller, &b.id, file), value, "{file}");
    }
    let pid = b.state()["pid"].to_string();
    let joined = cgroups_named(&b.id);
    for place in &joined {
        assert_eq!(fs::read_to_string(place.join("cgroup.procs")).unwrap().trim(), pid, "{place:?}");
    }
    assert!(joined.len() >= if is_unified() { 1 } else { 9 }, "{joined:?}");
    b.delete().ok();
    assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
}

#[test]
fn only_keys_that_are_set_are_written() {
    needs_controllers!("memory", "cpu", "pids");
    let b = sleeping().set(
        "/linux/resources",
        json!({ "memory": { "limit": 0, "swap": 0 }, "cpu": { "shares": 0, "quota": 0 }, "pids": {} }),
    );
    b.create().ok();
    let fresh = Own::new("cpu", &format!("{}-fresh", b.id));
    let (cpu, memory) = match is_unified() {
        true => (["cpu.weight", "cpu.max"], "memory.max"),
        false => (["cpu.shares", "cpu.cfs_quota_us"], "memory.limit_in_bytes"),
    };
    for file in cpu {
        assert_eq!(read("cpu", &b.id, file), fs::read_to_string(fresh.0.join(file)).unwrap().trim_end());
    }
    assert_eq!(read("pids", &b.id, "pids.max"), "max");
    let memory = read("memory", &b.id, memory);
    assert!(memory == "max" || memory.len() > 15, "{memory}");
}

#[test]
fn every_file_has_what_runc_writes() {
    needs_controllers!("memory", "devices");
    needs_program!("runc");
    let mut b = sleeping().set(
        "/linux/resources",
        json!({
            "devices": [
                { "allow": false, "access": "rwm" },
                { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm" },
                { "allow": true, "type": "b", "major": 7, "minor": 1, "access": "r" },
            ],
            "memory": { "limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20 },
            "cpu": { "shares": 512, "quota": 50000, "period": 200000, "cpus": "0", "mems": "0" },
            "pids": { "limit": 77 },
        }),
    );
    if is_unified() {
        // Only the ends of the scale are weights of the same value to every runc.
        b = b.set("/linux/resources/cpu/shares", json!(262_144));
    } else {
        b = b.set("/linux/resources/memory/swappiness", json!(7));
        b = b.set("/linux/resources/blockIO", json!({ "weight": 300 }));
    }
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
    assert!(theirs.len() > 30, "{theirs:?}");
}

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
    needs_controllers!("pids");
    let b = Bundle::new()
        .sh("true; echo one; (true); echo two")
        .set("/linux/resources/pids", json!({ "limit": 1 }));
    let out = b.run();
    assert!(out.stdout.contains("one") && !out.stdout.contains("two"), "{out:?}");
}

#[test]
fn a_program_beyond_its_memory_is_killed() {
    needs_controllers!("memory");
    let b = Bundle::new().args(&["tail", "/dev/zero"]);
    let b = b.set("/linux/resources/memory", json!({ "limit": 16 << 20, "swap": 16 << 20 }));
    assert_eq!(b.run().code(), 137);
    assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
}

#[test]
fn memory_that_runs_out_before_the_program_is_named() {
    needs_controllers!("memory");
    let b = Bundle::new().set("/linux/resources/memory", json!({ "limit": 65536 }));
    let out = b.run().fails("was killed by signal 9 before the program ran");
    out.fails("there was an OOM kill, and linux.resources.memory.limit is 65536 bytes");
    b.is_clean();
}

#[test]
fn a_limit_that_the_kernel_refuses_leaves_nothing() {
    needs_controllers!("cpuset", if is_unified() { "io" } else { "blkio" });
    let io = match is_unified() {
        true => "write \"4000:77 rbps=5\" to io.max",
        false => "write \"4000:77 5\" to blkio.throttle.read_bps_device",
    };
    let io = format!(
        "linux.resources.blockIO.throttleReadBpsDevice[0]: {io}: no such device; there is no block device of this number"
    );
    for (at, value, message) in [
        (
            "/linux/resources/cpu",
            json!({ "cpus": "9000" }),
            "linux.resources.cpu.cpus: write \"9000\" to cpuset.cpus: ",
        ),
        (
            "/linux/resources/blockIO",
            json!({ "throttleReadBpsDevice": [{ "major": 4000, "minor": 77, "rate": 5 }] }),
            &io,
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
    let v2 = Path::new(ROOT).join(if is_unified() { "" } else { "unified" });
    let controllers = fs::read_to_string(v2.join("cgroup.controllers")).unwrap_or_default();
    if known == 0 || !controllers.contains("hugetlb") {
        skip("needs huge pages, and cgroup v2 to limit them");
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
    needs_controllers!("pids", "cpuset");
    let name = format!("orlop-test-{}", unique());
    for path in [format!("/{name}/a/b"), format!("{name}/a/b")] {
        let b = sleeping().set("/linux/cgroupsPath", json!(path));
        b.create().ok();
        assert_eq!(read("pids", &name, "a/b/cgroup.procs"), b.state()["pid"].to_string());
        if !is_unified() {
            assert_eq!(read("cpuset", &name, "a/b/cpuset.cpus"), read("cpuset", "", "cpuset.cpus"));
        }
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
    needs_controllers!("pids", "freezer");
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

/// A container that may make cgroups makes them as deep as it likes.
#[test]
fn cgroups_deeper_than_descriptors_reach_hide_no_process() {
    needs_controllers!("pids", "freezer");
    let b = Bundle::new().sh("sleep 1000 & exec sleep 1000").without_namespace("pid");
    b.create().ok();
    b.start().ok();
    let init = b.state()["pid"].to_string();
    let procs = || read("pids", &b.id, "cgroup.procs");
    until("both are there", || procs().lines().count() == 2);
    let child = procs().lines().find(|p| *p != init).unwrap().to_string();
    let deep = |c: &str| (0..100).fold(dir(c, &b.id), |d, _| d.join("d"));
    for c in ["pids", "freezer"] {
        fs::create_dir_all(deep(c)).unwrap();
        fs::write(deep(c).join("cgroup.procs"), &child).unwrap();
    }
    let few = |args: &[&str]| {
        let mut c = Command::new("sh");
        c.args(["-c", "ulimit -n 40; exec \"$@\"", "sh", ORLOP, "--root"]).arg(b.state_root()).args(args);
        finish(c.stdin(Stdio::null())).ok()
    };
    let listed = few(&["ps", "--format", "json", &b.id]).json();
    let is_child = |p: &serde_json::Value| p.as_u64() == child.parse().ok();
    assert!(listed.as_array().unwrap().iter().any(is_child), "{listed}");
    few(&["kill", &b.id, "KILL"]);
    until("it is killed", || fs::read_to_string(deep("pids").join("cgroup.procs")).unwrap().is_empty());
    few(&["delete", &b.id]);
    assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
}

#[test]
fn a_frozen_container_is_deleted_by_force_and_shows_as_paused() {
    needs_controllers!("freezer");
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
        freeze(&frozen);
        if !nested {
            assert_eq!(b.state()["status"], "paused");
        }
        b.delete().ok();
        assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_a_cgroup_above_keeps_from_dying_is_named() {
    needs_version!(1);
    needs_controllers!("freezer");
    let name = format!("orlop-test-{}", unique());
    let above = Own::new("freezer", &name);
    let b = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/x")));
    b.create().ok();
    b.start().ok();
    freeze(&above.0);
    let out = b.delete();
    fs::write(above.0.join("freezer.state"), "THAWED").unwrap();
    out.fails("did not end within 10000 ms of SIGKILL; a cgroup above is frozen");
    b.delete().ok();
}

#[test]
fn a_cgroup_that_others_use_is_refused_and_left_alone() {
    needs_controllers!("pids", "freezer");
    let name = format!("orlop-test-{}", unique());
    let own = Own::new("pids", &name);
    let mut other = Sleeper::new();
    other.enter(&own.0);
    let b = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}")));
    b.create().fails(&format!("{} is not empty: {} (sleep)", own.0.display(), other.0.id()));
    b.delete().ok();
    assert!(other.is_alive());
    assert_eq!(cgroups_named(&name), std::slice::from_ref(&own.0));
    drop(other);

    until("it is empty", || fs::read_to_string(own.0.join("cgroup.procs")).unwrap().is_empty());
    b.create().ok();
    b.delete().ok();
    assert_eq!(cgroups_named(&name), std::slice::from_ref(&own.0), "what was there before stays");

    let cold = Own::new("freezer", &name);
    freeze(&cold.0);
    b.create().fails("is frozen");
    let below = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/below")));
    below.create().fails("is frozen");
    assert!(!cold.0.join("below").exists());
}

/// runtime.md#delete: what create did not make must not be deleted, and who made what is in there is not known.
#[test]
fn what_is_in_a_cgroup_that_was_there_before_stays_with_it() {
    needs_controllers!("pids", "freezer", "memory");
    let name = format!("orlop-test-{}", unique());
    let all = |below: &str| ["pids", "freezer", "memory"].map(|c| Own::new(c, &format!("{name}{below}")));
    let (_whole, mine) = (all(""), all("/mine"));
    let b = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}")));
    b.create().ok();
    b.start().ok();
    let later = all("/later");
    for own in &later {
        fs::write(own.0.join("cgroup.procs"), b.state()["pid"].to_string()).unwrap();
    }
    b.delete().ok();
    for own in mine.iter().chain(&later) {
        let procs = fs::read_to_string(own.0.join("cgroup.procs"));
        assert_eq!(procs.expect("it stays"), "", "{:?}", own.0);
    }
}

/// A container that may write to cgroups can leave one hierarchy's and stay in another's.
#[test]
fn a_process_in_one_hierarchy_alone_ends_with_the_container() {
    needs_controllers!("pids", "freezer");
    let b = sleeping();
    b.create().ok();
    b.start().ok();
    let mut stray = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(dir("pids", &b.id).join("cgroup.procs"), stray.id().to_string()).unwrap();
    b.verb("delete", &["--force"]).ok();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&stray.wait().unwrap()), Some(9));
    b.is_clean();
}

/// As with kill(2) of all processes; a fork bomb has to be met by SIGKILL.
#[test]
fn what_a_program_starts_in_answer_to_a_signal_does_not_get_it() {
    needs_root!();
    needs_program!("strace");
    let b = Bundle::new()
        .sh("trap 'sleep 1000 & echo > /got' USR1; echo > /ready; while :; do sleep 0.02; done")
        .set("/root/readonly", json!(false));
    b.create().ok();
    b.start().ok();
    until("its trap", || b.rootfs().join("ready").exists());
    // Time for the answer, before we look again.
    let mut kill = Command::new("strace");
    kill.args([
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=pidfd_send_signal:delay_exit=300000",
        ORLOP,
        "--root",
    ]);
    finish(kill.arg(b.state_root()).args(["kill", "--all", &b.id, "USR1"])).ok();
    until("the answer", || b.rootfs().join("got").exists());
    assert!(finish(&mut b.orlop(["ps", &b.id])).ok().stdout.contains(" sleep 1000\n"));
    b.verb("delete", &["--force"]).ok();
}

#[test]
fn two_containers_do_not_share_a_cgroup() {
    needs_controllers!("pids");
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
    until("the bomb is off", || fs::read_to_string(&procs).unwrap().lines().count() > 12);
    run(&["delete", "--force", &b.id]);
    assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
}

#[test]
fn a_fork_bomb_is_killed_in_seconds() {
    needs_controllers!("pids", "freezer");
    leaves_no_process(None);
}

#[test]
fn a_fork_bomb_is_killed_without_the_kernels_help() {
    needs_version!(1);
    // No cgroup.kill: the v1 freezer has to do.
    leaves_no_process(Some("umount /sys/fs/cgroup/unified 2>/dev/null || true"));
}

#[test]
fn signals_for_all_reach_every_process() {
    needs_controllers!("pids");
    let script =
        "trap '' TERM; sleep 1000 & setsid sleep 1000 & (sleep 1000 & sleep 1000 &) ; wait; sleep 1000";
    let b = Bundle::new().sh(script).without_namespace("pid");
    b.create().ok();
    b.start().ok();
    let count = || fs::read_to_string(dir("pids", &b.id).join("cgroup.procs")).unwrap().lines().count();
    until("all are there", || sleepers(&dir("pids", &b.id)) == 4);
    finish(&mut b.orlop(["kill", "--all", &b.id, "KILL"])).ok();
    until("all are gone", || count() == 0);
    b.delete().ok();
}

/// Of a host with the controllers on v1: what each property leaves in its file, or, of a controller or file that this host
/// lacks, the message.
#[test]
fn what_v1_has_holds_and_what_it_lacks_is_named() {
    needs_version!(1);
    needs_controllers!("memory", "cpu", "blkio");
    let disk = fs::read_dir("/sys/block")
        .unwrap()
        .flatten()
        .find_map(|d| fs::read_to_string(d.path().join("dev")).ok());
    let disk = disk.expect("a block device").trim().to_string();
    let (major, minor) =
        disk.split_once(':').map(|(a, b)| (a.parse::<u32>().unwrap(), b.parse::<u32>().unwrap())).unwrap();
    let rate = || json!([{ "major": major, "minor": minor, "rate": 1 << 20 }]);
    let line = format!("{disk} 1048576");
    let priorities = json!([{ "name": "lo", "priority": 5 }]);
    for (property, value, file, holds) in [
        ("memory.kernelTCP", json!(1 << 20), "memory.kmem.tcp.limit_in_bytes", "1048576"),
        ("memory.swappiness", json!(0), "memory.swappiness", "0"),
        ("memory.useHierarchy", json!(true), "memory.use_hierarchy", "1"),
        ("cpu.idle", json!(1), "cpu.idle", "1"),
        ("blockIO.leafWeight", json!(300), "blkio.leaf_weight", "300"),
        ("blockIO.throttleReadBpsDevice[0]", rate(), "blkio.throttle.read_bps_device", &line),
        ("blockIO.throttleWriteBpsDevice[0]", rate(), "blkio.throttle.write_bps_device", &line),
        ("blockIO.throttleReadIOPSDevice[0]", rate(), "blkio.throttle.read_iops_device", &line),
        ("blockIO.throttleWriteIOPSDevice[0]", rate(), "blkio.throttle.write_iops_device", &line),
        (
            "hugepageLimits[0]",
            json!([{ "pageSize": "2MB", "limit": 4 << 20 }]),
            "hugetlb.2MB.limit_in_bytes",
            "4194304",
        ),
        ("network.classID", json!(1_048_577), "net_cls.classid", "1048577"),
        ("network.priorities[0]", priorities, "net_prio.ifpriomap", "lo 5"),
        ("rdma[\"nonesuch\"]", json!({ "nonesuch": { "hcaHandles": 3 } }), "rdma.max", "no such device"),
    ] {
        let (controller, _) = file.split_once('.').unwrap();
        let (path, _) = property.split_once('[').unwrap_or((property, ""));
        let b = sleeping().set(&format!("/linux/resources/{}", path.replace('.', "/")), value);
        let out = b.create();
        // Huge pages are limited by v2 on a hybrid host that has them there.
        let on_v2 = Path::new(ROOT).join("unified").join(&b.id).join("hugetlb.2MB.max");
        if controller == "hugetlb" && on_v2.exists() {
            out.ok();
            assert_eq!(fs::read_to_string(on_v2).unwrap().trim_end(), holds);
        } else if !cgroups::has_controller(controller) {
            let what = format!("needs the cgroup controller {controller:?}, which this host does not have");
            out.fails(&format!("linux.resources.{property}: {what}"));
        } else if file == "blkio.leaf_weight" && !out.status.success() {
            out.fails("linux.resources.blockIO.leafWeight: write \"300\" to blkio.leaf_weight: no such file or directory");
        } else if controller == "rdma" {
            out.fails(&format!("linux.resources.{property}: write \"nonesuch hca_handle=3\" to rdma.max: "));
        } else {
            out.ok();
            let text = read(controller, &b.id, file);
            assert!(text.lines().any(|l| l.trim() == holds), "{file}: {text}");
        }
        b.delete().ok();
        assert_eq!(cgroups_named(&b.id), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_no_v1_host_can_do_is_named() {
    needs_version!(1);
    needs_controllers!("memory", "blkio");
    let none = json!({ "weightDevice": [{ "major": 4000, "minor": 77, "weight": 500 }] });
    sleeping()
        .set("/linux/resources/blockIO", none)
        .create()
        .fails("linux.resources.blockIO.weightDevice[0]: write \"4000:77 500\" to blkio.");
    let unified = sleeping().set("/linux/resources/unified", json!({ "pids.max": "5" }));
    unified.create().fails("linux.resources.unified[\"pids.max\"]: needs a host with cgroup v2 alone");
    let kernel = sleeping().set("/linux/resources/memory", json!({ "kernel": 64 << 20 }));
    assert!(kernel.create().ok().stderr.contains("linux.resources.memory.kernel: ignored, "));
}
