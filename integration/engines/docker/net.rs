//! Namespaces shared and made: network, ipc, pid, uts; and what the configuration says of names and environment.

use super::{container, prints, run};
use crate::support::{finish, until};
use crate::world::Engine;
use crate::{Check, check};
use std::fs;
use std::process::Command;

pub const CHECKS: &[Check] = &[
    check!(network_none),
    check!(network_bridge),
    check!(network_host),
    check!(network_of_another),
    check!(network_of_its_own),
    check!(network_connect),
    check!(publish_on_loopback),
    check!(ipc_modes),
    check!(pid_modes),
    check!(uts_modes),
    check!(names_and_addresses),
    check!(environment),
    check!(entrypoint_and_labels),
];

fn ours(ns: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{ns}")).expect("readlink").display().to_string()
}

fn network_none(_: &Engine) {
    assert_eq!(
        prints(&["--network", "none"], "ls /sys/class/net; ip -4 -o addr | tr -s ' ' | cut -d ' ' -f 2,4"),
        "lo\nlo 127.0.0.1/8"
    );
}

/// One that answers `hello` at port 80.
fn server(options: &[&str]) -> super::Container {
    let c = container(options, "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 80 -h /www");
    until("it listens", || c.exec_with(&[], "netstat -ltn | grep -q :80").status.success());
    c
}

fn network_bridge(_: &Engine) {
    let c = server(&[]);
    let address = c.inspect(".NetworkSettings.IPAddress");
    assert!(c.exec("ip -4 -o addr show eth0").contains(&address));
    assert_eq!(prints(&[], &format!("wget -q -O - http://{address}/")), "hello");
    let gateway = c.inspect(".NetworkSettings.Gateway");
    assert!(c.exec("ip route").contains(&format!("default via {gateway}")));
    assert_eq!(c.exec("ping -c 1 -W 5 127.0.0.1 > /dev/null && echo up"), "up");
}

fn network_host(_: &Engine) {
    assert_eq!(prints(&["--network", "host"], "readlink /proc/self/ns/net"), ours("net"));
    assert!(prints(&["--network", "host"], "ls /sys/class/net").contains("docker0"));
}

fn network_of_another(_: &Engine) {
    let c = server(&[]);
    let other = format!("container:{}", c.id);
    assert_eq!(prints(&["--network", &other], "wget -q -O - http://127.0.0.1/"), "hello");
    assert_eq!(
        prints(&["--network", &other], "readlink /proc/self/ns/net"),
        c.exec("readlink /proc/self/ns/net")
    );
}

/// A network that goes at the end.
struct Network(String);

