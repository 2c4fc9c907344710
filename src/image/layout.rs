//! The images of a source: an OCI layout, or what `docker save` writes.

use super::archive::{Files, inside};
use super::digest::{Digest, HashRead};
use super::layer::compress::Packing;
use super::limits::Limits;
use super::manifest::{self, CONFIG_FLAG, Document, Layer, MANIFEST_FLAG};
use super::platform::Platform;
use crate::error::{Error, Result};
use oci_spec::image::Descriptor;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};

/// An image that was found and checked, but for its layers.
pub struct Image {
    /// Its names in the source, perhaps none.
    pub names: Vec<String>,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Layer>,
}

/// Most manifests and indexes that are looked at, and the depth of indexes in each other: an index of a few bytes can
/// name itself a million times.
const MAX_DOCUMENTS: usize = 1000;
const MAX_DEPTH: usize = 8;
/// Most layers of an image.
const MAX_LAYERS: usize = 10_000;

/// Most bytes of manifests and configurations, each as often as an image names it: all are held until the last one is
/// known, and many names of a few bytes each may lead to the same large one.
const MAX_KEPT: u64 = 32 << 20;
/// Most bytes of indexes, each as often as it is read.
const MAX_READ: u64 = 1 << 30;

/// What may still be read of documents.
struct Budget {
    kept: u64,
    read: u64,
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        let one = limits.manifest.saturating_add(limits.config);
        Self { kept: MAX_KEPT.max(one.saturating_mul(2)), read: MAX_READ }
    }

    fn take(left: &mut u64, bytes: &[u8], what: &str) -> Result<()> {
        let after = left.checked_sub(bytes.len() as u64);
        *left = after.ok_or_else(|| Error::invalid("", format!("has too many bytes of {what}")))?;
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<()> {
        Self::take(&mut self.kept, bytes, "manifests and configurations")
    }

    fn read(&mut self, bytes: &[u8]) -> Result<()> {
        Self::take(&mut self.read, bytes, "indexes")
    }
}

/// All images of the source for a platform, or where one has the name that is wanted that one alone: what is wrong with
/// the others is nothing to it.
pub fn images(
    files: &Files,
    platform: &Platform,
    limits: &Limits,
    wanted: Option<&str>,
) -> Result<Vec<Image>> {
    let budget = &mut Budget::new(limits);
    let out = if files.get("index.json")?.is_some() {
        oci(files, platform, limits, budget, wanted)
    } else if files.get("manifest.json")?.is_some() {
        docker(files, limits, budget, wanted)
    } else {
        let what = "has neither index.json of an OCI layout nor manifest.json of docker save";
        Err(Error::invalid("", what))
    }?;
    if out.is_empty() {
        return Err(Error::invalid("", "names no image"));
    }
    out.iter().try_for_each(|i| count("manifest", i.layers.len()))?;
    Ok(out)
}

