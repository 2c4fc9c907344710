//! Bundles: where they are made and mounted, and what is left of them.

use crate::make::{Image, Place, script};
use crate::support::{self, finish, rounds};
use crate::{needs_root, two_layers};
use std::fs;

/// fsconfig(2) takes 255 bytes of a path, and overlayfs a backslash for an escape.
#[test]
fn long_and_odd_paths_are_mounted() {
    needs_root!();
    let p = Place::new();
    let deep = p.path().join(["p"; 4].map(|x| x.repeat(70)).join("/"));
    fs::create_dir_all(&deep).unwrap();
    let store = deep.join("store");
    let imgtool = |args: &[&str]| {
        let mut c = std::process::Command::new(support::ORLOP);
        finish(c.args(["imgtool", "--store"]).arg(&store).args(args))
    };
    let source = Image::new(two_layers()).config(script("cat /old/b; echo >> /old/b")).write();
    imgtool(&["import", source.path(), "x"]).ok();
    for bundle in [p.path().join("b"), deep.join("b"), p.path().join(r"a\b,c:d e\:")] {
        for (n, flags) in
            [&["--mount"][..], &["--no-mount"], &["--no-mount", "--rootfs-readonly"]].into_iter().enumerate()
        {
            let bundle = format!("{}{n}", bundle.display());
            imgtool(&[&["unpack", "x", &bundle], flags].concat()).ok();
            let out = p.run(bundle.as_ref());
            assert_eq!(out.stdout, "b", "{bundle} {flags:?}: {}", out.stderr);
            if n == 0 {
                imgtool(&["umount", &bundle]).ok();
            }
        }
    }
}

#[test]
fn a_bundle_is_made_only_where_it_can_stay() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(two_layers()).write().path(), "x"]).ok();
    for name in ["layers/b", "refs/b", "tmp", "b"] {
        let path = p.store().join(name);
        p.imgtool(&["unpack", "x", path.to_str().unwrap()]).fails("lies in the store");
        assert_eq!(path.exists(), name == "tmp", "{name}");
    }
    use std::os::unix::ffi::OsStrExt;
    let odd = p.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
    finish(p.command(&["unpack", "x"]).arg(&odd)).fails("UTF-8");
    assert!(!odd.exists());
    assert_eq!(fs::read_dir(p.store().join("bundles")).unwrap().count(), 0);
    p.imgtool(&["import", Image::new(two_layers()).write().path(), "two words"]).fails("has blanks");
}

#[test]
fn the_next_unpack_clears_what_a_kill_left() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(two_layers()).config(script("cat /old/b")).write().path(), "x"]).ok();
    let bundle = p.path().join("half");
    let path = bundle.to_str().unwrap();
    for flag in ["--mount", "--no-mount"] {
        p.imgtool(&["unpack", flag, "x", path]).ok();
        // As a kill just before the end leaves it; a collection meanwhile does not forget it.
        fs::rename(bundle.join("config.json"), bundle.join(".config.json.new")).unwrap();
        fs::remove_file(bundle.join("overlay.json")).unwrap();
        fs::create_dir(bundle.join(".lower")).unwrap(); // of older kernels
        p.imgtool(&["gc"]).ok();
        p.imgtool(&["unpack", "x", path]).ok();
        assert_eq!(p.run(&bundle).ok().stdout, "b");
        p.remove(&bundle);
    }
    // As a power cut leaves what nothing had made durable.
    for (name, text) in [("config.json", ""), ("config.json", "\0\0\0"), ("overlay.json", "{\"lower\":[")] {
        p.imgtool(&["unpack", "--no-mount", "x", path]).ok();
        fs::write(bundle.join(name), text).unwrap();
        p.imgtool(&["unpack", "x", path]).ok();
        assert_eq!(p.run(&bundle).ok().stdout, "b");
        p.remove(&bundle);
    }
    p.imgtool(&["unpack", "--no-mount", "x", path]).ok();
    fs::write(bundle.join("config.json"), "{]").unwrap();
    p.imgtool(&["unpack", "x", path]).fails("is not empty");
    p.remove(&bundle);
    // What somebody has written is kept.
    p.imgtool(&["unpack", "--no-mount", "x", path]).ok();
    fs::remove_file(bundle.join("config.json")).unwrap();
    fs::write(bundle.join("upper/mine"), "").unwrap();
    p.imgtool(&["unpack", "x", path]).fails("is not empty");
    assert!(bundle.join("upper/mine").exists());
}

#[test]
fn unpacks_at_once_make_one_bundle() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(two_layers()).config(script("cat /old/b")).write().path(), "x"]).ok();
    for _ in 0..rounds(3, 50) {
        let bundle = p.path().join("same");
        let path = bundle.to_str().unwrap();
        let all: Vec<_> = std::thread::scope(|s| {
            let unpack = || p.imgtool(&["unpack", "x", path]);
            let threads: Vec<_> = (0..4).map(|_| s.spawn(unpack)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(all.iter().filter(|o| o.status.success()).count(), 1, "{all:?}");
        assert_eq!(p.run(&bundle).ok().stdout, "b");
        p.remove(&bundle);
    }
}

#[test]
fn mounts_at_once_make_one() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(two_layers()).write().path(), "x"]).ok();
    let bundle = p.unpack("x", &["--no-mount"]);
    let path = bundle.to_str().unwrap();
    for _ in 0..rounds(5, 50) {
        let all: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(|| p.imgtool(&["mount", path]))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(all.iter().filter(|o| o.status.success()).count(), 1, "{all:?}");
        p.imgtool(&["umount", path]).ok();
        assert!(!p.is_mounted(&bundle));
    }
}

#[test]
fn mount_and_umount_say_what_is_there() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(two_layers()).config(script("cat /old/b")).write().path(), "x"]).ok();
    let bundle = p.unpack("x", &[]);
    let path = bundle.to_str().unwrap();
    p.imgtool(&["mount", path]).fails("is mounted already");
    p.imgtool(&["umount", path]).ok();
    p.imgtool(&["umount", path]).fails("is not mounted");
    p.imgtool(&["mount", path]).ok();
    assert_eq!(p.run(&bundle).ok().stdout, "b");
    p.imgtool(&["unpack", "x", path]).fails("is not empty");
    p.imgtool(&["umount", p.path().to_str().unwrap()]).fails("no such file or directory");
}
