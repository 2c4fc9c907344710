//! config.md#posix-platform-hooks: order, place, state, failures, and what they leave.

mod support;

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use support::{Bundle, finish};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Of these, init runs itself: for startContainer the path is one of the container's.
const INSIDE: [&str; 2] = ["createContainer", "startContainer"];

fn hook(script: &str) -> Value {
    json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"] })
}

/// A bundle of which hooks, wherever they run, and the program can write to a directory.
fn bundle() -> Bundle {
    let b = Bundle::new().set("/root/readonly", json!(false));
    fs::create_dir(b.rootfs().join("seen")).unwrap();
    b
}

/// Where a hook of this kind finds the directory.
fn seen(b: &Bundle, kind: &str) -> String {
    if kind == "startContainer" {
        "/seen".into()
    } else {
        b.rootfs().join("seen").to_string_lossy().into_owned()
    }
}

fn read(b: &Bundle, file: &str) -> String {
    fs::read_to_string(b.rootfs().join("seen").join(file)).unwrap_or_default()
}

fn with_hook(b: Bundle, kind: &str, hook: Value) -> Bundle {
    b.set(&format!("/hooks/{kind}/-"), hook)
}

#[track_caller]
fn nothing_is_left(b: &Bundle) {
    b.verb("state", &[]).fails("container does not exist");
    assert!(support::cgroups_named(&b.id).is_empty());
}

#[test]
fn every_kind_runs_at_its_point_in_order_with_the_state_of_that_point() {
    needs_root!();
    let mut b = bundle().set("/annotations", json!({ "org.example": "x" }));
    for kind in KINDS {
        let dir = seen(&b, kind);
        for n in 0..2 {
            let script =
                format!("cat > {dir}/{kind}{n}; echo {kind}{n} >> {dir}/order; echo noise; echo noise >&2");
            b = with_hook(b, kind, hook(&script));
        }
    }
    let b = b.sh("echo program >> /seen/order");
    let at = |more: &[&str]| {
        let order = read(&b, "order");
        let wanted: Vec<String> = more
            .iter()
            .flat_map(|k| {
                if KINDS.contains(k) { vec![format!("{k}0"), format!("{k}1")] } else { vec![k.to_string()] }
            })
            .collect();
        assert_eq!(order.lines().collect::<Vec<_>>(), wanted);
    };
    let out = b.create().ok();
    assert_eq!(
        (out.stdout.as_str(), out.stderr.as_str()),
        ("", ""),
        "hooks print into the container's streams"
    );
    let pid = b.state()["pid"].clone();
    at(&["prestart", "createRuntime", "createContainer"]);
    b.start().ok();
    b.await_status("stopped");
    let order = read(&b, "order").replace("program\n", ""); // beside poststart, not before or after it
    assert!(order.ends_with("startContainer0\nstartContainer1\npoststart0\npoststart1\n"), "{order}");
    b.verb("delete", &[]).ok();
    assert!(read(&b, "order").ends_with("poststop0\npoststop1\n"));
    for (kind, status) in
        KINDS.into_iter().zip(["created", "creating", "creating", "created", "running", "stopped"])
    {
        let state: Value = serde_json::from_str(&read(&b, &format!("{kind}1"))).expect(kind);
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(
            (&state["id"], &state["annotations"]["org.example"]),
            (&json!(b.id), &json!("x")),
            "{kind}"
        );
        assert_eq!(state["bundle"], json!(b.path().canonicalize().unwrap()), "{kind}");
        assert!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "{kind}");
        if status != "stopped" {
            assert_eq!(state["pid"], pid, "{kind}");
        }
    }
}

#[test]
fn hooks_run_in_the_namespaces_that_the_text_says() {
    needs_root!();
    let mut b = bundle();
    for kind in KINDS {
        let dir = seen(&b, kind);
        let links = format!("for n in mnt net uts; do readlink /proc/self/ns/$n; done > {dir}/{kind}.ns");
        b = with_hook(
            b,
            kind,
            hook(&format!("{links}; test -e /seen && echo inside > {dir}/{kind}.root; exit 0")),
        );
    }
    b.run().ok();
    let mine: String = ["mnt", "net", "uts"]
        .map(|n| fs::read_link(format!("/proc/self/ns/{n}")).unwrap().to_string_lossy().into_owned() + "\n")
        .concat();
    for kind in KINDS {
        let of_hook = read(&b, &format!("{kind}.ns"));
        assert_eq!(of_hook.lines().count(), 3, "{kind}");
        for (hook, mine) in of_hook.lines().zip(mine.lines()) {
            assert_eq!(hook != mine, INSIDE.contains(&kind), "{kind}: {hook}");
        }
        // Before the pivot createContainer sees the runtime's files, after it startContainer those of the container.
        assert_eq!(read(&b, &format!("{kind}.root")) == "inside\n", kind == "startContainer", "{kind}");
    }
}

