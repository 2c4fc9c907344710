//! The store: layers, manifests and configurations by digest, names for images, and who uses what.
//!
//! Nothing is ever written where it is read: work happens in `tmp/`, is made durable and then renamed. A kill leaves
//! litter there, whose lock nobody holds; the next command removes it.

use super::digest::Digest;
use super::fsck::record;
use super::layer::apply::Applied;
use super::layer::dirs::{open_dir, remove_all};
use super::locks::lock_file;
use super::mounts::FileSystem;
use super::tree::Told;
use crate::error::{Error, Result, is_acted_on};
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The remedies where a store cannot be had, and where something in it is damaged.
const OTHER_STORE: &str = "--store or ORLOP_STORE names another store";
pub(super) const MEND: &str = "run orlop imgtool fsck --repair";

pub(super) const FORMAT: &str = "orlop store 1\n";

/// An open store, locked shared or exclusively for as long as it lives.
pub struct Store {
    dir: PathBuf,
    lock: File,
}

/// `layers/DIFFID/meta`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerMeta {
    #[serde(flatten)]
    pub applied: Applied,
    /// Bytes of the tar stream.
    pub diff_size: u64,
    /// The blob that the layer came from.
    pub blob: Digest,
    pub blob_size: u64,
    pub compression: String,
    /// What the files were when they were made; layers of older stores do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Told>,
}

/// `bundles/HASH`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BundleRef {
    pub path: PathBuf,
    pub manifest: Digest,
    /// What the bundle is on; older records do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<FileSystem>,
}

fn error(path: &Path, what: &str, e: &std::io::Error) -> Error {
    Error::io(path.display().to_string(), what, e)
}

fn os(path: &Path, what: &str, e: Errno) -> Error {
    Error::os(path.display().to_string(), what, e.raw_os_error())
}

fn is_ours(dir: &Path) -> bool {
    std::fs::metadata(dir).is_ok_and(|m| m.uid() == rustix::process::geteuid().as_raw())
}

/// Those commands write nowhere else.
const READ_ONLY: &str = "remount it; for verify, fsck and info a tmpfs mounted on the store's tmp/ will do";

impl Store {
    /// Opens the store at `dir`, made when it is missing. `exclusive` is for removing: nobody else reads or adds then.
    pub fn open(dir: &Path, exclusive: bool) -> Result<Self> {
        let store = Self::open_unswept(dir, exclusive)?;
        store.sweep_tmp()?;
        Ok(store)
    }

    /// As [`Store::open`], of one that is there: no question makes a store.
    pub fn existing(dir: &Path, exclusive: bool) -> Result<Self> {
        let is_nothing = match std::fs::read_dir(dir) {
            Ok(mut names) => names.next().is_none() && is_ours(dir),
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        };
        match is_nothing {
            true => Err(os(dir, "open", Errno::NOENT).hint(OTHER_STORE)),
            false => Self::open(dir, exclusive),
        }
    }

