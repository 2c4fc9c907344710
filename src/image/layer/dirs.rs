//! The directories of a layer in the making. Links are never followed by the kernel here: where the path of an entry
//! leads through a link of the same layer, it is read and resolved as if the layer were `/`.

use super::entry::{Meta, ancestors, join, refuse, shown, split};
use super::sink::{Seen, Sink};
use crate::error::{Error, Result};
use crate::image::limits::Limits;
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

/// A directory descriptor below `dir`, without following a link or entering a mount.
pub fn open_dir(dir: &OwnedFd, path: &[u8]) -> std::result::Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_XDEV
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS;
    fs::openat2(dir, path, flags, Mode::empty(), resolve)
}

/// The names in a directory, in no order.
pub fn names(dir: &OwnedFd) -> std::result::Result<Vec<Vec<u8>>, Errno> {
    let mut out = Vec::new();
    for entry in fs::Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            out.push(name.to_vec());
        }
    }
    Ok(out)
}

/// The error of a call on an entry.
pub fn failed(path: &[u8], call: &str, e: Errno) -> Error {
    let error = Error::os(format!("entry {:?}", shown(path)), call, e.raw_os_error());
    with_remedy(error, e)
}

/// Files that are closed to their own user are read by root, be it that of a user namespace.
pub fn with_remedy(error: Error, e: Errno) -> Error {
    match e == Errno::ACCESS && !rustix::process::geteuid().is_root() {
        true => error.hint("run it as unshare --map-auto --map-root-user --mount orlop imgtool …"),
        false => error,
    }
}

/// As [`failed`], of a call that gives a file to its owner.
pub fn not_owned(path: &[u8], call: &str, meta: &Meta, e: Errno) -> Error {
    let error = failed(path, call, e);
    if e != Errno::INVAL {
        return error;
    }
    let what = format!("{}:{} is not mapped in this user namespace; see /etc/subuid", meta.uid, meta.gid);
    error.hint(what)
}

/// Links that a path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;
/// Bytes of names and attributes that may be remembered until all entries were read, and how many more with each entry: a
/// short archive can name very many directories, each entry at the end of a long path of its own.
const REMEMBERED: usize = 32 << 20;
const BY_ENTRY: usize = 512;

pub struct Tree<S> {
    pub sink: S,
    /// Every directory by its path without links; `None` when no entry has told its metadata.
    pub dirs: BTreeMap<Vec<u8>, Option<Meta>>,
    /// Those that were made on the way and have nothing in them but whiteouts.
    bare: BTreeSet<Vec<u8>>,
    remembered: usize,
    allowed: usize,
    limits: Limits,
}

impl<S: Sink> Tree<S> {
    pub fn new(sink: S, limits: Limits) -> Self {
        let dirs = BTreeMap::from([(Vec::new(), None)]);
        Self { sink, dirs, bare: BTreeSet::new(), remembered: 0, allowed: REMEMBERED, limits }
    }

    /// One more entry was read.
    pub fn allow(&mut self) {
        self.allowed += BY_ENTRY;
    }

    /// Accounts for something of `bytes` bytes that is remembered to the end.
    pub fn remember(&mut self, bytes: usize) -> Result<()> {
        self.remembered += bytes + 128; // with what the maps need for it
        if self.remembered > self.allowed {
            return Err(Error::invalid("", "has too many directories, whiteouts or attributes of these"));
        }
        Ok(())
    }

    /// Notes a directory that was made, or what an entry told of it.
    pub fn add(&mut self, path: Vec<u8>, meta: Option<Meta>) -> Result<()> {
        let xattrs = meta.iter().flat_map(|m| &m.xattrs).map(|(key, value)| key.len() + value.len());
        self.remember(path.len() + xattrs.sum::<usize>())?;
        self.dirs.insert(path, meta);
        if self.dirs.len() as u64 > self.limits.entries.saturating_add(1) {
            let what = format!("has more than {} directories", self.limits.entries);
            return Err(Error::invalid("", what).hint("raise --max-entries"));
        }
        Ok(())
    }

