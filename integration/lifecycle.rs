//! The verbs one by one: their rules, their words, their output (runtime.md, and what callers rely on).

mod support;

use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use support::{Bundle, finish, until};

fn pid_of(b: &Bundle) -> i64 {
    b.state()["pid"].as_i64().expect("a pid")
}

#[test]
fn create_leaves_the_program_to_start() {
    needs_root!();
    let b = Bundle::new().sh("echo began > /began; exec sleep 1000").set("/root/readonly", json!(false));
    let out = b.create().ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    let state = b.state();
    assert_eq!(state["status"], "created");
    let stat = || fs::read_to_string(format!("/proc/{}/stat", state["pid"])).expect("init");
    until("a process that sleeps", || stat().contains(") S "));
    assert!(!b.rootfs().join("began").exists(), "the program ran before start");
    let out = b.start().ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    until("its effect", || b.rootfs().join("began").exists());
    assert_eq!(b.state()["pid"], state["pid"]);
    b.start().fails("is running, expected created");
    let out = b.verb("kill", &["9"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    b.await_status("stopped");
    b.start().fails("is stopped, expected created");
    b.verb("kill", &["9"]).fails("container not running");
    let out = b.verb("delete", &[]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
    b.is_clean();
}

#[test]
fn state_has_the_specified_properties_and_runcs() {
    needs_root!();
    let b = Bundle::sleeping().set("/annotations", json!({ "org.example.a": "1", "b": "" }));
    b.create().ok();
    let state = b.state();
    let keys: Vec<_> = state.as_object().expect("an object").keys().cloned().collect();
    let mut want =
        ["ociVersion", "id", "status", "pid", "bundle", "annotations", "rootfs", "created", "owner"];
    want.sort_unstable();
    let mut keys_sorted = keys.clone();
    keys_sorted.sort_unstable();
    assert_eq!(keys_sorted, want);
    let bundle = fs::canonicalize(b.path()).expect("the bundle");
    assert_eq!(state["ociVersion"], b.config["ociVersion"]);
    assert_eq!(state["id"], b.id.as_str());
    assert_eq!(state["bundle"], bundle.to_str().expect("UTF-8"));
    assert_eq!(state["rootfs"], bundle.join("rootfs").to_str().expect("UTF-8"));
    assert_eq!(state["annotations"], json!({ "org.example.a": "1", "b": "" }));
    assert_eq!(state["owner"], "root");
    assert!(state["created"].as_str().is_some_and(|c| c.starts_with("20") && c.ends_with('Z')), "{state}");
    assert!(fs::exists(format!("/proc/{}", state["pid"])).expect("procfs"));
    b.delete().ok();
}

#[test]
fn a_stopped_container_has_no_pid() {
    needs_root!();
    let b = Bundle::new();
    b.create().ok();
    b.start().ok();
    b.await_status("stopped");
    assert_eq!(b.state()["pid"], 0);
    b.verb("delete", &[]).ok();
}

#[test]
fn an_unknown_id_does_not_exist() {
    needs_root!();
    let b = Bundle::sleeping();
    for (verb, more) in [("state", &[][..]), ("start", &[]), ("kill", &["9"]), ("delete", &[])] {
        let out = b.verb(verb, more).fails("container does not exist");
        assert_eq!((out.code(), out.stdout.as_str()), (1, ""));
    }
    let out = b.verb("delete", &["--force"]).ok();
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", ""));
}

#[test]
fn ids_that_name_no_directory_are_refused() {
    needs_root!();
    let b = Bundle::sleeping();
    b.write();
    for id in [".", "..", "a/b", "/etc", "a b", "\u{e9}", "a\nb", &"x".repeat(256)] {
        let mut c = b.orlop(["create", "--bundle"]);
        finish(c.arg(b.path()).arg(id)).fails("container id");
        finish(&mut b.orlop(["delete", "--force", "--", id])).fails("container id");
    }
    b.is_clean();
    let id = "x".repeat(255);
    let mut c = b.orlop(["create", "--cgroup-manager=disabled"]); // a global option after the verb
    finish(c.arg("--bundle").arg(b.path()).arg(&id)).fails("cgroup-manager");
}

#[test]
fn an_id_in_use_is_refused_and_its_container_unharmed() {
    needs_root!();
    let b = Bundle::sleeping();
    b.create().ok();
    let before = b.state();
    b.create().fails("already exists");
    b.run().fails("already exists");
    assert_eq!(b.state(), before);
    b.start().ok();
    b.create().fails("already exists");
    assert_eq!(b.state()["status"], "running");
    b.delete().ok();
    b.is_clean();
}

#[test]
fn delete_refuses_a_running_container() {
    needs_root!();
    let b = Bundle::sleeping();
    b.create().ok();
    b.start().ok();
    b.verb("delete", &[]).fails("cannot delete container that is not stopped: running");
    assert_eq!(b.state()["status"], "running");
    b.delete().ok();
    b.is_clean();
}

#[test]
fn delete_of_a_created_container_ends_it() {
    needs_root!();
    let b = Bundle::sleeping();
    b.create().ok();
    let pid = pid_of(&b);
    b.verb("delete", &[]).ok();
    b.is_clean();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
}

#[test]
fn delete_force_is_idempotent_in_each_state() {
    needs_root!();
    type Prepare = fn(&Bundle);
    let states: [(&str, Prepare); 9] = [
        ("unknown", |_| {}),
        ("created", |b| drop(b.create().ok())),
        ("running", |b| {
            b.create().ok();
            b.start().ok();
        }),
        ("stopped", |b| {
            b.create().ok();
            b.start().ok();
            b.verb("kill", &["KILL"]).ok();
            b.await_status("stopped");
        }),
        ("half made", |b| fs::create_dir(b.state_root().join(&b.id)).expect("mkdir")),
        ("unreadable", |b| {
            b.create().ok();
            fs::write(b.state_root().join(&b.id).join("state.json"), "{\"id\":").expect("write");
        }),
        ("unreadable and stopped", |b| {
            b.create().ok();
            b.verb("kill", &["KILL"]).ok();
            b.await_status("stopped");
            fs::write(b.state_root().join(&b.id).join("state.json"), "{\"id\":").expect("write");
        }),
        ("unreadable, with processes that no init ends", |b| {
            b.create().ok();
            b.start().ok();
            fs::write(b.state_root().join(&b.id).join("state.json"), "{\"id\":").expect("write");
        }),
        ("of another", |b| {
            b.create().ok();
            fs::write(b.state_root().join(&b.id).join("state.json"), "{\"id\":\"b\"}").expect("write");
        }),
    ];
    for (name, prepare) in states {
        let mut b = Bundle::sleeping();
        if name.contains("no init ends") {
            b = Bundle::new().sh("sleep 1000 & exec sleep 1000").without_namespace("pid");
        }
        prepare(&b);
        let pid = fs::read_link(b.state_root().join(&b.id).join("init")).unwrap_or_default();
        for turn in 0..2 {
            let out = b.verb("delete", &["--force"]);
            assert!(out.status.success(), "{name}, {turn}: {}", out.stderr);
        }
        b.is_clean();
        let pid = pid.to_string_lossy();
        if let Some(pid) = pid.split(' ').next().filter(|p| !p.is_empty()) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(stat.is_empty() || stat.contains(") Z "), "{name}: init lives: {stat}");
        }
        b.create().ok(); // the id works again
        b.delete().ok();
    }
}

#[test]
fn kill_takes_numbers_and_names() {
    needs_root!();
    for (signal, code) in [("USR1", 21), ("SIGUSR1", 21), ("sigusr1", 21), ("10", 21), ("TERM", 22), ("", 22)]
    {
        let b = Bundle::new()
            .sh("trap 'exit 21' USR1; trap 'exit 22' TERM; echo ready; while :; do sleep 0.02; done");
        let mut run = b.making("run").stdout(Stdio::piped()).spawn().expect("orlop starts");
        let mut ready = [0; 6];
        std::io::Read::read_exact(run.stdout.as_mut().expect("a pipe"), &mut ready).expect("ready");
        let out = b.verb("kill", if signal.is_empty() { &[] } else { std::slice::from_ref(&signal) }).ok();
        assert_eq!(out.stdout, "");
        assert_eq!(run.wait().expect("wait").code(), Some(code), "{signal}");
    }
    let b = Bundle::sleeping();
    b.create().ok();
    b.verb("kill", &["0"]).ok(); // is there a process?
    assert_eq!(b.state()["status"], "created");
    for signal in ["65", "FOO", "SIGSIGTERM", "-9"] {
        finish(&mut b.orlop(["kill", &b.id, "--", signal])).fails("is not a signal");
    }
    b.delete().ok();
}

#[test]
fn exit_codes_are_those_of_the_program() {
    needs_root!();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 255", 255),
        ("(sleep 0.1; exit 5) & exit 44", 44), // a grandchild changes nothing
        ("(exit 9) ; (exit 8) & sleep 0.1; exit 45", 45), // nor do zombies
    ] {
        let out = Bundle::new().sh(script).run();
        assert_eq!(out.code(), code, "{script}: {}", out.stderr);
    }
    // Signals: 128 and the number, whoever sent it.
    let b = Bundle::sleeping();
    let mut run = b.making("run").spawn().expect("orlop starts");
    until("its program", || {
        fs::exists(b.state_root().join(&b.id)).expect("stat") && {
            let out = b.verb("state", &[]);
            out.status.success() && out.json()["status"] == "running"
        }
    });
    b.verb("kill", &["KILL"]).ok();
    assert_eq!(run.wait().expect("wait").code(), Some(137));
    b.is_clean();
}

/// Runs in the foreground with a script that answers to a signal, and sends that signal to the runtime.
fn forwarded(b: &Bundle, signal: i32) -> i32 {
    let making = b.making("run");
    // Under nohup(1) SIGHUP is ignored, which stays so, and no shell can trap it.
    let mut c = Command::new("env");
    c.arg("--default-signal").arg(making.get_program()).args(making.get_args());
    let mut run = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("orlop starts");
    let mut ready = [0; 6];
    std::io::Read::read_exact(run.stdout.as_mut().expect("a pipe"), &mut ready).expect("ready");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(run.id() as i32),
        nix::sys::signal::Signal::try_from(signal).expect("a signal"),
    )
    .expect("kill");
    let stdin = run.stdin.take(); // wait(2) of the standard library would close it at once
    let code = run.wait().expect("wait").code().unwrap_or(-1);
    drop(stdin);
    code
}

