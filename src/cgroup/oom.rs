//! The OOM killer at work in a cgroup: told by a descriptor, or asked for afterwards.

use super::dir::Dir;
use super::{Cgroup, Place};
use crate::error::{Result, os};
use crate::sys::{Errno, Sys, fd};
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Tells when memory ran out.
pub enum Oom {
    /// An eventfd that the kernel adds 1 to at each time, and once more when the cgroup is removed.
    V1 { event: EventFd, dir: Dir },
    /// memory.events, which can be polled, with its `oom_kill` as last seen, and the host's at that time.
    V2 { events: OwnedFd, kills: u64, of_host: u64 },
}

impl Cgroup {
    /// Whether a process of it was killed since memory ran out, and its limit in bytes, if it has one.
    pub fn was_oom(&self) -> Option<Option<u64>> {
        const UNLIMITED: u64 = 1 << 62; // v1 has no word for it, but the largest number of whole pages
        self.places.iter().find_map(|place| {
            let (events, limit) = match place.v2 {
                true => ("memory.events", "memory.max"),
                false => ("memory.oom_control", "memory.limit_in_bytes"),
            };
            oom_kill(&place.value(events).ok()?).filter(|times| *times > 0)?;
            let limit = place.value(limit).ok().and_then(|text| text.trim_end().parse().ok());
            Some(limit.filter(|bytes| *bytes < UNLIMITED))
        })
    }
}

impl Oom {
    /// `None` when the cgroup has no memory controller.
    pub fn watch(cgroup: &Cgroup) -> Result<Option<Oom>> {
        for place in &cgroup.places {
            let Ok(dir) = place.open() else { continue };
            let (file, watch): (_, fn(Dir) -> Sys<Oom>) = match place.v2 {
                true => ("memory.events", watch_v2),
                false => ("memory.oom_control", watch_v1),
            };
            if dir.has(file) {
                return watch(dir).map(Some).map_err(os(at(place, file), "watch for OOM"));
            }
        }
        Ok(None)
    }

    /// What to poll for.
    pub fn poll(&self) -> (RawFd, i16) {
        match self {
            Oom::V1 { event, .. } => (event.as_fd().as_raw_fd(), libc::POLLIN),
            Oom::V2 { events, .. } => (events.as_raw_fd(), libc::POLLPRI),
        }
    }

    /// Has it happened since the last call? `None` when it has not, and never will: the cgroup is gone.
    pub fn happened(&mut self) -> Option<bool> {
        match self {
            Oom::V1 { event, dir } => {
                let gone = !dir.has("cgroup.event_control");
                let times = event.read().unwrap_or(0); // EAGAIN: not since
                (times > 0 || !gone).then_some(times > u64::from(gone))
            }
            Oom::V2 { events, kills, of_host } => {
                let (host_before, host) = (*of_host, count_of_host());
                let Ok(now) = count(events) else {
                    // ENODEV: it is gone, and its count with it. Whoever removed it may have been faster than we, since
                    // the kernel holds news back for up to 10 ms.
                    *of_host = host;
                    return (host > host_before).then_some(true);
                };
                let more = now > *kills;
                *of_host = if more { count_of_host() } else { host }; // this one is told: not again at the end
                *kills = now;
                Some(more)
            }
        }
    }
}

fn at(place: &Place, file: &str) -> String {
    format!("{}/{file}", place.name())
}

/// memcg_test.rst of the kernel: two descriptors to cgroup.event_control.
fn watch_v1(dir: Dir) -> Sys<Oom> {
    let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let control = dir.file("memory.oom_control", libc::O_RDONLY)?;
    let line = format!("{} {}", event.as_fd().as_raw_fd(), control.as_raw_fd());
    dir.write("cgroup.event_control", &line)?;
    Ok(Oom::V1 { event, dir })
}

fn watch_v2(dir: Dir) -> Sys<Oom> {
    let events = dir.file("memory.events", libc::O_RDONLY)?;
    let (of_host, kills) = (count_of_host(), count(&events)?);
    Ok(Oom::V2 { events, kills, of_host })
}

/// `oom_kill` of memory.events, those of cgroups below included. Reading it readies the file for the next poll.
fn count(events: &OwnedFd) -> Sys<u64> {
    let mut buf = [0; 1024];
    fd::rewind(events)?;
    let len = fd::read(events, &mut buf)?;
    let text = std::str::from_utf8(&buf[..len]).map_err(|_| Errno::EINVAL)?;
    oom_kill(text).ok_or(Errno::EINVAL)
}

/// Since 4.13; without it, none.
fn count_of_host() -> u64 {
    std::fs::read_to_string("/proc/vmstat").ok().and_then(|t| oom_kill(&t)).unwrap_or(0)
}

fn oom_kill(text: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.parse().ok())
}
