//! A layer's entries to an EROFS image. Files are written as they arrive, directories at the end; what is kept of a name
//! is where its inode stands.

use super::format::{
    BLOCK, Inode, Kind, Layout, SLOT, SUPER, Super, device, directory, directory_size, is_acl, nlink_field,
    xattr_body, xattrs,
};
use super::space::{MAX_TAIL, Out, Space};
use crate::error::{Error, Result};
use crate::image::layer::dirs::failed;
use crate::image::layer::entry::{Meta, refuse, shown, split};
use crate::image::layer::files::copy;
use crate::image::layer::sink::{Node, Seen, Sink};
use crate::image::tree::Told;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufRead;
use std::ops::Bound;

/// The root's inode, behind the superblock: its number has 16 bits only.
const ROOT: u64 = SUPER as u64 + 128;
/// From this size on a file's end has a block of its own: large reads and mappings then go by whole blocks.
const LARGE: u64 = 64 << 10;
/// Most names of one file, as in ext4.
const MAX_LINKS: u32 = 65000;

pub struct Image {
    out: Out,
    space: Space,
    /// What each name is, by the number of its directory (four bytes, the highest first) and the name. Sorted so, a
    /// directory's names are found together, in the order that the format wants.
    names: BTreeMap<Box<[u8]>, Value>,
    /// Directories that were ever made, which are numbered.
    dirs: u32,
    /// The directory that was looked up last.
    last: (Vec<u8>, u32),
    /// Inodes of several names.
    links: BTreeMap<u64, u32>,
    /// All whiteouts are one inode.
    whiteout: Option<u64>,
    /// Time of the entry that came first, which is that of all in many layers: the image's time, for short inodes.
    time: Option<(i64, u32)>,
    /// Bytes of its regular files.
    bytes: u64,
    uuid: [u8; 16],
}

/// The type of a name, in the lowest five bits; above them where its inode is, or the number of a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Value(u64);

impl Value {
    fn inode(place: u64, kind: Kind) -> Self {
        Self(place | kind as u64)
    }

    fn dir(number: u32) -> Self {
        Self((u64::from(number) * SLOT) | Kind::Dir as u64)
    }

    fn kind(self) -> Kind {
        Kind::of(self.0 % SLOT)
    }

    fn place(self) -> u64 {
        self.0 - self.0 % SLOT
    }

    fn number(self) -> u32 {
        (self.0 / SLOT) as u32
    }
}

fn key(dir: u32, name: &[u8]) -> Vec<u8> {
    [&dir.to_be_bytes()[..], name].concat()
}

fn written(path: &[u8]) -> impl Fn(std::io::Error) -> Error + '_ {
    |e| Error::io(format!("entry {:?}", shown(path)), "write", &e)
}

impl Image {
    /// Into an empty file that can be read, too.
    pub fn new(file: File, uuid: [u8; 16]) -> Self {
        Self {
            out: Out::new(file),
            space: Space::default(),
            names: BTreeMap::new(),
            dirs: 1,
            last: (Vec::new(), 0),
            links: BTreeMap::new(),
            whiteout: None,
            time: None,
            bytes: 0,
            uuid,
        }
    }

    /// What is in it by now.
    pub fn told(&self) -> Told {
        Told { names: self.names.len() as u64, bytes: self.bytes }
    }

