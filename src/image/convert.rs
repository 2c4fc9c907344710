//! Layers of the store from one form to the other: made anew of their blobs or, where none was kept, of their files, and
//! exchanged at once, so that a kill leaves one form or the other.

use super::archive::inside;
use super::blobs::no_limits;
use super::collect::is_gone;
use super::digest::Digest;
use super::driver::{self, Form};
use super::import::{build_layer, fixups, in_parallel, new_image, tree_of, write_meta};
use super::layer::files::Files;
use super::layer::pour::pour;
use super::manifest::Layer;
use super::names::about;
use super::progress::{self, Task};
use super::stack::{self, is_image};
use super::store::{LayerMeta, Store, Work, sync_parent};
use super::tree::compare;
use super::verify::{count, is_lack};
use super::{bundle, mounts, view};
use crate::error::{Error, Result, clean};
use rustix::fs::{CWD, RenameFlags, renameat_with, syncfs};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;

/// What became of a layer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    #[serde(rename = "diffID")]
    pub diff_id: Digest,
    /// What it has now.
    pub form: &'static str,
    /// `converted`, `exists` where it had the form, `kept` for a bundle.
    pub result: &'static str,
    pub bundle: Option<PathBuf>,
}

impl Done {
    /// For people.
    pub fn line(&self) -> String {
        let why =
            self.bundle.as_ref().map(|b| format!(", bundle {} uses it", clean(&b.display().to_string())));
        format!("{}: {}: {}{}\n", self.diff_id, self.form, self.result, why.unwrap_or_default())
    }
}

/// Gives the layers of these images, or all that are in the store, this form. The store is locked exclusively: nobody
/// reads them meanwhile but through the mounts of bundles.
pub fn convert(store: &Store, images: &[String], form: Form) -> Result<Vec<Done>> {
    let to_images = driver::images(store, form)?;
    let mut wanted = BTreeSet::new();
    for image in images {
        let digest = store.find(image)?.1;
        wanted.extend(about(image, bundle::load(store, &digest))?.1);
    }
    if images.is_empty() {
        wanted = store.digests("layers")?;
    }
    let used = in_use(store)?;
    let has_form = |id: &Digest| is_image(&store.layer_tree(id)) == to_images;
    let todo: BTreeSet<Digest> =
        wanted.iter().filter(|id| !has_form(id) && !used.contains_key(id)).copied().collect();
    let stacks = if todo.is_empty() { Vec::new() } else { forget_fixups(store, &todo)? };
    let all: Vec<&Digest> = todo.iter().collect();
    in_parallel(&all, 2, |id| one(store, id, to_images).map_err(|e| inside(&format!("layer {id}"), e)))?;
    for ids in stacks {
        let _ = fixups(store, &ids); // what fails here fails where they are needed, and is told there
    }
    let done = |id: Digest| {
        let (result, bundle) = match (todo.contains(&id), has_form(&id)) {
            (true, _) => ("converted", None),
            (_, true) => ("exists", None),
            _ => ("kept", used.get(&id).cloned()),
        };
        let form = if is_image(&store.layer_tree(&id)) { "erofs" } else { "dir" };
        Done { diff_id: id, form, result, bundle }
    };
    Ok(wanted.into_iter().map(done).collect())
}

/// The layers of bundles, mounted or not: their `overlay.json` has the paths.
fn in_use(store: &Store) -> Result<BTreeMap<Digest, PathBuf>> {
    mounts::record_mounted(store); // one that was moved
    let mut out = BTreeMap::new();
    for (_, record) in store.bundles()?.into_iter().filter(|b| !is_gone(&b.1)) {
        let ids = bundle::load(store, &record.manifest)?.1;
        out.extend(ids.into_iter().map(|id| (id, record.path.clone())));
    }
    Ok(out)
}

/// Removes the fixups of stacks that have one of these layers, and returns the stacks. A fixup has links to files of
/// layers that are directories and copies of those in images; a missing one is made again by who needs it.
fn forget_fixups(store: &Store, todo: &BTreeSet<Digest>) -> Result<Vec<Vec<Digest>>> {
    let mut roots: BTreeSet<Digest> = store.refs()?.into_iter().map(|r| r.1).collect();
    roots.extend(store.logged(usize::MAX)?);
    roots.extend(store.bundles()?.into_iter().map(|b| b.1.manifest));
    let (mut keep, mut stacks) = (BTreeSet::new(), Vec::new());
    // An image whose documents are damaged has no layers that anybody knows.
    for ids in roots.iter().filter_map(|root| bundle::load(store, root).ok()).map(|l| l.1) {
        let mut chain = None;
        for id in ids.iter().take_while(|id| !todo.contains(id)) {
            let next = Digest::chain(chain.as_ref(), id);
            keep.insert(next.hex());
            chain = Some(next);
        }
        if ids.iter().any(|id| todo.contains(id)) {
            stacks.push(ids);
        }
    }
    store.sweep("fixups", &keep)?;
    Ok(stacks)
}

fn one(store: &Store, id: &Digest, to_image: bool) -> Result<()> {
    let meta = stack::meta(store, id)?;
    let has_blob = store.has_blob(&meta.blob, meta.blob_size);
    let size = if has_blob { meta.blob_size } else { meta.applied.bytes };
    let task = progress::open_task("layer", Some(*id), Some(size));
    let work = store.work()?;
    if has_blob {
        let (digest, size) = (meta.blob, meta.blob_size);
        let layer = Layer { name: String::new(), digest, size, diff_id: *id, packing: None };
        build_layer(&work, task.read(store.open_blob(&digest)?), &layer, &no_limits(), to_image)
            .map_err(|e| if is_lack(&e) { e } else { e.hint("run orlop imgtool fsck") })?;
    } else {
        of_files(store, &work, id, &meta, to_image, &task)?;
    }
    let place = store.layer(id);
    let os = |call: &'static str| {
        let at = place.display().to_string();
        move |e: rustix::io::Errno| Error::os(at, call, e.raw_os_error())
    };
    syncfs(&work.fd).map_err(os("syncfs"))?;
    // Never by removing the old one first: without a blob there is no other.
    renameat_with(CWD, work.path.join("layer"), CWD, &place, RenameFlags::EXCHANGE)
        .map_err(os("exchange by renameat2"))?;
    sync_parent(&place)?;
    task.done("converted");
    Ok(())
}

/// Makes `layer/` in a work directory of the layer's files, and looks whether it has the same.
fn of_files(
    store: &Store,
    work: &Work,
    id: &Digest,
    meta: &LayerMeta,
    to_image: bool,
    task: &Task,
) -> Result<()> {
    let from = Rc::new(view::open_layer(&store.layer_tree(id))?);
    work.make("layer", 0o700)?;
    match to_image {
        true => pour(from.clone(), &mut new_image(work, id)?, task)?,
        false => pour(from.clone(), &mut Files::new(work.make("layer/fs", 0o755)?), task)?,
    }
    let made = view::open_layer(&tree_of(work, to_image))?;
    let mut wrong = count(meta, &made)?;
    compare(&from, &made, &mut |path, what| {
        // Labels are the host's: a mount has others than a directory.
        if !what.contains(" security.selinux ") {
            wrong.get_or_insert_with(|| format!("{}: {what}", String::from_utf8_lossy(path)));
        }
    })?;
    match wrong {
        Some(wrong) => Err(Error::invalid("", wrong).hint("import the image again, with its blobs")),
        None => write_meta(work, meta),
    }
}