#[test]
fn a_foreground_run_forwards_signals() {
    needs_root!();
    for signal in [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGTERM,
        libc::SIGALRM,
    ] {
        let b =
            Bundle::new().sh(&format!("trap 'exit 33' {signal}; echo ready; while :; do sleep 0.02; done"));
        assert_eq!(forwarded(&b, signal), 33, "signal {signal}");
    }
    for signal in [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH] {
        // No child of the shell's own may end meanwhile.
        let b = Bundle::new().sh(&format!("trap 'exit 33' {signal}; echo ready; read -t 1 x; exit 34"));
        assert_eq!(forwarded(&b, signal), 34, "signal {signal} is not for the program");
    }
}

#[test]
fn orphans_are_reaped_by_the_foreground_run() {
    needs_root!();
    // Without a pid namespace they are children of the nearest subreaper.
    let b = Bundle::new()
        .without_namespace("pid")
        .sh("cd /proc; p=$(for n in 1 2 3; do sleep 0.05 >/dev/null & echo $!; done); n=0
             for o in $p; do while [ -e $o ] && [ $((n += 1)) -lt 500 ]; do sleep 0.05; done; done
             grep -l \"^PPid:.$PPID\\$\" [0-9]*/status 2>/dev/null | while read f; do grep ^State $f; done; exit 7");
    let out = b.run();
    assert_eq!(out.code(), 7, "{}", out.stderr);
    assert!(out.stdout.contains("State:") && !out.stdout.contains("zombie"), "{}", out.stdout);
    b.is_clean();
    for (flag, reaped) in [(None, true), (Some("--no-subreaper"), false)] {
        let b = Bundle::new().without_namespace("pid").sh("(sleep 30 &) ; echo ready; sleep 31");
        let mut c = b.making("run");
        c.args(flag).stdout(Stdio::piped());
        let mut run = c.spawn().expect("orlop starts");
        let mut ready = [0; 6];
        std::io::Read::read_exact(run.stdout.as_mut().expect("a pipe"), &mut ready).expect("ready");
        let children = || {
            let file = format!("/proc/{0}/task/{0}/children", run.id());
            fs::read_to_string(file).unwrap_or_default().split_whitespace().count()
        };
        // The shell has waited for the orphan's parent.
        let count = children();
        assert_eq!(count == 2, reaped, "{flag:?}: {count} children");
        b.delete().ok();
        run.wait().expect("wait");
    }
}

