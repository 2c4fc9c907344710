//! The directory form of a layer. Everything is made by the descriptor of its directory and exclusively, so that what
//! an earlier entry left is replaced and never written through (CVE-2021-32760, CVE-2026-33056).

use super::dirs::{failed, not_owned, open_dir, remove_all};
use super::entry::{Meta, shown, split};
use super::merge::proc_path;
use super::read::read_error;
use super::sink::{Node, Seen, Sink};
use crate::error::{Error, Result};
use crate::image::rights::Rights;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

/// Open descriptors that are kept, by each of the threads.
const KEPT: usize = 16;

pub struct Files {
    root: OwnedFd,
    open: HashMap<Vec<u8>, Rc<OwnedFd>>,
    rights: Rights,
}

/// What was made, or nothing when the name is taken.
fn made<T>(path: &[u8], call: &str, result: std::result::Result<T, Errno>) -> Result<Option<T>> {
    match result {
        Err(Errno::EXIST) => Ok(None),
        other => other.map(Some).map_err(|e| failed(path, call, e)),
    }
}

impl Files {
    /// Below `root`, an empty directory that nobody else writes to.
    pub fn new(root: OwnedFd) -> Self {
        Self { root, open: HashMap::new(), rights: Rights::ours() }
    }

    /// The descriptor of a directory.
    fn open(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if let Some(fd) = self.open.get(path) {
            return Ok(fd.clone());
        }
        if self.open.len() >= KEPT {
            self.open.clear();
        }
        let fd = Rc::new(open_dir(&self.root, path).map_err(|e| failed(path, "openat2", e))?);
        self.open.insert(path.to_vec(), fd.clone());
        Ok(fd)
    }

    /// The directory that holds `path`, and the last name.
    fn holder<'a>(&mut self, path: &'a [u8]) -> Result<(Rc<OwnedFd>, &'a [u8])> {
        let (dir, name) = split(path);
        Ok((self.open(dir)?, name))
    }

    fn owner_at(&self, path: &[u8], dir: &OwnedFd, name: &[u8], meta: &Meta) -> Result<()> {
        if !self.rights.owners {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| not_owned(path, "fchownat", meta, e))
    }

    /// Owner, mode, attributes and time of what cannot be opened: links, which have no mode, and nodes. In the order of
    /// [`Files::metadata`], and an access list changes the mode. The name is what was just made, in a directory that is
    /// ours alone.
    fn metadata_at(
        &self,
        path: &[u8],
        dir: &OwnedFd,
        name: &[u8],
        meta: &Meta,
        mode: Option<Mode>,
    ) -> Result<()> {
        self.owner_at(path, dir, name, meta)?;
        if let Some(mode) = mode {
            fs::chmodat(dir, name, mode, AtFlags::empty()).map_err(|e| failed(path, "fchmodat", e))?;
        }
        if !meta.xattrs.is_empty() {
            let there = proc_path(dir, name);
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
                .map_err(|e| not_owned(path, "fchown", meta, e))?;
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
        for (key, value) in meta.own_xattrs() {
            match set(key, value) {
                Ok(()) => {}
                // Labels of a security module that is not here, and what an ordinary user may not set.
                Err(Errno::OPNOTSUPP) => {}
                Err(Errno::PERM) if !self.rights.nodes || key.starts_with(b"user.") => {}
                Err(e @ (Errno::NOSPC | Errno::RANGE | Errno::TOOBIG)) if !self.is_full(e) => {
                    let what = format!("has the attribute {} of {} bytes, ", shown(key), value.len());
                    let at = format!("entry {:?}", shown(path));
                    return Err(Error::unsupported(
                        at,
                        what + "for which the store's file system has no room in one file",
                    )
                    .hint("--layers erofs, or a store on another file system, takes it"));
                }
                Err(e) => return Err(failed(path, &format!("setxattr {}", shown(key)), e)),
            }
        }
        Ok(())
    }

    /// Whether it is the disk that has no room; ext4 says the same of a file's attributes.
    fn is_full(&self, e: Errno) -> bool {
        let free = || fs::fstatvfs(&self.root).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
        e == Errno::NOSPC && free() < 1 << 20
    }
}

