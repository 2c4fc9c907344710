//! config-linux.md#user-namespace-mappings

/// One line of uid_map or gid_map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    pub inside: u32,
    pub outside: u32,
    pub size: u32,
}

/// The mappings of the container's user namespace; both empty when there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    pub uid: Vec<IdMap>,
    pub gid: Vec<IdMap>,
}

/// The id outside that `inside` stands for.
pub fn to_host(map: &[IdMap], inside: u32) -> Option<u32> {
    map.iter().find_map(|m| inside.checked_sub(m.inside).filter(|d| *d < m.size).map(|d| m.outside + d))
}
