//! pause, resume, and what else can be done to a paused container, with the freezers of both cgroup versions.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;

use cgroups::{ROOT, dir, freeze, is_unified, sleeping, within};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Bundle, Outcome, Scratch, cgroups_named, finish, skip, unique, until};

/// A container and the kind of host that the runtime sees.
struct World {
    b: Bundle,
    view: Option<&'static str>,
}

const V2: &str = "mount -t cgroup2 none /sys/fs/cgroup";
const V1: &str = "umount /sys/fs/cgroup/unified 2>/dev/null || true";

/// The views of hosts that can be had here: as it is, and of one that is not pure v2 both of its sides alone.
fn views() -> Vec<Option<&'static str>> {
    let hybrid = Path::new(ROOT).join("unified/cgroup.procs").exists();
    let all = [(true, None), (hybrid, Some(V1)), (hybrid, Some(V2))];
    all.into_iter().filter(|(there, _)| *there).map(|(_, view)| view).collect()
}

impl World {
    fn all(make: fn() -> Bundle) -> Vec<World> {
        views().into_iter().map(|view| World { b: make(), view }).collect()
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let mut c = within(self.view);
        finish(c.arg("--root").arg(self.b.state_root()).args(args))
    }

    fn verb(&self, verb: &str) -> Outcome {
        self.run(&[verb, &self.b.id])
    }

    fn create(&self) -> &Self {
        self.b.write();
        self.run(&["create", "--bundle", self.b.path().to_str().unwrap(), &self.b.id]).ok();
        self
    }

    fn start(&self) -> &Self {
        self.create().verb("start").ok();
        self
    }

    fn status(&self) -> String {
        self.verb("state").ok().json()["status"].as_str().expect("a status").to_string()
    }

    /// Where it is frozen.
    fn place(&self) -> PathBuf {
        match self.view {
            Some(V2) => Path::new(ROOT).join("unified").join(&self.b.id),
            _ => dir("freezer", &self.b.id),
        }
    }

    fn is_v2(&self) -> bool {
        is_unified() || self.view == Some(V2)
    }

    fn is_frozen(&self) -> bool {
        let (file, line) =
            if self.is_v2() { ("cgroup.events", "frozen 1") } else { ("freezer.state", "FROZEN") };
        fs::read_to_string(self.place().join(file)).expect("it is there").lines().any(|l| l == line)
    }

    fn procs(&self) -> usize {
        fs::read_to_string(self.place().join("cgroup.procs")).unwrap_or_default().lines().count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.run(&["delete", "--force", &self.b.id]);
    }
}

/// Two processes that count in files.
fn counting() -> Bundle {
    let script =
        "count() { n=0; while :; do n=$((n+1)); echo $n > /tmp/$1; sleep 0.01; done; }; count a & count b";
    Bundle::new().sh(script).set("/root/readonly", json!(false))
}

fn counted(b: &Bundle) -> Vec<u32> {
    let of = |f| fs::read_to_string(b.rootfs().join("tmp").join(f)).ok()?.trim().parse().ok();
    ["a", "b"].iter().map(|f| of(f).unwrap_or(0)).collect()
}

#[test]
fn a_paused_container_stands_still_until_it_is_resumed() {
    needs_controllers!("freezer");
    for w in World::all(counting) {
        w.start();
        until("both count", || counted(&w.b).iter().all(|n| *n > 2));
        let out = w.verb("pause").ok();
        assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
        let then = counted(&w.b);
        assert!(w.is_frozen(), "it returns when it is frozen");
        assert_eq!(w.status(), "paused");
        let list = w.run(&["list", "--format", "json"]).ok().json();
        assert_eq!(list[0]["status"], "paused");
        assert!(w.run(&["list"]).ok().stdout.contains("paused"));
        std::thread::sleep(Duration::from_millis(100));
        // The file that is being written can be empty for a moment, for as long as that lasts.
        assert_eq!(counted(&w.b), then);
        w.verb("resume").ok();
        assert_eq!(w.status(), "running");
        until("both go on", || counted(&w.b).iter().zip(&then).all(|(now, then)| now > then));
    }
}

