//! config.md#process: what the program finds itself to be.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Bundle, ORLOP, Scratch, finish, sample, skip};

/// `sh -c SCRIPT` with this property set, to its output.
fn said(pointer: &str, value: Value, script: &str) -> String {
    Bundle::new().set(pointer, value).sh(script).run().ok().stdout.trim().to_string()
}

#[test]
fn the_environment_is_as_given_and_nothing_of_the_callers() {
    needs_root!();
    let b = Bundle::new().set("/process/env", json!(["PATH=/bin", "A=1", "B", "A=2", "E="])).args(&["env"]);
    let mut c = b.making("run");
    let traps =
        ["LD_PRELOAD", "LD_LIBRARY_PATH", "NOTIFY_SOCKET", "XDG_RUNTIME_DIR", "GOMAXPROCS", "RUST_LOG"];
    c.envs(traps.map(|t| (t, "/trap")));
    let out = finish(&mut c).ok();
    let mut lines: Vec<_> = out.stdout.lines().collect();
    lines.sort_unstable();
    lines.retain(|l| *l != "B"); // busybox shows or hides what has no value
    assert_eq!(lines, ["A=2", "E=", "HOME=/root", "PATH=/bin"]);
}

#[test]
fn large_documents_are_taken_in_time() {
    needs_root!();
    let env: Vec<_> = (0..10_000).map(|n| format!("V{n}={n}")).collect();
    let b = Bundle::new().set("/process/env", json!(env)).args(&["/bin/true"]);
    b.run().ok();
}

#[test]
fn home_comes_from_the_containers_passwd() {
    needs_root!();
    for (uid, env, home) in [
        (0, json!(["PATH=/bin"]), "/root"),
        (1000, json!(["PATH=/bin", "HOME="]), "/home/user"),
        (4242, json!(["PATH=/bin"]), "/"),
        (1000, json!(["PATH=/bin", "HOME=/given"]), "/given"),
    ] {
        let b = Bundle::new().set("/process/env", env).set("/process/user/uid", json!(uid)).sh("echo $HOME");
        assert_eq!(b.run().ok().stdout, format!("{home}\n"), "{uid}");
    }
}

#[test]
fn a_passwd_that_is_no_file_of_the_container_gives_no_home_and_no_wait() {
    needs_root!();
    let b = Bundle::new().sh("echo $HOME");
    let passwd = b.rootfs().join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(b.run().ok().stdout, "/\n");
    fs::remove_file(&passwd).unwrap();
    let outside = b.path().join("outside");
    fs::write(&outside, "root:x:0:0:root:/outside:/bin/sh\n").unwrap();
    symlink(&outside, &passwd).unwrap();
    assert_eq!(b.run().ok().stdout, "/\n");
}

#[test]
fn a_name_is_looked_up_in_the_containers_path() {
    needs_root!();
    for (env, name) in
        [(json!([]), "true"), (json!(["PATH=/none:/bin"]), "true"), (json!(["PATH=/none"]), "/bin/true")]
    {
        Bundle::new().set("/process/env", env).args(&[name]).run().ok();
    }
    Bundle::new()
        .set("/process/env", json!(["PATH="]))
        .set("/process/cwd", json!("/bin"))
        .args(&["./true"])
        .run()
        .ok();
}

/// The words by which engines choose exit codes 126 and 127: clients match them by case, in the output of `create`.
#[test]
fn a_program_that_cannot_run_is_told_by_create_in_the_words_of_engines() {
    needs_root!();
    for (program, words) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", "exec: \"/nope\": stat /nope: no such file or directory"),
        ("./nope", "exec: \"./nope\": stat ./nope: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory: permission denied"),
        ("/etc/passwd/x", "exec: \"/etc/passwd/x\": stat /etc/passwd/x: not a directory"),
    ] {
        let b = Bundle::new().args(&[program]);
        b.create().fails(words);
        b.run().fails(words);
        b.verb("state", &[]).fails("container does not exist");
        assert!(support::cgroups_named(&b.id).is_empty());
    }
}

#[test]
fn what_execve_misses_is_hinted_at() {
    needs_root!();
    for (content, words) in [
        ("#!/bin/sh\r\ntrue\r\n", "the script has the line ends of DOS"),
        ("#! /usr/bin/python9 -u\n", "the interpreter \"/usr/bin/python9\" of its first line is missing"),
        (
            "\x7fELF of another machine",
            "exec format error; it is neither a program of this machine's architecture",
        ),
    ] {
        let b = Bundle::new().args(&["/script"]);
        write_script(&b, content);
        b.run().fails(words);
        b.create().ok();
        b.start().fails(words);
    }
}

