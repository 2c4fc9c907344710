//! run: create and start in one, and in the foreground wait and delete.

use super::make::{self, Made, Order};
use crate::container::{Container, Process, StateRoot};
use crate::error::Result;
use crate::foreground::{Ends, Foreground};
use crate::hooks;
use crate::spawn::Member;
use crate::sys::clone;
use std::os::fd::{AsFd, OwnedFd};

/// What `run` is asked beside what `create` is.
pub struct Stay {
    pub detach: bool,
    /// Leave state and cgroup when the program ended.
    pub keep: bool,
    pub subreaper: bool,
}

/// The exit code: the program's, or 0 when detached.
pub fn run(root: &StateRoot, order: &Order, stay: &Stay) -> Result<i32> {
    let mut foreground = None;
    let mut prepare = |plan: &crate::plan::Plan| {
        if !stay.detach {
            foreground = Some(Foreground::prepare(plan.terminal, stay.subreaper)?);
        }
        Ok(())
    };
    let order = Order { foreground: !stay.detach, ..order.clone() };
    let made = make::make(root, &order, &mut prepare, &mut begin)?;
    let Made { mut container, mut child, ready, plan } = made;
    drop(plan); // while the program runs
    let code = match foreground {
        None => {
            container.unlock();
            if let Some(ready) = ready {
                ready.wait(child.process.pid, Some(child.pidfd.as_fd()));
            }
            Ok(0)
        }
        Some(foreground) => {
            let ends = Ends { master: child.master.take(), ready };
            wait(foreground, container, child.process, &child.pidfd, ends, stay.keep)
        }
    };
    std::mem::forget(child); // as in `wait`
    code
}

/// Waits for the program in the foreground, and deletes the container unless it is to be kept.
pub fn wait(
    foreground: Foreground,
    mut container: Container,
    process: Process,
    pidfd: &OwnedFd,
    ends: Ends,
    keep: bool,
) -> Result<i32> {
    container.unlock(); // others may look while it runs
    let code = foreground.wait(process.pid, pidfd.as_fd(), ends);
    if code.is_err() {
        let _ = clone::signal(pidfd, libc::SIGKILL); // gone already is as good
        let _ = clone::wait(process.pid, true); // only its zombie is collected
    }
    if code.is_err() || !keep {
        if let Err(e) = make::remove_ours(&mut container, process) {
            tracing::error!("{e}"); // the program's status matters more
        }
    }
    std::mem::forget(container); // the end of our process, which is near, closes what is open by one call
    code
}

/// Waits for the program, then runs the poststart hooks; a hook that fails ends the container (since 1.3.0).
fn begin(made: &mut Made) -> Result<()> {
    made.child.await_exec(&made.plan, Member { container: &made.container, init: true })?;
    let hooks = &made.plan.hooks.poststart;
    if hooks.is_empty() {
        return Ok(());
    }
    hooks::after_start(&mut made.container, made.child.process.pid, hooks)
}
