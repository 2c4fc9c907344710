//! The merged tree of a stack of layers, looked at without mounting it.

use super::erofs;
use super::layer::dirs::{open_dir, with_remedy};
use super::merged::Merged;
use super::rights::Rights;
use super::stack::is_image;
use crate::error::{Error, Result};
use rustix::fs::{self, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Directories of layers in overlay form, topmost first.
#[derive(Clone, Default)]
pub struct View {
    pub layers: Vec<Rc<OwnedFd>>,
}

/// What a path is in the merged tree.
pub struct Found {
    pub layer: Rc<OwnedFd>,
    /// An `O_PATH` descriptor of it.
    pub fd: OwnedFd,
    pub stat: Stat,
}

impl Found {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Layers that are open, each once: an image is mounted for it, and each mount has a device number of its own.
#[derive(Default)]
pub struct Opened(HashMap<PathBuf, Rc<OwnedFd>>);

impl Opened {
    pub fn layer(&mut self, path: &Path) -> Result<Rc<OwnedFd>> {
        if let Some(fd) = self.0.get(path) {
            return Ok(fd.clone());
        }
        let fd = Rc::new(open_layer(path)?);
        self.0.insert(path.to_path_buf(), fd.clone());
        Ok(fd)
    }

    /// The merged tree of these, topmost first.
    pub fn view(&mut self, lowers: &[PathBuf]) -> Result<View> {
        Ok(View { layers: lowers.iter().map(|l| self.layer(l)).collect::<Result<_>>()? })
    }
}

impl View {
    pub fn open(lowers: &[PathBuf]) -> Result<Self> {
        Opened::default().view(lowers)
    }

    /// Looks a clean path up without following a link at any place of it; for many paths [`Merged`] is faster.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Found>> {
        Merged::of(&self.layers).lookup(path)
    }

    /// Reads a regular file of at most `max` bytes, links followed inside the tree; `None` when there is none. Nothing
    /// else is ever opened: a FIFO would block, a device do worse (CVE-2024-9676).
    pub fn read(&self, path: &[u8], max: u64) -> Result<Option<Vec<u8>>> {
        let mut tree = Merged::of(&self.layers);
        let found = match tree.lookup(path)?.filter(|f| f.kind() != FileType::Symlink) {
            None => {
                let path = tree.resolve(path, true)?; // there may be links on the way
                tree.lookup(&path)?
            }
            found => found,
        };
        let Some(found) = found else { return Ok(None) };
        let name = String::from_utf8_lossy(path).into_owned();
        if found.kind() != FileType::RegularFile {
            return Err(Error::invalid(format!("/{name} of the image"), "is not a regular file"));
        }
        if found.stat.st_size as u64 > max {
            let what = format!("has {} bytes, at most {max} are read", found.stat.st_size);
            return Err(Error::invalid(format!("/{name} of the image"), what));
        }
        std::fs::read(proc_path(&found.fd)).map(Some).map_err(|e| Error::io(name, "read", &e))
    }
}

/// A descriptor's name in procfs: for what `O_PATH` descriptors are refused.
pub fn proc_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// The root of a layer: of a directory, or of an image that is mounted as long as the descriptor is there.
pub fn open_layer(path: &Path) -> Result<OwnedFd> {
    if is_image(path) { erofs::mount::open(path) } else { open(path) }
}

pub fn open(dir: &Path) -> Result<OwnedFd> {
    fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::os(dir.display().to_string(), "open", e.raw_os_error()))
}

/// An `O_PATH` descriptor of what is at `path` in one layer.
pub fn at(layer: &OwnedFd, path: &[u8]) -> Result<Option<OwnedFd>> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(layer, path, flags, Mode::empty(), resolve) {
        // A link or file in the middle of the path: the layer has nothing there.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        other => other.map(Some).map_err(|e| failed(path, "openat2", e)),
    }
}

pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// By the mark that counts when we mount: a store is its owner's alone, who has the same rights whenever it is used.
pub fn is_opaque(dir: &OwnedFd) -> bool {
    let mut value = [0; 1];
    fs::getxattr(proc_path(dir), Rights::ours().opaque(), &mut value[..]).is_ok() && value == *b"y"
}

/// What a call answers that fills a buffer with an attribute or the names of all: mostly little, at most 64 KiB.
pub fn whole(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut out = vec![0; 256];
    loop {
        match call(&mut out) {
            Err(Errno::RANGE) if out.len() < 64 << 10 => out.resize(64 << 10, 0),
            n => {
                out.truncate(n?);
                return Ok(out);
            }
        }
    }
}

pub fn failed(path: &[u8], call: &str, e: Errno) -> Error {
    with_remedy(Error::os(String::from_utf8_lossy(path), call, e.raw_os_error()), e)
}

/// A directory of a layer, opened for reading.
pub fn read_dir(layer: &OwnedFd, path: &[u8]) -> Result<fs::Dir> {
    let fd = open_dir(layer, path).map_err(|e| failed(path, "open", e))?;
    fs::Dir::new(fd).map_err(|e| failed(path, "read", e))
}

/// A path for a document or an option of a mount.
pub fn utf8(path: &Path) -> Result<String> {
    path.to_str().map(Into::into).ok_or_else(|| Error::invalid(path.display().to_string(), "is not UTF-8"))
}

/// Bytes of a path.
pub fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}
