//! Servers that lie, break, refuse and spy.

use crate::make::{Image, Packing, Place, dir, file, layer};
use crate::needs_root;
use crate::server::{Reply, Repository, Request, Server};
use crate::support::{Outcome, Scratch, finish_within};
use orlop::image::digest::Digest;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes that do not pack, the same each time.
pub fn noise(bytes: usize) -> String {
    let mut n = 1u64;
    let next = |_| {
        n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(b'!' + (n >> 33) as u8 % 90)
    };
    (0..bytes).map(next).collect()
}

pub fn image() -> Repository {
    let layers = vec![layer(&[dir("a", 0o755), file("a/f", &noise(300_000))]), layer(&[file("b", "b")])];
    Repository::new(Image::new(layers).packing(Packing::Gzip).write())
}

/// A server that answers as `special` wants, and otherwise well.
pub fn serve(
    repository: &Arc<Repository>,
    special: impl Fn(&Request, &Repository) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    let r = repository.clone();
    Server::new(move |q| special(q, &r).unwrap_or_else(|| r.answer(q)))
}

#[track_caller]
pub fn pull(p: &Place, server: &Server) -> Outcome {
    p.imgtool(&["-q", "pull", &format!("{}/x:1", server.address)])
}

/// Pulls from a server that `special` spoils: it fails with these words, and nothing of it is named.
#[track_caller]
fn refused(
    words: &str,
    special: impl Fn(&Request, &Repository) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    let p = Place::new();
    let server = serve(&Arc::new(image()), special);
    let start = Instant::now();
    pull(&p, &server).fails(words);
    assert!(start.elapsed() < Duration::from_secs(30), "{words}: took {:?}", start.elapsed());
    assert_eq!(p.imgtool(&["list", "--format", "json"]).ok().json(), json!([]));
    server
}

#[test]
fn what_is_not_as_it_was_named_is_refused() {
    needs_root!();
    let changed = |q: &Request, r: &Repository, part: &str| {
        q.path.contains(part).then(|| {
            let mut bytes = r.blob(part).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Reply::new(200).header("Content-Type", "application/vnd.oci.image.manifest.v1+json").body(bytes)
        })
    };
    refused("has the digest", move |q, r| (q.method == "GET").then(|| changed(q, r, r.digest())).flatten());
    refused(&format!("layer {}", image().layer(0)), move |q, r| changed(q, r, &r.layer(0)));
    refused("has the digest", move |q, r| changed(q, r, r.manifest()["config"]["digest"].as_str().unwrap()));
    let other = Digest::of(b"other").to_string();
    refused("has the digest", move |q, r| {
        q.is("GET", "/manifests/").then(|| r.answer(q).header("Docker-Content-Digest", &other[..]))
    });
    refused("\"sha256:../../x\" is not sha256:", |q, r| {
        q.is("HEAD", "/manifests/").then(|| {
            let kind = "application/vnd.oci.image.manifest.v1+json";
            Reply::new(200)
                .header("Content-Type", kind)
                .header("Docker-Content-Digest", "sha256:../../x")
                .body(r.digest())
        })
    });
    refused("by its own word", |q, r| {
        let kind = "application/vnd.docker.distribution.manifest.v2+json";
        q.is("GET", "/manifests/")
            .then(|| Reply::new(200).header("Content-Type", kind).body(r.blob(r.digest()).unwrap()))
    });
    refused("is not that of an image", |q, _| {
        q.path
            .contains("/manifests/")
            .then(|| Reply::new(200).header("Content-Type", "text/html").body("<html>"))
    });
}

#[test]
fn sizes_are_those_of_the_descriptors() {
    needs_root!();
    refused("its descriptor lets us expect", |q, r| {
        q.path
            .contains(&r.layer(1))
            .then(|| Reply::new(200).body([r.blob(&r.layer(1)).unwrap(), vec![0; 9]].concat()))
    });
    refused("its descriptor lets us expect", |q, r| {
        q.path.contains(&r.layer(0)).then(|| Reply::new(200).body(&r.blob(&r.layer(0)).unwrap()[..1000]))
    });
    refused("goes on after the", |q, r| {
        q.path
            .contains(&r.layer(0))
            .then(|| Reply::new(200).body(r.blob(&r.layer(0)).unwrap()).endless(&[0; 4096]))
    });
    let config = image().manifest()["config"]["digest"].as_str().unwrap().to_string();
    refused(&format!("{config}: sends 9 bytes"), move |q, r| {
        q.path.contains(&config).then(|| Reply::new(200).body(&r.blob(&config).unwrap()[..9]))
    });
    let server = refused("answers with more than 4194304 bytes", |q, _| {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        q.path
            .contains("/manifests/")
            .then(|| Reply::new(200).header("Content-Type", kind).endless(&[b' '; 4096]))
    });
    assert!(server.count("GET", "/blobs/") == 0);
    refused("answers with more than", |q, _| {
        q.is("GET", "/manifests/").then(|| Reply::new(200).body("{}").claims(1 << 40))
    });
}

