//! Layers in overlay form to the tar stream of a layer (image-spec layer.md). The same tree gives the same bytes: names
//! in order, no names of users, no access times, and nothing of where the tree lies.

use super::dirs::failed;
use super::entry::{Meta, join, overlay_name, refuse};
use super::merge::{Node, proc_path, walk};
use crate::error::{Error, Result};
use crate::image::limits::Limits;
use crate::image::rights::Rights;
use crate::image::view::{View, whole};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};

const BLOCK: usize = 512;
const CHUNK: usize = 128 << 10;

/// What to write.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    /// The layers, topmost first.
    pub view: &'a View,
    /// The directory whose metadata is that of the root; without, the root gets no entry.
    pub root: Option<&'a OwnedFd>,
    /// The root hides all that lies below.
    pub opaque: bool,
    /// What lies below: whiteouts and opaque marks that hide nothing of it are left out. Of an empty view, as below a
    /// whole rootfs, these are all; `None` keeps all.
    pub below: Option<&'a View>,
    pub times: Times,
    /// Most bytes and entries; who reads the layer has the same.
    pub limits: &'a Limits,
}

/// How times are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// The latest one, in seconds since the epoch.
    pub latest: Option<i64>,
    /// With nanoseconds.
    pub nanos: bool,
}

/// The last second before it.
const YEAR_10000: i64 = 253_402_300_799;

impl Times {
    /// As SOURCE_DATE_EPOCH says (reproducible-builds.org/specs/source-date-epoch).
    pub fn of_environment() -> Result<Self> {
        let name = "SOURCE_DATE_EPOCH";
        let Some(text) = std::env::var_os(name).filter(|t| !t.is_empty()) else {
            return Ok(Self::default());
        };
        let number = super::pax::decimal(text.as_encoded_bytes()).and_then(|n| i64::try_from(n).ok());
        // Documents have it in the form of RFC 3339, whose years have four digits.
        let number = number.filter(|n| *n <= YEAR_10000);
        let wrong =
            || Error::invalid(name, format!("{text:?} is no number of seconds before the year 10000"));
        Ok(Self { latest: Some(number.ok_or_else(wrong)?), nanos: false })
    }

    fn of(self, stat: &Stat) -> (i64, u32) {
        let time = (stat.st_mtime, if self.nanos { stat.st_mtime_nsec as u32 } else { 0 });
        self.latest.map_or(time, |latest| time.min((latest, 0)))
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub entries: u64,
    /// Bytes of regular files, each file once.
    pub bytes: u64,
}

/// Writes the tree with the blocks that end an archive. Held in memory are the names of one directory at each depth, and
/// those of files with several names. Sockets are left out: no archive can hold them.
///
/// An error names the entry: one that cannot be read, changed while it was, or that a layer cannot hold: a name that
/// would be a whiteout, a directory that overlayfs has moved by a redirect.
pub fn write(tree: &Tree, out: impl Write) -> Result<Written> {
    write_linked(tree, &Below::default(), out)
}

/// What a layer leaves to those below it.
#[derive(Debug, Default)]
pub struct Below {
    /// Files that become hard links to these names there.
    pub links: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Names that are there just so.
    pub names: BTreeSet<Vec<u8>>,
}

/// As [`write`], without what is left to the layers below.
pub fn write_linked(tree: &Tree, below: &Below, out: impl Write) -> Result<Written> {
    let (links, done) = (HashMap::new(), Written::default());
    let mut w = Writer { tree, below, out, links, buffer: vec![0; CHUNK], done };
    if let Some(root) = tree.root {
        let stat = fs::fstat(root).map_err(|e| failed(b"", "fstat", e))?;
        let meta = w.meta(b"", &stat, &proc_path(root, b"."))?;
        w.entry(&Head::new(b"./", b'5', &meta))?;
    }
    if tree.opaque && !tree.below.is_some_and(|b| b.layers.is_empty()) {
        w.hide(b"", b".wh..opq")?;
    }
    walk(tree.view, tree.opaque, |node| match w.node(node) {
        // Of a tree that is in use; nothing of it is written yet.
        Err(e) if e.errno() == Some(libc::ENOENT) && is_gone(node) => Ok(()),
        done => done,
    })?;
    w.put(&[0; 2 * BLOCK])?;
    w.out.flush().map_err(|e| write_error(&e))?;
    Ok(w.done)
}

fn is_gone(node: &Node) -> bool {
    fs::statat(node.dir, node.name, AtFlags::SYMLINK_NOFOLLOW).err() == Some(Errno::NOENT)
}

fn write_error(e: &io::Error) -> Error {
    Error::io("layer", "write", e)
}

struct Writer<'a, W> {
    tree: &'a Tree<'a>,
    below: &'a Below,
    out: W,
    /// The first name of each file that has several, here or elsewhere, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    buffer: Vec<u8>,
    done: Written,
}

