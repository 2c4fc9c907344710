//! resume: thaws a paused container.

use crate::container::{StateRoot, Status};
use crate::error::{Error, Kind, Result};

pub fn resume(root: &StateRoot, id: &str) -> Result<()> {
    let c = root.lock_made(id)?;
    match c.status().0 {
        Status::Paused => c.cgroup().resume(),
        status => {
            // The first words are what runc says, which engines look for.
            let what = format!("container not paused: it is {}", status.as_str());
            Err(Error::new(Kind::WrongState, format!("container {id:?}"), what))
        }
    }
}
