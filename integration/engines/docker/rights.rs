//! Users, capabilities, seccomp, and what a privileged container may.

use super::{container, prints, run, script};
use crate::image::NAME;
use crate::world::Engine;
use crate::{Check, check};
use std::fs;

pub const CHECKS: &[Check] = &[
    check!(users),
    check!(groups),
    check!(capabilities),
    check!(capabilities_of_an_ordinary_user),
    check!(seccomp_default),
    check!(seccomp_unconfined),
    check!(seccomp_custom),
    check!(no_new_privileges),
    check!(set_user_id_programs),
    check!(privileged).cannot("no CAP_SYS_RESOURCE for all capabilities"),
    check!(exec_privileged).cannot("no CAP_SYS_RESOURCE for all capabilities"),
    check!(init_process),
];

fn users(_: &Engine) {
    for (user, ids) in [
        ("user", "1000 1000"),
        ("1000", "1000 1000"),
        ("1234", "1234 0"),
        ("1234:77", "1234 77"),
        ("user:extra", "1000 2000"),
        ("root", "0 0"),
    ] {
        assert_eq!(prints(&["--user", user], "echo $(id -u) $(id -g)"), ids, "{user}");
    }
    let text = "touch /tmp/mine && stat -c %u /tmp/mine; touch /mine";
    let o = script(&["--user", "user"], text);
    assert_eq!(o.stdout, "1000\n");
    assert!(o.stderr.contains("Permission denied"), "{}", o.stderr);
    assert_eq!(prints(&["--user", "1000", "--tty"], ": > /dev/tty && echo writes").trim(), "writes");
}

fn groups(_: &Engine) {
    assert_eq!(prints(&["--user", "user"], "id -G"), "1000 2000");
    let o = prints(&["--user", "1234:77", "--group-add", "extra", "--group-add", "999"], "id -G");
    let mut ids: Vec<_> = o.split(' ').collect();
    ids.sort_unstable();
    assert_eq!(ids, ["2000", "77", "999"]);
}

const CAPS: &str = "grep ^Cap /proc/self/status | cut -f 2 | tr '\\n' ' '";

#[track_caller]
fn caps(options: &[&str]) -> Vec<u64> {
    let text = prints(options, CAPS);
    // Inheritable, permitted, effective, bounding, ambient.
    text.split_whitespace().map(|w| u64::from_str_radix(w, 16).expect("hexadecimal")).collect()
}

fn capabilities(_: &Engine) {
    const DEFAULT: u64 = 0xa804_25fb;
    const NET_ADMIN: u64 = 1 << 12;
    const CHOWN: u64 = 1;
    for (options, all) in [
        (&[][..], DEFAULT),
        (&["--cap-drop", "ALL"], 0),
        (&["--cap-drop", "CHOWN"], DEFAULT & !CHOWN),
        (&["--cap-add", "NET_ADMIN"], DEFAULT | NET_ADMIN),
        (&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "CHOWN"], NET_ADMIN | CHOWN),
    ] {
        assert_eq!(caps(options), [0, all, all, all, 0], "{options:?}");
    }
    assert_eq!(
        prints(&["--cap-add", "NET_ADMIN"], "ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu"),
        "1400"
    );
    assert!(script(&[], "ip link set lo mtu 1400").stderr.contains("Operation not permitted"));
}

fn capabilities_of_an_ordinary_user(_: &Engine) {
    let of = caps(&["--user", "1000", "--cap-add", "NET_ADMIN"]);
    assert_eq!((of[1], of[2], of[3]), (0, 0, 0xa804_25fb | 1 << 12), "{of:x?}");
}

const SECCOMP: &str = "grep ^Seccomp: /proc/self/status | cut -f 2";

fn seccomp_default(_: &Engine) {
    assert_eq!(prints(&[], SECCOMP), "2");
    // The default profile has no unshare without CAP_SYS_ADMIN, not even of a user namespace.
    let o = script(&[], "unshare -U true");
    assert!(o.stderr.contains("Operation not permitted"), "{}", o.stderr);
    assert_eq!(prints(&["--cap-add", "SYS_ADMIN"], "unshare -U true && echo passes"), "passes");
}

fn seccomp_unconfined(_: &Engine) {
    let options = ["--security-opt", "seccomp=unconfined"];
    assert_eq!(prints(&options, SECCOMP), "0");
    assert_eq!(prints(&options, "unshare -U true && echo passes"), "passes");
}

