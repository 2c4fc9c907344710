//! What a store does without: room on its disk, the `meta` of a layer, a record of one image.

use crate::make::{Image, Place, base, dir, file, layer, script};
use crate::support::{self, finish, finish_within};
use crate::{needs_program, needs_root};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// A small ext4 of its own, until it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(p: &Place) -> Option<Self> {
        let (image, at) = (p.path().join("disk.img"), p.path().join("disk"));
        fs::create_dir(&at).unwrap();
        fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
        finish(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image)).ok();
        let out = finish(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        out.status.success().then_some(Self(at))
    }

    /// Takes all blocks.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        for size in [1 << 20, 4096, 1024] {
            while file.write_all(&vec![1; size]).and_then(|()| file.sync_data()).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn gc_makes_room_on_a_full_disk() {
    needs_root!();
    needs_program!("mkfs.ext4");
    let p = Place::new();
    let Some(disk) = Disk::new(&p) else { return support::skip("no file system can be mounted from a file") };
    let store = disk.0.join("store");
    let imgtool = |args: &[&str]| {
        let mut c = Command::new(support::ORLOP);
        c.args(["imgtool", "--store"]).arg(&store).args(args).stdin(Stdio::null());
        finish_within(&mut c, Duration::from_secs(60))
    };
    for more in [&[][..], &["--no-blobs"]] {
        let low = [dir("d", 0o750), file("d/f", &"x".repeat(1 << 20))];
        let layers = vec![layer(&low), layer(&[file("d/g", "")])]; // the second needs a fixup
        let source = Image::new(layers).config(script("true")).write();
        imgtool(&[&["import", "--layers", "dir", source.path(), "x"], more].concat()).ok();
        imgtool(&["untag", "x"]).ok();
        disk.fill();
        let e = fs::create_dir(store.join("tmp/room")).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENOSPC));
        let out = imgtool(&["gc", "--log", "0"]).ok().stdout;
        assert!(out.starts_with("removed 2 layers"), "{out}");
        for sub in ["layers", "fixups", "blobs/sha256", "tmp"] {
            assert_eq!(fs::read_dir(store.join(sub)).unwrap().count(), 0, "{sub}");
        }
        fs::remove_file(disk.0.join("filler")).unwrap();
    }
}

fn image(text: &str) -> crate::make::Layout {
    let layers = vec![layer(&base()), layer(&[file("says", text)])];
    Image::new(layers).config(script("cat /says")).write()
}

#[test]
fn an_import_mends_a_layer_that_lost_its_meta() {
    needs_root!();
    crate::make::in_both_forms(|p: &Place| {
        let source = image("x");
        p.imgtool(&["import", source.path(), "x"]).ok();
        let lose = |how: &dyn Fn(PathBuf)| {
            for layer in fs::read_dir(p.store().join("layers")).unwrap() {
                how(layer.unwrap().path().join("meta"));
            }
        };
        let remove = |meta: PathBuf| fs::remove_file(meta).unwrap();
        for how in [&remove as &dyn Fn(PathBuf), &|meta| fs::write(meta, "{").unwrap()] {
            lose(how);
            p.imgtool(&["unpack", "x", p.path().join("b").to_str().unwrap()])
                .fails("run orlop imgtool fsck --repair");
            p.imgtool(&["import", source.path(), "x"]).ok();
            let bundle = p.unpack("x", &[]);
            assert_eq!(p.run(&bundle).ok().stdout, "x");
            p.remove(&bundle);
            assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0);
        }
        // In whatever form new layers are made.
        lose(&remove);
        let mut import = Command::new(support::ORLOP);
        import.args(["imgtool", "--store"]).arg(p.store()).args(["import", source.path(), "x"]);
        finish(&mut import).ok();
        p.imgtool(&["verify"]).ok();
        // Nothing is taken away below a mount.
        let bundle = p.unpack("x", &["--mount"]);
        lose(&remove);
        p.imgtool(&["import", source.path(), "x"]).fails("is mounted; unmount it first");
        assert_eq!(fs::read_to_string(bundle.join("rootfs/says")).unwrap(), "x");
        p.imgtool(&["umount", bundle.to_str().unwrap()]).ok();
        p.imgtool(&["import", source.path(), "x"]).ok();
        assert_eq!(p.run(&bundle).ok().stdout, "x");
        p.remove(&bundle);
    });
}

