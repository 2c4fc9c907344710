//! What a container finds of ours: a process of `exec` that its init stops before it runs its program, which has, and holds
//! up, nothing; the copy of our program.

mod support;

use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use support::{Bundle, ORLOP, finish, until};

fn started(b: Bundle) -> Bundle {
    b.create().ok();
    b.start().ok();
    b
}

fn command(b: &Bundle, flags: &[&str], program: &[&str]) -> Command {
    b.orlop([&["exec"], flags, &[b.id.as_str()], program].concat())
}

fn pid(b: &Bundle) -> i64 {
    b.state()["pid"].as_i64().expect("a pid")
}

/// A container whose init stops every process that comes after it, the sooner the better; and its processes but init, as
/// the host counts them.
fn stopping(b: Bundle) -> Bundle {
    started(b.sh("n=2; while :; do kill -STOP $n 2>/dev/null && n=$((n + 1)); done"))
}

fn others(b: &Bundle) -> Vec<i64> {
    let init = pid(b);
    let files = support::cgroups_named(&b.id).into_iter().map(|d| d.join("cgroup.procs"));
    let pids = files.filter_map(|f| fs::read_to_string(f).ok()).collect::<String>();
    let pids: std::collections::BTreeSet<i64> = pids.lines().filter_map(|l| l.parse().ok()).collect();
    pids.into_iter().filter(|p| *p != init).collect()
}

fn status(pid: i64) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

/// A process of ours, stopped before it runs the program, and the call that waits for it.
fn caught(b: &Bundle, flags: &[&str]) -> (i64, Child) {
    for _ in 0..50 {
        let mut child = command(b, flags, &["sleep", "1000"]).stderr(Stdio::piped()).spawn().expect("orlop");
        let mut stopped = None;
        until("a stopped process", || {
            stopped = others(b).into_iter().find(|p| status(*p).contains("State:\tT"));
            stopped.is_some() || child.try_wait().expect("wait").is_some()
        });
        let ours =
            |pid: &i64| !status(*pid).contains("Name:\tsleep") && !status(*pid).contains("Name:\tbusybox");
        if let Some(pid) = stopped.filter(ours) {
            return (pid, child);
        }
        for pid in others(b) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL);
        }
        child.wait().expect("wait");
    }
    panic!("it never came in time");
}

/// CAP_SYS_PTRACE takes over whatever it sees: there is nothing to be had of a process of ours.
#[test]
fn what_the_container_sees_of_the_process_has_no_more_than_it_has() {
    needs_root!();
    let lines = |pid: i64| -> Vec<String> {
        let keys = ["Cap", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp"];
        let of = |l: &&str| keys.iter().any(|k| l.starts_with(k));
        status(pid).lines().filter(of).map(String::from).collect()
    };
    let filter = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_ERRNO" }],
    });
    for no_new_privileges in [false, true] {
        let b = Bundle::new().set("/process/noNewPrivileges", json!(no_new_privileges));
        let b = stopping(b.set("/linux/seccomp", filter.clone()));
        let (pid, mut child) = caught(&b, &[]);
        assert_eq!(lines(pid), lines(self::pid(&b)));
        let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors").flatten();
        let links = links.filter(|f| f.file_name().to_string_lossy().parse::<i32>().is_ok_and(|n| n > 2));
        // It may be at the container's own list of users.
        let inode = |path: PathBuf| fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
        let users = inode(b.rootfs().join("etc/passwd"));
        let links = links.filter(|f| users.is_none() || inode(f.path()) != users);
        let links: Vec<_> = links.filter_map(|f| fs::read_link(f.path()).ok()).collect();
        let harmless = |l: &PathBuf| l.as_os_str() == "/" || l.to_string_lossy().starts_with("socket:");
        assert!(links.len() <= 2 && links.iter().all(harmless), "{links:?}");
        b.delete().ok();
        assert_ne!(child.wait().expect("wait").code(), Some(0));
    }
}

