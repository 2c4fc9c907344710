//! The tar stream of a layer to a blob: packed, and hashed on both sides.

use super::compress::Packing;
use crate::error::{Error, Result};
use crate::image::digest::{Digest, HashWrite};
use std::io::{self, Write};

/// What was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    pub packing: Packing,
    /// Digest and bytes of the blob.
    pub digest: Digest,
    pub size: u64,
    /// Digest and bytes of the tar stream.
    pub diff_id: Digest,
    pub diff_size: u64,
}

/// Packs what is written to it into `W`. The same bytes give the same blob: no time, no name and no number of threads
/// is part of it.
pub struct Pack<W: Write> {
    packing: Packing,
    plain: HashWrite<Encoder<HashWrite<W>>>,
}

enum Encoder<W: Write> {
    Plain(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Pack<W> {
    pub fn new(out: W, packing: Packing) -> Result<Self> {
        let out = HashWrite::new(out);
        let encoder = match packing {
            Packing::Plain => Encoder::Plain(out),
            Packing::Gzip => {
                Encoder::Gzip(flate2::write::GzEncoder::new(out, flate2::Compression::default()))
            }
            Packing::Zstd => Encoder::Zstd(
                zstd::stream::write::Encoder::new(out, 0).map_err(|e| Error::io("layer", "pack", &e))?,
            ),
        };
        Ok(Self { packing, plain: HashWrite::new(encoder) })
    }

    /// The end of the blob.
    pub fn finish(self) -> Result<(W, Packed)> {
        let (encoder, diff_id, diff_size) = self.plain.finish();
        let out = match encoder {
            Encoder::Plain(out) => Ok(out),
            Encoder::Gzip(e) => e.finish(),
            Encoder::Zstd(e) => e.finish(),
        };
        let (mut out, digest, size) = out.map_err(|e| Error::io("layer", "pack", &e))?.finish();
        out.flush().map_err(|e| Error::io("layer", "write", &e))?;
        Ok((out, Packed { packing: self.packing, digest, size, diff_id, diff_size }))
    }
}

impl<W: Write> Write for Pack<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.plain.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.plain.flush()
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::Plain(w) => w.write(buf),
            Encoder::Gzip(w) => w.write(buf),
            Encoder::Zstd(w) => w.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Plain(w) => w.flush(),
            Encoder::Gzip(w) => w.flush(),
            Encoder::Zstd(w) => w.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::compress::through;
    use crate::image::limits::Limits;
    use std::io::Read;

    #[test]
    fn what_is_packed_comes_back_with_its_digests() {
        let plain: Vec<u8> = (0..300_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
            let pack = || {
                let mut p = Pack::new(Vec::new(), packing).unwrap();
                p.write_all(&plain).unwrap();
                p.finish().unwrap()
            };
            let (blob, packed) = pack();
            assert_eq!(pack(), (blob.clone(), packed), "the same bytes twice");
            let (seen, out) = through(&blob[..], blob.len() as u64, &Limits::default(), |s| {
                let mut out = Vec::new();
                s.read_to_end(&mut out).unwrap();
                Ok(out)
            })
            .unwrap();
            assert!(out == plain);
            assert_eq!((seen.packing, seen.digest, seen.size), (packing, packed.digest, packed.size));
            assert_eq!((seen.diff_id, seen.diff_size), (packed.diff_id, packed.diff_size));
        }
    }
}
