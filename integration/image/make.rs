//! Images made by hand, and a store to put them in.

use crate::support::{ORLOP, Outcome, Scratch, finish_within, make_rootfs, unique};
use orlop::image::digest::Digest;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// An entry of a layer.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    kind: tar::EntryType,
    link: String,
    data: Vec<u8>,
    mode: u32,
    owner: u64,
}

fn entry(name: &str, kind: tar::EntryType, link: &str, data: &[u8], mode: u32) -> Entry {
    Entry { name: name.into(), kind, link: link.into(), data: data.into(), mode, owner: 0 }
}

pub fn file(name: &str, data: &str) -> Entry {
    entry(name, tar::EntryType::Regular, "", data.as_bytes(), 0o644)
}

pub fn dir(name: &str, mode: u32) -> Entry {
    entry(name, tar::EntryType::Directory, "", b"", mode)
}

pub fn link(name: &str, target: &str) -> Entry {
    entry(name, tar::EntryType::Symlink, target, b"", 0o777)
}

pub fn hard(name: &str, target: &str) -> Entry {
    entry(name, tar::EntryType::Link, target, b"", 0o644)
}

pub fn fifo(name: &str) -> Entry {
    entry(name, tar::EntryType::Fifo, "", b"", 0o666)
}

pub fn device(name: &str) -> Entry {
    entry(name, tar::EntryType::Char, "", b"", 0o666)
}

pub fn owned(name: &str, owner: u64) -> Entry {
    Entry { owner, ..file(name, "") }
}

/// The tar stream of a layer.
pub fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut b = tar::Builder::new(Vec::new());
    for e in entries {
        let mut h = tar::Header::new_gnu();
        h.set_entry_type(e.kind);
        h.set_mode(e.mode);
        h.set_uid(e.owner);
        h.set_gid(e.owner);
        if e.kind == tar::EntryType::Char {
            h.set_device_major(1).unwrap();
            h.set_device_minor(3).unwrap();
        }
        h.set_mtime(1_600_000_000);
        h.set_size(e.data.len() as u64);
        if e.link.is_empty() {
            b.append_data(&mut h, &e.name, &e.data[..]).unwrap();
        } else {
            b.append_link(&mut h, &e.name, &e.link).unwrap();
        }
    }
    b.into_inner().unwrap()
}

/// A busybox system.
pub fn base() -> Vec<Entry> {
    let s = Scratch::new("base");
    make_rootfs(&s.path);
    let mut out = vec![dir("./", 0o755)];
    for name in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
        out.push(dir(name, 0o755));
        let mut files: Vec<_> = fs::read_dir(s.path.join(name)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        for path in files {
            let name = path.strip_prefix(&s.path).unwrap().to_str().unwrap().to_string();
            out.push(match fs::read_link(&path) {
                Ok(target) => link(&name, target.to_str().unwrap()),
                Err(_) => entry(&name, tar::EntryType::Regular, "", &fs::read(&path).unwrap(), 0o755),
            });
        }
    }
    out
}

/// A system with what a layer on it may hide.
pub fn hidden_things() -> Vec<Entry> {
    let things = [
        dir("old", 0o755),
        file("old/a", "a"),
        file("gone", "x"),
        dir("secret", 0o711),
        dir("usr", 0o755),
        dir("usr/lib", 0o750),
        link("lib", "usr/lib"),
        dir("again", 0o700),
        file("again/old", "x"),
    ];
    [&base()[..], &things].concat()
}

/// A configuration that runs a shell script.
pub fn script(text: &str) -> Value {
    json!({ "Cmd": ["/bin/sh", "-c", text], "Env": ["PATH=/bin"] })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

pub fn pack(packing: Packing, data: &[u8]) -> Vec<u8> {
    match packing {
        Packing::Plain => data.to_vec(),
        Packing::Gzip => {
            let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            e.write_all(data).unwrap();
            e.finish().unwrap()
        }
        Packing::Zstd => zstd::encode_all(data, 1).unwrap(),
    }
}

fn media_type(packing: Packing) -> &'static str {
    match packing {
        Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
        Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    }
}

