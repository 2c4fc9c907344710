//! What stands in an EROFS image, byte by byte. All numbers are little-endian.

use crate::error::Result;
use crate::image::layer::entry::{Meta, refuse, shown};

pub const BLOCK: u64 = 4096;
/// Where the superblock stands in the first block.
pub const SUPER: usize = 1024;
/// Inodes start at multiples of this: their number is the place divided by it.
pub const SLOT: u64 = 32;
const MAGIC: u32 = 0xe0f5_e1e2;

/// How a file's data lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// All of it in blocks of its own.
    Plain = 0,
    /// Whole blocks, and the rest behind the inode and its attributes.
    Inline = 2,
}

/// Types of directory entries (as `DT_*` of readdir(3), but counted through).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File = 1,
    Dir = 2,
    Char = 3,
    Block = 4,
    Fifo = 5,
    Link = 7,
}

impl Kind {
    pub fn of(bits: u64) -> Self {
        match bits {
            2 => Kind::Dir,
            3 => Kind::Char,
            4 => Kind::Block,
            5 => Kind::Fifo,
            7 => Kind::Link,
            _ => Kind::File,
        }
    }

    fn mode(self) -> u32 {
        match self {
            Kind::File => libc::S_IFREG,
            Kind::Dir => libc::S_IFDIR,
            Kind::Char => libc::S_IFCHR,
            Kind::Block => libc::S_IFBLK,
            Kind::Fifo => libc::S_IFIFO,
            Kind::Link => libc::S_IFLNK,
        }
    }
}

/// An inode, whose attributes are encoded.
pub struct Inode<'a> {
    pub kind: Kind,
    pub meta: &'a Meta,
    pub xattrs: &'a [u8],
    pub layout: Layout,
    pub size: u64,
    /// First block of the data, or a device number.
    pub place: u32,
    pub nlink: u32,
}

impl Inode<'_> {
    /// Whether the short form holds it: it has no time of its own, but that of the image.
    pub fn is_compact(&self, time: (i64, u32)) -> bool {
        let small = |n: u32| n <= 0xffff;
        self.meta.mtime == time
            && self.size <= u64::from(u32::MAX)
            && small(self.meta.uid)
            && small(self.meta.gid)
            && small(self.nlink)
    }

    /// The inode with its attributes. `number` is what programs see of it where 64 bits are too many.
    pub fn encode(&self, compact: bool, number: u32) -> Vec<u8> {
        let m = self.meta;
        let format = (self.layout as u16) << 1 | u16::from(!compact);
        let xattr_count = if self.xattrs.is_empty() { 0 } else { (self.xattrs.len() - 12) / 4 + 1 };
        let mode = self.kind.mode() | m.mode;
        let mut out = Vec::with_capacity(64 + self.xattrs.len());
        put16(&mut out, format);
        put16(&mut out, xattr_count as u16);
        put16(&mut out, mode as u16);
        if compact {
            put16(&mut out, self.nlink as u16);
            put32(&mut out, self.size as u32);
            put32(&mut out, 0);
            put32(&mut out, self.place);
            put32(&mut out, number);
            put16(&mut out, m.uid as u16);
            put16(&mut out, m.gid as u16);
            put32(&mut out, 0);
        } else {
            put16(&mut out, 0);
            put64(&mut out, self.size);
            put32(&mut out, self.place);
            put32(&mut out, number);
            put32(&mut out, m.uid);
            put32(&mut out, m.gid);
            put64(&mut out, m.mtime.0 as u64);
            put32(&mut out, m.mtime.1);
            put32(&mut out, self.nlink);
            out.resize(64, 0);
        }
        out.extend_from_slice(self.xattrs);
        out
    }
}

/// Where the count of links stands in an inode, and in how many bytes.
pub fn nlink_field(compact: bool) -> (u64, usize) {
    if compact { (6, 2) } else { (44, 4) }
}

/// A device number as the kernel keeps it (new_encode_dev).
pub fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// Names of attributes by their first part: its number, and the rest. Others are not kept, as by other file systems.
fn prefix(key: &[u8]) -> Option<(u8, &[u8])> {
    let exact = |name: &[u8]| if key == name { Some(&b""[..]) } else { None };
    exact(b"system.posix_acl_access")
        .map(|rest| (2, rest))
        .or_else(|| exact(b"system.posix_acl_default").map(|rest| (3, rest)))
        .or_else(|| key.strip_prefix(b"user.").map(|rest| (1, rest)))
        .or_else(|| key.strip_prefix(b"trusted.").map(|rest| (4, rest)))
        .or_else(|| key.strip_prefix(b"security.").map(|rest| (6, rest)))
}

/// The attributes of an entry, each encoded; what the kernel refuses to set is refused here.
pub fn xattrs(path: &[u8], kind: Kind, meta: &Meta, opaque: bool) -> Result<Vec<Vec<u8>>> {
    let mark = opaque.then_some((&b"trusted.overlay.opaque"[..], &b"y"[..]));
    let mut out = Vec::new();
    for (key, value) in meta.own_xattrs().chain(mark) {
        let wrong = |what: &str| refuse(path, format!("has the attribute {} {what}", shown(key)));
        let Some((index, name)) = prefix(key) else { continue };
        let acl = matches!(index, 2 | 3);
        let tree = matches!(kind, Kind::File | Kind::Dir);
        // xattr(7): user.* belongs to files and directories alone.
        // An empty list takes one away.
        if index == 1 && !tree || acl && (kind == Kind::Link || value.is_empty()) {
            continue;
        }
        if index == 3 && kind != Kind::Dir {
            return Err(wrong("and is no directory"));
        }
        if name.is_empty() && !acl || name.len() > 255 {
            return Err(wrong("of a wrong name"));
        }
        if value.len() > 0xffff {
            return Err(wrong(&format!("of {} bytes, at most 65535 are kept", value.len())));
        }
        if key == b"security.capability" && !value.is_empty() && !is_capability(value)
            || acl && !is_acl(value)
        {
            return Err(wrong("of a wrong value"));
        }
        let mut one = vec![name.len() as u8, index];
        put16(&mut one, value.len() as u16);
        one.extend_from_slice(name);
        one.extend_from_slice(value);
        one.resize(one.len().next_multiple_of(4), 0);
        out.push(one);
    }
    Ok(out)
}

