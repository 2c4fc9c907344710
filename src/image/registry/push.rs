//! What the store has, to a registry: first every blob, then the manifest, so that a tag never names what is not there.

use super::client::{Answer, Call, Client, Payload, Wire, may_pass, wait_for};
use super::reference::Reference;
use super::url::{join, shown, with_query};
use crate::error::{Error, Kind, Result};
use crate::image::archive::inside;
use crate::image::digest::Digest;
use crate::image::import::{in_parallel, locked};
use crate::image::manifest;
use crate::image::progress::{self, Task};
use crate::image::store::Store;
use oci_spec::image::{Descriptor, ImageManifest};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::sync::Mutex;
use ureq::http::Method;

/// What to push, and where.
pub struct Order<'a> {
    pub image: &'a str,
    pub target: Reference,
    pub chunk_bytes: Option<u64>,
    pub wire: Wire,
}

/// Blobs that are sent at a time.
const PARALLEL: usize = 4;
/// Breaks of one upload that are borne.
const BREAKS: u32 = 5;

/// A blob of the image.
struct Blob {
    digest: Digest,
    size: u64,
    what: &'static str,
    /// Whether the store has it.
    is_here: bool,
    /// Another repository of the registry that has it.
    from: Option<String>,
}

/// Pushes; the digest of the manifest.
pub fn push(store: &Store, order: &Order) -> Result<Digest> {
    let (_, digest) = store.find(order.image)?;
    let at = order.target.to_string();
    if order.target.digest.is_some() {
        return Err(Error::invalid(at, "has a digest, which the image gives"));
    }
    let (bytes, m) = (store.blob(&digest)?, store.manifest(&digest)?);
    let client = Client::new(&order.target, &order.wire, "pull,push")?;
    let send = || -> Result<()> {
        let mut missing = blobs(store, &order.target, &m)?;
        drop_known(&client, &mut missing)?;
        let lost: Vec<String> = missing
            .iter()
            .filter(|b| !b.is_here && b.from.is_none())
            .map(|b| format!("{} {}", b.what, b.digest))
            .collect();
        if !lost.is_empty() {
            let what = format!("neither the store nor the registry has {}", lost.join(", "));
            return Err(
                Error::new(Kind::NotFound, order.image, what).hint("import it again, without --no-blobs")
            );
        }
        missing.iter().filter_map(|b| b.from.as_deref()).for_each(|repository| client.also_pull(repository));
        in_parallel(&missing, PARALLEL, |b| {
            upload(store, &client, b, order.chunk_bytes)
                .map_err(|e| inside(&format!("{} {}", b.what, b.digest), e))
        })?;
        put_manifest(&client, &bytes, &m, &digest)
    };
    send().map_err(|e| inside(&at, e))?;
    Ok(digest)
}

/// The configuration and the layers, each once.
fn blobs(store: &Store, target: &Reference, m: &ImageManifest) -> Result<Vec<Blob>> {
    let elsewhere = elsewhere(store, target)?;
    let mut seen = HashSet::new();
    let mut out = Vec::new();
    let layers = m.layers().iter().map(|d| ("layer", d));
    for (what, d) in layers.chain([("config", m.config())]) {
        let digest = manifest::digest(d)?;
        // What its maker does not want distributed is fetched from its URLs.
        if !seen.insert(digest) || is_foreign(d) {
            continue;
        }
        let is_here = store.has_blob(&digest, d.size());
        out.push(Blob { digest, size: d.size(), what, is_here, from: elsewhere.get(&digest).cloned() });
    }
    Ok(out)
}

fn is_foreign(d: &Descriptor) -> bool {
    let kind: &str = d.media_type().as_ref();
    let urls = d.urls().as_ref().is_some_and(|u| !u.is_empty());
    urls && (kind.contains(".nondistributable.") || kind.contains(".foreign."))
}

/// The repositories of the target's registry that images of the store came from or went to, by their blobs.
fn elsewhere(store: &Store, target: &Reference) -> Result<BTreeMap<Digest, String>> {
    let mut out = BTreeMap::new();
    for (name, digest) in store.refs()? {
        // Only names that spell the registry: what others are called is nothing to tell to one.
        let Ok(r) = Reference::parse(&name) else { continue };
        if !name.starts_with(&format!("{}/", target.registry)) || r.repository == target.repository {
            continue;
        }
        // What is damaged of other images is nothing to this one.
        let Ok(m) = store.manifest(&digest) else { continue };
        for digest in m.layers().iter().chain([m.config()]).flat_map(manifest::digest) {
            out.entry(digest).or_insert_with(|| r.repository.clone());
        }
    }
    Ok(out)
}

/// Leaves those that the repository does not have.
fn drop_known(client: &Client, blobs: &mut Vec<Blob>) -> Result<()> {
    let has = Mutex::new(HashSet::new());
    in_parallel(blobs, PARALLEL, |b| {
        let answer = client.call(&Call::new(Method::HEAD, client.url(&format!("blobs/{}", b.digest))))?;
        match answer.status {
            200 => {
                progress::task(b.what, &b.digest, b.size).done("exists");
                locked(&has).insert(b.digest);
                Ok(())
            }
            404 => Ok(()),
            _ => Err(answer.refused()),
        }
    })?;
    blobs.retain(|b| !locked(&has).contains(&b.digest));
    Ok(())
}

