//! Namespaces: made, shared, of the host; ids mapped.

use super::{Container, podman, prints, run, says};
use crate::image::NAME;
use crate::world::{Engine, sh};
use crate::{Check, check};
use std::fs;
use std::os::unix::fs::MetadataExt;

pub const CHECKS: &[Check] = &[
    check!(namespaces_are_its_own),
    check!(ipc_modes),
    check!(pid_modes),
    check!(uts_modes),
    check!(network_modes),
    check!(all_of_another_container),
    check!(end_in_a_shared_pid_namespace),
    check!(joined_by_path),
    check!(uid_map),
    check!(uid_map_in_full),
    check!(userns_auto),
    check!(userns_of_another_container),
    check!(exec_with_a_uid_map),
];

const NAMES: [&str; 5] = ["ipc", "mnt", "net", "pid", "uts"];

fn ours(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}")).expect("our namespace").display().to_string()
}

fn theirs(e: &Engine, options: &[&str], name: &str) -> String {
    prints(e, options, &format!("readlink /proc/self/ns/{name}"))
}

fn namespaces_are_its_own(e: &Engine) {
    let printed = prints(e, &[], "cd /proc/self/ns; for n in ipc mnt net pid uts; do readlink $n; done");
    assert_eq!(printed.lines().count(), 5);
    for (name, link) in NAMES.iter().zip(printed.lines()) {
        assert!(link.starts_with(name) && link != ours(name), "{name}: {link}");
    }
    assert_eq!(prints(e, &[], "echo $$; ls /sys/class/net | tr '\\n' ' '"), "1\neth0 lo");
}

fn ipc_modes(e: &Engine) {
    assert_eq!(theirs(e, &["--ipc", "host"], "ipc"), ours("ipc"));
    let c = Container::sleeping(e, "ipc", &["--ipc", "shareable"]);
    c.exec(&[], "echo shared >/dev/shm/file").ok();
    assert_eq!(prints(e, &["--ipc", "container:ipc"], "cat /dev/shm/file"), "shared");
    assert_eq!(theirs(e, &["--ipc", "container:ipc"], "ipc"), c.prints("readlink /proc/self/ns/ipc"));
    assert_eq!(
        prints(e, &["--ipc", "none"], "ls -d /dev/shm 2>&1 || true"),
        "ls: /dev/shm: No such file or directory"
    );
}

fn pid_modes(e: &Engine) {
    assert_eq!(theirs(e, &["--pid", "host"], "pid"), ours("pid"));
    let c = Container::sleeping(e, "pid", &[]);
    assert_eq!(theirs(e, &["--pid", "container:pid"], "pid"), c.prints("readlink /proc/self/ns/pid"));
    let ps = prints(e, &["--pid", "container:pid"], "ps -o pid,args");
    assert!(ps.contains("    1 sleep 1000"), "{ps}");
}

fn uts_modes(e: &Engine) {
    assert_eq!(theirs(e, &["--uts", "host"], "uts"), ours("uts"));
    let c = Container::sleeping(e, "uts", &["--hostname", "deck"]);
    assert_eq!(c.prints("hostname"), "deck");
    assert_eq!(prints(e, &["--uts", "container:uts"], "hostname"), "deck");
}

fn network_modes(e: &Engine) {
    assert_eq!(theirs(e, &["--network", "host"], "net"), ours("net"));
    assert_eq!(prints(e, &["--network", "none"], "ls /sys/class/net"), "lo");
    assert_eq!(prints(e, &["--network", "none"], "ip -o addr show dev lo | grep -c 127.0.0.1/8"), "1");
    let c = Container::sleeping(e, "net", &["--network", "none"]);
    assert_eq!(theirs(e, &["--network", "container:net"], "net"), c.prints("readlink /proc/self/ns/net"));
}

fn all_of_another_container(e: &Engine) {
    let c = Container::sleeping(e, "all", &["--ipc", "shareable"]);
    let kinds = ["--pid", "--ipc", "--network", "--uts"];
    let options: Vec<_> = kinds.iter().flat_map(|k| [*k, "container:all"]).collect();
    let script = "cd /proc/self/ns; for n in pid ipc net uts; do readlink $n; done";
    assert_eq!(prints(e, &options, script), c.prints(script));
    assert_ne!(theirs(e, &options, "mnt"), c.prints("readlink /proc/self/ns/mnt"));
}

