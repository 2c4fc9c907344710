//! Units of a real systemd, the system's.

use crate::cgroups::{DEVICES, NULL, Sleeper, is_unified, within};
use crate::support::{Bundle, Outcome, finish, skip, unique, until};
use crate::{cgroups_of, create, dir, making, property, systemctl, unit_of};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

fn exists(unit: &str) -> bool {
    systemctl(&["show", "-p", "LoadState", unit]).stdout.contains("LoadState=loaded")
}

/// Neither the unit nor a cgroup of its name is left.
#[track_caller]
fn is_gone(b: &Bundle, unit: &str) {
    until("unit and cgroups are gone", || !exists(unit) && cgroups_of(unit).is_empty());
    b.is_clean();
}

/// A file of the container's cgroup, below this path.
#[track_caller]
fn file(controller: &str, path: &str, name: &str) -> String {
    let file = dir(controller, path).join(name);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_string()
}

fn reload() {
    systemctl(&["daemon-reload"]).ok();
}

#[test]
fn a_scope_in_the_slice_has_the_container_and_goes_with_it() {
    needs_systemd!();
    let b = Bundle::sleeping();
    let unit = unit_of(&b);
    create(&b).ok();
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "Slice"), "system.slice");
    assert_eq!(property(&unit, "Delegate"), "yes");
    assert_eq!(property(&unit, "ControlGroup"), format!("/system.slice/{unit}"));
    assert!(property(&unit, "Description").starts_with(&format!("container {}, on record in /", b.id)));
    let pid = b.state()["pid"].to_string();
    for controller in ["memory", "pids", "cpu", "freezer", "systemd"].iter().filter(|c| dir(c, "/").exists())
    {
        assert_eq!(file(controller, &format!("/system.slice/{unit}"), "cgroup.procs"), pid, "{controller}");
    }
    b.start().ok();
    assert_eq!(b.state()["status"], "running");
    b.delete().ok();
    is_gone(&b, &unit);
}

#[test]
fn without_a_bus_systemds_own_socket_will_do() {
    needs_systemd!();
    let b = Bundle::sleeping();
    b.write();
    let orlop = |args: &[&str]| {
        let mut c = within(Some("mount -t tmpfs none /run/dbus"));
        finish(c.arg("--root").arg(b.state_root()).args(args))
    };
    orlop(&["--systemd-cgroup", "create", "--bundle", b.path().to_str().unwrap(), &b.id]).ok();
    assert_eq!(property(&unit_of(&b), "ActiveState"), "active");
    orlop(&["start", &b.id]).ok();
    orlop(&["update", "--pids-limit", "33", &b.id]).ok();
    assert_eq!(property(&unit_of(&b), "TasksMax"), "33");
    orlop(&["delete", "--force", &b.id]).ok();
    is_gone(&b, &unit_of(&b));
}

#[test]
fn run_in_the_foreground_leaves_no_unit() {
    needs_systemd!();
    let b = Bundle::new().sh("cat /proc/self/cgroup; exit 3").without_namespace("cgroup");
    let out = finish(&mut making(&b, "run"));
    assert_eq!(out.code(), 3, "{}", out.stderr);
    let end = format!(":/system.slice/{}", unit_of(&b));
    assert!(out.stdout.lines().all(|l| l.ends_with(&end) || l.ends_with(":/")), "{}", out.stdout);
    assert!(out.stdout.contains(&end), "{}", out.stdout);
    is_gone(&b, &unit_of(&b));
}

#[test]
fn slices_are_nested_by_their_names() {
    needs_systemd!();
    let (tag, id) = (format!("ot{}", unique().replace('-', "x")), unique());
    for (path, unit, cgroup) in [
        (
            format!("{tag}-b.slice:p:{id}"),
            format!("p-{id}.scope"),
            format!("/{tag}.slice/{tag}-b.slice/p-{id}.scope"),
        ),
        (format!("-.slice:p:{id}"), format!("p-{id}.scope"), format!("/p-{id}.scope")),
        (format!("::{id}"), format!("-{id}.scope"), format!("/system.slice/-{id}.scope")),
        (format!(":memory:{id}"), format!("memory-{id}.scope"), format!("/system.slice/memory-{id}.scope")),
        (
            format!("{tag}.slice:p:{tag}-c.slice"),
            format!("{tag}-c.slice"),
            format!("/{tag}.slice/{tag}-c.slice"),
        ),
    ] {
        let b = Bundle::sleeping().set("/linux/cgroupsPath", json!(path));
        create(&b).ok();
        assert_eq!(property(&unit, "ControlGroup"), cgroup, "{path}");
        assert_eq!(file("memory", &cgroup, "cgroup.procs"), b.state()["pid"].to_string(), "{path}");
        b.start().ok();
        b.delete().ok();
        until("it is gone", || cgroups_of(&unit).is_empty());
        b.is_clean();
    }
    let _ = systemctl(&["stop", &format!("{tag}.slice")]);
}

