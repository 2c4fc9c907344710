//! What the store has, to a registry: first every blob, then the manifest, so that a tag never names what is not there.

use super::client::{Answer, Call, Client, Payload, Wire, may_pass, wait_for};
use super::reference::Reference;
use super::url::{join, with_query};
use crate::error::{Error, Kind, Result};
use crate::image::archive::inside;
use crate::image::digest::Digest;
use crate::image::manifest::{self, blob_name};
use crate::image::progress::{self, Task};
use crate::image::store::Store;
use oci_spec::image::{Descriptor, ImageManifest};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Where the store keeps it.
    file: Option<File>,
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
    let bytes = store.blob(&digest)?;
    let m: ImageManifest =
        serde_json::from_slice(&bytes).map_err(|e| Error::invalid(digest.to_string(), e.to_string()))?;
    let client = Client::new(&order.target, &order.wire, "pull,push")?;
    let send = || -> Result<()> {
        let missing = missing(&client, blobs(store, &order.target, &m)?)?;
        let lost: Vec<String> = missing
            .iter()
            .filter(|b| b.file.is_none() && b.from.is_none())
            .map(|b| format!("{} {}", b.what, b.digest))
            .collect();
        if !lost.is_empty() {
            let what = format!("neither the store nor the registry has {}", lost.join(", "));
            return Err(
                Error::new(Kind::NotFound, order.image, what).hint("import it again, without --no-blobs")
            );
        }
        missing.iter().filter_map(|b| b.from.as_deref()).for_each(|repository| client.also_pull(repository));
        in_parallel(&missing, |b| {
            upload(&client, b, order.chunk_bytes).map_err(|e| inside(&format!("{} {}", b.what, b.digest), e))
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
        let path = store.dir().join(blob_name(&digest));
        let file = match File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            other => Some(other.map_err(|e| Error::io(path.display().to_string(), "open", &e))?),
        };
        let length = file.as_ref().and_then(|f| f.metadata().ok()).map_or(d.size(), |m| m.len());
        if length != d.size() {
            let rule = format!("has {length} bytes, its descriptor says {}", d.size());
            return Err(Error::invalid(path.display().to_string(), rule));
        }
        out.push(Blob { digest, size: d.size(), what, file, from: elsewhere.get(&digest).cloned() });
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
        let Ok(m) = serde_json::from_slice::<ImageManifest>(&store.blob(&digest)?) else { continue };
        for d in m.layers().iter().chain([m.config()]) {
            out.entry(manifest::digest(d)?).or_insert_with(|| r.repository.clone());
        }
    }
    Ok(out)
}

/// Those that the repository does not have.
fn missing(client: &Client, blobs: Vec<Blob>) -> Result<Vec<Blob>> {
    let has = Mutex::new(HashSet::new());
    in_parallel(&blobs, |b| {
        let answer = client.call(&Call::new(Method::HEAD, client.url(&format!("blobs/{}", b.digest))))?;
        match answer.status {
            200 => {
                progress::task(b.what, &b.digest, b.size).done("exists");
                // A poisoned lock only means that another thread panicked.
                has.lock().unwrap_or_else(|p| p.into_inner()).insert(b.digest);
                Ok(())
            }
            404 => Ok(()),
            _ => Err(answer.refused()),
        }
    })?;
    let has = has.into_inner().unwrap_or_else(|p| p.into_inner());
    Ok(blobs.into_iter().filter(|b| !has.contains(&b.digest)).collect())
}

/// Runs `job` on every blob; the first error stops the rest.
fn in_parallel(blobs: &[Blob], job: impl Fn(&Blob) -> Result<()> + Sync) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(e) = job(blob) {
                next.store(blobs.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(|p| p.into_inner()).get_or_insert(e);
            }
        }
    };
    std::thread::scope(|s| (0..PARALLEL.min(blobs.len())).for_each(|_| drop(s.spawn(work))));
    failed.into_inner().unwrap_or_else(|p| p.into_inner()).map_or(Ok(()), Err)
}

/// Mounts or sends one blob.
fn upload(client: &Client, blob: &Blob, chunk: Option<u64>) -> Result<()> {
    let task = progress::task(blob.what, &blob.digest, blob.size);
    if let Some(session) = begin(client, blob)? {
        let Some(file) = &blob.file else {
            // Only politeness: the registry forgets it in time.
            let _ = client.call(&Call::new(Method::DELETE, session).once());
            let from = blob.from.as_deref().unwrap_or_default();
            let what = format!("is not in the store, and the registry does not mount it from {from}");
            return Err(Error::new(Kind::NotFound, "", what));
        };
        send(client, blob, file, session, chunk, &task)?;
        task.done("pushed");
    } else {
        task.done("mounted");
    }
    Ok(())
}

/// Begins an upload: the URL of its session, `None` when the blob was mounted.
fn begin(client: &Client, blob: &Blob) -> Result<Option<String>> {
    let mut url = client.url("blobs/uploads/");
    if let Some(from) = &blob.from {
        url = with_query(&with_query(&url, "mount", &blob.digest.to_string()), "from", from);
    }
    let answer =
        client.call(&Call::new(Method::POST, url).payload(Payload::Bytes(&[])))?.must(&[201, 202])?;
    if answer.status == 201 { Ok(None) } else { session(&answer).map(Some) }
}

fn session(answer: &Answer) -> Result<String> {
    let location = answer.header("location");
    join(&answer.url, location.ok_or_else(|| Error::invalid(&answer.url, "names no session of the upload"))?)
}

/// Sends the bytes: in one piece, and after a break, or where that is asked for, in several.
fn send(
    client: &Client,
    blob: &Blob,
    file: &File,
    session_url: String,
    chunk: Option<u64>,
    task: &Task,
) -> Result<()> {
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
            Ok(answer) if answer.status == 201 => return Ok(()),
            Ok(answer) if answer.status == 202 && call.method == Method::PATCH => {
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
        (url, at) = resume(client, blob, url)?;
        task.reached(at);
    }
}

/// Where the registry stands with an upload, or a new one where it has forgotten it.
fn resume(client: &Client, blob: &Blob, url: String) -> Result<(String, u64)> {
    let answer = client.call(&Call::new(Method::GET, url.clone()))?;
    if answer.status == 204 || answer.status == 202 {
        let end = answer.header("range").and_then(|r| r.rsplit('-').next()?.parse::<u64>().ok());
        // `0-0` is said of one byte and of none: from there it goes in both cases, but for the byte.
        let at = end.filter(|e| *e > 0 && *e < blob.size).map_or(0, |e| e + 1);
        if at > 0 {
            return Ok((if answer.header("location").is_some() { session(&answer)? } else { url }, at));
        }
    }
    let _ = client.call(&Call::new(Method::DELETE, url).once()); // the registry forgets it in time
    match begin(client, blob)? {
        Some(session) => Ok((session, 0)),
        None => Err(Error::invalid("", "was mounted after it was refused")),
    }
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
