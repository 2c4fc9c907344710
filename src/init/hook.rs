//! createContainer and startContainer hooks, run by init itself (config.md#posix-platform-hooks).

use super::{Done, During, Fault, Init};
use crate::plan::step::InsideHook;
use crate::sys::{Errno, clone, fd, signal};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

impl Init<'_> {
    pub(super) fn hook(&mut self, hook: &InsideHook) -> Done {
        let index = self.hooks_run + usize::from(self.program.is_some());
        self.hooks_run += 1;
        let (out, into) = fd::pipe().during("pipe2")?;
        let state = self.slot(hook.state)?.as_raw_fd();
        match clone::clone(0, None, false).during("clone3")? {
            clone::Side::Child => self.exec_hook(hook, index, state, &into),
            clone::Side::Parent { pid, pidfd } => {
                drop(into);
                self.await_hook(hook, pid, &pidfd, &out)
            }
        }
    }

    /// In the hook's process: a group of its own, the state on standard input, its output to us.
    fn exec_hook(&self, hook: &InsideHook, index: usize, state: i32, into: &OwnedFd) -> ! {
        let ready = clone::new_group()
            .and_then(|()| fd::rewind(fd::borrow(state)))
            .and_then(|()| fd::dup_to(state, 0))
            .and_then(|()| fd::dup_to(into.as_raw_fd(), 1))
            .and_then(|()| fd::dup_to(into.as_raw_fd(), 2))
            .and_then(|()| fd::cloexec_from(3))
            .and_then(|()| signal::reset());
        if let (Ok(()), Some(t)) = (ready, self.tables.get(index)) {
            // One null too many at the end of the environment does no harm.
            clone::exec(&hook.path, &t.argv, &t.envp);
        }
        clone::exit(127)
    }

    /// Waits for the hook alone: a grandchild that keeps the pipe open does not hold us up. At the timeout its whole
    /// group is killed.
    fn await_hook(&mut self, hook: &InsideHook, pid: i32, pidfd: &OwnedFd, out: &OwnedFd) -> Done {
        let end = hook.timeout.map(|ms| Instant::now() + Duration::from_millis(ms));
        let mut output = [0; 1024];
        let mut kept = 0;
        let mut open = libc::POLLIN;
        loop {
            let left = end.map_or(-1, |e| {
                i32::try_from(e.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i32::MAX)
            });
            let watch = [(pidfd.as_raw_fd(), libc::POLLIN), (out.as_raw_fd(), open)];
            let [ended, readable] = match fd::poll(watch, left) {
                Err(Errno::EINTR) => continue,
                other => other.during("poll of the hook")?,
            };
            if readable & libc::POLLIN != 0 {
                let mut more = [0; 1024];
                let n = fd::read(out, &mut more).during("read from the hook")?;
                let take = n.min(output.len() - kept);
                output[kept..kept + take].copy_from_slice(&more[..take]);
                kept += take;
            } else if readable != 0 {
                open = 0;
            }
            if ended != 0 {
                break;
            }
            if left == 0 && end.is_some_and(|e| e <= Instant::now()) {
                let _ = clone::kill_group(pid, libc::SIGKILL); // gone already is as good
                let _ = clone::wait(pid, true);
                self.set_detail(&output[..kept]);
                return Err(Fault { call: "timeout of the hook", errno: Errno::ETIMEDOUT });
            }
        }
        match clone::wait(pid, true).during("waitpid of the hook")? {
            Some(clone::Exit::Code(0)) => Ok(()),
            Some(clone::Exit::Code(127)) if kept == 0 => {
                Err(Fault { call: "execve of the hook", errno: Errno::ENOENT })
            }
            _ => {
                let text = output[..kept].strip_suffix(b"\n").unwrap_or(&output[..kept]);
                self.set_detail(text);
                Err(Fault { call: "the hook failed", errno: Errno::UnknownErrno })
            }
        }
    }
}
