//! `ctr task`: what is done with a container that runs.

use super::{Ctr, new_id};
use crate::image::NAME;
use crate::support::until;
use crate::world::Engine;
use crate::{Check, check};
use std::fs;
use std::time::{Duration, Instant};

pub const CHECKS: &[Check] = &[
    check!(created_then_started),
    check!(exec_prints),
    check!(exec_codes_and_errors),
    check!(exec_user_and_cwd),
    check!(exec_is_in_the_container),
    check!(exec_detached_and_killed),
    check!(many_execs_at_once),
    check!(ps_lists_all),
    check!(pause_and_resume),
    check!(paused_container_is_removed),
    check!(kill_signals),
    check!(kill_all),
    check!(kill_of_a_stopped_task_is_not_found),
    check!(metrics),
    check!(delete),
    check!(end_of_init_ends_all),
    check!(attach_reads_on),
    check!(checkpoint_and_restore).cannot("criu does not start on this kernel"),
];

fn created_then_started(e: &Engine) {
    let id = new_id();
    let ctr = Ctr(e);
    ctr.call(["container", "create", NAME, &id, "false"]).ok();
    assert_eq!(ctr.call(["task", "start", &id]).code(), 1);
    ctr.call(["container", "delete", &id]).ok();
}

fn exec_prints(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    let o = c.script("echo out; echo err >&2; cat /etc/readable").ok();
    assert_eq!((o.stdout.as_str(), o.stderr.as_str()), ("out\nfrom the image\n", "err\n"));
    c.remove();
    c.is_gone();
}

fn exec_codes_and_errors(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    for code in [0, 1, 42, 255] {
        assert_eq!(c.exec(&[], &["sh", "-c", &format!("exit {code}")]).code(), code);
    }
    assert_eq!(c.exec(&[], &["sh", "-c", "kill -9 $$"]).code(), 137);
    for (args, words) in [
        (["missing"], "exec: \"missing\": executable file not found in $PATH"),
        (["/missing"], "exec: \"/missing\": stat /missing: no such file or directory"),
        (["/etc/passwd"], "exec: \"/etc/passwd\": permission denied"),
    ] {
        c.exec(&[], &args).fails(words);
    }
    assert_eq!(c.prints("echo still here"), "still here");
    c.remove();
}

fn exec_user_and_cwd(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    let o = c.exec(
        &["--user", "1000:2000", "--cwd", "/tmp"],
        &["sh", "-c", "id -u; id -g; pwd; touch /x 2>&1 || true"],
    );
    assert_eq!(o.ok().stdout, "1000\n2000\n/tmp\ntouch: /x: Permission denied\n");
    c.exec(&["--cwd", "/nowhere"], &["pwd"]).fails("no such file or directory");
    c.remove();
}

/// In its namespaces and cgroups, with its limits, root and rights.
fn exec_is_in_the_container(e: &Engine) {
    let c = Ctr(e).sleeping(&["--read-only", "--memory-limit", "52428800", "--seccomp"]);
    let of = |pid: &str| {
        let namespaces =
            "ipc mnt net pid uts cgroup".split(' ').map(|n| format!("readlink /proc/{pid}/ns/{n}; "));
        let status = format!("grep -e Cap -e NoNewPrivs -e Seccomp: -e ^Groups /proc/{pid}/status; ");
        let rest = format!(
            "cat /proc/{pid}/cgroup /proc/{pid}/limits /proc/{pid}/oom_score_adj; stat -c %i /proc/{pid}/root/."
        );
        c.prints(&(namespaces.collect::<String>() + &status + &rest))
    };
    assert_eq!(of("1"), of("self"));
    assert_eq!(c.prints("touch /x 2>&1 || true"), "touch: /x: Read-only file system");
    c.remove();
}

