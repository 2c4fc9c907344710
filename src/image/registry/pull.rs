//! A repository as the files of an OCI layout, so that what imports layouts imports it.

use super::body::{Body, Partial, Watch};
use super::client::{Answer, Call, Client, Wire};
use super::reference::Reference;
use crate::error::{Error, Result};
use crate::image::archive::{Files, Piece, inside};
use crate::image::digest::Digest;
use crate::image::driver::Form;
use crate::image::import::{self, locked};
use crate::image::limits::Limits;
use crate::image::manifest::{self, blob_name};
use crate::image::platform::Platform;
use crate::image::store::Store;
use serde::Deserialize;
use std::collections::HashMap;
use std::io::{Cursor, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use ureq::http::Method;

/// What to pull, and as what.
pub struct Order<'a> {
    pub reference: Reference,
    pub name: &'a str,
    pub platform: Platform,
    pub wire: Wire,
    pub limits: Limits,
    /// Keep the blobs of layers, for `push` and `export`.
    pub blobs: bool,
    pub form: Form,
}

/// Pulls; the digest of the manifest.
pub fn pull(store: &Store, order: &Order) -> Result<Digest> {
    store.may_name(order.name, order.reference.digest.as_ref())?;
    let source = PathBuf::from(order.reference.to_string());
    let mut is_again = false;
    loop {
        let remote = Arc::new(Remote::open(store, order)?);
        let import = import::Order {
            source: &source,
            name: Some(order.name),
            platform: order.platform.clone(),
            limits: order.limits.clone(),
            blobs: order.blobs,
            form: order.form,
        };
        let done = import::take(store, &Files::Remote(remote.clone()), &import);
        let is_stale = done.as_ref().is_err_and(|e| e.errno().is_none()) && !remote.watch.is_broken();
        if done.is_ok() || is_stale {
            remote.forget_partials();
        }
        if is_stale && !is_again && !remote.watch.resumed().is_empty() {
            // All arrived and something was wrong: perhaps with what an earlier pull left, after a power cut for one.
            tracing::info!("{}: fetching again what was kept", order.reference);
            is_again = true;
            continue;
        }
        let names = done?;
        let first =
            names.first().ok_or_else(|| Error::invalid(source.display().to_string(), "has no image"))?;
        return Ok(first.1);
    }
}

/// What a document said of a digest.
#[derive(Clone, Copy)]
enum Known {
    Manifest,
    Blob { size: u64, is_layer: bool },
}

/// A repository of a registry.
pub struct Remote {
    client: Arc<Client>,
    watch: Arc<Watch>,
    store: PathBuf,
    index: Vec<u8>,
    /// The document that `index` names. No other is kept: nobody asks twice, and a registry may answer with a thousand
    /// indexes of the largest size.
    top: (Digest, Vec<u8>),
    known: Mutex<HashMap<Digest, Known>>,
    max_manifest: u64,
}

/// Most digests that documents may name.
const MAX_KNOWN: usize = 100_000;

/// What matters here of an index or a manifest; `manifest` looks at it closely.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Named>,
    config: Option<Named>,
    #[serde(default)]
    layers: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    digest: Digest,
    size: u64,
}

