//! Every command, asked of the same image in both forms of layers, and in stacks that mix them.

use crate::make::{Entry, Image, Place, base, device, dir, fifo, file, hard, layer, link, owned, script};
use crate::support::{finish, skip};
use crate::{needs_root, tree};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Layers that leave much to those below: links to files of several names, files behind links to directories, and
/// directories that only those list.
fn layers() -> [Vec<u8>; 3] {
    let low = [
        dir("usr", 0o750),
        dir("usr/lib", 0o711),
        link("lib", "usr/lib"),
        file("usr/lib/a", &"a".repeat(5000)),
        hard("a2", "usr/lib/a"),
        file("hidden", "h"),
        hard("hidden2", "hidden"),
        dir("d", 0o750),
        file("d/x", "x"),
        dir("o", 0o755),
        file("o/1", "1"),
        device("null"),
        fifo("fifo"),
        owned("owned", 70_000),
    ];
    let mid = [
        file("lib/b", "b"),
        hard("two", "lib/b"),
        hard("c", "usr/lib/a"),
        hard("c2", "usr/lib/a"),
        hard("h", "hidden"),
        file(".wh.hidden", ""),
        dir("o", 0o700),
        file("o/.wh..wh..opq", ""),
        file("o/2", "2"),
        file("d/y", "y"),
    ];
    let top = [file("top", "t"), hard("t", "d/x"), file(".wh.c2", ""), file("lib/b", "new"), file("e/f", "")];
    let low: Vec<Entry> = [base(), low.to_vec()].concat();
    [layer(&low), layer(&mid), layer(&top)]
}

/// What the commands say and make, in a store where the lowest layer and those above it have these forms.
fn answers(lowest: &str, others: &str) -> Vec<(String, String)> {
    let p = Place::new();
    let [low, mid, top] = layers();
    let newer = layer(
        &[
            base(),
            vec![
                dir("usr", 0o755),
                file("usr/lib/a", "other"),
                dir("d", 0o1777),
                file("d/x", ""),
                file("hidden", "H"),
            ],
        ]
        .concat(),
    );
    let image =
        |layers: Vec<Vec<u8>>| Image::new(layers).config(script("wc -c /c /h /t /lib/b; true")).write();
    let imgtool = |args: &[&str]| finish(p.command(args).env("SOURCE_DATE_EPOCH", "1000000000")).ok().stdout;
    for (layers, name, form) in [
        (vec![low.clone()], "low", lowest),
        (vec![low.clone(), mid.clone(), top.clone()], "x", others),
        (vec![newer], "newer", lowest),
    ] {
        imgtool(&["import", "--layers", form, image(layers).path(), name]);
    }
    let mut out = Vec::new();
    let mut note = |what: &str, said: String| out.push((what.to_string(), said));
    let mounted = |name: &str| {
        let bundle = p.unpack(name, &[]);
        let facts = tree::scan(&bundle.join("rootfs"));
        let said = p.run(&bundle).ok().stdout;
        p.remove(&bundle);
        format!("{facts:#?}\n{said}")
    };
    let bundle = p.unpack("x", &[]);
    let (path, rootfs) = (bundle.to_str().unwrap(), bundle.join("rootfs"));
    assert_eq!(fs::metadata(rootfs.join("c")).unwrap().ino(), fs::metadata(rootfs.join("a2")).unwrap().ino());
    fs::remove_file(rootfs.join("a2")).unwrap();
    fs::remove_dir_all(rootfs.join("o")).unwrap();
    fs::write(rootfs.join("d/x"), "written").unwrap();
    fs::create_dir(rootfs.join("o")).unwrap();
    let add = p.path().join("erofs"); // a name that layers have
    fs::create_dir(&add).unwrap();
    fs::write(add.join("added"), "").unwrap();
    let (add, tar) = (add.to_str().unwrap(), p.path().join("tree.tar"));
    for args in [
        &["tree", "x", "--format", "json", "--depth", "3"][..],
        &["history", "x"],
        &["diff", "low", "x"],
        &["diff", "x", "low", "--times"],
        &["diff", "newer", "x", "--layers"],
        &["diff", path],
        &["export", "--rootfs", path, tar.to_str().unwrap()],
        &["umount", path],
        &["export", "--rootfs", path, tar.to_str().unwrap()],
        &["squash", "x", "s23", "--from", "2"],
        &["squash", "x", "s12", "--to", "2"],
        &["squash", "x", "s33", "--from", "3"],
        &["squash", "x", "s"],
        &["rm-layer", "x", "3", "r"],
        &["rebase", "x", "b", "--onto", "newer", "--base", "low"],
        &["commit", path, "c"],
        &["append", "x", add, "a"],
        &["config", "c", "o", "--user", "1"],
        &["verify"],
        &["fsck"],
    ] {
        let said = imgtool(args);
        note(&args.join(" ").replace(path, "BUNDLE"), said);
        if args[0] == "export" {
            let bytes = fs::read(&tar).unwrap();
            note("the archive", orlop::image::digest::Digest::of(&bytes).to_string());
        }
    }
    for name in ["x", "s23", "s12", "s33", "s", "r", "b", "c", "a", "o"] {
        note(name, mounted(name));
        note("its tree", imgtool(&["tree", name, "--format", "json", "--depth", "9"]));
    }
    note("in the end", imgtool(&["verify"]));
    fs::remove_dir_all(&bundle).unwrap();
    imgtool(&["gc", "--log", "0"]);
    note("after the collection", imgtool(&["fsck"]));
    let forms = p.imgtool(&["inspect", "c"]).ok().json();
    let forms: Vec<&str> =
        forms["layers"].as_array().unwrap().iter().map(|l| l["form"].as_str().unwrap()).collect();
    let new = if lowest == others { lowest } else { "erofs" };
    assert_eq!(forms, [lowest, others, others, new]);
    out
}

#[test]
fn every_command_says_and_makes_the_same_of_both_forms() {
    needs_root!();
    let want = answers("dir", "dir");
    if !Place::new().has_images() {
        return skip("needs a kernel that mounts EROFS from a file");
    }
    for (lowest, others) in [("erofs", "erofs"), ("dir", "erofs"), ("erofs", "dir")] {
        for ((what, want), (_, got)) in want.iter().zip(answers(lowest, others)) {
            let differ = want.lines().zip(got.lines()).find(|(a, b)| a != b);
            assert!(*want == got, "{lowest} below {others}: {what}: {differ:#?}");
        }
    }
}
