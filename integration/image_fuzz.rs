//! The seeds of the fuzz targets, and what fuzzing has found, once again; `hack/fuzz/run` looks for more.

mod support;

#[path = "../hack/fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Runs a target on all of its seeds.
fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/fuzz/seeds").join(target);
    let mut seeds: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()).collect();
    seeds.sort();
    assert!(seeds.len() > 3, "{}", dir.display());
    for seed in seeds {
        let bytes = fs::read(&seed).unwrap();
        catch_unwind(|| run(&bytes)).unwrap_or_else(|_| panic!("{}", seed.display()));
    }
}

#[test]
fn headers() {
    replay("header", fuzz::header::run);
}

#[test]
fn layers() {
    needs_root!();
    replay("layer", fuzz::layer::run);
}

#[test]
fn whiteouts() {
    needs_root!();
    if !fuzz::whiteout::is_compared() {
        support::skip("needs a kernel that stacks directories for us");
    }
    replay("whiteout", fuzz::whiteout::run);
}

#[test]
fn documents() {
    replay("document", fuzz::document::run);
}
