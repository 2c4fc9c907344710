//! How many system calls and processes a verb costs: a guard against creeping growth. Lowering a number is welcome,
//! raising one needs a reason in the commit.

mod support;

use serde_json::json;
use std::process::Command;
use support::{Bundle, Scratch, finish};

/// System calls of a command and its children, the container's program and the tracer's own exec included.
fn calls(command: &Command) -> (usize, usize) {
    let scratch = Scratch::new("strace");
    let log = scratch.path.join("log");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&log).arg(command.get_program()).args(command.get_args());
    finish(&mut strace).ok();
    let text = std::fs::read_to_string(&log).expect("the trace");
    // F_GETFD is a check of the standard library in debug builds, before every close.
    let noise = [" resumed>", "+++", "---", "F_GETFD"];
    let lines = text.lines().filter(|l| !noise.iter().any(|n| l.contains(n)));
    let mut pids: Vec<_> = text.lines().filter_map(|l| l.split_whitespace().next()).collect();
    pids.sort_unstable();
    pids.dedup();
    (lines.count(), pids.len())
}

#[test]
fn run_stays_within_its_system_calls_and_makes_one_process() {
    needs_root!();
    needs_program!("strace");
    let b = Bundle::new().set("/linux/cgroupsPath", json!("/orlop-test-budget"));
    let (calls, processes) = calls(&b.making("run"));
    println!("run: {calls} system calls, {processes} processes");
    assert!(calls <= 430, "run took {calls} system calls");
    assert_eq!(processes, 2, "the runtime and the container's init");
}

#[test]
fn state_is_cheap() {
    needs_root!();
    needs_program!("strace");
    let b = Bundle::new().args(&["sleep", "1000"]);
    b.create().ok();
    let (calls, processes) = calls(&b.orlop(["state", &b.id]));
    println!("state: {calls} system calls");
    assert!(calls <= 35, "state took {calls} system calls");
    assert_eq!(processes, 1);
}