    /// As [`Store::open`], with the litter left where it is.
    pub fn open_unswept(dir: &Path, exclusive: bool) -> Result<Self> {
        let dir = std::path::absolute(dir).map_err(|e| error(dir, "resolve", &e))?;
        let failed = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::AlreadyExists => os(&dir, "open", Errno::NOTDIR),
            _ => error(&dir, "make", &e),
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|e| failed(e).hint(OTHER_STORE))?;
        let meta = std::fs::metadata(&dir).map_err(|e| error(&dir, "stat", &e))?;
        if !is_ours(&dir) {
            return Err(
                Error::invalid(dir.display().to_string(), "belongs to another user").hint(OTHER_STORE)
            );
        }
        Self::check_format(&dir)?;
        if meta.mode() & 0o077 != 0 {
            // Layers hold set-id programs and device nodes.
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))
                .map_err(|e| error(&dir, "chmod 0700", &e))?;
        }
        let subs = ["tmp", "blobs/sha256", "layers", "fixups", "refs", "logs", "bundles", "locks", "partial"];
        for sub in subs.map(|sub| dir.join(sub)) {
            if !sub.is_dir() {
                std::fs::create_dir_all(&sub).map_err(|e| error(&sub, "make", &e))?;
            }
        }
        let lock = lock_file(&dir.join("lock"), exclusive)?;
        Ok(Self { dir, lock })
    }

    /// A directory with other things in it is not taken over.
    fn check_format(dir: &Path) -> Result<()> {
        let path = dir.join("format");
        match std::fs::read_to_string(&path) {
            Ok(text) if text == FORMAT => return Ok(()),
            Ok(text) => {
                return Err(Error::unsupported(
                    path.display().to_string(),
                    format!("{text:?} is not a known format"),
                ));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(error(&path, "read", &e)),
        }
        let mut names = std::fs::read_dir(dir).map_err(|e| error(dir, "read", &e))?;
        // Another first command may be a step ahead of us.
        let foreign = names.any(|n| n.is_ok_and(|n| !n.file_name().as_bytes().starts_with(b"format")));
        if foreign && !path.exists() {
            return Err(
                Error::invalid(dir.display().to_string(), "is neither a store nor empty").hint(OTHER_STORE)
            );
        }
        let new = dir.join(format!("format.{}", std::process::id()));
        let mut file = File::create(&new).map_err(|e| error(&new, "make", &e))?;
        // Cut short by a power cut, it would close the store for good.
        file.write_all(FORMAT.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|e| error(&new, "write", &e))?;
        std::fs::rename(&new, &path).map_err(|e| error(&path, "rename", &e))?;
        sync_parent(&path)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The files of a layer.
    pub fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.dir.join("layers").join(diff_id.hex())
    }

    /// What the layer is made of: one EROFS image, or the directory of its files.
    pub fn layer_tree(&self, diff_id: &Digest) -> PathBuf {
        let layer = self.layer(diff_id);
        let image = layer.join("erofs");
        if image.exists() { image } else { layer.join("fs") }
    }

    pub fn fixup(&self, chain: &Digest) -> PathBuf {
        self.dir.join("fixups").join(chain.hex())
    }

    /// `None` when the layer is not there.
    pub fn layer_meta(&self, diff_id: &Digest) -> Result<Option<LayerMeta>> {
        self.layer_part(diff_id)
    }

    /// What a stack is built by, of [`Store::layer_meta`]: read for each of 500 layers, and cheaper than all of it.
    pub fn applied(&self, diff_id: &Digest) -> Result<Option<Applied>> {
        self.layer_part(diff_id)
    }

    fn layer_part<T: DeserializeOwned>(&self, diff_id: &Digest) -> Result<Option<T>> {
        let path = self.layer(diff_id).join("meta");
        match read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| {
                Error::invalid(path.display().to_string(), format!("is damaged: {e}")).hint(MEND)
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(error(&path, "read", &e)),
        }
    }

    /// A directory of our own below `tmp/`.
    pub fn work(&self) -> Result<Work> {
        self.claim(|path| {
            std::fs::create_dir(path)?;
            Ok(fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
        })
    }

    /// What `make` makes at a free path below `tmp/`, which it opens.
    fn claim(&self, make: impl Fn(&Path) -> std::io::Result<OwnedFd>) -> Result<Work> {
        let tmp = self.dir.join("tmp");
        loop {
            let path = tmp.join(format!("{}-{:016x}", std::process::id(), random()?));
            // Between two calls a sweep may take it for litter.
            let fd = match make(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && tmp.exists() => continue,
                made => made.map_err(|e| match e.kind() {
                    std::io::ErrorKind::ReadOnlyFilesystem => error(&path, "make", &e).hint(READ_ONLY),
                    _ => error(&path, "make", &e),
                })?,
            };
            match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if path.exists() => return Ok(Work { path, fd }),
                Ok(()) | Err(Errno::WOULDBLOCK) => {}
                Err(e) => return Err(os(&path, "flock", e)),
            }
        }
    }

    fn sweep_tmp(&self) -> Result<()> {
        let tmp = self.dir.join("tmp");
        for entry in std::fs::read_dir(&tmp).map_err(|e| error(&tmp, "read", &e))? {
            let path = entry.map_err(|e| error(&tmp, "read", &e))?.path();
            // Not to wait for the writer of a FIFO.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let Ok(fd) = fs::open(&path, flags, Mode::empty()) else {
                continue; // its owner has just removed or renamed it
            };
            if fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_ok() {
                // It takes room, but stops nobody.
                remove_path(&path).unwrap_or_else(|e| tracing::warn!("{e}"));
            }
        }
        Ok(())
    }

    /// Makes what was written durable and gives each its name; one that is there already stays, but for what is left of a
    /// layer.
    pub fn commit(&self, moves: &[(&Work, &str, &Path)]) -> Result<()> {
        if moves.is_empty() {
            return Ok(());
        }
        self.sync()?;
        for (work, from, to) in moves {
            match std::fs::rename(work.path.join(from), to) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {
                    self.replace_damaged(work, from, to)?;
                }
                other => other.map_err(|e| error(to, "rename", &e))?,
            }
        }
        let parents: BTreeMap<_, _> = moves.iter().map(|(.., to)| (to.parent(), to)).collect();
        parents.values().try_for_each(|to| sync_parent(to))
    }

    /// Makes durable what was written. By a descriptor that is older than all of it: syncfs(2) tells an error of writing
    /// back to those that were open then.
    pub(super) fn sync(&self) -> Result<()> {
        fs::syncfs(&self.lock).map_err(|e| os(&self.dir, "syncfs", e))
    }

    /// A layer without a `meta` that can be read is none, and makes room for the new one.
    fn replace_damaged(&self, work: &Work, from: &str, to: &Path) -> Result<()> {
        let name = to.strip_prefix(self.dir.join("layers")).ok().and_then(Path::to_str);
        let Some(id) = name.and_then(Digest::from_hex).filter(|id| !self.has_layer(id)) else {
            return Ok(());
        };
        if let Some(holder) = super::fsck::mounted(self)?.get(&id) {
            let what = format!("is damaged, and {holder}");
            return Err(Error::invalid(format!("layer {id}"), what).hint(holder.remedy()));
        }
        let (old, new) = (work.path.join("damaged"), work.path.join(from));
        std::fs::rename(to, &old).map_err(|e| error(to, "rename", &e))?;
        std::fs::rename(&new, to).map_err(|e| error(to, "rename", &e))
    }

    /// Whether a layer is there, by what the store says of it.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        matches!(self.layer_meta(diff_id), Ok(Some(_)))
    }

    /// Replaces a file of the store.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let new = self.claim(|path| File::create_new(path).map(OwnedFd::from))?;
        let mut file = new.fd.try_clone().map(File::from).map_err(|e| error(&new.path, "write", &e))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|e| error(&new.path, "write", &e))?;
        std::fs::rename(&new.path, path).map_err(|e| error(path, "rename", &e))?;
        sync_parent(path)
    }

    pub fn set_ref(&self, name: &str, manifest: &Digest) -> Result<()> {
        let name = &self.spelled(name);
        let path = self.ref_path(name)?;
        let _lock = self.log_ref(name, Some(manifest))?;
        self.write(&path, format!("{manifest}\n").as_bytes())
    }

    pub fn remove_ref(&self, name: &str) -> Result<()> {
        let path = self.ref_path(name)?;
        std::fs::remove_file(&path).map_err(|e| error(&path, "remove", &e))?;
        sync_parent(&path)
    }

    /// The file of a name; an error when it is none that an image can have.
    pub fn ref_path(&self, name: &str) -> Result<PathBuf> {
        Ok(self.dir.join("refs").join(encode(name)?))
    }

    /// All names with their manifests, sorted.
    pub fn refs(&self) -> Result<Vec<(String, Digest)>> {
        let read = |(_, name, digest): (_, _, Result<_>)| digest.map(|d| (name, d)).map_err(|e| e.hint(MEND));
        let mut out: Vec<_> = self.all_refs()?.into_iter().map(read).collect::<Result<_>>()?;
        out.sort();
        Ok(out)
    }

    /// Records that the bundle at `path` (absolute) uses the image, before it does.
    pub fn add_bundle(&self, path: &Path, manifest: &Digest) -> Result<()> {
        let entry = BundleRef { path: path.to_path_buf(), manifest: *manifest, on: FileSystem::of(path) };
        let text = serde_json::to_vec(&entry).map_err(|e| Error::invalid("bundle", e.to_string()))?;
        self.write(&self.bundle_path(path), &text)
    }

    pub fn forget_bundle(&self, path: &Path) {
        // Left behind, the record goes with the next sweep: its bundle is not there.
        let _ = std::fs::remove_file(self.bundle_path(path));
    }

    pub fn has_bundle(&self, path: &Path) -> bool {
        self.bundle_path(path).exists()
    }

    /// The name of a bundle's lock.
    pub fn bundle_lock(&self, path: &Path) -> String {
        format!("{}.bundle", Digest::of(path.as_os_str().as_bytes()).hex())
    }

    pub(super) fn bundle_path(&self, path: &Path) -> PathBuf {
        self.dir.join("bundles").join(Digest::of(path.as_os_str().as_bytes()).hex())
    }

    /// The record of the bundle at `path` (absolute).
    pub fn bundle(&self, path: &Path) -> Result<Option<BundleRef>> {
        record(&self.bundle_path(path)).transpose().map_err(|e| e.hint(MEND))
    }

    /// Every recorded bundle, with the file of its record.
    pub fn bundles(&self) -> Result<Vec<(PathBuf, BundleRef)>> {
        let read = |(path, record): (_, Result<_>)| record.map(|r| (path, r)).map_err(|e| e.hint(MEND));
        self.all_bundles()?.into_iter().map(read).collect()
    }
}

