//! Values of D-Bus (dbus-specification, "Type system"), and how annotations write them: GVariant's text format.

use std::fmt;

/// One value of D-Bus.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Str(String),
    /// Path of an object.
    Path(String),
    Signature(String),
    /// With the signature of an element, which an empty one has too.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    /// A list of strings.
    pub fn strings(list: &[&str]) -> Value {
        Value::Array("s".into(), list.iter().map(|s| Value::Str(s.to_string())).collect())
    }

    /// The text of a string; `None` of anything else.
    pub fn into_text(self) -> Option<String> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Its type, in D-Bus' letters.
    pub fn signature(&self) -> String {
        let letter = match self {
            Value::Byte(_) => "y",
            Value::Bool(_) => "b",
            Value::I16(_) => "n",
            Value::U16(_) => "q",
            Value::I32(_) => "i",
            Value::U32(_) => "u",
            Value::I64(_) => "x",
            Value::U64(_) => "t",
            Value::Double(_) => "d",
            Value::Str(_) => "s",
            Value::Path(_) => "o",
            Value::Signature(_) => "g",
            Value::Variant(_) => "v",
            Value::Array(element, _) => return format!("a{element}"),
            Value::Struct(fields) => {
                return format!("({})", fields.iter().map(Value::signature).collect::<String>());
            }
        };
        letter.into()
    }

    /// Seconds to microseconds; `None` of what is no number, or of too many.
    pub fn seconds_to_microseconds(&self) -> Option<Value> {
        const FACTOR: u64 = 1_000_000;
        let whole = |n: i64| u64::try_from(n).ok();
        let seconds = match *self {
            Value::Byte(n) => n.into(),
            Value::I16(n) => whole(n.into())?,
            Value::U16(n) => n.into(),
            Value::I32(n) => whole(n.into())?,
            Value::U32(n) => n.into(),
            Value::I64(n) => whole(n)?,
            Value::U64(n) => n,
            // Above 2^53 nothing is exact, and that is 285 years.
            Value::Double(n) if (0.0..9.0e9).contains(&n) => {
                return Some(Value::U64((n * FACTOR as f64) as u64));
            }
            _ => return None,
        };
        seconds.checked_mul(FACTOR).map(Value::U64)
    }
}

/// GVariant's text format, which [`parse`] reads.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote =
            |s: &str| format!("'{}'", s.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n"));
        match self {
            Value::Bool(b) => write!(f, "{b}"),
            Value::I32(n) => write!(f, "{n}"),
            Value::Str(s) => f.write_str(&quote(s)),
            Value::Byte(n) => write!(f, "byte {n}"),
            Value::I16(n) => write!(f, "int16 {n}"),
            Value::U16(n) => write!(f, "uint16 {n}"),
            Value::U32(n) => write!(f, "uint32 {n}"),
            Value::I64(n) => write!(f, "int64 {n}"),
            Value::U64(n) => write!(f, "uint64 {n}"),
            Value::Double(n) => write!(f, "double {n}"),
            Value::Path(s) => write!(f, "objectpath {}", quote(s)),
            Value::Signature(s) => write!(f, "signature {}", quote(s)),
            Value::Variant(v) => write!(f, "<{v}>"),
            Value::Array(element, list) if list.is_empty() => write!(f, "@a{element} []"),
            Value::Array(_, list) => write!(f, "[{}]", joined(list)),
            Value::Struct(fields) if fields.len() == 1 => write!(f, "({},)", fields[0]),
            Value::Struct(fields) => write!(f, "({})", joined(fields)),
        }
    }
}

fn joined(list: &[Value]) -> String {
    list.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")
}

/// The first complete type of a signature, and what follows. An entry of a dictionary, `{sv}`, is as a structure.
pub fn split_type(signature: &str) -> Option<(&str, &str)> {
    Some(signature.split_at(type_length(signature.as_bytes(), DEPTH)?))
}

fn type_length(signature: &[u8], depth: usize) -> Option<usize> {
    let depth = depth.checked_sub(1)?;
    match signature.first()? {
        b'a' => Some(1 + type_length(&signature[1..], depth)?),
        open @ (b'(' | b'{') => {
            let end = if *open == b'(' { b')' } else { b'}' };
            let mut at = 1;
            while *signature.get(at)? != end {
                at += type_length(&signature[at..], depth)?;
            }
            (at > 1).then_some(at + 1)
        }
        c => b"ybnqiuxtdsogv".contains(c).then_some(1),
    }
}

