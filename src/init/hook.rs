//! Hooks (config.md#posix-platform-hooks): a hook's process and the wait for it, which the runtime shares with init;
//! and createContainer and startContainer, run by init itself.

use super::{Done, During, Fault, Init};
use crate::plan::step::InsideHook;
use crate::sys::{Errno, Sys, clone, decimal, fd, path, signal};
use std::ffi::{CStr, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// A hook, ready for execve(2).
pub struct Job<'a> {
    pub path: &'a CStr,
    pub argv: &'a [*const c_char],
    pub envp: &'a [*const c_char],
    /// A file with the state, read from its start.
    pub state: BorrowedFd<'a>,
    /// Files for standard output and error; without, we read both.
    pub output: [Option<BorrowedFd<'a>>; 2],
    pub cwd: Option<&'a CStr>,
    /// Milliseconds.
    pub timeout: Option<u64>,
    /// pidfd of the process without which the hook has no purpose.
    pub beside: Option<BorrowedFd<'a>>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It never ran.
    NoExec(Errno),
    Exit(clone::Exit),
    Timeout,
    /// Killed, since the process beside it ended.
    Alone,
}

/// Runs a hook and waits for it alone: a grandchild that keeps its output open does not hold us up, but at the timeout
/// its whole group is killed. The start of what it printed goes to `output`, as many bytes as the answer says.
pub fn run(job: &Job, output: &mut [u8]) -> Done<(End, usize)> {
    let (out, into) = fd::pipe().during("pipe2")?;
    let (failed, fail) = fd::pipe().during("pipe2")?;
    match clone::clone(0, None).during("clone3")? {
        clone::Side::Child => {
            let errno = become_hook(job, &into, &fail).unwrap_or_else(|e| e);
            let _ = fd::write(&fail, &(errno as i32).to_ne_bytes()); // the status is left to tell
            clone::exit(127)
        }
        clone::Side::Parent { pid, pidfd } => {
            drop((into, fail));
            let mut errno = [0; 4];
            let no_exec = fd::read(&failed, &mut errno).is_ok_and(|n| n == 4); // else execve closed it
            let (end, len) = attend(job, pid, &pidfd, &out, output)?;
            let errno = Errno::from_raw(i32::from_ne_bytes(errno));
            Ok((if no_exec { End::NoExec(errno) } else { end }, len))
        }
    }
}

/// In the hook's process: a group of its own, the state on standard input, its output to us, nothing else open but,
/// until execve, what `fail` goes by.
fn become_hook(job: &Job, into: &OwnedFd, fail: &OwnedFd) -> Sys<Errno> {
    clone::new_group()?;
    fd::rewind(job.state)?;
    fd::dup_to(job.state.as_raw_fd(), 0)?;
    for (file, stream) in job.output.iter().zip(1..) {
        fd::dup_to(file.unwrap_or(into.as_fd()).as_raw_fd(), stream)?;
    }
    let fail = fail.as_raw_fd() as u32;
    if fail > 3 {
        fd::close_range(3, fail - 1, 0)?;
    }
    fd::close_range(3.max(fail + 1), u32::MAX, 0)?;
    signal::reset(signal::bit(libc::SIGPIPE))?;
    if let Some(dir) = job.cwd {
        let _ = path::chdir(dir); // it may be gone, or out of a user namespace's reach: then where we are
    }
    Ok(clone::exec(job.path, job.argv, job.envp))
}

fn attend(job: &Job, pid: i32, pidfd: &OwnedFd, out: &OwnedFd, output: &mut [u8]) -> Done<(End, usize)> {
    let end = job.timeout.map(|ms| Instant::now() + Duration::from_millis(ms));
    let mut len = 0;
    let mut open = libc::POLLIN;
    let mut spare = 64; // reads after its end: a grandchild may print for ever
    let mut ended = false;
    loop {
        let left = match end {
            _ if ended => 0,
            Some(e) => {
                i32::try_from(e.saturating_duration_since(Instant::now()).as_millis() + 1).unwrap_or(i32::MAX)
            }
            None => -1,
        };
        let beside = job.beside.map_or(-1, |b| b.as_raw_fd());
        let watch = [(pidfd.as_raw_fd(), libc::POLLIN), (out.as_raw_fd(), open), (beside, libc::POLLIN)];
        let [gone, readable, alone] = match fd::poll(watch, left) {
            Err(Errno::EINTR) => continue,
            other => other.during("poll of the hook")?,
        };
        ended |= gone != 0;
        if readable & libc::POLLIN != 0 {
            let mut more = [0; 1024];
            let n = fd::read(out, &mut more).during("read from the hook")?.min(output.len() - len);
            output[len..len + n].copy_from_slice(&more[..n]);
            len += n;
        } else if readable != 0 {
            open = 0;
        }
        spare -= i32::from(ended);
        if ended && (readable & libc::POLLIN == 0 || spare == 0) {
            break;
        }
        let late = end.is_some_and(|e| e <= Instant::now());
        if !ended && (late || alone != 0) {
            let _ = clone::kill_group(pid, libc::SIGKILL); // gone already is as good
            let _ = clone::wait(pid, true);
            return Ok((if late { End::Timeout } else { End::Alone }, len));
        }
    }
    let exit = clone::wait(pid, true).during("waitpid of the hook")?;
    Ok((End::Exit(exit.unwrap_or(clone::Exit::Code(0))), len))
}

impl Init<'_> {
    pub(super) fn hook(&mut self, hook: &InsideHook) -> Done {
        let index = self.hooks_run + usize::from(self.program.is_some());
        self.hooks_run += 1;
        let mut output = [0; 900];
        let (end, len) = {
            let tables = self.tables.get(index).ok_or(Fault { call: "execve", errno: Errno::EINVAL })?;
            let [out, err] = hook.output;
            let file = |slot: Option<usize>| slot.map(|s| self.slot(s)).transpose();
            let job = Job {
                path: &hook.path,
                argv: &tables.argv,
                envp: &tables.envp, // one null too many at its end does no harm
                state: self.slot(hook.state)?,
                output: [file(out)?, file(err)?],
                cwd: hook.cwd.as_deref(),
                timeout: hook.timeout,
                beside: None,
            };
            run(&job, &mut output)?
        };
        let mut number = [0; 10];
        let (words, number, errno): (&[u8], &[u8], _) = match end {
            End::Exit(clone::Exit::Code(0)) => return Ok(()),
            End::Exit(clone::Exit::Code(c)) => {
                (b"exited with status ", decimal(c.unsigned_abs(), &mut number), Errno::UnknownErrno)
            }
            End::Exit(clone::Exit::Signal(s)) => {
                (b"killed by signal ", decimal(s.unsigned_abs(), &mut number), Errno::UnknownErrno)
            }
            End::Timeout | End::Alone => (b"timed out", b"", Errno::UnknownErrno),
            End::NoExec(errno) => (b"execve", b"", errno),
        };
        let colon: &[u8] = if len > 0 { b": " } else { b"" };
        self.set_detail(&[b"\"", hook.path.to_bytes(), b"\": ", words, number, colon, &output[..len]]);
        Err(Fault { call: "hook", errno })
    }
}