/// config.md#process: required when `start` is called, not before.
#[test]
fn without_a_process_create_works_and_start_fails() {
    needs_root!();
    let b = Bundle::new().set("/process", json!(null));
    b.run().fails("process: is required: it names the program");
    b.create().ok();
    b.start().fails("process: is required: it names the program");
    assert_eq!(b.state()["status"], "created");
    b.verb("exec", &["true"]).fails("process.cwd: is required");
    b.delete().ok();
    b.is_clean();
}

#[test]
fn a_missing_working_directory_is_made() {
    needs_root!();
    let b = Bundle::new().set("/process/cwd", json!("/a/b")).set("/root/readonly", json!(true)).sh("pwd");
    assert_eq!(b.run().ok().stdout, "/a/b\n");
    assert!(b.rootfs().join("a/b").is_dir());
}

#[test]
fn a_working_directory_that_the_user_may_not_enter_is_an_error() {
    needs_root!();
    let b = Bundle::new().set("/process/cwd", json!("/locked")).set("/process/user/uid", json!(1000));
    let b = b.set("/process/capabilities", json!({})).args(&["true"]);
    fs::create_dir(b.rootfs().join("locked")).unwrap();
    fs::set_permissions(b.rootfs().join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    b.run().fails("process.cwd: ").fails("permission denied");
}

/// CVE-2024-21626: no number of a descriptor leads out, by whatever way.
#[test]
fn a_working_directory_of_a_leaked_descriptor_is_refused() {
    needs_root!();
    needs_program!("bash");
    for n in sample(0..40) {
        let b = Bundle::new().set("/process/cwd", json!(format!("/proc/self/fd/{n}"))).sh("pwd; ls");
        let out = finish(&mut leaking(&b.making("run"), "/", 20));
        assert!(!out.status.success(), "{n}: {}", out.stdout);
        let b = b.set("/process/cwd", json!("/link"));
        symlink(format!("/proc/self/fd/{n}"), b.rootfs().join("link")).unwrap();
        let out = finish(&mut leaking(&b.making("run"), "/", 20));
        assert!(!out.status.success(), "{n}: {}", out.stdout);
    }
}

/// CVE-2024-21626: nor to a program of the host.
#[test]
fn a_program_behind_a_leaked_descriptor_is_not_found() {
    needs_root!();
    let host = Scratch::new("host");
    fs::set_permissions(&host.path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy("/bin/busybox", host.path.join("echo")).unwrap();
    let way = |n: u32| format!("/proc/self/fd/{n}{0}:/proc/self/fd/{n}/..{0}", host.path.display());
    let path = (0..60).map(way).collect::<Vec<_>>().join(":");
    let of =
        |b: Bundle| b.set("/process/env", json!([format!("PATH={path}")])).args(&["echo", "of the host"]);
    let words = "executable file not found in $PATH";
    for b in [
        Bundle::new(),
        Bundle::new().without_namespace("pid"),
        Bundle::new().in_the_hosts_mounts(),
        Bundle::new().in_a_user_namespace(),
        Bundle::new().set("/process/user/uid", json!(1000)),
    ] {
        let b = of(b);
        b.run().fails(words);
        finish(b.making("run").arg("--no-pivot")).fails(words);
    }
    for b in [
        Bundle::sleeping(),
        Bundle::sleeping().without_namespace("pid"),
        Bundle::sleeping().in_the_hosts_mounts(),
    ] {
        b.create().ok();
        let env = format!("PATH={path}");
        let pid = b.state()["pid"].to_string();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let to = fs::read_link(entry.unwrap().path()).unwrap();
            assert!(to != Path::new("/proc"), "{to:?}");
        }
        b.verb("exec", &["--env", &env, "echo", "of the host"]).fails(words);
        b.start().ok();
        b.verb("exec", &["--env", &env, "echo", "of the host"]).fails(words);
    }
}

/// A filter that is loaded before may deny getcwd(2): another proof takes its place, as strict (CVE-2024-21626).
#[test]
fn a_working_directory_is_proven_where_getcwd_is_denied() {
    needs_root!();
    needs_program!("bash");
    let bundle = |cwd: &str| {
        let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["getcwd"], "action": "SCMP_ACT_ERRNO" }] });
        let b = Bundle::new().set("/linux/seccomp", filter).set("/process/noNewPrivileges", json!(false));
        b.set("/process/cwd", json!(cwd)).sh("readlink /proc/self/cwd")
    };
    let b = bundle("/var/run/work");
    fs::create_dir_all(b.rootfs().join("var")).unwrap();
    symlink("/etc", b.rootfs().join("var/run")).unwrap();
    assert_eq!(b.run().ok().stdout, "/etc/work\n");
    for n in sample(0..40) {
        let out = finish(&mut leaking(&bundle(&format!("/proc/self/fd/{n}")).making("run"), "/", 20));
        assert!(!out.status.success(), "{n}: {}", out.stdout);
    }
}

