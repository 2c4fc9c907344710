//! Answers in their three forms.

use crate::described::after_help;
use crate::make::{Image, Packing, Place, base, file, layer, script};
use crate::{image, needs_root, place, shell};
use orlop::image::output::time;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// The keys that the help of a command names: the words between braces.
pub fn documented(command: &str) -> BTreeSet<String> {
    let (mut out, mut depth) = (BTreeSet::new(), 0);
    for word in after_help(command).split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let (name, end) = word.split_at(word.len() - 1);
        let (name, end) =
            if end.chars().all(|c| c.is_ascii_alphanumeric()) { (word, "") } else { (name, end) };
        if depth > 0 && !name.is_empty() {
            out.insert(name.to_string());
        }
        match end {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
    }
    out
}

/// All keys of an answer, but those inside of an image's documents.
fn keys(v: &Value, out: &mut BTreeSet<String>) {
    match v {
        Value::Array(all) => all.iter().for_each(|v| keys(v, out)),
        Value::Object(all) => {
            for (key, v) in all {
                out.insert(key.clone());
                match key.as_str() {
                    "manifest" | "config" | "history" => {}
                    "paths" => v.as_object().unwrap().values().for_each(|v| keys(v, out)),
                    _ => keys(v, out),
                }
            }
        }
        _ => {}
    }
}

