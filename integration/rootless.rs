//! Containers of an ordinary user: what the kernel lets it do is done, the rest is an error with its reason.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Bundle, Outcome, finish, until};

const UID: u32 = 12345;
const SUB: u32 = 300_000;

/// A bundle of an ordinary user with the config.json that `spec --rootless` writes for it, running this script.
fn bundle(script: &str) -> Bundle {
    let mut b = Bundle::new();
    support::copy_orlop(&b.path().join("orlop")); // our own directory may be closed to others
    support::own(b.path(), UID);
    finish(user(&b, "setpriv").args(["spec", "--rootless", "--bundle"]).arg(b.path())).ok();
    let text = fs::read(b.path().join("config.json")).expect("config.json");
    b.config = serde_json::from_slice(&text).expect("JSON");
    b.set("/process/terminal", json!(false)).sh(script)
}

/// Our binary as the ordinary user, by way of this program that drops root's rights.
fn user(b: &Bundle, setpriv: impl AsRef<Path>) -> Command {
    let mut c = Command::new(setpriv.as_ref());
    let id = UID.to_string();
    if setpriv.as_ref().ends_with("setpriv") {
        c.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    c.arg(b.path().join("orlop")).arg("--root").arg(b.state_root()).stdin(Stdio::null());
    c
}

fn make(b: &Bundle, setpriv: impl AsRef<Path>, verb: &str) -> Outcome {
    b.write();
    finish(user(b, setpriv).args([verb, "--bundle"]).arg(b.path()).arg(&b.id))
}

fn run(b: &Bundle) -> Outcome {
    make(b, "setpriv", "run")
}

fn verb(b: &Bundle, verb: &str, more: &[&str]) -> Outcome {
    finish(user(b, "setpriv").arg(verb).arg(&b.id).args(more))
}

/// A program like setpriv for a user who has subordinate ids and groups that a container must lose: it has a name, and
/// files that give it ranges, in a mount namespace of its own.
fn with_ranges(b: &Bundle) -> std::path::PathBuf {
    let dir = b.path();
    let passwd = fs::read_to_string("/etc/passwd").expect("read");
    fs::write(dir.join("passwd"), format!("{passwd}orlop-test:x:{UID}:{UID}::/:/bin/sh\n")).expect("write");
    fs::write(dir.join("ranges"), format!("orlop-test:{SUB}:65536\n")).expect("write");
    let script = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'cd {} && mount --bind passwd /etc/passwd && \
         mount --bind ranges /etc/subuid && mount --bind ranges /etc/subgid && \
         exec setpriv --reuid {UID} --regid {UID} --groups 4,27 \"$@\"' sh \"$@\"\n",
        dir.display()
    );
    let file = dir.join("as-user");
    fs::write(&file, script).expect("write");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    file
}

fn ranges() -> Value {
    json!([
        { "containerID": 0, "hostID": UID, "size": 1 }, { "containerID": 1, "hostID": SUB, "size": 65536 },
    ])
}

macro_rules! needs_newuidmap {
    () => {
        needs_root!();
        needs_program!("newuidmap");
        if !Path::new("/etc/subuid").exists() || !Path::new("/etc/subgid").exists() {
            return support::skip("needs /etc/subuid and /etc/subgid");
        }
    };
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_state_root_in_tmp_is_a_directory_of_the_user_alone() {
    needs_root!();
    let b = bundle("true");
    let uid = 1_000_000 + std::process::id();
    let root = std::path::PathBuf::from(format!("/tmp/orlop-{uid}"));
    let list = || {
        let mut c = Command::new("setpriv");
        let id = uid.to_string();
        c.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(b.path().join("orlop")).arg("list");
        finish(c.env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null()))
    };
    let theirs = b.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(uid), Some(uid)).unwrap();
    std::os::unix::fs::symlink(&theirs, &root).unwrap(); // by somebody else, who can turn it elsewhere
    let linked = list();
    fs::remove_file(&root).unwrap();
    fs::create_dir(&root).unwrap();
    let foreign = list();
    fs::remove_dir(&root).unwrap();
    let free = list();
    let made = fs::metadata(&root).map(|m| (m.uid(), m.mode() & 0o777));
    let _ = fs::remove_dir(&root);
    linked.fails("no directory that belongs to this user alone");
    foreign.fails("no directory that belongs to this user alone");
    if fs::metadata("/tmp").unwrap().mode() & 0o002 != 0 {
        free.ok();
        assert_eq!(made.unwrap(), (uid, 0o700));
    } else {
        free.fails("mkdir: permission denied"); // a machine where only root has names in /tmp
    }
}

