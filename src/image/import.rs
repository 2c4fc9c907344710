//! A source's images into the store: layers side by side, then what each needs of those below it, then the names.

use super::archive::{Files, inside};
use super::blobs::Kept;
use super::digest::Digest;
use super::driver::{self, Form};
use super::erofs::image::Image as Erofs;
use super::layer::apply::{Applied, apply};
use super::layer::compress::{Seen, other_blob, through_named};
use super::layer::files;
use super::layout::{Image, images};
use super::limits::Limits;
use super::locks::NameLock;
use super::manifest::Layer;
use super::merged::Merged;
use super::platform::Platform;
use super::progress::Task;
use super::stack::{self, Stack, is_image};
use super::store::{LayerMeta, Store, Work};
use super::tree::Usage;
use super::view::{Opened, View};
use super::{fixup, progress, view};
use crate::bundle::MAX_LOWERS;
use crate::error::{Error, Kind, Result};
use std::collections::HashSet;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

/// What to import, and as what.
pub struct Order<'a> {
    pub source: &'a Path,
    pub name: Option<&'a str>,
    pub platform: Platform,
    pub limits: Limits,
    /// Keep the blobs of layers, for `export`.
    pub blobs: bool,
    pub form: Form,
}

/// Imports; the names with their manifests.
pub fn import(store: &Store, order: &Order) -> Result<Vec<(String, Digest)>> {
    take(store, &Files::open(order.source, store, &order.limits)?, order)
}

/// As [`import`], of what is open.
pub fn take(store: &Store, files: &Files, order: &Order) -> Result<Vec<(String, Digest)>> {
    let source = order.source.display().to_string();
    let found = images(files, &order.platform, &order.limits, order.name).map_err(|e| inside(&source, e))?;
    let named = name(found, order)?;
    // Before the work: a name may come from an annotation or a file. That of a pull was looked at by it: its digest may be
    // that of an index.
    if !matches!(files, Files::Remote(_)) {
        for (names, image) in &named {
            let digest = Digest::of(&image.manifest);
            names.iter().try_for_each(|n| store.may_name(n, Some(&digest)))?;
        }
    }
    let mut out = Vec::new();
    let images = driver::images(store, order.form)?;
    let how = How { limits: &order.limits, blobs: order.blobs, images };
    let several = named.len() > 1;
    for (names, image) in named {
        let at = match names.first().filter(|_| several) {
            Some(name) => format!("{source}: image {name:?}"),
            None => source.clone(),
        };
        add(store, files, &image, &how).map_err(|e| inside(&at, e))?;
        store.put_blob(&image.config)?;
        let digest = store.put_blob(&image.manifest)?;
        for name in names {
            store.set_ref(&name, &digest)?;
            out.push((name, digest));
        }
    }
    Ok(out)
}

/// Chooses the images and their names.
fn name(found: Vec<Image>, order: &Order) -> Result<Vec<(Vec<String>, Image)>> {
    let at = order.source.display().to_string();
    if let Some(wanted) = order.name {
        let count = found.len();
        let all: Vec<String> = found.iter().flat_map(|i| i.names.clone()).collect();
        let mut found = found;
        let place = match found.iter().position(|i| i.names.iter().any(|n| n == wanted)) {
            Some(n) => n,
            None if count == 1 => 0,
            None => {
                let what = format!("has {count} images, none of the name {wanted:?}: {}", all.join(", "));
                return Err(Error::new(Kind::NotFound, at, what));
            }
        };
        return Ok(vec![(vec![wanted.to_string()], found.swap_remove(place))]);
    }
    let single = found.len() == 1;
    let stem = order.source.file_stem().and_then(|s| s.to_str()).filter(|s| *s != "-");
    let named = |image: Image| match (&image.names[..], stem) {
        ([], Some(stem)) if single => Ok((vec![stem.to_string()], image)),
        ([], _) => {
            Err(Error::invalid(&at, "has an image without a name").hint("give a name behind the source"))
        }
        _ => Ok((image.names.clone(), image)),
    };
    found.into_iter().map(named).collect()
}

/// How layers are made.
struct How<'a> {
    limits: &'a Limits,
    /// Keep their blobs.
    blobs: bool,
    /// As EROFS images.
    images: bool,
}

/// Layers and fixups of an image.
fn add(store: &Store, files: &Files, image: &Image, how: &How) -> Result<()> {
    // All of it is looked for first: an image with a missing blob is refused even when its layers are there.
    for layer in &image.layers {
        let at = format!("layer {}", layer.digest);
        let piece = files.need(&layer.name).map_err(|e| inside(&at, e))?;
        if piece.size() != layer.size {
            let what = format!("has {} bytes, its descriptor says {}", piece.size(), layer.size);
            return Err(Error::invalid(at, what));
        }
    }
    let ready = Ready::default();
    let mut seen = HashSet::new();
    let mut todo: Vec<&Layer> =
        image.layers.iter().filter(|l| seen.insert((l.diff_id, how.blobs.then_some(l.digest)))).collect();
    todo.sort_by_key(|l| std::cmp::Reverse(l.size)); // the longest first, or it ends alone
    // What comes over a network waits more than it works.
    let least = if matches!(files, Files::Remote(_)) { 4 } else { 2 };
    in_parallel(&todo, least, |layer| {
        add_layer(store, files, layer, how, &ready).map_err(|e| inside(&format!("layer {}", layer.digest), e))
    })?;
    let ids: Vec<Digest> = image.layers.iter().map(|l| l.diff_id).collect();
    fixups(store, &ids).map(drop)
}

