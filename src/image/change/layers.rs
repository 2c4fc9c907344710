//! Layers of an image: new ones on top, several made one, one left out, all of them on another base.

use super::edit::{Edit, Part, is_empty};
use super::left;
use crate::bundle::Overlay;
use crate::error::{Error, Kind, Result};
use crate::image::archive::{Files, Piece, inside};
use crate::image::bundle;
use crate::image::digest::Digest;
use crate::image::driver::Form;
use crate::image::import::{add_one, fixups};
use crate::image::layer::compress::{Packing, through};
use crate::image::layer::pack::{Pack, Packed};
use crate::image::layer::write::{Tree, write, write_linked};
use crate::image::limits::Limits;
use crate::image::made::Made;
use crate::image::manifest::Layer;
use crate::image::mounts;
use crate::image::progress::{self, Task};
use crate::image::rights::Rights;
use crate::image::stack::{self, Stack};
use crate::image::store::{BundleRef, Store, Work};
use crate::image::view::{self, Opened, View};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What the store and the bundle say of a bundle.
pub fn record_of(store: &Store, bundle: &Path) -> Result<(BundleRef, Overlay)> {
    let (rootfs, overlay) = bundle::settled(bundle)?;
    let path = rootfs.parent().unwrap_or(&rootfs);
    let at = bundle.display().to_string();
    let record = mounts::record(store, path, &overlay)?;
    let record = record.ok_or_else(|| Error::new(Kind::NotFound, at, "is not a bundle of this store"))?;
    Ok((record, overlay))
}

/// What a new layer's history says.
pub struct Note<'a> {
    pub message: Option<&'a str>,
    pub author: Option<&'a str>,
    pub packing: Packing,
    pub limits: &'a Limits,
}

/// How a new layer is packed, what form it gets in the store, and what it may cost.
type How<'a> = (Packing, Form, &'a Limits);

/// The upper directory of a bundle as a layer on its image.
pub fn commit(store: &Store, bundle: &Path, name: &str, note: &Note) -> Result<Made> {
    store.may_name(name, None)?;
    let at = bundle.display().to_string();
    let (record, overlay) = record_of(store, bundle)?;
    let upper = overlay.upper.ok_or_else(|| {
        Error::new(Kind::WrongState, &at, "has a read-only rootfs, which nothing can change")
    })?;
    let edit = Edit::of(store, at.clone(), record.manifest)?;
    let root = Rc::new(view::open(Path::new(&upper))?);
    let view = View { layers: vec![root.clone()] };
    let (times, limits) = (edit.times, note.limits);
    let tree = Tree { view: &view, root: Some(&*root), opaque: false, below: None, times, limits };
    let how = (note.packing, edit.form(store), limits);
    let task = progress::open_task("commit", Some(edit.digest), None);
    let part = new_layer(store, how, &task, |out| write(&tree, out).map(drop)).map_err(|e| inside(&at, e))?;
    let mut edit = edit;
    let mut history = edit.history();
    let mut entry = edit.entry("orlop imgtool commit", note.message, true);
    if let Some(author) = note.author {
        entry["author"] = author.into();
        edit.config.insert("author".into(), author.into());
    }
    history.push(entry);
    edit.parts.push(part);
    finish(store, edit, name, history)
}

/// A directory or an archive as a layer on the image.
pub fn append(store: &Store, image: &str, source: &Path, name: &str, note: &Note) -> Result<Made> {
    store.may_name(name, None)?;
    let mut edit = Edit::open(store, image)?;
    let at = source.display().to_string();
    let how = (note.packing, edit.form(store), note.limits);
    let part = if source.is_dir() {
        let view = View { layers: vec![Rc::new(view::open(source)?)] };
        // The image's root keeps its metadata: the directory only holds what is to be added.
        let (below, times, limits) = (None, edit.times, note.limits);
        let tree = Tree { view: &view, root: None, opaque: false, below, times, limits };
        let task = progress::open_task("append", Some(edit.digest), None);
        new_layer(store, how, &task, |out| write(&tree, out).map(drop))
    } else {
        archive(store, source, how, &edit.digest)
    };
    let mut history = edit.history();
    history.push(edit.entry("orlop imgtool append", note.message, true));
    edit.parts.push(part.map_err(|e| inside(&at, e))?);
    finish(store, edit, name, history)
}

