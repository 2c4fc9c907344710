//! Docker: dockerd with the runtime as its default, and with it as one more.

mod build;
mod daemon;
mod daemons;
mod files;
mod images;
mod io;
mod life;
mod limits;
mod net;
mod rights;

use crate::Suite;
use crate::image::NAME;
use crate::support::Outcome;
use daemon::{Container, Docker};

pub const SUITE: Suite = Suite {
    engine: "docker",
    programs: &["dockerd", "containerd", "iptables"],
    start: |e| {
        MAIN.start(e, &["--default-runtime", RUNTIME]);
    },
    checks: &[
        life::CHECKS,
        io::CHECKS,
        files::CHECKS,
        limits::CHECKS,
        rights::CHECKS,
        net::CHECKS,
        build::CHECKS,
        images::CHECKS,
        daemons::CHECKS,
        life::LAST,
    ],
    threads: 4,
};

/// What daemons call the runtime under test; `runc` is a name that they keep for themselves.
const RUNTIME: &str = "tested";
const MAIN: Docker = Docker("docker");

/// A client's command to its end.
#[track_caller]
fn run(args: &[&str]) -> Outcome {
    MAIN.run(args)
}

#[track_caller]
fn container(options: &[&str], script: &str) -> Container {
    MAIN.container(options, script)
}

/// `docker run --rm OPTIONS box sh -c SCRIPT`.
#[track_caller]
fn script(options: &[&str], script: &str) -> Outcome {
    run(&[&["run", "--rm"], options, &[NAME, "sh", "-c", script]].concat())
}

/// What such a script prints.
#[track_caller]
fn prints(options: &[&str], text: &str) -> String {
    script(options, text).ok().stdout.trim_end().to_string()
}
