//! config.md#process: everything but ids and capabilities.

pub mod rlimits;
mod scheduling;

use super::mounts::notify;
use super::step::{Act, Program, Step};
use super::{Draft, cstring, user};
use crate::config;
use crate::error::{Error, Result};
pub use scheduling::{Affinity, affinity, memory_policies, outlives_fork};
use std::collections::BTreeMap;
use std::ffi::CString;

/// Where a bare name is looked up when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process section, decided.
#[derive(Clone, Debug, Default)]
pub struct Process {
    pub program: Program,
    pub cwd: CString,
    /// Rows and columns of the terminal, zero when the document gives none; `None` without a terminal.
    pub terminal: Option<(u16, u16)>,
    /// Act::Rlimit steps.
    pub rlimits: Vec<Step>,
    /// personality, scheduler, ioPriority, memoryPolicy.
    pub scheduling: Vec<Step>,
    /// Act::ExecLabel of AppArmor or SELinux.
    pub labels: Vec<Step>,
    /// The SELinux label of keys that are made.
    pub key_label: Option<CString>,
    /// -1000 to 1000; unset means untouched.
    pub oom_score_adj: Option<i32>,
    pub no_new_privileges: bool,
}

/// Without a program there is nothing to start: `create` makes the container nonetheless (config.md#process).
pub fn missing() -> Error {
    Error::invalid("process", "is required: it names the program")
}

/// Reads `process`.
pub fn plan(d: &mut Draft) -> Result<Process> {
    let config = d.config;
    let Some(p) = &config.process else {
        let none = Process { cwd: c"/".into(), ..Process::default() };
        return if d.request.gate { Ok(none) } else { Err(missing()) };
    };
    affinity(p.exec_cpu_affinity.as_ref())?; // for exec alone, yet its mistakes are told before there is a container
    Ok(Process {
        program: program(d, p)?,
        cwd: cwd(p)?,
        terminal: terminal(d, p)?,
        rlimits: rlimits::plan(p.rlimits.as_deref().unwrap_or_default(), &d.host.hard_limits)?,
        scheduling: scheduling::plan(p, config.linux.as_ref())?,
        labels: labels(d, p)?,
        key_label: match p.selinux_label.as_deref().unwrap_or_default() {
            "" => None,
            label => Some(cstring("process.selinuxLabel", label)?),
        },
        oom_score_adj: oom_score_adj(p)?,
        no_new_privileges: p.no_new_privileges.unwrap_or(false),
    })
}

fn program(d: &mut Draft, p: &config::Process) -> Result<Program> {
    let args = p.args.as_deref().unwrap_or_default();
    let Some(name) = args.first() else {
        return Err(Error::invalid("process.args", "is required and names the program first"));
    };
    if name.is_empty() {
        return Err(Error::invalid("process.args[0]", "is empty, it names the program"));
    }
    let argv = args
        .iter()
        .enumerate()
        .map(|(n, a)| cstring(&format!("process.args[{n}]"), a))
        .collect::<Result<Vec<_>>>()?;
    // sd_listen_fds(3): the program is told of the descriptors that the caller hands through us.
    let listen = match d.request.listen_fds {
        0 => Vec::new(),
        n => vec![format!("LISTEN_FDS={n}"), "LISTEN_PID=1".to_string()],
    };
    let ready =
        d.request.notify.iter().map(|_| format!("{}={}/{}", notify::AT, notify::INSIDE, notify::NAME));
    let ours: Vec<String> = listen.into_iter().chain(ready).collect();
    let env = environment(d, p.env.iter().flatten().chain(&ours));
    let path = env.iter().find_map(|(_, e)| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let candidates = candidates(name, path)?;
    let has_home = env.iter().any(|(_, e)| e.starts_with("HOME="));
    let uid = p.user.as_ref().and_then(|u| u.uid).unwrap_or(0);
    Ok(Program {
        name: name.clone(),
        candidates,
        argv,
        envp: env.iter().map(|(n, e)| cstring(&format!("process.env[{n}]"), e)).collect::<Result<_>>()?,
        home_of: if has_home { None } else { Some(user::id("process.user.uid", uid)?) },
    })
}

/// As given, but of a variable that is set twice the last value counts, in the place of the first: programs differ in
/// which of two they see. An empty HOME counts as none.
fn environment<'a>(d: &mut Draft, env: impl Iterator<Item = &'a String>) -> Vec<(usize, &'a str)> {
    let mut out: Vec<(usize, &str)> = Vec::new();
    let mut places = BTreeMap::new();
    for (n, entry) in env.map(String::as_str).enumerate() {
        let Some((key, _)) = entry.split_once('=') else {
            d.warn(&format!("process.env[{n}]"), format!("{entry:?} has no \"=\", kept as it is"));
            out.push((n, entry));
            continue;
        };
        match places.get(key) {
            Some(&place) => out[place] = (n, entry),
            None => {
                places.insert(key, out.len());
                out.push((n, entry));
            }
        }
    }
    out.retain(|(_, e)| *e != "HOME=");
    out
}

