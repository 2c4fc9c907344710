//! state: runtime.md#state, with the fields that runc adds.

use crate::container::StateRoot;
use crate::error::Result;

pub fn state(root: &StateRoot, id: &str) -> Result<()> {
    let c = root.load(id)?;
    let (status, pid) = c.status();
    let mut value = c.state(status.as_str(), pid);
    value["rootfs"] = serde_json::json!(c.record.rootfs);
    value["created"] = serde_json::json!(c.record.created);
    value["owner"] = serde_json::json!(super::list::owner_name(c.record.owner));
    super::print(&format!("{value:#}\n"))
}
