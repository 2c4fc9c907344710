//! The store at rest, against what it says of itself: documents and blobs by their digests, layers by their blobs. A
//! layer whose blob was kept is made again from it and compared name by name; one without a blob is only counted.

use super::blobs::no_limits;
use super::digest::Digest;
use super::driver;
use super::import::{Grown, build_fixup, build_layer, in_parallel, locked, tree_of};
use super::layer::apply::Applied;
use super::manifest::{self, Layer};
use super::progress::{self, Task};
use super::stack::{Stack, is_image};
use super::store::{LayerMeta, Store, Work, decode};
use super::tree::{Met, Usage, compare, difference};
use super::view;
use crate::error::{Error, Result, clean};
use oci_spec::image::ImageManifest;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What may be damaged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Ref(PathBuf),
    /// What a name pointed to before.
    Log(PathBuf),
    /// A manifest, or the configuration of one.
    Image(Digest),
    Blob(Digest),
    /// By diffID.
    Layer(Digest),
    /// By chainID.
    Fixup(Digest),
    Bundle(PathBuf),
}

/// One thing that is not as it was put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub object: Object,
    /// The images that it belongs to.
    pub images: BTreeSet<String>,
    /// The object's name for people, and the path in it.
    pub place: String,
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.images.is_empty() {
            let images: Vec<&str> = self.images.iter().map(String::as_str).collect();
            write!(f, "{}: ", clean(&images.join(", ")))?;
        }
        write!(f, "{}: {}", clean(&self.place), clean(&self.what))
    }
}

/// Manifests, and the names and bundles that lead to them.
pub type Roots = BTreeMap<Digest, BTreeSet<String>>;

/// What the images of the store need of it.
pub struct Exam<'a> {
    store: &'a Store,
    pub damages: Vec<Damage>,
    /// Images whose documents are whole.
    pub images: Vec<(BTreeSet<String>, Vec<Digest>)>,
    layers: BTreeMap<Digest, Expected>,
    blobs: BTreeSet<Digest>,
}

/// A layer as images name it.
#[derive(Clone, Default)]
struct Expected {
    images: BTreeSet<String>,
    place: String,
    blobs: BTreeMap<Digest, u64>,
}

/// All damages of these images, or of everything that the store has.
pub fn verify(store: &Store, images: &[String]) -> Result<Vec<Damage>> {
    let mut roots = Roots::new();
    for image in images {
        let (name, digest) = store.find(image)?;
        roots.entry(digest).or_default().insert(name);
    }
    let mut damages = Vec::new();
    if images.is_empty() {
        roots = all(store, &mut damages)?;
    }
    let mut exam = Exam::of(store, &roots)?;
    if images.is_empty() {
        exam.others()?;
    }
    exam.layers(false)?;
    exam.fixups(false)?;
    damages.append(&mut exam.damages);
    Ok(damages)
}

/// The roots of all names, their logs and all bundles; those that cannot be read are damages.
pub fn all(store: &Store, damages: &mut Vec<Damage>) -> Result<Roots> {
    let mut roots = Roots::new();
    for (path, name, digest) in store.all_refs()? {
        match digest {
            Ok(digest) => {
                roots.entry(digest).or_default().insert(name);
            }
            Err(e) => damages.push(damage(Object::Ref(path), [name], "name", e.to_string())),
        }
    }
    for path in store.files("logs")? {
        let name = decode(path.file_name().unwrap_or_default().as_bytes());
        match store.log(&name) {
            // What a sweep has removed is no loss.
            Ok(entries) => entries.iter().filter(|e| e.kept).filter_map(|e| e.digest).for_each(|digest| {
                roots.entry(digest).or_insert_with(|| [format!("log of {name}")].into());
            }),
            Err(e) => damages.push(damage(Object::Log(path), [name], "log of a name", e.to_string())),
        }
    }
    for (path, record) in store.all_bundles()? {
        match record {
            Ok(r) if store.bundle_path(&r.path) == path => {
                roots.entry(r.manifest).or_default().insert(format!("bundle {}", r.path.display()));
            }
            Ok(_) => {
                let place = path.display().to_string();
                damages.push(damage(Object::Bundle(path), [], place, "is the record of another bundle"));
            }
            Err(e) => damages.push(damage(Object::Bundle(path), [], "record of a bundle", e.to_string())),
        }
    }
    Ok(roots)
}

fn damage(
    object: Object,
    images: impl IntoIterator<Item = String>,
    place: impl Into<String>,
    what: impl Into<String>,
) -> Damage {
    Damage { object, images: images.into_iter().collect(), place: place.into(), what: what.into() }
}