#[test]
fn an_ordinary_user_runs_what_spec_rootless_writes() {
    needs_root!();
    let b = bundle(
        "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; hostname; exit 3",
    );
    let out = run(&b);
    assert_eq!(out.code(), 3, "{}", out.stderr);
    assert_eq!(words(&out.stdout), format!("0 0 0 {UID} 1 0 {UID} 1 deny orlop"));
    assert_eq!(out.stderr, "");
}

#[test]
fn an_ordinary_user_goes_through_the_life_of_a_container() {
    needs_root!();
    let b = bundle("exec sleep 1000");
    make(&b, "setpriv", "create").ok();
    let state = verb(&b, "state", &[]).ok().json();
    assert_eq!(state["status"], "created");
    // The program is sealed by a copy: an ordinary user cannot clone mounts.
    let exe = fs::read_link(format!("/proc/{}/exe", state["pid"])).expect("exe");
    assert_eq!(exe.to_string_lossy(), "/memfd:orlop (deleted)");
    verb(&b, "start", &[]).ok();
    let status = fs::read_to_string(format!("/proc/{}/status", state["pid"])).expect("status");
    assert!(status.contains(&format!("Uid:\t{UID}\t{UID}\t{UID}\t{UID}\n")), "{status}");
    verb(&b, "kill", &["KILL"]).ok();
    until("the end", || verb(&b, "state", &[]).ok().json()["status"] == "stopped");
    verb(&b, "delete", &[]).ok();
    verb(&b, "state", &[]).fails("does not exist");
}

#[test]
fn subordinate_ids_are_mapped_by_newuidmap_and_newgidmap() {
    needs_newuidmap!();
    let script = "id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; grep Groups /proc/self/status";
    let map = format!("0 {UID} 1 1 {SUB} 65536");
    let b = bundle(script).set("/linux/uidMappings", ranges()).set("/linux/gidMappings", ranges());
    // The groups that the caller has are none of the container's (CVE-2022-2990).
    let out = make(&b, with_ranges(&b), "run").ok();
    assert_eq!(words(&out.stdout), format!("0 0 {map} {map} allow Groups:"));
    let user = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 7] });
    let b = b.set("/process/user", user);
    let out = make(&b, with_ranges(&b), "run").ok();
    assert_eq!(words(&out.stdout), format!("1000 1001 {map} {map} allow Groups: 5 7"));
}

#[test]
fn ids_that_are_not_the_users_are_refused_with_the_reason() {
    needs_newuidmap!();
    let other = json!([{ "containerID": 0, "hostID": SUB - 1, "size": 2 }]);
    let b = bundle("true").set("/linux/uidMappings", other.clone()).set("/linux/gidMappings", ranges());
    make(&b, with_ranges(&b), "run")
        .fails("linux.uidMappings: newuidmap: ")
        .fails("; see /etc/subuid and /etc/subgid");
    let b = bundle("true").set("/linux/uidMappings", ranges()).set("/linux/gidMappings", other);
    make(&b, with_ranges(&b), "run").fails("linux.gidMappings: newgidmap: ");
    assert!(fs::read_dir(b.state_root()).expect("read").next().is_none(), "nothing stays");
}

#[test]
fn what_an_ordinary_user_cannot_have_is_said() {
    needs_root!();
    let b = bundle("true").without_namespace("user");
    run(&b.unset("/linux/uidMappings").unset("/linux/gidMappings"))
        .fails("linux.namespaces: an ordinary user needs a user namespace; `orlop spec --rootless`");
    run(&bundle("true").set("/process/user/additionalGids", json!([0])))
        .fails("process.user.additionalGids: groups cannot be set");
    run(&bundle("true").set("/process/user/uid", json!(1000)))
        .fails("process.user.uid: 1000 is not in linux.uidMappings; mapped are 0");
    let (key, value) = ("net.ipv4.ip_forward", "1");
    run(&bundle("true").set("/linux/sysctl", json!({ key: value }))).fails("needs a network namespace");
}

