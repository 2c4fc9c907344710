//! checkpoint and restore: what criu saves and brings back is the container that it was, and the runtime's own.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;

use serde_json::json;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use support::{Bundle, Outcome, Scratch, finish, has_program, until};

fn criu_works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let check = Command::new("criu").arg("check").stdin(Stdio::null()).output();
        has_program("criu") && check.is_ok_and(|o| o.status.success())
    })
}

/// Leaves the test, counted as skipped, unless criu can be used as root.
macro_rules! needs_criu {
    () => {
        needs_root!();
        if !criu_works() {
            support::skip("needs a criu that works on this kernel");
            return;
        }
    };
}

/// Counts up, a line each tenth of a second.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done";

/// Does nothing, for long. The kernel does not tell a sleep that was saved how long it still has: it ends, so it is done
/// again and again.
fn idle() -> Bundle {
    Bundle::new().sh("while :; do sleep 10; done")
}

/// Runs a command whose standard output, a pipe, a container may keep. Files of the host are nothing for criu.
#[track_caller]
fn begin(c: &mut Command) -> Result<BufReader<ChildStdout>, String> {
    let mut child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    let output = BufReader::new(child.stdout.take().expect("stdout"));
    if child.wait().expect("wait").success() {
        return Ok(output);
    }
    let mut text = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut text).expect("UTF-8");
    Err(text)
}

fn number(output: &mut BufReader<ChildStdout>) -> u32 {
    let mut line = String::new();
    output.read_line(&mut line).expect("a line");
    line.trim().parse().unwrap_or_else(|e| panic!("{line:?}: {e}"))
}

#[track_caller]
fn started(b: &Bundle) -> BufReader<ChildStdout> {
    let output = begin(&mut b.making("create")).expect("create");
    b.start().ok();
    output
}

fn images(b: &Bundle) -> PathBuf {
    b.path().join("images")
}

#[track_caller]
fn checkpoint(b: &Bundle, flags: &[&str]) -> Outcome {
    let mut c = b.orlop(["checkpoint", "--image-path"]);
    finish(c.arg(images(b)).args(flags).arg(&b.id))
}

fn restoring(b: &Bundle, flags: &[&str]) -> Command {
    let mut c = b.orlop(["restore", "--bundle"]);
    c.arg(b.path()).arg("--image-path").arg(images(b)).args(flags).arg(&b.id);
    c
}

#[track_caller]
fn restored(b: &Bundle) -> BufReader<ChildStdout> {
    begin(&mut restoring(b, &["--detach"])).expect("restore")
}

fn exec(b: &Bundle, script: &str) -> Outcome {
    finish(&mut b.orlop(["exec", b.id.as_str(), "sh", "-c", script]))
}

fn pid(b: &Bundle) -> i64 {
    b.state()["pid"].as_i64().expect("a pid")
}

/// What is mounted where and how, without what is another number each time.
fn mounts(pid: i64) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mountinfo");
    let line = |l: &str| {
        let (mount, fs) = l.split_once(" - ").expect("a separator");
        let words: Vec<_> = mount.split(' ').skip(3).collect();
        let words = words.iter().map(|w| w.split(':').next().unwrap_or_default());
        let kind = fs.split(' ').next().unwrap_or_default();
        words.chain([kind]).collect::<Vec<_>>().join(" ")
    };
    let mut list: Vec<_> = text.lines().map(line).collect();
    list.sort();
    list
}

#[test]
fn a_container_goes_on_where_it_was() {
    needs_criu!();
    let b = Bundle::new().sh(COUNT).set("/linux/cgroupsPath", json!("/orlop-test-restored"));
    let mut output = started(&b);
    while number(&mut output) < 3 {}
    checkpoint(&b, &[]).ok();
    // As with runc, what is left of it are the images.
    b.is_clean();
    b.verb("state", &[]).fails("does not exist");
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("the rest");
    let last: u32 = rest.lines().last().map_or(3, |l| l.parse().expect("a number"));

    let pid_file = b.path().join("pid");
    let mut output =
        begin(&mut restoring(&b, &["--detach", "--pid-file", pid_file.to_str().unwrap()])).expect("restore");
    assert_eq!(number(&mut output), last + 1, "it went on with another number");
    let state = b.state();
    assert_eq!(state["status"], "running");
    assert_eq!(fs::read_to_string(&pid_file).expect("pid file"), state["pid"].to_string());
    assert_eq!(state["bundle"], b.path().to_str().unwrap());
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{}/fd", state["pid"])).expect("descriptors").collect();
    open.retain(|fd| !["0", "1", "2"].iter().any(|n| fd.as_ref().is_ok_and(|f| f.file_name() == *n)));
    assert!(open.is_empty(), "something of ours or of criu's is open in it: {open:?}");
    assert!(finish(&mut b.orlop(["list"])).ok().stdout.contains(&b.id));
    b.verb("start", &[]).fails("is running, expected created");
    b.verb("delete", &[]).fails("not stopped");
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
    b.verb("delete", &[]).ok();
    b.is_clean();
}