fn exec_detached_and_killed(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    c.task("exec", &["--detach", "--exec-id", "second"], &["sleep", "2000"]).ok();
    until("it runs", || c.prints("ps").contains("sleep 2000"));
    c.task("kill", &["--exec-id", "second", "--signal", "KILL"], &[]).ok();
    until("it ended", || !c.prints("ps").contains("sleep 2000"));
    let deleted = c.task("delete", &["--exec-id", "second"], &[]);
    assert!(deleted.stderr.is_empty() || deleted.stderr.contains("137"), "{}", deleted.stderr);
    assert_eq!(c.listed().expect("a task").1, "RUNNING");
    c.remove();
}

fn many_execs_at_once(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    std::thread::scope(|s| {
        let c = &c;
        let runs: Vec<_> = (0..12)
            .map(|n| s.spawn(move || (n, c.exec(&[], &["sh", "-c", &format!("echo {n}; exit {n}")]))))
            .collect();
        for run in runs {
            let (n, o) = run.join().expect("it ends");
            assert_eq!((o.code(), o.stdout.trim()), (n, n.to_string().as_str()), "{}", o.stderr);
        }
    });
    c.remove();
    c.is_gone();
}

fn ps_lists_all(e: &Engine) {
    let c = Ctr(e).detached(&[], &["sh", "-c", "sleep 1001 & sleep 1002 & wait"]);
    let mut seen = Vec::new();
    until("three processes", || {
        let o = c.task("ps", &[], &[]).ok();
        seen = o.stdout.lines().skip(1).filter_map(|l| l.split_whitespace().next()?.parse().ok()).collect();
        seen.len() == 3
    });
    assert!(seen.contains(&c.pid()), "{seen:?}");
    let name = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a process of ours").replace('\0', " ")
    };
    let mut names: Vec<_> = seen.iter().map(name).collect();
    names.sort();
    assert_eq!(names[1..], ["sleep 1001 ", "sleep 1002 "], "{names:?}");
    c.remove();
}

fn pause_and_resume(e: &Engine) {
    let c = Ctr(e).detached(&[], &["sh", "-c", "n=0; while :; do n=$((n + 1)); echo $n > /n; done"]);
    let root = format!("/proc/{}/root/n", c.pid());
    let count = || fs::read_to_string(&root).unwrap_or_default();
    until("it counts", || !count().is_empty());
    c.task("pause", &[], &[]).ok();
    assert_eq!(c.listed().expect("a task").1, "PAUSED");
    assert_eq!(c.cgroup_file("freezer", "freezer.state"), "FROZEN");
    let (before, begin) = (count(), Instant::now());
    while begin.elapsed() < Duration::from_millis(100) {
        assert_eq!(count(), before);
    }
    c.exec(&[], &["true"]).fails("paused");
    c.task("resume", &[], &[]).ok();
    assert_eq!(c.listed().expect("a task").1, "RUNNING");
    until("it counts on", || count() != before);
    c.task("resume", &[], &[]).fails("cannot resume a running process");
    c.remove();
}

fn paused_container_is_removed(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    c.task("pause", &[], &[]).ok();
    c.task("kill", &["--signal", "KILL"], &[]).ok();
    c.task("resume", &[], &[]);
    c.await_status("STOPPED");
    c.remove();
    c.is_gone();
}

fn kill_signals(e: &Engine) {
    let script = "trap 'exit 11' TERM; trap 'exit 12' USR1; echo > /ready; while :; do sleep 0.02; done";
    for (signal, code) in [("SIGTERM", "11"), ("USR1", "12"), ("9", "137")] {
        let c = Ctr(e).detached(&[], &["sh", "-c", script]);
        let ready = format!("/proc/{}/root/ready", c.pid());
        until("it has its traps", || fs::exists(&ready).unwrap_or(false));
        c.task("kill", &["--signal", signal], &[]).ok();
        c.await_status("STOPPED");
        let o = c.task("delete", &[], &[]);
        assert!(o.stderr.contains(&format!("exit code {code}")), "{signal}: {} {}", o.stdout, o.stderr);
        c.is_gone();
    }
}

