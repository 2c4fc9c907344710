//! What goes wrong in use, each by what is said of it: the image, the layer, the path, the call, its error, the remedy.

use crate::make::{self, Image, Packing, Place, Small, base, file, layer, script};
use crate::support::{self, Outcome, Scratch, finish, finish_within};
use crate::{image, needs_root, place, shell};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The one line of an error, without the program's name.
#[track_caller]
fn told(out: Outcome) -> String {
    assert_eq!(out.code(), 1, "{}{}", out.stdout, out.stderr);
    let errors: Vec<&str> = out.stderr.lines().filter_map(|l| l.strip_prefix("orlop: imgtool: ")).collect();
    assert_eq!((errors.len(), out.stdout.as_str()), (1, ""), "{}", out.stderr);
    let line = errors[0].to_string();
    assert!(!line.contains(": : ") && !line.chars().any(char::is_control), "{line}");
    line
}

/// Each of the parts is in the message, in this order.
#[track_caller]
fn says(out: Outcome, parts: &[&str]) {
    let line = told(out);
    let mut rest = &line[..];
    for part in parts {
        let Some(n) = rest.find(part) else { panic!("{part:?} is not in its place in: {line}") };
        rest = &rest[n + part.len()..];
    }
}

fn layers_of(p: &Place, image: &str) -> Vec<Value> {
    p.imgtool(&["inspect", image]).ok().json()["layers"].as_array().unwrap().clone()
}

#[test]
fn what_is_named_wrongly_is_said_with_a_remedy() {
    needs_root!();
    let (p, digest) = place("x");
    let bundle = p.unpack("x", &["--no-mount"]);
    let b = bundle.to_str().unwrap();
    let s = Scratch::new("wrong");
    let at = |name: &str| s.path.join(name).to_str().unwrap().to_string();
    fs::write(at("file"), "some text that is no archive ".repeat(100)).unwrap();
    fs::create_dir(at("empty")).unwrap();
    let (file, empty, none) = (&at("file")[..], &at("empty")[..], &at("none")[..]);
    let list = "see orlop imgtool list";
    for (args, parts) in [
        // No image of the name, or something else.
        (&["inspect", "none"][..], &["image \"none\": does not exist; ", list][..]),
        (&["unpack", "none", none], &["image \"none\": does not exist; ", list]),
        (&["push", "none", "localhost:1/x"], &["image \"none\": does not exist; ", list]),
        (&["rebase", "x", "y", "--onto", "none"], &["image \"none\": does not exist"]),
        (&["untag", "none"], &["name \"none\": does not exist; ", list]),
        (&["log", "none"], &["name \"none\": has no log; ", list]),
        (&["revert", "x", "9"], &["name \"x\": named 1 images, none 9 before"]),
        (&["inspect", b], &["image \"", b, "\": does not exist; it is a bundle"]),
        (&["unpack", file, none], &["\": does not exist; it is a file or directory", "orlop imgtool import"]),
        (&["tag", "x", "a b"], &["image name \"a b\": is empty, starts with - or has blanks"]),
        (&["rm-layer", "x", "7", "y"], &["x: has no layer 7, only 1 to 2; see orlop imgtool tree"]),
        (&["squash", "x", "y", "--from", "2", "--to", "1"], &["--from: 2 is above --to 1"]),
        (&["diff", "x"], &["x: is an image, which is compared with a second one"]),
        // No source.
        (&["import", none], &[none, ": open: no such file or directory"]),
        (&["import", "alpine"], &["alpine: open: no such file or directory; ", "orlop imgtool pull"]),
        (&["import", "oci:/none:x"], &["oci:/none:x: open: no such file or directory; give the path alone"]),
        (&["import", file], &[file, ": has a header with a wrong checksum or is no tar archive"]),
        (&["import", empty], &[empty, ": has neither index.json of an OCI layout nor manifest.json"]),
        (&["import", file, "--platform", "x"], &["--platform: \"x\" is not os/arch[/variant]"]),
        (&["append", "x", none, "y"], &["image \"x\": ", none, ": stat: no such file or directory"]),
        (
            &["append", "x", file, "y"],
            &["image \"x\": ", file, ": layer sha256:", ": has a header with a wrong"],
        ),
        // No bundle, or no room for one.
        (&["mount", none], &[none, ": open: no such file or directory"]),
        (&["mount", empty], &[empty, "/overlay.json: read: no such file or directory; is it a bundle"]),
        (&["umount", b], &[b, "/rootfs: is not mounted"]),
        (
            &["commit", empty, "y"],
            &[empty, "/overlay.json: read: no such file", "is it a bundle of imgtool unpack?"],
        ),
        (&["unpack", "x", b], &["image \"x\": ", b, ": is not empty"]),
        (&["unpack", "x", file], &["image \"x\": ", file, ": ", ": not a directory"]),
        (
            &["unpack", "x", &format!("{none}/below")],
            &["image \"x\": ", none, "/below: make: no such file or directory"],
        ),
        // No destination.
        (&["export", "x", &format!("{file}/y")], &["image \"x\": ", file, "/y: make: not a directory"]),
        (
            &["export", "x", &format!("{none}/y.tar")],
            &[none, "/y.tar: make a file beside: no such file or directory"],
        ),
        (&["export", "x", file], &["image \"x\": ", file, ": ", "not a directory"]),
        (&["push", "x", "A"], &["image \"A\": \"A\" is no name of a repository; "]),
        (
            &["pull", "localhost:1/x"],
            &["localhost:1/x:latest: ", "localhost:1", ": connect", "connection refused"],
        ),
        (&["pull", "docker://localhost:1/x"], &["localhost:1/x:latest: ", "connection refused"]),
        // The command line.
        (
            &["inspect"],
            &["required arguments were not provided: <IMAGE>", "; see orlop imgtool inspect --help"],
        ),
        (
            &["list", "--format", "yaml"],
            &["invalid value 'yaml' for '--format <FORM>'", "table, json", "; see orlop imgtool list --help"],
        ),
        (&["frob"], &["unrecognized subcommand 'frob'", "; see orlop imgtool --help"]),
    ] {
        says(p.imgtool(args), parts);
    }
    assert_eq!(p.imgtool(&["list", "-q"]).ok().stdout, "x\n");
    assert_eq!(p.imgtool(&["-q", "inspect", "x"]).ok().stdout.trim(), digest);
    p.remove(&bundle);
}

