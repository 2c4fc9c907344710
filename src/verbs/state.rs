//! state: runtime.md#state, with the properties that runc adds.

use super::list::{State, unwritable};
use crate::container::StateRoot;
use crate::error::Result;

pub fn state(root: &StateRoot, id: &str) -> Result<()> {
    let c = root.load(id)?;
    super::print(&(serde_json::to_string_pretty(&State::of(&c)).map_err(unwritable)? + "\n"))
}
