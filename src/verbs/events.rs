//! events: what a container uses, and when it runs out of memory.

use crate::cli::Events;
use crate::container::StateRoot;
use crate::error::{Error, Result};

pub fn events(root: &StateRoot, args: &Events) -> Result<()> {
    let _ = (root, args);
    Err(Error::unsupported("", "is not built yet"))
}
