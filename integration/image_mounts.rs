//! Mounts of bundles: after a reboot, read-only ones, uppers elsewhere, and each driver when it is asked for.

mod support;

#[path = "image_mounts/drivers.rs"]
mod drivers;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/make.rs"]
mod make;
#[path = "image_mounts/places.rs"]
mod places;

use make::{Image, Layout, Place, base, dir, file, layer, script};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{ORLOP, Outcome, finish};

const SHOW: &str =
    "cat /old/b /again/new; test -e /gone && echo there; cat /written; echo more >> /written; stat -c %a /";

fn image() -> Layout {
    let mut low = base();
    low[0] = dir("./", 0o751);
    low.extend([
        dir("old", 0o700),
        file("old/a", "a"),
        file("gone", "x"),
        dir("again", 0o755),
        file("again/old", "x"),
    ]);
    let top = [
        file("old/b", "b"),
        file(".wh.gone", ""),
        file(".wh.again", ""),
        dir("again", 0o711),
        file("again/new", "n"),
    ];
    Image::new(vec![layer(&low), layer(&top)]).config(script(SHOW)).name("x").write()
}

fn place() -> Place {
    let p = Place::new();
    p.imgtool(&["import", image().path()]).ok();
    p
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A script in a mount namespace, which ends with all its mounts.
#[track_caller]
fn until_reboot(p: &Place, script: &str) -> Outcome {
    let mut c = Command::new("unshare");
    c.args(["--mount", "--propagation", "private", "sh", "-ec", script]).current_dir(p.path());
    c.env("ORLOP_STORE", p.store()).env("orlop", ORLOP).stdin(Stdio::null());
    finish(&mut c).ok()
}

fn overlay(bundle: &Path) -> Value {
    serde_json::from_slice(&fs::read(bundle.join("overlay.json")).unwrap()).unwrap()
}

#[test]
fn a_bundle_is_mounted_again_after_a_reboot() {
    needs_root!();
    let p = place();
    until_reboot(
        &p,
        "$orlop imgtool unpack x b; echo w > b/rootfs/written; rm -r b/rootfs/old; mkdir b/rootfs/old; echo o > b/rootfs/old/b",
    );
    let bundle = p.path().join("b");
    assert!(!p.is_mounted(&bundle) && fs::read_dir(bundle.join("rootfs")).unwrap().next().is_none());
    // Left to the runtime, and mounted before.
    assert_eq!(p.run(&bundle).ok().stdout, "o\nnw\n751\n");
    p.imgtool(&["mount", text(&bundle)]).ok();
    assert_eq!(fs::read_to_string(bundle.join("rootfs/written")).unwrap(), "w\nmore\n");
    assert!(!bundle.join("rootfs/old/a").exists());
    assert_eq!(p.run(&bundle).ok().stdout, "o\nnw\nmore\n751\n");
    p.remove(&bundle);
}

/// A kill of the machine between two writes: what overlayfs left in its work directory does not matter.
#[test]
fn a_work_directory_that_was_left_is_used_again() {
    needs_root!();
    let p = place();
    let bundle = p.unpack("x", &["--mount"]);
    fs::write(bundle.join("rootfs/old/b"), "copied up").unwrap();
    p.imgtool(&["umount", text(&bundle)]).ok();
    fs::create_dir_all(bundle.join("work/work/#1")).unwrap();
    fs::write(bundle.join("work/work/#2"), "half").unwrap();
    p.imgtool(&["mount", text(&bundle)]).ok();
    assert_eq!(fs::read_to_string(bundle.join("rootfs/old/b")).unwrap(), "copied up");
    p.remove(&bundle);
}

#[test]
fn a_read_only_bundle_has_no_upper() {
    needs_root!();
    let p = place();
    for flag in ["--mount", "--no-mount"] {
        let bundle = p.unpack("x", &["--rootfs-readonly", flag]);
        let o = overlay(&bundle);
        assert!(o.get("upper").is_none() && o.get("work").is_none(), "{o}");
        assert!(!bundle.join("work").exists());
        for _ in 0..2 {
            let out = p.run(&bundle);
            assert_eq!(out.stdout, "bn751\n", "{}", out.stderr);
            assert!(out.stderr.contains("Read-only file system"), "{}", out.stderr);
            if flag == "--mount" {
                let error = fs::write(bundle.join("rootfs/x"), "").unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
                p.imgtool(&["umount", text(&bundle)]).ok();
                p.imgtool(&["mount", text(&bundle)]).ok();
            }
        }
        p.imgtool(&["commit", text(&bundle), "y"]).fails("read-only rootfs");
        p.imgtool(&["diff", text(&bundle)]).fails("nothing can change");
        p.imgtool(&["export", "--rootfs", text(&bundle), text(&p.path().join("tree.tar"))]).ok();
        p.imgtool(&["gc"]).ok();
        p.remove(&bundle);
    }
    // Of one layer, too: overlayfs wants two at least.
    p.imgtool(&["import", Image::new(vec![layer(&base())]).config(script("echo one")).write().path(), "one"])
        .ok();
    let bundle = p.unpack("one", &["--rootfs-readonly"]);
    assert_eq!(p.run(&bundle).ok().stdout, "one\n");
    p.remove(&bundle);
}

/// A tmpfs of the test's own.
fn tmpfs(p: &Place) -> PathBuf {
    let dir = p.path().join("tmpfs");
    fs::create_dir_all(&dir).unwrap();
    mount_tmpfs(&dir);
    dir
}

fn mount_tmpfs(dir: &Path) {
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some("mode=755")).unwrap();
}