#[test]
fn arguments_environment_directory_and_descriptors() {
    needs_root!();
    needs_program!("bash");
    let mut b = bundle();
    for kind in KINDS {
        let open = "for n in $(seq 0 40); do test ! -e /proc/self/fd/$n || echo -n \"$n \"; done";
        let file = format!("{}/{kind}", seen(&b, kind));
        let script = format!("{{ echo $0 $1; echo A=$A TRAP=$TRAP; pwd; {open}; }} > {file}");
        let args = json!(["sh", "-c", script, "zero", "one"]);
        let env = json!(["A=1", "PATH=/bin:/usr/bin"]);
        b = with_hook(b, kind, json!({ "path": "/bin/busybox", "args": args, "env": env }));
    }
    b.write();
    let leak = r#"for ((n = 20; n < 30; n++)); do eval "exec $n</etc/hostname"; done; exec "$@""#;
    let making = b.making("run");
    let mut c = Command::new("bash");
    c.args(["-c", leak, "bash"])
        .arg(making.get_program())
        .args(making.get_args())
        .args(["--preserve-fds", "0"]);
    finish(c.env("TRAP", "set").stdin(std::process::Stdio::null())).ok();
    for kind in KINDS {
        let said = read(&b, kind);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[..2], ["zero one", "A=1 TRAP="], "{kind}");
        if !INSIDE.contains(&kind) {
            assert_eq!(lines[2], b.path().canonicalize().unwrap().to_str().unwrap(), "{kind}");
        }
        let open = lines[3].split_whitespace().filter(|n| *n != "10").collect::<Vec<_>>(); // the shell's own
        assert_eq!(open, ["0", "1", "2"], "{kind}");
    }
}

#[test]
fn without_an_environment_that_of_the_runtime_counts_outside_and_none_inside() {
    needs_root!();
    let mut b = bundle();
    for kind in KINDS {
        let script = format!("echo TRAP=$TRAP > {}/{kind}", seen(&b, kind));
        b = with_hook(b, kind, json!({ "path": "/bin/sh", "args": ["sh", "-c", script] }));
    }
    finish(b.making("run").env("TRAP", "set")).ok();
    for kind in KINDS {
        let trap = if INSIDE.contains(&kind) { "TRAP=\n" } else { "TRAP=set\n" };
        assert_eq!(read(&b, kind), trap, "{kind}");
    }
}

