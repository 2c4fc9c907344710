//! Images out of the store, bit for bit as they came: every manifest, configuration and blob keeps its digest. What is
//! written has no time, no owner and no order but its own: the same image gives the same bytes.

pub mod archive;
pub mod docker;
pub mod layout;
pub mod rootfs;

use super::digest::Digest;
use super::manifest::{self, Layer};
use super::progress;
use super::store::Store;
use crate::error::{Error, Result};
use archive::{Archive, to_file};
use oci_spec::image::ImageManifest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An OCI layout: a directory, or an archive of one where DEST ends in .tar or is -
    Oci,
    /// An archive for docker load
    Docker,
}

/// What to export, and to where.
pub struct Order<'a> {
    pub image: &'a str,
    pub dest: &'a Path,
    pub format: Format,
    pub name: Option<&'a str>,
}

/// An image all of whose blobs are in the store.
pub struct Picked {
    pub name: String,
    pub digest: Digest,
    pub manifest: Vec<u8>,
    pub media_type: String,
    pub config: Vec<u8>,
    pub config_digest: Digest,
    pub layers: Vec<Layer>,
}

/// Exports; the name and the digest.
pub fn export(store: &Store, order: &Order) -> Result<(String, Digest)> {
    let image = pick(store, order)?;
    let streamed = order.dest == Path::new("-") || order.dest.extension().is_some_and(|e| e == "tar");
    match order.format {
        Format::Docker => {
            let tags = docker::tags(&image.name)?;
            to_file(order.dest, |out| docker::write(store, &image, &tags, out))?;
        }
        Format::Oci if streamed => {
            to_file(order.dest, |out| write_layout(store, &image, out))?;
        }
        Format::Oci => layout::add(store, &image, order.dest)?,
    }
    Ok((image.name, image.digest))
}

/// Looks for everything first: an export that cannot be finished is not begun.
fn pick(store: &Store, order: &Order) -> Result<Picked> {
    let (found, digest) = store.find(order.image)?;
    let name = order.name.unwrap_or(&found).to_string();
    if !is_ref_name(&name) {
        let what = "is no reference name (image-spec annotations.md)";
        return Err(Error::invalid(format!("name {name:?}"), what).hint("give another by --name"));
    }
    let at = |what: &str| format!("image {found:?}: {what}");
    let manifest = store.blob(&digest)?;
    let value: Value = parse(&manifest, &at("manifest"))?;
    let media_type = value["mediaType"].as_str().unwrap_or(manifest::MANIFESTS[0]).to_string();
    let m: ImageManifest = parse(&manifest, &at("manifest"))?;
    let config_digest = manifest::digest(m.config())?;
    let config = store.blob(&config_digest)?;
    let (_, ids) = manifest::config(&at("configuration"), &config)?;
    let layers = manifest::layers(&m, &ids)?;
    for (n, layer) in layers.iter().enumerate() {
        let at = at(&format!("layer {} ({})", n + 1, layer.digest));
        match store.open_blob(&layer.digest).map(|b| b.size()) {
            Ok(size) if size == layer.size => {}
            Ok(size) => {
                let what = format!("its blob has {size} bytes, its manifest says {}", layer.size);
                return Err(Error::invalid(at, what).hint("run orlop imgtool fsck"));
            }
            Err(e) if e.kind == crate::error::Kind::NotFound => {
                let what = "its blob is not in the store";
                return Err(Error::new(e.kind, at, what).hint("import the image again, without --no-blobs"));
            }
            Err(e) => return Err(e),
        }
    }
    Ok(Picked { name, digest, manifest, media_type, config, config_digest, layers })
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], at: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|e| Error::invalid(at, e.to_string()))
}

impl Picked {
    /// The descriptor of the image in an index.
    pub fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest.to_string(),
            "size": self.manifest.len(),
            "annotations": { REF_NAME: self.name },
        })
    }

    /// Digests and sizes of all blobs, each once.
    pub fn blobs(&self) -> BTreeMap<Digest, u64> {
        let own = [(self.digest, self.manifest.len()), (self.config_digest, self.config.len())];
        let own = own.into_iter().map(|(digest, size)| (digest, size as u64));
        self.layers.iter().map(|l| (l.digest, l.size)).chain(own).collect()
    }
}

/// The annotation that has the name of an image (image-spec annotations.md).
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// An index without images.
fn empty_index() -> Value {
    json!({ "schemaVersion": 2, "mediaType": manifest::INDEXES[0], "manifests": [] })
}

/// An archive of a layout with this one image.
fn write_layout(store: &Store, image: &Picked, out: &mut dyn Write) -> Result<()> {
    let mut archive = Archive::new(out);
    let mut index = empty_index();
    index["manifests"] = json!([image.descriptor()]);
    archive.bytes("oci-layout", OCI_LAYOUT)?;
    archive.bytes("index.json", index.to_string().as_bytes())?;
    archive.dir("blobs/")?;
    archive.dir("blobs/sha256/")?;
    for (digest, size) in image.blobs() {
        let task = progress::task("blob", &digest, size);
        let mut hash = super::digest::HashRead::new(task.read(store.open_blob(&digest)?));
        archive.file(&manifest::blob_name(&digest), size, &mut hash)?;
        is_blob(&digest, hash.digest())?;
        task.done("exported");
    }
    archive.end()
}

/// Whether what was read of a blob is what it must be.
fn is_blob(digest: &Digest, found: Digest) -> Result<()> {
    if found != *digest {
        let what = format!("is damaged, its digest is {found}");
        return Err(Error::invalid(format!("blob {digest}"), what).hint("run orlop imgtool fsck"));
    }
    Ok(())
}

/// The grammar of the annotation: words of letters and digits, one separator between them. Other tools do not see an
/// image of another name.
fn is_ref_name(name: &str) -> bool {
    let mut word = false;
    let mut rest = name.as_bytes();
    while let Some((first, next)) = rest.split_first() {
        rest = match (first, next.first()) {
            (b'-', Some(b'-')) if word => &next[1..],
            _ => next,
        };
        match first {
            b if b.is_ascii_alphanumeric() => word = true,
            b'-' | b'.' | b'_' | b':' | b'@' | b'+' | b'/' if word => word = false,
            _ => return false,
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_names_follow_their_grammar() {
        for good in
            ["a", "docker.io/library/busybox:1.36", "a--b", "x@sha256:0", "a_b.c+d", "localhost:5000/a"]
        {
            assert!(is_ref_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a//b", "a b", "é", "a---b", "a..b", "/a", "a/"] {
            assert!(!is_ref_name(bad), "{bad}");
        }
    }
}
