//! Docker: dockerd with the runtime as its default.

mod daemon;
mod life;

use crate::Suite;
use crate::image::NAME;
use crate::support::{Outcome, finish_within, patience};
use daemon::Daemon;
use std::process::{Command, Stdio};

pub const SUITE: Suite = Suite {
    engine: "docker",
    programs: &["dockerd", "containerd", "iptables"],
    start: |e| Daemon::new(e, "docker").start(&["--default-runtime", RUNTIME]),
    checks: &[life::CHECKS],
    threads: 4,
};

/// What the daemon calls the runtime under test; `runc` is a name that it keeps for itself.
const RUNTIME: &str = "tested";

/// A command of Debian's client, which is as old as the daemon.
fn docker(args: &[&str]) -> Command {
    let mut c = Command::new("/usr/bin/docker");
    c.args(["--host", "unix:///run/docker.sock"]).args(args).stdin(Stdio::null());
    c
}

/// A client's command to its end.
#[track_caller]
fn run(args: &[&str]) -> Outcome {
    finish_within(&mut docker(args), patience())
}

/// `docker run --rm OPTIONS box sh -c SCRIPT`: what it prints.
#[track_caller]
fn prints(options: &[&str], script: &str) -> String {
    run(&[&["run", "--rm"], options, &[NAME, "sh", "-c", script]].concat()).ok().stdout.trim_end().to_string()
}
