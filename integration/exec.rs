//! exec: another program in a container, with all of its confinement.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::{Bundle, Outcome, finish, rounds, until};

/// A container that does nothing.
fn running() -> Bundle {
    started(Bundle::sleeping())
}

fn started(b: Bundle) -> Bundle {
    b.create().ok();
    b.start().ok();
    b
}

/// `exec FLAGS ID COMMAND…`
fn command(b: &Bundle, flags: &[&str], program: &[&str]) -> Command {
    b.orlop([&["exec"], flags, &[b.id.as_str()], program].concat())
}

fn exec(b: &Bundle, flags: &[&str], program: &[&str]) -> Outcome {
    finish(&mut command(b, flags, program))
}

fn sh(b: &Bundle, flags: &[&str], script: &str) -> Outcome {
    exec(b, flags, &["sh", "-c", script])
}

/// exec with this process document.
fn by_file(b: &Bundle, process: Value) -> Outcome {
    finish(&mut file_command(b, process))
}

fn file_command(b: &Bundle, process: Value) -> Command {
    let file = b.path().join("process.json");
    fs::write(&file, process.to_string()).expect("write");
    let mut c = b.orlop(["exec", "--process"]);
    c.arg(file).arg(&b.id);
    c
}

fn pid(b: &Bundle) -> i64 {
    b.state()["pid"].as_i64().expect("a pid")
}

/// Processes of the container's pid namespace, but for `ps` itself and the shell around it.
fn processes(b: &Bundle) -> Vec<String> {
    let out = exec(b, &[], &["ps", "-o", "args"]).ok().stdout;
    let mut list: Vec<_> = out.lines().skip(1).map(|l| l.trim().to_string()).collect();
    list.retain(|l| !l.starts_with("ps "));
    list
}

const CONFINEMENT: &str = "cat /proc/self/cgroup; readlink /proc/self/root; \
    for n in cgroup ipc mnt net pid user uts time; do readlink /proc/self/ns/$n; done; \
    grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Cpus_allowed_list|Sig|Umask)' /proc/self/status; \
    ulimit -n; cat /proc/self/oom_score_adj /proc/self/limits /proc/self/personality; env | sort; pwd; ls -l /proc/self/fd | grep -c :";

