//! A container's life: from `run` to `rm`.

use super::{prints, run};
use crate::image::NAME;
use crate::world::Engine;
use crate::{Check, check};

pub const CHECKS: &[Check] = &[check!(run_prints), check!(exit_codes), check!(detached_logs_and_rm)];

fn run_prints(_: &Engine) {
    assert_eq!(prints(&[], "echo $((6 * 7)); id -u"), "42\n0");
}

fn exit_codes(_: &Engine) {
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
        let o = run(&[&["run", "--rm"], args].concat());
        assert_eq!(o.code(), code, "{args:?}: {}", o.stderr);
    }
}

fn detached_logs_and_rm(e: &Engine) {
    let id = run(&["run", "-d", NAME, "sh", "-c", "echo out; echo err >&2"]).ok().stdout.trim().to_string();
    assert_eq!(run(&["wait", &id]).ok().stdout.trim(), "0");
    let logs = run(&["logs", &id]).ok();
    assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("out\n", "err\n"));
    run(&["rm", &id]).ok();
    let dir = format!("/sys/fs/cgroup/pids{}/{id}", e.cgroup);
    assert!(!std::path::Path::new(&dir).exists(), "{dir} is left");
}
