//! What fits the machine: the form of layers, and how they become a rootfs.
//!
//! The kernel's overlayfs comes first, then fuse-overlayfs, then a copy: each next one costs more. What of overlayfs is
//! asked for, whatever the kernel was built to do by itself:
//!
//! - `index=off`: with an index, a mount with other lower directories than the last one's is refused, and so would be
//!   a bundle whose layers were imported again. What it gives, hard links that stay whole when they are written to,
//!   no image counts on.
//! - `metacopy=off`: a file whose mode alone was changed would have no data in the upper directory, from which layers
//!   are made.
//! - `redirect_dir=nofollow`: directories that are renamed are copied, for the same reason; and no redirect of an image
//!   leads anywhere, whatever else may let one through.
//! - `xino=on`, where layers are file systems of their own: otherwise files have another device number than their
//!   directory, and what stays on one file system (`tar --one-file-system`) leaves them out. Inode numbers of EROFS and
//!   of ext4 leave room for the number of the layer.
//! - `userxattr` where `trusted.*` attributes cannot be set.

use super::erofs::image::Image;
use super::erofs::mount;
use super::fuse;
use super::layer::entry::Meta;
use super::layer::sink::{Node, Sink};
use super::overlay;
use super::rights::Rights;
use super::stack::{Stack, is_image};
use super::store::Store;
use super::verify::is_lack;
use super::view::{Opened, at, is_opaque, is_whiteout, proc_path, utf8};
use crate::bundle::{IMAGE, Overlay, appends_lowers};
use crate::error::{Error, Result};
use clap::ValueEnum;
use rustix::fs;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The form of new layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// One EROFS image where a trial mount succeeds
    #[default]
    Auto,
    /// A directory of files
    Dir,
    /// One EROFS image
    Erofs,
}

/// Whether new layers are EROFS images.
pub fn images(store: &Store, form: Form) -> Result<bool> {
    match form {
        Form::Dir => Ok(false),
        Form::Auto => Ok(trial(store)?.is_none()),
        Form::Erofs => match trial(store)? {
            None => Ok(true),
            Some(why) => Err(Error::unsupported("--layers erofs", why).hint("--layers dir works everywhere")),
        },
    }
}

/// The result of a trial, good until the next boot: kernel and file system may be others then.
#[derive(Serialize, Deserialize)]
struct Trial {
    boot: String,
    /// The store's device.
    #[serde(default)]
    device: u64,
    /// Why EROFS images cannot be used.
    why: Option<String>,
}

fn trial_path(store: &Store) -> PathBuf {
    store.dir().join("erofs-trial")
}

/// The result of a trial when nobody can read it; the next one replaces it.
pub fn damaged_trial(store: &Store) -> Option<PathBuf> {
    let path = trial_path(store);
    let text = std::fs::read(&path).ok()?;
    serde_json::from_slice::<Trial>(&text).is_err().then_some(path)
}

/// Why EROFS images cannot be layers of this store; `None` when they can. A mount is tried once a boot.
pub fn trial(store: &Store) -> Result<Option<String>> {
    if !Rights::ours().nodes {
        return Ok(Some(
            "only root of the machine, outside of user namespaces, may mount EROFS images".into(),
        ));
    }
    let path = trial_path(store);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let known = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Trial>(&text).ok());
    let device = std::fs::metadata(store.dir()).map(|m| m.dev());
    let device = device.map_err(|e| Error::io(store.dir().display().to_string(), "stat", &e))?;
    if let Some(known) = known.filter(|t| (&t.boot, t.device) == (&boot, device) && !boot.is_empty()) {
        return Ok(known.why);
    }
    let work = store.work()?;
    let _dir = work.make("trial", 0o700)?;
    let why = match attempt(&work.path.join("trial")) {
        // What is missing now is not missing until the next boot.
        Err(e) if is_lack(&e) => return Err(e),
        // Nor is what this process may not do, or a module that is not loaded.
        Err(e) if matches!(e.errno(), Some(libc::EPERM | libc::EACCES | libc::ENODEV)) => {
            return Ok(Some(e.to_string()));
        }
        tried => tried.err().map(|e| e.to_string()),
    };
    let text = serde_json::to_vec(&Trial { boot, device, why: why.clone() });
    // Of a store that cannot be written it is asked again.
    let _ = text.map(|text| store.write(&path, &text));
    Ok(why)
}