#[test]
fn a_created_container_can_be_paused_and_is_not_started_while_it_is() {
    needs_controllers!("freezer");
    for w in World::all(sleeping) {
        w.create().verb("pause").ok();
        assert_eq!(w.status(), "paused");
        w.verb("start").fails("is paused, expected created: cannot start a container that is not created");
        w.verb("delete").fails("cannot delete container that is not stopped: paused");
        w.verb("resume").ok();
        assert_eq!(w.status(), "created");
        w.verb("start").ok();
        assert_eq!(w.status(), "running");
    }
}

#[test]
fn the_words_for_a_wrong_status_are_those_that_engines_know() {
    needs_controllers!("freezer");
    let b = sleeping();
    b.verb("pause", &[]).fails("container does not exist");
    b.verb("resume", &[]).fails("container does not exist");
    b.create().ok();
    b.verb("resume", &[]).fails("container not paused: it is created");
    b.start().ok();
    b.verb("resume", &[]).fails("container not paused: it is running");
    b.verb("pause", &[]).ok();
    b.verb("pause", &[]).fails("container not running: cannot pause a paused container");
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
    b.verb("pause", &[]).fails("container not running: cannot pause a stopped container");
    b.verb("resume", &[]).fails("container not paused: it is stopped");
}

#[test]
fn a_container_without_a_cgroup_is_not_paused() {
    needs_root!();
    let b = sleeping();
    b.write();
    let mut create = b.orlop(["--cgroup-manager=disabled", "create", "--bundle"]);
    finish(create.arg(b.path()).arg(&b.id)).ok();
    b.start().ok();
    b.verb("pause", &[]).fails("cannot be paused: it has no cgroup with a freezer");
    b.verb("resume", &[]).fails("container not paused");
    assert_eq!(b.state()["status"], "running");
}

