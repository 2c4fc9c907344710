//! Round trips with the tools of Debian: what we write they read as it is, and what they write comes back as it was.

use crate::make::{Packing, Place};
use crate::support::{Outcome, finish};
use crate::{has_all_of, image, index, json, needs_program, needs_root};
use orlop::image::digest::Digest;
use orlop::image::{tree, view};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A store with an image, and that image in every form that is written.
struct Exported {
    p: Place,
    digest: String,
    config: String,
}

impl Exported {
    fn new(packing: Packing) -> Self {
        let p = Place::new();
        let told = p.imgtool(&["import", image("x", packing).write().path()]).ok().stdout;
        let config = p.imgtool(&["inspect", "x"]).ok().json()["configDigest"].as_str().unwrap().to_string();
        let e = Self { p, digest: told.trim().rsplit_once(' ').unwrap().1.to_string(), config };
        e.p.imgtool(&["export", "x", &e.path("layout")]).ok();
        e.p.imgtool(&["export", "x", &e.path("oci.tar")]).ok();
        e.p.imgtool(&["export", "--format", "docker", "x", &e.path("docker.tar")]).ok();
        e
    }

    fn path(&self, name: &str) -> String {
        self.p.path().join(name).to_str().unwrap().to_string()
    }

    /// What another tool wrote is imported, exported and compared; the digests of its manifest and configuration.
    #[track_caller]
    fn comes_back(&self, theirs: &str, name: &str) -> (String, String) {
        let q = Place::new();
        q.imgtool(&["import", theirs, name]).ok();
        let out = q.path().join("out");
        q.imgtool(&["export", name, out.to_str().unwrap()]).ok();
        if Path::new(theirs).is_dir() {
            has_all_of(&out, theirs.as_ref());
            assert_eq!(
                index(&out)[0].1,
                json(Path::new(theirs).join("index.json"))["manifests"][0]["digest"]
            );
        }
        let i = q.imgtool(&["inspect", name]).ok().json();
        (index(&out).remove(0).1, i["configDigest"].as_str().unwrap().to_string())
    }

    /// Another tool's tree is that of our bundle. Times of directories are where tools differ.
    #[track_caller]
    fn is_the_tree(&self, theirs: &Path) {
        let bundle = self.p.unpack("x", &[]);
        let mut told = Vec::new();
        let mut report = |path: &[u8], what: String| {
            if !what.starts_with("has the time") {
                told.push(format!("{}: {what}", String::from_utf8_lossy(path)));
            }
        };
        tree::compare(
            &view::open(&bundle.join("rootfs")).unwrap(),
            &view::open(theirs).unwrap(),
            &mut report,
        )
        .unwrap();
        self.p.remove(&bundle);
        assert_eq!(told, Vec::<String>::new());
    }
}

#[track_caller]
fn run(program: &str, args: &[&str]) -> Outcome {
    finish(Command::new(program).args(args).stdin(Stdio::null())).ok()
}

#[test]
fn skopeo_reads_and_writes_the_same() {
    needs_root!();
    needs_program!("skopeo");
    for packing in [Packing::Gzip, Packing::Zstd, Packing::Plain] {
        let e = Exported::new(packing);
        let skopeo = |args: &[&str]| run("skopeo", &[&["--insecure-policy"], args].concat());
        let copy = |from: &str, to: &str| skopeo(&["copy", from, to]);
        let layout = format!("oci:{}:x", e.path("layout"));
        for (from, theirs) in
            [(&layout, "theirs"), (&format!("oci-archive:{}:x", e.path("oci.tar")), "theirs-too")]
        {
            let raw = skopeo(&["inspect", "--raw", from]).stdout;
            assert_eq!(Digest::of(raw.as_bytes()).to_string(), e.digest);
            skopeo(&["copy", "--preserve-digests", from, &format!("oci:{}:x", e.path(theirs))]);
            assert_eq!(e.comes_back(&e.path(theirs), "x"), (e.digest.clone(), e.config.clone()));
        }
        copy(
            &format!("docker-archive:{}", e.path("docker.tar")),
            &format!("oci:{}:x", e.path("from-docker")),
        );
        e.comes_back(&e.path("from-docker"), "x");
        if packing == Packing::Zstd {
            continue; // skopeo has no zstd in docker's archives
        }
        let theirs = e.path("theirs.tar");
        copy(&layout, &format!("docker-archive:{theirs}:x:1"));
        e.comes_back(&theirs, "x:1");
    }
}

#[test]
fn umoci_reads_and_writes_the_same() {
    needs_root!();
    needs_program!("umoci");
    let e = Exported::new(Packing::Gzip);
    assert_eq!(run("umoci", &["ls", "--layout", &e.path("layout")]).stdout, "x\n");
    let at = |tag: &str| format!("{}:{tag}", e.path("layout"));
    run("umoci", &["unpack", "--image", &at("x"), &e.path("bundle")]);
    e.is_the_tree(&PathBuf::from(e.path("bundle")).join("rootfs"));
    // A layer of theirs on top of ours.
    fs::write(PathBuf::from(e.path("bundle")).join("rootfs/theirs"), "theirs").unwrap();
    run("umoci", &["repack", "--image", &at("y"), &e.path("bundle")]);
    run("umoci", &["rm", "--image", &at("x")]);
    run("umoci", &["gc", "--layout", &e.path("layout")]);
    let q = Place::new();
    q.imgtool(&["import", &e.path("layout")]).ok();
    let out = q.path().join("out");
    q.imgtool(&["export", "y", out.to_str().unwrap()]).ok();
    has_all_of(&out, e.path("layout").as_ref());
    assert_eq!(index(&out), index(e.path("layout").as_ref()));
    let bundle = q.unpack("y", &[]);
    assert_eq!(fs::read_to_string(bundle.join("rootfs/theirs")).unwrap(), "theirs");
    q.remove(&bundle);
}

#[test]
fn podman_reads_and_writes_the_same() {
    needs_root!();
    needs_program!("podman");
    for (packing, archive) in
        [(Packing::Gzip, "docker.tar"), (Packing::Plain, "oci.tar"), (Packing::Zstd, "oci.tar")]
    {
        let e = Exported::new(packing);
        let (root, runroot) = (e.path("root"), e.path("runroot"));
        let podman = |args: &[&str]| {
            let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
            run("podman", &[&own, args].concat())
        };
        podman(&["load", "-i", &e.path(archive)]);
        let id = podman(&["images", "--no-trunc", "--format", "{{.ID}}"]).stdout.trim().to_string();
        assert_eq!(id, e.config, "the id of an image is the digest of its configuration");
        let id = id.strip_prefix("sha256:").unwrap();
        let tree = podman(&["image", "mount", id]).stdout.trim().to_string();
        e.is_the_tree(tree.as_ref());
        podman(&["image", "umount", id]);
        podman(&["tag", id, "y:1"]);
        for format in ["oci-dir", "oci-archive", "docker-archive"] {
            if (packing, format) == (Packing::Zstd, "docker-archive") {
                continue; // podman has no zstd there
            }
            let theirs = e.path(format);
            podman(&["save", "--format", format, "-o", &theirs, "y:1"]);
            e.comes_back(&theirs, "y");
        }
    }
}
