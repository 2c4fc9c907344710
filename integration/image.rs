//! `imgtool`: images made here, imported, unpacked, run and removed.

mod support;

#[path = "image/behind.rs"]
mod behind;
#[path = "image/bundle.rs"]
mod bundle;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/make.rs"]
mod make;
#[path = "image/sources.rs"]
mod sources;

use make::{
    Entry, Image, Packing, Place, base, dir, file, hard, hidden_things, in_both_forms, layer, link, script,
};
use serde_json::json;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use support::{Scratch, finish, rounds};

/// A busybox system, and a layer that hides and replaces things of it.
fn two_layers() -> Vec<Vec<u8>> {
    let mut lower = hidden_things();
    lower.push(file("etc/hostname", "lower"));
    let upper: Vec<Entry> = vec![
        file("again/new", "1"),
        file(".wh.gone", ""),
        file("old/.wh..wh..opq", ""),
        file("old/b", "b"),
        file("secret/key", "k"),
        file("lib/x.so", "so"),
        hard("passwd", "etc/passwd"),
        file(".wh.again", ""),
        file("fresh/.wh.nothing", ""),
        file("etc/hostname", "upper"),
    ];
    vec![layer(&lower), layer(&upper)]
}

#[test]
fn an_image_is_imported_unpacked_and_run() {
    needs_root!();
    in_both_forms(an_image_is_imported_unpacked_and_run_in);
}

fn an_image_is_imported_unpacked_and_run_in(p: &Place) {
    let want = "ls /old: b\nls /again: new\nls /fresh:\nls /lib/: x.so\nupper\nroot:x:0:0:root:/root:/bin/sh\n\
                user:x:1000:1000::/home/user:/bin/sh\n711 secret\n750 usr/lib\n755 again\n2\n";
    let check = "cd /; for d in /old /again /fresh /lib/; do echo ls $d: $(ls $d); done; cat etc/hostname; echo; cat passwd; \
                 for f in secret usr/lib again; do stat -c '%a %n' $f; done; test -e gone && echo gone; \
                 test -L lib && ls fresh | wc -l | tr 0 2";
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let config = script(check);
        let name = format!("i:{packing:?}").to_lowercase();
        let source = Image::new(two_layers()).packing(packing).config(config).name(&name).write();
        let out = p.imgtool(&["import", source.path()]).ok();
        assert_eq!(out.stdout.split(' ').next(), Some(&name[..]));
        for flag in ["--mount", "--no-mount"] {
            let bundle = p.unpack(&name, &[flag]);
            assert_eq!(p.is_mounted(&bundle), flag == "--mount");
            let out = p.run(&bundle).ok();
            assert_eq!(out.stdout, want, "{packing:?} {flag}: {}", out.stderr);
            assert_eq!(
                p.is_mounted(&bundle),
                flag == "--mount",
                "the runtime's mount ends with the container"
            );
            p.remove(&bundle);
        }
    }
}

#[test]
fn bundles_share_layers_and_write_apart() {
    needs_root!();
    in_both_forms(bundles_share_layers_and_write_apart_in);
}

fn bundles_share_layers_and_write_apart_in(p: &Place) {
    let source = Image::new(two_layers())
        .config(script("cat /old/b; echo >> /old/b; rm /passwd; ls /; cat /old/b"))
        .write();
    p.imgtool(&["import", source.path(), "shared"]).ok();
    let layers = || fs::read_dir(p.store().join("layers")).unwrap().count();
    assert_eq!(layers(), 2);
    let bundles: Vec<_> = (0..2).map(|_| p.unpack("shared", &[])).collect();
    let outputs: Vec<String> = bundles.iter().map(|b| p.run(b).ok().stdout).collect();
    assert_eq!(outputs[0], outputs[1], "the second saw what the first wrote");
    assert!(!outputs[0].contains("passwd"));
    // A third layer on the same two: only that is new.
    let mut more = two_layers();
    more.push(layer(&[file("third", "3")]));
    p.imgtool(&["import", Image::new(more).write().path(), "more"]).ok();
    assert_eq!(layers(), 3);
}