/// As execvp(3): with a slash the name is a path, an empty element of PATH is the working directory.
fn candidates(name: &str, path: &str) -> Result<Vec<CString>> {
    if name.contains('/') {
        return Ok(vec![cstring("process.args[0]", name)?]);
    }
    let dirs = path.split(':').take(if path.is_empty() { 0 } else { usize::MAX });
    dirs.map(|dir| cstring("process.env", &format!("{}/{name}", if dir.is_empty() { "." } else { dir })))
        .collect()
}

fn cwd(p: &config::Process) -> Result<CString> {
    match p.cwd.as_deref().unwrap_or_default() {
        "" => Err(Error::invalid("process.cwd", "is required")),
        cwd if !cwd.starts_with('/') => {
            Err(Error::invalid("process.cwd", format!("{cwd:?} is not absolute")))
        }
        cwd => cstring("process.cwd", cwd),
    }
}

/// Who gets the pty's master: the caller through its socket or, in the foreground, we ourselves.
fn terminal(d: &Draft, p: &config::Process) -> Result<Option<(u16, u16)>> {
    let terminal = p.terminal.unwrap_or(false);
    match (terminal, d.request.console_socket.is_some(), d.request.foreground) {
        (true, false, false) => {
            return Err(Error::invalid("process.terminal", "is true, but there is no --console-socket")
                .hint("who detaches must give one to receive the terminal"));
        }
        (false, true, _) => {
            return Err(Error::invalid("--console-socket", "is given, but process.terminal is not true"));
        }
        (true, true, true) => {
            return Err(Error::invalid("--console-socket", "is given, but `run` keeps the terminal itself")
                .hint("add --detach"));
        }
        _ => {}
    }
    if !terminal {
        return Ok(None);
    }
    let Some(size) = &p.console_size else { return Ok(Some((0, 0))) };
    let characters = |name: &str, value: Option<u64>| {
        let at = format!("process.consoleSize.{name}");
        match value {
            None => Err(Error::invalid(at, "is required")),
            Some(v) => u16::try_from(v)
                .ok()
                .filter(|v| *v > 0)
                .ok_or_else(|| Error::invalid(at, format!("{v} is not in 1-65535"))),
        }
    };
    Ok(Some((characters("height", size.height)?, characters("width", size.width)?)))
}

/// A label that cannot be applied is an error: whoever asks for confinement must not run without.
fn labels(d: &Draft, p: &config::Process) -> Result<Vec<Step>> {
    let mut out = Vec::new();
    let mut label = |property: &str, enabled: bool, lsm: &str, file: &str, value: &str, text: String| {
        let at = format!("process.{property}");
        if !enabled {
            return Err(Error::unsupported(at, format!("{value:?} is asked for, but {lsm} is not enabled")));
        }
        if text.contains('\n') {
            return Err(Error::invalid(at, format!("{value:?} has a line break")));
        }
        let (file, label) = (cstring(&at, file)?, cstring(&at, &text)?);
        out.push(Step::new(at, Act::ExecLabel { file, label }));
        Ok(())
    };
    match p.apparmor_profile.as_deref().unwrap_or_default() {
        "" | "unconfined" => {}
        profile => {
            let file = "self/attr/apparmor/exec";
            label("apparmorProfile", d.host.apparmor, "AppArmor", file, profile, format!("exec {profile}"))?;
        }
    }
    match p.selinux_label.as_deref().unwrap_or_default() {
        "" => {}
        l => label("selinuxLabel", d.host.selinux, "SELinux", "self/attr/exec", l, l.to_string())?,
    }
    Ok(out)
}

/// proc_pid_oom_score_adj(5)
fn oom_score_adj(p: &config::Process) -> Result<Option<i32>> {
    match p.oom_score_adj {
        Some(v) if !(-1000..=1000).contains(&v) => {
            Err(Error::invalid("process.oomScoreAdj", format!("{v} is not in -1000 to 1000")))
        }
        v => Ok(v.map(|v| v as i32)),
    }
}

#[cfg(test)]
mod tests;
