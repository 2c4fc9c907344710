//! An image to a bundle: config.json, `overlay.json`, and the mount.

use super::digest::Digest;
use super::driver::{self, Driver};
use super::fixup::copy_metadata;
use super::import::fixups;
use super::rights::Rights;
use super::stack::{Stack, is_image};
use super::store::{MEND, Store, remove_path};
use super::upper::Elsewhere;
use super::view::{Opened, View, at as look, utf8};
use super::{copy, fuse, manifest, mounts, overlay, upper, user, view};
use crate::bundle::{
    IMAGE, MAX_LOWERS, NEEDS_APPENDING, NEEDS_DETACHED, Overlay, appends_lowers, takes_images,
};
use crate::config::{Config, Mount};
use crate::error::{Error, Kind, Result};
use crate::plan::UNSAFE_ANNOTATIONS;
use crate::verbs::spec;
use oci_spec::image::ImageConfiguration;
use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How a bundle is made.
pub struct Order<'a> {
    pub image: &'a str,
    pub bundle: &'a Path,
    pub mount: bool,
    pub readonly: bool,
    /// None chooses by what the machine can.
    pub driver: Option<Driver>,
    /// Where what is written goes, when not to the bundle.
    pub upper: Option<&'a Path>,
}

/// Makes a bundle at a path where there is nothing, or an empty directory.
pub fn unpack(store: &Store, order: &Order) -> Result<()> {
    if order.upper.is_some() && order.driver == Some(Driver::Copy) {
        return Err(Error::unsupported("--upper", "is written to by no container whose rootfs is a copy"));
    }
    let elsewhere = order.upper.map(|dir| Elsewhere::make(store, dir)).transpose()?;
    let done = unpack_with(store, order, elsewhere.as_ref());
    done.inspect_err(|_| elsewhere.iter().for_each(Elsewhere::take_back))
}

fn unpack_with(store: &Store, order: &Order, elsewhere: Option<&Elsewhere>) -> Result<()> {
    if !order.mount && !appends_lowers() {
        return Err(Error::unsupported("--no-mount", NEEDS_APPENDING).hint("leave it out"));
    }
    if !order.mount && order.driver == Some(Driver::FuseOverlayfs) {
        return Err(Error::unsupported(
            "--no-mount",
            "leaves the mount to the runtime, which makes that of overlayfs alone",
        ));
    }
    let (_, digest) = store.find(order.image)?;
    let (config, diff_ids) = load(store, &digest)?;
    let stack = fixups(store, &diff_ids)?; // an import that was killed may have left some out
    let has_images = stack.lowers.iter().any(|l| is_image(l));
    if !order.mount && order.driver != Some(Driver::Copy) && has_images && !takes_images() {
        return Err(Error::unsupported("--no-mount", NEEDS_DETACHED).hint("leave it out"));
    }
    // The upper directory is not counted, but that of a read-only bundle is a lower one.
    let count = stack.lowers.len() + usize::from(order.readonly);
    if count > MAX_LOWERS {
        let layers = diff_ids.len();
        let what =
            format!("needs {count} lower directories for its {layers} layers, overlayfs stacks {MAX_LOWERS}");
        return Err(Error::unsupported(order.image, what).hint("imgtool squash makes fewer of them"));
    }
    let (path, made) = directory(store, order.bundle)?;
    let lock = store.lock(&store.bundle_lock(&path));
    let _lock = lock.and_then(|lock| clear_unfinished(store, &path).map(|()| lock)).inspect_err(|_| {
        if made {
            let _ = std::fs::remove_dir(&path); // the error is the one to tell
        }
    })?;
    let image = (&digest, &config);
    let done = store.add_bundle(&path, &digest).and_then(|()| fill(&path, &stack, image, order, elsewhere));
    done.inspect_err(|_| {
        // The error is the one to tell; what stays here is seen by its user.
        let _ = if made { remove_path(&path) } else { empty(&path) };
        store.forget_bundle(&path);
    })
}

/// The configuration of an image and its layers.
pub fn load(store: &Store, digest: &Digest) -> Result<(ImageConfiguration, Vec<Digest>)> {
    let config = manifest::digest(store.manifest(digest)?.config())?;
    manifest::config(&digest.to_string(), &store.blob(&config)?).map_err(|e| e.hint(MEND))
}

