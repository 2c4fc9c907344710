//! A container's life: from `run` to `rm`.

use super::{Container, command, inspect, podman, prints, run, says};
use crate::image::NAME;
use crate::support::{cgroups_named, until};
use crate::world::{Engine, sh};
use crate::{Check, check};
use std::fs;
use std::path::Path;

pub const CHECKS: &[Check] = &[
    check!(run_prints),
    check!(exit_codes),
    check!(exit_codes_of_exec),
    check!(detached_logs_and_rm),
    check!(create_init_start_wait),
    check!(stop_sends_term_then_kill),
    check!(stop_signal_of_the_container),
    check!(kill_sends_the_signal),
    check!(restart),
    check!(restart_policy),
    check!(pause_and_unpause),
    check!(rm_of_a_paused_container),
    check!(top),
    check!(healthcheck),
    check!(cp_in_and_out),
    check!(commit),
    check!(attach_and_standard_input),
    check!(exit_after_a_timeout),
    check!(conmon_is_killed),
    check!(many_at_once).alone(),
    check!(pidfile),
    check!(log_drivers),
    check!(events_and_ps),
];

fn run_prints(e: &Engine) {
    assert_eq!(prints(e, &[], "echo $((6 * 7)); id -u"), "42\n0");
}

fn exit_codes(e: &Engine) {
    for (code, args) in [
        (0, &[NAME, "true"][..]),
        (1, &[NAME, "false"]),
        (7, &[NAME, "sh", "-c", "exit 7"]),
        (137, &[NAME, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]),
        (127, &[NAME, "/missing"]),
        (127, &[NAME, "missing"]),
        (126, &[NAME, "/etc/passwd"]),
        (126, &[NAME, "/etc"]),
        (125, &["--no-such-flag", NAME, "true"]),
    ] {
        let o = podman(e, &[&["run", "--rm"], args].concat());
        assert_eq!(o.code(), code, "{args:?}: {}", o.stderr);
    }
}

fn exit_codes_of_exec(e: &Engine) {
    let c = Container::sleeping(e, "exit_codes_of_exec", &[]);
    for (code, args) in [
        (0, &["true"][..]),
        (9, &["sh", "-c", "exit 9"]),
        (137, &["sh", "-c", "kill -9 $$"]),
        (127, &["/missing"]),
        (127, &["missing"]),
        (126, &["/etc/passwd"]),
        (126, &["/etc"]),
    ] {
        let o = podman(e, &[&["exec", c.name], args].concat());
        assert_eq!(o.code(), code, "{args:?}: {}", o.stderr);
    }
    assert_eq!(podman(e, &["exec", "no-such-container", "true"]).code(), 125);
}

