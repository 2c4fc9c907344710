use super::interpret::{self, Call};
use super::*;
use serde_json::{Value, json};

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_THREAD;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | 38;
const SPEC_ALLOW: u32 = 4;

fn doc(v: Value) -> config::Seccomp {
    serde_json::from_value(v).unwrap()
}

fn filter(v: Value, native: Native) -> Filter {
    compile(&doc(v), native, &mut Vec::new()).unwrap().unwrap()
}

fn file(name: &str) -> Value {
    let path = format!("{}/integration/data/seccomp/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn run(filter: &Filter, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let program: Vec<_> = filter.program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    interpret::run(&program, &Call { nr, arch, args }).0
}

/// What `name` with these arguments gets on `arch`.
fn ask(filter: &Filter, arch: Arch, name: &str, args: &[u64]) -> u32 {
    let nr = arch.number(tables::find(name).unwrap()).unwrap();
    let mut six = [0; 6];
    six[..args.len()].copy_from_slice(args);
    run(filter, arch.audit(), nr, six)
}

#[test]
fn dockers_profile_means_what_it_says() {
    let f = filter(file("docker"), Native::X86_64);
    assert_eq!(f.flags, SPEC_ALLOW);
    assert_eq!(f.listener, None);
    for arch in [Arch::X86_64, Arch::X86, Arch::X32] {
        assert_eq!(ask(&f, arch, "read", &[]), ALLOW, "{arch:?}");
        assert_eq!(ask(&f, arch, "mount", &[]), EPERM, "{arch:?}");
        assert_eq!(ask(&f, arch, "personality", &[8]), ALLOW);
        assert_eq!(ask(&f, arch, "personality", &[7]), EPERM);
        assert_eq!(ask(&f, arch, "clone", &[0x11]), ALLOW);
        assert_eq!(ask(&f, arch, "clone", &[0x1000_0011]), EPERM, "a new user namespace");
        assert_eq!(ask(&f, arch, "clone3", &[]), ENOSYS, "{arch:?}");
    }
    for arch in [Arch::X86_64, Arch::X86] {
        assert_eq!(ask(&f, arch, "mseal", &[]), ENOSYS, "newer than the profile, on {arch:?}");
    }
    // Its numbers 512 to 547 are of old calls, but above those of all new ones.
    assert_eq!(ask(&f, Arch::X32, "mseal", &[]), EPERM);
    assert_eq!(run(&f, Arch::X32.audit(), X32_BIT + 548, [0; 6]), ENOSYS);
    assert_eq!(ask(&f, Arch::X86, "socketcall", &[1]), ALLOW);
    assert_eq!(run(&f, Arch::Aarch64.audit(), 63, [0; 6]), KILL);
    let f = filter(file("docker"), Native::Aarch64);
    assert_eq!(ask(&f, Arch::Aarch64, "read", &[]), ALLOW);
    assert_eq!(ask(&f, Arch::Arm, "read", &[]), KILL);
    assert_eq!(ask(&f, Arch::X86_64, "read", &[]), KILL);
}

#[test]
fn what_init_has_yet_to_call_is_let_through_or_not() {
    let rules = |names: &[&str], errno: u32| {
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno }],
        })
    };
    for (doc, some, whole) in [
        (file("docker"), true, true),
        (file("podman"), true, true),
        (rules(&["mount"], 1), true, true),
        (rules(&["clone3"], 1), true, true),
        (rules(&["clone"], 38), false, false),
        (rules(&["setsid"], 1), false, false),
        (rules(&["close_range"], 1), false, false),
        (rules(&["ioctl"], 1), false, false),
        (rules(&["exit_group"], 1), false, false),
        (rules(&["prlimit64", "sched_setattr"], 1), true, true), // no step asks for them
        (rules(&["chdir"], 1), true, false),
        (rules(&["openat2"], 38), true, false),
        (json!({ "defaultAction": "SCMP_ACT_LOG" }), true, true),
        (json!({ "defaultAction": "SCMP_ACT_TRACE" }), false, false),
    ] {
        let f = filter(doc.clone(), Native::host());
        assert_eq!((f.lets_through(&[], false), f.lets_through(&[], true)), (some, whole), "{doc:.200}");
    }
}

/// The figures are for the reader: every create pays the compile, every call of the container the steps.
#[test]
fn engines_profiles_are_cheap() {
    for name in ["docker", "podman", "containerd"] {
        let doc = doc(file(name));
        let start = std::time::Instant::now();
        let f = compile(&doc, Native::X86_64, &mut Vec::new()).unwrap().unwrap();
        let time = start.elapsed();
        let program: Vec<_> = f.program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
        let steps = |nr| interpret::run(&program, &Call { nr, arch: 0xc000003e, args: [0; 6] }).1;
        let most = (0..335).map(steps).max().unwrap();
        println!("{name}: {} instructions in {time:?}, at most {most} steps", program.len());
        assert!(most < 40, "{name}: {most} steps, not those of a bisection");
    }
}