/// Every limit with a property: what systemd says, and what the kernel does.
fn limits() -> (Value, Vec<[&'static str; 2]>, Vec<[&'static str; 3]>) {
    const MIB: u64 = 1 << 20;
    let mut limits = json!({
        "memory": { "limit": 128 * MIB, "reservation": 64 * MIB },
        "cpu": { "shares": 512, "quota": 25000, "period": 50000, "cpus": "0", "mems": "0" },
        "pids": { "limit": 77 },
    });
    if is_unified() {
        limits["memory"]["swap"] = json!(192 * MIB);
        limits["unified"] =
            json!({ "memory.high": "120000512", "memory.min": "4096", "memory.oom.group": "1" });
        let properties = vec![
            ["MemoryMax", "134217728"],
            ["MemoryLow", "67108864"],
            ["MemorySwapMax", "67108864"],
            ["MemoryHigh", "120000512"],
            ["MemoryMin", "4096"],
            ["CPUWeight", "59"],
            ["CPUQuotaPerSecUSec", "500ms"],
            ["CPUQuotaPeriodUSec", "50ms"],
            ["AllowedCPUs", "0"],
            ["AllowedMemoryNodes", "0"],
            ["TasksMax", "77"],
            ["OOMPolicy", "kill"],
        ];
        let files = vec![
            ["", "memory.max", "134217728"],
            ["", "memory.low", "67108864"],
            ["", "memory.swap.max", "67108864"],
            ["", "memory.high", "120000512"],
            ["", "memory.min", "4096"],
            ["", "memory.oom.group", "1"],
            ["", "cpu.weight", "59"],
            ["", "cpu.max", "25000 50000"],
            ["", "cpuset.cpus", "0"],
            ["", "cpuset.mems", "0"],
            ["", "pids.max", "77"],
        ];
        return (limits, properties, files);
    }
    let properties = vec![
        ["MemoryLimit", "134217728"],
        ["CPUShares", "512"],
        ["CPUQuotaPerSecUSec", "500ms"],
        ["CPUQuotaPeriodUSec", "50ms"],
        ["TasksMax", "77"],
    ];
    let files = vec![
        ["memory", "memory.limit_in_bytes", "134217728"],
        ["memory", "memory.soft_limit_in_bytes", "67108864"],
        ["cpu", "cpu.shares", "512"],
        ["cpu", "cpu.cfs_quota_us", "25000"],
        ["cpu", "cpu.cfs_period_us", "50000"],
        ["cpuset", "cpuset.cpus", "0"],
        ["cpuset", "cpuset.mems", "0"],
        ["pids", "pids.max", "77"],
    ];
    (limits, properties, files)
}

#[test]
fn limits_are_properties_and_files_and_survive_a_reload() {
    needs_systemd!();
    let (limits, properties, files) = limits();
    let mut b = Bundle::sleeping();
    for (key, value) in limits.as_object().unwrap() {
        b.config["linux"]["resources"][key] = value.clone();
    }
    let unit = unit_of(&b);
    create(&b).ok();
    b.start().ok();
    for how in ["created", "daemon-reload", "daemon-reexec"] {
        if how != "created" {
            systemctl(&[how]).ok();
        }
        for [name, value] in &properties {
            assert_eq!(property(&unit, name), *value, "{how}: {name}");
        }
        for [controller, name, value] in &files {
            assert_eq!(file(controller, &format!("/system.slice/{unit}"), name), *value, "{how}: {name}");
        }
    }
    b.delete().ok();
    is_gone(&b, &unit);
}

