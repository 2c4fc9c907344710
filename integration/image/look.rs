//! What is told of images: their steps, their layers, their differences.

use crate::make::{Image, Packing, Place, base, dir, file, hard, in_both_forms, layer, script};
use crate::{change, digest_of, needs_root, three_layers};
use serde_json::{Value, json};
use std::fs;

fn paths(v: &Value) -> Vec<String> {
    let line = |c: &Value| format!("{} {}", c["change"].as_str().unwrap(), c["path"].as_str().unwrap());
    v.as_array().unwrap().iter().map(line).collect()
}

#[test]
fn differences_are_told() {
    needs_root!();
    in_both_forms(differences_are_told_in);
}

fn differences_are_told_in(p: &Place) {
    let source = Image::new(three_layers()).packing(Packing::Gzip).config(script("true")).write();
    p.imgtool(&["import", source.path(), "x"]).ok();
    let bundle = p.unpack("x", &["--mount"]);
    let path = bundle.to_str().unwrap();
    assert_eq!(p.imgtool(&["diff", path]).ok().stdout, "", "nothing was changed");
    change(&bundle.join("rootfs"));
    let n = "n".repeat(130);
    let want = [
        "C /again",
        "C /etc/passwd",
        "C /fifo",
        "A /hard",
        &format!("A /{n}"),
        &format!("A /{n}/{n}"),
        &format!("A /{n}/{n}/file"),
        "C /old",
        "A /old/anew",
        "D /old/b",
        "A /pipe",
        "C /secret",
        "A /setuid",
        "A /socket",
        "D /top",
        "C /usr",
        "A /é\u{1b}[31m",
    ]
    .map(str::to_string);
    let json = p.imgtool(&["diff", path, "--format", "json"]).ok().json();
    assert_eq!(paths(&json), want);
    let passwd = json.as_array().unwrap().iter().find(|c| c["path"] == "/etc/passwd").unwrap();
    assert_eq!(passwd["size"], 14);
    let out = p.imgtool(&["diff", path]).ok().stdout;
    assert!(out.ends_with("C /usr\nA /é\\u{1b}[31m\n"), "{out:?}");
    // The image of the commit differs as the bundle did, but for the socket.
    digest_of(p, &["commit", path, "y"]);
    let json = p.imgtool(&["diff", "x", "y", "--format", "json"]).ok().json();
    let without: Vec<String> = want.iter().filter(|w| *w != "A /socket").cloned().collect();
    assert_eq!(paths(&json), without);
    assert_eq!(p.imgtool(&["diff", "y", path]).ok().stdout, "A /socket\n");
    let back = p.imgtool(&["diff", "y", "x"]).ok().stdout;
    assert!(
        back.contains("D /hard\n") && back.contains("A /top\n") && back.contains("A /secret/key\n"),
        "{back}"
    );
    let layers = p.imgtool(&["diff", "x", path, "--layers", "--format", "json"]).ok().json();
    assert_eq!(
        (layers["common"].as_array().unwrap().len(), paths(&layers["b"][0]["changes"])),
        (3, want.to_vec())
    );
    p.imgtool(&["diff", "x"]).fails("is an image, which is compared with a second one");
    p.remove(&bundle);
}

#[test]
fn layers_are_compared_one_by_one() {
    needs_root!();
    in_both_forms(layers_are_compared_one_by_one_in);
}

fn layers_are_compared_one_by_one_in(p: &Place) {
    let image = |layers: Vec<Vec<u8>>, name: &str| {
        p.imgtool(&["import", Image::new(layers).write().path(), name]).ok();
    };
    let low = layer(&[dir("d", 0o755), file("d/a", "1"), file("b", "2")]);
    let touched = layer(&[dir("d", 0o755), file("d/a", "3"), file(".wh.b", "")]);
    image(vec![low.clone(), touched], "x");
    image(vec![low, layer(&[file("c", "4")]), layer(&[dir("d", 0o700)])], "y");
    let out = p.imgtool(&["diff", "x", "y", "--layers"]).ok().stdout;
    let told: Vec<String> = out.lines().map(|l| l.split(" sha256:").next().unwrap().to_string()).collect();
    let want = [
        "= layer 1",
        "- layer 2",
        "    D /b",
        "    C /d/a",
        "+ layer 2",
        "    A /c",
        "+ layer 3",
        "    C /d",
    ];
    assert_eq!(told, want);
    assert_eq!(p.imgtool(&["diff", "x", "y"]).ok().stdout, "A /b\nA /c\nC /d\nC /d/a\n");
}

