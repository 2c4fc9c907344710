//! What nobody uses is removed: names and bundles are the roots.

use super::digest::Digest;
use super::mounts::{self, FileSystem, Held};
use super::output::human;
use super::store::{BundleRef, MEND, Store, remove_path};
use super::{bundle, manifest, tags};
use crate::error::{Error, Result, clean};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a sweep removed.
#[derive(Debug, Default, Serialize)]
pub struct Removed {
    /// Names of images.
    pub names: Vec<String>,
    pub layers: Vec<String>,
    pub blobs: Vec<String>,
    /// Bytes of the blocks that are free by it.
    pub bytes: u64,
    /// Bundles that still use images without a name.
    pub bundles: Vec<PathBuf>,
    /// Bundles whose file systems are not mounted.
    pub away: Vec<Away>,
}

/// A bundle that may be there, on a file system that is not mounted.
#[derive(Clone, Debug, Serialize)]
pub struct Away {
    pub path: PathBuf,
    /// The file by which it keeps its layers.
    pub record: PathBuf,
}

impl Removed {
    /// For people.
    pub fn line(&self) -> String {
        let (layers, blobs, freed) = (self.layers.len(), self.blobs.len(), human(self.bytes));
        let what = format!("{layers} layers and {blobs} blobs, {freed}");
        let mut out = match &self.names[..] {
            [] => format!("removed {what}\n"),
            names => format!("{}: removed, {what}\n", clean(&names.join(" "))),
        };
        let is_away = |b: &&PathBuf| self.away.iter().any(|a| a.path == **b);
        for bundle in self.bundles.iter().filter(|b| !is_away(b)) {
            out.push_str(&format!("{}: keeps its layers\n", clean(&bundle.display().to_string())));
        }
        for Away { path, record } in &self.away {
            let (path, record) = (path.display().to_string(), record.display().to_string());
            out.push_str(&format!(
                "{}: its file system is not mounted, keeps its layers while there is {}\n",
                clean(&path),
                clean(&record)
            ));
        }
        out
    }
}

/// Removes the names, and what nothing else uses. The store is locked exclusively.
pub fn remove(store: &Store, images: &[String]) -> Result<Removed> {
    let (mut names, mut roots) = (BTreeSet::new(), BTreeSet::new());
    // All of them are looked for first: a word that is wrong removes nothing.
    for image in images {
        let (name, digest) = store.find(image)?;
        roots.insert(digest);
        match store.named(image)? {
            Some(_) => drop(names.insert(name)),
            // A digest means the image with all its names.
            None => names.extend(store.refs()?.into_iter().filter(|r| r.1 == digest).map(|r| r.0)),
        }
    }
    for name in &names {
        store.remove_ref(name)?;
        store.remove_log(name)?;
    }
    let left: BTreeSet<Digest> = store.refs()?.into_iter().map(|r| r.1).collect();
    let is_ours = |r: &BundleRef| roots.contains(&r.manifest) && !left.contains(&r.manifest) && !is_gone(r);
    let removed = sweep(store, tags::KEPT)?; // which finds bundles that were moved
    let bundles = store.bundles()?.into_iter().map(|b| b.1).filter(is_ours).map(|r| r.path).collect();
    Ok(Removed { names: names.into_iter().collect(), bundles, ..removed })
}

/// What names and bundles need, as names of files.
#[derive(Debug, Default)]
pub struct Used {
    pub blobs: BTreeSet<String>,
    pub layers: BTreeSet<String>,
    pub fixups: BTreeSet<String>,
    pub bundles: BTreeSet<String>,
    pub away: Vec<Away>,
}

/// Whether there is no bundle at a path, as far as that can be seen.
fn is_missing(path: &Path) -> bool {
    std::fs::metadata(path.join("upper"))
        .is_err_and(|e| matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory))
}

/// A bundle that was removed holds nothing; its file system may also just be away, so only a clear no counts: where what
/// is left of its path is on the same file system.
pub fn is_gone(record: &BundleRef) -> bool {
    let left = || record.path.ancestors().find_map(FileSystem::of);
    let is_there = |on: &FileSystem| left().is_none_or(|left| on.is(&left));
    is_missing(&record.path) && record.on.as_ref().is_none_or(is_there)
}

/// Follows all names with the last `log` images of each, and all bundles.
pub fn used(store: &Store, log: usize) -> Result<Used> {
    let mut roots: BTreeSet<Digest> = store.refs()?.into_iter().map(|r| r.1).collect();
    roots.extend(store.logged(log)?);
    let mut used = Used::default();
    let held = Held::of(store);
    for (file, record) in store.bundles()? {
        if !is_gone(&record) {
            roots.insert(record.manifest);
            if is_missing(&record.path) {
                used.away.push(Away { path: record.path, record: file.clone() });
            }
            used.bundles.extend(file.file_name().and_then(|n| n.to_str()).map(str::to_string));
        }
    }
    for root in roots {
        used.add(store, &root)?;
    }
    used.layers.extend(held.layers);
    used.fixups.extend(held.fixups);
    Ok(used)
}

impl Used {
    /// Adds what an image needs.
    pub fn add(&mut self, store: &Store, root: &Digest) -> Result<()> {
        self.blobs.insert(root.hex());
        let m: oci_spec::image::ImageManifest = serde_json::from_slice(&store.blob(root)?)
            .map_err(|e| Error::invalid(root.to_string(), e.to_string()).hint(MEND))?;
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
    mounts::record_mounted(store);
    let used = used(store, log)?;
    store.sweep("bundles", &used.bundles)?;
    store.sweep("locks", &BTreeSet::new())?; // of commands that were killed: nobody is at work now
    let partial = store.sweep("partial", &BTreeSet::new())?; // of pulls that broke
    store.formats()?.iter().try_for_each(|path| remove_path(path))?;
    let fixups = store.sweep("fixups", &used.fixups)?;
    let (layers, blobs) = (store.sweep("layers", &used.layers)?, store.sweep("blobs/sha256", &used.blobs)?);
    let bytes = fixups.bytes + partial.bytes + layers.bytes + blobs.bytes;
    let digests = |names: Vec<String>| -> Vec<String> {
        let digest = |n: String| Digest::from_hex(&n).map_or_else(|| n.clone(), |d| d.to_string());
        names.into_iter().map(digest).collect()
    };
    Ok(Removed {
        layers: digests(layers.names),
        blobs: digests(blobs.names),
        bytes,
        away: used.away,
        ..Removed::default()
    })
}