/// What is wrong with a text, and where.
#[derive(Debug, PartialEq)]
pub struct Wrong {
    at: usize,
    expected: &'static str,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} at byte {}", self.expected, self.at)
    }
}

/// Reads GVariant's text format: numbers, booleans, strings, byte strings, arrays, tuples, variants, and the words and
/// the `@` that say a type. Dictionaries are no property's.
pub fn parse(text: &str) -> Result<Value, Wrong> {
    let mut reader = Reader { text, at: 0 };
    let node = reader.node(0)?;
    reader.space();
    match reader.rest().is_empty() {
        true => reader.resolve(&node, None),
        false => reader.wrong("the end"),
    }
}

/// A value whose type may depend on its neighbours.
struct Node {
    at: usize,
    what: What,
}

enum What {
    /// Not more than a word: a number or a boolean.
    Word(String),
    Str(String),
    Bytes(Vec<u8>),
    Array(Vec<Node>),
    Tuple(Vec<Node>),
    Variant(Box<Node>),
    Typed(String, Box<Node>),
}

const WORDS: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];
/// D-Bus allows 32 arrays and 32 structures in each other.
const DEPTH: usize = 32;

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong<T>(&self, expected: &'static str) -> Result<T, Wrong> {
        Err(Wrong { at: self.at, expected })
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, c: char) -> bool {
        self.space();
        let there = self.rest().starts_with(c);
        if there {
            self.at += c.len_utf8();
        }
        there
    }

    fn node(&mut self, depth: usize) -> Result<Node, Wrong> {
        self.space();
        if depth > DEPTH {
            return self.wrong("less nesting");
        }
        let at = self.at;
        let what = match self.rest().chars().next() {
            Some('\'' | '"') => What::Str(self.string()?),
            Some('[') => What::Array(self.list(']', depth)?),
            Some('(') => What::Tuple(self.list(')', depth)?),
            Some('<') => {
                self.at += 1;
                let inner = self.node(depth + 1)?;
                if !self.take('>') {
                    return self.wrong("'>'");
                }
                What::Variant(Box::new(inner))
            }
            Some('@') => {
                self.at += 1;
                let Some((kind, _)) = split_type(self.rest()) else { return self.wrong("a type") };
                self.at += kind.len();
                What::Typed(kind.to_string(), Box::new(self.node(depth + 1)?))
            }
            Some('b') if self.rest()[1..].starts_with(['\'', '"']) => {
                self.at += 1;
                let mut bytes = self.string()?.into_bytes();
                bytes.push(0);
                What::Bytes(bytes)
            }
            _ => {
                let rest = self.rest();
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c));
                let word = &rest[..end.unwrap_or(rest.len())];
                self.at += word.len();
                match WORDS.iter().find(|w| w.0 == word) {
                    Some((_, kind)) => What::Typed(kind.to_string(), Box::new(self.node(depth + 1)?)),
                    None if word.is_empty() => return self.wrong("a value"),
                    None => What::Word(word.into()),
                }
            }
        };
        Ok(Node { at, what })
    }

    fn list(&mut self, end: char, depth: usize) -> Result<Vec<Node>, Wrong> {
        self.at += 1;
        let mut list = Vec::new();
        loop {
            if self.take(end) {
                return Ok(list);
            }
            if !list.is_empty() && !self.take(',') {
                return self.wrong("',' or the end of the list");
            }
            if end == ')' && self.take(end) {
                return Ok(list); // a tuple of one has a comma
            }
            list.push(self.node(depth + 1)?);
        }
    }

    fn string(&mut self) -> Result<String, Wrong> {
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map(|c| c.1);
        let mut out = String::new();
        while let Some((n, c)) = chars.next() {
            match c {
                _ if Some(c) == quote => {
                    self.at += n + 1;
                    return Ok(out);
                }
                '\\' => match chars.next().map(|c| c.1) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some(kind @ ('u' | 'U')) => {
                        let digits = if kind == 'u' { 4 } else { 8 };
                        let hex: String = chars.by_ref().take(digits).map(|c| c.1).collect();
                        let code = u32::from_str_radix(&hex, 16).ok().filter(|_| hex.len() == digits);
                        match code.and_then(char::from_u32) {
                            Some(c) => out.push(c),
                            None => return self.wrong("a code point in the string"),
                        }
                    }
                    Some(c) => out.push(c),
                    None => break,
                },
                '\0' => break, // D-Bus has none in strings
                _ => out.push(c),
            }
        }
        self.wrong("the end of the string")
    }

    fn resolve(&self, node: &Node, kind: Option<&str>) -> Result<Value, Wrong> {
        let wrong = |expected| Err(Wrong { at: node.at, expected });
        match (&node.what, kind) {
            (What::Typed(own, _), Some(kind)) if own != kind => wrong("the type of the list"),
            (What::Typed(own, inner), _) => self.resolve(inner, Some(own)),
            (What::Variant(inner), None | Some("v")) => {
                Ok(Value::Variant(Box::new(self.resolve(inner, None)?)))
            }
            (What::Str(s), None | Some("s")) => Ok(Value::Str(s.clone())),
            (What::Str(s), Some("o")) => Ok(Value::Path(s.clone())),
            (What::Str(s), Some("g")) => Ok(Value::Signature(s.clone())),
            (What::Bytes(bytes), None | Some("ay")) => {
                Ok(Value::Array("y".into(), bytes.iter().map(|b| Value::Byte(*b)).collect()))
            }
            (What::Word(word), kind) => match scalar(word, kind) {
                Some(value) => Ok(value),
                None => wrong("a value of the type"),
            },
            (What::Array(list), kind) => {
                let element = match kind {
                    Some(kind) => kind.strip_prefix('a').map(String::from),
                    // The first that says its type says it for all.
                    None => {
                        let said = list.iter().find(|n| !matches!(n.what, What::Word(_))).or(list.first());
                        said.map(|n| self.resolve(n, None)).transpose()?.map(|v| v.signature())
                    }
                };
                let Some(element) = element else { return wrong("a type, as in @as []") };
                let list: Result<_, _> = list.iter().map(|n| self.resolve(n, Some(&element))).collect();
                Ok(Value::Array(element, list?))
            }
            (What::Tuple(list), None) => {
                let list: Result<_, _> = list.iter().map(|n| self.resolve(n, None)).collect();
                Ok(Value::Struct(list?))
            }
            (What::Tuple(list), Some(kind)) => {
                let mut kinds = kind.strip_prefix('(').and_then(|k| k.strip_suffix(')')).unwrap_or_default();
                let mut fields = Vec::new();
                for n in list {
                    let Some((first, rest)) = split_type(kinds) else { return wrong("fewer fields") };
                    fields.push(self.resolve(n, Some(first))?);
                    kinds = rest;
                }
                if fields.is_empty() || !kinds.is_empty() {
                    wrong("more fields")
                } else {
                    Ok(Value::Struct(fields))
                }
            }
            _ => wrong("a value of the type"),
        }
    }
}

