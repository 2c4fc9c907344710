//! Trees of files, measured and compared. Everything is reached by descriptors, no link is followed, and nothing is
//! opened but directories and regular files.

use super::layer::dirs::{failed, names, open_dir};
use super::layer::entry::{join, shown};
use super::layer::merge::proc_path;
use super::view::{is_whiteout, whole};
use crate::error::{Error, Result};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// What a tree takes of its file system; a file of several names counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Without that of the root.
    #[serde(skip)]
    pub names: u64,
    pub inodes: u64,
    /// Sizes of regular files.
    pub bytes: u64,
    /// Bytes of the blocks that are allocated.
    pub disk: u64,
}

/// Bytes of the blocks that are free once all below a directory is removed: those of a file that has names elsewhere stay.
pub fn freed(root: &OwnedFd) -> Result<u64> {
    let (mut bytes, mut names) = (0, HashMap::new());
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let Some((dir, entries)) = list(root, &path)? else { continue };
        for name in entries {
            let stat = look(&dir, &path, &name)?;
            if kind(&stat) == FileType::Directory {
                todo.push(join(&path, &name));
            } else if stat.st_nlink > 1 {
                let met = names.entry((stat.st_dev, stat.st_ino)).or_insert(0);
                *met += 1;
                if *met < stat.st_nlink {
                    continue;
                }
            }
            bytes += stat.st_blocks as u64 * 512;
        }
    }
    Ok(bytes)
}

/// What a layer's `meta` says of its files, by which a lost one is seen where no blob was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub names: u64,
    pub bytes: u64,
}

/// Inodes that were met, of those that have several names.
pub type Met = HashSet<(u64, u64)>;

impl Usage {
    /// Measures the tree below a directory.
    pub fn of(root: &OwnedFd, met: &mut Met) -> Result<Self> {
        let mut usage = Self::default();
        usage.add(&fs::fstat(root).map_err(|e| failed(b"", "fstat", e))?, met);
        let mut todo = vec![Vec::new()];
        while let Some(path) = todo.pop() {
            let Some((dir, names)) = list(root, &path)? else { continue };
            for name in names {
                let stat = look(&dir, &path, &name)?;
                usage.names += 1;
                usage.add(&stat, met);
                if kind(&stat) == FileType::Directory {
                    todo.push(join(&path, &name));
                }
            }
        }
        Ok(usage)
    }

    /// Counts one inode.
    pub fn add(&mut self, stat: &Stat, met: &mut Met) {
        let is_dir = kind(stat) == FileType::Directory;
        if stat.st_nlink > 1 && !is_dir && !met.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        self.inodes += 1;
        self.disk += stat.st_blocks as u64 * 512;
        if kind(stat) == FileType::RegularFile {
            self.bytes += stat.st_size as u64;
        }
    }

    pub fn told(&self) -> Told {
        Told { names: self.names, bytes: self.bytes }
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, more: Self) {
        self.names += more.names;
        self.inodes += more.inodes;
        self.bytes += more.bytes;
        self.disk += more.disk;
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn look(dir: &OwnedFd, path: &[u8], name: &[u8]) -> Result<Stat> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| failed(&join(path, name), "fstatat", e))
}

/// The sorted names of a directory. `None` where an image has closed it to the ordinary user who owns the store.
fn list(root: &OwnedFd, path: &[u8]) -> Result<Option<(OwnedFd, Vec<Vec<u8>>)>> {
    let dir = match open_dir(root, path) {
        Err(Errno::ACCESS) => return Ok(None),
        other => other.map_err(|e| failed(path, "open", e))?,
    };
    // One that can only be read gives its names, and nothing of what they are.
    if fs::statat(&dir, ".", AtFlags::empty()).err() == Some(Errno::ACCESS) {
        return Ok(None);
    }
    let mut names = names(&dir).map_err(|e| failed(path, "read", e))?;
    names.sort_unstable();
    Ok(Some((dir, names)))
}

/// Tells `report` every path below `have` that is not what it is below `want`, and how.
pub fn compare(want: &OwnedFd, have: &OwnedFd, report: &mut dyn FnMut(&[u8], String)) -> Result<()> {
    let mut c = Compare { links: HashMap::new(), report };
    let mut todo = vec![Vec::new()];
    c.root(want, have)?;
    while let Some(path) = todo.pop() {
        let (Some((want, names)), Some((have, others))) = (list(want, &path)?, list(have, &path)?) else {
            continue;
        };
        let (mut names, mut others) = (names.iter().peekable(), others.iter().peekable());
        loop {
            let order = match (names.peek(), others.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.cmp(b),
            };
            let name =
                if order.is_gt() { others.next() } else { names.next() }.map_or(&[][..], Vec::as_slice);
            let at = join(&path, name);
            match order {
                Ordering::Less => (c.report)(&at, "is missing".into()),
                Ordering::Greater => (c.report)(&at, "does not belong there".into()),
                Ordering::Equal => {
                    others.next();
                    if c.entry(&path, name, &want, &have)? {
                        todo.push(at);
                    }
                }
            }
        }
    }
    Ok(())
}