    /// The number of a directory.
    fn dir_number(&mut self, path: &[u8]) -> Result<u32> {
        if self.last.0 != path {
            let mut at = 0;
            for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
                let found = self.names.get(&key(at, part)[..]).filter(|v| v.kind() == Kind::Dir);
                at = found.ok_or_else(|| failed(path, "look up", Errno::NOENT))?.number();
            }
            self.last = (path.to_vec(), at);
        }
        Ok(self.last.1)
    }

    fn key(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let (dir, name) = split(path);
        Ok(key(self.dir_number(dir)?, name))
    }

    /// The keys of all names of a directory.
    fn below(&self, number: u32) -> impl Iterator<Item = (&Box<[u8]>, &Value)> {
        let of = number.to_be_bytes();
        let from = (Bound::Included(&of[..]), Bound::Unbounded);
        self.names.range::<[u8], _>(from).take_while(move |n| n.0.starts_with(&of))
    }

    /// The key of a name that is free.
    fn free(&mut self, path: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(Some(self.key(path)?).filter(|key| !self.names.contains_key(&key[..])))
    }

    fn add(&mut self, key: Vec<u8>, value: Value) {
        self.names.insert(key.into_boxed_slice(), value);
    }

    /// Takes blocks; which, and their first one's number.
    fn blocks(space: &mut Space, path: &[u8], size: u64) -> Result<(u64, u32)> {
        let at = space.blocks(size);
        if space.end() / BLOCK > u64::from(u32::MAX) {
            return Err(refuse(path, "takes the layer beyond 16 TiB"));
        }
        Ok((at, (at / BLOCK) as u32))
    }

    /// Writes an inode with what stands behind it, and notes its name.
    fn inode(&mut self, path: &[u8], key: Vec<u8>, inode: &Inode, tail: &[u8]) -> Result<u64> {
        let compact = inode.is_compact(*self.time.get_or_insert(inode.meta.mtime));
        let head = if compact { 32 } else { 64 } + inode.xattrs.len();
        let at = self.space.record(head as u64, tail.len() as u64);
        let mut bytes = inode.encode(compact, (at / SLOT) as u32);
        bytes.extend_from_slice(tail);
        self.out.record(at, &bytes).map_err(written(path))?;
        self.add(key, Value::inode(at, inode.kind));
        Ok(at)
    }

    /// The target of the link whose inode is at `place`.
    fn target(&mut self, place: u64) -> std::io::Result<Vec<u8>> {
        let head = self.out.read(place, 32)?;
        let number =
            |at: usize, len: usize| head[at..at + len].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        let (format, attributes, size, block) = (number(0, 2), number(2, 2), number(8, 4), number(16, 4));
        let body = if attributes == 0 { 0 } else { 12 + 4 * (attributes - 1) };
        let inline = place + if format & 1 == 1 { 64 } else { 32 } + body;
        let at = if format >> 1 == Layout::Inline as u64 { inline } else { block * BLOCK };
        self.out.read(at, size as usize)
    }

    /// One name less for an inode.
    fn unlink(&mut self, path: &[u8], value: Value) -> Result<()> {
        let left = self.links.get_mut(&value.place()).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 && value.kind() == Kind::File {
            let head = self.out.read(value.place(), 16).map_err(|e| Error::io(shown(path), "read", &e))?;
            let size = &head[8..if head[0] & 1 == 1 { 16 } else { 12 }];
            self.bytes -= size.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
        }
        Ok(())
    }
}

/// Attributes of an entry behind its inode, and its metadata as they change it.
fn attributes(path: &[u8], kind: Kind, meta: &Meta) -> Result<(Vec<u8>, Meta)> {
    let mut meta = meta.clone();
    apply_acl(&mut meta);
    Ok((xattr_body(path, &[], &xattrs(path, kind, &meta, false)?)?, meta))
}

/// Does what setting an access list does: the mode follows it, and one that says no more than the mode is not kept
/// (acl(5), CORRESPONDENCE BETWEEN ACL ENTRIES AND FILE PERMISSION BITS).
fn apply_acl(meta: &mut Meta) {
    const ACCESS: &[u8] = b"system.posix_acl_access";
    let Some(at) = meta.xattrs.iter().position(|x| x.0 == ACCESS && is_acl(&x.1)) else { return };
    let (mut mode, mut group, mut mask) = (meta.mode & !0o777, 0, None);
    for entry in meta.xattrs[at].1.get(4..).unwrap_or_default().chunks_exact(8) {
        let bits = u32::from(entry[2]) & 7;
        match entry[0] {
            0x01 => mode |= bits << 6,
            0x04 => group = bits,
            0x10 => mask = Some(bits),
            0x20 => mode |= bits,
            _ => {}
        }
    }
    meta.mode = mode | mask.unwrap_or(group) << 3;
    if mask.is_none() {
        meta.xattrs.remove(at);
    }
}

