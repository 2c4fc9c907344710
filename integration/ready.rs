//! sd_notify(3): a program says that it is ready, and the service manager of our caller hears it.

mod support;

use serde_json::json;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use support::{Bundle, finish, patience};

/// The applet that writes a datagram to a socket is logger, and it knows one place.
const SAY: &str =
    "ln -s $NOTIFY_SOCKET /dev/log; busybox logger \"$(printf 'STATUS=x\\nREADY=1\\nSTOPPING=1')\"";

fn manager(b: &Bundle) -> (PathBuf, UnixDatagram) {
    let path = b.path().join("manager");
    let socket = UnixDatagram::bind(&path).expect("bind");
    socket.set_read_timeout(Some(patience())).expect("a time limit");
    (path, socket)
}

fn heard(socket: &UnixDatagram) -> String {
    let mut buf = [0; 4096];
    let n = socket.recv(&mut buf).expect("a word");
    String::from_utf8_lossy(&buf[..n]).into_owned()
}

fn with(mut c: Command, path: &PathBuf) -> Command {
    c.env("NOTIFY_SOCKET", path);
    c
}

#[test]
fn start_waits_for_the_word_and_passes_it_on_with_the_pid() {
    needs_root!();
    let b = Bundle::new().sh(&format!("sleep 0.3; {SAY}; sleep 1000"));
    let (path, socket) = manager(&b);
    finish(&mut with(b.making("create"), &path)).ok();
    let start = std::time::Instant::now();
    finish(&mut with(b.orlop(["start", &b.id]), &path)).ok();
    assert!(start.elapsed() > Duration::from_millis(300), "start did not wait");
    assert_eq!(heard(&socket), format!("MAINPID={}\nREADY=1\n", b.state()["pid"]));
    socket.set_nonblocking(true).expect("nonblocking");
    assert!(socket.recv(&mut [0; 16]).is_err(), "it says more than that");
    b.delete().ok();
    b.is_clean();
}

#[test]
fn run_passes_it_on_detached_and_in_the_foreground() {
    needs_root!();
    let b = Bundle::new().sh(&format!("{SAY}; sleep 1000"));
    let (path, socket) = manager(&b);
    finish(with(b.making("run"), &path).arg("--detach")).ok();
    assert_eq!(heard(&socket), format!("MAINPID={}\nREADY=1\n", b.state()["pid"]));
    b.delete().ok();
    let b = Bundle::new().sh(&format!("{SAY}; sleep 0.1; exit 4"));
    let (path, socket) = manager(&b);
    assert_eq!(finish(&mut with(b.making("run"), &path)).code(), 4);
    assert!(heard(&socket).ends_with("\nREADY=1\n"));
    b.is_clean();
}

/// A datagram for each thing that is said, as many programs do, and the end of the program behind them: the hook lets all
/// of it happen before `start` looks.
#[test]
fn the_word_is_heard_behind_others_and_from_a_program_that_ended() {
    needs_root!();
    let b = Bundle::new().sh(&SAY.replace("\"$(printf", "STATUS=x; busybox logger \"$(printf"));
    let b = b.set("/hooks/poststart/-", json!({ "path": "/bin/sleep", "args": ["sleep", "1"] }));
    let (path, socket) = manager(&b);
    finish(&mut with(b.making("create"), &path)).ok();
    finish(&mut with(b.orlop(["start", &b.id]), &path)).ok();
    assert!(heard(&socket).ends_with("\nREADY=1\n"));
}

#[test]
fn a_program_that_ends_without_a_word_is_not_waited_for() {
    needs_root!();
    let b = Bundle::new().sh("exit 3");
    let (path, _socket) = manager(&b);
    finish(&mut with(b.making("create"), &path)).ok();
    finish(&mut with(b.orlop(["start", &b.id]), &path)).ok();
    b.await_status("stopped");
}

/// The container cannot put a socket of its own in the place of ours.
#[test]
fn the_directory_of_the_socket_is_read_only() {
    needs_root!();
    let b =
        Bundle::new().sh("rm $NOTIFY_SOCKET; touch /run/notify/x; ls -A /run/notify; echo $NOTIFY_SOCKET");
    let (path, _socket) = manager(&b);
    let out = finish(&mut with(b.making("run"), &path));
    assert_eq!(out.stdout, "notify.sock\n/run/notify/notify.sock\n", "{}", out.stderr);
}

#[test]
fn a_manager_that_is_not_there_is_none() {
    needs_root!();
    let b = Bundle::new().sh("echo $NOTIFY_SOCKET; ls /run/notify 2>&1 | grep -c 'No such'");
    let none = b.path().join("none");
    assert_eq!(finish(&mut with(b.making("run"), &none)).ok().stdout, "\n1\n");
}

#[test]
fn a_manager_that_is_gone_keeps_no_program_from_running() {
    needs_root!();
    for detached in [true, false] {
        let b = Bundle::new().sh(&format!("until [ -e /go ]; do sleep 0.02; done; {SAY}; sleep 1000"));
        let (path, socket) = manager(&b);
        let mut call = match detached {
            true => b.making("run"),
            false => {
                finish(&mut with(b.making("create"), &path)).ok();
                b.orlop(["start", &b.id])
            }
        };
        if detached {
            call.arg("--detach");
        }
        let call = with(call, &path);
        let caller = std::thread::scope(|s| {
            let caller = s.spawn(move || finish(&mut { call }));
            support::until("it runs", || b.verb("state", &[]).stdout.contains("\"running\""));
            drop(socket);
            std::fs::remove_file(&path).expect("unlink");
            std::fs::write(b.rootfs().join("go"), "").expect("write");
            caller.join().expect("the call ends")
        });
        assert!(caller.ok().stderr.contains("NOTIFY_SOCKET: sendto: no such file or directory"));
        assert_eq!(b.state()["status"], "running");
    }
}
