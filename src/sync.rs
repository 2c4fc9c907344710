//! The wire between init and its parent: one message, a 16-byte head and text, and at times a descriptor.
//!
//! | who | message | answer |
//! |---|---|---|
//! | init | `Ask` with the number of an [`Ask`] | `Go` |
//! | init | `Pid` of init, from the middle process of a staged clone | `Go`, to init |
//! | init | `Master` with the pty's master | none |
//! | init | `Listener` with the number of a seccomp descriptor | `Go` |
//! | init | `Fail` with step, errno and text | none: init ends |
//!
//! End of file tells init that its parent is gone, and the parent that the program runs or init ended. After the gate
//! only `Fail` is left, in the FIFO that `start` reads.

use crate::plan::step::{Act, Ask, Step};
use crate::sys::{Sys, fd};
use std::os::fd::{AsFd, OwnedFd};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fail = 1,
    Ask,
    Go,
    Pid,
    Master,
    Listener,
}

/// One message: what it says, a number (step, [`Ask`], pid or descriptor) and an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub kind: Kind,
    pub number: i32,
    pub errno: i32,
}

pub const HEAD: usize = 16;
/// Longest message; below PIPE_BUF, so that it is whole in a FIFO.
pub const MAX: usize = 2048;

impl Head {
    pub fn new(kind: Kind, number: i32) -> Self {
        Self { kind, number, errno: 0 }
    }

    pub fn to_bytes(self) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[..4].copy_from_slice(&(self.kind as u32).to_ne_bytes());
        out[4..8].copy_from_slice(&self.number.to_ne_bytes());
        out[8..12].copy_from_slice(&self.errno.to_ne_bytes());
        out
    }

    pub fn from_bytes(b: &[u8]) -> Option<Self> {
        let b = b.get(..HEAD)?;
        let word = |n: usize| b.get(n..n + 4)?.try_into().ok().map(i32::from_ne_bytes);
        let kind = [Kind::Fail, Kind::Ask, Kind::Go, Kind::Pid, Kind::Master, Kind::Listener]
            .into_iter()
            .find(|k| Some(*k as i32) == word(0))?;
        Some(Self { kind, number: word(4)?, errno: word(8)? })
    }
}

const ASKS: [Ask; 6] = [Ask::Unit, Ask::Maps, Ask::Hooks, Ask::Limits, Ask::NetDevices, Ask::Ready];

pub fn ask_number(ask: Ask) -> i32 {
    ASKS.iter().position(|a| *a == ask).map_or(-1, |n| n as i32)
}

pub fn ask_of(number: i32) -> Option<Ask> {
    ASKS.get(usize::try_from(number).ok()?).copied()
}

/// Whoever is seen in a pid namespace may be in the hands of others in there, and with it the wire: it gets what the plan
/// says from step `next` on, in that order and once, so that all it can do is to leave out something of its own. The next
/// step after this message, unless it is out of turn.
pub fn turn(steps: &[Step], next: usize, head: Head) -> Option<usize> {
    let wanted = |act: &Act| match (head.kind, act) {
        (Kind::Ask, Act::Ask(ask)) => ask_of(head.number) == Some(*ask),
        (Kind::Pid, Act::Fork { .. }) | (Kind::Master, Act::Console { .. }) => true,
        (Kind::Listener, Act::Seccomp { listener, .. }) => *listener,
        _ => false,
    };
    match steps.iter().skip(next).position(|s| wanted(&s.act)) {
        Some(n) => Some(next + n + 1),
        None => (head.kind == Kind::Fail).then_some(next),
    }
}

/// A message as the parent receives it.
pub struct Message {
    pub head: Head,
    pub text: String,
    pub fd: Option<OwnedFd>,
}

/// Receives one message; `None` at end of file.
pub fn receive(socket: impl AsFd) -> Sys<Option<Message>> {
    let mut buf = [0; MAX];
    let (n, fd) = fd::recv_fd(socket, &mut buf)?;
    if n == 0 {
        return Ok(None);
    }
    message(&buf[..n], fd).map(Some).ok_or(crate::sys::Errno::EPROTO)
}

/// What was received, unless it is none of ours.
pub fn message(bytes: &[u8], fd: Option<OwnedFd>) -> Option<Message> {
    let head = Head::from_bytes(bytes)?;
    Some(Message { head, text: String::from_utf8_lossy(&bytes[HEAD..]).into_owned(), fd })
}

/// Tells init to go on.
pub fn go(socket: impl AsFd) -> Sys {
    fd::write(socket, &Head::new(Kind::Go, 0).to_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_the_wire() {
        let head = Head { kind: Kind::Fail, number: 7, errno: libc::ENOENT };
        assert_eq!(Head::from_bytes(&head.to_bytes()), Some(head));
        assert_eq!(Head::from_bytes(&[0; HEAD]), None);
        assert_eq!(Head::from_bytes(&[1; 3]), None);
    }

    #[test]
    fn a_message_without_a_whole_head_is_refused() {
        let bytes = Head::new(Kind::Fail, 7).to_bytes();
        for n in 0..HEAD {
            assert!(message(&bytes[..n], None).is_none(), "{n}");
        }
        assert_eq!(message(&[&bytes[..], b"open"].concat(), None).unwrap().text, "open");
    }

    #[test]
    fn nobody_gets_more_than_the_plan_says_nor_twice() {
        let acts =
            [Act::Ask(Ask::Unit), Act::Fork { flags: 0 }, Act::NewSession, Act::Ask(Ask::Ready), Act::Exec];
        let steps = acts.map(|act| Step::new("process", act));
        let ask = |ask| Head::new(Kind::Ask, ask_number(ask));
        let pid = Head::new(Kind::Pid, 42);
        for (next, head, then) in [
            (0, ask(Ask::Unit), Some(1)),
            (1, pid, Some(2)),
            (2, ask(Ask::Ready), Some(4)),
            (0, ask(Ask::Ready), Some(4)),
            (1, ask(Ask::Unit), None),
            (2, pid, None),
            (4, ask(Ask::Ready), None),
            (0, ask(Ask::Hooks), None),
            (0, ask(Ask::Limits), None),
            (0, Head::new(Kind::Ask, 77), None),
            (0, Head::new(Kind::Master, 0), None),
            (0, Head::new(Kind::Listener, 3), None),
            (0, Head::new(Kind::Go, 0), None),
            (3, Head::new(Kind::Fail, 2), Some(3)),
        ] {
            assert_eq!(turn(&steps, next, head), then, "{next}, {head:?}");
        }
    }

    #[test]
    fn asks_keep_their_numbers() {
        for ask in ASKS {
            assert_eq!(ask_of(ask_number(ask)), Some(ask));
        }
    }
}
