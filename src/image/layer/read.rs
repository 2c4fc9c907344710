//! The tar stream to checked entries. One reading of each header: PAX over GNU long names over the header itself, for
//! the next file only (CVE-2025-62518, CVE-2026-33055: sizes that two readers see differently).

use super::entry::{Entry, Kind, Meta, attributes, clean, refuse};
use super::pax::{Pax, decimal};
use crate::error::{Error, Result};
use crate::image::limits::{EXTENSION, Limits};
use std::io::{self, BufRead, Read, Seek};

const BLOCK: u64 = 512;
/// Most extents of a sparse file.
const MAX_EXTENTS: usize = 100_000;

/// Reads entries one behind the other; the data of the last one is read through [`Reader::data`].
pub struct Reader<R> {
    inner: R,
    limits: Limits,
    /// Data of the entry that is still unread, and the padding behind it.
    left: u64,
    pad: u64,
    count: u64,
    unpacked: u64,
}

/// A number of the header: its name and place.
type Field = (&'static str, usize, usize);
const MODE: Field = ("mode", 100, 108);
const UID: Field = ("uid", 108, 116);
const GID: Field = ("gid", 116, 124);
const SIZE: Field = ("size", 124, 136);
const MTIME: Field = ("mtime", 136, 148);
const MAJOR: Field = ("major", 329, 337);
const MINOR: Field = ("minor", 337, 345);

/// Extension headers in front of an entry.
#[derive(Default)]
struct Pending {
    pax: Pax,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    any: bool,
}

impl<R: BufRead> Reader<R> {
    pub fn new(inner: R, limits: Limits) -> Self {
        Self { inner, limits, left: 0, pad: 0, count: 0, unpacked: 0 }
    }

    /// The next entry; what was not read of the one before is skipped. `None` at the end of the archive, behind which
    /// the stream may go on.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut pending = Pending::default();
        let mut room = EXTENSION;
        loop {
            self.skip_rest()?;
            let Some(block) = self.header()? else {
                return if pending.any {
                    Err(refuse(b"", "is missing behind its extended header"))
                } else {
                    Ok(None)
                };
            };
            self.count += 1;
            if self.count > self.limits.entries {
                return Err(Error::invalid("", format!("has more than {} entries", self.limits.entries))
                    .hint("raise --max-entries"));
            }
            let header = tar::Header::from_byte_slice(&block);
            let kind = block[156];
            match kind {
                b'x' | b'X' => pending.pax.add(&self.extension(header, &mut room)?)?,
                b'L' => pending.name = Some(c_bytes(self.extension(header, &mut room)?)),
                b'K' => pending.link = Some(c_bytes(self.extension(header, &mut room)?)),
                // Global headers and volume labels say nothing of a layer; a path or size in them is never applied.
                b'g' | b'V' => {
                    self.extension(header, &mut room)?;
                    continue;
                }
                _ => return self.entry(header, pending).map(Some),
            }
            pending.any = true;
        }
    }

    /// The data of the entry that [`Reader::next_entry`] returned last, without holes.
    pub fn data(&mut self) -> impl BufRead + '_ {
        Data(self)
    }

    fn entry(&mut self, header: &tar::Header, pending: Pending) -> Result<Entry> {
        let Pending { mut pax, name, link, .. } = pending;
        let raw = pax.sparse.name.take().or(pax.path.take()).or(name);
        let raw = raw.unwrap_or_else(|| header.path_bytes().into_owned());
        let path = clean(&raw, &self.limits)?;
        let link = pax.linkpath.take().or(link);
        let link = link.or_else(|| header.link_name_bytes().map(|l| l.into_owned())).unwrap_or_default();
        let kind = self.kind(header, &raw, &pax, link)?;
        if path.is_empty() && kind != Kind::Dir {
            return Err(refuse(&raw, "is the root, which is a directory"));
        }
        let id = |pax: Option<u64>, head: Field| {
            let n = pax.map_or_else(|| number(header, &raw, head), Ok)?;
            let id = u32::try_from(n).ok().filter(|n| *n != u32::MAX);
            id.ok_or_else(|| refuse(&raw, format!("has the {} {n}", head.0)))
        };
        // A time before the epoch, which GNU tar writes as a negative number, is not worth refusing an image.
        let mtime = || i64::try_from(number(header, &raw, MTIME).unwrap_or(0)).unwrap_or(0);
        let meta = Meta {
            mode: number(header, &raw, MODE)? as u32 & 0o7777,
            uid: id(pax.uid, UID)?,
            gid: id(pax.gid, GID)?,
            mtime: pax.mtime.unwrap_or_else(|| (mtime(), 0)),
            xattrs: pax.xattrs.into_iter().collect(),
        };
        attributes(&raw, &meta)?;
        Ok(Entry { path, kind, meta })
    }

    fn kind(&mut self, header: &tar::Header, raw: &[u8], pax: &Pax, link: Vec<u8>) -> Result<Kind> {
        let flag = header.as_bytes()[156];
        // Old tar marks directories by a slash only.
        let flag = if matches!(flag, 0 | b'0') && raw.ends_with(b"/") { b'5' } else { flag };
        Ok(match flag {
            0 | b'0' | b'7' | b'S' => {
                let size = pax.size.map_or_else(|| number(header, raw, SIZE), Ok)?;
                self.file(header, raw, size, pax, flag == b'S')?
            }
            b'5' => Kind::Dir,
            b'1' => match clean(&link, &self.limits)? {
                target if target.is_empty() => return Err(refuse(raw, "is a hard link to nothing")),
                target => Kind::Link(target),
            },
            b'2' if link.is_empty() || link.contains(&0) || link.len() > self.limits.path => {
                return Err(refuse(raw, "is a symbolic link with a wrong target"));
            }
            b'2' => Kind::Symlink(link),
            b'3' | b'4' => {
                // What is larger than any device's is refused with these.
                let part = |field| -> Result<u32> {
                    Ok(u32::try_from(number(header, raw, field)?).unwrap_or(u32::MAX))
                };
                let (major, minor) = (part(MAJOR)?, part(MINOR)?);
                if flag == b'3' { Kind::Char(major, minor) } else { Kind::Block(major, minor) }
            }
            b'6' => Kind::Fifo,
            other => return Err(refuse(raw, format!("has the unknown type {:?}", char::from(other)))),
        })
    }

    /// Sets up the data of a file of `size` bytes in the archive.
    fn file(&mut self, header: &tar::Header, raw: &[u8], size: u64, pax: &Pax, gnu: bool) -> Result<Kind> {
        let in_header = if gnu { Some(self.gnu_map(header, raw)?) } else { None };
        self.left = size;
        self.pad = padding(size);
        let pax_size = || pax.sparse.size.ok_or_else(|| refuse(raw, "is a sparse file without a size"));
        let map = match in_header {
            None if pax.sparse.map_in_data => Some((self.leading_map(raw)?, pax_size()?)),
            None if !pax.sparse.numbers.is_empty() => Some((pax.sparse.numbers.clone(), pax_size()?)),
            other => other,
        };
        let real = map.as_ref().map_or(size, |(_, real)| *real);
        self.unpacked = self.unpacked.saturating_add(real);
        if self.unpacked > self.limits.bytes {
            return Err(refuse(raw, format!("takes the layer beyond {} bytes", self.limits.bytes))
                .hint("raise --max-layer-bytes"));
        }
        let sparse = map.map(|(numbers, real)| extents(raw, &numbers, real, self.left)).transpose()?;
        Ok(Kind::File { size: real, sparse })
    }

    /// The map of an `S` entry: four extents in the header, more in the blocks behind it.
    fn gnu_map(&mut self, header: &tar::Header, raw: &[u8]) -> Result<(Vec<u64>, u64)> {
        let wrong = || refuse(raw, "has a wrong sparse map");
        let mut numbers = Vec::new();
        let head = header.as_bytes();
        let mut take = |bytes: &[u8]| -> Result<()> {
            for field in bytes.chunks_exact(12).filter(|f| f[0] != 0) {
                numbers.push(octal(field).ok_or_else(wrong)?);
            }
            if numbers.len() > 2 * MAX_EXTENTS { Err(wrong()) } else { Ok(()) }
        };
        take(&head[386..482])?;
        let mut more = head[482] != 0;
        while more {
            let mut block = [0; BLOCK as usize];
            self.inner.read_exact(&mut block).map_err(|e| read_error(&e))?;
            take(&block[..504])?;
            more = block[504] != 0;
        }
        let size = octal(&head[483..495]).ok_or_else(wrong)?;
        Ok((numbers, size))
    }

    /// The map of PAX format 1.0: decimal numbers, one a line, padded to a block.
    fn leading_map(&mut self, raw: &[u8]) -> Result<Vec<u64>> {
        let wrong = || refuse(raw, "has a wrong sparse map");
        let (mut numbers, mut line, mut want) = (Vec::new(), Vec::new(), None);
        while want != Some(numbers.len()) {
            let mut block = [0; BLOCK as usize];
            self.data().read_exact(&mut block).map_err(|e| read_error(&e))?;
            for b in block {
                if b != b'\n' {
                    line.push(b);
                    continue;
                }
                let n = decimal(&line).ok_or_else(wrong)?;
                line.clear();
                match want {
                    None if n as usize <= MAX_EXTENTS => want = Some(2 * n as usize),
                    None => return Err(wrong()),
                    Some(_) => numbers.push(n),
                }
                if want == Some(numbers.len()) {
                    break; // the rest of the block is padding
                }
            }
            if line.len() > 20 {
                return Err(wrong());
            }
        }
        Ok(numbers)
    }

    /// Reads an extension's data, which is held in memory: there is `room` for what stands before one entry.
    fn extension(&mut self, header: &tar::Header, room: &mut u64) -> Result<Vec<u8>> {
        let size = number(header, b"", SIZE)?;
        let Some(left) = room.checked_sub(size) else {
            let all = (EXTENSION - *room).saturating_add(size);
            let what = format!("has extended headers of {all} bytes, at most {EXTENSION} are read");
            return Err(refuse(b"", what));
        };
        *room = left;
        (self.left, self.pad) = (size, padding(size));
        let mut out = vec![0; size as usize];
        self.data().read_exact(&mut out).map_err(|e| read_error(&e))?;
        Ok(out)
    }

    /// A header block; `None` at two zero blocks or where the stream ends between entries.
    fn header(&mut self) -> Result<Option<[u8; BLOCK as usize]>> {
        let mut block = [0; BLOCK as usize];
        for zeros in 0..2 {
            if self.inner.fill_buf().map_err(|e| read_error(&e))?.is_empty() {
                return Ok(None);
            }
            self.inner.read_exact(&mut block).map_err(|e| read_error(&e))?;
            if block.iter().any(|b| *b != 0) {
                if zeros == 1 {
                    return Err(Error::invalid("", "goes on behind an empty block"));
                }
                is_header(&block)?;
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    fn skip_rest(&mut self) -> Result<()> {
        let (mut left, pad) = (self.left.saturating_add(self.pad), self.pad);
        (self.left, self.pad) = (0, 0);
        while left > 0 {
            let n = self.inner.fill_buf().map_err(|e| read_error(&e))?.len() as u64;
            if n == 0 && left <= pad {
                return Ok(()); // all data is there; writers that never close an archive leave its last padding out
            }
            if n == 0 {
                return Err(read_error(&io::ErrorKind::UnexpectedEof.into()));
            }
            let n = n.min(left);
            self.inner.consume(n as usize);
            left -= n;
        }
        Ok(())
    }
}

impl<R: BufRead + Seek> Reader<R> {
    /// Goes behind the data of the entry that [`Reader::next_entry`] returned last, in a stream of `end` bytes, without
    /// reading it; where it begins.
    pub fn leap(&mut self, end: u64) -> Result<u64> {
        let at = self.inner.stream_position().map_err(|e| read_error(&e))?;
        let left = std::mem::take(&mut self.left);
        // Behind the end nothing more would be read, and nothing be missed.
        if at.checked_add(left).is_none_or(|to| to > end) {
            return Err(read_error(&io::ErrorKind::UnexpectedEof.into()));
        }
        self.inner.seek_relative(left as i64).map_err(|e| read_error(&e))?;
        Ok(at)
    }
}

/// The rest of the entry's data.
struct Data<'a, R>(&'a mut Reader<R>);

impl<R: BufRead> Read for Data<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Data<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.left == 0 {
            return Ok(&[]);
        }
        let left = usize::try_from(self.0.left).unwrap_or(usize::MAX);
        let buf = self.0.inner.fill_buf()?;
        if buf.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&buf[..buf.len().min(left)])
    }

    fn consume(&mut self, n: usize) {
        self.0.left -= n as u64;
        self.0.inner.consume(n);
    }
}

