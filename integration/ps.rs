//! ps: the processes of a container, by cgroup and without, and as runc lists them.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;

use cgroups::{Own, Sleeper, dir, freeze};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use support::{Bundle, ORLOP, Outcome, Scratch, finish, until};

/// Three processes: init, a child, and an orphan of another session.
const FAMILY: &str = "sleep 1000 & (setsid sleep 1000 &); exec sleep 1000";

fn started(b: &Bundle) {
    b.create().ok();
    b.start().ok();
}

/// The host's pids by `--format json`.
fn pids(b: &Bundle) -> BTreeSet<i64> {
    let out = finish(&mut b.orlop(["ps", "--format", "json", b.id.as_str()])).ok();
    let list = out.json();
    list.as_array().into_iter().flatten().map(|n| n.as_i64().expect("a number")).collect()
}

/// Once each of so many is the program that it will be.
fn sleepers(b: &Bundle, count: usize) -> BTreeSet<i64> {
    let mut found = BTreeSet::new();
    until("the processes are there", || {
        found = pids(b);
        found.len() == count && found.iter().all(|p| name_of(*p) == "sleep")
    });
    found
}

fn name_of(pid: i64) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_string()
}

fn by_runc(b: &Bundle, args: &[&str]) -> Outcome {
    let mut c = Command::new("runc");
    finish(c.arg("--root").arg(b.path().join("runc-state")).args(args).stdin(Stdio::null()))
}

/// Of an ordinary user's too, who may have no cgroup.
#[test]
fn json_is_every_process_of_the_container_and_no_other() {
    let b = Bundle::new().sh(FAMILY);
    let _other = Sleeper::new();
    started(&b);
    let found = sleepers(&b, 3);
    assert!(found.contains(&b.state()["pid"].as_i64().unwrap()));
    let short = finish(&mut b.orlop(["ps", "-f", "json", b.id.as_str()])).ok();
    let line = found.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
    assert_eq!(short.stdout, format!("[{line}]\n"));
}

#[test]
fn processes_in_cgroups_below_are_listed() {
    needs_root!();
    let b = Bundle::sleeping();
    started(&b);
    let below = dir("freezer", &b.id).join("below");
    fs::create_dir(&below).unwrap();
    let guest = Sleeper::new();
    guest.enter(&below);
    assert!(pids(&b).contains(&i64::from(guest.0.id())));
    drop(guest);
    until("the cgroup is empty", || fs::remove_dir(&below).is_ok());
}

#[test]
fn a_table_is_the_output_of_ps_cut_to_the_container() {
    needs_root!();
    needs_program!("ps");
    let b = Bundle::new().sh(FAMILY);
    started(&b);
    let found = sleepers(&b, 3);
    for (options, header) in [
        (&[][..], "UID"),
        (&["-ef"], "UID"),
        (&["aux"], "USER"),
        (&["-e", "-o", "ppid,pid,args"], "PPID"),
        (&["-eo", "pid,comm", "--sort=-pid"], "PID"),
    ] {
        let out = b.verb("ps", options).ok();
        let mut lines = out.stdout.lines();
        let head = lines.next().unwrap_or_default();
        assert_eq!(head.split_whitespace().next(), Some(header), "{options:?}");
        let column = head.split_whitespace().position(|w| w == "PID").unwrap();
        let listed = lines.map(|l| l.split_whitespace().nth(column).unwrap().parse::<i64>().unwrap());
        assert_eq!(listed.collect::<BTreeSet<_>>(), found, "{options:?}");
    }
}

#[test]
fn a_table_that_cannot_be_made_says_why() {
    needs_root!();
    needs_program!("ps");
    let b = Bundle::sleeping();
    started(&b);
    b.verb("ps", &["-e", "-o", "comm"]).fails("has no PID column");
    b.verb("ps", &["--no-such-option"]).fails("--no-such-option");
    let empty = Scratch::new("path");
    finish(b.orlop(["ps", b.id.as_str()]).env("PATH", &empty.path))
        .fails("ps(1): execute: no such file or directory");
    finish(b.orlop(["ps", "-f", "json", b.id.as_str()]).env("PATH", &empty.path)).ok();
    finish(&mut b.orlop(["ps", "--format", "yaml", b.id.as_str()])).fails("yaml");
}

