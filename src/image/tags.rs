//! Names for images, and what each named before: a tag can be taken back.

use super::bundle;
use super::digest::Digest;
use super::locks::NameLock;
use super::names::other_spelling;
use super::store::{MEND, Store, decode, read};
use crate::error::{Error, Kind, Result};
use crate::log::rfc3339;
use serde::Serialize;
use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many of a tag's last manifests a sweep keeps.
pub const KEPT: usize = 10;

/// What a name pointed to from a time on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    pub time: String,
    /// `None` where the name was removed.
    pub digest: Option<Digest>,
    /// Whether it is still in the store.
    pub kept: bool,
}

impl Store {
    fn log_path(&self, name: &str) -> Result<PathBuf> {
        let refs = self.ref_path(name)?;
        Ok(self.dir().join("logs").join(refs.file_name().unwrap_or_default()))
    }

    /// Adds to the log of a name, before what it says is done: a kill in between leaves a line too many, whose image is
    /// there. The lock is for doing it in the order of the log.
    pub(super) fn log_ref(&self, name: &str, digest: Option<&Digest>) -> Result<NameLock> {
        let lock = self.lock(&format!("{}.log", Digest::of(name.as_bytes()).hex()))?;
        let path = self.log_path(name)?;
        let mut text = match read(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(Error::io(path.display().to_string(), "read", &e)),
        };
        let digest = digest.map_or("-".into(), Digest::to_string);
        if text.lines().last().and_then(|l| l.split_once(' ')).is_some_and(|l| l.1 == digest) {
            return Ok(lock); // named so already
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        text.push_str(&format!("{now} {digest}\n"));
        self.write(&path, text.as_bytes()).map(|()| lock)
    }

    /// What a name pointed to, the newest first.
    pub fn log(&self, name: &str) -> Result<Vec<Entry>> {
        let path = self.log_path(name)?;
        let at = path.display().to_string();
        let text = match read(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(at, "read", &e).hint(MEND)),
        };
        let line = |line: &str| {
            let wrong = || Error::invalid(&at, format!("is damaged: {line:?}")).hint(MEND);
            let (time, digest) = line.split_once(' ').ok_or_else(wrong)?;
            let seconds = time.parse::<u32>().map_err(|_| wrong())?;
            let digest = if digest == "-" {
                None
            } else {
                Some(Digest::parse(&at, digest).map_err(|e| e.hint(MEND))?)
            };
            let kept = digest.is_some_and(|d| self.is_whole(&d));
            Ok(Entry { time: rfc3339(UNIX_EPOCH + Duration::from_secs(seconds.into())), digest, kept })
        };
        text.lines().rev().map(line).collect()
    }

    /// Whether all of an image is there: a sweep that was killed may have left a part.
    fn is_whole(&self, manifest: &Digest) -> bool {
        let has = |id: &Digest| self.layer(id).join("meta").exists();
        bundle::load(self, manifest).is_ok_and(|(_, ids)| ids.iter().all(has))
    }

    /// The manifests that the last `count` entries of each log name, of those that are there.
    pub fn logged(&self, count: usize) -> Result<Vec<Digest>> {
        let dir = self.dir().join("logs");
        let failed = |e: std::io::Error| Error::io(dir.display().to_string(), "read", &e);
        let mut out = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            let name = decode(entry.map_err(failed)?.file_name().as_encoded_bytes());
            let entries = self.log(&name)?.into_iter().filter(|e| e.digest.is_some());
            out.extend(entries.take(count).filter(|e| e.kept).filter_map(|e| e.digest));
        }
        Ok(out)
    }

    /// Forgets what a name pointed to.
    pub(super) fn remove_log(&self, name: &str) -> Result<()> {
        let path = self.log_path(name)?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(path.display().to_string(), "remove", &e))
            }
            _ => File::open(self.dir().join("logs"))
                .and_then(|d| d.sync_all())
                .map_err(|e| Error::io(path.display().to_string(), "fsync", &e)),
        }
    }

    /// The name as it is in the store.
    fn exact(&self, name: &str) -> Result<(String, Digest)> {
        self.named(name)?.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("name {name:?}"), "does not exist")
                .hint("see orlop imgtool list")
        })
    }
}

/// Gives an image another name.
pub fn tag(store: &Store, image: &str, name: &str) -> Result<Digest> {
    let digest = store.find(image)?.1;
    store.may_name(name, Some(&digest))?;
    store.set_ref(name, &digest)?;
    Ok(digest)
}

/// Takes a name away; its log stays, by which it can be given back.
pub fn untag(store: &Store, name: &str) -> Result<(String, Digest)> {
    let (name, digest) = store.exact(name)?;
    let _lock = store.log_ref(&name, None)?;
    store.remove_ref(&name)?;
    Ok((name, digest))
}

/// The log of a name that is or was there, by the name itself.
pub fn log(store: &Store, name: &str) -> Result<(String, Vec<Entry>)> {
    let there = store.named(name)?.map(|r| r.0);
    for name in there.into_iter().chain([name.to_string()]).chain(other_spelling(name)) {
        let entries = store.log(&name)?;
        if !entries.is_empty() {
            return Ok((name, entries));
        }
    }
    Err(Error::new(Kind::NotFound, format!("name {name:?}"), "has no log").hint("see orlop imgtool list"))
}

/// Lets a name point to what it did `back` images ago.
pub fn revert(store: &Store, name: &str, back: usize) -> Result<(String, Digest)> {
    let (name, entries) = log(store, name)?;
    let at = || format!("name {name:?}");
    let mut named: Vec<&Entry> = entries.iter().filter(|e| e.digest.is_some()).collect();
    named.dedup_by_key(|e| e.digest);
    // Of a name that was removed, the last image is one step back.
    let removed = entries.first().is_some_and(|e| e.digest.is_none());
    let place = back - usize::from(removed && back > 0);
    let found = named.get(place).ok_or_else(|| {
        Error::new(Kind::NotFound, at(), format!("named {} images, none {back} before", named.len()))
    })?;
    let digest = found.digest.filter(|_| found.kept).ok_or_else(|| {
        let what = format!("named an image on {} that is no longer in the store", found.time);
        Error::new(Kind::NotFound, at(), what)
    })?;
    store.set_ref(&name, &digest)?;
    Ok((name, digest))
}
