//! containerd through its own client: every option that reaches the runtime.

mod crash;
mod images;
mod run;
mod task;
mod terminal;

use crate::Suite;
use crate::image::NAME;
use crate::support::{Outcome, finish, unique, until};
use crate::world::{Engine, sh};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const SUITE: Suite = Suite {
    engine: "containerd",
    programs: &["containerd", "ctr"],
    start: |e| {
        // As on most hosts.
        sh("mount --make-rshared /");
        Daemon::new(e, "ctr").launch("");
        Ctr(e).call(["image", "import", e.archive.to_str().expect("UTF-8")]).ok();
    },
    checks: &[run::CHECKS, task::CHECKS, terminal::CHECKS, images::CHECKS, crash::CHECKS],
    threads: 4,
};

/// A containerd with directories and a socket of its own.
pub struct Daemon<'a> {
    engine: &'a Engine,
    name: &'static str,
}

impl<'a> Daemon<'a> {
    pub fn new(engine: &'a Engine, name: &'static str) -> Self {
        Self { engine, name }
    }

    /// Starts it, with this more in its configuration, and waits until it answers.
    #[track_caller]
    pub fn launch(&self, more: &str) {
        let (e, name, run) = (self.engine, self.name, Path::new("/run").join(self.name));
        let config = e.dir.join(format!("{name}.toml"));
        let head = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n",
            e.dir.join(name),
            run.join("state"),
            socket(name)
        );
        fs::create_dir_all(&run).expect("mkdir");
        fs::write(&config, head + more).expect("write");
        let mut path = std::ffi::OsString::from(self.names());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let pid = e.daemon(name, Command::new("containerd").arg("--config").arg(&config).env("PATH", path));
        let mut version = Command::new("ctr");
        version.arg("--address").arg(socket(name)).args(["--connect-timeout", "2s", "version"]);
        let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("an answer", || finish(version.stdin(Stdio::null())).status.success());
        }));
        assert!(answered.is_ok(), "containerd does not answer:\n{}", e.log(name));
        fs::write(self.pid_file(), pid.to_string()).expect("write");
    }

    /// As the kernel would for want of memory; its shims live on.
    pub fn kill(&self) {
        let pid = fs::read_to_string(self.pid_file()).expect("it was started");
        self.engine.kill_daemon(pid.parse().expect("a pid"));
    }

    /// A directory where `runc`, which shims look for unless told otherwise, is the runtime under test.
    fn names(&self) -> PathBuf {
        let dir = Path::new("/run").join(self.name).join("bin");
        if !dir.exists() {
            fs::create_dir(&dir).expect("mkdir");
            symlink(&self.engine.program, dir.join("runc")).expect("symlink");
        }
        dir
    }

    fn pid_file(&self) -> PathBuf {
        Path::new("/run").join(self.name).join("pid")
    }
}

pub fn socket(name: &str) -> PathBuf {
    Path::new("/run").join(name).join("containerd.sock")
}

/// Where the shims tell the runtime to keep its state; they add the namespace.
const STATE: &str = "/run/ctr/runtime";

/// The client of the daemon "ctr". Its containers are in a namespace that is named as our cgroup, since a container's
/// cgroup is `/NAMESPACE/ID`.
#[derive(Clone, Copy)]
struct Ctr<'a>(&'a Engine);

impl<'a> Ctr<'a> {
    fn command<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Command {
        let mut c = Command::new("ctr");
        c.arg("--address").arg(socket("ctr")).args(["--namespace", &self.0.cgroup[1..]]).args(args);
        c.stdin(Stdio::null());
        c
    }

    #[track_caller]
    fn call<S: AsRef<OsStr>>(self, args: impl IntoIterator<Item = S>) -> Outcome {
        finish(&mut self.command(args))
    }

    /// `ctr run ARGS` with the runtime under test.
    fn run_of(self, args: &[&str]) -> Command {
        let mut c = self.command(["run", "--runc-root", STATE, "--runc-binary"]);
        c.arg(&self.0.program).args(args);
        c
    }

    /// `ctr run OPTIONS box ID ARGS`.
    fn run_command(self, id: &str, options: &[&str], args: &[&str]) -> Command {
        self.run_of(&[options, &[NAME, id], args].concat())
    }