/// By the annotations of crun: run.oci.hooks.stdout and .stderr.
#[test]
fn output_of_hooks_goes_to_the_files_of_the_annotations() {
    needs_root!();
    let mut b = bundle();
    let file = |name: &str| b.path().join(name).to_string_lossy().into_owned();
    let (out, err) = (file("stdout"), file("stderr"));
    fs::write(&out, "before\n").unwrap();
    b = b.set("/annotations", json!({ "run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err }));
    for kind in KINDS {
        b = with_hook(b, kind, hook(&format!("echo {kind}; echo {kind}-2 >&2")));
    }
    b.run().ok();
    let want = |suffix: &str| KINDS.map(|k| format!("{k}{suffix}\n")).concat();
    assert_eq!(fs::read_to_string(&out).unwrap(), format!("before\n{}", want("")));
    assert_eq!(fs::read_to_string(&err).unwrap(), want("-2"));

    let nowhere = bundle().set("/annotations", json!({ "run.oci.hooks.stdout": "/nowhere/out" }));
    let nowhere = with_hook(nowhere, "createContainer", hook("true"));
    nowhere
        .run()
        .fails("annotations[\"run.oci.hooks.stdout\"]: open \"/nowhere/out\": no such file or directory");
    nowhere.is_clean();
}

/// A failure names hook, status and what it said; all is undone, and poststop hooks run.
#[test]
fn a_failing_hook_fails_the_operation_and_undoes_it() {
    needs_root!();
    for kind in &KINDS[..5] {
        for verb in ["create", "run"] {
            let b = bundle();
            let dir = seen(&b, "poststop");
            let b = with_hook(b, "poststop", hook(&format!("echo poststop >> {dir}/order")));
            let b = with_hook(b, kind, hook("echo no bridge >&2; exit 3"));
            let never = hook(&format!("echo never >> {}/order", seen(&b, kind)));
            let b = with_hook(b, kind, never);
            let b = b.args(&["sleep", "100"]);
            let words = format!("hooks.{kind}[0]: \"/bin/sh\": exited with status 3: no bridge");
            let out = finish(&mut b.making(verb));
            if verb == "create" && ["startContainer", "poststart"].contains(kind) {
                out.ok();
                b.start().fails(&words);
                b.delete().ok(); // it may be gone already
            } else {
                out.fails(&words);
            }
            nothing_is_left(&b);
            assert_eq!(read(&b, "order"), "poststop\n", "{kind}, {verb}");
        }
    }
}

#[test]
fn a_failing_poststop_hook_is_warned_of_and_the_rest_goes_on() {
    needs_root!();
    let b = bundle();
    let dir = seen(&b, "poststop");
    let b = with_hook(b, "poststop", hook("exit 4"));
    let b = with_hook(b, "poststop", json!({ "path": "/nonexistent" }));
    let b = with_hook(b, "poststop", hook(&format!("echo last > {dir}/order")));
    b.create().ok();
    let out = b.delete().ok();
    for words in ["exited with status 4", "/nonexistent", "no such file or directory"] {
        assert!(out.stderr.contains(words), "{}", out.stderr);
    }
    assert_eq!(read(&b, "order"), "last\n");
    nothing_is_left(&b);
}

/// Hooks that hang, die, are missing or cannot run.
#[test]
fn hooks_that_misbehave_are_errors_with_their_reason() {
    needs_root!();
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        for (hook, words) in [
            (json!({ "path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"] }), "killed by signal 9"),
            (json!({ "path": "/nonexistent/hook" }), "execve: no such file or directory"),
            (json!({ "path": "/etc/passwd" }), "execve: permission denied"),
            (
                json!({ "path": "/bin/sh", "args": ["sh", "-c", "sleep 1000 & sleep 1000"], "timeout": 1 }),
                "timed out",
            ),
        ] {
            let b = with_hook(bundle(), kind, hook).args(&["sleep", "100"]);
            b.run().fails(&format!("hooks.{kind}[0]: ")).fails(words);
            nothing_is_left(&b);
        }
    }
}

/// And hooks whose ways are odd, yet fine.
#[test]
fn odd_hooks_do_no_harm() {
    needs_root!();
    let mut b = bundle().set("/annotations", json!({ "large": "x".repeat(300_000) })); // more than a pipe holds
    for kind in KINDS {
        // What stays of a hook inside ends with the container.
        let pids =
            if INSIDE.contains(&kind) { "/dev/null".into() } else { format!("{}/pids", seen(&b, kind)) };
        for script in [
            "exec <&-",
            "exec >&- 2>&-",
            &format!("sleep 1000 & echo $! >> {pids}; exit 0"),
            "head -c 300000 /dev/zero | tr '\\0' x; exit 0",
            &format!("setsid sleep 1000 > /dev/null 2>&1 & echo $! >> {pids}; exit 0"),
        ] {
            let mut hook = hook(script);
            hook["timeout"] = json!(50);
            b = with_hook(b, kind, hook);
        }
    }
    let out = b.run();
    let stayed = read(&b, "pids");
    stayed.lines().for_each(|pid| drop(finish(Command::new("kill").args(["-KILL", pid]))));
    out.ok();
    assert_eq!(stayed.lines().count(), 8);
}

#[test]
fn a_hook_killed_at_its_timeout_takes_its_group_along() {
    needs_root!();
    for kind in ["createRuntime", "createContainer"] {
        let b = bundle();
        let script = format!("sleep 300 & echo $! > {}/pid; wait", seen(&b, kind));
        let mut hook = hook(&script);
        hook["timeout"] = json!(1);
        let b = with_hook(b, kind, hook);
        b.create().fails("timed out");
        if kind == "createRuntime" {
            let pid = read(&b, "pid");
            support::until("the end of the grandchild", || !runs(pid.trim()));
        }
        nothing_is_left(&b);
    }
}

/// Nobody else would end it.
#[test]
fn a_poststart_hook_ends_when_its_container_is_deleted() {
    needs_root!();
    for verb in ["create", "run"] {
        let b = bundle();
        let script =
            format!("sleep 300 & echo $! > {0}/part; mv {0}/part {0}/pid; wait", seen(&b, "poststart"));
        let b = with_hook(b, "poststart", hook(&script)).args(&["sleep", "300"]);
        let call = if verb == "create" {
            b.create().ok();
            b.orlop(["start", &b.id])
        } else {
            b.making("run")
        };
        let file = b.rootfs().join("seen/pid");
        let (file, id) = (file.as_path(), b.orlop(["delete", "--force", &b.id]));
        let out = std::thread::scope(|scope| {
            let mut call = call;
            let call = scope.spawn(move || finish(&mut call));
            support::until("the hook", || file.exists());
            let mut delete = id;
            finish(&mut delete).ok();
            call.join().expect("the call")
        });
        out.fails("hooks.poststart[0]: \"/bin/sh\": killed, since the container was deleted");
        let pid = read(&b, "pid");
        support::until("the end of the grandchild", || !runs(pid.trim()));
        nothing_is_left(&b);
    }
}

/// `run` in the foreground waits for init, which waits for its hook.
#[test]
fn a_signal_ends_a_run_whose_hook_hangs() {
    needs_root!();
    let b = bundle();
    let script = format!("touch {}/hangs; sleep 300", seen(&b, "createContainer"));
    let b = with_hook(b, "createContainer", hook(&script));
    let mut child = b.making("run").stderr(std::process::Stdio::piped()).spawn().expect("orlop");
    support::until("the hook", || b.rootfs().join("seen/hangs").exists());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGTERM)
        .expect("kill");
    support::until("the end of the call", || child.try_wait().expect("wait").is_some());
    let out = child.wait_with_output().expect("output");
    let words = "had no program yet when signal 15 came to us";
    assert!(String::from_utf8_lossy(&out.stderr).contains(words), "{out:?}");
    nothing_is_left(&b);
}

