//! `ctr image import` and `export` beside imgtool.

use super::{Ctr, new_id};
use crate::image::NAME;
use crate::images::changes;
use crate::support::finish;
use crate::world::Engine;
use crate::{Check, check};

pub const CHECKS: &[Check] =
    &[check!(changed_images_are_imported_and_run), check!(exported_images_are_imported)];

fn digest(ctr: Ctr, name: &str) -> String {
    let list = ctr.call(["image", "ls", &format!("name=={name}")]).ok().stdout;
    list.split_whitespace().find(|w| w.starts_with("sha256:")).unwrap_or_else(|| panic!("{list}")).into()
}

/// What its container prints.
#[track_caller]
fn prints(ctr: Ctr, name: &str) -> String {
    let mut c = ctr.run_of(&["--rm", name, &new_id()]);
    finish(&mut c).ok().stdout
}

fn changed_images_are_imported_and_run(e: &Engine) {
    let Some((c, all)) = changes(e) else { return };
    let ctr = Ctr(e);
    for (n, i) in all.iter().enumerate() {
        let form = ["oci", "docker"][n % 2];
        ctr.call(["image", "import", &c.at(&format!("{form}/{}.tar", i.kind))]).ok();
        assert_eq!(prints(ctr, &i.name), i.says, "{}", i.kind);
        if form == "oci" {
            assert_eq!(c.imgtool(&["inspect", &i.name]).ok().json()["digest"], digest(ctr, &i.name));
        }
        // Back again, as it is and, by containerd's own hand, unpacked.
        let plain = format!("localhost/plain-{}:1", i.kind);
        ctr.call(["image", "convert", "--uncompress", "--oci", &i.name, &plain]).ok();
        for name in [&i.name, &plain] {
            let tar = c.at("from-ctr.tar");
            ctr.call(["image", "export", &tar, name]).ok();
            let back = format!("back/{n}:1");
            c.imgtool(&["import", &tar, &back]).ok();
            let known = c.known("back", &back);
            assert_eq!((&known.says, known.layers()), (&i.says, i.layers()), "{name}");
            assert_eq!(c.imgtool(&["inspect", &back]).ok().json()["digest"], digest(ctr, name), "{name}");
            std::fs::remove_file(&tar).expect("remove");
        }
    }
}

/// With all that it has of several platforms, and layers packed by zstd.
fn exported_images_are_imported(e: &Engine) {
    let Some((c, all)) = changes(e) else { return };
    let ctr = Ctr(e);
    let tar = c.at("box-from-ctr.tar");
    ctr.call(["image", "export", "--all-platforms", &tar, NAME]).ok();
    let told = c.imgtool(&["import", &tar]).ok().stdout;
    assert_eq!(told, format!("{NAME} {}\n", digest(ctr, NAME)));
    let i = &all[0];
    c.imgtool(&["squash", &i.name, "localhost/zstd:1", "--compression", "zstd"]).ok();
    c.imgtool(&["export", "localhost/zstd:1", &c.at("zstd.tar")]).ok();
    ctr.call(["image", "import", &c.at("zstd.tar")]).ok();
    assert_eq!(prints(ctr, "localhost/zstd:1"), c.says("localhost/zstd:1"));
}