#[test]
fn a_container_that_is_left_running_can_be_saved_again_and_restored_elsewhere() {
    needs_criu!();
    let b = Bundle::new().sh(COUNT);
    let mut output = started(&b);
    number(&mut output);
    let init = pid(&b);
    for _ in 0..2 {
        let work = b.path().join("work");
        checkpoint(&b, &["--leave-running", "--work-path", work.to_str().unwrap()]).ok();
        assert!(work.join("dump.log").exists(), "the log is in the work path");
        assert_eq!((b.state()["status"].as_str(), pid(&b)), (Some("running"), init));
        number(&mut output);
    }
    b.delete().ok();
    number(&mut restored(&b));
    // What came from a checkpoint can be saved, too.
    checkpoint(&b, &[]).ok();
    b.is_clean();
    number(&mut restored(&b));
    b.delete().ok();
    b.is_clean();
}

#[test]
fn mounts_are_as_they_were_and_missing_mount_points_are_made() {
    needs_criu!();
    let volume = Scratch::new("volume");
    let source = volume.path.to_str().unwrap();
    fs::create_dir_all(volume.path.join("inner/deep")).expect("mkdir");
    fs::write(volume.path.join("file"), "of the host").expect("write");
    let file = volume.path.join("file");
    let file = file.to_str().unwrap();
    let tmpfs: Option<&str> = None;
    nix::mount::mount(
        Some("none"),
        &volume.path.join("inner"),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        tmpfs,
    )
    .expect("mount");
    let b = idle()
        .set("/root/readonly", json!(true))
        .mount("/data/a", "bind", source, &["rbind", "ro", "nosuid"])
        .mount("/data/b", "bind", source, &["rbind", "ro", "nosuid"])
        .mount("/data/c", "bind", source, &["bind", "rprivate"])
        .mount("/data/c/inner/deep/file", "bind", file, &["bind", "ro"])
        .mount("/etc/one", "bind", file, &["bind", "rslave"])
        .mount("/var/run/link", "bind", source, &["rbind", "rro"]);
    let link = |b: &Bundle| {
        fs::create_dir_all(b.rootfs().join("var")).expect("mkdir");
        std::os::unix::fs::symlink("../run", b.rootfs().join("var/run")).expect("symlink");
    };
    link(&b);
    drop(started(&b));
    let before = mounts(pid(&b));
    checkpoint(&b, &[]).ok();
    // As an engine that makes the rootfs anew from its image.
    fs::remove_dir_all(b.rootfs()).expect("rm");
    support::make_rootfs(&b.rootfs());
    link(&b);
    drop(restored(&b));
    let after = mounts(pid(&b));
    let (gone, new): (Vec<_>, Vec<_>) = (
        before.iter().filter(|m| !after.contains(m)).collect(),
        after.iter().filter(|m| !before.contains(m)).collect(),
    );
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}, new: {new:#?}");
    let out = exec(
        &b,
        "cat /etc/one /run/link/file; for f in /data/a/x /data/b/x /run/link/inner/x /x; do (: > $f) 2>/dev/null || echo refused; done",
    );
    assert_eq!(out.stdout, "of the hostof the hostrefused\nrefused\nrefused\nrefused\n", "{}", out.stderr);
    let ours = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!ours.contains("/criu/"), "criu's mounts are in our namespace");
    b.delete().ok();
    b.is_clean();
}

#[test]
fn a_restored_container_has_its_limits_and_its_namespaces() {
    needs_criu!();
    needs_controllers!("pids");
    let b = idle()
        .set("/linux/resources/pids", json!({ "limit": 77 }))
        .set("/process/capabilities/bounding", json!(["CAP_KILL"]))
        .set("/process/oomScoreAdj", json!(123));
    drop(started(&b));
    let seen = |b: &Bundle| {
        let init = format!("/proc/{}", pid(b));
        let read = |f: &str| fs::read_to_string(format!("{init}/{f}")).expect(f);
        let keys = ["Cap", "Seccomp:", "NoNewPrivs", "Uid", "Groups"];
        let status: Vec<_> = read("status")
            .lines()
            .filter(|l| keys.iter().any(|k| l.starts_with(k)))
            .map(String::from)
            .collect();
        let limits = read("limits");
        (read("cgroup"), status, limits, read("oom_score_adj"), cgroups::read("pids", &b.id, "pids.max"))
    };
    let before = seen(&b);
    checkpoint(&b, &[]).ok();
    drop(restored(&b));
    assert_eq!(seen(&b), before);
    assert_eq!(before.4, "77");
    // Clocks go on in a namespace of their own, in which exec is too.
    let clock = exec(&b, "readlink /proc/self/ns/time; readlink /proc/1/ns/time").ok().stdout;
    let lines: Vec<_> = clock.lines().collect();
    assert_eq!(lines[0], lines[1]);
    let lo = exec(&b, "ip addr show lo").ok().stdout;
    assert!(lo.contains("UP") && lo.contains("127.0.0.1"), "{lo}");
    b.verb("pause", &[]).ok();
    assert_eq!(b.state()["status"], "paused");
    b.verb("resume", &[]).ok();
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
    b.verb("delete", &[]).ok();
    b.is_clean();
}

