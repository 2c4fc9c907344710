//! pause: freezes a container.

use crate::container::{StateRoot, Status};
use crate::error::{Error, Result};

pub fn pause(root: &StateRoot, id: &str) -> Result<()> {
    let c = root.lock_made(id)?;
    match c.status().0 {
        Status::Created | Status::Running => {}
        status => return Err(super::not_running(&c, status, "pause")),
    }
    match c.cgroup().pause()? {
        true => Ok(()),
        false => {
            let what = "cannot be paused: it has no cgroup with a freezer";
            Err(Error::unsupported(format!("container {id:?}"), what))
        }
    }
}
