use crate::config::Config;
use crate::plan::spawn::{NEWCGROUP, NEWTIME, NEWUSER};
use crate::plan::step::{Act, Ask, Step};
use crate::plan::{Facts, Plan, Request, cgroup, explain, sample};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/golden")
}

/// Name and document: what clients wrote, and what `orlop spec` writes.
fn documents() -> Vec<(String, Value)> {
    let mut files: Vec<_> = fs::read_dir(dir()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    files.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.json.example"));
    let document = |f: &PathBuf| {
        let name = f.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_string();
        (name, serde_json::from_slice(&fs::read(f).unwrap()).unwrap())
    };
    files.iter().map(document).collect()
}

/// A host with cgroup v2, and root.
fn host() -> Facts {
    let controllers = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];
    Facts {
        cgroups: cgroup::Hierarchies {
            v1: Vec::new(),
            v2: Some(cgroup::Unified {
                mount: "/sys/fs/cgroup".into(),
                controllers: controllers.map(String::from).into(),
                own: "/".into(),
            }),
        },
        ..sample::sample().host
    }
}

fn plan(name: &str, document: &Value, gate: bool) -> Plan {
    let config: Config = serde_json::from_value(document.clone()).unwrap();
    let request = Request {
        id: "box".into(),
        bundle: "/bundle".into(),
        console_socket: (gate && document["process"]["terminal"] == true).then(|| "/console".into()),
        foreground: !gate,
        gate,
        ..Request::default()
    };
    Plan::for_create(&config, &host(), &request).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn exec_plan(document: &Value) -> Plan {
    let config: Config = serde_json::from_value(document.clone()).unwrap();
    let request =
        Request { id: "box".into(), bundle: "/bundle".into(), foreground: true, ..Request::default() };
    Plan::for_exec(&config, &host(), &request).unwrap()
}

#[test]
fn golden_plans_are_as_written() {
    let mut wrong = Vec::new();
    for (name, document) in documents() {
        let text = explain::text(&plan(&name, &document, true));
        let file = dir().join(format!("{name}.plan"));
        if std::env::var_os("ORLOP_GOLDEN").is_some() {
            fs::write(&file, &text).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != text {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:?} differ; see src/plan/golden/mod.rs");
}

/// Every golden document with the properties changed that the order depends on.
fn variants() -> Vec<(String, Value, bool)> {
    let mut out = Vec::new();
    for (name, document) in documents() {
        for no_new_privileges in [json!(null), json!(false), json!(true)] {
            for (uid, gate, readonly) in [(0, false, false), (1000, true, true)] {
                let mut d = document.clone();
                d["process"]["noNewPrivileges"] = no_new_privileges.clone();
                d["process"]["user"]["uid"] = json!(uid);
                d["root"]["readonly"] = json!(readonly);
                if d["linux"]["seccomp"].is_null() {
                    d["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
                }
                let hook = json!([{ "path": "/bin/true" }]);
                for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
                    d["hooks"][kind] = hook.clone();
                }
                let name = format!("{name}, noNewPrivileges {no_new_privileges}, uid {uid}");
                out.push((name, d, gate));
            }
        }
    }
    out
}

/// Places of the steps that match, in order.
fn places(steps: &[Step], which: impl Fn(&Act) -> bool) -> Vec<usize> {
    (0..steps.len()).filter(|n| which(&steps[*n].act)).collect()
}

macro_rules! at {
    ($plan:expr, $($pattern:tt)+) => { places(&$plan.steps, |a| matches!(a, $($pattern)+)) };
}

/// All of the first come before all of the second.
#[track_caller]
fn precedes(name: &str, first: &[usize], second: &[usize]) {
    if let (Some(last), Some(next)) = (first.last(), second.first()) {
        assert!(last < next, "{name}: step {last} is not before step {next}");
    }
}

#[test]
fn filters_come_before_capabilities_go_exactly_when_privileges_may_be_gained() {
    for (name, document, gate) in variants() {
        let p = plan(&name, &document, gate);
        let set = document["process"]["noNewPrivileges"] == true;
        assert_eq!(at!(p, Act::NoNewPrivs).len(), usize::from(set), "{name}");
        let (filter, caps) = (at!(p, Act::Seccomp { .. }), at!(p, Act::SetCaps(_)));
        assert_eq!((filter.len(), caps.len()), (1, 1), "{name}");
        assert_eq!(filter < caps, !set, "{name}");
        if set {
            precedes(&name, &at!(p, Act::NoNewPrivs), &filter);
            precedes(&name, &at!(p, Act::NoNewPrivs), &at!(p, Act::Ask(Ask::Ready))); // so before startContainer hooks
            let after = &p.steps[filter[0] + 1..];
            let few =
                |a: &Act| matches!(a, Act::Ask(Ask::Ready) | Act::WaitGate { .. } | Act::Hook(_) | Act::Exec);
            assert!(after.iter().all(|s| few(&s.act)), "{name}: more than the end comes after the filter");
        }
    }
}

#[test]
fn identity_is_given_up_in_the_order_of_what_each_needs() {
    for (name, document, gate) in variants() {
        let p = plan(&name, &document, gate);
        let (user, caps) = (at!(p, Act::SetUser { .. }), at!(p, Act::SetCaps(_)));
        precedes(&name, &at!(p, Act::DropBounding { .. }), &user);
        precedes(&name, &user, &caps);
        precedes(&name, &caps, &at!(p, Act::Cwd { .. }));
        precedes(&name, &at!(p, Act::Cwd { .. }), &at!(p, Act::FindProgram));
        precedes(&name, &at!(p, Act::Rlimit { .. } | Act::Ask(Ask::Limits)), &user);
        precedes(&name, &at!(p, Act::ExecLabel { .. }), &user);
        precedes(&name, &at!(p, Act::Scheduler(_) | Act::IoPriority(_)), &user);
        let keep = at!(p, Act::KeepCaps);
        assert_eq!(keep.is_empty(), document["process"]["user"]["uid"] == 0, "{name}");
        precedes(&name, &keep, &user);
        assert_eq!((user.len(), at!(p, Act::Cwd { .. }).len()), (1, 1), "{name}");
    }
}

/// exec is confined by the same steps as the program of create; in the same order, unless others see it at once.
#[test]
fn exec_ends_as_create_does() {
    for (name, document, _) in variants() {
        let create = plan(&name, &document, false);
        let exec = exec_plan(&document);
        let identity = |p: &Plan| -> Vec<Step> {
            assert_eq!(at!(p, Act::Dumpable(_)).pop(), at!(p, Act::Dumpable(false)).pop(), "{name}");
            let from = at!(p, Act::Seccomp { .. } | Act::DropBounding { .. })[0];
            let of_one = |a: &Act| {
                matches!(a, Act::Hook(_) | Act::CloseHosts { .. } | Act::Fork { .. })
                    || matches!(a, Act::NewSession | Act::ControlTerminal)
            };
            let mut steps: Vec<_> = p.steps[from..].iter().filter(|s| !of_one(&s.act)).cloned().collect();
            if exec.shape.staged {
                steps.retain(|s| !matches!(s.act, Act::Rlimit { .. }));
                steps.sort_by_key(|s| format!("{s:?}"));
            }
            steps
        };
        assert_eq!(identity(&exec), identity(&create), "{name}");
        assert_eq!(at!(exec, Act::CloseInherited { .. }), [0], "{name}");
        let join = at!(exec, Act::JoinNamespaces { .. });
        precedes(&name, &at!(exec, Act::Dumpable(_))[..1], &join);
        precedes(&name, &at!(exec, Act::JoinCgroups), &join);
        precedes(&name, &join, &at!(exec, Act::OpenRoot { .. }));
        precedes(&name, &at!(exec, Act::OpenRoot { .. }), &at!(exec, Act::Console { .. } | Act::OwnNull));
    }
}

/// What is left to the process that is forked into the pid namespace needs no right.
#[test]
fn whoever_others_see_has_given_everything_up() {
    let mut seen = 0;
    for (name, document, _) in variants() {
        let p = exec_plan(&document);
        let [fork] = at!(p, Act::Fork { .. })[..] else { continue };
        seen += 1;
        let last = |a: &Act| {
            matches!(a, Act::Rlimit { resource: libc::RLIMIT_NPROC, .. })
                || matches!(a, Act::NewSession | Act::ControlTerminal | Act::Cwd { .. } | Act::FindProgram)
                || matches!(a, Act::Umask(_) | Act::ResetSignals { .. } | Act::Ask(Ask::Ready) | Act::Exec)
        };
        let early = p.steps.iter().skip(fork + 1).find(|s| !last(&s.act));
        assert_eq!(early, None, "{name}");
        assert_eq!(p.steps[fork - 1].act, Act::CloseHosts { first: 3 }, "{name}");
        precedes(&name, &[fork], &at!(p, Act::NewSession | Act::Cwd { .. } | Act::FindProgram));
        precedes(&name, &at!(p, Act::NewSession), &at!(p, Act::ControlTerminal));
    }
    assert!(seen > 10, "{seen}");
}

/// A filter that refuses the rest is loaded after it, by what it needs and no more.
#[test]
fn filters_wait_for_what_they_would_refuse() {
    let admin = 1 << 21;
    let deny = |call: &str| json!({ "names": [call], "action": "SCMP_ACT_ERRNO" });
    for (rule, no_new_privileges, late) in [
        (deny("mount"), false, false),
        (deny("mount"), true, false),
        (deny("setsid"), false, true),
        (deny("setsid"), true, true),
        (deny("close_range"), false, true),
        (deny("close_range"), true, true),
        (deny("chdir"), false, false), // refused in `create`, too
        (deny("chdir"), true, true),
    ] {
        let document = json!({
            "ociVersion": "1.3.0", "root": { "path": "rootfs" },
            "process": { "args": ["sh"], "cwd": "/", "noNewPrivileges": no_new_privileges },
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "pid" }],
                "seccomp": { "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule.clone()] },
            },
        });
        let p = exec_plan(&document);
        let (fork, filter) = (at!(p, Act::Fork { .. })[0], at!(p, Act::Seccomp { .. })[0]);
        assert_eq!(filter > fork, late, "{rule}, {no_new_privileges}");
        let caps: Vec<_> = p
            .steps
            .iter()
            .filter_map(|s| match s.act {
                Act::SetCaps(sets) => Some((sets.permitted, sets.effective)),
                _ => None,
            })
            .collect();
        let held: &[_] = if late && !no_new_privileges { &[(admin, admin), (0, 0)] } else { &[(0, 0)] };
        assert_eq!(caps, held, "{rule}, {no_new_privileges}");
        let last = at!(p, Act::SetCaps(_)).pop().unwrap();
        assert_eq!(last > filter, !no_new_privileges, "{rule}");
        precedes("no_new_privs", &at!(p, Act::NoNewPrivs), &[fork]);
    }
}

/// An ordinary user's process, and the last of all that is told a limit of processes, set these by themselves.
#[test]
fn filters_wait_for_a_scheduler_and_a_limit_that_no_fork_hands_down() {
    let process = |more: Value| {
        let mut process = json!({ "args": ["sh"], "cwd": "/" });
        process.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        process
    };
    let flags = ["SCHED_FLAG_RESET_ON_FORK"];
    let scheduler =
        |flags: &[&str]| process(json!({ "scheduler": { "policy": "SCHED_BATCH", "flags": flags } }));
    let processes = process(json!({ "rlimits": [{ "type": "RLIMIT_NPROC", "soft": 9, "hard": 9 }] }));
    for (call, process, late) in [
        ("sched_setattr", scheduler(&flags), true),
        ("sched_setattr", scheduler(&[]), false),
        ("prlimit64", scheduler(&flags), false),
        ("prlimit64", processes.clone(), true),
        ("sched_setattr", processes, false),
    ] {
        let document = json!({
            "ociVersion": "1.3.0", "root": { "path": "rootfs" }, "process": process,
            "linux": {
                "namespaces": [{ "type": "mount" }, { "type": "pid" }],
                "seccomp": {
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{ "names": [call], "action": "SCMP_ACT_ERRNO" }],
                },
            },
        });
        let config: Config = serde_json::from_value(document.clone()).unwrap();
        let host = Facts { euid: 1000, privileged: false, ..host() };
        let request = Request { id: "box".into(), bundle: "/bundle".into(), ..Request::default() };
        let p = Plan::for_exec(&config, &host, &request).unwrap();
        let (fork, filter) = (at!(p, Act::Fork { .. })[0], at!(p, Act::Seccomp { .. })[0]);
        assert_eq!(filter > fork, late, "{call}, {document}");
    }
}

