//! The bytes of a layer as they lie in an image, to the tar stream: read, hash, inflate, hash, all on a thread of its
//! own, so that the files are made meanwhile.

use crate::error::{Error, Result};
use crate::image::digest::{Digest, HashRead, HashWrite};
use crate::image::limits::{FREE_OUTPUT, Limits};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    pub fn name(self) -> &'static str {
        match self {
            Packing::Plain => "none",
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
        }
    }

    /// By the first bytes; a tar stream never starts with these (it would be a name of control bytes).
    pub fn sniff(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            // A skippable frame may come first: zstd:chunked and pzstd write them.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            _ => Packing::Plain,
        }
    }
}

/// Inflates `r` by its first bytes; a zstd stream may have a window of `window` bytes.
pub fn inflate<'a>(
    r: impl BufRead + Send + 'a,
    window: u64,
) -> io::Result<(Packing, Box<dyn Read + Send + 'a>)> {
    let mut r = r;
    let packing = Packing::sniff(r.fill_buf()?);
    Ok((
        packing,
        match packing {
            Packing::Plain => Box::new(r),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(r)),
            Packing::Zstd => {
                let mut d = zstd::stream::read::Decoder::with_buffer(r)?;
                d.window_log_max(window.max(1).ilog2())?;
                Box::new(d)
            }
        },
    ))
}

/// What the packed stream turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub packing: Packing,
    pub digest: Digest,
    pub size: u64,
    pub diff_id: Digest,
    pub diff_size: u64,
}

/// An error of [`inflate`] and of what it reads.
pub fn inflate_error(e: &io::Error) -> Error {
    let own = Error::io("", "inflate", e);
    match own.what.contains("requires too much memory") {
        true => own.hint("raise --max-zstd-window"), // libzstd's words
        false => own,
    }
}

/// Counts what is read through it while others read what becomes of it.
pub struct Taken<'a, R> {
    pub inner: R,
    pub count: &'a AtomicU64,
}

impl<R: Read> Read for Taken<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Whether what was taken may become so much, at most `max` bytes.
pub fn within(limits: &Limits, max: u64, inflated: u64, taken: &AtomicU64) -> Result<()> {
    if inflated > max {
        let what = format!("inflates to more than {max} bytes");
        return Err(Error::invalid("", what).hint("raise --max-layer-bytes"));
    }
    // Of what was read, and not of what the image says of itself.
    let taken = taken.load(Ordering::Relaxed);
    if inflated > FREE_OUTPUT.max(taken.saturating_mul(limits.ratio)) {
        let what = format!("inflates to more than {} times its first {taken} bytes", limits.ratio);
        return Err(Error::invalid("", what).hint("raise --max-ratio"));
    }
    Ok(())
}

const CHUNK: usize = 256 << 10;
/// Chunks on their way. They go round: memory that is new costs a page fault for each page.
const CHUNKS: usize = 4;

/// Runs `sink` on the tar stream of `blob`, which must be at most `size` bytes long; afterwards all of the blob was
/// read and hashed, whatever stands behind the archive.
pub fn through<T>(
    blob: impl Read + Send,
    size: u64,
    limits: &Limits,
    sink: impl FnOnce(&mut Stream) -> Result<T>,
) -> Result<(Seen, T)> {
    run(blob, (size, None), limits, sink)
}

/// As [`through`], of a blob that is to be of this size and digest. Where it is another one, that is the error, and not
/// what is wrong with the archive in it.
pub fn through_named<T>(
    blob: impl Read + Send,
    (size, digest): (u64, &Digest),
    limits: &Limits,
    sink: impl FnOnce(&mut Stream) -> Result<T>,
) -> Result<(Seen, T)> {
    run(blob, (size, Some(digest)), limits, sink)
}

