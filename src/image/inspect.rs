//! What is in the store, for people and for programs.

use super::digest::Digest;
use super::output::{columns, human, time};
use super::source::Documents;
use super::stack::is_image;
use super::store::{MEND, Store};
use super::{bundle, manifest};
use crate::error::{Error, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    pub name: String,
    /// `None` where the name is damaged.
    pub digest: Option<Digest>,
    pub platform: String,
    pub layers: usize,
    /// Bytes of the tar streams.
    pub size: u64,
    /// When the image says that it was made.
    pub created: Option<String>,
    /// What is wrong with it: then no more than its name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

pub fn rows(store: &Store) -> Result<Vec<Row>> {
    let mut known: BTreeMap<Digest, Row> = BTreeMap::new();
    let mut out = Vec::new();
    for (_, name, digest) in store.all_refs()? {
        let row = match digest.map(|digest| known.entry(digest)) {
            Ok(Entry::Occupied(e)) => e.into_mut().clone(),
            Ok(Entry::Vacant(e)) => {
                let digest = *e.key();
                e.insert(row(store, digest).unwrap_or_else(|e| damaged(Some(digest), e))).clone()
            }
            Err(e) => damaged(None, e),
        };
        out.push(Row { name, ..row });
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(out)
}

fn damaged(digest: Option<Digest>, e: Error) -> Row {
    let error = Some(e.hint(MEND).to_string());
    Row { name: String::new(), digest, platform: String::new(), layers: 0, size: 0, created: None, error }
}

fn row(store: &Store, digest: Digest) -> Result<Row> {
    let (c, ids) = bundle::load(store, &digest)?;
    let mut size = 0;
    for id in &ids {
        size += store.layer_meta(id)?.map_or(0, |m| m.diff_size);
    }
    let platform = format!("{}/{}", c.os(), c.architecture());
    Ok(Row {
        name: String::new(),
        digest: Some(digest),
        platform,
        layers: ids.len(),
        size,
        created: c.created().as_deref().and_then(time),
        error: None,
    })
}

/// A line for each image.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "CREATED"].map(String::from)];
    lines.extend(rows.iter().map(|r| {
        let created = r.created.clone().unwrap_or_default();
        [
            r.name.clone(),
            r.digest.map(|d| d.hex()[..12].to_string()).unwrap_or_default(),
            if r.error.is_some() { "damaged".into() } else { r.platform.clone() },
            r.layers.to_string(),
            human(r.size),
            created,
        ]
    }));
    columns(&lines)
}

/// Everything known of an image; what only the store knows is null of one that lies elsewhere.
pub fn inspect(store: &Store, image: &Documents) -> Result<Value> {
    let at = image.digest.to_string();
    let parse = |at: &str, bytes: &[u8]| -> Result<Value> {
        serde_json::from_slice(bytes).map_err(|e| Error::invalid(at, e.to_string()))
    };
    let document = parse(&at, &image.manifest)?;
    let m: oci_spec::image::ImageManifest =
        serde_json::from_value(document.clone()).map_err(|e| Error::invalid(&at, e.to_string()))?;
    let config = manifest::digest(m.config())?;
    let (_, ids) = manifest::config(&at, &image.config)?;
    let mut layers = Vec::new();
    let mut chain = None;
    for (id, d) in ids.iter().zip(m.layers()) {
        let next = Digest::chain(chain.as_ref(), id);
        let meta = if image.is_outside { None } else { store.layer_meta(id)? };
        layers.push(json!({
            "diffID": id, "chainID": next, "digest": d.digest().as_ref(), "mediaType": d.media_type().as_ref(),
            "size": d.size(),
            "uncompressedSize": meta.as_ref().map(|m| m.diff_size),
            "fileBytes": meta.as_ref().map(|m| m.applied.bytes),
            "entries": meta.as_ref().map(|m| m.applied.entries),
            "compression": meta.as_ref().map(|m| &m.compression),
            "form": meta.as_ref().map(|_| if is_image(&store.layer_tree(id)) { "erofs" } else { "dir" }),
        }));
        chain = Some(next);
    }
    let config_value = parse(&config.to_string(), &image.config)?;
    Ok(json!({
        "names": image.names, "digest": image.digest, "manifest": document, "configDigest": config,
        "history": config_value.get("history").cloned().unwrap_or_default(), "config": config_value, "layers": layers,
    }))
}
