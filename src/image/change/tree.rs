//! What each layer of an image adds, replaces and removes, and what of it is hidden by those above.

use super::edit::Edit;
use crate::error::{Result, clean};
use crate::image::digest::Digest;
use crate::image::fixup::origin_at;
use crate::image::import::fixups;
use crate::image::layer::merge::{Node, walk};
use crate::image::output::human;
use crate::image::stack::{self, Stack};
use crate::image::store::Store;
use crate::image::view::Opened;
use rustix::fs::FileType;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

/// Names, and bytes of files; a file with several names counts with the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    pub names: u64,
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.names += 1;
        self.bytes += bytes;
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    pub added: Sum,
    pub replaced: Sum,
    /// What layers below had.
    pub removed: Sum,
    /// What layers above hide or replace of it.
    pub wasted: Sum,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Counted from 1, the lowest.
    pub layer: usize,
    pub digest: String,
    #[serde(rename = "diffID")]
    pub diff_id: Digest,
    /// Bytes of the blob.
    pub size: u64,
    pub created_by: String,
    #[serde(flatten)]
    pub sums: Sums,
    pub paths: BTreeMap<String, Sums>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub layers: Vec<Layer>,
    /// What a container sees.
    pub visible: Sum,
    pub wasted: Sum,
}

/// A name of the layers so far.
struct Seen {
    layer: usize,
    inode: (u64, u64),
    bytes: u64,
    is_dir: bool,
}

struct Count {
    depth: usize,
    names: BTreeMap<Vec<u8>, Seen>,
    /// What this layer has taken of them, and which files these were.
    gone: BTreeMap<Vec<u8>, (u64, u64)>,
    /// Files with several names that were met.
    met: HashSet<(u64, u64)>,
    sums: Vec<(Sums, BTreeMap<Vec<u8>, Sums>)>,
}

/// Looks at all layers, the lowest first. Paths are told down to `depth`.
pub fn report(store: &Store, image: &str, depth: usize) -> Result<Report> {
    let edit = Edit::open(store, image)?;
    let ids = edit.ids();
    fixups(store, &ids)?;
    let history = edit.history();
    let entries = Edit::entries(&history);
    let mut count =
        Count { depth, names: BTreeMap::new(), gone: BTreeMap::new(), met: HashSet::new(), sums: Vec::new() };
    let (mut stack, mut opened) = (Stack::default(), Opened::default());
    let mut layers = Vec::new();
    for (n, (id, part)) in ids.iter().zip(&edit.parts).enumerate() {
        let applied = stack::applied(store, id)?;
        stack.lowers.clear(); // on its chain, but alone
        stack.push(store, id, &applied);
        count.sums.push(Default::default());
        count.gone.clear();
        if applied.opaque {
            count.forget(count.below(b""), Some(n));
        }
        let has_fixup = stack.lowers.len() > 1;
        walk(&opened.view(&stack.lowers)?, false, |node| {
            let is_copy = has_fixup && node.layer == 0 && !node.is_dir();
            count.node(node, n, is_copy.then(|| origin_at(&node.proc_path())).flatten());
            Ok(())
        })?;
        layers.push(Layer {
            layer: n + 1,
            digest: part.descriptor["digest"].as_str().unwrap_or_default().into(),
            diff_id: *id,
            size: part.descriptor["size"].as_u64().unwrap_or_default(),
            created_by: history[entries[n]]["created_by"].as_str().unwrap_or_default().into(),
            sums: Sums::default(),
            paths: BTreeMap::new(),
        });
    }
    let (mut visible, mut wasted) = (Sum::default(), Sum::default());
    count.names.values().for_each(|s| visible.add(s.bytes));
    for (layer, (sums, paths)) in layers.iter_mut().zip(count.sums) {
        wasted.names += sums.wasted.names;
        wasted.bytes += sums.wasted.bytes;
        layer.sums = sums;
        layer.paths =
            paths.into_iter().map(|(p, s)| (format!("/{}", String::from_utf8_lossy(&p)), s)).collect();
    }
    Ok(Report { layers, visible, wasted })
}

