//! `imgtool`: layers that are one EROFS image each, beside layers that are directories; and the drivers.

mod support;

#[path = "image_erofs/convert.rs"]
mod convert;
#[path = "image/forms.rs"]
mod forms;
#[allow(dead_code)] // each program of images uses its part
#[path = "image/kill.rs"]
mod kill;
#[allow(dead_code)] // each program of images uses its part
#[path = "image/make.rs"]
mod make;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/tree.rs"]
mod tree;

use make::{Entry, Image, Place, base, device, dir, fifo, file, hard, layer, link, owned, script};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{finish, skip};

/// Skips the test where the kernel mounts no image from a file of this place's store.
macro_rules! needs_erofs {
    ($place:expr) => {{
        needs_root!();
        let info = $place.imgtool(&["info", "--format", "json"]).ok().json();
        if info["layerForm"]["name"] != "erofs" {
            return skip("needs a kernel that mounts EROFS from a file");
        }
    }};
}

/// All that a layer can have, in more than one block where there are blocks.
fn rich() -> Vec<Entry> {
    let mut all = vec![
        dir("./", 0o755),
        dir("d", 0o1777),
        file("d/empty", ""),
        file("d/small", "s"),
        file("d/block", &"b".repeat(4096)),
        file("d/more", &"m".repeat(4097)),
        file("d/end", &"e".repeat(8191)),
        file("d/large", &"0123456789abcdef".repeat(10_000)),
        link("d/link", "small"),
        link("d/longlink", &"l/".repeat(1000)),
        hard("d/other", "d/small"),
        fifo("d/fifo"),
        device("d/null"),
        owned("d/owned", 70_000),
        dir("d/none", 0o700),
        dir("many", 0o755),
        file("gone/.wh.a", ""),
        file("gone/.wh.b", ""),
        dir("opaque", 0o750),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/!first", "x"),
    ];
    // Names of which some come before the two dots.
    all.extend((0..2000).map(|n| {
        file(&format!("many/{}{n:0width$}", if n % 2 == 0 { "+" } else { "z" }, width = 1 + n % 60), "")
    }));
    all.push(file(&format!("many/{}", "n".repeat(255)), "long"));
    all
}

/// The image of the one layer of a store.
fn the_image(store: &Path) -> PathBuf {
    let mut layers = fs::read_dir(store.join("layers")).unwrap();
    let path = layers.next().unwrap().unwrap().path().join("erofs");
    assert!(path.is_file() && layers.next().is_none());
    path
}

#[test]
fn the_tools_of_erofs_agree_with_an_image() {
    let p = Place::new();
    needs_erofs!(p);
    needs_program!("fsck.erofs");
    needs_program!("dump.erofs");
    p.imgtool(&["import", "--layers", "erofs", Image::new(vec![layer(&rich())]).write().path(), "x"]).ok();
    let image = the_image(&p.store());
    let out = p.path().join("out");
    let said =
        finish(Command::new("fsck.erofs").arg(format!("--extract={}", out.display())).arg(&image)).ok();
    assert!(!format!("{}{}", said.stdout, said.stderr).contains("rror"), "{said:?}");
    assert_eq!(fs::read(out.join("d/large")).unwrap().len(), 160_000);
    assert_eq!(fs::read_link(out.join("d/longlink")).unwrap().as_os_str().len(), 2000);
    assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), 2001);
    let said = finish(Command::new("dump.erofs").arg("-s").arg(&image)).ok().stdout;
    assert!(said.contains("sb_csum") && said.contains("mtime"), "{said}");
}