#[test]
fn the_keyring_has_the_label_of_the_process() {
    let document = json!({
        "ociVersion": "1.3.0", "root": { "path": "rootfs" }, "linux": { "namespaces": [{ "type": "mount" }] },
        "process": { "args": ["sh"], "cwd": "/", "selinuxLabel": "u:r:t" },
    });
    let config: Config = serde_json::from_value(document).unwrap();
    let host = Facts { selinux: true, ..host() };
    let request = Request { id: "box".into(), foreground: true, ..Request::default() };
    for p in [Plan::for_create(&config, &host, &request), Plan::for_exec(&config, &host, &request)] {
        let p = p.unwrap();
        let keyring = at!(p, Act::NewKeyring { .. })[0];
        let label = |n: usize| match &p.steps[n].act {
            Act::ExecLabel { file, label } => (file.to_str().unwrap(), label.to_str().unwrap()),
            other => panic!("{other:?}"),
        };
        assert_eq!(label(keyring - 1), ("self/attr/keycreate", "u:r:t"));
        assert_eq!(label(keyring + 1), ("self/attr/keycreate", "\n"));
    }
}

#[test]
fn everything_of_the_rootfs_is_there_before_it_is_entered() {
    for (name, document, gate) in variants() {
        let p = plan(&name, &document, gate);
        let pivot = at!(p, Act::Pivot | Act::MoveRoot | Act::Chroot);
        assert_eq!(pivot.len(), 1, "{name}");
        let mounts = at!(p, Act::Mount(_));
        precedes(&name, &at!(p, Act::IsolateMounts { .. }), &at!(p, Act::AttachRoot { .. }));
        precedes(&name, &at!(p, Act::AttachRoot { .. }), &mounts);
        precedes(&name, &mounts, &at!(p, Act::Device(_)));
        precedes(&name, &at!(p, Act::Device(_)), &at!(p, Act::Ask(Ask::Hooks)));
        precedes(&name, &at!(p, Act::Ask(Ask::Hooks)), &at!(p, Act::MaskPath(_)));
        precedes(&name, &mounts, &at!(p, Act::MaskPath(_) | Act::ReadonlyPath(_)));
        precedes(&name, &at!(p, Act::MaskPath(_) | Act::ReadonlyPath(_) | Act::Console { .. }), &pivot);
        precedes(&name, &at!(p, Act::MakeCwd { .. }), &at!(p, Act::ReadonlyRoot));
        precedes(&name, &at!(p, Act::ReadonlyRoot), &pivot);
        precedes(&name, &pivot, &at!(p, Act::SetUser { .. }));
        assert_eq!(at!(p, Act::ReadonlyRoot).len() == 1, document["root"]["readonly"] == true, "{name}");
    }
}

