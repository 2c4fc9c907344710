//! Where an image comes from: a directory, or an archive of one, as files by name.

use super::layer::compress::{Packing, Taken, inflate, inflate_error, within};
use super::layer::entry::{Kind, join, split};
use super::layer::read::{Reader, is_archive, read_error};
use super::limits::Limits;
use super::registry::body::Body;
use super::registry::pull::Remote;
use super::store::{Store, Work};
use crate::error::{Error, Result};
use rustix::fs::{self, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Most bytes that the names in an archive take, with what the table needs for each: those of a hundred thousand blobs.
const NAMES: usize = 32 << 20;

/// The files of a source.
pub enum Files {
    Dir(OwnedFd),
    Tar {
        file: Arc<File>,
        index: HashMap<Vec<u8>, Place>,
        /// Holds the inflated archive.
        _work: Option<Work>,
    },
    /// A repository of a registry, as a layout.
    Remote(Arc<Remote>),
}

pub enum Place {
    /// Offset and length in the archive.
    At(u64, u64),
    /// `docker save` links equal layers to each other.
    Link(Vec<u8>),
}

/// A part of a file: of the archive, or all of a file of the source.
pub struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

/// A file of the source.
pub enum Piece {
    Part(Part),
    /// What a registry sends.
    Body(Box<Body>),
    /// Bytes in memory.
    Bytes(io::Cursor<Vec<u8>>),
}

impl Piece {
    /// All of a file.
    pub fn whole(file: File) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Ok(Piece::Part(Part { file: Arc::new(file), at: 0, end }))
    }

    /// Makes the empty file `to` a clone of it, where the file system can.
    pub fn clone_to(&self, to: &File) -> bool {
        let Piece::Part(Part { file, at: 0, end }) = self else { return false };
        file.metadata().is_ok_and(|m| m.len() == *end) && fs::ioctl_ficlone(to, &**file).is_ok()
    }

    pub fn size(&self) -> u64 {
        match self {
            Piece::Part(part) => part.end - part.at,
            Piece::Body(body) => body.size(),
            Piece::Bytes(bytes) => bytes.get_ref().len() as u64,
        }
    }

    /// Where its bytes are: device, inode and offset, the same for all names of a file.
    pub fn place(&self) -> Option<(u64, u64, u64)> {
        let Piece::Part(Part { file, at, .. }) = self else { return None };
        file.metadata().ok().map(|m| (m.dev(), m.ino(), *at))
    }

    /// All of it, when it has at most `max` bytes, which `flag` sets.
    pub fn all(mut self, name: &str, max: u64, flag: &str) -> Result<Vec<u8>> {
        if self.size() > max {
            let what = format!("has {} bytes, at most {max} are read", self.size());
            return Err(Error::invalid(name, what).hint(format!("raise {flag}")));
        }
        let mut out = Vec::new();
        self.read_to_end(&mut out).map_err(|e| match Error::io(name, "read", &e) {
            e if e.at.is_empty() => inside(name, e), // of a blob on its way
            e => e,
        })?;
        Ok(out)
    }

    /// How it is packed.
    pub fn packing(&self) -> Result<Packing> {
        let Piece::Part(part) = self else {
            return Err(Error::unsupported("", "is not here to be looked at"));
        };
        let mut head = [0; 4];
        let n = part.file.read_at(&mut head, part.at).map_err(|e| Error::io("", "read", &e))?;
        Ok(Packing::sniff(&head[..n.min(self.size() as usize)]))
    }
}

