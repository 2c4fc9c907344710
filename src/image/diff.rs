//! What differs between two trees: images, or a bundle and its image.

use super::change::layers::record_of;
use super::digest::Digest;
use super::layer::dirs::failed;
use super::layer::entry::join;
use super::layer::merge::{Child, Open, proc_path};
use super::layer::write::{open_regular, xattrs};
use super::names::about;
use super::stack::Stack;
use super::store::Store;
use super::tree::difference;
use super::view::{Opened, View, is_whiteout};
use super::{bundle, import};
use crate::error::{Error, Result, clean};
use rustix::fs::{self, FileType};
use serde::Serialize;
use std::cmp::Ordering;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `A`dded, `C`hanged or `D`eleted; of a deleted directory nothing that is in it is told.
    pub change: char,
    /// From the root, with a slash in front.
    pub path: String,
    /// Bytes of a file that was added or changed.
    pub size: Option<u64>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.change, clean(&self.path))
    }
}

/// One of the two trees.
pub struct Side {
    pub ids: Vec<Digest>,
    /// Of a bundle.
    pub upper: Option<PathBuf>,
}

impl Side {
    /// An image, or the bundle that is this directory.
    pub fn of(store: &Store, word: &str) -> Result<Self> {
        let path = Path::new(word);
        let is_bundle = || std::fs::canonicalize(path).is_ok_and(|path| store.has_bundle(&path));
        if !path.join("overlay.json").exists() && !is_bundle() {
            let ids = about(word, bundle::load(store, &store.find(word)?.1))?.1;
            return Ok(Self { ids, upper: None });
        }
        let (record, overlay) = record_of(store, path)?;
        Ok(Self { ids: bundle::load(store, &record.manifest)?.1, upper: overlay.upper.map(Into::into) })
    }

    /// The first `count` layers; the upper directory comes behind the last.
    fn tree(&self, store: &Store, count: usize, opened: &mut Opened) -> Result<Tree> {
        let layers = count.min(self.ids.len());
        let Stack { mut lowers, mut root, .. } = import::fixups(store, &self.ids[..layers])?;
        if let Some(upper) = self.upper.as_ref().filter(|_| count > layers) {
            lowers.insert(0, upper.clone());
            root = Some(upper.clone());
        }
        let root = root.map(|root| opened.layer(&root)).transpose()?;
        Ok(Tree { view: opened.view(&lowers)?, root })
    }

    fn count(&self) -> usize {
        self.ids.len() + usize::from(self.upper.is_some())
    }
}

struct Tree {
    view: View,
    root: Option<Rc<OwnedFd>>,
}

/// What is in `b` and not so in `a`. What is the same is known by devices and inodes, so that each layer is opened once:
/// every mount of an image has a device of its own. Directories that are the same in the same layers are not entered: the cost is that
/// of what was changed, where `b` stands on layers of `a`.
pub fn diff(store: &Store, a: &Side, b: &Side, times: bool) -> Result<Vec<Change>> {
    let mut opened = Opened::default();
    let a = a.tree(store, a.count(), &mut opened)?;
    compare(&a, &b.tree(store, b.count(), &mut opened)?, times)
}

/// A layer that only one of two images has.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerDiff {
    /// Counted from 1, the lowest.
    pub layer: usize,
    /// `None` for the upper directory of a bundle.
    #[serde(rename = "diffID")]
    pub diff_id: Option<Digest>,
    /// What it changes of the layers below it.
    pub changes: Vec<Change>,
}

/// The layers that both stand on, and what each of the others does.
#[derive(Serialize)]
pub struct LayersDiff {
    pub common: Vec<Digest>,
    pub a: Vec<LayerDiff>,
    pub b: Vec<LayerDiff>,
}

pub fn by_layers(store: &Store, a: &Side, b: &Side, times: bool) -> Result<LayersDiff> {
    let count = a.ids.iter().zip(&b.ids).take_while(|(a, b)| a == b).count();
    let mut opened = Opened::default();
    let mut rest = |side: &Side| -> Result<Vec<LayerDiff>> {
        let mut out = Vec::new();
        let mut below = side.tree(store, count, &mut opened)?;
        for n in count..side.count() {
            let next = side.tree(store, n + 1, &mut opened)?;
            let changes = compare(&below, &next, times)?;
            out.push(LayerDiff { layer: n + 1, diff_id: side.ids.get(n).copied(), changes });
            below = next;
        }
        Ok(out)
    };
    Ok(LayersDiff { common: a.ids[..count].to_vec(), a: rest(a)?, b: rest(b)? })
}

