//! Namespaces new and joined, seen from inside; host names, sysctls, time, mappings.

#[path = "support/filter.rs"]
mod filter;
mod support;

use serde_json::{Value, json};
use std::fs;
use std::process::{Child, Command, Stdio};
use support::{Bundle, until};

/// Name in config.json and below /proc/PID/ns.
const KINDS: [(&str, &str); 8] = [
    ("user", "user"),
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// The namespace of a process, `net:[4026531840]`.
fn of(pid: &str, file: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{file}")).expect("a namespace").to_string_lossy().into_owned()
}

fn file(kind: &str) -> &'static str {
    KINDS.iter().find(|k| k.0 == kind).expect("a kind").1
}

/// Prints the namespaces that the program is in.
const LIST: &str = "cd /proc/self/ns; for n in *; do readlink $n; done";

/// A process of the host in new namespaces of its own, ended with the test.
struct Host(Child);

impl Host {
    fn new(flags: &[&str]) -> Self {
        let mut c = Command::new("unshare");
        c.args(flags).args(["sh", "-c", "echo ready; exec sleep 1000"]);
        let mut child = c.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("unshare");
        let mut line = String::new();
        let out = child.stdout.take().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{}", self.0.id(), file(kind))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A container that sleeps, and the pid of its init.
fn sleeper(b: Bundle) -> (Bundle, String) {
    let b = b.args(&["sleep", "1000"]);
    b.create().ok();
    b.start().ok();
    let pid = b.state()["pid"].to_string();
    (b, pid)
}

#[test]
fn every_listed_namespace_is_new_and_every_other_is_the_callers() {
    needs_root!();
    let all = KINDS.iter().filter(|k| !matches!(k.0, "user" | "mount"));
    for (kind, file) in all {
        let out = Bundle::new().namespace(kind, None).sh(LIST).run().ok().stdout;
        assert!(!out.contains(&of("self", file)), "{kind}: {out}");
        if *kind != "pid" {
            let out = Bundle::new().without_namespace(kind).unset("/hostname").sh(LIST).run().ok().stdout;
            assert!(out.contains(&of("self", file)), "{kind}: {out}");
        }
    }
    let out = Bundle::new().sh(LIST).run().ok().stdout;
    assert!(!out.contains(&of("self", "mnt")) && out.contains(&of("self", "user")), "{out}");
}

#[test]
fn each_namespace_of_another_container_can_be_joined_alone() {
    needs_root!();
    let (_target, pid) = sleeper(Bundle::new().namespace("time", None));
    for (kind, file) in KINDS.iter().filter(|k| !matches!(k.0, "user" | "mount")) {
        let path = format!("/proc/{pid}/ns/{file}");
        let b = Bundle::new().namespace(kind, Some(&path)).sh(LIST);
        let b = if *kind == "uts" { b.unset("/hostname") } else { b };
        let out = b.run().ok().stdout;
        assert!(out.contains(&of(&pid, file)), "{kind}: {out}");
        assert_eq!(out.contains(&of(&pid, "net")), *kind == "network", "{kind}");
    }
}

#[test]
fn a_mount_namespace_of_the_host_can_be_joined() {
    needs_root!();
    let host = Host::new(&["--mount", "--propagation", "private"]);
    let out = Bundle::new().namespace("mount", Some(&host.path("mount"))).sh(LIST).run().ok().stdout;
    assert!(out.contains(&of(&host.pid(), "mnt")), "{out}");
}

#[test]
fn all_namespaces_are_joined_together_in_any_order() {
    needs_root!();
    let (_target, pid) = sleeper(Bundle::new().namespace("time", None).in_a_user_namespace());
    let kinds: Vec<_> = KINDS.iter().filter(|k| k.0 != "mount").collect();
    for turn in 0..kinds.len() {
        let mut b = Bundle::new().sh(LIST).in_a_user_namespace().unset("/hostname");
        b = b.unset("/linux/uidMappings").unset("/linux/gidMappings");
        for n in 0..kinds.len() {
            let (kind, file) = kinds[(n + turn) % kinds.len()];
            b = b.namespace(kind, Some(&format!("/proc/{pid}/ns/{file}")));
        }
        let out = b.run().ok().stdout;
        for (kind, file) in &kinds {
            assert!(out.contains(&of(&pid, file)), "{kind}: {out}");
        }
    }
}

#[test]
fn a_new_user_namespace_goes_with_joined_namespaces_of_the_host() {
    needs_root!();
    let host = Host::new(&["--net", "--ipc", "--uts"]);
    for kinds in [&["network"][..], &["ipc"], &["uts"], &["network", "ipc", "uts"]] {
        let mut b =
            Bundle::new().sh(&format!("{LIST}; cat /proc/self/uid_map; echo $$")).in_a_user_namespace();
        b = b.unset("/hostname");
        for kind in kinds {
            b = b.namespace(kind, Some(&host.path(kind)));
        }
        let b = without_their_mounts(b, kinds);
        let out = b.run().ok();
        for kind in kinds {
            assert!(out.stdout.contains(&of(&host.pid(), file(kind))), "{kind}: {}", out.stdout);
        }
        assert!(!out.stdout.contains(&of("self", "user")));
        let last: Vec<_> = out
            .stdout
            .lines()
            .rev()
            .take(2)
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(last, ["1", "0 100000 65536"]);
    }
}

/// New instances of sysfs and mqueue need rights over the namespace that they show.
fn without_their_mounts(mut b: Bundle, kinds: &[&str]) -> Bundle {
    let refused: &[&str] = match () {
        _ if kinds.contains(&"network") && kinds.contains(&"ipc") => &["sysfs", "cgroup", "mqueue"],
        _ if kinds.contains(&"network") => &["sysfs", "cgroup"],
        _ if kinds.contains(&"ipc") => &["mqueue"],
        _ if kinds.contains(&"pid") => &["proc"],
        _ => &[],
    };
    b.config["mounts"].as_array_mut().expect("mounts").retain(|m| !refused.iter().any(|r| m["type"] == *r));
    b
}

#[test]
fn a_pid_namespace_of_the_host_goes_with_a_new_user_namespace() {
    needs_root!();
    let (_target, pid) = sleeper(Bundle::new());
    let path = format!("/proc/{pid}/ns/pid");
    let b = Bundle::new().sh("echo $$").in_a_user_namespace().namespace("pid", Some(&path));
    let b = without_their_mounts(b, &["pid"]).unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    let out = b.run().ok().stdout;
    assert!(out.trim().parse::<u32>().is_ok_and(|p| p > 1), "{out}");
}

#[test]
fn a_joined_user_namespace_owns_what_is_new_beside_it() {
    needs_root!();
    let (_target, pid) = sleeper(Bundle::new().in_a_user_namespace());
    let path = format!("/proc/{pid}/ns/user");
    let script = format!("{LIST}; hostname inside && hostname; echo $$; id -u; id -G");
    for mapped in [true, false] {
        let mut b = Bundle::new().sh(&script).in_a_user_namespace().namespace("user", Some(&path));
        b.config["process"]["capabilities"] = caps(&["CAP_SYS_ADMIN"]);
        if !mapped {
            b = b.unset("/linux/uidMappings").unset("/linux/gidMappings");
        }
        let out = b.run().ok().stdout;
        assert!(out.contains(&of(&pid, "user")), "{out}");
        assert!(out.ends_with("inside\n1\n0\n0\n"), "{out}");
    }
}

/// CVE-2016-9962: a hook holds init back, in the middle of its work, while a rival looks.
#[test]
fn nobody_in_a_joined_namespace_looks_into_init() {
    needs_root!();
    let script = "echo ready; while :; do for p in /proc/[0-9]*; do case \"$(cat $p/comm)\" in sh|cat|readlink) ;; \
                  ?*) echo seen; for f in fd/0 root cwd; do readlink $p/$f; done;; esac; done; done 2>/dev/null";
    let mut rival = Bundle::new().in_a_user_namespace().sh(script);
    rival.config["process"]["capabilities"] = caps(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    let said = rival.path().join("said");
    let mut c = rival.making("run");
    let mut run = c.stdout(fs::File::create(&said).unwrap()).spawn().unwrap();
    let text = || fs::read_to_string(&said).unwrap();
    support::until("the rival", || text().contains("ready"));
    let pid = rival.state()["pid"].to_string();
    let joining = || {
        let mut b = Bundle::new().in_a_user_namespace();
        for kind in ["user", "pid"] {
            b = b.namespace(kind, Some(&format!("/proc/{pid}/ns/{kind}")));
        }
        b
    };
    // It fails at last: the program itself may be looked into.
    let wait = format!("until [ \"$(grep -c seen {})\" -ge 2 ]; do sleep 0.05; done; exit 1", said.display());
    let timeout = support::patience().as_secs() / 2;
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", wait], "timeout": timeout });
    joining().set("/hooks/createRuntime/-", hook).run().fails("exited with status 1");
    let text = text();
    // Offsets need a moment in which it could; they work all the same.
    let offset = json!({ "boottime": { "secs": 1 } });
    joining().namespace("time", None).set("/linux/timeOffsets", offset).run().ok();
    rival.delete().ok();
    let _ = run.wait();
    assert!(text.contains("seen"), "{text}");
    assert!(text.lines().all(|l| ["ready", "seen"].contains(&l)), "{text}");
}

fn caps(names: &[&str]) -> Value {
    json!({ "bounding": names, "effective": names, "permitted": names })
}

#[test]
fn mappings_beside_a_joined_user_namespace_must_be_its_own() {
    needs_root!();
    let (_target, pid) = sleeper(Bundle::new().in_a_user_namespace());
    let path = format!("/proc/{pid}/ns/user");
    let other = json!([{ "containerID": 0, "hostID": 100_000, "size": 65535 }]);
    let b = || Bundle::new().in_a_user_namespace().namespace("user", Some(&path));
    b().set("/linux/uidMappings", other.clone()).run().fails("linux.uidMappings: ");
    b().set("/linux/gidMappings", other).run().fails("linux.gidMappings: ");
    // The same ids in other words.
    let halves = json!([
        { "containerID": 10, "hostID": 100_010, "size": 65526 }, { "containerID": 0, "hostID": 100_000, "size": 10 },
    ]);
    b().set("/linux/uidMappings", halves).run().ok();
}

#[test]
fn paths_that_are_no_such_namespace_are_refused_before_anything_is_made() {
    needs_root!();
    let ns = |path: &str| Bundle::new().namespace("network", Some(path));
    for (path, words) in [
        (
            "/proc/self/ns/uts",
            "linux.namespaces[5].path: \"/proc/self/ns/uts\" is a uts namespace, not a network namespace",
        ),
        ("/dev/null", "linux.namespaces[5].path: \"/dev/null\" is not a namespace"),
        ("/nonexistent", "linux.namespaces[5].path: open \"/nonexistent\": no such file or directory"),
        ("proc/self/ns/net", "linux.namespaces[5].path: \"proc/self/ns/net\" is not absolute"),
    ] {
        let b = ns(path);
        b.create().fails(words);
        assert_eq!(fs::read_dir(b.state_root()).expect("the state root").count(), 0);
        assert!(support::cgroups_named(&b.id).is_empty());
    }
    Bundle::new()
        .namespace("moon", None)
        .create()
        .fails("linux.namespaces[6].type: \"moon\" is no namespace");
}

#[test]
fn a_pid_namespace_whose_first_process_is_gone_is_told() {
    needs_root!();
    let mut host = Host::new(&["--pid", "--fork", "--kill-child"]);
    let path = format!("/proc/{}/ns/pid_for_children", host.pid());
    let held = fs::File::open(&path).expect("the namespace");
    let _ = host.0.kill();
    let _ = host.0.wait();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&held));
    let message = "the first process of the pid namespace is gone";
    let b = Bundle::new().namespace("pid", Some(&path));
    until(message, || b.run().stderr.contains(message)); // it dies a little later than unshare(1)
}

/// Whoever called us, a shim, is a subreaper and waits for init.
#[test]
fn init_becomes_the_callers_child_in_every_shape() {
    needs_root!();
    if !support::alone_as_subreaper("init_becomes_the_callers_child_in_every_shape") {
        return;
    }
    let host = Host::new(&["--net"]);
    let (_other, pid) = sleeper(Bundle::new().in_a_user_namespace());
    let shapes = [
        ("direct", Bundle::new()),
        ("joined", Bundle::new().namespace("network", Some(&host.path("network")))),
        ("pid joined", Bundle::new().namespace("pid", Some(&format!("/proc/{pid}/ns/pid")))),
        ("new user", Bundle::new().in_a_user_namespace()),
        (
            "user joined",
            Bundle::new().in_a_user_namespace().namespace("user", Some(&format!("/proc/{pid}/ns/user"))),
        ),
        (
            "new user, network joined",
            without_their_mounts(Bundle::new().in_a_user_namespace(), &["network"])
                .namespace("network", Some(&host.path("network"))),
        ),
    ];
    for (name, b) in shapes {
        let (_b, pid) = sleeper(b);
        let pid = nix::unistd::Pid::from_raw(pid.parse().expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill");
        let mut status = None;
        until(name, || {
            status = nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).ok();
            status.is_none_or(|s| s != nix::sys::wait::WaitStatus::StillAlive)
        });
        let killed = |s| matches!(s, nix::sys::wait::WaitStatus::Signaled(p, _, _) if p == pid);
        assert!(status.is_some_and(killed), "{name}: {status:?}");
    }
}

#[test]
fn host_and_domain_name_are_set() {
    needs_root!();
    let b = Bundle::new().set("/hostname", json!("web")).set("/domainname", json!("example.org"));
    let out = b.sh("cat /proc/sys/kernel/hostname /proc/sys/kernel/domainname").run().ok();
    assert_eq!(out.stdout, "web\nexample.org\n");
    let b = Bundle::new().in_a_user_namespace().set("/linux/sysctl", json!({ "kernel.domainname": "nis" }));
    assert_eq!(b.sh("cat /proc/sys/kernel/domainname").run().ok().stdout, "nis\n");
}

#[test]
fn names_and_sysctls_never_reach_the_host() {
    needs_root!();
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read");
    for (kind, pointer, value) in [
        ("network", "/linux/sysctl", json!({ "net.ipv4.ip_forward": "1" })),
        ("ipc", "/linux/sysctl", json!({ "kernel.shmmni": "99" })),
        ("uts", "/hostname", json!("web")),
    ] {
        let path = format!("/proc/{}/ns/{}", std::process::id(), file(kind));
        let b = || Bundle::new().set(pointer, value.clone());
        b().namespace(kind, Some(&path))
            .create()
            .fails(&format!("the {kind} namespace that is joined is the runtime's own"));
        b().without_namespace(kind)
            .create()
            .fails(&format!("needs a {kind} namespace of the container's own"));
    }
    Bundle::new()
        .set("/linux/sysctl", json!({ "kernel.core_pattern": "|/x" }))
        .create()
        .fails("belongs to no namespace");
    assert_eq!(before, fs::read_to_string("/proc/sys/net/ipv4/ip_forward").expect("read"));
}

#[test]
fn sysctls_are_set_inside_and_only_there() {
    needs_root!();
    const ALL: [(&str, &str); 8] = [
        ("net.ipv4.ip_forward", "1"),
        ("net/ipv4/conf/lo/forwarding", "1"),
        ("net.ipv4.ping_group_range", "0 7"),
        ("net.ipv4.ip_unprivileged_port_start", "80"),
        ("fs.mqueue.msg_max", "7"),
        ("kernel.shmmni", "99"),
        ("kernel.sem", "250 32000 100 99"),
        ("kernel.msgmax", "4242"),
    ];
    let are_set = |b: Bundle, list: &[(&str, &str)]| {
        let files: Vec<_> = list.iter().map(|(key, _)| key.replace('.', "/")).collect();
        let script = format!("cd /proc/sys; cat {} | tr '\\t' ' '", files.join(" "));
        let sysctl: serde_json::Map<_, _> = list.iter().map(|(k, v)| (k.to_string(), json!(v))).collect();
        let want: String = list.iter().map(|(_, value)| format!("{value}\n")).collect();
        assert_eq!(b.set("/linux/sysctl", Value::Object(sysctl)).sh(&script).run().ok().stdout, want);
    };
    are_set(Bundle::new(), &ALL);
    let host = Host::new(&["--net"]);
    are_set(Bundle::new().namespace("network", Some(&host.path("network"))), &ALL);
    // Before Linux 6.9, and stable kernels of its days, those of IPC belong to the host's root in every user namespace.
    let probe = Bundle::new().in_a_user_namespace().unset("/linux/readonlyPaths");
    if probe.sh("(: >>/proc/sys/kernel/msgmax) 2>/dev/null && echo ours || true").run().ok().stdout
        == "ours\n"
    {
        are_set(Bundle::new().in_a_user_namespace(), &ALL);
    } else {
        let (net, ipc) = ALL.split_at(4);
        are_set(Bundle::new().in_a_user_namespace(), net);
        for (key, value) in ipc {
            let b = Bundle::new().in_a_user_namespace().set("/linux/sysctl", json!({ *key: value }));
            let file = key.replace('.', "/");
            b.run().fails(&format!(
                "linux.sysctl.{key}: write \"{value}\" to /proc/sys/{file}: open in /proc: permission denied"
            ));
            b.is_clean();
        }
    }
    assert_ne!(fs::read_to_string("/proc/sys/kernel/msgmax").expect("read"), "4242\n");
}

#[test]
fn sysctls_of_users_belong_to_the_user_namespace() {
    needs_root!();
    let b =
        Bundle::new().in_a_user_namespace().set("/linux/sysctl", json!({ "user.max_net_namespaces": "3" }));
    assert_eq!(b.sh("cat /proc/sys/user/max_net_namespaces").run().ok().stdout, "3\n");
}

#[test]
fn a_value_that_the_kernel_refuses_names_the_key() {
    needs_root!();
    let b = |key: &str, value: &str| Bundle::new().set("/linux/sysctl", json!({ key: value }));
    b("net.ipv4.ip_forward", "maybe")
        .run()
        .fails("linux.sysctl.net.ipv4.ip_forward: ")
        .fails("invalid argument");
    b("net.ipv4.moon", "1").run().fails("linux.sysctl.net.ipv4.moon: ").fails("no such file or directory");
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    needs_root!();
    let script = "ip addr show lo; ip -o link | wc -l";
    for b in [Bundle::new(), Bundle::new().in_a_user_namespace()] {
        let out = b.sh(script).run().ok().stdout;
        assert!(out.contains("LOOPBACK,UP") && out.contains("127.0.0.1/8"), "{out}");
    }
}

#[test]
fn clocks_have_their_offsets() {
    needs_root!();
    let offsets =
        json!({ "monotonic": { "secs": 1_000_000 }, "boottime": { "secs": 5_000_000, "nanosecs": 5 } });
    let script =
        "cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time; readlink /proc/self/ns/time_for_children";
    let uptime = || -> u64 {
        let text = fs::read_to_string("/proc/uptime").expect("read");
        text.split('.').next().and_then(|s| s.parse().ok()).expect("seconds")
    };
    let plain = || Bundle::new().namespace("time", None).sh(script);
    for b in [plain(), plain().in_a_user_namespace()] {
        let b = b.set("/linux/timeOffsets", offsets.clone());
        let before = uptime();
        let out = b.run().ok().stdout;
        let lines: Vec<_> = out.lines().collect();
        let inside: u64 = lines[0].parse().expect("seconds");
        assert!((before + 5_000_000..=uptime() + 5_000_001).contains(&inside), "{out}");
        assert_ne!(lines[1], of("self", "time"));
        assert_eq!(lines[1], lines[2]);
    }
    let (_target, pid) = sleeper(plain().set("/linux/timeOffsets", offsets.clone()));
    let out =
        Bundle::new().namespace("time", Some(&format!("/proc/{pid}/ns/time"))).sh(script).run().ok().stdout;
    assert!(out.lines().next().and_then(|l| l.parse::<u64>().ok()).is_some_and(|s| s > 5_000_000), "{out}");
}

#[test]
fn an_offset_out_of_range_is_told() {
    needs_root!();
    let b = Bundle::new().namespace("time", None);
    let b = b.set("/linux/timeOffsets", json!({ "boottime": { "secs": i64::MAX } }));
    b.run().fails("linux.timeOffsets: ").fails("math result not representable");
}

#[test]
fn the_mappings_are_those_of_the_document() {
    needs_root!();
    let map = json!([
        { "containerID": 0, "hostID": 100_000, "size": 10 }, { "containerID": 100, "hostID": 200_000, "size": 5 },
    ]);
    let b = Bundle::new()
        .in_a_user_namespace()
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let b = b.set("/process/user", json!({ "uid": 100, "gid": 101, "additionalGids": [3, 102] }));
    let out = b
        .sh("id -u; id -g; id -G; cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/setgroups")
        .run()
        .ok();
    let words: Vec<_> = out.stdout.split_whitespace().collect();
    let maps = "0 100000 10 100 200000 5";
    assert_eq!(words.join(" "), format!("100 101 101 3 102 {maps} {maps} allow"));
}

/// Groups of the caller must not come along.
#[test]
fn supplementary_groups_are_exactly_those_of_the_document() {
    needs_root!();
    needs_program!("setpriv");
    let (_target, pid) = sleeper(Bundle::new().in_a_user_namespace());
    let joined = Bundle::new().in_a_user_namespace().namespace("user", Some(&format!("/proc/{pid}/ns/user")));
    for b in [Bundle::new(), Bundle::new().in_a_user_namespace(), joined] {
        let b = b.sh("grep Groups /proc/self/status");
        b.write();
        let mut c = Command::new("setpriv");
        c.args(["--groups", "4,27", support::ORLOP, "--root"]).arg(b.state_root()).args(["run", "--bundle"]);
        let out = support::finish(c.arg(b.path()).arg(&b.id).stdin(Stdio::null())).ok();
        assert_eq!(out.stdout.trim_end(), "Groups:", "{}", out.stdout);
    }
}

/// An outer container (Docker's default profile) answers ENOSYS to clone3.
#[test]
fn without_clone3_containers_are_made_all_the_same() {
    needs_root!();
    let host = Host::new(&["--net"]);
    let staged = without_their_mounts(Bundle::new().in_a_user_namespace(), &["network"]);
    let staged = staged.namespace("network", Some(&host.path("network")));
    for b in [Bundle::new(), staged] {
        let b = b.sh("echo $$");
        let mut c = b.making("run");
        filter::lack(&mut c, &[libc::SYS_clone3]);
        assert_eq!(support::finish(&mut c).ok().stdout, "1\n");
    }
}

/// Runs in a network namespace that stands for the host's, with a pair of interfaces, one with addresses.
fn on_a_host_with_interfaces(b: &Bundle) -> support::Outcome {
    let setup = "ip link set lo up && ip link add veth-a type veth peer name veth-b && \
                 ip addr add 10.9.8.7/24 dev veth-a && ip link set veth-a mtu 1400 address 02:00:00:00:00:07 && \
                 ip addr add fd00::7/64 dev veth-a && ip link set veth-b up";
    b.write();
    let mut c = Command::new("unshare");
    c.args(["--net", "sh", "-c", &format!("{setup} && exec \"$@\""), "sh", support::ORLOP, "--root"]);
    c.arg(b.state_root()).args(["run", "--bundle"]).arg(b.path()).arg(&b.id).stdin(Stdio::null());
    support::finish(&mut c)
}

#[test]
fn interfaces_are_moved_with_their_addresses_and_set_up() {
    needs_root!();
    needs_program!("ip");
    let script = "ip addr show; ip -o link | wc -l";
    for (rename, shown) in
        [(json!({}), "veth-a"), (json!({ "name": "eth7" }), "eth7"), (json!({ "name": "net%d" }), "net0")]
    {
        for b in [Bundle::new(), Bundle::new().in_a_user_namespace()] {
            let b = b.set("/linux/netDevices", json!({ "veth-a": rename })).sh(script);
            let out = on_a_host_with_interfaces(&b).ok().stdout;
            assert!(out.contains(&format!(": {shown}@")), "{out}");
            for words in [
                "mtu 1400",
                "02:00:00:00:00:07",
                "inet 10.9.8.7/24",
                "inet6 fd00::7/64",
                "BROADCAST,MULTICAST,UP",
            ] {
                assert!(out.contains(words), "{words:?} is not in {out}");
            }
            assert!(out.ends_with("\n2\n"), "{out}");
        }
    }
}

#[test]
fn an_interface_that_cannot_be_moved_is_told() {
    needs_root!();
    needs_program!("ip");
    let b = |list: Value| Bundle::new().set("/linux/netDevices", list);
    let none = b(json!({ "moon0": {} }));
    on_a_host_with_interfaces(&none).fails("linux.netDevices.moon0: look up \"moon0\": no such device");
    assert!(support::cgroups_named(&none.id).is_empty());
    let taken = b(json!({ "veth-a": { "name": "lo" } }));
    on_a_host_with_interfaces(&taken)
        .fails("linux.netDevices.veth-a: move (RTM_NEWLINK) \"veth-a\": file exists");
    let own = b(json!({ "veth-a": {} })).without_namespace("network");
    on_a_host_with_interfaces(&own).fails("linux.netDevices.veth-a: needs a network namespace");
}