fn error(v: Value) -> String {
    compile(&doc(v), Native::X86_64, &mut Vec::new()).unwrap_err().to_string()
}

#[test]
fn broken_rules_are_named_with_their_property() {
    use serde_json::json;
    let rule = |rule: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    let arg = |arg: Value| rule(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [arg] }));
    let with = |key: &str, value: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", key: value });
    for (doc, want) in [
        (json!({ "syscalls": [] }), "linux.seccomp.defaultAction: is required"),
        (
            json!({ "defaultAction": "ALLOW" }),
            "linux.seccomp.defaultAction: \"ALLOW\" is not a seccomp action",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
            "linux.seccomp.defaultAction: \"SCMP_ACT_NOTIFY\" cannot be the default",
        ),
        (
            with("defaultErrnoRet", json!(1)),
            "linux.seccomp.defaultErrnoRet: needs the action SCMP_ACT_ERRNO or SCMP_ACT_TRACE",
        ),
        (
            with("architectures", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_VAX"])),
            "linux.seccomp.architectures[1]: \"SCMP_ARCH_VAX\" is not a seccomp architecture",
        ),
        (
            with("flags", json!(["SECCOMP_FILTER_FLAG_MOON"])),
            "linux.seccomp.flags[0]: \"SECCOMP_FILTER_FLAG_MOON\" is not a seccomp flag",
        ),
        (
            with("flags", json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])),
            "linux.seccomp.flags[0]: \"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV\" needs a rule with SCMP_ACT_NOTIFY",
        ),
        (
            with("listenerMetadata", json!("x")),
            "linux.seccomp.listenerMetadata: needs linux.seccomp.listenerPath",
        ),
        (
            rule(json!({ "names": [], "action": "SCMP_ACT_ERRNO" })),
            "linux.seccomp.syscalls[0].names: needs at least one system call",
        ),
        (rule(json!({ "names": ["read"] })), "linux.seccomp.syscalls[0].action: is required"),
        (
            rule(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096 })),
            "linux.seccomp.syscalls[0].errnoRet: 4096 is above 4095",
        ),
        (
            rule(json!({ "names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 1 })),
            "linux.seccomp.syscalls[0].errnoRet: needs the action SCMP_ACT_ERRNO or SCMP_ACT_TRACE",
        ),
        (
            rule(json!({ "names": ["read"], "action": "SCMP_ACT_NOTIFY" })),
            "linux.seccomp.syscalls[0].action: \"SCMP_ACT_NOTIFY\" needs linux.seccomp.listenerPath",
        ),
        (
            rule(json!({ "names": ["read", "write"], "action": "SCMP_ACT_NOTIFY" })),
            "linux.seccomp.syscalls[0].names[1]: \"write\" cannot have the action SCMP_ACT_NOTIFY",
        ),
        (
            arg(json!({ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" })),
            "linux.seccomp.syscalls[0].args[0].index: 6 is not one of the arguments 0 to 5",
        ),
        (arg(json!({ "index": 0, "value": 0 })), "linux.seccomp.syscalls[0].args[0].op: is required"),
        (
            arg(json!({ "index": 0, "value": 0, "op": "EQ" })),
            "linux.seccomp.syscalls[0].args[0].op: \"EQ\" is not a seccomp operator",
        ),
    ] {
        assert_eq!(error(doc), want);
    }
}

#[test]
fn names_that_nobody_knows_are_skipped_and_contradictions_warned_of() {
    use serde_json::json;
    let rule = |names: &[&str], action: &str| json!({ "names": names, "action": action });
    let rules = vec![
        rule(&["no_such_call"], "SCMP_ACT_KILL"),
        rule(&["read"], "SCMP_ACT_LOG"),
        rule(&["read"], "SCMP_ACT_TRAP"),
    ];
    let doc = doc(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }));
    let mut warnings = Vec::new();
    let f = compile(&doc, Native::X86_64, &mut warnings).unwrap().unwrap();
    assert_eq!(ask(&f, Arch::X86_64, "read", &[]), libc::SECCOMP_RET_LOG);
    // libseccomp takes the first rule without tests in silence: no contradiction for it.
    assert_eq!(warnings, Vec::<String>::new());
    let test = json!([{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }]);
    let tested = |action: &str| json!({ "names": ["read"], "action": action, "args": test });
    let rules = vec![tested("SCMP_ACT_LOG"), tested("SCMP_ACT_TRAP")];
    let doc: config::Seccomp =
        serde_json::from_value(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules })).unwrap();
    let f = compile(&doc, Native::X86_64, &mut warnings).unwrap().unwrap();
    assert_eq!(ask(&f, Arch::X86_64, "read", &[1]), libc::SECCOMP_RET_LOG);
    assert_eq!(
        warnings,
        ["linux.seccomp.syscalls: rules for \"read\" contradict each other, the first is kept"]
    );
}
