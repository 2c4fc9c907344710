//! Broken documents: each is refused with the property, the value and the rule, before anything is touched.

mod support;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use support::{Bundle, finish, skip};

/// What a failed operation must leave alone: every file below, with owner, mode, size and times.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, u64, i64, i64)> {
    let mut out = BTreeMap::new();
    let mut rest = vec![dir.to_path_buf()];
    while let Some(path) = rest.pop() {
        let m = fs::symlink_metadata(&path).expect("metadata");
        if m.is_dir() {
            rest.extend(fs::read_dir(&path).expect("read_dir").map(|e| e.expect("entry").path()));
        }
        out.insert(path, (m.uid(), m.mode(), m.size(), m.mtime(), m.mtime_nsec()));
    }
    out
}

/// The message of `create`, which must fail and change nothing; in a bundle that has this document and a canary.
struct Bench {
    bundle: Bundle,
    example: Value,
}

impl Bench {
    fn new() -> Self {
        let bundle = Bundle::new();
        let canary = bundle.path().join("canary");
        fs::create_dir(&canary).unwrap();
        fs::write(canary.join("file"), "sings").unwrap();
        let example = bundle.config.clone();
        Self { bundle, example }
    }

    /// `None`: it succeeded.
    #[track_caller]
    fn message(&self, text: &[u8]) -> String {
        let b = &self.bundle;
        fs::write(b.path().join("config.json"), text).unwrap();
        let before = snapshot(b.path());
        let mut c = b.orlop(["create", "--bundle"]);
        let out = finish(c.arg(b.path()).arg(&b.id));
        assert!(!out.status.success(), "created: {}", String::from_utf8_lossy(text));
        assert!(snapshot(b.path()) == before, "something changed");
        assert_eq!(out.stdout, "");
        let line = out.stderr.strip_prefix("orlop: create: ").and_then(|l| l.strip_suffix('\n'));
        line.unwrap_or_else(|| panic!("not one message: {}", out.stderr)).to_string()
    }

    /// The example with this edit; `null` takes the property away.
    #[track_caller]
    fn edited(&self, pointer: &str, value: Value) -> String {
        let mut config = self.example.clone();
        let mut at = &mut config;
        for key in pointer.split('/').skip(1) {
            at = match key.parse::<usize>() {
                Ok(n) if at.is_array() => &mut at[n],
                _ => &mut at[key],
            };
        }
        *at = value;
        self.message(config.to_string().as_bytes())
    }

    fn end(self) {
        assert!(support::cgroups_named(&self.bundle.id).is_empty());
    }
}

/// Each row: where, what, the exact words. A trailing `…` stands for the rest of a list of what is known.
#[track_caller]
fn hold(table: &[(&str, Value, &str)]) {
    let bench = Bench::new();
    let mut wrong = String::new();
    for (pointer, value, wanted) in table {
        let message = bench.edited(pointer, value.clone());
        let right = match wanted.strip_suffix('…') {
            Some(start) => message.starts_with(start),
            None => message == *wanted,
        };
        if !right {
            wrong += &format!("{pointer} = {value}\n is: {message}\nnot: {wanted}\n");
        }
    }
    bench.end();
    assert!(wrong.is_empty(), "{wrong}");
}

/// The same for values of one property, whose name every message begins with.
#[track_caller]
fn hold_at(pointer: &str, rows: &[(Value, &str)]) {
    let property = pointer[1..].replace('/', ".");
    let wanted: Vec<_> = rows.iter().map(|r| format!("{property}{}", r.1)).collect();
    let table: Vec<_> = rows.iter().zip(&wanted).map(|(r, w)| (pointer, r.0.clone(), w.as_str())).collect();
    hold(&table);
}

