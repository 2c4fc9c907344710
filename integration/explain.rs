//! explain: a plan in words, for anybody, with nothing touched.

mod support;

use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use support::{Bundle, finish};

const NOBODY: u32 = 65534;

#[test]
fn explain_prints_each_step_with_the_property_that_asks_for_it() {
    let b = Bundle::new().set("/process/noNewPrivileges", json!(true));
    b.write();
    let out = finish(b.orlop(["explain"]).arg(b.path())).ok();
    assert_eq!(out.stderr, "");
    assert!(out.line("mounts[0] (/proc):").is_some_and(|l| l.starts_with("mount proc")), "{}", out.stdout);
    assert_eq!(out.line("process.noNewPrivileges:"), Some("set no_new_privs"));
    assert_eq!(out.stdout.lines().last(), Some("process.args: execve"));
    for rust in ["Some(", "None", "CString", " { "] {
        assert!(!out.stdout.contains(rust), "{rust}: {}", out.stdout);
    }
}

#[test]
fn explain_of_a_broken_document_says_what_is_wrong() {
    let b = Bundle::new().set("/process/cwd", json!("relative"));
    b.write();
    finish(b.orlop(["explain"]).arg(b.path())).fails("explain: process.cwd: \"relative\" is not absolute");
    finish(&mut b.orlop(["explain", "/nowhere"])).fails("/nowhere");
}

/// Calls that change nothing; of openat(2) and write(2), see below.
const HARMLESS: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "close",
    "execve",
    "exit_group",
    "fcntl",
    "fstat",
    "futex",
    "getcwd",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getrandom",
    "gettid",
    "getuid",
    "getdents64",
    "ioctl",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "mremap",
    "munmap",
    "newfstatat",
    "poll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "stat",
    "statfs",
    "statx",
    "uname",
];

#[test]
fn explain_as_an_ordinary_user_tells_the_same_and_touches_nothing() {
    needs_root!();
    needs_program!("strace");
    let b = Bundle::new();
    b.write();
    fs::set_permissions(b.path().join("config.json"), fs::Permissions::from_mode(0o644)).unwrap();
    let (binary, log) = (b.path().join("orlop"), b.path().join("log/trace"));
    support::copy_orlop(&binary);
    fs::create_dir(b.path().join("log")).unwrap();
    fs::set_permissions(b.path().join("log"), fs::Permissions::from_mode(0o777)).unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o"]).arg(&log).arg(&binary).arg("explain").arg(b.path());
    let out = finish(strace.uid(NOBODY).gid(NOBODY).current_dir("/")).ok();
    assert_eq!(out.stdout, finish(b.orlop(["explain"]).arg(b.path())).ok().stdout);
    for line in fs::read_to_string(log).unwrap().lines() {
        let call = line.split_once(' ').unwrap().1.trim_start();
        let name = call.split('(').next().unwrap();
        let harmless = match name {
            "open" | "openat" | "openat2" => {
                !["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|f| call.contains(f))
            }
            "write" => call.starts_with("write(1, "),
            _ => HARMLESS.contains(&name) || name.starts_with("+++"),
        };
        assert!(harmless, "{line}");
    }
}
