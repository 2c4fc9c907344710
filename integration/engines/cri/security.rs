//! Security contexts, each seen from inside, by the first process and by others.

use super::{Pod, attempt};
use crate::world::Engine;
use crate::{Check, check};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;

pub const CHECKS: &[Check] = &[
    check!(user_and_groups),
    check!(user_by_name),
    check!(read_only_root),
    check!(no_capabilities),
    check!(some_capabilities),
    check!(privileged),
    check!(seccomp),
    check!(masked_and_read_only_paths),
    check!(unmasked_paths),
    check!(no_new_privileges),
    check!(devices),
    check!(sandbox_of_a_user),
];

fn context(of: Value) -> Value {
    json!({"linux": {"security_context": of}})
}

/// What a script prints as the first process and as one that joins; both must be the same.
#[track_caller]
fn both(pod: &Pod, patch: Value, script: &str) -> String {
    let c = pod.start(&["sh", "-c", &format!("{script}\nexec sleep 1000")], patch);
    let joined = c.prints(script);
    crate::support::until("the first process wrote", || c.said("stdout").trim_end() == joined);
    c.remove();
    joined
}

fn user_and_groups(e: &Engine) {
    let pod = Pod::new(e);
    let of = json!({"run_as_user": {"value": 1234}, "run_as_group": {"value": 2345}, "supplemental_groups": [3456, 4567]});
    let script = "id -u; id -g; id -G; touch /x 2>&1";
    let want = "1234\n2345\n2345 3456 4567\ntouch: /x: Permission denied";
    assert_eq!(both(&pod, context(of), &format!("{script}; true")), want);
    pod.remove();
}

fn user_by_name(e: &Engine) {
    let pod = Pod::new(e);
    // Its groups are those of the image's /etc/group.
    assert_eq!(
        both(&pod, context(json!({"run_as_username": "user"})), "id -u; id -g; id -G"),
        "1000\n1000\n1000 2000"
    );
    pod.remove();
}

fn read_only_root(e: &Engine) {
    let pod = Pod::new(e);
    let script = "touch /x 2>&1; touch /dev/shm/y && echo shm";
    let want = "touch: /x: Read-only file system\nshm";
    assert_eq!(both(&pod, context(json!({"readonly_rootfs": true})), script), want);
    pod.remove();
}

const SETS: &str = "grep -e CapInh -e CapPrm -e CapEff -e CapBnd -e CapAmb /proc/self/status | cut -f 2";

fn sets(inheritable: u64, all: u64) -> String {
    [inheritable, all, all, all, 0].map(|s| format!("{s:016x}")).join("\n")
}

fn no_capabilities(e: &Engine) {
    let pod = Pod::new(e);
    let of = json!({"capabilities": {"drop_capabilities": ["ALL"]}});
    assert_eq!(
        both(&pod, context(of), &format!("{SETS}; chown 1 /tmp 2>&1; true")),
        sets(0, 0) + "\nchown: /tmp: Operation not permitted"
    );
    pod.remove();
}

fn some_capabilities(e: &Engine) {
    let pod = Pod::new(e);
    let of =
        json!({"capabilities": {"drop_capabilities": ["ALL"], "add_capabilities": ["NET_ADMIN", "CHOWN"]}});
    assert_eq!(both(&pod, context(of), SETS), sets(0, 1 << 12 | 1));
    pod.remove();
}

fn privileged(e: &Engine) {
    let pod = Pod::with(e, context(json!({"privileged": true})));
    let script = "mkdir -p /m && mount -t tmpfs none /m && echo mounted; grep -c ' /proc/sys ' /proc/mounts
        grep ' /sys sysfs' /proc/mounts | cut -c 1-15; grep Seccomp: /proc/self/status | cut -f 2; stat -c %F /dev/vda /dev/fuse | sort -u";
    let seen = both(&pod, context(json!({"privileged": true})), script);
    let lines: Vec<_> = seen.lines().collect();
    assert_eq!(lines[..4], ["mounted", "0", "sysfs /sys sysf", "0"], "{seen}");
    pod.remove();
}

fn seccomp(e: &Engine) {
    let pod = Pod::new(e);
    let script = "grep Seccomp: /proc/self/status | cut -f 2; unshare -r true 2>&1; true";
    let refused = "2\nunshare: unshare(0x10000000): Operation not permitted";
    let of = |kind: &str| context(json!({"seccomp": {"profile_type": kind}}));
    assert_eq!(both(&pod, of("RuntimeDefault"), script), refused);
    assert_eq!(both(&pod, of("Unconfined"), "grep Seccomp: /proc/self/status | cut -f 2"), "0");
    let profile = e.dir.join(format!("{}.json", pod.id));
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 125}]);
    let rules =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules});
    fs::write(&profile, rules.to_string()).expect("write");
    let local = context(json!({"seccomp": {"profile_type": "Localhost", "localhost_ref": profile}}));
    assert_eq!(
        both(&pod, local, "mkdir /x 2>&1; true"),
        "mkdir: can't create directory '/x': Operation canceled"
    );
    pod.remove();
}

fn masked_and_read_only_paths(e: &Engine) {
    let pod = Pod::new(e);
    let of = json!({"masked_paths": ["/proc/timer_list", "/proc/scsi", "/etc/passwd"], "readonly_paths": ["/proc/sys", "/etc"]});
    let script = "wc -c < /proc/timer_list 2>&1; ls /proc/scsi | wc -l; wc -c < /etc/passwd 2>&1; touch /etc/x 2>&1; echo 1 > /proc/sys/vm/drop_caches 2>&1; true";
    let seen = both(&pod, context(of), script);
    assert_eq!(seen, "0\n0\n0\ntouch: /etc/x: Read-only file system");
    pod.remove();
}

fn unmasked_paths(e: &Engine) {
    let pod = Pod::new(e);
    let script = "grep -c -e ' /proc/[a-z]' -e ' /sys/firmware' /proc/mounts; true";
    assert_eq!(both(&pod, context(json!({"masked_paths": [], "readonly_paths": []})), script), "0");
    pod.remove();
}

fn no_new_privileges(e: &Engine) {
    let pod = Pod::new(e);
    for (is_set, word) in [(true, "1"), (false, "0")] {
        let of = context(json!({"no_new_privs": is_set}));
        assert_eq!(both(&pod, of, "grep NoNewPrivs /proc/self/status | cut -f 2"), word);
    }
    pod.remove();
}

fn devices(e: &Engine) {
    let pod = Pod::new(e);
    let devices = json!([{"host_path": "/dev/fuse", "container_path": "/dev/renamed", "permissions": "rwm"}]);
    let number = fs::metadata("/dev/fuse").expect("fuse").rdev();
    let number = format!("{:x}:{:x}", nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let script = "stat -c %t:%T /dev/renamed; : < /dev/renamed && echo opened";
    assert_eq!(both(&pod, json!({"devices": devices}), script), format!("{number}\nopened"));
    pod.remove();
}

fn sandbox_of_a_user(e: &Engine) {
    let of = json!({"run_as_user": {"value": 1000}, "readonly_rootfs": true, "seccomp": {"profile_type": "RuntimeDefault"}});
    let pod = Pod::with(e, context(of));
    let process = e.cgroup_file("pids", &pod.id, "cgroup.procs");
    let first = process.lines().next().expect("a process");
    assert_eq!(fs::metadata(format!("/proc/{first}")).expect("it runs").uid(), 1000);
    assert!(attempt("PodSandboxStatus", json!({"pod_sandbox_id": pod.id})).is_ok());
    pod.remove();
}