#[test]
fn config_follows_the_image() {
    needs_root!();
    let p = Place::new();
    let mut entries = base();
    entries.extend([
        file("etc/passwd", "root:x:0:0::/:\nweb:x:33:44::/:\n"),
        file("etc/group", "data:x:50:a,web\n"),
        dir("var", 0o755),
        dir("var/data", 0o751),
        file("var/data/seed", "seed"),
    ]);
    let config = json!({
        "User": "web", "Entrypoint": ["sh", "-c"], "Cmd": ["id; pwd; echo $A $PATH; cat /var/data/seed; touch /var/x"],
        "Env": ["A=b"], "WorkingDir": "/var", "Volumes": {"/var/data": {}}, "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "StopSignal": "SIGQUIT", "Labels": {"one": "1", "": "2", "org.opencontainers.image.author": "label",
            "run.oci.keep_original_groups": "1", "org.criu.config": "/x", "org.systemd.property.Slice": "'x'"},
    });
    p.imgtool(&["import", Image::new(vec![layer(&entries)]).config(config).write().path(), "c"]).ok();
    let bundle = p.unpack("c", &["--rootfs-readonly"]);
    let c: serde_json::Value =
        serde_json::from_slice(&fs::read(bundle.join("config.json")).unwrap()).unwrap();
    assert_eq!(c["process"]["user"], json!({"uid": 33, "gid": 44, "additionalGids": [50]}));
    assert_eq!(c["root"]["readonly"], true);
    let a = &c["annotations"];
    assert_eq!(a["org.opencontainers.image.exposedPorts"], "53/udp,80/tcp");
    assert_eq!(a["org.opencontainers.image.stopSignal"], "SIGQUIT");
    assert_eq!((&a["one"], &a["org.opencontainers.image.author"]), (&json!("1"), &json!("label")));
    // An image does not say how the runtime works.
    let acts = |key: &String| ["run.oci.", "org.criu.", "org.systemd."].iter().any(|p| key.starts_with(p));
    assert_eq!(a.as_object().unwrap().keys().find(|k| acts(k) || k.is_empty()), None);
    let mount = c["mounts"].as_array().unwrap().last().unwrap();
    assert_eq!((&mount["destination"], &mount["type"]), (&json!("/var/data"), &json!("tmpfs")));
    let out = p.run(&bundle);
    assert!(
        out.stdout.starts_with("uid=33(web) gid=44 groups=50(data)\n/var\nb /usr/local/sbin:"),
        "{}{}",
        out.stdout,
        out.stderr
    );
    assert!(out.stderr.contains("Read-only file system"), "{}", out.stderr);
}

#[test]
fn a_question_makes_nothing() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(two_layers()).write().path(), "x"]).ok();
    let fixups = p.store().join("fixups");
    fs::remove_dir_all(&fixups).unwrap();
    for form in ["oci", "docker"] {
        p.imgtool(&["inspect", "--format", form, "x"]).ok();
    }
    assert_eq!(fs::read_dir(fixups).unwrap().count(), 0);
}

#[test]
fn rm_keeps_what_is_used() {
    needs_root!();
    let p = Place::new();
    let mut three = two_layers();
    three.push(layer(&[file("third", "3")]));
    p.imgtool(&["import", Image::new(two_layers()).write().path(), "two"]).ok();
    p.imgtool(&["import", Image::new(three).config(script("cat /third")).write().path(), "three"]).ok();
    let bundle = p.unpack("three", &["--no-mount"]);
    let count = |sub: &str| fs::read_dir(p.store().join(sub)).unwrap().count();
    p.imgtool(&["rm", "three"]).ok();
    p.imgtool(&["rm", "three"]).fails("does not exist");
    assert_eq!((count("layers"), count("refs"), count("bundles")), (3, 1, 1));
    assert_eq!(p.run(&bundle).ok().stdout, "3");
    p.remove(&bundle);
    p.imgtool(&["gc"]).ok();
    assert_eq!((count("layers"), count("refs"), count("bundles")), (2, 1, 0));
    fs::write(p.store().join("locks/of-the-killed"), "").unwrap();
    p.imgtool(&["rm", "two"]).ok();
    for sub in ["layers", "refs", "bundles", "fixups", "blobs/sha256", "tmp", "locks"] {
        assert_eq!(count(sub), 0, "{sub}");
    }
}

