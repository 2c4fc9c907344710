//! Terminals on the caller's side: handed to a socket (`--console-socket`), or copied in the foreground.

use crate::error::{Error, Result, os};
use crate::plan::cpath;
use crate::sys::tty::{self, Modes};
use crate::sys::{Errno, Sys, clone, fd, ns, pty, signal};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How long a listener may take to accept, in seconds: its backlog can be full.
const PATIENCE: i64 = 10;

/// Is there a socket at `path`? `flag` names it in the error.
pub fn check_socket(flag: &str, path: &Path) -> Result<()> {
    open_socket(flag, path).map(drop)
}

/// The socket's own inode: what is connected to is what was checked.
fn open_socket(flag: &str, path: &Path) -> Result<OwnedFd> {
    let shown = path.to_string_lossy();
    let call = |name: &str| os(flag, format!("{name} {shown:?}"));
    let socket = fd::open(&cpath(flag, path)?, libc::O_PATH, 0).map_err(call("open"))?;
    let st = fd::stat(&socket).map_err(call("fstat"))?;
    match st.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => Ok(socket),
        _ => Err(Error::invalid(flag, format!("{shown:?} is not a socket"))),
    }
}

/// Connects to the socket at `path`, sends the descriptor with `name` as data, and closes.
pub fn send(flag: &str, path: &Path, name: &str, what: BorrowedFd) -> Result<()> {
    let target = open_socket(flag, path)?;
    let call = |name: &str| os(flag, format!("{name} {:?}", path.to_string_lossy()));
    let ours = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(call("socket for"))?;
    socket::setsockopt(&ours, sockopt::SendTimeout, &TimeVal::seconds(PATIENCE))
        .map_err(call("setsockopt for"))?;
    // sun_path has 108 bytes, which the caller's path may exceed; this one never does.
    let address = UnixAddr::new(format!("/proc/self/fd/{}", target.as_raw_fd()).as_str())
        .map_err(call("address of"))?;
    socket::connect(ours.as_raw_fd(), &address).map_err(call("connect to"))?;
    fd::send_fd(ours.as_fd(), name.as_bytes(), what).map_err(call("sendmsg to"))
}

/// The most that a pty's own buffers hold back once its writer is gone, and more.
const REST: usize = 1 << 20;

