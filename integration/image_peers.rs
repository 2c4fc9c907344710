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
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/tree.rs"]
mod tree;
#[path = "image_peers/trips.rs"]
mod trips;
#[path = "image_peers/umoci.rs"]
mod umoci;

use archive::archive;
use make::{Image, Layout, Packing, Place};
use model::{Item, Model};
use tree::{Tree, scan, whole_seconds};

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

/// Stores of directories, and where the machine mounts them of EROFS images.
fn places() -> Vec<Place> {
    let forms = make::forms();
    if forms.len() < 2 {
        support::skip("needs a kernel that mounts EROFS from a file");
    }
    forms.iter().map(|form| Place::of(form)).collect()
}

/// `Err`: what it says, with the entries.
fn import(p: &Place, layers: &[Vec<Item>], packing: Packing) -> Result<(), String> {
    let o = p.imgtool(&["import", layout(layers, packing).path(), "x"]);
    if o.status.success() { Ok(()) } else { Err(format!("{}{}", o.stderr, model::told_of(layers))) }
}

/// What an image is, is told alike by its mount and by that of one layer instead of several.
#[track_caller]
fn differs(p: &Place, layers: &[Vec<Item>], what: &str) -> Vec<String> {
    let want = Model::of(layers).show();
    let packing = [Packing::Plain, Packing::Gzip, Packing::Zstd][what.len() % 3];
    let mut out = Vec::new();
    let mut hold = |image: &str, how: &str, seen: fn(&Tree) -> Tree| {
        let lines = tree::lines(&seen(&want), &seen(&mounted(p, image)));
        if !lines.is_empty() {
            out.push(format!("{what} {:?} {how}\n{lines}", p.form));
        }
    };
    if let Err(words) = import(p, layers, packing) {
        return vec![format!("{what} {:?}: {words}", p.form)];
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

/// A link to a file below is one to the name that it was made of, and no link where the squashed layers hide that.
fn without_links(tree: &Tree) -> Tree {
    let cut = |line: &String| line.split(" is ").next().unwrap_or_default().to_string();
    whole_seconds(tree).iter().map(|(name, line)| (name.clone(), cut(line))).collect()
}

#[test]
fn made_layers_become_what_the_specification_says() {
    needs_root!();
    let mut told = Vec::new();
    for p in places() {
        for (what, layers) in made::made() {
            told.extend(differs(&p, &layers, what));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

#[test]
fn random_layers_become_what_the_specification_says() {
    needs_root!();
    let mut told = Vec::new();
    for p in places() {
        for seed in 1..=support::rounds(14, 300) as u64 {
            told.extend(differs(&p, &random::stack(seed), &format!("seed {seed}")));
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
        places().iter().flat_map(|p| differs(p, &[low.clone(), top.clone()], "early")).collect();
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