#[test]
fn run_detached_returns_when_the_program_runs() {
    needs_root!();
    let b = Bundle::sleeping();
    let file = b.path().join("pid");
    let out = finish(b.making("run").arg("--detach").arg("--pid-file").arg(&file)).ok();
    assert_eq!(out.stdout, "");
    let state = b.state();
    assert_eq!(
        (&state["status"], &state["pid"].to_string()),
        (&json!("running"), &fs::read_to_string(&file).expect("pid"))
    );
    b.delete().ok();
    b.is_clean();
}

#[test]
fn run_keeps_the_container_when_asked() {
    needs_root!();
    let b = Bundle::new().sh("exit 3");
    assert_eq!(finish(b.making("run").arg("--keep")).code(), 3);
    assert_eq!(b.state()["status"], "stopped");
    b.verb("delete", &[]).ok();
    b.is_clean();
}

#[test]
fn the_pid_file_is_whole_and_replaced_by_rename() {
    needs_root!();
    let b = Bundle::sleeping();
    let dir = b.path().join("run");
    fs::create_dir(&dir).expect("mkdir");
    let file = dir.join("p".repeat(255));
    let old = b.path().join("old");
    fs::write(&old, "1").expect("write");
    std::os::unix::fs::symlink(&old, &file).expect("symlink");
    finish(b.making("create").arg("--pid-file").arg(&file)).ok();
    assert_eq!(fs::read_to_string(&file).expect("pid"), pid_of(&b).to_string());
    assert!(fs::symlink_metadata(&file).expect("stat").is_file());
    assert_eq!(fs::read_to_string(&old).expect("read"), "1");
    assert_eq!(fs::read_dir(&dir).expect("read").count(), 1);
    b.delete().ok();
    let missing = b.path().join("no/such");
    finish(b.making("create").arg("--pid-file").arg(&missing)).fails("--pid-file");
    b.is_clean();
    finish(b.making("run").arg("--pid-file").arg(&missing)).fails("--pid-file");
    b.is_clean();
}

