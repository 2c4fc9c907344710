//! Messages of D-Bus as bytes (dbus-specification, "Marshaling"), in little-endian order.

use crate::plan::cgroup::systemd::value::{Value, split_type};

/// The types of systemd's signal JobRemoved: number, path, unit, result (org.freedesktop.systemd1(5)).
const JOB_REMOVED: &str = "uoss";
/// The specification's limit.
const MOST: usize = 1 << 27;
/// The part of the head whose length is always the same.
pub const FIXED: usize = 16;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Call = 1,
    Return,
    Error,
    Signal,
}

/// A message; empty are the names that it has not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub kind: Kind,
    pub serial: u32,
    /// Serial of the call that it answers; 0 for none.
    pub reply_serial: u32,
    pub path: String,
    pub interface: String,
    /// Of the method or the signal; the name of an error.
    pub member: String,
    /// The bus' word, not the sender's.
    pub sender: String,
    pub destination: String,
    pub body: Vec<Value>,
}

// Numbers of the head's fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SENDER: u8 = 7;
const SIGNATURE: u8 = 8;

impl Message {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        self.body.iter().for_each(|v| put(&mut body, v));
        let signature: String = self.body.iter().map(Value::signature).collect();
        let text = |s: &String| Value::Str(s.clone());
        let fields = [
            (PATH, Value::Path(self.path.clone()), self.path.is_empty()),
            (INTERFACE, text(&self.interface), self.interface.is_empty()),
            (
                if self.kind == Kind::Error { ERROR_NAME } else { MEMBER },
                text(&self.member),
                self.member.is_empty(),
            ),
            (REPLY_SERIAL, Value::U32(self.reply_serial), self.reply_serial == 0),
            (DESTINATION, text(&self.destination), self.destination.is_empty()),
            (SENDER, text(&self.sender), self.sender.is_empty()),
            (SIGNATURE, Value::Signature(signature), self.body.is_empty()),
        ];
        let field = |(n, v, _)| Value::Struct(vec![Value::Byte(n), Value::Variant(Box::new(v))]);
        let fields = fields.into_iter().filter(|f| !f.2).map(field).collect();
        let mut out = vec![b'l', self.kind as u8, 0, 1];
        out.extend((body.len() as u32).to_le_bytes());
        out.extend(self.serial.to_le_bytes());
        put(&mut out, &Value::Array("(yv)".into(), fields));
        pad(&mut out, 8);
        out.extend(body);
        out
    }

    /// The length of the whole message, by its first [`FIXED`] bytes; `None` of what is none, or too long.
    pub fn length(head: &[u8]) -> Option<usize> {
        let big = *head.first()? == b'B';
        let word = |at: usize| {
            let bytes = head.get(at..at + 4)?.try_into().ok()?;
            Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) } as usize)
        };
        let (body, fields) = (word(4)?, word(12)?);
        let length = (FIXED + fields).next_multiple_of(8) + body;
        (matches!(head[0], b'l' | b'B') && length <= MOST).then_some(length)
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Message> {
        let mut r = Reader { bytes, at: 0, big: *bytes.first()? == b'B', depth: 0 };
        let kind = match bytes.get(1)? {
            1 => Kind::Call,
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => return None,
        };
        r.at = 8;
        let mut m = Message { kind, serial: r.u32()?, ..Message::default() };
        let Value::Array(_, fields) = r.value("a(yv)")? else { return None };
        let mut signature = String::new();
        for field in fields {
            let Value::Struct(parts) = field else { return None };
            let [Value::Byte(number), Value::Variant(value)] = &parts[..] else { return None };
            match (*number, &**value) {
                (PATH, Value::Path(s)) => m.path.clone_from(s),
                (INTERFACE, Value::Str(s)) => m.interface.clone_from(s),
                (MEMBER | ERROR_NAME, Value::Str(s)) => m.member.clone_from(s),
                (REPLY_SERIAL, Value::U32(n)) => m.reply_serial = *n,
                (DESTINATION, Value::Str(s)) => m.destination.clone_from(s),
                (SENDER, Value::Str(s)) => m.sender.clone_from(s),
                (SIGNATURE, Value::Signature(s)) => signature.clone_from(s),
                _ => {}
            }
        }
        r.align(8)?;
        // Every user may send signals of whatever types and sizes: only those of the one that is waited for are read.
        if kind != Kind::Signal || signature == JOB_REMOVED {
            m.body = r.sequence(&signature)?;
        }
        Some(m)
    }
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

