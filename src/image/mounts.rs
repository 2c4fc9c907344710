//! What keeps layers beside the records of bundles: mounts that stand on them. A bundle that was moved or copied has no
//! record where it is now, until the next command that looks at it.

use super::bundle;
use super::digest::Digest;
use super::store::{BundleRef, Store};
use crate::bundle::{IMAGE, Overlay};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The store that the layers of a bundle lie in: their trees are three names below it.
fn home(o: &Overlay) -> Option<&Path> {
    let layer = o.lower.last()?;
    let dir = Path::new(layer.strip_prefix(IMAGE).unwrap_or(layer)).ancestors().nth(3)?;
    dir.join("format").is_file().then_some(dir)
}

/// The record of the bundle at `path`, made when it came there by a move or a copy; `None` when it is none of this store.
pub fn record(store: &Store, path: &Path, o: &Overlay) -> Result<Option<BundleRef>> {
    let image = o.image.as_deref().map(|d| Digest::parse("overlay.json", d)).transpose()?;
    let known = store.bundle(path)?;
    if known.as_ref().is_some_and(|r| image.is_none_or(|d| d == r.manifest)) {
        return Ok(known);
    }
    let real = |dir: &Path| std::fs::canonicalize(dir).ok();
    let is_ours = home(o).is_some_and(|dir| real(dir).is_some() && real(dir) == real(store.dir()));
    let Some(image) = image.filter(|d| is_ours && store.blob_path(d).exists()) else { return Ok(None) };
    store.add_bundle(path, &image)?;
    store.bundle(path)
}

/// Records the bundle at `path` in the store that has its layers.
pub fn record_at_home(path: &Path, o: &Overlay) -> Result<()> {
    let Some(dir) = home(o) else { return Ok(()) };
    let made = record(&Store::open_unswept(dir, false)?, path, o)?;
    let none = || Error::invalid(dir.display().to_string(), "is not known to have its image");
    made.map(drop).ok_or_else(none)
}

/// Records what is mounted of the store, so that it keeps its layers when it is unmounted, too.
pub fn record_mounted(store: &Store) {
    for (path, o) in Held::of(store).bundles {
        record(store, &path, &o).map(drop).unwrap_or_else(|e| tracing::warn!("{e}"));
    }
}

/// The file system that something was on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    device: u64,
    /// Magic number (statfs(2)).
    magic: u32,
    boot: String,
}

impl FileSystem {
    /// `None` when that cannot be told.
    pub fn of(path: &Path) -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let magic = rustix::fs::statfs(path).ok()?.f_type as u32;
        Some(Self { device: std::fs::metadata(path).ok()?.dev(), magic, boot })
    }

    /// Whether it is this one. One without a device, a tmpfs or of btrfs, has another number after a boot, and is then
    /// taken for one of its kind.
    pub fn is(&self, other: &Self) -> bool {
        let has_none = |f: &Self| rustix::fs::major(f.device) == 0;
        let is_alike = || has_none(self) && has_none(other) && self.magic == other.magic;
        self.device == other.device || self.boot != other.boot && is_alike()
    }
}

/// What the mounts of this machine hold of a store.
#[derive(Default)]
pub struct Held {
    /// Names of files in `layers/`.
    pub layers: BTreeSet<String>,
    pub fixups: BTreeSet<String>,
    /// Mounted bundles of this user, by their places.
    pub bundles: Vec<(PathBuf, Overlay)>,
}

impl Held {
    pub fn of(store: &Store) -> Self {
        let (mut held, mut stores) = (Self::default(), Stores::of(store));
        for (table, is_ours) in tables() {
            for mount in table.split(|b| *b == b'\n').filter_map(Mount::of) {
                mount.lowers.iter().for_each(|path| held.add(&mut stores, path));
                // As the options name them layers may have no paths: images, and what old kernels take in one page.
                let described = mount.place.parent().filter(|_| is_ours).and_then(described);
                let Some((dir, o)) = described else { continue };
                let plain = |l: &String| PathBuf::from(l.strip_prefix(IMAGE).unwrap_or(l));
                o.lower.iter().map(plain).for_each(|path| held.add(&mut stores, &path));
                held.bundles.push((dir, o));
            }
        }
        held
    }

    /// Of a lower directory or an image, which are two names below `layers` or `fixups`.
    fn add(&mut self, stores: &mut Stores, path: &Path) {
        let mut above = path.ancestors().skip(1);
        let (Some(layer), Some(kind), Some(dir)) = (above.next(), above.next(), above.next()) else { return };
        let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
        match (name(kind).as_deref(), name(layer)) {
            (Some("layers"), Some(name)) if stores.is_ours(dir) => drop(self.layers.insert(name)),
            (Some("fixups"), Some(name)) if stores.is_ours(dir) => drop(self.fixups.insert(name)),
            _ => {}
        }
    }
}