#[test]
fn a_kill_ends_a_paused_container_and_other_signals_wait() {
    needs_controllers!("freezer");
    let script = "trap 'echo > /tmp/got; exit 3' TERM; echo > /tmp/ready; while :; do sleep 0.02; done";
    for private in [true, false] {
        for view in views() {
            let b = Bundle::new().sh(script).set("/root/readonly", json!(false));
            let w = World { b: if private { b } else { b.without_namespace("pid") }, view };
            w.start();
            let there = |f: &str| w.b.rootfs().join("tmp").join(f).exists();
            until("it is ready", || there("ready"));
            w.verb("pause").ok();
            w.run(&["kill", &w.b.id, "TERM"]).ok();
            assert_eq!(w.status(), "paused");
            assert!(!there("got"));
            w.verb("resume").ok();
            until("it got the signal", || there("got"));
            until("it is stopped", || w.status() == "stopped");
            w.verb("delete").ok();

            w.start().verb("pause").ok();
            w.run(&["kill", &w.b.id, "KILL"]).ok();
            until("it is stopped", || w.status() == "stopped");
            w.verb("delete").ok();
            assert_eq!(cgroups_named(&w.b.id), Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn signals_for_all_reach_a_paused_container_without_a_pid_namespace() {
    needs_controllers!("freezer");
    let script = "sleep 1000 & setsid sleep 1000 & (sleep 1000 & sleep 1000 &) ; wait; sleep 1000";
    for signal in ["KILL", "TERM"] {
        for paused in [true, false] {
            for view in views() {
                let w = World { b: Bundle::new().sh(script).without_namespace("pid"), view };
                w.start();
                until("all are there", || cgroups::sleepers(&w.place()) == 4);
                if paused {
                    w.verb("pause").ok();
                }
                w.run(&["kill", "--all", &w.b.id, signal]).ok();
                // On v2 a signal that nobody catches ends what is frozen, as SIGKILL does (cgroup-v2.rst).
                if paused && signal == "TERM" && !w.is_v2() {
                    assert!(w.is_frozen() && w.procs() == 5, "no signal thaws but SIGKILL");
                    w.verb("resume").ok();
                }
                until("all are gone", || w.procs() == 0);
            }
        }
    }
}

#[test]
fn a_paused_container_is_deleted_by_force_alone() {
    needs_controllers!("freezer");
    for view in views() {
        for b in [sleeping(), sleeping().without_namespace("pid")] {
            let w = World { b, view };
            w.start().verb("pause").ok();
            w.verb("delete").fails("cannot delete container that is not stopped: paused");
            w.run(&["delete", "--force", &w.b.id]).ok();
            w.run(&["delete", "--force", &w.b.id]).ok();
            assert_eq!(cgroups_named(&w.b.id), Vec::<PathBuf>::new());
        }
    }
}

#[test]
fn what_the_container_froze_itself_stays_frozen() {
    needs_controllers!("freezer");
    for w in World::all(|| Bundle::new().sh("sleep 1000 & sleep 1000")) {
        w.start();
        until("both are there", || w.procs() == 2);
        let inside = w.place().join("inside");
        fs::create_dir(&inside).expect("mkdir");
        let procs = fs::read_to_string(w.place().join("cgroup.procs")).expect("it is there");
        fs::write(inside.join("cgroup.procs"), procs.lines().last().expect("a process")).expect("it joins");
        let (file, value) = if w.is_v2() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
        fs::write(inside.join(file), value).expect("it freezes");
        assert_eq!(w.status(), "running");
        w.verb("pause").ok();
        w.verb("resume").ok();
        assert_eq!(fs::read_to_string(inside.join(file)).expect("it is there").trim(), value);
        assert_eq!(w.status(), "running");
        w.verb("pause").ok();
        w.run(&["kill", &w.b.id, "KILL"]).ok(); // which frees all
        until("it is stopped", || w.status() == "stopped");
    }
}

#[test]
fn a_container_below_a_frozen_cgroup_does_not_resume() {
    needs_controllers!("freezer");
    let name = format!("orlop-test-{}", unique());
    let b = sleeping().set("/linux/cgroupsPath", json!(format!("/{name}/below")));
    b.create().ok();
    b.start().ok();
    b.verb("pause", &[]).ok();
    let above = dir("freezer", &name);
    freeze(&above);
    let file = if is_unified() { "cgroup.freeze" } else { "freezer.state" };
    let place = above.join("below").join(file);
    let message = format!("{}: is still frozen; a cgroup above is frozen", place.display());
    b.verb("resume", &[]).fails(&message);
    assert_eq!(b.state()["status"], "paused");
    let value = if is_unified() { "0" } else { "THAWED" };
    fs::write(above.join(file), value).expect("it thaws");
    until("nothing is frozen", || b.state()["status"] == "running"); // its own part was done
    b.delete().ok();
    assert_eq!(cgroups_named(&name), Vec::<PathBuf>::new());
}

/// A file system whose disk takes no writes: who waits for one sleeps in the kernel, where no freezer reaches.
struct Stuck(Scratch);

impl Stuck {
    fn new() -> Option<Self> {
        let stuck = Self(Scratch::new("stuck"));
        let disk = stuck.make("disk", 24)?;
        stuck.make("disk/image", 8)?;
        assert!(disk.join("image.fs").exists());
        Some(stuck)
    }

    /// Makes and mounts `name` from the file `name.fs`, of so many megabytes.
    fn make(&self, name: &str, size: u64) -> Option<PathBuf> {
        let (mount, file) = (self.0.path.join(name), self.0.path.join(format!("{name}.fs")));
        fs::create_dir(&mount).expect("mkdir");
        fs::File::create(&file).and_then(|f| f.set_len(size << 20)).expect("a file");
        let run = |c: &mut Command| c.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let made = run(Command::new("mkfs.ext4").arg("-q").arg(&file)).is_ok_and(|s| s.success())
            && run(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&mount))
                .is_ok_and(|s| s.success());
        made.then_some(mount)
    }

    fn mount(&self) -> PathBuf {
        self.0.path.join("disk/image")
    }

    fn freeze(&self, on: bool) {
        let mut c = Command::new("fsfreeze");
        let _ =
            c.arg(if on { "-f" } else { "-u" }).arg(self.0.path.join("disk")).stderr(Stdio::null()).status();
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.freeze(false);
    }
}

#[test]
fn a_pause_that_cannot_be_had_is_undone() {
    needs_controllers!("freezer");
    let Some(stuck) = Stuck::new() else {
        skip("no file system can be mounted from a file");
        return;
    };
    for view in views() {
        let source = stuck.mount();
        let b = Bundle::new()
            .sh("echo > /mnt/ready; while [ ! -e /tmp/go ]; do sleep 0.01; done; \
                 dd if=/dev/zero of=/mnt/x bs=4k count=1 conv=fsync")
            .set("/root/readonly", json!(false))
            .mount("/mnt", "bind", source.to_str().expect("UTF-8"), &["bind"]);
        let w = World { b, view };
        w.start();
        until("it is ready", || source.join("ready").exists());
        stuck.freeze(true);
        fs::write(w.b.rootfs().join("tmp/go"), "").expect("write");
        let stuck_in_kernel = || {
            let procs = fs::read_to_string(w.place().join("cgroup.procs")).unwrap_or_default();
            procs
                .lines()
                .any(|p| fs::read_to_string(format!("/proc/{p}/stat")).is_ok_and(|s| s.contains(") D ")))
        };
        until("a process is stuck", stuck_in_kernel);
        let out = w.verb("pause");
        let status = w.status();
        let thawed = !w.is_frozen();
        stuck.freeze(false);
        let file = w.place().join(if w.is_v2() { "cgroup.freeze" } else { "freezer.state" });
        let file =
            if w.view == Some(V2) { Path::new(ROOT).join(&w.b.id).join("cgroup.freeze") } else { file };
        out.fails(&format!("{}: did not freeze within 2000 ms, and goes on", file.display()));
        assert_eq!((status.as_str(), thawed), ("running", true), "{view:?}");
        for f in ["ready", "x"] {
            let _ = fs::remove_file(source.join(f));
        }
    }
}

#[test]
fn pauses_and_resumes_at_once_leave_a_container_that_works() {
    needs_controllers!("freezer");
    let b = counting();
    b.create().ok();
    b.start().ok();
    std::thread::scope(|s| {
        for n in 0..4 {
            let b = &b;
            s.spawn(move || {
                for turn in 0..6 {
                    let verb = if (n + turn) % 2 == 0 { "pause" } else { "resume" };
                    let out = b.verb(verb, &[]);
                    let known = ["container not paused", "container not running"];
                    assert!(
                        out.status.success() || known.iter().any(|k| out.stderr.contains(k)),
                        "{verb}: {}",
                        out.stderr
                    );
                }
            });
        }
    });
    if b.state()["status"] == "paused" {
        b.verb("resume", &[]).ok();
    }
    let then = counted(&b);
    until("it counts", || counted(&b).iter().zip(&then).all(|(now, then)| now > then));
}

/// `create` waits for its hooks with the container's lock held.
#[test]
fn a_hook_that_would_change_its_own_container_does_not_wait_for_ever() {
    needs_root!();
    let b = Bundle::sleeping();
    let said = b.path().join("said");
    let script = format!(
        "for v in pause resume update; do {} --root {} $v {} 2>&1; done > {}; exit 0",
        support::ORLOP,
        b.state_root().display(),
        b.id,
        said.display()
    );
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 20 }]);
    let b = b.set("/hooks/createRuntime", hook);
    b.create().ok();
    let text = fs::read_to_string(said).expect("what it said");
    assert_eq!(text.matches("container not running: it is creating").count(), 3, "{text}");
}

/// With no descriptor left nothing can be told of the freezer, and that is what is said.
#[test]
fn a_lack_of_descriptors_is_not_a_lack_of_a_cgroup() {
    needs_root!();
    let b = Bundle::sleeping();
    b.create().ok();
    b.start().ok();
    let mut c = Command::new("sh");
    let line =
        format!("ulimit -n 5; exec {} --root {} pause {}", support::ORLOP, b.state_root().display(), b.id);
    let out = finish(c.args(["-c", &line]).stdin(Stdio::null()));
    assert!(!out.status.success() && !out.stderr.contains("no cgroup"), "{}", out.stderr);
    b.await_status("running");
}
