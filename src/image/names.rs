//! Which image a word means, and what is said when it means none.

use super::archive::inside;
use super::digest::Digest;
use super::manifest;
use super::registry::reference::Reference;
use super::store::{MEND, Store};
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::path::Path;

type Ref = (String, Digest);
/// Names that cannot be read, and why.
type Damaged = Vec<(String, Error)>;

impl Store {
    /// The image that `word` names: a name, with or without what is understood in it (`:latest`, `docker.io/library/`),
    /// a repository with a digest behind `@`, the digest of a manifest or of a configuration, or the start of one.
    pub fn find(&self, word: &str) -> Result<Ref> {
        let (refs, damaged) = self.readable()?;
        let at = || format!("image {word:?}");
        let found = self.by_digest(&refs, word);
        if let Some(named) = named(&refs, word).filter(|_| !is_digest(word)) {
            if found.iter().any(|f| f.1 != named.1) {
                let what = "is the name of an image, and the start of the digest of another";
                return Err(Error::invalid(at(), what).hint("give the tag too, or more of the digest"));
            }
            return Ok(named.clone());
        }
        match (found.first(), found.len()) {
            (Some((name, digest)), 1) => Ok((name.clone(), *digest)),
            (Some(_), _) => {
                let all: Vec<&str> = found.iter().map(|f| f.0.as_str()).collect();
                Err(Error::invalid(at(), format!("is the start of several digests: of {}", all.join(", "))))
            }
            (None, _) => {
                let is_meant = |name: &str| name == word || Some(name) == other_spelling(word).as_deref();
                let damage = damaged.into_iter().find(|d| is_meant(&d.0)).map(|d| d.1);
                let none = || Error::new(Kind::NotFound, at(), "does not exist").hint(remedy(word));
                Err(damage.unwrap_or_else(none))
            }
        }
    }

    /// The names with their manifests, and those that are damaged, which are in the way of no other.
    fn readable(&self) -> Result<(Vec<Ref>, Damaged)> {
        let (mut refs, mut damaged) = (Vec::new(), Vec::new());
        for (_, name, digest) in self.all_refs()? {
            match digest {
                Ok(digest) => refs.push((name, digest)),
                Err(e) => damaged.push((name, e.hint(MEND))),
            }
        }
        refs.sort();
        Ok((refs, damaged))
    }

    /// The image of this name; a digest is none.
    pub fn named(&self, word: &str) -> Result<Option<Ref>> {
        Ok(named(&self.readable()?.0, word).filter(|_| !is_digest(word)).cloned())
    }

    /// Whether an image of this `manifest`, `None` while it is not made, may get a name: one that can be a file, and that
    /// no lookup takes for a digest. Names come out of archives, and a digest is what people rely on.
    pub fn may_name(&self, name: &str, manifest: Option<&Digest>) -> Result<()> {
        self.ref_path(name)?;
        let wrong = |what: &str| {
            Err(Error::invalid(format!("image name {name:?}"), what).hint("give the image another name"))
        };
        let meant = Reference::parse(name).map_or_else(|_| name.to_string(), |r| r.familiar());
        let short = meant.strip_suffix(":latest").unwrap_or(&meant);
        if is_digest(name) || is_digest(short) || short.len() >= SHOWN && is_start(short) {
            return wrong("is taken for a digest");
        }
        match name.split_once('@').and_then(|(_, digest)| Digest::parse("", digest).ok()) {
            Some(digest) if manifest != Some(&digest) => wrong("has a digest that is not that of the image"),
            _ => Ok(()),
        }
    }

