//! Where a bundle keeps what its container writes, when that is not the bundle itself: on a tmpfs, or on a faster disk.

use super::store::{Store, remove_path};
use crate::bundle::Overlay;
use crate::error::{Error, Kind, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::Permissions;
use std::io::{Error as IoError, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Makes the directory, unless it is there and this user's; whether it is new.
pub fn own(dir: &Path) -> Result<bool> {
    let at = dir.display().to_string();
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        other => return other.map(|()| true).map_err(|e| Error::io(at, "make", &e)),
    }
    let about = std::fs::symlink_metadata(dir).map_err(|e| Error::io(&at, "stat", &e))?;
    if !about.is_dir() {
        return Err(Error::os(at, "open", libc::ENOTDIR));
    }
    match about.uid() == rustix::process::geteuid().as_raw() {
        true => Ok(false),
        false => Err(Error::invalid(at, "is no directory of this user's own")),
    }
}

/// Closes a directory to all other users: set-id programs of an image would run as root for whoever reaches them. Whether
/// it was open.
pub fn close(dir: &Path) -> Result<bool> {
    let at = dir.display().to_string();
    let mode = std::fs::metadata(dir).map_err(|e| Error::io(&at, "stat", &e))?.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(false);
    }
    let closed = mode & 0o7700;
    std::fs::set_permissions(dir, Permissions::from_mode(closed)).map_err(|e| Error::io(&at, "chmod", &e))?;
    tracing::warn!(
        "{at}: its mode was {mode:04o} and is {closed:04o} now: no other user may reach set-id programs of an image"
    );
    Ok(true)
}

/// Closes a directory that must be empty; what others might have put there just before is seen.
pub fn close_empty(dir: &Path) -> Result<()> {
    let is_empty = || match std::fs::read_dir(dir).map(|mut d| d.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(Kind::Exists, dir.display().to_string(), "is not empty")),
        Err(e) => Err(Error::io(dir.display().to_string(), "read", &e)),
    };
    is_empty()?;
    if close(dir)? {
        is_empty()?;
    }
    Ok(())
}

/// Makes `upper` and `work`.
fn parts(upper: &Path, work: &Path) -> Result<()> {
    [(upper, 0o755), (work, 0o700)].into_iter().try_for_each(|(path, mode)| {
        let made = std::fs::DirBuilder::new().mode(mode).create(path);
        made.map_err(|e| Error::io(path.display().to_string(), "make", &e))
    })
}

/// What stands beside the directories until their bundle is whole.
const UNFINISHED: &str = "unfinished";

/// The directories for one bundle.
pub struct Elsewhere {
    dir: PathBuf,
    new: bool,
    /// One unpack at a time is at the directory.
    _lock: OwnedFd,
    pub upper: PathBuf,
    pub work: PathBuf,
}

impl Elsewhere {
    /// In `dir`, which is new, or this user's and empty but for what a kill left: who can rename there decides what a
    /// container sees.
    pub fn make(store: &Store, dir: &Path) -> Result<Self> {
        let at = dir.display().to_string();
        let failed = |what: &'static str| {
            let at = at.clone();
            move |e: IoError| Error::io(at, what, &e)
        };
        let new = own(dir)?;
        let dir = std::fs::canonicalize(dir).map_err(failed("resolve"))?;
        let lock = super::view::open(&dir)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| match e {
            Errno::WOULDBLOCK => Error::new(Kind::Exists, &at, "is taken by another unpack just now"),
            e => Error::os(&at, "flock", e.raw_os_error()),
        })?;
        let made = Self { upper: dir.join("upper"), work: dir.join("work"), new, dir, _lock: lock };
        let ready = made.is_outside(store).and_then(|()| made.clear());
        ready.inspect_err(|_| made.take_back_dir())?;
        let done = made.mark().and_then(|()| parts(&made.upper, &made.work));
        done.inspect_err(|_| made.take_back()).map(|()| made)
    }

    /// Removes what a kill left to which nobody has written; the directory must be empty then.
    fn clear(&self) -> Result<()> {
        let mark = self.dir.join(UNFINISHED);
        if mark.exists() {
            let _ = std::fs::remove_dir(&self.upper); // what was written there stays
            if !self.upper.exists() {
                remove_path(&self.work)?;
                remove_path(&mark)?;
            }
        }
        close_empty(&self.dir)
    }

    fn mark(&self) -> Result<()> {
        let path = self.dir.join(UNFINISHED);
        let made = std::fs::File::create_new(&path);
        made.map(drop).map_err(|e| Error::io(path.display().to_string(), "make", &e))
    }

    /// To be called just before the bundle is whole: what is not taken back by a kill may have been written to.
    pub fn finish(&self) -> Result<()> {
        remove_path(&self.dir.join(UNFINISHED))
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
        if !self.upper.exists() {
            let _ = self.finish();
        }
        self.take_back_dir();
    }

    fn take_back_dir(&self) {
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
    close(dir)?;
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
