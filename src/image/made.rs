//! What commands say of an image that they made, moved or named.

use super::digest::Digest;
use super::output::Output;
use super::store::Store;
use crate::error::{Result, clean};
use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Made {
    pub name: String,
    pub digest: Digest,
    /// What Docker calls the id of an image; `None` where the manifest is damaged.
    pub config_digest: Option<Digest>,
    #[serde(flatten)]
    pub layers: Option<Layers>,
}

/// What a change did, by diffIDs, the lowest first.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Layers {
    pub layers_added: Vec<Digest>,
    pub layers_removed: Vec<Digest>,
}

impl Layers {
    /// Between the layers of two images; an image may have one twice.
    pub fn between(old: &[Digest], new: &[Digest]) -> Self {
        let only = |of: &[Digest], other: &[Digest]| -> Vec<Digest> {
            let mut left = other.to_vec();
            let is_alone = |id: &&Digest| {
                let place = left.iter().position(|l| l == *id);
                place.map(|n| left.swap_remove(n)).is_none()
            };
            of.iter().filter(is_alone).copied().collect()
        };
        Self { layers_added: only(new, old), layers_removed: only(old, new) }
    }
}

impl Made {
    /// An image that is as it was.
    pub fn of(store: &Store, name: String, digest: Digest) -> Self {
        Self { name, digest, config_digest: store.config_of(&digest), layers: None }
    }

    fn line(&self) -> String {
        format!("{} {}\n", clean(&self.name), self.digest)
    }

    /// A name and its digest, all that is known, or with `--quiet` the digest alone.
    pub fn show(&self, output: Output, quiet: bool) -> Result<()> {
        output.show(quiet, self, || self.line(), [self.digest.to_string()])
    }

    /// The same of several.
    pub fn show_all(all: &[Self], output: Output, quiet: bool) -> Result<()> {
        let digests = all.iter().map(|m| m.digest.to_string());
        output.show(quiet, &all, || all.iter().map(Self::line).collect(), digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_that_is_there_twice_counts_twice() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| Digest::of(bytes));
        let layers = Layers::between(&[a, b, a], &[a, c]);
        assert_eq!((layers.layers_added, layers.layers_removed), (vec![c], vec![b, a]));
    }
}