fn count(at: &str, layers: usize) -> Result<()> {
    if layers > MAX_LAYERS {
        return Err(Error::invalid(at, format!("has {layers} layers, at most {MAX_LAYERS} are taken")));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OciLayout {
    image_layout_version: String,
}

fn oci(
    files: &Files,
    platform: &Platform,
    limits: &Limits,
    budget: &mut Budget,
    wanted: Option<&str>,
) -> Result<Vec<Image>> {
    let text = files.need("oci-layout")?.all("oci-layout", 4096, MANIFEST_FLAG)?;
    let layout: OciLayout =
        serde_json::from_slice(&text).map_err(|e| Error::invalid("oci-layout", e.to_string()))?;
    if layout.image_layout_version != "1.0.0" {
        let what = format!("imageLayoutVersion {:?} is not 1.0.0", layout.image_layout_version);
        return Err(Error::unsupported("oci-layout", what));
    }
    let text = files.need("index.json")?.all("index.json", limits.manifest, MANIFEST_FLAG)?;
    let Document::Index(index) = manifest::parse("index.json", &text, None)? else {
        return Err(Error::invalid("index.json", "is no index"));
    };
    let mut by_name: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
    for d in index.manifests() {
        by_name.entry(name_of(d)).or_default().push(d.clone());
    }
    if by_name.keys().flatten().any(|name| Some(&**name) == wanted) {
        by_name.retain(|name, _| name.as_deref() == wanted);
    }
    let mut out: Vec<(Digest, Image)> = Vec::new();
    for (name, descriptors) in by_name {
        let shown = name.as_deref().unwrap_or("index.json");
        let mut leaves = Leaves { files, limits, budget, seen: HashSet::new(), found: Vec::new() };
        leaves.collect(&descriptors, 0)?;
        let chosen = choose(shown, &leaves.found, platform)?;
        let digest = manifest::digest(chosen)?;
        if let Some((_, image)) = out.iter_mut().find(|i| i.0 == digest) {
            image.names.extend(name);
            continue;
        }
        let bytes = manifest::fetch(files, chosen, limits.manifest, MANIFEST_FLAG)?;
        budget.keep(&bytes)?;
        let kind: &str = chosen.media_type().as_ref();
        let Document::Manifest(m) = manifest::parse(&digest.to_string(), &bytes, Some(kind))? else {
            return Err(Error::invalid(digest.to_string(), "is no manifest"));
        };
        let config = manifest::fetch_config(files, &m, limits)?;
        budget.keep(&config)?;
        let (_, diff_ids) = manifest::config(m.config().digest().as_ref(), &config)?;
        let layers = manifest::layers(&m, &diff_ids).map_err(|e| inside(&digest.to_string(), e))?;
        out.push((digest, Image { names: name.into_iter().collect(), manifest: bytes, config, layers }));
    }
    Ok(out.into_iter().map(|i| i.1).collect())
}

/// containerd's annotation has the whole name where the standard one has only a tag.
fn name_of(d: &Descriptor) -> Option<String> {
    let a = d.annotations().as_ref()?;
    a.get("io.containerd.image.name").or_else(|| a.get("org.opencontainers.image.ref.name")).cloned()
}

/// The manifests below an index, each once.
struct Leaves<'a> {
    files: &'a Files,
    limits: &'a Limits,
    budget: &'a mut Budget,
    seen: HashSet<Digest>,
    found: Vec<Descriptor>,
}

impl Leaves<'_> {
    fn collect(&mut self, descriptors: &[Descriptor], depth: usize) -> Result<()> {
        for d in descriptors {
            let kind: &str = d.media_type().as_ref();
            let digest = manifest::digest(d)?;
            if !manifest::is_known(kind) || !self.seen.insert(digest) {
                continue; // an artifact of another kind, or met before
            }
            if self.seen.len() > MAX_DOCUMENTS {
                return Err(Error::invalid(
                    "index.json",
                    format!("names more than {MAX_DOCUMENTS} manifests"),
                ));
            }
            if kind.contains(".manifest.v") && !kind.contains("list") {
                self.found.push(d.clone());
                continue;
            }
            if depth == MAX_DEPTH {
                return Err(Error::invalid(
                    digest.to_string(),
                    format!("lies below {MAX_DEPTH} other indexes"),
                ));
            }
            let bytes = manifest::fetch(self.files, d, self.limits.manifest, MANIFEST_FLAG)?;
            self.budget.read(&bytes)?;
            if let Document::Index(index) = manifest::parse(&digest.to_string(), &bytes, Some(kind))? {
                self.collect(index.manifests(), depth + 1)?;
            }
        }
        Ok(())
    }
}

fn platform_of(d: &Descriptor) -> Option<Platform> {
    let p = d.platform().as_ref()?;
    Some(Platform {
        os: p.os().to_string(),
        arch: p.architecture().to_string(),
        variant: p.variant().clone().filter(|v| !v.is_empty()),
    })
}

