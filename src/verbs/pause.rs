//! pause: freezes a container.

use crate::container::{StateRoot, Status};
use crate::error::{Error, Kind, Result};

pub fn pause(root: &StateRoot, id: &str) -> Result<()> {
    let c = root.lock_made(id)?;
    let at = format!("container {id:?}");
    match c.status().0 {
        Status::Created | Status::Running => {}
        status => {
            // The first words are what runc says, which engines look for.
            let what = format!("container not running: cannot pause one that is {}", status.as_str());
            return Err(Error::new(Kind::WrongState, at, what));
        }
    }
    match c.cgroup().pause()? {
        Some(()) => Ok(()),
        None => Err(Error::unsupported(at, "cannot be paused: it has no cgroup with a freezer")),
    }
}
