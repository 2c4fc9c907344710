//! Checked entries to files in overlay form. Everything is made by the descriptor of its directory and exclusively, so
//! that what an earlier entry left is replaced and never written through (CVE-2021-32760, CVE-2026-33056).

use super::dirs::{Tree, failed};
use super::entry::{Entry, Kind, Meta, Whiteout, ancestors, is_below, refuse, split, whiteout};
use super::read::{Reader, read_error};
use crate::error::Result;
use crate::image::limits::Limits;
use crate::image::rights::Rights;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What a layer says of the layers below, which are not known while it is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Directories that have no entry: their metadata is that of the layers below, where they may even be links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dirs: Vec<Name>,
    /// Hard links to files that are not in the layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(Name, Name)>,
    /// Directories with whiteouts: overlayfs shows these as names where nothing is merged below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whiteouts: Vec<Name>,
}

impl Needs {
    pub fn is_empty(&self) -> bool {
        self.dirs.is_empty() && self.links.is_empty() && self.whiteouts.is_empty()
    }
}

/// A layer as it lies in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub entries: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// The layer hides all below it; overlayfs knows no opaque root.
    #[serde(default)]
    pub opaque: bool,
    /// The root had an entry.
    #[serde(default)]
    pub root_listed: bool,
    /// Device nodes that an ordinary user cannot make.
    #[serde(default)]
    pub skipped: u64,
    #[serde(default, skip_serializing_if = "Needs::is_empty")]
    pub needs: Needs,
}

/// Makes the files of the archive below `root`, an empty directory that nobody else writes to.
pub fn apply<R: BufRead>(stream: R, root: OwnedFd, limits: &Limits) -> Result<Applied> {
    let mut reader = Reader::new(stream, limits.clone());
    let mut a = Apply {
        tree: Tree::new(root, limits.clone()),
        rights: Rights::ours(),
        whiteouts: BTreeSet::new(),
        opaque: BTreeSet::new(),
        links: BTreeMap::new(),
        out: Applied::default(),
    };
    while let Some(entry) = reader.next_entry()? {
        a.out.entries += 1;
        a.put(entry, &mut reader)?;
    }
    a.finish()
}

/// The prefix of overlayfs' own attributes; an ordinary user can set only the second (mount option `userxattr`).
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

struct Apply {
    tree: Tree,
    rights: Rights,
    /// Paths to hide. They become nodes when all was read: a whiteout never hides what its own layer has, wherever it
    /// stands in the archive (image-spec layer.md#whiteouts).
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    /// Hard links whose target is not there (yet).
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    out: Applied,
}

impl Apply {
    fn put<R: BufRead>(&mut self, entry: Entry, reader: &mut Reader<R>) -> Result<()> {
        let Entry { path, kind, meta } = entry;
        if path.is_empty() {
            return self.tree.add(path, Some(meta));
        }
        if split(&path).0.split(|b| *b == b'/').any(|p| p.starts_with(b".wh.")) {
            return Err(refuse(&path, "lies in a directory with the name of a whiteout"));
        }
        if let Some(w) = whiteout(&path)? {
            return self.hide(&path, &w);
        }
        let (dir, fd, name) = self.tree.parent(&path)?;
        let path = super::entry::join(&dir, name); // without links from here on
        self.links.remove(&path);
        match kind {
            Kind::Dir => return self.directory(path, &fd, name, meta),
            Kind::Link(target) => return self.link(path, &fd, name, target),
            Kind::File { size, sparse } => return self.file(&path, &fd, name, size, sparse, &meta, reader),
            Kind::Symlink(target) => {
                self.make(&path, &fd, name, "symlinkat", || fs::symlinkat(&target[..], &*fd, name))?;
            }
            Kind::Char(0, 0) => {
                return Err(refuse(&path, "is the device 0:0, which overlayfs takes for a whiteout"));
            }
            Kind::Char(..) | Kind::Block(..) if !self.rights.nodes => {
                self.out.skipped += 1;
                return Ok(());
            }
            Kind::Char(major, minor) => {
                self.node(&path, &fd, name, FileType::CharacterDevice, fs::makedev(major, minor), &meta)?;
            }
            Kind::Block(major, minor) => {
                self.node(&path, &fd, name, FileType::BlockDevice, fs::makedev(major, minor), &meta)?;
            }
            Kind::Fifo => self.node(&path, &fd, name, FileType::Fifo, 0, &meta)?,
        }
        self.metadata_at(&path, &fd, name, &meta, false)
    }