fn choose<'a>(at: &str, found: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor> {
    let fits = found.iter().filter_map(|d| Some((wanted.fit(&platform_of(d)?)?, d)));
    if let Some((_, best)) = fits.rev().max_by_key(|f| f.0) {
        return Ok(best);
    }
    match found {
        [] => Err(Error::invalid(at, "names no image")),
        [one] if one.platform().is_none() => Ok(one),
        _ => {
            let names: Vec<String> =
                found.iter().map(|d| platform_of(d).map_or("unknown".into(), |p| p.to_string())).collect();
            let what = format!("has no image for {wanted}, only for {}", names.join(", "));
            Err(Error::new(crate::error::Kind::NotFound, at, what).hint("choose one with --platform"))
        }
    }
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// `docker save` has no manifest of the image: one is made.
fn docker(files: &Files, limits: &Limits, budget: &mut Budget, wanted: Option<&str>) -> Result<Vec<Image>> {
    let text = files.need("manifest.json")?.all("manifest.json", limits.manifest, MANIFEST_FLAG)?;
    let mut saved: Vec<Saved> =
        serde_json::from_slice(&text).map_err(|e| Error::invalid("manifest.json", e.to_string()))?;
    let is_wanted = |s: &Saved| s.repo_tags.iter().flatten().any(|name| Some(&**name) == wanted);
    if saved.iter().any(is_wanted) {
        saved.retain(is_wanted);
    }
    let (mut out, mut known) = (Vec::new(), HashMap::new());
    for s in saved {
        let config = files.need(&s.config)?.all(&s.config, limits.config, CONFIG_FLAG)?;
        budget.keep(&config)?;
        let digest = Digest::of(&config);
        // Its file is named by its digest.
        let stem = s.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json");
        if Digest::from_hex(stem).is_some_and(|d| d != digest) {
            return Err(Error::invalid(&s.config, format!("has the digest {digest}")));
        }
        let (_, diff_ids) = manifest::config(&s.config, &config)?;
        if diff_ids.len() != s.layers.len() {
            let what = format!("has {} layers, {} has {} diff_ids", s.layers.len(), s.config, diff_ids.len());
            return Err(Error::invalid("manifest.json", what));
        }
        count("manifest.json", diff_ids.len())?;
        let layers =
            s.layers.iter().zip(&diff_ids).map(|(name, id)| docker_layer(files, name, id, &mut known));
        let layers: Vec<Layer> = layers.collect::<Result<_>>()?;
        let manifest = synthesize(&digest, config.len(), &layers);
        budget.keep(&manifest)?;
        out.push(Image { names: s.repo_tags.unwrap_or_default(), manifest, config, layers });
    }
    Ok(out)
}

/// Digests of packed layers by their place.
type Known = HashMap<Option<(u64, u64, u64)>, Digest>;

fn docker_layer(files: &Files, name: &str, diff_id: &Digest, known: &mut Known) -> Result<Layer> {
    let piece = files.need(name)?;
    let (size, place) = (piece.size(), piece.place());
    let packing = piece.packing().map_err(|e| inside(name, e))?;
    let digest = match (packing, known.get(&place).filter(|_| place.is_some())) {
        (Packing::Plain, _) => *diff_id,
        // Thousands of names may be links to one large file.
        (_, Some(digest)) => *digest,
        _ => {
            let mut hash = HashRead::new(piece);
            std::io::copy(&mut hash, &mut std::io::sink()).map_err(|e| Error::io(name, "read", &e))?;
            *known.entry(place).insert_entry(hash.digest()).get()
        }
    };
    Ok(Layer { name: name.to_string(), digest, size, diff_id: *diff_id, packing: Some(packing) })
}

fn synthesize(config: &Digest, size: usize, layers: &[Layer]) -> Vec<u8> {
    let layer = |l: &Layer| {
        let suffix = match l.packing {
            Some(Packing::Gzip) => "+gzip",
            Some(Packing::Zstd) => "+zstd",
            _ => "",
        };
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            "digest": l.digest.to_string(),
            "size": l.size,
        })
    };
    let layers: Vec<_> = layers.iter().map(layer).collect();
    serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.to_string(),
            "size": size,
        },
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}
