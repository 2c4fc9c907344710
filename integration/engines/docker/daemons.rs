//! Other daemons: the runtime as one more, live-restore, one that is killed, user namespaces.

use super::{Docker, RUNTIME};
use crate::image::NAME;
use crate::support::until;
use crate::world::{Engine, left_of, sh};
use crate::{Check, check};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

pub const CHECKS: &[Check] = &[
    check!(an_added_runtime),
    check!(live_restore),
    check!(killed_without_live_restore),
    check!(the_shim_is_killed),
    check!(user_namespaces),
];

fn an_added_runtime(e: &Engine) {
    let docker = Docker("added");
    let pid = docker.start(e, &[]);
    let info = docker.run(&["info", "--format", "{{json .Runtimes}} {{.DefaultRuntime}}"]).ok().stdout;
    assert!(info.contains(&format!("\"{RUNTIME}\"")) && info.trim_end().ends_with(" runc"), "{info}");
    let c = docker.container(&["--runtime", RUNTIME], "sleep 1000");
    assert_eq!(c.inspect(".HostConfig.Runtime"), RUNTIME);
    assert_eq!(c.exec("echo hello"), "hello");
    let other = docker.container(&[], "sleep 1000");
    assert_eq!(other.inspect(".HostConfig.Runtime"), "runc");
    drop((c, other));
    e.kill_daemon(pid);
}

fn live_restore(e: &Engine) {
    let docker = Docker("live");
    let flags = ["--live-restore", "--default-runtime", RUNTIME];
    let pid = docker.start(e, &flags);
    let script = "trap 'echo term; exit 3' TERM; while :; do echo $((n += 1)) > /n; test -e /end && exit 5; sleep 0.05; done";
    let (stays, ends) = (docker.container(&["--memory", "64m"], script), docker.container(&[], script));
    let paused = docker.container(&[], script);
    paused.verb(&["pause"]).ok();
    let (init, ended) = (stays.pid(), ends.pid());
    until("it runs", || ends.exec_with(&[], "test -s /n").status.success());
    e.kill_daemon(pid);
    fs::write(format!("/proc/{ended}/root/end"), "").expect("write");
    until("it ends without a daemon", || e.cgroup_file("pids", &ends.id, "cgroup.procs").is_empty());
    assert!(fs::exists(format!("/proc/{init}")).expect("stat"), "the container ended with its daemon");
    docker.launch(e, &flags);
    assert_eq!(stays.pid(), init);
    assert_eq!(
        (ends.inspect(".State.Status"), ends.inspect(".State.ExitCode")),
        ("exited".into(), "5".into())
    );
    assert_eq!(paused.inspect(".State.Status"), "paused");
    paused.verb(&["unpause"]).ok();
    assert_eq!(paused.exec("echo unpaused"), "unpaused");
    assert_eq!(stays.exec("echo hello"), "hello");
    assert!(stays.verb(&["top"]).ok().stdout.contains("trap"));
    stays.verb(&["update", "--memory", "80m", "--memory-swap", "160m"]).ok();
    stays.verb(&["stop", "--time", "30"]).ok();
    assert_eq!((stays.inspect(".State.ExitCode"), stays.logs()), ("3".into(), "term\n".into()));
    let ids = [&stays, &ends, &paused].map(|c| c.id.clone());
    drop((stays, ends, paused));
    ids.iter().for_each(|id| assert_eq!(left_of(e, id), Vec::<String>::new()));
}

fn killed_without_live_restore(e: &Engine) {
    let docker = Docker("killed");
    let flags = ["--default-runtime", RUNTIME];
    let pid = docker.start(e, &flags);
    let (once, always) =
        (docker.container(&[], "sleep 1000"), docker.container(&["--restart", "always"], "sleep 1000"));
    let frozen = docker.container(&[], "sleep 1000");
    frozen.verb(&["pause"]).ok();
    e.kill_daemon(pid);
    docker.launch(e, &flags);
    until("it is ended", || once.inspect(".State.Running") == "false");
    until("it is ended", || frozen.inspect(".State.Running") == "false");
    until("it is started again", || always.inspect(".State.Running") == "true");
    assert_eq!(always.exec("echo hello"), "hello");
    once.verb(&["start"]).ok();
    assert_eq!(once.exec("echo again"), "again");
    let ids = [&once, &always, &frozen].map(|c| c.id.clone());
    drop((once, always, frozen));
    ids.iter().for_each(|id| assert_eq!(left_of(e, id), Vec::<String>::new()));
}

fn the_shim_is_killed(e: &Engine) {
    let c = super::container(&[], "sleep 1000 & sleep 1000");
    let init = c.pid();
    let shims = fs::read_dir("/proc")
        .expect("proc")
        .flatten()
        .filter_map(|p| p.file_name().to_str()?.parse::<i32>().ok());
    let is_shim = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("containerd-shim") && line.contains(&c.id)
    };
    for pid in shims.filter(is_shim) {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
    }
    until("Docker knows", || c.inspect(".State.Running") == "false");
    until("its init ends", || !fs::exists(format!("/proc/{init}")).expect("stat"));
    let id = c.id.clone();
    drop(c);
    assert_eq!(left_of(e, &id), Vec::<String>::new());
}

fn user_namespaces(e: &Engine) {
    for file in ["/etc/subuid", "/etc/subgid"] {
        let own = e.dir.join(&file[5..]);
        fs::write(&own, "nobody:100000:65536\nnogroup:100000:65536\n").expect("write");
        sh(&format!("mount --bind {} {file}", own.display()));
    }
    let docker = Docker("remapped");
    let flags = ["--userns-remap", "nobody:nogroup", "--default-runtime", RUNTIME];
    let pid = docker.start(e, &flags);
    let c = docker
        .container(&["-v", "/data", "--memory", "64m", "--tty"], "echo x > /data/file; tty; sleep 1000");
    let map = c.exec("cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '");
    assert_eq!(map, " 0 100000 65536\n 0 100000 65536");
    until("the file", || c.exec("cat /data/file") == "x");
    let source = c.inspect("(index .Mounts 0).Source");
    assert_eq!(sh(&format!("stat -c %u {source}/file")).stdout, "100000\n");
    let status = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("its init");
    assert!(status.contains("Uid:\t100000\t"), "{status}");
    assert_eq!(
        c.exec("id -u; touch /made && stat -c %u /made /etc/passwd; echo x > /dev/null && echo writes"),
        "0\n0\n0\nwrites"
    );
    assert_eq!(c.exec_with(&["--user", "1000"], "id -u").ok().stdout, "1000\n");
    assert_ne!(c.exec_with(&[], "mknod /x c 1 11").code(), 0);
    assert_eq!(c.logs(), "/dev/pts/0\r\n");
    c.verb(&["stop", "--time", "0"]).ok();
    let o = docker.run(&["run", "--rm", "--userns", "host", NAME, "cat", "/proc/self/uid_map"]).ok();
    assert!(o.stdout.contains("4294967295"), "{}", o.stdout);
    docker.run(&["run", "--rm", "--privileged", NAME, "true"]).fails("incompatible with user namespaces");
    drop(c);
    e.kill_daemon(pid);
}