pub struct Image {
    layers: Vec<Vec<u8>>,
    config: Value,
    packing: Packing,
    name: Option<String>,
}

impl Image {
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        Self { layers, config: json!({"Cmd": ["true"]}), packing: Packing::Plain, name: None }
    }

    pub fn packing(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    fn document(&self) -> Value {
        let ids: Vec<String> = self.layers.iter().map(|l| Digest::of(l).to_string()).collect();
        json!({"architecture": "amd64", "os": "linux", "config": self.config, "rootfs": {"type": "layers", "diff_ids": ids}})
    }

    /// An OCI layout on disk.
    pub fn write(&self) -> Layout {
        let l = Layout { scratch: Scratch::new("layout") };
        fs::create_dir_all(l.scratch.path.join("blobs/sha256")).unwrap();
        let layers: Vec<Value> =
            self.layers.iter().map(|d| l.put(media_type(self.packing), &pack(self.packing, d))).collect();
        let config =
            l.put("application/vnd.oci.image.config.v1+json", self.document().to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        let mut d = l.put(MANIFEST, manifest.to_string().as_bytes());
        if let Some(name) = &self.name {
            d["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        l.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        l.file("index.json", json!({"schemaVersion": 2, "manifests": [d]}).to_string().as_bytes());
        l
    }

    /// What `docker save` wrote of old (a directory for each layer, equal ones linked), or writes now beside an index.
    pub fn docker_save(&self, new: bool) -> Vec<u8> {
        let config = self.document().to_string();
        let id = Digest::of(config.as_bytes()).hex();
        let mut entries = Vec::new();
        let mut names = Vec::new();
        for (n, l) in self.layers.iter().enumerate() {
            let name = if new {
                format!("blobs/sha256/{}", Digest::of(l).hex())
            } else {
                format!("{n:064}/layer.tar")
            };
            let mut e = file(&name, "");
            e.data = l.clone();
            if n == 0 && !new {
                let first = e.clone();
                e = link(&name, &format!("../{}/layer.tar", "f".repeat(64)));
                entries.push(Entry { name: format!("{}/layer.tar", "f".repeat(64)), ..first });
            }
            entries.push(e);
            names.push(name);
        }
        let config_name = if new { format!("blobs/sha256/{id}") } else { format!("{id}.json") };
        entries.push(file(&config_name, &config));
        let tag = if new { "saved:2" } else { "saved:1" };
        let manifest = json!([{"Config": config_name, "RepoTags": [tag], "Layers": names}]);
        entries.push(file("manifest.json", &manifest.to_string()));
        layer(&entries)
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An OCI layout, and ways to spoil it.
pub struct Layout {
    scratch: Scratch,
}

/// So many zeros.
pub struct Zeros(pub u64);

impl Layout {
    pub fn path(&self) -> &str {
        self.scratch.path.to_str().unwrap()
    }

    fn file(&self, name: &str, data: &[u8]) {
        fs::write(self.scratch.path.join(name), data).unwrap();
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.scratch.path.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    fn put(&self, kind: &str, data: &[u8]) -> Value {
        let digest = Digest::of(data).to_string();
        fs::write(self.blob(&digest), data).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": data.len()})
    }

    fn json(&self, path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn index(&self) -> Value {
        self.json(&self.scratch.path.join("index.json"))
    }

    fn manifest(&self) -> Value {
        self.json(&self.blob(self.index()["manifests"][0]["digest"].as_str().unwrap()))
    }

    fn layer(&self, n: usize) -> PathBuf {
        self.blob(self.manifest()["layers"][n]["digest"].as_str().unwrap())
    }

    pub fn edit_index(&self, edit: impl FnOnce(&mut Value)) {
        let mut index = self.index();
        edit(&mut index);
        self.file("index.json", index.to_string().as_bytes());
    }

    /// The edited manifest has a right digest.
    pub fn edit_manifest(&self, edit: impl FnOnce(&mut Value)) {
        let mut m = self.manifest();
        edit(&mut m);
        let d = self.put(MANIFEST, m.to_string().as_bytes());
        self.edit_index(|i| i["manifests"] = json!([d]));
    }

    pub fn edit_config(&self, edit: impl FnOnce(&mut Value)) {
        let m = self.manifest();
        let mut c = self.json(&self.blob(m["config"]["digest"].as_str().unwrap()));
        edit(&mut c);
        let d = self.put(m["config"]["mediaType"].as_str().unwrap(), c.to_string().as_bytes());
        self.edit_manifest(|m| m["config"] = d);
    }

    pub fn damage_layer(&self, n: usize, damage: impl FnOnce(&mut Vec<u8>)) {
        let path = self.layer(n);
        let mut data = fs::read(&path).unwrap();
        damage(&mut data);
        fs::write(path, data).unwrap();
    }

    pub fn remove_layer(&self, n: usize) {
        fs::remove_file(self.layer(n)).unwrap();
    }

    pub fn replace_layer(&self, n: usize, make: impl FnOnce(&Path)) {
        let path = self.layer(n);
        fs::remove_file(&path).unwrap();
        make(&path);
    }

    /// One more layer with a file of zeros, right in every digest.
    pub fn add_layer_of_zeros(&self, name: &str, Zeros(size): Zeros, packing: Packing) {
        let mut h = tar::Header::new_gnu();
        h.set_path(name).unwrap();
        h.set_size(size);
        h.set_mode(0o644);
        h.set_cksum();
        let stream = || h.as_bytes().chain(std::io::repeat(0).take(size)).chain(&[0u8; 1024][..]);
        assert_eq!(packing, Packing::Zstd);
        let data = zstd::encode_all(stream(), 1).unwrap();
        let mut hash = orlop::image::digest::HashRead::new(stream());
        std::io::copy(&mut hash, &mut std::io::sink()).unwrap();
        let id = hash.digest().to_string();
        let d = self.put(media_type(packing), &data);
        self.edit_config(|c| c["rootfs"]["diff_ids"].as_array_mut().unwrap().push(json!(id)));
        self.edit_manifest(|m| m["layers"].as_array_mut().unwrap().push(d));
    }

    /// The index names an index that has the image for each of these platforms.
    pub fn multi_arch(&self, platforms: &[(&str, Option<&str>)]) {
        let manifest = self.manifest();
        let entry = |(arch, variant): &(&str, Option<&str>)| {
            let mut m = manifest.clone();
            m["annotations"] = json!({"for": arch});
            let mut d = self.put(MANIFEST, m.to_string().as_bytes());
            d["platform"] = json!({"os": "linux", "architecture": arch});
            if let Some(v) = variant {
                d["platform"]["variant"] = json!(v);
            }
            d
        };
        let entries: Vec<Value> = platforms.iter().map(entry).collect();
        let inner = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        let d = self.put(INDEX, inner.to_string().as_bytes());
        self.file("index.json", json!({"schemaVersion": 2, "manifests": [d]}).to_string().as_bytes());
    }

    /// Indexes in each other, each naming the next twice.
    pub fn double_index(&self, depth: usize) {
        let mut d = self.index()["manifests"][0].clone();
        for n in 0..depth {
            let mut twice = [d.clone(), d.clone()];
            twice[1]["annotations"] = json!({"n": n.to_string()});
            let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": twice});
            d = self.put(INDEX, index.to_string().as_bytes());
        }
        self.edit_index(|i| i["manifests"] = json!([d]));
    }

    /// The layout as an archive.
    pub fn tar(&self) -> Vec<u8> {
        let mut b = tar::Builder::new(Vec::new());
        b.append_dir_all(".", &self.scratch.path).unwrap();
        b.into_inner().unwrap()
    }
}

/// A store and bundles of one test.
pub struct Place {
    scratch: Scratch,
    pub form: Option<&'static str>,
}

/// The forms of layers: directories, and EROFS images where the machine mounts them.
pub fn forms() -> &'static [&'static str] {
    if Place::new().has_images() { &["dir", "erofs"] } else { &["dir"] }
}

/// Runs a test with layers of each form.
pub fn in_both_forms(test: impl Fn(&Place)) {
    forms().iter().for_each(|form| test(&Place::of(form)));
}

impl Place {
    pub fn new() -> Self {
        Self { scratch: Scratch::new("image"), form: None }
    }

    /// With layers of this form.
    pub fn of(form: &'static str) -> Self {
        Self { form: Some(form), ..Self::new() }
    }

    /// Whether EROFS images can be layers here.
    pub fn has_images(&self) -> bool {
        self.imgtool(&["info", "--format", "json"]).ok().json()["layerForm"]["name"] == "erofs"
    }

    pub fn path(&self) -> &Path {
        &self.scratch.path
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(ORLOP);
        c.args(["imgtool", "--store"]).arg(self.store()).args(args).stdin(Stdio::null());
        if let Some(form) = self.form.filter(|_| args[0] == "import" && !args.contains(&"--layers")) {
            c.args(["--layers", form]);
        }
        c
    }

    #[track_caller]
    pub fn imgtool(&self, args: &[&str]) -> Outcome {
        finish_within(&mut self.command(args), Duration::from_secs(120))
    }

    #[track_caller]
    pub fn unpack(&self, image: &str, more: &[&str]) -> PathBuf {
        let bundle = self.path().join(format!("bundle-{}", unique()));
        let args = [&["unpack"], more, &[image, bundle.to_str().unwrap()]].concat();
        self.imgtool(&args).ok();
        bundle
    }

    #[track_caller]
    pub fn run(&self, bundle: &Path) -> Outcome {
        finish_within(self.running(bundle).stdin(Stdio::null()), Duration::from_secs(60))
    }

    /// The command of [`Place::run`].
    pub fn running(&self, bundle: &Path) -> Command {
        let mut c = Command::new(ORLOP);
        c.arg("--root").arg(self.path().join("state")).args(["run", "--bundle"]).arg(bundle);
        c.arg(format!("orlop-image-{}", unique()));
        c
    }

    pub fn is_mounted(&self, bundle: &Path) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        mounts.contains(bundle.join("rootfs").to_str().unwrap())
    }

    #[track_caller]
    pub fn remove(&self, bundle: &Path) {
        if self.is_mounted(bundle) {
            let unmount = || self.imgtool(&["umount", bundle.to_str().unwrap()]);
            // A child that another test has just forked has until its exec what was open here: mostly no time at all.
            let is_held = |out: &Outcome| out.stderr.contains("resource busy");
            let more = (0..50).map(|_| {
                std::thread::sleep(Duration::from_millis(20));
                unmount()
            });
            std::iter::once(unmount())
                .chain(more)
                .find(|out| !is_held(out))
                .expect("one that is not busy")
                .ok();
        }
        fs::remove_dir_all(bundle).unwrap();
    }
}

/// A file system in memory, until it is dropped.
pub struct Small(PathBuf);

impl Small {
    pub fn new(p: &Place, options: &str) -> Self {
        Self::on(p.path().join(format!("small-{}", unique())), options)
    }

    /// On a new directory.
    pub fn on(at: PathBuf, options: &str) -> Self {
        fs::create_dir(&at).unwrap();
        let small = Self(at);
        small.mount(options);
        small
    }

    /// With `remount` among them the options of the one that is there change.
    pub fn mount(&self, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(&self.0);
        finish_within(&mut mount, Duration::from_secs(30)).ok();
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
