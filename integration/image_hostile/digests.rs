//! Names out of archives that want to be taken for a digest.

use crate::make::{Image, Layout, Place, file, layer};
use crate::needs_root;
use crate::support::Scratch;
use serde_json::json;
use std::fs;

fn image(text: &str, name: &str) -> Layout {
    Image::new(vec![layer(&[file("f", text)])]).name(name).write()
}

#[test]
fn no_archive_takes_the_place_of_a_digest() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", image("good", "good:1").path()]).ok();
    let good = p.imgtool(&["-q", "inspect", "good:1"]).ok().stdout.trim().to_string();
    let hex = &good["sha256:".len()..];
    for name in [
        good.clone(),
        hex.to_string(),
        hex[..12].to_string(),
        format!("{}:latest", &hex[..20]),
        format!("sha256:{}", &hex[..12]),
        format!("docker.io/library/sha256:{hex}"),
    ] {
        p.imgtool(&["import", image("evil", &name).path()]).fails("is taken for a digest");
        p.imgtool(&["tag", "good:1", &name]).fails("is taken for a digest");
        let names = json!([{"Config": "c", "RepoTags": [name], "Layers": []}]).to_string();
        let s = Scratch::new("saved");
        let tar = s.path.join("x.tar");
        let config = r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
        fs::write(&tar, layer(&[file("c", config), file("manifest.json", &names)])).unwrap();
        p.imgtool(&["import", tar.to_str().unwrap()]).fails("is taken for a digest");
    }
    let other = format!("x@{good}");
    p.imgtool(&["import", image("evil", &other).path()]).fails("has a digest that is not that of the image");
    let none = format!("x@sha256:{}", "0".repeat(64));
    p.imgtool(&["tag", "good:1", &none]).fails("has a digest that is not that of the image");
    for args in [&["config", "good:1", &other, "--user", "1"][..], &["squash", "good:1", &other]] {
        p.imgtool(args).fails("has a digest that is not that of the image");
    }
    p.imgtool(&["tag", "good:1", &other]).ok();
    p.imgtool(&["rm", &other]).ok();
    // One that is there already, of whatever makes files there.
    p.imgtool(&["import", image("evil", "evil:1").path()]).ok();
    let refs = p.store().join("refs");
    for name in [good.replace(':', "%3A"), hex.to_string(), hex[..12].to_string()] {
        fs::copy(refs.join("evil%3A1"), refs.join(name)).unwrap();
    }
    for word in [&good[..], hex, &good[..30]] {
        assert_eq!(p.imgtool(&["-q", "inspect", word]).ok().stdout.trim(), good, "{word}");
    }
    p.imgtool(&["inspect", &hex[..12]]).fails("the start of the digest of another");
    p.imgtool(&["rm", "evil:1"]).ok();
}
