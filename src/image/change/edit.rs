//! An image taken apart: what is changed is written anew, what is not stays byte for byte what it was.

use crate::error::{Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::driver::Form;
use crate::image::layer::compress::Packing;
use crate::image::layer::pack::Packed;
use crate::image::layer::write::Times;
use crate::image::made::{Layers, Made};
use crate::image::manifest;
use crate::image::source::Documents;
use crate::image::stack::is_image;
use crate::image::store::Store;
use crate::log;
use serde_json::{Map, Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A layer of the image: its descriptor as the manifest has it, and its diffID.
#[derive(Clone)]
pub struct Part {
    pub descriptor: Value,
    pub diff_id: Digest,
}

impl Part {
    pub fn new(packed: &Packed) -> Self {
        let suffix = match packed.packing {
            Packing::Plain => "",
            Packing::Gzip => "+gzip",
            Packing::Zstd => "+zstd",
        };
        let descriptor = json!({
            "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            "digest": packed.digest,
            "size": packed.size,
        });
        Self { descriptor, diff_id: packed.diff_id }
    }
}

/// An image in the making. The documents are kept as they are: a configuration may have more than is known here.
pub struct Edit {
    pub name: String,
    pub digest: Digest,
    pub config: Map<String, Value>,
    pub annotations: Option<Value>,
    /// Bottom first.
    pub parts: Vec<Part>,
    /// The layers that it had.
    was: Vec<Digest>,
    pub times: Times,
}

fn object(at: &Digest, bytes: &[u8]) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(at.to_string(), e.to_string()))
}

impl Edit {
    pub fn open(store: &Store, image: &str) -> Result<Self> {
        let (name, digest) = store.find(image)?;
        Self::of(store, name, digest)
    }

    pub fn of(store: &Store, name: String, digest: Digest) -> Result<Self> {
        Self::of_documents(name, &Documents::of(store, digest)?)
    }

    pub fn of_documents(name: String, image: &Documents) -> Result<Self> {
        let digest = image.digest;
        let document = object(&digest, &image.manifest)?;
        let typed: oci_spec::image::ImageManifest =
            serde_json::from_value(Value::Object(document.clone()))
                .map_err(|e| Error::invalid(digest.to_string(), e.to_string()))?;
        let config_digest = manifest::digest(typed.config())?;
        let (_, ids) = manifest::config(&digest.to_string(), &image.config)?; // checked
        let config = object(&config_digest, &image.config)?;
        let descriptors = document.get("layers").and_then(Value::as_array).cloned().unwrap_or_default();
        if descriptors.len() != ids.len() {
            let what = format!("has {} layers and {} diff_ids", descriptors.len(), ids.len());
            return Err(Error::invalid(digest.to_string(), what));
        }
        let was = ids.clone();
        let part = |(mut descriptor, diff_id): (Value, Digest)| {
            if let Some(kind) = descriptor["mediaType"].as_str() {
                descriptor["mediaType"] = oci_type(kind).into();
            }
            Part { descriptor, diff_id }
        };
        let parts = descriptors.into_iter().zip(ids).map(part).collect();
        let annotations = document.get("annotations").cloned();
        Ok(Self { name, digest, config, annotations, parts, was, times: Times::of_environment()? })
    }

    pub fn ids(&self) -> Vec<Digest> {
        self.parts.iter().map(|p| p.diff_id).collect()
    }

    /// The form of new layers: of an image whose layers are all directories somebody wanted them to be.
    pub fn form(&self, store: &Store) -> Form {
        let mut trees = self.parts.iter().map(|p| store.layer_tree(&p.diff_id));
        if self.parts.is_empty() || trees.any(|t| is_image(&t)) { Form::Auto } else { Form::Dir }
    }