#[test]
fn devices_are_bound_by_number() {
    needs_root!();
    let devices = json!([{ "path": "/dev/nothing", "type": "c", "major": 1, "minor": 3 }]);
    let b = bundle("stat -c '%F %t:%T' /dev/nothing /dev/null; echo x > /dev/nothing");
    let out = run(&b.set("/linux/devices", devices)).ok();
    assert_eq!(out.stdout, "character special file 1:3\ncharacter special file 1:3\n");
}

#[test]
fn loopback_sysctls_and_time_work_in_namespaces_of_its_own() {
    needs_root!();
    let b =
        bundle("cat /proc/sys/net/ipv4/ip_forward; ip addr show lo | grep -c UP; cut -d. -f1 /proc/uptime");
    let b = b.namespace("network", None).set("/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" }));
    let b = b.namespace("time", None).set("/linux/timeOffsets", json!({ "boottime": { "secs": 9_000_000 } }));
    let out = run(&b).ok().stdout;
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..2], ["1", "1"]);
    assert!(lines[2].parse::<u64>().is_ok_and(|s| s >= 9_000_000), "{out}");
}

#[test]
fn an_ordinary_user_joins_its_own_containers() {
    needs_root!();
    let target = bundle("exec sleep 1000").namespace("network", None);
    make(&target, "setpriv", "create").ok();
    verb(&target, "start", &[]).ok();
    let pid = verb(&target, "state", &[]).ok().json()["pid"].to_string();
    let mut b = bundle(
        "cd /proc/self/ns; readlink user net ipc uts pid; readlink net; readlink ipc; readlink uts; readlink pid",
    );
    for (kind, file) in [("network", "net"), ("ipc", "ipc"), ("user", "user"), ("uts", "uts"), ("pid", "pid")]
    {
        b = b.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")));
    }
    let out = run(&b.unset("/hostname")).ok().stdout;
    for file in ["net", "ipc", "uts", "pid"] {
        let own = fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("a namespace");
        assert!(out.contains(&*own.to_string_lossy()), "{file}: {out}");
    }
    verb(&target, "delete", &["--force"]).ok();
}

#[test]
fn a_namespace_of_root_cannot_be_joined() {
    needs_root!();
    let target = Bundle::new().args(&["sleep", "1000"]);
    target.create().ok();
    let pid = target.state()["pid"].to_string();
    let b = bundle("true").namespace("network", Some(&format!("/proc/{pid}/ns/net")));
    run(&b).fails("linux.namespaces[").fails("permission denied");
}

/// As in a container that has a container runtime inside: root, but of a user namespace, where mknod(2) is refused.
#[test]
fn root_of_a_user_namespace_runs_containers() {
    needs_root!();
    let script = "id -u; cat /proc/self/uid_map; stat -c '%F %t:%T' /dev/null; echo x > /dev/null";
    let mut b = Bundle::new().sh(script);
    for m in b.config["mounts"].as_array_mut().expect("mounts") {
        if let Some(options) = m["options"].as_array_mut() {
            options.retain(|o| o != "gid=5"); // not mapped
        }
    }
    let run = |b: &Bundle| {
        b.write();
        let mut c = Command::new("unshare");
        c.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]);
        c.args([support::ORLOP, "--debug", "--root"]).arg(b.state_root()).args(["run", "--bundle"]);
        finish(c.arg(b.path()).arg(&b.id).stdin(Stdio::null()))
    };
    let out = run(&b);
    assert_eq!(words(&out.stdout), "0 0 0 1 character special file 1:3", "{}", out.stderr);
    assert!(out.stderr.contains("linux.resources.devices: left out, "), "{}", out.stderr);
    // What engines say for every container needs no rule, and what does is refused.
    let engines = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" }]);
    let b = b.set("/linux/resources/devices", engines);
    assert_eq!(words(&run(&b).stdout), "0 0 0 1 character special file 1:3");
    let b = b.set("/linux/resources/devices/1/access", json!("r"));
    run(&b).fails("linux.resources.devices[1]: device rules are for the root of the host");
}