impl<W: Write> Writer<'_, W> {
    fn node(&mut self, node: &Node) -> Result<()> {
        if node.is_whiteout() {
            let hides = |below: &View| below.lookup(node.path).map(|found| found.is_some());
            if !node.sealed && self.tree.below.map_or(Ok(true), hides)? {
                self.hide(super::entry::split(node.path).0, node.name)?;
            }
            return Ok(());
        }
        if self.below.names.contains(node.path) {
            return Ok(());
        }
        if node.name.starts_with(b".wh.") {
            return Err(refuse(node.path, "has the name of a whiteout"));
        }
        let stat = &node.stat;
        let key = (stat.st_dev, stat.st_ino);
        if stat.st_nlink > 1 && !node.is_dir() {
            let below = || self.below.links.get(node.path).cloned();
            if let Some(first) = self.links.get(&key).cloned().or_else(below) {
                let meta = Meta { xattrs: Vec::new(), ..self.meta(node.path, stat, b"")? };
                return self.entry(&Head { link: &first, ..Head::new(node.path, b'1', &meta) });
            }
        }
        let meta = match node.kind() {
            FileType::Socket => return Ok(()),
            _ => self.meta(node.path, stat, &node.proc_path())?,
        };
        match node.kind() {
            FileType::Directory => self.directory(node, &meta)?,
            FileType::RegularFile => self.file(node, &meta)?,
            FileType::Symlink => {
                let target = fs::readlinkat(node.dir, node.name, Vec::new())
                    .map_err(|e| failed(node.path, "readlinkat", e))?;
                self.entry(&Head { link: target.as_bytes(), ..Head::new(node.path, b'2', &meta) })?;
            }
            FileType::Fifo => self.entry(&Head::new(node.path, b'6', &meta))?,
            kind => {
                let flag = if kind == FileType::CharacterDevice { b'3' } else { b'4' };
                let device = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
                self.entry(&Head { device, ..Head::new(node.path, flag, &meta) })?;
            }
        }
        if stat.st_nlink > 1 && !node.is_dir() {
            self.links.insert(key, node.path.to_vec());
        }
        Ok(())
    }

    /// An entry that hides a name of the layers below; its metadata means nothing.
    fn hide(&mut self, dir: &[u8], name: &[u8]) -> Result<()> {
        let name = join(dir, &[b".wh.", name].concat());
        self.entry(&Head::new(&name, b'0', &Meta::default()))
    }

    fn directory(&mut self, node: &Node, meta: &Meta) -> Result<()> {
        self.entry(&Head::new(&join(node.path, b""), b'5', meta))?;
        let hides = |below: &View| -> Result<bool> {
            Ok(below.lookup(node.path)?.is_some_and(|f| f.kind() == FileType::Directory))
        };
        if node.opaque && !node.sealed && self.tree.below.map_or(Ok(true), hides)? {
            self.hide(node.path, b".wh..opq")?;
        }
        Ok(())
    }

    fn file(&mut self, node: &Node, meta: &Meta) -> Result<()> {
        let fd = open_regular(node.path, node.dir, node.name, &node.stat)?;
        let size = node.stat.st_size as u64;
        // A container makes a file of any size without writing a byte of it.
        let most = self.tree.limits.bytes;
        if self.done.bytes.saturating_add(size) > most {
            let what = format!("takes the layer beyond {most} bytes");
            return Err(refuse(node.path, what).hint("raise --max-layer-bytes"));
        }
        self.entry(&Head { size, ..Head::new(node.path, b'0', meta) })?;
        let mut data = fd.take(size);
        loop {
            let n = match data.read(&mut self.buffer) {
                Ok(0) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                n => n.map_err(|e| {
                    Error::io(format!("entry {:?}", super::entry::shown(node.path)), "read", &e)
                })?,
            };
            self.out.write_all(&self.buffer[..n]).map_err(|e| write_error(&e))?;
        }
        if data.limit() > 0 {
            return Err(refuse(node.path, "changed while it was read"));
        }
        self.done.bytes += size;
        self.pad(size)
    }

    /// Metadata, with the attributes of what is at `place`, if anything.
    fn meta(&self, path: &[u8], stat: &Stat, place: &[u8]) -> Result<Meta> {
        let xattrs = if place.is_empty() { Vec::new() } else { xattrs(path, place)? };
        let mode = stat.st_mode & 0o7777;
        // Where nothing could be given to other users, all that is there is root's.
        let (uid, gid) = if Rights::ours().owners { (stat.st_uid, stat.st_gid) } else { (0, 0) };
        Ok(Meta { mode, uid, gid, mtime: self.tree.times.of(stat), xattrs })
    }

    fn entry(&mut self, head: &Head) -> Result<()> {
        let records = head.records();
        if !records.is_empty() {
            let meta = Meta { mode: 0o644, ..Meta::default() };
            let size = records.len() as u64;
            self.put(&Head { size, ..Head::new(b"PaxHeaders/entry", b'x', &meta) }.block())?;
            self.put(&records)?;
            self.pad(size)?;
        }
        self.done.entries += 1;
        let most = self.tree.limits.entries;
        if self.done.entries > most {
            let what = format!("has more than {most} entries");
            return Err(Error::invalid("layer", what).hint("raise --max-entries"));
        }
        self.put(&head.block())
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        self.put(&[0; BLOCK][..(size.wrapping_neg() % BLOCK as u64) as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| write_error(&e))
    }
}