impl Read for Piece {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Piece::Part(part) => part.read(buf),
            Piece::Body(body) => body.read(buf),
            Piece::Bytes(bytes) => bytes.read(buf),
        }
    }
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let n = self.file.read_at(&mut buf[..left], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Files {
    /// Opens a directory or an archive, plain or packed, from a file or, with `-`, from standard input. What cannot be
    /// read at any place is first written into the store's `tmp/`.
    pub fn open(source: &Path, store: &Store, limits: &Limits) -> Result<Self> {
        let at = source.display().to_string();
        let failed = |what: &str| {
            let at = at.clone();
            let what = what.to_string();
            move |e: io::Error| Error::io(at, what, &e)
        };
        if source == Path::new("-") {
            return Self::spool(io::stdin(), store, limits).map_err(|e| inside("standard input", e));
        }
        let meta = std::fs::metadata(source).map_err(failed("open"))?;
        if meta.is_dir() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = fs::open(source, flags, Mode::empty())
                .map_err(|e| Error::os(&at, "open", e.raw_os_error()))?;
            return Ok(Files::Dir(dir));
        }
        let file = File::open(source).map_err(failed("open"))?;
        let mut head = BufReader::with_capacity(16, &file);
        let plain = Packing::sniff(head.fill_buf().map_err(failed("read"))?) == Packing::Plain;
        if meta.is_file() && plain {
            return Self::index(file, None, limits).map_err(|e| inside(&at, e));
        }
        // A pipe cannot be read again from its start.
        let head = io::Cursor::new(head.buffer().to_vec());
        Self::spool(head.chain(file), store, limits).map_err(|e| inside(&at, e))
    }

    fn spool(packed: impl Read + Send, store: &Store, limits: &Limits) -> Result<Self> {
        let failed = |e: io::Error| inflate_error(&e);
        let work = store.work()?;
        let path = work.path.join("archive");
        let own = |call: &'static str| {
            let at = path.display().to_string();
            move |e: io::Error| Error::io(at, call, &e)
        };
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let mut file = file.map_err(own("make"))?;
        let taken = AtomicU64::new(0);
        let packed = BufReader::with_capacity(256 << 10, Taken { inner: packed, count: &taken });
        let (_, mut plain) = inflate(packed, limits.window).map_err(failed)?;
        let max = limits.bytes.saturating_mul(2); // an image has several layers
        // Not to fill the disk with what is no archive.
        let mut head = Vec::new();
        plain.by_ref().take(512).read_to_end(&mut head).map_err(failed)?;
        is_archive(&head)?;
        file.write_all(&head).map_err(own("write"))?;
        let (mut inflated, mut piece) = (head.len() as u64, vec![0; 256 << 10]);
        loop {
            let n = match plain.read(&mut piece) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(failed)?,
            };
            if n == 0 {
                return Self::index(file, Some(work), limits);
            }
            file.write_all(&piece[..n]).map_err(own("write"))?;
            inflated += n as u64;
            within(limits, max, inflated, &taken)?;
        }
    }

    fn index(mut file: File, work: Option<Work>, limits: &Limits) -> Result<Self> {
        file.rewind().map_err(|e| read_error(&e))?;
        let end = file.metadata().map_err(|e| read_error(&e))?.len();
        let limits = Limits { bytes: u64::MAX, ..limits.clone() };
        let mut reader = Reader::new(BufReader::with_capacity(64 << 10, &file), limits);
        let (mut index, mut held) = (HashMap::new(), 0);
        while let Some(entry) = reader.next_entry()? {
            let place = match entry.kind {
                Kind::File { size, sparse: None } => Place::At(reader.leap(end)?, size),
                Kind::Link(target) => Place::Link(target),
                Kind::Symlink(target) => match resolve(split(&entry.path).0, &target) {
                    Some(target) => Place::Link(target),
                    None => continue,
                },
                _ => continue,
            };
            held += entry.path.len() + if let Place::Link(target) = &place { target.len() } else { 0 } + 128;
            if held > NAMES {
                return Err(Error::invalid("", "has too many files for an image"));
            }
            index.insert(entry.path, place);
        }
        Ok(Files::Tar { file: Arc::new(file), index, _work: work })
    }

    /// The file of this name, `None` when there is none. Only regular files count, and none outside the source.
    pub fn get(&self, name: &str) -> Result<Option<Piece>> {
        match self {
            Files::Dir(dir) => {
                // Not to wait for a FIFO's writer.
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                let fd = match fs::openat2(dir, name, flags, Mode::empty(), resolve) {
                    Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                    other => other.map_err(|e| Error::os(name, "open", e.raw_os_error()))?,
                };
                let file = File::from(fd);
                let meta = file.metadata().map_err(|e| Error::io(name, "stat", &e))?;
                if !meta.is_file() {
                    return Err(Error::invalid(name, "is not a regular file"));
                }
                Piece::whole(file).map(Some).map_err(|e| Error::io(name, "stat", &e))
            }
            Files::Tar { file, index, .. } => {
                let mut name = name.as_bytes();
                for _ in 0..8 {
                    match index.get(name) {
                        None => return Ok(None),
                        Some(Place::At(at, size)) => {
                            let part = Part { file: file.clone(), at: *at, end: at + size };
                            return Ok(Some(Piece::Part(part)));
                        }
                        Some(Place::Link(target)) => name = target,
                    }
                }
                Err(Error::invalid(String::from_utf8_lossy(name), "is a link to too many links"))
            }
            Files::Remote(remote) => remote.get(name),
        }
    }

    /// As [`Files::get`], for what must be there.
    pub fn need(&self, name: &str) -> Result<Piece> {
        self.get(name)?.ok_or_else(|| Error::new(crate::error::Kind::NotFound, name, "is missing"))
    }
}

/// The target of a link in the directory `dir` of the archive; `None` when it leads out.
fn resolve(dir: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut at = dir.to_vec();
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if at.is_empty() => return None,
            b".." => at = split(&at).0.to_vec(),
            p => at = join(&at, p),
        }
    }
    (target.first() != Some(&b'/')).then_some(at)
}

/// Puts where something failed in front of the error's own place.
pub fn inside(outer: &str, mut e: Error) -> Error {
    e.at = if e.at.is_empty() { outer.to_string() } else { format!("{outer}: {}", e.at) };
    e
}
