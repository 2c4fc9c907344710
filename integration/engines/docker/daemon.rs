//! A dockerd, with a containerd of its own, and what its client says.

use super::{MAIN, RUNTIME};
use crate::image::NAME;
use crate::support::{Outcome, finish_within, patience, until};
use crate::world::Engine;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

/// A daemon by the name of its socket, data and log.
#[derive(Clone, Copy, PartialEq)]
pub struct Docker(pub &'static str);

impl Docker {
    /// Starts the daemon, waits until it answers, loads the image.
    #[track_caller]
    pub fn start(self, e: &Engine, flags: &[&str]) -> u32 {
        let pid = self.launch(e, flags);
        self.run(&["load", "--input", e.archive.to_str().expect("UTF-8")]).ok();
        pid
    }

    /// Starts the daemon and waits until it answers.
    #[track_caller]
    pub fn launch(self, e: &Engine, flags: &[&str]) -> u32 {
        let name = self.0;
        // BuildKit's executor takes what PATH calls runc.
        let bin = e.dir.join("bin");
        if std::fs::create_dir(&bin).is_ok() {
            symlink(&e.program, bin.join("runc")).expect("symlink");
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut c = Command::new("dockerd");
        if self != MAIN {
            // A daemon without a bridge removes that of another.
            c = Command::new("unshare");
            c.args(["--net", "dockerd", "--bridge=none", "--iptables=false"]);
        }
        c.env("PATH", format!("{}:{path}", bin.display()));
        c.args(["--host", &self.host(), "--exec-root", &format!("/run/{name}")]);
        c.args(["--pidfile", &format!("/run/{name}.pid"), "--data-root"])
            .arg(e.dir.join(format!("{name}-data")));
        c.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &e.cgroup]);
        c.args(["--storage-driver", "overlay2"]);
        c.arg("--add-runtime").arg(format!("{RUNTIME}={}", e.program.display())).args(flags);
        let pid = e.daemon(name, &mut c);
        until("dockerd's answer", || {
            assert!(e.is_alive(pid), "dockerd ended:\n{}", e.log(name));
            self.run(&["version"]).status.success()
        });
        pid
    }

    fn host(self) -> String {
        format!("unix:///run/{}.sock", self.0)
    }

    /// A command of Debian's client, which is as old as the daemon.
    pub fn command(self, args: &[&str]) -> Command {
        let mut c = Command::new("/usr/bin/docker");
        c.args(["--host", &self.host()]).args(args).stdin(Stdio::null());
        c
    }

    /// A client's command to its end.
    #[track_caller]
    pub fn run(self, args: &[&str]) -> Outcome {
        finish_within(&mut self.command(args), patience())
    }

    /// `docker run --detach OPTIONS box sh -c SCRIPT`.
    #[track_caller]
    pub fn container(self, options: &[&str], script: &str) -> Container {
        let args = [&["run", "--detach"], options, &[NAME, "sh", "-c", script]].concat();
        let o = self.run(&args);
        // One that was made and cannot start has an id too.
        let c = Container { docker: self, id: o.stdout.trim().to_string() };
        o.ok();
        c
    }
}

/// One that goes at the end, whatever becomes of the check.
pub struct Container {
    docker: Docker,
    pub id: String,
}

impl Container {
    /// `docker WORDS ID`.
    #[track_caller]
    pub fn verb(&self, words: &[&str]) -> Outcome {
        self.docker.run(&[words, &[&self.id]].concat())
    }

    /// What a script prints there.
    #[track_caller]
    pub fn exec(&self, script: &str) -> String {
        self.exec_with(&[], script).ok().stdout.trim_end().to_string()
    }

    #[track_caller]
    pub fn exec_with(&self, options: &[&str], script: &str) -> Outcome {
        self.docker.run(&[&["exec"], options, &[&self.id, "sh", "-c", script]].concat())
    }

    /// A value by its Go template, such as `.State.Running`.
    #[track_caller]
    pub fn inspect(&self, value: &str) -> String {
        self.verb(&["inspect", "--format", &format!("{{{{{value}}}}}")]).ok().stdout.trim_end().to_string()
    }

    /// Its init, as the world sees it.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        self.inspect(".State.Pid").parse().expect("a pid")
    }

    /// What it wrote to its standard output.
    #[track_caller]
    pub fn logs(&self) -> String {
        self.verb(&["logs"]).ok().stdout
    }

    #[track_caller]
    pub fn await_log(&self, words: &str) {
        until(words, || self.logs().contains(words));
    }

    /// Its exit code, once it has ended.
    #[track_caller]
    pub fn wait(&self) -> i32 {
        self.verb(&["wait"]).ok().stdout.trim().parse().expect("a number")
    }

    /// A file of its cgroup.
    #[track_caller]
    pub fn cgroup(&self, e: &Engine, controller: &str, file: &str) -> String {
        e.cgroup_file(controller, &self.id, file)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.docker.command(&["rm", "--force", "--volumes", &self.id]).output();
    }
}