#[test]
fn a_restore_in_the_foreground_has_the_programs_status() {
    needs_criu!();
    let b = Bundle::new().sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done");
    let mut line = String::new();
    started(&b).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    checkpoint(&b, &[]).ok();
    let mut c = restoring(&b, &[]);
    let mut child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    until("running", || b.verb("state", &[]).stdout.contains("\"running\""));
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM)
        .expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(7));
    b.is_clean();
}

#[test]
fn hooks_run_around_a_restore() {
    needs_criu!();
    let log = |b: &Bundle, kind: &str| {
        let file = b.path().join("hooks");
        let script = format!("echo {kind} $(grep -o '\"status\":\"[a-z]*\"') >> {}", file.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
    let mut b = idle();
    for kind in kinds {
        let hook = log(&b, kind);
        b = b.set(&format!("/hooks/{kind}"), hook);
    }
    drop(started(&b));
    checkpoint(&b, &[]).ok();
    drop(restored(&b));
    b.delete().ok();
    let text = fs::read_to_string(b.path().join("hooks")).expect("the log");
    let once = "prestart \"status\":\"created\"\ncreateRuntime \"status\":\"creating\"\n\
                poststart \"status\":\"running\"\npoststop \"status\":\"stopped\"\n";
    assert_eq!(text, once.repeat(2));
    b.is_clean();
}

#[test]
fn a_hook_that_fails_undoes_the_restore() {
    needs_criu!();
    for kind in ["createRuntime", "poststart"] {
        let b = idle();
        drop(started(&b));
        checkpoint(&b, &[]).ok();
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "echo no network; exit 3"] }]);
        let b = b.set(&format!("/hooks/{kind}"), hook);
        b.write();
        let error = begin(&mut restoring(&b, &["--detach"])).expect_err("an error");
        let words = format!("hooks.{kind}[0]: \"/bin/sh\": exited with status 3: no network");
        assert!(error.contains(&words), "{error}");
        b.is_clean();
    }
}