fn end_in_a_shared_pid_namespace(e: &Engine) {
    // No pid namespace ends with these: who stays behind must be killed by cgroup.
    let _first = Container::sleeping(e, "pid_owner", &[]);
    for (name, options) in [("pid_guest", ["--pid", "container:pid_owner"]), ("pid_host", ["--pid", "host"])]
    {
        let c = Container::running(e, name, &options, "sleep 7531 & sleep 7532 & sleep 1000");
        let pids = c.cgroup_file("pids", "cgroup.procs");
        crate::support::until("three", || c.cgroup_file("pids", "cgroup.procs").lines().count() >= 3);
        c.verb("rm", &["--force", "--time", "0"]).ok();
        let id = pids.lines().next().expect("a pid").to_string();
        crate::support::until("its end", || !std::path::Path::new("/proc").join(&id).exists());
        let left =
            sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c '[s]leep 753' || true").stdout;
        assert_eq!(left, "0\n", "{name}");
    }
}

fn joined_by_path(e: &Engine) {
    let c = Container::sleeping(e, "joined", &["--network", "none"]);
    let at = |kind| format!("ns:/proc/{}/ns/{kind}", c.pid());
    let (net, ipc, pid) = (at("net"), at("ipc"), at("pid"));
    let options = ["--network", &net, "--ipc", &ipc, "--pid", &pid];
    let script = "cd /proc/self/ns; for n in pid ipc net; do readlink $n; done";
    assert_eq!(prints(e, &options, script), c.prints(script));
}

const MAP: [&str; 4] = ["--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000"];

fn uid_map(e: &Engine) {
    let printed = prints(
        e,
        &MAP,
        "tr -s ' ' </proc/self/uid_map; id -u; stat -c %u:%g /etc/readable /dev/null; touch /made",
    );
    assert_eq!(printed, " 0 100000 5000\n0\n0:0\n65534:65534");
    let c = Container::sleeping(e, "uid_map", &MAP);
    let owner = fs::metadata(format!("/proc/{}", c.pid())).expect("its process");
    assert_eq!((owner.uid(), owner.gid()), (100000, 100000));
    assert_ne!(c.prints("readlink /proc/self/ns/user"), ours("user"));
}

fn uid_map_in_full(e: &Engine) {
    // What one meets at once: a network, a user, a volume, limits, a pid namespace, sysctls.
    let options = [
        "--user",
        "user",
        "--memory",
        "64m",
        "--sysctl",
        "net.ipv4.ip_unprivileged_port_start=80",
        "-v",
        "mapped:/v:U",
    ];
    let script = "id -u; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; touch /v/x && stat -c %u /v/x; ls /sys/class/net | tr '\\n' ' '";
    assert_eq!(prints(e, &[&MAP[..], &options].concat(), script), "1000\n80\n1000\neth0 lo");
    says(e, &["volume", "rm", "mapped"]);
    let o = podman(
        e,
        &[&["run", "--rm"], &MAP[..], &["--device", "/dev/fuse", "--init", NAME, "ls", "/dev/fuse"]].concat(),
    );
    assert_eq!(o.ok().stdout, "/dev/fuse\n");
}

fn userns_auto(e: &Engine) {
    sh(
        "grep -q ^containers: /etc/subuid || echo containers:400000:1000000 | tee -a /etc/subuid >>/etc/subgid",
    );
    let map = prints(e, &["--userns", "auto:size=3000"], "tr -s ' ' </proc/self/uid_map");
    let fields: Vec<_> = map.split_whitespace().collect();
    assert!(fields[0] == "0" && fields[1] != "0" && fields[2] == "3000", "{map}");
}

fn userns_of_another_container(e: &Engine) {
    let c = Container::sleeping(e, "userns", &MAP);
    let script = "readlink /proc/self/ns/user; tr -s ' ' </proc/self/uid_map";
    assert_eq!(prints(e, &["--userns", "container:userns"], script), c.prints(script));
    let kinds = ["--userns", "--pid", "--network"];
    let options: Vec<_> = kinds.iter().flat_map(|k| [*k, "container:userns"]).collect();
    assert_eq!(prints(e, &options, script), c.prints(script));
    let o = run(e, &["--userns", "container:missing"], "true");
    assert_eq!(o.code(), 125);
}

fn exec_with_a_uid_map(e: &Engine) {
    let c = Container::sleeping(e, "exec_uid_map", &MAP);
    assert_eq!(
        c.prints("id -u; tr -s ' ' </proc/self/uid_map; touch /made; stat -c %u /made"),
        "0\n 0 100000 5000\n0"
    );
    assert_eq!(c.exec(&["--user", "user"], "id -u").ok().stdout, "1000\n");
    assert_eq!(c.exec(&["-t"], "tty").ok().stdout.trim(), "/dev/pts/0");
}