#[test]
fn ids_groups_and_umask_are_exactly_those_given() {
    needs_root!();
    let status = "grep -E '^(Uid|Gid|Groups):' /proc/self/status | tr -s '\\t ' ' '; umask";
    let user = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o027 });
    let words = said("/process/user", user, status);
    assert_eq!(words, "Uid: 1000 1000 1000 1000\nGid: 1001 1001 1001 1001\nGroups: 5 6 \n0027");
    let words = said("/process/user", json!({ "uid": 0, "gid": 0 }), status);
    assert_eq!(words, "Uid: 0 0 0 0\nGid: 0 0 0 0\nGroups: \n0022");
}

/// CVE-2022-2990, CVE-2023-25173
#[test]
fn groups_of_the_caller_do_not_reach_the_program() {
    needs_root!();
    needs_program!("setpriv");
    let b = Bundle::new().set("/process/user", json!({ "uid": 1000, "gid": 1000 })).sh("id -G");
    b.write();
    let mut c = Command::new("setpriv");
    c.args(["--groups", "4,27", ORLOP, "--root"]).arg(b.state_root()).args(["run", "--bundle"]).arg(b.path());
    assert_eq!(finish(c.arg(&b.id)).ok().stdout, "1000\n");
}

/// What podman writes for `--group-add keep-groups`.
#[test]
fn groups_of_the_caller_stay_when_the_annotation_keeps_them() {
    needs_root!();
    needs_program!("setpriv");
    let b = Bundle::new()
        .set("/process/user", json!({ "uid": 1000, "gid": 1000 }))
        .set("/annotations", json!({ "run.oci.keep_original_groups": "1" }))
        .sh("id -G; sleep 100");
    b.write();
    let groups = |args: &[&str]| {
        let mut c = Command::new("setpriv");
        finish(
            c.args(["--groups", "4,27", ORLOP, "--root"]).arg(b.state_root()).args(args).stdin(Stdio::null()),
        )
    };
    groups(&["run", "--detach", "--bundle", b.path().to_str().unwrap(), &b.id]).ok();
    let status = fs::read_to_string(format!("/proc/{}/status", b.state()["pid"])).unwrap();
    assert!(status.contains("Groups:\t4 27 \n"), "{status}");
    assert_eq!(groups(&["exec", &b.id, "id", "-G"]).ok().stdout, "1000 4 27\n");
}

/// The peer agrees for the same document, bit for bit; and none of its inheritable set is our idea (CVE-2022-29162).
#[test]
fn capabilities_are_those_of_debians_runc() {
    needs_root!();
    needs_program!("runc");
    let all = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let none = json!([]);
    for uid in [0, 1000] {
        for caps in [
            json!({ "bounding": all, "effective": all, "permitted": all }),
            json!({ "bounding": all, "effective": all, "permitted": all, "inheritable": all, "ambient": all }),
            json!({ "bounding": all, "effective": none, "permitted": none }),
            json!({}),
        ] {
            let b = Bundle::new()
                .set("/process/capabilities", caps.clone())
                .set("/process/user", json!({ "uid": uid, "gid": uid }))
                .set("/ociVersion", json!("1.0.2"))
                .sh("grep ^Cap /proc/self/status");
            let (ours, theirs) = (b.run().ok().stdout, b.run_by_runc().ok().stdout);
            assert_eq!(ours, theirs, "uid {uid}, {caps}");
        }
    }
}