/// What a type's values begin at a multiple of.
fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    let text = |out: &mut Vec<u8>, s: &str| {
        out.extend((s.len() as u32).to_le_bytes());
        out.extend(s.as_bytes());
        out.push(0);
    };
    let signature = |out: &mut Vec<u8>, s: &str| {
        out.push(s.len() as u8);
        out.extend(s.as_bytes());
        out.push(0);
    };
    pad(out, alignment(&value.signature()));
    match value {
        Value::Byte(n) => out.push(*n),
        Value::Bool(b) => out.extend(u32::from(*b).to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::Double(n) => out.extend(n.to_le_bytes()),
        Value::Str(s) | Value::Path(s) => text(out, s),
        Value::Signature(s) => signature(out, s),
        Value::Variant(inner) => {
            signature(out, &inner.signature());
            put(out, inner);
        }
        Value::Struct(fields) => fields.iter().for_each(|f| put(out, f)),
        Value::Array(element, list) => {
            let length = out.len();
            out.extend([0; 4]);
            pad(out, alignment(element)); // which does not count
            let start = out.len();
            list.iter().for_each(|v| put(out, v));
            let bytes = (out.len() - start) as u32;
            out[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
    /// Variants in each other: the sender's word alone says how deep.
    depth: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.next_multiple_of(to);
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, n: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.align(N)?;
        let big = self.big;
        let mut bytes: [u8; N] = self.take(N)?.try_into().ok()?;
        if big {
            bytes.reverse();
        }
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.number().map(u32::from_le_bytes)
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.take(1)? == [0]).then_some(text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = *self.take(1)?.first()?;
        self.text(length.into())
    }

    fn sequence(&mut self, mut signature: &str) -> Option<Vec<Value>> {
        let mut list = Vec::new();
        while !signature.is_empty() {
            let (first, rest) = split_type(signature)?;
            list.push(self.value(first)?);
            signature = rest;
        }
        Some(list)
    }

    fn value(&mut self, signature: &str) -> Option<Value> {
        Some(match signature.as_bytes().first()? {
            b'y' => Value::Byte(*self.take(1)?.first()?),
            b'b' => Value::Bool(self.u32()? != 0),
            b'n' => Value::I16(self.number().map(i16::from_le_bytes)?),
            b'q' => Value::U16(self.number().map(u16::from_le_bytes)?),
            b'i' => Value::I32(self.number().map(i32::from_le_bytes)?),
            b'u' => Value::U32(self.u32()?),
            b'x' => Value::I64(self.number().map(i64::from_le_bytes)?),
            b't' => Value::U64(self.number().map(u64::from_le_bytes)?),
            b'd' => Value::Double(self.number().map(f64::from_le_bytes)?),
            b's' | b'o' => {
                let length = self.u32()? as usize;
                let text = self.text(length)?;
                if signature == "s" { Value::Str(text) } else { Value::Path(text) }
            }
            b'g' => Value::Signature(self.signature()?),
            b'v' => {
                let inner = self.signature()?;
                let (first, rest) = split_type(&inner)?;
                self.depth += 1;
                if !rest.is_empty() || self.depth > 32 {
                    return None;
                }
                let value = self.value(first)?;
                self.depth -= 1;
                Value::Variant(Box::new(value))
            }
            b'(' | b'{' => {
                self.align(8)?;
                Value::Struct(self.sequence(&signature[1..signature.len() - 1])?)
            }
            b'a' => {
                let element = &signature[1..];
                let length = self.u32()? as usize;
                self.align(alignment(element))?;
                let end = self.at.checked_add(length).filter(|e| *e <= self.bytes.len())?;
                let mut list = Vec::new();
                while self.at < end {
                    list.push(self.value(element)?);
                }
                Value::Array(element.into(), list)
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: Vec<Value>) -> Message {
        Message {
            serial: 7,
            path: "/org/freedesktop/systemd1".into(),
            interface: "org.freedesktop.systemd1.Manager".into(),
            member: "StartTransientUnit".into(),
            sender: String::new(),
            destination: "org.freedesktop.systemd1".into(),
            body,
            ..Message::default()
        }
    }

    fn everything() -> Vec<Value> {
        let s = |s: &str| Value::Str(s.into());
        vec![
            Value::Byte(1),
            Value::Bool(true),
            Value::I16(-2),
            Value::U16(3),
            Value::I32(-4),
            Value::U32(5),
            Value::I64(-6),
            Value::U64(u64::MAX),
            Value::Double(1.5),
            s("ä"),
            Value::Path("/a/b".into()),
            Value::Signature("a(sv)".into()),
            Value::Array("t".into(), vec![]),
            Value::Array("y".into(), vec![Value::Byte(1), Value::Byte(2)]),
            Value::Array(
                "(sv)".into(),
                vec![Value::Struct(vec![s("PIDs"), Value::Variant(Box::new(Value::strings(&["x"])))])],
            ),
        ]
    }

    #[test]
    fn a_message_survives_the_wire() {
        for message in [
            message(everything()),
            message(vec![]),
            Message { kind: Kind::Error, reply_serial: 3, ..message(vec![]) },
        ] {
            let bytes = message.to_bytes();
            assert_eq!(Message::length(&bytes), Some(bytes.len()));
            assert_eq!(Message::from_bytes(&bytes), Some(message));
        }
    }

    /// As dbus-send writes it (its serial is 2), but for the order of the head's fields.
    #[test]
    fn bytes_are_those_of_the_specification() {
        let hello = Message {
            path: "/a".into(),
            interface: String::new(),
            member: "M".into(),
            ..message(vec![Value::U32(9)])
        };
        let hello = Message { destination: "d".into(), ..hello };
        let head = b"l\x01\0\x01\x04\0\0\0\x07\0\0\0\x37\0\0\0";
        let fields = b"\x01\x01o\0\x02\0\0\0/a\0\0\0\0\0\0\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0\x06\x01s\0\x01\0\0\0d\0\0\0\0\0\0\0\x08\x01g\0\x01u\0\0";
        let bytes = [&head[..], &fields[..], &b"\x09\0\0\0"[..]].concat();
        assert_eq!(hello.to_bytes(), bytes);
    }

    /// PropertiesChanged, of which there are many where nobody filters: `sa{sv}as`.
    #[test]
    fn signals_of_other_types_are_passed_over() {
        let entry = Value::Struct(vec![Value::Str("a".into()), Value::Variant(Box::new(Value::Bool(true)))]);
        let list = Value::Array("(sv)".into(), vec![entry]);
        let body = vec![Value::Str("x".into()), list];
        let with = |kind, new: &[u8]| {
            let mut bytes = Message { kind, ..message(body.clone()) }.to_bytes();
            let at = bytes.windows(6).position(|w| w == b"sa(sv)").unwrap();
            bytes[at + 2..at + 6].copy_from_slice(new);
            Message::from_bytes(&bytes)
        };
        for signature in [b"{sv}", b"(hv)"] {
            assert_eq!(with(Kind::Signal, signature).unwrap().body, []);
        }
        let dictionary = with(Kind::Return, b"{sv}").unwrap().body;
        assert!(matches!(&dictionary[1], Value::Array(kind, list) if kind == "{sv}" && list.len() == 1));
        assert_eq!(with(Kind::Return, b"(hv)"), None);
        let of_a_job =
            vec![Value::U32(1), Value::Path("/".into()), Value::Str("u".into()), Value::Str("r".into())];
        let signal = Message { kind: Kind::Signal, ..message(of_a_job.clone()) };
        assert_eq!(Message::from_bytes(&signal.to_bytes()).unwrap().body, of_a_job);
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let bytes = message(everything()).to_bytes();
        for end in 0..bytes.len() {
            assert_eq!(Message::from_bytes(&bytes[..end]), None, "{end}");
        }
        // Whatever a byte becomes, it is read or refused.
        for n in 0..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[n] ^= flip;
                let _ = (Message::length(&bytes), Message::from_bytes(&bytes));
            }
        }
        assert_eq!(Message::length(&[b'l', 1, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Message::length(b"HTTP/1.1 400 Bad"), None);
    }
}
