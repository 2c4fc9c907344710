//! Pressure stall information, which v2 alone has for a cgroup (psi.rst of the kernel).

use super::Groups;
use crate::error::Result;
use serde::Serialize;

/// Shares of time in which some, or all, processes had to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Psi {
    pub some: Line,
    pub full: Line,
}

/// Percent of the last 10, 60 and 300 seconds; microseconds in total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Line {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

/// `None` where the kernel does not count it.
pub fn psi(groups: &Groups, file: &str) -> Result<Option<Psi>> {
    let Some(f) = &groups.v2 else { return Ok(None) };
    let Some(text) = f.text(file)? else { return Ok(None) };
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let to = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let percent = || value.parse::<f64>().map_err(|_| f.unlike(file, value));
            match key {
                "avg10" => to.avg10 = percent()?,
                "avg60" => to.avg60 = percent()?,
                "avg300" => to.avg300 = percent()?,
                "total" => to.total = f.parse(file, value)?,
                _ => {}
            }
        }
    }
    Ok(Some(psi))
}