    /// The place of the layer that `word` means: its number, counted from 1, the lowest, or the digest of its blob, its
    /// diffID, or the start of one.
    pub fn place(&self, word: &str) -> Result<usize> {
        let number = word.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        if let Some(place) = number.filter(|n| *n < self.parts.len()) {
            return Ok(place);
        }
        let hex = word.strip_prefix("sha256:").unwrap_or(word);
        let is_start = |digest: &str| {
            hex.len() >= 4 && digest.strip_prefix("sha256:").is_some_and(|d| d.starts_with(hex))
        };
        let means = |p: &Part| {
            is_start(&p.diff_id.to_string()) || p.descriptor["digest"].as_str().is_some_and(is_start)
        };
        let found: Vec<usize> = (0..self.parts.len()).filter(|n| means(&self.parts[*n])).collect();
        match found[..] {
            [place] => Ok(place),
            [] => {
                let what = format!("has no layer {word}, only 1 to {}", self.parts.len());
                Err(Error::new(Kind::NotFound, &self.name, what).hint("see orlop imgtool tree"))
            }
            _ => {
                let all: Vec<String> = found.iter().map(|n| (n + 1).to_string()).collect();
                let what = format!("layer {word} is each of {}", all.join(", "));
                Err(Error::invalid(&self.name, what).hint("give its number"))
            }
        }
    }

    /// Now, or when SOURCE_DATE_EPOCH says.
    pub fn now(&self) -> String {
        let epoch = self.times.latest.and_then(|t| u64::try_from(t).ok()).map(Duration::from_secs);
        log::rfc3339(epoch.map_or_else(SystemTime::now, |e| UNIX_EPOCH + e))
    }

    /// The history, with exactly one entry that is no `empty_layer` for each layer: readers match them by their count.
    pub fn history(&self) -> Vec<Value> {
        let entries = self.config.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
        let full = entries.iter().filter(|e| !is_empty(e)).count();
        if full == self.parts.len() {
            return entries;
        }
        let missing = self.parts.len().saturating_sub(full);
        let unknown = std::iter::repeat_n(json!({}), missing);
        // What cannot be matched is kept as a note.
        let mut left = self.parts.len();
        let kept = entries.into_iter().map(|mut e| {
            if !is_empty(&e) && left == 0 {
                e["empty_layer"] = true.into();
            }
            left = left.saturating_sub(usize::from(!is_empty(&e)));
            e
        });
        unknown.chain(kept.collect::<Vec<_>>()).collect()
    }

    /// The place in the history of each layer's entry.
    pub fn entries(history: &[Value]) -> Vec<usize> {
        (0..history.len()).filter(|n| !is_empty(&history[*n])).collect()
    }

    /// An entry for what is done now.
    pub fn entry(&self, by: &str, comment: Option<&str>, is_layer: bool) -> Value {
        let mut e = json!({ "created": self.now(), "created_by": by });
        if let Some(comment) = comment {
            e["comment"] = comment.into();
        }
        if !is_layer {
            e["empty_layer"] = true.into();
        }
        e
    }

    /// Stores the image under `name`: what it needs is in the store by now.
    pub fn save(mut self, store: &Store, name: &str, history: Vec<Value>) -> Result<Made> {
        self.config.insert("created".into(), self.now().into());
        self.config.insert("history".into(), history.into());
        let ids = self.ids();
        let changes = Layers::between(&self.was, &ids);
        self.config.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": ids }));
        // What docker says of the container that an image was made of is not true of this one.
        for stale in ["container", "container_config", "id", "parent"] {
            self.config.remove(stale);
        }
        let text = |v: &Value| serde_json::to_vec(v).map_err(|e| Error::invalid(name, e.to_string()));
        let config = text(&Value::Object(self.config))?;
        let config_digest = store.put_blob(&config)?;
        let layers: Vec<Value> = self.parts.into_iter().map(|p| p.descriptor).collect();
        let mut document = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest,
                "size": config.len(),
            },
            "layers": layers,
        });
        if let Some(annotations) = self.annotations {
            document["annotations"] = annotations;
        }
        let digest = store.put_blob(&text(&document)?)?;
        store.set_ref(name, &digest)?;
        Ok(Made { name: name.into(), digest, config_digest: Some(config_digest), layers: Some(changes) })
    }
}

pub fn is_empty(entry: &Value) -> bool {
    entry["empty_layer"] == true
}

/// The OCI media type of a layer (image-spec media-types.md, the compatibility matrix).
fn oci_type(kind: &str) -> &str {
    match kind {
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        }
        other => other,
    }
}
