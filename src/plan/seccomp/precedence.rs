//! Several rules for one system call: which of them is asked first.
//!
//! The specification does not say; profiles are written against libseccomp, whose order this is:
//! - The first rule without tests wins over every other rule of the call, earlier or later.
//! - Otherwise rules form a tree, one level a compared 32-bit word. Beside each other stand, in this order: higher
//!   arguments before lower ones, (masked) equality before `<` and `<=` before `>` and `>=`, higher values before lower
//!   ones (lower before higher for `<`, `<=`), the rest as listed. A branch that does not match leads to the next one.
//! - A rule that begins with all the tests of an earlier rule is never reached, and is dropped.
//!
//! Where libseccomp refuses a profile (two actions under the same tests) the rule that tests more, else the one
//! listed first, wins, with a warning. Its known flaws are not repeated: with different actions for `!=`, `<` or
//! `<=` of one argument, it takes the wrong one for values above 32 bits; and of two rules whose tests of an argument
//! have the upper 32 bits in common, where the first ends and the other tests more, it loses one.

use super::profile::Test;
use super::vocabulary::Op;

/// What a system call gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Always(u32),
    /// Asked in turn; no match is the default action.
    FirstOf(Vec<Branch>),
}

/// An action, taken if all tests pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    pub tests: Vec<Test>,
    pub action: u32,
}

/// Decides about one system call with `rules` in the profile's order. `wide`: [`super::tables::Arch::wide`].
/// `conflict` is set if two rules contradict each other.
pub fn decide(mut rules: Vec<Branch>, wide: bool, conflict: &mut bool) -> Decision {
    let all = if wide { u64::MAX } else { u32::MAX.into() };
    for rule in &mut rules {
        // A mask without bits asks nothing.
        rule.tests.retain(|t| t.mask & all != 0);
        if rule.tests.is_empty() {
            return Decision::Always(rule.action);
        }
    }
    if rules.len() > 1 {
        let mut tree = Side::default();
        for (n, rule) in rules.iter().enumerate() {
            tree.add(&path(&rule.tests, wide), n, &rules, conflict);
        }
        let mut order = Vec::with_capacity(rules.len());
        tree.walk(&mut order);
        rules = order.into_iter().map(|n| rules[n].clone()).collect();
    }
    Decision::FirstOf(rules)
}

/// One comparison of a word, and the side on which the rule goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Step {
    node: Key,
    side: usize,
    rank: (u8, u8),
    descending: bool,
}

/// The comparison itself: steps with the same one share a node of the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    /// Argument and half: higher is asked earlier.
    word: u8,
    compare: Op,
    mask: u32,
    value: u32,
}

fn path(tests: &[Test], wide: bool) -> Vec<Step> {
    let mut path = Vec::with_capacity(tests.len() * 2);
    for t in tests {
        // `!=` is equality left on the other side, `<` is `>=`, and `<=` is `>`.
        let (low, side, rank) = match t.op {
            Op::Eq => (Op::Eq, 0, 3),
            Op::Ne => (Op::Eq, 1, 3),
            Op::MaskedEq => (Op::MaskedEq, 0, 3),
            Op::Lt => (Op::Ge, 1, 2),
            Op::Le => (Op::Gt, 1, 2),
            Op::Ge => (Op::Ge, 0, 1),
            Op::Gt => (Op::Gt, 0, 1),
        };
        let high = if low == Op::Ge { Op::Gt } else { low };
        let mut push = |half: u8, compare, side, shift: u32| {
            let word = t.arg * 2 + half;
            let node =
                Key { word, compare, mask: (t.mask >> shift) as u32, value: (t.value >> shift) as u32 };
            path.push(Step { node, side, rank: (word, rank), descending: rank != 2 });
        };
        if wide {
            push(1, high, 0, 32);
        }
        push(0, low, side, 0);
    }
    path
}

impl Step {
    /// Whether a node made by `self` stands before one made by `other`.
    fn before(&self, other: &Step) -> bool {
        if self.rank != other.rank {
            return self.rank > other.rank;
        }
        if other.descending { self.node.value > other.node.value } else { self.node.value < other.node.value }
    }
}

/// What follows one outcome of a comparison, or the whole tree.
#[derive(Default)]
struct Side {
    /// The rule that ends here.
    end: Option<usize>,
    /// Contradicts `end`, and is more precise, so it goes first.
    nodes_first: bool,
    nodes: Vec<Node>,
}

struct Node {
    step: Step,
    sides: [Side; 2],
}

impl Side {
    fn add(&mut self, path: &[Step], rule: usize, rules: &[Branch], conflict: &mut bool) {
        let Some((step, rest)) = path.split_first() else {
            return self.end_here(rule, rules, conflict);
        };
        if self.end.is_some() && !self.nodes_first {
            return; // never reached
        }
        let place = self.nodes.iter().position(|n| n.step.node == step.node || step.before(&n.step));
        let place = place.unwrap_or(self.nodes.len());
        if self.nodes.get(place).is_none_or(|n| n.step.node != step.node) {
            self.nodes.insert(place, Node { step: *step, sides: Default::default() });
        }
        self.nodes[place].sides[step.side].add(rest, rule, rules, conflict);
    }

    fn end_here(&mut self, rule: usize, rules: &[Branch], conflict: &mut bool) {
        let action = rules[rule].action;
        if let Some(end) = self.end {
            *conflict |= rules[end].action != action;
            return;
        }
        let mut below = Vec::new();
        self.walk(&mut below);
        self.end = Some(rule);
        if below.iter().all(|n| rules[*n].action == action) {
            self.nodes.clear();
        } else {
            self.nodes_first = true;
            *conflict = true;
        }
    }

    fn walk(&self, order: &mut Vec<usize>) {
        if !self.nodes_first {
            order.extend(self.end);
        }
        for side in self.nodes.iter().flat_map(|n| &n.sides) {
            side.walk(order);
        }
        if self.nodes_first {
            order.extend(self.end);
        }
    }
}
