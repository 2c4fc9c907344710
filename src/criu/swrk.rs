//! One criu at work for one request: `criu swrk FD`, which answers over a socket and asks in between (criu(8), RPC).

use super::rpc::{Features, Kind, Notify, Opts, Request, Response, Version};
use crate::error::{Error, Kind as What, Result, os};
use crate::sys::{Errno, fd};
use prost::Message;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Older ones lack what we ask for without looking: external pid namespaces (3.15), a changed LSM profile (3.16).
const OLDEST: (i32, i32) = (3, 16);
/// Larger than any answer.
const ANSWER: usize = 1 << 16;
/// As many errors of the log are told.
const TOLD: usize = 4;

/// Whose standard streams criu has: on a restore it hands its own on to the container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Streams {
    Ours,
    None,
}

/// What criu says in between: the action, with a descriptor for `orphan-pts-master`.
pub type Notified<'a> = &'a mut dyn FnMut(&Notify, Option<OwnedFd>) -> Result<()>;

/// A criu that waits for its request.
pub struct Swrk {
    child: Child,
    socket: OwnedFd,
}

impl Swrk {
    /// `keep`: descriptors of ours that criu needs under the same number.
    pub fn spawn(streams: Streams, keep: &[&OwnedFd]) -> Result<Self> {
        let call = |what: &'static str| os("criu", what);
        let (ours, theirs) = fd::socketpair().map_err(call("socketpair"))?;
        // What our caller leaked is neither criu's nor the container's.
        fd::cloexec_from(3).map_err(call("close_range"))?;
        for kept in keep.iter().copied().chain([&theirs]) {
            fd::dup_to(kept.as_raw_fd(), kept.as_raw_fd()).map_err(call("fcntl F_SETFD"))?;
        }
        let mut command = Command::new("criu");
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        if streams == Streams::None {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        let child = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::new(What::NotFound, "criu", "checkpoints need the program criu, which is not in $PATH")
                    .hint("install the package criu, 3.16 or newer")
            }
            _ => Error::io("criu", "execve", &e),
        })?;
        Ok(Self { child, socket: ours })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends the request and serves criu's questions up to its answer.
    pub fn call(&mut self, kind: Kind, opts: Option<Opts>, notified: Notified) -> Result<Response> {
        self.ask(&Request { kind: kind as i32, opts, ..Request::default() }, notified)
    }

    fn ask(&mut self, request: &Request, notified: Notified) -> Result<Response> {
        self.send(request)?;
        loop {
            let (response, fd) = self.receive()?;
            match response.notify.as_ref().filter(|_| response.kind() == Kind::Notify) {
                Some(notify) => {
                    let done = notified(notify, fd);
                    let request = Request {
                        kind: Kind::Notify as i32,
                        notify_success: Some(done.is_ok()),
                        ..Request::default()
                    };
                    // Ours is the error to tell; criu undoes its work when it hears of it.
                    let sent = self.send(&request);
                    if let Err(e) = done {
                        let _ = self.receive(); // criu's answer says only that we refused
                        return Err(e);
                    }
                    sent?;
                }
                None => return Ok(response),
            }
        }
    }

    /// It has nothing more to do.
    pub fn kill(&mut self) {
        let _ = self.child.kill(); // gone already is as good
    }

    /// Lets criu end, and collects it.
    pub fn end(self) {
        let Self { mut child, socket } = self;
        drop(socket);
        let _ = child.wait(); // its answer was the result
    }

    fn send(&self, request: &Request) -> Result<()> {
        match fd::write(&self.socket, &request.encode_to_vec()) {
            Ok(_) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()), // that it ended is told by what it does not answer
            Err(e) => Err(Error::os("criu", "send the request", e as i32)),
        }
    }

    fn receive(&mut self) -> Result<(Response, Option<OwnedFd>)> {
        let mut buf = vec![0; ANSWER];
        let (n, fd) = match fd::recv_fd(&self.socket, &mut buf) {
            Err(Errno::ECONNRESET) => (0, None),
            other => other.map_err(os("criu", "recvmsg"))?,
        };
        if n == 0 {
            let how = self.child.wait().map(|s| s.to_string()).unwrap_or_default();
            return Err(Error::invalid("criu", format!("ended without an answer: {how}"))
                .hint("`criu check` tells whether it works on this kernel"));
        }
        let response = Response::decode(&buf[..n])
            .map_err(|e| Error::invalid("criu", format!("its answer cannot be read: {e}")))?;
        Ok((response, fd))
    }
}