#[test]
fn both_forms_are_the_same_tree() {
    let p = Place::new();
    needs_erofs!(p);
    let upper = vec![
        file("d/more", "replaced"),
        file(".wh.many", ""),
        hard("d/again", "d/large"),
        hard("d/kept", "d/block"),
        file("d/.wh.block", ""),
        file("d/none/x", "x"),
        dir("opaque", 0o700),
        file("opaque/.wh..wh..opq", ""),
        file("opaque/y", "y"),
    ];
    let source = Image::new(vec![layer(&rich()), layer(&upper)]).write();
    let trees: Vec<_> = ["dir", "erofs"]
        .iter()
        .map(|form| {
            let store = p.path().join(form);
            let imgtool = |args: &[&str]| {
                finish(Command::new(support::ORLOP).args(["imgtool", "--store"]).arg(&store).args(args)).ok()
            };
            imgtool(&["import", "--layers", form, source.path(), "x"]);
            for layer in fs::read_dir(store.join("layers")).unwrap() {
                let layer = layer.unwrap().path();
                assert_eq!(layer.join("erofs").exists(), *form == "erofs");
                assert_eq!(layer.join("fs").exists(), *form == "dir");
            }
            let bundle = p.path().join(format!("bundle-{form}"));
            imgtool(&["unpack", "x", bundle.to_str().unwrap()]);
            let facts = tree::scan(&bundle.join("rootfs"));
            imgtool(&["umount", bundle.to_str().unwrap()]);
            facts
        })
        .collect();
    assert!(trees[0].len() > 15 && trees[0].contains_key("d/again"));
    tree::same(&trees[0], &trees[1], "dir and erofs");
}

#[test]
fn an_image_is_the_same_bytes_whenever_it_is_made() {
    let p = Place::new();
    needs_erofs!(p);
    let source = Image::new(vec![layer(&rich())]).write();
    let bytes: Vec<Vec<u8>> = (0..2)
        .map(|_| {
            p.imgtool(&["import", "--layers", "erofs", source.path(), "x"]).ok();
            let bytes = fs::read(the_image(&p.store())).unwrap();
            p.imgtool(&["rm", "x"]).ok();
            bytes
        })
        .collect();
    assert!(bytes[0] == bytes[1] && bytes[0].len() > 160_000);
}

#[test]
fn a_killed_import_leaves_nothing_but_litter() {
    let p = Place::new();
    needs_erofs!(p);
    let mut zeros = rich();
    zeros.push(file("big", &"big".repeat(3 << 20)));
    let source = Image::new(vec![layer(&zeros), layer(&rich())]).write();
    for wait in 0..support::rounds(12, 60) {
        let mut child = p.command(&["import", "--layers", "erofs", source.path(), "x"]);
        let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait as u64 * 5));
        let _ = child.kill();
        child.wait().unwrap();
        let images = p.imgtool(&["list", "--format", "json"]).ok().json();
        assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0, "after {wait}");
        let layers: Vec<_> =
            fs::read_dir(p.store().join("layers")).unwrap().map(|l| l.unwrap().path()).collect();
        assert!(layers.iter().all(|l| l.join("meta").exists() && l.join("erofs").exists()), "{layers:?}");
        if !images.as_array().unwrap().is_empty() {
            assert_eq!(layers.len(), 2);
            let bundle = p.unpack("x", &[]);
            assert_eq!(fs::read(bundle.join("rootfs/d/large")).unwrap().len(), 160_000);
            p.remove(&bundle);
            p.imgtool(&["rm", "x"]).ok();
        }
        p.imgtool(&["gc"]).ok();
    }
}

