//! How an image came about.

use super::edit::{Edit, is_empty};
use crate::error::Result;
use crate::image::digest::Digest;
use crate::image::output::{columns, human, time};
use crate::image::source::Documents;
use crate::image::store::Store;
use serde::Serialize;
use serde_json::Value;

/// A step; one that made a layer says which.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Counted from 1, the lowest.
    pub layer: Option<usize>,
    #[serde(rename = "diffID")]
    pub diff_id: Option<Digest>,
    pub created: Option<String>,
    pub created_by: Option<String>,
    pub author: Option<String>,
    pub comment: Option<String>,
    /// Bytes of the layer's files; `None` of an image that is not in the store.
    pub size: Option<u64>,
}

/// The steps, the newest first.
pub fn history(store: &Store, image: &str) -> Result<Vec<Step>> {
    let documents = Documents::find(store, image)?;
    let edit = Edit::of_documents(image.into(), &documents)?;
    let mut layer = 0;
    let mut out = Vec::new();
    for entry in edit.history() {
        let text = |key: &str| entry[key].as_str().map(str::to_string);
        let part = if is_empty(&entry) { None } else { edit.parts.get(layer) };
        let meta = part.filter(|_| !documents.is_outside).map(|p| store.layer_meta(&p.diff_id));
        let size = meta.transpose()?.flatten().map_or(0, |m| m.applied.bytes);
        layer += usize::from(part.is_some());
        out.push(Step {
            layer: part.map(|_| layer),
            diff_id: part.map(|p| p.diff_id),
            created: text("created").as_deref().and_then(time),
            created_by: text("created_by"),
            author: text("author"),
            comment: text("comment"),
            size: (!documents.is_outside || part.is_none()).then_some(size),
        });
    }
    out.reverse();
    Ok(out)
}

pub fn table(steps: &[Step]) -> String {
    let mut lines = vec![["LAYER", "CREATED", "SIZE", "CREATED BY", "COMMENT"].map(String::from)];
    lines.extend(steps.iter().map(|s| {
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let layer = s.layer.map_or("-".into(), |n| n.to_string());
        [layer, text(&s.created), s.size.map_or("-".into(), human), text(&s.created_by), text(&s.comment)]
    }));
    columns(&lines)
}

/// The comment of the newest step.
pub fn comment(config: &serde_json::Map<String, Value>) -> String {
    let last = config.get("history").and_then(Value::as_array).and_then(|h| h.last());
    last.and_then(|e| e["comment"].as_str()).unwrap_or_default().into()
}
