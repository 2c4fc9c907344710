//! Terminals, of the first process and of others.

use super::{Ctr, new_id};
use crate::support::{finish, patience};
use crate::world::Engine;
use crate::{Check, check};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::Instant;

pub const CHECKS: &[Check] = &[
    check!(run_on_a_terminal),
    check!(exec_on_a_terminal),
    check!(typed_words_and_interrupt),
    check!(resize),
];

/// A terminal with a command on it.
struct Terminal {
    master: File,
    /// Held, since the kernel may drop what is unread when the last one goes.
    _slave: OwnedFd,
    child: Child,
    seen: String,
}

impl Terminal {
    #[track_caller]
    fn new(command: &Command) -> Self {
        let pty = openpty(&size(33, 77), None).expect("openpty");
        let slave = || pty.slave.try_clone().expect("dup");
        let mut c = Command::new("setsid");
        c.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        let child = c.stdin(slave()).stdout(slave()).stderr(slave()).spawn().expect("setsid starts");
        Self { master: pty.master.into(), child, seen: String::new(), _slave: pty.slave }
    }

    fn write(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    fn resize(&self, rows: u16, columns: u16) {
        let mut stty = Command::new("stty");
        let size = ["rows", &rows.to_string(), "cols", &columns.to_string()];
        finish(stty.args(size).stdin(self.master.try_clone().expect("dup"))).ok();
    }

    /// Reads until this was seen.
    #[track_caller]
    fn until(&mut self, words: &str) {
        let end = Instant::now() + patience();
        while !self.seen.contains(words) {
            self.read();
            assert!(Instant::now() < end, "{words:?} is not in {:?}", self.seen);
        }
    }

    /// Whether there was something.
    fn read(&mut self) -> bool {
        let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(50u8)).expect("poll") == 0 {
            return false;
        }
        let mut bytes = [0; 4096];
        let n = self.master.read(&mut bytes).expect("the terminal reads");
        self.seen += &String::from_utf8_lossy(&bytes[..n]);
        true
    }

    /// The command's code, once all that it wrote is seen.
    #[track_caller]
    fn end(&mut self) -> i32 {
        let end = Instant::now() + patience();
        let status = loop {
            assert!(Instant::now() < end, "it does not end: {:?}", self.seen);
            self.read();
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
        };
        while self.read() {}
        status.code().unwrap_or(-1)
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// The client sets the size once the process runs.
const SIZE: &str = "until stty size 2>/dev/null | grep .; do sleep 0.02; done";

/// Runs to the end of a script that waits for a key, since what is written last is lost when the engine hears of the end
/// before it has read.
#[track_caller]
fn sees(mut t: Terminal, code: i32, last: &str) -> String {
    t.until(last);
    t.write("\r");
    assert_eq!(t.end(), code, "{:?}", t.seen);
    t.seen
}

fn run_on_a_terminal(e: &Engine) {
    let ids = "stat -L -c %i:%t:%T /dev/console /proc/self/fd/0 | uniq | wc -l";
    let script = format!("tty; {SIZE}; {ids}; echo last; read key; exit 6");
    let t = Terminal::new(&Ctr(e).run_command(&new_id(), &["--rm", "--tty"], &["sh", "-c", &script]));
    let seen = sees(t, 6, "last");
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["/dev/pts/0", "33", "77", "1", "last"]);
}

fn exec_on_a_terminal(e: &Engine) {
    let c = Ctr(e).sleeping(&[]);
    let script = format!("tty; {SIZE}; ls -l /dev/pts/ptmx | cut -c 1; echo last; read key; exit 8");
    let args = ["task", "exec", "--tty", "--exec-id", &new_id(), &c.id, "sh", "-c", &script];
    let seen = sees(Terminal::new(&Ctr(e).command(args)), 8, "last");
    assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["/dev/pts/0", "33", "77", "c", "last"]);
    c.remove();
}

fn typed_words_and_interrupt(e: &Engine) {
    let script = "stty -echo; echo ready; read a; echo \"<$a>\"; trap 'echo int; read key; exit 4' INT; echo trap; while :; do sleep 0.05; done";
    let mut t = Terminal::new(&Ctr(e).run_command(&new_id(), &["--rm", "--tty"], &["sh", "-c", script]));
    t.until("ready");
    t.write("some words\r");
    t.until("<some words>");
    t.until("trap");
    t.write("\x03");
    sees(t, 4, "int");
}

fn resize(e: &Engine) {
    let script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut t = Terminal::new(&Ctr(e).run_command(&new_id(), &["--rm", "--tty"], &["sh", "-c", script]));
    t.until("ready");
    // The client listens for changes a little after it has told the first size.
    let end = Instant::now() + patience();
    while !t.seen.contains("11 44") {
        t.resize(12, 44);
        t.resize(11, 44);
        t.read();
        assert!(Instant::now() < end, "{:?}", t.seen);
    }
    let _ = t.child.kill();
    let _ = t.child.wait();
}
