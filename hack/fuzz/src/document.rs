//! The documents of a source. The bytes are several, 0xff between them: the first one is index.json or manifest.json, of
//! each other one the earlier ones may say `@N` for its digest and size, with which it becomes a blob.

use super::place::Place;
use orlop::image::archive::Files;
use orlop::image::digest::Digest;
use orlop::image::layout::images;
use orlop::image::limits::Limits;
use orlop::image::manifest::{self, MANIFESTS};
use orlop::image::platform::Platform;
use orlop::image::view::open;
use std::fs;

pub fn run(data: &[u8]) {
    let Some((form, data)) = data.split_first() else { return };
    for kind in [None, Some(MANIFESTS[0])] {
        let _ = manifest::parse("x", data, kind);
    }
    let place = Place::new();
    let dir = place.make("source");
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let mut parts: Vec<Vec<u8>> = data.split(|b| *b == 0xff).take(9).map(<[u8]>::to_vec).collect();
    for n in (1..parts.len()).rev() {
        let (before, this) = parts.split_at_mut(n);
        let digest = Digest::of(&this[0]);
        fs::write(dir.join("blobs/sha256").join(digest.hex()), &this[0]).unwrap();
        let said = format!("\"digest\":\"{digest}\",\"size\":{}", this[0].len());
        before.iter_mut().for_each(|b| replace(b, &[b'@', b'0' + n as u8], said.as_bytes()));
    }
    let top = if form % 2 == 0 { "index.json" } else { "manifest.json" };
    fs::write(dir.join(top), &parts[0]).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let limits = Limits { manifest: 1 << 16, config: 1 << 16, ..Limits::default() };
    let platform = Platform::parse("linux/amd64").unwrap();
    for image in images(&Files::Dir(open(&dir).unwrap()), &platform, &limits, None).into_iter().flatten() {
        // Whatever is taken is read again, as other commands do.
        let (config, ids) = manifest::config("x", &image.config).unwrap();
        assert_eq!(ids.len(), image.layers.len());
        let manifest::Document::Manifest(m) =
            manifest::parse("x", &image.manifest, None).unwrap_or_else(|_| {
                manifest::parse("x", &image.manifest, Some(MANIFESTS[0]))
                    .or_else(|_| manifest::parse("x", &image.manifest, Some(MANIFESTS[1])))
                    .unwrap()
            })
        else {
            panic!("an index is no image")
        };
        assert_eq!(manifest::digest(m.config()).unwrap(), Digest::of(&image.config));
        let value: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
        let history = value["history"].as_array().cloned().unwrap_or_default();
        assert!(history.iter().all(|h| h.is_object()), "{config:?}");
    }
    place.check(&["source"]);
}

fn replace(text: &mut Vec<u8>, what: &[u8], with: &[u8]) {
    let mut at = 0;
    while let Some(n) = text[at..].windows(what.len()).position(|w| w == what) {
        if text.len() > 1 << 20 {
            return;
        }
        text.splice(at + n..at + n + what.len(), with.iter().copied());
        at += n + with.len();
    }
}
