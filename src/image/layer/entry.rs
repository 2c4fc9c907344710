//! One entry of a layer, checked: what the rest of the room may believe without looking again.

use crate::error::{Error, Result};
use crate::image::limits::Limits;
use std::borrow::Cow;

/// Metadata of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Modification time: seconds since the epoch, nanoseconds.
    pub mtime: (i64, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What overlayfs calls an attribute of its own; an ordinary user can set only the second (mount option `userxattr`).
/// Which of the two it heeds is for [`crate::image::rights::Rights::is_heeded`] to say. No layer gets or gives either,
/// whoever reads it: where one is data, the next reader may obey it.
pub fn overlay_name(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(b"trusted.overlay.").or_else(|| key.strip_prefix(b"user.overlay."))
}

impl Meta {
    /// The attributes that are taken over. An image must not speak to overlayfs: redirects and opaque marks reach other
    /// files of the lower layers.
    pub fn own_xattrs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let all = self.xattrs.iter().map(|(key, value)| (&key[..], &value[..]));
        all.filter(|(key, _)| overlay_name(key).is_none() && !key.contains(&0))
    }
}

/// What an entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Extents that hold data, in order; `None` for a file without holes.
    File {
        size: u64,
        sparse: Option<Vec<(u64, u64)>>,
    },
    Dir,
    Symlink(Vec<u8>),
    /// Target from the root of the layer, clean.
    Link(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// An entry with a clean path: relative, no empty part, no `.`, no `..`; empty for the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub kind: Kind,
    pub meta: Meta,
}

/// Cleans the name of an entry or the target of a hard link.
///
/// Leading slashes are dropped, as all extractors do; `..` is refused rather than resolved: no honest archive has
/// it, and what it means differs between extractors.
pub fn clean(raw: &[u8], limits: &Limits) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut depth = 0;
    if raw.contains(&0) {
        return Err(refuse(raw, "has a NUL byte"));
    }
    for part in raw.split(|b| *b == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(refuse(raw, "leads out of its directory")),
            p if p.len() > 255 => return Err(refuse(raw, "has a name of more than 255 bytes")),
            p => {
                if depth > 0 {
                    out.push(b'/');
                }
                out.extend_from_slice(p);
                depth += 1;
            }
        }
    }
    if depth > limits.depth + 1 {
        let what = format!("is more than {} directories deep", limits.depth);
        return Err(refuse(raw, what).hint("raise --max-depth"));
    }
    if out.len() > limits.path {
        let what = format!("has a path of more than {} bytes", limits.path);
        return Err(refuse(raw, what).hint("raise --max-path"));
    }
    Ok(out)
}

/// Longest name of an attribute, largest value, and most bytes of all names of a file, each with its end: what xattr(7)
/// allows, but for a value a byte less, which is what an EROFS image has room for.
const ATTRIBUTE: (usize, usize, usize) = (255, 65535, 65536);

/// Whether a file can have these attributes, whatever the form of its layer.
pub fn attributes(path: &[u8], meta: &Meta) -> Result<()> {
    let (name, value, names) = ATTRIBUTE;
    for (key, text) in meta.own_xattrs() {
        let what = |what: String| refuse(path, format!("has the attribute {:?} {what}", shown(key)));
        if key.len() > name {
            return Err(what(format!("whose name has {} bytes, at most {name} are taken", key.len())));
        }
        if text.len() > value {
            return Err(what(format!("of {} bytes, at most {value} are taken", text.len())));
        }
    }
    let total = meta.own_xattrs().map(|(key, _)| key.len() + 1).sum::<usize>();
    if total > names {
        let what = format!("has attributes whose names have {total} bytes, at most {names} are taken");
        return Err(refuse(path, what));
    }
    Ok(())
}

/// An error that names the entry.
pub fn refuse(path: &[u8], what: impl Into<String>) -> Error {
    Error::invalid(format!("entry {:?}", shown(path)), what)
}

/// A path for a message, cut to a length that fits a line.
pub fn shown(path: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&path[..path.len().min(200)])
}

/// The directory of a clean path and its last name; the root has neither.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(n) => (&path[..n], &path[n + 1..]),
        None => (b"", path),
    }
}

/// `dir/name`, or the name alone below the root.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

/// Whether `path` lies below `dir`.
pub fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() && !path.is_empty()
        || path.strip_prefix(dir).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// All directories above a clean path, nearest first; the root, which is empty, is the last.
pub fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |p| (!p.is_empty()).then(|| split(p).0)).skip(1)
}

/// Names of a layer that say what to hide (image-spec layer.md#whiteouts).
#[derive(Debug, PartialEq, Eq)]
pub enum Whiteout<'a> {
    /// Hides this name of the layers below.
    Name(&'a [u8]),
    /// Hides all that the layers below have in this directory.
    Opaque,
    /// aufs' own files.
    Reserved,
}

/// Reads the last name of an entry as a whiteout.
pub fn whiteout(path: &[u8]) -> Result<Option<Whiteout<'_>>> {
    let (_, name) = split(path);
    Ok(match name.strip_prefix(b".wh.") {
        None => None,
        Some(b".wh..opq") => Some(Whiteout::Opaque),
        Some(b"" | b"." | b"..") => return Err(refuse(path, "hides no name of its directory")),
        Some(hidden) if hidden.starts_with(b".wh.") => Some(Whiteout::Reserved),
        Some(hidden) => Some(Whiteout::Name(hidden)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_or_refused() {
        let l = Limits::default();
        for (raw, want) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("foo/.", "foo"),
            ("./", ""),
            ("/", ""),
            ("", ""),
            ("...", "..."),
        ] {
            assert_eq!(clean(raw.as_bytes(), &l).unwrap(), want.as_bytes(), "{raw}");
        }
        let long = "x".repeat(256);
        let deep = "d/".repeat(300);
        for bad in ["..", "a/../b", "../a", "a/..", "a\0b", &long, &deep] {
            assert!(clean(bad.as_bytes(), &l).is_err(), "{bad}");
        }
    }

    #[test]
    fn attributes_have_the_limits_of_the_kernel() {
        let held = |name: usize, value: usize, count: usize| {
            let one =
                |n: usize| (format!("user.{n:0>width$}", width = name - 5).into_bytes(), vec![0; value]);
            attributes(b"f", &Meta { xattrs: (0..count).map(one).collect(), ..Meta::default() }).is_ok()
        };
        assert!(held(255, 65535, 1) && held(255, 0, 256));
        assert!(!held(256, 0, 1) && !held(255, 65536, 1) && !held(255, 0, 257));
    }

    #[test]
    fn whiteouts_stay_in_their_directory() {
        assert_eq!(whiteout(b"a/b").unwrap(), None);
        assert_eq!(whiteout(b"a/.wh.b").unwrap(), Some(Whiteout::Name(b"b")));
        assert_eq!(whiteout(b".wh..wh..opq").unwrap(), Some(Whiteout::Opaque));
        assert_eq!(whiteout(b"a/.wh..wh.plnk").unwrap(), Some(Whiteout::Reserved));
        for bad in ["a/.wh.", "a/.wh..", "a/.wh..."] {
            assert!(whiteout(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_know_what_lies_above() {
        assert_eq!(ancestors(b"a/b/c").collect::<Vec<_>>(), [&b"a/b"[..], b"a", b""]);
        assert_eq!(ancestors(b"").count(), 0);
        assert!(
            is_below(b"a/b", b"a") && is_below(b"a", b"") && !is_below(b"ab", b"a") && !is_below(b"", b"")
        );
    }
}
