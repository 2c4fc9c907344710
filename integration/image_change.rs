//! `imgtool`: images made of images, read back by other tools.

mod support;

#[path = "image/look.rs"]
mod look;
#[allow(dead_code)] // what other programs make of images
#[path = "image/make.rs"]
mod make;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/tree.rs"]
mod tree;
#[path = "image/trees.rs"]
mod trees;

use make::{
    Entry, Image, Packing, Place, base, device, dir, fifo, file, hard, hidden_things, in_both_forms, layer,
    script,
};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use tree::{Tree, same};
use trees::{by_skopeo, by_umoci, layout, tree};

/// A system, a layer that hides and replaces, and one that only adds.
fn three_layers() -> Vec<Vec<u8>> {
    let long = ["long"; 3].map(|l| l.repeat(20));
    let dirs: Vec<String> = (1..4).map(|n| long[..n].join("/")).collect();
    let mut lower = hidden_things();
    lower.extend([device("dev/null2"), fifo("fifo"), file("twice", "2"), hard("thrice", "twice")]);
    lower.extend(dirs.iter().map(|d| dir(d, 0o755)));
    lower.push(file(&format!("{}/f", dirs[2]), "deep"));
    let upper: Vec<Entry> = vec![
        file("again/new", "1"),
        file(".wh.gone", ""),
        dir("old", 0o700),
        file("old/.wh..wh..opq", ""),
        file("old/b", "b"),
        file("secret/key", "k"),
        file("lib/x.so", "so"),
        hard("passwd", "etc/passwd"),
        file(".wh.again", ""),
    ];
    let top = vec![file("top", "1"), dir("again", 0o755), file("again/newer", "2")];
    vec![layer(&lower), layer(&upper), layer(&top)]
}

/// The merged tree of an image, by its mount.
#[track_caller]
fn mounted(p: &Place, image: &str) -> Tree {
    let bundle = p.unpack(image, &["--mount"]);
    let t = tree(&bundle.join("rootfs"));
    p.remove(&bundle);
    t
}

/// What the commands print: a name and a digest.
#[track_caller]
fn digest_of(p: &Place, args: &[&str]) -> String {
    let out = p.imgtool(args).ok().stdout;
    out.trim().split_once(' ').unwrap_or_else(|| panic!("{out}")).1.to_string()
}

fn layers_of(p: &Place, image: &str) -> Vec<Value> {
    p.imgtool(&["inspect", image]).ok().json()["manifest"]["layers"].as_array().unwrap().clone()
}

