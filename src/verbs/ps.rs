//! ps: the processes of a container.

use crate::container::StateRoot;
use crate::error::{Error, Result};

pub fn ps(root: &StateRoot, args: &liboci_cli::Ps) -> Result<()> {
    let _ = (root, args);
    Err(Error::unsupported("", "is not built yet"))
}
