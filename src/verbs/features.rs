//! stand-in
use crate::error::Result;
pub fn run() -> Result<()> {
    Ok(())
}