/// Whose mount no other mount namespace shows.
#[test]
fn nothing_is_mended_below_a_container_that_mounts_its_rootfs() {
    needs_root!();
    crate::make::in_both_forms(|p: &Place| {
        let layers = vec![layer(&base()), layer(&[file("says", "x")])];
        let source = Image::new(layers).config(script("echo ready; read line; cat /says")).write();
        p.imgtool(&["import", source.path(), "x"]).ok();
        // By another name of the store, which is that of the layers then.
        let (link, bundle) = (p.path().join("link"), p.path().join("bundle"));
        std::os::unix::fs::symlink(p.store(), &link).unwrap();
        let mut unpack = Command::new(support::ORLOP);
        unpack.args(["imgtool", "--store"]).arg(&link).args(["unpack", "--no-mount", "x"]);
        finish(unpack.arg(&bundle)).ok();
        let mut command = p.running(&bundle);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        for layer in fs::read_dir(p.store().join("layers")).unwrap() {
            fs::remove_file(layer.unwrap().path().join("meta")).unwrap();
        }
        let out = p.imgtool(&["fsck", "--repair"]);
        if !p.has_images() {
            let told = "a rootfs that stands on it is mounted, stop its container";
            assert!(out.code() == 1 && out.stdout.contains(told), "{}", out.stdout);
            p.imgtool(&["import", source.path(), "x"]).fails("is mounted; stop its container");
        }
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let last: Vec<_> = lines.map(Result::unwrap).collect();
        assert!(child.wait().unwrap().success() && last == ["x"], "{last:?}");
        p.imgtool(&["fsck", "--repair"]).ok();
        assert_eq!(p.imgtool(&["fsck"]).ok().stdout, "");
        p.remove(&bundle);
    });
}

type Damage = (&'static str, fn(&Path));

/// Of the image `bad`.
const DAMAGES: &[Damage] = &[
    ("a name", |s| fs::write(s.join("refs/bad"), "x").unwrap()),
    ("a name that is a FIFO", |s| {
        fs::remove_file(s.join("refs/bad")).unwrap();
        fifo(&s.join("refs/bad"));
    }),
    ("a manifest", |s| {
        let digest = fs::read_to_string(s.join("refs/bad")).unwrap();
        fs::write(s.join("blobs/sha256").join(&digest.trim()["sha256:".len()..]), "{").unwrap();
    }),
    ("a log", |s| fs::write(s.join("logs/bad"), "x y\n").unwrap()),
    ("a record of a bundle", |s| fs::write(s.join("bundles").join("0".repeat(64)), "{").unwrap()),
];

fn fifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
}

#[test]
fn a_damaged_record_is_in_the_way_of_no_other_image() {
    needs_root!();
    for (what, damage) in DAMAGES {
        let p = Place::new();
        p.imgtool(&["import", image("g").path(), "good"]).ok();
        p.imgtool(&["import", image("b").path(), "bad"]).ok();
        let bundle = p.unpack("good", &["--no-mount"]);
        damage(&p.store());
        let listed = p.imgtool(&["list"]).ok();
        let is_row = what.starts_with("a name") || *what == "a manifest";
        assert_eq!(listed.stdout.contains("damaged"), is_row, "{what}: {}", listed.stdout);
        assert_eq!(listed.stderr.contains("fsck --repair"), is_row, "{what}: {}", listed.stderr);
        assert_eq!(p.imgtool(&["list", "-q"]).ok().stdout, "bad\ngood\n", "{what}");
        let other = p.unpack("good", &[]);
        assert_eq!(p.run(&other).ok().stdout, "g", "{what}");
        p.remove(&other);
        p.imgtool(&["commit", bundle.to_str().unwrap(), "new"]).ok();
        if is_row {
            p.imgtool(&["inspect", "bad"]).fails("run orlop imgtool fsck --repair");
        }
        // What is not known to be unused stays.
        p.imgtool(&["gc"]).fails("run orlop imgtool fsck --repair");
        p.imgtool(&["fsck", "--repair"]);
        p.imgtool(&["gc"]).ok();
        assert_eq!(p.run(&bundle).ok().stdout, "g", "{what}");
        p.remove(&bundle);
    }
}