#[test]
fn the_pid_file_follows_no_link_of_others() {
    needs_root!();
    let b = Bundle::sleeping();
    b.write();
    let canary = b.path().join("canary");
    fs::write(&canary, "as it was").unwrap();
    let script = "ln -s canary .orlop-pid.$$; exec \"$0\" \"$@\" --pid-file pid"; // the pid stays
    let create = b.making("create");
    let mut c = Command::new("sh");
    c.args(["-c", script]).arg(create.get_program()).args(create.get_args()).current_dir(b.path());
    finish(c.stdin(Stdio::null())).ok();
    assert_eq!(fs::read_to_string(&canary).unwrap(), "as it was");
    assert_eq!(fs::read_to_string(b.path().join("pid")).unwrap(), b.state()["pid"].to_string());
    b.delete().ok();
}

/// What the kernel says of the pidfd that a call hands over.
fn handed_over(b: &Bundle, call: &mut std::process::Command) -> String {
    let path = b.path().join("pidfd");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let mut made = call.spawn().expect("orlop starts");
    let (peer, _) = listener.accept().expect("accept");
    let (_, pidfd) = orlop::sys::fd::recv_fd(&peer, &mut [0; 64]).expect("recvmsg");
    let pidfd = pidfd.expect("a descriptor");
    let number = std::os::fd::AsRawFd::as_raw_fd(&pidfd);
    assert_eq!(made.wait().expect("wait").code(), Some(0));
    fs::remove_file(&path).expect("remove");
    fs::read_to_string(format!("/proc/self/fdinfo/{number}")).expect("fdinfo")
}