/// Locks, whatever became of who had the lock: that it is poisoned only means that another thread panicked.
pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|p| p.into_inner())
}

/// Runs `job` on all, on as many threads as there are processors, but on `least` at least and on four at most: each may
/// hold a window of 8 MiB. The first error stops the rest.
pub fn in_parallel<T: Sync>(todo: &[T], least: usize, job: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(least, 4).min(todo.len());
    let work = || {
        while let Some(item) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(e) = job(item) {
                next.store(todo.len(), Ordering::Relaxed);
                locked(&failed).get_or_insert(e);
            }
        }
    };
    std::thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(work))));
    locked(&failed).take().map_or(Ok(()), Err)
}

/// What is made but not yet durable: names in a work directory, and those they get.
struct Made {
    work: Work,
    _lock: NameLock,
    moves: Vec<(&'static str, PathBuf)>,
    task: Task,
}

/// Layers that are made but not yet durable. Whoever finds nobody at it makes all of them durable at once; the others
/// go on with their next layer, for syncfs(2) is slow on a busy disk.
#[derive(Default)]
struct Ready {
    layers: Mutex<Vec<Made>>,
    turn: Mutex<()>,
}

impl Ready {
    fn push(&self, store: &Store, layer: Made) -> Result<()> {
        let queue = || locked(&self.layers);
        queue().push(layer);
        // Asked again after each turn: no layer stays behind with its lock, for which another import may wait while
        // we wait for one of its own.
        while !queue().is_empty() {
            let Ok(_turn) = self.turn.try_lock() else { break };
            let batch = std::mem::take(&mut *queue());
            let moves: Vec<_> = batch
                .iter()
                .flat_map(|m| m.moves.iter().map(|(n, to)| (&m.work, *n, to.as_path())))
                .collect();
            store.commit(&moves)?;
            batch.iter().for_each(|made| made.task.done("imported"));
        }
        Ok(())
    }
}

/// Adds the layer whose blob is in `files`, unless it is there; the blob is for the caller to keep.
pub fn add_one(store: &Store, files: &Files, layer: &Layer, limits: &Limits, form: Form) -> Result<()> {
    let images = driver::images(store, form)?;
    add_layer(store, files, layer, &How { limits, blobs: false, images }, &Ready::default())
        .map_err(|e| inside(&format!("layer {}", layer.digest), e))
}

fn add_layer(store: &Store, files: &Files, layer: &Layer, how: &How, ready: &Ready) -> Result<()> {
    let missing = || {
        let blob = how.blobs && !store.has_blob(&layer.digest, layer.size);
        (!store.has_layer(&layer.diff_id), blob)
    };
    let task = progress::task("layer", &layer.digest, layer.size);
    if missing() == (false, false) {
        task.done("exists");
        return Ok(());
    }
    let lock = store.lock(&layer.diff_id.hex())?;
    let (tree, blob) = missing();
    if !tree && !blob {
        task.done("exists"); // made while we waited
        return Ok(());
    }
    let work = store.work()?;
    let mut moves = Vec::new();
    let mut source = Kept::new(files.need(&layer.name)?);
    if blob {
        source = source.keep(&work.path.join("blob"))?;
    }
    let source = task.read(source);
    if tree {
        // One that was damaged keeps its form, to which its fixups fit.
        let damaged = store.layer_tree(&layer.diff_id);
        let as_image = if damaged.exists() { is_image(&damaged) } else { how.images };
        build_layer(&work, source, layer, how.limits, as_image)?;
        moves.push(("layer", store.layer(&layer.diff_id)));
    } else {
        let (seen, ()) = through_named(source, (layer.size, &layer.digest), how.limits, |_| Ok(()))?;
        is_as_said(&seen, layer)?;
    }
    if blob {
        // Last: a pull that ends before it goes on from what it kept of this blob, which is nobody else's until then.
        moves.push(("blob", store.blob_path(&layer.digest)));
    }
    ready.push(store, Made { work, _lock: lock, moves, task })
}

/// Whether a blob was what the manifest and the configuration say of it.
pub fn is_as_said(seen: &Seen, layer: &Layer) -> Result<()> {
    if (seen.size, seen.digest) != (layer.size, layer.digest) {
        return Err(other_blob(seen.size, &seen.digest));
    }
    if seen.diff_id != layer.diff_id {
        return Err(Error::invalid(
            "",
            format!("has the diffID {}, expected {}", seen.diff_id, layer.diff_id),
        ));
    }
    if layer.packing.is_some_and(|p| p != seen.packing) {
        let what = format!("is packed as {}, which is not its media type", seen.packing.name());
        return Err(Error::invalid("", what));
    }
    Ok(())
}

/// Makes `layer/` in a work directory of a blob, which is checked against what is said of it; as an EROFS image when
/// `is_image`.
pub fn build_layer(
    work: &Work,
    blob: impl Read + Send,
    layer: &Layer,
    limits: &Limits,
    is_image: bool,
) -> Result<LayerMeta> {
    work.make("layer", 0o700)?;
    let path = tree_of(work, is_image);
    let (seen, (applied, told)) = through_named(blob, (layer.size, &layer.digest), limits, |stream| {
        if !is_image {
            let (applied, _) = apply(stream, files::Files::new(work.make("layer/fs", 0o755)?), limits)?;
            return Ok((applied, Usage::of(&view::open(&path)?, &mut HashSet::new())?.told()));
        }
        let (applied, image) = apply(stream, new_image(work, &layer.diff_id)?, limits)?;
        Ok((applied, image.told()))
    })?;
    is_as_said(&seen, layer)?;
    if applied.skipped > 0 {
        tracing::warn!(
            "layer {}: {} device nodes were left out, only root can make them",
            layer.digest,
            applied.skipped
        );
    }
    let meta = LayerMeta {
        applied,
        diff_size: seen.diff_size,
        blob: seen.digest,
        blob_size: seen.size,
        compression: seen.packing.name().into(),
        tree: Some(told),
    };
    write_meta(work, &meta)?;
    Ok(meta)
}

/// Writes `layer/meta` of a work directory.
pub fn write_meta(work: &Work, meta: &LayerMeta) -> Result<()> {
    let text = serde_json::to_vec(meta).map_err(|e| Error::invalid("meta", e.to_string()))?;
    let path = work.path.join("layer/meta");
    std::fs::write(&path, text).map_err(|e| Error::io(path.display().to_string(), "write", &e))
}

/// An empty image in `layer/` of a work directory.
pub fn new_image(work: &Work, diff_id: &Digest) -> Result<Erofs> {
    let path = tree_of(work, true);
    let file = std::fs::File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = file.map_err(|e| Error::io(path.display().to_string(), "make", &e))?;
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&diff_id.bytes()[..16]);
    Ok(Erofs::new(file, uuid))
}

