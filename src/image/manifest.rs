//! Manifests, indexes and configurations, strictly: a document that two readers may take for two things is refused
//! (CVE-2021-41190), and so is one whose size or digest is not that of its descriptor.

use super::archive::{Files, inside};
use super::digest::Digest;
use super::layer::compress::Packing;
use super::limits::Limits;
use crate::error::{Error, Result};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Flags of the limits of documents.
pub const MANIFEST_FLAG: &str = "--max-manifest-bytes";
pub const CONFIG_FLAG: &str = "--max-config-bytes";

pub const MANIFESTS: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
pub const INDEXES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// A document that a descriptor of an index points to.
pub enum Document {
    Index(Box<ImageIndex>),
    Manifest(Box<ImageManifest>),
}

/// What tells documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Parses what a descriptor calls a `media_type`; `None` for `index.json`, which has no descriptor.
pub fn parse(at: &str, bytes: &[u8], media_type: Option<&str>) -> Result<Document> {
    let json = |e: serde_json::Error| Error::invalid(at, e.to_string());
    plain(bytes).map_err(json)?;
    let o: Outline = serde_json::from_slice(bytes).map_err(json)?;
    if o.schema_version != Some(2) {
        return Err(Error::invalid(at, format!("schemaVersion {:?} is not 2", o.schema_version)));
    }
    if let (Some(inner), Some(outer)) = (o.media_type.as_deref(), media_type) {
        if inner != outer {
            return Err(Error::invalid(
                at,
                format!("is {inner:?} by its own word and {outer:?} by its descriptor"),
            ));
        }
    }
    let index = o.manifests.is_some();
    let manifest = o.config.is_some() || o.layers.is_some() || o.fs_layers.is_some();
    if index && manifest {
        return Err(Error::invalid(at, "is both an index and a manifest"));
    }
    let kind = o.media_type.as_deref().or(media_type).unwrap_or(INDEXES[0]);
    if INDEXES.contains(&kind) && index {
        return serde_json::from_slice(bytes).map(|i| Document::Index(Box::new(i))).map_err(json);
    }
    if MANIFESTS.contains(&kind) && manifest {
        return serde_json::from_slice(bytes).map(|m| Document::Manifest(Box::new(m))).map_err(json);
    }
    Err(Error::unsupported(at, format!("media type {kind:?} is not that of an image or its content is not")))
}

/// Keys, in lower case, by which an image is read. Readers in Go do not mind the case: of two spellings they take the
/// last, where others take the one they know.
const KEYS: [&str; 20] = [
    "schemaversion",
    "mediatype",
    "manifests",
    "config",
    "layers",
    "fslayers",
    "digest",
    "size",
    "platform",
    "rootfs",
    "type",
    "diff_ids",
    "architecture",
    "os",
    "variant",
    "history",
    "entrypoint",
    "cmd",
    "env",
    "user",
];
/// Keys of these that are objects: to some readers a list of their values in order is the same.
const OBJECTS: [&str; 3] = ["config", "platform", "rootfs"];

/// Whether all readers take a document for the same.
fn plain(bytes: &[u8]) -> serde_json::Result<()> {
    let mut d = serde_json::Deserializer::from_slice(bytes);
    Plain::Object.deserialize(&mut d).and_then(|()| d.end())
}

/// A value, by its place. No list of an image's documents has lists in it.
enum Plain {
    Object,
    /// Also a list.
    Value,
    /// Below a key that is not one of [`KEYS`]: labels, annotations, and what no reader of images knows. Keys there are
    /// the user's own.
    Free,
}

