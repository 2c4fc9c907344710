//! Where a bundle keeps what its container writes, when that is not the bundle itself: on a tmpfs, or on a faster disk.

use super::store::{Store, remove_path};
use crate::bundle::Overlay;
use crate::error::{Error, Kind, Result};
use std::io::{Error as IoError, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Makes the directory, unless it is there and nobody else's; whether it is new.
fn own(dir: &Path) -> Result<bool> {
    let at = dir.display().to_string();
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        other => return other.map(|()| true).map_err(|e| Error::io(at, "make", &e)),
    }
    let about = std::fs::symlink_metadata(dir).map_err(|e| Error::io(&at, "stat", &e))?;
    let is_ours = about.is_dir() && about.uid() == rustix::process::geteuid().as_raw();
    if is_ours && about.mode() & 0o022 == 0 {
        return Ok(false);
    }
    Err(Error::invalid(at, "is no directory that this user alone may write to"))
}

/// Makes `upper` and `work`.
fn parts(upper: &Path, work: &Path) -> Result<()> {
    [(upper, 0o755), (work, 0o700)].into_iter().try_for_each(|(path, mode)| {
        let made = std::fs::DirBuilder::new().mode(mode).create(path);
        made.map_err(|e| Error::io(path.display().to_string(), "make", &e))
    })
}

/// The directories for one bundle.
pub struct Elsewhere {
    dir: PathBuf,
    new: bool,
    pub upper: PathBuf,
    pub work: PathBuf,
}

impl Elsewhere {
    /// In `dir`, which is new, or empty and nobody else's: who can rename there decides what a container sees.
    pub fn make(store: &Store, dir: &Path) -> Result<Self> {
        let at = dir.display().to_string();
        let failed = |what: &'static str| {
            let at = at.clone();
            move |e: IoError| Error::io(at, what, &e)
        };
        let new = own(dir)?;
        if !new && std::fs::read_dir(dir).map_err(failed("read"))?.next().is_some() {
            return Err(Error::new(Kind::Exists, &at, "is not empty"));
        }
        let dir = std::fs::canonicalize(dir).map_err(failed("resolve"))?;
        let made = Self { upper: dir.join("upper"), work: dir.join("work"), new, dir };
        let done = made.is_outside(store).and_then(|()| parts(&made.upper, &made.work));
        done.inspect_err(|_| made.take_back()).map(|()| made)
    }

    fn is_outside(&self, store: &Store) -> Result<()> {
        let root = std::fs::canonicalize(store.dir())
            .map_err(|e| Error::io(store.dir().display().to_string(), "resolve", &e))?;
        match self.dir.starts_with(root) {
            true => Err(Error::invalid(
                self.dir.display().to_string(),
                "lies in the store, whose files are swept",
            )),
            false => Ok(()),
        }
    }

    /// Removes what nobody has written to.
    pub fn take_back(&self) {
        // The error that made it useless is the one to tell.
        let _ = remove_path(&self.work);
        let _ = std::fs::remove_dir(&self.upper);
        if self.new {
            let _ = std::fs::remove_dir(&self.dir);
        }
    }
}

/// Makes the directories again, empty, where they went with a tmpfs; the bundle's own `upper` has what the root of the
/// mount shows. Nothing is made while something of them is left.
pub fn restore(o: &Overlay, bundle: &Path) -> Result<()> {
    let (Some(upper), Some(work)) = (&o.upper, &o.work) else { return Ok(()) };
    let (upper, work, own) = (Path::new(upper), Path::new(work), bundle.join("upper"));
    let is_gone = |path: &Path| path.symlink_metadata().is_err_and(|e| e.kind() == ErrorKind::NotFound);
    let Some(dir) = upper.parent().filter(|d| *d != bundle && is_gone(upper) && is_gone(work)) else {
        return Ok(());
    };
    self::own(dir)?;
    parts(upper, work)?;
    tracing::warn!("{}: is gone with what was written to it, and made again", dir.display());
    like(&own, upper)
}

/// Gives a directory the metadata of another.
pub fn like(from: &Path, to: &Path) -> Result<()> {
    let fds = (super::view::open(from)?, super::view::open(to)?);
    super::fixup::copy_metadata(&fds.0, &fds.1)
        .map_err(|e| Error::os(to.display().to_string(), "copy the metadata", e.raw_os_error()))
}