/// Everything that a container can do to its files.
fn change(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::remove_file(at("top")).unwrap();
    fs::remove_dir_all(at("old")).unwrap();
    fs::create_dir(at("old")).unwrap();
    fs::write(at("old/anew"), "x").unwrap();
    fs::remove_dir_all(at("secret")).unwrap();
    symlink("x".repeat(200), at("secret")).unwrap();
    fs::remove_file(at("fifo")).unwrap();
    fs::create_dir(at("fifo")).unwrap();
    let long = ["n"; 2].map(|n| n.repeat(130)).join("/");
    fs::create_dir_all(at(&long)).unwrap();
    fs::write(at(&long).join("file"), "y".repeat(100_000)).unwrap();
    fs::hard_link(at(&long).join("file"), at("hard")).unwrap();
    fs::write(at("etc/passwd"), "root:x:0:0:::\n").unwrap();
    rustix::fs::setxattr(at("hard"), "user.a", b"1\n\0=", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(at("again"), "user.dir", b"d", rustix::fs::XattrFlags::empty()).unwrap();
    fs::write(at("setuid"), "#!").unwrap();
    chown(at("setuid"), Some(3_000_000), Some(12)).unwrap();
    fs::set_permissions(at("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o622)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
    fs::set_permissions(at("usr"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(at("é\u{1b}[31m"), "").unwrap();
}

/// The container goes on: names that it removes meanwhile are not in the commit, and in nobody's way.
#[test]
fn a_container_that_is_busy_is_committed() {
    needs_root!();
    let p = Place::new();
    let long = vec![dir("busy", 0o755), dir("kept", 0o755), file("kept/f", "1")];
    p.imgtool(&["import", Image::new(vec![layer(&long)]).config(script("true")).write().path(), "x"]).ok();
    let bundle = p.unpack("x", &["--mount"]);
    let busy = bundle.join("rootfs/busy");
    fs::write(bundle.join("rootfs/quiet"), "2").unwrap();
    let ends = std::sync::atomic::AtomicBool::new(false);
    let is_over = || ends.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|s| {
        for worker in 0..2 {
            let (busy, is_over) = (&busy, &is_over);
            s.spawn(move || {
                for n in (0..).take_while(|_| !is_over()) {
                    let dir = busy.join(format!("{worker}-{n}"));
                    fs::create_dir(&dir).unwrap();
                    (0..20).for_each(|f| fs::write(dir.join(f.to_string()), "x").unwrap());
                    symlink("to", dir.join("link")).unwrap();
                    fs::remove_dir_all(&dir).unwrap();
                }
            });
        }
        let commits = || (0..30).map(|_| p.imgtool(&["commit", bundle.to_str().unwrap(), "new"]));
        let failed = commits().find(|out| !out.status.success());
        ends.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(failed.is_none(), "{}", failed.unwrap().stderr);
    });
    p.remove(&bundle);
    // What nobody was at is as it was, and nothing is there that never was.
    let new = p.unpack("new", &["--mount"]);
    let rootfs = new.join("rootfs");
    assert_eq!(["kept/f", "quiet"].map(|name| fs::read_to_string(rootfs.join(name)).unwrap()), ["1", "2"]);
    let names = |dir: &Path| fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect::<Vec<_>>();
    for found in names(&rootfs.join("busy")).iter().flat_map(|dir| names(dir)).filter(|path| path.is_file()) {
        assert!(["", "x"].contains(&&fs::read_to_string(&found).unwrap()[..]), "{found:?}");
    }
    p.remove(&new);
}

#[test]
fn a_commit_holds_what_was_changed() {
    needs_root!();
    in_both_forms(a_commit_holds_what_was_changed_in);
}

fn a_commit_holds_what_was_changed_in(p: &Place) {
    let source = Image::new(three_layers()).packing(Packing::Gzip).config(script("true")).write();
    p.imgtool(&["import", source.path(), "x"]).ok();
    let bundle = p.unpack("x", &["--mount"]);
    change(&bundle.join("rootfs"));
    let want = tree(&bundle.join("rootfs"));
    let path = bundle.to_str().unwrap();
    for compression in ["none", "gzip", "zstd"] {
        let args = ["commit", path, "new:1", "--compression", compression, "-m", "why", "--author", "me"];
        let commit = |name: &str| {
            let mut c = p.command(&[&args[..2], &[name], &args[3..]].concat());
            support::finish(c.env("SOURCE_DATE_EPOCH", "4000000000")).ok().stdout
        };
        let (first, second) = (commit("new:1"), commit("new:2"));
        assert_eq!(first.split(' ').nth(1), second.split(' ').nth(1), "the same input, another digest");
        same(&want, &mounted(p, "new:1"), compression);
        let (old, new) = (layers_of(p, "x"), layers_of(p, "new:1"));
        assert_eq!((&old[..], new.len()), (&new[..3], 4));
        let out = layout(p, "new:1", &[&source]);
        // The release of umoci that there is knows no zstd, and no docker archive holds it.
        if let Some(t) = (compression != "zstd").then(|| by_umoci(&out)).flatten() {
            same(&want, &t, "umoci");
        }
        if let Some(c) = (compression != "zstd").then(|| by_skopeo(&out)).flatten() {
            assert_eq!((&c["author"], &c["created"]), (&json!("me"), &json!("2096-10-02T07:06:40Z")));
            let last = c["history"].as_array().unwrap().last().unwrap();
            assert_eq!((&last["comment"], &last["author"]), (&json!("why"), &json!("me")));
        }
        // As if it were foreign.
        let other = Place::new();
        other.imgtool(&["import", out.path.to_str().unwrap(), "back"]).ok();
        same(&want, &mounted(&other, "back"), "imported again");
    }
    let mut c = p.command(&["commit", path, "new"]);
    support::finish(c.env("SOURCE_DATE_EPOCH", "-1")).fails("is no number of seconds");
    support::finish(c.env("SOURCE_DATE_EPOCH", "253402300800")).fails("before the year 10000");
    support::finish(c.env("SOURCE_DATE_EPOCH", "253402300799")).ok();
    p.remove(&bundle);
    p.imgtool(&["commit", path, "new"]).fails("no such file");
}

/// Zeros pack to a thousandth: what is made here is no bomb.
#[test]
fn a_bundle_is_committed_again_and_again() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(three_layers()).config(script("true")).write().path(), "x"]).ok();
    let mut image = "x".to_string();
    for n in 0..4 {
        let bundle = p.unpack(&image, &["--no-mount"]);
        let zeros = fs::File::create(bundle.join("upper/zeros")).unwrap();
        zeros.set_len(if n == 0 { 300 << 20 } else { 0 }).unwrap();
        fs::write(bundle.join(format!("upper/f{n}")), "").unwrap();
        image = format!("y{n}");
        digest_of(&p, &["commit", bundle.to_str().unwrap(), &image, "--compression", "zstd"]);
        p.remove(&bundle);
    }
    assert_eq!(layers_of(&p, &image).len(), 7);
    let t = mounted(&p, &image);
    assert!((0..4).all(|n| t.contains_key(&format!("f{n}"))));
    // What no name and no bundle needs goes, and nothing else.
    for n in 0..3 {
        p.imgtool(&["rm", &format!("y{n}")]).ok();
    }
    assert_eq!(blobs_of_new(&p, &image), 4);
    same(&t, &mounted(&p, &image), "after the collection");
    let readonly = p.unpack(&image, &["--no-mount", "--rootfs-readonly"]);
    p.imgtool(&["commit", readonly.to_str().unwrap(), "z"]).fails("has a read-only rootfs");
}

/// How many layers of an image have their blob in the store.
fn blobs_of_new(p: &Place, image: &str) -> usize {
    let blob = |l: &&Value| {
        let digest = l["digest"].as_str().unwrap();
        p.store().join("blobs/sha256").join(&digest[7..]).exists()
    };
    layers_of(p, image)[3..].iter().filter(blob).count()
}

#[test]
fn a_kill_at_any_time_loses_nothing() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(three_layers()).config(script("true")).write().path(), "x"]).ok();
    let bundle = p.unpack("x", &["--mount"]);
    change(&bundle.join("rootfs"));
    let (want, path) = (tree(&bundle.join("rootfs")), bundle.to_str().unwrap());
    let full = std::time::Instant::now();
    let digest = |name: &str| {
        let mut c = p.command(&["commit", path, name]);
        support::finish(c.env("SOURCE_DATE_EPOCH", "4000000000"))
            .ok()
            .stdout
            .split_once(' ')
            .unwrap()
            .1
            .to_string()
    };
    let whole = digest("y");
    let full = full.elapsed();
    p.imgtool(&["rm", "y"]).ok();
    let n = support::rounds(10, 300);
    for i in 0..n {
        let mut c = p.command(&["commit", path, "y"]);
        let mut child =
            c.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(full * u32::try_from(i).unwrap() / u32::try_from(n).unwrap());
        let _ = child.kill();
        child.wait().unwrap();
        // A name that is there names all of an image.
        if p.imgtool(&["list"]).ok().stdout.contains("\ny ") {
            same(&want, &mounted(&p, "y"), "after a kill");
            p.imgtool(&["rm", "y"]).ok();
        }
    }
    assert_eq!(digest("y"), whole);
    same(&want, &mounted(&p, "y"), "in the end");
    assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0);
    p.remove(&bundle);
}

