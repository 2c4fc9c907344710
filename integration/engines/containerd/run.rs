//! `ctr run` and its options: what each does inside and in the host's eyes.

use super::{Ctr, STATE, new_id, remains};
use crate::support::{finish, make_rootfs, until};
use crate::world::{Engine, sh};
use crate::{Check, check};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

pub const CHECKS: &[Check] = &[
    check!(run_prints_and_leaves_nothing),
    check!(exit_codes),
    check!(stdin_is_read_to_its_end),
    check!(null_io),
    check!(log_uri),
    check!(pid_file),
    check!(env_and_cwd),
    check!(mounts),
    check!(read_only),
    check!(rootfs),
    check!(rootfs_propagation),
    check!(no_pivot),
    check!(config_of_the_runtime),
    check!(memory_limit),
    check!(cpus),
    check!(cgroup),
    check!(devices),
    check!(capabilities),
    check!(seccomp),
    check!(new_privileges),
    check!(privileged),
    check!(net_host),
    check!(with_ns),
    check!(user_namespace),
    check!(annotations_reach_the_state),
    check!(oom_event).alone(),
    check!(fifty_at_once).alone(),
];

fn run_prints_and_leaves_nothing(e: &Engine) {
    let id = new_id();
    let o =
        finish(&mut Ctr(e).run_command(&id, &["--rm"], &["sh", "-c", "echo $((6 * 7)); echo err >&2"])).ok();
    assert_eq!((o.stdout.as_str(), o.stderr.as_str()), ("42\n", "err\n"));
    until("nothing is left", || remains(e, &id).is_empty());
}

fn exit_codes(e: &Engine) {
    for (code, script) in
        [(0, "true"), (1, "false"), (7, "exit 7"), (255, "exit 255"), (143, "sh -c 'kill $$'; exit $?")]
    {
        let o = Ctr(e).run(&[], &["sh", "-c", script]);
        assert_eq!(o.code(), code, "{script}: {}", o.stderr);
    }
    for (args, words) in [
        (["missing"], "exec: \"missing\": executable file not found in $PATH"),
        (["/missing"], "exec: \"/missing\": stat /missing: no such file or directory"),
        (["/etc/passwd"], "exec: \"/etc/passwd\": permission denied"),
    ] {
        Ctr(e).run(&[], &args).fails(words);
    }
}

fn stdin_is_read_to_its_end(e: &Engine) {
    let mut c = Ctr(e).run_command(&new_id(), &["--rm"], &["wc", "-c"]);
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ctr starts");
    child.stdin.take().expect("a pipe").write_all(&[b'x'; 300_000]).expect("it reads");
    let o = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&o.stdout).trim(), "300000");
}

fn null_io(e: &Engine) {
    let o = Ctr(e).run(&["--null-io"], &["sh", "-c", "echo seen; exit 3"]);
    assert_eq!((o.code(), o.stdout.as_str()), (3, ""));
}

// The container lives until its log is read: containerd's shim (pkg/process/io.go, copyPipes) closes the file when stdout
// ends, and loses what stderr still holds then.
fn log_uri(e: &Engine) {
    let log = e.dir.join("uri.log");
    let uri = format!("file://{}", log.display());
    let c = Ctr(e).detached(&["--log-uri", &uri], &["sh", "-c", "echo out; echo err >&2; exec sleep 1000"]);
    until("the log is written", || {
        fs::read_to_string(&log).is_ok_and(|t| t.contains("out\n") && t.contains("err\n"))
    });
    c.remove();
}

