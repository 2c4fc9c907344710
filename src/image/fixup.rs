//! What a layer leaves to the layers below, settled in a small layer on top of it. Only here is the stack known: a
//! layer itself is the same in every image.

use super::copy;
use super::layer::apply::Needs;
use super::layer::dirs::{names, open_dir, remove_all};
use super::layer::entry::{ancestors, is_below, join, split};
use super::layer::merge;
use super::merged::Merged;
use super::rights::Rights;
use super::view::{at, failed, is_opaque, is_whiteout, proc_path, read_dir};
use crate::error::{Error, Result};
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Fills the empty directory `out` with the fixups of `layer` on top of `below`. Files are hard links to those of the
/// layers; only those of EROFS images are copied. False when nothing was to be done.
pub fn build(out: OwnedFd, layer: Rc<OwnedFd>, below: &mut Merged, needs: &Needs) -> Result<bool> {
    let implicit = needs.dirs.iter().map(|d| d.bytes()).collect();
    let mut f = Fix {
        out,
        own: Merged::of(std::slice::from_ref(&layer)),
        layer,
        below,
        implicit,
        made: BTreeMap::new(),
        moved: BTreeMap::new(),
        copied: BTreeMap::new(),
        alone: BTreeSet::new(),
    };
    for dir in &needs.dirs {
        f.implicit_dir(dir.bytes())?;
    }
    for dir in &needs.whiteouts {
        f.merged_dir(dir.bytes())?;
    }
    let mut late = Vec::new();
    for (path, target) in needs.links.iter().map(|(p, t)| (p.bytes(), t.bytes())) {
        if !f.link(path, target)? {
            late.push((path, target));
        }
    }
    for (path, target) in late {
        if !f.link(path, target)? {
            return Err(not_linked(path, target, "is in no layer"));
        }
    }
    f.again()?;
    f.finish()
}

/// Where the layers below have what is here a copy of: the path, as an attribute that overlayfs keeps to itself. A
/// directory has it that is here for other names of copies alone.
const ORIGIN: &str = "trusted.overlay.orlop.origin";

/// The origin of what an `O_PATH` descriptor is.
pub fn origin(fd: &OwnedFd) -> Option<Vec<u8>> {
    read_origin(|value| fs::getxattr(proc_path(fd), ORIGIN, value))
}

/// The origin of what is at a path, links not followed.
pub fn origin_at(place: &[u8]) -> Option<Vec<u8>> {
    read_origin(|value| fs::lgetxattr(place, ORIGIN, value))
}

fn read_origin(get: impl Fn(&mut [u8]) -> std::result::Result<usize, Errno>) -> Option<Vec<u8>> {
    let mut value = [0; 4096];
    get(&mut value).ok().map(|n| value[..n].to_vec())
}

const EPOCH: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// A layer and a path in it: an open descriptor for each of a hundred thousand directories would be too many.
type Source = (Rc<OwnedFd>, Vec<u8>);

struct Fix<'a> {
    out: OwnedFd,
    layer: Rc<OwnedFd>,
    /// The layer alone.
    own: Merged,
    below: &'a mut Merged,
    implicit: BTreeSet<&'a [u8]>,
    /// Directories made here, and whose metadata they get.
    made: BTreeMap<Vec<u8>, Option<Source>>,
    /// Directories of the layer that are links below, and where these lead.
    moved: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Files of images that were copied, by device and inode.
    copied: BTreeMap<(u64, u64), Copied>,
    /// Directories that are here for other names of these alone.
    alone: BTreeSet<Vec<u8>>,
}

struct Copied {
    from: Source,
    to: Vec<u8>,
    /// It has other names in its layer.
    has_more: bool,
}

