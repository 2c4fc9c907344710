use super::*;
use crate::plan::sample::{Sample, sample};
use crate::plan::step::Scheduler;
use serde_json::{Value, json};

fn run(s: Sample) -> (Process, Vec<String>) {
    s.run(|d| (plan(d).unwrap(), std::mem::take(&mut d.warnings)))
}

fn program(s: Sample) -> Program {
    run(s).0.program
}

fn strings(list: &[CString]) -> Vec<&str> {
    list.iter().map(|s| s.to_str().unwrap()).collect()
}

#[test]
fn a_bare_name_is_looked_up_in_the_containers_path() {
    for (env, candidates) in [
        (json!(["PATH=/a:/b/"]), vec!["/a/sh", "/b//sh"]),
        (json!(["PATH=:rel"]), vec!["./sh", "rel/sh"]),
        (json!(["PATH=/a", "PATH=/b"]), vec!["/b/sh"]),
        (json!(["PATH="]), vec![]),
        (json!([]), DEFAULT_PATH.split(':').map(|d| format!("{d}/sh").leak() as &str).collect()),
    ] {
        assert_eq!(strings(&program(sample().set("/process/env", env)).candidates), candidates);
    }
    for name in ["/bin/x", "./x", "a/x"] {
        assert_eq!(strings(&program(sample().set("/process/args", json!([name, ""]))).candidates), [name]);
    }
}

#[test]
fn the_environment_is_as_given_and_the_last_of_two_counts() {
    let env = json!(["A=1", "B=", "A=2", "odd", "HOME=/h", "=x"]);
    let (p, warnings) = run(sample().set("/process/env", env));
    assert_eq!(strings(&p.program.envp), ["A=2", "B=", "odd", "HOME=/h", "=x"]);
    assert_eq!(p.program.home_of, None);
    assert_eq!(warnings, ["process.env[3]: \"odd\" has no \"=\", kept as it is"]);
}

#[test]
fn home_is_looked_up_when_unset_or_empty() {
    for env in [json!(null), json!(["A=1"]), json!(["HOME=/h", "HOME="])] {
        let p = program(sample().set("/process/env", env).set("/process/user/uid", json!(1000)));
        assert_eq!(p.home_of, Some(1000));
        assert!(!strings(&p.envp).iter().any(|e| e.starts_with("HOME")));
    }
}

#[test]
fn a_hundred_thousand_variables_take_no_time() {
    let env: Vec<_> = (0..100_000).map(|n| format!("V{n}=x")).collect();
    let start = std::time::Instant::now();
    assert_eq!(program(sample().set("/process/env", json!(env))).envp.len(), 100_000);
    assert!(start.elapsed().as_secs() < 5);
}