#[test]
fn exec_enters_the_users_own_namespaces() {
    needs_root!();
    let b = bundle("sleep 1000");
    make(&b, "setpriv", "create").ok();
    verb(&b, "start", &[]).ok();
    let look = "id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/pid; readlink /proc/self/ns/mnt";
    let out = verb(&b, "exec", &["sh", "-c", look]).ok().stdout;
    let pid = b.state()["pid"].as_i64().expect("a pid");
    let ns = |n: &str| fs::read_link(format!("/proc/{pid}/ns/{n}")).expect("ns").display().to_string();
    assert_eq!(out, format!("0\n{}\n{}\n{}\n", ns("user"), ns("pid"), ns("mnt")));
    assert_eq!(verb(&b, "exec", &["sh", "-c", "exit 6"]).code(), 6);
    assert_eq!(verb(&b, "exec", &["nonesuch"]).code(), 255);
    verb(&b, "delete", &["--force"]).ok();
}

#[test]
fn exec_with_mapped_ranges_takes_any_mapped_user() {
    needs_newuidmap!();
    let mut b = bundle("sleep 1000");
    b = b.set("/linux/uidMappings", ranges()).set("/linux/gidMappings", ranges());
    let setpriv = with_ranges(&b);
    make(&b, &setpriv, "create").ok();
    let words =
        "setns: operation not permitted; an ordinary user may enter a container only once it was started";
    verb(&b, "exec", &["id"]).fails(words);
    verb(&b, "start", &[]).ok();
    let mut c = user(&b, &setpriv);
    c.args([
        "exec",
        "--user",
        "7:8",
        "-g",
        "9",
        &b.id,
        "sh",
        "-c",
        "id -u; id -G; grep -c . /proc/self/uid_map",
    ]);
    assert_eq!(finish(&mut c).ok().stdout, "7\n8 9\n2\n");
    verb(&b, "delete", &["--force"]).ok();
}

#[test]
fn a_container_without_a_cgroup_is_neither_paused_nor_updated() {
    needs_root!();
    let b = bundle("sleep 1000");
    make(&b, "setpriv", "create").ok();
    for (name, more, message) in [
        ("pause", &[][..], "cannot be paused: it has no cgroup with a freezer"),
        ("update", &["--pids-limit", "5"], "cannot be updated: it has no cgroup"),
    ] {
        verb(&b, name, more).fails(&format!("container {:?}: {message}", b.id));
    }
    verb(&b, "resume", &[]).fails("container not paused: it is created");
    verb(&b, "start", &[]).ok();
    verb(&b, "kill", &["KILL"]).ok();
    verb(&b, "delete", &["--force"]).ok();
}

fn run_with(b: &Bundle, flags: &[&str]) -> Outcome {
    b.write();
    finish(user(b, "setpriv").args(flags).args(["run", "--bundle"]).arg(b.path()).arg(&b.id))
}

/// The user's own cgroup is root's here: none can be made in it.
#[test]
fn without_delegation_there_is_no_cgroup_unless_rootless_is_denied() {
    needs_root!();
    let b = bundle("echo ran");
    for flags in [&[][..], &["--rootless", "auto"], &["--rootless=true"]] {
        let out = run_with(&b, flags).ok();
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("ran\n", ""), "{flags:?}");
    }
    run_with(&b, &["--rootless=false"])
        .fails("linux.cgroupsPath: mkdir /sys/fs/cgroup/")
        .fails("permission denied");
    assert!(support::cgroups_named(&b.id).is_empty());
    let b = b.set("/linux/resources/pids", json!({ "limit": 20 }));
    run_with(&b, &["--rootless", "true"])
        .fails("linux.resources.pids.limit: mkdir /sys/fs/cgroup/")
        .fails("permission denied; a limit needs a cgroup that was delegated to this user");
    b.is_clean();
}

