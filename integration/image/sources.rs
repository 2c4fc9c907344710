//! Where images come from: archives, layouts with several images, indexes of platforms.

use crate::make::{self, Image, Packing, Place, script};
use crate::support::{Scratch, finish};
use crate::{needs_root, two_layers};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;

#[test]
fn every_form_of_archive_is_read() {
    needs_root!();
    let p = Place::new();
    let image = Image::new(two_layers()).config(script("cat /old/b")).name("x:1");
    let layout = image.write();
    let s = Scratch::new("archives");
    let path = |name: &str| s.path.join(name).to_str().unwrap().to_string();
    fs::write(path("oci.tar"), layout.tar()).unwrap();
    fs::write(path("oci.tar.gz"), make::pack(Packing::Gzip, &layout.tar())).unwrap();
    fs::write(path("oci.tar.zst"), make::pack(Packing::Zstd, &layout.tar())).unwrap();
    fs::write(path("old.tar"), image.docker_save(false)).unwrap();
    fs::write(path("new.tar"), image.docker_save(true)).unwrap();
    let mut digests = Vec::new();
    for (file, name) in [
        ("oci.tar", "x:1"),
        ("oci.tar.gz", "x:1"),
        ("oci.tar.zst", "x:1"),
        ("old.tar", "saved:1"),
        ("new.tar", "saved:2"),
    ] {
        let out = p.imgtool(&["import", &path(file)]).ok().stdout;
        assert!(out.starts_with(&format!("{name} sha256:")), "{file}: {out}");
        digests.push(out);
        let bundle = p.unpack(name, &[]);
        assert_eq!(p.run(&bundle).ok().stdout, "b", "{file}");
        p.remove(&bundle);
    }
    assert_eq!(digests[0], digests[2]);
    let mut from_pipe = p.command(&["import", "-", "piped"]);
    let out = finish(from_pipe.stdin(fs::File::open(path("oci.tar.gz")).unwrap())).ok();
    assert!(out.stdout.starts_with("piped sha256:"), "{}", out.stdout);
    let listed = p.imgtool(&["list", "--format", "json"]).ok().json();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["piped", "saved:1", "saved:2", "x:1"]);
    let i = p.imgtool(&["inspect", "x"]).fails("does not exist");
    assert!(i.stderr.contains("orlop imgtool list"));
    let i = p.imgtool(&["inspect", "x:1"]).ok().json();
    assert_eq!((i["layers"].as_array().unwrap().len(), &i["layers"][1]["compression"]), (2, &json!("none")));
}

/// A terabyte of them would take minutes to read.
#[test]
fn the_data_of_an_archive_is_not_read_for_its_names() {
    needs_root!();
    let p = Place::new();
    let tar = Image::new(two_layers()).name("x").write().tar();
    let mut h = tar::Header::new_gnu();
    h.set_path("big").unwrap();
    h.set_size(1 << 40);
    h.set_cksum();
    let path = p.path().join("big.tar");
    fs::write(&path, h.as_bytes()).unwrap();
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.set_len(512 + (1 << 40)).unwrap();
    file.write_all(&tar).unwrap();
    p.imgtool(&["import", path.to_str().unwrap()]).ok();
    // What is cut off is still missed, wherever that is.
    let last = p.path().join("last.tar");
    fs::write(&last, [&tar[..tar.len() - 1024], h.as_bytes(), &[0; 4096]].concat()).unwrap();
    p.imgtool(&["import", last.to_str().unwrap()]).fails("ends in the middle of an entry");
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    needs_root!();
    let p = Place::new();
    let source = Image::new(two_layers()).write();
    source.multi_arch(&[("arm64", Some("v8")), ("riscv64", None)]);
    p.imgtool(&["import", source.path(), "multi"])
        .fails("has no image for linux/amd64, only for linux/arm64/v8, linux/riscv64");
    p.imgtool(&["import", "--platform", "linux/arm64", source.path(), "multi"]).ok();
    let source = Image::new(two_layers()).write();
    source.multi_arch(&[("arm64", None), ("amd64", None), ("s390x", None)]);
    p.imgtool(&["import", source.path(), "multi"]).ok();
    // An empty variant is none.
    let source = Image::new(two_layers()).write();
    source.multi_arch(&[("arm", Some(""))]);
    p.imgtool(&["import", "--platform", "linux/arm/v7", source.path(), "arm"]).ok();
}

#[test]
fn an_image_is_taken_whatever_is_wrong_with_others_of_its_source() {
    needs_root!();
    let p = Place::new();
    let image = Image::new(two_layers()).name("a");
    let source = image.write();
    source.edit_index(|i| {
        let mut other = i["manifests"][0].clone();
        other["annotations"] = json!({"org.opencontainers.image.ref.name": "b"});
        other["platform"] = json!({"os": "linux", "architecture": "riscv64"});
        i["manifests"].as_array_mut().unwrap().push(other);
    });
    let saved = Scratch::new("saved");
    tar::Archive::new(&image.docker_save(true)[..]).unpack(&saved.path).unwrap();
    let list = saved.path.join("manifest.json");
    let mut all: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    all.as_array_mut().unwrap().push(json!({"Config": "none.json", "RepoTags": ["b"], "Layers": []}));
    fs::write(&list, all.to_string()).unwrap();
    for (source, name, wrong) in [
        (source.path(), "a", "has no image for linux/amd64"),
        (saved.path.to_str().unwrap(), "saved:2", "is missing"),
    ] {
        p.imgtool(&["import", source, name]).ok();
        p.imgtool(&["import", source, "b"]).fails(wrong);
        p.imgtool(&["import", source]).fails(wrong);
    }
}
