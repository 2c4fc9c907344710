//! An image that is looked at where it lies: in the store, or without an import in a layout or an archive.

use super::archive::{Files, inside};
use super::digest::Digest;
use super::layout::images;
use super::limits::Limits;
use super::manifest;
use super::names::about;
use super::platform::Platform;
use super::store::Store;
use crate::error::{Error, Kind, Result};
use std::path::Path;

/// The documents of an image.
pub struct Documents {
    /// In the store, all of its names.
    pub names: Vec<String>,
    pub digest: Digest,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// The store has no layers of it.
    pub is_outside: bool,
}

impl Documents {
    /// Of an image of the store, by its manifest.
    pub fn of(store: &Store, digest: Digest) -> Result<Self> {
        let (manifest, m) = (store.blob(&digest)?, store.manifest(&digest)?);
        let config = store.blob(&manifest::digest(m.config())?)?;
        let is_name = |r: &(_, String, Result<Digest>)| r.2.as_ref().is_ok_and(|d| *d == digest);
        let mut names: Vec<String> = store.all_refs()?.into_iter().filter(is_name).map(|r| r.1).collect();
        names.sort();
        Ok(Self { names, digest, manifest, config, is_outside: false })
    }

    /// Of the image that `word` names in the store, or where it names none there, of the one in the source that is the
    /// path, with the name behind a colon where the source has several.
    pub fn find(store: &Store, word: &str) -> Result<Self> {
        match store.find(word) {
            Ok((_, digest)) => about(word, Self::of(store, digest)),
            Err(e) if e.kind == Kind::NotFound => match place(word) {
                Some((path, name)) => Self::outside(store, path, name),
                None => Err(e),
            },
            Err(e) => Err(e),
        }
    }

    fn outside(store: &Store, path: &str, name: Option<&str>) -> Result<Self> {
        let limits = Limits::default();
        let files = Files::open(Path::new(path), store, &limits)?;
        let found = images(&files, &Platform::host(), &limits, name);
        // The command has no option to choose another platform by.
        let mut found = found.map_err(|e| inside(path, Error { hint: None, ..e }))?;
        let count = found.len();
        let all: Vec<String> = found.iter().flat_map(|i| i.names.clone()).collect();
        let place = match name {
            None if count == 1 => Some(0),
            None => None,
            Some(name) => found.iter().position(|i| i.names.iter().any(|n| n == name)),
        };
        let image = place.map(|n| found.swap_remove(n)).ok_or_else(|| {
            let what = format!("has {count} images: {}", all.join(", "));
            Error::new(Kind::NotFound, path, what).hint("give the name of one of them behind a colon")
        })?;
        let digest = Digest::of(&image.manifest);
        let (names, manifest, config) = (image.names, image.manifest, image.config);
        Ok(Self { names, digest, manifest, config, is_outside: true })
    }
}

/// Whether a word is the path of a source, perhaps with a name behind it.
pub fn is_source(word: &str) -> bool {
    place(word).is_some()
}

/// A word as the path of a source, and a name of an image in it.
fn place(word: &str) -> Option<(&str, Option<&str>)> {
    let is_source = |path: &str| {
        let path = Path::new(path);
        path.is_file() || ["index.json", "manifest.json"].iter().any(|name| path.join(name).is_file())
    };
    if is_source(word) {
        return Some((word, None));
    }
    let colons = word.match_indices(':').map(|m| (&word[..m.0], &word[m.0 + 1..]));
    colons.into_iter().find(|c| is_source(c.0)).map(|(path, name)| (path, Some(name)))
}