/// The sum over a block, in which the sum itself counts as blanks.
fn is_header(block: &[u8; BLOCK as usize]) -> Result<()> {
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    let field: u32 = block[148..156].iter().map(|b| u32::from(*b)).sum();
    if octal(&block[148..156]) == Some(u64::from(sum - field + 8 * u32::from(b' '))) {
        return Ok(());
    }
    Err(Error::invalid("", "has a header with a wrong checksum or is no tar archive"))
}

/// Whether a stream that begins so is an archive with anything in it.
pub fn is_archive(head: &[u8]) -> Result<()> {
    match head.first_chunk() {
        Some(block) if block.iter().any(|b| *b != 0) => is_header(block),
        _ => Err(Error::invalid("", "is no tar archive, or an empty one")),
    }
}

/// Error of reading the stream.
pub fn read_error(e: &io::Error) -> Error {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        return Error::invalid("", "ends in the middle of an entry");
    }
    Error::io("", "read", e)
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK
}

/// Up to the first NUL.
fn c_bytes(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(n) = name.iter().position(|b| *b == 0) {
        name.truncate(n);
    }
    name
}

fn number(header: &tar::Header, raw: &[u8], (name, from, to): Field) -> Result<u64> {
    octal(&header.as_bytes()[from..to]).ok_or_else(|| refuse(raw, format!("has a wrong {name}")))
}