impl Fix<'_> {
    /// A directory without an entry is that of the layers below; where they have a link, the layer's files belong
    /// behind it.
    fn implicit_dir(&mut self, path: &[u8]) -> Result<()> {
        if self.behind(path).is_some() {
            return Ok(());
        }
        let Some(found) = self.below.lookup(path)? else { return Ok(()) };
        match found.kind() {
            FileType::Directory => self.dir(path),
            FileType::Symlink => {
                let target = self.below.resolve(path, true)?;
                if is_below(&target, path) {
                    return Err(failed(path, "look up", Errno::LOOP));
                }
                self.put(&found.layer, path, path)?;
                self.moved.insert(path.to_vec(), target.clone());
                self.merge(path, &target, false)
            }
            // Something else below: the layer's directory replaces it.
            _ => Ok(()),
        }
    }

    /// The directory above `path` that is a link below, and where that leads.
    fn behind(&self, path: &[u8]) -> Option<(&Vec<u8>, &Vec<u8>)> {
        ancestors(path).find_map(|a| self.moved.get_key_value(a))
    }

    /// Where nothing lies below a directory with whiteouts, an empty one here makes overlayfs merge, and so hide them.
    fn merged_dir(&mut self, path: &[u8]) -> Result<()> {
        if self.moved.contains_key(path) || self.behind(path).is_some() {
            return Ok(());
        }
        match self.below.lookup(path)? {
            Some(f) if f.kind() == FileType::Directory => Ok(()),
            _ => self.dir(path),
        }
    }

    /// A hard link to a file below, or to another such link, which stood behind it; false when that is not here yet.
    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<bool> {
        let (dir, name) = split(target);
        let target = join(&self.below.resolve(dir, true)?, name);
        let place = match self.behind(path) {
            Some((from, to)) => join(to, &path[from.len() + 1..]),
            None => path.to_vec(),
        };
        let layer = match self.below.lookup(&target)? {
            Some(found) if found.kind() == FileType::Directory => {
                return Err(not_linked(path, &target, "is a directory"));
            }
            Some(found) => found.layer,
            None if at(&self.out, &target)?.is_none() => return Ok(false),
            None => Rc::new(at(&self.out, b"")?.ok_or_else(|| failed(b"", "open", Errno::NOENT))?),
        };
        self.put(&layer, &target, &place)?;
        Ok(true)
    }

    /// A copy is one file with the other names of what it is a copy of only when these are here again: all that show.
    /// Directories that are not here by now are here for them alone.
    fn again(&mut self) -> Result<()> {
        let before: BTreeSet<Vec<u8>> = self.made.keys().cloned().collect();
        let (mut names, mut images) = (Vec::new(), BTreeMap::new());
        for (file, Copied { from, has_more, .. }) in &self.copied {
            match has_more {
                true => drop(images.insert(file.0, from.0.clone())),
                false => names.push((*file, from.0.clone(), from.1.clone())),
            }
        }
        for (device, layer) in images {
            let found = names_of(&layer, |inode| self.copied.contains_key(&(device, inode)))?;
            names.extend(found.into_iter().map(|(inode, name)| ((device, inode), layer.clone(), name)));
        }
        for (file, layer, name) in names {
            if self.behind(&name).is_none()
                && at(&self.out, &name)?.is_none()
                && !self.is_replaced(&name)?
                && self.shown(&name)? == Some(file)
            {
                self.put(&layer, &name, &name)?;
            }
        }
        self.alone = self.made.keys().filter(|path| !before.contains(*path)).cloned().collect();
        Ok(())
    }

    /// Whether something else is here in place of a directory above a path: a link to a file that was in it, for one.
    fn is_replaced(&self, path: &[u8]) -> Result<bool> {
        for above in ancestors(path) {
            let Some(fd) = at(&self.out, above)? else { continue };
            let stat = fs::fstat(&fd).map_err(|e| failed(above, "fstat", e))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Device and inode of what is at a path when only the fixups are missing.
    fn shown(&mut self, path: &[u8]) -> Result<Option<(u64, u64)>> {
        let found = match self.own.lookup(path)? {
            None if !self.own.hides(path)? => self.below.lookup(path)?,
            found => found,
        };
        Ok(found.map(|f| (f.stat.st_dev, f.stat.st_ino)))
    }

    /// Whether what the layers below have at a path would show, but for a mark that is behind a link.
    fn shows_below(&mut self, path: &[u8]) -> Result<bool> {
        let own = self.own.lookup(path)?.is_some() || self.own.hides(path)?;
        Ok(!own && self.below.lookup(path)?.is_some())
    }

    /// Moves what the layer has at `from` to the directory `to`, where nothing of the layers below shows when it is
    /// `sealed`. A mark that hides nothing stays out: overlayfs lists a whiteout in a directory that it has not merged,
    /// and what hides layers below never hides what its own layer has.
    fn merge(&mut self, from: &[u8], to: &[u8], mut sealed: bool) -> Result<()> {
        if to.len() > 4095 {
            return Err(failed(to, "mkdir", Errno::NAMETOOLONG));
        }
        let is_marked = self.implicit.contains(from) && at(&self.layer, from)?.is_some_and(|d| is_opaque(&d));
        if is_marked && !sealed && self.shows_below(to)? {
            self.dir(to)?;
            self.seal(to)?;
            sealed = true;
        }
        for entry in read_dir(&self.layer, from)? {
            let entry = entry.map_err(|e| failed(from, "read", e))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let (from, to) = (join(from, name), join(to, name));
            let Some(fd) = at(&self.layer, &from)? else { continue };
            let stat = fs::fstat(&fd).map_err(|e| failed(&from, "fstat", e))?;
            if is_whiteout(&stat) && (sealed || !self.shows_below(&to)?) {
                continue;
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                self.put(&self.layer.clone(), &from, &to)?;
                continue;
            }
            if !self.implicit.contains(&from[..]) {
                self.explicit_dir(&to, &from, &fd)?;
                self.merge(&from, &to, sealed || is_opaque(&fd))?;
                continue;
            }
            let below = if sealed { None } else { self.below.lookup(&to)?.map(|f| f.kind()) };
            match below {
                Some(FileType::Symlink) => {
                    let behind = self.below.resolve(&to, true)?;
                    self.merge(&from, &behind, false)?;
                }
                _ => self.merge(&from, &to, sealed)?,
            }
        }
        Ok(())
    }

    /// A moved directory that has an entry keeps its metadata, and hides what it hid.
    fn explicit_dir(&mut self, path: &[u8], from: &[u8], source: &OwnedFd) -> Result<()> {
        self.dir(split(path).0)?;
        if !self.made.contains_key(path) {
            let (parent, name) = self.parent(path)?;
            fs::mkdirat(&parent, name, Mode::RWXU).map_err(|e| failed(path, "mkdirat", e))?;
        }
        if is_opaque(source) {
            self.seal(path)?;
        }
        self.made.insert(path.to_vec(), Some((self.layer.clone(), from.to_vec())));
        Ok(())
    }

    /// Hides what the layers below have in a directory that is here.
    fn seal(&self, path: &[u8]) -> Result<()> {
        let dir = open_dir(&self.out, path).map_err(|e| failed(path, "open", e))?;
        let key = Rights::ours().opaque();
        fs::fsetxattr(&dir, key, b"y", XattrFlags::empty()).map_err(|e| failed(path, "setxattr", e))
    }

    /// A directory here and all above it, with the metadata that they have in the image.
    fn dir(&mut self, path: &[u8]) -> Result<()> {
        if path.is_empty() || self.made.contains_key(path) {
            return Ok(());
        }
        self.dir(split(path).0)?;
        let is_dir = |fd: &OwnedFd| {
            fs::fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
        };
        let own = at(&self.layer, path)?.filter(is_dir).map(|_| self.layer.clone());
        let source = match own {
            Some(layer) if !self.implicit.contains(path) => Some(layer),
            own => {
                let below = self.below.lookup(path)?.filter(|f| f.kind() == FileType::Directory);
                below.map(|f| f.layer).or(own)
            }
        };
        let source = source.map(|layer| (layer, path.to_vec()));
        let (parent, name) = self.parent(path)?;
        fs::mkdirat(&parent, name, Mode::RWXU).map_err(|e| failed(path, "mkdirat", e))?;
        self.made.insert(path.to_vec(), source);
        Ok(())
    }

    fn parent<'p>(&self, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8])> {
        let (dir, name) = split(path);
        Ok((open_dir(&self.out, dir).map_err(|e| failed(dir, "open", e))?, name))
    }

    /// Makes `to` here a hard link to `from` of a layer.
    fn put(&mut self, layer: &Rc<OwnedFd>, from: &[u8], to: &[u8]) -> Result<()> {
        self.dir(split(to).0)?;
        let (parent, name) = self.parent(to)?;
        match fs::linkat(&**layer, from, &parent, name, AtFlags::empty()) {
            Err(Errno::EXIST) => {
                if self.made.contains_key(to) {
                    return Err(failed(to, "replace a directory by a file", Errno::ISDIR));
                }
                remove_all(&parent, name).map_err(|e| failed(to, "remove", e))?;
                self.put(layer, from, to)
            }
            Err(Errno::XDEV) => self.copy(layer, from, to, &parent, name),
            other => other.map_err(|e| failed(to, "linkat", e)),
        }
    }

    /// The same out of an image, into which there are no links from elsewhere.
    fn copy(
        &mut self,
        layer: &Rc<OwnedFd>,
        from: &[u8],
        to: &[u8],
        dir: &OwnedFd,
        name: &[u8],
    ) -> Result<()> {
        let source = at(layer, from)?.ok_or_else(|| failed(from, "open", Errno::NOENT))?;
        let stat = fs::fstat(&source).map_err(|e| failed(from, "fstat", e))?;
        let file = (stat.st_dev, stat.st_ino);
        // Names of one file stay so.
        let linked = self
            .copied
            .get(&file)
            .map(|first| fs::linkat(&self.out, &first.to[..], dir, name, AtFlags::empty()));
        match linked {
            Some(Ok(())) => return Ok(()),
            Some(Err(e)) if !matches!(e, Errno::NOENT | Errno::MLINK) => return Err(failed(to, "linkat", e)),
            _ => {}
        }
        copy::one(&source, dir, name).map_err(|e| failed(to, "copy", e))?;
        if !Rc::ptr_eq(layer, &self.layer) {
            let place = merge::proc_path(dir, name);
            note(fs::lsetxattr(&place[..], ORIGIN, from, XattrFlags::empty()))
                .map_err(|e| failed(to, "lsetxattr", e))?;
        }
        let from = (layer.clone(), from.to_vec());
        self.copied.insert(file, Copied { from, to: to.to_vec(), has_more: stat.st_nlink > 1 });
        Ok(())
    }

    fn finish(self) -> Result<bool> {
        for (path, source) in self.made.iter().rev() {
            let dir = open_dir(&self.out, path).map_err(|e| failed(path, "open", e))?;
            match source {
                Some((layer, from)) => {
                    let source = at(layer, from)?.ok_or_else(|| failed(from, "open", Errno::NOENT))?;
                    copy_metadata(&source, &dir).map_err(|e| failed(path, "copy the metadata", e))?
                }
                // As of a directory without an entry in any layer.
                None => {
                    let epoch = Timestamps { last_access: EPOCH, last_modification: EPOCH };
                    fs::fchmod(&dir, Mode::from_raw_mode(0o755)).map_err(|e| failed(path, "fchmod", e))?;
                    fs::futimens(&dir, &epoch).map_err(|e| failed(path, "futimens", e))?;
                }
            }
            if self.alone.contains(path) {
                note(fs::fsetxattr(&dir, ORIGIN, path, XattrFlags::empty()))
                    .map_err(|e| failed(path, "fsetxattr", e))?;
            }
        }
        names(&self.out).map(|names| !names.is_empty()).map_err(|e| failed(b"", "read", e))
    }
}