#[test]
fn the_tree_says_what_each_layer_costs() {
    needs_root!();
    in_both_forms(the_tree_says_what_each_layer_costs_in);
}

fn the_tree_says_what_each_layer_costs_in(p: &Place) {
    let kib = |n: usize| "x".repeat(n << 10);
    let layers = vec![
        layer(&[
            dir("d", 0o755),
            file("d/a", &kib(1)),
            file("d/b", &kib(2)),
            dir("e", 0o755),
            file("e/c", &kib(4)),
            hard("e/link", "e/c"),
            file("f", &kib(8)),
            dir("o", 0o755),
            file("o/1", &kib(16)),
        ]),
        layer(&[
            file("d/a", &kib(32)),
            file(".wh.f", ""),
            dir("o", 0o755),
            file("o/.wh..wh..opq", ""),
            file("o/2", &kib(64)),
            hard("g", "d/b"),
        ]),
        layer(&[file(".wh.d", "")]),
    ];
    p.imgtool(&["import", Image::new(layers).write().path(), "x"]).ok();
    let report = p.imgtool(&["tree", "x", "--format", "json", "--depth", "2"]).ok().json();
    let sums = |v: &Value| {
        ["added", "replaced", "removed", "wasted"]
            .map(|k| (v[k]["names"].as_u64().unwrap(), v[k]["bytes"].as_u64().unwrap() >> 10))
    };
    let l = &report["layers"];
    assert_eq!(sums(&l[0]), [(9, 31), (0, 0), (0, 0), (5, 27)]);
    assert_eq!(sums(&l[1]), [(2, 64), (1, 32), (2, 24), (1, 32)]);
    assert_eq!(sums(&l[2]), [(0, 0), (0, 0), (3, 34), (0, 0)]);
    assert_eq!(sums(&l[0]["paths"]["/o/1"]), [(1, 16), (0, 0), (0, 0), (1, 16)]);
    assert_eq!(sums(&l[1]["paths"]["/d/a"]), [(0, 0), (1, 32), (0, 0), (1, 32)]);
    let total = |k: &str| (report[k]["names"].as_u64().unwrap(), report[k]["bytes"].as_u64().unwrap() >> 10);
    assert_eq!((total("visible"), total("wasted")), ((6, 68), (6, 59)));
    let out = p.imgtool(&["tree", "x"]).ok().stdout;
    assert!(out.contains("    /o: added 1 (64.0 KiB), removed 1 (16.0 KiB)\n"), "{out}");
    assert!(out.ends_with("visible 6 (68.0 KiB), wasted 6 (59.0 KiB)\n"), "{out}");
    assert!(!p.imgtool(&["tree", "x", "--depth", "0"]).ok().stdout.contains("/o"));
}

