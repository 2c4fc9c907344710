//! What an image says of users, what other users see of the store, and what reaches a terminal.

use crate::make::{Entry, Image, Layout, Place, base, device, dir, fifo, file, layer, link};
use crate::needs_root;
use crate::raw::{Tar, head};
use crate::support::{Outcome, Scratch, finish};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

#[test]
fn passwd_and_group_of_an_image_are_files_of_a_fit_size() {
    needs_root!();
    let p = Place::new();
    let unpack = |entries: Vec<Entry>, user: &str| {
        let source = Image::new(vec![layer(&entries)]).config(json!({"User": user, "Cmd": ["true"]})).write();
        p.imgtool(&["import", source.path(), "x"]).ok();
        let out = p.imgtool(&["unpack", "--no-mount", "x", p.path().join("b").to_str().unwrap()]);
        let _ = fs::remove_dir_all(p.path().join("b"));
        out
    };
    let web = || file("etc/passwd", "web:x:5:6::/:\n");
    for special in [fifo("etc/passwd"), device("etc/passwd"), dir("etc/passwd", 0o755)] {
        unpack(vec![special], "web").fails("/etc/passwd of the image: is not a regular file");
    }
    for special in [fifo("etc/group"), device("etc/group"), dir("etc/group", 0o755)] {
        unpack(vec![web(), special], "web").fails("/etc/group of the image: is not a regular file");
    }
    // Out of the image there is nothing.
    unpack(vec![link("etc/passwd", "/proc/self/root/etc/passwd")], "root")
        .fails("is not in the image's /etc/passwd");
    unpack(vec![link("etc", "/../../../../../../etc")], "root").fails("");
    unpack(vec![web(), link("etc/group", "passwd")], "web:web").ok();
    // Numbers are never names, and never too large.
    unpack(vec![file("etc/passwd", "1000:x:0:0::/:\n")], "1000").ok();
    for user in ["4294967295", "4294967296", "-1", "+0", "0x0", " 0", "web\n"] {
        unpack(vec![web()], user).fails("");
    }
    // A gigabyte of it, in a hole.
    let holes: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"1073741824"), ("GNU.sparse.map", b"0,1")];
    let huge = Tar::default().pax(&holes).entry(head(b'0', "etc/passwd"), b"w").end();
    let source = Image::new(vec![huge]).config(json!({"User": "web", "Cmd": ["true"]})).write();
    p.imgtool(&["import", source.path(), "huge"]).ok();
    let out = p.imgtool(&["unpack", "--no-mount", "huge", p.path().join("b").to_str().unwrap()]);
    out.fails("1073741824 bytes, at most 4194304 are read");
}

#[test]
fn a_second_user_reaches_nothing_of_a_store() {
    needs_root!();
    let p = Place::new();
    let suid = layer(&[file("secret", "secret"), device("null")]);
    let su = Tar::default().entry(head(b'0', "su").mode(0o4755), b"#!/bin/sh\n").end();
    p.imgtool(&["import", Image::new(vec![layer(&base()), suid, su]).write().path(), "x"]).ok();
    let bundle = p.unpack("x", &[]);
    let out = p.path().join("out.tar");
    p.imgtool(&["export", "x", out.to_str().unwrap()]).ok();
    let mut found = Vec::new();
    let mut todo = vec![p.store(), bundle.clone()];
    while let Some(path) = todo.pop() {
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        found.push(path);
    }
    assert!(found.len() > 30);
    let other = |script: &str, path: &Path| {
        let mut c = Command::new("sh");
        finish(c.args(["-c", script, "sh"]).arg(path).uid(12345).gid(12345))
    };
    for place in [p.store(), bundle.clone()] {
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o7777, 0o700);
        assert!(!other("ls \"$1\" || cd \"$1\" || test -e \"$1\"/.", &place).status.success());
    }
    for path in found.iter().filter(|f| **f != p.store() && **f != bundle).take(200) {
        assert!(!other("test -e \"$1\" || test -L \"$1\"", path).status.success(), "{}", path.display());
    }
    // One that was opened to all is closed again.
    fs::set_permissions(p.store(), fs::Permissions::from_mode(0o777)).unwrap();
    p.imgtool(&["list"]).ok();
    assert_eq!(fs::metadata(p.store()).unwrap().mode() & 0o7777, 0o700);
    p.remove(&bundle);
}

