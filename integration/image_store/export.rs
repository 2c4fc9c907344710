//! Images leave the store as they came.

use crate::make::{self, Image, Packing, Place, layer};
use crate::support::{self, Scratch, finish};
use crate::{
    SAYS, blob, has_all_of, image, in_both_forms, index, json, layers, names, needs_program, needs_root,
    same, says, snapshot,
};
use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn an_image_leaves_as_it_came() {
    needs_root!();
    let p = Place::new();
    let out = p.path().join("out");
    let mut want = Vec::new();
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let name = format!("x:{packing:?}").to_lowercase();
        let source = image(&name, packing).write();
        let imported = p.imgtool(&["import", source.path()]).ok().stdout;
        let exported = p.imgtool(&["export", &name, out.to_str().unwrap()]).ok().stdout;
        assert_eq!(imported, exported);
        has_all_of(&out, source.path().as_ref());
        want.push(index(source.path().as_ref()).remove(0));
        assert_eq!(index(&out), want, "others stay in the layout");
    }
    assert_eq!(names(&out), ["blobs", "index.json", "oci-layout"]);
    // A name is moved, not doubled.
    p.imgtool(&["export", "x:zstd", out.to_str().unwrap(), "--name", "x:plain"]).ok();
    let digest = |n: usize| want[n].1.clone();
    let moved: Vec<String> = index(&out).into_iter().map(|i| i.1).collect();
    assert_eq!(moved, [digest(1), digest(2), digest(2)]);
    let q = Place::new();
    q.imgtool(&["import", out.to_str().unwrap()]).ok();
    for name in ["x:plain", "x:gzip", "x:zstd"] {
        assert_eq!(says(&q, name), SAYS);
    }
}

#[test]
fn an_archive_has_the_same_bytes_each_time() {
    needs_root!();
    let p = Place::new();
    let source = image("x:1", Packing::Gzip).write();
    let imported = p.imgtool(&["import", source.path()]).ok().stdout;
    for format in ["oci", "docker"] {
        let file = |n: u32| p.path().join(format!("{format}{n}.tar"));
        for n in 0..2 {
            p.imgtool(&["export", "--format", format, "x:1", file(n).to_str().unwrap()]).ok();
        }
        let bytes = fs::read(file(0)).unwrap();
        assert!(bytes == fs::read(file(1)).unwrap(), "{format}");
        let piped = p.command(&["export", "--format", format, "x:1", "-"]).output().unwrap();
        assert!(piped.status.success() && piped.stdout == bytes, "{format}");
        let q = Place::new();
        let again = q.imgtool(&["import", file(0).to_str().unwrap()]).ok().stdout;
        assert_eq!(again == imported, format == "oci", "docker's archives have no manifest");
        let config = |p: &Place| p.imgtool(&["inspect", "x:1"]).ok().json()["configDigest"].clone();
        assert_eq!(config(&p), config(&q));
        assert_eq!(says(&q, "x:1"), SAYS);
        // What came as docker's archive leaves as a layout, and the other way round.
        let more = p.path().join(format!("{format}-again"));
        q.imgtool(&["export", "x:1", more.to_str().unwrap()]).ok();
        let r = Place::new();
        assert_eq!(r.imgtool(&["import", more.to_str().unwrap()]).ok().stdout, again);
    }
    assert_eq!(names(p.path()).iter().filter(|n| n.starts_with('.')).count(), 0);
}

