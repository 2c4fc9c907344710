//! The process: user, capabilities, seccomp, terminal, environment; the same by exec.

use super::{Container, command, podman, prints, run, says};
use crate::image::NAME;
use crate::support::{finish, until};
use crate::world::{Engine, sh};
use crate::{Check, check};
use std::fs;
use std::process::Command;

pub const CHECKS: &[Check] = &[
    check!(users_and_groups),
    check!(passwd_has_the_user),
    check!(capabilities),
    check!(capabilities_of_exec),
    check!(privileged),
    check!(seccomp),
    check!(seccomp_profile_of_the_users_own),
    check!(no_new_privileges),
    check!(environment),
    check!(working_directory_and_umask),
    check!(init_reaps),
    check!(terminal),
    check!(terminal_of_exec),
    check!(exec_options),
    check!(exec_detached),
    check!(preserve_fds),
    check!(sysctl),
    check!(hostname_and_hosts),
    check!(systemd_mode),
    check!(sd_notify_by_conmon),
    check!(sd_notify_by_the_container),
    check!(entrypoint),
    check!(no_descriptor_is_left),
];

fn users_and_groups(e: &Engine) {
    for (options, ids) in [
        (&["--user", "user"][..], "1000 1000 1000 2000"),
        (&["--user", "1000:0"], "1000 0 0"),
        (&["--user", "1234:5"], "1234 5 5"),
        (&["--user", "user", "--group-add", "77", "--group-add", "extra"], "1000 1000 1000 2000 77"),
        (&["--group-add", "extra"], "0 0 0 2000"),
    ] {
        let mut printed: Vec<_> =
            prints(e, options, "id -u; id -g; id -G").split_whitespace().map(String::from).collect();
        printed[2..].sort();
        let mut expected: Vec<_> = ids.split(' ').collect();
        expected[2..].sort_unstable();
        assert_eq!(printed, expected, "{options:?}");
    }
    assert_eq!(run(e, &["--user", "nobody-like-that"], "true").code(), 126);
}

fn passwd_has_the_user(e: &Engine) {
    let script = "tail -n 1 /etc/passwd";
    assert!(prints(e, &["--user", "1234:5"], script).starts_with("1234:*:1234:5:"));
    assert!(prints(e, &["--user", "1234:5", "--passwd=false"], script).starts_with("user:"));
}

const STATUS: &str = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f 2 | tr '\\n' ' '";