/// A directory below `tmp/`, removed with what is left in it.
pub struct Work {
    pub path: PathBuf,
    pub(super) fd: OwnedFd,
}

impl Work {
    /// Makes a subdirectory and opens it.
    pub fn make(&self, name: &str, mode: u32) -> Result<OwnedFd> {
        let path = self.path.join(name);
        let made = std::fs::DirBuilder::new().recursive(true).mode(mode).create(&path);
        made.map_err(|e| error(&path, "make", &e))?;
        open_dir(&self.fd, name.as_bytes()).map_err(|e| os(&path, "open", e))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed is litter that the next command tries again.
        let _ = remove_path(&self.path);
    }
}

/// Removes a file or a tree, whatever names its image gave it.
pub fn remove_path(path: &Path) -> Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = fs::open(parent, flags, Mode::empty()).map_err(|e| os(parent, "open", e))?;
    match remove_all(&dir, name.as_bytes()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(os(path, "remove", e)),
    }
}

/// fsync(2) of the directory that holds `path`: the name is there after a crash.
pub fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent).and_then(|d| d.sync_all()).map_err(|e| error(parent, "fsync", &e))
}

/// Opens a file to read it; what is not a regular one is an error, and never waited for.
pub(super) fn open_file(path: &Path) -> std::io::Result<File> {
    open_sized(path).map(|(file, _)| file)
}