#[test]
fn the_document_as_a_whole() {
    needs_root!();
    hold(&[
        ("/ociVersion", json!(null), "ociVersion: is required"),
        ("/ociVersion", json!("1.0"), "ociVersion: \"1.0\" is no version like 1.3.0 (semver 2.0.0)"),
        ("/ociVersion", json!("2.0.0"), "ociVersion: \"2.0.0\" is not of major version 1"),
        ("/root", json!(null), "root: is required"),
        ("/root/path", json!(""), "root.path: is required"),
        ("/root/path", json!("ro\u{0}ot"), "root.path: stat…"),
        ("/annotations", json!({ "": "x" }), "annotations: has an empty key"),
    ]);
}

#[test]
fn a_root_that_is_none_names_its_path() {
    needs_root!();
    let bench = Bench::new();
    let dir = bench.bundle.path().canonicalize().unwrap();
    let file = dir.join("canary/file");
    assert_eq!(
        bench.edited("/root/path", json!("nowhere")),
        format!("root.path: stat {:?}: no such file or directory", dir.join("nowhere"))
    );
    assert_eq!(bench.edited("/root/path", json!(file)), format!("root.path: {file:?} is not a directory"));
    bench.end();
}

#[test]
fn wrong_json_names_file_line_and_property() {
    needs_root!();
    let bench = Bench::new();
    let file = bench.bundle.path().canonicalize().unwrap().join("config.json").to_string_lossy().into_owned();
    for (text, words) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("{\n\"a\": tru}", "a: expected ident at line 2 column 9"),
        ("[]", "invalid type: sequence, expected an object at line 1 column 0"),
        ("{} {}", "has more behind the document's end"),
        (
            "{\"process\":\n{\"args\": \"sh\"}}",
            "process.args: invalid type: string \"sh\", expected a sequence at line 2 column 13",
        ),
        ("{\"process\": []}", "process: invalid type: sequence, expected an object at line 1 column 12"),
        (
            "{\"process\": {\"env\": [1]}}",
            "process.env[0]: invalid type: integer `1`, expected a string at line 1 column 22",
        ),
        (
            "{\"process\": {\"user\": {\"uid\": \"0\"}}}",
            "process.user.uid: invalid type: string \"0\", expected i64 at line 1 column 32",
        ),
        (
            "{\"process\": {\"user\": {\"uid\": 1.5}}}",
            "process.user.uid: invalid type: floating point `1.5`, expected i64 at line 1 column 32",
        ),
        (
            "{\"process\": {\"oomScoreAdj\": 99999999999999999999}}",
            "process.oomScoreAdj: invalid type: floating point `1e+20`, expected i64 at line 1 column 48",
        ),
        (
            "{\"root\": {\"readonly\": 1}}",
            "root.readonly: invalid type: integer `1`, expected a boolean at line 1 column 23",
        ),
        ("{\"mounts\": {}}", "mounts: invalid type: map, expected a sequence at line 1 column 11"),
        ("{\"mounts\": [null]}", "mounts[0]: invalid type: null, expected an object at line 1 column 16"),
        (
            "{\"annotations\": {\"a\": null}}",
            "annotations.a: invalid type: null, expected a string at line 1 column 26",
        ),
        (
            "{\"linux\": {\"resources\": {\"memory\": {\"limit\": true}}}}",
            "linux.resources.memory.limit: invalid type: boolean `true`, expected i64 at line 1 column 49",
        ),
        (
            "{\"linux\": {\"resources\": {\"cpu\": {\"shares\": -1}}}}",
            "linux.resources.cpu.shares: invalid value: integer `-1`, expected u64 at line 1 column 45",
        ),
        (
            "{\"hooks\": {\"prestart\": {}}}",
            "hooks.prestart: invalid type: map, expected a sequence at line 1 column 23",
        ),
    ] {
        assert_eq!(bench.message(text.as_bytes()), format!("{file}: {words}"), "{text}");
    }
    let deep = format!("{{\"vm\": {}1{}}}", "[".repeat(200), "]".repeat(200));
    assert!(bench.message(deep.as_bytes()).contains("recursion limit exceeded at line 1"));
    let large = format!("{{\"x\": \"{}\"}}", " ".repeat(10 << 20));
    assert_eq!(bench.message(large.as_bytes()), format!("{file}: is larger than 10485760 bytes"));
    bench.end();
}

