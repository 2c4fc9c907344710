//! A blob on its way: after a break it goes on where it stopped, with another process too.

use super::client::{Call, Client, wait_for};
use crate::error::{Error, Result};
use crate::image::digest::Digest;
use crate::image::import::locked;
use crate::image::view::proc_path;
use rustix::fs::{AtFlags, CWD, FlockOperation, flock, linkat};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use ureq::http::Method;

/// Breaks that are borne, none of which brought as many bytes as this.
const BREAKS: u32 = 5;
const PROGRESS: u64 = 1 << 20;

/// What happened to the bodies of one pull.
#[derive(Default)]
pub struct Watch {
    /// One did not arrive: what is kept of it is worth going on with.
    broken: AtomicBool,
    /// Those that began with what an earlier pull had left.
    resumed: Mutex<Vec<Digest>>,
}

impl Watch {
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    pub fn resumed(&self) -> MutexGuard<'_, Vec<Digest>> {
        locked(&self.resumed)
    }
}

/// What a pull keeps of a blob for the next one, should it not end: `partial/HEX.SIZE` in the store. Nobody trusts it:
/// its bytes are hashed with the rest. A hard link of it becomes the blob; so nothing is written to one that has its size,
/// which is part of the name, for manifests may lie of it.
pub struct Partial {
    file: File,
    /// Bytes that were there.
    len: u64,
    /// That link: then it must have all bytes.
    kept_as: Option<PathBuf>,
}

impl Partial {
    pub fn path(store: &Path, digest: &Digest, size: u64) -> PathBuf {
        store.join("partial").join(format!("{}.{size}", digest.hex()))
    }

    /// `None` where it cannot be had, or another process is at it.
    fn open(path: &Path) -> Option<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .ok()?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
        let about = file.metadata().ok().filter(|about| about.is_file())?;
        Some(Self { file, len: about.len(), kept_as: None })
    }

    /// Makes the hard link `to`, and cuts off what is more than `size`.
    fn link(&mut self, size: u64, to: &Path) -> io::Result<()> {
        if self.len > size {
            self.file.set_len(size)?;
        }
        // By its descriptor: its name may be another file's by now.
        linkat(CWD, proc_path(&self.file), CWD, to, AtFlags::SYMLINK_FOLLOW)?;
        self.kept_as = Some(to.to_path_buf());
        Ok(())
    }
}

/// The bytes of a blob, as many as its descriptor says.
pub struct Body {
    client: Arc<Client>,
    watch: Arc<Watch>,
    digest: Digest,
    size: u64,
    at: u64,
    connection: Option<Box<dyn Read + Send>>,
    /// Where a partial would be, and the one that is open.
    keep: Option<PathBuf>,
    partial: Option<Partial>,
    breaks: u32,
    since_break: u64,
}