impl<'a> Exam<'a> {
    /// Reads the documents of the images.
    pub fn of(store: &'a Store, roots: &Roots) -> Result<Self> {
        let mut exam = Self {
            store,
            damages: Vec::new(),
            images: Vec::new(),
            layers: BTreeMap::new(),
            blobs: BTreeSet::new(),
        };
        for (digest, names) in roots {
            if let Err((place, what)) = exam.documents(digest, names) {
                exam.damages.push(damage(Object::Image(*digest), names.iter().cloned(), place, what));
            }
        }
        Ok(exam)
    }

    /// The manifest and the configuration of one image; where and what is wrong.
    fn documents(&mut self, digest: &Digest, names: &BTreeSet<String>) -> Result<(), (String, String)> {
        let at = format!("manifest {digest}");
        let wrong = |at: &str| {
            let at = at.to_string();
            move |e: Error| (at, e.to_string())
        };
        self.blobs.insert(*digest);
        let bytes = self.document(digest, None).map_err(|what| (at.clone(), what))?;
        let m: ImageManifest = serde_json::from_slice(&bytes).map_err(|e| (at.clone(), e.to_string()))?;
        let config = manifest::digest(m.config()).map_err(wrong(&at))?;
        self.blobs.insert(config);
        let of_config = format!("configuration {config}");
        let bytes =
            self.document(&config, Some(m.config().size())).map_err(|what| (of_config.clone(), what))?;
        let (_, ids) = manifest::config("", &bytes).map_err(wrong(&of_config))?;
        for (n, layer) in manifest::layers(&m, &ids).map_err(wrong(&at))?.into_iter().enumerate() {
            self.blobs.insert(layer.digest);
            let e = self.layers.entry(layer.diff_id).or_default();
            if e.place.is_empty() {
                e.place = format!("layer {} ({})", n + 1, layer.diff_id);
            }
            e.images.extend(names.iter().cloned());
            e.blobs.insert(layer.digest, layer.size);
        }
        self.images.push((names.clone(), ids));
        Ok(())
    }

    fn document(&self, digest: &Digest, size: Option<u64>) -> Result<Vec<u8>, String> {
        let bytes = match self.store.blob(digest) {
            Err(e) if e.errno() == Some(libc::ENOENT) => return Err("is missing".into()),
            other => other.map_err(|e| e.what)?,
        };
        match size.filter(|s| *s != bytes.len() as u64) {
            Some(size) => Err(format!("has {} bytes, its manifest says {size}", bytes.len())),
            None => Ok(bytes),
        }
    }

    /// Adds what no image needs: it may be needed again.
    pub fn others(&mut self) -> Result<()> {
        for digest in self.store.digests("layers")? {
            let e = self.layers.entry(digest).or_default();
            if e.place.is_empty() {
                e.place = format!("layer {digest}");
            }
        }
        for digest in self.store.digests("blobs/sha256")? {
            if self.blobs.insert(digest) {
                self.damages.extend(self.blob(&digest, None, &Expected::default(), None)?);
            }
        }
        Ok(())
    }

    /// Checks a blob that is there.
    fn blob(
        &self,
        digest: &Digest,
        size: Option<u64>,
        e: &Expected,
        task: Option<&Task>,
    ) -> Result<Option<Damage>> {
        let what = match self.store.look_at_blob(digest, task) {
            Ok((len, found)) if found == *digest && size.is_none_or(|s| s == len) => return Ok(None),
            Ok((len, found)) => format!("is damaged: its {len} bytes have the digest {found}"),
            Err(e) => e.to_string(),
        };
        let place =
            if e.place.is_empty() { format!("blob {digest}") } else { format!("{}: blob {digest}", e.place) };
        Ok(Some(damage(Object::Blob(*digest), e.images.iter().cloned(), place, what)))
    }

    /// Checks all layers, and with `keep` returns for the damaged ones what their blobs make, below `layer/`.
    pub fn layers(&mut self, keep: bool) -> Result<BTreeMap<Digest, Work>> {
        let todo: Vec<_> = self.layers.iter().collect();
        let done = Mutex::new((BTreeMap::new(), Vec::new()));
        in_parallel(&todo, 2, |(id, expected)| {
            let (damages, work) = self.layer(id, expected)?;
            let mut done = locked(&done);
            if let Some(work) =
                work.filter(|_| keep && damages.iter().any(|d| d.object == Object::Layer(**id)))
            {
                done.0.insert(**id, work);
            }
            done.1.extend(damages);
            Ok(())
        })?;
        let (works, mut damages) = std::mem::take(&mut *locked(&done));
        damages.sort_by(|a: &Damage, b| (&a.object, &a.place).cmp(&(&b.object, &b.place)));
        self.damages.append(&mut damages);
        Ok(works)
    }

