//! checkpoint: a running container to files.

use super::make;
use crate::cli::Checkpoint;
use crate::container::{StateRoot, Status};
use crate::criu;
use crate::error::{Result, os};
use crate::sys::signal;

/// As with runc, a container that was told not to go on is deleted: what is left of it is the checkpoint.
pub fn checkpoint(root: &StateRoot, args: &Checkpoint) -> Result<()> {
    signal::set_default(libc::SIGCHLD).map_err(os("process", "sigaction"))?; // an ignored one keeps no status of criu
    let c = root.lock_made(&args.container_id)?;
    let (status, pid) = c.status();
    if !matches!(status, Status::Running | Status::Paused) {
        return Err(super::not_running(&c, status, "checkpoint"));
    }
    criu::dump(&c, pid, args)?;
    if args.leave_running || args.pre_dump { Ok(()) } else { make::remove(&c, true) }
}