#[test]
fn limits_are_set() {
    needs_root!();
    let list = json!([
        { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_NPROC", "soft": 50, "hard": 60 },
        { "type": "RLIMIT_CPU", "soft": 7, "hard": 8 },
    ]);
    let limits = said("/process/rlimits", list, "sed 's/  */ /g' /proc/self/limits");
    for line in
        ["Max open files 100 200", "Max core file size 0 0", "Max processes 50 60", "Max cpu time 7 8"]
    {
        assert!(limits.contains(line), "{line} is not in {limits}");
    }
}

#[test]
fn a_limit_that_we_may_not_raise_names_the_property() {
    needs_root!();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:")).unwrap().trim();
    if u64::from_str_radix(line, 16).unwrap() >> 24 & 1 == 1 {
        return skip("has CAP_SYS_RESOURCE");
    }
    let list = json!([{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 1u64 << 40 }]);
    let words = "process.rlimits[0].hard: 1099511627776 is above our own hard limit of";
    Bundle::new().set("/process/rlimits", list).run().fails(words);
}

#[test]
fn no_new_privileges_is_as_given() {
    needs_root!();
    for on in [true, false] {
        let line = said("/process/noNewPrivileges", json!(on), "grep NoNewPrivs /proc/self/status");
        assert_eq!(line, format!("NoNewPrivs:\t{}", u8::from(on)));
    }
}

#[test]
fn limits_reach_a_user_namespace() {
    needs_root!();
    let b = Bundle::new()
        .in_a_user_namespace()
        .set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]))
        .sh("ulimit -n; ulimit -Hn; cat /proc/self/uid_map");
    let out = b.run().ok().stdout;
    assert_eq!(out.split_whitespace().collect::<Vec<_>>(), ["77", "88", "0", "100000", "65536"]);
}

#[test]
fn what_is_for_other_platforms_or_unknown_is_left_alone() {
    needs_root!();
    let b = Bundle::new()
        .set("/windows", json!({ "layerFolders": [] }))
        .set("/solaris", json!([]))
        .set("/zos", json!({ "namespaces": [] }))
        .set("/freebsd", json!({ "jail": {} }))
        .set("/process/commandLine", json!("dir"))
        .set("/process/user/username", json!("nobody"))
        .set("/new", json!({ "property": [1] }))
        .set("/linux/new", json!(1))
        .set("/vm", json!({ "hypervisor": { "path": "/bin/vm" }, "hwConfig": { "vcpus": 2 } }))
        .sh("id -u");
    let out = b.run().ok();
    assert_eq!(out.stdout, "0\n");
    assert!(out.stderr.contains("vm: is for runtimes of virtual machines, not applied"), "{}", out.stderr);
}

/// config.md: what is edited after create never reaches the container.
#[test]
fn the_document_is_read_once() {
    needs_root!();
    let mut b = Bundle::new().set("/root/readonly", json!(false)).sh("echo first > /said");
    b.create().ok();
    b.config["process"]["args"] = json!(["sh", "-c", "echo second > /said"]);
    b.config["hooks"] = json!({ "poststop": [{ "path": "/bin/false" }] });
    b.write();
    b.start().ok();
    b.await_status("stopped");
    assert_eq!(fs::read_to_string(b.rootfs().join("said")).unwrap(), "first\n");
    assert_eq!(b.verb("delete", &[]).ok().stderr, "");
}

#[test]
fn the_apparmor_profile_is_that_of_the_program() {
    needs_root!();
    needs_program!("apparmor_parser");
    if !fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with(b"Y")) {
        return support::skip("needs AppArmor");
    }
    let b = Bundle::new().set("/root/readonly", json!(false));
    let b = b.sh(
        "cat /proc/self/attr/current; echo x > /tmp/open && (: > /tmp/closed) 2>/dev/null || echo closed",
    );
    let file = b.path().join("profile");
    let name = format!("orlop-test-{}", support::unique());
    let rules = "file, capability, deny /tmp/closed w,";
    fs::write(&file, format!("profile {name} flags=(attach_disconnected,mediate_deleted) {{ {rules} }}\n"))
        .unwrap();
    let parser = |flag: &str| finish(Command::new("apparmor_parser").arg(flag).arg(&file));
    parser("-Kr").ok();
    let b = b.set("/process/apparmorProfile", json!(name));
    let out = b.run();
    parser("-R").ok();
    assert_eq!(out.ok().stdout, format!("{name} (enforce)\nclosed\n"));
    let b = b.set("/process/apparmorProfile", json!("orlop-no-such-profile"));
    let out = b.run().fails("process.apparmorProfile: ");
    assert!(out.stderr.contains("no such file or directory"), "{}", out.stderr);
}

