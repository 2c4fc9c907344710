//! Indexes, manifests, configurations, and archives of docker, that say two things or too much.

use crate::make::{Image, Layout, Packing, Place, dir, file, layer};
use crate::needs_root;
use crate::raw::{Tar, head};
use crate::support::{Outcome, Scratch};
use orlop::image::digest::Digest;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

fn plain() -> Layout {
    Image::new(vec![layer(&[dir("d", 0o755), file("d/f", "f")])]).write()
}

/// A blob of a layout; its descriptor.
fn put(source: &Layout, kind: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs::write(Path::new(source.path()).join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
}

/// Another blob for a layer, right by its descriptor.
pub fn replace_blob(source: &Layout, n: usize, bytes: &[u8]) {
    source.edit_manifest(|m| {
        let kind = m["layers"][n]["mediaType"].as_str().unwrap().to_string();
        m["layers"][n] = put(source, &kind, bytes);
    });
}

/// The document that a kind of blob is in a plain image, as text.
fn document(source: &Layout, kind: &str) -> String {
    let (mut manifest, mut config) = (Value::Null, Value::Null);
    source.edit_manifest(|m| manifest = m.clone());
    source.edit_config(|c| config = c.clone());
    if kind == CONFIG { config.to_string() } else { manifest.to_string() }
}

/// The image with this text as its manifest or configuration, right by all digests.
fn with_text(source: &Layout, kind: &str, text: &str) {
    let descriptor = put(source, kind, text.as_bytes());
    if kind == CONFIG {
        source.edit_manifest(|m| m["config"] = descriptor);
    } else {
        source.edit_index(|i| i["manifests"] = json!([descriptor]));
    }
}

#[track_caller]
fn refuse(source: &Layout, words: &str) -> Outcome {
    let p = Place::new();
    let out = p.imgtool(&["import", source.path(), "bad"]).fails(words);
    assert!(out.stderr.contains(source.path()) && !out.stderr.contains("panicked"), "{}", out.stderr);
    for sub in ["refs", "tmp", "layers"] {
        assert_eq!(fs::read_dir(p.store().join(sub)).unwrap().count(), 0, "{words}: {sub}");
    }
    out
}

#[test]
fn documents_that_readers_take_for_two_things_are_refused() {
    needs_root!();
    let twice = "twice, in one spelling or two";
    for (kind, after, more, words) in [
        (MANIFEST, "{", "\"layers\":[],", twice),
        (MANIFEST, "{", "\"Layers\":[],", twice),
        (MANIFEST, "{", "\"manifests\":[],", "is both an index and a manifest"),
        (MANIFEST, "{", "\"fsLayers\":[],\"manifests\":[],", "is both an index and a manifest"),
        (MANIFEST, "\"config\":{", "\"digest\":\"sha256:0\",", twice),
        (MANIFEST, "\"config\":{", "\"SIZE\":1,", twice),
        (CONFIG, "{", "\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]},", twice),
        (CONFIG, "\"rootfs\":{", "\"Diff_IDs\":[],", twice),
        (CONFIG, "{", "\"history\":[[null,null,null,null,true]],", "a list in the place of an object"),
    ] {
        let source = plain();
        let text = document(&source, kind);
        assert!(text.contains(after));
        with_text(&source, kind, &text.replacen(after, &format!("{after}{more}"), 1));
        refuse(&source, words);
    }
    let source = plain();
    with_text(&source, CONFIG, &document(&source, CONFIG).replacen("{\"Cmd\":[\"true\"]}", "[\"root\"]", 1));
    refuse(&source, "a list in the place of an object");
    let source = plain();
    with_text(&source, MANIFEST, &format!("[2,\"{MANIFEST}\",null,{{}},[]]"));
    refuse(&source, "a list in the place of an object");
    for text in
        ["", "null", "{}", "[]", "\"x\"", "{\"schemaVersion\":1}", "\u{feff}{}", "{\"schemaVersion\":2}x"]
    {
        let source = plain();
        with_text(&source, MANIFEST, text);
        refuse(&source, "");
        let source = plain();
        with_text(&source, CONFIG, text);
        refuse(&source, "");
        let source = plain();
        fs::write(Path::new(source.path()).join("index.json"), text).unwrap();
        refuse(&source, "");
    }
}

#[test]
fn keys_that_are_the_users_own_may_be_alike() {
    needs_root!();
    for (kind, after, more) in [
        (MANIFEST, "{", "\"annotations\":{\"Size\":\"1\",\"size\":\"2\"},\"x\":[[1]],"),
        (CONFIG, "{", "\"x\":{\"config\":[[{\"cmd\":1,\"Cmd\":2}]]},"),
        (
            CONFIG,
            "\"config\":{",
            "\"Labels\":{\"User\":\"a\",\"user\":\"b\"},\"Volumes\":{\"/a\":{},\"/A\":{}},",
        ),
    ] {
        let source = plain();
        let text = document(&source, kind);
        with_text(&source, kind, &text.replacen(after, &format!("{after}{more}"), 1));
        let p = Place::new();
        p.imgtool(&["import", source.path(), "x"]).ok();
        p.imgtool(&["inspect", "x"]).ok();
        p.remove(&p.unpack("x", &[]));
    }
}

/// `run` would refuse what such a configuration becomes.
#[test]
fn what_no_program_can_be_given_is_refused_before_it_is_written() {
    needs_root!();
    let cases = [
        (json!({ "Env": ["A=\0"] }), "config.Env: \"A=\\0\" has a NUL"),
        (json!({ "Cmd": ["a", "\0"] }), "config.Cmd"),
        (json!({ "Entrypoint": ["\0"] }), "config.Entrypoint"),
        (json!({ "WorkingDir": "/\0" }), "config.WorkingDir"),
        (json!({ "User": "\0" }), "config.User"),
        (json!({ "Volumes": { "/./proc//self": {} } }), "config.Volumes: \"/./proc//self\" is of /proc"),
    ];
    for (config, words) in cases {
        let p = Place::new();
        p.imgtool(&["import", Image::new(vec![layer(&[])]).config(config).write().path(), "x"]).ok();
        let bundle = p.path().join("bundle");
        p.imgtool(&["unpack", "x", bundle.to_str().unwrap()]).fails(words);
        assert!(!bundle.exists());
    }
}

#[test]
fn a_source_without_images_is_an_error() {
    needs_root!();
    let source = plain();
    source.edit_index(|i| i["manifests"] = json!([]));
    refuse(&source, "names no image");
    let s = Scratch::new("none");
    let tar = s.path.join("x.tar");
    fs::write(&tar, layer(&[file("manifest.json", "[]")])).unwrap();
    Place::new().imgtool(&["import", tar.to_str().unwrap()]).fails("names no image");
    // Before the disk is full.
    let p = Place::new();
    p.imgtool(&["import", "/dev/zero", "x"]).fails("is no tar archive");
    p.imgtool(&["import", "/dev/urandom", "x"]).fails("");
    assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_blob_that_is_another_is_told_before_what_is_wrong_in_it() {
    needs_root!();
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let source = Image::new(vec![layer(&[dir("d", 0o755), file("d/f", &"f".repeat(1 << 20))])]);
        let source = source.packing(packing).write();
        source.damage_layer(0, |b| b[30] ^= 0x55);
        refuse(&source, "have the digest sha256:");
    }
}

#[test]
fn deep_and_large_documents_end() {
    needs_root!();
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("\"x\":{}1{},", open.repeat(100_000), close.repeat(100_000));
        for kind in [MANIFEST, CONFIG] {
            let source = plain();
            with_text(&source, kind, &document(&source, kind).replacen('{', &format!("{{{deep}"), 1));
            refuse(&source, "");
        }
        let source = plain();
        let index = Path::new(source.path()).join("index.json");
        let text = fs::read_to_string(&index).unwrap();
        fs::write(&index, text.replacen('{', &format!("{{{deep}"), 1)).unwrap();
        refuse(&source, "");
    }
    let source = plain();
    source.edit_config(|c| c["author"] = json!("x".repeat(100 << 20)));
    refuse(&source, "raise --max-config-bytes");
    let source = plain();
    source.edit_manifest(|m| m["layers"] = json!(vec![m["layers"][0].clone(); 100_000]));
    refuse(&source, "raise --max-manifest-bytes");
    // With the limits raised there is still one.
    source
        .edit_config(|c| c["rootfs"]["diff_ids"] = json!(vec![c["rootfs"]["diff_ids"][0].clone(); 100_000]));
    source.edit_manifest(|m| m["layers"] = json!(vec![m["layers"][0].clone(); 100_000]));
    let raised = ["--max-manifest-bytes", "100000000", "--max-config-bytes", "100000000"];
    let p = Place::new();
    p.imgtool(&[&["import"], &raised[..], &[source.path(), "x"]].concat())
        .fails("has 100000 layers, at most");
}

