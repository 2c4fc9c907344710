//! kill: a signal to init, or to every process (runtime.md#kill).

use crate::container::{self, StateRoot, Status};
use crate::error::{Error, Kind, Result};

pub fn kill(root: &StateRoot, id: &str, signal: &str, all: bool) -> Result<()> {
    let signal = number(signal)?;
    let c = root.load(id)?;
    let at = format!("container {id:?}");
    let (status, init) = c.seen();
    let stopped = || Error::new(Kind::WrongState, at.clone(), "container not running");
    if status == Status::Creating {
        return Err(stopped()); // runtime.md#kill: only created and running ones
    }
    // Without a pid namespace of its own the kernel does not end the rest with init; without a cgroup there is only
    // init.
    if (all || (signal == libc::SIGKILL && !c.record.private_pids)) && c.cgroup().populated()? {
        c.cgroup().kill_all(signal)?;
    } else if all && status == Status::Stopped {
        return Ok(());
    } else {
        let Some(init) = init else { return Err(stopped()) };
        match container::signal(init, signal) {
            Ok(()) => {}
            Err(e) if e as i32 == libc::ESRCH => return Err(stopped()),
            Err(e) => return Err(Error::os(at, format!("pidfd_send_signal {signal}"), e as i32)),
        }
    }
    // Asked now, not before: a pause may have come in between, and nothing that the v1 freezer holds can die.
    if signal == libc::SIGKILL && c.cgroup().is_frozen() {
        c.cgroup().thaw()?;
    }
    Ok(())
}

/// A number, of which 0 only asks whether there is a process (kill(2)), or a name with or without SIG, in any case.
pub fn number(text: &str) -> Result<i32> {
    let bad = || Error::invalid("signal", format!("{text:?} is not a signal"));
    if let Ok(n) = text.parse::<i32>() {
        return if (0..=64).contains(&n) { Ok(n) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return realtime(34, rest).ok_or_else(bad);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return realtime(64, rest).ok_or_else(bad);
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().map(|s| s as i32).map_err(|_| bad())
}

/// RTMIN+n and RTMAX-n as signal(7) counts them for programs.
fn realtime(base: i32, offset: &str) -> Option<i32> {
    let n = if offset.is_empty() { 0 } else { offset.parse::<i32>().ok()? };
    Some(base + n).filter(|s| (34..=64).contains(s))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals_by_number_and_by_name() {
        for (text, n) in [
            ("9", 9),
            ("0", 0),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("hup", 1),
            ("SIGUSR1", 10),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmax-2", 62),
            ("CLD", 17),
        ] {
            assert_eq!(number(text).ok(), Some(n), "{text}");
        }
        for text in ["", "65", "-1", "FOO", "SIG", "SIGSIGKILL", "RTMIN+99", "9x", "１"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