#[test]
fn the_oom_score_is_as_given_or_untouched() {
    needs_root!();
    let ours: i32 = fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert_eq!(
        said("/process/oomScoreAdj", json!(ours.max(0) + 100), "cat /proc/self/oom_score_adj"),
        (ours.max(0) + 100).to_string()
    );
    let b = Bundle::new().unset("/process/oomScoreAdj").sh("cat /proc/self/oom_score_adj");
    assert_eq!(b.run().ok().stdout.trim(), ours.to_string());
}

#[test]
fn personality_makes_another_machine() {
    needs_root!();
    if std::env::consts::ARCH != "x86_64" {
        return skip("names the machines of x86");
    }
    assert_eq!(said("/linux/personality", json!({ "domain": "LINUX32" }), "uname -m"), "i686");
    assert_eq!(said("/linux/personality", json!({ "domain": "LINUX" }), "uname -m"), "x86_64");
}

#[test]
fn the_scheduler_is_as_given() {
    needs_root!();
    let show = "cut -d' ' -f18,19,40,41 /proc/self/stat"; // priority, nice, rt_priority, policy
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let idle = format!("20 {} 0 5", stat.split(' ').nth(18).unwrap()); // the kernel leaves the caller's nice
    for (scheduler, fields) in [
        (json!({ "policy": "SCHED_BATCH", "nice": 5 }), "25 5 0 3"),
        (json!({ "policy": "SCHED_IDLE" }), idle.as_str()),
        (json!({ "policy": "SCHED_OTHER", "nice": 19, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }), "39 19 0 0"),
    ] {
        let b = Bundle::new().set("/process/scheduler", scheduler).args(&[
            "cut",
            "-d ",
            "-f18,19,40,41",
            "/proc/self/stat",
        ]);
        assert_eq!(b.run().ok().stdout.trim(), fields);
    }
    let fifo =
        Bundle::new().set("/process/scheduler", json!({ "policy": "SCHED_FIFO", "priority": 10 })).sh(show);
    let out = fifo.run();
    if out.stderr.contains("process.scheduler: ")
        && out.stderr.contains("sched_setattr: operation not permitted")
    {
        return skip("no real-time scheduling in the container's cgroup");
    }
    assert_eq!(out.ok().stdout.trim(), "-11 0 10 1");
}

#[test]
fn the_io_priority_is_as_given() {
    needs_root!();
    let io = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    assert_eq!(said("/process/ioPriority", io, "busybox ionice -p $$"), "best-effort: prio 6");
}

#[test]
fn the_memory_policy_is_as_given() {
    needs_root!();
    if !fs::exists("/proc/self/numa_maps").unwrap() {
        return skip("the kernel has no NUMA");
    }
    let maps = said(
        "/linux/memoryPolicy",
        json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0" }),
        "head -1 /proc/self/numa_maps",
    );
    assert_eq!(maps.split(' ').nth(1), Some("interleave:0"));
}

#[test]
fn the_session_keyring_is_new_unless_refused() {
    needs_root!();
    if !fs::exists("/proc/keys").unwrap() {
        return skip("the kernel has no keys");
    }
    for refused in [false, true] {
        let b = Bundle::new().set("/linux/maskedPaths", json!([])).args(&["cat", "/proc/keys"]);
        let mut c = b.making("run");
        let keys = finish(c.args(refused.then_some("--no-new-keyring"))).ok().stdout;
        assert_eq!(keys.contains(&format!("_ses.{}: ", b.id)), !refused, "{keys}");
    }
}

/// The same command by way of a caller that leaks this file at every number from 3 on.
fn leaking(c: &Command, file: &str, count: usize) -> Command {
    let script = r#"for ((n = 3; n < 3 + $2; n++)); do eval "exec $n<'$1'"; done; shift 2; exec "$@""#;
    let mut out = Command::new("bash");
    out.args(["-c", script, "bash", file, &count.to_string()]).arg(c.get_program()).args(c.get_args());
    out.stdin(Stdio::null());
    out
}