#[test]
fn a_missing_or_unreadable_document() {
    needs_root!();
    let b = Bundle::new();
    let mut c = b.orlop(["create", "--bundle"]);
    finish(c.arg(b.path()).arg(&b.id)).fails("config.json: open: no such file or directory");
    fs::create_dir(b.path().join("config.json")).unwrap();
    let mut c = b.orlop(["create", "--bundle"]);
    finish(c.arg(b.path()).arg(&b.id)).fails("config.json: is not a regular file");
    fs::remove_dir(b.path().join("config.json")).unwrap();
    nix::unistd::mkfifo(&b.path().join("config.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut c = b.orlop(["create", "--bundle"]);
    finish(c.arg(b.path()).arg(&b.id)).fails("config.json: is not a regular file");
}

#[test]
fn the_process() {
    needs_root!();
    hold(&[
        ("/process/args", json!(null), "process.args: is required and names the program first"),
        ("/process/args", json!([]), "process.args: is required and names the program first"),
        ("/process/args", json!([""]), "process.args[0]: is empty, it names the program"),
        ("/process/args", json!(["a", "\u{0}"]), "process.args[1]: \"\\0\" has a NUL byte"),
        ("/process/env", json!(["A=\u{0}"]), "process.env[0]: \"A=\\0\" has a NUL byte"),
        ("/process/cwd", json!(null), "process.cwd: is required"),
        ("/process/cwd", json!("a/b"), "process.cwd: \"a/b\" is not absolute"),
        ("/process/terminal", json!(true), "process.terminal: is true, but there is no --console-socket…"),
        ("/process/user/uid", json!(-1), "process.user.uid: -1 is no id; ids are 0-4294967294"),
        (
            "/process/user/uid",
            json!(4_294_967_295_i64),
            "process.user.uid: 4294967295 is no id; ids are 0-4294967294",
        ),
        (
            "/process/user/gid",
            json!(1_i64 << 40),
            "process.user.gid: 1099511627776 is no id; ids are 0-4294967294",
        ),
        (
            "/process/user/additionalGids",
            json!([0, -5]),
            "process.user.additionalGids[1]: -5 is no id; ids are 0-4294967294",
        ),
        ("/process/user/umask", json!(0o1000), "process.user.umask: 512 is not in 0-511 (octal 0777)"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: 1001 is not in -1000 to 1000"),
        ("/process/oomScoreAdj", json!(-1001), "process.oomScoreAdj: -1001 is not in -1000 to 1000"),
        (
            "/process/execCPUAffinity",
            json!({ "initial": "0-" }),
            "process.execCPUAffinity.initial: \"0-\" is no list of numbers and ranges like 0-3,7",
        ),
        (
            "/process/execCPUAffinity",
            json!({ "final": "3-1" }),
            "process.execCPUAffinity.final: \"3-1\" runs backwards",
        ),
    ]);
}

#[test]
fn limits() {
    needs_root!();
    hold_at(
        "/process/rlimits",
        &[
            (json!([{ "soft": 1, "hard": 1 }]), "[0].type: \"\" is no resource limit; known are …"),
            (
                json!([{ "type": "NOFILE", "soft": 1, "hard": 1 }]),
                "[0].type: \"NOFILE\" is no resource limit; known are …",
            ),
            (json!([{ "type": "RLIMIT_CPU", "hard": 1 }]), "[0].soft: is required"),
            (json!([{ "type": "RLIMIT_CPU", "soft": 1 }]), "[0].hard: is required"),
            (json!([{ "type": "RLIMIT_CPU", "soft": 2, "hard": 1 }]), "[0].soft: 2 is above hard 1"),
            (
                json!([{ "type": "RLIMIT_CPU", "soft": 1, "hard": 1 }, { "type": "RLIMIT_CPU", "soft": 1, "hard": 1 }]),
                "[1].type: \"RLIMIT_CPU\" is listed twice",
            ),
        ],
    );
}

#[test]
fn scheduling() {
    needs_root!();
    hold_at(
        "/process/scheduler",
        &[
            (json!({}), ".policy: is required"),
            (json!({ "policy": "FIFO" }), ".policy: \"FIFO\" is unknown; known are SCHED_OTHER, …"),
            (json!({ "policy": "SCHED_OTHER", "nice": -21 }), ".nice: -21 is not in -20 to 19"),
            (
                json!({ "policy": "SCHED_IDLE", "nice": 1 }),
                ".nice: 1 is only for SCHED_OTHER and SCHED_BATCH, not for SCHED_IDLE",
            ),
            (json!({ "policy": "SCHED_RR" }), ".priority: 0 is not in 1-99, as SCHED_RR needs"),
            (
                json!({ "policy": "SCHED_BATCH", "priority": 1 }),
                ".priority: 1 is only for SCHED_FIFO and SCHED_RR, not for SCHED_BATCH",
            ),
            (
                json!({ "policy": "SCHED_OTHER", "runtime": 9 }),
                ".runtime: 9 is only for SCHED_DEADLINE, not for SCHED_OTHER",
            ),
            (
                json!({ "policy": "SCHED_DEADLINE", "runtime": 9 }),
                ".runtime: 9 ns is below 1024, the least of SCHED_DEADLINE",
            ),
            (json!({ "policy": "SCHED_OTHER", "flags": ["X"] }), ".flags[0]: \"X\" is unknown; known are …"),
        ],
    );
    hold_at(
        "/process/ioPriority",
        &[
            (json!({ "priority": 1 }), ".class: is required"),
            (json!({ "class": "IOPRIO_CLASS_BE" }), ".priority: is required"),
            (json!({ "class": "BE", "priority": 1 }), ".class: \"BE\" is unknown; known are …"),
            (json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 }), ".priority: 8 is not in 0-7"),
        ],
    );
    hold_at(
        "/linux/memoryPolicy",
        &[
            (json!({}), ".mode: is required"),
            (json!({ "mode": "BIND" }), ".mode: \"BIND\" is unknown; known are MPOL_DEFAULT, …"),
            (json!({ "mode": "MPOL_BIND" }), ".nodes: is required by MPOL_BIND"),
            (
                json!({ "mode": "MPOL_LOCAL", "nodes": "0" }),
                ".nodes: \"0\" is given, but MPOL_LOCAL takes none",
            ),
            (
                json!({ "mode": "MPOL_BIND", "nodes": "a" }),
                ".nodes: \"a\" is no list of numbers and ranges like 0-3,7",
            ),
            (
                json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["X"] }),
                ".flags[0]: \"X\" is unknown; known are …",
            ),
        ],
    );
    hold_at(
        "/linux/personality",
        &[
            (json!({}), ".domain: is required"),
            (json!({ "domain": "BSD" }), ".domain: \"BSD\" is unknown; known are LINUX, LINUX32"),
            (
                json!({ "domain": "LINUX", "flags": ["X"] }),
                ".flags[0]: \"X\" is unknown; the specification defines none",
            ),
        ],
    );
}