#[test]
fn broken_processes_name_property_value_and_rule() {
    for (pointer, value, message) in [
        ("/process", json!(null), "process: is required: it names the program"),
        ("/process/args", json!(null), "process.args: is required and names the program first"),
        ("/process/args", json!([]), "process.args: is required and names the program first"),
        ("/process/args", json!([""]), "process.args[0]: is empty, it names the program"),
        ("/process/args", json!(["a", "b\0"]), "process.args[1]: \"b\\0\" has a NUL byte"),
        ("/process/env", json!(["A=1", "B=\0"]), "process.env[1]: \"B=\\0\" has a NUL byte"),
        ("/process/cwd", json!(null), "process.cwd: is required"),
        ("/process/cwd", json!(""), "process.cwd: is required"),
        ("/process/cwd", json!("work"), "process.cwd: \"work\" is not absolute"),
        ("/process/cwd", json!("/\0"), "process.cwd: \"/\\0\" has a NUL byte"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj: 1001 is not in -1000 to 1000"),
        ("/process/oomScoreAdj", json!(-1001), "process.oomScoreAdj: -1001 is not in -1000 to 1000"),
        (
            "/process/apparmorProfile",
            json!("docker-default"),
            "process.apparmorProfile: \"docker-default\" is asked for, but AppArmor is not enabled",
        ),
        (
            "/process/selinuxLabel",
            json!("system_u:x"),
            "process.selinuxLabel: \"system_u:x\" is asked for, but SELinux is not enabled",
        ),
    ] {
        assert_eq!(sample().set(pointer, value).error(plan), message);
    }
}

#[test]
fn scalars_have_their_defaults() {
    let (p, _) = run(sample());
    assert_eq!((p.no_new_privileges, p.oom_score_adj, p.terminal), (false, None, None));
    let (p, _) = run(sample()
        .set("/process/noNewPrivileges", json!(true))
        .set("/process/oomScoreAdj", json!(-1000))
        .set("/process/cwd", json!("/a/b")));
    assert_eq!((p.no_new_privileges, p.oom_score_adj, p.cwd.as_c_str()), (true, Some(-1000), c"/a/b"));
}

#[test]
fn labels_go_to_the_file_of_their_lsm() {
    let s = sample()
        .set("/process/apparmorProfile", json!("web"))
        .set("/process/selinuxLabel", json!("u:r:t"))
        .host(|h| (h.apparmor, h.selinux) = (true, true));
    let label = |file: &CString, label: &CString| {
        format!("{} <- {}", file.to_string_lossy(), label.to_string_lossy())
    };
    let written: Vec<_> = run(s)
        .0
        .labels
        .iter()
        .map(|s| match &s.act {
            Act::ExecLabel { file, label: l } => label(file, l),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(written, ["self/attr/apparmor/exec <- exec web", "self/attr/exec <- u:r:t"]);
    for nothing in ["", "unconfined"] {
        assert!(run(sample().set("/process/apparmorProfile", json!(nothing))).0.labels.is_empty());
    }
}

#[test]
fn a_terminal_needs_who_receives_it() {
    let on = |terminal: bool, socket: bool, foreground: bool| {
        sample().set("/process/terminal", json!(terminal)).request(|r| {
            r.foreground = foreground;
            r.console_socket = socket.then(|| "/s".into());
        })
    };
    for (terminal, socket, foreground) in [(true, false, true), (true, true, false)] {
        assert_eq!(run(on(terminal, socket, foreground)).0.terminal, Some((0, 0)));
    }
    assert_eq!(run(on(false, false, false)).0.terminal, None);
    for (terminal, socket, foreground, at) in [
        (true, false, false, "process.terminal: is true, but there is no --console-socket"),
        (false, true, false, "--console-socket: is given, but process.terminal is not true"),
        (false, true, true, "--console-socket: is given, but process.terminal is not true"),
        (true, true, true, "--console-socket: is given, but `run` keeps the terminal itself"),
    ] {
        assert!(on(terminal, socket, foreground).error(plan).starts_with(at));
    }
}

#[test]
fn the_console_size_is_checked_and_without_terminal_ignored() {
    let sized =
        |size: Value| sample().set("/process/consoleSize", size).set("/process/terminal", json!(true));
    assert_eq!(run(sized(json!({ "height": 24, "width": 65535 }))).0.terminal, Some((24, 65535)));
    for (size, message) in [
        (json!({ "height": 0, "width": 80 }), "process.consoleSize.height: 0 is not in 1-65535"),
        (json!({ "height": 24, "width": 65536 }), "process.consoleSize.width: 65536 is not in 1-65535"),
        (json!({ "height": 24 }), "process.consoleSize.width: is required"),
    ] {
        assert_eq!(sized(size.clone()).error(plan), message);
        assert_eq!(run(sample().set("/process/consoleSize", size)).0.terminal, None);
    }
}

#[test]
fn limits_become_steps() {
    let list = json!([
        { "type": "RLIMIT_NOFILE", "soft": 10, "hard": 20 },
        { "type": "RLIMIT_STACK", "soft": 0, "hard": u64::MAX },
    ]);
    let steps = run(sample().set("/process/rlimits", list)).0.rlimits;
    let acts: Vec<_> = steps.iter().map(|s| s.act.clone()).collect();
    let wanted = [
        Act::Rlimit { resource: libc::RLIMIT_NOFILE, soft: 10, hard: 20 },
        Act::Rlimit { resource: libc::RLIMIT_STACK, soft: 0, hard: u64::MAX },
    ];
    assert_eq!(acts, wanted);
}

#[test]
fn broken_limits_are_errors() {
    let nofile = |soft: Value, hard: Value| json!({ "type": "RLIMIT_NOFILE", "soft": soft, "hard": hard });
    for (list, message) in [
        (
            json!([{ "soft": 1, "hard": 1 }]),
            "process.rlimits[0].type: \"\" is no resource limit; known are RLIMIT_AS, ",
        ),
        (
            json!([{ "type": "RLIMIT_MOON", "soft": 1, "hard": 1 }]),
            "process.rlimits[0].type: \"RLIMIT_MOON\" is no resource limit; known are RLIMIT_AS, ",
        ),
        (json!([nofile(json!(2), json!(1))]), "process.rlimits[0].soft: 2 is above hard 1"),
        (
            json!([nofile(json!(1), json!(1)), nofile(json!(1), json!(1))]),
            "process.rlimits[1].type: \"RLIMIT_NOFILE\" is listed twice",
        ),
        (json!([nofile(json!(null), json!(1))]), "process.rlimits[0].soft: is required"),
        (json!([nofile(json!(1), json!(null))]), "process.rlimits[0].hard: is required"),
    ] {
        let e = sample().set("/process/rlimits", list).error(plan);
        assert!(e.starts_with(message), "{e}");
    }
    let s = sample()
        .set("/process/rlimits", json!([nofile(json!(1), json!(30_000))]))
        .host(|h| h.hard_limits[libc::RLIMIT_NOFILE as usize] = 20_000);
    assert_eq!(
        s.error(plan),
        "process.rlimits[0].hard: 30000 is above our own hard limit of 20000 for RLIMIT_NOFILE; raising it needs \
         CAP_SYS_RESOURCE"
    );
}

fn scheduling(pointer: &str, value: Value) -> Vec<Act> {
    run(sample().set(pointer, value)).0.scheduling.into_iter().map(|s| s.act).collect()
}

#[test]
fn scheduling_becomes_steps() {
    let scheduler = |s: Scheduler| Act::Scheduler(s);
    for (pointer, value, act) in [
        ("/linux/personality", json!({ "domain": "LINUX32" }), Act::Personality(8)),
        ("/linux/personality", json!({ "domain": "LINUX", "flags": [] }), Act::Personality(0)),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_BATCH", "nice": -20, "flags": ["SCHED_FLAG_RESET_ON_FORK"] }),
            scheduler(Scheduler { policy: 3, nice: -20, flags: 1, ..Default::default() }),
        ),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_RR", "priority": 99, "nice": 0, "runtime": 0 }),
            scheduler(Scheduler { policy: 2, priority: 99, ..Default::default() }),
        ),
        (
            "/process/scheduler",
            json!({ "policy": "SCHED_DEADLINE", "runtime": 1024, "deadline": 2000 }),
            scheduler(Scheduler { policy: 6, runtime: 1024, deadline: 2000, ..Default::default() }),
        ),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 7 }),
            Act::IoPriority(2 << 13 | 7),
        ),
        (
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_BIND", "nodes": "0,65-66", "flags": ["MPOL_F_STATIC_NODES"] }),
            Act::MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![1, 0b110] },
        ),
        (
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_LOCAL" }),
            Act::MemoryPolicy { mode: 4, nodes: vec![] },
        ),
        (
            "/linux/memoryPolicy",
            json!({ "mode": "MPOL_PREFERRED" }),
            Act::MemoryPolicy { mode: 1, nodes: vec![] },
        ),
    ] {
        assert_eq!(scheduling(pointer, value), [act]);
    }
    assert!(scheduling("/process/scheduler", json!(null)).is_empty());
}

