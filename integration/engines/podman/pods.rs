//! Pods, and Kubernetes' YAML.

use super::{Container, podman, prints, says};
use crate::image::NAME;
use crate::support::until;
use crate::world::{Engine, sh};
use crate::{Check, check};
use std::fs;
use std::process::Stdio;

pub const CHECKS: &[Check] = &[
    check!(pod_shares_namespaces),
    check!(pod_with_a_pid_namespace),
    check!(pod_life),
    check!(pod_without_infra),
    check!(pod_in_a_user_namespace),
    check!(pod_limits),
    check!(init_containers),
    check!(play_and_generate_kube),
];

/// A pod, removed at the end of its check.
struct Pod<'a> {
    engine: &'a Engine,
    name: &'a str,
}

impl<'a> Pod<'a> {
    #[track_caller]
    fn new(engine: &'a Engine, name: &'a str, options: &[&str]) -> Self {
        let it = Self { engine, name };
        podman(engine, &[&["pod", "create", "--name", name], options].concat()).ok();
        it
    }

    /// What a container in it prints.
    #[track_caller]
    fn prints(&self, script: &str) -> String {
        prints(self.engine, &["--pod", self.name], script)
    }

    #[track_caller]
    fn inspect(&self, field: &str) -> String {
        says(self.engine, &["pod", "inspect", "--format", &format!("{{{{{field}}}}}"), self.name])
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let mut c = super::command(self.engine, &["pod", "rm", "--force", "--time", "0", self.name]);
        let _ = c.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

const LINKS: &str = "cd /proc/self/ns; for n in ipc net uts; do readlink $n; done";

fn pod_shares_namespaces(e: &Engine) {
    let pod = Pod::new(e, "sharing", &[]);
    let server = "while :; do echo in the pod | nc -l -p 80; done";
    let c = Container::running(e, "sharing_first", &["--pod", pod.name], server);
    assert_eq!(pod.prints(LINKS), c.prints(LINKS));
    assert_ne!(pod.prints("readlink /proc/self/ns/pid"), c.prints("readlink /proc/self/ns/pid"));
    assert_eq!(pod.prints("hostname"), "sharing");
    until("the server", || pod.prints("nc 127.0.0.1 80 </dev/null || true") == "in the pod");
    c.exec(&[], "echo shared >/dev/shm/file").ok();
    assert_eq!(pod.prints("cat /dev/shm/file"), "shared");
    let top = says(e, &["pod", "top", pod.name, "args"]);
    assert!(top.contains("catatonit") && top.contains("sh -c"), "{top}");
}

fn pod_with_a_pid_namespace(e: &Engine) {
    let pod = Pod::new(e, "pids", &["--share", "pid,net"]);
    let c = Container::sleeping(e, "pids_first", &["--pod", pod.name]);
    let ps = pod.prints("ps -o pid,args");
    assert!(ps.contains("    1 /catatonit -P") && ps.contains("sleep 1000"), "{ps}");
    c.verb("rm", &["--force", "--time", "0"]).ok();
    let ps = pod.prints("ps -o pid,args");
    assert!(!ps.contains("sleep 1000"), "{ps}");
}

fn pod_life(e: &Engine) {
    let pod = Pod::new(e, "living", &[]);
    let c = Container::sleeping(e, "living_first", &["--pod", pod.name]);
    for (verb, status) in [
        ("pause", "paused"),
        ("unpause", "running"),
        ("stop", "exited"),
        ("start", "running"),
        ("kill", "exited"),
    ] {
        podman(e, &["pod", verb, pod.name]).ok();
        until(&format!("{status} after {verb}"), || c.status() == status);
    }
    podman(e, &["pod", "restart", pod.name]).ok();
    assert_eq!(c.prints("echo again"), "again");
    podman(e, &["pod", "rm", "--force", "--time", "0", pod.name]).ok();
    assert!(!podman(e, &["container", "exists", c.name]).status.success());
}

fn pod_without_infra(e: &Engine) {
    let pod = Pod::new(e, "no_infra", &["--infra=false"]);
    assert_eq!(pod.prints("echo words"), "words");
    assert_eq!(pod.inspect(".NumContainers"), "0");
}

fn pod_in_a_user_namespace(e: &Engine) {
    let map = ["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"];
    let pod = Pod::new(e, "mapped_pod", &map);
    assert_eq!(
        pod.prints("tr -s ' ' </proc/self/uid_map; id -u; ls /sys/class/net | tr '\\n' ' '"),
        " 0 100000 5000\n0\neth0 lo"
    );
}

fn pod_limits(e: &Engine) {
    let pod = Pod::new(e, "limited", &["--memory", "64m", "--cpus", "0.5"]);
    let c = Container::sleeping(e, "limited_first", &["--pod", pod.name]);
    let id = pod.inspect(".Id");
    let path = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).expect("its cgroups");
    assert!(path.contains(&format!("{}/{id}/libpod-", e.cgroup)), "{path}");
    assert_eq!(e.cgroup_file("memory", &id, "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(e.cgroup_file("cpu", &id, "cpu.cfs_quota_us"), "50000");
}

fn init_containers(e: &Engine) {
    let pod = Pod::new(e, "initial", &[]);
    let first = ["create", "--pod", pod.name, "--init-ctr", "once", "-v", "initial:/v", NAME];
    says(e, &[&first[..], &["sh", "-c", "echo prepared >/v/file"]].concat());
    says(
        e,
        &["create", "--pod", pod.name, "--name", "initial_main", "-v", "initial:/v", NAME, "cat", "/v/file"],
    );
    podman(e, &["pod", "start", pod.name]).ok();
    until("the main container's words", || says(e, &["logs", "initial_main"]) == "prepared");
    drop(pod);
    says(e, &["volume", "rm", "initial"]);
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata:
  name: played
spec:
  hostname: played
  containers:
  - name: main
    image: IMAGE
    command: ["sh", "-c", "id -u; id -g; cat /v/file; hostname; echo $WORD; cat /sys/fs/cgroup/memory/memory.limit_in_bytes; touch /x; sleep 1000"]
    env: [{name: WORD, value: spoken}]
    resources: {limits: {memory: 64Mi}}
    securityContext:
      runAsUser: 1000
      runAsGroup: 2000
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {drop: [ALL]}
    volumeMounts: [{name: v, mountPath: /v, readOnly: true}]
  volumes: [{name: v, hostPath: {path: SOURCE}}]
"#;

fn play_and_generate_kube(e: &Engine) {
    let (source, file) = (e.dir.join("kube"), e.dir.join("pod.yaml"));
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "from outside\n").expect("write");
    let yaml = POD.replace("IMAGE", NAME).replace("SOURCE", source.to_str().expect("UTF-8"));
    fs::write(&file, yaml).expect("write");
    let file = file.to_str().expect("UTF-8");
    let pod = Pod { engine: e, name: "played" };
    podman(e, &["play", "kube", file]).ok();
    let words = || podman(e, &["logs", "played-main"]).ok();
    until("its words", || words().stdout.lines().count() == 6);
    assert_eq!(words().stdout, "1000\n2000\nfrom outside\nplayed\nspoken\n67108864\n");
    until("the failure", || words().stderr.contains("/x: Read-only file system"));
    let status = podman(e, &["exec", "played-main", "grep", "-E", "NoNewPrivs|CapBnd", "/proc/self/status"])
        .ok()
        .stdout;
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("CapBnd:\t0000000000000000"), "{status}");
    let again = says(e, &["generate", "kube", pod.name]);
    assert!(again.contains("kind: Pod") && again.contains("name: played-main"), "{again}");
    podman(e, &["play", "kube", "--down", file]).ok();
    assert!(!podman(e, &["pod", "exists", pod.name]).status.success());
    // `play kube` has no option for the parent of its cgroups.
    sh("rmdir /sys/fs/cgroup/*/libpod_parent 2>/dev/null || true");
}