/// Sizes are numbers, times are times.
fn typed(v: &Value) {
    match v {
        Value::Array(all) => all.iter().for_each(typed),
        Value::Object(all) => {
            for (key, v) in
                all.iter().filter(|(key, _)| !["manifest", "config", "history"].contains(&key.as_str()))
            {
                match key.as_str() {
                    "size" | "bytes" | "disk" | "shared" | "unique" | "uncompressedSize" | "fileBytes" => {
                        assert!(v.is_null() || v.is_u64(), "{key}: {v}");
                    }
                    "created" | "time" => {
                        assert!(v.is_null() || v.as_str().and_then(time).is_some(), "{key}: {v}");
                    }
                    _ => typed(v),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn every_answer_has_the_keys_of_its_help() {
    needs_root!();
    let (p, _) = place("x");
    p.imgtool(&["config", "x", "y", "--author", "me"]).ok();
    let bundle = p.unpack("y", &["--no-mount"]);
    fs::write(bundle.join("upper/new"), "1").unwrap();
    let b = bundle.to_str().unwrap();
    let check = |command: &str, all: &[&[&str]]| {
        let mut found = BTreeSet::new();
        for args in all {
            let answer = p.imgtool(&[*args, &["--format", "json"]].concat()).json();
            typed(&answer);
            keys(&answer, &mut found);
        }
        assert_eq!(found, documented(command), "{command}");
        let odd = found.iter().find(|k| k.contains('_') || k.starts_with(|c: char| !c.is_ascii_lowercase()));
        assert_eq!(odd, None, "{command}");
    };
    check("list", &[&["list"]]);
    check("inspect", &[&["inspect", "x"]]);
    check("history", &[&["history", "y"]]);
    check("tree", &[&["tree", "x"]]);
    check("diff", &[&["diff", b], &["diff", "x", b, "--layers"]]);
    check("log", &[&["log", "x"]]);
    check("df", &[&["df"]]);
    check("convert", &[&["convert", "--layers", "dir"]]);
    check("rm", &[&["rm", "y"]]);
    check("gc", &[&["gc"]]);
    // Damaged, and with litter.
    let layers = p.store().join("layers");
    let one = fs::read_dir(&layers).unwrap().next().unwrap().unwrap().path();
    fs::write(one.join("fs/odd"), "").unwrap();
    fs::create_dir(p.store().join("tmp/1-0")).unwrap();
    check("fsck", &[&["fsck"]]);
    check("verify", &[&["verify"]]);
    let mended = p.imgtool(&["fsck", "--repair", "--format", "json"]).ok().json();
    let states =
        |v: &Value| v["damages"].as_array().unwrap().iter().map(|d| d["state"].clone()).collect::<Vec<_>>();
    assert!(!states(&mended).is_empty() && states(&mended).iter().all(|s| s == "mended"), "{mended}");
    assert_eq!(p.imgtool(&["verify", "--format", "json"]).ok().json(), json!([]));
    let nothing = json!({ "litter": [], "damages": [] });
    assert_eq!(p.imgtool(&["fsck", "--format", "json"]).ok().json(), nothing);
    let empty = Place::new();
    empty.imgtool(&["info"]).ok(); // makes the store, which no question does
    assert_eq!(empty.imgtool(&["list", "-f", "json"]).ok().json(), json!([]));
    p.remove(&bundle);
}

#[test]
fn quiet_answers_are_names_or_digests_alone() {
    needs_root!();
    let (p, digest) = place("x");
    let made = |args: &[&str]| p.imgtool(&[args, &["-q"]].concat()).ok().stdout;
    assert_eq!(made(&["tag", "x", "a:1"]), format!("{digest}\n"));
    assert_eq!(made(&["list"]), "a:1\nx\n");
    assert_eq!(made(&["list", "--format", "json"]), "a:1\nx\n");
    assert_eq!(made(&["inspect", "a:1"]), format!("{digest}\n"));
    assert_eq!(made(&["log", "x"]), format!("{digest}\n"));
    assert_eq!(made(&["df"]), "a:1\nx\n");
    let inspected = p.imgtool(&["inspect", "x"]).ok().json();
    let mut ids: Vec<&str> =
        inspected["layers"].as_array().unwrap().iter().map(|l| l["diffID"].as_str().unwrap()).collect();
    assert_eq!(made(&["tree", "x"]), format!("{}\n{}\n", ids[0], ids[1]));
    ids.reverse();
    assert_eq!(made(&["history", "x"]), format!("{}\n{}\n", ids[0], ids[1]));
    let new = made(&["squash", "x", "s"]);
    assert_eq!(p.imgtool(&["-q", "inspect", new.trim()]).ok().stdout, new);
    assert_eq!(made(&["diff", "x", "s"]), "");
    assert_eq!(made(&["diff", "x", "s", "--layers"]).lines().count(), 3);
    assert_eq!(made(&["verify"]), "");
    let blob = p.store().join("blobs/sha256").join(&digest["sha256:".len()..]);
    let kept = fs::read(&blob).unwrap();
    fs::write(&blob, "{}").unwrap();
    let out = p.imgtool(&["verify", "-q"]);
    assert_eq!((out.code(), out.stdout.as_str()), (1, "a:1\nx\n"));
    fs::write(&blob, kept).unwrap();
    let removed = made(&["rm", "s"]);
    assert_eq!(removed, "s\n");
    fs::write(p.store().join("blobs/sha256").join("0".repeat(64)), "x").unwrap();
    assert_eq!(made(&["gc"]), format!("sha256:{}\n", "0".repeat(64)));
    // What lists names feeds what takes them.
    assert_eq!(shell(&p, "\"$@\" rm $(\"$@\" list -q)", &[]).ok().stdout.lines().count(), 1);
    assert_eq!(made(&["list"]), "");
}

#[test]
fn what_is_removed_is_counted() {
    needs_root!();
    let (p, _) = place("x");
    let data = "x".repeat(1 << 20);
    let source =
        Image::new(vec![layer(&base()), layer(&[file("big", &data)])]).config(script("true")).write();
    p.imgtool(&["import", source.path(), "y", "--no-blobs"]).ok();
    let bundle = p.unpack("y", &["--no-mount"]);
    let out = p.imgtool(&["rm", "y", "--format", "json"]).ok().json();
    assert_eq!((&out["names"], &out["bundles"]), (&json!(["y"]), &json!([bundle])));
    assert_eq!((&out["layers"], &out["bytes"]), (&json!([]), &json!(0)));
    p.remove(&bundle);
    let out = p.imgtool(&["gc", "--format", "json"]).ok().json();
    let bytes = out["bytes"].as_u64().unwrap();
    assert!(bytes >= 1 << 20, "{out}");
    assert_eq!(out["layers"].as_array().unwrap().len(), 2);
    assert_eq!(out["gone"], json!([bundle]));
    let out = p.imgtool(&["rm", "x"]).ok().stdout;
    assert!(out.starts_with("x: removed, 2 layers and 4 blobs, "), "{out}");
}

/// An image may say anything of itself.
#[test]
fn nothing_of_an_image_reaches_the_terminal_raw() {
    needs_root!();
    let p = Place::new();
    let evil = "\u{1b}]0;x\u{7}\u{9b}31m\u{7f}\u{202e}";
    let lower = layer(&[file("plain", "1"), file("d\u{1b}[31m\u{9b}\u{202e}x", "1")]);
    let source = Image::new(vec![lower, layer(&[file("plain", "2")])]).packing(Packing::Plain).write();
    source.edit_config(|c| {
        c["created"] = json!(evil);
        c["author"] = json!(evil);
        c["config"]["Labels"] = json!({ evil: evil });
        c["history"] = json!([
            { "created": evil, "created_by": evil, "comment": evil },
            { "created": "2026-01-02T03:04:05Z", "created_by": evil, "author": evil },
        ]);
    });
    source.edit_manifest(|m| m["annotations"] = json!({ "note": evil }));
    p.imgtool(&["import", "--layers", "dir", source.path(), "x"]).ok();
    p.imgtool(&["rm-layer", "x", "1", "y"]).ok();
    let one = fs::read_dir(p.store().join("layers")).unwrap().next().unwrap().unwrap().path();
    fs::write(one.join("fs/odd\u{1b}[1m"), "").unwrap();
    for command in [
        &["list"][..],
        &["inspect", "x"],
        &["history", "x"],
        &["tree", "x", "--depth", "9"],
        &["diff", "y", "x"],
        &["diff", "y", "x", "--layers"],
        &["log", "x"],
        &["df"],
        &["verify"],
        &["fsck"],
    ] {
        for more in [&[][..], &["--format", "json"], &["-q"]] {
            let out = p.imgtool(&[command, more].concat());
            let raw = out
                .stdout
                .chars()
                .chain(out.stderr.chars())
                .find(|c| (c.is_control() || *c == '\u{202e}') && *c != '\n');
            assert_eq!(raw, None, "{command:?} {more:?}: {:?}", out.stdout);
            assert!(!out.stdout.is_empty() || more == ["-q"] || command[0] == "verify", "{command:?}");
        }
    }
    let list = p.imgtool(&["list", "--format", "json"]).ok().json();
    assert_eq!(list[0]["created"], Value::Null, "what is no time is not told as one");
    let history = p.imgtool(&["history", "x", "--format", "json"]).ok().json();
    assert_eq!(
        (&history[0]["created"], &history[1]["created"]),
        (&json!("2026-01-02T03:04:05Z"), &Value::Null)
    );
    assert_eq!(history[0]["createdBy"], evil, "JSON has it as it is");
}

#[test]
fn columns_stand_below_their_heads() {
    needs_root!();
    let p = Place::new();
    for name in ["a", "a-rather-long-name/of-an-image:1"] {
        p.imgtool(&["import", image().write().path(), name]).ok();
    }
    for (command, heads) in [
        (&["list"][..], &["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "CREATED"][..]),
        (&["history", "a"], &["LAYER", "CREATED", "SIZE", "CREATED BY"]),
        (&["df"], &["COUNT", "INODES", "BYTES", "ON DISK"]),
    ] {
        let out = p.imgtool(command).ok().stdout;
        let mut lines = out.lines();
        let first = lines.next().unwrap();
        for head in heads {
            let at = first.find(head).unwrap_or_else(|| panic!("{head}: {out}"));
            for line in lines.clone().take(2).filter(|l| l.len() > at && at > 0) {
                assert_eq!(&line[at - 1..at], " ", "{head}: {out}");
            }
        }
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    needs_root!();
    let (p, _) = place("x");
    let out = shell(&p, "\"$@\" | true; echo ${PIPESTATUS[0]}", &["inspect", "x"]).ok();
    assert_eq!(out.stderr, "");
    assert!(["141\n", "0\n"].contains(&out.stdout.as_str()), "{}", out.stdout);
}
