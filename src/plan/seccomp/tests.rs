use super::interpret::{self, Call};
use super::*;
use serde_json::Value;

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
#[ignore = "a measurement"]
fn time_of_dockers_profile() {
    let doc = doc(file("docker"));
    for _ in 0..3 {
        let start = std::time::Instant::now();
        for _ in 0..200 {
            std::hint::black_box(compile(&doc, Native::X86_64, &mut Vec::new()).unwrap());
        }
        println!("{:?}", start.elapsed() / 200);
    }
    for name in ["docker", "podman", "containerd"] {
        let f = filter(file(name), Native::X86_64);
        let program: Vec<_> = f.program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
        let steps =
            (0..335).map(|nr| interpret::run(&program, &Call { nr, arch: 0xc000003e, args: [0; 6] }).1);
        println!("{name}: {} instructions, at most {:?} steps", program.len(), steps.max());
    }
}
