//! A client of D-Bus: one call at a time, without threads, since a thread would be lost in every clone.

use super::wire::{FIXED, Kind, Message};
use crate::error::{Error, Kind as Cause, Result};
use crate::plan::cgroup::systemd::value::Value;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::sys::time::TimeVal;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

pub const AT: &str = "--systemd-cgroup";
/// How long anything may take; libdbus waits as long.
pub const PATIENCE: Duration = Duration::from_secs(25);
const DAEMON: &str = "org.freedesktop.DBus";

/// A connection.
#[derive(Debug)]
pub struct Bus {
    socket: UnixStream,
    /// What it is connected to, for errors.
    shown: String,
    serial: u32,
    patience: Duration,
    /// Signals that came while something else was waited for.
    signals: VecDeque<Message>,
}

/// Why a call has no result.
#[derive(Debug)]
pub enum Refusal {
    /// The other side's word: the error's name, and its text.
    Answer { name: String, text: String },
    /// There is no other side, or it does not answer.
    Bus(Error),
}

impl From<Error> for Refusal {
    fn from(e: Error) -> Self {
        Refusal::Bus(e)
    }
}

impl Bus {
    /// Connects to the first of the addresses that answers; `on_bus`: it is a bus, not a peer alone.
    pub fn connect(addresses: &str, on_bus: bool, patience: Duration) -> Result<Bus> {
        let mut failed = Error::invalid(AT, format!("{addresses:?} has no address of a unix socket"));
        for address in addresses.split(';').filter(|a| !a.is_empty()) {
            let Some((shown, address)) = parse(address) else { continue };
            match Self::open(shown, &address, on_bus, patience) {
                Ok(bus) => return Ok(bus),
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    fn open(shown: String, address: &UnixAddr, on_bus: bool, patience: Duration) -> Result<Bus> {
        let failed = |what: &str, e: nix::Error| Error::os(AT, format!("{what} {shown:?}"), e as i32);
        let (kind, flags) = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
        let fd = socket(AddressFamily::Unix, kind, flags, None).map_err(|e| failed("socket for", e))?;
        // connect(2) itself waits while the other side's queue is full, and as long as a send may take.
        let limit = TimeVal::new(patience.as_secs() as i64, i64::from(patience.subsec_micros()));
        nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::SendTimeout, &limit)
            .map_err(|e| failed("setsockopt for", e))?;
        connect(fd.as_raw_fd(), address).map_err(|e| failed("connect to the bus", e))?;
        let socket = UnixStream::from(fd);
        let mut bus = Bus { socket, shown, serial: 0, patience, signals: VecDeque::new() };
        bus.authenticate()?;
        if on_bus {
            bus.call(DAEMON, "/org/freedesktop/DBus", DAEMON, "Hello", vec![])
                .map_err(|e| bus.explain(e, "Hello"))?;
        }
        Ok(bus)
    }

    /// SASL EXTERNAL without a name: the other side asks the kernel who we are, which is right in a user namespace,
    /// too. All at once, as systemd's own programs do: its socket does not see a call that comes in one piece with
    /// `BEGIN`.
    fn authenticate(&mut self) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let mut said = self.line(deadline)?;
        if said == "DATA" {
            said = self.line(deadline)?;
        }
        if !said.starts_with("OK ") {
            let what = format!("{:?} does not let us in: {said:?}", self.shown);
            return Err(Error::new(Cause::Os(libc::EACCES), AT, what));
        }
        Ok(())
    }

    /// One byte at a time: what follows is no line.
    fn line(&mut self, deadline: Instant) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.receive(&mut byte, deadline)?;
            line.push(byte[0]);
            if line.len() > 4096 {
                return Err(self.nonsense());
            }
        }
        Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned())
    }

    fn nonsense(&self) -> Error {
        Error::new(Cause::Os(libc::EPROTO), AT, format!("{:?} does not speak D-Bus", self.shown))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes).map_err(|e| self.lost("write to", &e))
    }

    fn lost(&self, what: &str, e: &std::io::Error) -> Error {
        let errno = match e.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
                return Error::os(
                    AT,
                    format!("{:?} did not answer within {} s", self.shown, self.patience.as_secs()),
                    libc::ETIMEDOUT,
                );
            }
            std::io::ErrorKind::UnexpectedEof => libc::ECONNRESET,
            _ => e.raw_os_error().unwrap_or(libc::EIO),
        };
        Error::os(AT, format!("{what} {:?}", self.shown), errno)
    }

    fn receive(&mut self, buf: &mut [u8], deadline: Instant) -> Result<()> {
        let mut at = 0;
        while at < buf.len() {
            // Here too: what always has something to say would never let a read time out.
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.lost("read from", &std::io::ErrorKind::TimedOut.into()));
            }
            let left = left.max(Duration::from_millis(1)); // the kernel's clock may round less to none, which is forever
            let read =
                self.socket.set_read_timeout(Some(left)).and_then(|()| self.socket.read(&mut buf[at..]));
            match read {
                Ok(0) => return Err(self.lost("read from", &std::io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => at += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.lost("read from", &e)),
            }
        }
        Ok(())
    }

    fn next(&mut self, deadline: Instant) -> Result<Message> {
        let mut bytes = vec![0; FIXED];
        self.receive(&mut bytes, deadline)?;
        let length = Message::length(&bytes).ok_or_else(|| self.nonsense())?;
        bytes.resize(length.max(FIXED), 0);
        self.receive(&mut bytes[FIXED..], deadline)?;
        Message::from_bytes(&bytes).ok_or_else(|| self.nonsense())
    }

    /// Calls a method and waits for its answer.
    pub fn call(
        &mut self,
        destination: &str,
        path: &str,
        interface: &str,
        member: &str,
        body: Vec<Value>,
    ) -> Result<Vec<Value>, Refusal> {
        self.serial += 1;
        let call = Message {
            serial: self.serial,
            path: path.into(),
            interface: interface.into(),
            member: member.into(),
            destination: destination.into(),
            body,
            ..Message::default()
        };
        self.send(&call.to_bytes())?;
        let deadline = Instant::now() + self.patience;
        loop {
            let m = self.next(deadline)?;
            match m.kind {
                Kind::Return if m.reply_serial == self.serial => return Ok(m.body),
                Kind::Error if m.reply_serial == self.serial => {
                    let text = m.body.into_iter().next().and_then(Value::into_text);
                    return Err(Refusal::Answer { name: m.member, text: text.unwrap_or_default() });
                }
                Kind::Signal => self.signals.push_back(m),
                _ => {}
            }
        }
    }

    /// Asks the bus for signals that match the rule.
    pub fn listen(&mut self, rule: &str) -> Result<(), Refusal> {
        let rule = vec![Value::Str(rule.into())];
        self.call(DAEMON, "/org/freedesktop/DBus", DAEMON, "AddMatch", rule).map(drop)
    }

    /// Who has a name now; empty is nobody.
    pub fn name_owner(&mut self, name: &str) -> Result<String> {
        let name = vec![Value::Str(name.into())];
        match self.call(DAEMON, "/org/freedesktop/DBus", DAEMON, "GetNameOwner", name) {
            Ok(answer) => answer.into_iter().next().and_then(Value::into_text).ok_or_else(|| self.nonsense()),
            Err(Refusal::Answer { .. }) => Ok(String::new()),
            Err(Refusal::Bus(e)) => Err(e),
        }
    }

    /// Waits for a signal that `is_it` knows.
    pub fn signal<T>(&mut self, mut is_it: impl FnMut(&Message) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + self.patience;
        loop {
            let m = match self.signals.pop_front() {
                Some(m) => m,
                None => self.next(deadline)?,
            };
            if let Some(found) = Some(&m).filter(|m| m.kind == Kind::Signal).and_then(&mut is_it) {
                return Ok(found);
            }
        }
    }

    /// A refusal as an error: what was asked, and the answer.
    pub fn explain(&self, refusal: Refusal, what: &str) -> Error {
        match refusal {
            Refusal::Bus(e) => e,
            Refusal::Answer { name, text } => {
                let said = if text.is_empty() { name } else { text };
                Error::new(Cause::WrongState, AT, format!("{what}: {said}"))
            }
        }
    }
}