#[test]
fn squashed_layers_keep_what_hides_things_below() {
    needs_root!();
    in_both_forms(squashed_layers_keep_what_hides_things_below_in);
}

fn squashed_layers_keep_what_hides_things_below_in(p: &Place) {
    let mut layers = three_layers();
    layers.push(layer(&[file(".wh.top", ""), dir("old", 0o700), file("old/.wh.b", ""), file("new", "")]));
    let source = Image::new(layers).packing(Packing::Gzip).config(script("true")).write();
    p.imgtool(&["import", source.path(), "x"]).ok();
    let want = mounted(p, "x");
    let old = layers_of(p, "x");
    for (from, to) in [(1, 4), (2, 3), (2, 4), (3, 4), (1, 2), (3, 3)] {
        let name = format!("s:{from}-{to}");
        let args = ["squash", "x", &name, "--from", &from.to_string(), "--to", &to.to_string()];
        let out = support::finish(p.command(&args).env("SOURCE_DATE_EPOCH", "4000000000")).ok().stdout;
        let again = support::finish(p.command(&args).env("SOURCE_DATE_EPOCH", "4000000000")).ok().stdout;
        assert_eq!(out, again, "the same input, another digest");
        same(&want, &mounted(p, &name), &name);
        let new = layers_of(p, &name);
        assert_eq!((&new[..from - 1], &new[from..]), (&old[..from - 1], &old[to..]), "{name}");
        let out = layout(p, &name, &[&source]);
        if let Some(t) = by_umoci(&out) {
            same(&want, &t, &format!("umoci {name}"));
        }
        if let Some(c) = by_skopeo(&out) {
            assert_eq!(c["rootfs"]["diff_ids"].as_array().unwrap().len(), new.len());
        }
        // Whiteouts of what is nowhere below are gone.
        let count = whiteouts(p, &new[from - 1]);
        let names: &[&str] = match (from, to) {
            (1, _) => &[],
            (2, 3) => &["again/.wh..wh..opq", "old/.wh..wh..opq", ".wh.gone"],
            (2, 4) => &["again/.wh..wh..opq", "old/.wh..wh..opq", ".wh.gone"],
            (3, 4) => &["old/.wh.b"],
            _ => &[],
        };
        assert_eq!(count, names.iter().map(|n| n.to_string()).collect(), "{name}");
    }
    p.imgtool(&["squash", "x", "s", "--from", "3", "--to", "2"]).fails("--from: 3 is above --to 2");
    p.imgtool(&["squash", "x", "s", "--to", "5"]).fails("x: has no layer 5, only 1 to 4");
}