/// A number field, zero when it is empty: octal digits between spaces and NULs, or GNU's base-256.
fn octal(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let first = u64::from(field[0] & 0x7f);
        let number = field[1..].iter().try_fold(first, |n, b| Some(n.checked_mul(256)? | u64::from(*b)));
        return number.filter(|_| first & 0x40 == 0); // the sign
    }
    let text = field.split(|b| *b == 0).next()?.trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(std::str::from_utf8(text).ok().filter(|t| !t.starts_with('+'))?, 8).ok()
}

/// Pairs of offset and length, in order, inside the file, and as long as the data together.
fn extents(raw: &[u8], numbers: &[u64], size: u64, data: u64) -> Result<Vec<(u64, u64)>> {
    let wrong = || refuse(raw, format!("has a wrong sparse map for {} bytes", size));
    let (mut end, mut total) = (0, 0);
    let mut out = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks(2) {
        let [offset, length] = pair else { return Err(wrong()) };
        let next = offset.checked_add(*length).filter(|n| *offset >= end && *n <= size).ok_or_else(wrong)?;
        end = next;
        total += length;
        if *length > 0 {
            out.push((*offset, *length));
        }
    }
    if total != data {
        return Err(refuse(raw, format!("has a sparse map of {total} bytes and {data} bytes of data")));
    }
    Ok(out)
}
