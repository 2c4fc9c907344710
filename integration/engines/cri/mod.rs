//! Kubernetes' side of containerd: the Container Runtime Interface, as kubelet calls it.

mod container;
mod grpc;
mod limits;
mod pod;
mod proto;
mod security;

use crate::containerd::{Daemon, socket};
use crate::image::{self, NAME};
use crate::support::{unique, until};
use crate::world::{Engine, sh};
use crate::{Suite, support};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const SUITE: Suite = Suite {
    engine: "cri",
    programs: &["containerd", "ctr", "curl", "/usr/lib/cni/bridge"],
    start,
    checks: &[pod::CHECKS, container::CHECKS, limits::CHECKS, security::CHECKS],
    threads: 4,
};

const PAUSE: &str = "localhost/pause:latest";
/// Where each handler's runtime keeps its state, below the namespace.
const STATE: &str = "/run/cri-state";
/// A RuntimeClass beside the default one.
const CLASS: &str = "other-class";

fn start(e: &Engine) {
    // As on most hosts, and what the network plugins write is ours alone.
    sh("mount --make-rshared /");
    let (upper, work) = (e.dir.join("var-lib"), e.dir.join("var-lib-work"));
    sh(&format!(
        "mkdir {0} {1} && mount -t overlay -o lowerdir=/var/lib,upperdir={0},workdir={1} var /var/lib",
        upper.display(),
        work.display()
    ));
    let network = json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [{
        "type": "bridge", "bridge": "pods0", "isGateway": true,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.98.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }]});
    let networks = e.dir.join("net.d");
    fs::create_dir(&networks).expect("mkdir");
    fs::write(networks.join("10-pods.conflist"), network.to_string()).expect("write");
    launch(e);
    let pause = e.dir.join("pause.tar");
    // It must reap, as the first process of a pod that shares its pid namespace.
    fs::write(&pause, image::archive_of(PAUSE, &["sh", "-c", "trap exit TERM; sleep inf & wait"]))
        .expect("write");
    for archive in [&e.archive, &pause] {
        let mut c = Command::new("ctr");
        c.arg("--address").arg(socket("cri")).args(["--namespace", "k8s.io", "image", "import"]).arg(archive);
        support::finish(c.stdin(Stdio::null())).ok();
    }
}

fn launch(e: &Engine) {
    let handler = |name: &str| {
        format!(
            "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.{name}]
             runtime_type = 'io.containerd.runc.v2'
             [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.{name}.options]
             BinaryName = {:?}
             Root = '{STATE}/{name}'\n",
            e.program
        )
    };
    let config = format!(
        "[plugins.'io.containerd.grpc.v1.cri']
         sandbox_image = '{PAUSE}'
         restrict_oom_score_adj = true
         disable_apparmor = true
         [plugins.'io.containerd.grpc.v1.cri'.cni]
         bin_dir = '/usr/lib/cni'
         conf_dir = {:?}
         [plugins.'io.containerd.grpc.v1.cri'.containerd]
         default_runtime_name = 'tested'\n{}{}",
        e.dir.join("net.d"),
        handler("tested"),
        handler(CLASS),
    );
    Daemon::new(e, "cri").launch(&config);
}

/// A call that may fail.
fn attempt(method: &str, request: Value) -> Result<Value, String> {
    grpc::Client { socket: socket("cri") }.call(method, request)
}

#[track_caller]
fn call(method: &str, request: Value) -> Value {
    attempt(method, request.clone()).unwrap_or_else(|words| panic!("{method} {request}: {words}"))
}

/// Fails unless the call fails with these words.
#[track_caller]
fn refused(method: &str, request: Value, words: &str) {
    let said = attempt(method, request).expect_err("it succeeded");
    assert!(said.contains(words), "{words:?} is not in {said}");
}

/// Objects are merged, everything else replaces.
fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}

fn id_of(answer: &Value, key: &str) -> String {
    answer[key].as_str().filter(|id| !id.is_empty()).expect("an id").to_string()
}

/// A pod that is removed at the end, with its containers.
struct Pod<'a> {
    engine: &'a Engine,
    id: String,
    config: Value,
    /// The name of its handler's state directory.
    handler: &'static str,
}

impl<'a> Pod<'a> {
    /// On the host's network, each container with processes of its own.
    #[track_caller]
    fn new(e: &'a Engine) -> Self {
        Self::with(e, json!({}))
    }

    /// With these changes to its configuration.
    #[track_caller]
    fn with(e: &'a Engine, patch: Value) -> Self {
        Self::of(e, patch, "")
    }

    #[track_caller]
    fn of(e: &'a Engine, patch: Value, handler: &'static str) -> Self {
        let name = format!("pod-{}", unique());
        let logs = e.dir.join("logs").join(&name);
        fs::create_dir_all(&logs).expect("mkdir");
        let mut config = json!({
            "metadata": {"name": name, "uid": name, "namespace": "checks"},
            "log_directory": logs,
            "linux": {
                "cgroup_parent": e.cgroup,
                "security_context": {"namespace_options": {"network": "NODE", "pid": "CONTAINER"}},
            },
        });
        merge(&mut config, &patch);
        let answer = call("RunPodSandbox", json!({"config": config, "runtime_handler": handler}));
        let handler = if handler.is_empty() { "tested" } else { handler };
        Self { engine: e, id: id_of(&answer, "pod_sandbox_id"), config, handler }
    }

    fn status(&self) -> Value {
        call("PodSandboxStatus", json!({"pod_sandbox_id": self.id, "verbose": true}))
    }