#[test]
fn an_update_survives_a_reload() {
    needs_systemd!();
    let b = Bundle::sleeping();
    let (unit, path) = (unit_of(&b), format!("/system.slice/{}", unit_of(&b)));
    create(&b).ok();
    b.start().ok();
    b.verb(
        "update",
        &["--memory", "100M", "--cpu-quota", "12345", "--pids-limit", "33", "--cpuset-cpus", "0"],
    )
    .ok();
    let (memory, cpu) = match is_unified() {
        true => (("MemoryMax", "memory.max"), ("cpu.max", "12345 100000")),
        false => (("MemoryLimit", "memory.limit_in_bytes"), ("cpu.cfs_quota_us", "12345")),
    };
    // Exact, though systemd keeps whole percents.
    assert_eq!(file("cpu", &path, cpu.0), cpu.1);
    reload();
    assert_eq!(property(&unit, "TasksMax"), "33");
    assert_eq!(property(&unit, memory.0), "104857600");
    assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "130ms");
    assert_eq!(file("memory", &path, memory.1), "104857600");
    assert_eq!(file("pids", &path, "pids.max"), "33");
    assert_eq!(file("cpuset", &path, "cpuset.cpus"), "0");
    // A period alone keeps the quota in force, which a reload may have rounded.
    b.verb("update", &["--cpu-period", "50000"]).ok();
    assert_eq!(property(&unit, "CPUQuotaPeriodUSec"), "50ms");
    assert!(["250ms", "260ms"].contains(&property(&unit, "CPUQuotaPerSecUSec").as_str()));
    // One that the kernel refuses changes nothing, of what systemd knows either.
    b.verb("update", &["--pids-limit", "44", "--cpuset-cpus", "4000"]).fails("--cpuset-cpus");
    assert_eq!(property(&unit, "TasksMax"), "33");
    assert_eq!(file("pids", &path, "pids.max"), "33");
}

/// Which devices may be made and opened, seen from inside, at every stage.
#[test]
fn device_rules_hold_through_updates_and_reloads() {
    needs_systemd!();
    let deny = json!([{ "allow": false, "access": "rwm" }]);
    let b = Bundle::sleeping().set("/linux/resources/devices", deny);
    let b = ["bounding", "effective", "permitted"]
        .iter()
        .fold(b, |b, set| b.set(&format!("/process/capabilities/{set}/-"), json!("CAP_MKNOD")));
    create(&b).ok();
    b.start().ok();
    let other = "passed mknod loop\nrefused read loop\nrefused write loop\n";
    let script = format!("rm -f /dev/xnull /dev/xloop; {DEVICES}");
    let check = |when: &str| {
        let out = b.verb("exec", &["sh", "-c", &script]).ok().stdout;
        assert_eq!(out, format!("{NULL}{other}"), "{when}");
    };
    check("created");
    b.verb("update", &["--pids-limit", "33"]).ok();
    check("updated");
    reload();
    check("reloaded");
    b.verb("update", &["--memory", "100M"]).ok();
    systemctl(&["daemon-reexec"]).ok();
    check("executed again");
}