/// `unix:path=/run/dbus/system_bus_socket`, or `abstract=`; other transports are not systemd's.
fn parse(address: &str) -> Option<(String, UnixAddr)> {
    let pairs = address.strip_prefix("unix:")?.split(',');
    let (key, value) =
        pairs.filter_map(|p| p.split_once('=')).find(|(k, _)| ["path", "abstract"].contains(k))?;
    let value = unescape(value)?;
    let shown = String::from_utf8_lossy(&value).into_owned();
    match key {
        "path" => Some((shown, UnixAddr::new(value.as_slice()).ok()?)),
        _ => Some((format!("@{shown}"), UnixAddr::new_abstract(&value).ok()?)),
    }
}

/// `%` and two hexadecimal digits stand for a byte.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let hex = |b: u8| char::from(b).to_digit(16);
        out.push(match b {
            b'%' => (hex(bytes.next()?)? * 16 + hex(bytes.next()?)?) as u8,
            b => b,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn addresses_of_unix_sockets() {
        for (address, shown) in [
            ("unix:path=/run/bus", Some("/run/bus")),
            ("unix:path=/run/bus,guid=1234", Some("/run/bus")),
            ("unix:guid=1234,path=/run/a%20b%2c", Some("/run/a b,")),
            ("unix:abstract=/tmp/x", Some("@/tmp/x")),
            ("unix:tmpdir=/tmp", None),
            ("unix:path=/a%2", None),
            ("tcp:host=localhost,port=1", None),
            ("", None),
        ] {
            assert_eq!(parse(address).map(|a| a.0).as_deref(), shown, "{address}");
        }
    }

    /// Of a server that answers nothing, and never stops to talk.
    #[test]
    fn endless_signals_do_not_keep_a_call_waiting() {
        let path = std::env::temp_dir().join(format!("orlop-bus-flood-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let mut talker = listener.accept().unwrap().0;
            let (path, interface, member) = ("/".into(), "a.b".into(), "C".into());
            let signal =
                Message { kind: Kind::Signal, serial: 1, path, interface, member, ..Message::default() };
            let many = signal.to_bytes().repeat(64);
            talker.write_all(b"OK 1234\r\n").unwrap();
            // Its own end is for a client that never does.
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(20) && talker.write_all(&many).is_ok() {}
        });
        let began = Instant::now();
        let address = format!("unix:path={}", path.display());
        let e = Bus::connect(&address, true, Duration::from_millis(300)).unwrap_err();
        assert_eq!(e.errno(), Some(libc::ETIMEDOUT), "{e}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        drop(server.join());
        let _ = std::fs::remove_file(&path);
    }

    /// Of a queue that is full, of a server that is silent, of one that never ends its answer.
    #[test]
    fn nothing_is_waited_for_longer_than_patience() {
        let path = std::env::temp_dir().join(format!("orlop-bus-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let address = format!("unix:path={}", path.display());
        let patience = Duration::from_millis(150);
        let late = |when: &str| {
            let began = Instant::now();
            let e = Bus::connect(&address, true, patience).unwrap_err();
            assert!(began.elapsed() < Duration::from_secs(3), "{when}: {:?}", began.elapsed());
            assert!([Some(libc::ETIMEDOUT), Some(libc::EAGAIN)].contains(&e.errno()), "{when}: {e}");
            e.to_string()
        };
        let silent = late("silent");
        assert!(silent.contains("did not answer within"), "{silent}");
        let server = std::thread::spawn(move || {
            let (mut silent, mut slow) = (listener.accept().unwrap().0, listener.accept().unwrap().0);
            let _ = silent.read(&mut [0; 64]);
            while slow.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
            listener
        });
        late("drop by drop");
        drop(server.join());
        let _ = std::fs::remove_file(&path);
    }
}
