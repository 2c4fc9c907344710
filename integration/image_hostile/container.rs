//! What a container does to its files so that those who look at them later see something else.

use crate::make::{Image, Place, base, dir, file, in_both_forms, layer, script};
use crate::needs_root;
use rustix::fs::{XattrFlags, setxattr};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Paths of files in an archive with what they hold.
fn files(tar: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    let one = |e: std::io::Result<tar::Entry<fs::File>>| {
        let mut e = e.unwrap();
        let (name, mut text) = (e.path().unwrap().display().to_string(), Vec::new());
        std::io::Read::read_to_end(&mut e, &mut text).unwrap();
        (name.trim_start_matches("./").to_string(), String::from_utf8_lossy(&text).into_owned())
    };
    archive.entries().unwrap().map(one).collect()
}

/// Root's overlayfs gives no meaning to `user.overlay.*`, which everybody may set.
#[test]
fn marks_of_the_other_overlayfs_hide_nothing() {
    needs_root!();
    in_both_forms(|p: &Place| {
        let mut entries = base();
        entries.extend([
            dir("d", 0o755),
            file("d/keep", "kept"),
            dir("d/sub", 0o755),
            file("d/sub/deep", "deep"),
            file("f", "f"),
            file("g", "g"),
        ]);
        let source = Image::new(vec![layer(&entries)]).config(script("cat /d/keep /d/sub/deep /f /g"));
        p.imgtool(&["import", source.write().path(), "x"]).ok();
        let bundle = p.unpack("x", &["--mount"]);
        let (b, rootfs) = (bundle.to_str().unwrap(), bundle.join("rootfs"));
        let set = |path: &str, key: &str, value: &[u8]| {
            setxattr(rootfs.join(path), format!("user.overlay.{key}"), value, XattrFlags::empty()).unwrap();
        };
        set("d", "opaque", b"y");
        set("d/sub", "opaque", b"y");
        set("d", "redirect", b"/etc");
        set("f", "redirect", b"/etc/passwd");
        set("f", "metacopy", b"");
        fs::write(rootfs.join("d/new"), "new").unwrap();
        assert_eq!(p.imgtool(&["diff", b]).ok().stdout, "A /d/new\n");
        p.imgtool(&["commit", b, "y"]).ok();
        let tar = p.path().join("tree.tar");
        p.imgtool(&["export", "--rootfs", b, tar.to_str().unwrap()]).ok();
        let all = files(&tar);
        for (name, text) in [("d/keep", "kept"), ("d/sub/deep", "deep"), ("f", "f"), ("d/new", "new")] {
            assert_eq!(all.get(name).map(String::as_str), Some(text), "{name}");
        }
        assert_eq!(p.imgtool(&["diff", "x", "y"]).ok().stdout, "A /d/new\n");
        p.remove(&bundle);
        let bundle = p.unpack("y", &[]);
        assert_eq!(p.run(&bundle).ok().stdout, "keptdeepfg");
        p.remove(&bundle);
    });
}
