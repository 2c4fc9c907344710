//! Both forms of a layer, compared entry by entry.

use crate::image::view::proc_path;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// All of a tree: a line of facts for each path. A whiteout has no facts but itself.
fn facts(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut out, mut inodes) = (BTreeMap::new(), BTreeMap::new());
    let mut todo = vec![PathBuf::new()];
    while let Some(rel) = todo.pop() {
        let path = if rel.as_os_str().is_empty() { root.join(".") } else { root.join(&rel) };
        let m = fs::symlink_metadata(&path).unwrap();
        let kind = m.file_type();
        if kind.is_char_device() && m.rdev() == 0 {
            out.insert(rel, "whiteout".into());
            continue;
        }
        let content = if kind.is_file() {
            format!("{:?}", fs::read(&path).unwrap())
        } else if kind.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else {
            String::new()
        };
        if kind.is_dir() {
            let names = fs::read_dir(&path).unwrap().map(|e| rel.join(e.unwrap().file_name()));
            todo.extend(names);
        }
        let size = if kind.is_dir() { 0 } else { m.size() };
        let (mode, owner, links) = (m.mode(), (m.uid(), m.gid()), m.nlink());
        let facts = (mode, owner, size, (m.mtime(), m.mtime_nsec()), m.rdev(), links, xattrs(&path), content);
        out.insert(rel.clone(), format!("{facts:?}"));
        if !kind.is_dir() {
            inodes.entry(m.ino()).or_insert_with(Vec::new).push(rel);
        }
    }
    // Names of one file have the same first one.
    for names in inodes.into_values() {
        let first = names.iter().min().cloned().unwrap();
        names.iter().for_each(|n| out.get_mut(n).unwrap().push_str(&format!(" {first:?}")));
    }
    out
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (mut names, mut value) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let list = names[..n].split(|b| *b == 0).filter(|n| !n.is_empty());
    let mut out: Vec<_> = list
        .map(|key| {
            // The kernel shows no capabilities that are none.
            let got = rustix::fs::lgetxattr(path, key, &mut value[..]);
            (key.to_vec(), got.map_or_else(|e| e.to_string().into_bytes(), |n| value[..n].to_vec()))
        })
        .collect();
    out.sort();
    out
}

/// Holds the tree of a mounted image against a directory.
pub fn same(dir: &Path, image: impl AsFd) {
    let (want, got) = (facts(dir), facts(Path::new(&proc_path(image))));
    let names = |f: &BTreeMap<PathBuf, String>| f.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&want), names(&got));
    for (path, fact) in &want {
        let name = String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
        let short = |f: &str| f[..f.len().min(2000)].to_string();
        assert!(*fact == got[path], "{name}: directory {}, image {}", short(fact), short(&got[path]));
    }
}
