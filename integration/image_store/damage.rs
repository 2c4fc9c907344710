//! What is damaged is found, told by its place, and mended; what is whole is left alone.

use crate::make::{Image, Packing, Place, dir, file, layer};
use crate::support::{self, Scratch, finish};
use crate::{SAYS, blob, has_all_of, image, json, layers, names, needs_root, same, says, snapshot};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

/// A store with an image that has fixups, and what is where in it.
struct Whole {
    p: Place,
    source: crate::make::Layout,
}

impl Whole {
    fn new(more: &[&str]) -> Self {
        Self::of("dir", more)
    }

    fn of(form: &'static str, more: &[&str]) -> Self {
        let (p, source) = (Place::of(form), image("x:1", Packing::Gzip).write());
        p.imgtool(&[&["import", source.path()], more].concat()).ok();
        Self { p, source }
    }

    fn store(&self) -> PathBuf {
        self.p.store()
    }

    fn manifest(&self) -> PathBuf {
        let digest = fs::read_to_string(self.store().join("refs/x%3A1")).unwrap();
        blob(&self.store(), &serde_json::json!(digest.trim()))
    }

    fn config(&self) -> PathBuf {
        blob(&self.store(), &json(self.manifest())["config"]["digest"])
    }

    fn layer_blob(&self, n: usize) -> PathBuf {
        blob(&self.store(), &json(self.manifest())["layers"][n]["digest"])
    }

    fn layer(&self, n: usize) -> PathBuf {
        let id = json(self.config())["rootfs"]["diff_ids"][n].clone();
        self.store().join("layers").join(id.as_str().unwrap().strip_prefix("sha256:").unwrap())
    }

    fn image(&self, n: usize) -> PathBuf {
        self.layer(n).join("erofs")
    }