#[test]
fn dockers_archive_is_that_of_docker_save() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", image("host.example/a/b:1", Packing::Gzip).write().path()]).ok();
    let tar = p.path().join("d.tar");
    p.imgtool(&["export", "--format", "docker", "host.example/a/b:1", tar.to_str().unwrap()]).ok();
    let s = Scratch::new("docker");
    tar::Archive::new(fs::File::open(tar).unwrap()).unpack(&s.path).unwrap();
    let m = json(s.path.join("manifest.json"))[0].clone();
    assert_eq!(m["RepoTags"], serde_json::json!(["host.example/a/b:1"]));
    let repositories = json(s.path.join("repositories"));
    let mut id = repositories["host.example/a/b"]["1"].as_str().unwrap().to_string();
    // By the parents of the topmost layer one comes to all, as versions before 1.10 did.
    for layer in m["Layers"].as_array().unwrap().iter().rev() {
        assert_eq!(layer, &serde_json::json!(format!("{id}/layer.tar")));
        assert_eq!(fs::read(s.path.join(&id).join("VERSION")).unwrap(), b"1.0");
        let v1 = json(s.path.join(&id).join("json"));
        assert_eq!(v1["id"], serde_json::json!(id));
        id = v1["parent"].as_str().unwrap_or_default().to_string();
    }
    assert_eq!(id, "");
    for name in ["Upper:1", "a:b:c"] {
        let out = p.path().join("no.tar");
        p.imgtool(&["export", "--format", "docker", "b:1", out.to_str().unwrap()]).fails("does not exist");
        let args =
            ["export", "--format", "docker", "--name", name, "host.example/a/b:1", out.to_str().unwrap()];
        p.imgtool(&args).fails("--name");
        assert!(!out.exists());
    }
}

#[test]
fn without_blobs_there_is_no_export_until_the_next_import() {
    needs_root!();
    let p = Place::new();
    let source = image("x:1", Packing::Gzip).write();
    p.imgtool(&["import", "--no-blobs", source.path()]).ok();
    assert_eq!(names(&p.store().join("blobs/sha256")).len(), 2, "a manifest and a configuration");
    let out = p.path().join("out");
    let m = json(blob(source.path().as_ref(), &json(source_index(&source))["manifests"][0]["digest"]));
    let first = m["layers"][0]["digest"].as_str().unwrap();
    let told = p.imgtool(&["export", "x:1", out.to_str().unwrap()]).fails("its blob is not in the store");
    assert!(told.stderr.contains(first) && told.stderr.contains("import the image again"), "{}", told.stderr);
    assert!(!out.exists());
    p.imgtool(&["verify"]).ok();
    // Stores of before know nothing of what a tree was.
    for id in names(&p.store().join("layers")) {
        let meta = p.store().join("layers").join(id).join("meta");
        let mut old = json(&meta);
        old.as_object_mut().unwrap().remove("tree").unwrap();
        fs::write(meta, old.to_string()).unwrap();
    }
    p.imgtool(&["verify"]).ok();
    assert_eq!(says(&p, "x:1"), SAYS);
    let layers = || snapshot(&p.store().join("layers"));
    let before = layers();
    p.imgtool(&["import", source.path()]).ok();
    same(&before, &layers());
    p.imgtool(&["export", "x:1", out.to_str().unwrap()]).ok();
    has_all_of(&out, source.path().as_ref());
}

fn source_index(source: &make::Layout) -> std::path::PathBuf {
    Path::new(source.path()).join("index.json")
}

#[test]
fn a_blob_that_comes_late_is_checked_too() {
    needs_root!();
    let p = Place::new();
    let good = image("x:1", Packing::Gzip).write();
    p.imgtool(&["import", "--no-blobs", good.path()]).ok();
    let bad = image("x:2", Packing::Gzip).write();
    bad.damage_layer(1, |b| b[4] ^= 1); // inflates to the same
    p.imgtool(&["import", bad.path()]).fails("have the digest");
    // The blob is what its descriptor says, but no blob of this layer.
    let other = Image::new(vec![layers()[0].clone(), layer(&[make::file("other", "")])])
        .packing(Packing::Gzip)
        .name("x:3")
        .write();
    let id = json(blob(good.path().as_ref(), &config_of(good.path().as_ref())))["rootfs"]["diff_ids"].clone();
    other.edit_config(|c| c["rootfs"]["diff_ids"] = id);
    p.imgtool(&["import", other.path(), "x:3"]).fails("has the diffID");
    assert_eq!(names(&p.store().join("refs")), ["x%3A1"]);
}

fn config_of(layout: &Path) -> serde_json::Value {
    json(blob(layout, &json(layout.join("index.json"))["manifests"][0]["digest"]))["config"]["digest"].clone()
}

