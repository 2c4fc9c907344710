//! buildah's images beside imgtool.

use super::{bud, buildah, context};
use crate::image::NAME;
use crate::images::{CHANGE, TELL, changes, is_here};
use crate::world::Engine;
use crate::{Check, check};
use serde_json::json;

pub const CHECKS: &[Check] =
    &[check!(changed_images_are_read_and_run), check!(committed_images_are_imported)];

/// What a working container of an image prints.
#[track_caller]
fn prints(e: &Engine, image: &str, words: &[&str]) -> (String, String) {
    let name = buildah(e, &["from", image]).ok().stdout.trim().to_string();
    let out = buildah(e, &[&["run", &name, "--"], words].concat()).ok().stdout;
    (name, out)
}

fn changed_images_are_read_and_run(e: &Engine) {
    let Some((c, all)) = changes(e) else { return };
    for (n, i) in all.iter().enumerate() {
        let from = ["docker-archive:", "oci-archive:"][n % 2].to_string();
        let from = from + &c.at(&format!("{}/{}.tar", ["docker", "oci"][n % 2], i.kind));
        let (name, out) = prints(e, &from, &["sh", "-c", TELL]);
        assert_eq!(out, i.says, "{}", i.kind);
        let theirs = buildah(e, &["inspect", &name]).ok().json();
        assert_eq!(theirs["FromImageID"], json!(i.id["sha256:".len()..]));
        assert_eq!(&theirs["OCIv1"]["rootfs"]["diff_ids"], i.layers());
        buildah(e, &["rm", &name]).ok();
    }
}

fn committed_images_are_imported(e: &Engine) {
    let Some((c, _)) = changes(e) else { return };
    let name = prints(e, NAME, &["sh", "-c", CHANGE]).0;
    let cmd = json!(["sh", "-c", TELL]).to_string();
    buildah(
        e,
        &["config", "--cmd", &cmd, "--env", "WORD=b", "--workingdir", "/etc", "--author", "me", &name],
    )
    .ok();
    for (format, form) in [("oci", "oci"), ("docker", "docker-archive"), ("oci", "oci-archive")] {
        let path = c.at(&format!("buildah-{form}"));
        buildah(e, &["commit", "--quiet", "--format", format, &name, &format!("{form}:{path}:b/built:1")])
            .ok();
        let there = prints(e, &format!("{form}:{path}"), &["sh", "-c", TELL]);
        buildah(e, &["rm", &there.0]).ok();
        let i = is_here(c, &path, &there.1);
        assert_eq!(i.config["author"], "me");
    }
    buildah(e, &["rm", &name]).ok();
    // Of several steps, each a layer, one without.
    let dir = context(&format!(
        "FROM {NAME}\nRUN {CHANGE}\nENV WORD=l\nCOPY copied /made/copied\nRUN rm -r /var\n"
    ));
    bud(e, &dir, &["--layers", "--quiet", "--tag", "localhost/layered"]).ok();
    let path = c.at("layered");
    buildah(e, &["push", "--quiet", "localhost/layered", &format!("oci:{path}:x")]).ok();
    let there = prints(e, "localhost/layered", &["sh", "-c", TELL]);
    buildah(e, &["rm", &there.0]).ok();
    c.imgtool(&["import", &path, "layered"]).ok();
    let cmd = json!(["sh", "-c", TELL]).to_string();
    c.imgtool(&["config", "layered", "telling", "--cmd", &cmd]).ok();
    assert_eq!(c.says("telling"), there.1);
    let history = c.imgtool(&["history", "layered", "--format", "json"]).ok().json();
    let steps: Vec<bool> = history.as_array().expect("steps").iter().map(|s| s["layer"].is_null()).collect();
    assert_eq!(steps, [false, false, true, false, false]);
}
