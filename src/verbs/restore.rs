//! restore: a container from files.

use crate::cli::{Global, Restore};
use crate::container::StateRoot;
use crate::error::{Error, Result};

/// The exit code: the program's, or 0 when detached.
pub fn restore(root: &StateRoot, args: &Restore, global: &Global) -> Result<i32> {
    let _ = (root, args, global);
    Err(Error::unsupported("", "is not built yet"))
}
