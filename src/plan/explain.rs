//! The plan in words: what `orlop explain` prints and golden plans hold.
use super::step::Step;
use std::fmt;

/// One line for one step: the property that asked for it and what is done.
pub fn step(f: &mut fmt::Formatter<'_>, s: &Step) -> fmt::Result {
    write!(f, "{}: {:?}", s.at, s.act)
}
