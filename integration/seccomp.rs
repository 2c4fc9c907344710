//! Filters under the real kernel (config-linux.md#seccomp).

mod support;

use orlop::sys::fd;
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use support::{Bundle, Scratch, finish, make_rootfs, skip};

fn docker() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/data/seccomp/docker.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn rule(names: &[&str], action: &str) -> Value {
    json!({ "names": names, "action": format!("SCMP_ACT_{action}") })
}

/// A profile that allows everything but this.
fn denying(names: &[&str], action: &str) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(names, action)] })
}

fn bundle(seccomp: Value, no_new_privileges: bool) -> Bundle {
    Bundle::new().set("/linux/seccomp", seccomp).set("/process/noNewPrivileges", json!(no_new_privileges))
}

#[test]
fn dockers_profile_is_one_filter_of_the_program() {
    needs_root!();
    for no_new_privileges in [true, false] {
        let b = bundle(docker(), no_new_privileges).sh("cat /proc/self/status; mount -t tmpfs x /tmp");
        let out = b.run();
        assert_eq!(out.line("Seccomp:"), Some("2"), "{}", out.stderr);
        assert_eq!(out.line("Seccomp_filters:"), Some("1"));
        assert!(out.stderr.contains("mount: permission denied"), "{}", out.stderr);
        assert_eq!(out.line("NoNewPrivs:"), Some(if no_new_privileges { "1" } else { "0" }));
    }
}

#[test]
fn a_call_gets_the_errno_of_its_rule() {
    needs_root!();
    for (errno, words) in [(json!(null), "Operation not permitted"), (json!(28), "No space left on device")] {
        let mut profile = denying(&["mkdir", "mkdirat"], "ERRNO");
        profile["syscalls"][0]["errnoRet"] = errno;
        bundle(profile, true).sh("mkdir /tmp/x").run().fails(words);
    }
    // A call that the profile has never heard of, in the face of a default that denies.
    let mut profile = docker();
    profile["defaultErrnoRet"] = json!(1);
    let b = bundle(profile, true).args(&["/bin/probe", "64", "600"]);
    let Some(()) = probe(&b) else { return };
    assert_eq!(b.run().ok().stdout, "-38\n");
}

/// Puts the probe into the rootfs.
fn probe(b: &Bundle) -> Option<()> {
    if !cfg!(target_arch = "x86_64") {
        skip("enters the kernel by the ways of x86_64");
        return None;
    }
    support::compile("probe", &b.rootfs().join("bin/probe"))
}

#[test]
fn every_way_into_the_kernel_is_filtered() {
    needs_root!();
    let mut native = docker();
    native["architectures"] = json!(["SCMP_ARCH_X86_64"]);
    // mount(2) is denied, getpid(2) allowed; a kernel without x32 answers ENOSYS to what passes the filter.
    for (profile, abi, mount, getpid) in [
        (docker(), "64", "165", "39"),
        (docker(), "x32", "165", "39"),
        (docker(), "32", "21", "20"),
        (native.clone(), "64", "165", "39"),
        (native.clone(), "x32", "165", "39"),
        (native, "32", "21", "20"),
    ] {
        let only_native = profile["architectures"].as_array().unwrap().len() == 1;
        let b = bundle(profile, true).args(&["/bin/probe", abi, mount]);
        let Some(()) = probe(&b) else { return };
        let out = b.run();
        if only_native && abi != "64" {
            assert_eq!((out.code(), out.stdout.as_str()), (128 + libc::SIGSYS, ""), "{abi}");
            continue;
        }
        assert_eq!(out.ok().stdout, "-1\n", "mount by {abi}");
        let b = b.args(&["/bin/probe", abi, getpid]);
        let out = b.run().ok().stdout;
        assert!(out == "1\n" || abi == "x32" && out == "-38\n", "getpid by {abi}: {out}");
    }
}

#[test]
fn a_setuid_program_gains_nothing_under_no_new_privileges() {
    needs_root!();
    for (no_new_privileges, euid) in [(true, "1000\n"), (false, "0\n")] {
        let b = bundle(docker(), no_new_privileges).args(&["/bin/probe", "64", "107"]); // geteuid(2)
        let b = b.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
        let Some(()) = probe(&b) else { return };
        finish(Command::new("chmod").arg("4755").arg(b.rootfs().join("bin/probe"))).ok();
        assert_eq!(b.run().ok().stdout, euid);
    }
}