/// The bundle's directory, and whether it is new.
fn directory(store: &Store, path: &Path) -> Result<(PathBuf, bool)> {
    let at = path.display().to_string();
    let failed = |what: &'static str| {
        let at = at.clone();
        move |e: std::io::Error| Error::io(at, what, &e)
    };
    let (made, real) = match std::fs::canonicalize(path) {
        Ok(real) => (upper::own(&real)?, real),
        Err(_) => (upper::own(path)?, std::fs::canonicalize(path).map_err(failed("resolve"))?),
    };
    if real.starts_with(std::fs::canonicalize(store.dir()).map_err(failed("resolve the store for"))?) {
        if made {
            let _ = std::fs::remove_dir(&real); // the error is the one to tell
        }
        return Err(Error::invalid(at, "lies in the store, whose files are swept"));
    }
    Ok((real, made))
}

/// Takes back what [`fill`] made in a directory that was there before.
fn empty(path: &Path) -> Result<()> {
    let own = ["config.json", NEW_DOCUMENT, "overlay.json", NEW_ROOTFS, "rootfs", "work", "upper"];
    for name in own.into_iter().chain([overlay::LINKS]) {
        remove_path(&path.join(name))?;
    }
    Ok(())
}

/// Whether a document is as a power cut leaves one that was written just before: empty, cut off or of zeros. What somebody
/// has edited and spoiled is not.
fn is_torn(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|text| {
        let parsed: serde_json::Result<serde::de::IgnoredAny> = serde_json::from_slice(&text);
        text.first() == Some(&0) || parsed.is_err_and(|e| e.is_eof())
    })
}

/// The bundle must be an empty directory, or what a kill or a power cut left of an unpack: recorded, without whole
/// documents, and so never used. The caller holds its lock: nobody is at it.
fn clear_unfinished(store: &Store, path: &Path) -> Result<()> {
    let holds = |dir: &Path| std::fs::read_dir(dir).is_ok_and(|mut d| d.next().is_some());
    let (rootfs, document) = (path.join("rootfs"), path.join("config.json"));
    let is_unfinished = || !document.exists() || is_torn(&document) || is_torn(&path.join("overlay.json"));
    if holds(path) && store.has_bundle(path) && is_unfinished() && !holds(&path.join("upper")) {
        if overlay::is_mounted(&rootfs).unwrap_or(false) {
            overlay::unmount(&rootfs)?;
        }
        if !holds(&rootfs) {
            empty(path)?;
        }
    }
    upper::close_empty(path)
}

/// The bundle's own upper directory, in the bundle.
const UPPER: &str = "upper";
const WORK: &str = "work";
/// What config.json is called until it is whole.
const NEW_DOCUMENT: &str = ".config.json.new";
/// What a rootfs is called until it is copied.
const NEW_ROOTFS: &str = ".rootfs.new";

