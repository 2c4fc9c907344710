//! Documents of images, and the blobs of layers as they came, kept beside what was made of them: by them an image leaves
//! the store bit for bit, and a damaged layer is made again.

use super::archive::Piece;
use super::digest::{Digest, HashRead};
use super::limits::Limits;
use super::progress::Task;
use super::store::{MEND, Store, open_file, read};
use crate::error::{Error, Kind, Result};
use oci_spec::image::ImageManifest;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// A blob that is read once; what is read may be kept.
pub struct Kept {
    piece: Piece,
    copy: Option<File>,
}

impl Kept {
    pub fn new(piece: Piece) -> Self {
        Self { piece, copy: None }
    }

    /// Keeps it in a new file. What the reader hashes is what is kept: the bytes that are written as they come, or those
    /// of the clone or of the partial of a pull, and never the source a second time.
    pub fn keep(mut self, path: &Path) -> Result<Self> {
        if let Piece::Body(body) = &mut self.piece {
            if body.keep_as(path) {
                return Ok(self);
            }
        }
        let failed = |e: io::Error| Error::io(path.display().to_string(), "make", &e);
        let file = File::options().read(true).write(true).create_new(true).open(path).map_err(failed)?;
        self.keep_in(file).map_err(failed)
    }

    /// As [`Kept::keep`], in an empty file that is open for reading too.
    pub fn keep_in(self, file: File) -> io::Result<Self> {
        if self.piece.clone_to(&file) {
            return Ok(Self::new(Piece::whole(file)?));
        }
        Ok(Self { piece: self.piece, copy: Some(file) })
    }
}

impl Read for Kept {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.piece.read(buf)?;
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buf[..n])?;
        }
        Ok(n)
    }
}

/// For what was taken into the store once: which limits it met is not known any more, but its digest is.
pub fn no_limits() -> Limits {
    let all = u64::MAX;
    let long = 1 << 20;
    let window = 1 << 31;
    Limits {
        bytes: all,
        entries: all,
        ratio: all,
        window,
        depth: long,
        path: long,
        manifest: all,
        config: all,
    }
}

impl Store {
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir().join("blobs/sha256").join(digest.hex())
    }

    /// Stores a manifest or configuration.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        // One that was damaged is mended.
        if !read(&path).is_ok_and(|there| there == bytes) {
            self.write(&path, bytes)?;
        }
        Ok(digest)
    }

    /// A manifest or configuration, checked against its digest.
    pub fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let at = || format!("blob {digest}");
        let bytes = read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::os(at(), format!("read {}", path.display()), libc::ENOENT).hint(MEND)
            }
            _ => Error::io(path.display().to_string(), "read", &e),
        })?;
        match Digest::of(&bytes) {
            found if found == *digest => Ok(bytes),
            found => {
                let what = format!("is damaged: its {} bytes have the digest {found}", bytes.len());
                Err(Error::invalid(at(), what).hint(MEND))
            }
        }
    }

    pub fn manifest(&self, digest: &Digest) -> Result<ImageManifest> {
        serde_json::from_slice(&self.blob(digest)?)
            .map_err(|e| Error::invalid(format!("manifest {digest}"), e.to_string()))
    }

    /// Whether a blob is there, by its size: that its bytes are right is for `verify` to say.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        std::fs::metadata(self.blob_path(digest)).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    /// The blob of a layer, which may have been left out.
    pub fn open_blob(&self, digest: &Digest) -> Result<Piece> {
        let path = self.blob_path(digest);
        match open_file(&path).and_then(Piece::whole) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let at = format!("blob {digest}");
                Err(Error::new(Kind::NotFound, at, "is not in the store").hint("import the image again"))
            }
            other => other.map_err(|e| Error::io(path.display().to_string(), "open", &e)),
        }
    }

    /// What a blob of the store really is: its size and digest.
    pub fn look_at_blob(&self, digest: &Digest, task: Option<&Task>) -> Result<(u64, Digest)> {
        let blob = self.open_blob(digest)?;
        let mut hash: HashRead<Box<dyn Read>> = HashRead::new(match task {
            Some(task) => Box::new(task.read(blob)),
            None => Box::new(blob),
        });
        io::copy(&mut hash, &mut io::sink())
            .map_err(|e| Error::io(self.blob_path(digest).display().to_string(), "read", &e))?;
        Ok((hash.count, hash.digest()))
    }
}
