//! An ordinary user's systemd: a session that lingers, of the user `user`, to which controllers are delegated.

use crate::support::{Bundle, Outcome, finish, until};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const SLICES: &str = "/user.slice/user-1000.slice/user@1000.service/user.slice";

#[macro_export]
macro_rules! needs_session {
    () => {
        needs_systemd!();
        if !std::path::Path::new("/run/user/1000/bus").exists() {
            $crate::support::skip("needs a session of the user with id 1000");
            return;
        }
        if !$crate::cgroups::is_unified() {
            $crate::support::skip("needs a host with the controllers on cgroup v2");
            return;
        }
    };
}

/// The example for an ordinary user, its own.
fn bundle() -> Bundle {
    let mut b = Bundle::sleeping();
    crate::support::copy_orlop(&b.path().join("orlop"));
    crate::support::own(b.path(), 1000);
    finish(user(&b, &["spec", "--rootless", "--bundle"]).arg(b.path())).ok();
    let text = fs::read(b.path().join("config.json")).expect("config.json");
    b.config = serde_json::from_slice(&text).expect("JSON");
    b.set("/process/terminal", json!(false)).args(&["sleep", "1000"])
}

/// The binary as the user, but from a cgroup that is not the user's: as after `su`.
fn user(b: &Bundle, args: &[&str]) -> Command {
    let mut c = as_user();
    c.arg(b.path().join("orlop")).arg("--root").arg(b.state_root()).args(args);
    c
}

/// What follows is run by the user of the session.
fn as_user() -> Command {
    let mut c = Command::new("setpriv");
    c.args(["--reuid", "1000", "--regid", "1000", "--init-groups"]).stdin(Stdio::null());
    c.env("XDG_RUNTIME_DIR", "/run/user/1000").env_remove("DBUS_SESSION_BUS_ADDRESS");
    c
}

fn create(b: &Bundle) -> Outcome {
    b.write();
    finish(user(b, &["--systemd-cgroup", "create", "--bundle"]).arg(b.path()).arg(&b.id))
}

fn verb(b: &Bundle, verb: &str, more: &[&str]) -> Outcome {
    finish(&mut user(b, &[&[verb, &b.id], more].concat()))
}

/// A property of a unit of the user's.
fn property(unit: &str, name: &str) -> String {
    finish(as_user().args(["systemctl", "--user", "show", "--value", "-p", name, unit]))
        .ok()
        .stdout
        .trim()
        .into()
}

#[test]
fn a_users_container_is_in_a_scope_of_its_session() {
    needs_session!();
    let limits =
        json!({ "memory": { "limit": 134217728 }, "pids": { "limit": 77 }, "cpu": { "shares": 512 } });
    let b = bundle().set("/linux/resources", limits);
    let unit = format!("orlop-{}.scope", b.id);
    create(&b).ok();
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "Slice"), "user.slice");
    assert_eq!(property(&unit, "ControlGroup"), format!("{SLICES}/{unit}"));
    assert_eq!(property(&unit, "MemoryMax"), "134217728");
    let cgroup = format!("/sys/fs/cgroup{SLICES}/{unit}");
    let read = |file: &str| fs::read_to_string(format!("{cgroup}/{file}")).unwrap().trim().to_string();
    assert_eq!(
        (read("memory.max"), read("pids.max"), read("cpu.weight")),
        ("134217728".into(), "77".into(), "59".into())
    );
    assert!(verb(&b, "state", &[]).ok().stdout.contains(&read("cgroup.procs")));
    verb(&b, "start", &[]).ok();
    verb(&b, "update", &["--pids-limit", "33"]).ok();
    assert_eq!((property(&unit, "TasksMax"), read("pids.max")), ("33".into(), "33".into()));
    verb(&b, "pause", &[]).ok();
    verb(&b, "resume", &[]).ok();
    verb(&b, "delete", &["--force"]).ok();
    until("the unit is gone", || property(&unit, "LoadState") == "not-found");
    assert!(!Path::new(&cgroup).exists());
    b.is_clean();
}

/// From a cgroup that the user may not take processes from, its systemd does.
#[test]
fn exec_joins_a_users_unit() {
    needs_session!();
    let b = bundle();
    create(&b).ok();
    verb(&b, "start", &[]).ok();
    let file = b.path().join("pid");
    verb(&b, "exec", &["--detach", "--pid-file", file.to_str().unwrap(), "sleep", "1000"]).ok();
    let pid = fs::read_to_string(file).unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(text.contains(&format!("0::{SLICES}/orlop-{}.scope\n", b.id)), "{text}");
    // From inside of what is the user's the kernel takes it itself.
    let mut inside = as_user();
    inside
        .args(["systemd-run", "--user", "--quiet", "--collect", "--pipe", "--wait"])
        .arg(b.path().join("orlop"));
    inside.arg("--root").arg(b.state_root()).args(["exec", &b.id, "cat", "/proc/self/cgroup"]);
    let out = finish(&mut inside).ok();
    assert!(out.stdout.ends_with("0::/\n"), "{}", out.stdout);
    verb(&b, "delete", &["--force"]).ok();
}

#[test]
fn a_controller_that_is_not_delegated_is_named() {
    needs_session!();
    let hugepages = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }] });
    let b = bundle().set("/linux/resources", hugepages);
    create(&b).fails("linux.resources.hugepageLimits[0]: ").fails("hugetlb");
    until("the unit is gone", || property(&format!("orlop-{}.scope", b.id), "LoadState") == "not-found");
    b.is_clean();
}

#[test]
fn a_users_slices_are_below_its_manager() {
    needs_session!();
    let b = bundle();
    let b = b.set("/linux/cgroupsPath", json!("app-a.slice:p:x"));
    create(&b).ok();
    let above = SLICES.trim_end_matches("/user.slice");
    assert_eq!(property("p-x.scope", "ControlGroup"), format!("{above}/app.slice/app-a.slice/p-x.scope"));
    verb(&b, "delete", &["--force"]).ok();
    until("the unit is gone", || property("p-x.scope", "LoadState") == "not-found");
}

/// Root of a user namespace, as podman of an ordinary user is.
#[test]
fn root_of_a_users_namespace_asks_the_users_systemd() {
    needs_session!();
    let ids = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let b = bundle().set("/linux/uidMappings", ids.clone()).set("/linux/gidMappings", ids);
    b.write();
    let mut c = as_user();
    c.args(["unshare", "--user", "--map-root-user", "--mount"]).arg(b.path().join("orlop"));
    c.arg("--root").arg(b.state_root()).args(["--systemd-cgroup", "create", "--bundle"]);
    finish(c.arg(b.path()).arg(&b.id)).ok();
    let unit = format!("orlop-{}.scope", b.id);
    assert_eq!(property(&unit, "ControlGroup"), format!("{SLICES}/{unit}"));
    verb(&b, "delete", &["--force"]).ok();
    until("the unit is gone", || property(&unit, "LoadState") == "not-found");
}
