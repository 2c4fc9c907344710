//! Which image a word means, and what is said when it means none.

use super::archive::inside;
use super::digest::Digest;
use super::manifest;
use super::registry::reference::Reference;
use super::store::Store;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::Path;

type Ref = (String, Digest);

impl Store {
    /// The image that `word` names: a name, with or without what is understood in it (`:latest`, `docker.io/library/`),
    /// a repository with a digest behind `@`, the digest of a manifest or of a configuration, or the start of one.
    pub fn find(&self, word: &str) -> Result<Ref> {
        let refs = self.refs()?;
        if let Some(found) = named(&refs, word) {
            return Ok(found.clone());
        }
        let at = || format!("image {word:?}");
        let found = self.by_digest(&refs, word);
        match (found.first(), found.len()) {
            (Some((name, digest)), 1) => Ok((name.clone(), *digest)),
            (Some(_), _) => {
                let all: Vec<&str> = found.iter().map(|f| f.0.as_str()).collect();
                Err(Error::invalid(at(), format!("is the start of several digests: of {}", all.join(", "))))
            }
            (None, _) => Err(Error::new(Kind::NotFound, at(), "does not exist").hint(remedy(word))),
        }
    }

    /// The image of this name; a digest is none.
    pub fn named(&self, word: &str) -> Result<Option<Ref>> {
        Ok(named(&self.refs()?, word).cloned())
    }

    /// The images whose manifest, or else whose configuration, has a digest that begins so; each once.
    fn by_digest(&self, refs: &[Ref], word: &str) -> Vec<Ref> {
        let hex = word.strip_prefix("sha256:").unwrap_or(word);
        let mut images: BTreeMap<Digest, &String> = BTreeMap::new();
        for (name, digest) in refs {
            images.entry(*digest).or_insert(name);
        }
        let pick = |is: &dyn Fn(&Digest) -> bool| -> Vec<Ref> {
            images.iter().filter(|i| is(i.0)).map(|(digest, name)| ((*name).clone(), *digest)).collect()
        };
        if hex.len() < 4 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Vec::new();
        }
        let found = pick(&|digest| digest.hex().starts_with(hex));
        if !found.is_empty() {
            return found;
        }
        // What Docker calls the id of an image.
        pick(&|digest| self.config_of(digest).is_some_and(|c| c.hex().starts_with(hex)))
    }

    /// `None` where the manifest is damaged: then the image has no such digest.
    pub(super) fn config_of(&self, manifest: &Digest) -> Option<Digest> {
        manifest::digest(self.manifest(manifest).ok()?.config()).ok()
    }

    /// The name that `name` is already written as: with and without `:latest` it is the same.
    pub(super) fn spelled(&self, name: &str) -> String {
        let there = |n: &String| self.ref_path(n).is_ok_and(|p| p.exists());
        let own = name.to_string();
        if there(&own) {
            return own;
        }
        other_spelling(name).filter(there).unwrap_or(own)
    }
}

/// By the name itself, then with and without its tag `latest`, then by what both mean in full.
fn named<'a>(refs: &'a [Ref], word: &str) -> Option<&'a Ref> {
    let exact = |name: &str| refs.iter().find(|r| r.0 == name);
    if let Some(found) = exact(word).or_else(|| exact(&other_spelling(word)?)) {
        return Some(found);
    }
    let wanted = Reference::parse(word).ok()?;
    let means = |name: &str| Reference::parse(name).ok();
    let same = refs.iter().find(|r| means(&r.0).as_ref() == Some(&wanted));
    same.or_else(|| {
        let digest = wanted.digest?;
        let is_repository =
            |o: Reference| (o.registry, o.repository) == (wanted.registry.clone(), wanted.repository.clone());
        refs.iter().find(|r| r.1 == digest && means(&r.0).is_some_and(is_repository))
    })
}

/// `x` and `x:latest` are one name; with another tag or a digest there is only one spelling.
pub fn other_spelling(name: &str) -> Option<String> {
    if let Some(short) = name.strip_suffix(":latest") {
        return Some(short.to_string());
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    (!last.contains([':', '@']) && !name.is_empty()).then(|| format!("{name}:latest"))
}

/// What to do about a word that names no image.
fn remedy(word: &str) -> &'static str {
    let path = Path::new(word);
    if path.join("overlay.json").exists() {
        "it is a bundle; see orlop imgtool list for images"
    } else if path.exists() {
        "it is a file or directory; bring it in by orlop imgtool import"
    } else {
        "see orlop imgtool list"
    }
}

/// Puts the image that a command is about in front of an error that does not name it.
pub fn about<T>(image: &str, result: Result<T>) -> Result<T> {
    result.map_err(|e| {
        let told = e.at == image || e.at.starts_with(&format!("{image}: "));
        // Of an option, or of another image, it is not this image that is wrong.
        let another = ["image ", "name ", "--"].iter().any(|other| e.at.starts_with(other));
        if told || another { e } else { inside(&format!("image {image:?}"), e) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_the_same_for_every_command() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let refs: Vec<Ref> = [
            ("plain", a),
            ("tagged:latest", a),
            ("docker.io/library/full:1", a),
            ("short:1", a),
            ("h:5000/x", b),
            ("Upper", b),
        ]
        .map(|(n, d)| (n.to_string(), d))
        .into();
        for (word, want) in [
            ("plain", Some("plain")),
            ("plain:latest", Some("plain")),
            ("docker.io/library/plain", Some("plain")),
            ("tagged", Some("tagged:latest")),
            ("docker.io/tagged:latest", Some("tagged:latest")),
            ("full:1", Some("docker.io/library/full:1")),
            ("index.docker.io/library/short:1", Some("short:1")),
            ("h:5000/x:latest", Some("h:5000/x")),
            ("Upper:latest", Some("Upper")),
            ("plain:1", None),
            ("full", None),
            ("x", None),
            ("plain:latest:latest", None),
            ("", None),
        ] {
            assert_eq!(named(&refs, word).map(|r| r.0.as_str()), want, "{word}");
        }
        let at = |name: &str, digest| format!("{name}@{digest}");
        assert_eq!(named(&refs, &at("short", a)).map(|r| r.0.as_str()), Some("short:1"));
        assert_eq!(named(&refs, &at("short:9", a)).map(|r| r.0.as_str()), Some("short:1"));
        assert_eq!(named(&refs, &at("short", b)), None);
    }

    #[test]
    fn errors_name_their_image_once() {
        let e = |at: &str| about::<()>("x", Err(Error::invalid(at, "w"))).unwrap_err().at;
        for (at, want) in [
            ("", "image \"x\""),
            ("layer 1", "image \"x\": layer 1"),
            ("image \"x\": layer 1", "image \"x\": layer 1"),
            ("x", "x"),
            ("x: entry", "x: entry"),
            ("xy", "image \"x\": xy"),
            ("--from", "--from"),
        ] {
            assert_eq!(e(at), want);
        }
    }
}
