//! The v2 side of a creation.

use super::dir::{Dir, cstring};
use crate::error::{Error, Kind, Result};
use crate::plan::cgroup::V2;
use crate::sys::{Errno, bpf, cred, path};

/// Hands the controllers of the plan down from `dir` to its children; `name` is for errors.
pub fn hand_down(dir: &Dir, name: &str, plan: &V2) -> Result<()> {
    if plan.needed.is_empty() && plan.wanted.is_empty() {
        return Ok(());
    }
    let all = plan.needed.iter().map(|(c, _)| c).chain(&plan.wanted);
    let on = dir.read("cgroup.subtree_control").unwrap_or_default();
    let has = |list: &str, c: &str| list.split_ascii_whitespace().any(|w| w == c);
    let mut missing: Vec<&str> = all.map(String::as_str).filter(|c| !has(&on, c)).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let available = dir.read("cgroup.controllers").unwrap_or_default();
    if let Some((c, at)) =
        plan.needed.iter().find(|(c, _)| missing.contains(&c.as_str()) && !has(&available, c))
    {
        let what = format!("needs the cgroup controller {c:?}, which {name} does not get from its parent");
        return Err(Error::unsupported(at, what));
    }
    missing.retain(|c| has(&available, c));
    if missing.is_empty() {
        return Ok(());
    }
    // With processes of its own it could hand down the threaded controllers, but would become the root of a threaded
    // subtree by that, whose children take no processes (cgroups(7)). The root alone, which has no type, may have both.
    let populated = || dir.read("cgroup.procs").is_ok_and(|p| !p.is_empty());
    if dir.has("cgroup.type") && populated() {
        let needed = plan.needed.iter().find(|(c, _)| missing.contains(&c.as_str()));
        return needed.map_or(Ok(()), |(c, at)| Err(refused(at, &format!("+{c}"), name, Errno::EBUSY)));
    }
    let words: Vec<_> = missing.iter().map(|c| format!("+{c}")).collect();
    if dir.write("cgroup.subtree_control", &words.join(" ")).is_ok() {
        return Ok(());
    }
    // All or nothing is the kernel's way: find out which it is.
    for (c, word) in missing.iter().zip(&words) {
        let Err(e) = dir.write("cgroup.subtree_control", word) else { continue };
        let Some((_, at)) = plan.needed.iter().find(|(n, _)| n == c) else {
            tracing::debug!("{name}/cgroup.subtree_control: write {word:?}: {e}; nothing here needs it");
            continue;
        };
        return Err(refused(at, word, name, e));
    }
    Ok(())
}

fn refused(at: &str, word: &str, name: &str, e: Errno) -> Error {
    let error = Error::os(at, format!("write {word:?} to {name}/cgroup.subtree_control"), e as i32);
    match e {
        Errno::EBUSY => {
            error.hint("that cgroup has processes of its own, so its children get no controllers")
        }
        Errno::EACCES | Errno::EPERM => error.hint("that cgroup was not delegated to this user"),
        _ => error,
    }
}

/// A new cgroup below a threaded one takes no processes.
pub fn check_type(dir: &Dir, name: &str) -> Result<()> {
    match dir.read("cgroup.type").unwrap_or_default().trim_end() {
        kind @ ("threaded" | "domain invalid") => {
            let what = format!("{name} is in a threaded subtree (its cgroup.type is {kind:?})");
            Err(Error::new(Kind::WrongState, "linux.cgroupsPath", what).hint("only threads can join it"))
        }
        _ => Ok(()),
    }
}

/// Makes this user the owner of what the kernel says is delegated (cgroups(7)), so that it can manage cgroups below.
pub fn hand_over(dir: &Dir, name: &str, uid: u32) -> Result<()> {
    // The list since 4.15, and its fallback by the specification.
    let list = std::fs::read_to_string("/sys/kernel/cgroup/delegate")
        .unwrap_or_else(|_| "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n".into());
    // The directory last: from then on the user can make what stands in the way.
    for file in list.lines().chain(["."]) {
        match cstring(file).and_then(|f| path::chown(&dir.0, &f, uid, u32::MAX)) {
            Ok(()) | Err(Errno::ENOENT) => {} // a controller's file that is not here
            Err(e @ Errno::EPERM) if super::create::is_confined() => {
                tracing::debug!("{name}/{file}: chown to {uid}: {e}; the container cannot manage cgroups");
                return Ok(());
            }
            Err(e) => {
                return Err(Error::os(
                    "linux.cgroupsPath",
                    format!("chown {name}/{file} to {uid}"),
                    e as i32,
                ));
            }
        }
    }
    Ok(())
}

/// Loads and attaches the device program, before any process is in the cgroup.
pub fn attach(dir: &Dir, program: &[u64]) -> Result<()> {
    let failed = |what: &'static str| {
        move |e: Errno| {
            let error = Error::os("linux.resources.devices", what, e as i32);
            error.hint("on cgroup v2 device rules are a BPF program: without it every device would be open")
        }
    };
    let loaded = load(program).map_err(failed("bpf BPF_PROG_LOAD"))?;
    bpf::attach_device_program(&dir.0, &loaded).map_err(failed("bpf BPF_PROG_ATTACH"))
}

fn load(program: &[u64]) -> crate::sys::Sys<std::os::fd::OwnedFd> {
    const MEMLOCK: u32 = 8; // RLIMIT_MEMLOCK, whose type differs between C libraries
    let mut tries = 0;
    loop {
        match bpf::load_device_program(program) {
            Err(Errno::EAGAIN) if tries < 5 => tries += 1,
            Err(Errno::EPERM) if tries < 5 => {
                // Before Linux 5.11 all programs of a user count against RLIMIT_MEMLOCK, which says EPERM when full.
                // Ours goes back at once: init would inherit it.
                let old = cred::limit(MEMLOCK)?;
                cred::set_limit(0, MEMLOCK, u64::MAX, u64::MAX).map_err(|_| Errno::EPERM)?;
                let loaded = bpf::load_device_program(program);
                cred::set_limit(0, MEMLOCK, old.0, old.1)?;
                return loaded;
            }
            other => return other,
        }
    }
}
