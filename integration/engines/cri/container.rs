//! Containers of a pod: their life, their words, their end.

use super::{Pod, call, refused};
use crate::support::until;
use crate::world::Engine;
use crate::{Check, check};
use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};

pub const CHECKS: &[Check] = &[
    check!(container_from_create_to_remove),
    check!(reasons_and_codes),
    check!(start_of_what_is_not_there),
    check!(exec_sync),
    check!(exec_sync_past_its_time),
    check!(stop_within_its_time),
    check!(stop_past_its_time),
    check!(log_files),
    check!(command_environment_and_directory),
    check!(terminal),
    check!(mounts),
    check!(propagation),
    check!(stats),
    check!(restarts_in_one_pod),
];

fn container_from_create_to_remove(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod.create(&["sleep", "1000"], json!({}));
    assert_eq!(c.status()["state"], "CONTAINER_CREATED");
    c.start();
    assert_eq!(c.status()["state"], "CONTAINER_RUNNING");
    let list = call("ListContainers", json!({}));
    let listed = list["containers"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|l| l["id"] == *c.id)
        .expect("it is listed");
    assert_eq!(listed["pod_sandbox_id"], *pod.id);
    c.remove();
    let never = pod.create(&["true"], json!({}));
    never.remove();
    pod.remove();
}