#[test]
fn stacks_mix_both_forms() {
    let p = Place::new();
    needs_erofs!(p);
    let lower = || {
        layer(
            &[
                base(),
                vec![
                    dir("usr", 0o750),
                    dir("usr/lib", 0o755),
                    link("lib", "usr/lib"),
                    file("usr/lib/a", "a"),
                    file("hidden", ""),
                ],
            ]
            .concat(),
        )
    };
    let upper = || {
        layer(&[file("lib/b", "b"), hard("c", "usr/lib/a"), hard("c2", "usr/lib/a"), file(".wh.hidden", "")])
    };
    let text = "cd /; ls -d c* hidden lib/*; cat lib/a lib/b c c2; test c -ef c2 && stat -c ' %a' usr";
    let config = script(text);
    for (first, second) in [("dir", "erofs"), ("erofs", "dir")] {
        let image = |layers| Image::new(layers).config(config.clone()).write();
        p.imgtool(&["import", "--layers", first, image(vec![lower()]).path(), "lower"]).ok();
        p.imgtool(&["import", "--layers", second, image(vec![lower(), upper()]).path(), "both"]).ok();
        let info = p.imgtool(&["info", "--format", "json"]).ok().json();
        assert_eq!((&info["layers"], &info["erofsLayers"]), (&Value::from(2), &Value::from(1)));
        for flags in [
            &["--mount"][..],
            &["--no-mount"],
            &["--mount", "--rootfs-readonly"],
            &["--no-mount", "--rootfs-readonly"],
        ] {
            let bundle = p.unpack("both", flags);
            let out = p.run(&bundle);
            assert_eq!(out.stdout, "c\nc2\nlib/a\nlib/b\nabaa 750\n", "{first} {flags:?}: {}", out.stderr);
            p.remove(&bundle);
        }
        p.imgtool(&["rm", "both"]).ok();
        p.imgtool(&["rm", "lower"]).ok();
        assert_eq!(fs::read_dir(p.store().join("layers")).unwrap().count(), 0);
    }
}

#[test]
fn tall_stacks_of_images_are_mounted() {
    let p = Place::new();
    needs_erofs!(p);
    for height in [60, 200] {
        let mut layers = vec![layer(&base())];
        layers.extend(
            (1..height)
                .map(|n| layer(&[file(&format!("f{n}"), &n.to_string()), file("top", &n.to_string())])),
        );
        let source = Image::new(layers).config(script("cat /top; ls / | grep -c ^f")).write();
        p.imgtool(&["import", "--layers", "erofs", source.path(), "tall"]).ok();
        for flag in ["--mount", "--no-mount"] {
            let bundle = p.unpack("tall", &[flag]);
            assert_eq!(p.run(&bundle).ok().stdout, format!("{}{}\n", height - 1, height - 1), "{flag}");
            p.remove(&bundle);
        }
    }
}

#[test]
fn an_image_may_have_a_layer_twice() {
    let p = Place::new();
    needs_root!();
    let a = layer(&[base(), vec![file("x", "a")]].concat());
    let layers = vec![a.clone(), layer(&[file("x", "b"), file("y", "b")]), a];
    let source = Image::new(layers).config(script("cat /x /y")).write();
    p.imgtool(&["import", source.path(), "x"]).ok();
    assert_eq!(p.run(&p.unpack("x", &[])).ok().stdout, "ab");
}

#[test]
fn where_images_cannot_be_mounted_layers_are_directories() {
    needs_root!();
    let tmpfs = PathBuf::from(format!("/dev/shm/orlop-erofs-{}", support::unique()));
    let imgtool = |args: &[&str]| {
        finish(Command::new(support::ORLOP).args(["imgtool", "--store"]).arg(&tmpfs).args(args))
    };
    let source = Image::new(vec![layer(&[file("f", "x")])]).write();
    let info = imgtool(&["info", "--format", "json"]);
    let forced = imgtool(&["import", "--layers", "erofs", source.path(), "x"]);
    let auto = imgtool(&["import", source.path(), "x"]);
    let layers: Vec<_> = fs::read_dir(tmpfs.join("layers")).unwrap().map(|l| l.unwrap().path()).collect();
    let is_dir = layers[0].join("fs").is_dir();
    fs::remove_dir_all(&tmpfs).unwrap();
    let info = info.ok().json();
    assert_eq!(
        (&info["fileSystem"], &info["layerForm"]["name"]),
        (&Value::from("tmpfs"), &Value::from("dir"))
    );
    assert!(info["layerForm"]["why"].as_str().unwrap().contains("mount erofs"), "{info}");
    forced.fails("--layers erofs: ");
    auto.ok();
    assert!(is_dir && layers.len() == 1);
}

