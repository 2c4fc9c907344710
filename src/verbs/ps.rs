//! ps: the processes of a container.

use crate::container::{Container, StateRoot};
use crate::error::{Error, Result};
use procfs::process::{Process, all_processes};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

pub fn ps(root: &StateRoot, args: &liboci_cli::Ps) -> Result<()> {
    let c = root.load(&args.container_id)?;
    let pids = pids(&c)?;
    if args.format == "json" {
        return super::print(&format!("{}\n", serde_json::json!(pids)));
    }
    super::print(&table(&args.ps_options, &pids)?)
}

/// Those of its cgroup and below; none when it is stopped. A cgroup without its init is not its own: one that an
/// ordinary user could not make may have been made since for another container of the same name.
fn pids(c: &Container) -> Result<BTreeSet<i32>> {
    let there = c.cgroup().pids()?;
    let init = c.init().map(|(init, _)| init).filter(|init| init.is_alive());
    match (there, init) {
        (Some(pids), init) if init.is_none_or(|i| pids.contains(&i.pid)) => Ok(pids),
        (_, Some(init)) => family(init.pid, c.record.private_pids),
        (_, None) => Ok(BTreeSet::new()),
    }
}

/// Without a cgroup: init and its descendants, and, if the pid namespace is its own, whoever else is in there. What
/// `exec` brought in is no descendant, and an orphan without that namespace is not found.
fn family(init: i32, private_pids: bool) -> Result<BTreeSet<i32>> {
    let all = all_processes().map_err(|e| Error::invalid("/proc", format!("cannot be read: {e}")))?;
    let namespace = |p: i32| std::fs::read_link(format!("/proc/{p}/ns/pid")).ok();
    let theirs = namespace(init).filter(|_| private_pids);
    let mut rest: Vec<(i32, i32)> =
        all.flatten().filter_map(|p: Process| Some((p.pid, p.stat().ok()?.ppid))).collect();
    let mut found = BTreeSet::from([init]);
    found.extend(rest.iter().map(|p| p.0).filter(|p| theirs.is_some() && namespace(*p) == theirs));
    loop {
        let (new, other): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(_, parent)| found.contains(parent));
        if new.is_empty() {
            return Ok(found);
        }
        found.extend(new.iter().map(|p| p.0));
        rest = other;
    }
}

/// What ps(1) prints, with the lines of these processes alone.
fn table(options: &[String], pids: &BTreeSet<i32>) -> Result<String> {
    let default = ["-ef".to_string()];
    let options = if options.is_empty() { &default[..] } else { options };
    let out = Command::new("ps").args(options).stdin(Stdio::null()).output().map_err(|e| {
        Error::io("ps(1)", "execute", &e).hint("tables come from ps(1), --format json needs no program")
    })?;
    let complaint = String::from_utf8_lossy(&out.stderr);
    if !out.status.success() {
        let why = complaint.lines().find(|l| !l.is_empty()).unwrap_or("no message");
        return Err(Error::invalid("ps(1)", format!("{options:?}: {}: {why}", out.status)));
    }
    let text = String::from_utf8_lossy(&out.stdout);
    select(&text, pids)
        .ok_or_else(|| Error::invalid("ps(1)", format!("{options:?}: the output has no PID column")))
}

/// The header, and each line with one of these numbers in its column PID; `None` when there is no such column.
fn select(text: &str, pids: &BTreeSet<i32>) -> Option<String> {
    let (header, lines) = text.split_once('\n')?;
    let column = header.split_ascii_whitespace().position(|w| w == "PID")?;
    let is_theirs = |line: &&str| {
        let word = line.split_ascii_whitespace().nth(column);
        word.and_then(|w| w.parse().ok()).is_some_and(|pid| pids.contains(&pid))
    };
    Some(std::iter::once(header).chain(lines.lines().filter(is_theirs)).map(|l| format!("{l}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_the_column_of_the_header() {
        let pids = BTreeSet::from([7, 12]);
        for (text, want) in [
            ("UID PID PPID\nroot 7 1\nroot 1 7\nroot 12 1\n", Some("UID PID PPID\nroot 7 1\nroot 12 1\n")),
            ("    PID TTY\n      7 ?\n", Some("    PID TTY\n      7 ?\n")),
            ("COMMAND PID\n(a b) 7\nc 12\nd\n", Some("COMMAND PID\nc 12\n")),
            ("PID\n1\n", Some("PID\n")),
            ("COMMAND\nsh\n", None),
            ("PPID\n7\n", None),
            ("", None),
        ] {
            assert_eq!(select(text, &pids).as_deref(), want, "{text:?}");
        }
    }
}