/// Bytes on their way. Nothing is read before all of the last is written: who is slow holds up who is fast.
struct Buffer {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; 32 * 1024], from: 0, to: 0 }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Reads once; 0 at end of file.
    fn fill(&mut self, fd: impl AsFd) -> Sys<usize> {
        (self.from, self.to) = (0, 0);
        self.to = fd::read(fd, &mut self.bytes)?;
        Ok(self.to)
    }

    /// Writes once, `most` bytes at most; what cannot be taken now stays.
    fn drain(&mut self, fd: impl AsFd, most: usize) -> Sys {
        let end = self.to.min(self.from.saturating_add(most));
        match fd::write(fd, &self.bytes[self.from..end]) {
            Ok(n) => self.from += n,
            Err(Errno::EAGAIN) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

/// The caller's terminal while the container's is shown on it.
struct Caller {
    /// What it was before; `None` when standard input is no terminal.
    modes: Option<Modes>,
}

impl Caller {
    fn new() -> Self {
        Self { modes: tty::modes(fd::borrow(0)).ok() }
    }

    /// Keys go to the container as they are. In the background this stops us, as it should.
    fn set_raw(&self) {
        if let Some(modes) = &self.modes {
            let _ = tty::set_modes(fd::borrow(0), &modes.raw()); // hung up: reading will tell
        }
    }

    fn restore(&self) {
        if let Some(modes) = &self.modes {
            let _ = tty::set_modes(fd::borrow(0), modes); // hung up: nobody uses it any more
        }
    }
}

/// The container's terminal gets the size of ours: that of the first standard stream which is one.
pub fn give_size(master: impl AsFd) {
    let size = (0..3).find_map(|n| tty::size(fd::borrow(n)).ok());
    if let Some((rows, columns)) = size.filter(|s| *s != (0, 0)) {
        let _ = pty::set_size(master, rows, columns); // it fails only for what is no terminal
    }
}

/// Standard input.
enum Input {
    Open,
    /// At its end, which the program shall see whenever it reads; asked again after so many milliseconds.
    Ended(i32),
    /// Hung up, or the program is gone.
    Closed,
}

/// Copies between our standard streams and the container's terminal, without ever waiting for either.
pub struct Relay {
    master: OwnedFd,
    /// Kept open, so that the master does not hang up when the program closes its own and opens them again.
    slave: Option<OwnedFd>,
    output: OwnedFd,
    /// How much a write may have: `output` may be one that waits.
    most: usize,
    typed: Buffer,
    input: Input,
    shown: Buffer,
    /// Bytes that may still come from the pty; `None` as long as the program lives.
    rest: Option<usize>,
    caller: Caller,
    guard: Option<Guard>,
}

impl Relay {
    /// Takes the master over, and the caller's terminal: raw from here on.
    pub fn new(master: OwnedFd) -> Result<Self> {
        let call = |name: &'static str| os("process.terminal", name);
        fd::set_nonblocking(&master).map_err(call("fcntl O_NONBLOCK"))?;
        let slave = pty::peer(&master).map_err(call("ioctl TIOCGPTPEER"))?;
        let (output, most) = output().map_err(call("dup of standard output"))?;
        let caller = Caller::new();
        let guard = caller.modes.map(Guard::new).transpose().map_err(call("clone3"))?;
        let relay = Self {
            master,
            slave: Some(slave),
            output,
            most,
            typed: Buffer::new(),
            input: Input::Open,
            shown: Buffer::new(),
            rest: None,
            caller,
            guard,
        };
        relay.caller.set_raw();
        Ok(relay)
    }

    /// SIGWINCH: the program gets that signal too.
    pub fn resize(&self) {
        give_size(&self.master);
    }

    /// SIGCONT: whoever stopped us has the terminal in its own modes.
    pub fn resume(&self) {
        self.caller.set_raw();
        self.resize();
    }

    /// What to wait for: standard input, standard output, the master.
    pub fn watch(&self) -> [(i32, i16); 3] {
        let reads = matches!(self.input, Input::Open) && self.typed.is_empty();
        let writes = if self.shown.is_empty() { 0 } else { libc::POLLOUT };
        let mut master = 0;
        if self.shown.is_empty() {
            master |= libc::POLLIN;
        }
        if !self.typed.is_empty() {
            master |= libc::POLLOUT;
        }
        [
            (if reads { 0 } else { -1 }, libc::POLLIN),
            (self.output.as_raw_fd(), writes),
            (if master == 0 { -1 } else { self.master.as_raw_fd() }, master),
        ]
    }

    /// Copies what poll(2) found ready. False when nobody is left to show anything to.
    pub fn copy(&mut self, input: i16, output: i16, master: i16) -> bool {
        if input != 0 {
            match self.typed.fill(fd::borrow(0)) {
                Ok(0) if self.caller.modes.is_none() => self.input = Input::Ended(10),
                Ok(0) => self.end_input(), // a terminal does not end but hangs up
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(_) => self.end_input(),
            }
        }
        self.pass_end_on();
        if master & libc::POLLOUT != 0 && self.typed.drain(&self.master, usize::MAX).is_err() {
            self.end_input();
        }
        if master & !libc::POLLOUT != 0 && self.shown.is_empty() {
            self.take();
        }
        let shows = match output {
            0 => true,
            _ if self.shown.is_empty() => output & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) == 0,
            _ => self.shown.drain(&self.output, self.most).is_ok(),
        };
        shows && self.slave.is_some()
    }

    /// Reads from the pty; false when it has nothing more for now.
    fn take(&mut self) -> bool {
        match self.shown.fill(&self.master) {
            Ok(n) => {
                self.rest = self.rest.map(|r| r.saturating_sub(n));
                n != 0
            }
            // A program may hang its own terminal up (vhangup(2)) and open it again.
            Err(Errno::EIO) if self.rest.is_none() => {
                self.slave = None;
                self.slave = pty::peer(&self.master).ok();
                false
            }
            Err(_) => false,
        }
    }

    /// Nothing more goes to the program.
    pub fn end_input(&mut self) {
        self.input = Input::Closed;
        self.typed.to = self.typed.from;
    }

    /// How long to wait in poll(2), in milliseconds, -1 for ever.
    pub fn patience(&self) -> i32 {
        if let Input::Ended(pause) = self.input { pause } else { -1 }
    }

    /// The input's end becomes that of the terminal, as script(1) does it: else a shell at its other end would wait for
    /// ever. A terminal forgets it once it was read, or when its modes change, and tells nobody: so it is said again,
    /// ever less often, when nothing is left to read.
    fn pass_end_on(&mut self) {
        let (Input::Ended(pause), Some(slave)) = (&mut self.input, &self.slave) else { return };
        if !self.typed.is_empty() {
            return;
        }
        *pause = 1000.min(*pause * 2);
        let unread = fd::poll([(slave.as_raw_fd(), libc::POLLIN)], 0).is_ok_and(|[r]| r != 0);
        if let (false, Ok(modes)) = (unread, tty::modes(slave)) {
            self.typed.bytes[0] = modes.end_of_file();
            (self.typed.from, self.typed.to) = (0, 1);
        }
    }

    /// Has all that the program wrote been shown? Asked once it has ended. A process that outlives it may write on:
    /// then what the pty held is enough.
    pub fn is_drained(&mut self) -> bool {
        let rest = *self.rest.get_or_insert(REST);
        // The kernel passes on what is under way before it says that there is nothing (n_tty_read).
        self.shown.is_empty() && (rest == 0 || !self.take())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.caller.restore();
        if let Some(guard) = self.guard.take() {
            guard.dismiss();
        }
    }
}

/// Standard output, and how much may be written at once. The open file is shared with others, who must not find it
/// non-blocking: a pipe or terminal is opened anew. Where that is refused, poll(2) promises room for one page.
fn output() -> Sys<(OwnedFd, usize)> {
    const PAGE: usize = 4096;
    let kind = fd::stat(fd::borrow(1))?.st_mode & libc::S_IFMT;
    if kind == libc::S_IFIFO || kind == libc::S_IFCHR {
        let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        if let Ok(own) = fd::open(c"/proc/self/fd/1", flags, 0) {
            return Ok((own, usize::MAX));
        }
    }
    let copy =
        fd::borrow(1).try_clone_to_owned().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    Ok((copy, PAGE))
}

/// A process that gives the caller's terminal its modes back when we are killed, which nothing else can.
struct Guard {
    pid: i32,
    pidfd: OwnedFd,
    /// Its end tells the guard that ours has come.
    _alive: OwnedFd,
}

impl Guard {
    fn new(modes: Modes) -> Sys<Self> {
        let (read, write) = fd::pipe()?;
        match clone::clone(0, None)? {
            clone::Side::Parent { pid, pidfd } => Ok(Self { pid, pidfd, _alive: write }),
            clone::Side::Child => {
                drop(write);
                Self::watch(&modes, &read)
            }
        }
    }

    /// In a session of its own: a kill of our group does not reach it, and to it the terminal is like any other.
    fn watch(modes: &Modes, alive: &OwnedFd) -> ! {
        let _ = ns::new_session(); // a new process leads no group: it cannot fail
        let _ = signal::set_mask(u64::MAX); // it fails only for a bad pointer
        if fd::dup_to(alive.as_raw_fd(), 3).is_ok() && fd::close_range(4, u32::MAX, 0).is_ok() {
            for stream in [1, 2] {
                let _ = fd::dup_to(3, stream); // whoever reads our output must see its end
            }
            let mut byte = [0];
            if fd::read(fd::borrow(3), &mut byte) == Ok(0) {
                let _ = tty::set_modes(fd::borrow(0), modes); // hung up: nobody uses it any more
            }
        }
        clone::exit(0)
    }

    /// The modes are back already; from here on the terminal is someone else's.
    fn dismiss(self) {
        let _ = clone::signal(&self.pidfd, libc::SIGKILL); // gone already is as good
        let _ = clone::wait(self.pid, true); // a caller that ignores SIGCHLD has it collected already
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_descriptor_reaches_a_socket_whose_path_is_too_long_for_an_address() {
        let top = std::env::temp_dir().join(format!("orlop-console-{}", std::process::id()));
        let dir = top.join("d".repeat(200));
        std::fs::create_dir_all(&dir).unwrap();
        let short = top.join("s");
        let listener = UnixListener::bind(&short).unwrap();
        let path = dir.join("n".repeat(200));
        std::fs::rename(&short, &path).unwrap();
        let (read, write) = fd::pipe().unwrap();
        send("--console-socket", &path, "/dev/pts/7", write.as_fd()).unwrap();
        drop(write);
        let (peer, _) = listener.accept().unwrap();
        let mut buf = [0; 64];
        let (n, got) = fd::recv_fd(&peer, &mut buf).unwrap();
        assert_eq!(&buf[..n], b"/dev/pts/7");
        fd::write(got.unwrap(), b"x").unwrap();
        assert_eq!(fd::read(&read, &mut buf), Ok(1));
        assert_eq!(fd::recv_fd(&peer, &mut buf).unwrap().0, 0); // closed after one message
        drop(listener);
        let refused = send("--console-socket", &path, "", read.as_fd()).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::ECONNREFUSED));
        std::fs::remove_dir_all(&top).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_named_with_its_flag() {
        let error = |path: &str| check_socket("--console-socket", Path::new(path)).unwrap_err().to_string();
        assert_eq!(error("/dev/null"), "--console-socket: \"/dev/null\" is not a socket");
        assert_eq!(error("/no/such"), "--console-socket: open \"/no/such\": no such file or directory");
    }
}
