//! Pushes to servers that break, forget and ask for more rights.

use crate::make::{Image, Place, file, layer};
use crate::server::{Reply, Server, taking};
use crate::support::{ORLOP, finish_within};
use crate::{count, image, import, needs_root};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn an_upload_goes_on_where_it_broke() {
    needs_root!();
    let p = Place::new();
    let layout = image().write();
    import(&p, &layout, "mine");
    let largest = p.imgtool(&["inspect", "mine"]).ok().json()["layers"][0].clone();
    let (digest, size) =
        (largest["digest"].as_str().unwrap().replace(':', "%3A"), largest["size"].as_u64().unwrap());
    let (wanted, puts) = (digest.clone(), AtomicUsize::new(0));
    let server = taking(move |q| match &q.method[..] {
        "PUT" if q.path.contains(&wanted) && puts.fetch_add(1, Ordering::Relaxed) == 0 => {
            Some(Reply::new(503))
        }
        "GET" => {
            Some(Reply::new(204).header("Range", "0-999").header("Location", "/v2/x/blobs/uploads/1?state=b"))
        }
        "PATCH" => Some(Reply::new(202).header("Location", "1?state=c")),
        _ => None,
    });
    p.imgtool(&["push", "mine", &format!("{}/x:1", server.address)]).ok();
    let seen = server.seen();
    let patch: Vec<_> = seen.iter().filter(|q| q.method == "PATCH").collect();
    assert_eq!(patch.len(), 1);
    assert_eq!(patch[0].path, "/v2/x/blobs/uploads/1?state=b");
    assert_eq!(patch[0].header("content-range"), Some(&format!("1000-{}", size - 1)[..]));
    assert_eq!(patch[0].header("content-length"), Some(&(size - 1000).to_string()[..]));
    let blob =
        std::fs::read(Path::new(layout.path()).join("blobs/sha256").join(&digest["sha256%3A".len()..]))
            .unwrap();
    assert!(patch[0].body == blob[1000..], "the rest of the blob is what is sent");
    let last = seen.iter().rfind(|q| q.method == "PUT" && q.path.contains(&digest)).unwrap();
    assert_eq!(last.path, format!("/v2/x/blobs/uploads/1?state=c&digest={digest}"));
    assert_eq!(last.header("content-length"), Some("0"));
    // The tag comes last.
    assert!(seen.last().unwrap().is("PUT", "/v2/x/manifests/1"));
}

#[test]
fn an_upload_that_was_forgotten_begins_again() {
    needs_root!();
    let p = Place::new();
    import(&p, &image().write(), "mine");
    let puts = AtomicUsize::new(0);
    let server = taking(move |q| match &q.method[..] {
        "PUT" if puts.fetch_add(1, Ordering::Relaxed) == 0 => Some(Reply::new(500)),
        "GET" => Some(Reply::new(404)),
        _ => None,
    });
    p.imgtool(&["push", "mine", &format!("{}/x:1", server.address)]).ok();
    assert_eq!(server.count("POST", "/uploads/"), 4);
    let server = taking(|q| q.is("PUT", "/blobs/").then(|| Reply::new(503)));
    p.imgtool(&["push", "mine", &format!("{}/x:1", server.address)]).fails("503 service unavailable");
    assert_eq!(server.count("PUT", "/manifests/"), 0, "a tag for what is not there");
    let said = json!({"errors": [{"code": "DENIED", "message": "not \u{1b}[31myours"}]}).to_string();
    let server = taking(move |q| (q.method == "POST").then(|| Reply::new(403).body(said.clone())));
    let out = p
        .imgtool(&["push", "mine", &format!("{}/x:1", server.address)])
        .fails("403 forbidden: DENIED: not \\u{1b}");
    assert!(out.stderr.contains("layer sha256:") || out.stderr.contains("config sha256:"), "{}", out.stderr);
}

#[test]
fn a_manifest_that_is_stored_as_another_is_an_error() {
    needs_root!();
    let p = Place::new();
    import(&p, &image().write(), "mine");
    let other = format!("sha256:{}", "0".repeat(64));
    let server = taking(move |q| {
        q.is("PUT", "/manifests/").then(|| Reply::new(201).header("Docker-Content-Digest", other.clone()))
    });
    p.imgtool(&["push", "mine", &format!("{}/x:1", server.address)]).fails("was stored as");
}

#[test]
fn a_mount_asks_for_rights_to_both_repositories() {
    needs_root!();
    let p = Place::new();
    let tokens = Server::new(|q| {
        let both =
            q.path.contains("repository%3Aa%3Apull") && q.path.contains("repository%3Ab%3Apull%2Cpush");
        Reply::new(200).body(json!({"token": if both { "both" } else { "one" }}).to_string())
    });
    let realm = format!("http://{}/token", tokens.address);
    let server = taking(move |q| {
        let given = q.header("authorization");
        if given.is_none() || q.method == "POST" && given != Some("Bearer both") {
            return Some(Reply::new(401).header("WWW-Authenticate", format!("Bearer realm={realm:?}")));
        }
        (q.method == "POST").then(|| Reply::new(if q.path.contains("&from=a") { 201 } else { 400 }))
    });
    import(&p, &image().write(), &format!("{}/a:1", server.address));
    // A name that does not spell the registry is not told to it.
    import(&p, &image().write(), "secret-name");
    p.imgtool(&["push", "secret-name", &format!("{}/b:1", server.address)]).ok();
    assert_eq!(server.count("PUT", "/blobs/"), 0);
    assert_eq!(server.count("PUT", "/v2/b/manifests/1"), 1);
    assert!(server.seen().iter().chain(&tokens.seen()).all(|q| !q.path.contains("secret-name")));
}

