//! `imgtool` against images that were made to do harm: archives, documents and bombs, each beside a canary.

mod support;

#[path = "image_hostile/bounds.rs"]
mod bounds;
#[path = "image_hostile/canary.rs"]
mod canary;
#[path = "image_hostile/container.rs"]
mod container;
#[path = "image_hostile/digests.rs"]
mod digests;
#[path = "image_hostile/documents.rs"]
mod documents;
#[path = "image_hostile/entries.rs"]
mod entries;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/make.rs"]
mod make;
#[path = "image_hostile/names.rs"]
mod names;
#[path = "image_hostile/people.rs"]
mod people;
#[path = "image_hostile/raw.rs"]
mod raw;

use canary::Canary;
use make::{Image, Place, forms};
use std::fs;
use std::path::Path;

/// What is to become of a layer, or of several.
struct Case {
    what: &'static str,
    layers: Vec<Vec<u8>>,
    want: Want,
}

enum Want {
    /// With these words, and the place.
    Refused(&'static str),
    /// The rootfs is so.
    Seen(Box<dyn Fn(&Path)>),
}

fn refused(what: &'static str, words: &'static str, layer: raw::Tar) -> Case {
    Case { what, layers: vec![layer.end()], want: Want::Refused(words) }
}

fn seen(what: &'static str, layer: raw::Tar, look: impl Fn(&Path) + 'static) -> Case {
    Case { what, layers: vec![layer.end()], want: Want::Seen(Box::new(look)) }
}

impl Case {
    /// With layers below.
    fn on(mut self, below: raw::Tar) -> Self {
        self.layers.insert(0, below.end());
        self
    }
}

/// Takes each case in, in both forms of layers, and looks at what became of it and at the canary.
fn hold(canary: &Canary, cases: Vec<Case>) {
    for form in forms() {
        let p = Place::new();
        for case in &cases {
            let what = format!("{} as {form}", case.what);
            let source = Image::new(case.layers.clone()).write();
            let out = p.imgtool(&["import", "--layers", form, source.path(), "x"]);
            match &case.want {
                Want::Refused(words) => {
                    assert_eq!(out.code(), 1, "{what} was taken");
                    assert!(out.stderr.contains(words), "{what}: {}", out.stderr);
                    // The image and the layer.
                    let places = [source.path(), "layer sha256:"];
                    assert!(places.iter().all(|p| out.stderr.contains(p)), "{what}: {}", out.stderr);
                    assert_eq!(fs::read_dir(p.store().join("refs")).unwrap().count(), 0, "{what}");
                }
                Want::Seen(look) => {
                    assert_eq!(out.code(), 0, "{what}: {}", out.stderr);
                    let bundle = p.unpack("x", &[]);
                    look(&bundle.join("rootfs"));
                    p.remove(&bundle);
                    p.imgtool(&["rm", "x"]).ok();
                }
            }
            assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0, "{what}");
            canary.is_untouched(&what);
        }
        // Nothing of what was refused is in the way of what the store says of itself.
        p.imgtool(&["gc"]).ok();
        p.imgtool(&["fsck"]).ok();
    }
}

fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Whether anything is at a path, be it a link to nothing.
fn is_there(path: impl AsRef<Path>) -> bool {
    fs::symlink_metadata(path).is_ok()
}
