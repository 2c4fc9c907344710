//! Protocol buffers as JSON, by a schema in their own language: what a client of the CRI needs, without a compiler for it.

use serde_json::{Map, Value, json};
use std::collections::HashMap;

pub struct Schema {
    messages: HashMap<&'static str, Vec<Field>>,
    enums: HashMap<&'static str, Vec<(&'static str, u64)>>,
}

struct Field {
    name: &'static str,
    number: u64,
    kind: &'static str,
    label: Label,
}

#[derive(PartialEq)]
enum Label {
    One,
    Repeated,
    /// From strings to strings, which is a repeated message of key (1) and value (2).
    Map,
}

const VARINT: u64 = 0;
const BYTES: u64 = 2;

impl Schema {
    /// Of messages and enums without options, nesting and imports.
    pub fn parse(text: &'static str) -> Self {
        let mut schema = Schema { messages: HashMap::new(), enums: HashMap::new() };
        for block in text.split('}') {
            let Some((head, body)) = block.split_once('{') else { continue };
            let head = head
                .lines()
                .filter(|l| !l.starts_with("//"))
                .flat_map(str::split_whitespace)
                .collect::<Vec<_>>();
            let entries = body.split(';').map(str::trim).filter(|e| !e.is_empty());
            match head[..] {
                ["message", name] => _ = schema.messages.insert(name, entries.map(Field::parse).collect()),
                ["enum", name] => _ = schema.enums.insert(name, entries.map(assignment).collect()),
                _ => panic!("the schema has {head:?}"),
            }
        }
        schema
    }

    pub fn encode(&self, message: &str, value: &Value) -> Vec<u8> {
        let fields = self.messages.get(message).unwrap_or_else(|| panic!("no message {message}"));
        let mut out = Vec::new();
        for (name, value) in value.as_object().unwrap_or_else(|| panic!("{message} is no object: {value}")) {
            let field =
                fields.iter().find(|f| f.name == name).unwrap_or_else(|| panic!("{message} has no {name}"));
            match (&field.label, value) {
                (Label::Repeated, Value::Array(all)) => all.iter().for_each(|v| self.put(field, v, &mut out)),
                (Label::Map, Value::Object(all)) => {
                    for (key, value) in all {
                        let mut entry = Vec::new();
                        put_bytes(1, key.as_bytes(), &mut entry);
                        put_bytes(2, value.as_str().expect("maps are of strings").as_bytes(), &mut entry);
                        put_bytes(field.number, &entry, &mut out);
                    }
                }
                (Label::One, value) => self.put(field, value, &mut out),
                _ => panic!("{message}.{name} cannot be {value}"),
            }
        }
        out
    }

    fn put(&self, field: &Field, value: &Value, out: &mut Vec<u8>) {
        if self.messages.contains_key(field.kind) {
            return put_bytes(field.number, &self.encode(field.kind, value), out);
        }
        let number = match value {
            Value::String(name) => match self.enums.get(field.kind) {
                Some(of) => {
                    of.iter()
                        .find(|v| v.0 == name)
                        .unwrap_or_else(|| panic!("{} has no {name}", field.kind))
                        .1
                }
                None => return put_bytes(field.number, name.as_bytes(), out),
            },
            Value::Bool(yes) => u64::from(*yes),
            // Negative ones take their two's complement, ten bytes long.
            number => number.as_i64().unwrap_or_else(|| panic!("{} cannot be {number}", field.name)) as u64,
        };
        put_varint(field.number << 3 | VARINT, out);
        put_varint(number, out);
    }

    /// With its default for each field that is not there, but of messages; bytes as text.
    pub fn decode(&self, message: &str, mut bytes: &[u8]) -> Value {
        let fields = self.messages.get(message).unwrap_or_else(|| panic!("no message {message}"));
        let mut object: Map<_, _> = fields.iter().map(|f| (f.name.to_string(), self.default(f))).collect();
        while !bytes.is_empty() {
            let tag = take_varint(&mut bytes);
            let (number, content) = match tag & 7 {
                VARINT => (take_varint(&mut bytes), &[][..]),
                BYTES => (0, take_bytes(&mut bytes)),
                other => panic!("{message} has a field of wire type {other}"),
            };
            let Some(field) = fields.iter().find(|f| f.number == tag >> 3) else { continue };
            let slot = &mut object[field.name];
            match (&field.label, slot) {
                (Label::One, slot) => *slot = self.value(field, number, content),
                (Label::Repeated, Value::Array(all)) => all.push(self.value(field, number, content)),
                (Label::Map, Value::Object(all)) => {
                    let (key, value) = entry(content);
                    all.insert(key, value.into());
                }
                _ => unreachable!("defaults are of the field's label"),
            }
        }
        Value::Object(object)
    }

    fn default(&self, field: &Field) -> Value {
        match field.label {
            Label::Repeated => json!([]),
            Label::Map => json!({}),
            Label::One if self.messages.contains_key(field.kind) => Value::Null,
            Label::One => self.value(field, 0, b""),
        }
    }

    fn value(&self, field: &Field, number: u64, content: &[u8]) -> Value {
        match field.kind {
            "string" | "bytes" => String::from_utf8_lossy(content).into(),
            "bool" => (number != 0).into(),
            kind if self.messages.contains_key(kind) => self.decode(kind, content),
            kind => match self.enums.get(kind) {
                Some(of) => of.iter().find(|v| v.1 == number).map_or(json!(number), |v| v.0.into()),
                None => json!(number as i64),
            },
        }
    }
}

impl Field {
    fn parse(entry: &'static str) -> Self {
        let (of, number) = assignment(entry);
        let (kind, name) = of.rsplit_once(' ').expect("a field has type and name");
        let (label, kind) = match kind.strip_prefix("repeated ") {
            Some(kind) => (Label::Repeated, kind),
            None if kind.starts_with("map<") => (Label::Map, kind),
            None => (Label::One, kind),
        };
        Field { name, number, kind, label }
    }
}

fn assignment(entry: &'static str) -> (&'static str, u64) {
    let (name, number) = entry.split_once('=').unwrap_or_else(|| panic!("the schema has {entry:?}"));
    (name.trim(), number.trim().parse().expect("numbers are numbers"))
}

/// Key and value of a map's entry.
fn entry(mut bytes: &[u8]) -> (String, String) {
    let mut entry = [String::new(), String::new()];
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes);
        entry[(tag >> 3) as usize - 1] = String::from_utf8_lossy(take_bytes(&mut bytes)).into();
    }
    entry.into()
}

fn put_bytes(number: u64, content: &[u8], out: &mut Vec<u8>) {
    put_varint(number << 3 | BYTES, out);
    put_varint(content.len() as u64, out);
    out.extend(content);
}

fn put_varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let len = take_varint(bytes) as usize;
    let (content, rest) = bytes.split_at(len);
    *bytes = rest;
    content
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a number ends");
        *bytes = rest;
        n |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    n
}
