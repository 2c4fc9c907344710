//! The layers of an image as overlayfs wants them.

use super::digest::Digest;
use super::layer::apply::Applied;
use super::store::{LayerMeta, Store};
use crate::error::{Error, Kind, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Whether a layer of a stack is an EROFS image and no directory.
pub fn is_image(lower: &Path) -> bool {
    lower.file_name().is_some_and(|n| n == "erofs")
}

/// As [`Store::applied`], of a layer that must be there.
pub fn applied(store: &Store, id: &Digest) -> Result<Applied> {
    store.applied(id)?.ok_or_else(|| gone(id))
}

/// As [`Store::layer_meta`], of a layer that must be there.
pub fn meta(store: &Store, id: &Digest) -> Result<LayerMeta> {
    store.layer_meta(id)?.ok_or_else(|| gone(id))
}

fn gone(id: &Digest) -> Error {
    Error::new(Kind::NotFound, format!("layer {id}"), "is not in the store")
        .hint("run orlop imgtool fsck --repair, or import the image again")
}

#[derive(Clone, Default)]
pub struct Stack {
    /// Directories and images, topmost first; the fixup of a layer lies on the layer.
    pub lowers: Vec<PathBuf>,
    pub chain: Option<Digest>,
    /// The layer whose root entry is that of the image.
    pub root: Option<PathBuf>,
    /// The layers that were put on it.
    seen: HashSet<Digest>,
}

impl Stack {
    pub fn of(store: &Store, diff_ids: &[Digest]) -> Result<Self> {
        let mut stack = Self::default();
        for id in diff_ids {
            let applied = applied(store, id)?;
            stack.push(store, id, &applied);
        }
        Ok(stack)
    }

    /// Puts a layer on top.
    pub fn push(&mut self, store: &Store, id: &Digest, applied: &Applied) {
        let chain = Digest::chain(self.chain.as_ref(), id);
        self.chain = Some(chain);
        let fs = store.layer_tree(id);
        if applied.opaque {
            // overlayfs takes no notice of an opaque root: what it hides is left out.
            self.lowers.clear();
        }
        if applied.root_listed {
            self.root = Some(fs.clone());
        }
        // overlayfs takes no directory twice, and what is here again was hidden by itself.
        if !self.seen.insert(*id) {
            self.lowers.retain(|l| *l != fs);
        }
        self.lowers.insert(0, fs);
        if applied.needs.is_empty() {
            return;
        }
        let fixup = store.fixup(&chain).join("fs");
        if fixup.exists() {
            self.lowers.insert(0, fixup);
        }
    }
}