impl Remote {
    fn open(store: &Store, order: &Order) -> Result<Self> {
        let client = Client::new(&order.reference, &order.wire, "pull")?;
        let mut remote = Self {
            client: Arc::new(client),
            watch: Arc::default(),
            store: store.dir().to_path_buf(),
            index: vec![],
            top: (Digest::of(b""), vec![]),
            known: Mutex::default(),
            max_manifest: order.limits.manifest,
        };
        let at = order.reference.to_string();
        let (bytes, media_type) = remote.find_top().map_err(|e| inside(&at, e))?;
        if !manifest::is_known(&media_type) {
            let what = format!("media type {media_type:?} is not that of an image");
            return Err(Error::unsupported(at, what));
        }
        let digest = Digest::of(&bytes);
        let descriptor = serde_json::json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [descriptor]});
        remote.index = index.to_string().into_bytes();
        remote.learn(&bytes)?;
        remote.top = (digest, bytes);
        Ok(remote)
    }

    /// The document that the reference names, and what it is.
    fn find_top(&self) -> Result<(Vec<u8>, String)> {
        let reference = &self.client.reference;
        let wanted = match reference.digest {
            Some(digest) => Some(digest),
            None => self.current_digest()?,
        };
        if let Some(bytes) = wanted.and_then(|d| self.held(&d)) {
            if let Some(kind) = kind_of(&bytes) {
                return Ok((bytes, kind));
            }
        }
        let version = wanted.map_or_else(|| reference.version(), |d| d.to_string());
        self.manifest(&version, wanted.as_ref())
    }

    /// The digest that the tag has now; `None` where the registry does not say.
    fn current_digest(&self) -> Result<Option<Digest>> {
        let answer = self.client.call(&self.manifest_call(Method::HEAD, &self.client.reference.version()))?;
        Ok(if answer.status == 200 { content_digest(&answer)? } else { None })
    }

    fn manifest_call(&self, method: Method, version: &str) -> Call<'static> {
        Call::new(method, self.client.url(&format!("manifests/{version}")))
            .header("accept", manifest::accepted())
    }

    /// Fetches a manifest or an index; its bytes and its media type.
    fn manifest(&self, version: &str, wanted: Option<&Digest>) -> Result<(Vec<u8>, String)> {
        let answer = self.client.call(&self.manifest_call(Method::GET, version))?.must(&[200])?;
        let said = content_digest(&answer)?;
        let kind = answer.header("content-type").map(|t| t.split(';').next().unwrap_or(t).trim().to_string());
        let bytes = answer.bytes(self.max_manifest)?;
        let found = Digest::of(&bytes);
        if let Some(other) = said.as_ref().into_iter().chain(wanted).find(|d| **d != found) {
            return Err(Error::invalid(other.to_string(), format!("has the digest {found}")));
        }
        let named = kind.clone().filter(|k| manifest::is_known(k));
        // What registries call it comes first: a document that calls itself otherwise is then refused.
        let kind = named.or_else(|| kind_of(&bytes)).or(kind).unwrap_or_default();
        Ok((bytes, kind))
    }

    /// What the store has of this digest, unless it is damaged.
    fn held(&self, digest: &Digest) -> Option<Vec<u8>> {
        let file = std::fs::File::open(self.store.join(blob_name(digest))).ok()?;
        let mut bytes = Vec::new();
        file.take(self.max_manifest).read_to_end(&mut bytes).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Keeps what a document names.
    fn learn(&self, bytes: &[u8]) -> Result<()> {
        let mut known = locked(&self.known);
        // One that is not understood is refused by whoever asks for it.
        if let Ok(names) = serde_json::from_slice::<Names>(bytes) {
            let blob = |n: &Named, is_layer| (n.digest, Known::Blob { size: n.size, is_layer });
            let all = names.manifests.iter().map(|n| (n.digest, Known::Manifest));
            let all = all.chain(names.config.iter().map(|n| blob(n, false)));
            for (digest, what) in all.chain(names.layers.iter().map(|n| blob(n, true))) {
                known.entry(digest).or_insert(what);
            }
        }
        match known.len() > MAX_KNOWN {
            true => Err(Error::invalid("index", format!("names more than {MAX_KNOWN} manifests and blobs"))),
            false => Ok(()),
        }
    }

    /// A file of the layout that the repository looks like; a blob is asked for when it is read.
    pub fn get(&self, name: &str) -> Result<Option<Piece>> {
        let memory = |bytes| Some(Piece::Bytes(Cursor::new(bytes)));
        match name {
            "oci-layout" => return Ok(memory(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())),
            "index.json" => return Ok(memory(self.index.clone())),
            _ => {}
        }
        let Some(digest) = name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex) else {
            return Ok(None);
        };
        if digest == self.top.0 {
            return Ok(memory(self.top.1.clone()));
        }
        let known = locked(&self.known).get(&digest).copied();
        Ok(match known {
            None => None,
            Some(Known::Manifest) => {
                let bytes = match self.held(&digest) {
                    Some(bytes) => bytes,
                    None => self.manifest(&digest.to_string(), Some(&digest))?.0,
                };
                self.learn(&bytes)?;
                memory(bytes)
            }
            Some(Known::Blob { size, is_layer }) => {
                let held = if is_layer { None } else { self.held(&digest) };
                if let Some(bytes) = held.filter(|b| b.len() as u64 == size) {
                    return Ok(memory(bytes));
                }
                let keep = is_layer.then(|| Partial::path(&self.store, &digest, size));
                let body = Body::new(self.client.clone(), self.watch.clone(), digest, size, keep);
                Some(Piece::Body(Box::new(body)))
            }
        })
    }

    fn forget_partials(&self) {
        let known = locked(&self.known);
        for (digest, what) in known.iter() {
            if let Known::Blob { size, is_layer: true } = what {
                // Most are not there; what stays is removed by `gc`.
                let _ = std::fs::remove_file(Partial::path(&self.store, digest, *size));
            }
        }
    }
}

/// The media type of a document by its own word, or by what it has.
fn kind_of(bytes: &[u8]) -> Option<String> {
    let names: Names = serde_json::from_slice(bytes).ok()?;
    let by_content = match (names.manifests.is_empty(), &names.config) {
        (false, None) => Some(manifest::INDEXES[0].to_string()),
        (true, Some(_)) => Some(manifest::MANIFESTS[0].to_string()),
        _ => None,
    };
    names.media_type.or(by_content)
}

fn content_digest(answer: &Answer) -> Result<Option<Digest>> {
    // Another algorithm than ours says nothing to us.
    let header = answer.header("docker-content-digest").filter(|h| h.starts_with("sha256:"));
    header.map(|h| Digest::parse("Docker-Content-Digest", h)).transpose()
}
