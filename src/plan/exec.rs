//! exec: the plan of a process more in a running container.
//!
//! The document is the container's own, as `create` read it, with another `process` in it; from there on the sections
//! are those of `create`.

use super::order::{self, Identity};
use super::spawn::{self, NEWPID, NEWUSER, Shape};
use super::step::{Open, OpenWhat};
use super::{Draft, Facts, Plan, Request, caps, idmap, process, seccomp, user};
use crate::config::{Config, Process, User};
use crate::error::{Error, Result};

/// The process of `--process FILE`: what it leaves out is that of the container.
pub fn whole(mut given: Process, container: &Process) -> Process {
    macro_rules! inherit {
        ($($field:ident)*) => { $( if given.$field.is_none() { given.$field.clone_from(&container.$field); } )* };
    }
    inherit!(capabilities no_new_privileges apparmor_profile selinux_label rlimits oom_score_adj);
    inherit!(io_priority scheduler exec_cpu_affinity);
    given
}

/// What the flags of the command line say.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub terminal: bool,
    /// `UID` or `UID:GID`.
    pub user: Option<String>,
    pub additional_gids: Vec<u32>,
    pub no_new_privileges: bool,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub caps: Vec<String>,
}

/// The container's process, changed by flags.
pub fn changed(container: &Process, flags: &Flags) -> Result<Process> {
    let mut p = container.clone();
    p.args = Some(flags.args.clone());
    p.terminal = Some(flags.terminal);
    p.env.get_or_insert_default().extend(flags.env.iter().cloned());
    let over = |to: &mut Option<String>, from: &Option<String>| {
        if from.is_some() {
            to.clone_from(from);
        }
    };
    over(&mut p.cwd, &flags.cwd);
    over(&mut p.apparmor_profile, &flags.apparmor_profile);
    over(&mut p.selinux_label, &flags.selinux_label);
    let user = p.user.get_or_insert_default();
    if let Some(text) = &flags.user {
        become_user(user, text)?;
    }
    user.additional_gids.get_or_insert_default().extend(flags.additional_gids.iter().map(|g| i64::from(*g)));
    if flags.no_new_privileges {
        p.no_new_privileges = Some(true);
    }
    let sets = p.capabilities.get_or_insert_default();
    for cap in &flags.caps {
        if caps::number(cap).is_none() {
            return Err(Error::invalid("--cap", format!("{cap:?} is no capability")));
        }
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.get_or_insert_default().push(cap.clone());
        }
    }
    Ok(p)
}

/// Numbers only, and a lone one is the uid (CVE-2026-30892).
fn become_user(user: &mut User, text: &str) -> Result<()> {
    let id = |t: &str| {
        let digits = !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        let bad = || Error::invalid("--user", format!("{text:?} is neither UID nor UID:GID"));
        digits.then(|| t.parse::<i64>().ok()).flatten().ok_or_else(bad)
    };
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    user.uid = Some(id(uid)?);
    if let Some(gid) = gid {
        user.gid = Some(id(gid)?);
    }
    Ok(())
}

impl Plan {
    /// exec: the container's document, with the process to start in it, to a plan. Touches nothing.
    pub fn for_exec(config: &Config, host: &Facts, request: &Request) -> Result<Plan> {
        let linux = config.linux.as_ref();
        let ns = spawn::namespaces(linux)?;
        let maps = idmap::plan(linux, &ns)?;
        let (opens, warnings) = (Vec::new(), Vec::new());
        let mut d = Draft { config, host, request, ns, maps, opens, warnings };
        let seccomp = seccomp::plan(&mut d)?;
        let shape = shape(&mut d);
        let user = user::plan(&mut d)?;
        let caps = caps::plan(&mut d)?;
        let process = process::plan(&mut d)?;
        let affinity = process::affinity(config.process.as_ref().and_then(|p| p.exec_cpu_affinity.as_ref()))?;
        let id = Identity { process, user, caps, seccomp };
        let (steps, limits) = order::exec(&mut d, &shape, affinity, &id)?;
        Ok(Plan {
            steps,
            maps: idmap::Maps::default(),
            interfaces: Vec::new(),
            oom_score_adj: id.process.oom_score_adj,
            terminal: id.process.terminal.is_some(),
            limits,
            program: id.process.program,
            listener: id.seccomp.and_then(|s| s.listener),
            private_pids: d.ns.is_new(NEWPID),
            rootless: host.euid != 0,
            shape,
            opens: d.opens,
            hooks: Default::default(),
            cgroup: Default::default(),
            rdt: None,
            warnings: d.warnings,
        })
    }
}

