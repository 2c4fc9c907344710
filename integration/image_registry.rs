//! `imgtool pull` and `push`: with Debian's registry and beside skopeo, and against servers that mean no good.

mod support;

#[path = "image_registry/crash.rs"]
mod crash;
#[path = "image_registry/hostile.rs"]
mod hostile;
#[allow(dead_code)] // `image_store` uses the rest
#[path = "image/kill.rs"]
mod kill;
#[allow(dead_code)] // `image` uses the rest
#[path = "image/make.rs"]
mod make;
#[path = "image_registry/partial.rs"]
mod partial;
#[path = "image_registry/server.rs"]
mod server;
#[path = "image_registry/tls.rs"]
mod tls;
#[path = "image_registry/upload.rs"]
mod upload;

use make::{Entry, Image, Layout, Packing, Place, base, dir, file, layer, script};
use serde_json::{Value, json};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Outcome, Scratch, finish_within};

/// Of this machine, but not where connections to it come from: one that waits for a port does not meet itself.
const ADDRESS: &str = "127.0.0.2";

/// Debian's docker-registry on a port of its own, until it is dropped.
pub struct Registry {
    pub port: u16,
    scratch: Scratch,
    process: Child,
}

impl Registry {
    pub fn start() -> Self {
        Self::start_with(&json!({}), &json!({}))
    }

