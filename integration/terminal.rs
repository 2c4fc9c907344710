//! Terminals: config.md#process (terminal, consoleSize), the foreground's copy, and `--console-socket`.

mod support;

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::{Bundle, finish, until};

/// A person at a terminal of their own, in front of a foreground `run`.
struct Person {
    master: File,
    slave: OwnedFd,
    run: Child,
    seen: Vec<u8>,
}

fn controlled_by(command: &mut Command, slave: &OwnedFd) {
    let number = slave.as_raw_fd();
    // SAFETY: setsid and ioctl are async-signal-safe and touch no memory of ours.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setsid()?;
            match libc::ioctl(number, libc::TIOCSCTTY as _, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

impl Person {
    fn before(b: &Bundle, size: (u16, u16)) -> Self {
        Self::with(b.making("run"), size)
    }

    fn with(mut command: Command, (rows, columns): (u16, u16)) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).expect("a pty");
        let stream = || Stdio::from(slave.try_clone().expect("dup"));
        command.stdin(stream()).stdout(stream()).stderr(stream());
        controlled_by(&mut command, &slave);
        let run = command.spawn().expect("orlop starts");
        Self { master: File::from(master), slave, run, seen: Vec::new() }
    }

    /// Reads until the screen has shown `words`.
    #[track_caller]
    fn sees(&mut self, words: &str) {
        until(&format!("{words:?} on the screen"), || {
            self.look();
            String::from_utf8_lossy(&self.seen).contains(words)
        });
    }

    fn look(&mut self) {
        let mut set =
            [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&self.master), nix::poll::PollFlags::POLLIN)];
        if nix::poll::poll(&mut set, 20u16).is_ok_and(|n| n > 0) {
            let mut buf = [0; 65536];
            let n = self.master.read(&mut buf).unwrap_or(0);
            self.seen.extend_from_slice(&buf[..n]);
        }
    }

    fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("typing");
    }

    /// Its keys are handled by the terminal: echo and lines.
    fn is_cooked(&self) -> bool {
        let flags = tcgetattr(&self.slave).expect("tcgetattr").local_flags;
        flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    #[track_caller]
    fn leaves_with(&mut self, code: i32) {
        let mut status = None;
        until("the end of run", || {
            self.look();
            status = self.run.try_wait().expect("wait");
            status.is_some()
        });
        // What was written before this mark comes before it.
        nix::unistd::write(&self.slave, b"\0").expect("a mark");
        until("the last of the screen", || {
            self.look();
            self.seen.ends_with(b"\0")
        });
        self.seen.pop();
        let text = String::from_utf8_lossy(&self.seen).into_owned();
        assert_eq!(status.and_then(|s| s.code()), Some(code), "{text}");
        assert!(self.is_cooked(), "the terminal was not restored: {text}");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.run.id() as i32), signal).expect("kill");
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.run.kill();
        let _ = self.run.wait();
    }
}

fn terminal(script: &str) -> Bundle {
    Bundle::new().sh(script).set("/process/terminal", json!(true))
}

#[test]
fn a_terminal_is_on_all_streams_and_is_dev_console() {
    needs_root!();
    let b = terminal(
        "tty; test -t 0 && test -t 1 && test -t 2 && echo all three; stat -c %t:%T $(tty) /dev/console; exit 9",
    );
    let mut p = Person::before(&b, (24, 80));
    p.leaves_with(9);
    let text = String::from_utf8_lossy(&p.seen).into_owned();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert_eq!((lines[0], lines[1]), ("/dev/pts/0", "all three"), "{text}");
    assert_eq!(lines[2], lines[3], "/dev/console is another device than the terminal: {text}");
}

