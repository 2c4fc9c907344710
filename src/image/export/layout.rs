//! An image into an OCI layout that may have others (image-spec image-layout.md).

use super::{OCI_LAYOUT, Picked, REF_NAME, empty_index, is_blob};
use crate::error::{Error, Result};
use crate::image::blobs::Kept;
use crate::image::digest::{Digest, HashRead};
use crate::image::layer::dirs::open_dir;
use crate::image::limits::Limits;
use crate::image::progress::{self, Task};
use crate::image::store::Store;
use rustix::fs::{self, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Names that begin so are ours: files that have not got their names yet.
const PART: &str = ".orlop-part-";

/// Adds an image. The index is replaced last: an export that is killed leaves blobs that it does not name.
pub fn add(store: &Store, image: &Picked, dest: &Path) -> Result<()> {
    let at = dest.display().to_string();
    match std::fs::create_dir(dest) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => other.map_err(|e| Error::io(&at, "make", &e))?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = fs::open(dest, flags, Mode::empty()).map_err(|e| Error::os(&at, "open", e.raw_os_error()))?;
    let layout = Layout { at, dir };
    // Two exports to one layout must not take each other's image out of the index.
    layout.call("flock", fs::flock(&layout.dir, FlockOperation::LockExclusive))?;
    let mut index = layout.begin()?;
    let blobs = layout.dir_in(&layout.dir, "blobs")?;
    let blobs = layout.dir_in(&blobs, "sha256")?;
    for (digest, size) in image.blobs() {
        let task = progress::task("blob", &digest, size);
        if layout.has(&blobs, &digest, size)? {
            task.done("exists");
        } else {
            layout.put(store, &blobs, &digest, &task)?;
            task.done("exported");
        }
    }
    let list = index.get_mut("manifests").and_then(Value::as_array_mut);
    let list = list.ok_or_else(|| Error::invalid(layout.name("index.json"), "is no index"))?;
    list.retain(|d| !is_named(d, &image.name));
    list.push(image.descriptor());
    // All that the index names, and the directories above it, at once: each fsync(2) waits for the disk.
    layout.call("syncfs", fs::syncfs(&layout.dir))?;
    layout.write("index.json", index.to_string().as_bytes())
}

/// Whether a descriptor has this name, by the standard annotation or containerd's, which [`super::super::layout`] reads.
fn is_named(d: &Value, name: &str) -> bool {
    [REF_NAME, "io.containerd.image.name"].iter().any(|key| d["annotations"][*key] == name)
}

struct Layout {
    at: String,
    dir: OwnedFd,
}

impl Layout {
    fn call<T>(&self, what: &str, result: std::result::Result<T, Errno>) -> Result<T> {
        result.map_err(|e| Error::os(&self.at, what, e.raw_os_error()))
    }

    fn name(&self, file: &str) -> String {
        format!("{}/{file}", self.at)
    }

    /// The index of what is there: a layout, or nothing. What an export that was killed has left goes.
    fn begin(&self) -> Result<Value> {
        let mut others = false;
        for entry in self.call("read", fs::Dir::read_from(&self.dir))? {
            let entry = self.call("read", entry)?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(PART.as_bytes()) {
                self.call("remove", fs::unlinkat(&self.dir, name, fs::AtFlags::empty()))?;
            } else {
                others |= name != b"." && name != b"..";
            }
        }
        match self.read("oci-layout", 4096)? {
            None if others => {
                Err(Error::new(crate::error::Kind::Exists, &self.at, "is neither empty nor an OCI layout"))
            }
            None => self.write("oci-layout", OCI_LAYOUT).map(|()| empty_index()),
            Some(text) => {
                let version = self.json("oci-layout", &text)?["imageLayoutVersion"].clone();
                if version != "1.0.0" {
                    let what = format!("imageLayoutVersion {version} is not 1.0.0");
                    return Err(Error::unsupported(self.name("oci-layout"), what));
                }
                match self.read("index.json", Limits::default().manifest)? {
                    Some(text) => self.json("index.json", &text),
                    None => Ok(empty_index()),
                }
            }
        }
    }

    fn json(&self, name: &str, text: &[u8]) -> Result<Value> {
        serde_json::from_slice(text).map_err(|e| Error::invalid(self.name(name), e.to_string()))
    }

    /// A subdirectory, made when it is missing, and never reached through a link.
    fn dir_in(&self, dir: &OwnedFd, name: &str) -> Result<OwnedFd> {
        let failed = |what: &'static str| {
            let at = self.name(name);
            move |e: Errno| Error::os(at, what, e.raw_os_error())
        };
        match fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => {}
            other => other.map_err(failed("make"))?,
        }
        open_dir(dir, name.as_bytes()).map_err(failed("open"))
    }

    /// A regular file, never through a link.
    fn open(&self, dir: impl AsFd, name: &str) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match fs::openat(dir, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            other => {
                other.map(File::from).map_err(|e| Error::os(self.name(name), "open", e.raw_os_error()))?
            }
        };
        let meta = file.metadata().map_err(|e| Error::io(self.name(name), "stat", &e))?;
        if !meta.is_file() {
            return Err(Error::invalid(self.name(name), "is not a regular file"));
        }
        Ok(Some(file))
    }

    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(&self.dir, name)? else { return Ok(None) };
        let mut out = Vec::new();
        file.take(max + 1).read_to_end(&mut out).map_err(|e| Error::io(self.name(name), "read", &e))?;
        if out.len() as u64 > max {
            return Err(Error::invalid(self.name(name), format!("has more than {max} bytes")));
        }
        Ok(Some(out))
    }

    /// A new file under a name of ours.
    fn part(&self) -> Result<(String, File)> {
        let name = format!("{PART}{:016x}", crate::image::store::random()?);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            self.call("make a file in", fs::openat(&self.dir, &name[..], flags, Mode::from_raw_mode(0o644)))?;
        Ok((name, File::from(fd)))
    }

    /// Replaces a file of the layout.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (part, mut file) = self.part()?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        let written = written.map_err(|e| Error::io(self.name(name), "write", &e));
        let rename = || self.call("rename", fs::renameat(&self.dir, &part[..], &self.dir, name));
        written.and_then(|()| rename()).inspect_err(|_| self.remove(&part))?;
        self.call("fsync", fs::fsync(&self.dir))
    }

    fn remove(&self, part: &str) {
        // The error is the one to tell; left, it goes with the next export.
        let _ = fs::unlinkat(&self.dir, part, fs::AtFlags::empty());
    }

    /// Whether the layout has this blob, whole. Its bytes count: another tool may have been stopped while it wrote them.
    fn has(&self, blobs: &OwnedFd, digest: &Digest, size: u64) -> Result<bool> {
        let Ok(Some(file)) = self.open(blobs, &digest.hex()) else { return Ok(false) };
        if !file.metadata().is_ok_and(|m| m.len() == size) {
            return Ok(false);
        }
        let mut hash = HashRead::new(file);
        io::copy(&mut hash, &mut io::sink()).map_err(|e| Error::io(self.name(&digest.hex()), "read", &e))?;
        Ok(hash.digest() == *digest)
    }

    fn put(&self, store: &Store, blobs: &OwnedFd, digest: &Digest, task: &Task) -> Result<()> {
        let (part, file) = self.part()?;
        let copied = (|| {
            let mut hash = HashRead::new(
                Kept::new(store.open_blob(digest)?)
                    .keep_in(file)
                    .map_err(|e| Error::io(self.name(&part), "clone", &e))?,
            );
            io::copy(&mut task.read(&mut hash), &mut io::sink())
                .map_err(|e| Error::io(format!("blob {digest}"), format!("copy to {}", self.at), &e))?;
            is_blob(digest, hash.digest())?;
            self.call("rename", fs::renameat(&self.dir, &part[..], blobs, digest.hex()))
        })();
        copied.inspect_err(|_| self.remove(&part))
    }
}