fn times(meta: &Meta) -> Timestamps {
    let (tv_sec, nanos) = meta.mtime;
    let time = Timespec { tv_sec, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

impl Sink for Files {
    fn look(&mut self, path: &[u8]) -> Result<Option<Seen>> {
        let (dir, name) = self.holder(path)?;
        match fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(st) if FileType::from_raw_mode(st.st_mode) == FileType::Symlink => {
                let target = fs::readlinkat(&*dir, name, Vec::new());
                target.map(|t| Some(Seen::Link(t.into_bytes()))).map_err(|e| failed(path, "readlinkat", e))
            }
            Ok(_) => Ok(Some(Seen::Other)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(failed(path, "fstatat", e)),
        }
    }

    fn dir(&mut self, path: &[u8]) -> Result<bool> {
        let (dir, name) = self.holder(path)?;
        made(path, "mkdirat", fs::mkdirat(&*dir, name, Mode::RWXU)).map(|m| m.is_some())
    }

    fn file(
        &mut self,
        path: &[u8],
        size: u64,
        extents: &[(u64, u64)],
        meta: &Meta,
        data: &mut dyn BufRead,
    ) -> Result<bool> {
        let (dir, name) = self.holder(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = fs::openat(&*dir, name, flags, Mode::RUSR | Mode::WUSR);
        let Some(fd) = made(path, "openat", open)? else { return Ok(false) };
        let mut file = std::fs::File::from(fd);
        let at = |e: std::io::Error| Error::io(format!("entry {:?}", shown(path)), "write", &e);
        let mut end = 0;
        for (offset, length) in extents {
            if *offset != end {
                file.seek(SeekFrom::Start(*offset)).map_err(at)?;
            }
            copy(data, *length, |piece| file.write_all(piece).map_err(at))?;
            end = offset + length;
        }
        if end != size {
            file.set_len(size).map_err(at)?; // a hole at the end
        }
        self.metadata(path, &file, meta)?;
        Ok(true)
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<bool> {
        let (dir, name) = self.holder(path)?;
        if made(path, "symlinkat", fs::symlinkat(target, &*dir, name))?.is_none() {
            return Ok(false);
        }
        self.metadata_at(path, &dir, name, meta, None)?;
        Ok(true)
    }

    fn node(&mut self, path: &[u8], node: Node, meta: &Meta) -> Result<bool> {
        let (dir, name) = self.holder(path)?;
        let (kind, dev) = match node {
            Node::Char(major, minor) => (FileType::CharacterDevice, fs::makedev(major, minor)),
            Node::Block(major, minor) => (FileType::BlockDevice, fs::makedev(major, minor)),
            Node::Fifo => (FileType::Fifo, 0),
        };
        if made(path, "mknodat", fs::mknodat(&*dir, name, kind, Mode::empty(), dev))?.is_none() {
            return Ok(false);
        }
        self.metadata_at(path, &dir, name, meta, Some(Mode::from_raw_mode(meta.mode)))?;
        Ok(true)
    }

    fn link(&mut self, from: &[u8], path: &[u8]) -> Result<bool> {
        let (source, old) = self.holder(from)?;
        let (dir, name) = self.holder(path)?;
        made(path, "linkat", fs::linkat(&*source, old, &*dir, name, AtFlags::empty())).map(|m| m.is_some())
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<bool> {
        let (dir, name) = self.holder(path)?;
        let node = fs::mknodat(&*dir, name, FileType::CharacterDevice, Mode::empty(), 0);
        made(path, "mknodat 0:0", node).map(|m| m.is_some())
    }

    fn remove(&mut self, path: &[u8], is_dir: bool) -> Result<()> {
        let (dir, name) = self.holder(path)?;
        if !is_dir {
            return fs::unlinkat(&*dir, name, AtFlags::empty()).map_err(|e| failed(path, "unlinkat", e));
        }
        self.open.clear();
        remove_all(&dir, name).map_err(|e| failed(path, "remove", e))
    }

    fn finish(&mut self, dirs: &[(&[u8], &Meta, bool)]) -> Result<()> {
        // After everything else: making a name changes the time of its directory.
        for (path, meta, opaque) in dirs {
            let fd = self.open(path)?;
            if *opaque {
                let key = self.rights.opaque();
                fs::fsetxattr(&*fd, key, b"y", XattrFlags::empty()).map_err(|e| failed(path, key, e))?;
            }
            self.metadata(path, &*fd, meta)?;
        }
        Ok(())
    }
}

/// Hands `length` bytes of the entry on, straight from the stream's buffer.
pub fn copy(data: &mut dyn BufRead, length: u64, mut to: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut left = length;
    while left > 0 {
        let buf = data.fill_buf().map_err(|e| read_error(&e))?;
        if buf.is_empty() {
            return Err(read_error(&std::io::ErrorKind::UnexpectedEof.into()));
        }
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        to(&buf[..n])?;
        data.consume(n);
        left -= n as u64;
    }
    Ok(())
}