fn pid_file(e: &Engine) {
    let file = e.dir.join("pid");
    let c = Ctr(e).sleeping(&["--pid-file", file.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_to_string(&file).expect("the file").trim(), c.pid().to_string());
    c.remove();
}

fn env_and_cwd(e: &Engine) {
    let file = e.dir.join("env");
    fs::write(&file, "FROM_FILE=2 words\n").expect("write");
    let options = ["--env", "A=1 b", "--env-file", file.to_str().expect("UTF-8"), "--cwd", "/made/here"];
    let seen = Ctr(e).prints(
        &options,
        "echo \"$A|$FROM_FILE|$PWD\"; env | grep -c -e TTRPC -e NOTIFY -e GOMAXPROCS; true",
    );
    assert_eq!(seen, "1 b|2 words|/made/here\n0");
}

fn mounts(e: &Engine) {
    let dir = e.dir.join("mounted");
    fs::create_dir(&dir).expect("mkdir");
    let bind = |to, options| format!("type=bind,src={},dst={to},options={options}", dir.display());
    let (rw, ro) = (bind("/rw", "rbind:rw"), bind("/deep/ro", "rbind:ro:nosuid:noexec"));
    let tmpfs = "type=tmpfs,src=tmpfs,dst=/scratch,options=size=1m:mode=0711";
    let seen = Ctr(e).prints(
        &["--mount", &rw, "--mount", &ro, "--mount", tmpfs],
        "echo in > /rw/file && cat /deep/ro/file; touch /deep/ro/x 2>&1; stat -c %a /scratch;
         sed -n 's/.* \\/deep\\/ro ext4 \\([a-z,]*\\),rel.*/\\1/p' /proc/mounts; df -k /scratch | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2",
    );
    assert!(seen.starts_with("in\ntouch: /deep/ro/x: Read-only file system\n711\n"), "{seen}");
    assert!(seen.ends_with("\n1024"), "{seen}");
    assert_eq!(fs::read_to_string(dir.join("file")).expect("the host sees it"), "in\n");
}

fn read_only(e: &Engine) {
    let seen = Ctr(e).prints(&["--read-only"], "touch /x 2>&1; touch /dev/shm/y && echo shm");
    assert_eq!(seen, "touch: /x: Read-only file system\nshm");
}

fn rootfs(e: &Engine) {
    let dir = e.dir.join("custom-rootfs");
    fs::create_dir(&dir).expect("mkdir");
    make_rootfs(&dir);
    fs::write(dir.join("mark"), "of its own").expect("write");
    let args = [dir.to_str().expect("UTF-8"), &new_id(), "/bin/sh", "-c", "cat /mark; echo back > /back"];
    let o = finish(&mut Ctr(e).run_of(&[&["--rm", "--rootfs"][..], &args].concat()));
    assert_eq!(o.ok().stdout, "of its own");
    assert_eq!(fs::read_to_string(dir.join("back")).expect("it is there"), "back\n");
}

fn rootfs_propagation(e: &Engine) {
    // The optional fields of the root's line: whose peer or slave it is.
    let script = "sed -n 's/^[^/]*\\/[^ ]* \\/ [^ ]* \\([^-]*\\)-.*/<\\1/p' /proc/self/mountinfo | head -n 1";
    assert!(Ctr(e).prints(&["--rootfs-propagation", "shared"], script).contains("<shared"));
    assert_eq!(Ctr(e).prints(&["--rootfs-propagation", "private"], script), "<");
}

fn no_pivot(e: &Engine) {
    assert_eq!(Ctr(e).prints(&["--no-pivot"], "cat /etc/readable; ls -d /proc/1"), "from the image\n/proc/1");
}

/// `ctr run --config`: the caller's config.json as it is.
fn config_of_the_runtime(e: &Engine) {
    let dir = e.dir.join("own-config");
    fs::create_dir_all(dir.join("rootfs")).expect("mkdir");
    make_rootfs(&dir.join("rootfs"));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/config.json.example");
    let mut spec: Value = serde_json::from_str(&fs::read_to_string(example).expect("read")).expect("JSON");
    spec["root"]["path"] = dir.join("rootfs").to_str().into();
    spec["process"]["args"] = json!(["sh", "-c", "hostname; cat /proc/self/oom_score_adj"]);
    spec["process"]["terminal"] = json!(false);
    spec["process"]["oomScoreAdj"] = json!(321);
    spec["hostname"] = json!("of-the-config");
    let file = dir.join("config.json");
    fs::write(&file, spec.to_string()).expect("write");
    let args = ["--rm", "--config", file.to_str().expect("UTF-8"), &new_id()];
    assert_eq!(finish(&mut Ctr(e).run_of(&args)).ok().stdout, "of-the-config\n321\n");
}

fn memory_limit(e: &Engine) {
    let c = Ctr(e).sleeping(&["--memory-limit", "33554432"]);
    assert_eq!(c.cgroup_file("memory", "memory.limit_in_bytes"), "33554432");
    c.remove();
}

fn cpus(e: &Engine) {
    for (options, period, quota, shares) in [
        (&["--cpus", "0.5", "--cpu-shares", "512"][..], "100000", "50000", "512"),
        (&["--cpu-period", "20000", "--cpu-quota", "5000"], "20000", "5000", "1024"),
    ] {
        let c = Ctr(e).sleeping(options);
        let seen = ["cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.shares"].map(|f| c.cgroup_file("cpu", f));
        assert_eq!(seen, [period, quota, shares]);
        c.remove();
    }
}

fn cgroup(e: &Engine) {
    let path = format!("{}/deep/er-{}", e.cgroup, new_id());
    let seen = Ctr(e).prints(&["--cgroup", &path], "cat /proc/self/cgroup");
    for controller in ["memory", "cpu", "devices", "name=systemd"] {
        assert!(seen.contains(&format!("{controller}:{path}\n")), "{path} is not in {seen}");
    }
    until("the cgroup is gone", || !Path::new("/sys/fs/cgroup/pids").join(&path[1..]).exists());
}

fn devices(e: &Engine) {
    // Not among those that every container may use, which are to be refused.
    let seen = Ctr(e).prints(
        &["--device", "/dev/fuse", "--cap-add", "CAP_MKNOD"],
        "stat -c '%F %t:%T' /dev/fuse; mknod /tty b 1 0 && cat /tty 2>&1; head -c 3 /dev/zero | wc -c",
    );
    let number = fs::metadata("/dev/fuse").expect("fuse").rdev();
    let number = format!("{:x}:{:x}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
    assert_eq!(
        seen,
        format!("character special file {number}\ncat: can't open '/tty': Operation not permitted\n3")
    );
}

fn capabilities(e: &Engine) {
    const DEFAULT: u64 = 0xa804_25fb;
    const SYS_ADMIN: u64 = 1 << 21;
    const CHOWN: u64 = 1;
    for (options, want) in [
        (&[][..], DEFAULT),
        (&["--cap-add", "CAP_SYS_ADMIN"], DEFAULT | SYS_ADMIN),
        (&["--cap-drop", "CAP_CHOWN"], DEFAULT & !CHOWN),
    ] {
        let c = Ctr(e).sleeping(options);
        let script = "grep -e CapPrm -e CapEff -e CapBnd /proc/self/status | cut -f 2";
        let want = vec![format!("{want:016x}"); 3].join("\n");
        assert_eq!(c.prints(script), want, "{options:?}");
        assert_eq!(c.prints(&script.replace("self", "1")), want, "{options:?}");
        c.remove();
    }
}

fn seccomp(e: &Engine) {
    let c = Ctr(e).sleeping(&["--seccomp"]);
    let script = "grep Seccomp: /proc/1/status /proc/self/status | cut -f 2; unshare -m true 2>&1";
    assert_eq!(
        c.prints(&format!("{script}; true")),
        "2\n2\nunshare: unshare(0x20000): Operation not permitted"
    );
    c.remove();
    let profile = e.dir.join("seccomp.json");
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 125}]);
    let rules =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
    fs::write(&profile, rules.to_string()).expect("write");
    let options = ["--seccomp", "--seccomp-profile", profile.to_str().expect("UTF-8")];
    assert_eq!(
        Ctr(e).prints(&options, "mkdir /x 2>&1; true"),
        "mkdir: can't create directory '/x': Operation canceled"
    );
}

