//! config.md#posix-platform-user

/// Ids inside the container's user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Exactly the supplementary groups (CVE-2022-2989).
    pub groups: Vec<u32>,
    pub umask: u32,
}