#[test]
fn flags_reach_the_kernel() {
    needs_root!();
    needs_program!("strace");
    for (flags, want) in [
        (json!(null), "SECCOMP_FILTER_FLAG_SPEC_ALLOW,"),
        (json!([]), " 0,"),
        (json!(["SECCOMP_FILTER_FLAG_LOG"]), "SECCOMP_FILTER_FLAG_LOG,"),
        (
            json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]),
            "SECCOMP_FILTER_FLAG_TSYNC|SECCOMP_FILTER_FLAG_LOG,",
        ),
    ] {
        let mut profile = docker();
        profile["flags"] = flags;
        let b = bundle(profile, true);
        let (making, log) = (b.making("run"), b.path().join("trace"));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=seccomp", "-o"]).arg(&log);
        finish(strace.arg(making.get_program()).args(making.get_args())).ok();
        let log = std::fs::read_to_string(log).unwrap();
        assert!(log.contains("SECCOMP_SET_MODE_FILTER") && log.contains(want), "{want}: {log}");
    }
    let mut profile = docker();
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_MOON"]);
    bundle(profile, true)
        .run()
        .fails("linux.seccomp.flags[0]: \"SECCOMP_FILTER_FLAG_MOON\" is not a seccomp flag");
}

/// What init itself has to call after the filter was loaded; the message says which step was refused.
#[test]
fn a_profile_that_denies_inits_own_calls_is_told_with_the_step() {
    needs_root!();
    let hint = "linux.seccomp, loaded before, may deny what this needs";
    let ready = "at its step process: tell the parent that all is ready";
    for no_new_privileges in [true, false] {
        for (names, action, words) in [
            (&["write"][..], "ERRNO", ready),
            (&["read"], "ERRNO", ready),
            (&["write"], "KILL_PROCESS", "was killed by signal 31 before the program ran"),
            (
                &["execve"],
                "ERRNO",
                "exec: \"true\": execve: operation not permitted; linux.seccomp may deny it",
            ),
            (&["execve"], "KILL_PROCESS", "at its step process.args: execve"),
        ] {
            let b = bundle(denying(names, action), no_new_privileges);
            let out = b.run().fails(words);
            assert!(out.stderr.contains(hint) || names == ["execve"], "{}", out.stderr);
            b.verb("state", &[]).fails("container does not exist");
        }
    }
    let out = bundle(denying(&["capset"], "ERRNO"), false).run();
    let out = out.fails("process.capabilities: capset: ");
    assert!(out.stderr.contains("operation not permitted") && out.stderr.contains(hint), "{}", out.stderr);
    bundle(denying(&["capset"], "ERRNO"), true).run().ok();
}

#[test]
fn the_mode_of_a_file_is_not_blamed_on_the_filter() {
    needs_root!();
    let out = bundle(docker(), false).args(&["/etc/passwd"]).run().fails("permission denied");
    assert!(!out.stderr.contains("seccomp"), "{}", out.stderr);
}

#[test]
fn start_tells_that_execve_was_denied() {
    needs_root!();
    let b = bundle(denying(&["execve"], "ERRNO"), true);
    b.create().ok();
    b.start().fails("exec: \"true\": execve: operation not permitted; linux.seccomp may deny it");
}

/// What is left of a process until it is waited for tells that it never executed a program; of one that was waited for at
/// once nothing tells, so here nobody does.
#[test]
fn start_tells_that_a_filter_killed_init_at_execve() {
    needs_root!();
    if !support::alone_as_subreaper("start_tells_that_a_filter_killed_init_at_execve") {
        return;
    }
    let b = bundle(denying(&["execve"], "KILL_PROCESS"), true);
    b.create().ok();
    b.start().fails("container process: ended before the program ran");
}

/// What an agent answers.
#[derive(Clone, Copy)]
enum Answer {
    Continue,
    Errno(i32),
}

/// An agent that waits for one container; the thread gives its message and the calls it was asked about.
struct Agent {
    thread: JoinHandle<Value>,
    asked: Arc<Mutex<Vec<i32>>>,
}

/// struct seccomp_notif and struct seccomp_notif_resp (linux/seccomp.h).
#[repr(C)]
#[derive(Default)]
struct Notice {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    instruction: u64,
    args: [u64; 6],
}

#[repr(C)]
struct Reply {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

const NOTIF_RECV: u64 = 0xc050_2100;
const NOTIF_SEND: u64 = 0xc018_2101;
const CONTINUE: u32 = 1;

impl Agent {
    fn at(b: &Bundle, answer: Answer) -> (PathBuf, Agent) {
        Self::below(b.path(), answer)
    }