    fn fixup(&self) -> PathBuf {
        let [only] = &names(&self.store().join("fixups"))[..] else { panic!("one fixup") };
        self.store().join("fixups").join(only)
    }
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let n = bytes.len() / 2;
    bytes[n] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// cap_setuid=ep, as capabilities(7) has it in files.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

type Damage = (&'static str, fn(&Whole), &'static str);

/// What a blob or a second look mends; the words say where it is.
const MENDED: &[Damage] = &[
    (
        "a byte of a file",
        |w| flip(&w.layer(0).join("fs/bin/busybox")),
        "bin/busybox: differs in what it holds",
    ),
    ("a file that is gone", |w| fs::remove_file(w.layer(0).join("fs/old/a")).unwrap(), "old/a: is missing"),
    (
        "a file too many",
        |w| fs::write(w.layer(0).join("fs/etc/evil"), "").unwrap(),
        "etc/evil: does not belong",
    ),
    ("a mode", |w| chmod(&w.layer(0).join("fs/old/owned"), 0o4755), "old/owned: has the mode 4755"),
    (
        "an owner",
        |w| std::os::unix::fs::chown(w.layer(0).join("fs/old/owned"), Some(0), Some(0)).unwrap(),
        "old/owned: has the owner 0:0, its layer says 7:7",
    ),
    ("a whiteout", |w| fs::remove_file(w.layer(1).join("fs/gone")).unwrap(), "layer 2 (sha256:"),
    (
        "a link",
        |w| {
            fs::remove_file(w.layer(0).join("fs/soft")).unwrap();
            std::os::unix::fs::symlink("/etc/shadow", w.layer(0).join("fs/soft")).unwrap();
        },
        "soft: leads to \"/etc/shadow\"",
    ),
    (
        "an attribute",
        |w| {
            let file = fs::File::open(w.layer(0).join("fs/old/owned")).unwrap();
            rustix::fs::fsetxattr(file, "security.capability", CAPABILITY, rustix::fs::XattrFlags::empty())
                .unwrap();
        },
        "old/owned: has not the attribute security.capability of its layer",
    ),
    ("a layer's meta", |w| fs::write(w.layer(0).join("meta"), "{").unwrap(), "meta: is damaged"),
    ("half a layer", |w| fs::remove_file(w.layer(1).join("meta")).unwrap(), "is missing, or half of it is"),
    ("a layer's files", |w| fs::remove_dir_all(w.layer(1).join("fs")).unwrap(), "layer 2 (sha256:"),
    ("a layer", |w| fs::remove_dir_all(w.layer(1)).unwrap(), "is missing, or half of it is"),
    (
        "a fixup's directory",
        |w| chmod(&w.fixup().join("fs/old"), 0o700),
        "old: has the mode 0700, its layer says 0751",
    ),
    (
        "a fixup's link",
        |w| {
            fs::remove_file(w.fixup().join("fs/passwd")).unwrap();
            fs::write(w.fixup().join("fs/passwd"), "evil").unwrap();
        },
        "passwd: has the",
    ),
    ("a fixup's files", |w| fs::remove_dir_all(w.fixup().join("fs")).unwrap(), "has lost its files"),
];

/// The same of layers that are EROFS images.
const MENDED_IMAGES: &[Damage] = &[
    ("a byte of a file", |w| flip(&w.image(0)), "bin/busybox: differs in what it holds"),
    (
        "an inode",
        |w| {
            let mut bytes = fs::read(w.image(1)).unwrap();
            let at = 4096 + bytes[4096..].windows(2).position(|b| b == b"so").unwrap();
            bytes[at - 28..at - 26].copy_from_slice(&0o104755u16.to_le_bytes());
            fs::write(w.image(1), bytes).unwrap();
        },
        "lib/x.so: has the mode 4755, its layer says 0644",
    ),
    (
        "the end of an image",
        |w| fs::File::options().write(true).open(w.image(0)).unwrap().set_len(8192).unwrap(),
        "layer 1 (sha256:",
    ),
    ("an empty image", |w| fs::write(w.image(1), "").unwrap(), "mount erofs"),
    ("another image", |w| assert!(fs::copy(w.image(0), w.image(1)).is_ok()), "bin: does not belong there"),
    ("no image", |w| fs::remove_file(w.image(1)).unwrap(), "layer 2 (sha256:"),
    ("a layer's meta", |w| fs::write(w.layer(0).join("meta"), "{").unwrap(), "meta: is damaged"),
    ("half a layer", |w| fs::remove_file(w.layer(1).join("meta")).unwrap(), "is missing, or half of it is"),
    ("a layer", |w| fs::remove_dir_all(w.layer(1)).unwrap(), "is missing, or half of it is"),
    (
        "a fixup's copy",
        |w| {
            fs::remove_file(w.fixup().join("fs/passwd")).unwrap();
            fs::write(w.fixup().join("fs/passwd"), "evil").unwrap();
        },
        "passwd: has the",
    ),
    ("a fixup's files", |w| fs::remove_dir_all(w.fixup().join("fs")).unwrap(), "has lost its files"),
];

#[test]
fn layers_and_fixups_are_made_again_from_blobs() {
    needs_root!();
    let images = if Place::new().has_images() { MENDED_IMAGES } else { &[] };
    let both = [("dir", MENDED), ("erofs", images)];
    for (form, (what, damage, words)) in both.iter().flat_map(|(f, all)| all.iter().map(move |d| (*f, d))) {
        let w = Whole::of(form, &[]);
        damage(&w);
        for command in [&["verify"][..], &["verify", "x:1"], &["fsck"]] {
            let out = w.p.imgtool(command);
            assert_eq!(out.code(), 1, "{what} {command:?}: {}{}", out.stdout, out.stderr);
            assert!(out.stdout.contains(words) && out.stdout.contains("x:1: "), "{what}: {}", out.stdout);
        }
        let out = w.p.imgtool(&["fsck", "--repair"]).ok().stdout;
        assert!(out.contains("it was made again"), "{what}: {out}");
        for command in ["verify", "fsck"] {
            assert_eq!(w.p.imgtool(&[command]).ok().stdout, "", "{what}");
        }
        assert_eq!(says(&w.p, "x:1"), SAYS, "{what}");
        assert_eq!(names(&w.store().join("tmp")).len(), 0, "{what}");
        let name = if form == "dir" { "fs" } else { "erofs" };
        assert!((0..2).all(|n| names(&w.layer(n)).contains(&name.to_string())), "{what}");
    }
}

#[test]
fn what_cannot_be_made_again_is_told_and_the_next_import_mends_it() {
    needs_root!();
    let lost: &[Damage] = &[
        ("a manifest", |w| flip(&w.manifest()), "manifest sha256:"),
        ("no manifest", |w| fs::remove_file(w.manifest()).unwrap(), "is missing"),
        ("a configuration", |w| flip(&w.config()), "configuration sha256:"),
        ("no configuration", |w| fs::remove_file(w.config()).unwrap(), "is missing"),
        ("a name", |w| fs::write(w.store().join("refs/x%3A1"), "sha256:x").unwrap(), "x:1: name: "),
        ("a layer's blob", |w| flip(&w.layer_blob(1)), "layer 2 (sha256:"),
        (
            "a blob and its layer",
            |w| {
                fs::remove_file(w.layer(0).join("fs/etc/group")).unwrap();
                flip(&w.layer_blob(0));
            },
            "is damaged: its",
        ),
    ];
    for (what, damage, words) in lost {
        let w = Whole::new(&[]);
        damage(&w);
        for command in ["verify", "fsck"] {
            let out = w.p.imgtool(&[command]);
            assert_eq!(out.code(), 1, "{what}: {}{}", out.stdout, out.stderr);
            assert!(out.stdout.contains(words), "{what}: {}", out.stdout);
        }
        w.p.imgtool(&["fsck", "--repair"]);
        w.p.imgtool(&["import", w.source.path()]).ok();
        assert_eq!(w.p.imgtool(&["fsck"]).ok().stdout, "", "{what}");
        assert_eq!(says(&w.p, "x:1"), SAYS, "{what}");
        w.p.imgtool(&["export", "x:1", w.p.path().join("out").to_str().unwrap()]).ok();
        w.p.imgtool(&["gc"]).ok();
        w.p.imgtool(&["rm", "x:1"]).ok();
        for sub in ["layers", "blobs/sha256", "fixups", "refs"] {
            assert_eq!(names(&w.store().join(sub)).len(), 0, "{what}: {sub}");
        }
    }
}

/// Changed at rest, it would go out under its old name, or be made right by a new digest.
#[test]
fn no_command_takes_a_damaged_document() {
    needs_root!();
    for (is_manifest, from, to) in
        [(true, "\"schemaVersion\":2", "\"schemaVersion\":3"), (false, "amd64", "amd65")]
    {
        let w = Whole::new(&[]);
        let path = if is_manifest { w.manifest() } else { w.config() };
        fs::write(&path, fs::read_to_string(&path).unwrap().replace(from, to)).unwrap();
        let to = w.p.path().join("to");
        for args in [
            &["inspect", "x:1"][..],
            &["inspect", "--format", "docker", "x:1"],
            &["config", "x:1", "y", "--env", "A=b"],
            &["export", "x:1", to.to_str().unwrap()],
            &["unpack", "x:1", to.to_str().unwrap()],
            &["gc"],
        ] {
            w.p.imgtool(args).fails("is damaged");
        }
        assert!(w.p.imgtool(&["list"]).ok().stdout.contains("damaged"));
        if is_manifest {
            w.p.imgtool(&["push", "x:1", "127.0.0.1:1/x:1"]).fails("is damaged");
        }
    }
}

#[test]
fn a_log_leads_to_images_and_may_be_damaged_itself() {
    needs_root!();
    let w = Whole::new(&[]);
    flip(&w.layer(0).join("fs/bin/busybox"));
    w.p.imgtool(&["untag", "x:1"]).ok();
    for command in ["verify", "fsck"] {
        let out = w.p.imgtool(&[command]).stdout;
        assert!(out.contains("log of x:1: layer 1 (sha256:"), "{command}: {out}");
    }
    w.p.imgtool(&["fsck", "--repair"]).ok();
    assert_eq!(w.p.imgtool(&["df", "--format", "json"]).ok().json()["reclaimable"]["count"], 0);
    w.p.imgtool(&["gc"]).ok();
    w.p.imgtool(&["revert", "x:1"]).ok();
    assert_eq!(says(&w.p, "x:1"), SAYS);
    fs::write(w.store().join("logs/x%3A1"), "evil").unwrap();
    let out = w.p.imgtool(&["verify"]);
    assert!(out.code() == 1 && out.stdout.starts_with("x:1: log of a name: "), "{}", out.stdout);
    w.p.imgtool(&["fsck", "--repair"]).ok();
    w.p.imgtool(&["verify"]).ok();
    assert_eq!(says(&w.p, "x:1"), SAYS);
}

#[test]
fn without_a_blob_a_layer_is_counted() {
    needs_root!();
    let w = Whole::new(&["--no-blobs"]);
    w.p.imgtool(&["verify"]).ok();
    fs::write(w.layer(0).join("fs/old/a"), "longer").unwrap();
    let out = w.p.imgtool(&["verify"]);
    assert!(out.code() == 1 && out.stdout.contains("bytes of files, its meta says"), "{}", out.stdout);
    let out = w.p.imgtool(&["fsck", "--repair"]);
    assert_eq!(out.code(), 1);
    assert!(out.stdout.contains("it was removed, import the image again"), "{}", out.stdout);
    w.p.imgtool(&["import", w.source.path()]).ok();
    assert_eq!(says(&w.p, "x:1"), SAYS);
    if Place::new().has_images() {
        let w = Whole::of("erofs", &["--no-blobs"]);
        w.p.imgtool(&["verify"]).ok();
        fs::copy(w.image(1), w.image(0)).unwrap();
        let out = w.p.imgtool(&["verify"]);
        assert!(out.code() == 1 && out.stdout.contains("bytes of files, its meta says"), "{}", out.stdout);
    }
}

/// What cannot be looked into here is not taken for damaged, and so never removed.
#[test]
fn images_that_cannot_be_mounted_are_no_damage() {
    needs_root!();
    if !Place::new().has_images() {
        return; // other tests count that
    }
    let w = Whole::of("erofs", &["--no-blobs"]);
    let trial = w.store().join("erofs-trial");
    let mut known = json(&trial);
    known["why"] = "says the test".into();
    fs::write(&trial, known.to_string()).unwrap();
    for command in [&["verify"][..], &["fsck", "--repair"]] {
        w.p.imgtool(command).fails("is not looked into: says the test");
    }
    fs::write(&trial, "{").unwrap();
    assert!(w.p.imgtool(&["fsck", "--repair"]).ok().stdout.ends_with("erofs-trial: removed\n"));
    assert_eq!(says(&w.p, "x:1"), SAYS);
}

#[test]
fn litter_is_no_damage() {
    needs_root!();
    let w = Whole::new(&[]);
    let kept = w.p.unpack("x:1", &["--no-mount"]);
    let gone = w.p.unpack("x:1", &["--no-mount"]);
    w.p.remove(&gone);
    fs::create_dir_all(w.store().join("tmp/1-0/layer/fs")).unwrap();
    fs::write(w.store().join("locks/x"), "").unwrap();
    fs::write(w.store().join("format.1"), "").unwrap();
    let out = w.p.imgtool(&["fsck"]).ok().stdout;
    assert_eq!(out.lines().filter(|l| l.starts_with("litter: ")).count(), 4, "{out}");
    assert!(w.store().join("tmp/1-0").exists(), "only repair removes");
    w.p.imgtool(&["fsck", "--repair"]).ok();
    assert_eq!(w.p.imgtool(&["fsck"]).ok().stdout, "");
    assert_eq!(names(&w.store().join("bundles")).len(), 1);
    assert_eq!(w.p.run(&kept).ok().stdout, SAYS);
    // A record that nobody can read.
    let record = w.store().join("bundles").join(&names(&w.store().join("bundles"))[0]);
    fs::write(&record, "{").unwrap();
    fs::write(w.store().join("bundles/other"), "{").unwrap();
    assert_eq!(w.p.imgtool(&["fsck"]).code(), 1);
    w.p.imgtool(&["fsck", "--repair"]).ok();
    assert_eq!(names(&w.store().join("bundles")).len(), 0);
}

#[test]
fn what_is_whole_is_never_touched() {
    needs_root!();
    let w = Whole::new(&[]);
    let three =
        [layers(), vec![layer(&[dir("d", 0o700), file("d/.wh..wh..opq", ""), file("three", "3")])]].concat();
    w.p.imgtool(&["import", Image::new(three).name("y:1").write().path()]).ok();
    let bundle = w.p.unpack("x:1", &[]);
    // Of an image that was removed, but not yet collected; and a blob of nobody.
    fs::rename(w.store().join("refs/y%3A1"), w.p.path().join("y")).unwrap();
    let subs = ["layers", "blobs", "fixups", "refs", "bundles"];
    let look = || subs.map(|s| snapshot(&w.store().join(s))).concat();
    let before = look();
    for command in [&["verify"][..], &["verify", "x:1"], &["fsck"], &["fsck", "--repair"], &["df"]] {
        w.p.imgtool(command).ok();
        same(&before, &look());
    }
    // Of two layers one is damaged: the other one stays as it is.
    fs::rename(w.p.path().join("y"), w.store().join("refs/y%3A1")).unwrap();
    fs::write(w.layer(1).join("fs/old/b"), "B").unwrap();
    let other = || snapshot(&w.layer(0));
    let before = other();
    let mounted = w.p.imgtool(&["fsck", "--repair"]);
    assert!(
        mounted.code() == 1 && mounted.stdout.contains("is mounted, unmount it first"),
        "{}",
        mounted.stdout
    );
    w.p.imgtool(&["umount", bundle.to_str().unwrap()]).ok();
    w.p.imgtool(&["fsck", "--repair"]).ok();
    same(&before, &other());
    w.p.imgtool(&["mount", bundle.to_str().unwrap()]).ok();
    assert_eq!(w.p.run(&bundle).ok().stdout, SAYS);
}

#[test]
fn a_fixup_below_a_mount_is_left_alone() {
    needs_root!();
    let w = Whole::new(&[]);
    let bundle = w.p.unpack("x:1", &[]);
    fs::write(w.fixup().join("fs/strange"), "").unwrap();
    let before = snapshot(&w.fixup());
    let out = w.p.imgtool(&["fsck", "--repair"]);
    assert!(out.code() == 1 && out.stdout.contains("is mounted, unmount it first"), "{}", out.stdout);
    same(&before, &snapshot(&w.fixup()));
    w.p.imgtool(&["umount", bundle.to_str().unwrap()]).ok();
    w.p.imgtool(&["fsck", "--repair"]).ok();
    assert!(!w.fixup().join("fs/strange").exists());
}

#[test]
fn df_knows_what_is_shared_and_what_a_collection_frees() {
    needs_root!();
    let p = Place::new();
    let big = file("big", &"x".repeat(1 << 20));
    let more = [layers(), vec![layer(&[big])]].concat();
    p.imgtool(&["import", image("x:1", Packing::Gzip).write().path()]).ok();
    let df = || p.imgtool(&["df", "--format", "json"]).ok().json();
    let alone = df();
    let row = |df: &serde_json::Value, n: usize, key: &str| df["images"][n][key].as_u64().unwrap();
    assert_eq!((row(&alone, 0, "shared"), row(&alone, 0, "unique")), (0, row(&alone, 0, "size")));
    assert_eq!(alone["reclaimable"]["disk"], 0);
    assert_eq!(alone["blobs"]["count"], 4);
    p.imgtool(&["import", Image::new(more).packing(Packing::Gzip).name("y:1").write().path()]).ok();
    let both = df();
    assert_eq!(row(&both, 0, "size"), row(&alone, 0, "size"));
    assert_eq!(row(&both, 0, "shared"), row(&both, 1, "shared"));
    let unique = row(&both, 1, "unique");
    assert!((1 << 20..(1 << 20) + (64 << 10)).contains(&unique), "{unique}");
    assert!(p.imgtool(&["df"]).ok().stdout.contains("\nx:1   "));
    // As it is when the removal of the image was stopped.
    for sub in ["refs", "logs"] {
        fs::remove_file(p.store().join(sub).join("y%3A1")).unwrap();
    }
    let left = df();
    assert_eq!(left["reclaimable"]["disk"], unique);
    // And a pull broke.
    fs::write(p.store().join("partial/0"), vec![1; 9000]).unwrap();
    let left = df();
    assert_eq!(left["partial"]["count"], 1);
    let unique = unique + left["partial"]["disk"].as_u64().unwrap();
    assert_eq!(left["reclaimable"]["disk"], unique);
    let disk = |df: &serde_json::Value| {
        ["layers", "blobs", "fixups", "partial"].map(|k| df[k]["disk"].as_u64().unwrap())
    };
    p.imgtool(&["gc"]).ok();
    let after = df();
    assert_eq!(disk(&left).iter().sum::<u64>() - disk(&after).iter().sum::<u64>(), unique);
    assert_eq!(disk(&after), disk(&alone));
}

/// Directories that an image closes to the user who owns the store are no damage.
#[test]
fn an_ordinary_user_may_look_too() {
    needs_root!();
    let s = Scratch::new("ordinary");
    let home = s.path.join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(12345), Some(12345)).unwrap();
    let orlop = s.path.join("orlop");
    support::copy_orlop(&orlop);
    let closed = layer(&[
        dir("closed", 0o555),
        dir("closed/more", 0),
        file("closed/more/f", ""),
        dir("read", 0o644),
        file("read/f", ""),
    ]);
    let source = Image::new([layers(), vec![closed]].concat()).name("x:1").write();
    let imgtool = |args: &[&str]| {
        let mut c = std::process::Command::new(&orlop);
        c.arg("imgtool").args(args).current_dir(&home).env("ORLOP_STORE", home.join("store"));
        finish(c.uid(12345).gid(12345))
    };
    imgtool(&["import", source.path()]).ok();
    imgtool(&["verify"]).ok();
    imgtool(&["fsck"]).ok();
    imgtool(&["df"]).ok();
    for id in names(&home.join("store/layers")) {
        let file = home.join("store/layers").join(id).join("fs/old/b");
        if file.exists() {
            fs::write(file, "B").unwrap();
        }
    }
    assert!(imgtool(&["verify"]).stdout.contains("old/b: "));
    imgtool(&["fsck", "--repair"]).ok();
    imgtool(&["verify"]).ok();
    imgtool(&["export", "x:1", "out"]).ok();
    has_all_of(&home.join("out"), source.path().as_ref());
    assert_eq!(names(&home.join("store/tmp")).len(), 0);
}
