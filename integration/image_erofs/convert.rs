//! Layers from one form to the other, where they lie.

use crate::kill::{Crash, names};
use crate::make::{Image, Place, base, dir, file, hard, layer, script};
use crate::support::skip;
use crate::{needs_program, needs_root, rich, tree};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

const NO_EROFS: &str = "needs a kernel that mounts EROFS from a file";

/// The form of each layer of an image.
fn forms(p: &Place, image: &str) -> Vec<String> {
    let image = p.imgtool(&["inspect", image]).ok().json();
    image["layers"].as_array().unwrap().iter().map(|l| l["form"].as_str().unwrap().to_string()).collect()
}

/// What a container of an image sees.
fn facts(p: &Place, image: &str) -> tree::Tree {
    let bundle = p.unpack(image, &[]);
    let mut facts = tree::scan(&bundle.join("rootfs"));
    p.remove(&bundle);
    // Where no layer lists it, its time is that of the unpack.
    facts.retain(|path, _| !path.is_empty());
    facts
}

/// Removes the blobs of layers, as if they had been left out.
fn without_blobs(p: &Place, image: &str) {
    for layer in p.imgtool(&["inspect", image]).ok().json()["layers"].as_array().unwrap() {
        let digest = layer["digest"].as_str().unwrap().replace(':', "/");
        fs::remove_file(p.store().join("blobs").join(digest)).unwrap();
    }
}

