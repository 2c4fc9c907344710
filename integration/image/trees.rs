//! Images written out for other tools, and the trees that these make of them.

use crate::make::{Layout, Place};
use crate::support::{Scratch, finish, has_program, skip};
use crate::tree::{Tree, scan, whole_seconds};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Every name below `dir` with all that a layer of ours can say of it: no socket, and no nanoseconds.
pub fn tree(dir: &Path) -> Tree {
    let mut out = whole_seconds(&scan(dir));
    out.retain(|_, line| !line.starts_with("140000 "));
    out
}

/// An OCI layout of an image of the store; blobs of layers that were imported are those of their source.
pub fn layout(place: &Place, image: &str, sources: &[&Layout]) -> Scratch {
    let s = Scratch::new("out");
    fs::create_dir_all(s.path.join("blobs/sha256")).unwrap();
    let i = place.imgtool(&["inspect", image]).ok().json();
    let manifest = i["digest"].as_str().unwrap();
    let m = &i["manifest"];
    let layers = m["layers"].as_array().unwrap().iter().map(|l| l["digest"].as_str().unwrap());
    for digest in layers.chain([manifest, m["config"]["digest"].as_str().unwrap()]) {
        let name = format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap());
        let places = std::iter::once(place.store()).chain(sources.iter().map(|l| l.path().into()));
        let from = places.map(|p| p.join(&name)).find(|p| p.exists());
        fs::copy(from.unwrap_or_else(|| panic!("{digest} is nowhere")), s.path.join(&name)).unwrap();
    }
    let size = fs::metadata(place.store().join("blobs/sha256").join(&manifest[7..])).unwrap().len();
    let d = json!({
        "mediaType": m["mediaType"], "digest": manifest, "size": size,
        "annotations": {"org.opencontainers.image.ref.name": "out"},
    });
    fs::write(s.path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index: Value = json!({"schemaVersion": 2, "manifests": [d]});
    fs::write(s.path.join("index.json"), index.to_string()).unwrap();
    s
}

/// Whether another tool is here to read back what was made.
fn is_here(tool: &str) -> bool {
    let here = has_program(tool);
    if !here {
        skip(&format!("needs {tool}"));
    }
    here
}

/// What umoci makes of an image, if it is here.
pub fn by_umoci(layout: &Scratch) -> Option<Tree> {
    if !is_here("umoci") {
        return None;
    }
    let out = Scratch::new("umoci");
    let image = format!("{}:out", layout.path.display());
    let mut c = Command::new("umoci");
    c.args(["raw", "unpack", "--image", &image]).arg(out.path.join("rootfs"));
    finish(&mut c).ok();
    Some(tree(&out.path.join("rootfs")))
}

/// The configuration as skopeo reads it, if it is here; it checks every digest, and the history when it converts.
pub fn by_skopeo(layout: &Scratch) -> Option<Value> {
    if !is_here("skopeo") {
        return None;
    }
    let image = format!("oci:{}:out", layout.path.display());
    let copy = layout.path.join("copy.tar");
    let mut c = Command::new("skopeo");
    finish(c.args(["copy", "-q", &image]).arg(format!("docker-archive:{}:x:1", copy.display()))).ok();
    fs::remove_file(copy).unwrap();
    let mut c = Command::new("skopeo");
    Some(finish(c.args(["inspect", "--config", &image])).ok().json())
}