#[test]
fn many_large_indexes_are_not_kept() {
    needs_root!();
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let padded = |n: usize| {
        let padding = format!("{n}{}", "x".repeat(3_000_000));
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [], "annotations": {"x": padding}})
            .to_string()
    };
    let describe = |text: &str, kind| {
        let digest = Digest::of(text.as_bytes());
        json!({"mediaType": kind, "digest": digest, "size": text.len()})
    };
    let repository = Arc::new(image());
    let manifest = String::from_utf8(repository.blob(repository.digest()).unwrap()).unwrap();
    let mut named: Vec<_> = (0..100).map(|n| describe(&padded(n), INDEX)).collect();
    let places: Vec<String> = named.iter().map(|d| d["digest"].as_str().unwrap().into()).collect();
    named.push(describe(&manifest, "application/vnd.oci.image.manifest.v1+json"));
    let top = json!({"schemaVersion": 2, "manifests": named}).to_string();
    let server = serve(&repository, move |q, _| {
        let reply = || Reply::new(200).header("Content-Type", INDEX);
        match places.iter().position(|d| q.path.ends_with(d)) {
            Some(n) => Some(reply().body(padded(n))),
            None => q.path.ends_with("manifests/1").then(|| reply().body(top.clone())),
        }
    });
    // All of them are 300 MB; of address space there is less.
    let mut c = std::process::Command::new("sh");
    let p = Place::new();
    c.args(["-c", "ulimit -v 200000; exec \"$@\"", "sh", crate::support::ORLOP, "imgtool", "-q", "--store"]);
    c.arg(p.store()).args(["pull", &format!("{}/x:1", server.address)]).env("MALLOC_ARENA_MAX", "1");
    finish_within(&mut c, Duration::from_secs(60)).ok();
    assert_eq!(server.count("GET", "/manifests/"), 102, "each of them once");
}

#[test]
fn a_registry_may_know_little_of_what_it_has() {
    needs_root!();
    let bare = |q: &Request, r: &Repository| {
        q.path.contains("/manifests/").then(|| match &q.method[..] {
            "HEAD" => Reply::new(405),
            _ => Reply::new(200).header("Content-Type", "application/json").body(r.blob(r.digest()).unwrap()),
        })
    };
    for has_type in [true, false] {
        let layout = Image::new(vec![layer(&[file("f", "f")])]).write();
        if !has_type {
            layout.edit_manifest(|m| drop(m.as_object_mut().unwrap().remove("mediaType")));
        }
        let p = Place::new();
        let server = serve(&Arc::new(Repository::new(layout)), bare);
        pull(&p, &server).ok();
        pull(&p, &server).ok();
        assert_eq!(server.count("GET", "/blobs/"), 2, "the second pull fetched blobs again");
    }
}