fn run<T>(
    blob: impl Read + Send,
    said: (u64, Option<&Digest>),
    limits: &Limits,
    sink: impl FnOnce(&mut Stream) -> Result<T>,
) -> Result<(Seen, T)> {
    let ((send, receive), (give_back, used)) = (sync_channel(CHUNKS), sync_channel(CHUNKS));
    std::thread::scope(|scope| {
        let inflating = scope.spawn(move || produce(blob, said, limits, &send, &used));
        let mut stream = Stream { receive, give_back, chunk: Vec::new(), at: 0 };
        let out = sink(&mut stream);
        if out.is_ok() {
            // Blocks behind the archive are part of both digests.
            while stream.fill_buf().is_ok_and(|b| !b.is_empty()) {
                let n = stream.chunk.len() - stream.at;
                stream.consume(n);
            }
        }
        drop(stream); // lets a blocked sender end
        let seen = inflating.join().unwrap_or_else(|_| Err(Error::invalid("", "cannot be inflated")));
        match (seen, out) {
            // The cause, when the stream broke: the sink saw only its end.
            (Err(e), _) | (_, Err(e)) => Err(e),
            (Ok(None), Ok(_)) => Err(Error::invalid("", "was not read to its end")),
            (Ok(Some(seen)), Ok(out)) => Ok((seen, out)),
        }
    })
}

/// The error for a blob of another size or digest than it is to have.
pub fn other_blob(size: u64, digest: &Digest) -> Error {
    Error::invalid("", format!("its {size} bytes have the digest {digest}"))
}

/// The packed bytes as they come, at most one more than there may be.
type Packed<'a, R> = BufReader<Taken<'a, HashRead<io::Take<R>>>>;

/// Reads what is left of a blob; an error when it can be read and is not what it is to be.
fn is_said<R: Read>(mut packed: Packed<R>, (size, digest): (u64, Option<&Digest>)) -> Result<()> {
    let Some(digest) = digest else { return Ok(()) };
    if io::copy(&mut packed, &mut io::sink()).is_err() {
        return Ok(()); // what is known already is the error to tell
    }
    let hash = packed.into_inner().inner;
    let found = (hash.count, hash.digest());
    if found == (size, *digest) { Ok(()) } else { Err(other_blob(found.0, &found.1)) }
}

/// Whether an error is that of reading, and not of what was read.
fn is_of_source(e: &io::Error) -> bool {
    e.raw_os_error().is_some() || e.get_ref().is_some_and(|inner| inner.is::<Error>())
}

/// Inflates and hashes into `send`; `None` when nobody reads on.
fn produce(
    blob: impl Read + Send,
    said: (u64, Option<&Digest>),
    limits: &Limits,
    send: &SyncSender<Vec<u8>>,
    used: &Receiver<Vec<u8>>,
) -> Result<Option<Seen>> {
    let at = |e: io::Error| inflate_error(&e);
    let taken = AtomicU64::new(0);
    let blob = Taken { inner: HashRead::new(blob.take(said.0.saturating_add(1))), count: &taken };
    let mut packed = BufReader::with_capacity(CHUNK, blob);
    let (packing, mut plain) = inflate(&mut packed, limits.window).map_err(at)?;
    let mut hash = HashWrite::new(io::sink());
    let mut diff_size = 0;
    loop {
        let mut chunk = used.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let mut len = 0;
        while len < CHUNK {
            match plain.read(&mut chunk[len..]) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_of_source(&e) => return Err(at(e)),
                Err(e) => {
                    drop(plain);
                    return is_said(packed, said).and(Err(at(e)));
                }
            }
        }
        if len == 0 {
            break;
        }
        diff_size += len as u64;
        within(limits, limits.bytes, diff_size, &taken)?;
        chunk.truncate(len);
        if packing != Packing::Plain {
            hash.write_all(&chunk).map_err(at)?;
        }
        if send.send(chunk).is_err() {
            drop(plain);
            return is_said(packed, said).map(|()| None);
        }
    }
    drop(plain);
    // Bytes behind the last frame belong to the blob's digest.
    io::copy(&mut packed, &mut io::sink()).map_err(at)?;
    let packed = packed.into_inner().inner;
    let (size, digest) = (packed.count, packed.digest());
    // A plain layer is its blob.
    let diff_id = if packing == Packing::Plain { digest } else { hash.finish().1 };
    Ok(Some(Seen { packing, size, digest, diff_id, diff_size }))
}

