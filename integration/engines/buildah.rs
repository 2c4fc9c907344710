//! buildah with `--isolation oci`: it calls the runtime itself, and asks `state` until the container has stopped.

mod images;

use crate::image::NAME;
use crate::support::{Outcome, Scratch, finish_within, patience};
use crate::world::{Engine, sh};
use crate::{Suite, check, podman};
use std::fs;
use std::process::{Command, Stdio};

pub const SUITE: Suite = Suite {
    engine: "buildah",
    programs: &["buildah", "podman"],
    start,
    checks: &[
        &[
            check!(run_prints),
            check!(exit_codes),
            check!(run_options),
            check!(run_mounts),
            check!(run_with_a_terminal),
            check!(run_reads_its_input),
            check!(run_networks),
            check!(run_capabilities_and_seccomp),
            check!(run_in_a_user_namespace)
                .cannot("buildah makes its mounts below a directory closed to mapped users"),
            check!(copy_and_commit),
            check!(bud_runs_steps),
            check!(bud_layers_are_cached),
            check!(bud_options),
            check!(bud_that_fails),
        ],
        images::CHECKS,
        &[check!(nothing_is_left).alone()],
    ],
    threads: 3,
};

fn start(e: &Engine) {
    podman::configure(e);
    let archive = format!("docker-archive:{}", e.archive.display());
    buildah(e, &["pull", "--quiet", &archive]).ok();
}

fn command(e: &Engine, args: &[&str]) -> Command {
    let mut c = Command::new("buildah");
    c.arg(args[0]);
    match args[0] {
        "run" => {
            c.args(["--isolation", "oci", "--runtime"]).arg(&e.program);
        }
        "bud" => {
            c.args(["--isolation", "oci", "--runtime"])
                .arg(&e.program)
                .args(["--cgroup-parent", &podman::build_cgroup(e)]);
        }
        _ => {}
    }
    c.args(&args[1..]).current_dir(&e.dir).stdin(Stdio::null());
    c
}

#[track_caller]
fn buildah(e: &Engine, args: &[&str]) -> Outcome {
    finish_within(&mut command(e, args), patience())
}

/// A working container, removed at the end of its check.
struct Working<'a> {
    engine: &'a Engine,
    name: String,
}

impl<'a> Working<'a> {
    #[track_caller]
    fn new(engine: &'a Engine, options: &[&str]) -> Self {
        let o = buildah(engine, &[&["from"], options, &[NAME]].concat()).ok();
        Self { engine, name: o.stdout.trim().into() }
    }

    #[track_caller]
    fn run(&self, options: &[&str], args: &[&str]) -> Outcome {
        buildah(self.engine, &[&["run"], options, &[&self.name, "--"], args].concat())
    }