/// criu is there, starts on this kernel, and is new enough.
pub fn check() -> Result<Version> {
    let mut swrk = Swrk::spawn(Streams::None, &[])?;
    let answer = swrk.call(Kind::Version, None, &mut |_, _| Ok(()))?;
    swrk.end();
    let version = answer.version.filter(|_| answer.success).unwrap_or_default();
    if (version.major, version.minor) < OLDEST {
        let what = format!(
            "version {}.{} is too old: {}.{} is the oldest that does",
            version.major, version.minor, OLDEST.0, OLDEST.1
        );
        return Err(Error::unsupported("criu", what).hint("install a newer package criu"));
    }
    Ok(version)
}

/// What criu can do here, of what it is asked for.
pub fn features(asked: Features) -> Result<Features> {
    let mut swrk = Swrk::spawn(Streams::None, &[])?;
    let request = Request { kind: Kind::FeatureCheck as i32, features: Some(asked), ..Request::default() };
    let answer = swrk.ask(&request, &mut |_, _| Ok(()))?;
    swrk.end();
    Ok(answer.features.unwrap_or_default())
}

/// The error of a request that criu refused: what its log names as errors, and where the log is.
pub fn refused(what: &str, answer: &Response, version: &Version, log: &Path) -> Error {
    let text = fs::read(log).unwrap_or_default();
    let mut told = errors(&String::from_utf8_lossy(&text));
    if told.is_empty() {
        told = answer.message.clone().unwrap_or_else(|| "no reason given".into());
    }
    let version = format!("{}.{}.{}", version.major, version.minor, version.sublevel);
    Error::invalid(format!("criu {version}"), format!("{what}: {told}"))
        .hint(format!("the whole log is {:?}", log.to_string_lossy()))
}

/// As [`refused`], for a criu that ended without an answer; errors of ours stay as they are.
pub fn explained(e: Error, version: &Version, log: &Path) -> Error {
    if e.at == "criu" { refused(&e.what, &Response::default(), version, log) } else { e }
}

/// The last errors of a log, without their times: `(00.012345) Error (criu/mount.c:1091): mnt: ...`.
fn errors(log: &str) -> String {
    let lines = log.lines().filter_map(|l| {
        let line = l.split_once(") ").filter(|(time, _)| time.starts_with('(')).map_or(l, |(_, rest)| rest);
        let pid = |(n, rest): (&str, &'_ str)| {
            n.trim().parse::<u32>().is_ok().then(|| rest.trim_start().to_string())
        };
        let line = line.split_once(": ").and_then(pid).unwrap_or_else(|| line.trim_start().to_string());
        line.starts_with("Error ").then_some(line)
    });
    let lines: Vec<_> = lines.collect();
    lines[lines.len().saturating_sub(TOLD)..].join("; ")
}

/// A directory of the command line, opened for criu; made if it is not there.
pub fn directory(flag: &str, path: &Path, parents: bool) -> Result<(OwnedFd, PathBuf)> {
    use std::os::unix::fs::DirBuilderExt;
    let call = |what: &str| format!("{what} {:?}", path.to_string_lossy());
    match fs::DirBuilder::new().mode(0o700).recursive(parents).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io(flag, call("mkdir"), &e));
        }
        _ => {}
    }
    open_directory(flag, path)
}

/// As [`directory`], of one that must be there.
pub fn open_directory(flag: &str, path: &Path) -> Result<(OwnedFd, PathBuf)> {
    let call = |what: &str| format!("{what} {:?}", path.to_string_lossy());
    let absolute = fs::canonicalize(path).map_err(|e| Error::io(flag, call("open"), &e))?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let dir = fd::open(&crate::plan::cpath(flag, &absolute)?, flags, 0).map_err(os(flag, call("open")))?;
    Ok((dir, absolute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_tells_its_last_errors() {
        let log = "(00.000100) Version: 4.1\n\
                   (00.010500) Error (criu/a.c:1): first\n\
                   (00.010600)      1: Error (criu/b.c:2): of a process: x\n\
                   (00.010700) mnt: Error in passing is none\n\
                   (00.010800) Error (criu/c.c:3): last";
        let want = "Error (criu/a.c:1): first; Error (criu/b.c:2): of a process: x; Error (criu/c.c:3): last";
        assert_eq!(errors(log), want);
        let many: String = (0..9).map(|n| format!("(0.1) Error (x): {n}\n")).collect();
        assert_eq!(errors(&many).matches("Error").count(), TOLD);
        assert_eq!(errors(""), "");
    }
}