fn detached_logs_and_rm(e: &Engine) {
    let id = says(e, &["run", "-d", NAME, "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(says(e, &["wait", &id]), "0");
    let logs = podman(e, &["logs", &id]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    podman(e, &["rm", &id]).ok();
    assert_eq!(cgroups_named(&format!("libpod-{id}")), Vec::<std::path::PathBuf>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains(&id), "{mounts}");
}

fn create_init_start_wait(e: &Engine) {
    let id = says(e, &["create", NAME, "sh", "-c", "echo it runs; exit 3"]);
    assert_eq!(inspect(e, &id, ".State.Status"), "created");
    podman(e, &["init", &id]).ok();
    assert_eq!(inspect(e, &id, ".State.Status"), "initialized");
    assert_eq!(says(e, &["logs", &id]), "");
    podman(e, &["start", &id]).ok();
    assert_eq!(says(e, &["wait", &id]), "3");
    assert_eq!(says(e, &["logs", &id]), "it runs");
    podman(e, &["start", &id]).ok();
    until("the second run", || says(e, &["logs", &id]) == "it runs\nit runs");
    podman(e, &["rm", "--force", &id]).ok();
}

fn stop_sends_term_then_kill(e: &Engine) {
    let script = "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let c = Container::running(e, "stop_sends_term", &[], script);
    until("the trap", || says(e, &["logs", c.name]) == "ready");
    c.verb("stop", &[]).ok();
    assert_eq!((c.status(), c.inspect(".State.ExitCode")), ("exited".into(), "5".into()));
    assert_eq!(says(e, &["logs", c.name]), "ready\nterm");
    let c = Container::sleeping(e, "stop_kills", &[]);
    c.verb("stop", &["--time", "1"]).ok();
    assert_eq!(c.inspect(".State.ExitCode"), "137");
}

fn stop_signal_of_the_container(e: &Engine) {
    let script = "trap 'exit 6' USR1; echo ready; while :; do sleep 0.1; done";
    let c = Container::running(e, "stop_signal", &["--stop-signal", "USR1", "--stop-timeout", "20"], script);
    until("the trap", || says(e, &["logs", c.name]) == "ready");
    c.verb("stop", &[]).ok();
    assert_eq!(c.inspect(".State.ExitCode"), "6");
}

fn kill_sends_the_signal(e: &Engine) {
    let script = "trap 'echo hup' HUP; trap 'exit 8' INT; echo ready; while :; do sleep 0.1; done";
    let c = Container::running(e, "kill_sends", &[], script);
    until("the traps", || says(e, &["logs", c.name]) == "ready");
    c.verb("kill", &["--signal", "HUP"]).ok();
    until("HUP", || says(e, &["logs", c.name]) == "ready\nhup");
    assert_eq!(c.status(), "running");
    c.verb("kill", &["--signal", "SIGINT"]).ok();
    assert_eq!(says(e, &["wait", c.name]), "8");
    c.verb("kill", &[]).fails("can only kill running containers");
}

fn restart(e: &Engine) {
    let c = Container::sleeping(e, "restart", &[]);
    let before = c.pid();
    c.verb("restart", &["--time", "0"]).ok();
    assert_eq!(c.status(), "running");
    assert_ne!(c.pid(), before);
    assert_eq!(c.prints("echo again"), "again");
}

fn restart_policy(e: &Engine) {
    let c = Container::running(e, "restart_policy", &["--restart", "on-failure:2"], "echo round; exit 3");
    until("three rounds", || says(e, &["logs", c.name]) == "round\nround\nround" && c.status() == "exited");
    assert_eq!((c.inspect(".RestartCount"), c.inspect(".State.ExitCode")), ("2".into(), "3".into()));
}

fn pause_and_unpause(e: &Engine) {
    let script = "i=0; while :; do i=$((i + 1)); echo $i >/count; sleep 0.01; done";
    let c = Container::running(e, "pause", &[], script);
    let count = || {
        let file = format!("/proc/{}/root/count", c.pid());
        fs::read_to_string(file).unwrap_or_default().trim().parse::<u64>().unwrap_or(0)
    };
    until("a count", || count() > 0);
    c.verb("pause", &[]).ok();
    assert_eq!((c.status(), c.cgroup_file("freezer", "freezer.state")), ("paused".into(), "FROZEN".into()));
    let frozen = count();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(count(), frozen);
    c.verb("pause", &[]).fails("is already paused");
    c.verb("unpause", &[]).ok();
    until("it goes on", || count() > frozen);
    assert_eq!(c.status(), "running");
    c.verb("unpause", &[]).fails("is not paused");
}

fn rm_of_a_paused_container(e: &Engine) {
    let c = Container::sleeping(e, "rm_paused", &[]);
    let id = c.inspect(".Id");
    c.verb("pause", &[]).ok();
    c.verb("rm", &["--force", "--time", "0"]).ok();
    assert!(!podman(e, &["container", "exists", &id]).status.success());
    assert!(cgroups_named(&format!("libpod-{id}")).is_empty());
}

fn top(e: &Engine) {
    let c = Container::running(e, "top", &[], "sleep 771 & sleep 772");
    until("both", || {
        let table = says(e, &["top", c.name, "pid", "args"]);
        table.lines().count() == 3 && !table.contains('&') // of the shell's own words
    });
    let table = says(e, &["top", c.name, "pid", "user", "args"]);
    assert!(table.lines().count() == 3 && table.contains("sleep 772"), "{table}");
    // With options of ps(1), the container's own is run.
    let table = says(e, &["top", c.name, "-o", "pid,args"]);
    assert!(table.contains("sleep 771") && table.contains("sleep 772"), "{table}");
    // The kernel counts a process until it is done with it.
    until("both, and their memory", || {
        let stats = says(e, &["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}", c.name]);
        let (pids, memory) = stats.split_once(' ').expect("two fields");
        pids == "2" && !memory.starts_with("0B")
    });
}

fn healthcheck(e: &Engine) {
    let options =
        ["--health-cmd", "test -e /healthy", "--health-interval", "disable", "--health-retries", "1"];
    let c = Container::sleeping(e, "healthcheck", &options);
    assert_eq!(podman(e, &["healthcheck", "run", c.name]).code(), 1);
    assert_eq!(c.inspect(".State.Health.Status"), "unhealthy");
    c.exec(&[], "touch /healthy").ok();
    podman(e, &["healthcheck", "run", c.name]).ok();
    assert_eq!(c.inspect(".State.Health.Status"), "healthy");
}

fn cp_in_and_out(e: &Engine) {
    let c = Container::sleeping(e, "cp", &[]);
    let (file, back) = (e.dir.join("cp-in"), e.dir.join("cp-out"));
    fs::write(&file, "carried").expect("write");
    says(e, &["cp", file.to_str().expect("UTF-8"), "cp:/tmp/in"]);
    assert_eq!(c.prints("cat /tmp/in; echo more >>/tmp/in"), "carried");
    says(e, &["cp", "cp:/tmp/in", back.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(back).expect("the copy"), "carriedmore\n");
    c.verb("diff", &[]).ok();
    assert!(says(e, &["diff", c.name]).contains("A /tmp/in"));
}

fn commit(e: &Engine) {
    let c = Container::sleeping(e, "commit", &[]);
    c.exec(&[], "echo kept >/kept").ok();
    says(e, &["commit", "--quiet", "--change", "CMD cat /kept", c.name, "localhost/committed"]);
    assert_eq!(says(e, &["run", "--rm", "localhost/committed"]), "kept");
    let tar = e.dir.join("export.tar");
    says(e, &["export", "--output", tar.to_str().expect("UTF-8"), c.name]);
    let mut archive = tar::Archive::new(fs::File::open(tar).expect("open"));
    let names: Vec<_> = archive
        .entries()
        .expect("tar")
        .map(|f| f.expect("entry").path().expect("path").into_owned())
        .collect();
    assert!(names.iter().any(|n| n == Path::new("kept")), "{names:?}");
}

fn attach_and_standard_input(e: &Engine) {
    let input = e.dir.join("input");
    fs::write(&input, "one\ntwo\n").expect("write");
    let from = |args: &[&str]| {
        let mut c = command(e, args);
        c.stdin(fs::File::open(&input).expect("open"));
        crate::support::finish(&mut c).ok().stdout
    };
    assert_eq!(from(&["run", "--rm", "-i", NAME, "tac"]), "two\none\n");
    let c = Container::sleeping(e, "stdin_of_exec", &[]);
    assert_eq!(from(&["exec", "-i", c.name, "sort", "-r"]), "two\none\n");
    let id = says(e, &["create", "-i", NAME, "tac"]);
    assert_eq!(from(&["start", "--attach", "--interactive", &id]), "two\none\n");
    podman(e, &["rm", &id]).ok();
}

fn exit_after_a_timeout(e: &Engine) {
    let o = run(e, &["--timeout", "1"], "sleep 1000");
    assert_eq!(o.code(), 255, "{}", o.stderr);
}

fn conmon_is_killed(e: &Engine) {
    let c = Container::sleeping(e, "conmon_is_killed", &[]);
    let (pid, conmon, id) = (c.pid(), c.inspect(".State.ConmonPid"), c.inspect(".Id"));
    sh(&format!("kill -9 {conmon}"));
    until("conmon's end", || !is_alive(&conmon));
    assert!(is_alive(&pid));
    c.verb("rm", &["--force", "--time", "0"]).ok();
    until("the container's end", || !is_alive(&pid));
    // podman 4.3 does not delete what has no conmon: its user does.
    crate::support::finish(std::process::Command::new(&e.program).args(["delete", "--force", &id])).ok();
    let left = cgroups_named(&format!("libpod-{id}"));
    assert!(left.is_empty(), "{left:?}");
}

/// Whether it runs, and is no zombie.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

fn many_at_once(e: &Engine) {
    std::thread::scope(|s| {
        let threads: Vec<_> = (0..50)
            .map(|n| {
                s.spawn(move || {
                    let options = ["run", "--rm", "--label", "crowd", "--network", "none"];
                    podman(e, &[&options[..], &[NAME, "echo", &n.to_string()]].concat())
                })
            })
            .collect();
        for (n, t) in threads.into_iter().enumerate() {
            assert_eq!(t.join().expect("the thread").ok().stdout, format!("{n}\n"));
        }
    });
    assert_eq!(says(e, &["ps", "--all", "--quiet", "--filter", "label=crowd"]), "");
}

fn pidfile(e: &Engine) {
    let file = e.dir.join("a-pidfile");
    let c = Container::sleeping(e, "pidfile", &["--pidfile", file.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(&file).expect("the file").trim(), c.pid());
    let link = fs::read_link(format!("/proc/{}/exe", c.pid())).expect("the first process");
    assert_eq!(link, Path::new("/bin/busybox"));
}

fn log_drivers(e: &Engine) {
    for driver in ["k8s-file", "json-file"] {
        let file = e.dir.join(driver);
        let path = format!("path={}", file.display());
        assert_eq!(prints(e, &["--log-driver", driver, "--log-opt", &path], "echo words"), "words");
        assert!(fs::read_to_string(&file).expect("the log").ends_with("stdout F words\n"));
    }
    assert_eq!(prints(e, &["--log-driver", "none"], "echo words"), "words");
    assert_eq!(prints(e, &["--log-driver", "passthrough"], "echo words"), "words");
}

fn events_and_ps(e: &Engine) {
    let c = Container::sleeping(e, "events", &[]);
    c.exec(&[], "true").ok();
    c.verb("stop", &["--time", "0"]).ok();
    let filter = format!("container={}", c.name);
    let events = says(e, &["events", "--stream=false", "--filter", &filter, "--format", "{{.Status}}"]);
    let lines: Vec<_> = events.lines().collect();
    for event in ["create", "init", "start", "exec", "exec_died", "died"] {
        assert!(lines.contains(&event), "{event}: {events}");
    }
    let ps = says(e, &["ps", "--all", "--filter", "name=events", "--format", "{{.Status}}"]);
    assert!(ps.starts_with("Exited (137)"), "{ps}");
}
