//! Checked entries to a layer in overlay form.

use super::dirs::{Tree, failed};
use super::entry::{Entry, Kind, Meta, Whiteout, ancestors, is_below, join, refuse, split, whiteout};
use super::read::Reader;
use super::sink::{Node, Sink};
use crate::error::Result;
use crate::image::limits::Limits;
use crate::image::rights::Rights;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

/// What a layer says of the layers below, which are not known while it is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Directories that have no entry: their metadata is that of the layers below, where they may even be links.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dirs: Vec<Name>,
    /// Hard links to files that are not in the layer, each to a name that these have there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<(Name, Name)>,
    /// Directories with whiteouts: overlayfs shows these as names where nothing is merged below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub whiteouts: Vec<Name>,
}

impl Needs {
    pub fn is_empty(&self) -> bool {
        self.dirs.is_empty() && self.links.is_empty() && self.whiteouts.is_empty()
    }
}

/// A layer as it lies in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub entries: u64,
    /// Bytes of regular files.
    pub bytes: u64,
    /// The layer hides all below it; overlayfs knows no opaque root.
    #[serde(default)]
    pub opaque: bool,
    /// The root had an entry.
    #[serde(default)]
    pub root_listed: bool,
    /// Device nodes that an ordinary user cannot make.
    #[serde(default)]
    pub skipped: u64,
    #[serde(default, skip_serializing_if = "Needs::is_empty")]
    pub needs: Needs,
}

/// Gives the archive's entries to `sink`, which is empty, and gives it back.
pub fn apply<R: BufRead, S: Sink>(stream: R, sink: S, limits: &Limits) -> Result<(Applied, S)> {
    let mut reader = Reader::new(stream, limits.clone());
    let mut a = Apply {
        tree: Tree::new(sink, limits.clone()),
        nodes: Rights::ours().nodes,
        whiteouts: BTreeSet::new(),
        opaque: BTreeSet::new(),
        links: BTreeMap::new(),
        out: Applied::default(),
    };
    while let Some(entry) = reader.next_entry()? {
        a.out.entries += 1;
        a.tree.allow();
        a.put(entry, &mut reader)?;
    }
    a.finish()
}

struct Apply<S> {
    tree: Tree<S>,
    /// Whether device nodes can be made.
    nodes: bool,
    /// Paths to hide. They become nodes when all was read: a whiteout never hides what its own layer has, wherever it
    /// stands in the archive (image-spec layer.md#whiteouts).
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    /// Hard links whose target is not there (yet).
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    out: Applied,
}

impl<S: Sink> Apply<S> {
    fn put<R: BufRead>(&mut self, entry: Entry, reader: &mut Reader<R>) -> Result<()> {
        let Entry { path, kind, meta } = entry;
        if path.is_empty() {
            return self.tree.add(path, Some(meta));
        }
        if split(&path).0.split(|b| *b == b'/').any(|p| p.starts_with(b".wh.")) {
            return Err(refuse(&path, "lies in a directory with the name of a whiteout"));
        }
        if let Some(w) = whiteout(&path)? {
            return self.hide(&path, &w);
        }
        let path = self.tree.hold(&path)?; // without links from here on
        self.links.remove(&path);
        let node = match kind {
            Kind::Dir => return self.directory(path, meta),
            Kind::Link(target) => return self.link(path, target),
            Kind::File { size, sparse } => {
                let extents = sparse.unwrap_or_else(|| vec![(0, size)]);
                self.make(&path, |s| s.file(&path, size, &extents, &meta, &mut reader.data()))?;
                self.out.bytes += size;
                return Ok(());
            }
            Kind::Symlink(target) => return self.make(&path, |s| s.symlink(&path, &target, &meta)),
            Kind::Char(major, minor) if device(major, minor) == Some((0, 0)) => {
                return Err(refuse(&path, "is the device 0:0, which overlayfs takes for a whiteout"));
            }
            Kind::Char(major, minor) | Kind::Block(major, minor) if device(major, minor).is_none() => {
                return Err(refuse(&path, format!("is the device {major}:{minor}, which Linux has not")));
            }
            Kind::Char(..) | Kind::Block(..) if !self.nodes => {
                self.out.skipped += 1;
                return Ok(());
            }
            Kind::Char(major, minor) => Node::Char(major, minor),
            Kind::Block(major, minor) => Node::Block(major, minor),
            Kind::Fifo => Node::Fifo,
        };
        self.make(&path, |s| s.node(&path, node, &meta))
    }