/// Mounts or sends one blob.
fn upload(store: &Store, client: &Client, blob: &Blob, chunk: Option<u64>) -> Result<()> {
    let task = progress::task(blob.what, &blob.digest, blob.size);
    let done = match begin(client, blob)? {
        None => "mounted",
        Some(session) if blob.is_here => {
            let path = store.blob_path(&blob.digest);
            let file = File::open(&path).map_err(|e| Error::io(path.display().to_string(), "open", &e))?;
            send(client, blob, &file, session, chunk, &task)?
        }
        Some(session) => {
            // Only politeness: the registry forgets it in time.
            let _ = client.call(&Call::new(Method::DELETE, session).once());
            let from = blob.from.as_deref().unwrap_or_default();
            let what = format!("is not in the store, and the registry does not mount it from {from}");
            return Err(Error::new(Kind::NotFound, "", what));
        }
    };
    task.done(done);
    Ok(())
}

/// Begins an upload: the URL of its session, `None` when the blob was mounted.
fn begin(client: &Client, blob: &Blob) -> Result<Option<String>> {
    let url = client.url("blobs/uploads/");
    let post = |url: &str| {
        client.call(&Call::new(Method::POST, url.into()).payload(Payload::Bytes(&[])))?.must(&[201, 202])
    };
    let answer = match &blob.from {
        None => post(&url),
        Some(from) => {
            let mount = with_query(&with_query(&url, "mount", &blob.digest.to_string()), "from", from);
            // The other repository may be closed to us by now, or gone, which the server of tokens may say as well.
            post(&mount).or_else(|e| match blob.is_here && e.errno().is_none() {
                true => {
                    tracing::info!("{}: not mounted from {from}: {e}", blob.digest);
                    client.only_own();
                    post(&url)
                }
                false => Err(e),
            })
        }
    }?;
    if answer.status == 201 { Ok(None) } else { session(&answer).map(Some) }
}

fn session(answer: &Answer) -> Result<String> {
    let location = answer.header("location");
    join(
        &answer.url,
        location.ok_or_else(|| Error::invalid(shown(&answer.url), "names no session of the upload"))?,
    )
}

/// Sends the bytes: in one piece, and after a break, or where that is asked for, in several. How it ended.
fn send(
    client: &Client,
    blob: &Blob,
    file: &File,
    session_url: String,
    chunk: Option<u64>,
    task: &Task,
) -> Result<&'static str> {
    let (mut url, mut at, mut breaks) = (session_url, 0, 0);
    let digest = blob.digest.to_string();
    loop {
        let left = blob.size - at;
        let is_whole = at == 0 && chunk.is_none_or(|c| left <= c);
        let len = if is_whole { left } else { left.min(chunk.unwrap_or(left)) };
        let part = Payload::Part(file, at, len, task);
        let call = if is_whole || left == 0 {
            Call::new(Method::PUT, with_query(&url, "digest", &digest))
        } else {
            let range = format!("{at}-{}", at + len - 1);
            Call::new(Method::PATCH, url.clone()).header("content-range", range)
        };
        let call = call.header("content-type", "application/octet-stream").payload(part).once();
        match client.call(&call) {
            Ok(answer) if answer.status == 201 && call.method == Method::PUT => return Ok("pushed"),
            // Some say 201 of a part, too.
            Ok(answer) if matches!(answer.status, 201 | 202) && call.method == Method::PATCH => {
                url = session(&answer)?;
                at += len;
                continue;
            }
            Ok(answer) if !may_pass(answer.status) || breaks == BREAKS => return Err(answer.refused()),
            Err(e) if breaks == BREAKS => return Err(e),
            Ok(answer) => tracing::info!("{digest}: {}", answer.refused()),
            Err(e) => tracing::info!("{digest}: {e}"),
        }
        breaks += 1;
        std::thread::sleep(wait_for(breaks));
        let Some(place) = resume(client, blob, url)? else { return Ok("mounted") };
        (url, at) = place;
        task.reached(at);
    }
}

/// Where the registry stands with an upload, or a new one where it has forgotten it; `None` when the blob was mounted.
fn resume(client: &Client, blob: &Blob, url: String) -> Result<Option<(String, u64)>> {
    let answer = client.call(&Call::new(Method::GET, url.clone()))?;
    if answer.status == 204 || answer.status == 202 {
        let end = answer.header("range").and_then(|r| r.rsplit('-').next()?.parse::<u64>().ok());
        // `0-0` is said of one byte and of none: from there it goes in both cases, but for the byte.
        let at = end.filter(|e| *e > 0 && *e < blob.size).map_or(0, |e| e + 1);
        if at > 0 {
            let url = if answer.header("location").is_some() { session(&answer)? } else { url };
            return Ok(Some((url, at)));
        }
    }
    let _ = client.call(&Call::new(Method::DELETE, url).once()); // the registry forgets it in time
    Ok(begin(client, blob)?.map(|session| (session, 0)))
}

fn put_manifest(client: &Client, bytes: &[u8], m: &ImageManifest, digest: &Digest) -> Result<()> {
    let kind = m.media_type().as_ref().map_or(manifest::MANIFESTS[0], |k| k.as_ref());
    let tag = client.reference.version();
    let call = Call::new(Method::PUT, client.url(&format!("manifests/{tag}")))
        .header("content-type", kind)
        .payload(Payload::Bytes(bytes));
    let answer = client.call(&call)?.must(&[200, 201])?;
    match answer.header("docker-content-digest") {
        Some(other) if other.starts_with("sha256:") && *other != digest.to_string() => {
            Err(Error::invalid(digest.to_string(), format!("was stored as {other:?}")))
        }
        _ => Ok(()),
    }
}