    #[track_caller]
    fn prints(&self, options: &[&str], script: &str) -> String {
        self.run(options, &["sh", "-c", script]).ok().stdout.trim_end().to_string()
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let mut c = command(self.engine, &["rm", &self.name]);
        let _ = c.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

fn run_prints(e: &Engine) {
    let c = Working::new(e, &[]);
    assert_eq!(c.prints(&[], "echo $((6 * 7)); id -u; echo $$"), "42\n0\n1");
    assert_eq!(c.prints(&[], "echo kept >/kept"), "");
    assert_eq!(c.prints(&[], "cat /kept"), "kept");
}

fn exit_codes(e: &Engine) {
    let c = Working::new(e, &[]);
    for (code, args, words) in [
        (0, &["true"][..], ""),
        (9, &["sh", "-c", "exit 9"], "exit status 9"),
        (1, &["missing"], "executable file not found in $PATH"),
        (1, &["/missing"], "no such file or directory"),
        (1, &["/etc/passwd"], "permission denied"),
    ] {
        let o = c.run(&[], args);
        assert!(o.code() == code && o.stderr.contains(words), "{args:?}: {o:?}");
    }
}

fn run_options(e: &Engine) {
    let c = Working::new(e, &[]);
    let options = ["--user", "user", "--workingdir", "/tmp", "--env", "A=b", "--hostname", "deck"];
    assert_eq!(c.prints(&options, "id -u; id -g; pwd; echo $A; hostname"), "1000\n1000\n/tmp\nb\ndeck");
    assert_eq!(c.prints(&["--user", "1234:5"], "id -u; id -g"), "1234\n5");
}

fn run_mounts(e: &Engine) {
    let c = Working::new(e, &[]);
    let dir = Scratch::new("volume");
    fs::write(dir.path.join("file"), "from outside").expect("write");
    let volume = format!("{}:/v", dir.path.display());
    assert_eq!(c.prints(&["-v", &volume], "cat /v/file; touch /v/made"), "from outside");
    assert!(dir.path.join("made").exists());
    let o = c.run(&["-v", &format!("{volume}:ro")], &["touch", "/v/x"]);
    assert!(o.stderr.contains("Read-only file system"), "{o:?}");
    let mount = ["--mount", "type=tmpfs,dst=/t,tmpfs-size=1m"];
    assert_eq!(c.prints(&mount, "df -P /t | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2"), "1024");
    let mount = format!("type=bind,src={},dst=/m,ro", dir.path.display());
    assert_eq!(c.prints(&["--mount", &mount], "cat /m/file"), "from outside");
}

fn run_with_a_terminal(e: &Engine) {
    let c = Working::new(e, &[]);
    assert_eq!(c.run(&["-t"], &["tty"]).ok().stdout.trim(), "/dev/pts/0");
    assert_eq!(c.prints(&[], "tty || true"), "not a tty");
}

fn run_reads_its_input(e: &Engine) {
    let c = Working::new(e, &[]);
    let input = e.dir.join("input");
    fs::write(&input, "one\ntwo\n").expect("write");
    let mut tac = command(e, &["run", &c.name, "--", "tac"]);
    let o = finish_within(tac.stdin(fs::File::open(&input).expect("open")), patience());
    assert_eq!(o.ok().stdout, "two\none\n");
}

fn run_networks(e: &Engine) {
    let c = Working::new(e, &[]);
    let link = "readlink /proc/self/ns/net";
    assert_eq!(c.prints(&["--network", "none"], "ls /sys/class/net"), "lo");
    let ours = fs::read_link("/proc/self/ns/net").expect("ours").display().to_string();
    assert_eq!(c.prints(&["--network", "host"], link), ours);
    assert_ne!(c.prints(&[], link), ours);
}

fn run_capabilities_and_seccomp(e: &Engine) {
    let c = Working::new(e, &[]);
    let script = "grep CapBnd /proc/self/status | cut -f 2";
    let before = u64::from_str_radix(&c.prints(&[], script), 16).expect("hex");
    let options = ["--cap-add", "CAP_NET_ADMIN", "--cap-drop", "CAP_CHOWN"];
    let after = u64::from_str_radix(&c.prints(&options, script), 16).expect("hex");
    assert_eq!(after, before & !1 | 1 << 12);
    assert_eq!(c.prints(&[], "grep Seccomp: /proc/self/status | cut -f 2"), "2");
    let c = Working::new(e, &["--security-opt", "seccomp=unconfined"]);
    assert_eq!(c.prints(&[], "grep Seccomp: /proc/self/status | cut -f 2"), "0");
}

fn run_in_a_user_namespace(e: &Engine) {
    let map = ["--userns-uid-map", "0:100000:5000", "--userns-gid-map", "0:100000:5000"];
    let c = Working::new(e, &map);
    let printed = c.prints(&[], "id -u; tr -s ' ' </proc/self/uid_map; touch /x && stat -c %u /x");
    assert_eq!(printed, "0\n 0 100000 5000\n0");
}

fn copy_and_commit(e: &Engine) {
    let c = Working::new(e, &[]);
    let file = e.dir.join("copied");
    fs::write(&file, "copied\n").expect("write");
    buildah(e, &["copy", &c.name, file.to_str().expect("UTF-8"), "/copied"]).ok();
    buildah(e, &["config", "--cmd", "cat /copied", &c.name]).ok();
    c.prints(&[], "echo more >>/copied");
    buildah(e, &["commit", "--quiet", &c.name, "localhost/committed"]).ok();
    let again = buildah(e, &["from", "localhost/committed"]).ok().stdout;
    let o = buildah(e, &["run", again.trim(), "--", "cat", "/copied"]).ok();
    assert_eq!(o.stdout, "copied\nmore\n");
    buildah(e, &["rm", again.trim()]).ok();
}

fn context(text: &str) -> Scratch {
    let dir = Scratch::new("context");
    fs::write(dir.path.join("Containerfile"), text).expect("write");
    fs::write(dir.path.join("copied"), "from the context\n").expect("write");
    dir
}

#[track_caller]
fn bud(e: &Engine, dir: &Scratch, options: &[&str]) -> Outcome {
    buildah(e, &[&["bud"], options, &[dir.path.to_str().expect("UTF-8")]].concat())
}

fn bud_runs_steps(e: &Engine) {
    let dir = context(
        "FROM localhost/box:latest AS first
        RUN echo one >/one && id -u >>/one
        FROM localhost/box:latest
        COPY --from=first /one /one
        RUN --mount=type=tmpfs,target=/t touch /t/x && cat /one
        RUN --mount=type=cache,target=/c touch /c/x && ls /c
        USER user
        RUN id -u; cat /proc/self/cgroup",
    );
    let o = bud(e, &dir, &["--no-cache"]).ok();
    assert!(
        o.stdout.contains("\none\n0\n") && o.stdout.contains("\nx\n") && o.stdout.contains("\n1000\n"),
        "{o:?}"
    );
    assert!(o.stdout.contains(&format!(":pids:{}/build-", e.cgroup)), "{o:?}");
}

fn bud_layers_are_cached(e: &Engine) {
    let dir = context("FROM localhost/box:latest\nRUN echo spoken\n");
    assert!(bud(e, &dir, &["--layers"]).ok().stdout.contains("\nspoken\n"));
    let again = bud(e, &dir, &["--layers"]).ok().stdout;
    assert!(again.contains("Using cache") && !again.contains("\nspoken\n"), "{again}");
}

fn bud_options(e: &Engine) {
    let dir = context(
        "FROM localhost/box:latest\nRUN grep other /etc/hosts; ulimit -n; cat /v/copied; cat /sys/fs/cgroup/memory/memory.limit_in_bytes\n",
    );
    let volume = format!("{}:/v:ro", dir.path.display());
    let options = [
        "--no-cache",
        "--add-host",
        "other:192.0.2.1",
        "--ulimit",
        "nofile=100:200",
        "-v",
        &volume,
        "--memory",
        "64m",
    ];
    let o = bud(e, &dir, &options).ok();
    for line in ["192.0.2.1\tother", "100", "from the context", "67108864"] {
        assert!(o.stdout.lines().any(|l| l == line), "{line}: {}", o.stdout);
    }
}

fn bud_that_fails(e: &Engine) {
    let o = bud(e, &context("FROM localhost/box:latest\nRUN exit 5\n"), &["--no-cache"]);
    assert!(o.code() == 5 && o.stderr.contains("exit status 5"), "{o:?}");
    let o = bud(e, &context("FROM localhost/box:latest\nRUN [\"/missing\"]\n"), &["--no-cache"]);
    assert!(!o.status.success() && o.stderr.contains("no such file or directory"), "{o:?}");
}

fn nothing_is_left(e: &Engine) {
    let o = sh("ls -d /run/runc/buildah-* /run/orlop/buildah-* 2>/dev/null || true");
    assert_eq!(o.stdout, "");
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains("/buildah"), "{mounts}");
    let o = finish_within(Command::new(&e.program).arg("list").stdin(Stdio::null()), patience()).ok();
    assert_eq!(o.stdout.lines().count(), 1, "{o:?}");
}