    /// The damages of a layer and of its blobs, and what a blob of it makes.
    fn layer(&self, id: &Digest, e: &Expected) -> Result<(Vec<Damage>, Option<Work>)> {
        // Each blob is hashed, and the last that is whole is read again.
        let there = e.blobs.iter().filter(|b| self.store.blob_path(b.0).exists());
        let sizes: Vec<u64> = there.map(|b| *b.1).collect();
        let guess = sizes.iter().sum::<u64>() + sizes.iter().max().unwrap_or(&0);
        let task = progress::open_task("layer", Some(*id), Some(guess));
        let found = self.look_at(id, e, &task)?;
        task.done(if found.0.is_empty() { "verified" } else { "damaged" });
        Ok(found)
    }

    fn look_at(&self, id: &Digest, e: &Expected, task: &Task) -> Result<(Vec<Damage>, Option<Work>)> {
        let mut damages = Vec::new();
        let (mut blob, mut work) = (None, None);
        for (digest, size) in &e.blobs {
            if !self.store.blob_path(digest).exists() {
                continue; // left out when it was imported
            }
            match self.blob(digest, Some(*size), e, Some(task))? {
                None => blob = Some((digest, *size)),
                damage => damages.extend(damage),
            }
        }
        let mut report = |path: &[u8], what: String| {
            let path = String::from_utf8_lossy(path);
            let place = if path.is_empty() { e.place.clone() } else { format!("{}: {path}", e.place) };
            damages.push(damage(Object::Layer(*id), e.images.iter().cloned(), place, what));
        };
        let meta = match self.store.layer_meta(id) {
            Ok(Some(meta)) => Some(meta),
            Ok(None) => (report(b"", "is missing, or half of it is".into()), None).1,
            Err(e) => (report(b"", e.to_string()), None).1,
        };
        let have = self.store.layer_tree(id);
        let as_image = is_image(&have) || !have.exists() && self.has_images()?;
        let made = match blob {
            None => None,
            Some((digest, size)) => {
                let w = self.store.work()?;
                let made = self.build(&w, id, (*digest, size), as_image, task)?;
                let made = made.map_err(|what| report(b"", what)).ok();
                work = made.is_some().then_some(w);
                made
            }
        };
        let Some(meta) = meta else { return Ok((damages, work)) };
        if let Some(what) = made.as_ref().and_then(|made| differs(&meta, made)) {
            report(b"", what);
        }
        let want = work.as_ref().map(|work| tree_of(work, as_image));
        self.files(&have, want.as_deref(), &meta, &mut report)?;
        Ok((damages, work))
    }

    /// Whether layers of the store are images: one that is gone becomes what the others are.
    fn has_images(&self) -> Result<bool> {
        Ok(self.store.digests("layers")?.iter().any(|id| is_image(&self.store.layer_tree(id))))
    }

    /// Holds a layer's files against what its blob makes, or without one against what is known of them.
    fn files(
        &self,
        have: &Path,
        want: Option<&Path>,
        meta: &LayerMeta,
        report: &mut dyn FnMut(&[u8], String),
    ) -> Result<()> {
        if is_image(have) {
            // The same bytes need no look at what they say.
            if want.is_some_and(|want| is_same(want, have).unwrap_or(false)) {
                return Ok(());
            }
            if let Some(why) = driver::trial(self.store)? {
                let at = have.display().to_string();
                return Err(Error::unsupported(at, format!("is not looked into: {why}")));
            }
        }
        let told = match (view::open_layer(have), want) {
            (Err(e), _) => Err(e),
            (Ok(have), Some(want)) => compare(&view::open_layer(want)?, &have, report),
            (Ok(have), None) => count(meta, &have).map(|what| what.into_iter().for_each(|w| report(b"", w))),
        };
        told.unwrap_or_else(|e| report(b"", e.to_string()));
        Ok(())
    }

    /// Makes a layer of its blob; the inner error says what is wrong with the blob.
    fn build(
        &self,
        work: &Work,
        id: &Digest,
        (blob, size): (Digest, u64),
        is_image: bool,
        task: &Task,
    ) -> Result<Result<LayerMeta, String>> {
        let layer = Layer { name: String::new(), digest: blob, size, diff_id: *id, packing: None };
        match build_layer(work, task.read(self.store.open_blob(&blob)?), &layer, &no_limits(), is_image) {
            Err(e) if is_lack(&e) => Err(e),
            Err(e) => Ok(Err(format!("its blob {blob} makes no layer: {e}"))),
            Ok(meta) => Ok(Ok(meta)),
        }
    }

