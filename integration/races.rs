//! What may happen at any moment: kills, failures, rivals, programs that end at once. Afterwards nothing is left, and the
//! id works again.

mod support;

use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Bundle, Outcome, cgroups_named, finish, rounds, until};

fn sleeper() -> Bundle {
    Bundle::new().args(&["sleep", "1000"])
}

/// Living processes that belong to the bundle: its path is in the command line of the runtime and of an init that has
/// not run its program, and the id is in the names of the cgroups of all others.
fn processes(b: &Bundle) -> Vec<String> {
    let path = b.path().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("procfs").flatten() {
        let dir = entry.path();
        let read = |name: &str| fs::read(dir.join(name)).map(|t| String::from_utf8_lossy(&t).into_owned());
        let (Ok(line), Ok(cgroup), Ok(stat)) = (read("cmdline"), read("cgroup"), read("stat")) else {
            continue;
        };
        let dead = stat.rsplit_once(") ").is_none_or(|s| s.1.starts_with(['Z', 'X']));
        if !dead && (line.contains(&path) || cgroup.contains(&b.id)) {
            found.push(format!("{}: {line}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

fn left(b: &Bundle) -> Vec<String> {
    let mut left: Vec<_> = fs::read_dir(b.state_root())
        .expect("state root")
        .flatten()
        .map(|e| format!("{:?}", e.path()))
        .collect();
    left.extend(cgroups_named(&b.id).iter().map(|p| format!("{p:?}")));
    left.extend(processes(b));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    left.extend(mounts.lines().filter(|l| l.contains(&*b.path().to_string_lossy())).map(String::from));
    left
}

#[track_caller]
fn is_clean(b: &Bundle, when: &str) {
    let left = left(b);
    assert!(left.is_empty(), "{when}: left: {left:#?}");
}

/// After a kill: init ends with its creator unless it was created, the words of `state` and `list` are true, and a
/// forced deletion leaves nothing.
#[track_caller]
fn comes_clean(b: &Bundle, when: &str) {
    let created = b.state_root().join(&b.id).join("init").is_symlink();
    if !created {
        until(&format!("{when}: the end of init"), || processes(b).is_empty());
    }
    let mut state = b.verb("state", &[]);
    while !created
        && state.status.success()
        && state.json()["status"] == "creating"
        && processes(b).is_empty()
    {
        state = b.verb("state", &[]); // init has given its memory up, and is not dead yet
    }
    if state.status.success() {
        let status = state.json()["status"].clone();
        let known = ["created", "running", "stopped"].iter().any(|s| status == *s);
        assert!(known, "{when}: {status}");
        assert!(created || status == "stopped", "{when}: {status}, and nobody makes it");
    } else {
        assert!(state.stderr.contains("does not exist"), "{when}: {}", state.stderr);
    }
    finish(&mut b.orlop(["list"])).ok();
    let out = b.verb("delete", &["--force"]);
    assert!(out.status.success(), "{when}: {}", out.stderr);
    is_clean(b, when);
}

/// The system calls of a command, each with how often it was made. One that is younger than strace(1) is `syscall_0x…`
/// there, and cannot be injected into.
fn calls(command: &Command) -> BTreeMap<String, usize> {
    let scratch = support::Scratch::new("strace");
    let file = scratch.path.join("calls");
    let mut traced = Command::new("strace");
    traced.args(["-qq", "-o"]).arg(&file).arg(command.get_program()).args(command.get_args());
    finish(traced.stdin(Stdio::null())).ok();
    let mut counts = BTreeMap::new();
    for line in fs::read_to_string(&file).expect("its calls").lines() {
        if let Some((name, _)) = line.split_once('(').filter(|(name, _)| !name.starts_with("syscall_")) {
            *counts.entry(name.to_string()).or_insert(0) += 1;
        }
    }
    counts
}

/// The command with something done to one of its calls.
fn injected(command: &Command, name: &str, what: &str, when: usize) -> Outcome {
    let mut traced = Command::new("strace");
    traced.args(["-qq", "-o", "/dev/null", "-e"]).arg(format!("inject={name}:{what}:when={when}"));
    finish(traced.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null()))
}

/// Every call once, or about `few` of them, others each time that the tests are run.
fn points(counts: &BTreeMap<String, usize>, few: usize) -> Vec<(String, usize)> {
    let all: Vec<_> = counts.iter().flat_map(|(name, n)| (1..=*n).map(move |k| (name.clone(), k))).collect();
    let step = (all.len() / rounds(few, all.len()).max(1)).max(1);
    let first = std::process::id() as usize % step;
    all.into_iter().skip(first).step_by(step).collect()
}

/// Calls by which the libraries start, allocate and end: they abort, or there is nothing left to say.
const BEYOND_US: [&str; 20] = [
    "close",
    "mprotect",
    "arch_prctl",
    "brk",
    "execve",
    "execveat",
    "exit_group",
    "futex",
    "getrandom",
    "madvise",
    "mmap",
    "mremap",
    "munmap",
    "poll",
    "prlimit64",
    "rseq",
    "rt_sigaction",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
];

fn that_we_answer_for(mut counts: BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    counts.retain(|name, _| !BEYOND_US.contains(&name.as_str()));
    counts
}

#[test]
fn create_killed_at_any_call_leaves_what_delete_cleans() {
    needs_root!();
    needs_program!("strace");
    for (b, few) in [(sleeper(), 30), (sleeper().in_the_hosts_mounts(), 15)] {
        let create = b.making("create");
        let counts = calls(&create);
        b.delete().ok();
        for (name, n) in points(&counts, few) {
            injected(&create, &name, "signal=KILL", n);
            comes_clean(&b, &format!("create killed at {name} {n}"));
        }
        b.create().ok();
        b.delete().ok();
        is_clean(&b, "at the end");
    }
}

#[test]
fn start_killed_at_any_call_leaves_what_delete_cleans() {
    needs_root!();
    needs_program!("strace");
    let b = sleeper();
    b.create().ok();
    let start = b.orlop(["start", &b.id]);
    let counts = calls(&start);
    b.delete().ok();
    for (name, n) in points(&counts, 15) {
        b.create().ok();
        injected(&start, &name, "signal=KILL", n);
        let status = b.state()["status"].clone();
        assert!(status == "created" || status == "running", "start killed at {name} {n}: {status}");
        if status == "created" && b.verb("start", &[]).status.success() {
            assert_eq!(b.state()["status"], "running", "started again after {name} {n}");
        }
        comes_clean(&b, &format!("start killed at {name} {n}"));
    }
}

#[test]
fn delete_killed_at_any_call_can_be_done_again() {
    needs_root!();
    needs_program!("strace");
    for (b, few) in [(sleeper(), 20), (sleeper().in_the_hosts_mounts(), 10)] {
        b.create().ok();
        let delete = b.orlop(["delete", "--force", &b.id]);
        let counts = calls(&delete);
        for (name, n) in points(&counts, few) {
            b.create().ok();
            injected(&delete, &name, "signal=KILL", n);
            let out = b.verb("delete", &["--force"]);
            assert!(out.status.success(), "delete killed at {name} {n}: {}", out.stderr);
            is_clean(&b, &format!("delete killed at {name} {n}"));
        }
    }
}

#[test]
fn run_killed_at_any_call_leaves_what_delete_cleans() {
    needs_root!();
    needs_program!("strace");
    let b = Bundle::new();
    let run = b.making("run");
    let counts = calls(&run);
    for (name, n) in points(&counts, 20) {
        injected(&run, &name, "signal=KILL", n);
        comes_clean(&b, &format!("run killed at {name} {n}"));
    }
}

#[test]
fn create_killed_at_random_leaves_what_delete_cleans() {
    needs_root!();
    let b = sleeper();
    for round in 0..rounds(25, 1000) {
        let mut create = b.making("create").spawn().expect("orlop starts");
        // Without a pattern, and the same each time.
        let pause = Duration::from_micros((round as u64).wrapping_mul(2_654_435_761) % 30_000);
        std::thread::sleep(pause);
        let _ = create.kill(); // ended already is as good
        create.wait().expect("wait");
        comes_clean(&b, &format!("create killed after {pause:?}"));
    }
}

#[test]
fn a_call_that_fails_leaves_nothing_and_is_told() {
    needs_root!();
    needs_program!("strace");
    let b = sleeper();
    let create = b.making("create");
    let counts = that_we_answer_for(calls(&create));
    b.delete().ok();
    let errors = ["ENOMEM", "EPERM", "EMFILE", "ENOSPC", "EBUSY"];
    for (turn, (name, n)) in points(&counts, 40).into_iter().enumerate() {
        let errno = errors[turn % errors.len()];
        let when = format!("create with {errno} of {name} {n}");
        let out = injected(&create, &name, &format!("error={errno}"), n);
        told(&out, "create", &when);
        if out.status.success() {
            assert_eq!(b.state()["status"], "created", "{when}");
            b.delete().ok();
        }
        until(&format!("{when}: nothing is left: {:#?}", left(&b)), || left(&b).is_empty());
    }
}

#[test]
fn a_call_of_start_or_delete_that_fails_is_told() {
    needs_root!();
    needs_program!("strace");
    let b = sleeper();
    b.create().ok();
    let start = b.orlop(["start", &b.id]);
    let delete = b.orlop(["delete", "--force", &b.id]);
    let (of_start, of_delete) = (that_we_answer_for(calls(&start)), that_we_answer_for(calls(&delete)));
    for (name, n) in points(&of_start, 12) {
        b.create().ok();
        told(
            &injected(&start, &name, "error=ENOMEM", n),
            "start",
            &format!("start with ENOMEM of {name} {n}"),
        );
        comes_clean(&b, &format!("start with ENOMEM of {name} {n}"));
    }
    for (name, n) in points(&of_delete, 12) {
        b.create().ok();
        told(
            &injected(&delete, &name, "error=ENOMEM", n),
            "delete",
            &format!("delete with ENOMEM of {name} {n}"),
        );
        comes_clean(&b, &format!("delete with ENOMEM of {name} {n}"));
    }
}

/// It succeeded, or its last line names the verb; it never panicked.
#[track_caller]
fn told(out: &Outcome, verb: &str, when: &str) {
    assert!(!out.stderr.contains("panicked"), "{when}: {}", out.stderr);
    let last = out.stderr.lines().last().unwrap_or_default();
    let named = last.starts_with(&format!("orlop: {verb}: "));
    assert!(out.status.success() || (out.code() == 1 && named), "{when}: {:?}: {}", out.status, out.stderr);
}

#[test]
fn few_descriptors_are_an_error_that_leaves_nothing() {
    needs_root!();
    let b = sleeper();
    for limit in (3..40).step_by(37 / rounds(9, 37)) {
        let mut create = b.making("create");
        // SAFETY: setrlimit is async-signal-safe.
        unsafe {
            create.pre_exec(move || {
                let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let out = finish(&mut create);
        told(&out, "create", &format!("{limit} descriptors"));
        if out.status.success() {
            b.delete().ok();
        }
        until(&format!("{limit} descriptors: nothing is left: {:#?}", left(&b)), || left(&b).is_empty());
    }
}

#[test]
fn of_two_creates_of_one_id_exactly_one_wins() {
    needs_root!();
    let b = sleeper();
    for round in 0..rounds(60, 1000) {
        let mut both: Vec<_> =
            (0..2).map(|_| b.making("create").stderr(Stdio::null()).spawn().expect("orlop starts")).collect();
        let won = both.iter_mut().filter_map(|c| c.wait().ok()).filter(|s| s.success()).count();
        assert_eq!(won, 1, "round {round}");
        assert_eq!(b.state()["status"], "created", "round {round}");
        b.start().ok();
        b.delete().ok();
        if round % 10 == 0 {
            is_clean(&b, &format!("round {round}"));
        }
    }
    is_clean(&b, "at the end");
}

#[test]
fn delete_force_does_not_wait_for_a_hook_that_hangs() {
    needs_root!();
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        let b = sleeper();
        let hung = b.rootfs().join("hung");
        let script = format!("echo $$ > {}; exec sleep 1000", hung.display());
        let (path, script) = if kind == "startContainer" {
            ("/bin/sh", "exec sleep 1000")
        } else {
            ("/bin/sh", script.as_str())
        };
        let hook = json!({ "path": path, "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] });
        let b = b.set(&format!("/hooks/{kind}/-"), hook);
        let mut run = b.making("run").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        match kind {
            "startContainer" => until("a container", || b.verb("state", &[]).code() == 0),
            _ => until("the hook runs", || fs::read_to_string(&hung).is_ok_and(|t| t.ends_with('\n'))),
        }
        b.delete().ok();
        if kind == "poststart" {
            run.kill().unwrap(); // the program may end before such a hook, which goes on to its own end
            let pid = fs::read_to_string(&hung).unwrap().trim().parse().unwrap();
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        until("the end of run", || run.try_wait().unwrap().is_some());
        is_clean(&b, kind);
    }
}

#[test]
fn a_foreground_run_leaves_a_later_container_of_its_id_alone() {
    needs_root!();
    let b = sleeper();
    let mut run = b.making("run").stdout(Stdio::null()).spawn().unwrap();
    until("a container", || b.verb("state", &[]).code() == 0);
    b.await_status("running");
    let pid = nix::unistd::Pid::from_raw(run.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    b.delete().ok();
    b.create().ok();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(137));
    assert_eq!(b.state()["status"], "created");
}

#[test]
fn a_program_whose_first_thread_ended_is_still_running_and_killed() {
    needs_root!();
    let b = Bundle::new().args(&["/bin/headless"]);
    let Some(()) = support::compile("headless", &b.rootfs().join("bin/headless")) else { return };
    finish(b.making("run").arg("--detach")).ok();
    let pid = b.state()["pid"].clone();
    let stat = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    until("the end of its first thread", || stat().contains(") Z "));
    assert_eq!(b.state()["status"], "running");
    b.verb("delete", &[]).fails("running");
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
    b.verb("delete", &[]).ok();
    is_clean(&b, "at the end");
}

#[test]
fn create_against_delete_ends_clean() {
    needs_root!();
    let b = sleeper();
    for round in 0..rounds(60, 1000) {
        let mut create = b.making("create").stderr(Stdio::null()).spawn().expect("orlop starts");
        std::thread::sleep(Duration::from_micros((round as u64).wrapping_mul(2_654_435_761) % 20_000));
        b.delete().ok();
        let made = create.wait().expect("wait").success();
        let state = b.verb("state", &[]);
        if state.status.success() {
            assert!(made, "round {round}: a failed create left {}", state.stdout);
            assert_eq!(state.json()["status"], "created", "round {round}");
        }
        b.delete().ok();
        if round % 10 == 0 {
            is_clean(&b, &format!("round {round}"));
        }
    }
    is_clean(&b, "at the end");
}

#[test]
fn a_program_that_ends_at_once_hangs_nobody() {
    needs_root!();
    let b = Bundle::new();
    for round in 0..rounds(150, 10_000) {
        let out = b.run();
        assert!(out.status.success(), "round {round}: {}", out.stderr);
        b.create().ok();
        b.start().ok();
        b.delete().ok();
    }
    is_clean(&b, "at the end");
}

#[test]
fn a_pid_that_another_process_has_by_now_is_left_alone() {
    needs_root!();
    let b = sleeper();
    b.create().ok();
    b.start().ok();
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
    let mut other =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cat starts");
    let file = b.state_root().join(&b.id).join("init");
    let text = fs::read_link(&file).expect("init").into_os_string().into_string().expect("two numbers");
    let start = text.split(' ').nth(1).expect("its start");
    fs::remove_file(&file).expect("unlink");
    std::os::unix::fs::symlink(format!("{} {start}", other.id()), &file).expect("symlink");
    assert_eq!(b.state()["status"], "stopped");
    b.verb("kill", &["KILL"]).fails("container not running");
    b.start().fails("is stopped");
    b.delete().ok();
    // What was sent a signal comes to no word after it.
    let said = other.stdin.as_mut().expect("a pipe").write_all(b"x");
    let heard = other.stdout.as_mut().expect("a pipe").read_exact(&mut [0]);
    let _ = other.kill();
    let _ = other.wait();
    assert!(said.is_ok() && heard.is_ok(), "a foreign process was killed");
    is_clean(&b, "at the end");
}

#[test]
fn a_creator_that_is_stopped_is_waited_for_and_seen_as_creating() {
    needs_root!();
    // The parent stands in a hook; its init is on record and not created.
    let b = sleeper().set(
        "/hooks/createRuntime",
        serde_json::json!([{ "path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"] }]),
    );
    let mut create = b.making("create").stderr(Stdio::null()).spawn().expect("orlop starts");
    until("status creating", || {
        let out = b.verb("state", &[]);
        out.status.success() && out.json()["status"] == "creating"
    });
    b.verb("kill", &["KILL"]).fails("container not running");
    b.delete().ok();
    until("the end of create", || create.try_wait().expect("wait").is_some());
    assert!(!create.wait().expect("wait").success());
    is_clean(&b, "at the end");
}

/// An engine deletes the container as soon as it is told; Docker asks only once.
#[test]
fn init_has_ended_when_start_tells_why_it_failed() {
    needs_root!();
    needs_program!("strace");
    let b = Bundle::new().args(&["/odd"]);
    let odd = b.rootfs().join("odd");
    fs::write(&odd, "\u{1}\u{2}").expect("write");
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o755)).expect("chmod");
    b.create().ok();
    let pid = b.state()["pid"].to_string();
    let mut slow = Command::new("strace");
    slow.args(["-qq", "-o", "/dev/null", "-e", "inject=exit_group:delay_enter=500000", "-p", &pid]);
    let mut slow = slow.stderr(Stdio::null()).spawn().expect("strace");
    let about = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    until("strace", || !about("status").contains("TracerPid:\t0\n"));
    b.start().fails("exec format error");
    let stat = about("stat");
    slow.wait().expect("wait");
    assert!(stat.rsplit_once(") ").is_none_or(|s| s.1.starts_with(['Z', 'X'])), "{stat}");
}

/// Two creators that are given one cgroup: whoever finds it made meanwhile leaves it alone.
#[test]
fn a_cgroup_that_is_made_meanwhile_stays_with_its_maker() {
    needs_root!();
    needs_program!("strace");
    let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let name = format!("orlop-test-{}", support::unique());
    let b = sleeper().set("/linux/cgroupsPath", json!(format!("/{name}")));
    let theirs = std::path::Path::new("/sys/fs/cgroup").join(if v2 { "" } else { "pids" }).join(&name);
    let create = b.making("create");
    let mut slow = Command::new("strace");
    // It has looked for the cgroup by then, and holds the container's directory.
    slow.args(["-qq", "-o", "/dev/null", "-e", "inject=flock:delay_exit=3000000:when=1"]);
    slow.arg(create.get_program()).args(create.get_args()).stdin(Stdio::null());
    let out = std::thread::scope(|s| {
        let call = s.spawn(|| finish(&mut slow));
        until("the reservation", || b.state_root().join(&b.id).is_dir());
        fs::create_dir(&theirs).expect("mkdir");
        call.join().expect("it ends")
    });
    let stays = theirs.is_dir();
    let _ = fs::remove_dir(&theirs); // before the test fails
    out.fails("linux.cgroupsPath: mkdir ")
        .fails("file exists; another container is made in it at this moment");
    assert!(stays, "a stranger's cgroup was removed");
    is_clean(&b, "at the end");
}