#[test]
fn what_is_not_what_it_says_is_refused() {
    needs_root!();
    let fresh = || Image::new(two_layers()).packing(Packing::Gzip).write();
    let refuse = |source: &make::Layout, words: &str| {
        let p = Place::new();
        p.imgtool(&["import", source.path(), "bad"]).fails(words);
        // Only the layer that was right may be there.
        assert!(fs::read_dir(p.store().join("layers")).unwrap().count() <= 1);
        assert_eq!(fs::read_dir(p.store().join("refs")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0);
    };
    let s = fresh();
    s.damage_layer(1, |b| b.push(0));
    refuse(&s, "its descriptor says");
    let s = fresh();
    s.damage_layer(1, |b| *b.last_mut().unwrap() ^= 1);
    refuse(&s, "layer sha256:");
    let s = fresh();
    s.damage_layer(1, |b| b[4] ^= 1); // the time in gzip's header: inflates to the same
    refuse(&s, "have the digest");
    let s = fresh();
    s.remove_layer(1);
    refuse(&s, "is missing");
    let s = fresh();
    s.edit_config(|c| c["rootfs"]["diff_ids"][1] = json!(format!("sha256:{}", "0".repeat(64))));
    refuse(&s, "has the diffID");
    let s = fresh();
    s.edit_config(|c| drop(c["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()));
    refuse(&s, "diff_ids");
    let s = fresh();
    s.edit_manifest(|m| m["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar"));
    refuse(&s, "is not its media type");
    let s = fresh();
    s.edit_manifest(|m| m["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd"));
    refuse(&s, "");
    let s = fresh();
    s.edit_manifest(|m| m["manifests"] = json!([]));
    refuse(&s, "is both an index and a manifest");
    let s = fresh();
    s.edit_manifest(|m| m["mediaType"] = json!("application/vnd.oci.image.index.v1+json"));
    refuse(&s, "by its descriptor");
    let s = fresh();
    s.edit_index(|i| i["manifests"][0]["size"] = json!(1));
    refuse(&s, "its descriptor says 1");
}

#[test]
fn a_layout_cannot_reach_outside_or_run_away() {
    needs_root!();
    let p = Place::new();
    let s = Image::new(two_layers()).write();
    s.replace_layer(0, |path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap());
    p.imgtool(&["import", s.path(), "bad"]).fails("");
    let s = Image::new(two_layers()).write();
    s.replace_layer(0, |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap());
    p.imgtool(&["import", s.path(), "bad"]).fails("is not a regular file");
    let s = Image::new(two_layers()).write();
    s.double_index(60);
    p.imgtool(&["import", s.path(), "bad"]).fails("other indexes");
    let s = Image::new(two_layers()).write();
    s.edit_index(|i| {
        let one = i["manifests"][0].clone();
        i["manifests"] = json!(vec![one; 60_000]);
    });
    p.imgtool(&["import", s.path(), "many"]).fails("at most 4194304 are read");
}

#[test]
fn hostile_layers_leave_the_canary_alone() {
    needs_root!();
    in_both_forms(hostile_layers_leave_the_canary_alone_in);
}

fn hostile_layers_leave_the_canary_alone_in(p: &Place) {
    let canary = Scratch::new("canary");
    let inside = canary.path.join("x");
    fs::write(&inside, "alive").unwrap();
    let target = canary.path.to_str().unwrap();
    let below = target.trim_start_matches('/');
    let up = format!("{}{below}", "../".repeat(30));
    let base = layer(&base());
    for (n, bad) in [
        // A link of one layer, used by the next.
        vec![
            layer(&[link("l", target)]),
            layer(&[file("l/x", "dead"), file("l/y", "dead"), file("l/.wh.x", "")]),
        ],
        vec![layer(&[link("l", &up)]), layer(&[dir("l/d", 0o777), file("l/d/y", "dead")])],
        vec![layer(&[link("l", target)]), layer(&[hard("h", "l/x")])],
        vec![layer(&[link("l", &format!("{target}/x"))]), layer(&[file("l", "dead")])],
        vec![
            layer(&[link("l", &format!("{target}/x"))]),
            layer(&[hard("h", "l")]),
            layer(&[file("h", "dead")]),
        ],
        vec![layer(&[link("a", "b"), link("b", "a")]), layer(&[file("a/x", "dead")])],
        vec![layer(&[link("l", "l/l")]), layer(&[file("l/x", "dead")])],
        vec![layer(&[link("etc", target)]), layer(&[file("etc/.wh..wh..opq", "")])],
    ]
    .into_iter()
    .enumerate()
    {
        let layers = [vec![base.clone()], bad].concat();
        let name = format!("bad{n}");
        let source = Image::new(layers).config(script("true")).write();
        if p.imgtool(&["import", source.path(), &name]).status.success() {
            let bundle = p.path().join(&name);
            if p.imgtool(&["unpack", &name, bundle.to_str().unwrap()]).status.success() {
                p.remove(&bundle);
            }
        }
        assert_eq!(fs::read_to_string(&inside).unwrap(), "alive", "{n}");
        assert_eq!(fs::read_dir(&canary.path).unwrap().count(), 1, "{n}");
        assert_eq!(
            (fs::metadata(&inside).unwrap().nlink(), fs::metadata(&canary.path).unwrap().mode() & 0o7777),
            (1, 0o755)
        );
    }
}

#[test]
fn passwd_of_an_image_is_only_read_when_it_is_a_file() {
    needs_root!();
    let p = Place::new();
    let passwd = |n: usize, e: Vec<Entry>| {
        let mut all: Vec<Entry> = base().into_iter().filter(|e| e.name != "etc/passwd").collect();
        all.extend(e);
        let config = json!({"User": "web", "Cmd": ["true"]});
        let name = format!("p{n}");
        p.imgtool(&["import", Image::new(vec![layer(&all)]).config(config).write().path(), &name]).ok();
        p.imgtool(&["unpack", &name, p.path().join(&name).to_str().unwrap()])
    };
    passwd(0, vec![make::fifo("etc/passwd")]).fails("is not a regular file");
    passwd(1, vec![link("etc/passwd", "/dev/null")]).fails("not in the image's /etc/passwd");
    passwd(2, vec![link("etc/passwd", "../../../../../../etc/shadow")])
        .fails("not in the image's /etc/passwd");
    passwd(3, vec![file("etc/passwd", &"#\n".repeat(3 << 20))]).fails("are read");
    passwd(4, vec![link("etc/passwd", "/etc/other"), file("etc/other", "web:x:5:6::/:\n")]).ok();
    assert!(!p.path().join("p0").exists(), "a failed unpack leaves no bundle");
}

#[test]
fn a_bomb_is_stopped_and_leaves_nothing() {
    needs_root!();
    let p = Place::new();
    let zeros = make::Zeros(600 << 20);
    let s = Image::new(vec![layer(&base())]).write();
    s.add_layer_of_zeros("zeros", zeros, Packing::Zstd);
    p.imgtool(&["import", s.path(), "bomb"]).fails("raise --max-ratio");
    p.imgtool(&["import", "--max-layer-bytes", "1000000", s.path(), "bomb"]).fails("raise --max-layer-bytes");
    assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0);
    p.imgtool(&["import", "--max-entries", "0", s.path(), "bomb"]).fails("raise --max-entries");
    let packed = p.path().join("bomb.tar.zst");
    let zeros = |first: &[u8]| zstd::encode_all(first.chain(std::io::repeat(0).take(600 << 20)), 1).unwrap();
    fs::write(&packed, zeros(&layer(&[file("f", "")])[..512])).unwrap();
    p.imgtool(&["import", packed.to_str().unwrap(), "bomb"]).fails("raise --max-ratio");
    fs::write(&packed, zeros(b"")).unwrap();
    p.imgtool(&["import", packed.to_str().unwrap(), "bomb"]).fails("is no tar archive, or an empty one");
}

/// Each entry stands at the end of a path of its own: a few bytes, many directories.
#[test]
fn directories_without_entries_are_counted() {
    needs_root!();
    let p = Place::new();
    let deep: Vec<Entry> = (0..20).map(|n| file(&format!("{n}/{}f", "d/".repeat(90)), "")).collect();
    let s = Image::new(vec![layer(&deep)]).packing(Packing::Gzip).write();
    p.imgtool(&["import", "--max-entries", "1000", s.path(), "deep"]).fails("has more than 1000 directories");
    p.imgtool(&["import", s.path(), "deep"]).ok();
}

#[test]
fn a_kill_at_any_time_leaves_a_store_that_works() {
    needs_root!();
    in_both_forms(a_kill_at_any_time_leaves_a_store_that_works_in);
}

fn a_kill_at_any_time_leaves_a_store_that_works_in(p: &Place) {
    let many: Vec<Entry> = (0..2000).map(|n| file(&format!("d{}/f{n}", n % 50), &"x".repeat(n))).collect();
    let layers = [two_layers(), vec![layer(&many), layer(&[file("top", "1")])]].concat();
    let source = Image::new(layers).packing(Packing::Gzip).config(script("cat /top; ls /d7 | wc -l")).write();
    let full = std::time::Instant::now();
    p.imgtool(&["import", source.path(), "k"]).ok();
    let full = full.elapsed();
    p.imgtool(&["rm", "k"]).ok();
    let n = rounds(10, 400);
    for i in 0..n {
        let mut child = p
            .command(&["import", source.path(), "k"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(full * u32::try_from(i).unwrap() / u32::try_from(n).unwrap());
        let _ = child.kill();
        child.wait().unwrap();
        // Whatever is there is whole.
        for entry in fs::read_dir(p.store().join("layers")).into_iter().flatten() {
            assert!(entry.unwrap().path().join("meta").exists());
        }
        if i % 5 == 4 && p.imgtool(&["list"]).ok().stdout.contains("\nk ") {
            p.imgtool(&["rm", "k"]).ok();
        }
    }
    p.imgtool(&["import", source.path(), "k"]).ok();
    let bundle = p.unpack("k", &[]);
    assert_eq!(p.run(&bundle).ok().stdout, "140\n");
    assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0);
}

#[test]
fn imports_at_once_make_each_layer_once() {
    needs_root!();
    let p = Place::new();
    let many: Vec<Entry> = (0..500).map(|n| file(&format!("d/f{n}"), &n.to_string())).collect();
    let source =
        Image::new([two_layers(), vec![layer(&many)]].concat()).config(script("cat /d/f499")).write();
    let path = source.path();
    for _ in 0..rounds(3, 50) {
        std::thread::scope(|s| {
            for n in 0..4 {
                let p = &p;
                s.spawn(move || p.imgtool(&["import", path, &format!("at{n}")]).ok());
            }
        });
        assert_eq!(fs::read_dir(p.store().join("layers")).unwrap().count(), 3);
        for n in 0..4 {
            p.imgtool(&["rm", &format!("at{n}")]).ok();
        }
        assert_eq!(fs::read_dir(p.store().join("layers")).unwrap().count(), 0);
    }
}

#[test]
fn a_tall_image_runs_and_a_taller_one_is_refused() {
    needs_root!();
    let p = Place::new();
    let tall = |n: usize| {
        let more = (0..n).map(|i| {
            let unlisted = if i < 550 { "top2" } else { "w/unlisted" };
            layer(&[
                dir("d", 0o755),
                file(&format!("d/f{i}"), "x"),
                file("top", &i.to_string()),
                file(unlisted, ""),
            ])
        });
        Image::new(std::iter::once(layer(&base())).chain(more).collect())
            .config(script("cat /top; ls /d | wc -l"))
            .write()
    };
    p.imgtool(&["import", tall(300).path(), "tall"]).ok();
    let bundle = p.unpack("tall", &[]);
    assert_eq!(p.run(&bundle).ok().stdout, "299300\n");
    let bundle = p.unpack("tall", &["--no-mount"]);
    assert_eq!(p.run(&bundle).ok().stdout, "299300\n");
    p.imgtool(&["import", tall(499).path(), "tallest"]).ok();
    let bundle = p.unpack("tallest", &[]);
    assert_eq!(p.run(&bundle).ok().stdout, "498499\n");
    let more = p.path().join("t");
    p.imgtool(&["unpack", "--rootfs-readonly", "tallest", more.to_str().unwrap()])
        .fails("needs 501 lower directories for its 500 layers, overlayfs stacks 500");
    p.imgtool(&["import", tall(600).path(), "taller"]).ok();
    assert_eq!(fs::read_dir(p.store().join("fixups")).unwrap().count(), 0, "they are in vain");
    p.imgtool(&["unpack", "taller", more.to_str().unwrap()])
        .fails("for its 601 layers, overlayfs stacks 500")
        .fails("imgtool squash");
}

/// More directories to settle than there are descriptors.
#[test]
fn a_layer_may_leave_many_directories_to_those_below() {
    needs_root!();
    in_both_forms(a_layer_may_leave_many_directories_to_those_below_in);
}

fn a_layer_may_leave_many_directories_to_those_below_in(p: &Place) {
    let many: Vec<Entry> = (0..1500).map(|n| file(&format!("w/{n}/.wh.a"), "")).collect();
    let source =
        Image::new(vec![layer(&base()), layer(&many)]).config(script("ls /w | wc -l; ls /w/7")).write();
    let mut c = std::process::Command::new("sh");
    c.args(["-c", "ulimit -n 256; exec \"$@\"", "sh", support::ORLOP, "imgtool", "--store"]);
    finish(c.arg(p.store()).args(["import", source.path(), "many"])).ok();
    let bundle = p.unpack("many", &[]);
    assert_eq!(p.run(&bundle).ok().stdout, "1500\n");
}

#[test]
fn the_store_is_closed_to_other_users() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(two_layers()).write().path(), "x"]).ok();
    assert_eq!(fs::metadata(p.store()).unwrap().permissions().mode() & 0o7777, 0o700);
    let bundle = p.unpack("x", &[]);
    assert_eq!(fs::metadata(&bundle).unwrap().permissions().mode() & 0o7777, 0o700);
    let orlop = p.path().join("orlop");
    support::copy_orlop(&orlop);
    let mut c = std::process::Command::new(orlop);
    c.args(["imgtool", "--store"]).arg(p.store()).arg("list");
    finish(c.uid(12345).gid(12345)).fails("belongs to another user");
}

#[test]
fn a_read_only_store_is_listed() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(two_layers()).write().path(), "x"]).ok();
    let read_only = |args: &[&str]| {
        let mut c = std::process::Command::new("unshare");
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" && s=$1 && shift && exec \"$0\" imgtool --store \"$s\" \"$@\"";
        finish(c.args(["-m", "sh", "-c", script, support::ORLOP]).arg(p.store()).args(args))
    };
    assert!(read_only(&["list"]).ok().stdout.contains("\nx "));
    read_only(&["inspect", "x"]).ok();
    read_only(&["rm", "x"]).fails("read-only file system");
    p.imgtool(&["inspect", "x"]).ok();
}

