//! start: opens the gate and waits until the program runs (runtime.md#start).

use super::make;
use crate::container::{Container, Process, StateRoot, Status};
use crate::error::{Error, Kind, Result, os};
use crate::hooks;
use crate::plan::{cpath, process::missing};
use crate::ready::Ready;
use crate::spawn::fault;
use crate::sync::{self, MAX};
use crate::sys::{Errno, fd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// How long an init that has said why it fails may take to end, in ms.
const ENDS: i32 = 10_000;

pub fn start(root: &StateRoot, id: &str) -> Result<()> {
    let not_created = |status: Status| {
        let is = status.as_str();
        let what = format!("is {is}, expected created: cannot start a container that is not created");
        Error::new(Kind::WrongState, format!("container {id:?}"), what)
    };
    let mut c = root.lock(id, || not_created(Status::Creating))?;
    let (status, _) = c.status();
    let init = match (status, c.init()) {
        (Status::Created, Some((init, true))) => init,
        _ => return Err(not_created(status)),
    };
    if c.record.program.is_empty() {
        return Err(missing());
    }
    let ready = Ready::bind(&c)?;
    open_gate(&c, init).inspect_err(|e| {
        if e.at.starts_with("hooks.") {
            undo(&mut c, init);
        }
    })?;
    for name in ["gate", "report"] {
        let _ = std::fs::remove_file(c.file(name)); // delete removes what is left
    }
    let list = c.record.hooks.poststart.clone();
    hooks::after_start(&mut c, init.pid, &list).inspect_err(|_| undo(&mut c, init))?;
    if let Some(ready) = ready {
        ready.wait(init.pid, init.pidfd().as_ref().map(AsFd::as_fd));
    }
    Ok(())
}

/// runtime.md#lifecycle: stop the container and go on with its deletion. The hook's failure is the one to tell.
fn undo(c: &mut Container, init: Process) {
    let _ = crate::container::signal(init, libc::SIGKILL); // gone already is as good
    if let Err(e) = make::remove_ours(c, init) {
        tracing::warn!("{e}");
    }
}

fn open_fifo(c: &Container, name: &str, flags: i32) -> Result<OwnedFd> {
    let file = c.file(name);
    let at = file.to_string_lossy();
    fd::open(&cpath(&at, &file)?, flags | libc::O_NONBLOCK, 0).map_err(|e| match e {
        Errno::ENXIO => died(c),
        _ => Error::os(at, "open", e as i32),
    })
}

fn died(c: &Container) -> Error {
    let e = Error::new(Kind::WrongState, "container process", "ended before the program ran");
    fault::perhaps_for_memory(e, c)
}

/// End of file on the report means that the program runs, since init's end is close-on-exec, or that init is dead. Which, is
/// told by what is left of init until its parent waits for it; when that was faster than we, the program counts as run,
/// and its exit status is the parent's to tell.
fn open_gate(c: &Container, init: Process) -> Result<()> {
    let report = open_fifo(c, "report", libc::O_RDONLY)?;
    let gate = open_fifo(c, "gate", libc::O_WRONLY)?;
    let pidfd = init.pidfd().ok_or_else(|| died(c))?;
    fd::write(&gate, b"1").map_err(os("gate", "write"))?;
    let watch = [(report.as_raw_fd(), libc::POLLIN), (pidfd.as_raw_fd(), libc::POLLIN)];
    loop {
        let [said, ended] = match fd::poll(watch, -1) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(os("report", "poll"))?,
        };
        if said == 0 && ended == 0 {
            continue;
        }
        let mut buf = [0; MAX];
        let n = fd::read(&report, &mut buf).unwrap_or(0);
        if let Some(m) = sync::message(&buf[..n], None).filter(|m| m.head.kind == sync::Kind::Fail) {
            // An engine that is told of the failure deletes the container at once, and refuses to while init is there.
            let _ = fd::poll([(pidfd.as_raw_fd(), libc::POLLIN)], ENDS);
            return Err(fault::failure(&m, None, &c.record.program));
        }
        return match init.stat() {
            Some(s) if !s.has_exec() => Err(died(c)),
            _ => Ok(()),
        };
    }
}