    /// `ctr run --rm OPTIONS box ID ARGS`.
    #[track_caller]
    fn run(self, options: &[&str], args: &[&str]) -> Outcome {
        finish(&mut self.run_command(&new_id(), &[&["--rm"], options].concat(), args))
    }

    /// What a script prints in a container with these options.
    #[track_caller]
    fn prints(self, options: &[&str], script: &str) -> String {
        self.run(options, &["sh", "-c", script]).ok().stdout.trim_end().to_string()
    }

    /// A container that does this in the background.
    #[track_caller]
    fn detached(self, options: &[&str], args: &[&str]) -> Container<'a> {
        let id = new_id();
        finish(&mut self.run_command(&id, &[&["--detach"], options].concat(), args)).ok();
        Container { ctr: self, id }
    }

    #[track_caller]
    fn sleeping(self, options: &[&str]) -> Container<'a> {
        self.detached(options, &["sleep", "1000"])
    }
}

fn new_id() -> String {
    format!("c-{}", unique())
}

/// A container with a task.
struct Container<'a> {
    ctr: Ctr<'a>,
    id: String,
}

impl Container<'_> {
    /// `ctr task VERB OPTIONS ID ARGS`.
    #[track_caller]
    fn task(&self, verb: &str, options: &[&str], args: &[&str]) -> Outcome {
        self.ctr.call([&["task", verb], options, &[self.id.as_str()], args].concat())
    }

    #[track_caller]
    fn exec(&self, options: &[&str], args: &[&str]) -> Outcome {
        self.task("exec", &[&["--exec-id", new_id().as_str()], options].concat(), args)
    }

    /// As [`Self::exec`], of a script whose output is read: ctr deletes a process that has ended together with what it
    /// has not read of it yet (containerd's pull request 13931).
    #[track_caller]
    fn script(&self, script: &str) -> Outcome {
        self.exec(&[], &["sh", "-c", &format!("trap 'sleep .2' EXIT; {script}")])
    }

    #[track_caller]
    fn prints(&self, script: &str) -> String {
        self.script(script).ok().stdout.trim_end().to_string()
    }

    /// Host pid and status as the engine lists them; none without a task.
    #[track_caller]
    fn listed(&self) -> Option<(u32, String)> {
        let list = self.ctr.call(["task", "list"]).ok();
        let line = list.stdout.lines().find(|l| l.split_whitespace().next() == Some(self.id.as_str()))?;
        let mut words = line.split_whitespace().skip(1);
        let pid = words.next()?.parse().expect("a pid");
        Some((pid, words.next()?.to_string()))
    }

    #[track_caller]
    fn pid(&self) -> u32 {
        self.listed().expect("a task").0
    }

    #[track_caller]
    fn await_status(&self, status: &str) {
        until(&format!("{} is {status}", self.id), || self.listed().is_some_and(|t| t.1 == status));
    }

    #[track_caller]
    fn cgroup_file(&self, controller: &str, file: &str) -> String {
        self.ctr.0.cgroup_file(controller, &self.id, file)
    }

    /// Kills and removes what there is.
    #[track_caller]
    fn remove(&self) {
        // Its code is that of the task, which was killed.
        self.task("delete", &["--force"], &[]);
        self.remove_container();
    }

    /// What is left when the task is gone.
    #[track_caller]
    fn remove_container(&self) {
        self.ctr.call(["container", "delete", &self.id]).ok();
    }

    /// Nothing of it is left: no process, no mount, no cgroup, no state.
    #[track_caller]
    fn is_gone(&self) {
        until(&format!("{} is gone", self.id), || remains(self.ctr.0, &self.id).is_empty());
    }
}

/// What the host still has of a container.
fn remains(e: &Engine, id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    found.extend(mounts.lines().filter(|l| l.contains(id)).map(str::to_string));
    for dir in ["cpu", "devices", "freezer", "memory", "pids", "systemd", "unified"] {
        let dir = Path::new("/sys/fs/cgroup").join(dir).join(&e.cgroup[1..]).join(id);
        found.extend(dir.exists().then(|| dir.display().to_string()));
    }
    let state = Path::new(STATE).join(&e.cgroup[1..]).join(id);
    found.extend(state.exists().then(|| state.display().to_string()));
    for process in fs::read_dir("/proc").expect("proc").flatten() {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        found.extend((line.contains("shim") && line.contains(id)).then_some(line));
    }
    found
}