    /// A container that does this, created.
    #[track_caller]
    fn create(&self, command: &[&str], patch: Value) -> Container<'_> {
        let name = format!("c-{}", unique());
        let mut config = json!({
            "metadata": {"name": name}, "image": {"image": NAME}, "command": command, "log_path": format!("{name}.log"),
            "linux": {"security_context": {"namespace_options": self.config["linux"]["security_context"]["namespace_options"]}},
        });
        merge(&mut config, &patch);
        let log =
            Path::new(self.config["log_directory"].as_str().expect("a path")).join(format!("{name}.log"));
        let request = json!({"pod_sandbox_id": self.id, "config": config, "sandbox_config": self.config});
        let id = id_of(&call("CreateContainer", request), "container_id");
        Container { pod: self, id, log }
    }

    /// A container that does this, started.
    #[track_caller]
    fn start(&self, command: &[&str], patch: Value) -> Container<'_> {
        let c = self.create(command, patch);
        c.start();
        c
    }

    #[track_caller]
    fn sleeping(&self, patch: Value) -> Container<'_> {
        self.start(&["sleep", "1000"], patch)
    }

    /// What a script prints in a container that is changed so.
    #[track_caller]
    fn prints(&self, patch: Value, script: &str) -> String {
        let c = self.start(&["sh", "-c", script], patch);
        let status = c.ended();
        assert_eq!(status["exit_code"], 0, "{status} {}", c.said("stderr"));
        let text = c.said("stdout");
        c.remove();
        text.trim_end().to_string()
    }

    fn stop(&self) {
        call("StopPodSandbox", json!({"pod_sandbox_id": self.id}));
    }

    /// Stops and removes it; nothing is left.
    #[track_caller]
    fn remove(&self) {
        self.stop();
        call("RemovePodSandbox", json!({"pod_sandbox_id": self.id}));
        until(&format!("the pod {} is gone", self.id), || self.remains(&self.id).is_empty());
    }

    /// What the host still has of a container of this pod, or of the pod itself.
    fn remains(&self, id: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        found.extend(mounts.lines().filter(|l| l.contains(id)).map(str::to_string));
        for dir in ["cpu", "devices", "freezer", "memory", "pids", "systemd", "unified"] {
            let dir = Path::new("/sys/fs/cgroup").join(dir).join(&self.engine.cgroup[1..]).join(id);
            found.extend(dir.exists().then(|| dir.display().to_string()));
        }
        for dir in [
            format!("{STATE}/{}/k8s.io/{id}", self.handler),
            format!("/run/cri/state/io.containerd.runtime.v2.task/k8s.io/{id}"),
        ] {
            found.extend(fs::exists(&dir).unwrap_or(true).then_some(dir));
        }
        found
    }
}

/// A container of a pod.
struct Container<'a> {
    pod: &'a Pod<'a>,
    id: String,
    log: PathBuf,
}

impl Container<'_> {
    fn start(&self) {
        call("StartContainer", json!({"container_id": self.id}));
    }

    fn status(&self) -> Value {
        call("ContainerStatus", json!({"container_id": self.id}))["status"].take()
    }

    /// Its status once it has exited.
    #[track_caller]
    fn ended(&self) -> Value {
        let mut status = Value::Null;
        until("the container ended", || {
            status = self.status();
            status["state"] == "CONTAINER_EXITED"
        });
        status
    }

    /// The host's pid of its first process.
    fn pid(&self) -> u64 {
        let info = call("ContainerStatus", json!({"container_id": self.id, "verbose": true}));
        let info: Value = serde_json::from_str(info["info"]["info"].as_str().expect("info")).expect("JSON");
        info["pid"].as_u64().expect("a pid")
    }

    /// ExecSync: standard output, standard error and code.
    #[track_caller]
    fn exec(&self, script: &str) -> (String, String, i64) {
        let answer =
            call("ExecSync", json!({"container_id": self.id, "cmd": ["sh", "-c", script], "timeout": 25}));
        let text = |key: &str| answer[key].as_str().expect("text").trim_end().to_string();
        (text("stdout"), text("stderr"), answer["exit_code"].as_i64().expect("a number"))
    }

    /// What a script prints that ends well.
    #[track_caller]
    fn prints(&self, script: &str) -> String {
        let (out, err, code) = self.exec(script);
        assert_eq!(code, 0, "{script}: {out}{err}");
        out
    }

    fn stop(&self, timeout: u32) {
        call("StopContainer", json!({"container_id": self.id, "timeout": timeout}));
    }

    /// Stops and removes it; nothing is left.
    #[track_caller]
    fn remove(&self) {
        self.stop(0);
        call("RemoveContainer", json!({"container_id": self.id}));
        until(&format!("the container {} is gone", self.id), || self.pod.remains(&self.id).is_empty());
    }

    #[track_caller]
    fn cgroup_file(&self, controller: &str, file: &str) -> String {
        self.pod.engine.cgroup_file(controller, &self.id, file)
    }

    /// What it wrote, from its log of lines `TIME STREAM TAG TEXT`.
    fn said(&self, stream: &str) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let words = text.lines().filter_map(|l| l.split_once(' ')?.1.strip_prefix(stream));
        let whole = |l: &str| l.strip_prefix(" F ").map(|t| format!("{t}\n"));
        words.filter_map(|l| whole(l).or_else(|| l.strip_prefix(" P ").map(str::to_string))).collect()
    }
}