/// A cgroup that root has given to the user (cgroups(7), "delegation"), whose processes sit in `own` below it; the path of a
/// program like setpriv that begins there.
fn delegated(b: &Bundle, controllers: &str) -> (cgroups::Own, cgroups::Own, std::path::PathBuf) {
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", controllers).expect("the root hands controllers down");
    let name = format!("{}-user", b.id);
    let above = cgroups::Own::new("", &name);
    let inside = cgroups::Own::new("", &format!("{name}/own"));
    for dir in [&above.0, &inside.0] {
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            std::os::unix::fs::chown(dir.join(file), Some(UID), Some(UID)).expect("chown");
        }
    }
    let script = format!(
        "#!/bin/sh\necho 0 > /sys/fs/cgroup/{name}/own/cgroup.procs\n\
         exec setpriv --reuid {UID} --regid {UID} --clear-groups \"$@\"\n"
    );
    let file = b.path().join("as-user");
    fs::write(&file, script).expect("write");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    (above, inside, file)
}

#[test]
fn in_a_delegated_cgroup_limits_hold_and_every_verb_works() {
    needs_version!(2);
    needs_controllers!("memory", "pids", "cpu");
    let b = bundle("cat /sys/fs/cgroup/pids.max > /dev/shm/inside; exec sleep 1000").set(
        "/linux/resources",
        json!({ "memory": { "limit": 64 << 20 }, "pids": { "limit": 20 }, "cpu": { "shares": 512 } }),
    );
    let (above, inside, program) = delegated(&b, "+memory +pids +cpu");
    let b = b; // goes before them, even when this fails
    let verb = |args: &[&str]| finish(user(&b, &program).args(args));
    make(&b, &program, "create").ok();
    let place = above.0.join(&b.id);
    let read = |file: &str| fs::read_to_string(place.join(file)).expect(file).trim().to_string();
    for (file, value) in [("memory.max", "67108864"), ("pids.max", "20"), ("cpu.weight", "59")] {
        assert_eq!(read(file), value, "{file}");
    }
    let pid = verb(&["state", &b.id]).ok().json()["pid"].to_string();
    assert_eq!(read("cgroup.procs"), pid);
    verb(&["start", &b.id]).ok();
    // It has a namespace of its own, in which this is the root.
    let look = "grep ^0 /proc/self/cgroup; cat /sys/fs/cgroup/pids.max /dev/shm/inside; head -n 1 /sys/fs/cgroup/cgroup.procs";
    until("it has looked", || verb(&["exec", &b.id, "test", "-s", "/dev/shm/inside"]).status.success());
    assert_eq!(verb(&["exec", &b.id, "sh", "-c", look]).ok().stdout, "0::/\n20\n20\n1\n");
    verb(&["update", "--pids-limit", "30", "--memory", "96M", &b.id]).ok();
    assert_eq!((read("pids.max").as_str(), read("memory.max").as_str()), ("30", "100663296"));
    assert_eq!(verb(&["events", "--stats", &b.id]).ok().json()["data"]["pids"]["limit"], 30);
    verb(&["pause", &b.id]).ok();
    assert_eq!(verb(&["state", &b.id]).ok().json()["status"], "paused");
    verb(&["resume", &b.id]).ok();
    assert_eq!(verb(&["ps", "--format", "json", &b.id]).ok().json(), json!([pid.parse::<i32>().unwrap()]));
    verb(&["kill", "--all", &b.id, "KILL"]).ok();
    until("the end", || verb(&["state", &b.id]).ok().json()["status"] == "stopped");
    verb(&["delete", &b.id]).ok();
    assert!(!place.exists());
    // Without a limit it is below the user's own; with an absolute path where that says.
    let free = b.unset("/linux/resources").sh("exec sleep 1000");
    make(&free, &program, "create").ok();
    assert!(inside.0.join(&free.id).exists());
    finish(user(&free, &program).args(["delete", "--force", &free.id])).ok();
    let named = free.set("/linux/cgroupsPath", json!("/root-owned"));
    make(&named, &program, "create").ok();
    assert!(!Path::new("/sys/fs/cgroup/root-owned").exists());
    finish(user(&named, &program).args(["delete", "--force", &named.id])).ok();
    finish(
        user(&named, &program)
            .args(["--rootless", "false", "create", "--bundle"])
            .arg(named.path())
            .arg(&named.id),
    )
    .fails("linux.cgroupsPath: mkdir /sys/fs/cgroup/root-owned: permission denied");
    drop(inside); // before what is above it
}