#[test]
fn labels_that_this_kernel_has_not() {
    needs_root!();
    if fs::exists("/sys/module/apparmor").unwrap_or(true)
        || fs::exists("/sys/fs/selinux/enforce").unwrap_or(true)
    {
        return skip("the kernel has AppArmor or SELinux");
    }
    hold(&[
        (
            "/process/apparmorProfile",
            json!("web"),
            "process.apparmorProfile: \"web\" is asked for, but AppArmor is not enabled",
        ),
        (
            "/process/selinuxLabel",
            json!("u:r:t"),
            "process.selinuxLabel: \"u:r:t\" is asked for, but SELinux is not enabled",
        ),
    ]);
}

#[test]
fn hooks() {
    needs_root!();
    hold_at(
        "/hooks",
        &[
            (json!({ "prestart": [{}] }), ".prestart[0].path: is required"),
            (
                json!({ "createRuntime": [{ "path": "bin/x" }] }),
                ".createRuntime[0].path: \"bin/x\" is not absolute",
            ),
            (
                json!({ "createContainer": [{ "path": "/x", "timeout": 0 }] }),
                ".createContainer[0].timeout: 0 is not above zero",
            ),
            (
                json!({ "startContainer": [{ "path": "/x", "timeout": -1 }] }),
                ".startContainer[0].timeout: -1 is not above zero",
            ),
            (
                json!({ "poststart": [{ "path": "/x", "args": ["\u{0}"] }] }),
                ".poststart[0].args[0]: \"\\0\" has a NUL byte",
            ),
            (
                json!({ "poststop": [{ "path": "/x" }, { "path": "/x", "env": ["\u{0}"] }] }),
                ".poststop[1].env[0]: \"\\0\" has a NUL byte",
            ),
        ],
    );
}