#[test]
fn a_created_and_a_paused_container_have_processes() {
    needs_root!();
    let b = Bundle::sleeping();
    b.create().ok();
    assert_eq!(pids(&b).len(), 1);
    b.start().ok();
    freeze(&dir("freezer", &b.id));
    b.await_status("paused");
    assert_eq!(pids(&b).len(), 1);
}

#[test]
fn a_stopped_container_has_none_and_an_unknown_one_is_an_error() {
    needs_root!();
    needs_program!("ps");
    let b = Bundle::new();
    started(&b);
    b.await_status("stopped");
    assert_eq!(finish(&mut b.orlop(["ps", "-f", "json", b.id.as_str()])).ok().stdout, "[]\n");
    assert_eq!(b.verb("ps", &[]).ok().stdout.lines().count(), 1);
    b.delete().ok();
    b.verb("ps", &[]).fails("container does not exist");
}

#[test]
fn without_a_cgroup_they_are_found_by_namespace_and_descent() {
    needs_root!();
    for b in
        [Bundle::new().sh(FAMILY), Bundle::new().without_namespace("pid").sh("sleep 1000 & exec sleep 1000")]
    {
        b.write();
        let private = b.config["linux"]["namespaces"].to_string().contains("\"pid\"");
        let mut create = Command::new(ORLOP);
        create.arg("--root").arg(b.state_root()).args(["--cgroup-manager=disabled", "create", "--bundle"]);
        finish(create.arg(b.path()).arg(&b.id).stdin(Stdio::null())).ok();
        b.start().ok();
        let found = sleepers(&b, if private { 3 } else { 2 });
        for pid in found {
            finish(Command::new("kill").args(["-9", &pid.to_string()])); // none follows init without the namespace
        }
        b.await_status("stopped");
    }
}

#[test]
fn a_cgroup_that_is_anothers_by_now_is_not_listed() {
    needs_root!();
    let b = Bundle::sleeping();
    started(&b);
    let init = pids(&b);
    let (own, elsewhere) = (dir("freezer", &b.id), Own::new("freezer", &format!("{}-elsewhere", b.id)));
    fs::write(elsewhere.0.join("cgroup.procs"), b.state()["pid"].to_string()).unwrap();
    let other = Sleeper::new();
    other.enter(&own);
    assert_eq!(pids(&b), init);
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
}

/// Two containers alike, since neither reads the other's state.
#[test]
fn runc_lists_the_same() {
    needs_root!();
    needs_program!("runc");
    needs_program!("ps");
    let b = Bundle::new().sh(FAMILY).set("/ociVersion", json!("1.0.2"));
    let theirs = format!("{}-runc", b.id);
    started(&b);
    let mut run = Command::new("runc");
    run.arg("--root").arg(b.path().join("runc-state")).args(["run", "-d", "--bundle"]).arg(b.path());
    finish(run.arg(&theirs).stdin(Stdio::null())).ok();
    sleepers(&b, 3);
    let list = || by_runc(&b, &["ps", "--format", "json", &theirs]).ok().json();
    until("runc's processes are there", || list().as_array().map(Vec::len) == Some(3));
    assert!(list().as_array().unwrap().iter().all(Value::is_u64));
    let words = |out: &Outcome| -> Vec<String> {
        out.stdout.lines().map(|l| l.split_whitespace().next().unwrap_or_default().to_string()).collect()
    };
    let ours = b.verb("ps", &["-eo", "comm,pid"]).ok();
    until("runc's table is the same", || {
        words(&by_runc(&b, &["ps", &theirs, "-eo", "comm,pid"]).ok()) == words(&ours)
    });
    b.verb("kill", &["KILL"]).ok();
    by_runc(&b, &["kill", &theirs, "KILL"]).ok();
    b.await_status("stopped");
    until("runc's is stopped", || by_runc(&b, &["state", &theirs]).ok().json()["status"] == "stopped");
    assert_eq!(b.verb("ps", &[]).ok().stdout, by_runc(&b, &["ps", &theirs]).ok().stdout);
    assert_eq!(list(), Value::Null); // for which we print the empty list that it means
    let unknown = by_runc(&b, &["ps", "no-such-container"]).fails("container does not exist").code();
    assert_eq!(finish(&mut b.orlop(["ps", "no-such-container"])).code(), unknown);
}