#[test]
fn each_packing_of_a_layer_is_kept_as_long_as_it_is_named() {
    needs_root!();
    let p = Place::new();
    for packing in [Packing::Gzip, Packing::Zstd] {
        let name = format!("x:{packing:?}").to_lowercase();
        p.imgtool(&["import", image(&name, packing).write().path()]).ok();
    }
    let count = |sub: &str| names(&p.store().join(sub)).len();
    assert_eq!((count("layers"), count("blobs/sha256")), (2, 7), "one configuration");
    p.imgtool(&["gc"]).ok();
    assert_eq!((count("layers"), count("blobs/sha256")), (2, 7));
    let bundle = p.unpack("x:gzip", &["--no-mount"]);
    p.imgtool(&["rm", "x:gzip"]).ok();
    assert_eq!((count("layers"), count("blobs/sha256")), (2, 7), "the bundle is made of it");
    p.remove(&bundle);
    p.imgtool(&["gc"]).ok();
    assert_eq!((count("layers"), count("blobs/sha256")), (2, 4));
    let out = p.path().join("out");
    p.imgtool(&["export", "x:zstd", out.to_str().unwrap()]).ok();
}

#[test]
fn an_export_goes_only_to_where_it_belongs() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", image("x:1", Packing::Gzip).write().path()]).ok();
    let canary = Scratch::new("canary");
    let export = |dest: &Path| p.imgtool(&["export", "x:1", dest.to_str().unwrap()]);
    fs::write(canary.path.join("precious"), "").unwrap();
    export(&canary.path).fails("is neither empty nor an OCI layout");
    let make = |name: &str| {
        let out = p.path().join(name);
        fs::create_dir(&out).unwrap();
        fs::write(out.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        out
    };
    // A layout is as hostile as whoever made it.
    let out = make("linked");
    std::os::unix::fs::symlink(&canary.path, out.join("blobs")).unwrap();
    export(&out).fails("/blobs: open");
    let out = make("linked-deeper");
    fs::create_dir(out.join("blobs")).unwrap();
    std::os::unix::fs::symlink(&canary.path, out.join("blobs/sha256")).unwrap();
    export(&out).fails("/sha256: open");
    let out = make("linked-index");
    std::os::unix::fs::symlink(canary.path.join("precious"), out.join("index.json")).unwrap();
    export(&out).fails("index.json");
    let out = make("no-index");
    fs::write(out.join("index.json"), "[]").unwrap();
    export(&out).fails("is no index");
    let out = make("new-version");
    fs::write(out.join("oci-layout"), br#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    export(&out).fails("is not 1.0.0");
    assert_eq!(names(&canary.path), ["precious"]);
    assert_eq!(fs::read(canary.path.join("precious")).unwrap(), b"");
    // A blob that is a link is replaced, never written through.
    let out = make("linked-blob");
    fs::create_dir_all(out.join("blobs/sha256")).unwrap();
    for name in names(&p.store().join("blobs/sha256")) {
        std::os::unix::fs::symlink(canary.path.join("precious"), out.join("blobs/sha256").join(name))
            .unwrap();
    }
    export(&out).ok();
    assert_eq!(fs::read(canary.path.join("precious")).unwrap(), b"");
    let q = Place::new();
    q.imgtool(&["import", out.to_str().unwrap()]).ok();
}

#[test]
fn damaged_blobs_do_not_leave_and_do_not_stay() {
    needs_root!();
    let p = Place::new();
    let source = image("x:1", Packing::Gzip).write();
    p.imgtool(&["import", source.path()]).ok();
    let out = p.path().join("out");
    let export = |more: &[&str]| p.imgtool(&[&["export", "x:1", out.to_str().unwrap()], more].concat());
    export(&[]).ok();
    let flip = |dir: &Path| {
        for name in names(&dir.join("blobs/sha256")) {
            let path = dir.join("blobs/sha256").join(name);
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        }
    };
    // Another tool was stopped in the middle of its work on the layout.
    flip(&out);
    export(&[]).ok();
    has_all_of(&out, source.path().as_ref());
    let id = fs::read(source_index(&source)).unwrap();
    let digest = serde_json::from_slice::<serde_json::Value>(&id).unwrap()["manifests"][0]["digest"].clone();
    let layer = json(blob(source.path().as_ref(), &digest))["layers"][1]["digest"].clone();
    let kept = blob(&p.store(), &layer);
    let mut bytes = fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&kept, bytes).unwrap();
    let fresh = p.path().join("fresh");
    let args = ["export", "x:1", fresh.to_str().unwrap()];
    assert!(p.imgtool(&args).fails("is damaged").stderr.contains(layer.as_str().unwrap()));
    assert!(!fresh.join("index.json").exists());
    for format in ["oci", "docker"] {
        let tar = p.path().join("fresh.tar");
        p.imgtool(&["export", "--format", format, "x:1", tar.to_str().unwrap()])
            .fails(layer.as_str().unwrap());
        assert!(!tar.exists());
    }
    fs::write(&kept, "short").unwrap();
    p.imgtool(&args).fails("has 5 bytes");
    // Another import brings it back.
    p.imgtool(&["import", source.path()]).ok();
    p.imgtool(&args).ok();
    has_all_of(&fresh, source.path().as_ref());
}