fn fill(
    path: &Path,
    stack: &Stack,
    (image, config): (&Digest, &ImageConfiguration),
    order: &Order,
    elsewhere: Option<&Elsewhere>,
) -> Result<()> {
    let opened = &mut Opened::default();
    let make = |name: &str, mode: u32| -> Result<PathBuf> {
        let dir = path.join(name);
        let at = dir.display().to_string();
        std::fs::DirBuilder::new().mode(mode).create(&dir).map_err(|e| Error::io(&at, "make", &e))?;
        Ok(dir)
    };
    let own = make(UPPER, 0o755)?; // first: by it the sweep knows that the bundle is there
    make("rootfs", 0o755)?;
    root_metadata(stack, &own, opened)?;
    let lower = |l: &PathBuf| Ok(if is_image(l) { format!("{IMAGE}{}", utf8(l)?) } else { utf8(l)? });
    let lower = stack.lowers.iter().map(lower).collect::<Result<_>>()?;
    let mut o = Overlay { lower, image: Some(image.to_string()), ..Overlay::default() };
    if order.readonly {
        // Two lower directories are the least without an upper one.
        o.lower.insert(0, UPPER.into());
    } else if let Some(e) = elsewhere {
        upper::like(&own, &e.upper)?;
        (o.upper, o.work) = (Some(utf8(&e.upper)?), Some(utf8(&e.work)?));
    } else {
        make(WORK, 0o700)?;
        (o.upper, o.work) = (Some(UPPER.into()), Some(WORK.into()));
    }
    if o.lower.is_empty() {
        return Err(Error::invalid(order.image, "has no layers"));
    }
    o.options = driver::options(stack);
    let used = rootfs(path, stack, &mut o, order, opened)?;
    // Last: a bundle with a document is whole.
    let (new, place) = (path.join(NEW_DOCUMENT), path.join("config.json"));
    let named =
        || std::fs::rename(&new, &place).map_err(|e| Error::io(place.display().to_string(), "rename", &e));
    let described = || match used {
        Driver::Copy => Ok(()),
        _ => serde_json::to_vec_pretty(&o)
            .map_err(|e| Error::invalid("overlay.json", e.to_string()))
            .and_then(|text| write(&path.join("overlay.json"), &text)),
    };
    // What is mounted is one directory to look into, and not hundreds.
    let mut view = || match order.mount || used == Driver::Copy {
        true => View::open(&[path.join("rootfs")]),
        false => opened.view(&stack.lowers),
    };
    let written = described()
        .and_then(|()| document(config, &view()?, order))
        .and_then(|document| spec::to_json(&document))
        .and_then(|json| write(&new, &json))
        .and_then(|()| elsewhere.map_or(Ok(()), Elsewhere::finish))
        .and_then(|()| named());
    if written.is_err() && order.mount && used != Driver::Copy {
        let _ = overlay::unmount(&path.join("rootfs")); // before it is removed with the bundle
    }
    written
}

/// Makes the rootfs, unless it is left to the runtime, and says how.
fn rootfs(path: &Path, stack: &Stack, o: &mut Overlay, order: &Order, opened: &mut Opened) -> Result<Driver> {
    let rootfs = path.join("rootfs");
    let parts = o.clone().resolved(path)?;
    let mut driver = order.driver.unwrap_or(Driver::Overlay);
    if order.mount && driver == Driver::Overlay {
        match overlay::mount(&parts, &rootfs, opened) {
            // By an ordinary user it is the runtime that mounts.
            Err(e) if order.driver.is_none() && rustix::process::geteuid().is_root() => {
                let has_images = stack.lowers.iter().any(|l| is_image(l));
                let fuses = !has_images && fuse::program().is_some();
                if !fuses && order.upper.is_some() {
                    return Err(e); // a copy has none
                }
                driver = if fuses { Driver::FuseOverlayfs } else { Driver::Copy };
                tracing::warn!("{e}; the driver is {driver:?} instead");
            }
            other => other?,
        }
    }
    match driver {
        Driver::Overlay => {}
        Driver::FuseOverlayfs => {
            fuse::mount(&parts, &rootfs)?;
            o.driver = Some("fuse-overlayfs".into());
        }
        Driver::Copy => {
            let new = path.join(NEW_ROOTFS);
            std::fs::create_dir(&new).map_err(|e| Error::io(new.display().to_string(), "make", &e))?;
            copy::tree(&opened.view(&stack.lowers)?, &view::open(&new)?)?;
            root_metadata(stack, &new, opened)?;
            std::fs::rename(&new, &rootfs)
                .map_err(|e| Error::io(rootfs.display().to_string(), "rename", &e))?;
            remove_path(&path.join(WORK))?;
        }
    }
    Ok(driver)
}

/// The upper directory is the root of the mount: overlayfs shows its metadata, not that of the layers.
fn root_metadata(stack: &Stack, upper: &Path, opened: &mut Opened) -> Result<()> {
    let root = stack.root.as_deref().map(|root| opened.layer(root)).transpose()?;
    match root.map(|root| look(&root, b"")).transpose()?.flatten() {
        Some(from) => {
            let to = view::open(upper)?;
            copy_metadata(&from, &to).map_err(|e| view::failed(b"upper", "copy the metadata", e))
        }
        None => std::fs::set_permissions(upper, std::fs::Permissions::from_mode(0o755))
            .map_err(|e| Error::io(upper.display().to_string(), "chmod", &e)),
    }
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    std::fs::write(path, text).map_err(|e| Error::io(path.display().to_string(), "write", &e))
}