#[test]
fn a_bundle_may_lie_on_a_tmpfs() {
    needs_root!();
    let p = place();
    let dir = tmpfs(&p);
    for flag in ["--mount", "--no-mount"] {
        let bundle = dir.join("b");
        p.imgtool(&["unpack", flag, "x", text(&bundle)]).ok();
        assert_eq!(p.run(&bundle).stdout, "bn751\n");
        assert_eq!(p.run(&bundle).ok().stdout, "bnmore\n751\n");
        assert_eq!(p.imgtool(&["diff", text(&bundle)]).ok().stdout, "A /written\n");
        p.imgtool(&["commit", text(&bundle), "y"]).ok();
        p.remove(&bundle);
        let bundle = p.unpack("y", &[flag]);
        assert_eq!(p.run(&bundle).ok().stdout, "bnmore\nmore\n751\n");
        p.remove(&bundle);
    }
}

#[test]
fn what_is_written_may_go_elsewhere() {
    needs_root!();
    let p = place();
    let dir = tmpfs(&p);
    let (bundle, upper) = (p.path().join("b"), dir.join("upper-of-b"));
    for flag in ["--mount", "--no-mount"] {
        p.imgtool(&["unpack", flag, "--upper", text(&upper), "x", text(&bundle)]).ok();
        assert_eq!(fs::metadata(&upper).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(overlay(&bundle)["upper"], text(&upper.join("upper")));
        assert_eq!(p.run(&bundle).stdout, "bn751\n");
        assert_eq!(fs::read_to_string(upper.join("upper/written")).unwrap(), "more\n");
        assert_eq!(fs::read_dir(bundle.join("upper")).unwrap().count(), 0);
        assert_eq!(p.imgtool(&["diff", text(&bundle)]).ok().stdout, "A /written\n");
        p.imgtool(&["commit", text(&bundle), "y"]).ok();
        p.imgtool(&["rm", "y"]).ok();
        p.imgtool(&["gc", "--log", "0"]).ok();
        assert_eq!(p.run(&bundle).ok().stdout, "bnmore\n751\n", "the sweep kept what the bundle uses");
        p.imgtool(&["unpack", "--upper", text(&upper), "x", text(&p.path().join("c"))]).fails("is not empty");
        assert!(!p.path().join("c").exists() && upper.join("upper/written").exists());
        p.remove(&bundle);
        fs::remove_dir_all(&upper).unwrap();
    }
}

#[test]
fn an_upper_that_went_with_a_tmpfs_is_made_again() {
    needs_root!();
    let p = place();
    let dir = tmpfs(&p);
    let (bundle, upper) = (p.path().join("b"), dir.join("u"));
    p.imgtool(&["unpack", "--mount", "--upper", text(&upper), "x", text(&bundle)]).ok();
    fs::write(bundle.join("rootfs/written"), "gone with it").unwrap();
    p.imgtool(&["umount", text(&bundle)]).ok();
    p.imgtool(&["mount", text(&bundle)]).ok();
    assert!(bundle.join("rootfs/written").exists());
    p.imgtool(&["umount", text(&bundle)]).ok();
    nix::mount::umount(&dir).unwrap();
    mount_tmpfs(&dir);
    let out = p.imgtool(&["mount", text(&bundle)]).ok();
    assert!(out.stderr.contains("made again"), "{}", out.stderr);
    assert!(!bundle.join("rootfs/written").exists());
    assert_eq!(fs::metadata(bundle.join("rootfs")).unwrap().permissions().mode() & 0o7777, 0o751);
    assert_eq!(p.run(&bundle).stdout, "bn751\n");
    p.remove(&bundle);
}

#[test]
fn an_upper_lies_where_nobody_else_can_reach() {
    needs_root!();
    let p = place();
    let refused = |path: &Path, words: &str| {
        let bundle = p.path().join("b");
        p.imgtool(&["unpack", "--upper", text(path), "x", text(&bundle)]).fails(words);
        assert!(!bundle.exists(), "{words}");
    };
    let at = |name: &str| p.path().join(name);
    fs::create_dir(at("theirs")).unwrap();
    std::os::unix::fs::chown(at("theirs"), Some(12345), None).unwrap();
    refused(&at("theirs"), "is no directory of this user's own");
    std::os::unix::fs::symlink(at("theirs"), at("link")).unwrap();
    refused(&at("link"), "not a directory");
    fs::write(at("file"), "").unwrap();
    refused(&at("file"), "not a directory");
    refused(&at("no/where"), "no such file or directory");
    refused(&p.store().join("u"), "lies in the store");
    p.imgtool(&["unpack", "--rootfs-readonly", "--upper", "u", "x", "b"]).fails("cannot be used with");
    assert_eq!(fs::metadata(at("theirs")).unwrap().uid(), 12345);
    // What failed later leaves nothing.
    let proc = PathBuf::from("/proc/orlop-upper");
    refused(&proc, "orlop-upper");
    assert!(!p.store().join("u").exists());
}
