//! Archives of files that are known: ustar headers of one owner, mode and time.

use crate::error::{Error, Result};
use crate::image::archive::inside;
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub struct Archive<'a> {
    out: &'a mut dyn Write,
}

impl<'a> Archive<'a> {
    pub fn new(out: &'a mut dyn Write) -> Self {
        Self { out }
    }

    fn header(&mut self, name: &str, kind: tar::EntryType, mode: u32, size: u64) -> Result<()> {
        let mut h = tar::Header::new_ustar();
        h.set_path(name).map_err(|e| failed(name, &e))?;
        h.set_entry_type(kind);
        h.set_mode(mode);
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(0);
        h.set_size(size);
        h.set_cksum();
        self.out.write_all(h.as_bytes()).map_err(|e| failed(name, &e))
    }

    pub fn dir(&mut self, name: &str) -> Result<()> {
        self.header(name, tar::EntryType::Directory, 0o755, 0)
    }

    pub fn bytes(&mut self, name: &str, data: &[u8]) -> Result<()> {
        self.file(name, data.len() as u64, data)
    }

    /// A file of `size` bytes of `data`, all of which is read.
    pub fn file(&mut self, name: &str, size: u64, mut data: impl Read) -> Result<()> {
        self.header(name, tar::EntryType::Regular, 0o644, size)?;
        let n = io::copy(&mut data.by_ref().take(size), self.out).map_err(|e| failed(name, &e))?;
        if n < size {
            return Err(Error::invalid(name, format!("has {n} bytes, {size} are expected")));
        }
        let padding = [0; 512];
        self.out.write_all(&padding[..(size.wrapping_neg() % 512) as usize]).map_err(|e| failed(name, &e))
    }

    pub fn end(self) -> Result<()> {
        self.out.write_all(&[0; 1024]).map_err(|e| failed("archive", &e))
    }
}

fn failed(name: &str, e: &io::Error) -> Error {
    Error::io(name, "write", e)
}

/// Runs `write` on `dest`: a regular file is written beside it and gets the name when all of it is there; standard
/// output (`-`), pipes and devices are written as they are.
pub fn to_file(dest: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let at = dest.display().to_string();
    let io = |what: &'static str| {
        let at = at.clone();
        move |e: io::Error| Error::io(at, what, &e)
    };
    let stream = |to: &mut dyn Write| {
        let mut out = BufWriter::with_capacity(256 << 10, to);
        write(&mut out).map_err(|e| inside(&at, e))?;
        out.flush().map_err(io("write"))
    };
    if dest == Path::new("-") {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(Error::invalid("standard output", "is a terminal").hint("send it to a file"));
        }
        return stream(&mut stdout.lock());
    }
    match std::fs::metadata(dest) {
        Ok(m) if m.is_dir() => return Err(Error::os(at, "write", libc::EISDIR)),
        Ok(m) if !m.is_file() => {
            return stream(&mut File::options().write(true).open(dest).map_err(io("open"))?);
        }
        _ => {}
    }
    let (new, mut file) = Beside::make(dest).map_err(io("make a file beside"))?;
    stream(&mut file)?;
    file.sync_all().map_err(io("fsync"))?;
    std::fs::rename(&new.0, dest).map_err(io("rename"))?;
    crate::image::store::sync_parent(&std::path::absolute(dest).map_err(io("resolve"))?)
}

/// A name beside a file, removed unless it was renamed. The file is locked as long as it is written: one that is not was
/// left by an export that was killed.
struct Beside(PathBuf);

impl Beside {
    fn make(dest: &Path) -> io::Result<(Self, File)> {
        let name = dest.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        let name = format!(".{}.", String::from_utf8_lossy(&name[..name.len().min(200)]));
        Self::clear(dest, &name);
        loop {
            let number = crate::image::store::random().map_err(io::Error::other)?;
            let new = Self(dest.with_file_name(format!("{name}{number:016x}.part")));
            let file = File::options().write(true).create_new(true).open(&new.0)?;
            // Where there are no locks, nothing is cleared either. Before this one, another export may have taken it for
            // a dead one.
            let _ = fs::flock(&file, FlockOperation::LockExclusive);
            if new.0.exists() {
                return Ok((new, file));
            }
        }
    }

    /// Removes what is left of others for the same file; what cannot be removed is in nobody's way.
    fn clear(dest: &Path, start: &str) {
        let dir = dest.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_part = |name: &str| {
            let number = name.strip_prefix(start).and_then(|n| n.strip_suffix(".part"));
            number.is_some_and(|n| n.len() == 16 && n.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(is_part) {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = fs::open(entry.path(), flags, Mode::empty());
            if fd.is_ok_and(|fd| fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // gone, when it was renamed
    }
}
