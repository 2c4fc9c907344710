//! A dockerd, with a containerd of its own.

use super::RUNTIME;
use crate::support::{Outcome, finish_within, patience};
use crate::world::{Engine, await_command};
use std::process::{Command, Stdio};

pub struct Daemon<'a> {
    engine: &'a Engine,
    name: &'static str,
}

impl<'a> Daemon<'a> {
    pub fn new(engine: &'a Engine, name: &'static str) -> Self {
        Self { engine, name }
    }

    fn socket(&self) -> String {
        format!("unix:///run/{}.sock", self.name)
    }

    /// Starts it, waits until it answers, loads the image.
    #[track_caller]
    pub fn start(&self, flags: &[&str]) {
        self.launch(flags);
        self.run(&["load", "--input", self.engine.archive.to_str().expect("UTF-8")]).ok();
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn launch(&self, flags: &[&str]) -> u32 {
        let (e, name) = (self.engine, self.name);
        let mut c = Command::new("dockerd");
        c.args(["--host", &self.socket(), "--exec-root", &format!("/run/{name}")]);
        c.args(["--pidfile", &format!("/run/{name}.pid"), "--data-root"])
            .arg(e.dir.join(format!("{name}-data")));
        c.args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", &e.cgroup]);
        c.args(["--storage-driver", "overlay2", "--experimental"]);
        c.arg("--add-runtime").arg(format!("{RUNTIME}={}", e.program.display())).args(flags);
        let pid = e.daemon(name, &mut c);
        let answered = std::panic::catch_unwind(|| {
            await_command("dockerd's answer", "/usr/bin/docker", &["--host", &self.socket(), "version"])
        });
        assert!(answered.is_ok(), "dockerd does not answer:\n{}", e.log(name));
        pid
    }

    /// A client's command to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        let mut c = Command::new("/usr/bin/docker");
        finish_within(c.args(["--host", &self.socket()]).args(args).stdin(Stdio::null()), patience())
    }
}
