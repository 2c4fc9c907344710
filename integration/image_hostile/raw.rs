//! Archives by hand, for what no writer of archives makes.

/// A header; numbers are set as they are given, right or wrong.
#[derive(Clone)]
pub struct Head([u8; 512]);

pub fn head(kind: u8, name: &str) -> Head {
    let mut h = Head([0; 512]);
    h.set(0, &name.as_bytes()[..name.len().min(100)]);
    h.set(100, b"0000644\0").set(108, b"0000000\0").set(116, b"0000000\0").size(0);
    h.set(136, b"13737304000\0").set(156, &[kind]).set(257, b"ustar\x0000");
    h
}

impl Head {
    pub fn set(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn size(&mut self, n: u64) -> &mut Self {
        self.set(124, format!("{n:011o}\0").as_bytes())
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.set(100, format!("{mode:07o}\0").as_bytes());
        self
    }

    pub fn link(mut self, target: &str) -> Self {
        self.set(157, target.as_bytes());
        self
    }

    pub fn device(mut self, major: u32, minor: u32) -> Self {
        self.set(329, format!("{major:07o}\0").as_bytes()).set(337, format!("{minor:07o}\0").as_bytes());
        self
    }

    fn sealed(&self) -> [u8; 512] {
        let mut h = self.clone();
        h.set(148, b"        ");
        let sum: u32 = h.0.iter().map(|b| u32::from(*b)).sum();
        h.set(148, format!("{sum:06o}\0 ").as_bytes());
        h.0
    }
}

/// An archive in the making.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    /// A header as it is, and what stands behind it, filled up to a block.
    pub fn raw(mut self, head: &Head, data: &[u8]) -> Self {
        self.0.extend_from_slice(&head.sealed());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// An entry whose header says how many bytes there are.
    pub fn entry(self, mut head: Head, data: &[u8]) -> Self {
        head.size(data.len() as u64);
        self.raw(&head, data)
    }

    pub fn file(self, name: &str, text: &str) -> Self {
        self.entry(head(b'0', name), text.as_bytes())
    }

    pub fn dir(self, name: &str) -> Self {
        self.entry(head(b'5', name).mode(0o755), b"")
    }

    pub fn soft(self, name: &str, target: &str) -> Self {
        if target.len() > 100 {
            return self.pax(&[("linkpath", target.as_bytes())]).entry(head(b'2', name).mode(0o777), b"");
        }
        self.entry(head(b'2', name).mode(0o777).link(target), b"")
    }

    pub fn hard(self, name: &str, target: &str) -> Self {
        if target.len() > 100 {
            return self.pax(&[("linkpath", target.as_bytes())]).entry(head(b'1', name), b"");
        }
        self.entry(head(b'1', name).link(target), b"")
    }

    /// Records for the next entry.
    pub fn pax(self, all: &[(&str, &[u8])]) -> Self {
        self.entry(head(b'x', "pax"), &records(all))
    }

    /// A file with a name of any length.
    pub fn long(self, name: &str, text: &str) -> Self {
        self.pax(&[("path", name.as_bytes())]).file("short", text)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// Records of an extended header, each with its length in front.
pub fn records(all: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in all {
        let rest = key.len() + value.len() + 3;
        let length = (1..9).map(|d| rest + d).find(|n| n.to_string().len() == n - rest).unwrap();
        out.extend_from_slice(format!("{length} {key}=").as_bytes());
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}