#[test]
fn descriptors_are_digests_and_sizes() {
    needs_root!();
    let hex = "0".repeat(64);
    for (digest, words) in [
        ("sha256:../../../../etc/passwd".to_string(), "Invalid encoded value"),
        ("sha256:../../x".into(), "Invalid encoded value"),
        (format!("sha512:{hex}"), "Invalid digest length"),
        (format!("sha256:{}", "A".repeat(64)), "Invalid non-hexadecimal character"),
        (format!("sha256:{hex}/x"), "Invalid encoded value"),
        (format!("sha256:{hex}\u{1b}[31m"), "Invalid encoded value"),
        (hex.clone(), "missing ':' in digest"),
        (String::new(), "missing ':' in digest"),
        // Right, but of no algorithm that is known here.
        (format!("sha512:{hex}{hex}"), "is not sha256:"),
    ] {
        let source = plain();
        source.edit_index(|i| i["manifests"][0]["digest"] = json!(digest));
        refuse(&source, words);
        let source = plain();
        source.edit_manifest(|m| m["config"]["digest"] = json!(digest));
        refuse(&source, words);
        let source = plain();
        source.edit_manifest(|m| m["layers"][0]["digest"] = json!(digest));
        refuse(&source, words);
        let source = plain();
        source.edit_config(|c| c["rootfs"]["diff_ids"][0] = json!(digest));
        refuse(&source, "is not sha256:");
    }
    for size in [json!(-1), json!(1.5), json!(u64::MAX), json!("7"), json!(null), json!(0)] {
        let source = plain();
        source.edit_manifest(|m| m["layers"][0]["size"] = size.clone());
        refuse(&source, "");
        let source = plain();
        source.edit_manifest(|m| m["config"]["size"] = size.clone());
        refuse(&source, "");
        let source = plain();
        source.edit_index(|i| i["manifests"][0]["size"] = size);
        refuse(&source, "");
    }
    for kind in ["", "text/html", INDEX, "application/vnd.oci.image.layer.v1.tar+gzip"] {
        let source = plain();
        source.edit_manifest(|m| m["config"]["mediaType"] = json!(kind));
        refuse(&source, "media type");
        let source = plain();
        source.edit_manifest(|m| m["layers"][0]["mediaType"] = json!(kind));
        refuse(&source, "media type");
    }
}

