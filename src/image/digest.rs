//! sha256 digests, the only kind that is taken.

use crate::error::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io::{self, Read, Write};

/// A sha256 digest, `sha256:` and 64 lower-case hexadecimal digits when written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Strict: the text becomes a file name of the store and of a layout (CVE-2024-3727).
    pub fn parse(at: &str, text: &str) -> Result<Self> {
        let wrong = || Error::invalid(at, format!("{text:?} is not sha256: and 64 lower-case hex digits"));
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?;
        Self::from_hex(hex).ok_or_else(wrong)
    }

    pub fn from_hex(hex: &str) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let bytes = hex.as_bytes();
        if bytes.len() != 64 {
            return None;
        }
        let mut out = [0; 32];
        for (o, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            *o = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(out))
    }

    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub fn hex(&self) -> String {
        let digit = |n: u8| char::from(b"0123456789abcdef"[usize::from(n)]);
        let mut out = String::with_capacity(64);
        for b in self.0 {
            out.push(digit(b >> 4));
            out.push(digit(b & 15));
        }
        out
    }

    /// The chain id of a layer on top of the chain `below` (image-spec config.md#layer-chainid).
    pub fn chain(below: Option<&Digest>, diff_id: &Digest) -> Self {
        match below {
            None => *diff_id,
            Some(b) => Self::of(format!("{b} {diff_id}").as_bytes()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse("digest", &text).map_err(serde::de::Error::custom)
    }
}

/// Hashes and counts what is read through it.
pub struct HashRead<R> {
    inner: R,
    hash: Sha256,
    pub count: u64,
}

impl<R: Read> HashRead<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    pub fn digest(self) -> Digest {
        Digest(self.hash.finalize().into())
    }
}

impl<R: Read> Read for HashRead<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

/// Hashes and counts what is written through it.
pub struct HashWrite<W> {
    inner: W,
    hash: Sha256,
    count: u64,
}

impl<W: Write> HashWrite<W> {
    pub fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    /// The writer, with the digest and the number of the bytes that it took.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, Digest(self.hash.finalize().into()), self.count)
    }
}

impl<W: Write> Write for HashWrite<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(&buf[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_is_a_digest() {
        let hex = "ab".repeat(32);
        assert_eq!(Digest::parse("", &format!("sha256:{hex}")).unwrap().hex(), hex);
        for bad in [
            hex.clone(),
            format!("sha512:{hex}"),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{hex}0"),
            format!("sha256:../{}", &hex[3..]),
            format!("sha256:{hex}\n"),
            String::new(),
        ] {
            assert!(Digest::parse("x", &bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(Digest::chain(None, &a), a);
        assert_eq!(Digest::chain(Some(&a), &b), Digest::of(format!("{a} {b}").as_bytes()));
    }
}