/// An archive stays what it is; a plain one is packed.
fn archive(store: &Store, source: &Path, (packing, form, limits): How, image: &Digest) -> Result<Part> {
    let io = |what: &'static str| move |e: std::io::Error| Error::io("", what, &e);
    if !std::fs::metadata(source).map_err(io("stat"))?.is_file() {
        return Err(Error::invalid("", "is neither a directory nor a regular file"));
    }
    let mut file = File::open(source).and_then(Piece::whole).map_err(io("open"))?;
    if file.packing()? == Packing::Plain {
        let task = progress::task("append", image, file.size());
        let copy = |out: &mut dyn Write| std::io::copy(&mut file, out).map(drop).map_err(io("pack"));
        return new_layer(store, (packing, form, limits), &task, copy);
    }
    let work = store.work()?;
    let path = work.path.join("blob");
    let mut copy = File::create_new(&path).map_err(io("copy"))?;
    let size = std::io::copy(&mut file, &mut copy).map_err(io("copy"))?;
    let (seen, ()) = through(File::open(&path).map_err(io("open"))?, size, limits, |_| Ok(()))?;
    let (digest, diff_id) = (seen.digest, seen.diff_id);
    let packed = Packed { packing: seen.packing, digest, size, diff_id, diff_size: seen.diff_size };
    add(store, &work, &packed, (form, limits))
}