#[test]
fn the_size_is_that_of_the_callers_terminal_and_follows_it() {
    needs_root!();
    let b = terminal("stty size; trap 'stty size; exit 5' WINCH; echo armed; while :; do sleep 0.05; done");
    let mut p = Person::before(&b, (31, 97));
    p.sees("31 97");
    p.sees("armed");
    let size = libc::winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one winsize.
    unsafe { libc::ioctl(p.master.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    p.sees("40 120");
    p.leaves_with(5);
}

#[test]
fn keys_reach_the_program_as_they_are() {
    needs_root!();
    let b = terminal(
        "trap 'echo interrupted; exit 4' INT; echo ready; read line; echo got $line; while :; do sleep 0.05; done",
    );
    let mut p = Person::before(&b, (24, 80));
    p.sees("ready");
    until("a raw terminal", || !p.is_cooked());
    p.types("words\r");
    p.sees("got words");
    p.types("\x03"); // by the container's terminal to its foreground group, not to us
    p.sees("interrupted");
    p.leaves_with(4);
}

#[test]
fn console_size_is_the_first_size_where_the_caller_has_none() {
    needs_root!();
    let b = terminal("stty size").set("/process/consoleSize", json!({ "height": 33, "width": 99 }));
    let out = finish(b.making("run").stdin(Stdio::null()));
    assert_eq!((out.code(), out.stdout.as_str()), (0, "33 99\r\n"), "{}", out.stderr);
}

#[test]
fn without_a_terminal_of_the_callers_the_ends_are_copied_all_the_same() {
    needs_root!();
    let b = terminal("stty -echo; echo ready; cat; echo end; exit 6");
    let mut c = b.making("run");
    let mut run = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("orlop starts");
    let mut out = run.stdout.take().expect("a pipe");
    let mut got = Vec::new();
    let mut buf = [0; 1024];
    while !got.ends_with(b"ready\r\n") {
        let n = out.read(&mut buf).expect("read");
        assert!(n > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buf[..n]);
    }
    // The end of our input must end `cat`, although its last line is not whole.
    run.stdin.take().expect("a pipe").write_all(b"one\ntwo").expect("write");
    out.read_to_end(&mut got).expect("read");
    assert_eq!(String::from_utf8_lossy(&got), "ready\r\none\r\ntwoend\r\n");
    assert_eq!(run.wait().expect("wait").code(), Some(6));
}

#[test]
fn a_shell_at_an_empty_input_ends() {
    needs_root!();
    let out = finish(terminal("").args(&["sh"]).making("run").stdin(Stdio::null()));
    assert_eq!(out.code(), 0, "{}{}", out.stdout, out.stderr);
    // Every reader sees it, as it would of a pipe.
    let out = finish(terminal("cat; sleep 0.2; cat; read x || exit 5").making("run").stdin(Stdio::null()));
    assert_eq!(out.code(), 5, "{}{}", out.stdout, out.stderr);
}

/// Ten megabytes, to a reader that takes its time: `stty raw` inside keeps the bytes as they are.
#[test]
fn no_byte_is_lost_before_a_slow_reader() {
    needs_root!();
    let bytes = support::rounds(10_000_000, 10_000_000);
    let b = terminal(&format!("stty raw -echo; seq 1 1500000 | head -c {bytes}; exit 3"));
    let mut run = b.making("run").stdout(Stdio::piped()).spawn().expect("orlop starts");
    let mut out = run.stdout.take().expect("a pipe");
    let (mut got, mut buf) = (Vec::new(), [0; 65536]);
    for turn in 0.. {
        let n = out.read(&mut buf).expect("read");
        if n == 0 {
            break;
        }
        got.extend_from_slice(&buf[..n]);
        if turn % 64 == 0 {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    assert_eq!(run.wait().expect("wait").code(), Some(3));
    let want: Vec<u8> = (1..=1_500_000).flat_map(|n| format!("{n}\n").into_bytes()).take(bytes).collect();
    assert_eq!(got.len(), want.len());
    assert!(got == want, "the bytes are others");
}

#[test]
fn the_last_words_of_a_program_are_never_lost() {
    needs_root!();
    let b = terminal("stty -opost; head -c 3000 /dev/zero | tr '\\0' x; echo; echo last words");
    for _ in 0..support::rounds(20, 500) {
        let out = b.run();
        assert!(out.stdout.ends_with("x\nlast words\n") && out.stdout.len() == 3012, "{:?}", out.stdout);
    }
}

#[test]
fn a_reader_that_goes_away_hangs_the_terminal_up() {
    needs_root!();
    let b = terminal("trap 'exit 8' HUP; while :; do echo y; done");
    let mut run = b.making("run").stdout(Stdio::piped()).spawn().expect("orlop starts");
    let mut line = [0; 1];
    run.stdout.take().expect("a pipe").read_exact(&mut line).expect("read");
    let mut code = None;
    until("the end of run", || {
        code = run.try_wait().expect("wait");
        code.is_some()
    });
    assert_eq!(code.and_then(|c| c.code()), Some(8));
}

#[test]
fn signals_end_the_program_and_give_the_terminal_back() {
    needs_root!();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1] {
        let b = terminal(&format!(
            "trap 'exit 11' {}; echo ready; while :; do sleep 0.05; done",
            &signal.as_str()[3..]
        ));
        let mut p = Person::before(&b, (24, 80));
        p.sees("ready");
        until("a raw terminal", || !p.is_cooked());
        p.signal(signal);
        p.leaves_with(11);
    }
}

#[test]
fn a_killed_run_gives_the_terminal_back_and_its_program_sees_a_hang_up() {
    needs_root!();
    let b = terminal("trap 'exit 1' HUP; echo ready; while :; do sleep 0.05; done");
    let mut p = Person::before(&b, (24, 80));
    p.sees("ready");
    until("a raw terminal", || !p.is_cooked());
    p.signal(Signal::SIGKILL);
    until("its end", || p.run.try_wait().expect("wait").is_some());
    until("a restored terminal", || p.is_cooked());
    b.await_status("stopped");
}

#[test]
fn a_background_job_is_stopped_and_goes_on_in_the_foreground() {
    needs_root!();
    let b = terminal("echo hello; exit 12");
    // A shell with job control: the job stops at the terminal, `fg` lets it go on.
    b.write();
    let line = format!(
        "set -m; {} --root {} run -b {} {} & p=$!; while ! grep -q 'State:.*stopped' /proc/$p/status; do sleep 0.02; done; echo was stopped; fg >/dev/null; echo code $?",
        support::ORLOP,
        b.state_root().display(),
        b.path().display(),
        b.id,
    );
    let mut c = Command::new("bash");
    c.args(["-c", &line]);
    let mut p = Person::with(c, (24, 80));
    p.sees("was stopped");
    p.sees("hello");
    p.sees("code 12");
    p.leaves_with(0);
}

#[test]
fn the_callers_terminal_is_out_of_reach() {
    needs_root!();
    // TIOCSTI needs the terminal to be the controlling one (CVE-2005-4890).
    let b = Bundle::new().sh("cat /proc/self/stat | cut -d' ' -f7");
    let mut p = Person::before(&b, (24, 80));
    p.leaves_with(0);
    assert_eq!(String::from_utf8_lossy(&p.seen).trim(), "0", "the caller's terminal controls the container");
}

/// Receives one master, and says what came with it and how the connection ended.
fn receive(listener: &UnixListener) -> (String, File, usize) {
    let (mut peer, _) = listener.accept().expect("accept");
    let mut buf = [0; 256];
    let (length, master) = orlop::sys::fd::recv_fd(&peer, &mut buf).expect("recvmsg");
    let name = String::from_utf8_lossy(&buf[..length]).into_owned();
    let rest = peer.read(&mut [0; 16]).expect("read");
    (name, master.expect("a descriptor").into(), rest)
}

#[test]
fn the_console_socket_receives_the_master() {
    needs_root!();
    let b = terminal("tty; read x; echo $x; stty size; sleep 100")
        .set("/process/consoleSize", json!({ "height": 12, "width": 34 }));
    // Longer than the 108 bytes of an address.
    let dir = b.path().join("s".repeat(120));
    std::fs::create_dir(&dir).expect("mkdir");
    let short = b.path().join("s");
    let listener = UnixListener::bind(&short).expect("bind");
    let path = dir.join("console");
    std::fs::rename(&short, &path).expect("rename");
    let served = std::thread::spawn(move || receive(&listener));
    finish(b.making("create").arg("--console-socket").arg(&path)).ok();
    let (name, mut master, rest) = served.join().expect("receive");
    assert_eq!((name.as_str(), rest), ("/dev/pts/0", 0));
    b.start().ok();
    master.write_all(b"typed\n").expect("write");
    let (mut text, mut buf) = (String::new(), [0; 256]);
    until("its output", || {
        let n = master.read(&mut buf).expect("read");
        text.push_str(&String::from_utf8_lossy(&buf[..n]));
        text.contains("12 34")
    });
    assert!(text.contains("/dev/pts/0") && text.contains("typed"), "{text}");
    b.delete().ok();
}

#[test]
fn a_console_socket_that_is_none_is_refused_before_anything_is_made() {
    needs_root!();
    let b = terminal("true");
    for (path, words) in [
        ("/dev/null", "--console-socket: \"/dev/null\" is not a socket"),
        ("/no/such", "--console-socket: open \"/no/such\": no such file or directory"),
    ] {
        finish(b.making("create").arg("--console-socket").arg(path)).fails(words);
        assert!(std::fs::read_dir(b.state_root()).expect("state root").next().is_none());
    }
    // A socket that nobody listens at any more: found late, and undone.
    let path = b.path().join("dead");
    drop(UnixListener::bind(&path).expect("bind"));
    finish(b.making("create").arg("--console-socket").arg(&path)).fails("connection refused");
    assert!(std::fs::read_dir(b.state_root()).expect("state root").next().is_none());
    assert!(support::cgroups_named(&b.id).is_empty());
}

#[test]
fn a_raw_terminal_comes_back_raw() {
    needs_root!();
    let b = terminal("echo hello");
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master: _master, slave } = openpty(&size, None).expect("a pty");
    let mut modes = tcgetattr(&slave).expect("tcgetattr");
    cfmakeraw(&mut modes);
    modes.local_flags.insert(LocalFlags::NOFLSH); // a mark of our own
    tcsetattr(&slave, SetArg::TCSANOW, &modes).expect("tcsetattr");
    let mut c = b.making("run");
    finish(c.stdin(Stdio::from(slave.try_clone().expect("dup")))).ok();
    let after = tcgetattr(&slave).expect("tcgetattr").local_flags;
    assert_eq!(after, modes.local_flags);
}

fn exec(b: &Bundle, flags: &[&str], script: &str) -> Command {
    b.orlop([&["exec"], flags, &[b.id.as_str(), "sh", "-c", script]].concat())
}

#[test]
fn exec_in_the_foreground_copies_the_terminal() {
    needs_root!();
    let b = Bundle::sleeping();
    b.create().ok();
    let script = "trap 'echo interrupted; exit 4' INT; tty; stty size; test -t 0 && test -t 2 && echo all; \
                  stat -c %u $(tty); read line; echo got $line; while :; do sleep 0.05; done";
    let mut p = Person::with(exec(&b, &["--tty", "--user", "5"], script), (31, 97));
    for words in ["/dev/pts/0", "31 97", "all", "5"] {
        p.sees(words);
    }
    until("a raw terminal", || !p.is_cooked());
    p.types("words\r");
    p.sees("got words");
    p.types("\x03");
    p.sees("interrupted");
    p.leaves_with(4);
}

#[test]
fn exec_hands_the_terminal_to_the_callers_socket() {
    needs_root!();
    let b = Bundle::sleeping();
    b.create().ok();
    let path = b.path().join("console");
    let listener = UnixListener::bind(&path).expect("bind");
    let socket = path.to_str().expect("a path").to_string();
    let served = std::thread::spawn(move || receive(&listener));
    let flags = ["--detach", "--tty", "--console-socket", &socket];
    finish(&mut exec(&b, &flags, "read line; echo got $line; tty; sleep 1000")).ok();
    let (name, mut master, rest) = served.join().expect("receive");
    assert_eq!((name.as_str(), rest), ("/dev/pts/0", 0));
    master.write_all(b"words\n").expect("write");
    let (mut text, mut buf) = (String::new(), [0; 256]);
    until("its output", || {
        let n = master.read(&mut buf).expect("read");
        text.push_str(&String::from_utf8_lossy(&buf[..n]));
        text.contains("got words") && text.contains("/dev/pts/0")
    });
}
