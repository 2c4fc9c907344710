//! What commands say that make an image, name one or send one on.

use crate::answers::documented;
use crate::described::{after_help, commands};
use crate::server::{Repository, Server, taking};
use crate::support::finish;
use crate::{image, needs_root, place};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

/// A command, the name that it tells, the image that is meant, and of a change the image it was made of with the
/// numbers of layers that come and go.
type Case<'a> = (&'a [&'a str], &'a str, &'a str, Option<(&'a str, usize, usize)>);

#[test]
fn every_command_that_makes_an_image_tells_it_in_three_forms() {
    needs_root!();
    let (p, _) = place("x");
    let bundle = p.unpack("x", &["--no-mount"]);
    fs::write(bundle.join("upper/new"), "1").unwrap();
    let (b, source, repository) =
        (bundle.to_str().unwrap(), image().write(), Repository::new(image().write()));
    let (from, to) = (Server::new(move |q| repository.answer(q)), taking(|_| None));
    let (from, to) = (&format!("{}/x:1", from.address)[..], &format!("{}/x:1", to.address)[..]);
    let all: [Case; 12] = [
        (&["import", source.path(), "i"], "i", "i", None),
        (&["pull", from, "p"], "p", "p", None),
        (&["push", "x", to], to, "x", None),
        (&["commit", b, "c"], "c", "c", Some(("x", 1, 0))),
        (&["config", "x", "o", "--user", "1"], "o", "o", Some(("x", 0, 0))),
        (&["squash", "x", "s"], "s", "s", Some(("x", 1, 2))),
        (&["rm-layer", "x", "2", "m"], "m", "m", Some(("x", 0, 1))),
        (&["rebase", "c", "r", "--onto", "s", "--base", "x"], "r", "r", Some(("c", 1, 2))),
        (&["append", "x", b, "a"], "a", "a", Some(("x", 1, 0))),
        (&["tag", "x", "o"], "o", "x", None),
        (&["revert", "o"], "o", "o", None),
        (&["untag", "t"], "t", "x", None),
    ];
    let inspect = |image: &str| p.imgtool(&["inspect", image]).ok().json();
    let ids = |image: &str| -> Vec<Value> {
        inspect(image)["layers"].as_array().unwrap().iter().map(|l| l["diffID"].clone()).collect()
    };
    for (args, name, meant, change) in all {
        let run = |more: &[&str]| {
            p.imgtool(&["tag", "x", "t"]).ok(); // is taken away again
            finish(p.command(&[args, more].concat()).env("SOURCE_DATE_EPOCH", "1")).ok()
        };
        let answer = run(&["--format", "json"]).json();
        let one = if args[0] == "import" { &answer[0] } else { &answer };
        let image = inspect(meant);
        let told = (&one["name"], &one["digest"], &one["configDigest"]);
        assert_eq!(told, (&json!(name), &image["digest"], &image["configDigest"]), "{args:?}");
        let keys: BTreeSet<String> = one.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, documented(args[0]), "{args:?}");
        if let Some((was, added, removed)) = change {
            let (old, new) = (ids(was), ids(meant));
            let only = |of: &[Value], other: &[Value]| -> Vec<Value> {
                of.iter().filter(|id| !other.contains(id)).cloned().collect()
            };
            let want = (only(&new, &old), only(&old, &new));
            assert_eq!((want.0.len(), want.1.len()), (added, removed), "{args:?}");
            assert_eq!((&one["layersAdded"], &one["layersRemoved"]), (&json!(want.0), &json!(want.1)));
        }
        let digest = || inspect(meant)["digest"].as_str().unwrap().to_string();
        assert_eq!(run(&["--format", "json", "-q"]).stdout, format!("{}\n", digest()), "{args:?}");
        assert_eq!(run(&[]).stdout, format!("{name} {}\n", digest()), "{args:?}");
    }
    let is_named = |c: &(Vec<String>, _)| {
        let names = |c: &str| after_help(c).contains("{name, digest, configDigest");
        matches!(&c.0[..], [tool, command] if tool == "imgtool" && names(command))
    };
    let named: BTreeSet<String> = commands().into_iter().filter(is_named).map(|c| c.0[1].clone()).collect();
    assert_eq!(named, all.iter().map(|c| c.0[0].to_string()).collect());
    // Of a source with two images an import tells both; of a name whose image is damaged what is known.
    let two = p.path().join("two").to_str().unwrap().to_string();
    ["x", "s"].iter().for_each(|name| drop(p.imgtool(&["export", name, &two]).ok()));
    let answer = p.imgtool(&["import", &two, "-f", "json"]).ok().json();
    assert_eq!((&answer[0]["name"], &answer[1]["name"]), (&json!("s"), &json!("x")));
    let blob = image_blob(&inspect("s")["digest"]);
    fs::write(p.store().join("blobs/sha256").join(blob), "{}").unwrap();
    assert_eq!(p.imgtool(&["untag", "s", "-f", "json"]).ok().json()["configDigest"], Value::Null);
    p.remove(&bundle);
}

fn image_blob(digest: &Value) -> String {
    digest.as_str().unwrap()["sha256:".len()..].to_string()
}
