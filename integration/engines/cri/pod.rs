//! Sandboxes: what containers of a pod share, and what is left of them.

use super::{CLASS, Pod, STATE, attempt, call, launch, refused};
use crate::containerd::Daemon;
use crate::support::until;
use crate::world::Engine;
use crate::{Check, check};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

pub const CHECKS: &[Check] = &[
    check!(pod_from_run_to_remove),
    check!(runtime_is_ready),
    check!(runtime_handler),
    check!(network_of_a_pod),
    check!(host_namespaces),
    check!(shared_pid_namespace),
    check!(pid_namespace_of_a_target),
    check!(shared_ipc_namespace),
    check!(sysctls),
    check!(name_and_resolver),
    check!(removed_with_all_that_runs),
    check!(ten_pods_at_once).alone(),
    check!(daemon_killed_and_started_again).alone(),
];

/// Namespaces of a pod, as its containers ask for them too.
fn namespaces(network: &str, pid: &str, ipc: &str) -> Value {
    json!({"linux": {"security_context": {"namespace_options": {"network": network, "pid": pid, "ipc": ipc}}}})
}

fn runtime_is_ready(_: &Engine) {
    let status = call("Status", json!({"verbose": true}));
    let conditions = status["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().all(|c| c["status"] == true), "{conditions:?}");
}

fn pod_from_run_to_remove(e: &Engine) {
    let pod = Pod::new(e);
    assert_eq!(pod.status()["status"]["state"], "SANDBOX_READY");
    let state = format!("{STATE}/tested/k8s.io/{}", pod.id);
    assert!(Path::new(&state).is_dir(), "{state}");
    assert!(!e.cgroup_file("pids", &pod.id, "cgroup.procs").is_empty());
    pod.stop();
    assert_eq!(pod.status()["status"]["state"], "SANDBOX_NOTREADY");
    pod.stop();
    pod.remove();
    let list = call("ListPodSandbox", json!({}));
    assert!(list["items"].as_array().expect("items").iter().all(|p| p["id"] != *pod.id));
    assert!(attempt("PodSandboxStatus", json!({"pod_sandbox_id": pod.id})).is_err());
}

fn runtime_handler(e: &Engine) {
    let pod = Pod::of(e, json!({}), CLASS);
    assert_eq!(pod.status()["status"]["runtime_handler"], CLASS);
    let c = pod.sleeping(json!({}));
    for id in [&pod.id, &c.id] {
        assert!(Path::new(&format!("{STATE}/{CLASS}/k8s.io/{id}")).is_dir());
    }
    assert_eq!(c.prints("echo of the class"), "of the class");
    c.remove();
    pod.remove();
    let request = json!({"config": pod.config, "runtime_handler": "unknown"});
    refused("RunPodSandbox", request, "no runtime for \"unknown\" is configured");
}

fn network_of_a_pod(e: &Engine) {
    let pods = [
        Pod::with(e, namespaces("POD", "CONTAINER", "POD")),
        Pod::with(e, namespaces("POD", "CONTAINER", "POD")),
    ];
    let ips = pods
        .each_ref()
        .map(|p| p.status()["status"]["network"]["ip"].as_str().expect("an address").to_string());
    let server = pods[0]
        .start(&["sh", "-c", "mkdir /www; echo served > /www/page; httpd -f -p 8080 -h /www"], json!({}));
    let client = pods[1].sleeping(json!({}));
    let fetch = format!("wget -q -O - http://{}:8080/page", ips[0]);
    until("the other pod answers", || client.exec(&fetch).0 == "served");
    let side = pods[0].sleeping(json!({}));
    assert_eq!(side.prints("wget -q -O - http://127.0.0.1:8080/page"), "served");
    assert!(client.prints("ip addr show eth0").contains(&ips[1]));
    assert_eq!(server.prints("readlink /proc/self/ns/net"), side.prints("readlink /proc/self/ns/net"));
    assert_ne!(client.prints("readlink /proc/self/ns/net"), side.prints("readlink /proc/self/ns/net"));
    pods.iter().for_each(Pod::remove);
}

fn host_namespaces(e: &Engine) {
    let pod = Pod::with(e, namespaces("NODE", "NODE", "NODE"));
    let c = pod.sleeping(json!({}));
    for ns in ["net", "pid", "ipc"] {
        let ours = fs::read_link(format!("/proc/self/ns/{ns}")).expect("ours");
        assert_eq!(c.prints(&format!("readlink /proc/self/ns/{ns}")), ours.display().to_string());
    }
    assert_eq!(c.prints("cat /proc/1/comm"), fs::read_to_string("/proc/1/comm").expect("ours").trim());
    // Without a pid namespace of its own, its end is not that of what it started.
    let daemon = pod.start(&["sh", "-c", "setsid sleep 7654 & exec sleep 1000"], json!({}));
    until("it runs", || c.prints("ps").contains("sleep 7654"));
    daemon.stop(0);
    until("it is killed too", || !c.prints("ps").contains("sleep 7654"));
    pod.remove();
}

fn shared_pid_namespace(e: &Engine) {
    let pod = Pod::with(e, namespaces("NODE", "POD", "POD"));
    let (a, b) =
        (pod.sleeping(json!({})), pod.start(&["sh", "-c", "setsid sleep 4321 & exec sleep 1234"], json!({})));
    assert_eq!(a.prints("readlink /proc/self/ns/pid"), b.prints("readlink /proc/self/ns/pid"));
    until("it runs", || a.prints("ps").contains("sleep 4321"));
    assert!(a.prints("cat /proc/1/cmdline").contains("trap"), "the first process is the pod's");
    b.stop(0);
    until("all of the second are gone", || {
        !a.prints("ps | grep -e 4321 -e 1234 | grep -v grep; true").contains("sleep")
    });
    assert_eq!(a.prints("echo the first lives"), "the first lives");
    b.remove();
    pod.remove();
}

fn pid_namespace_of_a_target(e: &Engine) {
    let pod = Pod::new(e);
    let target = pod.start(&["sleep", "4444"], json!({}));
    let namespaces = json!({"pid": "TARGET", "target_id": target.id});
    let c = pod.sleeping(json!({"linux": {"security_context": {"namespace_options": namespaces}}}));
    assert!(c.prints("cat /proc/1/cmdline").contains("4444"));
    c.remove();
    assert_eq!(target.prints("echo it lives"), "it lives");
    pod.remove();
}

fn shared_ipc_namespace(e: &Engine) {
    let pod = Pod::new(e);
    let (a, b) = (pod.sleeping(json!({})), pod.sleeping(json!({})));
    a.prints("echo shared > /dev/shm/file");
    assert_eq!(b.prints("cat /dev/shm/file"), "shared");
    let of = |ns: &str| [&a, &b].map(|c| c.prints(&format!("readlink /proc/self/ns/{ns}")));
    for (ns, is_same) in [("ipc", true), ("uts", true), ("net", true), ("pid", false), ("mnt", false)] {
        let of = of(ns);
        assert_eq!(of[0] == of[1], is_same, "{ns}: {of:?}");
    }
    pod.remove();
}

fn sysctls(e: &Engine) {
    let mut config = namespaces("POD", "CONTAINER", "POD");
    config["linux"]["sysctls"] =
        json!({"kernel.shm_rmid_forced": "1", "net.ipv4.ip_unprivileged_port_start": "33"});
    let pod = Pod::with(e, config);
    let script = "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(pod.prints(json!({}), script), "1\n33");
    pod.remove();
}

fn name_and_resolver(e: &Engine) {
    let mut config = namespaces("POD", "CONTAINER", "POD");
    config["hostname"] = json!("of-the-pod");
    config["dns_config"] =
        json!({"servers": ["10.9.8.7"], "searches": ["example.org"], "options": ["ndots:5"]});
    let pod = Pod::with(e, config);
    let script = "hostname; cat /etc/hostname; cat /etc/resolv.conf";
    let want = "of-the-pod\nof-the-pod\nsearch example.org\nnameserver 10.9.8.7\noptions ndots:5";
    assert_eq!(pod.prints(json!({}), script), want);
    pod.remove();
}

fn removed_with_all_that_runs(e: &Engine) {
    let pod = Pod::new(e);
    let containers = [0, 1, 2].map(|_| pod.sleeping(json!({})));
    let pids = containers.each_ref().map(super::Container::pid);
    pod.remove();
    for (c, pid) in containers.iter().zip(pids) {
        assert!(!fs::exists(format!("/proc/{pid}")).expect("proc"));
        until("the container is gone", || pod.remains(&c.id).is_empty());
    }
}

fn ten_pods_at_once(e: &Engine) {
    std::thread::scope(|s| {
        for n in 0..10 {
            s.spawn(move || {
                let pod = Pod::new(e);
                assert_eq!(pod.prints(json!({}), &format!("echo {n}")), n.to_string());
                pod.remove();
            });
        }
    });
}

fn daemon_killed_and_started_again(e: &Engine) {
    let pod = Pod::new(e);
    let (c, ended) = (pod.sleeping(json!({})), pod.sleeping(json!({})));
    let pid = ended.pid() as i32;
    Daemon::new(e, "cri").kill();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).expect("it is there");
    launch(e);
    until("the service answers", || attempt("Status", json!({})).is_ok());
    assert_eq!(pod.status()["status"]["state"], "SANDBOX_READY");
    assert_eq!(c.prints("echo alive"), "alive");
    assert_eq!(ended.ended()["exit_code"], 137);
    c.remove();
    ended.remove();
    pod.remove();
}
