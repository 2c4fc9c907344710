//! podman of an ordinary user, with subordinate ids.

use crate::image::NAME;
use crate::support::{Outcome, finish_within, patience, until};
use crate::world::{Engine, sh};
use crate::{Check, check};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const NO_USERS: &str = "needs newuidmap and user namespaces of ordinary users";
const NO_SLIRP: &str = "needs slirp4netns and user namespaces of ordinary users";

pub const CHECKS: &[Check] = &[
    check!(rootless_run).cannot(NO_USERS),
    check!(rootless_keep_id).cannot(NO_USERS),
    check!(rootless_network).cannot(NO_SLIRP),
    check!(rootless_life).cannot(NO_USERS),
    check!(rootless_terminals).cannot("needs a /tmp where conmon of an ordinary user may make its socket"),
    check!(rootless_volumes).cannot(NO_USERS),
    check!(rootless_build).cannot(NO_USERS),
    check!(rootless_pod).cannot(NO_USERS),
];

const UID: u32 = 4321;

/// Makes the user, once, and loads the image for them.
fn user(e: &Engine) {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let home = e.dir.join("user");
        sh(&format!(
            "echo deckhand:x:{UID}:{UID}::{0}:/bin/sh >>/etc/passwd; echo deckhand:x:{UID}: >>/etc/group
             echo deckhand:200000:65536 | tee -a /etc/subuid >>/etc/subgid; chmod 755 {1}
             mkdir -p {0}/tmp /run/user/{UID} && chown -R {UID}:{UID} {0} /run/user/{UID}; chmod 644 {2}",
            home.display(),
            e.dir.display(),
            e.archive.display()
        ));
        podman(e, &["load", "--quiet", "--input", e.archive.to_str().expect("UTF-8")]).ok();
    });
}

#[track_caller]
fn podman(e: &Engine, args: &[&str]) -> Outcome {
    let home = e.dir.join("user");
    let mut c = Command::new("setpriv");
    c.args(["--reuid", &UID.to_string(), "--regid", &UID.to_string(), "--clear-groups", "podman"]).args(args);
    c.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", &home).env("USER", "deckhand");
    c.env("XDG_RUNTIME_DIR", format!("/run/user/{UID}")).env("TMPDIR", home.join("tmp")).current_dir(&home);
    finish_within(c.stdin(Stdio::null()), patience())
}

#[track_caller]
fn prints(e: &Engine, options: &[&str], script: &str) -> String {
    user(e);
    podman(e, &[&["run", "--rm"], options, &[NAME, "sh", "-c", script]].concat())
        .ok()
        .stdout
        .trim_end()
        .to_string()
}

const MAP: &str = "tr -s ' ' </proc/self/uid_map";

fn rootless_run(e: &Engine) {
    for network in ["none", "host"] {
        assert_eq!(
            prints(e, &["--network", network], &format!("id -u; {MAP}")),
            "0\n 0 4321 1\n 1 200000 65536"
        );
    }
    let printed = prints(
        e,
        &["--network", "none", "--user", "user", "--group-add", "extra"],
        "id -u; ls -d /sys/fs/cgroup; grep Seccomp: /proc/self/status",
    );
    assert_eq!(printed, "1000\n/sys/fs/cgroup\nSeccomp:\t2");
    let o = podman(e, &["run", "--rm", "--network", "none", NAME, "sh", "-c", "exit 7"]);
    assert_eq!(o.code(), 7, "{o:?}");
    let o = podman(e, &["run", "--rm", "--network", "none", NAME, "missing"]);
    assert_eq!(o.code(), 127, "{o:?}");
}

fn rootless_keep_id(e: &Engine) {
    let printed =
        prints(e, &["--network", "none", "--userns", "keep-id"], "id -u; touch /tmp/x; stat -c %u /tmp/x");
    assert_eq!(printed, "4321\n4321");
}

fn rootless_network(e: &Engine) {
    assert_eq!(prints(e, &[], "ip -o -4 addr show dev tap0 | grep -c 10.0.2.100"), "1");
}

fn rootless_life(e: &Engine) {
    user(e);
    podman(
        e,
        &["run", "-d", "--name", "life", "--network", "none", NAME, "sh", "-c", "echo out; sleep 1000"],
    )
    .ok();
    until("its words", || podman(e, &["logs", "life"]).ok().stdout == "out\n");
    let o =
        podman(e, &["exec", "--user", "user", "life", "sh", "-c", "id -u; readlink /proc/self/ns/user"]).ok();
    let namespace = podman(e, &["exec", "life", "readlink", "/proc/1/ns/user"]).ok().stdout;
    assert_eq!(o.stdout, format!("1000\n{namespace}"));
    podman(e, &["stop", "--time", "0", "life"]).ok();
    let o = podman(e, &["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "life"]).ok();
    assert_eq!(o.stdout, "exited 137\n");
    podman(e, &["start", "life"]).ok();
    podman(e, &["kill", "life"]).ok();
    podman(e, &["rm", "--force", "--time", "0", "life"]).ok();
}

fn rootless_terminals(e: &Engine) {
    user(e);
    assert_eq!(prints(e, &["--network", "none", "-t"], "tty"), "/dev/pts/0");
    podman(e, &["run", "-d", "--name", "tty", "--network", "none", NAME, "sleep", "1000"]).ok();
    assert_eq!(podman(e, &["exec", "-t", "tty", "tty"]).ok().stdout.trim(), "/dev/pts/0");
    podman(e, &["rm", "--force", "--time", "0", "tty"]).ok();
}

fn rootless_volumes(e: &Engine) {
    user(e);
    let dir = e.dir.join("user/shared");
    sh(&format!("mkdir {0} && chown {UID}:{UID} {0}", dir.display()));
    let option = format!("{}:/v", dir.display());
    prints(
        e,
        &["--network", "none", "-v", &option, "-v", "named:/w", "--mount", "type=tmpfs,dst=/t,notmpcopyup"],
        "touch /v/root /w/x /t/x; chown user /v/root",
    );
    assert_eq!(sh(&format!("stat -c %u {}/root", dir.display())).stdout, "200999\n");
}

fn rootless_build(e: &Engine) {
    user(e);
    let file = e.dir.join("user/Containerfile");
    std::fs::write(&file, format!("FROM {NAME}\nRUN id -u >/id\nUSER user\nRUN id -u >/tmp/id\n"))
        .expect("write");
    let file = file.to_str().expect("UTF-8");
    let options =
        ["build", "--quiet", "--isolation", "oci", "--network", "none", "-t", "localhost/mine", "-f", file];
    podman(e, &options).ok();
    let o = podman(e, &["run", "--rm", "--network", "none", "localhost/mine", "cat", "/id", "/tmp/id"]);
    assert_eq!(o.ok().stdout, "0\n1000\n");
}

fn rootless_pod(e: &Engine) {
    user(e);
    podman(e, &["pod", "create", "--name", "crew", "--network", "none"]).ok();
    let script = "hostname; ls /sys/class/net";
    let o = podman(e, &["run", "--rm", "--pod", "crew", NAME, "sh", "-c", script]).ok();
    assert_eq!(o.stdout, "crew\nlo\n");
    podman(e, &["pod", "rm", "--force", "crew"]).ok();
    podman(e, &["pod", "create", "--name", "watch", "--network", "none", "--share", "pid"]).ok();
    let o = podman(e, &["run", "--rm", "--pod", "watch", NAME, "cat", "/proc/1/comm"]).ok();
    assert_eq!(o.stdout, "catatonit\n");
    podman(e, &["pod", "rm", "--force", "watch"]).ok();
}