impl<'de> DeserializeSeed<'de> for Plain {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> std::result::Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Plain {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Plain::Object) { "an object" } else { "a value" })
    }

    fn visit_unit<E>(self) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> std::result::Result<(), A::Error> {
        let is_free = match self {
            Plain::Object => return Err(A::Error::custom("has a list in the place of an object")),
            Plain::Value => false,
            Plain::Free => true,
        };
        while all.next_element_seed(if is_free { Plain::Free } else { Plain::Object })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> std::result::Result<(), A::Error> {
        let mut seen = Vec::new();
        while let Some(key) = all.next_key::<String>()? {
            let lower = key.to_ascii_lowercase();
            if matches!(self, Plain::Free) || !KEYS.contains(&lower.as_str()) {
                all.next_value_seed(Plain::Free)?;
                continue;
            }
            if seen.contains(&lower) {
                return Err(A::Error::custom(format!("has {key:?} twice, in one spelling or two")));
            }
            let is_object = OBJECTS.contains(&lower.as_str());
            all.next_value_seed(if is_object { Plain::Object } else { Plain::Value })?;
            seen.push(lower);
        }
        Ok(())
    }
}

/// Whether a descriptor's media type is one of an index or a manifest of an image.
pub fn is_known(media_type: &str) -> bool {
    INDEXES.contains(&media_type) || MANIFESTS.contains(&media_type)
}

/// The media types that are taken, as an `Accept` header.
pub fn accepted() -> String {
    [MANIFESTS, INDEXES].concat().join(", ")
}

/// The digest of a descriptor.
pub fn digest(d: &Descriptor) -> Result<Digest> {
    Digest::parse("descriptor", d.digest().as_ref())
}

/// The name of a blob in a layout.
pub fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Reads a blob that is held in memory, of at most `max` bytes, which `flag` sets, and checks it against its descriptor.
pub fn fetch(files: &Files, d: &Descriptor, max: u64, flag: &str) -> Result<Vec<u8>> {
    let want = digest(d)?;
    let bytes = files.need(&blob_name(&want))?.all(&want.to_string(), max, flag)?;
    if bytes.len() as u64 != d.size() {
        let what = format!("has {} bytes, its descriptor says {}", bytes.len(), d.size());
        return Err(Error::invalid(want.to_string(), what));
    }
    let found = Digest::of(&bytes);
    if found != want {
        return Err(Error::invalid(want.to_string(), format!("has the digest {found}")));
    }
    Ok(bytes)
}

/// A layer of a manifest.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its file in the source.
    pub name: String,
    pub digest: Digest,
    pub size: u64,
    pub diff_id: Digest,
    /// What the media type promises, `None` where nothing does.
    pub packing: Option<Packing>,
}

/// The packing that a layer's media type promises.
pub fn packing(media_type: &str) -> Result<Packing> {
    let oci = media_type
        .strip_prefix("application/vnd.oci.image.layer.v1.tar")
        .or_else(|| media_type.strip_prefix("application/vnd.oci.image.layer.nondistributable.v1.tar"))
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.diff.tar"))
        .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar"));
    match oci {
        Some("") => Ok(Packing::Plain),
        Some("+gzip" | ".gzip") => Ok(Packing::Gzip),
        Some("+zstd" | ".zstd") => Ok(Packing::Zstd),
        Some(s) if s.contains("encrypted") => {
            Err(Error::unsupported("", format!("{media_type:?} is encrypted, and there is no key")))
        }
        _ => Err(Error::unsupported("", format!("media type {media_type:?} is not that of a layer"))),
    }
}

/// A configuration, and the diffIDs of its layers.
pub fn config(at: &str, bytes: &[u8]) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let c: ImageConfiguration = plain(bytes)
        .and_then(|()| serde_json::from_slice(bytes))
        .map_err(|e| Error::invalid(at, format!("is no image configuration: {e}")))?;
    if c.os().to_string() != "linux" {
        return Err(Error::unsupported(at, format!("os {:?} is not linux", c.os().to_string())));
    }
    if c.rootfs().typ() != "layers" {
        return Err(Error::unsupported(at, format!("rootfs.type {:?} is not layers", c.rootfs().typ())));
    }
    let ids =
        c.rootfs().diff_ids().iter().map(|d| Digest::parse("rootfs.diff_ids", d)).collect::<Result<_>>()?;
    Ok((c, ids))
}