/// CVE-2024-21626
#[test]
fn leaked_descriptors_are_closed_and_preserved_ones_kept() {
    needs_root!();
    needs_program!("bash");
    let script = "for n in $(seq 0 40); do test -e /proc/$$/fd/$n && echo -n \"$n \"; done; echo; echo $LISTEN_FDS $LISTEN_PID";
    for (more, listen, seen) in [
        (&[][..], None, "0 1 2 \n\n"),
        (&["--preserve-fds", "2"], None, "0 1 2 3 4 \n\n"),
        (&[], Some("3"), "0 1 2 3 4 5 \n3 1\n"),
        (&["--preserve-fds", "1"], Some("1"), "0 1 2 3 4 \n1 1\n"),
    ] {
        let b = Bundle::new().sh(script);
        let mut c = b.making("run");
        let mut c = leaking(c.args(more), "/etc/hostname", 20);
        listen.map(|n| c.env("LISTEN_FDS", n));
        assert_eq!(finish(&mut c).ok().stdout, seen, "{more:?} {listen:?}");
    }
    let b = Bundle::new().set("/root/readonly", json!(false)).sh(&format!("exec > /seen; {script}"));
    finish(&mut leaking(&b.making("create"), "/", 20)).ok();
    b.start().ok();
    b.await_status("stopped");
    assert_eq!(fs::read_to_string(b.rootfs().join("seen")).unwrap(), "0 1 2 \n\n");
    let b = Bundle::new();
    let mut c = b.making("run");
    let words = "--preserve-fds: descriptor 4 is not open";
    finish(&mut leaking(c.args(["--preserve-fds", "2"]), "/", 1)).fails(words);
}

#[test]
fn standard_streams_that_the_caller_closed_are_no_files_of_ours() {
    needs_root!();
    for (closed, redirect) in [(0, "<&-"), (1, ">&-"), (2, "2>&-"), (3, "<&- >&- 2>&-")] {
        let b = Bundle::new().set("/root/readonly", json!(false));
        let b = b.sh("for n in 0 1 2; do f=$(readlink /proc/$$/fd/$n || echo none); echo $f >> /seen; done");
        let script = format!("exec \"$0\" \"$@\" {redirect}");
        let making = b.making("run");
        let mut c = Command::new("sh");
        c.args(["-c", &script, ORLOP]).args(making.get_args()).stdin(Stdio::null());
        assert!(finish(&mut c).status.success(), "{closed}");
        let seen = fs::read_to_string(b.rootfs().join("seen")).unwrap();
        assert_eq!(seen.lines().count(), 3, "{closed}: {seen}");
        for (n, file) in seen.lines().enumerate() {
            if closed == 3 || n == closed {
                assert!(["none", "/dev/null"].contains(&file), "{n} of {closed}: {file}");
            }
        }
    }
}

/// CVE-2019-5736: kept open while it ran, /proc/PID/exe cannot be written once it no longer runs.
#[test]
fn our_program_cannot_be_written_from_the_container() {
    needs_root!();
    for args in [["sleep", "100"], ["/proc/self/exe", "features"], ["/script", ""]] {
        let b = Bundle::new().args(&args);
        let copy = b.path().join("orlop"); // of this test alone: what runs elsewhere cannot be written anyway
        support::copy_orlop(&copy);
        write_script(&b, "#!/proc/self/exe\n");
        let making = b.making("create");
        if !finish(Command::new(&copy).args(making.get_args()).stdin(Stdio::null())).status.success() {
            continue; // the program is looked up by create, and that it is refused is as good
        }
        let exe = fs::File::open(format!("/proc/{}/exe", b.state()["pid"])).unwrap();
        assert_eq!(exe.metadata().unwrap().len(), fs::metadata(&copy).unwrap().len());
        let _ = b.start(); // of what we run inside, only that it changes nothing matters
        let again = format!("/proc/self/fd/{}", exe.as_raw_fd());
        support::until("the end of our program", || match fs::OpenOptions::new().write(true).open(&again) {
            // A copy in memory (of Linux before 5.12, of an ordinary user) can be opened, but it is sealed.
            Ok(mut file) => match file.write_all(b"x") {
                Ok(()) => panic!("{args:?}: written to"),
                Err(e) => e.raw_os_error() == Some(nix::libc::EPERM),
            },
            Err(e) => e.raw_os_error() == Some(nix::libc::EROFS),
        });
        assert!(fs::read(&copy).unwrap() == fs::read(ORLOP).unwrap(), "the program changed");
    }
}

fn write_script(b: &Bundle, content: &str) {
    let script = b.rootfs().join("script");
    fs::write(&script, content).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
}
