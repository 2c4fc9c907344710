//! exec: another program in a container.

use crate::cli::Exec;
use crate::container::StateRoot;
use crate::error::{Error, Result};

/// The exit code: the program's, or 0 when detached.
pub fn exec(root: &StateRoot, args: &Exec) -> Result<i32> {
    let _ = (root, args);
    Err(Error::unsupported("", "is not built yet"))
}