/// Which directories are a store: a mount names its layers as the store was called then, by a link or a bind mount.
struct Stores {
    is: Option<(u64, u64)>,
    known: BTreeMap<PathBuf, bool>,
}

impl Stores {
    fn of(store: &Store) -> Self {
        Self { is: Self::inode(store.dir()), known: BTreeMap::new() }
    }

    fn inode(dir: &Path) -> Option<(u64, u64)> {
        std::fs::metadata(dir).ok().map(|about| (about.dev(), about.ino()))
    }

    fn is_ours(&mut self, dir: &Path) -> bool {
        if let Some(known) = self.known.get(dir) {
            return *known;
        }
        let is = self.is.is_some() && Self::inode(dir) == self.is;
        self.known.insert(dir.to_path_buf(), is);
        is
    }
}

/// The bundle at `dir`, if it is this user's.
fn described(dir: &Path) -> Option<(PathBuf, Overlay)> {
    let about = std::fs::metadata(dir).ok()?;
    if about.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    Some((dir.to_path_buf(), bundle::description(dir).ok()?.1))
}

/// The mountinfo of each mount namespace that we may look into (proc(5)), ours first, and whether it is ours.
fn tables() -> Vec<(Vec<u8>, bool)> {
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    let is_process = |name: &OsString| name.as_bytes().first().is_some_and(u8::is_ascii_digit);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|e| e.file_name());
    for name in std::iter::once(OsString::from("self")).chain(processes.filter(is_process)) {
        let dir = Path::new("/proc").join(&name);
        let link = |name: &str| std::fs::read_link(dir.join(name)).ok();
        let Some(namespace) = link("ns/mnt") else { continue };
        // A process sees what is below its root.
        let seen_from = (namespace, link("root"));
        if seen.contains(&seen_from) {
            continue;
        }
        // A process that ends meanwhile has none.
        if let Ok(text) = std::fs::read(dir.join("mountinfo")) {
            seen.insert(seen_from);
            out.push((text, name == "self"));
        }
    }
    out
}

/// An overlay mount.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    place: PathBuf,
    lowers: Vec<PathBuf>,
}

impl Mount {
    /// Of a line of mountinfo.
    fn of(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let place = plain(fields.nth(4)?);
        let kind = fields.by_ref().skip_while(|f| *f != b"-").nth(1)?;
        if kind != b"overlay" && kind != b"fuse.fuse-overlayfs" {
            return None;
        }
        let options = fields.nth(1)?;
        let mut lowers = Vec::new();
        for option in options.split(|b| *b == b',') {
            if let Some(path) = option.strip_prefix(b"lowerdir+=") {
                lowers.push(plain(path));
            } else if let Some(all) = option.strip_prefix(b"lowerdir=") {
                lowers.extend(all.split(|b| *b == b':').map(plain));
            }
        }
        Some(Self { place, lowers })
    }
}

/// Without the escapes of mountinfo, a backslash and three octal digits.
fn plain(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = tail.get(..3).filter(|_| byte == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match escape.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_mounts_are_found_with_their_layers() {
        let of = |line: &str| Mount::of(line.as_bytes());
        let mount = |place: &str, lowers: &[&str]| {
            Some(Mount { place: place.into(), lowers: lowers.iter().map(PathBuf::from).collect() })
        };
        let line = r"49 27 0:41 / /b\040c/rootfs rw shared:1 master:2 - overlay none rw,lowerdir+=/s\134\0541,lowerdir+=/t,upperdir=/u";
        assert_eq!(of(line), mount("/b c/rootfs", &["/s\\,1", "/t"]));
        assert_eq!(of("1 2 0:3 / /m rw - overlay overlay ro,lowerdir=/a:/b"), mount("/m", &["/a", "/b"]));
        assert_eq!(of("1 2 0:3 / /m rw - fuse.fuse-overlayfs fuse-overlayfs rw"), mount("/m", &[]));
        assert_eq!(of("1 2 8:1 / / rw - ext4 /dev/sda1 rw"), None);
        assert_eq!(of("1 2 8:1 /"), None);
    }

    #[test]
    fn a_file_system_is_known_again_after_a_boot() {
        let of = |device, magic, boot: &str| FileSystem { device, magic, boot: boot.into() };
        let disk = |n| rustix::fs::makedev(8, n);
        let (tmpfs, ext4) = (0x0102_1994, 0xef53);
        for (a, b, same) in [
            (of(disk(1), ext4, "1"), of(disk(1), ext4, "2"), true),
            (of(disk(1), ext4, "1"), of(disk(2), ext4, "1"), false),
            (of(disk(1), ext4, "1"), of(disk(2), ext4, "2"), false),
            (of(40, tmpfs, "1"), of(41, tmpfs, "1"), false),
            (of(40, tmpfs, "1"), of(41, tmpfs, "2"), true),
            (of(40, tmpfs, "1"), of(disk(1), ext4, "2"), false),
        ] {
            assert_eq!(a.is(&b), same, "{a:?} {b:?}");
        }
    }
}