#[test]
fn annotations_are_properties_of_the_unit() {
    needs_systemd!();
    let annotations = json!({
        "org.systemd.property.TimeoutStopSec": "7",
        "org.systemd.property.CollectMode": "'inactive'",
        "org.systemd.property.Description": "'as asked'",
    });
    let b = Bundle::sleeping().set("/annotations", annotations);
    let unit = unit_of(&b);
    create(&b).ok();
    assert_eq!(property(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(property(&unit, "CollectMode"), "inactive");
    assert!(property(&unit, "Description").starts_with("as asked (container "));
    b.delete().ok();
    is_gone(&b, &unit);
    let b = Bundle::sleeping().set("/annotations", json!({ "org.systemd.property.NoSuchThing": "true" }));
    create(&b).fails("annotations[\"org.systemd.property.NoSuchThing\"]: systemd refuses the unit");
    is_gone(&b, &unit_of(&b));
    let b = Bundle::sleeping().set("/annotations", json!({ "org.systemd.property.CollectMode": "true" }));
    create(&b).fails("systemd refuses the unit");
    is_gone(&b, &unit_of(&b));
}

#[test]
fn exec_joins_the_unit() {
    needs_systemd!();
    let b = Bundle::sleeping();
    create(&b).ok();
    b.start().ok();
    let file_of = b.path().join("pid");
    b.verb("exec", &["--detach", "--pid-file", file_of.to_str().unwrap(), "sleep", "1000"]).ok();
    let pid = fs::read_to_string(file_of).unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let init = fs::read_to_string(format!("/proc/{}/cgroup", b.state()["pid"])).unwrap();
    assert_eq!(text, init);
    assert!(text.contains(&format!(":/system.slice/{}\n", unit_of(&b))), "{text}");
    b.delete().ok();
    is_gone(&b, &unit_of(&b));
}

#[test]
fn a_restored_container_is_in_a_unit_again() {
    needs_systemd!();
    if !Command::new("criu").arg("check").output().is_ok_and(|o| o.status.success()) {
        return skip("needs a criu that works on this kernel");
    }
    let b =
        Bundle::new().sh("while :; do sleep 1; done").set("/linux/resources/pids", json!({ "limit": 77 }));
    let unit = unit_of(&b);
    // Its streams are pipes: files of the host are nothing for criu.
    let begin = |c: &mut Command| {
        let mut child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
        let (output, mut words) = (child.stdout.take(), child.stderr.take().expect("stderr"));
        let status = child.wait().expect("wait");
        let mut error = String::new();
        if !status.success() {
            words.read_to_string(&mut error).expect("UTF-8");
        }
        assert!(status.success(), "{status}: {error}");
        (output, words)
    };
    let _streams = begin(making(&b, "run").arg("--detach"));
    let images = b.path().join("images");
    finish(b.orlop(["checkpoint", "--image-path"]).arg(&images).arg(&b.id)).ok();
    is_gone(&b, &unit);

    let mut c = b.orlop(["--systemd-cgroup", "restore", "--detach", "--bundle"]);
    let _streams = begin(c.arg(b.path()).arg("--image-path").arg(&images).arg(&b.id));
    assert_eq!(b.state()["status"], "running");
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "TasksMax"), "77");
    assert_eq!(property(&unit, "ControlGroup"), format!("/system.slice/{unit}"));
    // A shell and what it waits for; criu is not among them.
    let pid = b.state()["pid"].to_string();
    for controller in ["memory", "pids", "cpu", "freezer", "systemd"].iter().filter(|c| dir(c, "/").exists())
    {
        let procs = file(controller, &format!("/system.slice/{unit}"), "cgroup.procs");
        assert!(procs.lines().any(|p| p == pid), "{controller}: {procs:?}");
        let criu = |p: &str| fs::read_to_string(format!("/proc/{p}/comm")).is_ok_and(|c| c.trim() == "criu");
        assert!(!procs.lines().any(criu), "{controller}: {procs:?}");
    }
    reload();
    assert_eq!(file("pids", &format!("/system.slice/{unit}"), "pids.max"), "77");
    b.delete().ok();
    is_gone(&b, &unit);
}

#[test]
fn it_pauses_and_goes_on() {
    needs_systemd!();
    let b = Bundle::sleeping();
    create(&b).ok();
    b.start().ok();
    b.verb("pause", &[]).ok();
    assert_eq!(b.state()["status"], "paused");
    reload();
    assert_eq!(b.state()["status"], "paused");
    b.verb("resume", &[]).ok();
    assert_eq!(b.state()["status"], "running");
    b.verb("pause", &[]).ok();
    b.delete().ok(); // by force, frozen as it is
    is_gone(&b, &unit_of(&b));
}

#[test]
fn a_unit_that_is_there_is_refused_and_goes_on() {
    needs_systemd!();
    let name = format!("ot-{}.scope", unique());
    let mut run = Command::new("systemd-run");
    let mut other =
        run.args(["--scope", "--quiet", "--unit", &name, "sleep", "1000"]).spawn().expect("systemd-run");
    until("the scope is there", || exists(&name) && !cgroups_of(&name).is_empty());
    let (prefix, rest) = name.trim_end_matches(".scope").split_once('-').unwrap();
    let b = Bundle::sleeping().set("/linux/cgroupsPath", json!(format!(":{prefix}:{rest}")));
    create(&b).fails(&format!("linux.cgroupsPath: the systemd unit {name:?} exists already, and is active"));
    b.is_clean();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(other.try_wait().unwrap(), None);
    other.kill().unwrap();
    other.wait().unwrap();
    // One that failed is in nobody's way.
    until("it is gone", || !exists(&name));
    let failed =
        ["--scope", "--quiet", "--unit", &name, "-p", "RuntimeMaxSec=1", "-p", "CollectMode=inactive"];
    let _ = finish(Command::new("systemd-run").args(failed).args(["sleep", "1000"]));
    until("it failed", || property(&name, "ActiveState") == "failed");
    create(&b).ok();
    b.delete().ok();
    is_gone(&b, &name);
}