fn capabilities(e: &Engine) {
    for (options, sets) in [
        (&["--cap-drop", "ALL"][..], [0, 0, 0, 0]),
        (&["--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "NET_ADMIN"], [0x1001, 0x1001, 0x1001, 0]),
        (&["--user", "user", "--cap-drop", "ALL", "--cap-add", "CHOWN"], [1, 1, 1, 1]),
        (&["--user", "user", "--cap-drop", "ALL"], [0, 0, 0, 0]),
    ] {
        let printed = prints(e, options, STATUS);
        let got: Vec<_> =
            printed.split_whitespace().map(|s| u64::from_str_radix(s, 16).expect("hex")).collect();
        assert_eq!(got[1..], sets, "{options:?}");
    }
    assert_eq!(prints(e, &["--cap-drop", "CHOWN"], "chown 1 /tmp 2>/dev/null; echo $?"), "1");
    assert_eq!(prints(e, &["--cap-add", "NET_ADMIN"], "ip link set lo down; echo $?"), "0");
}

fn capabilities_of_exec(e: &Engine) {
    let c = Container::sleeping(e, "caps_of_exec", &["--cap-drop", "ALL", "--cap-add", "CHOWN"]);
    let bounding = |options: &[&str]| {
        let printed = c.exec(options, STATUS).ok().stdout;
        printed.split_whitespace().map(|s| u64::from_str_radix(s, 16).expect("hex")).collect::<Vec<_>>()
    };
    assert_eq!(bounding(&[])[1..], [1, 1, 1, 0]);
    assert_eq!(bounding(&["--user", "user"])[2..4], [0, 1]);
    let all = bounding(&["--privileged"])[2];
    assert!(all & 1 << 21 != 0, "{all:x}");
}

fn privileged(e: &Engine) {
    let ours = fs::read_to_string("/proc/self/status").expect("status");
    let ours = ours.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).expect("our capabilities").to_string();
    let script = "grep CapEff /proc/self/status | cut -f 2; grep Seccomp: /proc/self/status | cut -f 2; echo 1 >/proc/sys/net/ipv4/ip_forward && mount -t tmpfs x /mnt 2>&1; grep -c ' /proc/' /proc/self/mountinfo";
    let printed = prints(e, &["--privileged", "--tmpfs", "/mnt"], &format!("{script} || true"));
    assert_eq!(printed, format!("{ours}\n0\n0"));
}

fn seccomp(e: &Engine) {
    let script = "grep Seccomp: /proc/self/status | cut -f 2";
    assert_eq!(prints(e, &[], script), "2");
    assert_eq!(prints(e, &["--security-opt", "seccomp=unconfined"], script), "0");
    let c = Container::sleeping(e, "seccomp", &[]);
    assert_eq!(c.prints(script), "2");
}

fn seccomp_profile_of_the_users_own(e: &Engine) {
    let file = e.dir.join("seccomp.json");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
        {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#;
    fs::write(&file, profile).expect("write");
    let option = format!("seccomp={}", file.display());
    let options = ["--security-opt", &option, "--cap-add", "SYS_ADMIN"];
    let o = run(e, &options, "mkdir /x; sh -c 'hostname x'; echo $?");
    assert!(o.stderr.contains("mkdir: can't create directory '/x': Operation not supported"), "{o:?}");
    assert_eq!(o.stdout, "159\n");
}

fn no_new_privileges(e: &Engine) {
    let script = "grep NoNewPrivs /proc/self/status | cut -f 2";
    assert_eq!(prints(e, &[], script), "0");
    assert_eq!(prints(e, &["--security-opt", "no-new-privileges"], script), "1");
    let c = Container::sleeping(e, "no_new_privileges", &["--security-opt", "no-new-privileges"]);
    assert_eq!(c.prints(script), "1");
}

fn environment(e: &Engine) {
    let file = e.dir.join("env");
    fs::write(&file, "THREE=3\n").expect("write");
    let options = ["--env", "ONE=1", "--env", "TWO=a b", "--env-file", file.to_str().expect("UTF-8")];
    let printed = prints(e, &options, "echo $ONE $TWO $THREE $HOME $container; env | wc -l");
    assert_eq!(printed, "1 a b 3 /root podman\n10");
    assert_eq!(prints(e, &["--user", "user"], "echo $HOME"), "/home/user");
    // What the runtime itself was called with stays outside.
    let environ =
        "tr '\\0' '\\n' </proc/1/environ | grep -cE '^(_OCI|XDG|TMPDIR|LISTEN|NOTIFY|CARGO)' || true";
    assert_eq!(prints(e, &[], environ), "0");
}

fn working_directory_and_umask(e: &Engine) {
    assert_eq!(prints(e, &["--workdir", "/etc", "--umask", "0077"], "pwd; umask"), "/etc\n0077");
    assert_eq!(prints(e, &[], "pwd; umask"), "/\n0022");
    let c = Container::sleeping(e, "umask", &["--workdir", "/tmp"]);
    assert_eq!(c.prints("pwd; umask"), "/tmp\n0022");
}

fn init_reaps(e: &Engine) {
    let c = Container::running(e, "init_reaps", &["--init"], "sh -c 'sleep 0.1 &'; exec sleep 1000");
    assert_eq!(c.prints("cat /proc/1/comm"), "podman-init");
    until("the orphan's end", || c.prints("grep -l '(sleep)' /proc/[0-9]*/stat | wc -l") == "1");
    assert_eq!(c.prints("grep -l ^State:.Z /proc/[0-9]*/status 2>/dev/null | wc -l"), "0");
    c.verb("stop", &[]).ok();
    assert_eq!(c.inspect(".State.ExitCode"), "143");
}

/// With a terminal from script(1), of this size.
#[track_caller]
fn in_a_terminal(e: &Engine, args: &[&str]) -> String {
    let inner = command(e, args);
    let words: Vec<_> = std::iter::once(inner.get_program()).chain(inner.get_args()).collect();
    let quoted: Vec<_> =
        words.iter().map(|w| format!("'{}'", w.to_str().expect("UTF-8").replace('\'', r"'\''"))).collect();
    let line = format!("stty rows 33 cols 77; exec {}", quoted.join(" "));
    let mut c = Command::new("script");
    c.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(&e.dir);
    // script(1) passes an end of its input on as ^D: it gets none.
    let (reader, _writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("pipe");
    finish(c.stdin(reader)).ok().stdout.replace('\r', "")
}

/// podman sets the size once the process runs; without one, stty complains.
const SIZE: &str = "tty; until [ \"$(stty size 2>/dev/null)\" = '33 77' ]; do sleep 0.05; done; stty size; test -t 0 && test -t 2; echo $?";

fn terminal(e: &Engine) {
    let script = format!("{SIZE}; stat -c %t:%T /dev/console; echo $TERM");
    let printed = in_a_terminal(e, &["run", "--rm", "-it", NAME, "sh", "-c", &script]);
    assert!(printed.starts_with("/dev/pts/0\n33 77\n0\n88:") && printed.ends_with("xterm\n"), "{printed:?}");
    // Without a terminal here, there is one inside all the same.
    assert_eq!(prints(e, &["-t"], "tty"), "/dev/pts/0");
    assert_eq!(prints(e, &[], "tty || true"), "not a tty");
}

fn terminal_of_exec(e: &Engine) {
    let c = Container::sleeping(e, "terminal_of_exec", &[]);
    let printed = in_a_terminal(e, &["exec", "-it", c.name, "sh", "-c", SIZE]);
    assert_eq!(printed, "/dev/pts/0\n33 77\n0\n");
    let printed =
        in_a_terminal(e, &["exec", "-it", "--user", "user", c.name, "sh", "-c", "stat -c %u $(tty)"]);
    assert_eq!(printed, "1000\n");
}

fn exec_options(e: &Engine) {
    let c = Container::sleeping(e, "exec_options", &["--env", "A=run"]);
    let options = ["--env", "B=exec", "--workdir", "/tmp", "--user", "user:extra"];
    let printed = c.exec(&options, "echo $A $B; pwd; id -u; id -g").ok().stdout;
    assert_eq!(printed, "run exec\n/tmp\n1000\n2000\n");
    let o = c.exec(&["--workdir", "/missing"], "pwd");
    assert!(!o.status.success(), "{o:?}");
    assert_eq!(c.prints("cat /proc/self/cgroup | grep pids:"), c.prints("cat /proc/1/cgroup | grep pids:"));
    assert_eq!(c.prints("ls -l /proc/self/ns | sed s/.*://"), c.prints("ls -l /proc/1/ns | sed s/.*://"));
}

fn exec_detached(e: &Engine) {
    let c = Container::sleeping(e, "exec_detached", &[]);
    c.exec(&["--detach"], "echo done >/tmp/done; sleep 1000").ok();
    until("the file", || c.prints("cat /tmp/done 2>/dev/null || true") == "done");
    let session = c.inspect("(index .ExecIDs 0)");
    assert_eq!(session.len(), 64, "{session}");
}

fn preserve_fds(e: &Engine) {
    let file = e.dir.join("preserved");
    fs::write(&file, "by descriptor").expect("write");
    let c = Container::sleeping(e, "preserve_fds", &[]);
    let script = format!("exec 3<{}; exec \"$@\"", file.display());
    for args in [
        &["run", "--rm", "--preserve-fds", "1", NAME, "sh", "-c", "cat <&3"][..],
        &["exec", "--preserve-fds", "1", c.name, "sh", "-c", "cat <&3"],
    ] {
        let inner = command(e, args);
        let mut outer = Command::new("sh");
        outer.args(["-c", &script, "sh"]).arg(inner.get_program()).args(inner.get_args()).current_dir(&e.dir);
        assert_eq!(finish(&mut outer).ok().stdout, "by descriptor", "{args:?}");
    }
}

fn sysctl(e: &Engine) {
    let options = [
        "--sysctl",
        "net.ipv4.ip_forward=0",
        "--sysctl",
        "kernel.msgmax=9000",
        "--sysctl",
        "net.core.somaxconn=99",
    ];
    let script = "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax net/core/somaxconn";
    assert_eq!(prints(e, &options, script), "0\n9000\n99");
    let o = run(e, &["--sysctl", "kernel.pid_max=9999"], "true");
    assert!(!o.status.success(), "{o:?}");
}

fn hostname_and_hosts(e: &Engine) {
    let options = [
        "--hostname",
        "deck",
        "--add-host",
        "other:192.0.2.1",
        "--dns",
        "192.0.2.53",
        "--dns-search",
        "example",
    ];
    let printed =
        prints(e, &options, "hostname; cat /etc/hostname; echo; grep other /etc/hosts; cat /etc/resolv.conf");
    let words: Vec<_> = printed.split_whitespace().collect();
    assert_eq!(
        words,
        ["deck", "deck", "192.0.2.1", "other", "search", "example", "nameserver", "192.0.2.53"]
    );
}

fn systemd_mode(e: &Engine) {
    let script = "grep -E ' (/run|/run/lock|/tmp|/sys/fs/cgroup/systemd) ' /proc/self/mountinfo | cut -d ' ' -f 5-6 | grep -c ' rw,'";
    assert_eq!(prints(e, &["--systemd", "always"], script), "4");
    assert_eq!(prints(e, &["--systemd", "false"], &format!("{script} || true")), "0");
}

/// A container of which a service manager hears that it is ready, and by which process, while podman starts it.
fn notified<'a>(e: &'a Engine, name: &'a str, mode: &str, script: &str) -> Container<'a> {
    let path = e.dir.join(format!("{name}.sock"));
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("bind");
    socket.set_read_timeout(Some(crate::support::patience())).expect("a time limit");
    let c = Container { engine: e, name };
    let mut run = command(e, &["run", "-d", "--name", c.name, "--sdnotify", mode, NAME, "sh", "-c", script]);
    // A container that does not say that it is ready yet holds `run` back.
    let mut child =
        run.env("NOTIFY_SOCKET", &path).stdout(std::process::Stdio::null()).spawn().expect("podman");
    let mut heard = String::new();
    // The container's own word may overtake podman's.
    while !(heard.contains("READY=1") && heard.contains("MAINPID=")) {
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).unwrap_or_else(|err| panic!("{err} after {heard:?}"));
        heard += &String::from_utf8_lossy(&buffer[..n]);
        heard.push('\n');
    }
    assert!(child.wait().expect("wait").success());
    c
}

fn sd_notify_by_conmon(e: &Engine) {
    let c = notified(e, "notify_conmon", "conmon", "echo socket: $NOTIFY_SOCKET; sleep 1000");
    until("its word", || says(e, &["logs", c.name]) == "socket:");
}

fn sd_notify_by_the_container(e: &Engine) {
    // The applet that writes a datagram to a socket is logger, and it knows one place.
    let script = "ln -s $NOTIFY_SOCKET /dev/log; logger \"$(printf 'x\\nREADY=1')\"; sleep 1000";
    let c = notified(e, "notify_container", "container", script);
    assert_eq!(c.status(), "running");
}

fn entrypoint(e: &Engine) {
    let o = podman(e, &["run", "--rm", "--entrypoint", r#"["echo", "first"]"#, NAME, "second"]).ok();
    assert_eq!(o.stdout, "first second\n");
    let o = podman(
        e,
        &["run", "--rm", "--label", "a=b", "--annotation", "c=d", "--env", "PATH=/nowhere", NAME, "true"],
    );
    assert_eq!(o.code(), 127, "{o:?}");
}

fn no_descriptor_is_left(e: &Engine) {
    let script = "ls /proc/self/fd | tr '\\n' ' '";
    // The last one is that of ls itself.
    assert_eq!(prints(e, &[], script), "0 1 2 3");
    let c = Container::sleeping(e, "descriptors", &[]);
    assert_eq!(c.prints(script), "0 1 2 3");
    assert_eq!(sh(&format!("ls /proc/{}/fd | tr '\\n' ' '", c.pid())).stdout, "0 1 2 ");
}