/// The rootfs of a bundle, and what is mounted there.
pub fn description(bundle: &Path) -> Result<(PathBuf, Overlay)> {
    let path =
        std::fs::canonicalize(bundle).map_err(|e| Error::io(bundle.display().to_string(), "open", &e))?;
    let file = path.join("overlay.json");
    let at = file.display().to_string();
    let hint = match path.join("config.json").exists() {
        true => "a bundle of the driver copy has none, and nothing tells what was changed in it",
        false => "is it a bundle of imgtool unpack?",
    };
    let text = match std::fs::metadata(&file) {
        Ok(about) if !about.is_file() => return Err(Error::invalid(at, "is not a regular file")),
        _ => std::fs::read(&file).map_err(|e| Error::io(&at, "read", &e).hint(hint))?,
    };
    let o: Overlay = serde_json::from_slice(&text)
        .map_err(|e| Error::invalid(at, format!("is no overlay description: {e}")))?;
    Ok((path.join("rootfs"), o.resolved(&path)?))
}

/// As [`description`], with an upper directory that is in the form of the kernel's overlayfs.
pub fn settled(bundle: &Path) -> Result<(PathBuf, Overlay)> {
    let (rootfs, o) = description(bundle)?;
    if let (Some(driver), Some(upper)) = (&o.driver, &o.upper) {
        if overlay::is_mounted(&rootfs)? {
            let at = bundle.display().to_string();
            let error = Error::new(Kind::WrongState, at, format!("is mounted by {driver}"));
            return Err(error.hint("unmount it first"));
        }
        fuse::settle(Path::new(upper))?;
    }
    Ok((rootfs, o))
}

pub fn mount(bundle: &Path) -> Result<()> {
    let dir =
        &std::fs::canonicalize(bundle).map_err(|e| Error::io(bundle.display().to_string(), "open", &e))?;
    // Two that see no mount would lay two on one upper directory.
    let lock = view::open(dir)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)
        .map_err(|e| Error::os(dir.display().to_string(), "flock", e.raw_os_error()))?;
    let (rootfs, o) = description(dir)?;
    if let Err(e) = mounts::record_at_home(dir, &o) {
        tracing::warn!("{}: is not recorded, so that gc may remove its layers: {e}", dir.display());
    }
    upper::restore(&o, dir)?;
    match &o.driver {
        Some(_) => fuse::mount(&o, &rootfs),
        None => overlay::mount(&o, &rootfs, &mut Opened::default()),
    }
}

pub fn unmount(bundle: &Path) -> Result<()> {
    overlay::unmount(&description(bundle)?.0)
}

/// config.json of an image (image-spec conversion.md) on top of what `spec` writes.
fn document(image: &ImageConfiguration, view: &View, order: &Order) -> Result<Config> {
    let mut c = spec::default_config(ids());
    let none = oci_spec::image::Config::default();
    let from = image.config().as_ref().unwrap_or(&none);
    let process = c.process.get_or_insert_default();
    process.terminal = Some(false);
    let words = |w: &Option<Vec<String>>| w.clone().unwrap_or_default();
    no_nul(from)?;
    let args = [words(from.entrypoint()), words(from.cmd())].concat();
    if args.is_empty() {
        tracing::warn!("{}: has neither Entrypoint nor Cmd, process.args is [\"sh\"]", order.image);
    } else {
        process.args = Some(args);
    }
    let path = process.env.take().unwrap_or_default().into_iter().find(|e| e.starts_with("PATH="));
    let mut env = words(from.env());
    if !env.iter().any(|e| e.starts_with("PATH=")) {
        env.splice(0..0, path);
    }
    process.env = Some(env);
    let cwd = from.working_dir().as_deref().filter(|d| !d.is_empty()).unwrap_or("/");
    process.cwd = Some(if cwd.starts_with('/') { cwd.to_string() } else { format!("/{cwd}") });
    process.user = Some(user::resolve(view, from.user().as_deref().unwrap_or_default())?);
    if let Some(root) = &mut c.root {
        root.readonly = Some(order.readonly);
    }
    // Group tty is not mapped where there is one id.
    if !Rights::ours().owners {
        let options = c.mounts.iter_mut().flatten().filter_map(|m| m.options.as_mut());
        options.for_each(|o| o.retain(|o| o != "gid=5"));
    }
    c.mounts.get_or_insert_default().extend(volumes(&words(from.volumes()))?);
    c.annotations = Some(annotations(image, from));
    Ok(c)
}

