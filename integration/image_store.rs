//! The store at rest: what it keeps, what it gives back, and what becomes of damages and kills.

mod support;

#[path = "image_store/crash.rs"]
mod crash;
#[path = "image_store/damage.rs"]
mod damage;
#[path = "image_store/export.rs"]
mod export;
#[path = "image/kill.rs"]
mod kill;
#[path = "image_store/lost.rs"]
mod lost;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/make.rs"]
mod make;
#[path = "image_store/peers.rs"]
mod peers;

use kill::{names, snapshot};
use make::{Entry, Image, Packing, Place, base, dir, file, hard, in_both_forms, layer, link, owned, script};
use std::fs;
use std::path::{Path, PathBuf};

/// Layers with what is easily lost: owners, links of both kinds, whiteouts, set-id bits, and fixups on top of them.
fn layers() -> Vec<Vec<u8>> {
    let mut lower = base();
    lower.extend([
        dir("old", 0o751),
        file("old/a", "a"),
        owned("old/owned", 7),
        hard("old/hard", "old/a"),
        link("soft", "old/a"),
        file("gone", "x"),
        dir("usr", 0o755),
        dir("usr/lib", 0o750),
        link("lib", "usr/lib"),
    ]);
    let upper: Vec<Entry> =
        vec![file(".wh.gone", ""), file("old/b", "b"), file("lib/x.so", "so"), hard("passwd", "old/a")];
    vec![layer(&lower), layer(&upper)]
}

fn image(name: &str, packing: Packing) -> Image {
    let show = "cat /old/a /old/b /lib/x.so; test -e /gone || echo; stat -c '%a %u' /old /old/owned";
    Image::new(layers()).packing(packing).config(script(show)).name(name)
}

/// What a container of [`image`] says.
const SAYS: &str = "abso\n751 0\n644 7\n";

/// Runs a container of an image and removes the bundle.
#[track_caller]
fn says(p: &Place, name: &str) -> String {
    let bundle = p.unpack(name, &[]);
    let out = p.run(&bundle).ok().stdout;
    p.remove(&bundle);
    out
}

fn json(path: impl AsRef<Path>) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, digest: &serde_json::Value) -> PathBuf {
    layout.join("blobs/sha256").join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
}

/// Digests of the manifests of a layout by name.
fn index(layout: &Path) -> Vec<(String, String)> {
    let text = |v: &serde_json::Value| v.as_str().unwrap().to_string();
    let index = json(layout.join("index.json"));
    let entry = |d: &serde_json::Value| {
        (text(&d["annotations"]["org.opencontainers.image.ref.name"]), text(&d["digest"]))
    };
    index["manifests"].as_array().unwrap().iter().map(entry).collect()
}

/// Every blob of the second layout is in the first, byte for byte.
#[track_caller]
fn has_all_of(have: &Path, want: &Path) {
    for name in names(&want.join("blobs/sha256")) {
        let read = |layout: &Path| fs::read(layout.join("blobs/sha256").join(&name));
        assert!(read(have).unwrap_or_else(|e| panic!("{name}: {e}")) == read(want).unwrap(), "{name}");
    }
}

#[track_caller]
fn same(before: &[String], after: &[String]) {
    let changed: Vec<_> = before.iter().filter(|l| !after.contains(l)).collect();
    assert!(before == after, "{changed:#?}");
}
