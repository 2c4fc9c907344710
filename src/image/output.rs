//! How commands answer: aligned columns for people, JSON for programs, names alone with `--quiet`. Nothing of an image
//! reaches a terminal raw.

use crate::error::{Error, Result, clean, is_acted_on};
use clap::ValueEnum;
use serde::Serialize;
use std::borrow::Cow;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people
    #[default]
    Table,
    /// One array or object for programs
    Json,
}

/// The choice of a command that lists, or makes an image.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Output {
    /// Form of the answer
    #[arg(short, long, value_enum, value_name = "FORM", default_value = "table")]
    format: Format,
}

/// The same for a command that removes: there `-f` is what docker's and podman's callers say for force.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct OutputOfRemoval {
    /// Form of the answer
    #[arg(long, value_enum, value_name = "FORM", default_value = "table")]
    format: Format,
    /// Accepted for the callers of others: nobody is asked here
    #[arg(short, long, hide = true)]
    pub force: bool,
}

impl From<OutputOfRemoval> for Output {
    fn from(o: OutputOfRemoval) -> Self {
        Self { format: o.format }
    }
}

impl Output {
    /// Prints one of the three forms; of `--quiet` and `--format` the former counts.
    pub fn show(
        self,
        quiet: bool,
        value: &impl Serialize,
        table: impl FnOnce() -> String,
        names: impl IntoIterator<Item = String>,
    ) -> Result<()> {
        match self.format {
            _ if quiet => lines(names),
            Format::Json => json(value),
            Format::Table => print(&table()),
        }
    }
}

/// Prints each on a line of its own.
pub fn lines(all: impl IntoIterator<Item = String>) -> Result<()> {
    print(&all.into_iter().map(|line| format!("{}\n", clean(&line))).collect::<String>())
}

pub fn print(text: &str) -> Result<()> {
    crate::verbs::print(text)
}

pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::invalid("json", e.to_string()))?;
    print(&format!("{}\n", escaped(&text)))
}

/// JSON has DEL and the C1 controls as they are, but a terminal acts on them.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| is_acted_on(c) && c != '\n') {
        return text.into();
    }
    let escape = |c: char| match is_acted_on(c) && c != '\n' {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    text.chars().map(escape).collect::<String>().into()
}

/// Columns as wide as their widest cell.
pub fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let lines: Vec<[Cow<str>; N]> = lines.iter().map(|l| l.each_ref().map(|cell| clean(cell))).collect();
    let width = |n: usize| lines.iter().map(|l| l[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |line: &[Cow<str>; N]| {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, w)| format!("{cell:w$}")).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    lines.iter().map(line).collect()
}

/// A size for people, in powers of 1024.
pub fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (0..4).take_while(|n| bytes >> (10 * (n + 1)) > 0).count();
    match step {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {}", bytes as f64 / (1u64 << (10 * step)) as f64, units[step]),
    }
}

/// A time of an image's documents, unless it is none (RFC 3339, section 5.6).
pub fn time(text: &str) -> Option<String> {
    let b = text.as_bytes();
    let digits = |from: usize, to: usize| b.get(from..to).is_some_and(|d| d.iter().all(u8::is_ascii_digit));
    let zone = |z: &[u8]| match z {
        b"Z" | b"z" => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|d| d.is_ascii_digit()),
        _ => false,
    };
    let signs = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    let is_date = [(0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19)].iter().all(|d| digits(d.0, d.1))
        && signs.iter().all(|(n, sign)| b[*n] == sign[0])
        && matches!(b[10], b'T' | b't');
    let rest = b.get(19..)?;
    let fraction =
        rest.strip_prefix(b".").map_or(0, |f| 1 + f.iter().take_while(|d| d.is_ascii_digit()).count());
    (is_date && fraction != 1 && zone(&rest[fraction..])).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (n, want) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 19, "1.5 MiB"), (5 << 40, "5.0 TiB")]
        {
            assert_eq!(human(n), want);
        }
    }

    #[test]
    fn cells_are_aligned_as_they_are_shown() {
        let text = columns(&[["A", "B"], ["\u{1b}[1m", "x"], ["\u{9b}", "é"]].map(|l| l.map(String::from)));
        assert_eq!(text, "A           B\n\\u{1b}[1m   x\n\\u{9b}      é\n");
    }

    #[test]
    fn json_is_safe_on_a_terminal() {
        let text = serde_json::to_string(&"\u{7f}\u{9b}\u{1b}é\n").unwrap();
        let safe = escaped(&text);
        assert!(!safe.chars().any(char::is_control), "{safe}");
        assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), "\u{7f}\u{9b}\u{1b}é\n");
    }

    #[test]
    fn only_times_are_told_as_times() {
        for good in ["2026-01-02T03:04:05Z", "2026-01-02t03:04:05.123456789z", "2026-01-02T03:04:05.1+01:30"]
        {
            assert_eq!(time(good).as_deref(), Some(good));
        }
        for bad in [
            "",
            "x",
            "2026-01-02",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05.Z",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05Z\u{1b}[1m",
            "é026-01-02T03:04:05Z",
            "2026-01-02T03:04:05+1:30",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }
}