fn runs(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.contains("(sleep)") && !stat.contains(") Z ")
}

/// Hooks of GPU vendors and of storage enter the container's mount namespace, and mount below the rootfs' path.
#[test]
fn the_rootfs_lies_at_its_path_for_hooks_that_enter_the_mount_namespace() {
    needs_root!();
    needs_program!("nsenter");
    let b = bundle();
    let root = b.rootfs().canonicalize().unwrap().to_string_lossy().into_owned();
    for dir in ["a", "b", "give"] {
        fs::create_dir(b.rootfs().join(dir)).unwrap();
    }
    fs::write(b.rootfs().join("give/gift"), "").unwrap();
    let look =
        format!("test -e {root}/proc/uptime && test -c {root}/dev/null && mount --bind {root}/give {root}");
    let enter = "nsenter -t $(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/') -m";
    let b = with_hook(b, "createRuntime", hook(&format!("{enter} sh -c '{look}/a'")));
    let b = with_hook(b, "createContainer", hook(&format!("{look}/b && test \"$(pwd)\" = {root}")));
    let b = b.sh("ls /a /b");
    assert_eq!(b.run().ok().stdout, "/a:\ngift\n\n/b:\ngift\n");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&root), "it is mounted on the host");
}

/// `create` waits for its hooks with the container's lock held.
#[test]
fn a_hook_that_would_start_or_delete_its_own_container_is_refused_at_once() {
    needs_root!();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let b = Bundle::sleeping();
        let (root, said) = (b.state_root(), b.path().join("said"));
        let script = format!(
            "for v in start delete checkpoint; do {} --root {} $v {} 2>&1; done > {}; exit 0",
            support::ORLOP,
            root.display(),
            b.id,
            said.display()
        );
        let mut hook = hook(&script);
        hook["timeout"] = json!(30);
        let b = with_hook(b, kind, hook);
        b.create().ok();
        let text = fs::read_to_string(said).expect("what it said");
        for words in [
            "is creating, expected created: cannot start a container that is not created",
            "cannot delete container that is not stopped: creating",
            "container not running: it is creating",
        ] {
            assert!(text.contains(words), "{kind}: {text}");
        }
        b.start().ok();
        b.delete().ok();
    }
}