#[test]
fn layers_are_fetched_side_by_side() {
    needs_root!();
    let p = Place::new();
    let waiting = Arc::new(AtomicUsize::new(0));
    let both = waiting.clone();
    let server = serve(&Arc::new(image()), move |q, r| {
        if q.is("GET", &r.layer(0)) || q.is("GET", &r.layer(1)) {
            waiting.fetch_add(1, Ordering::Relaxed);
            let end = Instant::now() + Duration::from_secs(20);
            while waiting.load(Ordering::Relaxed) < 2 && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        None
    });
    let start = Instant::now();
    pull(&p, &server).ok();
    assert_eq!(both.load(Ordering::Relaxed), 2);
    assert!(start.elapsed() < Duration::from_secs(20), "one waited for the other");
}

#[test]
fn heads_that_are_too_large_are_refused() {
    needs_root!();
    refused("header", |q, r| (q.method == "GET").then(|| r.answer(q).header("X-Bomb", "x".repeat(1 << 20))));
    refused("header", |q, r| {
        (q.method == "GET").then(|| (0..5000).fold(r.answer(q), |a, n| a.header(&format!("X-{n}"), "x")))
    });
}

#[test]
fn a_broken_body_goes_on_where_it_stopped() {
    needs_root!();
    let p = Place::new();
    let repository = Arc::new(image());
    let breaks = AtomicUsize::new(0);
    let server = serve(&repository, move |q, r| {
        let cut = q.is("GET", &r.layer(0)) && breaks.fetch_add(1, Ordering::Relaxed) < 3;
        cut.then(|| r.answer(q).cut(50_000))
    });
    pull(&p, &server).ok();
    let starts: Vec<_> = server
        .seen()
        .iter()
        .filter(|q| q.is("GET", &repository.layer(0)))
        .map(|q| q.header("range").unwrap_or("all").to_string())
        .collect();
    assert_eq!(starts, ["all", "bytes=50000-", "bytes=100000-", "bytes=150000-"]);
    assert_eq!(fs::read_dir(p.store().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    needs_root!();
    let p = Place::new();
    let first = AtomicUsize::new(0);
    let server = serve(&Arc::new(image()), move |q, r| {
        let reply = || Reply::new(200).body(r.blob(&r.layer(0)).unwrap());
        q.is("GET", &r.layer(0)).then(|| match first.fetch_add(1, Ordering::Relaxed) {
            0 => reply().cut(70_000),
            _ => reply(),
        })
    });
    pull(&p, &server).ok();
    refused("the registry answers with", |q, r| {
        q.is("GET", &r.layer(0)).then(|| match q.header("range") {
            None => r.answer(q).cut(70_000),
            Some(_) => Reply::new(206).header("Content-Range", "bytes 0-9/10").body(vec![0; 10]),
        })
    });
}

#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    needs_root!();
    let p = Place::new();
    let count = AtomicUsize::new(0);
    let server = serve(&Arc::new(image()), move |q, r| {
        (q.is("GET", &r.layer(1))).then(|| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::new(429).header("Retry-After", "2"),
            1 => Reply::new(503),
            _ => r.answer(q),
        })
    });
    let start = Instant::now();
    pull(&p, &server).ok();
    assert!(start.elapsed() >= Duration::from_secs(2));
    refused("429 too many requests: TOOMANYREQUESTS: slow down, try again in 3600 s", |q, _| {
        let said = json!({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow down"}]}).to_string();
        q.path.contains("/manifests/").then(|| Reply::new(429).header("Retry-After", "3600").body(said))
    });
    let server =
        refused("500 internal server error", |q, _| q.path.contains("/manifests/").then(|| Reply::new(500)));
    assert_eq!(server.count("GET", "/manifests/"), 5);
}

/// `pull` with the login me:secret at the server.
fn with_login(p: &Place, server: &Server, more: &[&str]) -> Outcome {
    let s = Scratch::new("login");
    let config = json!({"auths": {&server.address: {"auth": "bWU6c2VjcmV0"}}});
    fs::write(s.path.join("config.json"), config.to_string()).unwrap();
    let mut c = p.command(&[&["-q", "pull"], more, &[&format!("{}/x:1", server.address)]].concat());
    c.env("DOCKER_CONFIG", &s.path).env_remove("REGISTRY_AUTH_FILE").env_remove("XDG_RUNTIME_DIR");
    finish_within(&mut c, Duration::from_secs(60))
}

const BASIC: &str = "Basic bWU6c2VjcmV0";

#[test]
fn a_login_is_not_sent_to_where_a_redirect_leads() {
    needs_root!();
    let p = Place::new();
    let repository = Arc::new(image());
    let cdn = {
        let r = repository.clone();
        Server::new(move |q| match q.path.strip_prefix("/cdn/") {
            Some(digest) => Reply::new(200).body(r.blob(digest.split('?').next().unwrap()).unwrap()),
            None => Reply::new(404),
        })
    };
    let to = cdn.address.clone();
    let server = serve(&repository, move |q, _| {
        if q.header("authorization") != Some(BASIC) {
            return Some(Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""));
        }
        let digest = q.path.strip_prefix("/v2/x/blobs/")?;
        Some(Reply::new(307).header("Location", format!("http://{to}/cdn/{digest}?signature=s")))
    });
    with_login(&p, &server, &[]).ok();
    assert_eq!(cdn.seen().len(), 3);
    assert!(cdn.seen().iter().all(|q| q.header("authorization").is_none()));
    // Nor when that place asks for it.
    let spy = Server::new(|_| Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""));
    let to = spy.address.clone();
    let server = serve(&repository, move |q, _| {
        if q.header("authorization") != Some(BASIC) {
            return Some(Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""));
        }
        q.path.contains("/blobs/").then(|| Reply::new(302).header("Location", format!("http://{to}/b")))
    });
    let out = with_login(&Place::new(), &server, &[]).fails("401 unauthorized");
    assert!(!spy.seen().is_empty() && spy.seen().iter().all(|q| q.header("authorization").is_none()));
    assert!(!out.stderr.contains("secret") && !out.stderr.contains("bWU6"), "{}", out.stderr);
}