    fn hide(&mut self, path: &[u8], w: &Whiteout<'_>) -> Result<()> {
        let (dir, ..) = self.tree.parent(path)?;
        self.tree.remember(path.len())?;
        match w {
            Whiteout::Reserved => {}
            Whiteout::Opaque => drop(self.opaque.insert(dir)),
            Whiteout::Name(name) => drop(self.whiteouts.insert(super::entry::join(&dir, name))),
        }
        Ok(())
    }

    /// Makes something at `path`; what was there is removed first.
    fn make<T>(
        &mut self,
        path: &[u8],
        dir: &OwnedFd,
        name: &[u8],
        call: &str,
        make: impl Fn() -> std::result::Result<T, Errno>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                self.clear(path, dir, name)?;
                make().map_err(|e| failed(path, call, e))
            }
            other => other.map_err(|e| failed(path, call, e)),
        }
    }

    /// Removes what is at `path`, and forgets what was to be done below it.
    fn clear(&mut self, path: &[u8], dir: &OwnedFd, name: &[u8]) -> Result<()> {
        if self.tree.clear(path, dir, name)? {
            let start = super::entry::join(path, b"");
            self.opaque.remove(path);
            for set in [&mut self.opaque, &mut self.whiteouts] {
                while let Some(p) =
                    set.range(start.clone()..).next().filter(|p| p.starts_with(&start)).cloned()
                {
                    set.remove(&p);
                }
            }
            while let Some(p) =
                self.links.range(start.clone()..).next().map(|l| l.0).filter(|p| p.starts_with(&start))
            {
                let p = p.clone();
                self.links.remove(&p);
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: Vec<u8>, dir: &OwnedFd, name: &[u8], meta: Meta) -> Result<()> {
        if !self.tree.dirs.contains_key(&path) {
            self.make(&path, dir, name, "mkdirat", || fs::mkdirat(dir, name, Mode::RWXU))?;
        }
        self.tree.add(path, Some(meta))
    }

    fn link(&mut self, path: Vec<u8>, dir: &OwnedFd, name: &[u8], target: Vec<u8>) -> Result<()> {
        if !self.try_link(&path, dir, name, &target)? {
            // Nothing of this layer may show under the name.
            match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => self.clear(&path, dir, name)?,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(failed(&path, "fstatat", e)),
            }
            self.tree.remember(path.len() + target.len())?;
            self.links.insert(path, target);
        }
        Ok(())
    }

    /// Links to a file of this layer; false when there is none.
    fn try_link(&mut self, path: &[u8], dir: &OwnedFd, name: &[u8], target: &[u8]) -> Result<bool> {
        let (parent, last) = split(target);
        let Some(parent) = self.tree.locate(parent, false)? else { return Ok(false) };
        let target = super::entry::join(&parent, last);
        if target == path {
            return Err(refuse(path, "is a hard link to itself"));
        }
        if self.tree.dirs.contains_key(&target) {
            return Err(refuse(path, "is a hard link to a directory"));
        }
        let from = self.tree.open(&parent)?;
        match fs::statat(&*from, last, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other.map_err(|e| failed(&target, "fstatat", e))?,
        };
        let link = || fs::linkat(&*from, last, dir, name, AtFlags::empty());
        if is_below(&target, path) {
            return Err(refuse(path, "is a hard link into the directory that it replaces"));
        }
        self.make(path, dir, name, "linkat", link)?;
        Ok(true)
    }

    #[allow(clippy::too_many_arguments)] // the parts of one entry
    fn file<R: BufRead>(
        &mut self,
        path: &[u8],
        dir: &OwnedFd,
        name: &[u8],
        size: u64,
        sparse: Option<Vec<(u64, u64)>>,
        meta: &Meta,
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR);
        let mut file = std::fs::File::from(self.make(path, dir, name, "openat", open)?);
        let at = |e: std::io::Error| {
            crate::error::Error::io(format!("entry {:?}", super::entry::shown(path)), "write", &e)
        };
        let extents = sparse.unwrap_or_else(|| vec![(0, size)]);
        let mut end = 0;
        for (offset, length) in extents {
            if offset != end {
                file.seek(SeekFrom::Start(offset)).map_err(at)?;
            }
            copy(reader.data(), &mut file, length, at)?;
            end = offset + length;
        }
        if end != size {
            file.set_len(size).map_err(at)?; // a hole at the end
        }
        self.out.bytes += size;
        self.metadata(path, &file, meta)
    }

    fn node(
        &mut self,
        path: &[u8],
        dir: &OwnedFd,
        name: &[u8],
        kind: FileType,
        dev: u64,
        meta: &Meta,
    ) -> Result<()> {
        let mode = Mode::from_raw_mode(meta.mode);
        self.make(path, dir, name, "mknodat", || fs::mknodat(dir, name, kind, Mode::empty(), dev))?;
        self.owner_at(path, dir, name, meta)?;
        // mknod(2) applies the umask. The name is the node just made, in a directory that is ours alone.
        fs::chmodat(dir, name, mode, AtFlags::empty()).map_err(|e| failed(path, "fchmodat", e))
    }

    fn owner_at(&self, path: &[u8], dir: &OwnedFd, name: &[u8], meta: &Meta) -> Result<()> {
        if !self.rights.owners {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(path, "fchownat", e))
    }

    /// Owner, attributes and time of what cannot be opened: links and nodes.
    fn metadata_at(&self, path: &[u8], dir: &OwnedFd, name: &[u8], meta: &Meta, owned: bool) -> Result<()> {
        if !owned {
            self.owner_at(path, dir, name, meta)?;
        }
        if !meta.xattrs.is_empty() {
            let mut there = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
            there.extend_from_slice(name);
            self.xattrs(path, meta, |key, value| fs::lsetxattr(&there[..], key, value, XattrFlags::empty()))?;
        }
        fs::utimensat(dir, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(path, "utimensat", e))
    }

    /// In this order: chown(2) clears set-id bits and file capabilities.
    fn metadata(&self, path: &[u8], fd: impl AsFd, meta: &Meta) -> Result<()> {
        let fd = fd.as_fd();
        if self.rights.owners {
            fs::fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
                .map_err(|e| failed(path, "fchown", e))?;
        }
        fs::fchmod(fd, Mode::from_raw_mode(meta.mode)).map_err(|e| failed(path, "fchmod", e))?;
        self.xattrs(path, meta, |key, value| fs::fsetxattr(fd, key, value, XattrFlags::empty()))?;
        fs::futimens(fd, &times(meta)).map_err(|e| failed(path, "futimens", e))
    }

    fn xattrs(
        &self,
        path: &[u8],
        meta: &Meta,
        set: impl Fn(&[u8], &[u8]) -> std::result::Result<(), Errno>,
    ) -> Result<()> {
        for (key, value) in &meta.xattrs {
            // An image must not speak to overlayfs: redirects and opaque marks reach other files of the lower layers.
            if OVERLAY.iter().any(|p| key.starts_with(p)) || key.contains(&0) {
                continue;
            }
            match set(key, value) {
                Ok(()) => {}
                // Labels of a security module that is not here, and what an ordinary user may not set.
                Err(Errno::OPNOTSUPP) => {}
                Err(Errno::PERM) if !self.rights.nodes || key.starts_with(b"user.") => {}
                Err(e) => return Err(failed(path, &format!("setxattr {}", super::entry::shown(key)), e)),
            }
        }
        Ok(())
    }
}

