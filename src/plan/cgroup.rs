//! config-linux.md#control-groups (stand-in until the room is merged).
#[derive(Clone, Debug, Default)]
pub struct Hierarchies {}