    /// The path without links of the directory `path`. With `make`, missing directories are made; without, they are
    /// `None`, as is a path through something else.
    pub fn locate(&mut self, path: &[u8], make: bool) -> Result<Option<Vec<u8>>> {
        if self.dirs.contains_key(path) {
            return Ok(Some(path.to_vec()));
        }
        let mut todo = parts(path);
        let (mut at, mut links) = (Vec::new(), 0);
        while let Some(part) = todo.pop() {
            if part == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &part);
            if self.dirs.contains_key(&next) {
                at = next;
                continue;
            }
            if part.len() > 255 {
                return Err(failed(&next, "look up", Errno::NAMETOOLONG)); // from the target of a link
            }
            match self.sink.look(&next)? {
                Some(Seen::Link(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(failed(path, "look up", Errno::LOOP));
                    }
                    if target.first() == Some(&b'/') {
                        at.clear();
                    }
                    todo.extend(parts(&target));
                }
                Some(Seen::Other) if make => {
                    return Err(refuse(path, format!("needs {:?} to be a directory", shown(&next))));
                }
                None if make => {
                    if next.len() > self.limits.path {
                        return Err(failed(&next, "mkdirat", Errno::NAMETOOLONG));
                    }
                    self.sink.dir(&next)?;
                    self.add(next.clone(), None)?;
                    self.bare.insert(next.clone());
                    at = next;
                }
                Some(Seen::Other) | None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The path without links of what is to be at `path`; the directory that holds it is made when it is missing.
    pub fn place(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let (dir, name) = split(path);
        Ok(join(&self.locate(dir, true)?.unwrap_or_default(), name))
    }

    /// As [`Tree::place`], of an entry: no directory above it is bare.
    pub fn hold(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let place = self.place(path)?;
        if !self.bare.is_empty() {
            self.bare.remove(&place);
            for a in ancestors(&place) {
                self.bare.remove(a);
            }
        }
        Ok(place)
    }

    /// The bare directories, topmost first.
    pub fn take_bare(&mut self) -> BTreeSet<Vec<u8>> {
        std::mem::take(&mut self.bare)
    }

    /// Whether the layer has a file or link in place of a directory above `path`: what was there is hidden by it, and
    /// where a link leads nothing is meant. Writers of layers name what went with such a directory, too.
    pub fn is_covered(&mut self, path: &[u8]) -> Result<bool> {
        let above = ancestors(path).take_while(|a| !self.dirs.contains_key(*a)).last();
        above.map_or(Ok(false), |a| self.sink.look(a).map(|seen| seen.is_some()))
    }

    /// Removes what is at `path`, a directory with all that is in it; whether it was one.
    pub fn clear(&mut self, path: &[u8]) -> Result<bool> {
        let is_dir = self.dirs.remove(path).is_some();
        if is_dir {
            let start = join(path, b"");
            let below = self.dirs.range(start.clone()..).map(|d| d.0).take_while(|d| d.starts_with(&start));
            for d in below.cloned().collect::<Vec<_>>() {
                self.dirs.remove(&d);
            }
        }
        self.sink.remove(path, is_dir)?;
        Ok(is_dir)
    }
}

/// The parts of a path, last first; `..` only comes from targets of links.
pub fn parts(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").map(<[u8]>::to_vec).rev().collect()
}

/// Removes a directory or file by its name below `dir`, never following a link or entering a mount. Depth is
/// bounded by that of entries, and so is the recursion.
pub fn remove_all(dir: &OwnedFd, name: &[u8]) -> std::result::Result<(), Errno> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    if !rustix::process::geteuid().is_root() {
        // Images have directories that their own user may not read or change. Another's stays as it is.
        let _ = fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty());
    }
    let sub = open_dir(dir, name)?;
    names(&sub)?.iter().try_for_each(|name| remove_all(&sub, name))?;
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