fn open_sized(path: &Path) -> std::io::Result<(File, u64)> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let about = file.metadata()?;
    match about.is_file() {
        true => Ok((file, about.len())),
        false => Err(std::io::Error::other("is not a regular file")),
    }
}

/// Reads a file of the store. It had its size before it had its name, so nobody looks for more.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let (file, size) = open_sized(path)?;
    let (mut out, size) = (Vec::new(), usize::try_from(size).unwrap_or(usize::MAX));
    out.try_reserve_exact(size)?;
    file.take(size as u64).read_to_end(&mut out)?;
    Ok(out)
}

pub(super) fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Error::os("", "getrandom", e.raw_os_error()))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// A name of an image as a file name.
fn encode(name: &str) -> Result<String> {
    if name.is_empty() || name.chars().any(|c| is_acted_on(c) || c.is_whitespace()) || name.starts_with('-') {
        return Err(Error::invalid(format!("image name {name:?}"), "is empty, starts with - or has blanks"));
    }
    let mut out = String::new();
    for (i, b) in name.bytes().enumerate() {
        if b.is_ascii_alphanumeric() || b"_-".contains(&b) || b == b'.' && i > 0 {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    if out.len() > 255 {
        return Err(Error::invalid(format!("image name {name:?}"), "is too long"));
    }
    Ok(out)
}

pub(super) fn decode(file: &[u8]) -> String {
    let mut out = Vec::new();
    let mut i = 0;
    while i < file.len() {
        let hex = file.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match hex.filter(|_| file[i] == b'%').and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(b) => (out.push(b), i += 3).1,
            None => (out.push(file[i]), i += 1).1,
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A store of the test, removed at its end.
    pub struct Temp(pub PathBuf);

    impl Temp {
        pub fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("orlop-store-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn names_become_file_names_and_come_back() {
        for name in ["a", "docker.io/library/busybox:1.36", "..", ".x", "a%2Fb", "é@x+y"] {
            let file = encode(name).unwrap();
            assert!(!file.contains('/') && !file.starts_with('.'), "{file}");
            assert_eq!(decode(file.as_bytes()), name);
        }
        for bad in ["", "a b", "a\n", "-x", &"x".repeat(300)] {
            assert!(encode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn litter_goes_and_work_in_progress_stays() {
        let temp = Temp::new("litter");
        let store = Store::open(&temp.0, false).unwrap();
        let work = store.work().unwrap();
        std::fs::create_dir_all(temp.0.join("tmp/1-dead/x/y")).unwrap();
        let other = Store::open(&temp.0, false).unwrap();
        assert!(work.path.exists());
        assert!(!temp.0.join("tmp/1-dead").exists());
        let path = work.path.clone();
        drop((work, other));
        assert!(!path.exists());
    }

    #[test]
    fn the_store_is_closed_to_others_and_takes_nothing_over() {
        let temp = Temp::new("mode");
        std::fs::create_dir_all(&temp.0).unwrap();
        std::fs::write(temp.0.join("precious"), "").unwrap();
        assert!(Store::open(&temp.0, false).is_err());
        std::fs::remove_file(temp.0.join("precious")).unwrap();
        drop(Store::open(&temp.0, false).unwrap());
        assert_eq!(std::fs::metadata(&temp.0).unwrap().mode() & 0o777, 0o700);
        std::fs::write(temp.0.join("format"), "orlop store 9\n").unwrap();
        assert!(Store::open(&temp.0, false).is_err());
    }

    /// In a process of its own, for which the limit is, with the time that an endless loop would have.
    #[test]
    fn work_that_cannot_be_opened_is_an_error() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        const DIR: &str = "ORLOP_TEST_OF_WORK";
        let Some(dir) = std::env::var_os(DIR) else {
            let temp = Temp::new("work");
            let mut child = std::process::Command::new("timeout");
            child.arg("20").arg(std::env::current_exe().unwrap()).env(DIR, &temp.0);
            let name = "image::store::tests::work_that_cannot_be_opened_is_an_error";
            let out = child.args(["--exact", name]).output().unwrap();
            assert!(out.status.success(), "{out:?}");
            return;
        };
        let store = Store::open(Path::new(&dir), false).unwrap();
        let next = std::os::fd::AsRawFd::as_raw_fd(&File::open("/").unwrap()) as u64;
        setrlimit(Resource::Nofile, Rlimit { current: Some(next), ..getrlimit(Resource::Nofile) }).unwrap();
        assert_eq!(store.work().err().and_then(|e| e.errno()), Some(libc::EMFILE));
    }

    /// A link to nothing is read as what is removed between the reading of its directory and its own.
    #[test]
    fn what_another_command_removes_meanwhile_is_not_there() {
        let temp = Temp::new("removed");
        let store = Store::open(&temp.0, false).unwrap();
        let a = Digest::of(b"a");
        store.set_ref("x", &a).unwrap();
        store.add_bundle(Path::new("/b"), &a).unwrap();
        for sub in ["refs", "bundles"] {
            std::os::unix::fs::symlink("nothing", temp.0.join(sub).join("y")).unwrap();
        }
        assert_eq!(store.refs().unwrap(), [("x".to_string(), a)]);
        assert_eq!(store.bundles().unwrap().len(), 1);
    }

    #[test]
    fn a_name_points_to_what_its_log_says_last() {
        let temp = Temp::new("log");
        let store = Store::open(&temp.0, false).unwrap();
        for _ in 0..20 {
            std::thread::scope(|s| {
                for n in 0..4 {
                    let store = &store;
                    s.spawn(move || store.set_ref("x", &Digest::of(&[n])).unwrap());
                }
            });
            let (named, logged) = (store.find("x").unwrap().1, store.log("x").unwrap().remove(0).digest);
            assert_eq!(Some(named), logged);
        }
    }
}
