//! An image as `docker inspect` tells of it (Docker Engine API, ImageInspect).

use super::change::edit::Edit;
use super::change::history::comment;
use super::manifest;
use super::stack::{self, Stack, is_image};
use super::store::Store;
use crate::bundle::IMAGE;
use crate::error::Result;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// How `inspect` answers.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Form {
    /// The documents of the image, and what the store knows of its layers
    #[value(alias = "json")]
    Oci,
    /// As docker inspect
    Docker,
}

pub fn inspect(store: &Store, image: &str) -> Result<Value> {
    let edit = Edit::open(store, image)?;
    let m = store.manifest(&edit.digest)?;
    let ids = edit.ids();
    let stack = Stack::of(store, &ids)?;
    let mut size = 0;
    for id in &ids {
        size += stack::applied(store, id)?.bytes;
    }
    let names: Vec<String> = store.refs()?.into_iter().filter(|r| r.1 == edit.digest).map(|r| r.0).collect();
    let mut digests: Vec<String> =
        names.iter().map(|n| format!("{}@{}", repository(n), edit.digest)).collect();
    digests.dedup();
    let tagged = match names.first() {
        Some(name) => store.log(name)?.first().map(|e| e.time.clone()),
        None => None,
    };
    let text = |key: &str| edit.config.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut out = json!({
        "Id": manifest::digest(m.config())?,
        "RepoTags": names,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": comment(&edit.config),
        "Created": text("created"),
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": config(edit.config.get("config")),
        "Architecture": text("architecture"),
        "Os": text("os"),
        "Size": size,
        "VirtualSize": size,
        "GraphDriver": driver(&stack),
        "RootFS": { "Type": "layers", "Layers": ids },
        "Metadata": { "LastTagTime": tagged.unwrap_or_else(|| "0001-01-01T00:00:00Z".into()) },
        "Descriptor": {
            "mediaType": m.media_type().as_ref().map_or("application/vnd.oci.image.manifest.v1+json", |t| t.as_ref()),
            "digest": edit.digest,
            "size": store.blob(&edit.digest)?.len(),
        },
    });
    if !text("variant").is_empty() {
        out["Variant"] = text("variant").into();
    }
    Ok(json!([out]))
}

/// Docker tells all of these, set or not.
fn config(own: Option<&Value>) -> Value {
    let mut out: Map<String, Value> = match json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null,
        "Image": "", "Volumes": null, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": null,
    }) {
        Value::Object(o) => o,
        _ => Map::new(),
    };
    out.extend(own.and_then(Value::as_object).cloned().unwrap_or_default());
    Value::Object(out)
}

/// The layers, spelled as in `overlay.json`, the topmost as the upper directory: of an image nothing is mounted.
fn driver(stack: &Stack) -> Value {
    let name = |l: &PathBuf| format!("{}{}", if is_image(l) { IMAGE } else { "" }, l.display());
    let mut lowers: Vec<String> = stack.lowers.iter().map(name).collect();
    let upper = if lowers.is_empty() { String::new() } else { lowers.remove(0) };
    let mut data = json!({ "UpperDir": upper });
    if !lowers.is_empty() {
        data["LowerDir"] = lowers.join(":").into();
    }
    json!({ "Name": "overlay2", "Data": data })
}

/// A name without its tag: a colon before the last slash is that of a port.
fn repository(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        for (name, want) in [("a", "a"), ("a:1", "a"), ("h:5000/a", "h:5000/a"), ("h:5000/a:1", "h:5000/a")] {
            assert_eq!(repository(name), want);
        }
    }
}