#[test]
fn broken_scheduling_is_an_error() {
    let sched = "/process/scheduler";
    let memory = "/linux/memoryPolicy";
    for (pointer, value, message) in [
        (sched, json!({}), "process.scheduler.policy: is required"),
        (
            sched,
            json!({ "policy": "SCHED_X" }),
            "process.scheduler.policy: \"SCHED_X\" is unknown; known are SCHED_OTHER",
        ),
        (
            sched,
            json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"] }),
            "process.scheduler.flags[0]: \"SCHED_FLAG_X\" is unknown; known are SCHED_FLAG_RESET_ON_FORK",
        ),
        (
            sched,
            json!({ "policy": "SCHED_OTHER", "nice": 20 }),
            "process.scheduler.nice: 20 is not in -20 to 19",
        ),
        (
            sched,
            json!({ "policy": "SCHED_FIFO", "nice": 1, "priority": 1 }),
            "process.scheduler.nice: 1 is only for SCHED_OTHER and SCHED_BATCH, not for SCHED_FIFO",
        ),
        (
            sched,
            json!({ "policy": "SCHED_FIFO" }),
            "process.scheduler.priority: 0 is not in 1-99, as SCHED_FIFO needs",
        ),
        (
            sched,
            json!({ "policy": "SCHED_RR", "priority": 100 }),
            "process.scheduler.priority: 100 is not in 1-99",
        ),
        (
            sched,
            json!({ "policy": "SCHED_IDLE", "priority": 1 }),
            "process.scheduler.priority: 1 is only for SCHED_FIFO and SCHED_RR, not for SCHED_IDLE",
        ),
        (
            sched,
            json!({ "policy": "SCHED_OTHER", "deadline": 5 }),
            "process.scheduler.deadline: 5 is only for SCHED_DEADLINE, not for SCHED_OTHER",
        ),
        (sched, json!({ "policy": "SCHED_DEADLINE" }), "process.scheduler.runtime: 0 ns is below 1024"),
        (
            sched,
            json!({ "policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 1999 }),
            "process.scheduler.deadline: 1999 is below runtime 2000",
        ),
        (
            sched,
            json!({ "policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000, "period": 1 }),
            "process.scheduler.period: 1 is below deadline 3000",
        ),
        ("/process/ioPriority", json!({ "priority": 1 }), "process.ioPriority.class: is required"),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_NONE", "priority": 1 }),
            "process.ioPriority.class: \"IOPRIO_CLASS_NONE\" is unknown; known are IOPRIO_CLASS_RT",
        ),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_RT" }),
            "process.ioPriority.priority: is required",
        ),
        (
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_RT", "priority": 8 }),
            "process.ioPriority.priority: 8 is not in 0-7",
        ),
        ("/linux/personality", json!({}), "linux.personality.domain: is required"),
        (
            "/linux/personality",
            json!({ "domain": "BSD" }),
            "linux.personality.domain: \"BSD\" is unknown; known are LINUX, LINUX32",
        ),
        (
            "/linux/personality",
            json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] }),
            "linux.personality.flags[0]: \"ADDR_NO_RANDOMIZE\" is unknown; the specification defines none",
        ),
        (memory, json!({}), "linux.memoryPolicy.mode: is required"),
        (
            memory,
            json!({ "mode": "MPOL_X" }),
            "linux.memoryPolicy.mode: \"MPOL_X\" is unknown; known are MPOL_DEFAULT",
        ),
        (
            memory,
            json!({ "mode": "MPOL_DEFAULT", "nodes": "0" }),
            "linux.memoryPolicy.nodes: \"0\" is given, but MPOL_DEFAULT takes none",
        ),
        (memory, json!({ "mode": "MPOL_LOCAL", "nodes": "0" }), "linux.memoryPolicy.nodes: \"0\" is given"),
        (memory, json!({ "mode": "MPOL_BIND" }), "linux.memoryPolicy.nodes: is required by MPOL_BIND"),
        (
            memory,
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "" }),
            "linux.memoryPolicy.nodes: is required by",
        ),
        (
            memory,
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"] }),
            "linux.memoryPolicy.flags[0]: \"MPOL_F_X\" is unknown; known are MPOL_F_NUMA_BALANCING",
        ),
        (
            memory,
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] }),
            "linux.memoryPolicy.flags: MPOL_F_RELATIVE_NODES excludes MPOL_F_STATIC_NODES",
        ),
        (
            memory,
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"] }),
            "linux.memoryPolicy.flags: MPOL_F_NUMA_BALANCING is only for MPOL_BIND",
        ),
        (
            memory,
            json!({ "mode": "MPOL_PREFERRED", "flags": ["MPOL_F_STATIC_NODES"] }),
            "linux.memoryPolicy.flags: MPOL_PREFERRED without nodes takes no flags about them",
        ),
    ] {
        let e = sample().set(pointer, value).error(plan);
        assert!(e.starts_with(message), "{e}");
    }
}