#[test]
fn layers_change_their_form_and_back() {
    needs_root!();
    if !Place::new().has_images() {
        return skip(NO_EROFS);
    }
    let upper = vec![
        file("d/more", "replaced"),
        file(".wh.many", ""),
        hard("d/again", "d/large"),
        hard("d/kept", "d/block"),
        file("d/.wh.block", ""),
        file("opaque/y", "y"),
        dir("new", 0o700),
        file("new/.wh..wh..opq", ""),
    ];
    let source = Image::new(vec![layer(&rich()), layer(&upper)]).write();
    for more in [&[][..], &["--no-blobs"]] {
        let p = Place::new();
        p.imgtool(&[&["import", "--layers", "dir", source.path(), "x"], more].concat()).ok();
        let look = |form: &str| {
            assert_eq!(forms(&p, "x"), [form, form]);
            assert_eq!(p.imgtool(&["verify"]).ok().stdout, "");
            let told = ["tree", "squash"].map(|command| match command {
                "tree" => p.imgtool(&["tree", "x", "--format", "json", "--depth", "9"]).ok().stdout,
                _ => p.imgtool(&["squash", "x", "s", "-f", "json"]).ok().json()["layersAdded"].to_string(),
            });
            p.imgtool(&["rm", "s"]).ok();
            (facts(&p, "x"), told)
        };
        let want = look("dir");
        for form in ["erofs", "dir", "erofs"] {
            let out = p.imgtool(&["--progress", "json", "convert", "--layers", form]).ok();
            assert_eq!(
                out.stdout.lines().filter(|l| l.ends_with(&format!(": {form}: converted"))).count(),
                2
            );
            assert_eq!(out.stderr.matches(r#""result":"converted""#).count(), 2, "{}", out.stderr);
            let got = look(form);
            tree::same(&want.0, &got.0, form);
            assert_eq!(want.1, got.1);
            let again = p.imgtool(&["convert", "--layers", form, "x", "-f", "json"]).ok().json();
            for l in again.as_array().unwrap() {
                assert_eq!(
                    (&l["form"], &l["result"], &l["bundle"]),
                    (&json!(form), &json!("exists"), &Value::Null)
                );
            }
            assert_eq!(p.imgtool(&["-q", "convert", "--layers", form, "x"]).ok().stdout, "");
        }
        // Of a blob it is what an import makes.
        if more.is_empty() {
            let q = Place::new();
            q.imgtool(&["import", "--layers", "erofs", source.path(), "x"]).ok();
            for id in names(&p.store().join("layers")) {
                let read = |p: &Place| fs::read(p.store().join("layers").join(&id).join("erofs")).unwrap();
                assert!(read(&p) == read(&q), "{id}");
            }
        }
    }
}

#[test]
fn a_layer_that_a_bundle_uses_keeps_its_form() {
    needs_root!();
    let p = Place::new();
    if !p.has_images() {
        return skip(NO_EROFS);
    }
    for name in ["x", "y"] {
        let own = [file("d/own", name), hard("d/link", "bin/busybox")];
        let image = Image::new(vec![layer(&base()), layer(&own)]).config(script("cat /d/own"));
        p.imgtool(&["import", "--layers", "dir", image.write().path(), name]).ok();
    }
    let runs = |image: &str| {
        let bundle = p.unpack(image, &[]);
        assert_eq!(p.run(&bundle).ok().stdout, image);
        p.remove(&bundle);
    };
    for more in [&[][..], &["--no-mount"]] {
        let bundle = p.unpack("x", more);
        let b = bundle.to_str().unwrap();
        let is_kept = |images: &[&str], count: usize| {
            let out = p.imgtool(&[&["convert", "--layers", "erofs"], images].concat());
            let why = format!(": dir: kept, bundle {b} uses it");
            assert_eq!((out.code(), out.stdout.lines().filter(|l| l.ends_with(&why)).count()), (1, count));
            assert_eq!(forms(&p, "x"), ["dir", "dir"]);
            assert_eq!(p.run(&bundle).ok().stdout, "x");
        };
        is_kept(&["x"], 2);
        assert_eq!(forms(&p, "y"), ["dir", "dir"]);
        is_kept(&[], 2);
        is_kept(&["y"], 1);
        assert_eq!(forms(&p, "y"), ["dir", "erofs"]);
        if more.is_empty() {
            p.imgtool(&["umount", b]).ok();
            is_kept(&["x"], 2);
            p.imgtool(&["mount", b]).ok();
        }
        runs("y");
        assert_eq!(p.imgtool(&["verify"]).ok().stdout, "");
        p.remove(&bundle);
        let layers = p.imgtool(&["-q", "convert", "--layers", "erofs"]).ok().stdout;
        assert_eq!((layers.lines().count(), layers.starts_with("sha256:")), (2, true));
        ["x", "y"].iter().for_each(|name| runs(name));
        p.imgtool(&["convert", "--layers", "dir", "x", "y"]).ok();
        ["x", "y"].iter().for_each(|name| runs(name));
    }
}

#[test]
fn what_is_damaged_is_not_converted() {
    needs_root!();
    let p = Place::new();
    if !p.has_images() {
        return skip(NO_EROFS);
    }
    let source = Image::new(vec![layer(&[file("a", "1"), file("b", "2")])]).write();
    p.imgtool(&["import", "--layers", "dir", source.path(), "x"]).ok();
    let inspected = p.imgtool(&["inspect", "x"]).ok().json();
    let [id, digest] =
        ["diffID", "digest"].map(|key| inspected["layers"][0][key].as_str().unwrap().to_string());
    let blob = p.store().join("blobs").join(digest.replace(':', "/"));
    let mut bytes = fs::read(&blob).unwrap();
    bytes[600] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let out = p.imgtool(&["convert", "--layers", "erofs"]).fails(&format!("layer {id}: "));
    assert!(out.stderr.contains("have the digest") && out.stderr.contains("imgtool fsck"), "{}", out.stderr);
    assert_eq!(forms(&p, "x"), ["dir"]);
    without_blobs(&p, "x");
    let lost = p.store().join("layers").join(&id["sha256:".len()..]).join("fs/b");
    fs::remove_file(&lost).unwrap();
    p.imgtool(&["convert", "--layers", "erofs"])
        .fails("has 1 names and 1 bytes of files, its meta says 2 and 2");
    assert_eq!((forms(&p, "x"), names(&p.store().join("tmp")).len()), (vec!["dir".to_string()], 0));
    p.imgtool(&["convert", "--layers", "dir", "none"]).fails("image \"none\": does not exist");
}

#[test]
fn a_conversion_that_is_killed_leaves_one_form_or_the_other() {
    needs_root!();
    needs_program!("strace");
    let p = Place::of("dir");
    if !p.has_images() {
        return skip(NO_EROFS);
    }
    let c = Crash::in_place(p);
    let want = facts(&c.p, "first");
    for blobs in [true, false] {
        if !blobs {
            without_blobs(&c.p, "first");
        }
        for (form, other) in [("erofs", "dir"), ("dir", "erofs")] {
            let args = ["convert", "--layers", form, "first"];
            let back = || drop(c.p.imgtool(&["convert", "--layers", other]).ok());
            c.at_every_call(&args, back, |out| {
                for id in names(&c.p.store().join("layers")) {
                    let there: BTreeSet<_> =
                        names(&c.p.store().join("layers").join(id)).into_iter().collect();
                    let is = |tree: &str| there == BTreeSet::from(["meta".to_string(), tree.to_string()]);
                    assert!(is("fs") || is("erofs"), "{there:?}");
                }
                let told = out.stdout.matches(": converted\n").count();
                assert!(told == 0 || forms(&c.p, "first").iter().all(|f| f == form), "it was reported");
                tree::same(&want, &facts(&c.p, "first"), form);
                c.p.imgtool(&args).ok();
                assert_eq!(forms(&c.p, "first"), [form, form]);
                tree::same(&want, &facts(&c.p, "first"), form);
                c.p.imgtool(&["gc"]).ok();
                assert!(["tmp", "bundles"].iter().all(|sub| names(&c.p.store().join(sub)).is_empty()));
            });
        }
    }
}