/// The tar stream, in chunks from the inflating thread.
pub struct Stream {
    receive: Receiver<Vec<u8>>,
    give_back: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            // A closed channel is the end, or an error that the sender returns.
            let used = std::mem::replace(&mut self.chunk, self.receive.recv().unwrap_or_default());
            let _ = self.give_back.try_send(used); // one too many is freed
            self.at = 0;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.chunk.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        e.write_all(data).unwrap();
        e.finish().unwrap()
    }

    fn read(packed: &[u8], limits: &Limits) -> Result<(Seen, Vec<u8>)> {
        through(packed, packed.len() as u64, limits, |s| {
            let mut out = Vec::new();
            s.take(1 << 30).read_to_end(&mut out).unwrap();
            Ok(out)
        })
    }

    #[test]
    fn every_packing_gives_the_same_bytes_and_digests() {
        let plain: Vec<u8> = (0..700_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let (a, b) = plain.split_at(1_000_003);
        for (packing, packed) in [
            (Packing::Plain, plain.clone()),
            (Packing::Gzip, gzip(&plain)),
            (Packing::Gzip, [gzip(a), gzip(b)].concat()),
            (Packing::Zstd, zstd::encode_all(&plain[..], 1).unwrap()),
            (Packing::Zstd, [zstd::encode_all(a, 1).unwrap(), zstd::encode_all(b, 1).unwrap()].concat()),
        ] {
            let (seen, out) = read(&packed, &Limits::default()).unwrap();
            assert!(out == plain, "{packing:?}");
            assert_eq!((seen.packing, seen.digest), (packing, Digest::of(&packed)));
            assert_eq!((seen.size, seen.diff_id), (packed.len() as u64, Digest::of(&plain)));
        }
    }

    #[test]
    fn what_the_sink_leaves_is_hashed_too() {
        let plain = vec![7; 3 << 20];
        let (seen, ()) = through(&plain[..], plain.len() as u64, &Limits::default(), |_| Ok(())).unwrap();
        assert_eq!(seen.diff_id, Digest::of(&plain));
    }

    #[test]
    fn broken_streams_name_their_cause() {
        let mut packed = gzip(&vec![1; 1 << 20]);
        let len = packed.len();
        assert!(read(&packed[..len - 9], &Limits::default()).is_err());
        packed[len / 2] ^= 0x55;
        assert!(read(&packed, &Limits::default()).is_err());
    }

    #[test]
    fn a_window_larger_than_allowed_is_refused() {
        let plain: Vec<u8> = (0..4_000_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let pack = |log| {
            let mut e = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            e.window_log(log).unwrap();
            e.write_all(&plain).unwrap();
            e.finish().unwrap()
        };
        read(&pack(23), &Limits::default()).unwrap();
        let wide = pack(24);
        let e = read(&wide, &Limits::default()).unwrap_err().to_string();
        assert!(e.contains("raise --max-zstd-window"), "{e}");
        read(&wide, &Limits { window: 16 << 20, ..Limits::default() }).unwrap();
    }

    #[test]
    fn a_bomb_ends_at_its_limit() {
        let bomb = zstd::encode_all(io::repeat(0).take(300 << 20), 1).unwrap();
        let limits = Limits { ratio: 100, ..Limits::default() };
        let e = read(&bomb, &limits).unwrap_err().to_string();
        assert!(e.contains("100 times"), "{e}");
        let limits = Limits { bytes: 1 << 20, ..Limits::default() };
        let e = read(&bomb, &limits).unwrap_err().to_string();
        assert!(e.contains("1048576 bytes"), "{e}");
    }
}
