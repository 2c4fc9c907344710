//! podman, with conmon and netavark, configured as a user would: by files in /etc/containers.

mod build;
mod images;
mod life;
mod limits;
mod mounts;
mod namespaces;
mod network;
mod pods;
mod process;
mod rootless;

use crate::Suite;
use crate::image::NAME;
use crate::support::{Outcome, finish_within, patience, unique};
use crate::world::{Engine, sh};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

pub const SUITE: Suite = Suite {
    engine: "podman",
    programs: &["podman", "conmon"],
    start,
    checks: &[
        life::CHECKS,
        process::CHECKS,
        mounts::CHECKS,
        namespaces::CHECKS,
        limits::CHECKS,
        network::CHECKS,
        pods::CHECKS,
        build::CHECKS,
        images::CHECKS,
        rootless::CHECKS,
    ],
    threads: 3,
};

/// podman goes by the name that a runtime has here, not by its path: what the README tells users to write.
const CONTAINERS_CONF: &str = r#"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "RUNTIME"
runtime_supports_json = ["orlop", "runc"]
runtime_supports_nocgroup = ["orlop"]

[engine.runtimes]
RUNTIME = ["PROGRAM"]

[network]
network_backend = "netavark"

[containers]
default_ulimits = ["nofile=2048:2048", "nproc=4096:4096"]
log_driver = "k8s-file"
"#;

fn start(e: &Engine) {
    configure(e);
    podman(e, &["load", "--quiet", "--input", e.archive.to_str().expect("UTF-8")]).ok();
}

/// An /etc, a /dev/shm (which holds podman's locks) and a /dev/net of this world alone, and podman's settings.
pub fn configure(e: &Engine) {
    sh("mkdir -p /run/etc/upper /run/etc/work
        mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
        mount -t tmpfs -o mode=1777 tmpfs /dev/shm
        mount -t tmpfs -o mode=755 tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200
        mkdir -p /etc/containers");
    let write =
        |file: &str, text: &str| fs::write(Path::new("/etc/containers").join(file), text).expect("write");
    let program = e.program.to_str().expect("UTF-8");
    write("containers.conf", &CONTAINERS_CONF.replace("RUNTIME", e.runtime).replace("PROGRAM", program));
    let storage = e.dir.join("storage");
    write(
        "storage.conf",
        &format!(
            "[storage]\ndriver = \"overlay\"\nrunroot = \"/run/storage\"\ngraphroot = \"{}\"\n",
            storage.display()
        ),
    );
    write("policy.json", r#"{"default": [{"type": "insecureAcceptAnything"}]}"#);
    write("registries.conf", "");
}

/// A command of podman; what makes a cgroup makes it below the world's.
fn command(e: &Engine, args: &[&str]) -> Command {
    let mut c = Command::new("podman");
    let verbs = if args[0] == "pod" { 2 } else { 1 };
    c.args(&args[..verbs]);
    let makes = matches!(&args[..verbs], ["run" | "create" | "build"] | ["pod", "create"]);
    let is_placed = args.iter().any(|a| a.starts_with("--pod") || a.starts_with("--cgroup"));
    if makes && !is_placed {
        c.arg("--cgroup-parent").arg(if args[0] == "build" { build_cgroup(e) } else { e.cgroup.clone() });
    }
    c.args(&args[verbs..]).current_dir(&e.dir).stdin(Stdio::null());
    c
}

/// What `build` calls the parent is the cgroup itself, so that no two may have the same.
pub fn build_cgroup(e: &Engine) -> String {
    format!("{}/build-{}", e.cgroup, unique())
}

/// To its end.
#[track_caller]
fn podman(e: &Engine, args: &[&str]) -> Outcome {
    finish_within(&mut command(e, args), patience())
}

/// The standard output of what must succeed.
#[track_caller]
fn says(e: &Engine, args: &[&str]) -> String {
    podman(e, args).ok().stdout.trim_end().to_string()
}

/// `podman run --rm OPTIONS box sh -c SCRIPT`
#[track_caller]
fn run(e: &Engine, options: &[&str], script: &str) -> Outcome {
    podman(e, &[&["run", "--rm"], options, &[NAME, "sh", "-c", script]].concat())
}

/// What it prints.
#[track_caller]
fn prints(e: &Engine, options: &[&str], script: &str) -> String {
    run(e, options, script).ok().stdout.trim_end().to_string()
}

/// One field of `podman inspect`.
#[track_caller]
fn inspect(e: &Engine, container: &str, field: &str) -> String {
    says(e, &["inspect", "--format", &format!("{{{{{field}}}}}"), container])
}

/// A container in the background, removed at the end of its check.
struct Container<'a> {
    engine: &'a Engine,
    name: &'a str,
}

impl<'a> Container<'a> {
    /// One that sleeps; its name is the check's.
    #[track_caller]
    fn sleeping(engine: &'a Engine, name: &'a str, options: &[&str]) -> Self {
        // A shell as the first process would ignore signals; so does sleep, but for KILL.
        Self::running(engine, name, options, "sleep 1000")
    }

    #[track_caller]
    fn running(engine: &'a Engine, name: &'a str, options: &[&str], script: &str) -> Self {
        let it = Self { engine, name };
        podman(engine, &[&["run", "-d", "--name", name], options, &[NAME, "sh", "-c", script]].concat()).ok();
        it
    }

    #[track_caller]
    fn exec(&self, options: &[&str], script: &str) -> Outcome {
        podman(self.engine, &[&["exec"], options, &[self.name, "sh", "-c", script]].concat())
    }

    /// What a script in it prints.
    #[track_caller]
    fn prints(&self, script: &str) -> String {
        self.exec(&[], script).ok().stdout.trim_end().to_string()
    }

    /// `podman VERB OPTIONS NAME`
    #[track_caller]
    fn verb(&self, verb: &str, options: &[&str]) -> Outcome {
        podman(self.engine, &[&[verb], options, &[self.name]].concat())
    }

    #[track_caller]
    fn inspect(&self, field: &str) -> String {
        inspect(self.engine, self.name, field)
    }

    #[track_caller]
    fn status(&self) -> String {
        self.inspect(".State.Status")
    }

    /// Its first process, as seen here.
    #[track_caller]
    fn pid(&self) -> String {
        self.inspect(".State.Pid")
    }

    /// A file of its cgroup.
    #[track_caller]
    fn cgroup_file(&self, controller: &str, file: &str) -> String {
        self.engine.cgroup_file(controller, &format!("libpod-{}", self.inspect(".Id")), file)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let mut c = command(self.engine, &["rm", "--force", "--time", "0", "--volumes", self.name]);
        let _ = c.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
