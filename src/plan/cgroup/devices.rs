//! config-linux.md#allowed-device-list: rules to the lists of v1 or to a BPF program of v2.
//!
//! A rule decides the accesses it names of the devices it matches, the last rule wins, and what no rule names is
//! refused: each requested access must be allowed.

use super::{Need, Sheet, Side, Write};
use crate::config::DeviceRule;
use crate::error::{Error, Result};

const AT: &str = "linux.resources.devices";

/// BPF_DEVCG_ACC_*, which are also the bits of [`Rule::access`].
pub const MKNOD: u32 = 1;
pub const READ: u32 = 2;
pub const WRITE: u32 = 4;
const ALL: u32 = MKNOD | READ | WRITE;

/// `None` matches every one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub allow: bool,
    /// `c` or `b`.
    pub kind: Option<char>,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: u32,
    /// The property, or `None` for one of our own.
    pub at: Option<String>,
}

/// The user's rules in order, then what every container may: mknod(2) of anything, which opens nothing; the default
/// devices; ptmx and pty slaves; and tun, which runc has had for years but for one release, and VPN images
/// expect.
pub fn rules(list: Option<&[DeviceRule]>, nodes: &[(char, u32, u32)]) -> Result<Vec<Rule>> {
    let mut rules: Vec<_> =
        list.unwrap_or_default().iter().enumerate().map(|(n, r)| rule(n, r)).collect::<Result<_>>()?;
    let own =
        |kind, major, minor, access| Rule { allow: true, kind: Some(kind), major, minor, access, at: None };
    rules.push(own('c', None, None, MKNOD));
    rules.push(own('b', None, None, MKNOD));
    rules.extend(nodes.iter().map(|&(kind, major, minor)| own(kind, Some(major), Some(minor), ALL)));
    for (major, minor) in [(136, None), (5, Some(2)), (10, Some(200))] {
        rules.push(own('c', Some(major), minor, ALL));
    }
    Ok(rules)
}

fn rule(n: usize, r: &DeviceRule) -> Result<Rule> {
    let at = format!("{AT}[{n}]");
    let kind = match r.kind.as_deref() {
        None | Some("" | "a") => None,
        Some("c" | "u") => Some('c'), // mknod(1) calls an unbuffered character device `u`
        Some("b") => Some('b'),
        Some(other) => {
            return Err(Error::invalid(format!("{at}.type"), format!("{other:?} is not one of a, b, c")));
        }
    };
    let number = |name: &str, n: Option<i64>| match n {
        None | Some(-1) => Ok(None),
        Some(n) => match u32::try_from(n) {
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(Error::invalid(format!("{at}.{name}"), format!("{n} is no device number"))),
        },
    };
    let (major, minor) = (number("major", r.major)?, number("minor", r.minor)?);
    // Absent is everything; engines send an empty one with that meaning in rules for all devices.
    let text = r.access.as_deref().unwrap_or("rwm");
    let everything = kind.is_none() && major.is_none() && minor.is_none();
    let mut access = if text.is_empty() && everything { ALL } else { 0 };
    for c in text.chars() {
        access |= match c {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(Error::invalid(format!("{at}.access"), format!("{c:?} is not one of r, w, m"))),
        };
    }
    if access == 0 {
        return Err(Error::invalid(format!("{at}.access"), "is empty"));
    }
    let Some(allow) = r.allow else { return Err(Error::invalid(format!("{at}.allow"), "is required")) };
    Ok(Rule { allow, kind, major, minor, access, at: Some(at) })
}

impl Rule {
    fn is_everything(&self) -> bool {
        self.kind.is_none() && self.major.is_none() && self.minor.is_none() && self.access == ALL
    }

    /// Every device of `other` is one of ours.
    fn covers(&self, other: &Rule) -> bool {
        (self.kind.is_none() || self.kind == other.kind)
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }

    /// Some device is in both.
    fn meets(&self, other: &Rule) -> bool {
        fn same<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        same(self.kind, other.kind) && same(self.major, other.major) && same(self.minor, other.minor)
    }
}

