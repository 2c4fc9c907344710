//! What `verify` and `fsck` found, for programs.

use super::fsck::{Report, State};
use super::verify::{Damage, Object};
use serde_json::{Value, json};

/// A damage; of what has a digest that, of what is a file its path.
pub fn damage(d: &Damage) -> Value {
    let (kind, digest, file) = match &d.object {
        Object::Ref(path) => ("name", None, Some(path)),
        Object::Log(path) => ("log", None, Some(path)),
        Object::Image(digest) => ("image", Some(digest), None),
        Object::Blob(digest) => ("blob", Some(digest), None),
        Object::Layer(digest) => ("layer", Some(digest), None),
        Object::Fixup(digest) => ("fixup", Some(digest), None),
        Object::Bundle(path) => ("bundle", None, Some(path)),
    };
    json!({
        "kind": kind, "digest": digest, "file": file.map(|f| f.to_string_lossy()),
        "images": d.images, "place": d.place, "what": d.what,
    })
}

pub fn report(r: &Report) -> Value {
    let damages = r.damages.iter().map(|(d, state)| {
        let (state, how) = match state {
            State::Found => ("found", None),
            State::Mended(how) => ("mended", Some((*how).to_string())),
            State::Left(why) => ("left", Some(why.clone())),
        };
        let mut out = damage(d);
        out["state"] = state.into();
        out["how"] = how.into();
        out
    });
    let litter = r.litter.iter().map(|p| json!({ "file": p.to_string_lossy(), "removed": r.repair }));
    json!({ "litter": litter.collect::<Vec<_>>(), "damages": damages.collect::<Vec<_>>() })
}

/// The images that are damaged, each once, and what is damaged of no image.
pub fn names<'a>(damages: impl Iterator<Item = &'a Damage>) -> Vec<String> {
    let mut out: Vec<String> = damages
        .flat_map(|d| match d.images.is_empty() {
            true => vec![d.place.clone()],
            false => d.images.iter().cloned().collect(),
        })
        .collect();
    out.sort();
    out.dedup();
    out
}