/// capabilities(7): revision 2 or 3, of their sizes, and one flag.
fn is_capability(value: &[u8]) -> bool {
    matches!(value, [0 | 1, 0, 0, revision, ..] if (*revision, value.len()) == (2, 20) || (*revision, value.len()) == (3, 24))
}

/// Version 2 of acl(5): a head, and entries of eight bytes in the order of their tags. Those of owner, group and others
/// are there once; where users or groups are named, there is a mask.
pub fn is_acl(value: &[u8]) -> bool {
    let Some(entries) = value.strip_prefix(&[2, 0, 0, 0]) else { return false };
    let tags: Vec<u8> = entries.chunks(8).map(|e| e[0]).collect();
    let count = |tag: u8| tags.iter().filter(|t| **t == tag).count();
    let named = count(0x02) + count(0x08);
    entries.len() % 8 == 0
        && entries.chunks(8).all(|e| e[1] == 0 && e[2] <= 7 && e[3] == 0)
        && tags.is_sorted()
        && tags.iter().all(|t| [0x01, 0x02, 0x04, 0x08, 0x10, 0x20].contains(t))
        && [0x01, 0x04, 0x20].iter().all(|t| count(*t) == 1)
        && count(0x10) <= 1
        && (named == 0 || count(0x10) == 1)
}

/// Attributes behind their inode: a head of 12 bytes, places of those that stand elsewhere, the others.
pub fn xattr_body(path: &[u8], shared: &[u32], inline: &[Vec<u8>]) -> Result<Vec<u8>> {
    if shared.is_empty() && inline.is_empty() {
        return Ok(Vec::new());
    }
    let count = u8::try_from(shared.len()).map_err(|_| refuse(path, "has more than 255 attributes"))?;
    let mut out = vec![0; 12];
    out[4] = count;
    shared.iter().for_each(|place| put32(&mut out, *place));
    inline.iter().for_each(|one| out.extend_from_slice(one));
    if (out.len() - 12) / 4 + 1 > 0xffff {
        return Err(refuse(path, "has more than 256 KiB of attributes"));
    }
    Ok(out)
}

/// The bytes of a directory: its names, which must be sorted, with number and type. Each block has the entries in
/// front and the names behind them.
pub fn directory(entries: &[(&[u8], u64, Kind)]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    let mut rest = entries;
    while !rest.is_empty() {
        out.resize(out.len().next_multiple_of(BLOCK as usize), 0);
        let mut size = 0;
        let fit = rest.iter().take_while(|e| {
            size += 12 + e.0.len();
            size <= BLOCK as usize
        });
        let (block, more) = rest.split_at(fit.count());
        let mut name = 12 * block.len();
        for (text, number, kind) in block {
            put64(&mut out, *number);
            put16(&mut out, name as u16);
            out.extend_from_slice(&[*kind as u8, 0]);
            name += text.len();
        }
        block.iter().for_each(|e| out.extend_from_slice(e.0));
        rest = more;
    }
    out
}

/// The length that [`directory`] will have.
pub fn directory_size<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut blocks, mut used) = (0, 0);
    for name in names {
        let more = 12 + name.len() as u64;
        if used + more > BLOCK {
            blocks += 1;
            used = 0;
        }
        used += more;
    }
    blocks * BLOCK + used
}

pub struct Super {
    pub root: u16,
    pub inodes: u64,
    pub time: (i64, u32),
    pub blocks: u32,
    /// The block that shared attributes are counted from.
    pub shared: u32,
    pub uuid: [u8; 16],
}

impl Super {
    /// Writes itself into the first block, whose checksum covers what else is in it.
    pub fn encode(&self, block: &mut [u8]) {
        let mut s = Vec::with_capacity(128);
        put32(&mut s, MAGIC);
        put32(&mut s, 0);
        put32(&mut s, 3); // has a checksum; times are those of modification
        s.extend_from_slice(&[BLOCK.trailing_zeros() as u8, 0]);
        put16(&mut s, self.root);
        put64(&mut s, self.inodes);
        put64(&mut s, self.time.0 as u64);
        put32(&mut s, self.time.1);
        put32(&mut s, self.blocks);
        put32(&mut s, 0); // inodes are counted from the start
        put32(&mut s, self.shared);
        s.extend_from_slice(&self.uuid);
        block[SUPER..SUPER + s.len()].copy_from_slice(&s);
        let sum = crc32c(&block[SUPER..]);
        block[SUPER + 4..SUPER + 8].copy_from_slice(&sum.to_le_bytes());
    }
}

/// CRC-32C without its last inversion.
fn crc32c(data: &[u8]) -> u32 {
    data.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| c >> 1 ^ if c & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

fn put16(out: &mut Vec<u8>, n: u16) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}