#[test]
fn a_restore_that_was_killed_leaves_what_delete_finds() {
    needs_criu!();
    let b = idle();
    drop(started(&b));
    checkpoint(&b, &[]).ok();
    let here = b.path().join("hook");
    let script = format!("touch {}; exec sleep 20 >/dev/null 2>&1", here.display());
    let b = b.set("/hooks/createRuntime", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    b.write();
    let mut child =
        restoring(&b, &["--detach"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    until("the hook", || here.exists());
    assert_eq!(b.state()["status"], "creating");
    let init = pid(&b);
    child.kill().expect("kill");
    child.wait().expect("wait");
    b.delete().ok();
    b.is_clean();
    let lives = || fs::read_to_string(format!("/proc/{init}/stat")).is_ok_and(|s| !s.contains(") Z "));
    until("the end of init", || !lives());
}

#[test]
fn a_terminal_is_handed_over_again() {
    needs_criu!();
    let b = Bundle::new()
        .sh("stty -echo; echo ready; while read line; do echo got $line; done")
        .set("/process/terminal", json!(true));
    let path = b.path().join("console");
    let receive = |begin: &mut dyn FnMut()| {
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
        begin();
        let (socket, _) = listener.accept().expect("accept");
        fs::remove_file(&path).expect("rm");
        let (_, master) = orlop::sys::fd::recv_fd(&socket, &mut [0; 64]).expect("recvmsg");
        File::from(master.expect("a descriptor"))
    };
    let socket = path.to_str().unwrap();
    let line = |r: &mut BufReader<File>| {
        let mut line = String::new();
        r.read_line(&mut line).expect("a line");
        line.trim_end().to_string()
    };
    let master = receive(&mut || {
        finish(b.making("create").args(["--console-socket", socket])).ok();
    });
    b.start().ok();
    let mut master = BufReader::new(master);
    assert_eq!(line(&mut master), "ready");
    checkpoint(&b, &[]).ok();
    b.is_clean();
    let master = receive(&mut || {
        finish(&mut restoring(&b, &["--detach", "--console-socket", socket])).ok();
    });
    use std::io::Write;
    (&master).write_all(b"hello\n").expect("write");
    assert_eq!(line(&mut BufReader::new(master)), "got hello");
    b.delete().ok();
    b.is_clean();
}

#[test]
fn memory_is_saved_ahead() {
    needs_criu!();
    let b = Bundle::new().sh(COUNT);
    let mut output = started(&b);
    number(&mut output);
    let mut c = b.orlop(["checkpoint", "--pre-dump", "--image-path"]);
    let first = finish(c.arg(b.path().join("first")).arg(&b.id));
    if first.stderr.contains("tracking of memory") {
        b.delete().ok();
        return support::skip("needs a kernel that tracks memory changes");
    }
    first.ok();
    assert_eq!(b.state()["status"], "running");
    number(&mut output);
    checkpoint(&b, &["--parent-path", "../first"]).ok();
    assert!(images(&b).join("parent").exists(), "criu did not use what was saved before");
    number(&mut restored(&b));
    b.delete().ok();
    b.is_clean();
}

/// A process of the test, ended with it.
struct Other(std::process::Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn namespaces_that_were_joined_are_joined_again() {
    needs_criu!();
    let mut other = Command::new("unshare");
    let other = Other(other.args(["-n", "sleep", "1000"]).stdout(Stdio::null()).spawn().expect("unshare"));
    let net = format!("/proc/{}/ns/net", other.0.id());
    let ours = fs::read_link("/proc/self/ns/net").expect("readlink");
    until("a network namespace", || fs::read_link(&net).is_ok_and(|n| n != ours));
    let b = idle().namespace("network", Some(&net));
    drop(started(&b));
    checkpoint(&b, &[]).ok();
    drop(restored(&b));
    let theirs = fs::read_link(format!("/proc/{}/ns/net", pid(&b))).expect("readlink");
    let joined = theirs == fs::read_link(&net).expect("readlink");
    b.delete().ok();
    assert!(joined);
    b.is_clean();
}

#[test]
fn what_criu_refuses_is_told_in_its_words_and_the_container_goes_on() {
    needs_criu!();
    let b = idle();
    // Its streams are files of the host, which criu cannot find.
    b.create().ok();
    b.start().ok();
    let out = checkpoint(&b, &[]).fails("dump: Error (criu/").stderr;
    let log = images(&b).join("dump.log");
    assert!(out.contains(&format!("the whole log is {log:?}")), "{out}");
    assert_eq!(b.state()["status"], "running");
    b.delete().ok();
    b.is_clean();
}

#[test]
fn what_is_not_there_is_named() {
    needs_criu!();
    let b = idle();
    b.write();
    let restore = |b: &Bundle| finish(&mut restoring(b, &["--detach"]));
    restore(&b).fails("--image-path: open");
    fs::create_dir(images(&b)).expect("mkdir");
    restore(&b).fails("descriptors.json: open: no such file or directory; --image-path is a directory that");
    fs::write(images(&b).join("descriptors.json"), "[]").expect("write");
    restore(&b).fails("restore: Error (criu/");
    fs::create_dir_all(b.state_root()).expect("mkdir");
    b.is_clean();
    checkpoint(&b, &[]).fails("container does not exist");
    begin(&mut b.making("create")).expect("create");
    checkpoint(&b, &[]).fails("container not running: cannot checkpoint a created container");
    restore(&b).fails("container with given ID already exists");
    b.start().ok();
    checkpoint(&b, &["--parent-path", "/x"]).fails("--parent-path: \"/x\" is absolute");
    checkpoint(&b, &["--page-server", "host"]).fails("--page-server: \"host\" is not ADDRESS:PORT");
    b.delete().ok();
    b.is_clean();
}

#[test]
fn a_criu_that_is_missing_or_broken_is_told_before_anything_is_made() {
    needs_root!();
    let programs = Scratch::new("programs");
    let path = programs.path.to_str().unwrap();
    let b = idle();
    fs::create_dir(images(&b)).expect("mkdir");
    b.write();
    begin(&mut b.making("create")).expect("create");
    b.start().ok();
    let both = |words: &str| {
        let mut c = b.orlop(["checkpoint", "--image-path"]);
        finish(c.arg(images(&b)).arg(&b.id).env("PATH", path)).fails(words);
        let mut c = restoring(&b, &[]);
        finish(c.env("PATH", path)).fails(words);
    };
    both(
        "criu: checkpoints need the program criu, which is not in $PATH; install the package criu, 3.16 or newer",
    );
    let criu = programs.path.join("criu");
    fs::write(&criu, "#!/bin/sh\nexit 3\n").expect("write");
    fs::set_permissions(&criu, fs::Permissions::from_mode(0o755)).expect("chmod");
    both("criu: ended without an answer: exit status: 3; `criu check` tells whether it works on this kernel");
    assert_eq!(b.state()["status"], "running");
    b.delete().ok();
    b.is_clean();
}