fn not_linked(path: &[u8], target: &[u8], what: &str) -> Error {
    let place = format!("hard link {:?}", String::from_utf8_lossy(path));
    Error::invalid(place, format!("{:?} {what}", String::from_utf8_lossy(target)))
}

/// The inodes of an image that are `wanted`, with their names.
fn names_of(layer: &OwnedFd, wanted: impl Fn(u64) -> bool) -> Result<Vec<(u64, Vec<u8>)>> {
    let (mut out, mut todo) = (Vec::new(), vec![Vec::new()]);
    while let Some(path) = todo.pop() {
        for entry in read_dir(layer, &path)? {
            let entry = entry.map_err(|e| failed(&path, "read", e))?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() != FileType::Directory && wanted(entry.ino()) {
                out.push((entry.ino(), join(&path, name)));
            } else if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                todo.push(join(&path, name));
            }
        }
    }
    Ok(out)
}

/// A path may be too long for an attribute. Without it a squashed layer has what it could leave to those below.
fn note(set: std::result::Result<(), Errno>) -> std::result::Result<(), Errno> {
    match set {
        Err(Errno::NOSPC | Errno::RANGE | Errno::TOOBIG | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

/// Owner, mode, attributes and time of a directory, `from` being an `O_PATH` descriptor.
pub fn copy_metadata(from: &OwnedFd, to: &OwnedFd) -> std::result::Result<(), Errno> {
    let stat = fs::fstat(from)?;
    if Rights::ours().owners {
        fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    }
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy::xattrs(from, |key, value| fs::fsetxattr(to, key, value, XattrFlags::empty()))?;
    fs::futimens(to, &copy::times(&stat))
}