fn compare(a: &Tree, b: &Tree, times: bool) -> Result<Vec<Change>> {
    let mut c = Compare { a: &a.view, b: &b.view, times, out: Vec::new() };
    let root = |t: &Tree| -> Result<_> {
        let Some(root) = &t.root else { return Ok(None) };
        let stat = fs::fstat(&**root).map_err(|e| failed(b"", "fstat", e))?;
        Ok(Some((stat.st_mode, stat.st_uid, stat.st_gid)))
    };
    if root(a)? != root(b)? {
        c.tell('C', b"", None);
    }
    let all = |v: &View| (0..v.layers.len()).collect::<Vec<_>>();
    c.directory(b"", Some(&all(&a.view)), &all(&b.view))?;
    Ok(c.out)
}

struct Compare<'a> {
    a: &'a View,
    b: &'a View,
    times: bool,
    out: Vec<Change>,
}

impl Compare<'_> {
    fn tell(&mut self, change: char, path: &[u8], child: Option<&Child>) {
        let path = format!("/{}", String::from_utf8_lossy(path));
        let is_file = |c: &&Child| FileType::from_raw_mode(c.stat.st_mode) == FileType::RegularFile;
        self.out.push(Change { change, path, size: child.filter(is_file).map(|c| c.stat.st_size as u64) });
    }

    /// Compares a directory, which `a` may not have.
    fn directory(&mut self, path: &[u8], a: Option<&[usize]>, b: &[usize]) -> Result<()> {
        let (views, mut out) = ((self.a, self.b), Vec::new());
        let (mut in_a, mut in_b) = (Open::new(views.0, path), Open::new(views.1, path));
        let seen = |all: Vec<Child>| all.into_iter().filter(|c| !is_whiteout(&c.stat)).peekable();
        let mut left = seen(in_a.list(a.unwrap_or_default().iter().copied())?);
        let mut right = seen(in_b.list(b.iter().copied())?);
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.name.cmp(&b.name),
            };
            let old = if order.is_le() { left.next() } else { None };
            let new = if order.is_ge() { right.next() } else { None };
            let name = old.as_ref().or(new.as_ref()).map(|c| join(path, &c.name)).unwrap_or_default();
            match (&old, &new) {
                (Some(_), None) => self.tell('D', &name, None),
                (None, Some(new)) => self.tell('A', &name, Some(new)),
                (Some(old), Some(new)) => {
                    if old.merged == new.merged && id(old) == id(new) {
                        continue; // the same, with all that is in it
                    }
                    if self.differ(&name, (&mut in_a, old), (&mut in_b, new))? {
                        self.tell('C', &name, Some(new));
                    }
                }
                (None, None) => {}
            }
            let layers = |c: &Child| c.merged.iter().map(|m| m.0).collect::<Vec<_>>();
            if let Some(new) = new.filter(Child::is_dir) {
                let old = old.filter(Child::is_dir).map(|c| layers(&c));
                // In its place, but with no directory open above it.
                out.push((self.out.len(), name, old, layers(&new)));
            }
        }
        drop((in_a, in_b));
        let mut told = std::mem::take(&mut self.out);
        for (place, name, old, new) in out.into_iter().rev() {
            self.directory(&name, old.as_deref(), &new)?;
            told.splice(place..place, self.out.drain(..));
        }
        self.out = told;
        Ok(())
    }

    fn differ(
        &self,
        path: &[u8],
        (a, old): (&mut Open, &Child),
        (b, new): (&mut Open, &Child),
    ) -> Result<bool> {
        if id(old) == id(new) {
            return Ok(false);
        }
        let (s, t) = (&old.stat, &new.stat);
        let inode = |s: &fs::Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_rdev);
        if inode(s) != inode(t) || self.times && s.st_mtime != t.st_mtime {
            return Ok(true);
        }
        let (a, b) = (a.get(old.layer)?, b.get(new.layer)?);
        let name = &new.name[..];
        if xattrs(path, &proc_path(&a, name))? != xattrs(path, &proc_path(&b, name))? {
            return Ok(true);
        }
        match FileType::from_raw_mode(s.st_mode) {
            FileType::RegularFile if s.st_size != t.st_size => Ok(true),
            FileType::RegularFile => {
                let open = |dir, stat| open_regular(path, dir, name, stat);
                difference(open(&a, s)?, open(&b, t)?)
                    .map(|found| found.is_some())
                    .map_err(|e| Error::io(String::from_utf8_lossy(path), "read", &e))
            }
            FileType::Symlink => {
                let read =
                    |dir| fs::readlinkat(dir, name, Vec::new()).map_err(|e| failed(path, "readlinkat", e));
                Ok(read(&*a)? != read(&*b)?)
            }
            _ => Ok(false),
        }
    }
}

fn id(c: &Child) -> (u64, u64) {
    (c.stat.st_dev, c.stat.st_ino)
}
