//! events: what a container uses, and when it runs out of memory.

use super::list::unwritable;
use crate::cgroup::{Cgroup, Oom, Stats};
use crate::cli::Events;
use crate::container::{Process, StateRoot, Status};
use crate::error::{Error, Kind, Result, os};
use crate::resctrl::Recorded;
use crate::sys::{Errno, fd};
use serde::Serialize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// One line of output, as runc's package `types` has it.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

pub fn events(root: &StateRoot, args: &Events) -> Result<()> {
    let id = args.container_id.as_str();
    let c = root.load(id)?;
    let interval = interval(&args.interval)?;
    let init = c.init().filter(|_| c.status().0 != Status::Stopped);
    let Some((init, pidfd)) = init.and_then(|(init, _)| Some((init, init.pidfd()?))) else {
        return Err(Error::new(Kind::WrongState, "", format!("container with id {id} is not running")));
    };
    match args.stats {
        true => print("stats", id, Some(sample(&c.cgroup(), &c.record.rdt)?)),
        false => Watch { id, cgroup: c.cgroup(), rdt: &c.record.rdt, init, pidfd }.until_end(interval),
    }
}

fn sample(cgroup: &Cgroup, rdt: &Recorded) -> Result<Stats> {
    Ok(Stats { intel_rdt: rdt.stats()?, ..cgroup.stats()? })
}

fn print(kind: &str, id: &str, data: Option<Stats>) -> Result<()> {
    let line = serde_json::to_string(&Event { kind, id, data }).map_err(unwritable)?;
    super::print(&(line + "\n"))
}

struct Watch<'a> {
    id: &'a str,
    cgroup: Cgroup,
    rdt: &'a Recorded,
    init: Process,
    pidfd: OwnedFd,
}

impl Watch<'_> {
    /// A sample after each interval, and a line whenever memory ran out, until init ends.
    fn until_end(&self, interval: Duration) -> Result<()> {
        self.cgroup.stats()?; // a container without a cgroup has nothing to tell, and says so at once
        let mut oom = Oom::watch(&self.cgroup)?;
        if oom.is_none() {
            tracing::warn!(
                "container {:?} has no memory cgroup: nothing tells when memory runs out",
                self.id
            );
        }
        let mut next = Instant::now() + interval;
        loop {
            let patience = next.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
            let memory = oom.as_ref().map_or((-1, 0), Oom::poll);
            let timeout = i32::try_from(patience).unwrap_or(i32::MAX);
            let ended = match fd::poll([(self.pidfd.as_raw_fd(), libc::POLLIN), memory], timeout) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(os("", "poll"))?[0] != 0,
            };
            // Asked for at the end too: mostly it is why init ended.
            match oom.as_mut().map(Oom::happened) {
                Some(Some(true)) => print("oom", self.id, None)?,
                Some(None) => oom = None,
                _ => {}
            }
            if ended {
                return Ok(());
            }
            let now = Instant::now();
            if now >= next {
                self.sample()?;
                next = (next + interval).max(now);
            }
        }
    }

    fn sample(&self) -> Result<()> {
        match sample(&self.cgroup, self.rdt) {
            Ok(stats) => print("stats", self.id, Some(stats)),
            Err(_) if !self.init.is_alive() => Ok(()), // it ended meanwhile, and its cgroup may be gone
            Err(e) => {
                tracing::error!("{e}"); // the next one may succeed, and what memory does is told all the same
                Ok(())
            }
        }
    }
}

/// A duration as Go writes it, `1h30m`, `1.5s`, `500ms`; a bare number is seconds.
fn interval(text: &str) -> Result<Duration> {
    let at = "--interval";
    let seconds = match text.parse::<f64>() {
        Ok(n) => Some(n).filter(|n| n.is_finite()),
        Err(_) => go_duration(text),
    };
    let Some(seconds) = seconds.filter(|s| *s <= MAX_SECONDS) else {
        return Err(Error::invalid(at, format!("{text:?} is not a duration such as 5s, 500ms or 1m30s")));
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(d) if !d.is_zero() => Ok(d),
        _ => Err(Error::invalid(at, format!("{text:?}: must be greater than 0"))),
    }
}

/// Go's durations are 64-bit nanoseconds.
const MAX_SECONDS: f64 = i64::MAX as f64 / 1e9;

fn go_duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let mut sum = None;
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c| !is_digit(c))?);
        let (unit, behind) = behind.split_at(behind.find(is_digit).unwrap_or(behind.len()));
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum = Some(sum.unwrap_or(0.0) + sign * scale * number.parse::<f64>().ok()?);
        rest = behind;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::interval;
    use std::time::Duration;

    #[test]
    fn intervals_are_durations_of_go_or_seconds() {
        for (text, milliseconds) in [
            ("5s", 5000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("+1.5s", 1500),
            (".5h", 1_800_000),
            ("2000us", 2),
            ("2000µs", 2),
            ("5", 5000),
            ("0.25", 250),
        ] {
            assert_eq!(interval(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["0", "0s", "-1s", "-5", "-1m30s"] {
            let error = interval(text).unwrap_err().to_string();
            assert_eq!(error, format!("--interval: {text:?}: must be greater than 0"));
        }
        for text in
            ["", "s", "-", "+", "5x", "5 s", "1m30", "s5", "1..5s", "nan", "inf", "9999999h", "5S", "５s"]
        {
            let error = interval(text).unwrap_err().to_string();
            assert!(error.contains("is not a duration"), "{text}: {error}");
        }
    }
}