    /// Checks the fixups that are there, bottom first; with `keep` returns for the damaged ones what they must be, below
    /// `fixup/`. A missing one is made by the next unpack.
    pub fn fixups(&mut self, keep: bool) -> Result<BTreeMap<Digest, Work>> {
        let (mut works, mut seen) = (BTreeMap::new(), BTreeSet::new());
        let mut grown = Grown::default();
        for (names, ids) in self.images.clone() {
            let mut stack = Stack::default();
            for (n, id) in ids.iter().enumerate() {
                // Without this layer nothing can be said of those above; it is a damage itself.
                let Ok(Some(applied)) = self.store.applied(id) else { break };
                let chain = Digest::chain(stack.chain.as_ref(), id);
                let there = self.store.fixup(&chain);
                if !applied.needs.is_empty() && there.exists() && seen.insert(chain) {
                    let place = format!("fixup of layer {} ({chain})", n + 1);
                    let (work, told) = self.fixup(&chain, id, &applied, &stack, &mut grown)?;
                    let damaged = !told.is_empty();
                    self.damages.extend(told.into_iter().map(|(path, what)| {
                        let place = if path.is_empty() { place.clone() } else { format!("{place}: {path}") };
                        damage(Object::Fixup(chain), names.iter().cloned(), place, what)
                    }));
                    if let (true, true, Some(work)) = (damaged, keep, work) {
                        works.insert(chain, work);
                    }
                }
                stack.push(self.store, id, &applied);
            }
        }
        Ok(works)
    }

    #[allow(clippy::type_complexity)] // paths, and what is wrong there
    fn fixup(
        &self,
        chain: &Digest,
        id: &Digest,
        applied: &Applied,
        below: &Stack,
        grown: &mut Grown,
    ) -> Result<(Option<Work>, Vec<(String, String)>)> {
        let work = self.store.work()?;
        match build_fixup(self.store, &work, id, applied, below, grown) {
            Err(e) if is_lack(&e) => return Err(e),
            Err(e) => return Ok((None, vec![(String::new(), e.to_string())])),
            Ok(()) => {}
        }
        let (want, have) = (work.path.join("fixup/fs"), self.store.fixup(chain).join("fs"));
        let mut told = Vec::new();
        match (want.exists(), have.exists()) {
            (false, false) => {}
            (true, true) => {
                let mut report = |path: &[u8], what: String| {
                    // Directories of its own have the time when it was made.
                    if !what.starts_with("has the time") {
                        told.push((String::from_utf8_lossy(path).into_owned(), what));
                    }
                };
                let compared = compare(&view::open(&want)?, &view::open(&have)?, &mut report);
                if let Err(e) = compared {
                    told.push((String::new(), e.to_string()));
                }
            }
            (is_wanted, _) => {
                let what = if is_wanted { "has lost its files" } else { "has files that it needs not" };
                told.push((String::new(), what.into()));
            }
        }
        Ok((Some(work), told))
    }
}

/// Whether two files hold the same.
fn is_same(a: &Path, b: &Path) -> std::io::Result<bool> {
    Ok(difference(File::open(a)?, File::open(b)?)?.is_none())
}

/// A lack of ours, that says nothing of the store.
pub fn is_lack(e: &Error) -> bool {
    let lacks = [libc::ENOSPC, libc::EDQUOT, libc::EROFS, libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    e.errno().is_some_and(|e| lacks.contains(&e))
}

/// What `meta` says wrongly of a layer.
fn differs(have: &LayerMeta, want: &LayerMeta) -> Option<String> {
    let (a, b) = (&have.applied, &want.applied);
    let same = have.diff_size == want.diff_size && a == b && have.tree.is_none_or(|t| Some(t) == want.tree);
    (!same).then(|| {
        let text = |m: &LayerMeta| format!("{} entries and {} bytes", m.applied.entries, m.applied.bytes);
        format!("its meta is damaged: says {}, its blob has {}", text(have), text(want))
    })
}

/// Without a blob: as many names and bytes as there were.
pub(super) fn count(meta: &LayerMeta, have: &std::os::fd::OwnedFd) -> Result<Option<String>> {
    let Some(told) = meta.tree else { return Ok(None) };
    let found = Usage::of(have, &mut Met::new())?.told();
    Ok((found != told).then(|| {
        let (n, b) = (found.names, found.bytes);
        format!("has {n} names and {b} bytes of files, its meta says {} and {}", told.names, told.bytes)
    }))
}