#[test]
fn what_is_no_store_is_said() {
    needs_root!();
    let s = Scratch::new("store");
    let at = |name: &str| s.path.join(name).to_str().unwrap().to_string();
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/x"), "").unwrap();
    fs::create_dir(at("theirs")).unwrap();
    std::os::unix::fs::chown(at("theirs"), Some(12345), None).unwrap();
    let other = "; --store or ORLOP_STORE names another store";
    for (store, parts) in [
        (at("file"), ["file: open: not a directory", other]),
        (at("file/x"), ["file/x: make: not a directory", other]),
        (at("full"), ["full: is neither a store nor empty", other]),
        (at("theirs"), ["theirs: belongs to another user", other]),
    ] {
        let mut c = Command::new(support::ORLOP);
        says(finish(c.args(["imgtool", "--store", &store, "list"]).stdin(Stdio::null())), &parts);
    }
    let mut c = Command::new(support::ORLOP);
    says(
        finish(c.args(["imgtool", "--store", &at("none"), "fsck"])),
        &["none: open: no such file or directory"],
    );
    assert!(!Path::new(&at("none")).exists());
}

#[test]
fn what_the_store_has_lost_is_said_with_its_image() {
    needs_root!();
    let hex = |v: &Value, key: &str| v[key].as_str().unwrap()["sha256:".len()..].to_string();
    let fsck = "; run orlop imgtool fsck";
    // The configuration.
    let (p, _) = place("x");
    let config = hex(&p.imgtool(&["inspect", "x"]).ok().json(), "configDigest");
    fs::remove_file(p.store().join("blobs/sha256").join(&config)).unwrap();
    let bundle = p.path().join("b");
    let b = bundle.to_str().unwrap();
    for args in [
        &["unpack", "x", b][..],
        &["history", "x"],
        &["inspect", "x"],
        &["tree", "x"],
        &["diff", "x", "x"],
        &["squash", "x", "y"],
        &["export", "x", b],
    ] {
        let parts = ["image \"x\": blob sha256:", &config, ": read ", ": no such file or directory", fsck];
        says(p.imgtool(args), &parts);
    }
    // A layer.
    let (p, _) = place("x");
    let lost = &layers_of(&p, "x")[1];
    fs::remove_dir_all(p.store().join("layers").join(hex(lost, "diffID"))).unwrap();
    for args in [&["unpack", "x", b][..], &["tree", "x"], &["squash", "x", "y"]] {
        let parts = ["image \"x\": layer sha256:", &hex(lost, "diffID"), ": is not in the store", fsck];
        says(p.imgtool(args), &parts);
    }
    assert!(!bundle.exists());
    // A blob of a layer.
    let (p, _) = place("x");
    let blob = &layers_of(&p, "x")[1];
    fs::remove_file(p.store().join("blobs/sha256").join(hex(blob, "digest"))).unwrap();
    let parts =
        ["image \"x\": layer 2 (sha256:", &hex(blob, "digest"), "): its blob is not in the store; import"];
    says(p.imgtool(&["export", "x", b]), &parts);
    // All of it comes back.
    p.imgtool(&["import", image().write().path(), "x"]).ok();
    p.imgtool(&["export", "x", b]).ok();
    // A source that lacks a layer.
    let source = image().write();
    source.remove_layer(1);
    says(
        p.imgtool(&["import", source.path(), "y"]),
        &[source.path(), ": layer sha256:", ": blobs/sha256/", ": is missing"],
    );
}