/// The layers of a manifest with the diffIDs of its configuration.
pub fn layers(m: &ImageManifest, diff_ids: &[Digest]) -> Result<Vec<Layer>> {
    if m.layers().len() != diff_ids.len() {
        let what =
            format!("has {} layers, its configuration has {} diff_ids", m.layers().len(), diff_ids.len());
        return Err(Error::invalid("manifest", what));
    }
    let layer = |(n, (d, diff_id)): (usize, (&Descriptor, &Digest))| {
        let digest = digest(d)?;
        let at = || format!("layer {} ({digest})", n + 1);
        let packing = Some(packing(d.media_type().as_ref()).map_err(|e| inside(&at(), e))?);
        Ok(Layer { name: blob_name(&digest), digest, size: d.size(), diff_id: *diff_id, packing })
    };
    m.layers().iter().zip(diff_ids).enumerate().map(layer).collect()
}

/// Reads the configuration of a manifest.
pub fn fetch_config(files: &Files, m: &ImageManifest, limits: &Limits) -> Result<Vec<u8>> {
    let kind: &str = m.config().media_type().as_ref();
    if !CONFIGS.contains(&kind) {
        return Err(Error::unsupported("config", format!("media type {kind:?} is not that of an image")));
    }
    fetch(files, m.config(), limits.config, CONFIG_FLAG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_take_for_two_things_is_refused() {
        let manifest = |more: &str| {
            let d = format!("\"digest\":\"{}\",\"size\":1,\"mediaType\":\"x\"", Digest::of(b""));
            format!(
                "{{\"schemaVersion\":2,\"mediaType\":\"{}\",\"config\":{{{d}}},\"layers\":[]{more}}}",
                MANIFESTS[0]
            )
        };
        for more in [
            ",\"x\":{\"A\":1,\"a\":2}",
            ",\"x\":{\"size\":1,\"SIZE\":2,\"config\":[]}",
            ",\"x\":[[1]]",
            ",\"annotations\":{\"User\":\"a\",\"user\":\"b\"}",
        ] {
            assert!(parse("m", manifest(more).as_bytes(), None).is_ok(), "{more}");
        }
        for more in [
            ",\"layers\":[]",
            ",\"Layers\":[]",
            ",\"subject\":1,\"history\":[{\"size\":1,\"SIZE\":2}]",
            ",\"history\":[[1]]",
            "} {",
        ] {
            assert!(parse("m", manifest(more).as_bytes(), None).is_err(), "{more}");
        }
        let deep = format!(",\"x\":{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        assert!(parse("m", manifest(&deep).as_bytes(), None).is_err());
        let list = format!("[2,\"{}\",null,{{}},[]]", MANIFESTS[0]);
        assert!(parse("m", list.as_bytes(), None).is_err());
        let config = |more: &str| {
            format!(
                "{{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[]}}{more}}}"
            )
        };
        for more in [
            "",
            ",\"config\":{\"Labels\":{\"User\":\"a\",\"user\":\"b\"},\"Volumes\":{\"/env\":{},\"/Env\":{}}}",
            ",\"config\":{\"Labels\":{\"Size\":\"1\",\"size\":\"2\"},\"ExposedPorts\":{\"1/tcp\":{}}}",
            ",\"moby.buildkit.x\":{\"layers\":[[{\"cmd\":1,\"Cmd\":[[2]]}]]}",
        ] {
            super::config("c", config(more).as_bytes()).unwrap();
        }
        for more in [
            ",\"history\":[[null,null,null,null,null]]",
            ",\"config\":[\"root\"]",
            ",\"config\":{\"User\":\"a\",\"user\":\"b\"}",
            ",\"OS\":\"linux\"",
        ] {
            assert!(super::config("c", config(more).as_bytes()).is_err(), "{more}");
        }
    }
}
