//! A bundle opened: its document, and the overlay description that `imgtool` may have left in it.

use serde::{Deserialize, Serialize};

/// `overlay.json` of a bundle: the parts of its rootfs, written by `imgtool unpack`. All paths absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Overlay {
    /// Topmost first, as overlayfs wants them.
    pub lower: Vec<String>,
    /// Absent for a read-only rootfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<String>,
    /// Further options of overlayfs, `metacopy=on` or `volatile`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}
