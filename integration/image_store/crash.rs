//! Killed before any of its calls that change a file system, a command loses nothing that was reported done, and leaves
//! nothing but litter.

use crate::kill::Crash;
use crate::make::{self, Place};
use crate::support::rounds;
use crate::{has_all_of, index, names, needs_program, needs_root};
use std::fs;
use std::path::Path;

#[test]
fn an_import_that_is_killed_leaves_litter_only() {
    needs_root!();
    needs_program!("strace");
    let c = Crash::new();
    let source = c.second.path();
    c.at_every_call(
        &["import", source],
        || c.remove_second(),
        |out| {
            assert!(c.has_second() || !out.stdout.contains("second "), "it was reported");
            c.is_clean();
            c.p.imgtool(&["import", source]).ok();
            c.is_clean();
        },
    );
}

#[test]
fn the_first_command_of_a_store_may_be_killed() {
    needs_root!();
    needs_program!("strace");
    let c = Crash::new();
    let source = c.first.path();
    let absent = || fs::remove_dir_all(c.p.store()).unwrap();
    c.at_every_call(&["import", source], absent, |_| {
        c.p.imgtool(&["import", source]).ok();
        c.is_clean();
    });
}

#[test]
fn a_removal_that_is_killed_leaves_litter_only() {
    needs_root!();
    needs_program!("strace");
    let c = Crash::new();
    let import = || drop(c.p.imgtool(&["import", c.second.path()]).ok());
    c.at_every_call(&["rm", "second"], import, |out| {
        assert!(!c.has_second() || !out.stdout.contains("removed"), "it was reported");
        c.is_clean();
    });
    let orphan = || {
        import();
        fs::remove_file(c.p.store().join("refs/second")).unwrap();
    };
    c.at_every_call(&["gc", "--log", "0"], orphan, |_| c.is_clean());
}

#[test]
fn an_export_that_is_killed_leaves_the_layout_as_it_was() {
    needs_root!();
    needs_program!("strace");
    let c = Crash::new();
    c.p.imgtool(&["import", c.second.path()]).ok();
    let out = c.p.path().join("out");
    let dest = out.to_str().unwrap();
    let before = || {
        let _ = fs::remove_dir_all(&out);
        c.p.imgtool(&["export", "first", dest]).ok();
    };
    c.at_every_call(&["export", "second", dest], before, |outcome| {
        let have: Vec<String> = index(&out).into_iter().map(|i| i.0).collect();
        assert!(have.contains(&"first".to_string()));
        assert!(have.len() == 2 || !outcome.stdout.contains("second "), "it was reported");
        has_all_of(&out, c.first.path().as_ref());
        c.p.imgtool(&["export", "second", dest]).ok();
        has_all_of(&out, c.second.path().as_ref());
        assert_eq!(names(&out), ["blobs", "index.json", "oci-layout"]);
        let q = Place::new();
        assert_eq!(q.imgtool(&["import", dest]).ok().stdout.lines().count(), 2);
    });
    // A new layout, and an archive that was there before.
    let absent = || drop(fs::remove_dir_all(&out));
    c.at_every_call(&["export", "second", dest], absent, |_| {
        c.p.imgtool(&["export", "second", dest]).ok();
        assert_eq!(names(&out), ["blobs", "index.json", "oci-layout"]);
    });
    let tar = c.p.path().join("x.tar");
    let old = || fs::write(&tar, "old").unwrap();
    c.at_every_call(&["export", "second", tar.to_str().unwrap()], old, |outcome| {
        let whole = |tar: &Path| Place::new().imgtool(&["import", tar.to_str().unwrap()]).status.success();
        assert!(whole(&tar) || fs::read(&tar).unwrap() == b"old" && !outcome.status.success());
    });
}

#[test]
fn a_repair_that_is_killed_is_done_by_the_next() {
    needs_root!();
    needs_program!("strace");
    make::forms().iter().for_each(|form| repairs_are_killed(&Crash::in_place(Place::of(form))));
}

fn repairs_are_killed(c: &Crash) {
    let damage = || {
        c.p.imgtool(&["fsck", "--repair"]).ok();
        for id in names(&c.p.store().join("layers")) {
            let layer = c.p.store().join("layers").join(id);
            match layer.join("fs").exists() {
                true => fs::write(layer.join("fs/d/new"), "").unwrap(),
                false => fs::write(layer.join("erofs"), "").unwrap(),
            }
        }
        fs::create_dir_all(c.p.store().join("tmp/1-0/x")).unwrap();
    };
    damage();
    let mend = || {
        let out = c.p.imgtool(&["fsck", "--repair"]).ok();
        assert!(
            out.stdout.lines().all(|l| l.starts_with("litter: ") || l.ends_with("it was made again")),
            "{}",
            out.stdout
        );
    };
    mend();
    let args = ["fsck", "--repair"];
    let points = rounds(8, 200);
    let mut killed = 0;
    for n in 1..=points {
        for call in ["renameat2", "rename", "unlinkat", "syncfs", "fsync", "mkdirat", "flock"] {
            damage();
            killed += usize::from(!c.killed_at(call, n, &args).status.success());
            mend();
            assert_eq!(c.p.imgtool(&["verify"]).ok().stdout, "");
        }
    }
    assert!(killed > 0);
    c.is_clean();
}