    /// The images whose manifest, or else whose configuration, has a digest that begins so; each once.
    fn by_digest(&self, refs: &[Ref], word: &str) -> Vec<Ref> {
        let hex = word.strip_prefix("sha256:").unwrap_or(word);
        if !is_start(hex) {
            return Vec::new();
        }
        let mut images: BTreeMap<Digest, &String> = BTreeMap::new();
        for (name, digest) in refs {
            images.entry(*digest).or_insert(name);
        }
        let pick = |is: &dyn Fn(&Digest) -> bool| -> Vec<Ref> {
            images.iter().filter(|i| is(i.0)).map(|(digest, name)| ((*name).clone(), *digest)).collect()
        };
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

/// How many digits of a digest lists show. A shorter name of such letters may be a word.
const SHOWN: usize = 12;

/// Whether a word is never a name, but a digest or the start of one.
fn is_digest(word: &str) -> bool {
    word.strip_prefix("sha256:").is_some_and(is_start) || Digest::from_hex(word).is_some()
}

fn is_start(hex: &str) -> bool {
    (4..=64).contains(&hex.len()) && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// By the name itself, then with and without its tag `latest`, then by what both mean in full. Of a repository with a
/// digest the image of that digest counts first; the digest of an index is in the name alone by which it was pulled.
fn named<'a>(refs: &'a [Ref], word: &str) -> Option<&'a Ref> {
    let exact = |name: &str| refs.iter().find(|r| r.0 == name);
    let exact = exact(word).or_else(|| exact(&other_spelling(word)?));
    let Ok(wanted) = Reference::parse(word) else { return exact };
    let means = |name: &str| Reference::parse(name).ok();
    let same = exact.or_else(|| refs.iter().find(|r| means(&r.0).as_ref() == Some(&wanted)));
    let Some(digest) = wanted.digest else { return same };
    let is_repository = |o: Reference| (&o.registry, &o.repository) == (&wanted.registry, &wanted.repository);
    let of_digest = || refs.iter().find(|r| r.1 == digest && means(&r.0).is_some_and(is_repository));
    same.filter(|r| r.1 == digest).or_else(of_digest).or(same)
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
        // A name that was not looked at when it was given.
        let refs = [(at("short", a), b), ("short:1".to_string(), a)];
        assert_eq!(named(&refs, &at("short", a)).map(|r| r.0.as_str()), Some("short:1"));
    }

    #[test]
    fn images_are_found_by_name_and_digest() {
        let temp = std::env::temp_dir().join(format!("orlop-find-{}", std::process::id()));
        let store = Store::open(&temp, false).unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        store.set_ref("x/y:latest", &a).unwrap();
        store.set_ref("z:1", &b).unwrap();
        for (word, want) in
            [("x/y:latest", a), ("x/y", a), ("z:1", b), (&b.hex()[..12], b), (&a.to_string(), a)]
        {
            assert_eq!(store.find(word).unwrap().1, want, "{word}");
        }
        assert_eq!(store.find("z").unwrap_err().kind, Kind::NotFound);
        store.remove_ref("z:1").unwrap();
        assert!(store.find("z:1").is_err());
        drop(store);
        std::fs::remove_dir_all(temp).unwrap();
    }

    #[test]
    fn no_name_is_taken_for_a_digest() {
        let temp = std::env::temp_dir().join(format!("orlop-names-{}", std::process::id()));
        let store = Store::open(&temp, false).unwrap();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let (hex, start) = (a.hex(), &a.hex()[..12]);
        let may = |name: &str| store.may_name(name, Some(&b)).is_ok();
        for bad in [
            a.to_string(),
            b.to_string(),
            hex.clone(),
            start.into(),
            format!("sha256:{start}"),
            "sha256:abcd".into(),
            format!("{start}:latest"),
            format!("docker.io/library/{start}"),
            format!("docker.io/sha256:{hex}"),
            format!("index.docker.io/library/sha256:{hex}"),
            format!("x@{a}"),
            format!("X:y@{a}"),
        ] {
            assert!(!may(&bad), "{bad}");
        }
        for good in ["cafe", "2024", "abcdef", "me/deadbeefdeadbeef", "x:deadbeefdeadbeef", "sha256"] {
            assert!(may(good), "{good}");
        }
        assert!(may(&format!("x@{b}")) && store.may_name(&format!("x@{b}"), None).is_err());
        // Whatever an older version has put there.
        for (name, digest) in [(&a.to_string(), &b), (&hex[..4].to_string(), &b), (&"good".to_string(), &a)] {
            store.set_ref(name, digest).unwrap();
        }
        let found = |word: &str| store.find(word).map(|f| f.1);
        assert_eq!((found(&a.to_string()), found(&hex), found(&hex[..8])), (Ok(a), Ok(a), Ok(a)));
        assert!(found(&hex[..4]).unwrap_err().what.contains("the start of the digest of another"));
        assert_eq!(found(&format!("{}:latest", &hex[..4])), Ok(b));
        drop(store);
        std::fs::remove_dir_all(temp).unwrap();
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