#[test]
fn exec_is_confined_as_init_is() {
    needs_root!();
    let rules = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99 }] });
    for user in [false, true] {
        let script = format!("({CONFINEMENT}) > /tmp/init; : > /tmp/done; sleep 1000");
        let mut b = Bundle::new().sh(&script).mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
        b = b.set("/linux/seccomp", rules.clone()).set("/process/cwd", json!("/etc"));
        b = b.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }]));
        b = b.set("/process/oomScoreAdj", json!(123)).namespace("cgroup", None).namespace("time", None);
        b = b.set("/linux/personality", json!({ "domain": "LINUX32" }));
        b = b.set("/process/user", json!({ "uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o27 }));
        if user {
            b = b.in_a_user_namespace();
        }
        let b = started(b);
        until("init's look", || exec(&b, &[], &["test", "-e", "/tmp/done"]).status.success());
        let init = exec(&b, &[], &["cat", "/tmp/init"]).ok().stdout;
        let ours = sh(&b, &[], CONFINEMENT).ok().stdout;
        assert_eq!(ours, init);
        assert!(init.contains("Seccomp:\t2") && init.contains("\n77\n"), "{init}");
        sh(&b, &[], "mkdir /tmp/x").fails("Cannot assign requested address"); // errno 99
        let whole = json!({ "args": ["sh", "-c", CONFINEMENT], "cwd": "/etc", "env": b.config["process"]["env"],
            "user": b.config["process"]["user"] });
        assert_eq!(by_file(&b, whole).ok().stdout, init);
        b.delete().ok();
        b.is_clean();
    }
}

/// A filter that refuses what `exec` has yet to call is loaded after that, and confines the program all the same.
#[test]
fn a_filter_may_refuse_what_only_exec_calls() {
    needs_root!();
    for (call, no_new_privileges) in [("close_range", false), ("close_range", true), ("setsid", false)] {
        let rules = json!([{ "names": [call], "action": "SCMP_ACT_ERRNO" }]);
        let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
        let b = Bundle::sleeping().set("/linux/seccomp", filter);
        let b = started(b.set("/process/noNewPrivileges", json!(no_new_privileges)));
        let seen = exec(&b, &[], &["grep", "Seccomp:", "/proc/self/status"]).ok().stdout;
        assert_eq!(seen, "Seccomp:\t2\n", "{call}");
        b.delete().ok();
        b.is_clean();
    }
}

#[test]
fn flags_change_the_containers_process() {
    needs_root!();
    let b = running();
    for (flags, script, want) in [
        (&["--env", "A=1", "-e", "PATH=/bin:/x"][..], "echo $A $PATH", "1 /bin:/x\n"),
        (&["--cwd", "/etc"], "pwd", "/etc\n"),
        (&["--user", "5"], "id -u; id -g", "5\n0\n"),
        (&["--user", "", "--apparmor", "", "--process-label", "", "--cwd", ""], "id -u; pwd", "0\n/\n"),
        (&["-u", "5:6", "-g", "7", "--additional-gids", "8"], "id -u; id -G", "5\n6 7 8\n"),
        (&[], "grep CapEff /proc/self/status", "CapEff:\t0000000020000420\n"),
        (&["--cap", "CAP_SYS_PTRACE"], "grep CapEff /proc/self/status", "CapEff:\t0000000020080420\n"),
        (
            &["-c", "chown", "-c", "CAP_NET_RAW"],
            "grep CapBnd /proc/self/status",
            "CapBnd:\t0000000020002421\n",
        ),
        (&["--no-new-privs"], "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n"),
    ] {
        assert_eq!(sh(&b, flags, script).ok().stdout, want, "{flags:?}");
    }
    let free = started(Bundle::sleeping().set("/process/noNewPrivileges", json!(false)));
    let look = "grep NoNewPrivs /proc/self/status";
    assert_eq!(sh(&free, &[], look).ok().stdout, "NoNewPrivs:\t0\n");
    assert_eq!(sh(&free, &["--no-new-privs"], look).ok().stdout, "NoNewPrivs:\t1\n");
}

#[test]
fn what_follows_the_program_is_its_own() {
    needs_root!();
    let b = running();
    assert_eq!(exec(&b, &[], &["echo", "-u", "--", "--cwd", "x"]).ok().stdout, "-u -- --cwd x\n");
    assert_eq!(exec(&b, &["--env", "X"], &["sh", "-c", "echo $X."]).ok().stdout, ".\n");
}

#[test]
fn wrong_flags_are_errors_that_name_them() {
    needs_root!();
    let b = running();
    for (flags, words) in [
        (&["--user", "nobody"][..], "--user: \"nobody\" is neither UID nor UID:GID"),
        (&["--user", "1:x"], "--user: \"1:x\" is neither UID nor UID:GID"),
        (&["--user", "4294967295"], "process.user.uid: 4294967295 is no id"),
        (&["--cap", "CAP_FLY"], "--cap: \"CAP_FLY\" is no capability"),
        (&["--cwd", "etc"], "process.cwd: \"etc\" is not absolute"),
        (&["--cgroup", "../x"], "--cgroup: \"../x\" leads out of the container's cgroup"),
        (&["--cgroup", "/missing"], "--cgroup: open "),
        (&["--cgroup", "bogus:/x"], "--cgroup: the container has no cgroup of the v1 controller \"bogus\""),
        (&["--preserve-fds", "3"], "--preserve-fds: descriptor 3 is not open"),
        (&["--process", "/missing.json"], "/missing.json: open: no such file or directory"),
        (&["--detach", "--tty"], "process.terminal: is true, but there is no --console-socket"),
        (
            &["--console-socket", "/etc/passwd", "-d", "-t"],
            "--console-socket: \"/etc/passwd\" is not a socket",
        ),
    ] {
        let out = exec(&b, flags, &["true"]);
        assert_eq!(out.code(), 255, "{flags:?}");
        out.fails(words);
    }
    exec(&b, &[], &[]).fails("process.args: is required and names the program first");
    by_file(&b, json!({ "args": "ls" })).fails("process.json: args: invalid type: string \"ls\"");
    by_file(&b, json!({ "args": ["ls"] })).fails("process.cwd: is required");
    assert_eq!(processes(&b), ["sleep 1000"]);
}

/// Engines turn these words, on standard error and in the log, into exit codes 126 and 127.
#[test]
fn a_program_that_cannot_run_is_told_in_the_words_of_engines() {
    needs_root!();
    let b = running();
    for (program, words) in [
        ("nonesuch", "exec: \"nonesuch\": executable file not found in $PATH"),
        ("/nonesuch", "exec: \"/nonesuch\": stat /nonesuch: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory: permission denied"),
    ] {
        for flags in [&[][..], &["--detach"]] {
            let log = b.path().join("log.json");
            let _ = fs::remove_file(&log);
            let mut c = b.orlop(["--log"]);
            c.arg(&log).args(["--log-format", "json", "exec"]).args(flags).arg(&b.id).arg(program);
            let out = finish(&mut c);
            assert_eq!(out.code(), 255);
            out.fails(words);
            let log = fs::read_to_string(&log).expect("the log");
            let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
            assert_eq!(last["level"], "error");
            assert!(last["msg"].as_str().expect("msg").contains(words), "{log}");
        }
    }
}

#[test]
fn the_exit_status_is_the_programs() {
    needs_root!();
    let b = running();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(sh(&b, &[], script).code(), code, "{script}");
    }
    let out = sh(&b, &[], "cat; echo err >&2");
    assert_eq!((out.stdout.as_str(), out.stderr.as_str()), ("", "err\n"));
}