fn reasons_and_codes(e: &Engine) {
    let pod = Pod::new(e);
    for (script, code, reason) in
        [("true", 0, "Completed"), ("exit 7", 7, "Error"), ("sh -c 'kill -9 $$'; exit $?", 137, "Error")]
    {
        let c = pod.start(&["sh", "-c", script], json!({}));
        let status = c.ended();
        assert_eq!(
            (&status["exit_code"], &status["reason"]),
            (&json!(code), &json!(reason)),
            "{script}: {status}"
        );
        assert!(status["finished_at"].as_i64() > Some(0), "{status}");
        c.remove();
    }
    let killed = pod.sleeping(json!({}));
    let pid = nix::unistd::Pid::from_raw(killed.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("it is there");
    assert_eq!(killed.ended()["exit_code"], 137);
    pod.remove();
}

fn start_of_what_is_not_there(e: &Engine) {
    let pod = Pod::new(e);
    for (command, words) in [
        ("missing", "exec: \"missing\": executable file not found in $PATH"),
        ("/missing", "exec: \"/missing\": stat /missing: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let c = pod.create(&[command], json!({}));
        let request = json!({"container_id": c.id});
        refused("StartContainer", request, words);
        let status = c.status();
        assert_eq!(
            (&status["exit_code"], &status["reason"]),
            (&json!(128), &json!("StartError")),
            "{status}"
        );
        assert!(status["message"].as_str().expect("text").contains(words), "{status}");
        c.remove();
    }
    pod.remove();
}

fn exec_sync(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod.sleeping(json!({}));
    assert_eq!(c.exec("echo out; echo err >&2; exit 42"), ("out".into(), "err".into(), 42));
    assert_eq!(c.exec("kill -9 $$").2, 137);
    let big = c.prints("dd if=/dev/zero bs=1k count=1000 2>/dev/null | tr '\\0' x");
    assert_eq!(big.len(), 1_024_000);
    refused(
        "ExecSync",
        json!({"container_id": c.id, "cmd": ["missing"]}),
        "executable file not found in $PATH",
    );
    c.remove();
    refused("ExecSync", json!({"container_id": c.id, "cmd": ["true"]}), "not found");
    pod.remove();
}

fn exec_sync_past_its_time(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod.sleeping(json!({}));
    let request = json!({"container_id": c.id, "cmd": ["sleep", "3333"], "timeout": 1});
    refused("ExecSync", request, "timeout 1s exceeded");
    until("it is killed", || !c.prints("ps").contains("sleep 3333"));
    pod.remove();
}

fn stop_within_its_time(e: &Engine) {
    let pod = Pod::new(e);
    let script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done";
    let c = pod.start(&["sh", "-c", script], json!({}));
    until("it has its trap", || c.said("stdout") == "ready\n");
    c.stop(20);
    assert_eq!(c.status()["exit_code"], 3);
    assert_eq!(c.said("stdout"), "ready\nbye\n");
    c.stop(20);
    pod.remove();
}

fn stop_past_its_time(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod.start(&["sh", "-c", "trap : TERM; echo ready; while :; do sleep 0.02; done"], json!({}));
    until("it has its trap", || c.said("stdout") == "ready\n");
    let begin = Instant::now();
    c.stop(1);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(c.status()["exit_code"], 137);
    pod.remove();
}

fn log_files(e: &Engine) {
    let pod = Pod::new(e);
    let script =
        "echo first; echo wrong >&2; printf 'no end'; until [ -e /go ]; do sleep 0.02; done; echo later";
    let c = pod.start(&["sh", "-c", script], json!({}));
    until("it wrote", || c.said("stdout").starts_with("first\n") && c.said("stderr") == "wrong\n");
    let rotated = c.log.with_extension("rotated");
    fs::rename(&c.log, &rotated).expect("rename");
    call("ReopenContainerLog", json!({"container_id": c.id}));
    c.prints("touch /go");
    c.ended();
    assert!(fs::read_to_string(&rotated).expect("the old log").contains(" stdout F first\n"));
    until("the rest is in the new log", || fs::read_to_string(&c.log).is_ok_and(|t| t.contains("later\n")));
    pod.remove();
}

fn command_environment_and_directory(e: &Engine) {
    let pod = Pod::new(e);
    let patch = json!({
        "args": ["-c", "echo \"$A|$PWD|$0|$1\"", "zero", "one two"], "working_dir": "/made/here",
        "envs": [{"key": "A", "value": "b c"}],
    });
    let c = pod.start(&["sh"], patch);
    c.ended();
    assert_eq!(c.said("stdout"), "b c|/made/here|zero|one two\n");
    pod.remove();
}

fn terminal(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod.start(
        &["sh", "-c", "tty; ls -l /dev/console | cut -c 1; echo err >&2"],
        json!({"tty": true, "stdin": true}),
    );
    assert_eq!(c.ended()["exit_code"], 0);
    assert_eq!(c.said("stdout").replace('\r', ""), "/dev/pts/0\nc\nerr\n");
    pod.remove();
}

fn mounts(e: &Engine) {
    let pod = Pod::new(e);
    let dir = e.dir.join(format!("volume-{}", pod.id));
    fs::create_dir(&dir).expect("mkdir");
    fs::write(dir.join("file"), "volume\n").expect("write");
    let mounts = json!([
        {"host_path": dir, "container_path": "/deep/rw"},
        {"host_path": dir, "container_path": "/ro", "readonly": true},
        {"host_path": dir.join("file"), "container_path": "/etc/one-file", "readonly": true},
    ]);
    let script =
        "echo new > /deep/rw/new; cat /ro/new /etc/one-file; touch /ro/x 2>&1; echo > /etc/one-file; true";
    let want = "new\nvolume\ntouch: /ro/x: Read-only file system";
    assert_eq!(pod.prints(json!({"mounts": mounts}), script), want);
    assert_eq!(fs::read_to_string(dir.join("new")).expect("it is there"), "new\n");
    pod.remove();
}

/// Both ways of a volume's mounts, as the three words of the interface have them.
fn propagation(e: &Engine) {
    let pod = Pod::with(e, json!({"linux": {"security_context": {"privileged": true}}}));
    for (word, comes_in, goes_out) in [
        ("PROPAGATION_PRIVATE", false, false),
        ("PROPAGATION_HOST_TO_CONTAINER", true, false),
        ("PROPAGATION_BIDIRECTIONAL", true, true),
    ] {
        let dir = e.dir.join(format!("{word}-{}", pod.id));
        for below in ["in", "out"] {
            fs::create_dir_all(dir.join(below)).expect("mkdir");
        }
        let mounts = json!([{"host_path": dir, "container_path": "/volume", "propagation": word}]);
        let rights = json!({"capabilities": {"add_capabilities": ["SYS_ADMIN"]}, "seccomp": {"profile_type": "Unconfined"}});
        let c = pod.sleeping(json!({"mounts": mounts, "linux": {"security_context": rights}}));
        crate::world::sh(&format!("mount -t tmpfs from-host {}/in", dir.display()));
        assert_eq!(c.prints("grep -c '^from-host ' /proc/mounts; true") == "1", comes_in, "{word} in");
        c.prints("mount -t tmpfs from-inside /volume/out");
        let ours = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let seen = ours.lines().any(|l| l.contains(&format!("{}/out ", dir.display())));
        assert_eq!(seen, goes_out, "{word} out");
        c.remove();
        crate::world::sh(&format!("umount {0}/in; umount {0}/out 2>/dev/null || true", dir.display()));
    }
    pod.remove();
}

fn stats(e: &Engine) {
    let pod = Pod::new(e);
    let c = pod
        .start(&["sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=8; while :; do :; done"], json!({}));
    let value = |of: &str, key: &str| {
        let stats = call("ContainerStats", json!({"container_id": c.id}));
        stats["stats"][of][key]["value"].as_u64().unwrap_or(0)
    };
    until("memory is counted", || value("memory", "working_set_bytes") > 8 << 20);
    until("time is counted", || value("cpu", "usage_core_nano_seconds") > 50_000_000);
    pod.remove();
}

fn restarts_in_one_pod(e: &Engine) {
    let pod = Pod::new(e);
    for attempt in 0..3 {
        let metadata = json!({"metadata": {"name": "same", "attempt": attempt}});
        let c = pod.start(&["sh", "-c", &format!("exit {attempt}")], metadata);
        assert_eq!(c.ended()["exit_code"], attempt);
    }
    pod.remove();
}
