//! Locks of a store: of all of it, and of single names. They are flock(2)'s, and end with their process.

use super::store::Store;
use crate::error::{Error, Result};
use rustix::fs::{self, FlockOperation};
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// A wait that is worth a word.
const LONG: Duration = Duration::from_secs(2);

/// A lock on one name of the store; its file goes with it.
pub struct NameLock {
    path: PathBuf,
    _file: File,
}

impl Drop for NameLock {
    fn drop(&mut self) {
        // Still locked: whoever waits for this file finds that it is gone, and tries again. Left, it does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Store {
    /// Locks one layer or fixup for making it. The caller looks again whether it is there: another may have made it.
    pub fn lock(&self, name: &str) -> Result<NameLock> {
        let path = self.dir().join("locks").join(name);
        loop {
            let file = lock_file(&path, true)?;
            let held = file.metadata().map_err(|e| error(&path, "stat", &e))?;
            // The one before us has removed the file it held.
            if std::fs::metadata(&path).is_ok_and(|m| m.ino() == held.ino()) {
                return Ok(NameLock { path, _file: file });
            }
        }
    }
}

/// Opens a file, made when it is missing, and locks it.
pub(super) fn lock_file(path: &Path, exclusive: bool) -> Result<File> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        // Of a store on a read-only file system one may still ask what is in it.
        .or_else(|e| match e.raw_os_error() {
            Some(libc::EROFS) => File::open(path).map_err(|_| e),
            _ => Err(e),
        })
        .map_err(|e| error(path, "open", &e))?;
    let (at_once, how) = match exclusive {
        true => (FlockOperation::NonBlockingLockExclusive, FlockOperation::LockExclusive),
        false => (FlockOperation::NonBlockingLockShared, FlockOperation::LockShared),
    };
    let locked = match fs::flock(&file, at_once) {
        Err(Errno::WOULDBLOCK) => {
            let _told = tell_if_long(path);
            loop {
                match fs::flock(&file, how) {
                    Err(Errno::INTR) => {}
                    done => break done,
                }
            }
        }
        done => done,
    };
    match locked {
        Err(e) => Err(Error::os(path.display().to_string(), "flock", e.raw_os_error())),
        Ok(()) => Ok(file),
    }
}

/// Says after a while what is waited for, unless what it returns was dropped before.
fn tell_if_long(path: &Path) -> Sender<()> {
    let (waits, is_over) = channel();
    let at = path.display().to_string();
    std::thread::spawn(move || {
        if is_over.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("{at}: is held by another orlop imgtool, which is waited for");
        }
    });
    waits
}

fn error(path: &Path, what: &str, e: &std::io::Error) -> Error {
    Error::io(path.display().to_string(), what, e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::store::tests::Temp;

    #[test]
    fn a_lock_is_held_by_one() {
        let temp = Temp::new("lock");
        let store = Store::open(&temp.0, false).unwrap();
        let held = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| {
                    for _ in 0..50 {
                        let _lock = store.lock("x").unwrap();
                        assert_eq!(held.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        held.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