struct Compare<'a> {
    /// Inodes with several names, and those that stand for them; a file is read once.
    links: HashMap<u64, u64>,
    report: &'a mut dyn FnMut(&[u8], String),
}

impl Compare<'_> {
    fn root(&mut self, want: &OwnedFd, have: &OwnedFd) -> Result<()> {
        let stat = |fd| fs::fstat(fd).map_err(|e| failed(b"", "fstat", e));
        self.inode(b"", &stat(want)?, &stat(have)?);
        self.xattrs(b"", b".", want, have)
    }

    /// Compares a name that both have; whether it is a directory in both.
    fn entry(&mut self, path: &[u8], name: &[u8], want: &OwnedFd, have: &OwnedFd) -> Result<bool> {
        let (w, h) = (look(want, path, name)?, look(have, path, name)?);
        let at = join(path, name);
        if (w.st_dev, w.st_ino) == (h.st_dev, h.st_ino) || !self.inode(&at, &w, &h) {
            return Ok(false);
        }
        if kind(&w) == FileType::Directory {
            self.xattrs(&at, name, want, have)?;
            return Ok(true);
        }
        // In an image all whiteouts are one inode.
        if w.st_nlink > 1 && !is_whiteout(&w) {
            match self.links.insert(w.st_ino, h.st_ino) {
                None => {}
                Some(ino) if ino == h.st_ino => return Ok(false),
                Some(_) => (self.report)(&at, "is no hard link to its other name".into()),
            }
        }
        self.xattrs(&at, name, want, have)?;
        let target = |dir| fs::readlinkat(dir, name, Vec::new()).map_err(|e| failed(&at, "readlinkat", e));
        match kind(&w) {
            FileType::Symlink => match (target(want)?, target(have)?) {
                (a, b) if a == b => {}
                (a, b) => (self.report)(&at, format!("leads to {b:?}, its layer says {a:?}")),
            },
            FileType::RegularFile if w.st_size == h.st_size => {
                if let Some(n) = files(&at, name, want, have)? {
                    (self.report)(&at, format!("differs in what it holds, first at byte {n}"));
                }
            }
            _ => {}
        }
        Ok(false)
    }

    /// Compares what stat(2) says; whether both are of one kind.
    fn inode(&mut self, at: &[u8], w: &Stat, h: &Stat) -> bool {
        let mut differ = |what: &str, have: String, want: String| {
            if have != want {
                (self.report)(at, format!("has the {what} {have}, its layer says {want}"));
            }
            have == want
        };
        if !differ("type", format!("{:?}", kind(h)), format!("{:?}", kind(w))) {
            return false;
        }
        let all = [
            ("mode", |s: &Stat| format!("{:04o}", s.st_mode & 0o7777)),
            ("owner", |s: &Stat| format!("{}:{}", s.st_uid, s.st_gid)),
            ("time", |s: &Stat| format!("{}.{:09}", s.st_mtime, s.st_mtime_nsec)),
            ("device", |s: &Stat| format!("{}:{}", fs::major(s.st_rdev), fs::minor(s.st_rdev))),
        ] as [(&str, fn(&Stat) -> String); 4];
        // A whiteout has no time of its layer.
        for (what, text) in all.into_iter().filter(|a| a.0 != "time" || !is_whiteout(w)) {
            differ(what, text(h), text(w));
        }
        if kind(w) == FileType::RegularFile {
            differ("size", h.st_size.to_string(), w.st_size.to_string());
        }
        true
    }

    fn xattrs(&mut self, at: &[u8], name: &[u8], want: &OwnedFd, have: &OwnedFd) -> Result<()> {
        let (want, have) = (xattrs(at, name, want)?, xattrs(at, name, have)?);
        let keys: HashSet<_> = want.keys().chain(have.keys()).collect();
        let mut keys: Vec<_> = keys.into_iter().filter(|k| want.get(*k) != have.get(*k)).collect();
        keys.sort();
        for key in keys {
            let key = String::from_utf8_lossy(key);
            (self.report)(at, format!("has not the attribute {key} of its layer"));
        }
        Ok(())
    }
}

/// The attributes of a name, links not followed.
fn xattrs(at: &[u8], name: &[u8], dir: &OwnedFd) -> Result<HashMap<Vec<u8>, Vec<u8>>> {
    let path = proc_path(dir, name);
    let keys = match whole(|buf| fs::llistxattr(&path[..], buf)) {
        Err(Errno::OPNOTSUPP | Errno::ACCESS) => return Ok(HashMap::new()),
        other => other.map_err(|e| failed(at, "llistxattr", e))?,
    };
    let mut out = HashMap::new();
    for key in keys.split(|b| *b == 0).filter(|k| !k.is_empty()) {
        match whole(|buf| fs::lgetxattr(&path[..], key, buf)) {
            Ok(value) => drop(out.insert(key.to_vec(), value)),
            Err(Errno::ACCESS) => {}
            Err(e) => return Err(failed(at, "lgetxattr", e)),
        }
    }
    Ok(out)
}

