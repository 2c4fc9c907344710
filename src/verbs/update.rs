//! update: changes the limits of a container.

use crate::cli::Update;
use crate::container::StateRoot;
use crate::error::{Error, Result};

pub fn update(root: &StateRoot, args: &Update) -> Result<()> {
    let _ = (root, args);
    Err(Error::unsupported("", "is not built yet"))
}