#[test]
fn lists_of_processors() {
    for (text, mask) in
        [("0", vec![1]), ("0-3,7", vec![0b1000_1111]), ("64", vec![0, 1]), ("1, 1-2", vec![0b110])]
    {
        let a = config::CpuAffinity { initial: Some(text.into()), last: None };
        assert_eq!(affinity(Some(&a)).unwrap(), Affinity { initial: Some(mask), last: None });
    }
    let none = config::CpuAffinity { initial: Some(String::new()), last: None };
    assert_eq!(affinity(Some(&none)).unwrap(), Affinity::default());
    for (text, message) in [
        ("x", "\"x\" is no list of numbers and ranges like 0-3,7"),
        ("1,", "\"1,\" is no list of numbers and ranges like 0-3,7"),
        ("+1", "\"+1\" is no list of numbers and ranges like 0-3,7"),
        ("-1", "\"-1\" is no list of numbers and ranges like 0-3,7"),
        ("3-1", "\"3-1\" runs backwards"),
        ("0-32768", "32768 is above 32767"),
        ("99999999999999999999", "\"99999999999999999999\" is no list of numbers and ranges like 0-3,7"),
    ] {
        let s = sample().set("/process/execCPUAffinity", json!({ "final": text }));
        assert_eq!(s.error(plan), format!("process.execCPUAffinity.final: {message}"));
    }
}
