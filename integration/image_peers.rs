//! What is made of layers, held against a model of the specification and against what other tools make of them, and images
//! that go to these tools and come back.

mod support;

#[path = "image_peers/archive.rs"]
mod archive;
#[path = "image/changed.rs"]
mod changed;
#[path = "image_peers/made.rs"]
mod made;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/make.rs"]
mod make;
#[path = "image_peers/model.rs"]
mod model;
#[path = "image_peers/random.rs"]
mod random;
#[path = "image_peers/trips.rs"]
mod trips;
#[path = "image_peers/umoci.rs"]
mod umoci;

use archive::archive;
use make::{Image, Layout, Packing, Place};
use model::{Item, Model, scan};
use std::collections::BTreeMap;

type Tree = BTreeMap<String, String>;

fn layout(layers: &[Vec<Item>], packing: Packing) -> Layout {
    image(layers.iter().map(|l| archive(l)).collect(), packing)
}

fn image(layers: Vec<Vec<u8>>, packing: Packing) -> Layout {
    Image::new(layers).packing(packing).name("x").write()
}

/// The tree that a mount of the image shows.
#[track_caller]
fn mounted(p: &Place, image: &str) -> Tree {
    let bundle = p.unpack(image, &["--mount"]);
    let tree = scan(&bundle.join("rootfs"));
    p.remove(&bundle);
    tree
}

/// A store of one form of layers.
struct Form {
    p: Place,
    options: &'static [&'static str; 2],
}

/// Directories, and where the machine mounts them EROFS images.
fn forms() -> Vec<Form> {
    let place = Place::new();
    let info = place.imgtool(&["info", "--format", "json"]).ok().json();
    let mut forms = vec![&["--layers", "dir"]];
    if info["layerForm"]["name"] == "erofs" {
        forms.push(&["--layers", "erofs"]);
    } else {
        support::skip("needs a kernel that mounts EROFS from a file");
    }
    forms.into_iter().map(|options| Form { p: Place::new(), options }).collect()
}

impl Form {
    /// `Err`: what it says, with the entries.
    fn import(&self, layers: &[Vec<Item>], packing: Packing) -> Result<(), String> {
        let layout = layout(layers, packing);
        let o = self.p.imgtool(&["import", self.options[0], self.options[1], layout.path(), "x"]);
        if o.status.success() { Ok(()) } else { Err(format!("{}{}", o.stderr, model::told_of(layers))) }
    }
}

/// What an image is, is told alike by its mount and by that of one layer instead of several.
#[track_caller]
fn differs(form: &Form, layers: &[Vec<Item>], what: &str) -> Vec<String> {
    let want = Model::of(layers).show();
    let packing = [Packing::Plain, Packing::Gzip, Packing::Zstd][what.len() % 3];
    let p = &form.p;
    let mut out = Vec::new();
    let mut hold = |image: &str, how: &str, seen: fn(&Tree) -> Tree| {
        let lines = model::lines(&seen(&want), &seen(&mounted(p, image)));
        if !lines.is_empty() {
            out.push(format!("{what} {:?} {how}\n{lines}", form.options));
        }
    };
    if let Err(words) = form.import(layers, packing) {
        return vec![format!("{what} {:?}: {words}", form.options)];
    }
    hold("x", "", Tree::clone);
    p.imgtool(&["squash", "x", "s", "--compression", "none"]).ok();
    hold("s", "squashed", whole_seconds);
    if layers.len() > 2 {
        p.imgtool(&["squash", "x", "s", "--from", "2", "--compression", "none"]).ok();
        hold("s", "squashed but for the first", without_links);
    }
    p.imgtool(&["rm", "x"]).ok();
    p.imgtool(&["rm", "s"]).ok();
    out
}

/// Layers that are written here have no nanoseconds.
fn whole_seconds(tree: &Tree) -> Tree {
    let cut = |line: &String| {
        let words = line.split(' ').map(|w| match w.split_once('.') {
            Some((seconds, nanos)) if nanos.len() == 9 && nanos.bytes().all(|b| b.is_ascii_digit()) => {
                seconds
            }
            _ => w,
        });
        words.collect::<Vec<_>>().join(" ")
    };
    tree.iter().map(|(name, line)| (name.clone(), cut(line))).collect()
}

/// A link to a file below is one to the name that it was made of, and no link where the squashed layers hide that.
fn without_links(tree: &Tree) -> Tree {
    let cut = |line: &String| line.split(" is ").next().unwrap_or_default().to_string();
    whole_seconds(tree).iter().map(|(name, line)| (name.clone(), cut(line))).collect()
}

#[test]
fn made_layers_become_what_the_specification_says() {
    needs_root!();
    let mut told = Vec::new();
    for form in forms() {
        for (what, layers) in made::made() {
            told.extend(differs(&form, &layers, what));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn random_layers_become_what_the_specification_says() {
    needs_root!();
    let mut told = Vec::new();
    for form in forms() {
        for seed in 1..=support::rounds(14, 300) as u64 {
            told.extend(differs(&form, &random::stack(seed), &format!("seed {seed}")));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// No tool that is known here writes such layers, and umoci refuses them.
#[test]
fn links_may_stand_before_what_they_lead_to() {
    needs_root!();
    use made::{dir, file, item};
    let hard = |path, target: &str| item(path, model::What::Hard(target.into()), 0o644);
    let low = vec![dir("", 0o755), file("f", "1"), file("g", "2"), file("h", "3")];
    // To a link, to a file, and to a name that was another file when it was linked to.
    let top =
        vec![hard("a", "b"), hard("b", "f"), hard("c", "d"), file("d", "4"), hard("e", "g"), hard("g", "h")];
    let told: Vec<_> =
        forms().iter().flat_map(|form| differs(form, &[low.clone(), top.clone()], "early")).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// The model is not only as wrong as what it is to judge.
#[test]
fn the_model_is_that_of_the_specification() {
    use made::{dir, file, item};
    use model::What;
    let gone = |path| item(path, What::Whiteout, 0);
    let low = vec![dir("", 0o755), dir("a", 0o700), file("a/b", "1"), file("a/c", "2")];
    for (top, want) in [
        (vec![gone("a/b")], "a a/c"),
        (vec![file("a/b", "new"), gone("a/b")], "a a/b a/c"),
        (vec![item("a", What::Opaque, 0)], "a"),
        (vec![item("a", What::Opaque, 0), file("a/d", "")], "a a/d"),
        (vec![gone("a"), file("a/d", "")], "a a/d"),
        (vec![dir("a", 0o711)], "a a/b a/c"),
        (vec![file("a", "")], "a"),
        (vec![item("d", What::Hard(b"a/b".to_vec()), 0), gone("a")], "d"),
        (vec![item("l", What::Symlink(b"a".to_vec()), 0), file("l/d", "")], "a a/b a/c a/d l"),
    ] {
        let tree = Model::of(&[low.clone(), top.clone()]).show();
        assert_eq!(tree.keys().map(|k| &k[..]).collect::<Vec<_>>().join(" ").trim(), want, "{top:?}");
    }
    let mode = |top| Model::of(&[low.clone(), top]).show()["a"].clone();
    assert!(mode(vec![gone("a"), file("a/d", "")]).starts_with("dir 755 "));
    assert!(mode(vec![file("a/d", "")]).starts_with("dir 700 "));
}