/// The names of a layer's blob in the store that hide something.
fn whiteouts(p: &Place, descriptor: &Value) -> std::collections::BTreeSet<String> {
    let digest = descriptor["digest"].as_str().unwrap();
    let blob = fs::read(p.store().join("blobs/sha256").join(&digest[7..])).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&blob[..]));
    let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
    names.filter(|n| n.contains(".wh.")).collect()
}

#[test]
fn a_layer_is_left_out() {
    needs_root!();
    in_both_forms(a_layer_is_left_out_in);
}

fn a_layer_is_left_out_in(p: &Place) {
    let source = Image::new(three_layers()).packing(Packing::Gzip).config(script("true")).write();
    p.imgtool(&["import", source.path(), "x"]).ok();
    let layers = three_layers();
    let without = Image::new(vec![layers[0].clone(), layers[2].clone()]).write();
    p.imgtool(&["import", without.path(), "want"]).ok();
    let digest = digest_of(p, &["rm-layer", "x", "2", "y"]);
    assert!(digest.starts_with("sha256:"));
    same(&mounted(p, "want"), &mounted(p, "y"), "rm-layer");
    let old = layers_of(p, "x");
    assert_eq!(layers_of(p, "y"), [old[0].clone(), old[2].clone()]);
    by_skopeo(&layout(p, "y", &[&source]));
    // A hard link of the second layer leads to the first.
    p.imgtool(&["rm-layer", "x", "1", "z"]).fails("is in no layer");
    p.imgtool(&["rm-layer", "x", "4", "z"]).fails("has no layer 4");
    p.imgtool(&["inspect", "z"]).fails("does not exist");
}

