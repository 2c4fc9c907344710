//! Each driver when it is asked for: what a container changes by it is the same.

use crate::make::Place;
use crate::support::{has_program, skip};
use crate::{fs, needs_root, text};
use std::path::Path;

/// What overlayfs marks in one way, and a driver in user space may in another.
fn change(root: &Path) {
    fs::remove_file(root.join("old/b")).unwrap();
    fs::remove_dir_all(root.join("again")).unwrap();
    fs::create_dir(root.join("again")).unwrap();
    fs::write(root.join("again/newer"), "n").unwrap();
    fs::rename(root.join("etc/group"), root.join("etc/moved")).unwrap();
    fs::remove_dir_all(root.join("tmp")).unwrap();
    fs::write(root.join("old/one"), "1").unwrap();
    fs::hard_link(root.join("old/one"), root.join("two")).unwrap();
}

fn drivers() -> Vec<&'static str> {
    let mut drivers = vec!["overlay"];
    if has_program("fuse-overlayfs") && Path::new("/dev/fuse").exists() {
        drivers.push("fuse-overlayfs");
    } else {
        skip("needs fuse-overlayfs");
    }
    drivers
}

/// Of a store whose layers are directories, which all drivers stack.
fn directories() -> Place {
    let p = Place::new();
    p.imgtool(&["import", "--layers", "dir", crate::image().path()]).ok();
    p
}

#[test]
fn what_is_changed_by_any_driver_is_the_same() {
    needs_root!();
    let p = directories();
    for driver in drivers() {
        let bundle = p.unpack("x", &["--driver", driver]);
        change(&bundle.join("rootfs"));
        p.imgtool(&["umount", text(&bundle)]).ok();
        p.imgtool(&["mount", text(&bundle)]).ok();
        assert!(!bundle.join("rootfs/old/b").exists() && bundle.join("rootfs/two").exists(), "{driver}");
        p.imgtool(&["umount", text(&bundle)]).ok();
        let told = p.imgtool(&["diff", text(&bundle)]).ok().stdout;
        let want = "C /again\nD /again/new\nA /again/newer\nD /etc/group\nA /etc/moved\nD /old/b\nA /old/one\nD /tmp\nA /two\n";
        assert_eq!(told, want, "{driver}");
        p.imgtool(&["commit", text(&bundle), "y"]).ok();
        p.remove(&bundle);
        let tell = r#"["sh","-c","ls / /old /again /etc"]"#;
        p.imgtool(&["config", "y", "z", "--cmd", tell]).ok();
        let bundle = p.unpack("z", &[]);
        let out = p.run(&bundle).ok().stdout;
        assert_eq!(
            out,
            "/:\nagain\nbin\ndev\netc\nold\nproc\nroot\nsys\ntwo\n\n/again:\nnewer\n\n/etc:\nmoved\npasswd\n\n/old:\na\none\n",
            "{driver}"
        );
        p.remove(&bundle);
    }
}

#[test]
fn a_copy_is_a_tree_of_its_own() {
    needs_root!();
    let p = directories();
    let bundle = p.unpack("x", &["--driver", "copy"]);
    assert_eq!(p.run(&bundle).stdout, "bn751\n");
    change(&bundle.join("rootfs"));
    // Nothing tells what of it was changed.
    for args in [&["diff", text(&bundle)][..], &["commit", text(&bundle), "y"], &["mount", text(&bundle)]] {
        let out = p.imgtool(args);
        assert!(!out.status.success() && out.stderr.contains("copy"), "{args:?}: {}", out.stderr);
    }
    p.imgtool(&["export", "--rootfs", text(&bundle), text(&p.path().join("tree.tar"))]).ok();
    p.imgtool(&["rm", "x"]).ok();
    p.remove(&bundle);
    p.imgtool(&["gc", "--log", "0"]).ok();
    assert_eq!(fs::read_dir(p.store().join("layers")).unwrap().count(), 0);
}