/// The digest of a layer's tar stream says nothing of how much of it an archive was promised.
#[test]
fn dockers_archive_has_all_of_each_layer() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", image("x:1", Packing::Gzip).write().path()]).ok();
    let tar = p.path().join("d.tar");
    let id = &names(&p.store().join("layers"))[0];
    let meta = p.store().join("layers").join(id).join("meta");
    let mut short = json(&meta);
    short["diff_size"] = serde_json::json!(short["diff_size"].as_u64().unwrap() - 512);
    fs::write(meta, short.to_string()).unwrap();
    let out =
        p.imgtool(&["export", "--format", "docker", "x:1", tar.to_str().unwrap()]).fails("the store says");
    assert!(out.stderr.contains("layer sha256:"), "{}", out.stderr);
    assert!(!tar.exists());
}

#[test]
fn an_export_is_on_disk_before_its_index_names_it() {
    needs_root!();
    needs_program!("strace");
    let p = Place::new();
    p.imgtool(&["import", image("x:1", Packing::Gzip).write().path()]).ok();
    let (out, log) = (p.path().join("out"), p.path().join("log"));
    let mut c = Command::new("strace");
    c.args(["-f", "-qq", "-e", "trace=syncfs,/rename,/mkdir", "-o"]).arg(&log).arg(support::ORLOP);
    c.args(["imgtool", "--store"]).arg(p.store()).args(["export", "x:1", out.to_str().unwrap()]);
    support::finish(&mut c).ok();
    let log = fs::read_to_string(log).unwrap();
    let lines: Vec<&str> = log.lines().filter(|l| !l.contains("/store")).collect();
    let at =
        |part: &str| lines.iter().rposition(|l| l.contains(part)).unwrap_or_else(|| panic!("{part}: {log}"));
    let blobs = names(&out.join("blobs/sha256"));
    assert_eq!(blobs.len(), 4);
    let last = blobs.iter().map(|name| at(name)).chain([at("\"sha256\""), at("out\"")]).max().unwrap();
    assert!(last < at("syncfs(") && at("syncfs(") < at("\"index.json\""), "{log}");
}

#[test]
fn exports_at_once_to_one_layout_are_all_in_it() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", image("x", Packing::Gzip).write().path()]).ok();
    let out = p.path().join("out");
    std::thread::scope(|s| {
        for n in 0..8 {
            let (p, out) = (&p, &out);
            s.spawn(move || {
                p.imgtool(&["export", "x", out.to_str().unwrap(), "--name", &format!("n{n}")]).ok()
            });
        }
    });
    let mut have: Vec<String> = index(&out).into_iter().map(|i| i.0).collect();
    have.sort();
    assert_eq!(have, (0..8).map(|n| format!("n{n}")).collect::<Vec<_>>());
    assert_eq!(names(&out), ["blobs", "index.json", "oci-layout"]);
}