    fn hide(&mut self, path: &[u8], w: &Whiteout<'_>) -> Result<()> {
        if self.tree.is_covered(path)? {
            return Ok(());
        }
        let place = self.tree.place(path)?;
        let dir = split(&place).0;
        self.tree.remember(path.len())?;
        match w {
            Whiteout::Reserved => {}
            Whiteout::Opaque => drop(self.opaque.insert(dir.to_vec())),
            Whiteout::Name(name) => drop(self.whiteouts.insert(join(dir, name))),
        }
        Ok(())
    }

    /// Makes something at `path`; what was there is removed first.
    fn make(&mut self, path: &[u8], mut make: impl FnMut(&mut S) -> Result<bool>) -> Result<()> {
        if make(&mut self.tree.sink)? {
            return Ok(());
        }
        self.clear(path)?;
        if make(&mut self.tree.sink)? { Ok(()) } else { Err(failed(path, "replace", Errno::EXIST)) }
    }

    /// Removes what is at `path`, and forgets what was to be done below it.
    fn clear(&mut self, path: &[u8]) -> Result<()> {
        if self.tree.clear(path)? {
            let start = join(path, b"");
            self.opaque.remove(path);
            for set in [&mut self.opaque, &mut self.whiteouts] {
                while let Some(p) =
                    set.range(start.clone()..).next().filter(|p| p.starts_with(&start)).cloned()
                {
                    set.remove(&p);
                }
            }
            while let Some(p) =
                self.links.range(start.clone()..).next().map(|l| l.0).filter(|p| p.starts_with(&start))
            {
                let p = p.clone();
                self.links.remove(&p);
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: Vec<u8>, meta: Meta) -> Result<()> {
        if !self.tree.dirs.contains_key(&path) {
            self.make(&path, |s| s.dir(&path))?;
        }
        self.tree.add(path, Some(meta))
    }

    fn link(&mut self, path: Vec<u8>, target: Vec<u8>) -> Result<()> {
        if !self.try_link(&path, &target)? {
            // Nothing of this layer may show under the name.
            if self.tree.dirs.contains_key(&path) || self.tree.sink.look(&path)?.is_some() {
                self.clear(&path)?;
            }
            let target = self.first(target)?;
            self.tree.remember(path.len() + target.len())?;
            self.links.insert(path, target);
        }
        Ok(())
    }

    /// What a hard link leads to that is itself one to a file below: there its name may be another file, or nothing.
    fn first(&mut self, target: Vec<u8>) -> Result<Vec<u8>> {
        let (parent, last) = split(&target);
        let Some(parent) = self.tree.locate(parent, false)? else { return Ok(target) };
        Ok(self.links.get(&join(&parent, last)).cloned().unwrap_or(target))
    }

    /// Links to a file of this layer; false when there is none.
    fn try_link(&mut self, path: &[u8], target: &[u8]) -> Result<bool> {
        let (parent, last) = split(target);
        let Some(parent) = self.tree.locate(parent, false)? else { return Ok(false) };
        let target = join(&parent, last);
        if target == path {
            return Err(refuse(path, "is a hard link to itself"));
        }
        match self.tree.dirs.get(&target) {
            Some(Some(_)) => return Err(refuse(path, "is a hard link to a directory")),
            // Without an entry it may be a link of the layers below, through which others lead.
            Some(None) => return Ok(false),
            None => {}
        }
        if self.tree.sink.look(&target)?.is_none() {
            return Ok(false);
        }
        if is_below(&target, path) {
            return Err(refuse(path, "is a hard link into the directory that it replaces"));
        }
        self.make(path, |s| s.link(&target, path))?;
        Ok(true)
    }
}

/// A device number as Linux keeps it, in 12 and 20 bits; what the kernel cut off would make it another one.
fn device(major: u32, minor: u32) -> Option<(u32, u32)> {
    (major < 1 << 12 && minor < 1 << 20).then_some((major, minor))
}

impl<S: Sink> Apply<S> {
    /// What can only be done when all entries are known.
    fn finish(mut self) -> Result<(Applied, S)> {
        self.late_links()?;
        self.clear_bare()?;
        let replaced = self.place_whiteouts()?;
        self.out.opaque = self.opaque.contains(&b""[..]);
        let hidden = |dir: &[u8]| {
            // Nothing of the layers below shows here: an opaque directory above, or made anew itself.
            replaced.contains(dir) || ancestors(dir).any(|a| self.opaque.contains(a))
        };
        let implicit = self.tree.dirs.iter().filter(|(d, m)| m.is_none() && !d.is_empty() && !hidden(d));
        self.out.needs.dirs = implicit.map(|(d, _)| to_path(d)).collect();
        self.out.root_listed = self.tree.dirs.get(&b""[..]).is_some_and(Option::is_some);
        let links = std::mem::take(&mut self.links);
        self.out.needs.links = links.iter().map(|(p, t)| (to_path(p), to_path(t))).collect();
        let dirs = std::mem::take(&mut self.tree.dirs);
        let default = Meta { mode: 0o755, ..Meta::default() };
        let opaque = |path: &[u8]| !path.is_empty() && self.opaque.contains(path);
        let all: Vec<_> =
            dirs.iter().rev().map(|(p, m)| (&p[..], m.as_ref().unwrap_or(&default), opaque(p))).collect();
        self.tree.sink.finish(&all)?;
        Ok((self.out, self.tree.sink))
    }

    /// Links that stood before their target.
    fn late_links(&mut self) -> Result<()> {
        for (path, target) in self.links.clone() {
            if self.try_link(&path, &target)? {
                self.links.remove(&path);
            }
        }
        Ok(())
    }

    /// A whiteout in a directory that the same layer hides means nothing, and no directory either.
    fn clear_bare(&mut self) -> Result<()> {
        for dir in self.tree.take_bare() {
            let is_hidden = |d: &[u8]| self.whiteouts.contains(d) || self.opaque.contains(d);
            let is_gone = self.whiteouts.contains(&dir) || ancestors(&dir).any(is_hidden);
            if is_gone && self.tree.dirs.contains_key(&dir) {
                self.clear(&dir)?;
            }
        }
        Ok(())
    }

    /// Whiteouts to nodes 0:0, and to opaque directories where the layer has a directory of the name; these are
    /// returned.
    fn place_whiteouts(&mut self) -> Result<BTreeSet<Vec<u8>>> {
        let all = std::mem::take(&mut self.whiteouts);
        let (replaced, plain): (BTreeSet<_>, BTreeSet<_>) =
            all.into_iter().partition(|w| self.tree.dirs.contains_key(w));
        self.opaque.extend(replaced.iter().cloned());
        let mut holders = BTreeSet::new();
        for path in &plain {
            if ancestors(path).any(|a| self.opaque.contains(a)) {
                continue; // nothing shows through
            }
            let dir = split(path).0;
            // Where it finds a name, the layer's own file hides what is below.
            if self.tree.sink.whiteout(path)? && !dir.is_empty() {
                holders.insert(to_path(dir));
            }
        }
        self.out.needs.whiteouts = holders.into_iter().collect();
        Ok(replaced)
    }
}

/// A path in the store's own files: a string, or a list of bytes where it is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
    Text(String),
    Bytes(Vec<u8>),
}

impl Name {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Name::Text(t) => t.as_bytes(),
            Name::Bytes(b) => b,
        }
    }
}

fn to_path(bytes: &[u8]) -> Name {
    String::from_utf8(bytes.to_vec()).map_or_else(|e| Name::Bytes(e.into_bytes()), Name::Text)
}