#[test]
fn a_fifo_in_the_store_stops_no_command() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", image("x").path(), "x"]).ok();
    for name in ["tmp/a", "refs/a", "logs/a", "bundles/a"] {
        fifo(&p.store().join(name));
        p.imgtool(&["list"]).ok();
        p.imgtool(&["inspect", "x"]).ok();
        p.imgtool(&["fsck", "--repair"]);
        assert!(!p.store().join(name).exists(), "{name}");
    }
    p.imgtool(&["fsck"]).ok();
}

#[test]
fn no_question_makes_a_store() {
    needs_root!();
    let p = Place::new();
    let none = p.path().join("none");
    let b = p.path().join("b");
    let b = b.to_str().unwrap();
    let imgtool = |args: &[&str]| {
        let mut c = Command::new(support::ORLOP);
        finish(c.args(["imgtool", "--store"]).arg(&none).args(args).stdin(Stdio::null()))
    };
    for args in [
        &["list"][..],
        &["inspect", "x"],
        &["unpack", "x", b],
        &["rm", "x"],
        &["gc"],
        &["df"],
        &["verify"],
        &["export", "x", b],
        &["tag", "x", "y"],
        &["history", "x"],
        &["push", "x", "localhost:1/x"],
    ] {
        imgtool(args).fails("none: open: no such file or directory; --store or ORLOP_STORE names another");
        assert!(!none.exists(), "{args:?}");
    }
    // The one that is meant without a word is empty before the first import.
    let mut c = Command::new(support::ORLOP);
    c.args(["imgtool", "list", "-q"]).env("ORLOP_STORE", &none).stdin(Stdio::null());
    assert_eq!(finish(&mut c).ok().stdout, "");
    assert!(!none.exists() && !Path::new(b).exists());
    imgtool(&["info"]).ok();
    assert_eq!(imgtool(&["list", "-q"]).ok().stdout, "");
}

#[test]
fn a_long_wait_for_the_store_is_told() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", image("x").path(), "x"]).ok();
    assert_eq!(p.imgtool(&["gc"]).ok().stderr, "");
    let lock = fs::File::open(p.store().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).unwrap();
    let mut gc = p.command(&["gc"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let (is_told, waits) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = waits.recv_timeout(Duration::from_secs(30)); // silent, it would wait for ever
        drop(lock);
    });
    let mut told = String::new();
    BufReader::new(gc.stderr.take().unwrap()).read_line(&mut told).unwrap();
    drop(is_told); // not before: nobody waits for a lock that is free
    assert!(
        gc.wait().unwrap().success() && told.contains("/lock: is held by another orlop imgtool"),
        "{told}"
    );
}

#[test]
fn what_a_killed_export_left_goes_with_the_next() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", image("x").path(), "x"]).ok();
    let dir = p.path().join("out");
    fs::create_dir(&dir).unwrap();
    let part = |name: &str| dir.join(format!(".{name}.part"));
    let (dead, used) = (part("x.tar.0123456789abcdef"), part("x.tar.fedcba9876543210"));
    let others = [part("y.tar.0123456789abcdef"), part("x.tar.mine"), dir.join("x.tar.gz")];
    for path in others.iter().chain([&dead, &used]) {
        fs::write(path, "").unwrap();
    }
    let lock = fs::File::open(&used).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    for dest in [dir.join("x.tar"), PathBuf::from("x.tar")] {
        let mut c = p.command(&["export", "x"]);
        finish(c.arg(dest).current_dir(&dir)).ok();
        assert!(!dead.exists() && used.exists() && others.iter().all(|p| p.exists()));
        fs::write(&dead, "").unwrap();
    }
}