/// An index that names itself can only have a wrong digest; others may name what has names again.
#[test]
fn indexes_in_each_other_end() {
    needs_root!();
    let source = plain();
    let hex = "1".repeat(64);
    let own = json!({"mediaType": INDEX, "digest": format!("sha256:{hex}"), "size": 0});
    let text = |size: usize| {
        let mut own = own.clone();
        own["size"] = json!(size);
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [own]}).to_string()
    };
    let size = text(100).len();
    fs::write(Path::new(source.path()).join("blobs/sha256").join(&hex), text(size)).unwrap();
    fs::write(Path::new(source.path()).join("index.json"), text(size)).unwrap();
    refuse(&source, "has the digest");
    let source = plain();
    source.double_index(9);
    refuse(&source, "other indexes");
    let source = plain();
    source.double_index(7);
    Place::new().imgtool(&["import", source.path(), "x"]).ok();
    let source = plain();
    let many: Vec<Value> = (0..1100)
        .map(|n| json!({"mediaType": INDEX, "digest": format!("sha256:{n:064x}"), "size": 1}))
        .collect();
    let wide = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": many}).to_string();
    let inner = put(&source, INDEX, wide.as_bytes());
    source.edit_index(|i| i["manifests"] = json!([inner]));
    refuse(&source, "");
}