#[test]
fn signals_in_the_foreground_go_to_the_program() {
    needs_root!();
    let b = running();
    let script = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = command(&b, &[], &["sh", "-c", script]).stdout(Stdio::piped()).spawn().expect("orlop");
    let mut ready = [0; 6];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("ready");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM)
        .expect("kill");
    assert_eq!(child.wait().expect("wait").code(), Some(5));
}

/// As engines call it: the shim is a subreaper, which waits for the process by the pid of the pid file.
#[test]
fn detached_it_is_the_callers_to_wait_for() {
    needs_root!();
    if !support::alone_as_subreaper("detached_it_is_the_callers_to_wait_for") {
        return;
    }
    let b = running();
    let file = b.path().join("exec.pid");
    let file = file.to_str().expect("a path");
    sh(&b, &["--detach", "--pid-file", file], "sleep 0.2; exit 9").ok();
    let pid = fs::read_to_string(file).expect("the pid file").parse().expect("a pid");
    let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).expect("our child");
    assert_eq!(status, nix::sys::wait::WaitStatus::Exited(nix::unistd::Pid::from_raw(pid), 9));
}

#[test]
fn detached_the_streams_end_with_the_program() {
    needs_root!();
    let b = running();
    let mut c = command(&b, &["--detach"], &["sh", "-c", "sleep 0.1; echo end"]);
    let out = c.stdout(Stdio::piped()).spawn().expect("orlop").wait_with_output().expect("output");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "end\n");
}

#[test]
fn a_document_that_changes_later_has_no_effect() {
    needs_root!();
    let b = running();
    fs::write(b.path().join("config.json"), "{}").expect("write");
    assert_eq!(exec(&b, &[], &["pwd"]).ok().stdout, "/\n");
}

#[test]
fn only_preserved_descriptors_reach_the_program() {
    needs_root!();
    let b = running();
    for (flags, seen) in [("", "0 1 2 3 "), ("--preserve-fds 2", "0 1 2 3 4 5 ")] {
        let line = format!(
            "exec {} --root {} exec {flags} {} sh -c 'ls /proc/self/fd | tr \"\\n\" \" \"' 3</etc/hostname 4</ 5</ 9</",
            support::ORLOP,
            b.state_root().display(),
            b.id
        );
        let out = finish(Command::new("bash").args(["-c", &line]).stdin(Stdio::null())).ok();
        assert_eq!(out.stdout, seen);
    }
}

#[test]
fn the_host_cannot_be_reached_through_the_process() {
    needs_root!();
    let b = running();
    // A descriptor of the host as working directory (CVE-2024-21626), and the runtime's own program (CVE-2019-5736).
    sh(&b, &["--cwd", "/proc/self/fd/7"], "pwd").fails("process.cwd");
    let line =
        "for n in 3 4 5 6 7 8 9; do test -e /proc/self/fd/$n/../../etc/shadow && echo found; done; true";
    assert_eq!(sh(&b, &[], line).ok().stdout, "");
}

