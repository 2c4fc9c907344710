//! The client of the bus, and everything around it, against a systemd that is none: it makes no cgroup and moves no process,
//! which the runtime then does itself.

use crate::fake::{FakeBus, Manner};
use crate::support::{Bundle, Outcome, finish, is_root, until};
use crate::{Slice, cgroups_of, making};
use orlop::plan::cgroup::systemd::value::Value;
use serde_json::json;
use std::process::Command;
use std::time::{Duration, Instant};

/// A container, and the bus that its verbs are told of.
struct World {
    bundle: Bundle,
    bus: FakeBus,
    unit: String,
    slice: Slice,
}

impl World {
    fn new(bundle: Bundle, manner: Manner) -> Self {
        let slice = Slice::new();
        let path = format!("{}:test:{}", slice.0, bundle.id);
        let bundle = bundle.set("/linux/cgroupsPath", json!(path));
        let bus = FakeBus::new(bundle.path(), manner);
        let unit = format!("test-{}.scope", bundle.id);
        Self { bundle, bus, unit, slice }
    }

    fn making(&self, verb: &str) -> Command {
        let mut c = making(&self.bundle, verb);
        c.env("DBUS_SYSTEM_BUS_ADDRESS", self.bus.address());
        c
    }

    #[track_caller]
    fn create(&self) -> Outcome {
        finish(&mut self.making("create"))
    }

    /// Nothing is left of it, on the bus or in any hierarchy.
    #[track_caller]
    fn is_clean(&self) {
        assert_eq!(self.bus.units(), Vec::<String>::new());
        assert_eq!(cgroups_of(&self.unit), Vec::<std::path::PathBuf>::new());
        self.bundle.is_clean();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.bundle.delete();
        let _ = &self.slice; // goes after it
    }
}

#[test]
fn a_container_lives_in_its_unit_from_creation_to_deletion() {
    needs_controllers!("pids");
    for hasty in [false, true] {
        let bundle = Bundle::sleeping().set("/linux/resources/pids", json!({ "limit": 77 }));
        let w = World::new(bundle, Manner { hasty, ..Manner::default() });
        w.create().ok();
        assert_eq!(w.bus.units(), [w.unit.as_str()]);
        let pid = w.bundle.state()["pid"].as_u64().unwrap() as u32;
        let pids = Value::Array("u".into(), vec![Value::U32(pid)]);
        assert_eq!(w.bus.property(&w.unit, "PIDs"), Some(pids));
        assert_eq!(w.bus.property(&w.unit, "Slice"), Some(Value::Str(w.slice.0.clone())));
        assert_eq!(w.bus.property(&w.unit, "Delegate"), Some(Value::Bool(true)));
        assert_eq!(w.bus.property(&w.unit, "TasksMax"), Some(Value::U64(77)));
        // It waited for its cgroup, in every hierarchy, and for its limits.
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let end = format!("/{}/{}", w.slice.0, w.unit);
        assert!(text.lines().all(|l| l.ends_with(&end)), "{text}");
        w.bundle.start().ok();
        let exec = w.bundle.verb("exec", &["cat", "/proc/self/cgroup"]).ok();
        assert!(exec.stdout.lines().all(|l| l.ends_with(&end) || l.ends_with(":/")), "{}", exec.stdout);
        w.bundle.verb("update", &["--pids-limit", "33"]).ok();
        assert_eq!(w.bus.property(&w.unit, "TasksMax"), Some(Value::U64(33)));
        w.bundle.verb("pause", &[]).ok();
        assert_eq!(w.bundle.state()["status"], "paused");
        w.bundle.verb("resume", &[]).ok();
        w.bundle.delete().ok();
        w.is_clean();
        let calls = w.bus.calls();
        assert!(calls.contains(&format!("StopUnit {}", w.unit)), "{calls:?}");
    }
}

#[test]
fn an_update_says_nothing_of_devices() {
    needs_controllers!("pids");
    let w = World::new(Bundle::sleeping(), Manner::default());
    w.create().ok();
    let before = w.bus.property(&w.unit, "DeviceAllow").expect("rules");
    w.bundle.verb("update", &["--pids-limit", "33"]).ok();
    let resources = w.bundle.path().join("resources.json");
    let all = json!({ "devices": [{ "allow": true, "access": "rwm" }], "pids": { "limit": 34 } });
    std::fs::write(&resources, all.to_string()).unwrap();
    w.bundle.verb("update", &["--resources", resources.to_str().unwrap()]).ok();
    assert_eq!(w.bus.property(&w.unit, "TasksMax"), Some(Value::U64(34)));
    assert_eq!(w.bus.property(&w.unit, "DeviceAllow"), Some(before));
    assert_eq!(w.bus.property(&w.unit, "DevicePolicy"), Some(Value::Str("strict".into())));
}

