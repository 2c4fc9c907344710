//! Finds what a kill, a power cut or a disk has left, and mends it: litter is removed, layers and fixups are made again
//! from blobs. What is whole is never touched.

use super::collect::is_gone;
use super::digest::Digest;
use super::driver::damaged_trial;
use super::mounts::Held;
use super::overlay;
use super::store::{BundleRef, Store, Work, decode, read, remove_path, sync_parent};
use super::verify::{Damage, Exam, Object, all};
use crate::error::{Error, Result, clean};
use rustix::fs::RenameFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub litter: Vec<PathBuf>,
    pub damages: Vec<(Damage, State)>,
    pub(super) repair: bool,
}

/// What became of a damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was asked for.
    Found,
    Mended(&'static str),
    /// Why it stays.
    Left(String),
}

impl Report {
    /// Whether nothing but litter was found, or all of it was mended.
    pub fn is_whole(&self) -> bool {
        self.damages.iter().all(|d| matches!(d.1, State::Mended(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for path in &self.litter {
            let removed = if self.repair { ": removed" } else { "" };
            writeln!(f, "litter: {}{removed}", clean(&path.display().to_string()))?;
        }
        for (damage, state) in &self.damages {
            match state {
                State::Found => writeln!(f, "damage: {damage}")?,
                State::Mended(how) => writeln!(f, "damage: {damage}; {how}")?,
                State::Left(why) => writeln!(f, "damage: {damage}; not mended: {why}")?,
            }
        }
        Ok(())
    }
}

/// Looks at all of the store, which is locked exclusively: nobody is at work.
pub fn fsck(store: &Store, repair: bool) -> Result<Report> {
    let mut report = Report { litter: litter(store)?, repair, ..Report::default() };
    if repair {
        report.litter.iter().try_for_each(|path| remove_path(path))?;
    }
    let mut damages = Vec::new();
    let roots = all(store, &mut damages)?;
    let mut exam = Exam::of(store, &roots)?;
    exam.others()?;
    let mut mend = Mend { store, repair, layers: BTreeMap::new(), mounted: mounted(store)? };
    mend.layers = exam.layers(repair)?;
    damages.append(&mut exam.damages);
    report.damages.extend(mend.all(damages)?);
    // Only now: they are links to files of the layers.
    let fixups = exam.fixups(repair)?;
    let mut damages = Vec::new();
    damages.append(&mut exam.damages);
    mend.layers = fixups;
    report.damages.extend(mend.all(damages)?);
    Ok(report)
}

/// Work of commands that were killed, locks, and records of bundles that are not there.
fn litter(store: &Store) -> Result<Vec<PathBuf>> {
    let mut out = store.files("tmp")?;
    out.extend(store.files("locks")?);
    out.extend(store.formats()?);
    out.extend(damaged_trial(store));
    let gone =
        |(path, record): (PathBuf, Result<BundleRef>)| record.is_ok_and(|r| is_gone(&r)).then_some(path);
    out.extend(store.all_bundles()?.into_iter().filter_map(gone));
    Ok(out)
}

/// What stands on a layer or a fixup.
#[derive(Clone)]
pub(super) enum Holder {
    Bundle(PathBuf),
    /// A mount that no record tells of, or of another mount namespace.
    Other,
}

impl Holder {
    pub fn remedy(&self) -> &'static str {
        match self {
            Holder::Bundle(_) => "unmount it first",
            Holder::Other => "stop its container, or unmount it, first",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Bundle(path) => write!(f, "bundle {} is mounted", path.display()),
            Holder::Other => f.write_str("a rootfs that stands on it is mounted"),
        }
    }
}

/// The layers and fixups that mounts stand on, by diffID and chainID: nothing is taken away from below a mount. That of a
/// bundle whose runtime mounts it is seen by its container alone, whose images are files that the mount keeps.
pub(super) fn mounted(store: &Store) -> Result<BTreeMap<Digest, Holder>> {
    let held = Held::of(store);
    let seen = held.layers.iter().chain(&held.fixups).filter_map(|name| Digest::from_hex(name));
    let mut out: BTreeMap<_, _> = seen.map(|id| (id, Holder::Other)).collect();
    // Which bundles of our own mount namespace these are, and what images they are made of.
    for (_, record) in store.all_bundles()? {
        let Ok(record) = record else { continue };
        if overlay::is_mounted(&record.path.join("rootfs")).unwrap_or(false) {
            // An image whose documents are lost has no layers that anybody knows.
            let layers = super::bundle::load(store, &record.manifest).map(|l| l.1).unwrap_or_default();
            let mut chain = None;
            for id in layers {
                let next = Digest::chain(chain.as_ref(), &id);
                let holder = Holder::Bundle(record.path.clone());
                out.extend([(id, holder.clone()), (next, holder)]);
                chain = Some(next);
            }
        }
    }
    Ok(out)
}

struct Mend<'a> {
    store: &'a Store,
    repair: bool,
    /// What damaged layers or fixups must be.
    layers: BTreeMap<Digest, Work>,
    /// What is mounted, by diffID and chainID.
    mounted: BTreeMap<Digest, Holder>,
}

const AGAIN: &str = "import the image again";

impl Mend<'_> {
    fn all(&mut self, damages: Vec<Damage>) -> Result<Vec<(Damage, State)>> {
        let mut done: BTreeMap<Object, State> = BTreeMap::new();
        let mut out = Vec::new();
        for damage in damages {
            let state = match done.get(&damage.object) {
                _ if !self.repair => State::Found,
                Some(state) => state.clone(),
                None => {
                    let state = self.one(&damage)?;
                    done.insert(damage.object.clone(), state.clone());
                    state
                }
            };
            out.push((damage, state));
        }
        Ok(out)
    }