#[test]
fn namespaces_are_entered_in_the_order_of_their_owners() {
    for (name, document, gate) in variants() {
        let p = plan(&name, &document, gate);
        let cgroup = |a: &Act| matches!(a, Act::Unshare(flags) if flags & NEWCGROUP != 0);
        precedes(&name, &at!(p, Act::JoinCgroups), &places(&p.steps, cgroup));
        precedes(&name, &at!(p, Act::Ask(Ask::Maps)), &at!(p, Act::BecomeRoot { .. }));
        precedes(&name, &at!(p, Act::BecomeRoot { .. }), &at!(p, Act::EnterTime { .. }));
        precedes(&name, &at!(p, Act::NewSession), &at!(p, Act::Console { .. }));
        assert_eq!(p.shape.clone & NEWUSER != 0, !at!(p, Act::Ask(Ask::Maps)).is_empty(), "{name}");
        assert_eq!(p.shape.late & NEWTIME != 0, !at!(p, Act::EnterTime { .. }).is_empty(), "{name}");
    }
}

#[test]
fn the_end_is_ready_gate_hooks_program() {
    for (name, document, gate) in variants() {
        let p = plan(&name, &document, gate);
        assert_eq!(at!(p, Act::CloseInherited { .. }), [0], "{name}: a leak could be used before");
        let ready = at!(p, Act::Ask(Ask::Ready));
        assert_eq!(ready.len(), 1, "{name}");
        let after = p.hooks.start_container.len() + usize::from(gate) + 1;
        assert_eq!(p.steps.len() - ready[0] - 1, after, "{name}");
        assert_eq!(!at!(p, Act::WaitGate { .. }).is_empty(), gate, "{name}");
        precedes(&name, &ready, &at!(p, Act::WaitGate { .. }));
        let hooks: Vec<_> = at!(p, Act::Hook(_)).into_iter().filter(|n| *n > ready[0]).collect();
        precedes(&name, &at!(p, Act::WaitGate { .. }), &hooks);
        assert!(hooks.iter().all(|n| p.steps[*n].at.starts_with("hooks.startContainer")), "{name}");
        assert_eq!(at!(p, Act::Exec), [p.steps.len() - 1], "{name}");
        precedes(&name, &at!(p, Act::FindProgram | Act::ResetSignals { .. } | Act::Umask(_)), &ready);
    }
}

/// What messages say of a step is short; what a reader of the plan gets is complete; neither shows Rust.
#[test]
fn words_are_short_for_messages_and_never_rusts() {
    for (name, document, gate) in variants() {
        for step in &plan(&name, &document, gate).steps {
            let short = step.to_string();
            let words = short.strip_prefix(&format!("{}: ", step.at)).unwrap();
            assert!(!words.is_empty() && words.len() <= 120, "{} bytes: {words}", words.len());
            for text in [words, &format!("{step:#}")] {
                for rust in ["Some(", "None", " { ", "}", "CString", "::"] {
                    assert!(!text.contains(rust), "{name}: {rust:?} is in {text}");
                }
                assert!(!text.contains('\n'), "{text:?}");
            }
        }
    }
}