#[test]
fn without_a_bus_the_flag_the_socket_and_the_errno_are_named() {
    needs_root!();
    let b = Bundle::new();
    for (address, words) in [
        (
            "unix:path=/nonexistent/bus",
            "\"/nonexistent/bus\": no such file or directory; is systemd the init of this host?",
        ),
        ("unix:abstract=orlop-none", "\"@orlop-none\": connection refused"),
        ("unix:path=%2Fetc%2fhostname", "\"/etc/hostname\": connection refused"),
        (
            "unix:path=/nonexistent/a;unix:path=/nonexistent/b",
            "\"/nonexistent/b\": no such file or directory",
        ),
        ("tcp:host=localhost", "\"tcp:host=localhost\" has no address of a unix socket"),
    ] {
        let out = finish(making(&b, "create").env("DBUS_SYSTEM_BUS_ADDRESS", address));
        out.fails("--systemd-cgroup: ").fails(words);
        b.is_clean();
    }
    let mut crun = b.orlop(["--cgroup-manager=systemd", "create", "--bundle"]);
    let out =
        finish(crun.arg(b.path()).arg(&b.id).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus"));
    out.fails("connect to the bus \"/nonexistent/bus\"");
}

#[test]
fn what_does_not_speak_the_buss_language_is_refused() {
    needs_root!();
    let w = World::new(Bundle::new(), Manner { nonsense: true, ..Manner::default() });
    w.create().fails("does not let us in: \"HTTP/1.1 400 Bad Request\": permission denied");
    w.is_clean();
}

#[test]
fn a_job_that_fails_is_told_with_its_result_and_nothing_stays() {
    needs_root!();
    for result in ["failed", "canceled", "timeout", "dependency"] {
        let w = World::new(Bundle::sleeping(), Manner { job: Some(result), ..Manner::default() });
        let words = format!("could not start the unit {:?}: its job ended with {result:?}", w.unit);
        w.create().fails(&words).fails("linux.cgroupsPath: ");
        w.is_clean();
    }
}

/// The system's bus lets every user send signals, to whom and in whose interface it likes.
#[test]
fn the_end_of_a_job_is_systemds_word_alone() {
    needs_root!();
    let w = World::new(Bundle::new(), Manner { forged: true, ..Manner::default() });
    finish(&mut w.making("run")).ok();
    w.is_clean();
}

#[test]
fn a_refused_property_is_told_with_who_asked_for_it() {
    needs_root!();
    let text = "Cannot set property TimeoutStopUSec, or unknown property.";
    let refuse = Some(("org.freedesktop.DBus.Error.PropertyReadOnly", text));
    let annotation = json!({ "org.systemd.property.TimeoutStopSec": "5" });
    let bundle = Bundle::sleeping().set("/annotations", annotation);
    let w = World::new(bundle, Manner { refuse, ..Manner::default() });
    w.create().fails(&format!(
        "annotations[\"org.systemd.property.TimeoutStopSec\"]: systemd refuses the unit {:?}: {text}",
        w.unit
    ));
    w.is_clean();
}

#[test]
fn a_unit_of_somebody_else_is_left_alone() {
    needs_root!();
    let w = World::new(Bundle::sleeping(), Manner::default());
    w.bus.add(&w.unit);
    w.create()
        .fails(&format!("linux.cgroupsPath: the systemd unit {:?} exists already, and is active", w.unit));
    assert_eq!(w.bus.units(), [w.unit.as_str()]);
    assert!(!w.bus.calls().iter().any(|c| c.starts_with("StopUnit")), "{:?}", w.bus.calls());
    w.bundle.is_clean();
}

#[test]
fn two_containers_of_one_unit_do_not_end_each_other() {
    needs_root!();
    // Nor do those that are described alike.
    for annotations in [json!({}), json!({ "org.systemd.property.Description": "'web'" })] {
        let first =
            World::new(Bundle::sleeping().set("/annotations", annotations.clone()), Manner::default());
        first.create().ok();
        let path = first.bundle.config["linux"]["cgroupsPath"].clone();
        let second = Bundle::sleeping().set("/linux/cgroupsPath", path).set("/annotations", annotations);
        let mut c = making(&second, "create");
        finish(c.env("DBUS_SYSTEM_BUS_ADDRESS", first.bus.address()))
            .fails("linux.cgroupsPath: ")
            .fails(&first.unit);
        assert_eq!(first.bundle.state()["status"], "created");
        assert_eq!(first.bus.units(), [first.unit.as_str()]);
        first.bundle.start().ok();
        first.bundle.delete().ok();
        first.is_clean();
    }
}

#[test]
fn slow_answers_are_waited_for() {
    needs_root!();
    let w = World::new(Bundle::new(), Manner { slow: Duration::from_millis(200), ..Manner::default() });
    let began = Instant::now();
    finish(&mut w.making("run")).ok();
    assert!(began.elapsed() > Duration::from_millis(1200), "{:?}", began.elapsed());
    w.is_clean();
}

#[test]
fn names_that_are_no_unit_are_refused_before_anything_is_made() {
    needs_root!();
    let mut w = World::new(Bundle::new(), Manner::default());
    for (path, words) in [
        ("/a/b", "linux.cgroupsPath: \"/a/b\" is not slice:prefix:name"),
        ("a:b:c", "linux.cgroupsPath: the slice \"a\" does not end in .slice"),
        ("a.slice:b:c/d", "linux.cgroupsPath: '/' may not be in the name of the unit \"b-c/d.scope\""),
        ("a.slice:b:", "linux.cgroupsPath: \"a.slice:b:\" has no name"),
    ] {
        w.bundle.config["linux"]["cgroupsPath"] = json!(path);
        w.create().fails(words);
        w.is_clean();
    }
    w.bundle.config["annotations"] = json!({ "org.systemd.property.A1": "1" });
    w.bundle.config["linux"]["cgroupsPath"] = json!(null);
    w.create().fails("annotations[\"org.systemd.property.A1\"]: \"A1\" is no name of a property");
    assert!(!w.bus.calls().iter().any(|c| c.starts_with("Start")), "{:?}", w.bus.calls());
}

/// Init waits for its unit before anything is its own, and ends with whoever made it.
#[test]
fn a_creator_that_is_killed_leaves_nothing_that_delete_does_not_find() {
    needs_root!();
    for mute in ["StartTransientUnit", "Subscribe", "Get"] {
        let w = World::new(Bundle::sleeping(), Manner { mute: Some(mute), ..Manner::default() });
        let mut creator = w.making("create").spawn().expect("spawn");
        until("it waits for the bus", || w.bus.calls().iter().any(|c| c == mute));
        creator.kill().expect("kill");
        creator.wait().expect("wait");
        drop(w.bundle.verb("delete", &["--force"]).ok());
        w.is_clean();
    }
}

#[test]
fn a_container_is_deleted_without_the_bus() {
    needs_root!();
    let w = World::new(Bundle::sleeping(), Manner::default());
    w.create().ok();
    w.bundle.start().ok();
    w.bus.vanish();
    let out = w.bundle.delete().ok();
    assert!(out.stderr.contains("the cgroup is removed without systemd"), "{}", out.stderr);
    assert_eq!(cgroups_of(&w.unit), Vec::<std::path::PathBuf>::new());
    w.bundle.is_clean();
}

#[test]
fn an_update_that_systemd_is_not_told_of_is_undone() {
    needs_controllers!("pids");
    let w = World::new(
        Bundle::sleeping().set("/linux/resources/pids", json!({ "limit": 77 })),
        Manner::default(),
    );
    w.create().ok();
    w.bus.vanish();
    w.bundle.verb("update", &["--pids-limit", "33"]).fails("--systemd-cgroup: connect to the bus");
    let file = crate::dir("pids", &format!("{}/{}", w.slice.0, w.unit)).join("pids.max");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "77\n");
}

