//! checkpoint: a running container to files.

use crate::cli::Checkpoint;
use crate::container::StateRoot;
use crate::error::{Error, Result};

pub fn checkpoint(root: &StateRoot, args: &Checkpoint) -> Result<()> {
    let _ = (root, args);
    Err(Error::unsupported("", "is not built yet"))
}
