//! What goes in and out: exec, terminals, attach, logs.

use super::{MAIN, container, prints, run, script};
use crate::image::NAME;
use crate::support::{Outcome, finish_within, patience, until};
use crate::world::{Engine, left_of};
use crate::{Check, check};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const CHECKS: &[Check] = &[
    check!(exec),
    check!(exec_codes),
    check!(exec_options),
    check!(exec_has_the_containers_bounds),
    check!(exec_detached),
    check!(exec_stdin),
    check!(exec_it),
    check!(exec_many_at_once),
    check!(exec_while_it_ends),
    check!(programs_that_cannot_start),
    check!(signals_of_the_client),
    check!(descriptors),
    check!(run_it),
    check!(run_terminal_detached),
    check!(terminal_detach_and_attach),
    check!(stdin_and_its_end),
    check!(attach),
    check!(logs_follow_to_the_end),
    check!(log_drivers),
];

/// A client's command with this text as its standard input.
#[track_caller]
fn fed(e: &Engine, mut command: Command, input: &[u8]) -> Outcome {
    let file = e.dir.join("tmp").join(format!("input-{}", crate::support::unique()));
    fs::write(&file, input).expect("write");
    finish_within(command.stdin(File::open(&file).expect("open")), patience())
}

/// A client's command at a terminal of 40 rows and 100 columns.
struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    #[track_caller]
    fn new(args: &[&str]) -> Self {
        let size = Winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("openpty");
        let mut client = MAIN.command(args);
        let end = || pty.slave.try_clone().expect("dup");
        let child = client.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the client");
        drop((client, pty.slave));
        let (keys, mut screen) = (File::from(pty.master.try_clone().expect("dup")), File::from(pty.master));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let writer = shown.clone();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            // The last writer's close is an I/O error.
            while let Ok(n @ 1..) = screen.read(&mut part) {
                writer.lock().expect("lock").extend_from_slice(&part[..n]);
            }
        });
        Self { child, keys, shown }
    }

    fn keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("it takes keys");
    }

    /// As a window does; the client is told by the signal, since the terminal is not its controlling one.
    fn resizes(&self, rows: u16, columns: u16) {
        let size = ["rows", &rows.to_string(), "cols", &columns.to_string()];
        finish_within(Command::new("stty").args(size).stdin(self.keys.try_clone().expect("dup")), patience())
            .ok();
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGWINCH).expect("kill");
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("lock")).replace('\r', "")
    }

    /// Waits until the screen shows this.
    #[track_caller]
    fn shows(&self, words: &str) {
        let end = Instant::now() + patience();
        while !self.screen().contains(words) {
            assert!(Instant::now() < end, "{words:?} is not on the screen: {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The client's exit code.
    #[track_caller]
    fn code(&mut self) -> i32 {
        let end = Instant::now() + patience();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < end, "the client did not end: {:?}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exec(_: &Engine) {
    let c = container(&[], "sleep 1000");
    assert_eq!(c.exec("echo out; echo err >&2; echo $((6 * 7)) > /made"), "out");
    assert_eq!(c.exec("cat /made; cat /proc/1/cmdline | tr '\\0' ' '"), "42\nsleep 1000");
    let o = c.exec_with(&[], "echo err >&2").ok();
    assert_eq!((o.stdout.as_str(), o.stderr.as_str()), ("", "err\n"));
}

fn exec_codes(_: &Engine) {
    let c = container(&[], "sleep 1000");
    for (code, args) in [
        (0, &["true"][..]),
        (5, &["sh", "-c", "exit 5"]),
        (137, &["sh", "-c", "kill -9 $$"]),
        (143, &["sh", "-c", "kill -TERM $$"]),
        (126, &["missing"]),
        (126, &["/missing"]),
        (126, &["/etc/passwd"]),
    ] {
        let o = run(&[&["exec", &c.id], args].concat());
        assert_eq!(o.code(), code, "{args:?}: {}{}", o.stdout, o.stderr);
    }
    let o = run(&["exec", &c.id, "missing"]);
    assert!(o.stdout.contains("executable file not found in $PATH"), "{}{}", o.stdout, o.stderr);
    c.verb(&["kill"]).ok();
    c.wait();
    c.exec_with(&[], "true").fails("is not running");
}

fn exec_options(_: &Engine) {
    let c = container(&["--env", "A=1", "--workdir", "/var"], "sleep 1000");
    let of = |options: &[&str], script: &str| c.exec_with(options, script).ok().stdout.trim_end().to_string();
    assert_eq!(of(&[], "echo $A $B; pwd; id -u"), "1\n/var\n0");
    assert_eq!(of(&["--env", "B=2"], "echo $A $B"), "1 2");
    assert_eq!(of(&["--workdir", "/etc"], "pwd"), "/etc");
    assert_eq!(of(&["--user", "1000:2000"], "id -u; id -g"), "1000\n2000");
    assert_eq!(of(&["--user", "user"], "id -u; id -G; echo $HOME"), "1000\n1000 2000\n/home/user");
    let o = c.exec_with(&["--user", "nobody-such"], "true");
    assert!(o.code() != 0 && format!("{}{}", o.stdout, o.stderr).contains("unable to find user"), "{o:?}");
    let o = c.exec_with(&["--workdir", "/none"], "true");
    assert_ne!(o.code(), 0, "a directory that is not there");
}

/// What the init has of rights and limits, a further process has too.
fn exec_has_the_containers_bounds(_: &Engine) {
    let options = ["--cap-drop", "CHOWN", "--security-opt", "no-new-privileges", "--ulimit", "nofile=77:88"];
    let status =
        "grep -E '^(Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp)' /proc/$1/status; ulimit -n; ulimit -Hn";
    let with = format!("s() {{ {status}; }}; s self; echo ready; sleep 1000");
    let c = container(&[&options[..], &["--oom-score-adj", "321"]].concat(), &with);
    c.await_log("ready");
    let first = c.logs().replace("ready\n", "");
    assert!(
        first.contains("NoNewPrivs:\t1") && first.contains("Seccomp:\t2") && first.contains("77\n88"),
        "{first}"
    );
    let second = c.exec(&format!("s() {{ {status}; }}; s self"));
    assert_eq!(second, first.trim_end());
    assert_eq!(c.exec("cat /proc/self/oom_score_adj"), "321");
    let files = ["cgroup", "uid_map"].map(|f| c.exec(&format!("cat /proc/self/{f}; echo; cat /proc/1/{f}")));
    for text in files {
        let (own, inits) = text.split_once("\n\n").expect("two");
        assert_eq!(own.trim(), inits.trim());
    }
    for ns in ["ipc", "mnt", "net", "pid", "uts", "cgroup", "user"] {
        let both = c.exec(&format!("readlink /proc/self/ns/{ns}; readlink /proc/1/ns/{ns}"));
        let (own, inits) = both.split_once('\n').expect("two lines");
        assert_eq!(own, inits);
    }
}

fn exec_detached(_: &Engine) {
    let c = container(&[], "sleep 1000");
    c.exec_with(&["--detach"], "echo $$ > /pid; sleep 1003").ok();
    until("it runs", || c.exec("cat /proc/$(cat /pid)/cmdline | tr '\\0' ' '").contains("sleep 1003"));
    assert_eq!(c.exec("ps -o args | grep -c '[s]leep 100'"), "2");
}

fn exec_stdin(e: &Engine) {
    let c = container(&[], "sleep 1000");
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let o = fed(
        e,
        MAIN.command(&["exec", "--interactive", &c.id, "sh", "-c", "cat > /data; wc -c < /data"]),
        &data,
    )
    .ok();
    assert_eq!(o.stdout.trim(), "3000000");
    // Without --interactive there is nothing to read.
    let o = fed(e, MAIN.command(&["exec", &c.id, "cat"]), b"unread").ok();
    assert_eq!(o.stdout, "");
}

/// What a shell at a terminal of this number says of it, typed and read, to its end with code 6.
#[track_caller]
fn is_a_terminal(t: &mut Terminal, name: &str) {
    t.shows("#");
    t.keys("tty; test -t 0 -a -t 1 -a -t 2 && echo all-$((1 + 2))\n");
    t.shows(&format!("\n{name}\n"));
    t.shows("all-3");
    // The client sets the size a while after the start.
    t.keys("until [ \"$(stty size)\" = '40 100' ]; do sleep 0.05; done; echo size $(stty size)\n");
    t.shows("size 40 100");
    t.keys(": > /dev/tty && echo controls-$((1 + 1))\n");
    t.shows("controls-2");
    // The interrupt character reaches the foreground process, not the shell.
    let waits =
        "sh -c 'trap \"echo int-$((7 * 7)); exit\" INT; echo waits-$((7 * 6)); while :; do sleep 0.05; done'";
    t.keys(&format!("{waits}\n"));
    t.shows("waits-42");
    t.keys("\x03");
    t.shows("int-49");
    t.resizes(33, 77);
    t.keys("until [ \"$(stty size)\" = '33 77' ]; do sleep 0.05; done; echo size $(stty size)\n");
    t.shows("size 33 77");
    t.keys("exit 6\n");
    assert_eq!(t.code(), 6, "{}", t.screen());
}

fn exec_it(_: &Engine) {
    let c = container(&["--tty"], "sleep 1000");
    is_a_terminal(&mut Terminal::new(&["exec", "-it", &c.id, "sh"]), "/dev/pts/1");
    // In a container without a terminal, the first one is the exec's.
    let c = container(&[], "sleep 1000");
    is_a_terminal(&mut Terminal::new(&["exec", "-it", &c.id, "sh"]), "/dev/pts/0");
    let mut t = Terminal::new(&[
        "exec",
        "-it",
        "--user",
        "1000",
        &c.id,
        "sh",
        "-c",
        ": > /dev/tty && stat -c %u $(tty)",
    ]);
    t.shows("1000\n");
    assert_eq!(t.code(), 0);
}

fn exec_many_at_once(_: &Engine) {
    let c = container(&[], "sleep 1000");
    std::thread::scope(|s| {
        let all: Vec<_> = (0..20)
            .map(|n| {
                (
                    n,
                    s.spawn({
                        let c = &c;
                        move || c.exec(&format!("echo {n}"))
                    }),
                )
            })
            .collect();
        all.into_iter().for_each(|(n, t)| assert_eq!(t.join().expect("an exec"), n.to_string()));
    });
    assert_eq!(c.inspect("len .ExecIDs"), "0");
}

/// Whatever comes first, the daemon has an answer, and nothing of it stays.
fn exec_while_it_ends(e: &Engine) {
    for n in 0..5 {
        let c = container(&[], "sleep 1000");
        std::thread::scope(|s| {
            let execs: Vec<_> = (0..3).map(|_| s.spawn(|| c.exec_with(&[], "sleep 1000").code())).collect();
            std::thread::sleep(Duration::from_millis(40 * n));
            c.verb(&["kill"]).ok();
            assert!(execs.into_iter().all(|t| t.join().expect("an exec") != 0));
        });
        assert_eq!(c.wait(), 137);
        c.verb(&["rm"]).ok();
        assert_eq!(left_of(e, &c.id), Vec::<String>::new());
    }
}

fn programs_that_cannot_start(_: &Engine) {
    let text = "cd /tmp; printf '\\1\\2' > odd; printf '#!/none\\n' > lost; chmod 755 odd lost; ln -s loop loop; sleep 1000";
    let c = container(&[], text);
    until("they are made", || c.exec("ls -l /tmp").contains("loop -> loop"));
    let image = format!("localhost/odd:{}", c.id);
    run(&["commit", &c.id, &image]).ok();
    for (options, program, code, words) in [
        // runc lets the container end with 1 and these words; who starts it may as well be told.
        (&[][..], "/tmp/odd", None, "exec format error"),
        (&[], "/tmp/lost", None, "no such file or directory"),
        (&[], "/tmp/loop", Some(125), "symbolic links"),
        (&["--user", "1000"], "/root/x", Some(126), "permission denied"),
        (&["--workdir", "/etc/passwd"], "true", Some(125), "not a directory"),
    ] {
        let o = run(&[&["run", "--rm"], options, &[&image, program]].concat());
        assert!(o.code() != 0 && code.is_none_or(|c| c == o.code()), "{program}: {o:?}");
        assert!(o.stderr.contains(words), "{program}: {o:?}");
        if options.is_empty() {
            let o = run(&["exec", &c.id, program]);
            assert!(o.code() != 0 && (o.stdout + &o.stderr).contains(words), "{program} in exec");
        }
    }
    run(&["rmi", &image]).ok();
}

/// Docker's client hands on what it is sent.
fn signals_of_the_client(_: &Engine) {
    let text = "trap 'exit 21' TERM; echo ready; while :; do sleep 0.05; done";
    let mut client = MAIN.command(&["run", "--rm", NAME, "sh", "-c", text]);
    let mut client = client.stdout(Stdio::piped()).spawn().expect("the client");
    let mut ready = [0; 6];
    client.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("it is ready");
    kill(Pid::from_raw(client.id() as i32), Signal::SIGTERM).expect("kill");
    assert_eq!(client.wait().expect("wait").code(), Some(21));
}

/// No descriptor of the engine's, or the runtime's, gets in.
fn descriptors(_: &Engine) {
    let shown = "ls /proc/self/fd | tr '\\n' ' '; ls -l /proc/1/fd | grep -c ' -> '";
    assert_eq!(prints(&[], "ls -l /proc/self/fd | grep -vc -E ' (0|1|2) -> '"), "2");
    let c = container(&[], "sleep 1000");
    assert_eq!(c.exec(shown), "0 1 2 3 3");
}

fn run_it(_: &Engine) {
    is_a_terminal(&mut Terminal::new(&["run", "--rm", "-it", NAME, "sh"]), "/dev/pts/0");
    let script =
        "trap 'exit 8' INT; stat -c '%F %u' /dev/console; ls -l /proc/1/fd/0; while :; do sleep 0.05; done";
    let mut t = Terminal::new(&["run", "--rm", "-it", "--user", "1000", NAME, "sh", "-c", script]);
    t.shows("character special file 1000\n");
    t.shows("/proc/1/fd/0 -> /dev/pts/0\n");
    t.keys("\x03");
    assert_eq!(t.code(), 8, "{}", t.screen());
}

/// Detached by its keys, the container goes on, and can be attached again.
fn terminal_detach_and_attach(_: &Engine) {
    let c = container(&["-it"], "while read x; do echo got-$x; test $x = end && exit 12; done");
    let mut t = Terminal::new(&["attach", &c.id]);
    t.keys("one\n");
    t.shows("got-one");
    t.keys("\x10\x11");
    t.code();
    assert_eq!(c.inspect(".State.Running"), "true");
    let mut t = Terminal::new(&["attach", &c.id]);
    t.keys("end\n");
    t.shows("got-end");
    assert_eq!(t.code(), 12);
}

fn run_terminal_detached(_: &Engine) {
    let c = container(&["--tty"], "tty; echo ready; sleep 1000");
    c.await_log("ready");
    assert_eq!(c.logs(), "/dev/pts/0\r\nready\r\n");
}

fn stdin_and_its_end(e: &Engine) {
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let o = fed(e, MAIN.command(&["run", "--rm", "-i", NAME, "wc", "-c"]), &data).ok();
    assert_eq!(o.stdout.trim(), "3000000");
    assert_eq!(prints(&[], "cat; echo end"), "end");
    let o = script(&[], "head -c 3000000 /dev/zero").ok();
    assert_eq!(o.stdout.len(), 3_000_000);
}

fn attach(_: &Engine) {
    let c = container(&["--interactive"], "echo ready; read x; echo got $x; read y; exit 11");
    c.await_log("ready");
    // The end of what it reads would be the end of the attachment.
    let mut client = MAIN.command(&["attach", &c.id]);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the client");
    let mut held = client.stdin.take().expect("the pipe");
    held.write_all(b"hello\n").expect("it takes a line");
    let mut said = [0; 10];
    client.stdout.as_mut().expect("the pipe").read_exact(&mut said).expect("its words");
    assert_eq!(&said, b"got hello\n");
    held.write_all(b"\n").expect("it takes a line");
    let o = client.wait_with_output().expect("it ends");
    assert_eq!((o.status.code(), o.stdout.as_slice()), (Some(11), b"".as_slice()));
}

fn logs_follow_to_the_end(_: &Engine) {
    let c = container(&[], "for n in 1 2 3; do echo $n; sleep 0.3; done");
    assert_eq!(c.verb(&["logs", "--follow"]).ok().stdout, "1\n2\n3\n");
    assert_eq!(c.verb(&["logs", "--tail", "1"]).ok().stdout, "3\n");
}

fn log_drivers(_: &Engine) {
    for driver in ["json-file", "local"] {
        let c = container(&["--log-driver", driver], "echo kept");
        c.wait();
        assert_eq!(c.logs(), "kept\n", "{driver}");
    }
    let c = container(&["--log-driver", "none"], "echo dropped");
    c.wait();
    c.verb(&["logs"]).fails("does not support reading");
}