/// A user's: the addresses of its session, in order.
#[test]
fn an_ordinary_user_asks_its_own_systemd() {
    needs_root!();
    let b = Bundle::new();
    crate::support::copy_orlop(&b.path().join("orlop"));
    let user = |env: &[(&str, &str)]| {
        b.write();
        let mut c = Command::new("setpriv");
        c.args(["--reuid", "12345", "--regid", "12345", "--clear-groups"]).arg(b.path().join("orlop"));
        c.args(["--root", "/nonexistent", "--systemd-cgroup", "create", "--bundle"]).arg(b.path()).arg(&b.id);
        c.env_remove("DBUS_SESSION_BUS_ADDRESS")
            .env_remove("XDG_RUNTIME_DIR")
            .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/x");
        finish(c.envs(env.iter().copied()))
    };
    assert!(is_root());
    user(&[]).fails("--systemd-cgroup: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set");
    user(&[("XDG_RUNTIME_DIR", "/nonexistent/a:b")]).fails("connect to the bus \"/nonexistent/a:b/bus\"");
    user(&[("XDG_RUNTIME_DIR", "/nonexistent"), ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/s")])
        .fails("connect to the bus \"/nonexistent/s\": no such file or directory; has this user a session of systemd?");
}

#[test]
fn explain_tells_of_the_unit_without_asking_anybody() {
    let b = Bundle::new().set("/linux/resources/pids", json!({ "limit": 77 }));
    b.write();
    let mut c = b.orlop(["--systemd-cgroup", "explain"]);
    let out = finish(c.arg(b.path()).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")).ok().stdout;
    for line in [
        "have systemd start the unit orlop-ID.scope",
        "linux.resources.pids.limit: set TasksMax to uint64 77",
        "linux.cgroupsPath: set Slice to 'system.slice'",
        "ask the parent for a unit of systemd",
    ] {
        assert!(out.contains(line), "{line:?} is not in: {out}");
    }
}
