//! What a squashed layer leaves to the layers below it: the same whatever form they have.

use crate::error::Result;
use crate::image::fixup::{origin, origin_at};
use crate::image::layer::apply::Name;
use crate::image::layer::merge::walk;
use crate::image::layer::write::Below;
use crate::image::view::{View, at};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Of these hard links those whose target is below; and what stands in fixups of `view`, by their places there, only to
/// be one file with a copy.
pub fn to_below(view: &View, below: &View, fixups: &[usize], links: &[(Name, Name)]) -> Result<Below> {
    let all = View { layers: [&view.layers[..], &below.layers].concat() };
    let look = Look { all: &all, count: view.layers.len() };
    let mut out = Below::default();
    let linked: BTreeSet<&[u8]> = links.iter().map(|l| l.0.bytes()).collect();
    for n in fixups {
        walk(&View { layers: vec![view.layers[*n].clone()] }, false, |node| {
            if linked.contains(node.path) || origin_at(&node.proc_path()).is_none() {
                return Ok(());
            }
            let is_left = match node.is_dir() {
                true => view.layers.iter().all(|l| is_alone(l, node.path)),
                false => !look.has(node.path)?,
            };
            if is_left {
                out.names.insert(node.path.to_vec());
            }
            Ok(())
        })?;
    }
    for (path, target) in links.iter().map(|(p, t)| (p.bytes(), t.bytes())) {
        let own = inode(view, path)?;
        if own.is_some() && !look.has(target)? && inode(&all, target)? == own {
            out.links.insert(path.to_vec(), target.to_vec());
        }
    }
    Ok(out)
}

fn inode(view: &View, path: &[u8]) -> Result<Option<(u64, u64)>> {
    Ok(view.lookup(path)?.map(|f| (f.stat.st_dev, f.stat.st_ino)))
}

/// Whether a layer has no directory at a path, or has it for names of copies alone.
fn is_alone(layer: &OwnedFd, path: &[u8]) -> bool {
    at(layer, path).is_ok_and(|dir| dir.is_none_or(|dir| origin(&dir).is_some()))
}

/// The squashed layers, and those below them behind these.
struct Look<'a> {
    all: &'a View,
    count: usize,
}

impl Look<'_> {
    /// Whether the squashed layers show something of their own at a path, and not again what those below have there.
    fn has(&self, path: &[u8]) -> Result<bool> {
        let mut start = 0;
        loop {
            let layers = &self.all.layers[start..self.count];
            let Some(found) = (View { layers: layers.to_vec() }).lookup(path)? else { return Ok(false) };
            let Some(origin) = origin(&found.fd) else { return Ok(true) };
            let place = layers.iter().position(|l| Rc::ptr_eq(l, &found.layer)).unwrap_or(0);
            start += place + 1;
            let rest = |from: usize| View { layers: self.all.layers[from..].to_vec() };
            let below = inode(&rest(start), path)?;
            // Behind the fixup is its layer, which may hide where the copy is from.
            if below.is_none() || below != inode(&rest(start + 1), &origin)? {
                return Ok(true);
            }
        }
    }
}