#[test]
fn what_cannot_be_mounted_is_sent() {
    needs_root!();
    let p = Place::new();
    let push = |server: &Server, what: &str| {
        import(&p, &image().write(), &format!("{}/a:1", server.address));
        let [from, to] = ["a", "x"].map(|name| format!("{}/{name}:1", server.address));
        let out = p.imgtool(&["--progress", "json", "push", &from, &to]).ok();
        assert_eq!((count(&out, "pushed"), server.count("PUT", "/blobs/")), (3, 3), "{what}: {}", out.stderr);
        assert!(server.count("POST", "mount=") > 0, "{what}");
    };
    for status in [401, 403, 404] {
        push(&taking(move |q| q.path.contains("mount=").then(|| Reply::new(status))), &status.to_string());
    }
    // Where no token is given for the other repository, there is one for ours.
    let tokens = Server::new(|q| match q.path.contains("repository%3Aa%3Apull") {
        true => Reply::new(403),
        false => Reply::new(200).body(json!({"token": "own"}).to_string()),
    });
    let realm = format!("http://{}/token", tokens.address);
    let server = taking(move |q| {
        let refused = q.header("authorization").is_none() || q.path.contains("mount=");
        refused.then(|| Reply::new(401).header("WWW-Authenticate", format!("Bearer realm={realm:?}")))
    });
    push(&server, "token");
    // What is not here can only be mounted.
    let server = taking(|q| q.path.contains("mount=").then(|| Reply::new(403)));
    let name = format!("{}/a:1", server.address);
    import(&p, &image().write(), &name);
    let layer =
        p.imgtool(&["inspect", &name]).ok().json()["layers"][1]["digest"].as_str().unwrap().to_string();
    std::fs::remove_file(p.store().join("blobs").join(layer.replace(':', "/"))).unwrap();
    p.imgtool(&["push", &name, &format!("{}/x:1", server.address)]).fails("403 forbidden");
}

#[test]
fn a_damaged_image_is_nothing_to_the_push_of_another() {
    needs_root!();
    let p = Place::new();
    let server = taking(|_| None);
    for (n, edit) in [None, Some("sha512:0")].into_iter().enumerate() {
        let other = Image::new(vec![layer(&[file("f", &n.to_string())])]).write();
        let digest = import(&p, &other, &format!("{}/other:{n}", server.address));
        let path = p.store().join("blobs").join(digest.replace(':', "/"));
        match edit {
            None => std::fs::remove_file(path).unwrap(),
            Some(digest) => {
                let mut m: serde_json::Value =
                    serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                m["layers"][0]["digest"] = json!(format!("{digest}{}", "0".repeat(127)));
                std::fs::write(path, m.to_string()).unwrap();
            }
        }
    }
    import(&p, &image().write(), "mine");
    p.imgtool(&["push", "mine", &format!("{}/x:1", server.address)]).ok();
}

#[test]
fn only_a_put_ends_an_upload() {
    needs_root!();
    let p = Place::new();
    import(&p, &image().write(), "mine");
    let push = |server: &Server| {
        p.imgtool(&[
            "--progress",
            "json",
            "push",
            "--chunk-bytes",
            "100000",
            "mine",
            &format!("{}/x:1", server.address),
        ])
    };
    let server = taking(|q| {
        (q.method == "PATCH").then(|| Reply::new(201).header("Location", "/v2/x/blobs/uploads/1?state=b"))
    });
    push(&server).ok();
    assert!(server.count("PATCH", "/uploads/") > 1);
    assert_eq!(server.count("PUT", "/blobs/uploads/1?state="), 3);
    // The state of an upload may let others go on with it.
    let server = taking(|q| (q.method == "PATCH").then(|| Reply::new(202)));
    let out = push(&server).fails("/v2/x/blobs/uploads/1: names no session of the upload");
    assert!(!out.stderr.contains("state="), "{}", out.stderr);
    // Refused at first, the second try is mounted.
    let posts = AtomicUsize::new(0);
    let server = taking(move |q| match &q.method[..] {
        "PUT" => q.path.contains("/blobs/").then(|| Reply::new(500)),
        "GET" => Some(Reply::new(404)),
        "POST" if posts.fetch_add(1, Ordering::Relaxed) >= 3 => Some(Reply::new(201)),
        _ => None,
    });
    let name = format!("{}/a:1", server.address);
    import(&p, &image().write(), &name);
    let out = p.imgtool(&["--progress", "json", "push", &name, &format!("{}/x:1", server.address)]).ok();
    assert_eq!(count(&out, "mounted"), 3, "{}", out.stderr);
}

#[test]
fn an_image_may_have_more_blobs_than_files_can_be_open() {
    needs_root!();
    let p = Place::new();
    let layers = (0..80).map(|n| layer(&[file(&format!("f{n}"), "")])).collect();
    import(&p, &Image::new(layers).write(), "many");
    let server = taking(|_| None);
    let mut c = Command::new("sh");
    c.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", ORLOP, "imgtool", "-q", "--store"]).arg(p.store());
    c.args(["push", "many", &format!("{}/x:1", server.address)]);
    finish_within(&mut c, Duration::from_secs(60)).ok();
    assert_eq!(server.count("PUT", "/blobs/"), 81);
}
