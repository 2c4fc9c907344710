//! Pushes to servers that break, forget and ask for more rights.

use crate::make::Place;
use crate::server::{Reply, Server, taking};
use crate::{image, import, needs_root};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

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
