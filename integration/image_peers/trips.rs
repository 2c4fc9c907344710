//! Images go to skopeo and umoci and come back as they were.

use crate::changed::{Changed, Changes, TELL};
use crate::make::{Image, Packing, Place, base, dir, file, layer};
use crate::support::{Outcome, Scratch, finish};
use crate::tree::{same, scan};
use crate::{mounted, needs_program, needs_root};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

#[track_caller]
fn run(program: &str, args: &[&str]) -> Outcome {
    finish(Command::new(program).args(args).stdin(Stdio::null())).ok()
}

fn read(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn system() -> Image {
    let mut lower = base();
    lower.extend([dir("opt", 0o755), dir("home", 0o755), file("home/f", "")]);
    Image::new(vec![layer(&lower)]).packing(Packing::Gzip)
}

/// All changed images in one layout.
fn exported(c: &Changes) -> Vec<Changed> {
    let all = c.make(system().write().path());
    for i in &all {
        c.imgtool(&["export", &i.name, &c.at("layout"), "--name", i.kind]).ok();
    }
    all
}

/// What came back is what it was, but for what the form of an archive cannot hold.
#[track_caller]
fn is_still(c: &Changes, was: &Changed, source: &str) {
    let name = format!("back/{}:1", was.kind);
    c.imgtool(&["import", source, &name]).ok();
    let back = c.known("back", &name);
    assert_eq!(back.says, was.says, "{source}");
    let steps = |i: &Changed| -> Vec<Value> {
        let all = i.config["history"].as_array().unwrap();
        all.iter().map(|h| json!([h["created_by"], h["comment"], h["empty_layer"] == json!(true)])).collect()
    };
    assert_eq!((back.layers(), steps(&back)), (was.layers(), steps(was)), "{source}");
    for key in ["Env", "Cmd", "User", "WorkingDir", "Labels", "StopSignal"] {
        assert_eq!(back.config["config"][key], was.config["config"][key], "{source}: {key}");
    }
    if Path::new(source).is_dir() && was.kind != "plain" {
        assert_eq!(back.id, was.id, "{source}");
    }
    c.imgtool(&["rm", &name]).ok();
}

#[test]
fn changed_images_go_through_skopeo() {
    needs_root!();
    needs_program!("skopeo");
    let s = Scratch::new("skopeo");
    let c = Changes { dir: s.path.clone() };
    for i in exported(&c) {
        let from = format!("oci:{}:{}", c.at("layout"), i.kind);
        let copy = |more: &[&str], to: &str, path: &str| {
            run("skopeo", &[&["--insecure-policy", "copy", "-q"], more, &[&from[..], to]].concat());
            is_still(&c, &i, path);
        };
        let config: Value = run("skopeo", &["inspect", "--config", "--raw", &from]).json();
        for key in ["config", "rootfs", "history", "author"] {
            assert_eq!(config[key], i.config[key], "{key}");
        }
        match i.kind {
            // Each form with an image whose layers tell it apart.
            "commit" | "squash" => {
                let path = c.at(&format!("{}.tar", i.kind));
                copy(&[], &format!("docker-archive:{path}:a/{}:1", i.kind), &path);
            }
            "rebase" => copy(&[], &format!("oci-archive:{}:x", c.at("rebase.tar")), &c.at("rebase.tar")),
            kind => copy(&["--preserve-digests"], &format!("oci:{}:x", c.at(kind)), &c.at(kind)),
        }
    }
    // Plain layers become packed ones there.
    c.imgtool(&["squash", "localhost/commit:1", "plain", "--compression", "none"]).ok();
    c.imgtool(&["export", "plain", &c.at("plain")]).ok();
    let plain = c.known("plain", "plain");
    let to = format!("oci:{}:x", c.at("zstd"));
    let options = ["--insecure-policy", "copy", "-q", "--dest-compress-format", "zstd"];
    run("skopeo", &[&options[..], &[&format!("oci:{}:plain", c.at("plain")), &to]].concat());
    let raw = run("skopeo", &["inspect", "--raw", &to]).json();
    assert_eq!(raw["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
    is_still(&c, &plain, &c.at("zstd"));
}

/// A bundle of umoci, made to run without a terminal.
#[track_caller]
fn umoci_unpack(image: &str, bundle: &Path) {
    run("umoci", &["unpack", "--image", image, bundle.to_str().unwrap()]);
    let file = bundle.join("config.json");
    let mut config = read(&file);
    config["process"]["terminal"] = json!(false);
    fs::write(file, config.to_string()).unwrap();
}

#[test]
fn changed_images_run_as_umoci_unpacks_them() {
    needs_root!();
    needs_program!("umoci");
    let s = Scratch::new("umoci");
    let c = Changes { dir: s.path.clone() };
    let p = Place::new();
    for i in exported(&c) {
        let bundle = s.path.join("bundle");
        umoci_unpack(&format!("{}:{}", c.at("layout"), i.kind), &bundle);
        assert_eq!(p.run(&bundle).ok().stdout, i.says, "{}", i.kind);
        fs::remove_dir_all(&bundle).unwrap();
    }
    let told = run("umoci", &["stat", "--json", "--image", &format!("{}:append", c.at("layout"))]).json();
    let steps = told["history"].as_array().unwrap();
    assert_eq!(steps.iter().filter(|h| h["empty_layer"] != json!(true)).count(), 3);
    assert!(steps.iter().any(|h| h["comment"] == "by hand" && h["author"] == "nobody"), "{told}");
}

#[test]
fn what_umoci_makes_comes_as_it_unpacks_it() {
    needs_root!();
    needs_program!("umoci");
    let s = Scratch::new("umoci");
    let at = |name: &str| s.path.join(name).to_str().unwrap().to_string();
    let (layout, image) = (at("layout"), at("layout:x"));
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &image]);
    let cmd: Vec<String> = ["/bin/sh", "-c", TELL].iter().map(|w| format!("--config.cmd={w}")).collect();
    let mut config =
        vec!["config", "--image", &image, "--config.env=WORD=u", "--config.workingdir=/etc", "--author=me"];
    config.extend(cmd.iter().map(|w| &w[..]));
    run("umoci", &config);
    // A system, then a layer that hides things of it, then what `insert` adds.
    let bundle = s.path.join("first");
    umoci_unpack(&image, &bundle);
    crate::support::make_rootfs(&bundle.join("rootfs"));
    fs::create_dir_all(bundle.join("rootfs/opt/old")).unwrap();
    fs::write(bundle.join("rootfs/opt/old/a"), "a").unwrap();
    fs::hard_link(bundle.join("rootfs/opt/old/a"), bundle.join("rootfs/opt/b")).unwrap();
    run("umoci", &["repack", "--image", &image, bundle.to_str().unwrap()]);
    let again = s.path.join("second");
    umoci_unpack(&image, &again);
    fs::remove_dir_all(again.join("rootfs/opt/old")).unwrap();
    fs::remove_file(again.join("rootfs/bin/yes")).unwrap();
    fs::write(again.join("rootfs/opt/old"), "a file now").unwrap();
    run("umoci", &["repack", "--image", &image, "--history.comment=hides", again.to_str().unwrap()]);
    let add = s.path.join("add");
    fs::create_dir_all(add.join("in")).unwrap();
    fs::write(add.join("in/f"), "inserted").unwrap();
    run("umoci", &["insert", "--image", &image, "--opaque", add.to_str().unwrap(), "/home"]);
    let last = s.path.join("last");
    umoci_unpack(&image, &last);
    let p = Place::new();
    p.imgtool(&["import", &layout, "x"]).ok();
    let ours = p.unpack("x", &[]);
    let theirs = scan(&last.join("rootfs"));
    same(&theirs, &mounted(&p, "x"), "umoci's own image");
    assert_eq!(p.run(&ours).ok().stdout, p.run(&last).ok().stdout);
    let history = p.imgtool(&["inspect", "x"]).ok().json()["history"].clone();
    assert!(history.as_array().unwrap().iter().any(|h| h["comment"] == "hides"), "{history}");
    // Both say the same of the process.
    let process = |b: &Path| {
        let c = read(b.join("config.json"));
        json!([c["process"]["args"], c["process"]["cwd"], c["process"]["user"]["uid"]])
    };
    assert_eq!(process(&ours), process(&last));
}
