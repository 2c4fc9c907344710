//! Bytes to archives. Of arbitrary bytes few are an archive; of these, each few are an entry, whose names are from a
//! short list, so that entries meet.

/// Parts of names.
const PARTS: [&str; 16] = [
    "a",
    "b",
    "c",
    "d",
    ".wh.a",
    ".wh.b",
    ".wh.c",
    ".wh..wh..opq",
    "..",
    ".",
    "",
    ".wh.",
    ".wh..",
    ".wh...",
    ".wh..wh.plnk",
    "e",
];
const KINDS: &[u8; 16] = b"0005552231146S7?";
/// 20 bytes that are a file's capabilities (capabilities(7)).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255,
    255,
];
const RECORDS: [(&str, &[u8]); 16] = [
    ("SCHILY.xattr.user.x", b"1"),
    ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ("SCHILY.xattr.trusted.overlay.redirect", b"/a"),
    ("SCHILY.xattr.user.overlay.opaque", b"y"),
    ("SCHILY.xattr.security.capability", CAPABILITY),
    ("SCHILY.xattr.system.posix_acl_access", ACL),
    ("SCHILY.xattr.trusted.t", b""),
    ("uid", b"70000"),
    ("gid", b"4294967294"),
    ("mtime", b"-1.5"),
    ("mtime", b"1600000000.123456789"),
    ("size", b"3"),
    ("path", b"a/b"),
    ("linkpath", b"d/c"),
    ("GNU.sparse.size", b"9000"),
    ("GNU.sparse.map", b"1,2,8999,1"),
];
const BLOCK: usize = 512;

/// Takes bytes from the front; zeros when there are none left.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn path(&mut self) -> String {
        let shape = self.next();
        let mut parts: Vec<&str> = Vec::new();
        for _ in 0..=shape % 4 {
            let two = self.next();
            parts.push(PARTS[usize::from(two % 16)]);
            if two & 0x80 != 0 {
                parts.push(PARTS[usize::from(two / 16 % 8)]);
            }
        }
        let (front, back) =
            (if shape & 0x40 != 0 { "/" } else { "" }, if shape & 0x80 != 0 { "/" } else { "" });
        format!("{front}{}{back}", parts.join("/"))
    }
}

/// An archive of the entries that the bytes say.
pub fn archive(bytes: &mut Bytes) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..bytes.next() % 24 {
        entry(bytes, &mut out);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

fn entry(bytes: &mut Bytes, out: &mut Vec<u8>) {
    let (kind, flags) = (bytes.next(), bytes.next());
    let (name, link) = (
        bytes.path(),
        if matches!(KINDS[usize::from(kind % 16)], b'1' | b'2') { bytes.path() } else { String::new() },
    );
    if flags & 1 != 0 {
        let records: Vec<_> = (0..1 + flags / 64).map(|_| RECORDS[usize::from(bytes.next() % 16)]).collect();
        put(out, b'x', "", "", &pax(&records), 0);
    }
    if flags & 2 != 0 {
        put(out, b'L', "", "", &[name.as_bytes(), b"\0"].concat(), 0);
    }
    let size = if flags & 4 == 0 {
        0
    } else {
        [1, 3, 511, 512, 513, 4096, 5000, 70_000][usize::from(flags / 8 % 8)]
    };
    let data: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
    put(out, KINDS[usize::from(kind % 16)], &name, &link, &data, kind);
}

fn put(out: &mut Vec<u8>, kind: u8, name: &str, link: &str, data: &[u8], variant: u8) {
    let mut h = [0; BLOCK];
    let mut set = |at: usize, text: &[u8]| h[at..at + text.len()].copy_from_slice(text);
    set(0, &name.as_bytes()[..name.len().min(100)]);
    set(100, [&b"0000755"[..], b"0004711", b"0001777", b"0000000"][usize::from(variant / 16 % 4)]);
    set(108, b"0000000");
    set(116, b"0000000");
    set(124, format!("{:011o}", data.len()).as_bytes());
    set(136, b"07372440000");
    set(156, &[kind]);
    set(157, &link.as_bytes()[..link.len().min(100)]);
    set(257, b"ustar\x0000");
    set(329, [&b"0000001"[..], b"0000000", b"0010000", b"0000005"][usize::from(variant / 64)]);
    set(337, b"0000003");
    repair(&mut h);
    out.extend_from_slice(&h);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length =
            (1..9).map(|digits| rest + digits).find(|n| n.to_string().len() == n - rest).unwrap_or(rest);
        out.extend_from_slice(format!("{length} {key}=").as_bytes());
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

/// Makes the checksum of a block right.
fn repair(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The bytes as an archive, as they are but for the checksums of blocks that are not empty.
pub fn raw(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for block in out.chunks_exact_mut(BLOCK).filter(|b| b.iter().any(|b| *b != 0)) {
        // What has text in the place of the checksum is data.
        if block[148..154].iter().all(|b| matches!(b, 0 | b' ' | b'0'..=b'7')) {
            repair(block);
        }
    }
    out
}