#[test]
fn a_trial_is_remembered_until_the_next_boot() {
    let p = Place::new();
    needs_erofs!(p);
    let path = p.store().join("erofs-trial");
    let form = || p.imgtool(&["info", "--format", "json"]).ok().json()["layerForm"]["name"].clone();
    let mut trial: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    trial["why"] = "as written by the test".into();
    fs::write(&path, trial.to_string()).unwrap();
    assert_eq!(form(), "dir");
    for key in ["boot", "device"] {
        let mut other = trial.clone();
        other[key] = if key == "boot" { "another".into() } else { 0.into() };
        fs::write(&path, other.to_string()).unwrap();
        assert_eq!(form(), "erofs", "{key}");
    }
}

#[test]
fn what_a_process_may_not_do_is_not_remembered() {
    let p = Place::new();
    needs_erofs!(p);
    needs_program!("setpriv");
    fs::remove_file(p.store().join("erofs-trial")).unwrap();
    let mut c = Command::new("setpriv");
    c.args([
        "--bounding-set",
        "-sys_admin",
        "--inh-caps",
        "-sys_admin",
        support::ORLOP,
        "imgtool",
        "--store",
    ]);
    let info = finish(c.arg(p.store()).args(["info", "--format", "json"])).ok().json();
    assert_eq!(info["layerForm"]["name"], "dir");
    assert!(p.has_images(), "asked again");
}

#[test]
fn an_image_takes_one_inode_and_no_more_room_than_its_files() {
    let p = Place::new();
    needs_erofs!(p);
    let mut all: Vec<Entry> = (0..50).map(|n| dir(&format!("d{n}"), 0o755)).collect();
    all.extend((0..2000).map(|n| file(&format!("d{}/f{n}", n % 50), &"x".repeat(n % 1500))));
    p.imgtool(&["import", "--layers", "erofs", Image::new(vec![layer(&all)]).write().path(), "x"]).ok();
    let image = the_image(&p.store());
    let bytes: u64 = (0..2000).map(|n| n % 1500).sum();
    let taken = image.metadata().unwrap().blocks() * 512;
    // An inode and a name for each, and what is left of blocks.
    assert!(taken < bytes + bytes / 2 + 2000 * 100, "{taken} for {bytes}");
    assert_eq!(
        fs::read_dir(image.parent().unwrap()).unwrap().count(),
        2,
        "the image and what is known of it"
    );
}

#[test]
fn every_driver_gives_the_same_rootfs() {
    let p = Place::new();
    needs_root!();
    let source = Image::new(vec![
        layer(&[base(), rich()].concat()),
        layer(&[file("d/more", "new"), file(".wh.many", "")]),
    ]);
    let source = source.config(script("cat /d/more; ls /many; echo w > /d/w; cat /d/w")).write();
    p.imgtool(&["import", "--layers", "dir", source.path(), "x"]).ok();
    let mut drivers = vec!["overlay", "copy"];
    if support::has_program("fuse-overlayfs") && Path::new("/dev/fuse").exists() {
        drivers.push("fuse-overlayfs");
    } else {
        skip("needs fuse-overlayfs");
    }
    let mut first = None;
    for driver in drivers {
        let bundle = p.unpack("x", &["--driver", driver]);
        assert_eq!(p.is_mounted(&bundle), driver != "copy", "{driver}");
        let facts = tree::scan(&bundle.join("rootfs"));
        tree::same(first.get_or_insert(facts.clone()), &facts, driver);
        let out = p.run(&bundle);
        assert_eq!(out.stdout, "neww\n", "{driver}: {}", out.stderr);
        if driver != "copy" {
            let path = bundle.to_str().unwrap();
            p.imgtool(&["umount", path]).ok();
            p.imgtool(&["mount", path]).ok();
            assert_eq!(fs::read_to_string(bundle.join("rootfs/d/w")).unwrap(), "w\n", "{driver}");
        }
        p.remove(&bundle);
    }
    p.imgtool(&["unpack", "--no-mount", "--driver", "fuse-overlayfs", "x", "/nonexistent"])
        .fails("--no-mount");
}

