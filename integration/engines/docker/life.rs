//! A container's life: from `run` to `rm`.

use super::{MAIN, RUNTIME, container, prints, run};
use crate::image::NAME;
use crate::support::{finish_within, patience, until};
use crate::world::{Engine, left_of, note};
use crate::{Check, check};
use std::fs;
use std::time::{Duration, Instant};

pub const CHECKS: &[Check] = &[
    check!(run_prints),
    check!(exit_codes),
    check!(detached_logs_and_rm),
    check!(stop_gives_time_and_then_kills),
    check!(stop_signal),
    check!(kill_signals),
    check!(restart_policies),
    check!(restart_and_start_again),
    check!(pause_and_unpause),
    check!(rm_force_of_a_paused_container),
    check!(top_and_stats),
    check!(wait_for_many),
    check!(create_then_start_attached),
    check!(inspect_of_the_runtime),
    check!(info_of_the_runtime),
    check!(health),
];
pub const LAST: &[Check] = &[check!(a_hundred_at_once).alone(), check!(nothing_is_left).alone()];

const UNTIL_TERM: &str = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done";

fn run_prints(_: &Engine) {
    assert_eq!(prints(&[], "echo $((6 * 7)); id -u"), "42\n0");
}

fn exit_codes(_: &Engine) {
    for (code, args) in [
        (0, &[NAME, "true"][..]),
        (1, &[NAME, "false"]),
        (7, &[NAME, "sh", "-c", "exit 7"]),
        (255, &[NAME, "sh", "-c", "exit 255"]),
        (137, &[NAME, "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]),
        (127, &[NAME, "/missing"]),
        (127, &[NAME, "missing"]),
        (126, &[NAME, "/etc/passwd"]),
        (126, &[NAME, "/etc"]),
        (125, &["--no-such-flag", NAME, "true"]),
        (125, &["--user", "nobody-such", NAME, "true"]),
    ] {
        let o = run(&[&["run", "--rm"], args].concat());
        assert_eq!(o.code(), code, "{args:?}: {}", o.stderr);
    }
}

fn detached_logs_and_rm(e: &Engine) {
    let c = container(&[], "echo out; echo err >&2");
    assert_eq!(c.wait(), 0);
    let logs = c.verb(&["logs"]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    c.verb(&["rm"]).ok();
    assert_eq!(left_of(e, &c.id), Vec::<String>::new());
}

fn stop_gives_time_and_then_kills(_: &Engine) {
    let c = container(&[], UNTIL_TERM);
    c.await_log("ready");
    c.verb(&["stop", "--time", "30"]).ok();
    assert_eq!((c.inspect(".State.ExitCode"), c.logs()), ("3".into(), "ready\nterm\n".into()));
    let c = container(&[], "trap '' TERM; echo ready; sleep 1000");
    c.await_log("ready");
    let begin = Instant::now();
    c.verb(&["stop", "--time", "1"]).ok();
    assert!(begin.elapsed() >= Duration::from_secs(1), "it was given {:?}", begin.elapsed());
    assert_eq!((c.inspect(".State.Status"), c.inspect(".State.ExitCode")), ("exited".into(), "137".into()));
}

fn stop_signal(_: &Engine) {
    let c =
        container(&["--stop-signal", "USR2"], "trap 'exit 9' USR2; echo ready; while :; do sleep 0.05; done");
    c.await_log("ready");
    c.verb(&["stop", "--time", "30"]).ok();
    assert_eq!(c.inspect(".State.ExitCode"), "9");
}

fn kill_signals(_: &Engine) {
    let c = container(&[], "trap 'echo usr1' USR1; echo ready; while :; do sleep 0.05; done");
    c.await_log("ready");
    c.verb(&["kill", "--signal", "USR1"]).ok();
    c.await_log("usr1");
    assert_eq!(c.inspect(".State.Running"), "true");
    c.verb(&["kill"]).ok();
    assert_eq!(c.wait(), 137);
    c.verb(&["kill"]).fails("is not running");
}

fn restart_policies(_: &Engine) {
    let c = container(&["--restart", "on-failure:2"], "echo round; exit 1");
    until("two restarts", || c.inspect(".RestartCount") == "2" && c.inspect(".State.Running") == "false");
    assert_eq!(c.logs(), "round\n".repeat(3));
    let c = container(&["--restart", "always"], "echo round; sleep 1000");
    c.await_log("round");
    let first = c.pid();
    // By another than Docker, which counts as an end of its own.
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)
        .expect("kill");
    until("another init", || ![0, first].contains(&c.pid()));
    c.await_log("round\nround\n");
    c.verb(&["stop", "--time", "0"]).ok();
    assert_eq!(c.inspect(".State.Running"), "false");
}

fn restart_and_start_again(_: &Engine) {
    let c = container(&[], "echo x >> /file; cat /file; sleep 1000");
    c.await_log("x");
    let first = c.pid();
    c.verb(&["restart", "--time", "0"]).ok();
    c.await_log("x\nx\nx\n");
    assert_ne!(c.pid(), first);
    c.verb(&["kill"]).ok();
    c.wait();
    c.verb(&["start"]).ok();
    until("three lines", || c.logs().lines().count() == 6);
}

fn pause_and_unpause(e: &Engine) {
    let c = container(&[], "while :; do echo $((n += 1)) > /n; sleep 0.02; done");
    let file = format!("/proc/{}/root/n", c.pid());
    let count = || fs::read_to_string(&file).unwrap_or_default().trim().parse().unwrap_or(0u64);
    until("a count", || count() > 0);
    c.verb(&["pause"]).ok();
    assert_eq!(c.inspect(".State.Status"), "paused");
    assert_eq!(c.cgroup(e, "freezer", "freezer.state"), "FROZEN");
    c.exec_with(&[], "true").fails("is paused");
    c.verb(&["pause"]).fails("is already paused");
    let before = count();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(count(), before);
    c.verb(&["unpause"]).ok();
    assert_eq!(c.cgroup(e, "freezer", "freezer.state"), "THAWED");
    until("it goes on", || count() > before);
    assert_eq!(c.inspect(".State.Status"), "running");
    c.verb(&["unpause"]).fails("is not paused");
}

fn rm_force_of_a_paused_container(e: &Engine) {
    let c = container(&[], "sleep 1000");
    c.verb(&["pause"]).ok();
    c.verb(&["rm", "--force"]).ok();
    assert_eq!(left_of(e, &c.id), Vec::<String>::new());
    let c = container(&[], UNTIL_TERM);
    c.await_log("ready");
    c.verb(&["pause"]).ok();
    c.verb(&["stop", "--time", "30"]).ok();
    assert_eq!(c.inspect(".State.Running"), "false");
}

fn top_and_stats(_: &Engine) {
    let c = container(&["--memory", "64m"], "sleep 1001 & sleep 1002 & echo ready; wait");
    c.await_log("ready");
    let top = c.verb(&["top"]).ok().stdout;
    assert_eq!(top.lines().filter(|l| l.contains("sleep 100")).count(), 3, "{top}");
    let pids = run(&["top", &c.id, "-o", "pid,comm"]).ok().stdout;
    assert!(pids.lines().any(|l| l.split_whitespace().next() == Some(&c.pid().to_string())), "{pids}");
    let stats = c.verb(&["stats", "--no-stream", "--format", "{{.PIDs}} {{.MemUsage}}"]).ok().stdout;
    assert!(stats.starts_with("3 ") && stats.trim_end().ends_with("/ 64MiB"), "{stats}");
}

fn wait_for_many(_: &Engine) {
    let many: Vec<_> = (3..6).map(|n| container(&[], &format!("sleep 0.{n}; exit {n}"))).collect();
    let ids: Vec<_> = many.iter().map(|c| c.id.as_str()).collect();
    assert_eq!(run(&[&["wait"], &ids[..]].concat()).ok().stdout, "3\n4\n5\n");
}

fn create_then_start_attached(_: &Engine) {
    let id = run(&["create", NAME, "sh", "-c", "echo out; exit 4"]).ok().stdout.trim().to_string();
    for _ in 0..2 {
        let o = run(&["start", "--attach", &id]);
        assert_eq!((o.code(), o.stdout.as_str()), (4, "out\n"), "{}", o.stderr);
    }
    run(&["rm", &id]).ok();
}

fn inspect_of_the_runtime(_: &Engine) {
    let c = container(&[], "sleep 1000");
    assert_eq!(c.inspect(".HostConfig.Runtime"), RUNTIME);
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("its init is ours to see");
    assert!(status.contains("NSpid:") && status.contains("\t1\n"), "{status}");
}

fn info_of_the_runtime(e: &Engine) {
    let format = "{{json .Runtimes}} {{.DefaultRuntime}}";
    let info = run(&["info", "--format", format]).ok().stdout;
    assert!(info.contains(e.program.to_str().expect("UTF-8")), "{info}");
    assert!(info.trim_end().ends_with(&format!(" {RUNTIME}")), "{info}");
}

fn health(_: &Engine) {
    let options = ["--health-cmd", "test -f /ok", "--health-interval", "200ms", "--health-retries", "2"];
    let c = container(&options, "sleep 1000");
    until("unhealthy", || c.inspect(".State.Health.Status") == "unhealthy");
    c.exec("touch /ok");
    until("healthy", || c.inspect(".State.Health.Status") == "healthy");
}

fn a_hundred_at_once(_: &Engine) {
    let begin = Instant::now();
    std::thread::scope(|s| {
        let one = |n: usize| {
            let text = format!("echo {n}");
            // Without a network: dockerd makes one at a time, and that is not what is looked at.
            let run = ["run", "--rm", "--network", "none", NAME, "sh", "-c", &text];
            let o = finish_within(&mut MAIN.command(&run), 8 * patience());
            (o.stdout.trim() != n.to_string()).then(|| format!("{o:?}"))
        };
        let all: Vec<_> = (0..100).map(|n| s.spawn(move || one(n))).collect();
        let failed: Vec<_> = all.into_iter().filter_map(|t| t.join().expect("a run")).collect();
        assert!(failed.is_empty(), "{} of 100 failed, the first: {}", failed.len(), failed[0]);
    });
    note(format!("100 × docker run --rm at once: {:.1} s", begin.elapsed().as_secs_f64()));
    let begin = Instant::now();
    (0..10).for_each(|_| assert_eq!(prints(&[], "echo x"), "x"));
    note(format!(
        "10 × docker run --rm one after another: {:.2} s each",
        begin.elapsed().as_secs_f64() / 10.0
    ));
}

fn nothing_is_left(e: &Engine) {
    let format = "{{.ID}} {{.Status}} {{.Command}} {{.Mounts}}";
    let left = MAIN.run(&["ps", "--all", "--no-trunc", "--format", format]).ok().stdout;
    assert_eq!(left, "", "containers are left");
    let id = |path: &str| path.split('/').find(|part| part.len() == 64).unwrap_or("none").to_string();
    let left = left_of(e, "/moby/");
    let said = left.iter().flat_map(|path| e.said("docker", &id(path))).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:#?}: {said:#?}");
}