/// Opens what `stat` was told of. A tree in use may have a device under the name by now, and opening one is an act.
pub fn open_regular(path: &[u8], dir: &OwnedFd, name: &[u8], stat: &Stat) -> Result<std::fs::File> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = fs::openat(dir, name, flags, Mode::empty()).map_err(|e| failed(path, "openat", e))?;
    let found = fs::fstat(&place).map_err(|e| failed(path, "fstat", e))?;
    if (found.st_dev, found.st_ino, found.st_mode) != (stat.st_dev, stat.st_ino, stat.st_mode) {
        return Err(refuse(path, "changed while it was read"));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = fs::open(format!("/proc/self/fd/{}", place.as_raw_fd()), flags, Mode::empty());
    fd.map(Into::into).map_err(|e| failed(path, "open", e))
}

/// The attributes of what is at `place`, by name, without those that are overlayfs' own or the host's.
pub fn xattrs(path: &[u8], place: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match whole(|buf| fs::llistxattr(place, buf)) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other.map_err(|e| failed(path, "llistxattr", e))?,
    };
    let mut out = Vec::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        match overlay_name(name) {
            Some(b"redirect" | b"metacopy") if Rights::ours().is_heeded(name) => {
                let what = format!("has {}: its content lies elsewhere", super::entry::shown(name));
                return Err(refuse(path, what).hint("mount with redirect_dir=off and metacopy=off"));
            }
            Some(_) => continue,
            None if name == b"security.selinux" => continue, // of this host's policy
            None if name.contains(&b'=') => {
                return Err(refuse(path, format!("has the attribute {:?}", super::entry::shown(name))));
            }
            None => {}
        }
        let value = whole(|buf| fs::lgetxattr(place, name, buf))
            .map_err(|e| failed(path, &format!("lgetxattr {}", super::entry::shown(name)), e))?;
        out.push((name.to_vec(), value));
    }
    out.sort();
    Ok(out)
}

/// The parts of an entry.
#[derive(Clone, Copy)]
struct Head<'a> {
    name: &'a [u8],
    kind: u8,
    link: &'a [u8],
    size: u64,
    /// Major and minor number.
    device: (u32, u32),
    meta: &'a Meta,
}

/// Largest numbers of fields of 8 and of 12 bytes.
const SHORT: u64 = 0o7777777;
const LONG: u64 = 0o77777777777;
/// Bytes of a name in a header.
const NAME: usize = 100;

impl<'a> Head<'a> {
    fn new(name: &'a [u8], kind: u8, meta: &'a Meta) -> Self {
        Self { name, kind, link: b"", size: 0, device: (0, 0), meta }
    }