#[test]
fn an_ordinary_user_imports_and_runs() {
    needs_root!();
    let p = Place::new();
    let s = Scratch::new("ordinary");
    let home = s.path.join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(12345), Some(12345)).unwrap();
    let orlop = s.path.join("orlop");
    support::copy_orlop(&orlop);
    let mut layers = two_layers();
    let closed = [dir("closed", 0o555), dir("closed/more", 0), file("closed/more/f", "")];
    layers.push(layer(&[&[make::device("dev/odd"), make::owned("etc/owned", 5)], &closed[..]].concat()));
    let check = "ls /old /again; cat /passwd; stat -c '%u %a %n' /secret /etc/owned; test -e /gone || echo hidden; \
                 echo mine > /etc/hostname; cat /etc/hostname";
    let source = Image::new(layers).packing(Packing::Gzip).config(script(check)).write();
    let run = |args: &[&str]| {
        let mut c = std::process::Command::new(&orlop);
        c.args(args).current_dir(&home).env("HOME", &home).env_remove("XDG_DATA_HOME").stdin(Stdio::null());
        finish(c.uid(12345).gid(12345))
    };
    let out = run(&["imgtool", "import", source.path(), "x"]).ok();
    assert!(out.stderr.contains("1 device nodes were left out"), "{}", out.stderr);
    assert!(home.join(".local/share/orlop/layers").exists());
    run(&["imgtool", "unpack", "x", "b"]).ok();
    run(&["imgtool", "mount", "b"]).fails("operation not permitted");
    assert!(!p.is_mounted(&home.join("b")));
    let id = format!("orlop-ordinary-{}", support::unique());
    let out = run(&["--root", "state", "run", "--bundle", "b", &id]).ok();
    let want = "/again:\nnew\n\n/old:\nb\nroot:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n\
                0 711 /secret\n0 644 /etc/owned\nhidden\nmine\n";
    assert_eq!(out.stdout, want, "{}", out.stderr);
    run(&["imgtool", "rm", "x"]).ok();
    fs::remove_dir_all(home.join("b")).unwrap();
    run(&["imgtool", "gc"]).ok();
    for sub in ["layers", "tmp"] {
        assert_eq!(fs::read_dir(home.join(".local/share/orlop").join(sub)).unwrap().count(), 0, "{sub}");
    }
}