/// Without a type a number is an `int32`, with a point a `double`, as GVariant has it.
fn scalar(word: &str, kind: Option<&str>) -> Option<Value> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1i128, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let number = match (digits.strip_prefix("0x"), digits.strip_prefix('0').filter(|d| !d.is_empty())) {
        (Some(hex), _) => u64::from_str_radix(hex, 16).ok(),
        (None, Some(octal)) => u64::from_str_radix(octal, 8).ok(),
        _ => digits.parse::<u64>().ok(),
    };
    let number =
        number.filter(|_| digits.starts_with(|c: char| c.is_ascii_digit())).map(|n| sign * i128::from(n));
    Some(
        match kind.unwrap_or(match (word, number) {
            ("true" | "false", _) => "b",
            (_, Some(_)) => "i",
            _ => "d",
        }) {
            "b" => Value::Bool(word.parse().ok()?),
            "y" => Value::Byte(number?.try_into().ok()?),
            "n" => Value::I16(number?.try_into().ok()?),
            "q" => Value::U16(number?.try_into().ok()?),
            "i" => Value::I32(number?.try_into().ok()?),
            "u" => Value::U32(number?.try_into().ok()?),
            "x" => Value::I64(number?.try_into().ok()?),
            "t" => Value::U64(number?.try_into().ok()?),
            "d" if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
                Value::Double(word.parse().ok()?)
            }
            _ => return None,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_values_of_the_type_that_it_says() {
        let s = |s: &str| Value::Str(s.into());
        for (text, signature, value) in [
            ("'inactive-or-failed'", "s", s("inactive-or-failed")),
            (r#" "it's" "#, "s", s("it's")),
            (r"'a\'b\\\u00e4\n'", "s", s("a'b\\ä\n")),
            ("true", "b", Value::Bool(true)),
            ("boolean false", "b", Value::Bool(false)),
            ("5", "i", Value::I32(5)),
            ("-0x10", "i", Value::I32(-16)),
            ("010", "i", Value::I32(8)),
            ("0", "i", Value::I32(0)),
            ("1.5", "d", Value::Double(1.5)),
            ("double 3", "d", Value::Double(3.0)),
            ("uint64 18446744073709551615", "t", Value::U64(u64::MAX)),
            ("@t 7", "t", Value::U64(7)),
            ("byte 255", "y", Value::Byte(255)),
            ("['a', 'b']", "as", Value::strings(&["a", "b"])),
            ("@as []", "as", Value::strings(&[])),
            ("[1, uint32 2]", "au", Value::Array("u".into(), vec![Value::U32(1), Value::U32(2)])),
            ("b'a'", "ay", Value::Array("y".into(), vec![Value::Byte(97), Value::Byte(0)])),
            (
                "[('/dev/null', 'rw')]",
                "a(ss)",
                Value::Array("(ss)".into(), vec![Value::Struct(vec![s("/dev/null"), s("rw")])]),
            ),
            ("(1,)", "(i)", Value::Struct(vec![Value::I32(1)])),
            ("@(ts) (1, 'x')", "(ts)", Value::Struct(vec![Value::U64(1), s("x")])),
            ("<'x'>", "v", Value::Variant(Box::new(s("x")))),
        ] {
            let v = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((v.signature().as_str(), &v), (signature, &value), "{text}");
            assert_eq!(parse(&v.to_string()), Ok(value), "{v}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_its_place() {
        for (text, message) in [
            ("", "expected a value at byte 0"),
            ("'abc", "expected the end of the string at byte 0"),
            ("'a' 'b'", "expected the end at byte 4"),
            ("abc", "expected a value of the type at byte 0"),
            ("inf", "expected a value of the type at byte 0"),
            ("uint64 -1", "expected a value of the type at byte 7"),
            ("byte 256", "expected a value of the type at byte 5"),
            ("3000000000", "expected a value of the type at byte 0"),
            ("[1, 'a'", "expected ',' or the end of the list at byte 7"),
            ("['a', 1]", "expected a value of the type at byte 6"),
            ("[uint32 1, uint64 2]", "expected the type of the list at byte 11"),
            ("[]", "expected a type, as in @as [] at byte 0"),
            ("@z 1", "expected a type at byte 1"),
            ("@(ts) (1,)", "expected more fields at byte 6"),
            ("@(t) (1, 2)", "expected fewer fields at byte 5"),
            ("{'a': 1}", "expected a value at byte 0"),
            (r"'\u12'", "expected a code point in the string at byte 0"),
        ] {
            assert_eq!(parse(text).map_err(|e| e.to_string()), Err(message.to_string()), "{text}");
        }
        assert_eq!(parse(&"[".repeat(100_000)).unwrap_err().expected, "less nesting");
    }

    #[test]
    fn seconds_become_microseconds() {
        for (value, out) in [
            (Value::I32(5), Some(5_000_000)),
            (Value::Byte(1), Some(1_000_000)),
            (Value::Double(1.5), Some(1_500_000)),
            (Value::U64(3), Some(3_000_000)),
            (Value::I64(-1), None),
            (Value::Double(-0.5), None),
            (Value::U64(u64::MAX), None),
            (Value::Bool(true), None),
            (Value::Str("5".into()), None),
        ] {
            assert_eq!(value.seconds_to_microseconds(), out.map(Value::U64), "{value:?}");
        }
    }

    #[test]
    fn signatures_split_at_complete_types() {
        for (signature, first) in
            [("s", "s"), ("asu", "as"), ("(sv)t", "(sv)"), ("aa(sa(sv))b", "aa(sa(sv))")]
        {
            assert_eq!(split_type(signature), Some(signature.split_at(first.len())));
        }
        for signature in ["", "a", "(s", "z", "()", &"a".repeat(100_000)] {
            assert_eq!(split_type(signature), None, "{signature}");
        }
    }
}
