//! Bundles that are moved, copied, reached by others, cut short, or away.

use super::{mount_tmpfs, overlay, place, text, tmpfs};
use crate::make::Place;
use crate::support::{ORLOP, finish, unique};
use crate::{needs_program, needs_root};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn copy(from: &Path, to: &Path) {
    finish(Command::new("cp").arg("-a").args([from, to])).ok();
}

/// The image loses its name, and what nothing keeps goes.
fn forget_image(p: &Place) {
    p.imgtool(&["rm", "x"]).ok();
    p.imgtool(&["gc", "--log", "0"]).ok();
}

#[test]
fn a_bundle_that_was_moved_keeps_what_was_written() {
    needs_root!();
    let p = place();
    let (old, new) = (p.path().join("old"), p.path().join("new"));
    p.imgtool(&["unpack", "--mount", "x", text(&old)]).ok();
    assert_eq!(overlay(&old)["upper"], "upper");
    fs::write(old.join("rootfs/written"), "w\n").unwrap();
    p.imgtool(&["umount", text(&old)]).ok();
    fs::rename(&old, &new).unwrap();
    assert_eq!(p.imgtool(&["diff", text(&new)]).ok().stdout, "A /written\n");
    fs::remove_file(p.store().join("bundles").read_dir().unwrap().next().unwrap().unwrap().path()).unwrap();
    p.imgtool(&["mount", text(&new)]).ok();
    assert_eq!(fs::read_to_string(new.join("rootfs/written")).unwrap(), "w\n");
    assert!(!old.exists(), "nothing is made at the old place");
    // What is mounted is on record, and keeps its layers.
    p.imgtool(&["umount", text(&new)]).ok();
    forget_image(&p);
    assert_eq!(p.run(&new).ok().stdout, "bnw\n751\n");
    p.imgtool(&["commit", text(&new), "y"]).ok();
    p.remove(&new);
}

#[test]
fn a_copy_of_a_bundle_writes_to_itself() {
    needs_root!();
    let p = place();
    for flags in [&["--no-mount"][..], &["--no-mount", "--rootfs-readonly"]] {
        let (a, b) = (p.unpack("x", flags), p.path().join(format!("copy-{}", unique())));
        copy(&a, &b);
        if flags.len() == 1 {
            // Left to the runtime, and mounted.
            assert_eq!(p.run(&b).stdout, "bn751\n");
            assert!(b.join("upper/written").exists() && !a.join("upper/written").exists());
            p.imgtool(&["mount", text(&a)]).ok();
            p.imgtool(&["mount", text(&b)]).ok();
            fs::write(b.join("rootfs/mine"), "").unwrap();
            assert!(!a.join("rootfs/mine").exists() && !a.join("rootfs/written").exists());
        }
        p.remove(&a);
        assert!(p.run(&b).stdout.starts_with("bn"), "its layers are its own");
        p.remove(&b);
    }
}

/// Which names everything by where it was when it was made.
#[test]
fn an_older_description_means_the_bundle_it_is_in() {
    needs_root!();
    let p = place();
    for flag in [None, Some("--rootfs-readonly")] {
        let flags: Vec<&str> = flag.into_iter().chain(["--no-mount"]).collect();
        let (a, b) = (p.unpack("x", &flags), p.path().join(format!("moved-{}", unique())));
        let mut o = overlay(&a);
        o.as_object_mut().unwrap().remove("image");
        match flag {
            None => (o["upper"], o["work"]) = (text(&a.join("upper")).into(), text(&a.join("work")).into()),
            Some(_) => o["lower"][0] = text(&a.join("upper")).into(),
        }
        fs::write(a.join("overlay.json"), o.to_string()).unwrap();
        p.run(&a).stdout.strip_prefix("bn").unwrap();
        fs::rename(&a, &b).unwrap();
        assert!(p.run(&b).stdout.starts_with("bn"));
        let out = p.imgtool(&["mount", text(&b)]).ok();
        assert!(out.stderr.contains("is not recorded"), "{}", out.stderr);
        assert_eq!(b.join("rootfs/written").exists(), flag.is_none());
        assert!(!a.exists());
        p.remove(&b);
    }
}

#[test]
fn layers_of_a_bundle_that_was_moved_while_it_was_mounted_are_kept() {
    needs_root!();
    for form in crate::make::forms() {
        let p = Place::of(form);
        p.imgtool(&["import", super::image().path()]).ok();
        let (old, new) = (p.path().join("old"), p.path().join("new"));
        p.imgtool(&["unpack", "--mount", "x", text(&old)]).ok();
        fs::rename(&old, &new).unwrap();
        forget_image(&p);
        assert_eq!(fs::read_to_string(new.join("rootfs/old/b")).unwrap(), "b");
        p.imgtool(&["umount", text(&new)]).ok();
        p.imgtool(&["gc", "--log", "0"]).ok();
        assert_eq!(p.run(&new).stdout, "bn751\n");
        p.remove(&new);
        p.imgtool(&["gc", "--log", "0"]).ok();
        assert_eq!(fs::read_dir(p.store().join("layers")).unwrap().count(), 0);
    }
}