#[test]
fn the_pidfd_socket_receives_a_pidfd() {
    needs_root!();
    let b = Bundle::sleeping();
    let (path, file) = (b.path().join("pidfd"), b.path().join("exec.pid"));
    let info = handed_over(&b, b.making("create").arg("--pidfd-socket").arg(&path));
    assert!(info.contains(&format!("Pid:\t{}\n", pid_of(&b))), "{info}");
    b.start().ok();
    let mut exec = b.orlop(["exec", "--detach", "--pidfd-socket"]);
    exec.arg(&path).arg("--pid-file").arg(&file).arg(&b.id).args(["sleep", "1000"]);
    let info = handed_over(&b, &mut exec);
    let pid = fs::read_to_string(&file).expect("the pid file");
    assert!(info.contains(&format!("Pid:\t{pid}\n")), "{info}");
    finish(b.orlop(["exec", "--pidfd-socket", "/dev/null"]).arg(&b.id).arg("true"))
        .fails("--pidfd-socket: \"/dev/null\" is not a socket");
    b.delete().ok();
    finish(b.making("create").arg("--pidfd-socket").arg("/dev/null"))
        .fails("--pidfd-socket: \"/dev/null\" is not a socket");
    b.is_clean();
}

#[test]
fn the_last_error_is_in_the_log_and_on_standard_error() {
    needs_root!();
    let b = Bundle::sleeping();
    let log = b.path().join("log.json");
    fs::write(&log, "{\"level\":\"info\",\"msg\":\"kept\"}\n").expect("write");
    let mut c = Command::new(support::ORLOP);
    c.arg("--root").arg(b.state_root()).arg("--log").arg(&log);
    let out = finish(c.args(["--log-format", "json", "start", "nobody"]));
    assert_eq!(out.code(), 1);
    let text = fs::read_to_string(&log).expect("the log");
    assert!(text.starts_with("{\"level\":\"info\",\"msg\":\"kept\"}\n"), "{text}");
    let last: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    assert_eq!(last["msg"], "orlop: start: container \"nobody\": container does not exist");
    assert!(last["time"].as_str().is_some_and(|t| t.ends_with('Z') && !t.contains('.')), "{last}");
    assert_eq!(out.stderr.trim_end(), last["msg"].as_str().expect("text"));
    let fresh = b.path().join("fresh.json");
    let mut c = Command::new(support::ORLOP);
    c.arg("--root").arg(b.state_root()).arg("--log").arg(&fresh).args(["--log-format", "json", "list"]);
    finish(&mut c).ok();
    assert_eq!(fs::metadata(&fresh).expect("stat").permissions().mode() & 0o777, 0o644);
}

#[test]
fn the_table_of_list_is_fit_for_a_terminal() {
    needs_root!();
    let b = Bundle::sleeping();
    let odd = b.path().join("odd\u{1b}[31m\n");
    std::fs::create_dir(&odd).expect("mkdir");
    b.write();
    std::fs::copy(b.path().join("config.json"), odd.join("config.json")).expect("copy");
    std::os::unix::fs::symlink("../rootfs", odd.join("rootfs")).expect("symlink");
    finish(b.orlop(["create", "--bundle"]).arg(&odd).arg(&b.id)).ok();
    let table = finish(&mut b.orlop(["list"])).ok().stdout;
    assert_eq!((table.lines().count(), table.contains('\u{1b}')), (2, false), "{table:?}");
    assert!(table.contains("odd\\u{1b}[31m\\n"), "{table}");
}

#[test]
fn list_shows_every_container() {
    needs_root!();
    let b = Bundle::sleeping();
    let list = |flags: &[&str]| finish(&mut b.orlop([&["list"], flags].concat())).ok().stdout;
    assert_eq!(list(&["--quiet"]), "");
    assert_eq!(list(&["--format", "json"]).trim(), "[]");
    b.create().ok();
    fs::create_dir(b.state_root().join("half-made")).expect("mkdir");
    fs::write(b.state_root().join("a-file"), "").expect("write");
    assert_eq!(list(&["-q"]), format!("{}\n", b.id));
    let rows: serde_json::Value = serde_json::from_str(&list(&["-f", "json"])).expect("JSON");
    assert_eq!(rows.as_array().map(Vec::len), Some(1));
    assert_eq!((&rows[0]["id"], &rows[0]["status"]), (&json!(b.id), &json!("created")));
    assert_eq!(rows[0]["pid"], b.state()["pid"]);
    let table = list(&[]);
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!((lines.len(), lines[1][0], lines[1][2], lines[1][5]), (2, b.id.as_str(), "created", "root"));
    finish(&mut b.orlop(["list", "--format", "yaml"])).fails("yaml");
    b.delete().ok();
}
