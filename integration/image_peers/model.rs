//! A model of what layers make: the rules of the image specification (layer.md) in memory, without a file system. What is
//! under test gives it nothing but digests.

use crate::tree::{Meta, file, shown, told};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    Dir,
    File(Vec<u8>),
    /// Of this size, with data at these offsets.
    Sparse(u64, Vec<(u64, Vec<u8>)>),
    Symlink(Vec<u8>),
    /// Of a path from the root.
    Hard(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    /// Hides the path of the layers below.
    Whiteout,
    /// Hides what the layers below have in the directory.
    Opaque,
}

/// An entry of a layer; the root is the empty path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub path: Vec<u8>,
    pub what: What,
    pub meta: Meta,
}

/// A tree: names of one file share its node.
#[derive(Clone)]
pub struct Model {
    names: BTreeMap<Vec<u8>, Rc<(What, Meta)>>,
}

/// Of directories that no layer lists.
fn unlisted() -> Rc<(What, Meta)> {
    Rc::new((What::Dir, Meta { mode: 0o755, ..Meta::default() }))
}

pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter().rposition(|b| *b == b'/').map_or((b"", path), |n| (&path[..n], &path[n + 1..]))
}

pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() }
}

pub fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() && !path.is_empty() || path.strip_prefix(dir).is_some_and(|r| r.first() == Some(&b'/'))
}

/// The path and all directories above it, topmost first, without the root.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = (1..=path.len()).filter(|n| *n == path.len() || path[*n] == b'/');
    ends.map(|n| &path[..n])
}

impl Model {
    pub fn new() -> Self {
        Self { names: BTreeMap::from([(Vec::new(), unlisted())]) }
    }

    pub fn of(layers: &[Vec<Item>]) -> Self {
        let mut model = Self::new();
        layers.iter().for_each(|l| model.apply(l));
        model
    }

    pub fn get(&self, path: &[u8]) -> Option<&(What, Meta)> {
        self.names.get(path).map(|n| &**n)
    }

    pub fn is_dir(&self, path: &[u8]) -> bool {
        self.get(path).is_some_and(|n| n.0 == What::Dir)
    }

    pub fn paths(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.names.keys()
    }

    /// Whiteouts apply to the layers below only, wherever they stand (layer.md#whiteouts); then entries are added or
    /// replace what is there, a directory only itself.
    pub fn apply(&mut self, layer: &[Item]) {
        let below = self.clone();
        let listed: BTreeSet<&[u8]> =
            layer.iter().filter(|i| i.what == What::Dir).map(|i| &i.path[..]).collect();
        for item in layer {
            let (dir, name) = split(&item.path);
            match item.what {
                What::Whiteout => {
                    if let Some(dir) = below.place(dir, &listed) {
                        self.remove(&join(&dir, name));
                    }
                }
                What::Opaque => {
                    if let Some(dir) = below.place(&item.path, &listed) {
                        self.names.retain(|p, _| !is_below(p, &dir));
                    }
                }
                _ => {}
            }
        }
        let links: Vec<&Item> = layer.iter().filter(|i| !self.add(&below, i)).collect();
        for link in links {
            assert!(self.add(&below, link), "{link:?} leads nowhere");
        }
    }

    /// Where a directory of the layer lies in what is below; `None` when nothing of it shows there.
    fn place(&self, dir: &[u8], listed: &BTreeSet<&[u8]>) -> Option<Vec<u8>> {
        if prefixes(dir).any(|p| listed.contains(p) && self.names.contains_key(p) && !self.is_dir(p)) {
            return None; // the layer has a directory in place of a link or file
        }
        let at = self.resolve(dir);
        self.is_dir(&at).then_some(at)
    }

    fn remove(&mut self, path: &[u8]) {
        self.names.retain(|p, _| p != path && !is_below(p, path));
    }

    /// `false`: a hard link whose target is not there yet.
    fn add(&mut self, below: &Model, item: &Item) -> bool {
        let node = match &item.what {
            What::Whiteout | What::Opaque => return true,
            What::Hard(target) => {
                let find = |m: &Model| {
                    let (dir, name) = split(target);
                    m.names.get(&join(&m.resolve(dir), name)).cloned()
                };
                let Some(node) = find(self).or_else(|| find(below)) else { return false };
                node
            }
            what => Rc::new((what.clone(), item.meta.clone())),
        };
        let (dir, name) = split(&item.path);
        let dir = self.resolve(dir);
        for p in prefixes(&dir).map(<[u8]>::to_vec).collect::<Vec<_>>() {
            if !self.is_dir(&p) {
                self.remove(&p);
                self.names.insert(p, unlisted());
            }
        }
        let path = if item.path.is_empty() { Vec::new() } else { join(&dir, name) };
        if !(item.what == What::Dir && self.is_dir(&path)) {
            self.remove(&path);
        }
        self.names.insert(path, node);
        true
    }

    /// The path with its links followed in this tree; what is missing stays as it is written.
    pub fn resolve(&self, path: &[u8]) -> Vec<u8> {
        let parts = |p: &[u8]| -> Vec<Vec<u8>> {
            p.split(|b| *b == b'/')
                .filter(|p| !p.is_empty() && *p != b".")
                .map(<[u8]>::to_vec)
                .rev()
                .collect()
        };
        let (mut todo, mut at, mut links) = (parts(path), Vec::new(), 0);
        while let Some(part) = todo.pop() {
            if part == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &part);
            match self.get(&next) {
                Some((What::Symlink(target), _)) if links < 40 => {
                    links += 1;
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    todo.extend(parts(target));
                }
                _ => at = next,
            }
        }
        at
    }

    /// A line for each name, with all that can be told of it.
    pub fn show(&self) -> BTreeMap<String, String> {
        let mut first = HashMap::new();
        let line = |(path, node): (&Vec<u8>, &Rc<(What, Meta)>)| {
            let name = shown(path);
            let is = first.entry(Rc::as_ptr(node)).or_insert_with(|| name.clone()).clone();
            let text = match &node.0 {
                What::Dir => "dir".into(),
                What::File(data) => file(data),
                What::Sparse(size, parts) => {
                    let mut data = vec![0; *size as usize];
                    for (at, part) in parts {
                        data[*at as usize..][..part.len()].copy_from_slice(part);
                    }
                    file(&data)
                }
                What::Symlink(target) => format!("link {}", shown(target)),
                What::Char(major, minor) => format!("char {major}:{minor}"),
                What::Block(major, minor) => format!("block {major}:{minor}"),
                What::Fifo => "fifo".into(),
                other => panic!("{other:?} is no file"),
            };
            let mut meta = node.1.clone();
            if let What::Symlink(_) = node.0 {
                meta.mode = 0o777;
            }
            (name, told(&text, &meta, &is))
        };
        self.names.iter().map(line).collect()
    }
}

/// The entries of layers, a line for each.
pub fn told_of(layers: &[Vec<Item>]) -> String {
    let line = |n: usize, i: &Item| match &i.what {
        What::Symlink(to) | What::Hard(to) => format!("{n} {} {:?}", shown(&i.path), shown(to)),
        What::File(_) | What::Sparse(..) => format!("{n} {} file", shown(&i.path)),
        what => format!("{n} {} {what:?}", shown(&i.path)),
    };
    let all = layers.iter().enumerate().flat_map(|(n, l)| l.iter().map(move |i| line(n, i)));
    all.collect::<Vec<_>>().join("\n")
}
