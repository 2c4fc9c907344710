//! The one image that engines load: Debian's busybox, made here, since there is no registry.

use orlop::image::digest::Digest;
use serde_json::{Value, json};
use std::process::Command;

/// Its name, complete, so that no engine looks for it elsewhere.
pub const NAME: &str = "localhost/box:latest";

/// What `docker load`, `podman load` and `ctr image import` take: an OCI layout with `manifest.json` beside it.
pub fn archive() -> Vec<u8> {
    archive_of(NAME, &["sh"])
}

/// The same files under another name, with another command.
pub fn archive_of(name: &str, command: &[&str]) -> Vec<u8> {
    let layer = layer();
    let layer_id = Digest::of(&layer);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"], "Labels": {"origin": "here"}},
        "rootfs": {"type": "layers", "diff_ids": [layer_id.to_string()]},
        "history": [{"created_by": "by hand"}],
    })
    .to_string();
    let describe = |kind: &str, data: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": Digest::of(data).to_string(), "size": data.len()});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("config.v1+json", config.as_bytes()), "layers": [describe("layer.v1.tar", &layer)],
    })
    .to_string();
    let mut entry = describe("manifest.v1+json", manifest.as_bytes());
    entry["annotations"] =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
    let blob = |data: &[u8]| format!("blobs/sha256/{}", Digest::of(data).hex());
    let save: Value =
        json!([{"Config": blob(config.as_bytes()), "RepoTags": [name], "Layers": [blob(&layer)]}]);
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in [
        ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
        ("index.json".into(), json!({"schemaVersion": 2, "manifests": [entry]}).to_string().as_bytes()),
        ("manifest.json".into(), save.to_string().as_bytes()),
        (blob(&layer), &layer),
        (blob(config.as_bytes()), config.as_bytes()),
        (blob(manifest.as_bytes()), manifest.as_bytes()),
    ] {
        put(&mut tar, &name, tar::EntryType::Regular, 0o644, data);
    }
    tar.into_inner().expect("tar")
}

/// A small system: every applet of busybox, a user of its own, a file that another owns.
fn layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (dir, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("proc/", 0o755),
        ("root/", 0o700),
        ("sys/", 0o755),
        ("tmp/", 0o1777),
        ("var/", 0o755),
    ] {
        put(&mut tar, dir, tar::EntryType::Directory, mode, b"");
    }
    let busybox = std::fs::read("/bin/busybox").expect("Debian's package busybox-static is installed");
    put(&mut tar, "bin/busybox", tar::EntryType::Regular, 0o755, &busybox);
    let applets = Command::new("/bin/busybox").arg("--list").output().expect("busybox");
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|a| *a != "busybox") {
        let mut h = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut h, format!("bin/{applet}"), "busybox").expect("tar");
    }
    let passwd = b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
    put(&mut tar, "etc/passwd", tar::EntryType::Regular, 0o644, passwd);
    put(
        &mut tar,
        "etc/group",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:\nuser:x:1000:\nextra:x:2000:user\n",
    );
    put(&mut tar, "etc/readable", tar::EntryType::Regular, 0o644, b"from the image\n");
    tar.into_inner().expect("tar")
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut h = tar::Header::new_gnu();
    h.set_entry_type(kind);
    h.set_mode(mode);
    h.set_uid(0);
    h.set_gid(0);
    h.set_mtime(1_600_000_000);
    h.set_size(size);
    h
}

fn put(tar: &mut tar::Builder<Vec<u8>>, name: &str, kind: tar::EntryType, mode: u32, data: &[u8]) {
    tar.append_data(&mut header(kind, mode, data.len() as u64), name, data).expect("tar");
}