#[test]
fn history_matches_layers_whatever_an_image_says() {
    needs_root!();
    let p = Place::new();
    let source = Image::new(three_layers()).config(script("true")).write();
    p.imgtool(&["import", source.path(), "none"]).ok();
    let entry = |by: &str, empty: bool| json!({"created_by": by, "empty_layer": empty});
    source.edit_config(|c| {
        c["history"] = json!([entry("1", false), entry("env", true), entry("2", false), entry("3", false)]);
    });
    p.imgtool(&["import", source.path(), "right"]).ok();
    source.edit_config(|c| {
        c["history"] = json!((0..5).map(|n| entry(&n.to_string(), false)).collect::<Vec<_>>());
    });
    p.imgtool(&["import", source.path(), "more"]).ok();
    let told = |image: &str| -> Vec<(Value, Value)> {
        let h = p.imgtool(&["history", image, "--format", "json"]).ok().json();
        h.as_array().unwrap().iter().map(|s| (s["layer"].clone(), s["createdBy"].clone())).collect()
    };
    let step = |layer: Option<u64>, by: Option<&str>| (json!(layer), json!(by));
    assert_eq!(told("none"), [step(Some(3), None), step(Some(2), None), step(Some(1), None)]);
    let env = step(None, Some("env"));
    let right = [step(Some(3), Some("3")), step(Some(2), Some("2")), env, step(Some(1), Some("1"))];
    assert_eq!(told("right"), right);
    assert_eq!(
        told("more").iter().map(|s| s.0.clone()).collect::<Vec<_>>(),
        json!([null, null, 3, 2, 1]).as_array().unwrap()[..]
    );
    for image in ["none", "right", "more"] {
        digest_of(&p, &["squash", image, "s", "--from", "2", "-m", "two in one"]);
        assert_eq!(told("s").iter().find(|s| !s.0.is_null()).unwrap().0, 2);
        let out = p.imgtool(&["history", "s"]).ok().stdout;
        assert!(out.contains("orlop imgtool squash --from 2 --to 3   two in one\n"), "{out}");
        digest_of(&p, &["rm-layer", image, "3", "r"]);
        assert_eq!(told("r").iter().filter(|s| !s.0.is_null()).count(), 2);
    }
    assert_eq!(told("s").len(), 6);
}

#[test]
fn inspect_answers_as_docker_does() {
    needs_root!();
    in_both_forms(inspect_answers_as_docker_does_in);
}

fn inspect_answers_as_docker_does_in(p: &Place) {
    let source = Image::new(vec![layer(&base()), layer(&[file("a", "abc")])]).config(script("true")).write();
    p.imgtool(&["import", source.path(), "h:5000/x:1"]).ok();
    p.imgtool(&["tag", "h:5000/x:1", "h:5000/x:2"]).ok();
    let own = p.imgtool(&["inspect", "h:5000/x:1"]).ok().json();
    let all = p.imgtool(&["inspect", "h:5000/x:1", "--format", "docker"]).ok().json();
    let i = &all[0];
    assert_eq!((all.as_array().unwrap().len(), &i["Id"]), (1, &own["configDigest"]));
    assert_eq!(i["RepoTags"], json!(["h:5000/x:1", "h:5000/x:2"]));
    assert_eq!(i["RepoDigests"], json!([format!("h:5000/x@{}", own["digest"].as_str().unwrap())]));
    assert_eq!(i["RootFS"]["Layers"], own["config"]["rootfs"]["diff_ids"]);
    assert_eq!(
        (&i["Architecture"], &i["Os"], &i["Config"]["Tty"]),
        (&json!("amd64"), &json!("linux"), &json!(false))
    );
    assert_eq!(i["Config"]["Cmd"], json!(["/bin/sh", "-c", "true"]));
    let bytes: u64 = own["layers"].as_array().unwrap().iter().map(|l| l["fileBytes"].as_u64().unwrap()).sum();
    assert_eq!((&i["Size"], &i["VirtualSize"]), (&json!(bytes), &json!(bytes)));
    let upper = i["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap();
    match upper.strip_prefix("erofs:") {
        Some(image) => assert!(fs::metadata(image).unwrap().is_file()),
        None => assert_eq!(fs::read_to_string(format!("{upper}/a")).unwrap(), "abc"),
    }
    assert!(i["Metadata"]["LastTagTime"].as_str().unwrap().ends_with('Z'));
    let keys =
        ["Parent", "Comment", "Created", "Author", "DockerVersion", "GraphDriver", "Metadata", "Descriptor"];
    assert!(keys.iter().all(|k| i.get(k).is_some()), "{i}");
}
