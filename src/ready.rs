//! sd_notify(3): the word of the container's program that it is ready, passed on to the service manager of our caller.
//!
//! The program gets a socket of ours, in a directory beside the container's record that it sees at [`INSIDE`].
//! READY=1 is passed on, once, with the pid by which the manager knows the program; nothing else is, since it would
//! speak for the whole service.

use crate::container::Container;
use crate::error::{Error, Result, os};
use crate::plan::cpath;
use crate::sys::{Errno, fd};
use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};

pub use crate::plan::mounts::notify::{AT, INSIDE, NAME};

/// The directory beside the container's record.
pub const DIR: &str = "notify";

/// The manager's socket; one that is not there, as in an environment that was only passed on, counts as none.
pub fn manager() -> Option<SocketAddr> {
    let name = std::env::var_os(AT)?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None => {
            let there = fs::metadata(&name).is_ok_and(|m| m.file_type().is_socket());
            there.then(|| SocketAddr::from_pathname(&name).ok()).flatten()
        }
    }
}

/// Makes the directory that the container sees; others may enter it, and the state root keeps them out on the host.
pub fn make_dir(c: &Container) -> Result<()> {
    let dir = c.file(DIR);
    let made = DirBuilder::new().mode(0o755).create(&dir);
    made.map_err(|e| Error::io(AT, format!("mkdir {:?}", dir.to_string_lossy()), &e))
}

/// The program's socket, and whom to tell.
#[derive(Debug)]
pub struct Ready {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Ready {
    /// Binds the socket, before the program runs; `None` unless the container was created with one and a manager waits.
    pub fn bind(c: &Container) -> Result<Option<Ready>> {
        let dir = c.file(DIR);
        let Some(manager) = manager().filter(|_| dir.is_dir()) else { return Ok(None) };
        let at = dir.to_string_lossy().into_owned();
        let held = fd::open(&cpath(AT, &dir)?, libc::O_PATH | libc::O_DIRECTORY, 0);
        let held = held.map_err(os(AT, format!("open {at:?}")))?;
        // sun_path has 108 bytes, which the state root's path may exceed.
        let path = format!("/proc/self/fd/{}/{NAME}", held.as_raw_fd());
        let socket = UnixDatagram::bind(&path)
            .and_then(|s| s.set_nonblocking(true).map(|()| s))
            .and_then(|s| fs::set_permissions(&path, Permissions::from_mode(0o777)).map(|()| s))
            .map_err(|e| Error::io(AT, format!("bind {NAME:?} in {at:?}"), &e))?;
        Ok(Some(Ready { socket, manager }))
    }

    /// For poll(2).
    pub fn number(&self) -> i32 {
        self.socket.as_raw_fd()
    }

    /// Passes on that the program, `pid`, is ready, when one of the datagrams that wait says so.
    pub fn pass_on(&self, pid: i32) -> Result<bool> {
        let mut buf = [0; 4096];
        loop {
            let len = match self.socket.recv(&mut buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                other => other.map_err(|e| Error::io(AT, "recv", &e))?,
            };
            if buf[..len].split(|b| *b == b'\n').any(|line| line == b"READY=1") {
                break;
            }
        }
        let words = format!("MAINPID={pid}\nREADY=1\n");
        let sent = UnixDatagram::unbound().and_then(|s| s.send_to_addr(words.as_bytes(), &self.manager));
        sent.map(|_| true).map_err(|e| Error::io(AT, "sendto", &e))
    }

    /// Waits until the program is ready, or has ended. A manager that is gone is told of by a warning: the program runs.
    /// Without a `pidfd` it is over already.
    pub fn wait(&self, pid: i32, pidfd: Option<BorrowedFd>) {
        let told = match pidfd {
            Some(pidfd) => self.until_ready(pid, pidfd),
            None => self.pass_on(pid).map(drop),
        };
        if let Err(e) = told {
            tracing::warn!("{e}");
        }
    }

    fn until_ready(&self, pid: i32, pidfd: BorrowedFd) -> Result<()> {
        loop {
            // In this order: what the program said before it ended is seen with its end.
            let watch = [(pidfd.as_raw_fd(), libc::POLLIN), (self.number(), libc::POLLIN)];
            let [ended, said] = match fd::poll(watch, -1) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(os(AT, "poll"))?,
            };
            if said != 0 && self.pass_on(pid)? || ended != 0 {
                return Ok(());
            }
        }
    }
}
