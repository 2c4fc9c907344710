//! `imgtool` in use: what it answers to people and to programs, what it says when something is wrong, how far it is, and
//! what describes its command line.

mod support;

#[path = "image_use/answers.rs"]
mod answers;
#[path = "image_use/described.rs"]
mod described;
#[path = "image_use/failures.rs"]
mod failures;
#[path = "image_use/lying.rs"]
mod lying;
#[path = "image_use/made.rs"]
mod made;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/make.rs"]
mod make;
#[path = "image_use/progress.rs"]
mod progress;
#[allow(dead_code)] // `image_registry` uses the rest
#[path = "image_registry/server.rs"]
mod server;
#[path = "image_use/words.rs"]
mod words;

use make::{Image, Packing, Place, base, dir, file, layer, script};
use std::process::Stdio;
use std::time::Duration;
use support::{Outcome, finish_within};

/// A system, and a layer that adds, replaces and removes.
fn image() -> Image {
    let mut lower = base();
    lower.extend([dir("d", 0o755), file("d/a", "1"), file("gone", "x")]);
    let upper = [file("d/a", "22"), file("d/b", "3"), file(".wh.gone", "")];
    Image::new(vec![layer(&lower), layer(&upper)]).packing(Packing::Gzip).config(script("cat /d/a"))
}

/// A store with that image, and the digest of its manifest.
#[track_caller]
fn place(name: &str) -> (Place, String) {
    let p = Place::new();
    let out = p.imgtool(&["-q", "import", "--layers", "dir", image().write().path(), name]).ok().stdout;
    (p, out.trim().to_string())
}

/// The command in a shell: `$@` is imgtool on the store of the place with these arguments.
#[track_caller]
fn shell(p: &Place, text: &str, args: &[&str]) -> Outcome {
    let mut c = std::process::Command::new("bash");
    c.args(["-c", text, "bash", support::ORLOP, "imgtool", "--store"]).arg(p.store()).args(args);
    finish_within(c.stdin(Stdio::null()), Duration::from_secs(60))
}
