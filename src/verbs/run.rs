//! run: create and start in one, and in the foreground wait and delete.

use super::make::{self, Made, Order};
use crate::console::Foreground;
use crate::container::StateRoot;
use crate::error::Result;
use crate::hooks;
use std::os::fd::AsFd;

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
    let mut made = make::make(root, &order, &mut prepare)?;
    if let Err(e) = begin(&mut made) {
        made.child.kill();
        if let Err(e) = make::remove(&made.container) {
            tracing::warn!("{e}");
        }
        return Err(e);
    }
    let Some(foreground) = foreground else { return Ok(0) };
    let Made { mut container, mut child, .. } = made;
    container.unlock(); // others may look while it runs
    let code = foreground.wait(child.process.pid, child.pidfd.as_fd(), child.master.take())?;
    if !stay.keep {
        super::delete::after_exit(root, &container.record.id)?;
    }
    Ok(code)
}

/// Waits for the program, then runs the poststart hooks; a hook that fails ends the container (since 1.3.0).
fn begin(made: &mut Made) -> Result<()> {
    made.child.await_exec(&made.plan)?;
    let hooks = &made.plan.hooks.poststart;
    if hooks.is_empty() {
        return Ok(());
    }
    let state = made.container.state("running", made.child.process.pid).to_string();
    hooks::run("poststart", hooks, state.as_bytes())
}
