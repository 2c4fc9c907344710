//! resume: thaws a paused container.

use crate::container::StateRoot;
use crate::error::{Error, Result};

pub fn resume(root: &StateRoot, id: &str) -> Result<()> {
    let _ = (root, id);
    Err(Error::unsupported("", "is not built yet"))
}
