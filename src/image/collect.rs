//! What nobody uses is removed: names and bundles are the roots.

use super::digest::Digest;
use super::store::{BundleRef, Store, remove_path};
use super::{bundle, manifest, tags};
use crate::error::{Error, Result};
use std::collections::BTreeSet;

/// What a sweep removed.
#[derive(Debug, PartialEq, Eq)]
pub struct Removed {
    pub layers: u64,
    pub blobs: u64,
}

impl std::fmt::Display for Removed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} layers and {} blobs", self.layers, self.blobs)
    }
}

/// Removes the name, and what nothing else uses. The store is locked exclusively.
pub fn remove(store: &Store, image: &str) -> Result<(Vec<String>, Removed)> {
    let (name, digest) = store.find(image)?;
    // A digest means the image with all its names.
    let names: Vec<String> = match image.strip_suffix(":latest").unwrap_or(image) {
        word if name == word || name == image || name == format!("{word}:latest") => vec![name],
        _ => store.refs()?.into_iter().filter(|r| r.1 == digest).map(|r| r.0).collect(),
    };
    for name in &names {
        store.remove_ref(name)?;
        store.remove_log(name)?;
    }
    Ok((names, sweep(store, tags::KEPT)?))
}

/// What names and bundles need, as names of files.
#[derive(Debug, Default)]
pub struct Used {
    pub blobs: BTreeSet<String>,
    pub layers: BTreeSet<String>,
    pub fixups: BTreeSet<String>,
    pub bundles: BTreeSet<String>,
}

/// A bundle that was removed holds nothing; its file system may also just be away, so only a clear no counts.
pub fn is_gone(record: &BundleRef) -> bool {
    std::fs::metadata(record.path.join("upper"))
        .is_err_and(|e| matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory))
}

/// Follows all names with the last `log` images of each, and all bundles.
pub fn used(store: &Store, log: usize) -> Result<Used> {
    let mut roots: BTreeSet<Digest> = store.refs()?.into_iter().map(|r| r.1).collect();
    roots.extend(store.logged(log)?);
    let mut used = Used::default();
    for (file, record) in store.bundles()? {
        if !is_gone(&record) {
            roots.insert(record.manifest);
            used.bundles.extend(file.file_name().and_then(|n| n.to_str()).map(str::to_string));
        }
    }
    for root in roots {
        used.add(store, &root)?;
    }
    Ok(used)
}

impl Used {
    /// Adds what an image needs.
    pub fn add(&mut self, store: &Store, root: &Digest) -> Result<()> {
        self.blobs.insert(root.hex());
        let m: oci_spec::image::ImageManifest = serde_json::from_slice(&store.blob(root)?)
            .map_err(|e| Error::invalid(root.to_string(), e.to_string()))?;
        for d in m.layers().iter().chain([m.config()]) {
            self.blobs.insert(manifest::digest(d)?.hex());
        }
        let mut chain = None;
        for id in bundle::load(store, root)?.1 {
            self.layers.insert(id.hex());
            let next = Digest::chain(chain.as_ref(), &id);
            self.fixups.insert(next.hex());
            chain = Some(next);
        }
        Ok(())
    }
}

/// Removes blobs, layers and fixups that no name, no bundle and none of the last `log` images of a name needs.
pub fn sweep(store: &Store, log: usize) -> Result<Removed> {
    let used = used(store, log)?;
    store.sweep("bundles", &used.bundles)?;
    store.sweep("locks", &BTreeSet::new())?; // of commands that were killed: nobody is at work now
    store.sweep("partial", &BTreeSet::new())?; // of pulls that broke
    store.formats()?.iter().try_for_each(|path| remove_path(path))?;
    store.sweep("fixups", &used.fixups)?;
    Ok(Removed {
        layers: store.sweep("layers", &used.layers)?,
        blobs: store.sweep("blobs/sha256", &used.blobs)?,
    })
}
