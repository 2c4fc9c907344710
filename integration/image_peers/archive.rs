//! Entries to the tar stream of a layer, in the many ways that tools write it: names and attributes by pax(1) or GNU's
//! long names, times with nanoseconds, files with holes in PAX 1.0 and in GNU's old form.

use crate::model::{Item, What, join, split};
use crate::tree::Meta;

const BLOCK: usize = 512;

pub fn archive(layer: &[Item]) -> Vec<u8> {
    archive_of(layer, true)
}

/// Without files with holes in GNU's `old` form.
pub fn archive_of(layer: &[Item], old: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (n, item) in layer.iter().enumerate() {
        entry(&mut out, item, n % 2 == 0 || !old && matches!(item.what, What::Sparse(..)));
    }
    out.extend([0; 2 * BLOCK]);
    out
}

fn entry(out: &mut Vec<u8>, item: &Item, pax: bool) {
    let (dir, last) = split(&item.path);
    let name = match &item.what {
        What::Whiteout => join(dir, &[b".wh.", last].concat()),
        What::Opaque => join(&item.path, b".wh..wh..opq"),
        What::Dir if item.path.is_empty() => b"./".to_vec(),
        What::Dir => [&item.path[..], b"/"].concat(),
        _ => item.path.clone(),
    };
    let (kind, link) = match &item.what {
        What::Dir => (b'5', &[][..]),
        What::Symlink(target) => (b'2', &target[..]),
        What::Hard(target) => (b'1', &target[..]),
        What::Char(..) => (b'3', &[][..]),
        What::Block(..) => (b'4', &[][..]),
        What::Fifo => (b'6', &[][..]),
        What::Sparse(..) if !pax => (b'S', &[][..]),
        _ => (b'0', &[][..]),
    };
    let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let meta = &item.meta;
    for (key, value) in &meta.xattrs {
        records.push(([b"SCHILY.xattr.", &key[..]].concat(), value.clone()));
    }
    let (seconds, nanos) = meta.mtime;
    if nanos != 0 || seconds < 0 {
        // A negative number of seconds with a fraction counts towards it.
        let text = match (seconds < 0, nanos) {
            (true, 1..) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
            _ => format!("{seconds}.{nanos:09}"),
        };
        records.push((b"mtime".to_vec(), text.into_bytes()));
    }
    for (key, id) in [("uid", meta.uid), ("gid", meta.gid)] {
        if id > 0o777_7777 {
            records.push((key.into(), id.to_string().into_bytes()));
        }
    }
    let mut data = match &item.what {
        What::File(data) => data.clone(),
        What::Sparse(_, parts) => parts.iter().flat_map(|p| p.1.clone()).collect(),
        _ => Vec::new(),
    };
    if let (What::Sparse(size, parts), true) = (&item.what, pax) {
        let mut map = format!("{}\n", parts.len());
        parts.iter().for_each(|(at, part)| map.push_str(&format!("{at}\n{}\n", part.len())));
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        data = [map, data].concat();
        for (key, value) in [
            ("major", b"1".to_vec()),
            ("minor", b"0".to_vec()),
            ("name", name.clone()),
            ("realsize", size.to_string().into()),
        ] {
            records.push((format!("GNU.sparse.{key}").into(), value));
        }
    }
    for (value, key, gnu) in [(&name[..], "path", b'L'), (link, "linkpath", b'K')] {
        match value.len() > 100 {
            true if pax => records.push((key.into(), value.to_vec())),
            true => {
                block(out, b"././@LongLink", gnu, &Meta::default(), &[value, b"\0"].concat(), b"", &item.what)
            }
            false => {}
        }
    }
    if !records.is_empty() {
        let text: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        block(out, b"PaxHeaders/x", b'x', &Meta { mode: 0o644, ..Meta::default() }, &text, b"", &item.what);
    }
    block(out, &name, kind, meta, &data, link, &item.what);
}

/// `LENGTH KEY=VALUE\n`
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key, b"=", value, b"\n"].concat();
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &rest].concat()
}

/// A header and its data.
fn block(out: &mut Vec<u8>, name: &[u8], kind: u8, meta: &Meta, data: &[u8], link: &[u8], what: &What) {
    let mut head = [0; BLOCK];
    let mut put = |at: usize, max: usize, text: &[u8]| {
        let n = text.len().min(max);
        head[at..at + n].copy_from_slice(&text[..n]);
    };
    let octal = |n: u64, width: usize| format!("{n:0width$o}\0").into_bytes();
    put(0, 100, name);
    put(100, 8, &octal(meta.mode.into(), 7));
    let id = |id: u32| if id > 0o777_7777 { 0 } else { id.into() };
    put(108, 8, &octal(id(meta.uid), 7));
    put(116, 8, &octal(id(meta.gid), 7));
    put(124, 12, &octal(data.len() as u64, 11));
    put(136, 12, &octal(meta.mtime.0.max(0) as u64, 11));
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link);
    let gnu = matches!(kind, b'L' | b'K' | b'S');
    put(257, 8, if gnu { b"ustar  \0" } else { b"ustar\x0000" });
    if let (What::Char(major, minor) | What::Block(major, minor), b'3' | b'4') = (what, kind) {
        put(329, 8, &octal((*major).into(), 7));
        put(337, 8, &octal((*minor).into(), 7));
    }
    if let (What::Sparse(size, parts), b'S') = (what, kind) {
        for (n, (at, part)) in parts.iter().enumerate() {
            put(386 + 24 * n, 12, &octal(*at, 11));
            put(398 + 24 * n, 12, &octal(part.len() as u64, 11));
        }
        put(483, 12, &octal(*size, 11));
    }
    let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend(head);
    out.extend(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}
