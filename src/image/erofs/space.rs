//! Where the parts of an image stand, and their way into the file.

use super::format::{BLOCK, SLOT};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Room that is taken at once for inodes, which fill it while data goes behind it.
const RECORDS: u64 = 64 << 10;
/// Bytes that are kept until they are written.
const KEPT: usize = 256 << 10;

/// What is free. Cheap to copy: the places of what comes next can be tried out.
#[derive(Clone, Debug)]
pub struct Space {
    /// The end of what is taken: the next block.
    end: u64,
    /// Room for inodes.
    records: std::ops::Range<u64>,
}

/// All behind the first block.
impl Default for Space {
    fn default() -> Self {
        Self { end: BLOCK, records: 0..0 }
    }
}

impl Space {
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Takes whole blocks for `size` bytes.
    pub fn blocks(&mut self, size: u64) -> u64 {
        let at = self.end;
        self.end += size.next_multiple_of(BLOCK);
        at
    }

    /// Takes room for an inode of `head` bytes, attributes included, with `tail` bytes of data behind it, which must
    /// not cross the end of a block.
    pub fn record(&mut self, head: u64, tail: u64) -> u64 {
        let fit = |from: u64| {
            let at = from.next_multiple_of(SLOT);
            let data = at + head;
            let crosses = tail > 0 && data / BLOCK != (data + tail - 1) / BLOCK;
            if crosses { (data.next_multiple_of(BLOCK) - head).next_multiple_of(SLOT) } else { at }
        };
        let mut at = fit(self.records.start);
        if at + head + tail > self.records.end {
            let size = RECORDS.max((head + tail + 2 * BLOCK).next_multiple_of(BLOCK));
            let start = self.blocks(size);
            self.records = start..start + size;
            at = fit(start);
        }
        self.records.start = at + head + tail;
        at
    }
}

/// The longest tail that [`Space::record`] finds room for behind any inode.
pub const MAX_TAIL: u64 = BLOCK - SLOT;

/// Bytes that belong together in the file.
struct Run {
    start: u64,
    bytes: Vec<u8>,
}

impl Run {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn flush(&mut self, file: &File) -> io::Result<()> {
        file.write_all_at(&self.bytes, self.start)?;
        self.start = self.end();
        self.bytes.clear();
        Ok(())
    }

    fn put(&mut self, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        let gap = at.checked_sub(self.end()).filter(|gap| *gap < BLOCK && !self.bytes.is_empty());
        match gap {
            Some(gap) => self.bytes.resize(self.bytes.len() + gap as usize, 0),
            None => {
                self.flush(file)?;
                self.start = at;
            }
        }
        if bytes.len() >= KEPT / 4 {
            self.flush(file)?;
            file.write_all_at(bytes, at)?;
            self.start = at + bytes.len() as u64;
            return Ok(());
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= KEPT { self.flush(file) } else { Ok(()) }
    }
}

/// The file of an image: what is never written in it is a hole of zeros.
pub struct Out {
    file: File,
    data: Run,
    records: Run,
}

impl Out {
    pub fn new(file: File) -> Self {
        let run = || Run { start: 0, bytes: Vec::new() };
        Self { file, data: run(), records: run() }
    }

    /// Data of files and directories, mostly one behind the other.
    pub fn data(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.data.put(&self.file, at, bytes)
    }

    /// An inode, or what stands behind it.
    pub fn record(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.records.put(&self.file, at, bytes)
    }

    /// Changes what was written.
    pub fn patch(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.flush()?;
        self.file.write_all_at(bytes, at)
    }

    /// Reads what was written.
    pub fn read(&mut self, at: u64, size: usize) -> io::Result<Vec<u8>> {
        for run in [&self.records, &self.data] {
            let from = at.checked_sub(run.start).and_then(|n| usize::try_from(n).ok());
            if let Some(found) = from.and_then(|n| run.bytes.get(n..n + size)) {
                return Ok(found.to_vec());
            }
        }
        self.flush()?;
        let mut out = vec![0; size];
        self.file.read_exact_at(&mut out, at)?;
        Ok(out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.data.flush(&self.file)?;
        self.records.flush(&self.file)
    }

    /// Writes what is left; the file is `size` bytes long then.
    pub fn finish(&mut self, size: u64) -> io::Result<()> {
        self.flush()?;
        self.file.set_len(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_never_cross_a_block() {
        let mut s = Space::default();
        let mut last = 0;
        for n in 0..20_000u64 {
            let (head, tail) = (32 + 4 * (n % 40), n * 37 % (MAX_TAIL + 1));
            let at = s.record(head, tail);
            assert!(at % SLOT == 0 && at >= last, "{n}");
            last = at + head + tail;
            assert!(tail == 0 || (at + head) / BLOCK == (last - 1) / BLOCK, "{n}: {at} {head} {tail}");
            assert!(last <= s.end());
            if n % 7 == 0 {
                let block = s.blocks(n);
                assert!(block % BLOCK == 0 && (block >= last || block + n <= at));
            }
        }
    }

    #[test]
    fn what_was_written_is_read_and_changed() {
        let path = std::env::temp_dir().join(format!("orlop-space-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut o = Out::new(file);
        o.record(100, b"abc").unwrap();
        o.record(110, b"def").unwrap();
        o.data(1 << 20, b"xyz").unwrap();
        assert_eq!(o.read(110, 3).unwrap(), b"def");
        o.patch(101, b"B").unwrap();
        o.record(200, &vec![b'r'; KEPT]).unwrap();
        assert_eq!(o.read(100, 13).unwrap(), b"aBc\0\0\0\0\0\0\0def");
        o.finish(2 << 20).unwrap();
        let all = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((all.len(), &all[1 << 20..(1 << 20) + 4]), (2 << 20, &b"xyz\0"[..]));
    }
}