/// JSON can have a NUL in a text, which no program can be given.
fn no_nul(from: &oci_spec::image::Config) -> Result<()> {
    let (dir, user) = (from.working_dir().as_slice(), from.user().as_slice());
    let [args, command, env] = [from.entrypoint(), from.cmd(), from.env()].map(Option::as_deref);
    let all = [
        ("Entrypoint", args),
        ("Cmd", command),
        ("Env", env),
        ("WorkingDir", Some(dir)),
        ("User", Some(user)),
    ];
    for (name, texts) in all {
        if let Some(text) = texts.into_iter().flatten().find(|t| t.contains('\0')) {
            return Err(Error::invalid(format!("config.{name}"), format!("{text:?} has a NUL")));
        }
    }
    Ok(())
}

/// An ordinary user's own ids, for a user namespace; root needs none.
fn ids() -> Option<(u32, u32)> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    (!uid.is_root()).then(|| (uid.as_raw(), gid.as_raw()))
}

/// Data of a volume is kept out of the rootfs: a tmpfs that starts with what the image has there.
fn volumes(paths: &[String]) -> Result<Vec<Mount>> {
    let mut paths: Vec<&String> = paths.iter().collect();
    paths.sort(); // a volume inside another one is mounted after it
    let volume = |p: &String| {
        if !p.starts_with('/') || p.split('/').any(|c| c == "..") || p.trim_matches('/').is_empty() {
            return Err(Error::invalid("config.Volumes", format!("{p:?} is not a path below /")));
        }
        if p.split('/').find(|c| !matches!(*c, "" | ".")) == Some("proc") {
            return Err(Error::invalid(
                "config.Volumes",
                format!("{p:?} is of /proc, which nothing may cover"),
            ));
        }
        let options = ["nosuid", "nodev", "tmpcopyup"].map(String::from).to_vec();
        Ok(Mount {
            destination: Some(p.clone()),
            kind: Some("tmpfs".into()),
            source: Some("tmpfs".into()),
            options: Some(options),
            ..Mount::default()
        })
    };
    paths.into_iter().map(volume).collect()
}

fn annotations(image: &ImageConfiguration, from: &oci_spec::image::Config) -> BTreeMap<String, String> {
    let mut ports = from.exposed_ports().clone().unwrap_or_default();
    ports.sort();
    let ports = (!ports.is_empty()).then(|| ports.join(","));
    let all = [
        ("os", Some(image.os().to_string())),
        ("architecture", Some(image.architecture().to_string())),
        ("variant", image.variant().clone()),
        ("os.version", image.os_version().clone()),
        ("author", image.author().clone()),
        ("created", image.created().clone()),
        ("stopSignal", from.stop_signal().clone()),
        ("exposedPorts", ports),
    ];
    let own = all.into_iter().filter_map(|(k, v)| Some((format!("org.opencontainers.image.{k}"), v?)));
    let labels = from.labels().clone().unwrap_or_default();
    // An image may not say how the runtime works: with whose groups, by which file of criu's settings, with which unit.
    let labels = labels.into_iter().filter(|(key, _)| {
        let why = match key.as_str() {
            "" => "an annotation has a name",
            key if UNSAFE_ANNOTATIONS.iter().any(|u| key.starts_with(u)) => "the runtime would act on it",
            _ => return true,
        };
        tracing::warn!("config.Labels: {key:?} is left out: {why}");
        false
    });
    // A label of the same key counts more.
    own.filter(|(_, v)| !v.is_empty()).chain(labels).collect()
}