fn new_privileges(e: &Engine) {
    let script = "grep NoNewPrivs /proc/self/status | cut -f 2";
    assert_eq!(Ctr(e).prints(&[], script), "1");
    assert_eq!(Ctr(e).prints(&["--allow-new-privs"], script), "0");
}

fn privileged(e: &Engine) {
    let script = "mount -t tmpfs none /tmp && echo mounted; grep -c ' /proc/sys ' /proc/mounts; head -c 1 /proc/kcore | wc -c; ls /dev | wc -l";
    let seen = Ctr(e).prints(&["--privileged"], script);
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..2], ["mounted", "0"], "{seen}");
}

fn net_host(e: &Engine) {
    let ours = fs::read_link("/proc/self/ns/net").expect("ours").display().to_string();
    assert_eq!(Ctr(e).prints(&["--net-host"], "readlink /proc/self/ns/net"), ours);
    assert_ne!(Ctr(e).prints(&[], "readlink /proc/self/ns/net"), ours);
}

fn with_ns(e: &Engine) {
    let first = Ctr(e).sleeping(&[]);
    let path = |ns: &str| format!("{ns}:/proc/{}/ns/{}", first.pid(), ns.trim_end_matches("work"));
    let namespaces = ["network", "ipc", "pid"].map(path);
    let options: Vec<_> = namespaces.iter().flat_map(|n| ["--with-ns", n.as_str()]).collect();
    let second = Ctr(e).sleeping(&options);
    let script = "for n in net ipc pid uts mnt; do readlink /proc/self/ns/$n; done";
    let (a, b) = (first.prints(script), second.prints(script));
    let same: Vec<_> = a.lines().zip(b.lines()).map(|(a, b)| a == b).collect();
    assert_eq!(same, [true, true, true, false, false], "{a} {b}");
    // In the first one's pid namespace, the second's end does not end what it started: `kill --all` does.
    second.exec(&["--detach"], &["sleep", "2000"]).ok();
    until("it runs", || first.prints("ps").contains("sleep 2000"));
    second.remove();
    until("its processes are gone", || !first.prints("ps").contains("sleep 2000"));
    second.is_gone();
    first.remove();
}