#[test]
fn layers_move_to_another_base() {
    needs_root!();
    in_both_forms(layers_move_to_another_base_in);
}

fn layers_move_to_another_base_in(p: &Place) {
    let layers = three_layers();
    let image = |l: Vec<Vec<u8>>, name: &str| {
        let source = Image::new(l).packing(Packing::Gzip).config(script("cat /top /new /passwd")).write();
        p.imgtool(&["import", source.path(), name]).ok();
        source
    };
    let mut newer = base();
    newer.extend([file("new", "n"), dir("secret", 0o700), file("gone", "y"), dir("again", 0o700)]);
    let newer = vec![layer(&newer), layer(&[file("etc/motd", "hello")])];
    let (_old, own) = (image(layers[..1].to_vec(), "old"), image(layers.clone(), "x"));
    let base = image(newer.clone(), "new");
    image([&newer[..], &layers[1..]].concat(), "want");
    p.imgtool(&["rebase", "x", "y", "--onto", "new"]).fails("give it with --base");
    p.imgtool(&["rebase", "x", "y", "--onto", "new", "--base", "want"]).fails("layer 1 is another");
    let args = ["rebase", "x", "y", "--onto", "new", "--base", "old"];
    digest_of(p, &args);
    same(&mounted(p, "want"), &mounted(p, "y"), "rebase");
    assert_eq!(layers_of(p, "y"), layers_of(p, "want"));
    let annotations = &p.imgtool(&["inspect", "y"]).ok().json()["manifest"]["annotations"];
    assert_eq!(annotations["org.opencontainers.image.base.name"], "new");
    let bundle = p.unpack("y", &[]);
    assert_eq!(
        p.run(&bundle).ok().stdout,
        "1nroot:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
    );
    by_skopeo(&layout(p, "y", &[&own, &base]));
    // By now the image names its base itself.
    digest_of(p, &["rebase", "y", "z", "--onto", "old"]);
    assert_eq!(layers_of(p, "z"), layers_of(p, "x"));
}

#[test]
fn another_bundles_damaged_record_is_in_nobodys_way() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(vec![layer(&base())]).write().path(), "x"]).ok();
    let [first, second] = [p.unpack("x", &["--no-mount"]), p.unpack("x", &["--no-mount"])];
    for bundle in [&first, &second] {
        fs::write(bundle.join("upper/new"), "1").unwrap();
    }
    let hex = |path: &Path| orlop::image::digest::Digest::of(path.as_os_str().as_encoded_bytes()).hex();
    let records = p.store().join("bundles");
    fs::write(records.join(hex(&second)), "{").unwrap();
    let [first, second] = [&first, &second].map(|b| b.to_str().unwrap());
    p.imgtool(&["commit", first, "c"]).ok();
    assert!(p.imgtool(&["diff", first]).ok().stdout.contains("/new"));
    p.imgtool(&["commit", second, "d"]).fails("is damaged");
    fs::remove_file(records.join(hex(second.as_ref()))).unwrap();
    // What is lost is recorded again: the bundle tells its image.
    p.imgtool(&["diff", second]).ok();
}

#[test]
fn a_directory_and_an_archive_are_appended() {
    needs_root!();
    in_both_forms(a_directory_and_an_archive_are_appended_in);
}