fn seccomp_custom(e: &Engine) {
    let profile = |rules: &str| {
        let file = e.dir.join("tmp").join(format!("profile-{}", crate::support::unique()));
        fs::write(&file, format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rules}]}}"#))
            .expect("write");
        format!("seccomp={}", file.display())
    };
    let rule = profile(r#"{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}"#);
    let o = script(&["--security-opt", &rule], "echo before; mkdir /x");
    assert!(
        o.stdout == "before\n" && o.stderr.contains("Operation not permitted"),
        "{}{}",
        o.stdout,
        o.stderr
    );
    let rule = profile(r#"{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}"#);
    let o = script(&["--security-opt", &rule], "mkdir /x");
    assert!(o.stderr.contains("No space left on device"), "{}", o.stderr);
    let rule = profile(r#"{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_KILL_PROCESS"}"#);
    let o = script(&["--security-opt", &rule], "mkdir /x; echo $?");
    assert_eq!(o.stdout, "159\n", "{}", o.stderr);
    let args = r#"[{"index":1,"value":448,"op":"SCMP_CMP_EQ"}]"#;
    let rule = profile(&format!(r#"{{"names":["chmod"],"action":"SCMP_ACT_ERRNO","args":{args}}}"#));
    let o = script(&["--security-opt", &rule], "chmod 755 /tmp && echo one; chmod 700 /tmp || echo other");
    assert_eq!(o.stdout, "one\nother\n", "{}", o.stderr);
}

fn no_new_privileges(_: &Engine) {
    let shown = "grep ^NoNewPrivs /proc/self/status | cut -f 2";
    assert_eq!(prints(&[], shown), "0");
    assert_eq!(prints(&["--security-opt", "no-new-privileges"], shown), "1");
}

fn set_user_id_programs(_: &Engine) {
    let c = container(&[], "cp /bin/busybox /su; chmod 4755 /su; sleep 1000");
    crate::support::until("the program", || c.exec_with(&[], "test -u /su").status.success());
    let image = format!("localhost/suid:{}", c.id);
    run(&["commit", &c.id, &image]).ok();
    let of = |options: &[&str]| {
        let args = [&["run", "--rm", "--user", "1000"], options, &[&image, "/su", "-c", "id -u"]].concat();
        run(&args)
    };
    let (may, may_not) = (of(&[]), of(&["--security-opt", "no-new-privileges"]));
    run(&["rmi", &image]).ok();
    assert!(!may.stderr.contains("must be suid"), "{}{}", may.stdout, may.stderr);
    assert!(may_not.stderr.contains("must be suid"), "{}{}", may_not.stdout, may_not.stderr);
}

/// What we own of what Docker knows; 20.10 knows nothing after CAP_AUDIT_READ.
fn all() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|l| l.strip_prefix("CapBnd:\t")).expect("CapBnd");
    let known = caps(&["--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE"])[3] | 1 << 24;
    u64::from_str_radix(line, 16).expect("hexadecimal") & known
}

fn privileged(_: &Engine) {
    let of = caps(&["--privileged"]);
    assert_eq!((of[1], of[2], of[3]), (all(), all(), all()), "{of:x?}");
    assert_eq!(prints(&["--privileged"], SECCOMP), "0");
    let text = "mount -t tmpfs none /tmp && echo mounts; : > /proc/sys/net/ipv4/ip_forward && echo writes; \
                ls -d /dev/kmsg /dev/loop-control; grep -c ' /proc/sys ' /proc/mounts; \
                mkdir /sys/fs/cgroup/pids/x && rmdir /sys/fs/cgroup/pids/x && echo delegates; \
                mknod /dev/k c 10 237 && (: < /dev/k) && echo reads";
    let o = script(&["--privileged"], text);
    let expected = "mounts\nwrites\n/dev/kmsg\n/dev/loop-control\n0\ndelegates\nreads\n";
    assert_eq!(o.stdout, expected, "{}", o.stderr);
    let c = container(&["--privileged"], "sleep 1000");
    assert_eq!(c.exec(CAPS).split(' ').nth(2), Some(format!("{:016x}", all()).as_str()));
}

fn exec_privileged(_: &Engine) {
    let c = container(&[], "sleep 1000");
    let o = c.exec_with(&["--privileged"], CAPS).ok();
    assert_eq!(o.stdout.split(' ').nth(2), Some(format!("{:016x}", all()).as_str()));
    assert_eq!(c.exec(CAPS).split(' ').nth(2), Some("00000000a80425fb"));
}

fn init_process(_: &Engine) {
    let c = container(&["--init"], "sh -c 'sleep 0.1 &'; sleep 1000");
    assert_eq!(c.exec("cat /proc/1/cmdline | tr '\\0' ' ' | cut -d ' ' -f 1"), "/sbin/docker-init");
    crate::support::until("orphans are reaped", || !c.exec("ps -o stat,args").contains("Z"));
    assert_eq!(run(&["run", "--rm", "--init", NAME, "sh", "-c", "exit 6"]).code(), 6);
}