#[test]
fn systemctl_stop_ends_the_container() {
    needs_systemd!();
    let b = Bundle::new().sh("trap 'exit 0' TERM; while :; do sleep 1; done");
    create(&b).ok();
    b.start().ok();
    systemctl(&["stop", &unit_of(&b)]).ok();
    assert_eq!(b.state()["status"], "stopped");
    b.verb("delete", &[]).ok();
    is_gone(&b, &unit_of(&b));
}

#[test]
fn processes_that_are_left_are_ended_with_it() {
    needs_systemd!();
    let b =
        Bundle::new().without_namespace("pid").sh("trap '' TERM; sleep 1000 & sleep 1000 & exec sleep 1000");
    create(&b).ok();
    b.start().ok();
    let path = format!("/system.slice/{}", unit_of(&b));
    until("all are there", || file("pids", &path, "cgroup.procs").lines().count() == 3);
    b.verb("kill", &["KILL"]).ok();
    until("init is dead", || b.state()["status"] == "stopped");
    b.verb("delete", &[]).ok();
    is_gone(&b, &unit_of(&b));
}

/// At whatever moment: a later delete finds everything, or there is nothing.
#[test]
fn a_creator_that_is_killed_leaves_nothing_to_systemd() {
    needs_systemd!();
    for n in 0..crate::support::rounds(12, 100) {
        let b = Bundle::sleeping();
        let mut creator = making(&b, "create");
        let mut child = creator.stdout(std::process::Stdio::null()).spawn().expect("spawn");
        std::thread::sleep(Duration::from_millis(n as u64 * 7));
        child.kill().expect("kill");
        child.wait().expect("wait");
        b.verb("delete", &["--force"]).ok();
        is_gone(&b, &unit_of(&b));
    }
}

#[test]
fn many_at_once_have_units_of_their_own() {
    needs_systemd!();
    let all: Vec<_> = (0..8).map(|_| Bundle::sleeping()).collect();
    let mut children: Vec<_> = all.iter().map(|b| making(b, "create").spawn().expect("spawn")).collect();
    assert!(children.iter_mut().all(|c| c.wait().unwrap().success()));
    assert!(all.iter().all(|b| property(&unit_of(b), "ActiveState") == "active"));
    let mut children: Vec<_> =
        all.iter().map(|b| b.orlop(["delete", "--force", &b.id]).spawn().expect("spawn")).collect();
    assert!(children.iter_mut().all(|c| c.wait().unwrap().success()));
    all.iter().for_each(|b| is_gone(b, &unit_of(b)));
}

/// `runc`'s tests have it so: the same name is free again at once.
#[test]
fn a_unit_is_made_again_at_once() {
    needs_systemd!();
    let b = Bundle::sleeping();
    for _ in 0..5 {
        create(&b).ok();
        b.start().ok();
        b.verb("kill", &["KILL"]).ok();
        until("it is dead", || b.state()["status"] == "stopped");
        b.verb("delete", &[]).ok();
    }
    is_gone(&b, &unit_of(&b));
}

#[test]
fn a_slice_limits_what_is_in_it() {
    needs_systemd!();
    let tag = format!("ot{}.slice", unique().replace('-', "x"));
    let mut sleeper = Sleeper::new();
    systemctl(&["set-property", "--runtime", &tag, "TasksMax=5"]).ok();
    let path = format!("{tag}:p:{}", unique());
    let script = "for i in 1 2 3 4 5 6; do sleep 100 & done; wait";
    let b = Bundle::new().sh(script).set("/linux/cgroupsPath", json!(path));
    let out: Outcome = finish(&mut making(&b, "run"));
    assert!(out.stderr.contains("can't fork"), "{}{}", out.stdout, out.stderr);
    assert!(sleeper.is_alive());
    let _ = systemctl(&["stop", &tag]);
    let _ = systemctl(&["revert", &tag]);
}
