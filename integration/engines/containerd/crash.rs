//! What is left when a part of the chain is killed, and what goes on.

use super::{Container, Ctr, Daemon};
use crate::support::until;
use crate::world::Engine;
use crate::{Check, check};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

pub const CHECKS: &[Check] = &[
    check!(init_killed_from_outside),
    check!(shim_killed).alone(),
    check!(daemon_killed_and_started_again).alone(),
];

fn kill_pid(pid: u32) {
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("it is there");
}

fn init_killed_from_outside(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    c.exec(&["--detach"], &["sleep", "2000"]).ok();
    kill_pid(c.pid());
    c.await_status("STOPPED");
    assert!(c.task("delete", &[], &[]).stderr.contains("exit code 137"));
    c.is_gone();
    c.remove_container();
}

fn shim_of(c: &Container) -> u32 {
    let is_shim = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains("containerd-shim-runc-v2") && line.contains(&c.id)
    };
    let processes = fs::read_dir("/proc").expect("proc").flatten();
    processes.filter_map(|p| p.file_name().to_str()?.parse().ok()).find(is_shim).expect("a shim")
}

/// containerd then asks for `delete --force`, which ends what still runs.
fn shim_killed(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    let pid = c.pid();
    kill_pid(shim_of(&c));
    until("the task is gone", || c.listed().is_none());
    until("its process is gone", || !fs::exists(format!("/proc/{pid}")).unwrap_or(true));
    c.is_gone();
    c.remove_container();
}

fn daemon_killed_and_started_again(e: &Engine) {
    let (c, ended) = (Ctr(e).sleeping(&[]), Ctr(e).sleeping(&[]));
    let (daemon, ends) = (Daemon::new(e, "ctr"), ended.pid());
    daemon.kill();
    kill_pid(ends);
    daemon.launch("");
    assert_eq!(c.prints("echo alive"), "alive");
    c.task("pause", &[], &[]).ok();
    c.task("resume", &[], &[]).ok();
    c.task("kill", &["--signal", "KILL"], &[]).ok();
    for c in [c, ended] {
        c.await_status("STOPPED");
        assert!(c.task("delete", &[], &[]).stderr.contains("exit code 137"));
        c.is_gone();
        c.remove_container();
    }
    assert_eq!(Ctr(e).prints(&[], "echo new"), "new");
}