/// Every namespace of the container is joined, by one call. Whoever has CAP_SYS_PTRACE in our user namespace, as in a
/// container without one of its own, must not see a process that is not inside yet (CVE-2016-9962): then one process
/// joins everything, and the one that goes on is born in the pid namespace after that. The same is needed where only
/// the user namespace gives the right to enter it.
fn shape(d: &mut Draft) -> Shape {
    let joined = d.ns.joined.iter().fold(0, |all, j| all | j.0);
    let kinds = d.ns.new | joined;
    if kinds == 0 {
        return Shape::default();
    }
    let init = d.open(Open { at: "linux.namespaces".into(), what: OpenWhat::Init });
    let staged = kinds & NEWPID != 0 && (kinds & NEWUSER == 0 || !d.host.privileged);
    let by_parent = if staged { 0 } else { kinds & NEWPID };
    let rest = kinds & !by_parent;
    Shape {
        staged,
        join_pid: (by_parent != 0).then_some(init),
        join: if rest == 0 { Vec::new() } else { vec![(init, rest)] },
        ..Shape::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{Sample, sample};
    use crate::plan::spawn::{NEWIPC, NEWNET, NEWNS, NEWUTS};
    use crate::plan::step::Act;
    use serde_json::json;

    fn container() -> Process {
        let caps = json!({ "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] });
        let process = json!({
            "args": ["init"], "cwd": "/", "env": ["A=1"], "user": { "uid": 1, "gid": 2, "additionalGids": [3] },
            "terminal": true, "capabilities": caps, "noNewPrivileges": true, "oomScoreAdj": 5,
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1, "hard": 2 }], "apparmorProfile": "a",
        });
        serde_json::from_value(process).unwrap()
    }

    #[test]
    fn what_a_file_leaves_out_is_the_containers_but_for_what_makes_a_process() {
        let file: Process = serde_json::from_value(json!({ "args": ["x"], "oomScoreAdj": 7 })).unwrap();
        let p = whole(file, &container());
        assert_eq!((&p.capabilities, &p.rlimits), (&container().capabilities, &container().rlimits));
        assert_eq!((p.no_new_privileges, p.oom_score_adj), (Some(true), Some(7)));
        assert_eq!(p.apparmor_profile.as_deref(), Some("a"));
        assert_eq!((p.cwd, p.env, p.user, p.terminal), (None, None, None, None));
        let mut none = Process { capabilities: Some(Default::default()), ..Process::default() };
        none.no_new_privileges = Some(false);
        let p = whole(none.clone(), &container());
        assert_eq!((p.capabilities, p.no_new_privileges), (none.capabilities, Some(false)));
    }

    #[test]
    fn flags_change_what_they_name() {
        let flags = Flags { args: vec!["x".into()], ..Flags::default() };
        let plain = changed(&container(), &flags).unwrap();
        let want = Process { args: Some(vec!["x".into()]), terminal: Some(false), ..container() };
        assert_eq!(plain, want);
        let flags = Flags {
            env: vec!["B=2".into()],
            cwd: Some("/etc".into()),
            terminal: true,
            user: Some("7:8".into()),
            additional_gids: vec![9],
            caps: vec!["chown".into()],
            selinux_label: Some("l".into()),
            ..flags
        };
        let p = changed(&container(), &flags).unwrap();
        let strings = |list: &[&str]| Some(list.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!((p.env, p.cwd.as_deref()), (strings(&["A=1", "B=2"]), Some("/etc")));
        let user = p.user.unwrap();
        assert_eq!((user.uid, user.gid, user.additional_gids), (Some(7), Some(8), Some(vec![3, 9])));
        let caps = p.capabilities.unwrap();
        assert_eq!((caps.bounding, caps.ambient), (strings(&["CAP_KILL", "chown"]), None));
        assert_eq!((p.terminal, p.selinux_label.as_deref()), (Some(true), Some("l")));
        assert_eq!(
            changed(&container(), &Flags { user: Some("7".into()), ..flags }).unwrap().user.unwrap().gid,
            Some(2)
        );
    }

    #[test]
    fn users_are_numbers() {
        for text in ["", "root", "1:", ":1", "-1", "+1", "1:2:3", "0x1", "１"] {
            let flags = Flags { user: Some(text.into()), ..Flags::default() };
            let e = changed(&container(), &flags).unwrap_err().to_string();
            assert_eq!(e, format!("--user: {text:?} is neither UID nor UID:GID"));
        }
    }

    fn shape_of(s: Sample) -> Shape {
        s.run(shape)
    }

    #[test]
    fn the_parent_enters_the_pid_namespace_of_a_user_namespace_that_it_rules() {
        let rest = NEWNET | NEWIPC | NEWUTS | NEWNS;
        let join = |kinds, by_parent: bool, staged| Shape {
            join: vec![(0, kinds)],
            join_pid: by_parent.then_some(0),
            staged,
            ..Shape::default()
        };
        let ordinary = |h: &mut Facts| h.privileged = false;
        assert_eq!(shape_of(sample()), join(rest | NEWPID, false, true));
        assert_eq!(shape_of(sample().user_namespace()), join(rest | NEWUSER, true, false));
        assert_eq!(
            shape_of(sample().user_namespace().host(ordinary)),
            join(rest | NEWUSER | NEWPID, false, true)
        );
        assert_eq!(shape_of(sample().without("pid")), join(rest, false, false));
        let none = ["pid", "network", "ipc", "uts", "mount"].iter().fold(sample(), |s, k| s.without(k));
        assert_eq!(shape_of(none), Shape::default());
    }

    #[test]
    fn processors_are_chosen_around_the_cgroup() {
        let s = sample().set("/process/execCPUAffinity", json!({ "initial": "1", "final": "0,2" }));
        let config = serde_json::from_value(s.config.clone()).unwrap();
        let plan = Plan::for_exec(&config, &s.host, &s.request).unwrap();
        let at = |act: &Act| plan.steps.iter().position(|s| s.act == *act).unwrap();
        let (first, last) = (at(&Act::Affinity(vec![2])), at(&Act::Affinity(vec![5])));
        assert!(first < at(&Act::JoinCgroups) && at(&Act::JoinCgroups) < last);
        assert!(!plan.steps.iter().any(|s| s.act == Act::ResetAffinity));
    }
}
