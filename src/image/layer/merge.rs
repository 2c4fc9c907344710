//! The merged tree of layers in overlay form, name by name, in an order that does not depend on the file system.

use super::dirs::{failed, open_dir};
use super::entry::join;
use crate::error::Result;
use crate::image::view::{View, is_whiteout};
use rustix::fs::{self, AtFlags, FileType, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

/// A name of the merged tree: what the topmost layer that has it says.
pub struct Node<'a> {
    /// Clean, from the root of the tree.
    pub path: &'a [u8],
    /// The last part of the path.
    pub name: &'a [u8],
    /// The directory that holds it, in the layer that shows it.
    pub dir: &'a OwnedFd,
    /// The place of that layer in the view, 0 for the topmost.
    pub layer: usize,
    pub stat: Stat,
    /// A directory of which nothing below all of the layers shows, whatever lies there.
    pub opaque: bool,
    /// It lies in such a directory, near or far.
    pub sealed: bool,
}

impl Node<'_> {
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// It says that the name is not there, and hides what lies below.
    pub fn is_whiteout(&self) -> bool {
        is_whiteout(&self.stat)
    }

    /// Its path by the descriptor of its directory, for calls that do not follow a link as the last part.
    pub fn proc_path(&self) -> Vec<u8> {
        proc_path(self.dir, self.name)
    }
}

/// `/proc/self/fd/N/NAME`.
pub fn proc_path(dir: &OwnedFd, name: &[u8]) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat()
}

/// Calls `visit` for every name of the tree but its root: whiteouts first in each directory (image-spec
/// layer.md#whiteouts), then the others by their bytes, each directory directly before what is in it.
pub fn walk(view: &View, sealed: bool, mut visit: impl FnMut(&Node) -> Result<()>) -> Result<()> {
    let all: Vec<usize> = (0..view.layers.len()).collect();
    Walk { view, visit: &mut visit }.directory(b"", &all, sealed)
}

struct Walk<'a> {
    view: &'a View,
    visit: &'a mut dyn FnMut(&Node) -> Result<()>,
}

/// The layers that have a name, topmost first; most names are in one.
type Holders = (usize, Vec<usize>);

/// One directory at a time in each layer: the descriptors of a deep tree in 500 layers would be too many.
struct Open<'a> {
    view: &'a View,
    path: &'a [u8],
    fds: HashMap<usize, Rc<OwnedFd>>,
}

impl Open<'_> {
    fn get(&mut self, layer: usize) -> Result<Rc<OwnedFd>> {
        if let Some(fd) = self.fds.get(&layer) {
            return Ok(fd.clone());
        }
        let fd = open_dir(&self.view.layers[layer], self.path).map_err(|e| failed(self.path, "open", e))?;
        let fd = Rc::new(fd);
        self.fds.insert(layer, fd.clone());
        Ok(fd)
    }

    fn stat(&mut self, layer: usize, name: &[u8]) -> Result<Stat> {
        let dir = self.get(layer)?;
        fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(&join(self.path, name), "fstatat", e))
    }

    fn names(&mut self, holders: &[usize]) -> Result<BTreeMap<Vec<u8>, Holders>> {
        let mut out: BTreeMap<Vec<u8>, Holders> = BTreeMap::new();
        for layer in holders {
            let dir = self.get(*layer)?;
            for entry in fs::Dir::read_from(&*dir).map_err(|e| failed(self.path, "read", e))? {
                let entry = entry.map_err(|e| failed(self.path, "read", e))?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                match out.get_mut(name) {
                    Some(holders) => holders.1.push(*layer),
                    None => drop(out.insert(name.to_vec(), (*layer, Vec::new()))),
                }
            }
        }
        Ok(out)
    }

    /// The layers whose directories of this name are merged, and whether all below these is hidden.
    fn merged(&mut self, name: &[u8], (first, more): &Holders) -> Result<(Vec<usize>, bool)> {
        let mut merged = Vec::new();
        for layer in std::iter::once(first).chain(more) {
            if FileType::from_raw_mode(self.stat(*layer, name)?.st_mode) != FileType::Directory {
                return Ok((merged, true));
            }
            merged.push(*layer);
            let dir = self.get(*layer)?;
            if is_opaque(&proc_path(&dir, name)) {
                return Ok((merged, true));
            }
        }
        Ok((merged, false))
    }
}

/// By its path, for a directory that need not be opened.
fn is_opaque(path: &[u8]) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|key| {
        let mut value = [0; 1];
        fs::lgetxattr(path, *key, &mut value[..]).is_ok() && value == *b"y"
    })
}

impl Walk<'_> {
    /// The path is at most as long as the kernel's: the recursion is bounded.
    fn directory(&mut self, path: &[u8], holders: &[usize], sealed: bool) -> Result<()> {
        let mut open = Open { view: self.view, path, fds: HashMap::new() };
        let mut later = Vec::new();
        for (name, holders) in open.names(holders)? {
            let stat = match open.stat(holders.0, &name) {
                // Of a tree that is in use.
                Err(e) if e.errno() == Some(Errno::NOENT.raw_os_error()) => continue,
                other => other?,
            };
            if !is_whiteout(&stat) {
                later.push((name, holders, stat));
                continue;
            }
            let dir = open.get(holders.0)?;
            let full = join(path, &name);
            let node =
                Node { path: &full, name: &name, dir: &dir, layer: holders.0, stat, opaque: false, sealed };
            (self.visit)(&node)?;
        }
        for (name, holders, stat) in later {
            let full = join(path, &name);
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let (merged, opaque) = if is_dir { open.merged(&name, &holders)? } else { (Vec::new(), false) };
            let dir = open.get(holders.0)?;
            (self.visit)(&Node {
                path: &full,
                name: &name,
                dir: &dir,
                layer: holders.0,
                stat,
                opaque,
                sealed,
            })?;
            if is_dir {
                open.fds.clear();
                drop(dir);
                self.directory(&full, &merged, sealed || opaque)?;
            }
        }
        Ok(())
    }
}