impl Body {
    pub fn new(
        client: Arc<Client>,
        watch: Arc<Watch>,
        digest: Digest,
        size: u64,
        keep: Option<PathBuf>,
    ) -> Self {
        Self {
            client,
            watch,
            digest,
            size,
            at: 0,
            connection: None,
            keep,
            partial: None,
            breaks: 0,
            since_break: 0,
        }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// A connection that goes on at `self.at`.
    fn connect(&self) -> Result<Box<dyn Read + Send>> {
        let whole = || Call::new(Method::GET, self.client.url(&format!("blobs/{}", self.digest)));
        let mut answer = match self.at {
            0 => self.client.call(&whole())?,
            at => self.client.call(&whole().header("range", format!("bytes={at}-")))?,
        };
        if self.at > 0 && answer.status == 416 {
            answer = self.client.call(&whole())?; // of a server that says no to ranges
        }
        let answer = answer.must(&[200, 206])?;
        let skip = if answer.status == 206 { 0 } else { self.at };
        let start = format!("bytes {}-", self.at);
        if answer.status == 206 && !answer.header("content-range").is_some_and(|r| r.starts_with(&start)) {
            let range = answer.header("content-range").unwrap_or("none").to_string();
            return Err(Error::invalid(
                "",
                format!("asked from byte {}, the registry answers with {range:?}", self.at),
            ));
        }
        let expected = self.size - self.at + skip;
        if let Some(length) = answer.length().filter(|n| *n != expected) {
            let what = format!("sends {length} bytes, its descriptor lets us expect {expected}");
            return Err(Error::invalid("", what));
        }
        let mut reader = answer.into_reader();
        // A server without ranges sends all of it again.
        let skipped = io::copy(&mut reader.by_ref().take(skip), &mut io::sink());
        match skipped.map_err(|e| Error::io("", "read", &e))? {
            n if n == skip => Ok(reader),
            n => Err(Error::invalid("", format!("ends after {n} bytes"))),
        }
    }

    /// Keeps what is read in the new file `to`, a hard link of the partial: it is written once then. False where that
    /// cannot be.
    pub fn keep_as(&mut self, to: &Path) -> bool {
        self.open_partial();
        self.partial.as_mut().is_some_and(|p| p.link(self.size, to).is_ok())
    }

    fn open_partial(&mut self) {
        let Some(p) = self.keep.take().and_then(|path| Partial::open(&path)) else { return };
        if p.len > 0 {
            self.watch.resumed().push(self.digest);
        }
        self.partial = Some(p);
    }

    /// From the partial, as far as that goes.
    fn kept(&mut self, buf: &mut [u8]) -> usize {
        self.open_partial();
        let Some(p) = self.partial.as_mut().filter(|p| p.len > self.at) else { return 0 };
        let left = usize::try_from(p.len - self.at).unwrap_or(usize::MAX).min(buf.len());
        // Unreadable, it ends here: the registry has the rest.
        let n = p.file.read_at(&mut buf[..left], self.at).unwrap_or(0);
        if n == 0 {
            p.len = self.at;
        }
        n
    }

    fn arrived(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(p) = &self.partial {
            if let Err(e) = p.file.write_all_at(bytes, self.at) {
                if let Some(to) = &p.kept_as {
                    return Err(Error::io(to.display().to_string(), "write", &e));
                }
                self.partial = None; // it is only for the next time: a full disk fails where the layer is written
            }
        }
        self.at += bytes.len() as u64;
        self.since_break += bytes.len() as u64;
        if self.at == self.size {
            // Its end gives the connection back to be used again.
            let mut connection = self.connection.take();
            if connection.as_mut().is_some_and(|c| c.read(&mut [0]).is_ok_and(|n| n > 0)) {
                return Err(Error::invalid(
                    "",
                    format!("goes on after the {} bytes of its descriptor", self.size),
                ));
            }
        }
        Ok(())
    }

    /// The next bytes from the registry.
    fn fetch(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            let connection = match self.connection.take() {
                Some(connection) => connection,
                None => self.connect()?,
            };
            let connection = self.connection.insert(connection);
            let cause = match connection.read(buf) {
                Ok(n) if n > 0 => return self.arrived(&buf[..n]).map(|()| n),
                Ok(_) => Error::invalid("", format!("ends after {} of {} bytes", self.at, self.size)),
                Err(e) => Error::io("", format!("read after {} of {} bytes", self.at, self.size), &e),
            };
            self.connection = None;
            self.breaks = if self.since_break >= PROGRESS { 1 } else { self.breaks + 1 };
            self.since_break = 0;
            if self.breaks > BREAKS {
                return Err(cause);
            }
            tracing::info!("blob {}: {cause}; going on from there", self.digest);
            std::thread::sleep(wait_for(self.breaks));
        }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.at).unwrap_or(usize::MAX).min(buf.len());
        if left == 0 {
            return Ok(0);
        }
        let buf = &mut buf[..left];
        let kept = self.kept(buf);
        if kept > 0 {
            self.at += kept as u64;
            return Ok(kept);
        }
        self.fetch(buf).map_err(|e| {
            self.watch.broken.store(true, Ordering::Relaxed);
            io::Error::other(e)
        })
    }
}