fn a_directory_and_an_archive_are_appended_in(p: &Place) {
    let source = Image::new(three_layers()).config(script("cat /opt/a /old/b")).write();
    p.imgtool(&["import", source.path(), "x"]).ok();
    let s = support::Scratch::new("append");
    let add = s.path.join("add");
    fs::create_dir_all(add.join("opt")).unwrap();
    fs::set_permissions(&add, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(add.join("opt/a"), "A").unwrap();
    fs::hard_link(add.join("opt/a"), add.join("opt/b")).unwrap();
    digest_of(p, &["append", "x", add.to_str().unwrap(), "dir", "-m", "tools"]);
    let bundle = p.unpack("dir", &[]);
    assert_eq!(p.run(&bundle).ok().stdout, "Ab");
    let t = mounted(p, "dir");
    assert!(t[""].starts_with("dir 755 "), "the root is that of the image: {}", t[""]);
    assert!(t["opt/b"].contains(" is opt/a"), "{}", t["opt/b"]);
    let plain = layer(&[dir("opt", 0o755), file("opt/a", "T"), file(".wh.old", "")]);
    for (n, packing) in [Packing::Plain, Packing::Gzip, Packing::Zstd].into_iter().enumerate() {
        let path = s.path.join("layer");
        let bytes = make::pack(packing, &plain);
        fs::write(&path, &bytes).unwrap();
        let name = format!("tar{n}");
        digest_of(p, &["append", "x", path.to_str().unwrap(), &name]);
        let last = layers_of(p, &name).pop().unwrap();
        // What was packed stays what it was.
        let digest = orlop::image::digest::Digest::of(&bytes).to_string();
        assert_eq!(last["digest"] == digest, packing != Packing::Plain);
        if packing == Packing::Plain {
            digest_of(p, &["append", "--compression", "none", "x", path.to_str().unwrap(), "none"]);
            assert_eq!(layers_of(p, "none").pop().unwrap()["digest"], digest);
        }
        let t = mounted(p, &name);
        assert!(t.contains_key("opt/a") && !t.contains_key("old"));
        if packing != Packing::Zstd {
            by_skopeo(&layout(p, &name, &[&source]));
        }
    }
    fs::write(s.path.join("no"), "x".repeat(1024)).unwrap();
    p.imgtool(&["append", "x", s.path.join("no").to_str().unwrap(), "no"]).fails("is no tar archive");
    p.imgtool(&["append", "x", "/dev/null", "no"]).fails("neither a directory nor a regular file");
    fs::write(add.join(".wh.x"), "").unwrap();
    p.imgtool(&["append", "x", add.to_str().unwrap(), "no"]).fails("has the name of a whiteout");
    assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_configuration_is_changed_and_layers_stay() {
    needs_root!();
    let p = Place::new();
    let mut config = script("true");
    config["Healthcheck"] = json!({"Test": ["NONE"]});
    config["Labels"] = json!({"a": "1", "b": "2"});
    let source = Image::new(three_layers()).packing(Packing::Gzip).config(config).write();
    p.imgtool(&["import", source.path(), "x"]).ok();
    let args = [
        "config",
        "x",
        "y",
        "--entrypoint",
        "[\"/bin/sh\",\"-c\"]",
        "--cmd",
        "echo $A$PATH$HOME; id -u; pwd",
        "--env",
        "A=b=c",
        "--env",
        "HOME=/h",
        "--env",
        "PATH=/bin:/x",
        "--label",
        "c=3",
        "--unset-label",
        "a",
        "--user",
        "7:8",
        "--workdir",
        "/etc",
        "--expose",
        "80",
        "--volume",
        "/data",
        "--stop-signal",
        "SIGQUIT",
        "--author",
        "me",
    ];
    let first = support::finish(p.command(&args).env("SOURCE_DATE_EPOCH", "1")).ok().stdout;
    assert_eq!(support::finish(p.command(&args).env("SOURCE_DATE_EPOCH", "1")).ok().stdout, first);
    assert_eq!(layers_of(&p, "x"), layers_of(&p, "y"));
    let i = p.imgtool(&["inspect", "y"]).ok().json();
    assert_eq!(
        i["config"]["config"],
        json!({
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo $A$PATH$HOME; id -u; pwd"],
            "Env": ["PATH=/bin:/x", "A=b=c", "HOME=/h"], "Healthcheck": {"Test": ["NONE"]},
            "Labels": {"b": "2", "c": "3"}, "User": "7:8", "WorkingDir": "/etc", "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/data": {}}, "StopSignal": "SIGQUIT",
        })
    );
    assert_eq!(
        (&i["config"]["author"], &i["config"]["created"]),
        (&json!("me"), &json!("1970-01-01T00:00:01Z"))
    );
    let last = i["history"].as_array().unwrap().last().unwrap();
    assert_eq!(last["empty_layer"], true);
    let bundle = p.unpack("y", &[]);
    assert_eq!(p.run(&bundle).ok().stdout, "b=c/bin:/x/h\n7\n/etc\n");
    if let Some(c) = by_skopeo(&layout(&p, "y", &[&source])) {
        assert_eq!(c["config"]["User"], "7:8");
    }
    p.imgtool(&["config", "y", "z", "--unset-env", "A", "--cmd", "", "--user", ""]).ok();
    let i = p.imgtool(&["inspect", "z"]).ok().json();
    let c = &i["config"]["config"];
    assert_eq!(
        (&c["Env"], &c["Cmd"], &c["User"]),
        (&json!(["PATH=/bin:/x", "HOME=/h"]), &json!(null), &json!(null))
    );
    p.imgtool(&["config", "x", "z"]).fails("required");
    p.imgtool(&["config", "x", "z", "--stop-signal", "SIGX"]).fails("is not a signal");
    p.imgtool(&["config", "x", "z", "--expose", "x"]).fails("is not a port");
    p.imgtool(&["config", "x", "z", "--env", "=x"]).fails("is not NAME=VALUE");
}

#[test]
fn a_tag_is_taken_back() {
    needs_root!();
    let p = Place::new();
    let import = |n: usize| {
        let source = Image::new(three_layers()[..n].to_vec()).write();
        let out = p.imgtool(&["import", source.path(), "t"]).ok().stdout;
        out.trim().split_once(' ').unwrap().1.to_string()
    };
    let all = [import(1), import(2), import(3)];
    let current = || digest_of(&p, &["revert", "t", "0"]);
    let log = || -> Vec<Value> {
        let log = p.imgtool(&["log", "t", "--format", "json"]).ok().json();
        log.as_array().unwrap().iter().map(|e| e["digest"].clone()).collect()
    };
    assert_eq!(log(), [&all[2], &all[1], &all[0]].map(|d| json!(d)));
    p.imgtool(&["gc"]).ok();
    assert_eq!(digest_of(&p, &["revert", "t", "2"]), all[0]);
    assert_eq!((current(), log().len()), (all[0].clone(), 4));
    assert_eq!(digest_of(&p, &["revert", "t"]), all[2]);
    // A name that is gone comes back.
    p.imgtool(&["untag", "t"]).ok();
    p.imgtool(&["inspect", "t"]).fails("does not exist");
    p.imgtool(&["gc"]).ok();
    assert_eq!(digest_of(&p, &["revert", "t"]), all[2]);
    p.imgtool(&["tag", "t", "u"]).ok();
    assert!(p.imgtool(&["list"]).ok().stdout.contains("\nu "));
    // Without the log only what is named stays.
    p.imgtool(&["gc", "--log", "0"]).ok();
    assert_eq!(fs::read_dir(p.store().join("layers")).unwrap().count(), 3);
    assert!(p.imgtool(&["log", "t"]).ok().stdout.contains("(no longer in the store)"));
    p.imgtool(&["revert", "t", "1"]).fails("no longer in the store");
    p.imgtool(&["revert", "t", "9"]).fails("none 9 before");
    p.imgtool(&["gc"]).ok();
    p.imgtool(&["rm", "t"]).ok();
    p.imgtool(&["rm", "u"]).ok();
    p.imgtool(&["log", "t"]).fails("has no log");
    for sub in ["layers", "refs", "logs", "blobs/sha256"] {
        assert_eq!(fs::read_dir(p.store().join(sub)).unwrap().count(), 0, "{sub}");
    }
}