#[test]
fn redirects_end() {
    needs_root!();
    refused("is redirected more than 10 times", |q, _| {
        q.path.contains("/blobs/").then(|| Reply::new(307).header("Location", q.path.clone()))
    });
    for (to, words) in [
        ("file:///etc/passwd", "file:///etc/passwd: is no URL"),
        ("http://me:secret@127.0.0.1/", "names a user"),
        ("gopher://x/", "is neither http nor https"),
    ] {
        refused(words, move |q, _| {
            q.path.contains("/blobs/").then(|| Reply::new(302).header("Location", to))
        });
    }
}

#[test]
fn tokens_are_asked_for_with_scope_and_service() {
    needs_root!();
    let p = Place::new();
    let repository = Arc::new(image());
    let tokens = Server::new(|q| match q.header("authorization") {
        Some(BASIC) => Reply::new(200).body(json!({"token": "T0K.en"}).to_string()),
        _ => Reply::new(401),
    });
    let realm = format!("http://{}/token", tokens.address);
    let server = serve(&repository, move |q, _| match q.header("authorization") {
        Some("Bearer T0K.en") => None,
        _ => {
            let scope = "repository:x:pull";
            let challenge = format!("Bearer realm=\"{realm}\",service=\"reg & co\",scope=\"{scope}\"");
            Some(Reply::new(401).header("WWW-Authenticate", challenge))
        }
    });
    with_login(&p, &server, &[]).ok();
    let asked: Vec<String> = tokens.seen().iter().map(|q| q.path.clone()).collect();
    assert_eq!(asked, ["/token?service=reg%20%26%20co&scope=repository%3Ax%3Apull&account=me"]);
    // The login itself was never shown to the registry.
    assert!(server.seen().iter().all(|q| q.header("authorization").is_none_or(|a| a.starts_with("Bearer "))));
    pull(&Place::new(), &server).fails("401 unauthorized");
    let server = serve(&repository, |_, _| {
        Some(Reply::new(401).header("WWW-Authenticate", "Bearer realm=\"ftp://x/\""))
    });
    pull(&Place::new(), &server).fails("challenge: ftp://x/: is neither http nor https");
    // A token that was refused is not shown again, though it is given again.
    let tokens = Server::new(|_| Reply::new(200).body(json!({"token": "same"}).to_string()));
    let realm = format!("http://{}/token", tokens.address);
    let server = serve(&repository, move |_, _| {
        Some(Reply::new(401).header("WWW-Authenticate", format!("Bearer realm={realm:?}")))
    });
    pull(&Place::new(), &server).fails("401 unauthorized");
    assert_eq!((server.count("HEAD", "/manifests/"), server.count("GET", "/manifests/")), (2, 1));
}

#[test]
fn a_token_that_expired_is_replaced() {
    needs_root!();
    let p = Place::new();
    let count = Arc::new(AtomicUsize::new(0));
    let given = count.clone();
    let tokens = Server::new(move |_| {
        let n = given.fetch_add(1, Ordering::Relaxed);
        Reply::new(200).body(json!({"access_token": format!("T{n}")}).to_string())
    });
    let realm = format!("http://{}/token", tokens.address);
    let server = serve(&Arc::new(image()), move |q, _| {
        let last = format!("Bearer T{}", if q.path.contains("/blobs/") { 1 } else { 0 });
        let good = q.header("authorization") == Some(&last);
        (!good).then(|| Reply::new(401).header("WWW-Authenticate", format!("bearer realm={realm:?}")))
    });
    pull(&p, &server).ok();
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[test]
fn helpers_give_the_login() {
    needs_root!();
    let s = Scratch::new("helper");
    let helper = s.path.join("docker-credential-mine");
    let login = json!({"ServerURL": "x", "Username": "me", "Secret": "secret"});
    let script = format!("#!/bin/sh\nread server; echo \"$1 $server\" >>\"$0.log\"\necho '{login}'\n");
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    let server = serve(&Arc::new(image()), |q, _| {
        (q.header("authorization") != Some(BASIC))
            .then(|| Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""))
    });
    let path = format!("{}:{}", s.path.display(), std::env::var("PATH").unwrap());
    for config in [json!({"credsStore": "mine"}), json!({"credHelpers": {&server.address: "mine"}})] {
        fs::write(s.path.join("auth.json"), config.to_string()).unwrap();
        let p = Place::new();
        let mut c = p.command(&["-q", "pull", &format!("{}/x:1", server.address)]);
        c.env("REGISTRY_AUTH_FILE", s.path.join("auth.json")).env("PATH", &path);
        finish_within(&mut c, Duration::from_secs(60)).ok();
    }
    let log = fs::read_to_string(s.path.join("docker-credential-mine.log")).unwrap();
    assert_eq!(log, format!("get {0}\nget {0}\n", server.address));
}
