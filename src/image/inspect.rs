//! What is in the store, for people and for programs.

use super::digest::Digest;
use super::output::{columns, human, time};
use super::source::Documents;
use super::stack::is_image;
use super::store::Store;
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
    pub digest: Digest,
    pub platform: String,
    pub layers: usize,
    /// Bytes of the tar streams.
    pub size: u64,
    /// When the image says that it was made.
    pub created: Option<String>,
}

pub fn rows(store: &Store) -> Result<Vec<Row>> {
    let mut known: BTreeMap<Digest, Row> = BTreeMap::new();
    let mut out = Vec::new();
    for (name, digest) in store.refs()? {
        let row = match known.entry(digest) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => e.insert(row(store, digest)?),
        };
        out.push(Row { name, ..row.clone() });
    }
    Ok(out)
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
        digest,
        platform,
        layers: ids.len(),
        size,
        created: c.created().as_deref().and_then(time),
    })
}

/// A line for each image.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![["NAME", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "CREATED"].map(String::from)];
    lines.extend(rows.iter().map(|r| {
        let created = r.created.clone().unwrap_or_default();
        [
            r.name.clone(),
            r.digest.hex()[..12].into(),
            r.platform.clone(),
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