/// Makes an image with all that layers need, mounts it, looks, and stacks it.
fn attempt(dir: &Path) -> Result<()> {
    let path = dir.join("erofs");
    let io = |e: std::io::Error| Error::io(path.display().to_string(), "make", &e);
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).map_err(io)?;
    let mut image = Image::new(file, [0; 16]);
    let capability = vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let xattrs = vec![(b"security.capability".to_vec(), capability), (b"user.a".to_vec(), b"b".to_vec())];
    let meta = Meta { mode: 0o755, xattrs, ..Meta::default() };
    image.dir(b"d")?;
    image.file(b"d/f", 5, &[(0, 5)], &meta, &mut &b"hello"[..])?;
    image.node(b"d/w", Node::Char(0, 0), &Meta::default())?;
    image.finish(&[(b"d", &Meta::default(), true), (b"", &Meta::default(), false)])?;
    let root = mount::open(&path)?;
    let not = |what: &str| Error::unsupported("erofs", format!("does not show {what}"));
    let find = |path: &[u8]| -> Result<OwnedFd> { at(&root, path)?.ok_or_else(|| not("its files")) };
    let (d, f, w) = (find(b"d")?, find(b"d/f")?, find(b"d/w")?);
    let has = |fd: &OwnedFd, key: &str| {
        let mut value = [0; 64];
        fs::getxattr(proc_path(fd), key, &mut value[..]).is_ok_and(|n| n > 0)
    };
    if !is_opaque(&d) || !has(&f, "user.a") || !has(&f, "security.capability") {
        return Err(not("extended attributes"));
    }
    let text = std::fs::read(proc_path(&f)).map_err(io)?;
    let stat = fs::fstat(&w).map_err(|e| Error::os("erofs", "fstat", e.raw_os_error()))?;
    if text != b"hello" || !is_whiteout(&stat) {
        return Err(not("its files"));
    }
    let text = |name: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).map_err(io)?;
        utf8(&path)
    };
    let lower = vec![format!("{IMAGE}{}/erofs", text("")?.trim_end_matches('/')), text("lower")?];
    overlay::assemble(&Overlay { lower, ..Overlay::default() }, &dir.join("lower"), &mut Opened::default())?;
    Ok(())
}

/// Options of overlayfs for these layers. Kernels before 6.8 have not all of them, and are asked for none.
pub fn options(stack: &Stack) -> Vec<String> {
    let mut out = Vec::new();
    if appends_lowers() {
        out.extend(["index=off", "metacopy=off", "redirect_dir=nofollow"]);
        if stack.lowers.iter().any(|l| is_image(l)) {
            out.push("xino=on");
        }
    }
    if !Rights::ours().nodes {
        out.push("userxattr");
    }
    out.into_iter().map(String::from).collect()
}

/// How the layers of an image become a rootfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// The kernel's overlayfs
    Overlay,
    /// overlayfs in user space, where the kernel's is refused
    FuseOverlayfs,
    /// A copy of all files, which share their blocks where the file system can
    Copy,
}

/// The driver for bundles on the store's file system, and why. What an unpack takes follows from its own mount.
pub fn fitting(store: &Store) -> Result<(Driver, String)> {
    let work = store.work()?;
    let dir = work.path.join("trial");
    let text = |name: &str| -> Result<String> {
        work.make(&format!("trial/{name}"), 0o755)?;
        utf8(&dir.join(name))
    };
    let mut o = Overlay { lower: vec![text("lower")?], ..Overlay::default() };
    (o.upper, o.work) = (Some(text("upper")?), Some(text("work")?));
    text("place")?;
    let refused = match overlay::assemble(&o, &dir.join("place"), &mut Opened::default()) {
        Ok(_) => return Ok((Driver::Overlay, "the kernel's overlayfs takes an upper directory here".into())),
        Err(e) => e,
    };
    if !rustix::process::geteuid().is_root() {
        let why = "the runtime mounts the kernel's overlayfs in the user namespace of the container";
        return Ok((Driver::Overlay, why.into()));
    }
    match fuse::program() {
        Some(program) => Ok((Driver::FuseOverlayfs, format!("{} is there; {refused}", program.display()))),
        None => Ok((Driver::Copy, format!("fuse-overlayfs is not there; {refused}"))),
    }
}

/// Whether the store's file system copies files without their data.
pub fn reflinks(store: &Store) -> Result<bool> {
    let work = store.work()?;
    let make = |name: &str| {
        let path = work.path.join(name);
        let made =
            std::fs::write(&path, [0; 4096]).and_then(|()| std::fs::File::options().write(true).open(&path));
        made.map_err(|e| Error::io(path.display().to_string(), "make", &e))
    };
    make("from")?;
    let to = make("to")?;
    let from = std::fs::File::open(work.path.join("from"));
    Ok(from.is_ok_and(|from| fs::ioctl_ficlone(&to, &from).is_ok()))
}