/// Makes a layer of a tar stream, and puts it into the store as an import would.
fn new_layer(
    store: &Store,
    (packing, form, limits): How,
    task: &Task,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<Part> {
    let work = store.work()?;
    let path = work.path.join("blob");
    let file = File::create_new(&path).map_err(|e| Error::io(path.display().to_string(), "make", &e))?;
    let mut pack = Pack::new(BufWriter::with_capacity(128 << 10, file), packing)?;
    fill(&mut task.write(&mut pack))?;
    let (_, packed) = pack.finish()?;
    task.done("made");
    add(store, &work, &packed, (form, limits))
}

/// Takes `blob` of the work directory in by the same way as a layer of a foreign image, and under the same limits: others
/// are to take it too. But it may be packed well.
fn add(store: &Store, work: &Work, packed: &Packed, (form, limits): (Form, &Limits)) -> Result<Part> {
    let limits = Limits { ratio: u64::MAX, ..limits.clone() };
    let layer = Layer {
        name: "blob".into(),
        digest: packed.digest,
        size: packed.size,
        diff_id: packed.diff_id,
        packing: Some(packed.packing),
    };
    add_one(store, &Files::open(&work.path, store, &limits)?, &layer, &limits, form)?;
    store.commit(&[(work, "blob", &store.blob_path(&packed.digest))])?;
    Ok(Part::new(packed))
}

/// Settles what the layers leave to each other in their new order, and names the image.
fn finish(store: &Store, edit: Edit, name: &str, history: Vec<serde_json::Value>) -> Result<Made> {
    fixups(store, &edit.ids())?;
    edit.save(store, name, history)
}

/// One layer for those from `from` to `to`, counted from 1, the lowest.
pub fn squash(
    store: &Store,
    image: &str,
    (from, to): (Option<&str>, Option<&str>),
    name: &str,
    note: &Note,
) -> Result<Made> {
    store.may_name(name, None)?;
    let mut edit = Edit::open(store, image)?;
    let first = edit.place(from.unwrap_or("1"))?;
    let last = to.map_or(Ok(edit.parts.len().saturating_sub(1)), |to| edit.place(to))?;
    if first > last {
        return Err(Error::invalid("--from", format!("{} is above --to {}", first + 1, last + 1)));
    }
    let part = squashed(store, &edit, first, last, note)?;
    let mut history = edit.history();
    let entries = Edit::entries(&history);
    // What the layers were is still told, as of docker build --squash.
    entries[first..=last].iter().for_each(|n| history[*n]["empty_layer"] = true.into());
    let by = format!("orlop imgtool squash --from {} --to {}", first + 1, last + 1);
    history.insert(entries[last] + 1, edit.entry(&by, note.message, true));
    edit.parts.splice(first..=last, [part]);
    finish(store, edit, name, history)
}

fn squashed(store: &Store, edit: &Edit, first: usize, last: usize, note: &Note) -> Result<Part> {
    let ids = edit.ids();
    fixups(store, &ids[..=last])?;
    let (mut stack, mut opened) = (Stack::of(store, &ids[..first])?, Opened::default());
    let below = opened.view(&stack.lowers)?;
    // On the same chain: the fixups are those of the image.
    stack.lowers.clear();
    stack.root = None;
    let (mut opaque, mut skipped, mut links, mut size) = (false, 0, Vec::new(), 0);
    for id in &ids[first..=last] {
        let meta = stack::meta(store, id)?;
        opaque |= meta.applied.opaque;
        skipped += meta.applied.skipped;
        size += meta.diff_size;
        stack.push(store, id, &meta.applied);
        links.extend(meta.applied.needs.links);
    }
    if skipped > 0 || !Rights::ours().owners {
        let what = "is made of files without the owners and devices that only root can give them";
        tracing::warn!("{}: the squashed layer {what}", edit.name);
    }
    let view = opened.view(&stack.lowers)?;
    let root = stack.root.as_deref().map(|root| opened.layer(root)).transpose()?;
    let at_fixups = |l: &PathBuf| l.starts_with(store.dir().join("fixups"));
    let fixups: Vec<usize> = (0..stack.lowers.len()).filter(|n| at_fixups(&stack.lowers[*n])).collect();
    let left = left::to_below(&view, &below, &fixups, &links)?;
    let (root, below, limits) = (root.as_deref(), Some(&below), note.limits);
    let tree = Tree { view: &view, root, opaque, below, times: edit.times, limits };
    let task = progress::open_task("squash", Some(edit.digest), Some(size));
    let how = (note.packing, edit.form(store), limits);
    new_layer(store, how, &task, |out| write_linked(&tree, &left, out).map(drop))
}

/// The image without one of its layers.
pub fn remove(store: &Store, image: &str, layer: &str, name: &str) -> Result<Made> {
    store.may_name(name, None)?;
    let mut edit = Edit::open(store, image)?;
    let place = edit.place(layer)?;
    if edit.parts.len() == 1 {
        return Err(Error::invalid(image, "has no other layer"));
    }
    let mut history = edit.history();
    history.remove(Edit::entries(&history)[place]);
    history.push(edit.entry(&format!("orlop imgtool rm-layer {}", place + 1), None, false));
    edit.parts.remove(place);
    finish(store, edit, name, history)
}

const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// The layers above the base `old` of the image, on the image `onto`.
pub fn rebase(store: &Store, image: &str, onto: &str, old: Option<&str>, name: &str) -> Result<Made> {
    store.may_name(name, None)?;
    let mut edit = Edit::open(store, image)?;
    let new = Edit::open(store, onto)?;
    let old = base(store, &edit, old)?;
    for key in ["os", "architecture"] {
        if edit.config.get(key) != new.config.get(key) {
            return Err(Error::invalid(onto, format!("has not the {key} of {image}")));
        }
    }
    let count = old.parts.len();
    if let Some(n) = (0..count).find(|n| edit.parts.get(*n).map(|p| p.diff_id) != Some(old.parts[*n].diff_id))
    {
        let what = format!("is not the base of {image}: layer {} is another", n + 1);
        return Err(Error::invalid(&old.name, what));
    }
    let (own, of_old) = (edit.history(), old.history());
    let skip = match own.starts_with(&of_old) {
        true => of_old.len(),
        false => Edit::entries(&own).get(count.wrapping_sub(1)).map_or(0, |n| n + 1),
    };
    let mut history = new.history();
    history.extend_from_slice(&own[skip..]);
    history.push(edit.entry(&format!("orlop imgtool rebase --onto {onto}"), None, false));
    let mut annotations = edit.annotations.take().unwrap_or_else(|| json!({}));
    annotations[BASE_NAME] = new.name.as_str().into();
    annotations[BASE_DIGEST] = new.digest.to_string().into();
    edit.annotations = Some(annotations);
    edit.parts = new.parts.into_iter().chain(edit.parts.split_off(count)).collect();
    debug_assert_eq!(history.iter().filter(|e| !is_empty(e)).count(), edit.parts.len());
    finish(store, edit, name, history)
}

/// The base of an image: the one that is given, or the one that it names itself.
fn base(store: &Store, edit: &Edit, given: Option<&str>) -> Result<Edit> {
    if let Some(word) = given {
        return Edit::open(store, word);
    }
    let said = |key: &str| edit.annotations.as_ref().and_then(|a| a[key].as_str());
    let found =
        [said(BASE_DIGEST), said(BASE_NAME)].into_iter().flatten().find_map(|w| Edit::open(store, w).ok());
    found.ok_or_else(|| {
        Error::new(Kind::NotFound, &edit.name, "names no base that is in the store")
            .hint("give it with --base")
    })
}
