//! Pulls and pushes that are killed before any of their writes, to disk or to the registry.

use crate::kill::{Crash, names, snapshot};
use crate::make::{Image, Place};
use crate::server::{Repository, Server};
use crate::support::Outcome;
use crate::{Registry, needs_program, needs_root};
use orlop::image::digest::Digest;
use std::fs;
use std::path::Path;

/// An image whose top layer comes in several reads.
fn large() -> Image {
    let data: String = (0..8000u32).map(|n| Digest::of(&n.to_le_bytes()).hex()).collect();
    Crash::image("second", &data)
}

/// What broken pulls have left of layers: their digests, and how many bytes.
fn partials(store: &Path) -> Vec<(String, u64)> {
    let dir = store.join("partial");
    let size = |name: &String| fs::metadata(dir.join(name)).unwrap().len();
    let digest = |name: &str| format!("sha256:{}", name.split_once('.').unwrap().0);
    names(&dir).into_iter().map(|n| (digest(&n), size(&n))).filter(|p| p.1 > 0).collect()
}

#[test]
fn a_pull_that_is_killed_leaves_litter_only_and_goes_on() {
    needs_root!();
    needs_program!("strace");
    let c = Crash::of(Place::new(), large());
    let repository = Repository::new(large().write());
    let digest = repository.digest().to_string();
    let server = Server::new(move |r| repository.answer(r));
    let image = format!("{}/x:1", server.address);
    let pull = ["pull", "--layers", "dir", &image, "second"];
    let goes_on = || {
        let (left, asked) = (partials(&c.p.store()), server.seen().len());
        c.p.imgtool(&pull).ok();
        let seen = &server.seen()[asked..];
        for (layer, bytes) in &left {
            let all: Vec<_> = seen.iter().filter(|r| r.is("GET", layer)).map(|r| r.header("range")).collect();
            // One that was whole is not asked for at all, and neither is one whose layer was made.
            let range = format!("bytes={bytes}-");
            assert!(all.is_empty() || all == [Some(&range[..])], "{layer}: {all:?} after {bytes}");
        }
        assert_eq!(partials(&c.p.store()), []);
        c.is_clean();
        left.len()
    };
    let is_told = |out: &Outcome| {
        assert!(c.has_second() || !out.stdout.contains(&digest), "it was reported");
    };
    c.at_every_call(
        &pull,
        || c.remove_second(),
        |out| {
            is_told(out);
            goes_on();
        },
    );
    c.at_every_call(
        &pull,
        || c.remove_second(),
        |out| {
            is_told(out);
            c.is_clean();
            goes_on();
        },
    );
    // Surely with a part of a layer.
    c.remove_second();
    c.killed_at("pwrite64", 3, &pull);
    let asked = server.seen().len();
    assert_eq!(goes_on(), 1);
    assert!(server.seen()[asked..].iter().any(|r| r.header("range").is_some()));
    // Surely between the names of a layer and of its blob.
    c.remove_second();
    c.killed_at("rename", 2, &pull);
    assert_eq!(goes_on(), 1);
}

#[test]
fn a_push_that_is_killed_leaves_no_tag_for_what_is_not_there() {
    needs_root!();
    needs_program!("strace");
    needs_program!("docker-registry");
    let (c, r) = (Crash::of(Place::new(), large()), Registry::start());
    c.p.imgtool(&["import", c.second.path()]).ok();
    c.p.imgtool(&["verify"]).ok(); // whose trial of EROFS images the store keeps
    let image = r.image("x:1");
    // Commands that only look make and remove work of their own in it.
    let store = || -> Vec<String> {
        let tmp = format!("{:?} ", c.p.store().join("tmp"));
        snapshot(&c.p.store()).into_iter().filter(|l| !l.starts_with(&tmp)).collect()
    };
    let before = store();
    let push = ["push", "second", &image];
    let pulled = || Place::new().imgtool(&["pull", &image, "x"]);
    for args in [&push[..], &["push", "--chunk-bytes", "50000", "second", &image]] {
        c.at_every_call(
            args,
            || r.clear(),
            |out| {
                assert!(store() == before, "the store has changed");
                let there = pulled();
                if !there.status.success() {
                    assert!(!out.status.success(), "it was reported");
                    there.fails("404 not found: ");
                }
                let again = c.p.imgtool(&push).ok().stdout;
                assert_eq!(again.split_once(' ').unwrap().1, pulled().ok().stdout.split_once(' ').unwrap().1);
            },
        );
    }
}
