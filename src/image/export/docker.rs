//! What `docker save` writes and every `docker load` reads: `manifest.json` for those since 1.10, `repositories` and a
//! directory for each layer for older ones. Layers are plain archives there.

use super::{Picked, archive::Archive};
use crate::error::{Error, Result};
use crate::image::archive::inside;
use crate::image::blobs::no_limits;
use crate::image::digest::Digest;
use crate::image::import::is_as_said;
use crate::image::layer::compress::through;
use crate::image::manifest::Layer;
use crate::image::progress;
use crate::image::registry::reference::Reference;
use crate::image::store::Store;
use serde_json::{Map, Value, json};
use std::io::{Read, Write};

/// The repository and the tag of a name, as Docker shows them.
pub fn tags(name: &str) -> Result<(String, String)> {
    let reference = Reference::parse(name).ok().filter(|r| r.digest.is_none()).map(|r| r.familiar());
    let parts = reference.as_deref().and_then(|r| r.rsplit_once(':'));
    parts.map(|(repository, tag)| (repository.into(), tag.into())).ok_or_else(|| {
        Error::invalid(format!("name {name:?}"), "is no repository and tag that docker takes")
            .hint("give another by --name")
    })
}

pub fn write(
    store: &Store,
    image: &Picked,
    (repository, tag): &(String, String),
    out: &mut dyn Write,
) -> Result<()> {
    let mut archive = Archive::new(out);
    let (mut names, mut parent, mut chain) = (Vec::new(), None::<String>, None);
    for (n, layer) in image.layers.iter().enumerate() {
        let next = Digest::chain(chain.as_ref(), &layer.diff_id);
        chain = Some(next);
        // A layer of an old archive is an image: the topmost one has the configuration.
        let is_top = n + 1 == image.layers.len();
        let seed = if is_top { format!("{next} {}", image.config_digest) } else { next.to_string() };
        let id = Digest::of(seed.as_bytes()).hex();
        archive.dir(&format!("{id}/"))?;
        archive.bytes(&format!("{id}/VERSION"), b"1.0")?;
        let json = v1(&id, parent.as_deref(), is_top.then_some(&image.config))?;
        archive.bytes(&format!("{id}/json"), json.to_string().as_bytes())?;
        let name = format!("{id}/layer.tar");
        plain(store, layer, &name, &mut archive)
            .map_err(|e| inside(&format!("layer {}", layer.digest), e))?;
        names.push(name);
        parent = Some(id);
    }
    let config = format!("{}.json", image.config_digest.hex());
    archive.bytes(&config, &image.config)?;
    let manifest = json!([{
        "Config": config, "RepoTags": [format!("{repository}:{tag}")], "Layers": names,
    }]);
    archive.bytes("manifest.json", manifest.to_string().as_bytes())?;
    let repositories = json!({ repository.as_str(): { tag.as_str(): parent } });
    archive.bytes("repositories", repositories.to_string().as_bytes())?;
    archive.end()
}

/// The description of a layer as an image of its own.
fn v1(id: &str, parent: Option<&str>, config: Option<&Vec<u8>>) -> Result<Value> {
    let mut out = match config {
        Some(c) => serde_json::from_slice(c).map_err(|e| Error::invalid("configuration", e.to_string()))?,
        None => Map::from_iter([("created".to_string(), json!("1970-01-01T00:00:00Z"))]),
    };
    out.remove("rootfs");
    out.remove("history");
    out.insert("id".into(), json!(id));
    if let Some(parent) = parent {
        out.insert("parent".into(), json!(parent));
    }
    Ok(Value::Object(out))
}

/// The layer's tar stream, checked by both of its digests.
fn plain(store: &Store, layer: &Layer, name: &str, archive: &mut Archive) -> Result<()> {
    let limits = no_limits();
    let blob = || store.open_blob(&layer.digest);
    let size = match store.layer_meta(&layer.diff_id)? {
        Some(meta) => meta.diff_size,
        None => through(blob()?, layer.size, &limits, |_| Ok(()))?.0.diff_size,
    };
    let task = progress::task("layer", &layer.digest, layer.size);
    let (seen, ()) = through(task.read(blob()?), layer.size, &limits, |stream| {
        archive.file(name, size, stream.take(size))
    })?;
    is_as_said(&seen, layer)?;
    if seen.diff_size != size {
        let what = format!("unpacks to {} bytes, the store says {size}", seen.diff_size);
        return Err(Error::invalid("", what).hint("run orlop imgtool fsck"));
    }
    task.done("exported");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_docker() {
        for (name, repository, tag) in [
            ("busybox", "busybox", "latest"),
            ("localhost:5000/a/b:1.0_x", "localhost:5000/a/b", "1.0_x"),
            ("docker.io/library/busybox:1.36", "busybox", "1.36"),
            ("EXAMPLE.com/a", "EXAMPLE.com/a", "latest"),
        ] {
            assert_eq!(tags(name).unwrap(), (repository.to_string(), tag.to_string()));
        }
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for bad in
            ["Busybox", "a/B", "a:", "a:b:c", "a:-x", &digest, "a/", "", "a:é", "-a", "a_:1", "a..b", "a___b"]
        {
            assert!(tags(bad).is_err(), "{bad}");
        }
    }
}