    fn one(&self, damage: &Damage) -> Result<State> {
        let holder = match &damage.object {
            Object::Layer(id) | Object::Fixup(id) => self.mounted.get(id),
            _ => None,
        };
        if let Some(holder) = holder {
            return Ok(State::Left(format!("{holder}, {}", holder.remedy())));
        }
        match &damage.object {
            Object::Ref(path) => {
                self.remove(path)?;
                Ok(State::Mended("the name was removed, import the image again"))
            }
            Object::Log(path) => {
                self.remove(path)?;
                Ok(State::Mended("the log was removed"))
            }
            Object::Bundle(path) => {
                self.remove(path)?;
                Ok(State::Mended("the record was removed"))
            }
            Object::Image(digest) => self.image(digest, damage),
            Object::Blob(digest) => {
                self.remove(&self.store.blob_path(digest))?;
                Ok(State::Mended("the blob was removed, an export needs the image imported again"))
            }
            Object::Layer(id) => self.layer(id),
            Object::Fixup(chain) => match self.layers.get(chain) {
                Some(work) => self.replace(work, "fixup", &self.store.fixup(chain)),
                None => {
                    self.remove(&self.store.fixup(chain))?;
                    Ok(State::Mended("it was removed, the next unpack makes it again"))
                }
            },
        }
    }

    /// Names of an image without a manifest or configuration are names of nothing.
    fn image(&self, digest: &Digest, damage: &Damage) -> Result<State> {
        for (path, _, found) in self.store.all_refs()? {
            if found.is_ok_and(|d| d == *digest) {
                self.remove(&path)?;
            }
        }
        let path = self.store.blob_path(digest);
        if self.store.look_at_blob(digest, None).is_ok_and(|(_, found)| found != *digest) {
            self.remove(&path)?;
        }
        self.remove_damaged_config(digest)?;
        match damage.images.iter().any(|n| n.starts_with("bundle ")) {
            true => Ok(State::Left(AGAIN.into())),
            false => Ok(State::Mended("the name was removed, import the image again")),
        }
    }

    /// The configuration of an image whose manifest is whole.
    fn remove_damaged_config(&self, digest: &Digest) -> Result<()> {
        let Ok(m) = self.store.manifest(digest) else { return Ok(()) };
        let Ok(config) = super::manifest::digest(m.config()) else { return Ok(()) };
        match self.store.look_at_blob(&config, None) {
            Ok((_, found)) if found != config => self.remove(&self.store.blob_path(&config)),
            _ => Ok(()),
        }
    }