fn kill_all(e: &Engine) {
    let c = Ctr(e).detached(&[], &["sh", "-c", "trap : USR1; sh -c 'trap \"echo > /got; exit\" USR1; echo > /ready; while :; do sleep 0.02; done'; sleep 1000"]);
    let root = format!("/proc/{}/root", c.pid());
    until("the child has its trap", || fs::exists(format!("{root}/ready")).unwrap_or(false));
    c.task("kill", &["--all", "--signal", "USR1"], &[]).ok();
    until("the child has the signal", || fs::exists(format!("{root}/got")).unwrap_or(false));
    assert_eq!(c.listed().expect("a task").1, "RUNNING");
    c.remove();
}

fn kill_of_a_stopped_task_is_not_found(e: &Engine) {
    let c = Ctr(e).detached(&[], &["true"]);
    c.await_status("STOPPED");
    c.task("kill", &[], &[]).fails("not found");
    c.task("delete", &[], &[]).ok();
    c.task("kill", &[], &[]).fails("not found");
    c.remove_container();
}

fn metrics(e: &Engine) {
    let c = Ctr(e).detached(
        &["--memory-limit", "67108864"],
        &["sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=8; while :; do :; done"],
    );
    let value =
        |key| c.task("metrics", &[], &[]).ok().line(key).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
    until("memory is counted", || value("memory.usage_in_bytes") > 8 << 20);
    until("time is counted", || value("cpuacct.usage") > 10_000_000);
    until("dd is gone", || value("pids.current") == 1);
    c.remove();
}

fn delete(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    c.task("delete", &[], &[]).fails("must be stopped before deletion");
    assert_eq!(c.prints("echo alive"), "alive");
    c.task("delete", &["--force"], &[]);
    assert!(c.listed().is_none());
    c.is_gone();
    c.remove_container();
}

/// What init leaves goes with the pid namespace, and the cgroup is empty.
fn end_of_init_ends_all(e: &Engine) {
    let c = Ctr(e).detached(&[], &["sh", "-c", "sleep 2001 & setsid sleep 2002 & sleep 0.2"]);
    c.await_status("STOPPED");
    c.task("delete", &[], &[]).ok();
    c.is_gone();
    c.remove_container();
}

fn attach_reads_on(e: &Engine) {
    let script = "until [ -e /go ]; do echo more; sleep 0.05; done; exit 5";
    let c = Ctr(e).detached(&[], &["sh", "-c", script]);
    let seen = e.dir.join("attached");
    let mut attach = Ctr(e).command(["task", "attach", &c.id]);
    let mut attach = attach.stdout(fs::File::create(&seen).expect("create")).spawn().expect("ctr starts");
    until("it reads", || fs::read_to_string(&seen).is_ok_and(|t| t.contains("more\n")));
    fs::write(format!("/proc/{}/root/go", c.pid()), "").expect("write");
    assert_eq!(attach.wait().expect("wait").code(), Some(5));
    c.remove_container();
}

fn checkpoint_and_restore(e: &Engine) {
    let c = Ctr(e).detached(
        &["--null-io"],
        &["sh", "-c", "n=0; while :; do n=$((n + 1)); echo $n > /dev/shm/n; sleep 0.01; done"],
    );
    until("it counts", || c.prints("cat /dev/shm/n").parse::<u32>().is_ok_and(|n| n > 5));
    let images = e.dir.join(format!("images-{}", c.id));
    c.task("checkpoint", &["--image-path", images.to_str().expect("UTF-8")], &[]).ok();
    assert!(images.join("inventory.img").exists());
    let reference = format!("localhost/checkpoint-{}", c.id);
    let ctr = Ctr(e);
    ctr.call(["container", "checkpoint", "--task", "--rw", "--image", &c.id, &reference]).ok();
    let seen: u32 = c.prints("cat /dev/shm/n").parse().expect("a number");
    c.remove();
    let id = new_id();
    ctr.call(["container", "restore", "--rw", "--live", &id, &reference]).ok();
    let restored = super::Container { ctr, id };
    restored.await_status("RUNNING");
    until("it counts on", || restored.prints("cat /dev/shm/n").parse::<u32>().is_ok_and(|n| n > seen));
    restored.remove();
    restored.is_gone();
}
