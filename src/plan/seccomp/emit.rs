//! Decisions to classic BPF.
//!
//! The program is written from its end to its beginning: jumps only lead forwards, so every target is known when the
//! jump is written, and with it whether the distance fits the 8 bits of a conditional jump.

use super::precedence::{Branch, Decision};
use super::profile::Test;
use super::vocabulary::Op;
use seccompiler::sock_filter;

// linux/bpf_common.h
const LD_W_ABS: u16 = 0x20;
const AND_K: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

// Offsets in struct seccomp_data (linux/seccomp.h); all our architectures are little endian.
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// From this system call number up to the next span, this decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: u32,
    pub decision: Decision,
    /// Whether arguments have 64 bits here.
    pub wide: bool,
}

/// What one `AUDIT_ARCH_*` gets: spans in order, of which the first begins at 0.
pub struct Section {
    pub audit: u32,
    pub spans: Vec<Span>,
}

/// The program; calls of an architecture without a section get `foreign`.
pub fn program(sections: &[Section], default: u32, foreign: u32) -> Vec<sock_filter> {
    let mut code = Code { backwards: Vec::with_capacity(512), returns: Vec::new(), default };
    let mut next = code.ret(foreign);
    // The first section is written last, and so is the first to be asked for.
    for section in sections.iter().rev() {
        let tree = code.tree(&section.spans);
        if code.distance(tree) > 0 {
            code.push(JA, code.distance(tree) as u32);
        }
        let start = code.push(LD_W_ABS, NR);
        next = code.jump(JEQ, section.audit, start, next);
    }
    code.push(LD_W_ABS, ARCH);
    code.backwards.reverse();
    code.backwards
}

/// An instruction that was written, by its distance from the end of the program.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Label(usize);

struct Code {
    backwards: Vec<sock_filter>,
    /// The last place of each `ret`.
    returns: Vec<(u32, Label)>,
    default: u32,
}

impl Code {
    fn push(&mut self, code: u16, k: u32) -> Label {
        self.backwards.push(sock_filter { code, jt: 0, jf: 0, k });
        Label(self.backwards.len())
    }

    /// How far a jump written now would have to reach.
    fn distance(&self, to: Label) -> usize {
        self.backwards.len() - to.0
    }

    /// A place near enough for a jump that leads to `to`; room is left for a second such place before the jump.
    fn near(&mut self, to: Label) -> Label {
        if self.distance(to) < u8::MAX as usize {
            return to;
        }
        let there = &self.backwards[to.0 - 1];
        match there.code {
            RET => self.ret(there.k),
            _ => self.push(JA, self.distance(to) as u32),
        }
    }

    fn jump(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        let (yes, no) = (self.near(yes), self.near(no));
        let (jt, jf) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.backwards.push(sock_filter { code, jt, jf, k });
        Label(self.backwards.len())
    }

    fn ret(&mut self, action: u32) -> Label {
        let known = self.returns.iter().position(|(a, _)| *a == action);
        match known {
            // One more `ret` costs no more than the `ja` to a far one.
            Some(n) if self.distance(self.returns[n].1) < 200 => self.returns[n].1,
            Some(n) => {
                self.returns[n].1 = self.push(RET, action);
                self.returns[n].1
            }
            None => {
                let label = self.push(RET, action);
                self.returns.push((action, label));
                label
            }
        }
    }

    /// Finds the span of the number in the accumulator.
    fn tree(&mut self, spans: &[Span]) -> Label {
        match spans {
            [one] => self.decision(one),
            [a, b, c] if b.from + 1 == c.from && a.decision == c.decision && a.wide == c.wide => {
                let around = self.decision(a);
                let hit = self.decision(b);
                self.jump(JEQ, b.from, hit, around)
            }
            _ => {
                let (low, high) = spans.split_at(spans.len() / 2);
                let from = high[0].from;
                let (high, low) = (self.tree(high), self.tree(low));
                self.jump(JGE, from, high, low)
            }
        }
    }

    fn decision(&mut self, span: &Span) -> Label {
        let branches = match &span.decision {
            Decision::Always(action) => return self.ret(*action),
            Decision::FirstOf(branches) => branches,
        };
        let mut next = self.ret(self.default);
        for Branch { tests, action } in branches.iter().rev() {
            let mut matched = self.ret(*action);
            for test in tests.iter().rev() {
                matched = self.test(test, span.wide, matched, next);
            }
            next = matched;
        }
        next
    }

    fn test(&mut self, t: &Test, wide: bool, yes: Label, no: Label) -> Label {
        match t.op {
            Op::Eq | Op::MaskedEq => self.equal(t, wide, yes, no),
            Op::Ne => self.equal(t, wide, no, yes),
            Op::Gt => self.above(JGT, t, wide, yes, no),
            Op::Le => self.above(JGT, t, wide, no, yes),
            Op::Ge => self.above(JGE, t, wide, yes, no),
            Op::Lt => self.above(JGE, t, wide, no, yes),
        }
    }

    fn equal(&mut self, t: &Test, wide: bool, yes: Label, no: Label) -> Label {
        let mut label = yes;
        for shift in if wide { &[0, 32][..] } else { &[0] } {
            let (mask, value) = ((t.mask >> shift) as u32, (t.value >> shift) as u32);
            if mask == 0 {
                continue;
            }
            self.jump(JEQ, value, label, no);
            if mask != u32::MAX {
                self.push(AND_K, mask);
            }
            label = self.push(LD_W_ABS, ARGS + u32::from(t.arg) * 8 + shift / 8);
        }
        label
    }

    fn above(&mut self, low: u16, t: &Test, wide: bool, yes: Label, no: Label) -> Label {
        let word = ARGS + u32::from(t.arg) * 8;
        self.jump(low, t.value as u32, yes, no);
        let mut label = self.push(LD_W_ABS, word);
        if wide {
            let high = (t.value >> 32) as u32;
            label = self.jump(JEQ, high, label, no);
            self.jump(JGT, high, yes, label);
            label = self.push(LD_W_ABS, word + 4);
        }
        label
    }
}
