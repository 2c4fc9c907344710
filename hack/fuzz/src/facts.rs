//! Trees as lines of facts.

use orlop::image::layer::merge::walk;
use orlop::image::view::View;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

pub type Facts = BTreeMap<PathBuf, String>;

const EXT4_ENDS: i64 = (1 << 34) - (1 << 31) - 1;

/// What is at a path, links not followed: all that a layer can say of it.
fn line(path: &Path) -> String {
    let m = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let kind = m.file_type();
    if kind.is_char_device() && m.rdev() == 0 {
        return "whiteout".into();
    }
    let content = if kind.is_file() {
        let bytes = fs::read(path).unwrap();
        format!("{} {:?}", bytes.len(), orlop::image::digest::Digest::of(&bytes))
    } else if kind.is_symlink() {
        format!("{:?}", fs::read_link(path).unwrap())
    } else {
        String::new()
    };
    // Later than this is not known to ext4, on which the directories most often are, but to EROFS.
    let time = if m.mtime() >= EXT4_ENDS { (EXT4_ENDS, 0) } else { (m.mtime(), m.mtime_nsec()) };
    let owner = (m.uid(), m.gid());
    format!("{:o} {owner:?} {time:?} {:x} {content} {:?}", m.mode(), m.rdev(), attributes(path))
}

/// Without overlayfs' own, which a mount hides.
fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut names, mut value) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let list = names[..n].split(|b| *b == 0).filter(|n| !n.is_empty() && !n.starts_with(b"trusted.overlay."));
    let mut out: Vec<_> = list
        .map(|key| {
            let n = rustix::fs::lgetxattr(path, key, &mut value[..]).unwrap_or(0);
            (String::from_utf8_lossy(key).into_owned(), value[..n].to_vec())
        })
        .collect();
    out.sort();
    out
}

/// Everything below a directory.
pub fn of_dir(root: &Path) -> Facts {
    let (mut out, mut todo) = (Facts::new(), vec![PathBuf::new()]);
    while let Some(dir) = todo.pop() {
        let there = root.join(&dir).join(".");
        for entry in fs::read_dir(&there).unwrap_or_else(|e| panic!("{}: {e}", there.display())) {
            let rel = dir.join(entry.unwrap().file_name());
            let path = root.join(&rel);
            if fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).is_dir() {
                todo.push(rel.clone());
            }
            out.insert(rel, line(&path));
        }
    }
    out
}

/// Everything that the merged tree of layers shows.
pub fn of_view(view: &View) -> Facts {
    let mut out = Facts::new();
    walk(view, false, |node| {
        if !node.is_whiteout() {
            let place = node.proc_path();
            out.insert(OsStr::from_bytes(node.path).into(), line(Path::new(OsStr::from_bytes(&place))));
        }
        Ok(())
    })
    .unwrap();
    out
}

/// Panics with what differs.
#[track_caller]
pub fn same(a: &Facts, b: &Facts, what: &str) {
    let lack = |a: &Facts, b: &Facts, sign| -> String {
        a.iter()
            .filter(|(k, v)| b.get(*k) != Some(v))
            .map(|(k, v)| format!("{sign} {}: {v}\n", k.display()))
            .collect()
    };
    assert!(a == b, "{what}:\n{}{}", lack(a, b, '-'), lack(b, a, '+'));
}