#[test]
fn containers_that_take_no_program_say_so() {
    needs_root!();
    let b = Bundle::sleeping();
    let out = exec(&b, &[], &["true"]);
    assert_eq!(out.code(), 255);
    out.fails("container does not exist");
    b.create().ok();
    assert_eq!(sh(&b, &[], "echo in a created one").ok().stdout, "in a created one\n");
    assert_eq!(b.state()["status"], "created");
    b.start().ok();
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
    exec(&b, &[], &["true"]).fails("container not running: cannot exec in a stopped container");
    b.delete().ok();
    b.is_clean();
}

/// Freezes the container by hand, `pause` has tests of its own: by this file and what thaws it.
struct Frozen(PathBuf, &'static str);

impl Frozen {
    fn freeze(b: &Bundle) -> Frozen {
        let files = |dir: PathBuf| {
            [(dir.join("freezer.state"), "FROZEN", "THAWED"), (dir.join("cgroup.freeze"), "1", "0")]
        };
        let mut files = support::cgroups_named(&b.id).into_iter().flat_map(files);
        let (file, on, off) = files.find(|f| f.0.exists()).expect("a freezer");
        fs::write(&file, on).expect("freeze");
        Frozen(file, off)
    }

    /// Processes in that cgroup.
    fn inside(&self) -> usize {
        let procs = fs::read_to_string(self.0.with_file_name("cgroup.procs"));
        procs.expect("the cgroup").lines().count()
    }

    fn thaw(&self) {
        let _ = fs::write(&self.0, self.1);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
    }
}

#[test]
fn a_paused_container_takes_a_program_only_when_told_so() {
    needs_root!();
    let b = running();
    let frozen = Frozen::freeze(&b);
    b.await_status("paused");
    exec(&b, &[], &["true"]).fails("cannot exec in a paused container; --ignore-paused runs it once");
    let mut c = command(&b, &["--ignore-paused"], &["echo", "late"]);
    let mut child: Child = c.stdout(Stdio::piped()).spawn().expect("orlop");
    until("a process more", || frozen.inside() == 2);
    assert!(child.try_wait().expect("wait").is_none(), "it ran in a frozen container");
    drop(frozen);
    let out = child.wait_with_output().expect("output");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "late\n");
}

/// A container's process with CAP_SYS_PTRACE could take over one of ours that still sees the host (CVE-2016-9962). Frozen
/// as it joins the cgroup, the process shows which pid namespace it is in before it has joined the others.
#[test]
fn nothing_is_seen_of_the_process_before_it_is_inside() {
    needs_root!();
    let b = running();
    let frozen = Frozen::freeze(&b);
    b.await_status("paused");
    let mut child = command(&b, &["--ignore-paused"], &["true"]).spawn().expect("orlop");
    let init = pid(&b);
    let ns = |pid: i64, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default();
    let mut other = None;
    until("a process more", || {
        let files = support::cgroups_named(&b.id).into_iter().map(|d| d.join("cgroup.procs"));
        let pids = files.filter_map(|f| fs::read_to_string(f).ok()).collect::<String>();
        other = pids.lines().filter_map(|l| l.parse::<i64>().ok()).find(|p| *p != init);
        other.is_some()
    });
    let other = other.expect("the process");
    assert_ne!(ns(other, "mnt"), ns(init, "mnt"), "it froze too late to tell anything");
    assert_ne!(ns(other, "pid"), ns(init, "pid"), "the container sees a process of the host");
    drop(frozen);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    // What it sees at last leads nowhere but to the parent.
    let b = started(Bundle::sleeping().set("/process/capabilities/bounding/-", json!("CAP_SYS_PTRACE")));
    assert_eq!(sh(&b, &[], "ls /proc/self/fd | grep -c .").ok().stdout, "4\n");
}

/// Whoever is killed before the program runs takes the process along: it waits for nobody.
#[test]
fn a_killed_call_leaves_no_process() {
    needs_root!();
    let b = running();
    let frozen = Frozen::freeze(&b);
    b.await_status("paused");
    let mut child = command(&b, &["--ignore-paused"], &["sleep", "77"]).spawn().expect("orlop");
    until("a process more", || frozen.inside() == 2);
    child.kill().expect("kill");
    child.wait().expect("wait");
    frozen.thaw();
    until("init alone", || frozen.inside() == 1); // its zombie is left to the container's init
}