fn user_namespace(e: &Engine) {
    let maps = ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"];
    let c = Ctr(e).sleeping(&maps);
    assert_eq!(
        c.prints("id -u; cat /proc/self/uid_map | tr -s ' '; stat -c %u /etc/passwd"),
        "0\n 0 100000 65536\n0"
    );
    let process = fs::metadata(format!("/proc/{}", c.pid())).expect("its process");
    assert_eq!((process.uid(), process.gid()), (100_000, 200_000));
    c.remove();
}

fn annotations_reach_the_state(e: &Engine) {
    let c = Ctr(e).sleeping(&["--annotation", "org.example.key=a value"]);
    let root = Path::new(STATE).join(&e.cgroup[1..]);
    let state = finish(Command::new(&e.program).arg("--root").arg(root).args(["state", &c.id])).ok().json();
    assert_eq!(state["annotations"]["org.example.key"], "a value");
    assert_eq!(state["pid"], c.pid());
    c.remove();
}

fn oom_event(e: &Engine) {
    let events = e.dir.join("events");
    let mut listener = Ctr(e).command(["events"]);
    let mut listener =
        listener.stdout(fs::File::create(&events).expect("create")).spawn().expect("ctr events");
    // Something must be seen before, or the listener might not listen yet.
    until("it listens", || {
        Ctr(e).run(&[], &["true"]).ok();
        fs::read_to_string(&events).expect("read").contains("/tasks/exit")
    });
    // Not before the shim watches.
    let script = "until [ -e /go ]; do sleep 0.02; done; exec dd if=/dev/zero of=/dev/null bs=200M count=1";
    let c = Ctr(e).detached(&["--memory-limit", "20971520"], &["sh", "-c", script]);
    c.exec(&[], &["sh", "-c", ": > /go"]).ok();
    c.await_status("STOPPED");
    until("the event", || {
        let text = fs::read_to_string(&events).expect("read");
        text.lines().any(|l| l.contains("/tasks/oom") && l.contains(&c.id))
    });
    let deleted = c.task("delete", &[], &[]);
    assert!(deleted.stderr.contains("exit code 137"), "{}", deleted.stderr);
    c.remove_container();
    let _ = listener.kill();
    let _ = listener.wait();
}

fn fifty_at_once(e: &Engine) {
    std::thread::scope(|s| {
        let runs: Vec<_> = (0..50)
            .map(|n| s.spawn(move || (n, Ctr(e).run(&[], &["sh", "-c", &format!("echo {n}; exit {n}")]))))
            .collect();
        for run in runs {
            let (n, o) = run.join().expect("it ends");
            assert_eq!((o.code(), o.stdout.trim()), (n, n.to_string().as_str()), "{}", o.stderr);
        }
    });
    let mounts = sh("grep -c containerd.task.v2 /proc/self/mountinfo || true").stdout;
    assert_eq!(mounts.trim(), "0");
}
