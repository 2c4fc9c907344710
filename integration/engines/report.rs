//! Columns side by side: what passes with runc must pass with orlop.

use crate::support;
use crate::{Check, Suite};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a check went.
#[derive(Clone, Deserialize, Serialize)]
pub struct Result {
    pub name: String,
    /// The words of its panic.
    pub failure: Option<String>,
    pub notes: Vec<String>,
    pub seconds: f64,
}

/// What the columns say together.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    Skipped,
    Failed,
}

#[derive(Default)]
pub struct Report {
    columns: BTreeMap<(&'static str, &'static str), BTreeMap<String, Result>>,
    engines: Vec<&'static str>,
    passed: usize,
    failed: usize,
}

impl Report {
    pub fn skip_engine(&mut self, engine: &'static str, why: &str) {
        skip(engine, why);
        self.passed += 1;
    }

    /// What came out of a world; a check without a result failed.
    pub fn column(&mut self, suite: &Suite, checks: &[Check], runtime: &'static str, results: Vec<Result>) {
        let mut column: BTreeMap<_, _> = results.into_iter().map(|r| (r.name.clone(), r)).collect();
        for c in checks {
            column.entry(c.name.into()).or_insert_with(|| Result {
                name: c.name.into(),
                failure: Some("the world ended before it".into()),
                notes: Vec::new(),
                seconds: 0.0,
            });
        }
        self.columns.insert((suite.engine, runtime), column);
    }

    /// One line for each check, with the words of what failed and of what was noted.
    pub fn lines(&mut self, suite: &Suite, checks: &[Check]) {
        self.engines.push(suite.engine);
        for check in checks {
            let name = format!("{}::{}", suite.engine, check.name);
            let of = |r| self.columns.get(&(suite.engine, r)).and_then(|c| c.get(check.name));
            let columns = ["runc", "orlop"].map(|r| (r, of(r)));
            let words = columns.map(|(r, result)| match result {
                None => String::new(),
                Some(Result { failure: None, seconds, .. }) => format!("  {r}: ok ({seconds:.1} s)"),
                Some(Result { seconds, .. }) => format!("  {r}: FAIL ({seconds:.1} s)"),
            });
            println!("{name:45}{}", words.concat());
            for (r, result) in columns {
                let failure = result.and_then(|f| f.failure.as_ref()).map(|f| format!("failed: {f}"));
                for text in result.into_iter().flat_map(|f| &f.notes).chain(&failure) {
                    println!("    {r}: {}", text.trim_end().replace('\n', "\n        "));
                }
            }
            let failed = columns.map(|(_, result)| result.map(|f| f.failure.is_some()));
            match verdict(failed[0], failed[1], check.cannot.is_some()) {
                Verdict::Failed => self.failed += 1,
                Verdict::Passed => self.passed += 1,
                Verdict::Skipped => {
                    skip(&name, check.cannot.unwrap_or_default());
                    self.passed += 1;
                }
            }
        }
    }

    /// The sums, last in the words of cargo's runner, which `hack/test` counts; the exit code.
    pub fn end(&self) -> i32 {
        println!("\n{:12}{:>16}{:>16}", "engine", "runc", "orlop");
        for engine in &self.engines {
            let sum = |runtime| {
                let Some(column) = self.columns.get(&(*engine, runtime)) else { return "-".into() };
                let ok = column.values().filter(|r| r.failure.is_none()).count();
                format!("{ok} of {}", column.len())
            };
            println!("{engine:12}{:>16}{:>16}", sum("runc"), sum("orlop"));
        }
        let (word, code) = if self.failed == 0 { ("ok", 0) } else { ("FAILED", 101) };
        let (passed, failed) = (self.passed, self.failed);
        println!(
            "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"
        );
        code
    }
}

/// Whether it failed with runc and with orlop; a column that was not asked for says nothing.
fn verdict(runc: Option<bool>, orlop: Option<bool>, has_reason: bool) -> Verdict {
    match (runc, orlop) {
        (_, Some(false)) | (Some(false), None) | (None, None) => Verdict::Passed,
        (Some(true), _) if has_reason => Verdict::Skipped,
        _ => Verdict::Failed,
    }
}

/// As `support::skip`, under the check's name.
fn skip(name: &str, why: &str) {
    let name = name.to_string();
    std::thread::scope(|s| {
        let thread = std::thread::Builder::new().name(name);
        thread.spawn_scoped(s, || support::skip(why)).expect("a thread").join().expect("it says so");
    });
}