    /// With more in the sections `http` and `auth`.
    pub fn start_with(http: &Value, auth: &Value) -> Self {
        let scratch = Scratch::new("registry");
        // Free now; nobody else asks for it in the moment until the registry does.
        let port = TcpListener::bind((ADDRESS, 0)).unwrap().local_addr().unwrap().port();
        let mut config = json!({
            "version": "0.1", "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": scratch.path.join("data")}},
            "http": {"addr": format!("{ADDRESS}:{port}")}, "auth": auth,
        });
        http.as_object().unwrap().iter().for_each(|(k, v)| config["http"][k] = v.clone());
        fs::write(scratch.path.join("config.yml"), config.to_string()).unwrap(); // JSON is YAML
        let log = fs::File::create(scratch.path.join("log")).unwrap();
        let mut c = Command::new("docker-registry");
        c.arg("serve").arg(scratch.path.join("config.yml")).stdin(Stdio::null());
        let process = c.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let registry = Self { port, scratch, process };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect((ADDRESS, port)).is_err() {
            let log = || fs::read_to_string(registry.scratch.path.join("log")).unwrap();
            assert!(Instant::now() < end, "the registry does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    pub fn image(&self, name: &str) -> String {
        format!("{ADDRESS}:{}/{name}", self.port)
    }

    /// Removes all that it has, also what a push that was killed has still on its way.
    fn clear(&self) {
        let data = self.scratch.path.join("data");
        support::until("the registry is empty", || {
            let _ = fs::remove_dir_all(&data); // it may be writing
            !data.exists()
        });
    }

    /// Removes all that it has but this.
    fn keep_only(&self, digest: &str) {
        let hex = digest.strip_prefix("sha256:").unwrap();
        let blobs = self.scratch.path.join("data/docker/registry/v2/blobs/sha256");
        for dir in fs::read_dir(blobs)
            .unwrap()
            .flatten()
            .filter(|d| !hex.starts_with(d.file_name().to_str().unwrap()))
        {
            fs::remove_dir_all(dir.path()).unwrap();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn layers() -> Vec<Vec<u8>> {
    let upper: Vec<Entry> = vec![dir("opt", 0o755), file("opt/hello", "hello from the registry\n")];
    vec![layer(&base()), layer(&upper)]
}

fn image() -> Image {
    Image::new(layers()).packing(Packing::Gzip).config(script("cat /opt/hello"))
}

/// Imports a layout; the digest of its manifest.
#[track_caller]
pub fn import(p: &Place, layout: &Layout, name: &str) -> String {
    let out = p.imgtool(&["import", layout.path(), name]).ok().stdout;
    out.trim().rsplit(' ').next().unwrap().to_string()
}

fn skopeo(args: &[&str]) -> Outcome {
    let mut c = Command::new("skopeo");
    finish_within(c.args(args).stdin(Stdio::null()), Duration::from_secs(120))
}

/// What the progress says was done, by what it was.
fn done(out: &Outcome) -> Vec<(String, String)> {
    let events =
        out.stderr.lines().map(|l| serde_json::from_str::<Value>(l).unwrap_or_else(|e| panic!("{e}: {l}")));
    let ends = events.filter(|e| e["event"] == "done");
    ends.map(|e| (e["what"].as_str().unwrap().into(), e["result"].as_str().unwrap().into())).collect()
}

fn count(out: &Outcome, result: &str) -> usize {
    done(out).iter().filter(|d| d.1 == result).count()
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    needs_root!();
    needs_program!("docker-registry");
    let (p, r) = (Place::new(), Registry::start());
    let digest = import(&p, &image().write(), "mine");
    let out = p.imgtool(&["--progress", "json", "push", "mine", &r.image("team/app:1")]).ok();
    assert_eq!(out.stdout, format!("{} {digest}\n", r.image("team/app:1")));
    assert_eq!(count(&out, "pushed"), 3);
    let other = Place::new();
    let out = other.imgtool(&["--progress", "json", "pull", &r.image("team/app:1")]).ok();
    assert_eq!(out.stdout, format!("{} {digest}\n", r.image("team/app:1")));
    assert_eq!(count(&out, "imported"), 2);
    let bundle = other.unpack(&r.image("team/app:1"), &[]);
    assert_eq!(other.run(&bundle).ok().stdout, "hello from the registry\n");
    // It came with its blobs: it goes on to others, and leaves the store as it is.
    let second = Registry::start();
    let out =
        other.imgtool(&["--progress", "json", "push", &r.image("team/app:1"), &second.image("x:1")]).ok();
    assert_eq!(out.stdout, format!("{} {digest}\n", second.image("x:1")));
    assert_eq!(count(&out, "pushed"), 3);
    assert_eq!(other.imgtool(&["verify"]).ok().stdout, "");
    let without = Place::new();
    without.imgtool(&["pull", "--no-blobs", "--layers", "dir", &second.image("x:1"), "x"]).ok();
    assert_eq!(without.imgtool(&["inspect", "x"]).ok().json()["layers"][0]["form"], "dir");
    without
        .imgtool(&["push", "x", &Registry::start().image("x:1")])
        .fails("import it again, without --no-blobs");
    // Again, by tag and by digest: nothing is fetched, not even where the blobs are gone.
    r.keep_only(&digest);
    for name in [r.image("team/app:1"), r.image(&format!("team/app@{digest}"))] {
        let out = other.imgtool(&["--progress", "json", "pull", &name, "again"]).ok();
        assert_eq!(out.stdout, format!("again {digest}\n"));
        assert_eq!((count(&out, "exists"), count(&out, "imported")), (2, 0), "{}", out.stderr);
    }
}

#[test]
fn what_the_registry_has_is_not_sent() {
    needs_root!();
    needs_program!("docker-registry");
    let (p, r) = (Place::new(), Registry::start());
    import(&p, &image().write(), &r.image("first:1"));
    let name = r.image("first:1");
    p.imgtool(&["push", &name, &name]).ok();
    let out = p.imgtool(&["--progress", "json", "push", &name, &r.image("first:2")]).ok();
    assert_eq!(count(&out, "exists"), 3, "{}", out.stderr);
    // Another repository: what the first has is mounted, with no blob at hand.
    let m = p.imgtool(&["inspect", &name]).ok().json();
    let digests: Vec<String> =
        m["layers"].as_array().unwrap().iter().map(|l| l["digest"].as_str().unwrap().into()).collect();
    digests.iter().for_each(|d| fs::remove_file(p.store().join("blobs").join(d.replace(':', "/"))).unwrap());
    let out = p.imgtool(&["--progress", "json", "push", &name, &r.image("second:1")]).ok();
    assert_eq!(count(&out, "mounted"), 3, "{}", out.stderr);
    Place::new().imgtool(&["pull", &r.image("second:1")]).ok();
    // Where nobody has them, they are named, and no tag is left.
    let empty = Registry::start();
    let out =
        p.imgtool(&["push", &name, &empty.image("x:1")]).fails("neither the store nor the registry has");
    digests.iter().for_each(|d| assert!(out.stderr.contains(d), "{}", out.stderr));
    Place::new().imgtool(&["pull", &empty.image("x:1")]).fails("404 not found: MANIFEST_UNKNOWN");
}

#[test]
fn blobs_are_sent_in_chunks_where_that_is_asked_for() {
    needs_root!();
    needs_program!("docker-registry");
    let (p, r) = (Place::new(), Registry::start());
    let digest = import(&p, &image().write(), "mine");
    p.imgtool(&["push", "--chunk-bytes", "100000", "mine", &r.image("x:1")]).ok();
    let out = Place::new().imgtool(&["pull", &r.image("x:1"), "y"]).ok();
    assert_eq!(out.stdout, format!("y {digest}\n"));
}

#[test]
fn skopeo_reads_and_writes_the_same() {
    needs_root!();
    needs_program!("docker-registry");
    needs_program!("skopeo");
    let (p, r) = (Place::new(), Registry::start());
    let layout = image().name("theirs").write();
    let digest = import(&p, &layout, "mine");
    p.imgtool(&["push", "mine", &r.image("ours:1")]).ok();
    let s = Scratch::new("skopeo");
    let to = format!("oci:{}:x", s.path.join("out").display());
    skopeo(&["copy", "--src-tls-verify=false", &format!("docker://{}", r.image("ours:1")), &to]).ok();
    let back = p.imgtool(&["import", s.path.join("out").to_str().unwrap(), "back"]).ok().stdout;
    assert_eq!(back, format!("back {digest}\n"));
    // The other way, once as OCI and once in Docker's form.
    for format in ["oci", "v2s2"] {
        let to = format!("docker://{}", r.image(&format!("theirs:{format}")));
        let from = format!("oci:{}:theirs", layout.path());
        skopeo(&["copy", "--dest-tls-verify=false", "--format", format, &from, &to]).ok();
        let other = Place::new();
        other.imgtool(&["pull", &r.image(&format!("theirs:{format}")), "t"]).ok();
        let bundle = other.unpack("t", &[]);
        assert_eq!(other.run(&bundle).ok().stdout, "hello from the registry\n", "{format}");
    }
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    needs_root!();
    needs_program!("docker-registry");
    needs_program!("skopeo");
    let (p, r) = (Place::new(), Registry::start());
    let layout = image().write();
    layout.multi_arch(&[("arm64", Some("v8")), ("amd64", None)]);
    // The layout's index names the index that is meant.
    layout.edit_index(|i| {
        i["manifests"][0]["annotations"] = json!({"org.opencontainers.image.ref.name": "multi"})
    });
    let from = format!("oci:{}:multi", layout.path());
    let to = format!("docker://{}", r.image("multi:1"));
    skopeo(&["copy", "--all", "--dest-tls-verify=false", &from, &to]).ok();
    let mut digests = Vec::new();
    for (platform, arch) in [("linux/amd64", "amd64"), ("linux/arm64", "arm64")] {
        p.imgtool(&["pull", "--platform", platform, &r.image("multi:1"), arch]).ok();
        let i = p.imgtool(&["inspect", arch]).ok().json();
        assert_eq!(i["manifest"]["annotations"]["for"], arch);
        digests.push(i["digest"].clone());
    }
    assert_ne!(digests[0], digests[1]);
    p.imgtool(&["pull", "--platform", "linux/s390x", &r.image("multi:1")])
        .fails("has no image for linux/s390x");
}

#[test]
fn passwords_are_taken_from_the_configuration() {
    needs_root!();
    needs_program!("docker-registry");
    let s = Scratch::new("login");
    // me:secret, as htpasswd -B writes it.
    let hash = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    fs::write(s.path.join("htpasswd"), hash).unwrap();
    let auth = json!({"htpasswd": {"realm": "x", "path": s.path.join("htpasswd")}});
    let (p, r) = (Place::new(), Registry::start_with(&json!({}), &auth));
    import(&p, &image().write(), "mine");
    let run = |args: &[&str], login: &str| {
        let auths = json!({"auths": {format!("{ADDRESS}:{}", r.port): {"auth": login}}});
        fs::write(s.path.join("config.json"), auths.to_string()).unwrap();
        let mut c = p.command(args);
        finish_within(c.env("REGISTRY_AUTH_FILE", s.path.join("config.json")), Duration::from_secs(60))
    };
    let (good, bad) = ("bWU6c2VjcmV0", "bWU6d3Jvbmc=");
    run(&["push", "mine", &r.image("x:1")], good).ok();
    run(&["pull", &r.image("x:1"), "y"], good).ok();
    for out in [run(&["pull", &r.image("x:1"), "z"], bad), run(&["push", "mine", &r.image("x:2")], bad)] {
        let out = out.fails("401 unauthorized");
        assert!(!out.stderr.contains("wrong") && !out.stderr.contains(bad), "{}", out.stderr);
    }
}

#[test]
fn the_program_resolves_names_without_nss() {
    let program = fs::read(support::ORLOP).unwrap();
    let has = |name: &[u8]| program.windows(name.len()).any(|w| w == name);
    assert!(has(b"\0getrandom\0"), "its symbols are stripped");
    assert!(!has(b"\0getaddrinfo\0"));
}
