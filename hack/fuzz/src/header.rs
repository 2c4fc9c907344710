//! Arbitrary bytes as a tar stream: what its reader lets through keeps the promises of `Entry`.

use super::script::raw;
use orlop::image::layer::entry::Kind;
use orlop::image::layer::read::Reader;
use orlop::image::limits::Limits;
use std::io::Read;

pub fn run(data: &[u8]) {
    let archive = raw(data);
    let limits = Limits { bytes: 1 << 20, entries: 1000, depth: 20, path: 1000, ..Limits::default() };
    let mut reader = Reader::new(&archive[..], limits.clone());
    let (mut count, mut total) = (0, 0);
    while let Ok(Some(entry)) = reader.next_entry() {
        let path = &entry.path;
        assert!(path.len() <= limits.path && !path.contains(&0), "{path:?}");
        let parts = || path.split(|b| *b == b'/');
        assert!(
            path.is_empty() || parts().all(|p| !matches!(p, b"" | b"." | b"..") && p.len() < 256),
            "{path:?}"
        );
        assert!(parts().count() <= limits.depth + 1);
        count += 1;
        match entry.kind {
            Kind::File { size, sparse } => {
                total += size;
                let want = sparse.as_ref().map_or(size, |s| s.iter().map(|e| e.1).sum());
                let mut end = 0;
                for (offset, length) in sparse.unwrap_or_default() {
                    assert!(offset >= end && length > 0 && offset + length <= size);
                    end = offset + length;
                }
                let mut out = Vec::new();
                if reader.data().read_to_end(&mut out).is_ok() {
                    assert_eq!(out.len() as u64, want);
                }
            }
            Kind::Link(target) => assert!(!target.is_empty() && !target.starts_with(b"/")),
            Kind::Symlink(target) => assert!(!target.is_empty() && target.len() <= limits.path),
            _ => {}
        }
    }
    assert!(count <= limits.entries && total <= limits.bytes);
}