/// A source of docker save, as a directory or an archive.
fn docker(manifest: &Value, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Tar::default().file("manifest.json", &manifest.to_string());
    for (name, data) in files {
        tar = tar.entry(head(b'0', name), data);
    }
    tar.end()
}

#[test]
fn archives_of_docker_do_not_lead_out() {
    needs_root!();
    let s = Scratch::new("docker");
    let secret = s.path.join("secret");
    let good = layer(&[file("f", "1")]);
    fs::write(&secret, &good).unwrap();
    let id = Digest::of(&good);
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [id]}});
    let config = config.to_string();
    let saved =
        |config: &str, layer: &str| json!([{"Config": config, "RepoTags": ["x:1"], "Layers": [layer]}]);
    let source = s.path.join("source.tar");
    let import = |bytes: Vec<u8>| {
        fs::write(&source, bytes).unwrap();
        Place::new().imgtool(&["import", source.to_str().unwrap()])
    };
    let c = [("c.json", config.as_bytes())];
    import(docker(&saved("c.json", "l.tar"), &[c[0], ("l.tar", &good)])).ok();
    import(docker(&saved("c.json", "l.tar"), &c)).fails("l.tar: is missing");
    import(docker(&saved("other.json", "l.tar"), &c)).fails("other.json: is missing");
    import(docker(&saved("c.json", secret.to_str().unwrap()), &c)).fails("is missing");
    import(docker(&saved("c.json", "../secret"), &c)).fails("is missing");
    let named = format!("{}.json", "0".repeat(64));
    import(docker(&saved(&named, "l.tar"), &[(&named, config.as_bytes())])).fails("has the digest");
    import(docker(&json!([{"Config": "c.json", "Layers": ["a", "b"]}]), &c)).fails("has 2 layers");
    for text in ["{}", "[1]", "[{}]", "[{\"Config\":\"c.json\"}]", "[{\"Config\":1,\"Layers\":[]}]"] {
        import(docker(&serde_json::from_str(text).unwrap(), &c)).fails("");
    }
    // Links in the archive, as docker save writes them, to where they must not lead.
    let linked = |kind: u8, target: &str| {
        let tar = Tar(docker(&saved("c.json", "d/layer.tar"), &c)[..].to_vec());
        let tar = Tar(tar.0[..tar.0.len() - 1024].to_vec());
        tar.entry(head(kind, "d/layer.tar").link(target), b"").entry(head(b'0', "real"), &good).end()
    };
    import(linked(b'2', "../real")).ok();
    import(linked(b'1', "real")).ok();
    import(linked(b'2', secret.to_str().unwrap())).fails("is missing");
    import(linked(b'2', "../../secret")).fails("is missing");
    import(linked(b'2', "layer.tar")).fails("too many links");
    import(linked(b'1', "d/layer.tar")).fails("too many links");
    import(linked(b'3', "")).fails("is missing");
    import(linked(b'6', "")).fails("is missing");
    // The same of a directory, whose links the file system has.
    let dir = s.path.join("dir");
    fs::create_dir_all(dir.join("d")).unwrap();
    fs::write(dir.join("c.json"), &config).unwrap();
    fs::write(dir.join("manifest.json"), saved("c.json", "d/layer.tar").to_string()).unwrap();
    let place = dir.join("d/layer.tar");
    let import = || Place::new().imgtool(&["import", dir.to_str().unwrap()]);
    for target in [secret.to_str().unwrap(), "../../secret", "/proc/self/root/etc/passwd", "layer.tar"] {
        std::os::unix::fs::symlink(target, &place).unwrap();
        import().fails("");
        fs::remove_file(&place).unwrap();
    }
    nix::unistd::mkfifo(&place, nix::sys::stat::Mode::S_IRWXU).unwrap();
    import().fails("is not a regular file");
    fs::write(dir.join("manifest.json"), saved("c.json", "../secret").to_string()).unwrap();
    import().fails("");
    fs::write(dir.join("manifest.json"), saved("../secret", "d/layer.tar").to_string()).unwrap();
    import().fails("");
}