    fn below(dir: &Path, answer: Answer) -> (PathBuf, Agent) {
        let path = dir.join("agent");
        let socket = UnixListener::bind(&path).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let calls = asked.clone();
        let thread = std::thread::spawn(move || {
            let (mut connection, _) = socket.accept().unwrap();
            let mut buf = vec![0; 1 << 16];
            let (n, listener) = fd::recv_fd(&connection, &mut buf).unwrap();
            let message = serde_json::from_slice(&buf[..n]).unwrap();
            let listener = listener.expect("a descriptor with the message");
            // From here on: the runtime closes the connection, whether or not we have answered anything.
            let mut rest = Vec::new();
            connection.read_to_end(&mut rest).unwrap();
            assert!(rest.is_empty(), "more than one message");
            serve(&listener, answer, &calls);
            message
        });
        (path, Agent { thread, asked })
    }

    fn end(self) -> (Value, Vec<i32>) {
        let message = self.thread.join().unwrap();
        let asked = self.asked.lock().unwrap().clone();
        (message, asked)
    }
}

/// Answers until nobody is left under the filter.
fn serve(listener: &OwnedFd, answer: Answer, calls: &Mutex<Vec<i32>>) {
    let end = Instant::now() + support::patience();
    while Instant::now() < end {
        let [seen] = fd::poll([(listener.as_raw_fd(), libc::POLLIN)], 100).unwrap();
        if seen & libc::POLLHUP != 0 {
            return;
        }
        if seen & libc::POLLIN == 0 {
            continue;
        }
        let mut notice = Notice::default();
        // SAFETY: the kernel fills a structure of the size that the request names.
        if unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &mut notice) } != 0 {
            continue; // the caller was killed
        }
        calls.lock().unwrap().push(notice.nr);
        let (error, flags) = match answer {
            Answer::Continue => (0, CONTINUE),
            Answer::Errno(e) => (-e, 0),
        };
        let reply = Reply { id: notice.id, value: 0, error, flags };
        // SAFETY: the kernel reads a structure of the size that the request names.
        unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &reply) };
    }
}

fn notifying(names: &[&str], agent: &Path) -> Value {
    let mut profile = denying(names, "NOTIFY");
    profile["listenerPath"] = json!(agent);
    profile["listenerMetadata"] = json!("what the agent knows it by");
    profile
}

#[test]
fn the_agent_gets_the_state_and_the_listener_and_answers() {
    needs_root!();
    let b = Bundle::new().set("/annotations/org.example.key", json!("value")).sh("mkdir /tmp/x");
    let (path, agent) = Agent::at(&b, Answer::Errno(libc::ENOSPC));
    let b = b.set("/linux/seccomp", notifying(&["mkdir", "mkdirat"], &path));
    b.run().fails("No space left on device");
    let (message, asked) = agent.end();
    assert_eq!(asked.len(), 1);
    assert_eq!(message["ociVersion"], message["state"]["ociVersion"]);
    assert_eq!(message["fds"], json!(["seccompFd"]));
    assert_eq!(message["metadata"], "what the agent knows it by");
    let state = &message["state"];
    assert_eq!(message["pid"], state["pid"]);
    assert!(message["pid"].as_i64().unwrap() > 1, "{message}");
    assert_eq!(state["id"], json!(b.id));
    assert_eq!(state["status"], "creating");
    assert_eq!(state["bundle"], json!(b.path()));
    assert_eq!(state["annotations"]["org.example.key"], "value");
}

/// The listener is handed on before init makes another call, whichever the agent is asked about.
#[test]
fn any_call_but_write_may_ask_the_agent() {
    needs_root!();
    let numbers = [libc::SYS_sendmsg, libc::SYS_openat, libc::SYS_execve, libc::SYS_close, libc::SYS_read];
    for no_new_privileges in [true, false] {
        for (name, nr) in ["sendmsg", "openat", "execve", "close", "read"].iter().zip(numbers) {
            let b = Bundle::new().sh("cat /etc/group");
            let (path, agent) = Agent::at(&b, Answer::Continue);
            let b = b
                .set("/linux/seccomp", notifying(&[name], &path))
                .set("/process/noNewPrivileges", json!(no_new_privileges));
            assert!(b.run().ok().stdout.contains("user:x:1000"), "{name}");
            let (_, asked) = agent.end();
            assert!(asked.iter().all(|n| i64::from(*n) == nr), "{name}: {asked:?}");
            assert!(!asked.is_empty() || *name == "sendmsg", "{name}");
        }
    }
}

