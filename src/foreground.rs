//! The wait for a program in the foreground: signals go to the program, children are reaped, the terminal is copied.

use crate::console::Relay;
use crate::error::{Error, Result, os};
use crate::ready::Ready;
use crate::sys::{Errno, clone, cred, fd, signal};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// What must stand before the container is made, so that no signal is lost.
pub struct Foreground {
    signals: OwnedFd,
}

fn failed(call: &'static str) -> impl FnOnce(Errno) -> Error {
    os("process", call)
}

impl Foreground {
    /// Blocks the signals, which wait until there is a program to send them to. `terminal`: ours will be copied, and
    /// stops a background job by the two signals made for that. `subreaper`: orphans of the container are ours.
    pub fn prepare(terminal: bool, subreaper: bool) -> Result<Self> {
        let mut mask = u64::MAX;
        if terminal {
            mask &= !(signal::bit(libc::SIGTTIN) | signal::bit(libc::SIGTTOU));
        }
        if signal::is_ignored(libc::SIGHUP).map_err(failed("sigaction"))? {
            mask &= !signal::bit(libc::SIGHUP); // nohup(1): the program shall live on too
        }
        if subreaper {
            cred::become_subreaper().map_err(failed("prctl PR_SET_CHILD_SUBREAPER"))?;
        }
        signal::set_mask(mask).map_err(failed("rt_sigprocmask"))?;
        Ok(Self { signals: signal::descriptor(mask).map_err(failed("signalfd4"))? })
    }

    /// Of these signals, those that end the call while there is no program yet.
    pub fn interrupts() -> Result<OwnedFd> {
        let mask =
            [libc::SIGHUP, libc::SIGINT, libc::SIGTERM].iter().fold(0, |mask, s| mask | signal::bit(*s));
        signal::descriptor(mask).map_err(failed("signalfd4"))
    }

    /// Waits for init; the exit code is its own, or 128 and the signal that ended it.
    pub fn wait(self, pid: i32, pidfd: BorrowedFd, ends: Ends) -> Result<i32> {
        let relay = ends.master.map(Relay::new).transpose()?;
        let ready = ends.ready;
        let mut wait = Wait { signals: self.signals, pid, pidfd, relay, ready, exit: None, hurry: false };
        loop {
            if let Some(code) = wait.finished() {
                std::mem::forget(wait.signals); // the end of our process, which is near, closes it
                return Ok(code);
            }
            wait.turn()?;
        }
    }
}

/// What the program has of us beside signals.
pub struct Ends {
    /// The pty to copy.
    pub master: Option<OwnedFd>,
    pub ready: Option<Ready>,
}

struct Wait<'a> {
    signals: OwnedFd,
    pid: i32,
    pidfd: BorrowedFd<'a>,
    /// Gone once our side of the terminal is.
    relay: Option<Relay>,
    /// Gone once the program said that it is ready.
    ready: Option<Ready>,
    exit: Option<clone::Exit>,
    /// Told to end while only output was left to copy.
    hurry: bool,
}

impl Wait<'_> {
    /// The exit code, when the program ended and all that it wrote was taken.
    fn finished(&mut self) -> Option<i32> {
        let exit = self.exit?;
        let copied = self.hurry || self.relay.as_mut().is_none_or(Relay::is_drained);
        copied.then(|| exit.code())
    }

    fn turn(&mut self) -> Result<()> {
        let alive = if self.exit.is_none() { self.pidfd.as_raw_fd() } else { -1 };
        let [input, output, master] = self.relay.as_ref().map_or([(-1, 0); 3], Relay::watch);
        let own = [(self.signals.as_raw_fd(), libc::POLLIN), (alive, libc::POLLIN)];
        let patience = self.relay.as_ref().map_or(-1, Relay::patience);
        let ready = (self.ready.as_ref().map_or(-1, Ready::number), libc::POLLIN);
        let [signalled, ended, input, output, master, said] =
            match fd::poll([own[0], own[1], input, output, master, ready], patience) {
                Err(Errno::EINTR) => return Ok(()), // stopped as a background job, and continued
                other => other.map_err(failed("poll"))?,
            };
        if ended != 0 && self.exit.is_none() {
            if let Some(exit) = clone::wait(self.pid, false).map_err(failed("waitpid"))? {
                self.end(exit);
            }
        }
        // When nobody is left to get a signal, and nothing to copy, the call is over.
        if signalled != 0 && (self.exit.is_none() || self.relay.is_some()) {
            self.take_signals()?;
        }
        if let Some(ready) = self.ready.take_if(|_| said != 0) {
            match ready.pass_on(self.pid) {
                Ok(true) => {}
                Ok(false) => self.ready = Some(ready),
                Err(e) => tracing::warn!("{e}"), // the program goes on without
            }
        }
        if let Some(relay) = &mut self.relay {
            if !relay.copy(input, output, master) {
                self.relay = None; // closes the master: the program sees its terminal hang up
            }
        }
        Ok(())
    }

    fn take_signals(&mut self) -> Result<()> {
        while let Some((number, sender)) = signal::next(&self.signals).map_err(failed("read of signals"))? {
            match number {
                libc::SIGCHLD => self.reap(),
                libc::SIGWINCH => self.relay.iter().for_each(Relay::resize),
                // Our own write to a closed pipe; its error was seen already.
                libc::SIGPIPE if sender == std::process::id() as i32 => {}
                libc::SIGURG => {} // as with runc, whose own runtime sends it to itself
                n => {
                    if n == libc::SIGCONT {
                        self.relay.iter().for_each(Relay::resume);
                    }
                    self.hurry |= self.exit.is_some() && n != libc::SIGCONT && n != libc::SIGTSTP;
                    let _ = clone::signal(self.pidfd, n); // gone already is as good
                }
            }
        }
        Ok(())
    }

    /// Everything that ended and is ours to collect; init among it is left to its pidfd.
    fn reap(&mut self) {
        while let Ok(Some((pid, exit))) = clone::wait_any() {
            if pid == self.pid {
                self.end(exit);
            }
        }
    }

    fn end(&mut self, exit: clone::Exit) {
        self.exit = Some(exit);
        self.relay.iter_mut().for_each(Relay::end_input);
    }
}