/// Nothing that a terminal would act on.
#[track_caller]
fn is_plain(out: &Outcome, what: &str) {
    let all = format!("{}{}", out.stdout, out.stderr);
    let odd = all.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(odd, None, "{what}: {all:?}");
}

/// Sets the window's title, clears the screen, and so on.
const EVIL: &str = "\u{1b}]0;evil\u{7}\u{1b}[2J\u{9b}31m\r\u{8}";

#[test]
fn nothing_of_an_image_reaches_a_terminal_raw() {
    needs_root!();
    let p = Place::new();
    let s = Scratch::new("escapes");
    let layers = || vec![layer(&base()), Tar::default().long(&format!("d/{EVIL}"), "1").end()];
    let config = json!({"Cmd": [EVIL], "Labels": {EVIL: EVIL, "org.criu.config": EVIL}, "StopSignal": EVIL});
    let source = Image::new(layers()).config(config).write();
    source.edit_config(|c| {
        c["author"] = json!(EVIL);
        c["created"] = json!("2020-01-01T00:00:00Z");
        c["history"] = json!([{"created_by": EVIL, "comment": EVIL}, {"created_by": EVIL, "author": EVIL}]);
    });
    let out = p.imgtool(&["import", source.path(), "x"]);
    is_plain(&out, "import");
    out.ok();
    p.imgtool(&["tag", "x", "y"]).ok();
    let bundle = p.path().join("b");
    let b = bundle.to_str().unwrap();
    for args in [
        &["unpack", "x", b][..],
        &["list"],
        &["inspect", "x"],
        &["inspect", "--format", "docker", "x"],
        &["history", "x"],
        &["tree", "--depth", "3", "x"],
        &["diff", "x", b],
        &["diff", "--layers", "x", "y"],
        &["df"],
        &["log", "x"],
        &["verify"],
        &["squash", "x", EVIL],
        &["inspect", EVIL],
        &["rm", EVIL],
    ] {
        is_plain(&p.imgtool(args), &args.join(" "));
    }
    fs::write(bundle.join("rootfs").join(EVIL), "").unwrap();
    is_plain(&p.imgtool(&["diff", b]), "diff");
    p.remove(&bundle);
    let evil = |edit: &dyn Fn(&Layout)| {
        let source = Image::new(layers()).write();
        edit(&source);
        let out = p.imgtool(&["import", source.path(), "bad"]);
        is_plain(&out, "import of what is refused");
        assert!(!out.status.success());
    };
    evil(&|s| s.edit_index(|i| i["manifests"][0]["digest"] = json!(EVIL)));
    evil(&|s| s.edit_index(|i| i["manifests"][0]["mediaType"] = json!(EVIL)));
    evil(&|s| s.edit_manifest(|m| m["mediaType"] = json!(EVIL)));
    evil(&|s| s.edit_manifest(|m| m["layers"][0]["mediaType"] = json!(EVIL)));
    evil(&|s| s.edit_config(|c| c["os"] = json!(EVIL)));
    evil(&|s| s.edit_config(|c| c["rootfs"]["type"] = json!(EVIL)));
    evil(&|s| s.edit_config(|c| c["rootfs"]["diff_ids"][0] = json!(EVIL)));
    // Names of images, from annotations.
    let source = Image::new(layers()).name(EVIL).write();
    let out = p.imgtool(&["import", source.path()]);
    is_plain(&out, "import under an evil name");
    out.fails("image name");
    // Entries that are refused.
    for bad in [
        Tar::default().long(&format!("{EVIL}/../x"), ""),
        Tar::default().soft(EVIL, "x").long(&format!("f{EVIL}"), "").long(&format!("f{EVIL}/g"), ""),
        Tar::default().pax(&[(&format!("SCHILY.xattr.user.{EVIL}"), &[0; 70_000])]).file("f", ""),
        Tar::default().hard("h", EVIL),
    ] {
        let source = Image::new(vec![bad.end()]).write();
        let out = p.imgtool(&["import", source.path(), "bad"]);
        is_plain(&out, "import of a layer that is refused");
        assert!(!out.status.success());
    }
    let path = s.path.join(EVIL);
    is_plain(&p.imgtool(&["import", path.to_str().unwrap()]), "a source that is not there");
}
