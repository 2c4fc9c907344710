//! state: runtime.md#state, with the fields that runc adds.

use crate::container::StateRoot;
use crate::error::{Error, Result};
use std::io::Write;

pub fn state(root: &StateRoot, id: &str) -> Result<()> {
    let c = root.load(id)?;
    let (status, pid) = c.status();
    let mut value = c.state(status.as_str(), pid);
    value["rootfs"] = serde_json::json!(c.record.rootfs);
    value["created"] = serde_json::json!(c.record.created);
    value["owner"] = serde_json::json!(super::list::owner_name(c.record.owner));
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    writeln!(std::io::stdout(), "{text}").map_err(|e| Error::io("standard output", "write", &e))
}