#[test]
fn a_container_that_dies_meanwhile_is_an_error_and_no_wait() {
    needs_root!();
    for n in 0..rounds(12, 300) {
        let b = running();
        let init = pid(&b);
        let mut child = command(&b, &[], &["sleep", "1000"]).stderr(Stdio::null()).spawn().expect("orlop");
        std::thread::sleep(std::time::Duration::from_micros(n as u64 % 12 * 800));
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(init as i32), nix::sys::signal::SIGKILL);
        until("the end of exec", || child.try_wait().expect("wait").is_some());
        let code = child.wait().expect("wait").code();
        assert!(matches!(code, Some(255 | 137)), "round {n}: {code:?}");
        b.delete().ok();
        b.is_clean();
    }
}

/// A zombie that nobody collects keeps init from being one: it is neither alive nor dead.
#[test]
fn a_container_that_is_dying_is_not_running() {
    needs_root!();
    let b = running();
    let init = nix::unistd::Pid::from_raw(pid(&b) as i32);
    let mut child = command(&b, &[], &["sleep", "1000"]).spawn().expect("orlop");
    until("the program", || processes(&b).len() == 2);
    let signal = |pid, s| nix::sys::signal::kill(pid, s).expect("kill");
    let caller = nix::unistd::Pid::from_raw(child.id() as i32);
    signal(caller, nix::sys::signal::SIGSTOP);
    signal(init, nix::sys::signal::SIGKILL);
    let namespace = format!("/proc/{init}/ns/net");
    until("the end of its namespaces", || fs::read_link(&namespace).is_err());
    let out = exec(&b, &[], &["true"]);
    signal(caller, nix::sys::signal::SIGCONT);
    child.wait().expect("wait");
    out.fails("container not running: cannot exec in a stopped container");
}

#[test]
fn the_process_may_come_through_a_pipe() {
    needs_root!();
    let b = running();
    let line = format!(
        "orlop() {{ {} --root {} exec --process $1 {}; }}; doc='{}'; orlop <(echo \"$doc\"); echo \"$doc\" | orlop /dev/stdin",
        support::ORLOP,
        b.state_root().display(),
        b.id,
        json!({ "args": ["echo", "in"], "cwd": "/", "env": ["PATH=/bin"] })
    );
    let out = finish(Command::new("bash").args(["-c", &line]).stdin(Stdio::null())).ok();
    assert_eq!(out.stdout, "in\nin\n");
}

#[test]
fn many_at_once() {
    needs_root!();
    let b = running();
    let all: Vec<Child> = (0..rounds(20, 200))
        .map(|n| {
            let mut c = command(&b, &[], &["sh", "-c", &format!("exit {}", n % 100)]);
            c.spawn().expect("orlop")
        })
        .collect();
    for (n, mut child) in all.into_iter().enumerate() {
        assert_eq!(child.wait().expect("wait").code(), Some((n % 100) as i32));
    }
    assert_eq!(processes(&b), ["sleep 1000"]);
}

#[test]
fn namespaces_that_the_container_joined_are_joined() {
    needs_root!();
    let other = running();
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", pid(&other));
    let b = Bundle::sleeping().namespace("pid", Some(&path("pid"))).namespace("network", Some(&path("net")));
    let b = started(b.namespace("ipc", Some(&path("ipc"))).without_namespace("uts").unset("/hostname"));
    let look = "for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done";
    let want = |b: &Bundle| {
        ["pid", "net", "ipc", "uts", "mnt"]
            .map(|n| {
                fs::read_link(format!("/proc/{}/ns/{n}", pid(b))).expect("ns").display().to_string() + "\n"
            })
            .concat()
    };
    assert_eq!(sh(&b, &[], look).ok().stdout, want(&b));
    // With a user namespace of its own beside joined ones, and with the whole of it joined.
    let net = path("net");
    let b = started(Bundle::sleeping().in_a_user_namespace().namespace("network", Some(&net)));
    assert_eq!(sh(&b, &[], look).ok().stdout, want(&b));
    let user = format!("/proc/{}/ns/user", pid(&b));
    let c = started(Bundle::sleeping().in_a_user_namespace().namespace("user", Some(&user)));
    assert_eq!(sh(&c, &[], look).ok().stdout, want(&c));
    assert_eq!(sh(&c, &["-u", "3:4"], "id -u; id -g").ok().stdout, "3\n4\n");
}

