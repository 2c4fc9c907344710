//! What this process may give to files: root of the machine all of it, root of a user namespace owners, others nothing.

use std::sync::OnceLock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Give files to the users that an image names.
    pub owners: bool,
    /// Make device nodes, and set `trusted.*` attributes, which overlayfs uses unless it is mounted with `userxattr`.
    pub nodes: bool,
}

impl Rights {
    pub fn ours() -> Self {
        static OURS: OnceLock<Rights> = OnceLock::new();
        *OURS.get_or_init(|| {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            Self::of(rustix::process::geteuid().is_root(), &map)
        })
    }

    /// An image has ids up to 65535: a user namespace with fewer cannot own them, and everything is its root's.
    fn of(root: bool, uid_map: &str) -> Self {
        let rows = uid_map.lines().filter_map(|l| {
            let mut n = l.split_ascii_whitespace().map(|f| f.parse::<u64>().unwrap_or(0));
            Some((n.next()?, n.next()?, n.next()?))
        });
        let rows: Vec<_> = rows.collect();
        let all = rows == [(0, 0, u64::from(u32::MAX))];
        Self { owners: root && rows.iter().map(|r| r.2).sum::<u64>() >= 65536, nodes: root && all }
    }

    /// overlayfs' mark of an opaque directory.
    pub fn opaque(self) -> &'static str {
        if self.nodes { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
    }

    /// Whether overlayfs heeds an attribute, mounted as this process mounts it. To the other of its two forms
    /// (`userxattr`) it gives no meaning: every process of a container may set `user.overlay.opaque` on its files.
    pub fn is_heeded(self, key: &[u8]) -> bool {
        key.starts_with(if self.nodes { b"trusted.overlay." } else { b"user.overlay." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_follow_the_user_namespace() {
        for (root, map, owners, nodes) in [
            (true, "         0          0 4294967295\n", true, true),
            (false, "         0          0 4294967295\n", false, false),
            (true, "0 1000 1\n1 100000 65536\n", true, false),
            (true, "0 1000 1\n", false, false),
            (true, "", false, false),
        ] {
            let rights = Rights::of(root, map);
            assert_eq!(rights, Rights { owners, nodes }, "{map}");
            assert_eq!(rights.opaque().starts_with("trusted."), nodes);
            for key in ["trusted.overlay.opaque", "user.overlay.opaque"] {
                assert_eq!(rights.is_heeded(key.as_bytes()), key == rights.opaque(), "{map}");
            }
        }
    }
}
