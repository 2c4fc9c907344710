//! What the caller leaves to us and what the program gets of it: descriptors, standard streams, signals.

mod support;

use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};
use support::{Bundle, Outcome, Scratch, finish};

/// A shell that opens descriptors before it becomes orlop.
fn with_descriptors(b: &Bundle, env: &str, redirections: &str, flags: &str) -> Outcome {
    b.write();
    let line = format!(
        "{env} exec {} --root {} run {flags} -b {} {} {redirections}",
        support::ORLOP,
        b.state_root().display(),
        b.path().display(),
        b.id
    );
    finish(Command::new("bash").args(["-c", &line]).stdin(Stdio::null()))
}

#[test]
fn only_preserved_descriptors_reach_the_program() {
    needs_root!();
    let list = || Bundle::new().sh("ls /proc/self/fd | tr '\\n' ' '");
    // `ls` adds the one it reads the directory with.
    for (env, flags, want) in [
        ("", "", "0 1 2 3 "),
        ("", "--preserve-fds 2", "0 1 2 3 4 5 "),
        ("LISTEN_FDS=1 LISTEN_PID=$$", "", "0 1 2 3 4 "),
        ("LISTEN_FDS=1 LISTEN_PID=$$", "--preserve-fds 1", "0 1 2 3 4 5 "),
        ("LISTEN_FDS=1", "", "0 1 2 3 4 "),
        ("LISTEN_FDS=1 LISTEN_PID=1", "", "0 1 2 3 "),
        ("LISTEN_FDS=", "", "0 1 2 3 "),
    ] {
        let out =
            with_descriptors(&list(), env, "3</dev/null 4</dev/null 5</dev/null 20</dev/null", flags).ok();
        assert_eq!(out.stdout, want, "{env} {flags}");
    }
    let b = list();
    with_descriptors(&b, "", "3</dev/null", "--preserve-fds 2")
        .fails("--preserve-fds: descriptor 4 is not open");
    with_descriptors(&b, "LISTEN_FDS=4294967295", "", "--preserve-fds 2147483647")
        .fails("descriptor 3 is not open");
    with_descriptors(&b, "LISTEN_FDS=x", "", "").fails("LISTEN_FDS");
    with_descriptors(&b, "", "", "--preserve-fds=-1").fails("--preserve-fds");
    b.is_clean();
}

#[test]
fn closed_standard_streams_never_become_files_of_ours() {
    needs_root!();
    for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"] {
        let b = Bundle::new()
            .sh("for n in 0 1 2; do readlink /proc/self/fd/$n; done > /seen")
            .set("/root/readonly", json!(false));
        let out = with_descriptors(&b, "", closed, "");
        assert_eq!(out.code(), 0, "{closed}: {}", out.stderr);
        let seen = fs::read_to_string(b.rootfs().join("seen")).expect("its list");
        assert_eq!(seen.lines().count(), 3, "{closed}: {seen}");
        for (n, target) in seen.lines().enumerate() {
            let expected = n == 1 && target == "/seen"; // the script's own redirection
            assert!(
                expected
                    || target.starts_with("/dev/null")
                    || target.contains("stderr")
                    || target.contains("stdout"),
                "{closed}: {n} is {target}"
            );
        }
    }
}

#[test]
fn the_streams_of_create_end_with_the_program() {
    needs_root!();
    let b = Bundle::new().sh("echo out; echo err >&2");
    let mut made =
        b.making("create").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("orlop starts");
    assert_eq!(made.wait().expect("wait").code(), Some(0));
    b.start().ok();
    let (mut out, mut err) = (String::new(), String::new());
    std::io::Read::read_to_string(made.stdout.as_mut().expect("a pipe"), &mut out).expect("its end");
    std::io::Read::read_to_string(made.stderr.as_mut().expect("a pipe"), &mut err).expect("its end");
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    b.delete().ok();
}

#[test]
fn a_caller_that_ignores_its_children_gets_the_status_all_the_same() {
    needs_root!();
    let b = Bundle::new().sh("exit 23");
    b.write();
    let mut c = b.making("run");
    // SAFETY: signal is async-signal-safe.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut c, || {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            Ok(())
        });
    }
    let out = finish(&mut c);
    assert_eq!(out.code(), 23, "{}", out.stderr);
}

#[test]
fn a_signal_that_the_caller_ignores_is_not_ignored_inside() {
    needs_root!();
    let b = Bundle::new().sh("grep -E 'SigIgn|SigBlk' /proc/self/status | tr -d '\\n\\t'");
    let mut c = b.making("run");
    // SAFETY: signal and sigprocmask are async-signal-safe.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut c, || {
            libc::signal(libc::SIGINT, libc::SIG_IGN);
            libc::signal(libc::SIGQUIT, libc::SIG_IGN);
            let mut set = std::mem::zeroed();
            libc::sigfillset(&mut set);
            libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
            Ok(())
        });
    }
    let out = finish(&mut c).ok();
    assert_eq!(out.stdout, "SigBlk:0000000000000000SigIgn:0000000000000000", "{}", out.stderr);
}

#[test]
fn init_holds_nothing_of_the_host_while_it_waits_and_needs_few_descriptors_for_many_mounts() {
    needs_root!();
    let source = Scratch::new("source");
    let mut b = Bundle::sleeping().set("/process/rlimits", json!([]));
    for n in 0..120 {
        b = b.mount(&format!("/many/{n}"), "bind", source.path.to_str().unwrap(), &["rbind", "ro"]);
    }
    let making = b.making("create");
    let mut c = Command::new("sh");
    c.args(["-c", "ulimit -n 40; exec \"$@\"", "sh"]).arg(making.get_program()).args(making.get_args());
    finish(&mut c).ok();
    let fds = format!("/proc/{}/fd", b.state()["pid"]);
    let open: Vec<_> = std::fs::read_dir(&fds)
        .expect("its descriptors")
        .flatten()
        .filter(|e| e.file_name().to_str().is_some_and(|n| n.parse::<u32>().unwrap() > 2))
        .map(|e| std::fs::read_link(e.path()).unwrap_or_default().to_string_lossy().into_owned())
        .collect();
    // The wire, the gate and the report, and its own root.
    let known =
        |f: &String| f.starts_with("socket:") || f.contains("gate") || f.contains("report") || f == "/";
    assert!(open.len() <= 5 && open.iter().all(known), "{open:?}");
    b.start().ok();
    b.delete().ok();
}

#[test]
fn a_procfs_of_another_pid_namespace_is_refused() {
    needs_root!();
    let b = Bundle::new();
    let run = b.making("run");
    let mut apart = Command::new("unshare");
    apart.args(["--pid", "--fork"]).arg(run.get_program()).args(run.get_args());
    finish(&mut apart).fails("/proc: is of another pid namespace; mount that of ours there");
    b.is_clean();
}
