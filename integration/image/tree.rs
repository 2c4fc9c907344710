//! Trees as lines of facts, and what differs between them.

use orlop::image::digest::Digest;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub type Tree = BTreeMap<String, String>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: (i64, u32),
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub fn file(data: &[u8]) -> String {
    format!("file {} {}", data.len(), &Digest::of(data).hex()[..12])
}

pub fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

pub fn told(text: &str, meta: &Meta, is: &str) -> String {
    let is = if text == "dir" { String::new() } else { format!(" is {is}") };
    let xattrs: String =
        meta.xattrs.iter().map(|(k, v)| format!(" {}={}", shown(k), v.escape_ascii())).collect();
    let (seconds, nanos) = meta.mtime;
    format!("{text} {:o} {}:{} {seconds}.{nanos:09}{is}{xattrs}", meta.mode, meta.uid, meta.gid)
}

/// A line for each name below a directory, with all that can be told of it.
pub fn scan(dir: &Path) -> Tree {
    let mut found = BTreeMap::new();
    walk(dir, dir, &mut found);
    let mut first = HashMap::new();
    let line = |(path, (inode, text, meta)): (Vec<u8>, ((u64, u64), String, Meta))| {
        let name = shown(&path);
        let is = first.entry(inode).or_insert_with(|| name.clone()).clone();
        (name, told(&text, &meta, &is))
    };
    found.into_iter().map(line).collect()
}

type Found = BTreeMap<Vec<u8>, ((u64, u64), String, Meta)>;

fn walk(root: &Path, full: &Path, found: &mut Found) {
    let path = full.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    let m = fs::symlink_metadata(full).unwrap_or_else(|e| panic!("{}: {e}", full.display()));
    let (major, minor) = (rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev()));
    let text = match m.mode() & 0o170_000 {
        0o040_000 => "dir".into(),
        0o100_000 => file(&fs::read(full).unwrap()),
        0o120_000 => format!("link {}", shown(fs::read_link(full).unwrap().as_os_str().as_bytes())),
        0o020_000 => format!("char {major}:{minor}"),
        0o060_000 => format!("block {major}:{minor}"),
        0o010_000 => "fifo".into(),
        other => format!("{other:o}"),
    };
    let meta = Meta {
        mode: m.mode() & 0o7777,
        uid: m.uid(),
        gid: m.gid(),
        mtime: (m.mtime(), m.mtime_nsec() as u32),
        xattrs: xattrs(full),
    };
    let is_dir = text == "dir";
    found.insert(path, ((m.dev(), m.ino()), text, meta));
    if is_dir {
        fs::read_dir(full).unwrap().for_each(|e| walk(root, &e.unwrap().path(), found));
    }
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 4096];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..n].split(|b| *b == 0).filter(|n| !n.is_empty() && *n != b"security.selinux");
    let value = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value[..n].to_vec()
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// Layers that are written here have no nanoseconds.
pub fn whole_seconds(tree: &Tree) -> Tree {
    let cut = |line: &String| {
        let words = line.split(' ').map(|w| match w.split_once('.') {
            Some((seconds, nanos)) if nanos.len() == 9 && nanos.bytes().all(|b| b.is_ascii_digit()) => {
                seconds
            }
            _ => w,
        });
        words.collect::<Vec<_>>().join(" ")
    };
    tree.iter().map(|(name, line)| (name.clone(), cut(line))).collect()
}

/// What two trees say differently: the path, and a line of each.
pub fn differences<'a>(a: &'a Tree, b: &'a Tree) -> Vec<(&'a str, Option<&'a str>, Option<&'a str>)> {
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let both = names.into_iter().map(|n| (&n[..], a.get(n).map(|s| &s[..]), b.get(n).map(|s| &s[..])));
    both.filter(|(_, a, b)| a != b).collect()
}

/// What differs, a line for each side.
pub fn lines(a: &Tree, b: &Tree) -> String {
    let line = |(name, a, b): (&str, Option<&str>, Option<&str>)| {
        format!("{name:?}:\n  {}\n  {}\n", a.unwrap_or("-"), b.unwrap_or("-"))
    };
    differences(a, b).into_iter().map(line).collect()
}

/// Fails with what differs.
#[track_caller]
pub fn same(a: &Tree, b: &Tree, what: &str) {
    let lines = lines(a, b);
    assert!(lines.is_empty(), "{what}:\n{lines}");
}
