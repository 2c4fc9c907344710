//! How things leave the store: out of sight first, so that nobody ever sees half of one.

use super::store::{Store, remove_path};
use super::tree::freed;
use super::view;
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What was removed.
#[derive(Debug, Default)]
pub struct Swept {
    pub names: Vec<String>,
    /// Bytes of the blocks that are free by it.
    pub bytes: u64,
}

impl Store {
    /// Removes what `keep` does not name from one of the store's directories. The store is locked exclusively.
    pub fn sweep(&self, sub: &str, keep: &BTreeSet<String>) -> Result<Swept> {
        let dir = self.dir().join(sub);
        let at = |path: &Path, call: &str, e| Error::io(path.display().to_string(), call, &e);
        // A full disk has no room for a directory, but `tmp/` has for a name: then each goes for itself.
        let work = match self.work() {
            Err(e) if matches!(e.errno(), Some(libc::ENOSPC | libc::EDQUOT)) => None,
            work => Some(work?),
        };
        let out = work.as_ref().map_or_else(|| self.dir().join("tmp"), |w| w.path.clone());
        let mut swept = Swept::default();
        for entry in std::fs::read_dir(&dir).map_err(|e| at(&dir, "read", e))? {
            let entry = entry.map_err(|e| at(&dir, "read", e))?;
            if entry.file_name().to_str().is_some_and(|n| keep.contains(n)) {
                continue;
            }
            let place = out.join(entry.file_name());
            std::fs::rename(entry.path(), &place).map_err(|e| at(&entry.path(), "rename", e))?;
            if work.is_none() {
                swept.bytes += bytes(&place);
                remove_path(&place)?;
            }
            swept.names.push(entry.file_name().to_string_lossy().into_owned());
        }
        if let Some(work) = work {
            swept.bytes = freed(&work.fd).unwrap_or(0); // only told
        }
        swept.names.sort();
        Ok(swept)
    }
}

/// Bytes that are free without it; only told, so that one that cannot be looked at has none.
fn bytes(path: &Path) -> u64 {
    match std::fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => view::open(path).and_then(|dir| freed(&dir)).unwrap_or(0),
        Ok(m) if m.nlink() == 1 => m.blocks() * 512,
        _ => 0,
    }
}