/// On a file system that clones, a blob shares its blocks with the source, and is what was verified.
#[test]
fn blobs_are_cloned_where_the_file_system_can() {
    needs_root!();
    needs_program!("mkfs.btrfs");
    let p = Place::new();
    let (image_file, at) = (p.path().join("fs"), p.path().join("mnt"));
    fs::File::create(&image_file).unwrap().set_len(512 << 20).unwrap();
    fs::create_dir(&at).unwrap();
    finish(Command::new("mkfs.btrfs").arg("-q").arg(&image_file)).ok();
    let mounted = finish(Command::new("mount").args(["-o", "loop"]).arg(&image_file).arg(&at));
    if !mounted.status.success() {
        return support::skip("no file system can be mounted from a file");
    }
    let source = image("x:1", Packing::Gzip).write();
    finish(Command::new("cp").arg("-r").arg(source.path()).arg(at.join("in"))).ok();
    let log = p.path().join("log");
    let traced = |args: &[&str]| {
        let mut c = Command::new("strace");
        c.args(["-f", "-qq", "-e", "trace=ioctl", "-o"]).arg(&log).arg(support::ORLOP);
        c.args(["imgtool", "--store"]).arg(at.join("store")).args(args);
        finish(&mut c).ok();
        let text = fs::read_to_string(&log).unwrap();
        let cloned = |l: &&str| (l.contains("FICLONE") || l.contains("ioctl resumed")) && l.ends_with("= 0");
        (text.lines().filter(cloned).count(), text)
    };
    for (args, count) in [
        (&["import", at.join("in").to_str().unwrap()][..], 2),
        (&["export", "x:1", at.join("out").to_str().unwrap()], 4),
    ] {
        let (cloned, log) = traced(args);
        assert_eq!(cloned, count, "{log}");
    }
    has_all_of(&at.join("out"), source.path().as_ref());
    // A clone is hashed as any copy.
    source.damage_layer(1, |b| b[4] ^= 1);
    finish(Command::new("cp").arg("-r").arg(source.path()).arg(at.join("bad"))).ok();
    let mut c = Command::new(support::ORLOP);
    c.args(["imgtool", "--store"]).arg(at.join("other")).arg("import").arg(at.join("bad"));
    finish(&mut c).fails("have the digest");
    assert!(names(&at.join("other/blobs/sha256")).len() <= 1, "the good one may be there");
}

#[test]
fn the_tree_of_a_bundle_is_one_archive() {
    needs_root!();
    in_both_forms(the_tree_of_a_bundle_is_one_archive_in);
}

fn the_tree_of_a_bundle_is_one_archive_in(p: &Place) {
    p.imgtool(&["import", image("x:1", Packing::Gzip).write().path()]).ok();
    let bundle = p.unpack("x:1", &[]);
    let rootfs = bundle.join("rootfs");
    fs::write(rootfs.join("old/new"), "new").unwrap();
    fs::remove_file(rootfs.join("old/a")).unwrap();
    fs::remove_dir_all(rootfs.join("usr")).unwrap();
    fs::create_dir_all(rootfs.join("usr/mine")).unwrap();
    let file = |name: &str| p.path().join(name);
    let export = |name: &str| {
        let file = file(name);
        p.imgtool(&["export", "--rootfs", bundle.to_str().unwrap(), file.to_str().unwrap()]).ok();
        fs::read(file).unwrap()
    };
    let mounted = export("mounted.tar");
    let s = Scratch::new("tree");
    let mut untar = Command::new("tar");
    finish(untar.arg("-xpf").arg(file("mounted.tar")).arg("-C").arg(&s.path).arg("--numeric-owner")).ok();
    let mut told = Vec::new();
    let mut report =
        |path: &[u8], what: String| told.push(format!("{}: {what}", String::from_utf8_lossy(path)));
    let open = |path: &Path| orlop::image::view::open(path).unwrap();
    orlop::image::tree::compare(&open(&rootfs), &open(&s.path), &mut report).unwrap();
    told.retain(|t| !t.contains("has the time")); // of what was written just now, to the nanosecond
    assert_eq!(told, Vec::<String>::new());
    p.imgtool(&["umount", bundle.to_str().unwrap()]).ok();
    assert!(export("unmounted.tar") == mounted);
    let piped = p.command(&["export", "--rootfs", bundle.to_str().unwrap(), "-"]).output().unwrap();
    assert!(piped.stdout == mounted);
    p.imgtool(&["export", "--rootfs", p.path().to_str().unwrap(), "-"]).fails("is it a bundle");
}