#[test]
fn without_a_mount_namespace_it_is_in_the_rootfs_all_the_same() {
    needs_root!();
    let mut b = Bundle::sleeping().without_namespace("mount");
    for key in ["mounts", "linux/maskedPaths", "linux/readonlyPaths", "root/readonly"] {
        b = b.unset(&format!("/{key}"));
    }
    let b = b.set("/mounts", json!([]));
    b.create().ok();
    b.start().ok();
    fs::write(b.rootfs().join("mark"), "here").expect("write");
    assert_eq!(exec(&b, &[], &["cat", "/mark"]).ok().stdout, "here");
}

#[test]
fn processors_before_and_after_the_cgroup() {
    needs_root!();
    let b = running();
    let process = |affinity: Value| {
        json!({ "args": ["grep", "Cpus_allowed_list", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
            "user": {}, "execCPUAffinity": affinity })
    };
    let all = by_file(&b, process(json!({}))).ok().stdout;
    assert_eq!(
        by_file(&b, process(json!({ "initial": "0", "final": "0" }))).ok().stdout,
        "Cpus_allowed_list:\t0\n"
    );
    assert_eq!(by_file(&b, process(json!({ "initial": "0" }))).ok().stdout, all);
    by_file(&b, process(json!({ "final": "x" }))).fails("process.execCPUAffinity.final: \"x\"");
    by_file(&b, process(json!({ "final": "8000" }))).fails("sched_setaffinity: invalid argument");
    // The caller's own pinning does not stick.
    let mut pinned = Command::new("taskset");
    let c = command(&b, &[], &["grep", "Cpus_allowed_list", "/proc/self/status"]);
    pinned.args(["-c", "0"]).arg(c.get_program()).args(c.get_args()).stdin(Stdio::null());
    assert_eq!(finish(&mut pinned).ok().stdout, all);
}

#[test]
fn a_cgroup_below_the_containers() {
    needs_root!();
    let b = running();
    let dirs = support::cgroups_named(&b.id);
    let v1: Vec<_> = dirs.iter().filter(|d| d.join("tasks").exists()).collect();
    for dir in &dirs {
        fs::create_dir(dir.join("below")).expect("mkdir");
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if dir.join("tasks").exists() && dir.join(file).exists() {
                fs::copy(dir.join(file), dir.join("below").join(file)).expect("copy");
            }
        }
    }
    let look = "grep -c /below$ /proc/self/cgroup; grep -v /below$ /proc/self/cgroup | grep -c $HOSTNAME";
    let count = |flags: &[&str]| sh(&b, flags, look).stdout.lines().next().unwrap_or_default().to_string();
    assert_eq!(count(&["--cgroup", "/below"]), dirs.len().to_string());
    assert_eq!(count(&["--cgroup", "/"]), "0");
    if !v1.is_empty() {
        assert_eq!(count(&["--cgroup", "memory,cpu:/below"]), "2");
        assert_eq!(count(&["--cgroup", "memory:/below", "--cgroup", "pids:below"]), "2");
    }
}

/// The same as in a container of Debian's runc, as far as its `exec` shows it.
#[test]
fn what_the_program_sees_is_what_runc_shows() {
    needs_root!();
    needs_program!("runc");
    let look = "id; env | sort; pwd; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigBlk)' /proc/self/status; \
        cat /proc/self/oom_score_adj /proc/self/limits; ls -l /proc/self/fd | grep -c :; tty; echo $$ > /dev/null";
    let b = started(Bundle::sleeping().set("/process/user/additionalGids", json!([9])));
    let root = b.path().join("runc-state");
    let id = format!("{}-runc", b.id);
    let runc = |args: &[&str]| {
        let mut c = Command::new("runc");
        c.arg("--root").arg(&root).args(args).stdin(Stdio::null());
        finish(&mut c)
    };
    runc(&["run", "--detach", "--bundle", &b.path().display().to_string(), &id]).ok();
    for flags in [
        &[][..],
        &["--user", "1:2", "-g", "5"],
        &["--cap", "CAP_SYS_ADMIN"],
        &["--env", "A=b", "--cwd", "/etc", "--no-new-privs"],
    ] {
        let ours = sh(&b, flags, look).ok().stdout;
        let theirs = runc(&[&["exec"], flags, &[&id, "sh", "-c", look]].concat()).ok().stdout;
        assert_eq!(ours, theirs, "{flags:?}");
    }
}
