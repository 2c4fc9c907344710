//! Trees, compared entry by entry.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub type Facts = BTreeMap<PathBuf, String>;

/// All that is known of a tree: a line for each path.
pub fn facts(root: &Path) -> Facts {
    let (mut out, mut inodes) = (Facts::new(), BTreeMap::new());
    let mut todo = vec![PathBuf::new()];
    while let Some(rel) = todo.pop() {
        let path = root.join(&rel);
        let m = fs::symlink_metadata(&path).unwrap();
        let kind = m.file_type();
        let content = if kind.is_file() {
            format!("{:?}", orlop::image::digest::Digest::of(&fs::read(&path).unwrap()))
        } else if kind.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else {
            String::new()
        };
        if kind.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| rel.join(e.unwrap().file_name())));
        } else {
            inodes.entry(m.ino()).or_insert_with(Vec::new).push(rel.clone());
        }
        let size = if kind.is_dir() { 0 } else { m.size() };
        let facts = (m.mode(), (m.uid(), m.gid()), size, (m.mtime(), m.mtime_nsec()), m.rdev(), content);
        out.insert(rel, format!("{facts:?}"));
    }
    // Names of one file have the same first one.
    for names in inodes.into_values() {
        let first: &PathBuf = names.iter().min().unwrap();
        names.iter().for_each(|n| out.get_mut(n).unwrap().push_str(&format!(" {first:?}")));
    }
    out
}

#[track_caller]
pub fn same(want: &Facts, got: &Facts) {
    assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (path, fact) in want {
        assert_eq!(fact, &got[path], "{}", path.display());
    }
}
