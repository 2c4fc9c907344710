//! create: everything but the program (runtime.md#create).

use super::make::{self, Order};
use crate::container::StateRoot;
use crate::error::Result;

/// Init is left to whoever reaps for us: it waits at the gate until `start`.
pub fn create(root: &StateRoot, order: &Order) -> Result<()> {
    make::make(root, &Order { gate: true, ..order.clone() }, &mut |_| Ok(()), &mut |_| Ok(())).map(drop)
}
