//! Trees compared, and images written out for other tools.

use crate::make::{Layout, Place};
use crate::support::{Scratch, finish, has_program, skip};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

/// Every name below `dir` with all that a layer can say of it. Sockets are left out.
pub fn tree(dir: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut links = HashMap::new();
    add(dir, dir, &mut links, &mut out);
    out
}

fn add(root: &Path, path: &Path, links: &mut HashMap<u64, String>, out: &mut BTreeMap<String, String>) {
    let meta = fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(root).unwrap().display().to_string();
    if meta.file_type().is_socket() {
        return;
    }
    let mut text = format!("{:o} {}:{} {}", meta.mode(), meta.uid(), meta.gid(), meta.mtime());
    let kind = meta.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        text += &format!(" dev {:x}", meta.rdev());
    } else if kind.is_symlink() {
        text += &format!(" -> {}", fs::read_link(path).unwrap().display());
    } else if kind.is_file() {
        text += &format!(" {}", orlop::image::digest::Digest::of(&fs::read(path).unwrap()));
        let first = links.entry(meta.ino()).or_insert_with(|| name.clone());
        text += &format!(" is {first}");
    }
    text += &xattrs(path);
    out.insert(name, text);
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        names.iter().for_each(|p| add(root, p, links, out));
    }
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let mut out = Vec::new();
    for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        if name.starts_with(b"trusted.") || name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; 4096];
        let n = rustix::fs::lgetxattr(path.as_os_str().as_bytes(), name, &mut value[..]).unwrap();
        out.push(format!(" {}={:?}", String::from_utf8_lossy(name), &value[..n]));
    }
    out.sort();
    out.concat()
}

/// Says what differs, not all that is there.
#[track_caller]
pub fn same(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>, what: &str) {
    let other = |m: &BTreeMap<String, String>, n: &BTreeMap<String, String>, side: &str| -> Vec<String> {
        m.iter().filter(|(k, v)| n.get(*k) != Some(v)).map(|(k, v)| format!("{side} {k}: {v}")).collect()
    };
    let differ = [other(a, b, "-"), other(b, a, "+")].concat();
    assert!(differ.is_empty(), "{what}:\n{}", differ.join("\n"));
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
pub fn by_umoci(layout: &Scratch) -> Option<BTreeMap<String, String>> {
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