/// The first byte in which two regular files of a name differ.
fn files(at: &[u8], name: &[u8], want: &OwnedFd, have: &OwnedFd) -> Result<Option<u64>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |dir| fs::openat(dir, name, flags, Mode::empty()).map(File::from);
    let (want, have) = match (open(want), open(have)) {
        (Err(Errno::ACCESS), _) => return Ok(None), // closed to the ordinary user who owns the store
        (w, h) => (w.map_err(|e| failed(at, "open", e))?, h.map_err(|e| failed(at, "open", e))?),
    };
    difference(want, have).map_err(|e| Error::io(format!("entry {:?}", shown(at)), "read", &e))
}

/// The first byte in which two files differ.
pub fn difference(mut a: File, mut b: File) -> std::io::Result<Option<u64>> {
    let (mut left, mut right, mut done) = (Vec::new(), Vec::new(), 0);
    loop {
        for (file, piece) in [(&mut a, &mut left), (&mut b, &mut right)] {
            piece.clear();
            file.take(CHUNK).read_to_end(piece)?;
        }
        if left != right {
            let same = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
            return Ok(Some(done + same as u64));
        }
        if left.is_empty() {
            return Ok(None);
        }
        done += left.len() as u64;
    }
}

/// Bytes of files that are compared at a time.
const CHUNK: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::view;
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    struct Temp(PathBuf);

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn make(root: &Path) {
        std::fs::create_dir_all(root.join("d/e")).unwrap();
        std::fs::write(root.join("d/f"), vec![7; 300_000]).unwrap();
        std::fs::hard_link(root.join("d/f"), root.join("d/g")).unwrap();
        std::fs::write(root.join("h"), "1").unwrap();
        symlink("d", root.join("l")).unwrap();
        for path in ["l", "h", "d/f", "d/e", "d", ""] {
            let time = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            let path = root.join(path);
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        }
    }

    type Edit = (&'static str, fn(&Path));

    #[test]
    fn every_difference_is_told() {
        let temp = Temp(std::env::temp_dir().join(format!("orlop-tree-{}", std::process::id())));
        let (a, b) = (temp.0.join("a"), temp.0.join("b"));
        make(&a);
        let edits: [Edit; 10] = [
            ("", |_| {}),
            ("d/f: differs in what it holds, first at byte 200000", |b| {
                let file = File::options().write(true).open(b.join("d/f")).unwrap();
                file.write_at(b"x", 200_000).unwrap();
            }),
            ("h: has the size 2, its layer says 1", |b| std::fs::write(b.join("h"), "12").unwrap()),
            ("h: is missing", |b| std::fs::remove_file(b.join("h")).unwrap()),
            ("d/e/new: does not belong there", |b| std::fs::write(b.join("d/e/new"), "").unwrap()),
            ("h: has the mode 0600, its layer says 0644", |b| {
                std::fs::set_permissions(b.join("h"), std::fs::Permissions::from_mode(0o600)).unwrap();
            }),
            ("d/g: is no hard link to its other name", |b| {
                std::fs::remove_file(b.join("d/g")).unwrap();
                std::fs::copy(b.join("d/f"), b.join("d/g")).unwrap();
            }),
            ("l: leads to \"e\", its layer says \"d\"", |b| {
                std::fs::remove_file(b.join("l")).unwrap();
                symlink("e", b.join("l")).unwrap();
            }),
            ("l: has the type Directory, its layer says Symlink", |b| {
                std::fs::remove_file(b.join("l")).unwrap();
                std::fs::create_dir(b.join("l")).unwrap();
            }),
            ("h: has not the attribute user.x of its layer", |b| {
                let file = File::open(b.join("h")).unwrap();
                fs::fsetxattr(&file, "user.x", b"1", fs::XattrFlags::empty()).unwrap();
            }),
        ];
        for (want, edit) in edits {
            let _ = std::fs::remove_dir_all(&b);
            make(&b);
            std::fs::set_permissions(b.join("h"), std::fs::Permissions::from_mode(0o644)).unwrap();
            std::fs::set_permissions(a.join("h"), std::fs::Permissions::from_mode(0o644)).unwrap();
            edit(&b);
            let mut told = Vec::new();
            let mut report =
                |path: &[u8], what: String| told.push(format!("{}: {what}", String::from_utf8_lossy(path)));
            compare(&view::open(&a).unwrap(), &view::open(&b).unwrap(), &mut report).unwrap();
            // An edit may change a time as well.
            told.retain(|t| !t.contains("has the time"));
            assert_eq!(told, if want.is_empty() { vec![] } else { vec![want] });
        }
        let usage = Usage::of(&view::open(&a).unwrap(), &mut Met::new()).unwrap();
        assert_eq!((usage.names, usage.inodes, usage.bytes), (6, 6, 300_001));
    }
}
