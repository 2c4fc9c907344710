//! Real engines with two runtimes, Debian's runc and the binary under test: what passes with runc passes with orlop.
//!
//! `cargo test --test engines [-- [--runtime=orlop] [--skip=WORDS] FILTER…]`. Each pair of engine and runtime has a world of its own, made
//! and ended by `world.rs`; `report.rs` sets the columns side by side. `--nocapture` tells each result as it comes.

mod buildah;
mod containerd;
mod cri;
mod docker;
mod image;
mod images;
mod podman;
mod report;
#[path = "../support/mod.rs"]
mod support;
mod world;

use std::path::PathBuf;
use support::{ORLOP, has_program, is_root};

/// What a person does with an engine, and sees.
#[derive(Clone, Copy)]
pub struct Check {
    pub name: &'static str,
    /// Panics when it is otherwise.
    pub run: fn(&world::Engine),
    /// Why neither runtime can on some machines; stands in `hack/skips`.
    pub cannot: Option<&'static str>,
    /// Not at the same time as others.
    pub alone: bool,
}

impl Check {
    pub const fn cannot(self, why: &'static str) -> Self {
        Self { cannot: Some(why), ..self }
    }

    pub const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }
}

/// The function is the check, and its name the check's.
#[macro_export]
macro_rules! check {
    ($function:ident) => {
        $crate::Check { name: stringify!($function), run: $function, cannot: None, alone: false }
    };
}

/// An engine and its checks.
pub struct Suite {
    pub engine: &'static str,
    /// Found in PATH, or the engine is skipped.
    pub programs: &'static [&'static str],
    /// Starts daemons, loads the image; panics when it cannot.
    pub start: fn(&world::Engine),
    pub checks: &'static [&'static [Check]],
    /// So many checks run at once.
    pub threads: usize,
}

impl Suite {
    fn selected(&self, filters: &[String]) -> Vec<Check> {
        let is_wanted = |c: &Check| {
            let name = format!("{}::{}", self.engine, c.name);
            let (without, with): (Vec<_>, Vec<_>) = filters.iter().partition(|f| f.starts_with(SKIP));
            let named = with.is_empty() || with.iter().any(|f| name.contains(f.as_str()));
            named && !without.iter().any(|f| name.contains(&f[SKIP.len()..]))
        };
        self.checks.iter().copied().flatten().copied().filter(is_wanted).collect()
    }
}

/// A check with these words in its name does not run.
const SKIP: &str = "--skip=";

const SUITES: &[Suite] = &[containerd::SUITE, cri::SUITE, docker::SUITE, podman::SUITE, buildah::SUITE];

fn runtimes() -> [(&'static str, PathBuf); 2] {
    [("runc", "/usr/sbin/runc".into()), ("orlop", ORLOP.into())]
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some((verb, rest)) = args.split_first() {
        match verb.as_str() {
            world::INIT => world::init(rest),
            world::WORKER => return world::work(rest, SUITES),
            _ => {}
        }
    }
    let only = args.iter().find_map(|a| a.strip_prefix("--runtime="));
    let filters: Vec<String> =
        args.iter().filter(|a| !a.starts_with('-') || a.starts_with(SKIP)).cloned().collect();
    if args.iter().any(|a| a == "--list") {
        return;
    }
    if is_root() {
        world::sweep();
    }
    let mut report = report::Report::default();
    for suite in SUITES {
        let checks = suite.selected(&filters);
        if checks.is_empty() {
            continue;
        }
        let missing = suite.programs.iter().chain(&["runc", "unshare"]).find(|p| !has_program(p));
        if !is_root() {
            report.skip_engine(suite.engine, "needs root");
        } else if let Some(program) = missing {
            report.skip_engine(suite.engine, &format!("needs {program}"));
        } else {
            for (name, path) in runtimes().iter().filter(|r| only.is_none_or(|o| o == r.0)) {
                let results = world::enter(suite.engine, name, path, &filters);
                report.column(suite, &checks, name, results);
            }
            report.lines(suite, &checks);
        }
    }
    std::process::exit(report.end());
}