/// Rules to writes or to a program, on the side that has devices. A v2 needs no controller for it.
pub(super) fn plan(rules: &[Rule], sheet: &mut Sheet) -> Result<()> {
    if let Ok(side @ Side::V1(_)) = sheet.side("devices", AT) {
        for w in lists(rules)? {
            *sheet.put(side, "", "", "") = w;
        }
        return Ok(());
    }
    match &mut sheet.plan.v2 {
        Some(v2) => v2.devices = program(rules),
        None if allows_everything(rules) => {}
        None => {
            let what = "needs the cgroup controller \"devices\", which this host does not have";
            return Err(Error::unsupported(AT, what));
        }
    }
    Ok(())
}

/// Who may set no rules (v1 and BPF ask for the host's CAP_SYS_ADMIN) can do without those of engines: outside of the
/// host's user namespace nobody makes a device, and opens but those that are given. Any other would not hold.
pub(super) fn check_without(rules: &[Rule]) -> Result<()> {
    limit(rules).map_or(Ok(()), |at| {
        let what = "device rules are for the root of the host, and this one is more than to refuse what is not given";
        Err(Error::unsupported(at, what))
    })
}

/// The first rule of the user that takes something from a device that the container was given: it refuses less than
/// everything, or allows to read or to write alone.
pub(super) fn limit(rules: &[Rule]) -> Option<&str> {
    const BOTH: u32 = READ | WRITE;
    let limits = |r: &Rule| match r.allow {
        true => !matches!(r.access & BOTH, 0 | BOTH),
        false => !r.is_everything() && r.access & BOTH != 0,
    };
    rules.iter().filter(|r| limits(r)).find_map(|r| r.at.as_deref())
}

fn allows_everything(rules: &[Rule]) -> bool {
    rules.iter().rposition(Rule::is_everything).is_some_and(|n| rules[n..].iter().all(|r| r.allow))
}

/// v1 knows exceptions to one default, in no order: rules are folded to that. What cannot be said so is an error,
/// since the kernel would take it silently for less.
pub(super) fn lists(rules: &[Rule]) -> Result<Vec<Write>> {
    let mut default = false;
    let mut exceptions: Vec<Rule> = Vec::new();
    // "a" with numbers or fewer accesses would mean everything to the kernel.
    let by_kind = rules.iter().flat_map(|r| {
        let kinds =
            if r.is_everything() || r.kind.is_some() { vec![r.kind] } else { vec![Some('c'), Some('b')] };
        kinds.into_iter().map(|kind| Rule { kind, ..r.clone() })
    });
    for r in by_kind {
        if r.is_everything() {
            (default, exceptions) = (r.allow, Vec::new());
        } else if r.allow == default {
            for e in exceptions.iter_mut().filter(|e| e.meets(&r) && e.access & r.access != 0) {
                if !r.covers(e) {
                    let at = r.at.as_deref().unwrap_or(AT);
                    let earlier = e.at.as_deref().unwrap_or(AT);
                    let what = format!("takes a part of {earlier} back, which cgroup v1 cannot do");
                    return Err(Error::unsupported(at, what));
                }
                e.access &= !r.access;
            }
            exceptions.retain(|e| e.access != 0);
        } else {
            match exceptions.iter_mut().find(|e| (e.kind, e.major, e.minor) == (r.kind, r.major, r.minor)) {
                Some(e) => e.access |= r.access,
                None => exceptions.push(r),
            }
        }
    }
    let at = |r: Option<&Rule>| r.and_then(|r| r.at.as_deref()).unwrap_or(AT).to_string();
    let write =
        |file: &str, value: String, at: String, need| Write { file: file.into(), value, at, need, or: None };
    let mut writes = Vec::new();
    // A new cgroup has its parent's rules: to allow all is to add nothing, and never more than the parent.
    if !default {
        writes.push(write("devices.deny", "a".into(), at(None), Need::Must));
    }
    let file = if default { "devices.deny" } else { "devices.allow" };
    for e in &exceptions {
        let need = if e.at.is_none() { Need::IfPermitted } else { Need::Must };
        writes.push(write(file, line(e), at(Some(e)), need));
    }
    Ok(writes)
}