    fn layer(&self, id: &Digest) -> Result<State> {
        let path = self.store.layer(id);
        match self.layers.get(id) {
            Some(work) => self.replace(work, "layer", &path),
            None if path.exists() => {
                self.remove(&path)?;
                // Kept, it would pass for whole with the next import.
                Ok(State::Left(format!("it was removed, {AGAIN}")))
            }
            None => Ok(State::Left(AGAIN.into())),
        }
    }

    /// Puts what was made again in the place of what is damaged, at once.
    fn replace(&self, work: &Work, name: &str, place: &Path) -> Result<State> {
        let new = work.path.join(name);
        self.store.sync()?;
        let cwd = rustix::fs::CWD;
        if rustix::fs::renameat_with(cwd, &new, cwd, place, RenameFlags::EXCHANGE).is_err() {
            // Nothing was there, or the file system cannot exchange.
            if place.exists() {
                self.remove(place)?;
            }
            std::fs::rename(&new, place).map_err(|e| Error::io(place.display().to_string(), "rename", &e))?;
        }
        sync_parent(place)?;
        Ok(State::Mended("it was made again"))
    }

    /// Out of sight first, so that nobody ever sees half of it.
    fn remove(&self, path: &Path) -> Result<()> {
        let work = self.store.work()?;
        std::fs::rename(path, work.path.join("removed"))
            .map_err(|e| Error::io(path.display().to_string(), "rename", &e))?;
        sync_parent(path)
    }
}

/// A file of the store; `None` where another command has removed it since its directory was read.
fn text(path: &Path) -> Option<Result<String>> {
    match read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(Err(Error::io(path.display().to_string(), "read", &e))),
        Ok(text) => Some(Ok(String::from_utf8_lossy(&text).into_owned())),
    }
}

/// The record of a bundle.
pub(super) fn record(path: &Path) -> Option<Result<BundleRef>> {
    let wrong = |e| Error::invalid(path.display().to_string(), format!("is damaged: {e}"));
    Some(text(path)?.and_then(|t| serde_json::from_str(&t).map_err(wrong)))
}

/// A file of the store, and what it says.
type Read<T> = (PathBuf, Result<T>);

impl Store {
    /// The sorted paths in a directory of the store.
    pub fn files(&self, sub: &str) -> Result<Vec<PathBuf>> {
        let dir = self.dir().join(sub);
        let failed = |e: std::io::Error| Error::io(dir.display().to_string(), "read", &e);
        let entries = std::fs::read_dir(&dir).map_err(failed)?;
        let mut out: Vec<_> =
            entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>().map_err(failed)?;
        out.sort();
        Ok(out)
    }

    /// What first commands that were killed have left of `format`.
    pub fn formats(&self) -> Result<Vec<PathBuf>> {
        let mut out = self.files("")?;
        out.retain(|p| p.file_name().is_some_and(|n| n.as_bytes().starts_with(b"format.")));
        Ok(out)
    }

    /// All names with their files, whatever these say.
    pub fn all_refs(&self) -> Result<Vec<(PathBuf, String, Result<Digest>)>> {
        let read = |path: PathBuf| {
            let digest =
                text(&path)?.and_then(|t| Digest::parse(&path.display().to_string(), t.trim_ascii_end()));
            let name = decode(path.file_name().unwrap_or_default().as_bytes());
            Some((path, name, digest))
        };
        Ok(self.files("refs")?.into_iter().filter_map(read).collect())
    }

    /// All records of bundles with their files, whatever these say.
    pub fn all_bundles(&self) -> Result<Vec<Read<BundleRef>>> {
        let read = |path: PathBuf| {
            let record = record(&path)?;
            Some((path, record))
        };
        Ok(self.files("bundles")?.into_iter().filter_map(read).collect())
    }

    /// The digests that are names in a directory of the store; what is not one is for `gc` to remove.
    pub fn digests(&self, sub: &str) -> Result<BTreeSet<Digest>> {
        let digest = |p: PathBuf| Digest::from_hex(p.file_name()?.to_str()?);
        Ok(self.files(sub)?.into_iter().filter_map(digest).collect())
    }
}
