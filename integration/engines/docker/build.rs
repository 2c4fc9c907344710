//! `docker build`, by the classic builder and by BuildKit, whose executor calls the runtime itself.

use super::{MAIN, run};
use crate::image::NAME;
use crate::support::{Outcome, finish_within, patience};
use crate::world::Engine;
use crate::{Check, check};
use std::fs;

pub const CHECKS: &[Check] = &[
    check!(classic),
    check!(classic_failure),
    check!(buildkit),
    check!(buildkit_failure),
    check!(buildkit_mounts),
];

/// Builds this Dockerfile, with a file beside it.
#[track_caller]
fn build(e: &Engine, kit: bool, tag: &str, options: &[&str], dockerfile: &str) -> Outcome {
    let dir = e.dir.join("tmp").join(format!("build-{}", crate::support::unique()));
    fs::create_dir(&dir).expect("mkdir");
    fs::write(dir.join("Dockerfile"), dockerfile).expect("write");
    fs::write(dir.join("file"), "beside\n").expect("write");
    let mut c = MAIN.command(&[&["build", "--tag", tag], options, &[dir.to_str().expect("UTF-8")]].concat());
    finish_within(
        c.env("DOCKER_BUILDKIT", if kit { "1" } else { "0" }).env("BUILDKIT_PROGRESS", "plain"),
        patience(),
    )
}

fn steps() -> String {
    format!(
        "FROM {NAME} AS first\nARG WORD\nENV KEPT=$WORD\nWORKDIR /made\nCOPY file .\n\
         RUN cat file > copy && echo $KEPT >> copy && id -u >> copy && chown 1000 .\n\
         USER user\nRUN id -u > by-user; test -e /proc/1/status; hostname > /dev/null\n\
         FROM {NAME}\nCOPY --from=first /made /made\nCMD [\"cat\", \"/made/copy\", \"/made/by-user\"]\n"
    )
}

fn builds(e: &Engine, kit: bool) {
    let tag = format!("localhost/built:{}", crate::support::unique());
    build(e, kit, &tag, &["--build-arg", "WORD=word"], &steps()).ok();
    let o = run(&["run", "--rm", &tag]);
    run(&["rmi", &tag]).ok();
    assert_eq!(o.ok().stdout, "beside\nword\n0\n1000\n");
}

fn classic(e: &Engine) {
    builds(e, false);
}

fn classic_failure(e: &Engine) {
    let o = build(
        e,
        false,
        "localhost/failed:1",
        &["--force-rm"],
        &format!("FROM {NAME}\nRUN echo said; exit 3\n"),
    );
    assert!(o.code() == 3 && o.stderr.contains("returned a non-zero code: 3"), "{}: {}", o.code(), o.stderr);
    let o =
        build(e, false, "localhost/failed:1", &["--force-rm"], &format!("FROM {NAME}\nRUN [\"/missing\"]\n"));
    assert!(o.code() != 0 && o.stderr.contains("no such file or directory"), "{}: {}", o.code(), o.stderr);
}

fn buildkit(e: &Engine) {
    builds(e, true);
}

fn buildkit_failure(e: &Engine) {
    let o = build(e, true, "localhost/failed:2", &[], &format!("FROM {NAME}\nRUN echo said; exit 3\n"));
    assert!(o.code() != 0 && o.stderr.contains("exit code: 3"), "{}: {}", o.code(), o.stderr);
    let o = build(e, true, "localhost/failed:2", &[], &format!("FROM {NAME}\nRUN [\"/missing\"]\n"));
    assert_ne!(o.code(), 0, "{}", o.stderr);
}

fn buildkit_mounts(e: &Engine) {
    let tag = format!("localhost/built:{}", crate::support::unique());
    let text = format!(
        "FROM {NAME}\nRUN --mount=type=tmpfs,target=/t --mount=type=cache,target=/c --mount=type=bind,target=/b \
         grep -q ' /t tmpfs' /proc/mounts && cat /b/file > /out && echo x > /c/x\n"
    );
    build(e, true, &tag, &["--network", "none"], &text).ok();
    let o = run(&["run", "--rm", &tag, "cat", "/out"]);
    run(&["rmi", &tag]).ok();
    assert_eq!(o.ok().stdout, "beside\n");
}
