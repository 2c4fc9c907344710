//! Names of images, digests, layers: a word means the same for every command.

use crate::make::Place;
use crate::support::finish;
use crate::{image, needs_root, place};
use serde_json::json;
use std::fs;

#[test]
fn a_word_means_the_same_image_for_every_command() {
    needs_root!();
    let (p, digest) = place("team/x:latest");
    let config = p.imgtool(&["inspect", "team/x"]).ok().json()["configDigest"].as_str().unwrap().to_string();
    let at = format!("team/x@{digest}");
    let words = [
        "team/x",
        "team/x:latest",
        "docker.io/team/x",
        &digest,
        &digest["sha256:".len()..],
        &digest[.."sha256:".len() + 12],
        &digest["sha256:".len()..][..6],
        &config,
        &config["sha256:".len()..][..12],
        &at,
    ];
    let (dest, add) = (p.path().join("out.tar"), p.path().join("add"));
    fs::create_dir(&add).unwrap();
    for (n, word) in words.into_iter().enumerate() {
        let digests = |args: &[&str]| p.imgtool(&[&["-q"], args].concat()).ok().stdout;
        assert_eq!(digests(&["inspect", word]), format!("{digest}\n"), "{word}");
        assert_eq!(digests(&["tag", word, "t:1"]), format!("{digest}\n"), "{word}");
        assert_eq!(
            digests(&["export", word, dest.to_str().unwrap(), "--name", "n"]),
            format!("{digest}\n"),
            "{word}"
        );
        assert_eq!(p.imgtool(&["diff", word, "t:1"]).ok().stdout, "", "{word}");
        for command in ["history", "tree", "verify"] {
            p.imgtool(&[command, word]).ok();
        }
        for args in [&["squash", word][..], &["rm-layer", word, "2"], &["config", word, "--user", "1"]] {
            let name = format!("new:{n}");
            let args = [args, &[&name]].concat();
            let args = if args[0] == "config" { vec!["config", word, &name, "--user", "1"] } else { args };
            p.imgtool(&args).ok();
        }
        p.imgtool(&["append", word, add.to_str().unwrap(), "new:a"]).ok();
        p.imgtool(&["rebase", "new:0", "new:r", "--onto", word, "--base", word]).ok();
        let bundle = p.unpack(word, &["--no-mount"]);
        p.remove(&bundle);
    }
    for word in ["team/x:2", "x", "sha256:", "sha256:00000000", "zzzz", "team/x@sha256:12", ""] {
        p.imgtool(&["inspect", word]).fails("does not exist");
    }
}

#[test]
fn with_and_without_latest_a_name_is_one() {
    needs_root!();
    let (p, first) = place("x");
    let other = p.imgtool(&["-q", "config", "x", "y", "--user", "1"]).ok().stdout;
    p.imgtool(&["tag", "y", "x:latest"]).ok();
    assert_eq!(p.imgtool(&["list", "-q"]).ok().stdout, "x\ny\n");
    assert_eq!(p.imgtool(&["-q", "inspect", "x"]).ok().stdout, other);
    assert_eq!(p.imgtool(&["log", "x:latest", "-q"]).ok().stdout, format!("{other}{first}\n"));
    assert_eq!(p.imgtool(&["-q", "revert", "x:latest"]).ok().stdout, format!("{first}\n"));
    p.imgtool(&["untag", "x:latest"]).ok();
    p.imgtool(&["inspect", "x"]).fails("does not exist");
    assert_eq!(p.imgtool(&["-q", "revert", "x:latest"]).ok().stdout, format!("{first}\n"));
    assert_eq!(p.imgtool(&["list", "-q"]).ok().stdout, "x\ny\n");
    p.imgtool(&["rm", "x:latest"]).ok();
    assert_eq!(p.imgtool(&["list", "-q"]).ok().stdout, "y\n");
}

#[test]
fn several_images_are_removed_or_none() {
    needs_root!();
    let (p, digest) = place("a");
    for name in ["b", "c"] {
        p.imgtool(&["tag", "a", name]).ok();
    }
    p.imgtool(&["config", "a", "other", "--user", "1"]).ok();
    p.imgtool(&["rm", "a", "none"]).fails("image \"none\": does not exist");
    assert_eq!(p.imgtool(&["list", "-q"]).ok().stdout, "a\nb\nc\nother\n");
    p.imgtool(&["rm", "-f", "a", "a:latest"]).ok();
    assert_eq!(p.imgtool(&["ls", "-q"]).ok().stdout, "b\nc\nother\n");
    let out = p.imgtool(&["rmi", &digest, "other"]).ok().stdout;
    assert!(out.starts_with("b c other: removed, 2 layers and "), "{out}");
    assert_eq!(fs::read_dir(p.store().join("layers")).unwrap().count(), 0);
}

#[test]
fn digests_that_begin_alike_are_refused() {
    needs_root!();
    let p = Place::new();
    let source = image().write();
    p.imgtool(&["import", source.path(), "x0"]).ok();
    // Until two of them begin with the same four digits.
    let mut seen = std::collections::HashMap::new();
    for n in 1..2000 {
        source.edit_manifest(|m| m["annotations"] = json!({ "n": n.to_string() }));
        let manifest = fs::read_to_string(format!("{}/index.json", source.path())).unwrap();
        let at = manifest.find("sha256:").unwrap() + 7;
        let start = manifest[at..at + 4].to_string();
        if let Some(before) = seen.insert(start.clone(), n) {
            p.imgtool(&["import", source.path(), "two"]).ok();
            source.edit_manifest(|m| m["annotations"] = json!({ "n": before.to_string() }));
            p.imgtool(&["import", source.path(), "one"]).ok();
            let out = p.imgtool(&["inspect", &start]).fails("is the start of several digests: of ");
            assert!(out.stderr.contains("one") && out.stderr.contains("two"), "{}", out.stderr);
            return;
        }
    }
    panic!("no two digests begin alike");
}

#[test]
fn layers_are_named_by_number_or_digest() {
    needs_root!();
    let (p, _) = place("x");
    let layers = p.imgtool(&["inspect", "x"]).ok().json()["layers"].clone();
    let text = |n: usize, key: &str| layers[n][key].as_str().unwrap().to_string();
    let by_number = p.imgtool(&["-q", "rm-layer", "x", "2", "n"]).ok().stdout;
    let epoch = |args: &[&str]| {
        let mut c = p.command(&[&["-q"], args].concat());
        finish(c.env("SOURCE_DATE_EPOCH", "1")).ok().stdout
    };
    let want = epoch(&["rm-layer", "x", "2", "n"]);
    assert_ne!(want, by_number, "the time is part of it");
    for word in [text(1, "digest"), text(1, "diffID"), text(1, "diffID")[7..19].to_string()] {
        assert_eq!(epoch(&["rm-layer", "x", &word, "n"]), want, "{word}");
    }
    let all = epoch(&["squash", "x", "s"]);
    assert_eq!(epoch(&["squash", "x", "s", "--from", &text(0, "digest"), "--to", &text(1, "diffID")]), all);
    for word in ["0", "3", "sha256:1", "zz"] {
        p.imgtool(&["rm-layer", "x", word, "n"]).fails(&format!("x: has no layer {word}, only 1 to 2; see"));
    }
}