/// Nor does it hold up whoever calls: until the program runs, the signals that end a call end ours.
#[test]
fn a_call_whose_process_was_stopped_ends_by_a_signal() {
    needs_root!();
    let b = stopping(Bundle::new());
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let (pid, mut child) = caught(&b, &[]);
        let signal_of = nix::sys::signal::Signal::try_from(signal).expect("a signal");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal_of).expect("kill");
        until("the end of the call", || child.try_wait().expect("wait").is_some());
        let out = child.wait_with_output().expect("output");
        let words = format!("had no program yet when signal {signal} came to us");
        assert!(String::from_utf8_lossy(&out.stderr).contains(&words), "{out:?}");
        assert_ne!(out.status.code(), Some(0));
        assert!(!fs::exists(format!("/proc/{pid}")).expect("procfs"), "the process stayed");
    }
}

/// What a fork does not inherit, or would need a process more for, is there all the same.
#[test]
fn limits_and_scheduler_are_those_of_the_document() {
    needs_root!();
    let b = started(Bundle::sleeping());
    let file = b.path().join("process.json");
    let process = |args: &[&str]| json!({ "args": args, "cwd": "/", "user": { "uid": 4243, "gid": 1 } });
    let run = |process: serde_json::Value| {
        fs::write(&file, process.to_string()).expect("write");
        let mut c = b.orlop(["exec", "--process"]);
        finish(c.arg(&file).arg(&b.id)).ok().stdout
    };
    let mut alone = process(&["/bin/cat", "/proc/self/limits"]);
    alone["rlimits"] = json!([
        { "type": "RLIMIT_NPROC", "soft": 1, "hard": 1 },
        { "type": "RLIMIT_NOFILE", "soft": 40, "hard": 41 },
    ]);
    let limits = run(alone);
    let of = |name: &str| -> Vec<String> {
        let line = limits.lines().find_map(|l| l.strip_prefix(name)).expect("a limit");
        line.split_whitespace().take(2).map(String::from).collect()
    };
    assert_eq!(
        (of("Max processes"), of("Max open files")),
        (vec!["1".into(); 2], vec!["40".into(), "41".into()])
    );
    let mut batch = process(&["/bin/cat", "/proc/self/stat"]);
    batch["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] });
    batch["user"]["uid"] = json!(0);
    let stat = run(batch);
    let fields: Vec<_> = stat.split_whitespace().collect();
    assert_eq!((fields[18], fields[40]), ("5", "3"), "{stat}");
}

/// Whoever has the descriptor of the copy that we run from could make its mount writable.
#[test]
fn nobody_has_the_copy_that_we_run_from_once_a_container_is_there() {
    needs_root!();
    let own = fs::metadata(ORLOP).unwrap();
    let holds = |pid: u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        files
            .filter_map(|f| fs::metadata(f.path()).ok())
            .any(|m| (m.dev(), m.ino()) == (own.dev(), own.ino()))
    };
    let b = Bundle::sleeping();
    let list = b.path().join("seen");
    let script = format!("stat -L -c %d:%i /proc/$PPID/fd/* > {} 2>&1; true", list.display());
    let b = b.set("/hooks/createRuntime", json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }]));
    let mut run = b.making("run").spawn().unwrap();
    until("the hook", || list.exists()); // by then the container is on record
    b.await_status("running");
    let mut exec = b.orlop(["exec", &b.id, "sh", "-c", "touch /dev/here; sleep 100"]).spawn().unwrap();
    let here = format!("/proc/{}/root/dev/here", b.state()["pid"]);
    until("exec", || Path::new(&here).exists());
    let held = [run.id(), exec.id()].map(holds);
    let seen = fs::read_to_string(&list).unwrap();
    b.verb("delete", &["--force"]).ok();
    let _ = (run.wait(), exec.wait());
    assert_eq!(held, [false, false]);
    let word = format!("{}:{}", own.dev(), own.ino());
    assert!(seen.contains(':') && seen.lines().all(|l| l != word), "{seen}");
}