impl Network {
    fn new() -> Self {
        let name = format!("net-{}", crate::support::unique());
        run(&["network", "create", &name]).ok();
        Self(name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        run(&["network", "rm", &self.0]);
    }
}

fn network_of_its_own(_: &Engine) {
    let net = Network::new();
    let name = format!("server-{}", crate::support::unique());
    let c = server(&["--network", &net.0, "--name", &name, "--network-alias", "alias"]);
    for host in [&name, "alias"] {
        assert_eq!(prints(&["--network", &net.0], &format!("wget -q -O - http://{host}/")), "hello");
    }
    drop(c);
}

fn network_connect(_: &Engine) {
    let net = Network::new();
    let c = container(&["--network", "bridge"], "sleep 1000");
    run(&["network", "connect", &net.0, &c.id]).ok();
    assert_eq!(c.exec("ls /sys/class/net"), "eth0\neth1\nlo");
    run(&["network", "disconnect", &net.0, &c.id]).ok();
    assert_eq!(c.exec("ls /sys/class/net"), "eth0\nlo");
}

fn publish_on_loopback(_: &Engine) {
    let c = server(&["--publish", "127.0.0.1::80"]);
    let address = run(&["port", &c.id, "80/tcp"]).ok().stdout.trim().to_string();
    assert!(address.starts_with("127.0.0.1:"), "{address}");
    let get =
        || finish(Command::new("busybox").args(["wget", "-q", "-O", "-", &format!("http://{address}/")]));
    until("an answer", || get().stdout == "hello\n");
    drop(c);
    assert_ne!(get().code(), 0);
}

fn ipc_modes(_: &Engine) {
    assert_eq!(prints(&["--ipc", "host"], "readlink /proc/self/ns/ipc"), ours("ipc"));
    assert_ne!(prints(&[], "readlink /proc/self/ns/ipc"), ours("ipc"));
    let c = container(&["--ipc", "shareable"], "echo shared > /dev/shm/file; sleep 1000");
    until("the file", || c.exec("cat /dev/shm/file") == "shared");
    let other = format!("container:{}", c.id);
    let text = "readlink /proc/self/ns/ipc; cat /dev/shm/file";
    assert_eq!(prints(&["--ipc", &other], text), c.exec(text));
    let private = container(&["--ipc", "private"], "sleep 1000");
    run(&["run", "--rm", "--ipc", &format!("container:{}", private.id), crate::image::NAME, "true"])
        .fails("non-shareable");
}

fn pid_modes(_: &Engine) {
    assert_eq!(prints(&["--pid", "host"], "readlink /proc/self/ns/pid"), ours("pid"));
    let c = container(&[], "sleep 1000");
    let other = format!("container:{}", c.id);
    assert_eq!(prints(&["--pid", &other], "cat /proc/1/cmdline | tr '\\0' ' '"), "sleep 1000");
    // What a container without a pid namespace of its own leaves behind ends with it.
    let shared = container(&["--pid", &other], "sleep 1234 & sleep 1235 & sleep 1236");
    until("three", || c.exec("ps -o args").matches("sleep 123").count() == 3);
    shared.verb(&["kill"]).ok();
    shared.wait();
    until("none", || !c.exec("ps -o args").contains("sleep 123"));
    let host = container(&["--pid", "host"], "sleep 1000 & echo $! > /pid; sleep 1000");
    until("the second", || host.exec_with(&[], "test -s /pid").status.success());
    let child = host.exec("cat /pid");
    host.verb(&["stop", "--time", "0"]).ok();
    until("it ended", || !std::path::Path::new(&format!("/proc/{child}")).exists());
    assert_eq!(c.exec("echo runs"), "runs");
}

fn uts_modes(_: &Engine) {
    assert_eq!(prints(&["--uts", "host"], "readlink /proc/self/ns/uts"), ours("uts"));
    assert_ne!(prints(&[], "readlink /proc/self/ns/uts"), ours("uts"));
    assert_eq!(
        prints(
            &["--hostname", "box", "--domainname", "example"],
            "hostname; cat /proc/sys/kernel/domainname"
        ),
        "box\nexample"
    );
    let c = container(&[], "sleep 1000");
    assert_eq!(c.exec("hostname"), c.id[..12]);
}

fn names_and_addresses(_: &Engine) {
    let options = [
        "--dns",
        "192.0.2.1",
        "--dns-search",
        "example.test",
        "--dns-option",
        "ndots:3",
        "--add-host",
        "there:192.0.2.2",
    ];
    let text = prints(&options, "cat /etc/resolv.conf /etc/hosts");
    for words in ["nameserver 192.0.2.1", "search example.test", "options ndots:3", "192.0.2.2\tthere"] {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
    let text = prints(&["--mac-address", "02:00:00:00:00:77"], "cat /sys/class/net/eth0/address");
    assert_eq!(text, "02:00:00:00:00:77");
}

fn environment(e: &Engine) {
    let file = e.dir.join("tmp/env-file");
    fs::write(&file, "FROM_FILE=f\n# no\n").expect("write");
    let options =
        ["--env", "A=1", "--env", "EMPTY=", "--env-file", file.to_str().expect("UTF-8"), "--hostname", "box"];
    let text = prints(&options, "env | grep -vE '^(SHLVL|PWD|OLDPWD)=' | sort");
    assert_eq!(text, "A=1\nEMPTY=\nFROM_FILE=f\nHOME=/root\nHOSTNAME=box\nPATH=/bin");
    let odd = "a b\nc=\"d\" 'e' ü \\";
    assert_eq!(prints(&["--env", &format!("ODD={odd}")], "printf %s \"$ODD\""), odd);
}

fn entrypoint_and_labels(_: &Engine) {
    let o = run(&["run", "--rm", "--entrypoint", "/bin/echo", crate::image::NAME, "a b", "", "c"]).ok();
    assert_eq!(o.stdout, "a b  c\n");
    let c = container(&["--label", "one=1"], "sleep 1000");
    assert_eq!(c.inspect("json .Config.Labels"), r#"{"one":"1","origin":"here"}"#);
    assert_eq!(run(&["ps", "--quiet", "--no-trunc", "--filter", "label=one=1"]).ok().stdout.trim(), c.id);
}