    /// PAX records for what a header has no room for, in a fixed order.
    fn records(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let number = |n: u64| n.to_string().into_bytes();
        let (seconds, nanos) = self.meta.mtime;
        for (key, value, needed) in [
            ("path", self.name.to_vec(), self.name.len() > NAME),
            ("linkpath", self.link.to_vec(), self.link.len() > NAME),
            ("size", number(self.size), self.size > LONG),
            ("uid", number(self.meta.uid.into()), u64::from(self.meta.uid) > SHORT),
            ("gid", number(self.meta.gid.into()), u64::from(self.meta.gid) > SHORT),
            ("mtime", time(self.meta.mtime), nanos > 0 || !(0..=LONG as i64).contains(&seconds)),
        ] {
            if needed {
                record(&mut out, key.as_bytes(), &value);
            }
        }
        for (name, value) in &self.meta.xattrs {
            record(&mut out, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        out
    }

    /// The header block of ustar (pax(1)); what has no room is cut or zero.
    fn block(&self) -> [u8; BLOCK] {
        let mut b = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
        let octal =
            |n: u64, max: u64, width: usize| format!("{:0width$o}", if n > max { 0 } else { n }).into_bytes();
        put(0, &self.name[..self.name.len().min(NAME)]);
        put(100, &octal(self.meta.mode.into(), SHORT, 7));
        put(108, &octal(self.meta.uid.into(), SHORT, 7));
        put(116, &octal(self.meta.gid.into(), SHORT, 7));
        put(124, &octal(self.size, LONG, 11));
        put(136, &octal(u64::try_from(self.meta.mtime.0).unwrap_or(0), LONG, 11));
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, &self.link[..self.link.len().min(NAME)]);
        put(257, b"ustar\x0000");
        put(329, &octal(self.device.0.into(), SHORT, 7));
        put(337, &octal(self.device.1.into(), SHORT, 7));
        let sum: u32 = b.iter().map(|b| u32::from(*b)).sum();
        b[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        b
    }
}

/// `LENGTH KEY=VALUE\n`; the length counts its own digits.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} ").as_bytes());
    out.extend_from_slice(&[key, b"=", value, b"\n"].concat());
}

/// `[-]SECONDS[.FRACTION]`.
fn time((seconds, nanos): (i64, u32)) -> Vec<u8> {
    match (seconds, nanos) {
        (s, 0) => s.to_string(),
        (s, n) if s < 0 => format!("-{}.{:09}", -(s + 1), 1_000_000_000 - n),
        (s, n) => format!("{s}.{n:09}"),
    }
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::apply::apply;
    use crate::image::layer::entry::Kind;
    use crate::image::layer::files::Files;
    use crate::image::layer::read::Reader;
    use crate::image::limits::Limits;
    use crate::image::view::open;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};

    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("orlop-write-{name}-{}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn make(&self, name: &str) -> PathBuf {
            std::fs::create_dir_all(self.0.join(name)).unwrap();
            self.0.join(name)
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn tar(layers: &[&Path], below: Option<&View>, times: Times) -> Result<Vec<u8>> {
        let dirs: Vec<PathBuf> = layers.iter().map(|l| l.to_path_buf()).collect();
        let root = open(layers[0])?;
        let view = View::open(&dirs)?;
        let mut out = Vec::new();
        let (root, limits) = (Some(&root), &Limits::default());
        write(&Tree { view: &view, root, opaque: false, below, times, limits }, &mut out)?;
        Ok(out)
    }

    fn names(tar: &[u8]) -> Vec<String> {
        let mut r = Reader::new(tar, Limits::default());
        let entries = std::iter::from_fn(|| r.next_entry().unwrap());
        entries.map(|e| String::from_utf8(e.path).unwrap()).collect()
    }

    fn opaque(dir: &Path) {
        fs::setxattr(dir, Rights::ours().opaque(), b"y", fs::XattrFlags::empty()).unwrap();
    }

    fn whiteout(path: &Path) {
        fs::mknodat(fs::CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    }

    #[test]
    fn a_layer_comes_back_from_its_own_archive() {
        let t = Temp::new("back");
        let a = t.make("a");
        let long = ["deep"; 3].map(|d| d.repeat(25)).join("/");
        std::fs::create_dir_all(a.join(&long)).unwrap();
        std::fs::write(a.join(&long).join("f"), "x".repeat(700)).unwrap();
        std::fs::hard_link(a.join(&long).join("f"), a.join("z")).unwrap();
        symlink("t".repeat(300), a.join("link")).unwrap();
        std::fs::write(a.join("setuid"), "").unwrap();
        std::fs::set_permissions(a.join("setuid"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        std::fs::write(a.join("é\n"), "").unwrap();
        fs::mknodat(fs::CWD, a.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        drop(std::os::unix::net::UnixListener::bind(a.join("socket")).unwrap());
        opaque(&t.make("a/opaque"));
        whiteout(&a.join("gone"));
        let attribute = fs::setxattr(a.join("z"), "user.x", b"1\n\0", fs::XattrFlags::empty()).is_ok();
        if Rights::ours().owners {
            std::os::unix::fs::lchown(a.join("link"), Some(3_000_000), Some(4_000_000_000)).unwrap();
        }
        let first = tar(&[&a], None, Times::default()).unwrap();
        let b = t.make("b");
        apply(&first[..], Files::new(open(&b).unwrap()), &Limits::default()).unwrap();
        assert!(tar(&[&b], None, Times::default()).unwrap() == first);
        let all = names(&first);
        assert_eq!(all[..3], ["", ".wh.gone", &"deep".repeat(25)]);
        let tail = ["fifo", "link", "opaque", "opaque/.wh..wh..opq", "setuid", "z", "é\n"];
        assert_eq!(all[all.len() - 7..], tail);
        let z = Reader::new(&first[..], Limits::default());
        let mut r = z;
        let z = std::iter::from_fn(|| r.next_entry().unwrap()).find(|e| e.path == b"z").unwrap();
        assert_eq!(z.kind, Kind::Link(format!("{long}/f").into_bytes()));
        assert_eq!(attribute, fs::getxattr(b.join("z"), "user.x", &mut [0; 9][..]) == Ok(3));
    }

    #[test]
    fn merged_layers_say_what_all_of_them_say() {
        let t = Temp::new("merged");
        let [top, mid, low] = ["top", "mid", "low"].map(|n| t.make(n));
        for (dir, path) in [
            (&low, "d/a"),
            (&low, "e/a"),
            (&low, "f/a"),
            (&mid, "d/b"),
            (&top, "d/c"),
            (&top, "f/c"),
            (&mid, "e/b"),
        ] {
            std::fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.join(path), path).unwrap();
        }
        whiteout(&top.join("d/b"));
        opaque(&mid.join("e"));
        whiteout(&mid.join("f"));
        whiteout(&top.join("g"));
        std::fs::write(low.join("g"), "").unwrap();
        let list = |layers: &[&Path], below: Option<&View>| {
            names(&tar(layers, below, Times::default()).unwrap())[1..].join(" ")
        };
        let none = View::default();
        assert_eq!(list(&[&top, &mid, &low], Some(&none)), "d d/a d/c e e/b f f/c");
        let part = ".wh.g d d/.wh.b d/c e e/.wh..wh..opq e/b f f/.wh..wh..opq f/c";
        assert_eq!(list(&[&top, &mid], None), part);
        // Nothing of this name is below.
        let below = View::open(std::slice::from_ref(&low)).unwrap();
        assert_eq!(list(&[&top, &mid], Some(&below)), part.replace("d/.wh.b ", ""));
    }

    #[test]
    fn times_end_with_the_epoch_that_was_given() {
        let t = Temp::new("times");
        let a = t.make("a");
        let at = |s: i64, n: i64| {
            let time = fs::Timespec { tv_sec: s, tv_nsec: n as _ };
            let times = fs::Timestamps { last_access: time, last_modification: time };
            fs::utimensat(fs::CWD, &a, &times, AtFlags::empty()).unwrap();
        };
        let read = |latest, nanos| {
            let tar = tar(&[&a], None, Times { latest, nanos }).unwrap();
            Reader::new(&tar[..], Limits::default()).next_entry().unwrap().unwrap().meta.mtime
        };
        at(1_000, 5);
        assert_eq!((read(None, false), read(None, true)), ((1_000, 0), (1_000, 5)));
        assert_eq!((read(Some(900), true), read(Some(1_000), true)), ((900, 0), (1_000, 0)));
        at(-2, 750_000_000);
        assert_eq!((read(None, false), read(None, true)), ((-2, 0), (-2, 750_000_000)));
    }

    #[test]
    fn what_no_layer_can_hold_is_refused() {
        let t = Temp::new("refused");
        let a = t.make("a");
        std::fs::write(a.join(".wh.x"), "").unwrap();
        let e = tar(&[&a], None, Times::default()).map(drop).unwrap_err().to_string();
        assert!(e.contains("\".wh.x\": has the name of a whiteout"), "{e}");
        std::fs::rename(a.join(".wh.x"), a.join("x")).unwrap();
        let key = Rights::ours().opaque().replace("opaque", "redirect");
        fs::setxattr(t.make("a/d"), &*key, b"/y", fs::XattrFlags::empty()).unwrap();
        let e = tar(&[&a], None, Times::default()).map(drop).unwrap_err().to_string();
        assert!(e.contains("\"d\"") && e.contains("redirect_dir=off"), "{e}");
    }
}