/// `c 1:3 rwm`
fn line(r: &Rule) -> String {
    let number = |n: Option<u32>| n.map_or("*".into(), |n| n.to_string());
    let access: String = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')]
        .iter()
        .filter(|(bit, _)| r.access & bit != 0)
        .map(|(_, c)| *c)
        .collect();
    format!("{} {}:{} {access}", r.kind.unwrap_or('a'), number(r.major), number(r.minor))
}

// Instructions of BPF (Documentation/bpf/standardization/instruction-set.rst): opcode, destination, source, offset,
// immediate.
const LOAD_WORD: u8 = 0x61;
const AND_IMM: u8 = 0x54;
const RSH_IMM: u8 = 0x74;
const MOV_IMM: u8 = 0xb4;
const MOV_REG: u8 = 0xbc;
const JUMP: u8 = 0x05;
const JNE_IMM: u8 = 0x56;
const JSET_IMM: u8 = 0x46;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// `struct bpf_insn`, whose register nibbles are bit-fields and so swap with the byte order.
fn insn(code: u8, dst: u8, src: u8, offset: i16, imm: u32) -> u64 {
    let registers = if cfg!(target_endian = "little") { dst | src << 4 } else { dst << 4 | src };
    let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
    bytes[2..4].copy_from_slice(&offset.to_ne_bytes());
    bytes[4..].copy_from_slice(&imm.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

/// The program, `None` when everything is allowed. It goes from the last rule to the first and keeps the accesses that
/// are still undecided in a register: no rule can be outvoted by an earlier one, nor allow more than it names.
pub fn program(rules: &[Rule]) -> Option<Vec<u64>> {
    if allows_everything(rules) {
        return None;
    }
    // struct bpf_cgroup_dev_ctx: access << 16 | kind, major, minor
    let mut p = vec![
        insn(LOAD_WORD, KIND, CONTEXT, 0, 0),
        insn(MOV_REG, ACCESS, KIND, 0, 0),
        insn(AND_IMM, KIND, 0, 0, 0xffff),
        insn(RSH_IMM, ACCESS, 0, 0, 16),
        insn(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        insn(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for r in rules.iter().rev() {
        if r.is_everything() {
            // All that is left is decided here, and the verifier refuses code that nothing reaches.
            p.extend([insn(MOV_IMM, RESULT, 0, 0, r.allow.into()), insn(EXIT, 0, 0, 0, 0)]);
            return Some(p);
        }
        let body = if r.allow {
            vec![
                insn(AND_IMM, ACCESS, 0, 0, !r.access),
                insn(JNE_IMM, ACCESS, 0, 2, 0),
                insn(MOV_IMM, RESULT, 0, 0, 1),
                insn(EXIT, 0, 0, 0, 0),
            ]
        } else {
            vec![
                insn(JSET_IMM, ACCESS, 0, 1, r.access),
                insn(JUMP, 0, 0, 2, 0),
                insn(MOV_IMM, RESULT, 0, 0, 0),
                insn(EXIT, 0, 0, 0, 0),
            ]
        };
        let kind = r.kind.map(|k| if k == 'b' { 1 } else { 2 }); // BPF_DEVCG_DEV_BLOCK, _CHAR
        let tests: Vec<_> = [(KIND, kind), (MAJOR, r.major), (MINOR, r.minor)]
            .into_iter()
            .filter_map(|(register, value)| Some((register, value?)))
            .collect();
        for (n, (register, value)) in tests.iter().enumerate() {
            let skip = tests.len() - 1 - n + body.len();
            p.push(insn(JNE_IMM, *register, 0, skip as i16, *value));
        }
        p.extend(body);
    }
    p.extend([insn(MOV_IMM, RESULT, 0, 0, 0), insn(EXIT, 0, 0, 0, 0)]);
    Some(p)
}

#[cfg(test)]
mod tests;