/// A listener changes what flags mean to seccomp(2): it returns a descriptor where TSYNC returns a thread.
#[test]
fn flags_go_with_a_listener() {
    needs_root!();
    for flag in ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] {
        let b = Bundle::new().sh("mkdir /tmp/x");
        let known = finish(&mut b.orlop(["features"])).ok().json();
        let known = known["linux"]["seccomp"]["supportedFlags"].as_array().unwrap().contains(&json!(flag));
        let with = |path: &Path| {
            let mut profile = notifying(&["mkdir", "mkdirat"], path);
            profile["flags"] = json!([flag]);
            profile
        };
        if !known && flag.contains("WAIT_KILLABLE") {
            // Linux 5.19
            let path = b.path().join("agent");
            let _agent = UnixListener::bind(&path).unwrap();
            let b = b.set("/linux/seccomp", with(&path));
            b.run().fails("linux.seccomp: load a seccomp filter of ").fails("seccomp: invalid argument");
            b.is_clean();
            continue;
        }
        let (path, agent) = Agent::at(&b, Answer::Errno(libc::ENOSPC));
        b.set("/linux/seccomp", with(&path)).run().fails("No space left on device");
        assert_eq!(agent.end().1.len(), 1, "{flag}");
    }
}

#[test]
fn create_and_start_ask_the_agent_too() {
    needs_root!();
    let b = Bundle::new().args(&["sleep", "1000"]);
    let (path, agent) = Agent::at(&b, Answer::Continue);
    let b = b.set("/linux/seccomp", notifying(&["execve", "close"], &path));
    b.create().ok();
    b.start().ok();
    b.delete().ok();
    let (message, asked) = agent.end();
    assert_eq!(message["state"]["status"], "creating");
    assert!(asked.contains(&(libc::SYS_execve as i32)), "{asked:?}");
}

/// Each process has a filter, and a listener, of its own; the agent learns which of them it is.
#[test]
fn the_agent_gets_the_listener_of_what_exec_starts() {
    needs_root!();
    let b = Bundle::sleeping();
    let (path, first) = Agent::at(&b, Answer::Continue);
    let b = b.set("/linux/seccomp", notifying(&["mkdir", "mkdirat"], &path));
    b.create().ok();
    b.start().ok();
    std::fs::remove_file(&path).unwrap();
    let (_, agent) = Agent::at(&b, Answer::Errno(libc::ENOSPC));
    b.verb("exec", &["mkdir", "/tmp/x"]).fails("No space left on device");
    let (message, asked) = agent.end();
    assert_eq!((message["state"]["status"].as_str(), asked.len()), (Some("running"), 1));
    assert_eq!(message["state"]["pid"], b.state()["pid"]);
    assert!(message["pid"].as_i64().unwrap() > 1 && message["pid"] != message["state"]["pid"], "{message}");
    b.delete().ok();
    first.end();
}

#[test]
fn a_listener_that_cannot_be_handed_on_is_an_error() {
    needs_root!();
    let b = Bundle::new();
    let path = b.path().join("nobody");
    let b = b.set("/linux/seccomp", notifying(&["mkdir"], &path));
    let words = format!("linux.seccomp.listenerPath: connect to {path:?}: no such file or directory");
    b.run().fails(&words);
    b.verb("state", &[]).fails("container does not exist");
    let _dgram = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    b.run().fails("linux.seccomp.listenerPath: connect to");
    let b = b.set("/linux/seccomp", notifying(&["write"], &path));
    b.run().fails("linux.seccomp.syscalls[0].names[0]: \"write\" cannot have the action SCMP_ACT_NOTIFY");
}

/// An ordinary user's runtime has no right over what is undumpable, and takes the listener all the same.
#[test]
fn an_ordinary_users_agent_gets_the_listener() {
    needs_root!();
    let nobody = 65534;
    let dir = Scratch::new("rootless");
    let (rootfs, config) = (dir.path.join("rootfs"), dir.path.join("config.json"));
    std::fs::create_dir(&rootfs).unwrap();
    make_rootfs(&rootfs);
    support::copy_orlop(&dir.path.join("orlop"));
    let (path, agent) = Agent::below(&dir.path, Answer::Errno(libc::ENOSPC));
    finish(Command::new("chown").args(["-R", "65534:65534"]).arg(&dir.path)).ok();
    let orlop = |args: &[&str]| {
        let mut c = Command::new(dir.path.join("orlop"));
        c.arg("--root").arg(dir.path.join("state")).args(args).current_dir(&dir.path);
        finish(c.uid(nobody).gid(nobody).env_clear().env("PATH", "/usr/bin:/bin"))
    };
    orlop(&["spec", "--rootless"]).ok();
    let mut document: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    document["process"]["terminal"] = json!(false);
    document["process"]["args"] = json!(["mkdir", "/tmp/x"]);
    document["linux"]["seccomp"] = notifying(&["mkdir", "mkdirat"], &path);
    std::fs::write(&config, document.to_string()).unwrap();
    orlop(&["run", "rootless"]).fails("No space left on device");
    assert_eq!(agent.end().1.len(), 1);
}