#[test]
fn what_was_changed_is_committed_whatever_the_driver() {
    let p = Place::new();
    needs_root!();
    if !support::has_program("fuse-overlayfs") || !Path::new("/dev/fuse").exists() {
        return skip("needs fuse-overlayfs");
    }
    let low = [dir("d", 0o755), file("d/old", "x"), dir("e", 0o755), file("e/old", "x"), file("f", "f")];
    let source = Image::new(vec![layer(&low)]).write();
    p.imgtool(&["import", "--layers", "dir", source.path(), "x"]).ok();
    let epoch = |args: &[&str]| finish(p.command(args).env("SOURCE_DATE_EPOCH", "1000000000"));
    let made = ["overlay", "fuse-overlayfs"].map(|driver| {
        let bundle = p.unpack("x", &["--driver", driver]);
        let (path, root) = (bundle.to_str().unwrap(), bundle.join("rootfs"));
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/new"), "n").unwrap();
        fs::remove_file(root.join("e/old")).unwrap();
        fs::remove_file(root.join("f")).unwrap();
        fs::create_dir(root.join("f")).unwrap();
        if driver != "overlay" {
            p.imgtool(&["commit", path, "y"]).fails("is mounted by fuse-overlayfs; unmount it first");
        }
        p.imgtool(&["umount", path]).ok();
        let diff = p.imgtool(&["diff", path]).ok().stdout;
        epoch(&["commit", path, "y"]).ok();
        p.imgtool(&["mount", path]).ok();
        assert_eq!(fs::read_dir(root.join("d")).unwrap().count(), 2, "{driver}");
        p.remove(&bundle);
        let image = p.unpack("y", &[]);
        let facts = tree::scan(&image.join("rootfs"));
        p.remove(&image);
        (diff, facts)
    });
    assert_eq!(made[0].0, made[1].0);
    tree::same(&made[0].1, &made[1].1, "drivers");
    // A copy has no layer of its changes.
    let (copy, overlay) = (p.unpack("x", &["--driver", "copy"]), p.unpack("x", &[]));
    for args in [&["commit", copy.to_str().unwrap(), "z"][..], &["diff", copy.to_str().unwrap()]] {
        p.imgtool(args).fails("a bundle of the driver copy has none");
    }
    let export = |bundle: &Path| epoch(&["export", "--rootfs", bundle.to_str().unwrap(), "-"]).ok().stdout;
    assert!(export(&copy) == export(&overlay));
    p.remove(&overlay);
}

#[test]
fn a_user_namespace_is_told_what_it_cannot_mount() {
    let p = Place::new();
    needs_erofs!(p);
    let source = Image::new(vec![layer(&base())]).config(script("echo in")).write();
    p.imgtool(&["import", "--layers", "erofs", source.path(), "x"]).ok();
    let bundle = p.unpack("x", &["--no-mount"]);
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["linux"]["namespaces"].as_array_mut().unwrap().push(serde_json::json!({"type": "user"}));
    let map = serde_json::json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    fs::write(&path, config.to_string()).unwrap();
    p.run(&bundle).fails("overlay.json: has layers that are EROFS images");
    p.imgtool(&["mount", bundle.to_str().unwrap()]).ok();
    assert_eq!(p.run(&bundle).ok().stdout, "in\n");
    p.remove(&bundle);
}

#[test]
fn info_tells_what_is_chosen_and_why() {
    let p = Place::new();
    needs_root!();
    p.imgtool(&["import", "--layers", "dir", Image::new(vec![layer(&[file("f", "x")])]).write().path(), "x"])
        .ok();
    let info = p.imgtool(&["info", "--format", "json"]).ok().json();
    assert_eq!(info["store"], p.store().to_str().unwrap());
    assert_eq!(
        (&info["images"], &info["layers"], &info["bundles"]),
        (&Value::from(1), &Value::from(1), &Value::from(0))
    );
    assert_eq!(info["driver"]["name"], "overlay");
    let text = p.imgtool(&["info"]).ok().stdout;
    for word in ["store ", "file system ", "driver ", "overlay: ", "new layers ", "images ", "layers "] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