#[test]
fn namespaces_and_mappings() {
    needs_root!();
    let ns = "/linux/namespaces";
    let user = |maps: Value| json!({ "namespaces": [{ "type": "user" }, { "type": "mount" }], "uidMappings": maps, "gidMappings": [{ "containerID": 0, "hostID": 0, "size": 1 }] });
    hold(&[
        (ns, json!([{ "type": "net" }]), "linux.namespaces[0].type: \"net\" is no namespace; known are …"),
        (ns, json!([{}]), "linux.namespaces[0].type: \"\" is no namespace; known are …"),
        (
            ns,
            json!([{ "type": "pid" }, { "type": "pid" }]),
            "linux.namespaces[1].type: \"pid\" is listed twice",
        ),
        (ns, json!([{ "type": "pid", "path": "ns" }]), "linux.namespaces[0].path: \"ns\" is not absolute"),
        (
            "/linux",
            user(json!([{ "containerID": -1, "hostID": 0, "size": 1 }])),
            "linux.uidMappings[0].containerID: -1 is not in 0-4294967295",
        ),
        (
            "/linux",
            user(json!([{ "containerID": 0, "hostID": 0, "size": 0 }])),
            "linux.uidMappings[0].size: is 0",
        ),
    ]);
}

#[test]
fn mounts_and_paths() {
    needs_root!();
    let mount = |m: Value| json!([m]);
    hold(&[
        ("/mounts", mount(json!({})), "mounts[0].destination: is required"),
        (
            "/mounts",
            mount(json!({ "destination": "/a\u{0}", "type": "tmpfs" })),
            "mounts[0].destination: \"/a\\0\" has a NUL byte",
        ),
        ("/mounts", mount(json!({ "destination": "/a" })), "mounts[0] (/a): the type is required, unless…"),
        (
            "/mounts",
            mount(json!({ "destination": "/", "type": "tmpfs" })),
            "mounts[0].destination: \"/\" is the rootfs itself…",
        ),
        (
            "/mounts",
            mount(json!({ "destination": "/a", "options": ["bind"] })),
            "mounts[0] (/a).source: is required for a bind mount",
        ),
        (
            "/mounts",
            mount(json!({ "destination": "/proc/sys", "type": "tmpfs", "source": "tmpfs" })),
            "mounts[0] (/proc/sys): only a procfs may cover /proc, and of the files below it only these may be covered…",
        ),
        ("/linux/maskedPaths", json!(["proc"]), "linux.maskedPaths[0]: \"proc\" is not absolute"),
        ("/linux/readonlyPaths", json!(["/a", "b"]), "linux.readonlyPaths[1]: \"b\" is not absolute"),
        (
            "/linux/rootfsPropagation",
            json!("public"),
            "linux.rootfsPropagation: \"public\" is no propagation; known are shared, slave, private, unbindable",
        ),
    ]);
}