impl Count {
    /// Counts something of `layer` at `path`.
    fn tell(&mut self, layer: usize, path: &[u8], count: impl Fn(&mut Sums)) {
        let (sums, paths) = &mut self.sums[layer];
        count(sums);
        let parts = path.split(|b| *b == b'/').take(self.depth).collect::<Vec<_>>();
        if !parts.is_empty() {
            count(paths.entry(parts.join(&b'/')).or_default());
        }
    }

    /// A name of a layer; of a copy also where the layers below have the same.
    fn node(&mut self, node: &Node, layer: usize, origin: Option<Vec<u8>>) {
        let path = node.path;
        if node.is_whiteout() {
            return self.forget(self.with_below(path), Some(layer));
        }
        let stat = &node.stat;
        let file = |o: &Vec<u8>| self.gone.get(o).copied().or(self.names.get(o).map(|s| s.inode));
        let below = origin.as_ref().and_then(file);
        let inode = below.unwrap_or((stat.st_dev, stat.st_ino));
        let known = self.names.get(path).map(|s| (s.inode, s.is_dir));
        if node.is_dir() && known.is_some_and(|k| k.1) {
            if node.opaque {
                self.forget(self.below(path), Some(layer));
            }
            return;
        }
        if known.is_some_and(|k| k.0 == inode) {
            return; // taken from the layers below, to settle what this one left to them
        }
        let is_file = node.kind() == FileType::RegularFile;
        let first = origin.is_none() && (stat.st_nlink == 1 || self.met.insert(inode));
        let bytes = if is_file && first { stat.st_size as u64 } else { 0 };
        if known.is_some() {
            self.forget(self.with_below(path), None);
            self.tell(layer, path, |s| s.replaced.add(bytes));
        } else {
            self.tell(layer, path, |s| s.added.add(bytes));
        }
        self.names.insert(path.to_vec(), Seen { layer, inode, bytes, is_dir: node.is_dir() });
    }

    /// The names below a path.
    fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let start = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
        let names = self.names.range(start.clone()..).map(|n| n.0).take_while(|n| n.starts_with(&start));
        names.cloned().collect()
    }

    fn with_below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        [vec![path.to_vec()], self.below(path)].concat()
    }

    /// Forgets names: they are there for nothing. `by` is the layer that removes them, where none replaces them.
    fn forget(&mut self, names: Vec<Vec<u8>>, by: Option<usize>) {
        for name in names {
            let Some(seen) = self.names.remove(&name) else { continue };
            self.tell(seen.layer, &name, |s| s.wasted.add(seen.bytes));
            if let Some(layer) = by {
                self.tell(layer, &name, |s| s.removed.add(seen.bytes));
            }
            self.gone.entry(name).or_insert(seen.inode);
        }
    }
}

/// For people: the layers, and in each the paths with most bytes first.
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    let sum = |s: &Sum| format!("{} ({})", s.names, human(s.bytes));
    let line = |s: &Sums| {
        let all =
            [("added", s.added), ("replaced", s.replaced), ("removed", s.removed), ("wasted", s.wasted)];
        let told = all.iter().filter(|(_, s)| s.names > 0).map(|(what, s)| format!("{what} {}", sum(s)));
        told.collect::<Vec<_>>().join(", ")
    };
    for l in &report.layers {
        // A String takes everything.
        let _ = writeln!(out, "layer {} {}: {}", l.layer, &l.diff_id.to_string()[..19], line(&l.sums));
        if !l.created_by.is_empty() {
            let _ = writeln!(out, "    # {}", clean(&l.created_by));
        }
        let mut paths: Vec<_> = l.paths.iter().collect();
        paths.sort_by_key(|(_, s)| std::cmp::Reverse(s.added.bytes + s.replaced.bytes + s.removed.bytes));
        for (path, sums) in paths {
            let _ = writeln!(out, "    {}: {}", clean(path), line(sums));
        }
    }
    let _ = writeln!(out, "visible {}, wasted {}", sum(&report.visible), sum(&report.wasted));
    out
}