/// What [`build_layer`] made.
pub fn tree_of(work: &Work, is_image: bool) -> PathBuf {
    work.path.join(if is_image { "layer/erofs" } else { "layer/fs" })
}

/// What is open and known of the layers below, from one fixup to the next.
#[derive(Default)]
pub struct Grown {
    opened: Opened,
    merged: Merged,
}

/// Makes the missing fixups of a stack, bottom first: each is part of what the next one looks at. The whole stack.
pub fn fixups(store: &Store, diff_ids: &[Digest]) -> Result<Stack> {
    let (mut stack, mut grown) = (Stack::default(), Grown::default());
    for id in diff_ids {
        let applied = stack::applied(store, id)?;
        // Too tall a stack is never mounted, unless an opaque layer hides it: its fixups would take hours.
        if !applied.needs.is_empty() && stack.lowers.len() < MAX_LOWERS {
            ensure_fixup(store, id, &applied, &stack, &mut grown)?;
        }
        stack.push(store, id, &applied);
    }
    Ok(stack)
}

/// Makes the fixup of a layer unless it is there.
fn ensure_fixup(
    store: &Store,
    id: &Digest,
    applied: &Applied,
    below: &Stack,
    grown: &mut Grown,
) -> Result<()> {
    let chain = Digest::chain(below.chain.as_ref(), id);
    let target = store.fixup(&chain);
    if target.exists() {
        return Ok(());
    }
    let _lock = store.lock(&format!("{}.fixup", chain.hex()))?;
    if target.exists() {
        return Ok(()); // made while we waited
    }
    let work = store.work()?;
    build_fixup(store, &work, id, applied, below, grown)?;
    store.commit(&[(&work, "fixup", &target)])
}

/// Makes `fixup/` of a layer in a work directory; without `fs` when there is nothing to settle.
pub fn build_fixup(
    store: &Store,
    work: &Work,
    id: &Digest,
    applied: &Applied,
    below: &Stack,
    grown: &mut Grown,
) -> Result<()> {
    let Grown { opened, merged } = grown;
    let below = if applied.opaque { View::default() } else { opened.view(&below.lowers)? };
    merged.show(&below.layers);
    work.make("fixup", 0o700)?;
    let out = work.make("fixup/fs", 0o755)?;
    let layer = opened.layer(&store.layer_tree(id))?;
    if !fixup::build(out, layer, merged, &applied.needs).map_err(|e| inside(&format!("layer {id}"), e))? {
        let fs = work.path.join("fixup/fs");
        std::fs::remove_dir(&fs).map_err(|e| Error::io(fs.display().to_string(), "remove", &e))?;
    }
    Ok(())
}