#[test]
fn devices_and_the_kernels_parameters() {
    needs_root!();
    let sysctl = |key: &str| json!({ key: "1" });
    hold_at(
        "/linux/devices",
        &[
            (json!([{ "type": "c" }]), "[0].path: \"\" is not absolute"),
            (json!([{ "path": "dev/x", "type": "c" }]), "[0].path: \"dev/x\" is not absolute"),
            (json!([{ "path": "/dev/x" }]), "[0].type: \"\" is no type of a device; known are c, b, u, p"),
            (json!([{ "path": "/dev/x", "type": "c", "minor": 1 }]), "[0].major: is required"),
            (
                json!([{ "path": "/dev/x", "type": "b", "major": 1, "minor": -1 }]),
                "[0].minor: -1 is not in 0-1048575",
            ),
            (
                json!([{ "path": "/dev/x", "type": "p", "fileMode": 65536 }]),
                "[0].fileMode: 65536 (octal 200000) is no mode of this device; modes are 0-07777",
            ),
        ],
    );
    hold_at(
        "/linux/sysctl",
        &[
            (sysctl("vm.swappiness"), ".vm.swappiness: belongs to no namespace: it would change the host"),
            (sysctl("net..x"), ": \"net..x\" is no key: a part is empty, a dot or has control characters"),
            (
                sysctl("kernel.hostname"),
                ".kernel.hostname: is not set by sysctl; the property hostname is for that",
            ),
        ],
    );
    hold(&[
        ("/hostname", json!("x".repeat(65)), "hostname: …"),
        ("/linux/timeOffsets", json!({ "boottime": { "secs": 1 } }), "linux.timeOffsets: …"),
    ]);
}

#[test]
fn seccomp() {
    needs_root!();
    let rule = |r: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [r] });
    let of = |arg: Value| rule(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [arg] }));
    hold_at(
        "/linux/seccomp",
        &[
            (json!({ "syscalls": [{}] }), ".defaultAction: is required"),
            (json!({ "defaultAction": "ALLOW" }), ".defaultAction: \"ALLOW\" is not a seccomp action"),
            (
                json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
                ".defaultAction: \"SCMP_ACT_NOTIFY\" cannot be the default",
            ),
            (
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["VAX"] }),
                ".architectures[0]: \"VAX\" is not a seccomp architecture",
            ),
            (
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"] }),
                ".flags[0]: \"X\" is not a seccomp flag",
            ),
            (
                rule(json!({ "names": [], "action": "SCMP_ACT_ERRNO" })),
                ".syscalls[0].names: needs at least one system call",
            ),
            (rule(json!({ "names": ["read"] })), ".syscalls[0].action: is required"),
            (
                of(json!({ "index": 6, "op": "SCMP_CMP_EQ" })),
                ".syscalls[0].args[0].index: 6 is not one of the arguments 0 to 5",
            ),
            (
                of(json!({ "index": 0, "op": "EQ" })),
                ".syscalls[0].args[0].op: \"EQ\" is not a seccomp operator",
            ),
            (
                rule(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000 })),
                ".syscalls[0].errnoRet: 5000 is above 4095",
            ),
            (
                rule(json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" })),
                ".syscalls[0].action: \"SCMP_ACT_NOTIFY\" needs linux.seccomp.listenerPath",
            ),
        ],
    );
}

#[test]
fn a_limit_of_descriptors_that_init_cannot_do_with_is_named() {
    needs_root!();
    for soft in [0, 3] {
        let list = json!([{ "type": "RLIMIT_NOFILE", "soft": soft, "hard": 64 }]);
        let out = Bundle::new().set("/process/rlimits", list).run();
        out.fails(&format!("; process.rlimits[0] (RLIMIT_NOFILE) allows no descriptor from {soft} on"));
    }
}

/// Bytes of a document never reach a terminal as they are.
#[test]
fn messages_have_no_control_bytes() {
    needs_root!();
    let bench = Bench::new();
    for (pointer, value) in [
        ("/process/cwd", json!("a\u{1b}[31m")),
        ("/ociVersion", json!("\u{1b}]0;x\u{7}")),
        ("/hooks", json!({ "prestart": [{ "path": "\n\u{9b}31m" }] })),
        ("/process/rlimits", json!([{ "type": "\u{1b}c\r" }])),
    ] {
        let message = bench.edited(pointer, value);
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }
    bench.end();
}