/// As the runtime mounts it for a container.
#[test]
fn layers_below_a_mount_of_another_namespace_are_kept() {
    needs_root!();
    let p = Place::of("dir");
    p.imgtool(&["import", super::image().path()]).ok();
    let bundle = p.unpack("x", &["--no-mount"]);
    let mut c = Command::new("unshare");
    c.args(["--mount", "--propagation", "private", "sh", "-ec", "\"$0\" imgtool mount b; echo; cat"]);
    fs::rename(&bundle, p.path().join("b")).unwrap();
    let c = c.arg(ORLOP).current_dir(p.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = c.spawn().unwrap();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    for record in fs::read_dir(p.store().join("bundles")).unwrap() {
        fs::remove_file(record.unwrap().path()).unwrap();
    }
    let layers = || fs::read_dir(p.store().join("layers")).unwrap().count();
    forget_image(&p);
    let kept = layers();
    drop(child.stdin.take());
    child.wait().unwrap();
    p.imgtool(&["gc", "--log", "0"]).ok();
    assert_eq!((kept, layers()), (2, 0));
}

#[test]
fn a_bundle_on_a_file_system_that_is_away_keeps_its_layers() {
    needs_root!();
    let p = place();
    let dir = tmpfs(&p);
    p.imgtool(&["unpack", "--no-mount", "x", text(&dir.join("b"))]).ok();
    nix::mount::umount(&dir).unwrap();
    p.imgtool(&["rm", "x"]).ok();
    let out = p.imgtool(&["gc", "--log", "0"]).ok().stdout;
    assert!(out.contains("tmpfs/b: its file system is not mounted, keeps its layers while"), "{out}");
    let json = p.imgtool(&["gc", "--log", "0", "--format", "json"]).ok().json();
    assert_eq!(json["away"][0]["path"], text(&dir.join("b")));
    assert!(fs::read_dir(p.store().join("layers")).unwrap().count() > 0);
    // The way out; records of older stores say nothing of file systems.
    let record = PathBuf::from(json["away"][0]["record"].as_str().unwrap());
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    text.as_object_mut().unwrap().remove("on").unwrap();
    fs::write(&record, text.to_string()).unwrap();
    assert!(!p.imgtool(&["gc", "--log", "0"]).ok().stdout.contains("away"));
    assert_eq!(fs::read_dir(p.store().join("layers")).unwrap().count(), 0);
    mount_tmpfs(&dir); // for who cleans up
}

/// Set-id programs of an image would run as root for whoever reaches them.
#[test]
fn nobody_else_reaches_what_is_unpacked() {
    needs_root!();
    needs_program!("setpriv");
    let p = place();
    fs::set_permissions(p.path(), Permissions::from_mode(0o755)).unwrap();
    let open = |name: &str, mode: u32| {
        let dir = p.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        dir
    };
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let seen = |path: &Path| {
        let mut c = Command::new("setpriv");
        c.args(["--reuid", "12345", "--regid", "12345", "--clear-groups", "ls"]).arg(path);
        finish(&mut c)
    };
    let (bundle, upper) = (open("b", 0o755), open("u", 0o777));
    assert!(seen(&bundle).status.success());
    let out = p.imgtool(&["unpack", "--upper", text(&upper), "x", text(&bundle)]).ok();
    for dir in [&bundle, &upper] {
        let warned = format!("{}: its mode was", dir.display());
        assert!(out.stderr.contains(&warned) && mode(dir) == 0o700, "{}", out.stderr);
    }
    seen(&bundle.join("rootfs")).fails("Permission denied");
    seen(&upper.join("upper")).fails("Permission denied");
    p.remove(&bundle);
    // What is refused keeps its mode.
    let full = open("full", 0o755);
    fs::write(full.join("f"), "").unwrap();
    p.imgtool(&["unpack", "x", text(&full)]).fails("is not empty");
    assert_eq!(mode(&full), 0o755);
    let theirs = open("theirs", 0o755);
    chown(&theirs, Some(12345), None).unwrap();
    p.imgtool(&["unpack", "x", text(&theirs)]).fails("theirs: is no directory of this user's own");
    assert_eq!(mode(&theirs), 0o755);
}

#[test]
fn an_unpack_to_an_upper_elsewhere_is_repeated_after_a_kill() {
    needs_root!();
    needs_program!("strace");
    let p = place();
    let (bundle, upper) = (p.path().join("b"), p.path().join("u"));
    let args = ["unpack", "--mount", "--upper", text(&upper), "x", text(&bundle)];
    let mut c = Command::new("strace");
    c.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=move_mount:signal=KILL",
        ORLOP,
        "imgtool",
        "--store",
    ]);
    assert!(!finish(c.arg(p.store()).args(args)).status.success());
    assert!(upper.join("upper").exists());
    // Whoever holds the lock is at it.
    let held = fs::File::open(&upper).unwrap();
    held.lock().unwrap();
    p.imgtool(&args).fails("u: is taken by another unpack just now");
    drop(held);
    p.imgtool(&args).ok();
    assert_eq!(p.run(&bundle).stdout, "bn751\n");
    let fresh = p.path().join("c");
    p.imgtool(&["umount", text(&bundle)]).ok();
    p.imgtool(&["unpack", "--upper", text(&upper), "x", text(&fresh)]).fails("u: is not empty");
    p.remove(&bundle);
}