fn times(meta: &Meta) -> Timestamps {
    let (tv_sec, nanos) = meta.mtime;
    let time = Timespec { tv_sec, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Writes `length` bytes of the entry straight from the stream's buffer.
fn copy(
    mut data: impl BufRead,
    file: &mut std::fs::File,
    length: u64,
    at: impl Fn(std::io::Error) -> crate::error::Error,
) -> Result<()> {
    let mut left = length;
    while left > 0 {
        let buf = data.fill_buf().map_err(|e| read_error(&e))?;
        if buf.is_empty() {
            return Err(read_error(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&buf[..n]).map_err(&at)?;
        data.consume(n);
        left -= n as u64;
    }
    Ok(())
}

impl Apply {
    /// What can only be done when all entries are known.
    fn finish(mut self) -> Result<Applied> {
        self.late_links()?;
        let replaced = self.place_whiteouts()?;
        self.out.opaque = self.opaque.contains(&b""[..]);
        let hidden = |dir: &[u8]| {
            // Nothing of the layers below shows here: an opaque directory above, or made anew itself.
            replaced.contains(dir) || ancestors(dir).any(|a| self.opaque.contains(a))
        };
        let implicit = self.tree.dirs.iter().filter(|(d, m)| m.is_none() && !d.is_empty() && !hidden(d));
        self.out.needs.dirs = implicit.map(|(d, _)| to_path(d)).collect();
        self.out.root_listed = self.tree.dirs.get(&b""[..]).is_some_and(Option::is_some);
        let links = std::mem::take(&mut self.links);
        self.out.needs.links = links.iter().map(|(p, t)| (to_path(p), to_path(t))).collect();
        let dirs = std::mem::take(&mut self.tree.dirs);
        let default = Meta { mode: 0o755, ..Meta::default() };
        // Deepest first, and after everything else: making a name changes the time of its directory.
        for (path, meta) in dirs.iter().rev() {
            let fd = self.tree.open(path)?;
            if !path.is_empty() && self.opaque.contains(path) {
                let key = self.rights.opaque();
                fs::fsetxattr(&*fd, key, b"y", XattrFlags::empty()).map_err(|e| failed(path, key, e))?;
            }
            self.metadata(path, &*fd, meta.as_ref().unwrap_or(&default))?;
        }
        Ok(self.out)
    }

    /// Links that stood before their target.
    fn late_links(&mut self) -> Result<()> {
        for (path, target) in self.links.clone() {
            let (dir, name) = split(&path);
            let fd = self.tree.open(dir)?;
            if self.try_link(&path, &fd, name, &target)? {
                self.links.remove(&path);
            }
        }
        Ok(())
    }

    /// Whiteouts to nodes 0:0, and to opaque directories where the layer has a directory of the name; these are
    /// returned.
    fn place_whiteouts(&mut self) -> Result<BTreeSet<Vec<u8>>> {
        let all = std::mem::take(&mut self.whiteouts);
        let (replaced, plain): (BTreeSet<_>, BTreeSet<_>) =
            all.into_iter().partition(|w| self.tree.dirs.contains_key(w));
        self.opaque.extend(replaced.iter().cloned());
        let mut holders = BTreeSet::new();
        for path in &plain {
            if ancestors(path).any(|a| self.opaque.contains(a)) {
                continue; // nothing shows through
            }
            let (dir, name) = split(path);
            let fd = self.tree.open(dir)?;
            match fs::mknodat(&*fd, name, FileType::CharacterDevice, Mode::empty(), 0) {
                Ok(()) if !dir.is_empty() => drop(holders.insert(to_path(dir))),
                Ok(()) | Err(Errno::EXIST) => {} // the layer's own file hides what is below
                Err(e) => return Err(failed(path, "mknodat 0:0", e)),
            }
        }
        self.out.needs.whiteouts = holders.into_iter().collect();
        Ok(replaced)
    }
}

/// A path in the store's own files: a string, or a list of bytes where it is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
    Text(String),
    Bytes(Vec<u8>),
}

impl Name {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Name::Text(t) => t.as_bytes(),
            Name::Bytes(b) => b,
        }
    }
}

fn to_path(bytes: &[u8]) -> Name {
    String::from_utf8(bytes.to_vec()).map_or_else(|e| Name::Bytes(e.into_bytes()), Name::Text)
}