#[test]
fn a_full_disk_is_said_with_what_was_written() {
    needs_root!();
    let p = Place::new();
    let small = Small::new(&p, "size=3m");
    let data = "x".repeat(4 << 20);
    // One layer: of two at once either may be the first that finds the disk full.
    let mut entries = base();
    entries.push(file("opt/big", &data));
    let source = Image::new(vec![layer(&entries)]).config(script("true")).write();
    let run = |args: &[&str]| {
        let mut c = Command::new(support::ORLOP);
        c.args(["imgtool", "--store", &small.path("store")]).args(args).stdin(Stdio::null());
        finish_within(&mut c, Duration::from_secs(60))
    };
    let out = run(&["import", source.path(), "x", "--no-blobs"]);
    let remedy =
        "no space left on device; orlop imgtool df shows what the store takes, gc removes what nothing uses";
    says(out, &[source.path(), ": layer sha256:", ": entry \"", "\": write: ", remedy]);
    let packed = p.path().join("packed.tar.gz");
    fs::write(&packed, make::pack(Packing::Gzip, &source.tar())).unwrap();
    let packed = packed.to_str().unwrap();
    says(
        run(&["import", packed, "x"]),
        &[packed, ": ", &small.path("store/tmp"), "/archive: write: ", remedy],
    );
    assert_eq!(run(&["list", "-q"]).ok().stdout, "");
    assert_eq!(fs::read_dir(small.path("store/tmp")).unwrap().count(), 0);
    // The store has room, but not what is made of it.
    p.imgtool(&["import", source.path(), "x"]).ok();
    let dest = small.path("x.tar");
    says(
        p.imgtool(&["export", "x", &dest]),
        &["image \"x\": ", &dest, ": blobs/sha256/", ": write: no space left on device"],
    );
    assert!(!Path::new(&dest).exists());
    let tight = Small::new(&p, "nr_inodes=3");
    for name in ["b", "c"] {
        let bundle = tight.path(name);
        let said = told(p.imgtool(&["unpack", "x", &bundle, "--no-mount"]));
        let is_in_it = said.starts_with(&format!("image \"x\": {bundle}/"));
        assert!(is_in_it && said.contains(": make: no space left on device"), "{said}");
        assert!(!Path::new(&bundle).exists());
    }
}

#[test]
fn a_read_only_store_is_said_with_the_call() {
    needs_root!();
    let (p, _) = place("x");
    // Its `$4` is the store.
    let read_only = |also: &str, args: &[&str]| {
        let script =
            format!("mount --bind \"$4\" \"$4\" && mount -o remount,ro,bind \"$4\" {also} && exec \"$@\"");
        let mut c = Command::new("unshare");
        c.args(["-m", "sh", "-c", &script, "sh", support::ORLOP, "imgtool", "--store"])
            .arg(p.store())
            .args(args);
        finish_within(c.stdin(Stdio::null()), Duration::from_secs(60))
    };
    let (source, bundle) = (image().write(), p.path().join("b"));
    let unpack = ["unpack", "x", bundle.to_str().unwrap()];
    for args in [&["import", source.path(), "y"][..], &["tag", "x", "y"], &["rm", "x"], &["gc"], &unpack] {
        says(read_only("", args), &[p.store().to_str().unwrap(), "read-only file system"]);
    }
    assert!(!bundle.exists());
    for args in [&["list"][..], &["inspect", "x"], &["history", "x"], &["df"]] {
        read_only("", args).ok();
    }
    // verify and fsck make layers again, info tries a mount: they need a place for that.
    for args in [&["verify"][..], &["fsck"], &["info"]] {
        let remedy = "make: read-only file system; remount it; for verify, fsck and info a tmpfs mounted on the \
                      store's tmp/ will do";
        says(read_only("", args), &[p.store().join("tmp").to_str().unwrap(), remedy]);
        read_only("&& mount -t tmpfs none \"$4/tmp\"", args).ok();
    }
}

#[test]
fn what_is_in_use_is_said() {
    needs_root!();
    let (p, _) = place("x");
    let bundle = p.unpack("x", &["--mount"]);
    let b = bundle.to_str().unwrap();
    says(p.imgtool(&["mount", b]), &[b, "/rootfs: is mounted already"]);
    let busy = "cd \"$6/rootfs\" && exec \"$@\"";
    let parts = [b, "/rootfs: umount: device or resource busy; a container or another process uses it"];
    says(shell(&p, busy, &["umount", b]), &parts);
    // The name goes, what the bundle stands on stays.
    let out = p.imgtool(&["rm", "x"]).ok().stdout;
    assert_eq!(out, format!("x: removed, 0 layers and 0 blobs, 0 B\n{b}: keeps its layers\n"));
    assert_eq!(p.run(&bundle).ok().stdout, "22");
    p.remove(&bundle);
}

#[test]
fn a_layer_is_said_with_the_path_in_it() {
    needs_root!();
    let p = Place::new();
    let bad = layer(&[file("a/.wh..", "")]);
    let source = Image::new(vec![layer(&base()), bad]).write();
    says(
        p.imgtool(&["import", source.path(), "x"]),
        &[source.path(), ": layer sha256:", ": entry \"a/.wh..\": hides"],
    );
    let out = p.imgtool(&["import", image().write().path(), "x", "--max-entries", "2"]);
    says(out, &[": layer sha256:", ": has more than 2 entries; raise --max-entries"]);
}
