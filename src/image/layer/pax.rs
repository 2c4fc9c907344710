//! Extended headers (pax(1)): records of one `x` header, for the next file only.

use super::entry::refuse;
use crate::error::Result;
use std::collections::BTreeMap;

/// What the records said; each overrides the header.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pax {
    pub path: Option<Vec<u8>>,
    pub linkpath: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<(i64, u32)>,
    /// The last of a repeated one counts; an archive may repeat a million.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub sparse: SparseHead,
}

/// GNU's three ways to write a sparse file in a PAX archive.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SparseHead {
    /// 1.0: the map stands in front of the data.
    pub map_in_data: bool,
    /// 0.0 and 0.1: offset, length and so on.
    pub numbers: Vec<u64>,
    pub name: Option<Vec<u8>>,
    pub size: Option<u64>,
}

impl Pax {
    /// Adds the records of a header; the last of a repeated one counts.
    pub fn add(&mut self, data: &[u8]) -> Result<()> {
        let mut rest = data;
        // Some writers pad the records with NUL.
        while rest.first().is_some_and(|b| *b != 0) {
            let (key, value, next) =
                record(rest).ok_or_else(|| refuse(b"", "has a malformed extended header"))?;
            self.set(key, value)?;
            rest = next;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let wrong =
            || refuse(b"", format!("has an extended header with a wrong {}", super::entry::shown(key)));
        let number = || decimal(value).ok_or_else(wrong);
        match key {
            // An empty value takes back what was said before (pax(1)).
            b"path" => self.path = Some(value.to_vec()).filter(|v| !v.is_empty()),
            b"linkpath" => self.linkpath = Some(value.to_vec()).filter(|v| !v.is_empty()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(wrong)?),
            b"GNU.sparse.major" => self.sparse.map_in_data = value == b"1",
            b"GNU.sparse.name" => self.sparse.name = Some(value.to_vec()),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.size = Some(number()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.numbers.push(number()?),
            b"GNU.sparse.map" => {
                let list: Option<Vec<u64>> = value.split(|b| *b == b',').map(decimal).collect();
                self.sparse.numbers = list.ok_or_else(wrong)?;
            }
            _ => {
                let Some(name) = key.strip_prefix(b"SCHILY.xattr.") else { return Ok(()) };
                self.xattrs.insert(name.to_vec(), value.to_vec());
            }
        }
        Ok(())
    }
}

/// `LENGTH KEY=VALUE\n`; the length is that of the whole record. Values may have any byte.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&data[..space])?).ok()?;
    let body = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &data[length..]))
}

/// Digits only.
pub fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// `[-]SECONDS[.FRACTION]`; a time before the epoch has its fraction counted towards it.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |t| (true, t));
    let mut parts = text.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nanos = (0..9).fold(0, |n, i| n * 10 + fraction.get(i).map_or(0, |b| u32::from(b - b'0')));
    Some(match (negative, nanos) {
        (false, n) => (seconds, n),
        (true, 0) => (-seconds, 0),
        (true, n) => (-seconds - 1, 1_000_000_000 - n),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with its length in front.
    fn rec(key: &str, value: &[u8]) -> Vec<u8> {
        let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
        let mut n = body.len() + 1;
        while n != body.len() + n.to_string().len() {
            n = body.len() + n.to_string().len();
        }
        [n.to_string().as_bytes(), &body].concat()
    }

    #[test]
    fn records_may_hold_any_byte() {
        let mut p = Pax::default();
        let data = [
            rec("path", b"a/b"),
            rec("SCHILY.xattr.security.capability", b"\x01\n\0=\n"),
            rec("size", b"8589934592"),
            rec("mtime", b"-1.25"),
            rec("comment", b"x"),
        ]
        .concat();
        p.add(&data).unwrap();
        assert_eq!(p.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(p.xattrs, [(b"security.capability".to_vec(), b"\x01\n\0=\n".to_vec())].into());
        assert_eq!((p.size, p.mtime), (Some(8_589_934_592), Some((-2, 750_000_000))));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"5 a=b"[..],
            b"99 a=b\n",
            b"x a=b\n",
            b"6 abc\n",
            b"3 \n",
            b"0 a=b\n",
            b"-6 a=b\n",
            b"11 size=x\n\n",
            b"99999999999999999999 a=b\n",
        ] {
            assert!(Pax::default().add(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
        let mut p = Pax::default();
        p.add(&[rec("path", b"a"), rec("path", b"")].concat()).unwrap();
        assert_eq!(p.path, None);
        assert!(Pax::default().add(&rec("size", b"-1")).is_err());
        assert!(Pax::default().add(&rec("mtime", b"1.x")).is_err());
    }
}