impl Sink for Image {
    fn look(&mut self, path: &[u8]) -> Result<Option<Seen>> {
        let key = self.key(path)?;
        match self.names.get(&key[..]).copied() {
            Some(v) if v.kind() == Kind::Link => {
                let target = self.target(v.place());
                target.map(|t| Some(Seen::Link(t))).map_err(|e| Error::io(shown(path), "read", &e))
            }
            other => Ok(other.map(|_| Seen::Other)),
        }
    }

    fn dir(&mut self, path: &[u8]) -> Result<bool> {
        let Some(key) = self.free(path)? else { return Ok(false) };
        self.add(key, Value::dir(self.dirs));
        self.dirs += 1;
        Ok(true)
    }

    fn file(
        &mut self,
        path: &[u8],
        size: u64,
        extents: &[(u64, u64)],
        meta: &Meta,
        data: &mut dyn BufRead,
    ) -> Result<bool> {
        let Some(key) = self.free(path)? else { return Ok(false) };
        let (xattrs, meta) = attributes(path, Kind::File, meta)?;
        let rest = size % BLOCK;
        let inline = size < LARGE && (1..=MAX_TAIL).contains(&rest);
        let whole = if inline { size - rest } else { size };
        let (start, place) = Self::blocks(&mut self.space, path, whole)?;
        let mut tail = vec![0; (size - whole) as usize];
        for (offset, length) in extents {
            let mut at = *offset;
            copy(data, *length, |piece| {
                let front = usize::try_from(whole.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
                let (blocks, behind) = piece.split_at(front);
                if !blocks.is_empty() {
                    self.out.data(start + at, blocks).map_err(written(path))?;
                }
                at += piece.len() as u64;
                let end = (at.max(whole) - whole) as usize;
                tail[end - behind.len()..end].copy_from_slice(behind);
                Ok(())
            })?;
        }
        let layout = if inline { Layout::Inline } else { Layout::Plain };
        let inode = Inode { kind: Kind::File, meta: &meta, xattrs: &xattrs, layout, size, place, nlink: 1 };
        self.inode(path, key, &inode, &tail)?;
        self.bytes += size;
        Ok(true)
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<bool> {
        let Some(key) = self.free(path)? else { return Ok(false) };
        if target.len() > 4095 {
            return Err(failed(path, "symlink", Errno::NAMETOOLONG));
        }
        let (xattrs, meta) = attributes(path, Kind::Link, meta)?;
        // A link has no mode of its own.
        let meta = Meta { mode: 0o777, ..meta };
        let size = target.len() as u64;
        let (layout, place, tail) = if size <= MAX_TAIL {
            (Layout::Inline, 0, target)
        } else {
            let (start, place) = Self::blocks(&mut self.space, path, size)?;
            self.out.data(start, target).map_err(written(path))?;
            (Layout::Plain, place, &b""[..])
        };
        let inode = Inode { kind: Kind::Link, meta: &meta, xattrs: &xattrs, layout, size, place, nlink: 1 };
        self.inode(path, key, &inode, tail)?;
        Ok(true)
    }

    fn node(&mut self, path: &[u8], node: Node, meta: &Meta) -> Result<bool> {
        let Some(key) = self.free(path)? else { return Ok(false) };
        let (kind, place) = match node {
            Node::Char(major, minor) => (Kind::Char, device(major, minor)),
            Node::Block(major, minor) => (Kind::Block, device(major, minor)),
            Node::Fifo => (Kind::Fifo, 0),
        };
        let (xattrs, meta) = attributes(path, kind, meta)?;
        let layout = Layout::Plain;
        let inode = Inode { kind, meta: &meta, xattrs: &xattrs, layout, size: 0, place, nlink: 1 };
        self.inode(path, key, &inode, b"")?;
        Ok(true)
    }

    fn link(&mut self, from: &[u8], path: &[u8]) -> Result<bool> {
        let Some(key) = self.free(path)? else { return Ok(false) };
        let from = self.key(from)?;
        let Some(value) = self.names.get(&from[..]).copied() else {
            return Err(failed(path, "link", Errno::NOENT));
        };
        let count = self.links.entry(value.place()).or_insert(1);
        *count += 1;
        if *count > MAX_LINKS {
            return Err(failed(path, "link", Errno::MLINK));
        }
        self.add(key, value);
        Ok(true)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<bool> {
        let Some(key) = self.free(path)? else { return Ok(false) };
        let Some(at) = self.whiteout else {
            let meta = Meta::default();
            let (kind, layout) = (Kind::Char, Layout::Plain);
            // In the long form, which has room for any number of names; they are counted at the end.
            let nlink = u32::MAX;
            let inode = Inode { kind, meta: &meta, xattrs: b"", layout, size: 0, place: 0, nlink };
            let at = self.inode(path, key, &inode, b"")?;
            self.whiteout = Some(at);
            self.links.insert(at, 1);
            return Ok(true);
        };
        *self.links.entry(at).or_insert(1) += 1;
        self.add(key, Value::inode(at, Kind::Char));
        Ok(true)
    }

    fn remove(&mut self, path: &[u8], _is_dir: bool) -> Result<()> {
        let key = self.key(path)?;
        self.last = (Vec::new(), 0);
        let mut gone: Vec<Value> = self.names.remove(&key[..]).into_iter().collect();
        while let Some(value) = gone.pop() {
            if value.kind() != Kind::Dir {
                self.unlink(path, value)?;
                continue;
            }
            let below: Vec<Box<[u8]>> = self.below(value.number()).map(|n| n.0.clone()).collect();
            gone.extend(below.iter().filter_map(|name| self.names.remove(name)));
        }
        Ok(())
    }

    fn finish(&mut self, dirs: &[(&[u8], &Meta, bool)]) -> Result<()> {
        let mut first = vec![0; BLOCK as usize];
        let mut root = dirs.iter().find(|d| d.0.is_empty()).map(|d| d.1.clone()).unwrap_or_default();
        apply_acl(&mut root);
        let shared = xattrs(b"", Kind::Dir, &root, false)?;
        let (shared_block, shared) = self.shared(&shared)?;
        // The places of all are known before the first is written: each names its parent and its children.
        let mut places = vec![ROOT; self.dirs as usize];
        let mut trial = self.space.clone();
        for dir in dirs {
            let number = self.dir_number(dir.0)? as usize;
            places[number] = self.plan(&mut trial, dir, &shared)?.at;
        }
        for dir in dirs {
            let mut space = self.space.clone();
            let plan = self.plan(&mut space, dir, &shared)?;
            self.space = space;
            self.directory(dir.0, &plan, &places, &mut first)?;
        }
        let extra: u64 = self.links.values().map(|n| u64::from(*n).saturating_sub(1)).sum();
        for (at, count) in std::mem::take(&mut self.links) {
            let written = written(b"");
            let format = self.out.read(at, 1).map_err(&written)?;
            let (field, len) = nlink_field(format[0] & 1 == 0);
            self.out.patch(at + field, &count.to_le_bytes()[..len]).map_err(&written)?;
        }
        let blocks = self.space.end() / BLOCK;
        let about = Super {
            root: (ROOT / SLOT) as u16,
            inodes: self.names.len() as u64 + 1 - extra,
            time: self.time.unwrap_or_default(),
            blocks: u32::try_from(blocks).map_err(|_| refuse(b"", "takes the layer beyond 16 TiB"))?,
            shared: shared_block,
            uuid: self.uuid,
        };
        about.encode(&mut first);
        self.out.patch(0, &first).and_then(|()| self.out.finish(blocks * BLOCK)).map_err(written(b""))
    }
}

/// A directory, and where it is to stand.
struct Plan {
    number: u32,
    at: u64,
    /// Of the blocks of its names.
    data: u64,
    whole: u64,
    /// The inode, but for its number.
    head: Vec<u8>,
}

impl Image {
    /// Writes the root's attributes to a place of their own, for which the first block may be too small: the block they
    /// are counted from, and where each is.
    fn shared(&mut self, all: &[Vec<u8>]) -> Result<(u32, Vec<u32>)> {
        if all.is_empty() {
            return Ok((0, Vec::new()));
        }
        let at = self.space.record(all.iter().map(|x| x.len() as u64).sum(), 0);
        self.out.record(at, &all.concat()).map_err(written(b""))?;
        let mut next = (at % BLOCK / 4) as u32;
        let places = all.iter().map(|x| {
            let this = next;
            next += (x.len() / 4) as u32;
            this
        });
        Ok(((at / BLOCK) as u32, places.collect()))
    }

    /// All names of a directory, sorted, and what they are; of itself and its parent not yet.
    fn list(&self, number: u32) -> Vec<(&[u8], Option<Value>)> {
        let mut out: Vec<_> = self.below(number).map(|(name, value)| (&name[4..], Some(*value))).collect();
        for name in [&b"."[..], b".."] {
            let at = out.partition_point(|n| n.0 < name);
            out.insert(at, (name, None));
        }
        out
    }

    fn plan(&mut self, space: &mut Space, dir: &(&[u8], &Meta, bool), shared: &[u32]) -> Result<Plan> {
        let (path, meta, opaque) = *dir;
        let number = self.dir_number(path)?;
        let mut meta = meta.clone();
        apply_acl(&mut meta);
        let body = if path.is_empty() {
            xattr_body(path, shared, &[])?
        } else {
            xattr_body(path, &[], &xattrs(path, Kind::Dir, &meta, opaque)?)?
        };
        let list = self.list(number);
        let size = directory_size(list.iter().map(|n| n.0));
        let subdirs = list.iter().filter(|n| n.1.is_some_and(|v| v.kind() == Kind::Dir)).count();
        let rest = size % BLOCK;
        let (kind, xattrs, nlink) = (Kind::Dir, &body[..], 2 + subdirs as u32);
        let mut inode = Inode { kind, meta: &meta, xattrs, layout: Layout::Inline, size, place: 0, nlink };
        let compact = inode.is_compact(self.time.unwrap_or_default());
        let head = if compact { 32 } else { 64 } + body.len() as u64;
        let room = if path.is_empty() { BLOCK - ROOT - head } else { MAX_TAIL };
        let mut whole = size - rest;
        if rest > room || rest == 0 {
            (inode.layout, whole) = (Layout::Plain, size);
        }
        let (data, place) = Self::blocks(space, path, whole)?;
        let at = if path.is_empty() { ROOT } else { space.record(head, size - whole) };
        inode.place = place;
        let head = inode.encode(compact, (at / SLOT) as u32);
        Ok(Plan { number, at, data, whole, head })
    }

    fn directory(&mut self, path: &[u8], plan: &Plan, places: &[u64], first: &mut [u8]) -> Result<()> {
        let parent = self.dir_number(split(path).0)? as usize;
        let list = self.list(plan.number);
        let entries = list.iter().map(|(name, value)| match value {
            None if *name == b"." => (*name, plan.at / SLOT, Kind::Dir),
            None => (*name, places[parent] / SLOT, Kind::Dir),
            Some(v) if v.kind() == Kind::Dir => (*name, places[v.number() as usize] / SLOT, Kind::Dir),
            Some(v) => (*name, v.place() / SLOT, v.kind()),
        });
        let bytes = directory(&entries.collect::<Vec<_>>());
        let (blocks, tail) = bytes.split_at(plan.whole as usize);
        if !blocks.is_empty() {
            self.out.data(plan.data, blocks).map_err(written(path))?;
        }
        let record = [&plan.head[..], tail].concat();
        if path.is_empty() {
            first[ROOT as usize..ROOT as usize + record.len()].copy_from_slice(&record);
            return Ok(());
        }
        self.out.record(plan.at, &record).map_err(written(path))
    }
}
