//! What the store takes of its disk: of what, for which image, and what a collection would free.

use super::collect::{Used, used};
use super::digest::Digest;
use super::output::{columns, human};
use super::store::Store;
use super::tags::KEPT;
use super::tree::{Met, Usage};
use super::view;
use crate::error::{Error, Result};
use rustix::io::Errno;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// One kind of things.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Part {
    pub count: u64,
    #[serde(flatten)]
    pub usage: Usage,
}

/// An image; bytes are those on disk.
#[derive(Debug, Serialize)]
pub struct Row {
    pub names: Vec<String>,
    pub digest: Digest,
    pub size: u64,
    /// Of what other images use as well.
    pub shared: u64,
    /// What would be free without it.
    pub unique: u64,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub layers: Part,
    pub blobs: Part,
    pub fixups: Part,
    /// What pulls that broke have left for the next.
    pub partial: Part,
    /// What no image and no bundle uses, and no log keeps.
    pub reclaimable: Part,
    pub images: Vec<Row>,
}

const SUBS: [&str; 4] = ["layers", "blobs/sha256", "fixups", "partial"];

/// Which of [`SUBS`], and the name there.
type Item = (usize, String);

impl Used {
    fn items(&self) -> impl Iterator<Item = Item> + '_ {
        let subs = [&self.layers, &self.blobs, &self.fixups];
        subs.into_iter().enumerate().flat_map(|(n, names)| names.iter().map(move |name| (n, name.clone())))
    }
}

pub fn df(store: &Store) -> Result<Report> {
    let all = measure(store)?;
    let needed: BTreeSet<Item> = used(store, KEPT)?.items().collect();
    let mut parts = [Part::default(); SUBS.len()];
    let mut reclaimable = Part::default();
    for (item, usage) in &all {
        parts[item.0].count += 1;
        parts[item.0].usage += *usage;
        if !needed.contains(item) {
            reclaimable.count += 1;
            reclaimable.usage += *usage;
        }
    }
    let mut names: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for (name, digest) in store.refs()? {
        names.entry(digest).or_default().push(name);
    }
    let mut images = Vec::new();
    let mut users: BTreeMap<Item, u64> = BTreeMap::new();
    for (digest, names) in names {
        let mut own = Used::default();
        own.add(store, &digest)?;
        let items: Vec<Item> = own.items().filter(|i| all.contains_key(i)).collect();
        items.iter().for_each(|i| *users.entry(i.clone()).or_default() += 1);
        images.push((digest, names, items));
    }
    let row = |(digest, names, items): (Digest, Vec<String>, Vec<Item>)| {
        let sum =
            |shared: bool| items.iter().filter(|i| (users[*i] > 1) == shared).map(|i| all[i].disk).sum();
        let (shared, unique): (u64, u64) = (sum(true), sum(false));
        Row { names, digest, size: shared + unique, shared, unique }
    };
    let images = images.into_iter().map(row).collect();
    let [layers, blobs, fixups, partial] = parts;
    Ok(Report { layers, blobs, fixups, partial, reclaimable, images })
}

/// Measures everything, layers first: files of fixups are links to theirs.
fn measure(store: &Store) -> Result<BTreeMap<Item, Usage>> {
    let mut met = Met::new();
    let mut out = BTreeMap::new();
    for (n, sub) in SUBS.into_iter().enumerate() {
        for path in store.files(sub)? {
            let at = path.display().to_string();
            let stat = match rustix::fs::lstat(&path) {
                Err(Errno::NOENT) => continue, // what a pull has finished by now
                other => other.map_err(|e| Error::os(&at, "stat", e.raw_os_error()))?,
            };
            let usage = match path.is_dir() {
                true => Usage::of(&view::open(&path)?, &mut met)?,
                false => {
                    let mut usage = Usage::default();
                    usage.add(&stat, &mut met);
                    usage
                }
            };
            out.insert((n, path.file_name().unwrap_or_default().to_string_lossy().into_owned()), usage);
        }
    }
    Ok(out)
}

/// Two tables.
pub fn table(report: &Report) -> String {
    let mut parts = vec![["", "COUNT", "INODES", "BYTES", "ON DISK"].map(String::from)];
    let all = [
        ("layers", &report.layers),
        ("blobs", &report.blobs),
        ("fixups", &report.fixups),
        ("partial", &report.partial),
        ("gc frees", &report.reclaimable),
    ];
    parts.extend(all.map(|(name, part)| {
        let u = &part.usage;
        [name.into(), part.count.to_string(), u.inodes.to_string(), human(u.bytes), human(u.disk)]
    }));
    let mut images = vec![["IMAGE", "DIGEST", "ON DISK", "SHARED", "UNIQUE"].map(String::from)];
    images.extend(report.images.iter().map(|r| {
        let [size, shared, unique] = [r.size, r.shared, r.unique].map(human);
        [r.names.join(" "), r.digest.hex()[..12].into(), size, shared, unique]
    }));
    format!("{}\n{}", columns(&parts), columns(&images))
}
