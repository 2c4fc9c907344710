//! The words for what went wrong in init: a step that failed, a clone that was refused, an end without a word.

use crate::container::Container;
use crate::error::Error;
use crate::plan::Plan;
use crate::plan::step::Act;
use crate::sync::Message;
use crate::sys::Errno;

/// The kernel's words for a clone or an unshare that it refuses mislead (clone(2), pid_namespaces(7)).
pub fn clone_failed(at: &str, what: impl Into<String>, errno: Errno) -> Error {
    let e = Error::os(at, what, errno as i32);
    match errno {
        Errno::ENOMEM => e.hint("the first process of the pid namespace is gone"),
        Errno::ENOSPC => e.hint("a limit of /proc/sys/user/max_*_namespaces is reached"),
        Errno::EPERM => e.hint("a sysctl, a security module or an outer container forbids new namespaces"),
        _ => e,
    }
}

/// A filter that was loaded before step `n` may be what it failed for.
pub fn filtered(plan: &Plan, n: usize, e: Error) -> Error {
    let loaded = plan.steps.iter().take(n).any(|s| matches!(s.act, Act::Seccomp { .. }));
    if loaded { e.hint("linux.seccomp, loaded before, may deny what this needs") } else { e }
}

/// What ended a process of the container without a word may be the kernel, in want of memory.
pub fn perhaps_for_memory(e: Error, container: &Container) -> Error {
    match container.cgroup().was_oom() {
        None => e,
        Some(None) => {
            e.hint("in its cgroup there was an OOM kill, and the limit is of one above, or the machine's")
        }
        Some(Some(bytes)) => e.hint(format!(
            "in its cgroup there was an OOM kill, and linux.resources.memory.limit is {bytes} bytes"
        )),
    }
}

/// A step needs more descriptors than the container may have.
pub fn few_descriptors(plan: &Plan, n: usize, e: Error) -> Error {
    let mut limits = plan.steps.iter().take(n).chain(&plan.limits);
    let limit = limits.find_map(|s| match s.act {
        Act::Rlimit { resource, soft, .. } if resource == libc::RLIMIT_NOFILE => Some((&s.at, soft)),
        _ => None,
    });
    match limit {
        Some((at, soft)) => e.hint(format!("{at} allows no descriptor from {soft} on")),
        None => e,
    }
}

/// The words for a failed step: `at` NUL `call` NUL `detail`, as init sent them.
pub fn failure(m: &Message, step: Option<(String, &Act)>, program: &str) -> Error {
    let mut parts = m.text.split('\0');
    let (at, call) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let detail = parts.next().unwrap_or_default().trim_end_matches('\n');
    let errno = m.head.errno;
    match step.as_ref().map(|s| s.1) {
        Some(Act::FindProgram) => return not_found(program, call, errno),
        Some(Act::Exec) => return exec_failed(program, errno, detail),
        None if call == "execve" => return exec_failed(program, errno, detail),
        _ if call == "hook" => return Error::errno_or_rule(at, detail, errno), // its words are whole
        _ => {}
    }
    let words = match &step {
        Some((shown, _)) => {
            shown.strip_prefix(at).map_or(shown.as_str(), |s| s.trim_start_matches(": ")).to_string()
        }
        None => String::new(),
    };
    let what: Vec<&str> = [words.as_str(), call, detail].into_iter().filter(|s| !s.is_empty()).collect();
    if matches!(step, Some((_, Act::Fork { .. } | Act::Unshare(_)))) {
        return clone_failed(at, what.join(": "), Errno::from_raw(errno));
    }
    Error::errno_or_rule(at, what.join(": "), errno)
}

/// Engines turn these words into exit codes 126 and 127.
fn not_found(program: &str, call: &str, errno: i32) -> Error {
    let at = "process.args[0]";
    match call {
        "executable file not found in $PATH" => Error::invalid(at, format!("exec: {program:?}: {call}")),
        "is a directory" => Error::os(at, format!("exec: {program:?}: is a directory"), libc::EACCES),
        "stat" => Error::os(at, format!("exec: {program:?}: stat {program}"), errno),
        _ => Error::os(at, format!("exec: {program:?}"), errno),
    }
}

fn exec_failed(program: &str, errno: i32, interpreter: &str) -> Error {
    let e = Error::os("process.args[0]", format!("exec: {program:?}: execve"), errno);
    match errno {
        libc::ENOENT if interpreter.ends_with('\r') => {
            e.hint(format!("its first line names {interpreter:?}: the script has the line ends of DOS"))
        }
        libc::ENOENT if !interpreter.is_empty() => {
            e.hint(format!("the interpreter {interpreter:?} of its first line is missing"))
        }
        libc::ENOENT => e.hint("the file is there, but the loader that it was linked for is missing"),
        libc::EPERM => e.hint("linux.seccomp may deny it"),
        libc::ENOEXEC => {
            e.hint("it is neither a program of this machine's architecture nor a script with #!")
        }
        libc::EACCES => e.hint("its interpreter may not be executed"),
        _ => e,
    }
}
