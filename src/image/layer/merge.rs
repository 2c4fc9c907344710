//! The merged tree of layers in overlay form, name by name, in an order that does not depend on the file system.

use super::dirs::{failed, names, open_dir};
use super::entry::join;
use crate::error::Result;
use crate::image::rights::Rights;
use crate::image::view::{self, View, is_whiteout};
use rustix::fs::{self, AtFlags, FileType, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// A name of the merged tree: what the topmost layer that has it says.
pub struct Node<'a> {
    /// Clean, from the root of the tree.
    pub path: &'a [u8],
    /// The last part of the path.
    pub name: &'a [u8],
    /// The place in the view of the layer that shows it, 0 for the topmost.
    pub layer: usize,
    /// The directory that holds it there.
    pub dir: &'a OwnedFd,
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
    [view::proc_path(dir).as_bytes(), b"/", name].concat()
}

/// A name of one merged directory.
pub struct Child {
    pub name: Vec<u8>,
    /// The place of the layer that shows it in the view, 0 for the topmost.
    pub layer: usize,
    pub stat: Stat,
    /// The directories that are merged to this one, topmost first: their layers, devices and inodes.
    pub merged: Vec<(usize, (u64, u64))>,
    /// Nothing below these shows.
    pub opaque: bool,
}

impl Child {
    pub fn is_dir(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

/// One directory of a view. It is open in each of its layers only as long as it is asked for: the descriptors of a deep
/// tree in 500 layers would be too many.
pub struct Open<'a> {
    view: &'a View,
    path: &'a [u8],
    fds: HashMap<usize, Rc<OwnedFd>>,
}

impl<'a> Open<'a> {
    pub fn new(view: &'a View, path: &'a [u8]) -> Self {
        Self { view, path, fds: HashMap::new() }
    }

    /// The directory in one of its layers.
    pub fn get(&mut self, layer: usize) -> Result<Rc<OwnedFd>> {
        if let Some(fd) = self.fds.get(&layer) {
            return Ok(fd.clone());
        }
        let fd = open_dir(&self.view.layers[layer], self.path).map_err(|e| failed(self.path, "open", e))?;
        let fd = Rc::new(fd);
        self.fds.insert(layer, fd.clone());
        Ok(fd)
    }

    /// Its names in order, of the layers that are merged in it.
    pub fn list(&mut self, layers: impl Iterator<Item = usize>) -> Result<Vec<Child>> {
        let mut all: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for layer in layers {
            let dir = match self.get(layer) {
                // Of a tree that is in use.
                Err(e) if e.errno() == Some(Errno::NOENT.raw_os_error()) => continue,
                dir => dir?,
            };
            for name in names(&dir).map_err(|e| failed(self.path, "read", e))? {
                all.entry(name).or_default().push(layer);
            }
        }
        let mut out = Vec::with_capacity(all.len());
        for (name, holders) in all {
            match self.child(name, &holders) {
                Err(e) if e.errno() == Some(Errno::NOENT.raw_os_error()) => {}
                child => out.push(child?),
            }
        }
        Ok(out)
    }

    /// What a name is that these layers have, the topmost first.
    fn child(&mut self, name: Vec<u8>, holders: &[usize]) -> Result<Child> {
        let stat = self.stat(holders[0], &name)?;
        let mut child = Child { name, layer: holders[0], stat, merged: Vec::new(), opaque: false };
        if !child.is_dir() {
            return Ok(child);
        }
        for layer in holders {
            let stat = self.stat(*layer, &child.name)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                child.opaque = true;
                break;
            }
            child.merged.push((*layer, (stat.st_dev, stat.st_ino)));
            let dir = self.get(*layer)?;
            if is_opaque(&proc_path(&dir, &child.name)) {
                child.opaque = true;
                break;
            }
        }
        Ok(child)
    }

    fn stat(&mut self, layer: usize, name: &[u8]) -> Result<Stat> {
        let dir = self.get(layer)?;
        fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| failed(&join(self.path, name), "fstatat", e))
    }
}

/// By its path, for a directory that need not be opened.
fn is_opaque(path: &[u8]) -> bool {
    let mut value = [0; 1];
    fs::lgetxattr(path, Rights::ours().opaque(), &mut value[..]).is_ok() && value == *b"y"
}

/// Calls `visit` for every name of the tree but its root: whiteouts first in each directory (image-spec
/// layer.md#whiteouts), then the others by their bytes, each directory directly before what is in it.
pub fn walk(view: &View, sealed: bool, mut visit: impl FnMut(&Node) -> Result<()>) -> Result<()> {
    let all: Vec<usize> = (0..view.layers.len()).collect();
    directory(view, b"", &all, sealed, &mut visit)
}

/// A path is at most as long as the kernel takes one: the recursion is bounded.
fn directory(
    view: &View,
    path: &[u8],
    layers: &[usize],
    sealed: bool,
    visit: &mut dyn FnMut(&Node) -> Result<()>,
) -> Result<()> {
    let mut open = Open::new(view, path);
    let (whiteouts, others): (Vec<_>, Vec<_>) =
        open.list(layers.iter().copied())?.into_iter().partition(|c| is_whiteout(&c.stat));
    for child in whiteouts.into_iter().chain(others) {
        let full = join(path, &child.name);
        let dir = open.get(child.layer)?;
        let Child { layer, stat, opaque, .. } = child;
        visit(&Node { path: &full, name: &child.name, layer, dir: &dir, stat, opaque, sealed })?;
        if child.is_dir() {
            open.fds.clear();
            drop(dir);
            let merged: Vec<usize> = child.merged.iter().map(|m| m.0).collect();
            directory(view, &full, &merged, sealed || opaque, visit)?;
        }
    }
    Ok(())
}
