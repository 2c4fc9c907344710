//! `podman build`.

use super::{podman, says};
use crate::support::Scratch;
use crate::world::Engine;
use crate::{Check, check};
use std::fs;

pub const CHECKS: &[Check] = &[check!(build_runs_steps), check!(build_options), check!(build_that_fails)];

#[track_caller]
fn context(text: &str) -> Scratch {
    let dir = Scratch::new("context");
    fs::write(dir.path.join("Containerfile"), text).expect("write");
    fs::write(dir.path.join("copied"), "from the context\n").expect("write");
    dir
}

fn build_runs_steps(e: &Engine) {
    let dir = context(
        "FROM localhost/box:latest
        ARG WORD=none
        ENV WORD=$WORD
        RUN echo $WORD >/word && id -u >>/word
        COPY copied /copied
        WORKDIR /made/here
        RUN --mount=type=tmpfs,target=/t touch /t/x && pwd >>/word
        RUN --mount=type=bind,source=copied,target=/m cat /m >>/word
        USER user
        RUN id -u >/tmp/id
        CMD cat /word /tmp/id /copied",
    );
    says(
        e,
        &[
            "build",
            "--quiet",
            "--layers=false",
            "--build-arg",
            "WORD=given",
            "-t",
            "localhost/steps",
            dir.path.to_str().expect("UTF-8"),
        ],
    );
    let printed = says(e, &["run", "--rm", "localhost/steps"]);
    assert_eq!(printed, "given\n0\n/made/here\nfrom the context\n1000\nfrom the context");
}

fn build_options(e: &Engine) {
    let dir = context(
        "FROM localhost/box:latest
        RUN grep other /etc/hosts; ulimit -n; cat /v/copied; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; df -P /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; grep CapBnd /proc/self/status",
    );
    let path = dir.path.to_str().expect("UTF-8");
    let volume = format!("{path}:/v:ro");
    let options = ["--add-host", "other:192.0.2.1", "--ulimit", "nofile=100:200", "-v", &volume];
    let more = ["--memory", "64m", "--shm-size", "3m", "--cap-drop", "ALL", "--no-cache", path];
    let o = podman(e, &[&["build"], &options[..], &more].concat()).ok();
    for line in
        ["192.0.2.1\tother", "100", "from the context", "67108864", "3072", "CapBnd:\t0000000000000000"]
    {
        assert!(o.stdout.lines().any(|l| l == line), "{line}: {}", o.stdout);
    }
}

fn build_that_fails(e: &Engine) {
    let dir = context("FROM localhost/box:latest\nRUN exit 5\n");
    let path = dir.path.to_str().expect("UTF-8");
    let o = podman(e, &["build", "--no-cache", path]);
    assert!(o.code() == 5 && o.stderr.contains("exit status 5"), "{o:?}");
    let dir = context("FROM localhost/box:latest\nRUN [\"/missing\"]\n");
    let o = podman(e, &["build", "--no-cache", dir.path.to_str().expect("UTF-8")]);
    assert!(!o.status.success() && o.stderr.contains("no such file or directory"), "{o:?}");
}
