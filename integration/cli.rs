//! The command line: flags whose effect no other program shows, each by what it changes, and by its wrong use.

#[macro_use]
mod support;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use support::{Bundle, ORLOP, Outcome, Scratch, finish, patience};

fn orlop(args: &[&str]) -> Outcome {
    finish(Command::new(ORLOP).args(args).stdin(Stdio::null()))
}

/// As root, where every cgroup file system is mounted read-only.
fn without_cgroups(b: &Bundle, flags: &[&str]) -> Outcome {
    let script = "awk '$3 ~ /^cgroup/ { print $2 }' /proc/self/mounts | \
                  while read m; do mount -o remount,bind,ro \"$m\"; done; exec \"$@\"";
    b.write();
    let mut c = Command::new("unshare");
    c.args(["-m", "sh", "-ec", script, "sh", ORLOP, "--root"]).arg(b.state_root()).args(flags);
    finish(c.args(["run", "--bundle"]).arg(b.path()).arg(&b.id).stdin(Stdio::null()))
}

/// One that needs no cgroup.
fn free() -> Bundle {
    let every_device = json!([{ "allow": true, "access": "rwm" }]);
    let mut b = Bundle::new().set("/linux/resources/devices", every_device);
    b.config["mounts"].as_array_mut().unwrap().retain(|m| m["type"] != "cgroup");
    b
}

#[test]
fn rootless_says_whether_a_cgroup_may_be_missing() {
    needs_root!();
    needs_program!("awk");
    let b = free().sh("echo ran");
    for flags in [&[][..], &["--rootless=auto"], &["--rootless", "false"]] {
        without_cgroups(&b, flags)
            .fails("linux.cgroupsPath: mkdir /sys/fs/cgroup")
            .fails("read-only file system");
    }
    assert_eq!(without_cgroups(&b, &["--rootless", "true"]).ok().stdout, "ran\n");
    // What limits needs its cgroup all the same.
    let message = "read-only file system; a limit needs a cgroup that was delegated to this user";
    let b = b.set("/linux/resources/devices", json!([{ "allow": false, "access": "rwm" }]));
    without_cgroups(&b, &["--rootless", "true"]).fails("linux.resources.devices").fails(message);
    b.is_clean();
}

#[test]
fn another_name_of_the_document() {
    needs_root!();
    let b = Bundle::new().sh("echo $WHICH");
    let mut config = b.config.clone();
    config["process"]["env"].as_array_mut().unwrap().push(json!("WHICH=other"));
    fs::write(b.path().join("other.json"), config.to_string()).unwrap();
    for flag in ["--config", "-f"] {
        let mut c = b.orlop(["run", flag, "other.json", "--bundle"]);
        assert_eq!(finish(c.arg(b.path()).arg(&b.id)).ok().stdout, "other\n");
        let mut c = b.orlop(["create", flag, "other.json", "--bundle"]);
        finish(c.arg(b.path()).arg(&b.id)).ok();
        b.delete().ok();
    }
    let mut c = b.orlop(["run", "--config", "none.json", "--bundle"]);
    finish(c.arg(b.path()).arg(&b.id)).fails("none.json: open: no such file or directory");
    // spec writes where it is told.
    let file = b.path().join("new.json");
    let mut spec = Command::new(ORLOP);
    finish(spec.args(["spec", "--file", "new.json", "--bundle"]).arg(b.path())).ok();
    let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(written["ociVersion"], "1.3.0");
    let mut again = Command::new(ORLOP);
    finish(again.args(["spec", "-f", "new.json", "-b"]).arg(b.path())).fails("exists and is not overwritten");
}

#[test]
fn the_least_level_of_the_log() {
    needs_root!();
    needs_program!("awk");
    let b = free().set("/vm", json!({})); // warned of
    let log = b.path().join("log");
    let log = log.to_str().unwrap();
    let root = b.state_root();
    for (flags, warned, debug) in [
        (&[][..], true, false),
        (&["--debug"], true, true),
        (&["--log-level", "debug"], true, true),
        (&["--log-level", "warn"], true, false),
        (&["--log-level", "warning", "--debug"], true, false),
        (&["--log-level", "error"], false, false),
    ] {
        let _ = fs::remove_file(log);
        without_cgroups(&b, &[flags, &["--log", log, "--rootless", "true"]].concat()).ok();
        let text = fs::read_to_string(log).unwrap();
        assert_eq!(text.contains("level=warning msg=\"vm: "), warned, "{flags:?}: {text}");
        assert_eq!(text.contains("level=debug"), debug, "{flags:?}: {text}");
        let all = [&["--log", log, "--root", root.to_str().unwrap()], flags, &["state", "none"]];
        orlop(&all.concat()).fails("does not exist");
        assert!(fs::read_to_string(log).unwrap().contains("level=error"), "{flags:?}");
    }
    orlop(&["--log-level", "loud", "list"]).fails("'loud'");
}

#[test]
fn the_log_goes_to_a_file_or_to_a_daemon() {
    needs_root!();
    let scratch = Scratch::new("log");
    let file = scratch.path.join("log");
    let state = |log: &str, wrapped: &mut Command| {
        let mut c = std::mem::replace(wrapped, Command::new("true"));
        c.args([ORLOP, "--root"]).arg(&scratch.path).args(["--log", log, "state", "none"]);
        finish(c.stdin(Stdio::null()))
    };
    state(&format!("file:{}", file.display()), Command::new("env").arg("-i")).fails("does not exist");
    assert!(fs::read_to_string(&file).unwrap().contains("level=error"));
    // In a mount namespace where our socket is the daemon's.
    for (log, at, words) in [
        ("syslog:web", "/dev/log", "<11>web["),
        ("syslog:", "/dev/log", "<11>orlop["),
        (
            "journald:web",
            "/run/systemd/journal/socket",
            "PRIORITY=3\nSYSLOG_IDENTIFIER=web\nMESSAGE=orlop: state: ",
        ),
    ] {
        let path = scratch.path.join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(patience())).unwrap();
        let script = "socket=$1 at=$2; shift 2; dir=$(dirname \"$at\"); kept=$(mktemp); mount --bind \"$socket\" \"$kept\"; \
                      mount -t tmpfs none \"${dir%/systemd/journal}\"; mkdir -p \"$dir\"; touch \"$at\"; \
                      mount --bind \"$kept\" \"$at\"; exec \"$@\"";
        let mut c = Command::new("unshare");
        c.args(["-m", "sh", "-ec", script, "sh"]).arg(&path).arg(at).env("TMPDIR", &scratch.path);
        state(log, &mut c).fails("does not exist");
        let mut buf = [0; 4096];
        let got = socket.recv(&mut buf).map(|n| String::from_utf8_lossy(&buf[..n]).into_owned()).unwrap();
        assert!(got.starts_with(words) && got.contains("does not exist"), "{got}");
        // A daemon that hangs stops nobody: its queue is full.
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"x", &path).is_ok() {}
        let mut c = Command::new("timeout");
        c.args(["10", "unshare", "-m", "sh", "-ec", script, "sh"])
            .arg(&path)
            .arg(at)
            .env("TMPDIR", &scratch.path);
        state(log, &mut c).fails("does not exist");
        drop(socket);
        fs::remove_file(&path).unwrap();
        // And none at all.
        let mut c = Command::new("unshare");
        c.args([
            "-m",
            "sh",
            "-ec",
            "at=$1; shift; mount -t tmpfs none \"$(dirname \"$at\")\" 2>/dev/null; exec \"$@\"",
            "sh",
            at,
        ]);
        let failed = state(log, &mut c);
        assert!(!failed.status.success());
    }
}
