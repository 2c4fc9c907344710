//! Images that are looked at where they lie.

use crate::make::{Image, Packing, Place, file, layer, pack};
use crate::support::{Scratch, finish};
use crate::{image, needs_root};
use serde_json::{Value, json};
use std::fs;

/// What is known of an image and its layers without the store.
fn common(mut v: Value) -> Value {
    v["names"] = Value::Null;
    for l in v["layers"].as_array_mut().unwrap() {
        for key in ["uncompressedSize", "fileBytes", "entries", "form", "compression"] {
            l[key] = Value::Null;
        }
    }
    v
}

#[test]
fn an_image_is_looked_at_without_an_import() {
    needs_root!();
    let (p, q, s) = (Place::new(), Place::new(), Scratch::new("lying"));
    let layout = image().write();
    layout.edit_config(|c| c["history"] = json!([{ "created_by": "one" }, { "created_by": "two" }]));
    let tar = s.path.join("x.tar");
    fs::write(&tar, layout.tar()).unwrap();
    let (saved, gzip) = (s.path.join("saved.tar"), s.path.join("x.tar.gz"));
    fs::write(&saved, image().docker_save(false)).unwrap();
    fs::write(&gzip, pack(Packing::Gzip, &layout.tar())).unwrap();
    for source in [layout.path(), tar.to_str().unwrap(), gzip.to_str().unwrap(), saved.to_str().unwrap()] {
        p.imgtool(&["import", source, "x"]).ok();
        let (want, got) =
            (p.imgtool(&["inspect", "x"]).ok().json(), q.imgtool(&["inspect", source]).ok().json());
        assert_eq!(common(want.clone()), common(got.clone()), "{source}");
        let mut bare = common(got.clone());
        bare["names"] = got["names"].clone();
        assert_eq!(got, bare, "{source}");
        let digest = want["digest"].as_str().unwrap();
        assert_eq!(q.imgtool(&["-q", "inspect", source]).ok().stdout, format!("{digest}\n"));
        let history = |p: &Place, image: &str| p.imgtool(&["history", image, "--format", "json"]).ok().json();
        let (mut want, got) = (history(&p, "x"), history(&q, source));
        want.as_array_mut().unwrap().iter_mut().for_each(|step| step["size"] = Value::Null);
        assert_eq!(want, got, "{source}");
        assert!(q.imgtool(&["history", source]).ok().stdout.starts_with("LAYER "));
    }
    // Nothing came into the store.
    assert_eq!(q.imgtool(&["list"]).ok().stdout.lines().count(), 1);
    for sub in ["layers", "blobs/sha256", "tmp"] {
        assert_eq!(fs::read_dir(q.store().join(sub)).unwrap().count(), 0, "{sub}");
    }
    // Of several one is named; a name of the store comes before a path.
    let two = s.path.join("two");
    p.imgtool(&["import", Image::new(vec![layer(&[file("y", "")])]).write().path(), "y:2"]).ok();
    ["x", "y:2"].iter().for_each(|name| drop(p.imgtool(&["export", name, two.to_str().unwrap()]).ok()));
    let two = two.to_str().unwrap();
    q.imgtool(&["inspect", two]).fails(&format!("{two}: has 2 images: x, y:2; give the name of one"));
    q.imgtool(&["history", &format!("{two}:z")]).fails("has 2 images: x, y:2");
    for name in ["x", "y:2"] {
        let digest = p.imgtool(&["-q", "inspect", name]).ok().stdout;
        assert_eq!(q.imgtool(&["-q", "inspect", &format!("{two}:{name}")]).ok().stdout, digest, "{name}");
    }
    fs::rename(two, s.path.join("x")).unwrap();
    let here = |p: &Place| finish(p.command(&["inspect", "x"]).current_dir(&s.path));
    here(&p).ok();
    here(&q).fails("x: has 2 images");
    // What is wrong with the source is said, and docker's form needs the store.
    layout.edit_index(|i| i["manifests"][0]["size"] = json!(1));
    q.imgtool(&["inspect", layout.path()]).fails(layout.path());
    q.imgtool(&["inspect", "--format", "docker", tar.to_str().unwrap()]).fails("does not exist");
}
