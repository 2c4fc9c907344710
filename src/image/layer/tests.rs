//! Archives by hand, honest and hostile, into a directory beside a canary.

use super::apply::{Applied, apply};
use super::files::Files;
use super::read::Reader;
use crate::error::Result;
use crate::image::erofs::image::Image;
use crate::image::erofs::tests::same;
use crate::image::limits::Limits;
use crate::image::tree::{Met, Usage};
use crate::image::view::{is_opaque, open, open_layer};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A tar archive, header by header.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn entry(mut self, kind: u8, name: &str, link: &str, data: &[u8]) -> Self {
        let mut h = tar::Header::new_ustar();
        h.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        h.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        h.as_mut_bytes()[156] = kind;
        h.set_mode(if kind == b'5' { 0o750 } else { 0o640 });
        h.set_uid(0);
        h.set_gid(0);
        h.set_mtime(1_000_000_000);
        h.set_size(data.len() as u64);
        if kind == b'3' || kind == b'4' {
            h.set_device_major(1).unwrap();
            h.set_device_minor(name.len() as u32 - 1).unwrap();
        }
        h.set_cksum();
        self.push(h.as_bytes());
        self.push(data);
        self
    }

    fn push(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(b'0', name, "", data.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.entry(b'5', name, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name, target, b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name, target, b"")
    }

    /// An extended header for the next entry.
    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut n = rest + 1;
            while n != rest + n.to_string().len() {
                n = rest + n.to_string().len();
            }
            data.extend_from_slice(format!("{n} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.entry(b'x', "pax", "", &data)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// `fs` for the layer, beside a canary.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("orlop-layer-{}-{n}", std::process::id()));
        fs::create_dir_all(dir.join("fs")).unwrap();
        fs::write(dir.join("canary"), "alive").unwrap();
        Self(dir)
    }

    fn apply(&self, tar: Vec<u8>) -> Result<Applied> {
        let files = Files::new(open(&self.0.join("fs")).unwrap());
        let done = apply(&tar[..], files, &Limits::default()).map(|a| a.0);
        assert_eq!(fs::read(self.0.join("canary")).unwrap(), b"alive");
        assert_eq!(fs::metadata(self.0.join("canary")).unwrap().nlink(), 1);
        assert_eq!(fs::read_dir(&self.0).unwrap().count(), 2, "something was made beside the layer");
        if rustix::process::geteuid().is_root() {
            self.compare(&tar, &done);
        }
        done
    }

    /// The image of the same archive is the same tree, refused when the directory was.
    fn compare(&self, tar: &[u8], done: &Result<Applied>) {
        let path = self.0.with_extension("d");
        fs::create_dir(&path).unwrap();
        let path = path.join("erofs");
        let file = fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let image = apply(tar, Image::new(file, [7; 16]), &Limits::default());
        let mounted = open_layer(&path);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        match (done, image) {
            (Err(_), Err(_)) => {}
            (Ok(want), Ok((got, image))) => {
                assert_eq!(*want, got);
                let usage = Usage::of(&open(&self.0.join("fs")).unwrap(), &mut Met::new()).unwrap();
                assert_eq!(image.told(), usage.told());
                // Kernels that mount no image from a file skip what the integration tests count.
                mounted.iter().for_each(|m| same(&self.0.join("fs"), m));
            }
            (want, got) => panic!("directory {want:?}, image {:?}", got.map(|g| g.0)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join("fs").join(name)
    }

    fn meta(&self, name: &str) -> Metadata {
        fs::symlink_metadata(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn is_whiteout(&self, name: &str) -> bool {
        let m = self.meta(name);
        m.file_type().is_char_device() && m.rdev() == 0
    }

    fn is_opaque(&self, name: &str) -> bool {
        is_opaque(&open(&self.path(name)).unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn names(list: &[super::apply::Name]) -> Vec<String> {
    list.iter().map(|n| String::from_utf8_lossy(n.bytes()).into_owned()).collect()
}

#[test]
fn entries_become_files_with_their_metadata() {
    let p = Place::new();
    let tar = Tar::default()
        .dir("d/")
        .pax(&[("mtime", b"1234567890.123456789"), ("SCHILY.xattr.user.a", b"\n=\0")])
        .file("d/f", "data")
        .symlink("d/l", "f")
        .link("d/h", "d/f")
        .entry(b'6', "fifo", "", b"")
        .end();
    let a = p.apply(tar).unwrap();
    assert_eq!((a.entries, a.bytes, a.root_listed), (5, 4, false));
    let f = p.meta("d/f");
    assert_eq!((f.mode(), f.mtime(), f.mtime_nsec()), (0o100640, 1_234_567_890, 123_456_789));
    assert_eq!((f.nlink(), f.ino()), (2, p.meta("d/h").ino()));
    assert_eq!(p.text("d/l"), "data");
    assert_eq!(p.meta("d/l").mtime(), 1_000_000_000);
    assert_eq!((p.meta("d").mode(), p.meta("d").mtime()), (0o40750, 1_000_000_000));
    assert!(p.meta("fifo").file_type().is_fifo());
    let mut value = [0; 8];
    let n = rustix::fs::getxattr(p.path("d/f"), "user.a", &mut value[..]).unwrap();
    assert_eq!(&value[..n], b"\n=\0");
    assert!(a.needs.is_empty());
}

#[test]
fn set_id_bits_survive_the_change_of_owner() {
    let mut tar = Tar::default().pax(&[("uid", b"7"), ("gid", b"8")]).file("su", "x");
    tar.0[1024 + 100..1024 + 108].copy_from_slice(b"0006755\0");
    let mut h = tar::Header::from_byte_slice(&tar.0[1024..1536]).clone();
    h.set_cksum();
    tar.0[1024..1536].copy_from_slice(h.as_bytes());
    let p = Place::new();
    p.apply(tar.end()).unwrap();
    assert_eq!(p.meta("su").mode() & 0o7777, 0o6755);
    if rustix::process::geteuid().is_root() {
        assert_eq!((p.meta("su").uid(), p.meta("su").gid()), (7, 8));
    }
}

#[test]
fn hostile_names_are_refused() {
    for tar in [
        Tar::default().file("../canary", "dead"),
        Tar::default().file("a/../../canary", "dead"),
        Tar::default().link("h", "../canary"),
        Tar::default().file(".wh...", ""),
        Tar::default().file("a/.wh..", ""),
        Tar::default().file(".wh.", ""),
        Tar::default().file(".wh.d/f", "x"),
        Tar::default().entry(b'3', "c", "", b"").entry(b'9', "odd", "", b""),
        Tar::default().file("f", "x").link("f", "f"),
        Tar::default().dir("d").link("h", "d"),
        Tar::default().file("f", "x").file("f/below", "x"),
        Tar::default().symlink("a", "b").symlink("b", "a").file("a/f", "x"),
        Tar::default().file("", "root as a file"),
        Tar::default().dir("d").file("d/x", "1").link("d", "d/x"),
        Tar::default().pax(&[("path", b"../canary")]).file("f", "dead"),
        Tar::default().pax(&[("path", b"a\0b")]).file("f", "dead"),
        Tar::default().pax(&[("linkpath", b"../canary")]).link("f", "x"),
        Tar::default().pax(&[("uid", b"4294967295")]).file("f", ""),
        Tar::default().pax(&[("path", b"f")]),
    ] {
        assert!(Place::new().apply(tar.end()).is_err());
    }
}

#[test]
fn links_never_lead_out() {
    let p = Place::new();
    let absolute = p.0.canonicalize().unwrap();
    let absolute = absolute.to_str().unwrap();
    for tar in [
        Tar::default().symlink("l", absolute).file("l/canary", "dead"),
        Tar::default().symlink("l", "..").file("l/canary", "dead"),
        Tar::default().symlink("l", "../../../../..").file(&format!("l{absolute}/canary"), "dead"),
        // written through a link of the same name
        Tar::default().symlink("l", "../canary").file("l", "dead"),
        Tar::default().symlink("l", "../canary").link("h", "l"),
        Tar::default().symlink("l", "..").link("h", "l/canary"),
        // metadata through a link
        Tar::default().symlink("l", "..").dir("l"),
        Tar::default().symlink("l", "../canary").entry(b'5', "l/.", "", b""),
        Tar::default().symlink("l", "..").file("l/.wh.canary", ""),
        Tar::default().symlink("l", "..").file("l/.wh..wh..opq", ""),
        Tar::default().file("/canary", "x").file("//etc/x", "x"),
    ] {
        let q = Place::new();
        q.apply(tar.end()).unwrap();
        assert_eq!(fs::read(p.0.join("canary")).unwrap(), b"alive");
        assert_eq!(fs::metadata(&p.0).unwrap().mode() & 0o7777, fs::metadata(&q.0).unwrap().mode() & 0o7777);
    }
}

#[test]
fn links_of_the_layer_are_followed_as_a_root_would() {
    let p = Place::new();
    let tar = Tar::default().dir("usr").dir("usr/lib").symlink("lib", "/usr/lib").symlink("x", "lib/..");
    let a = p.apply(tar.file("lib/a", "1").file("x/b", "2").file("lib/new/c", "3").end()).unwrap();
    assert_eq!(
        (p.text("usr/lib/a"), p.text("usr/b"), p.text("usr/lib/new/c")),
        ("1".into(), "2".into(), "3".into())
    );
    assert!(p.meta("lib").is_symlink());
    assert_eq!(names(&a.needs.dirs), ["usr/lib/new"]);
}

#[test]
fn the_last_of_equal_names_counts() {
    let p = Place::new();
    let tar = Tar::default()
        .file("a", "old")
        .link("kept", "a")
        .file("a", "new")
        .dir("d")
        .file("d/x", "1")
        .file("d/.wh.y", "")
        .file("d", "file")
        .file("e", "file")
        .dir("e")
        .dir("f")
        .file("f/x", "1")
        .dir("f")
        .symlink("g", "f")
        .dir("g");
    p.apply(tar.end()).unwrap();
    assert_eq!((p.text("a"), p.text("kept"), p.text("d")), ("new".into(), "old".into(), "file".into()));
    assert!(p.meta("e").is_dir() && p.meta("g").is_dir());
    assert_eq!(p.text("f/x"), "1");
}

#[test]
fn whiteouts_do_not_depend_on_their_place() {
    let before = Tar::default()
        .file(".wh.d", "")
        .file(".wh.f", "")
        .file(".wh.gone", "")
        .dir("d")
        .file("d/x", "1")
        .file("f", "1");
    let after = Tar::default()
        .dir("d")
        .file("d/x", "1")
        .file("f", "1")
        .file(".wh.gone", "")
        .file(".wh.f", "")
        .file(".wh.d", "");
    for tar in [before, after] {
        let p = Place::new();
        let a = p.apply(tar.end()).unwrap();
        assert!(p.is_opaque("d") && p.is_whiteout("gone"));
        assert_eq!((p.text("d/x"), p.text("f")), ("1".into(), "1".into()));
        assert_eq!(p.meta("d").mtime(), 1_000_000_000);
        assert!(a.needs.is_empty(), "{a:?}");
    }
}

#[test]
fn opaque_directories_hide_and_hold_no_whiteouts() {
    let p = Place::new();
    let tar =
        Tar::default().file("d/.wh..wh..opq", "").file("d/.wh.x", "").file("d/e/.wh.y", "").file("d/k", "1");
    let a = p.apply(tar.file("w/.wh.z", "").file(".wh..wh.plnk", "").end()).unwrap();
    assert!(p.is_opaque("d") && !p.is_opaque("w") && p.is_whiteout("w/z"));
    assert!(!p.path("d/x").exists() && fs::symlink_metadata(p.path("d/e/y")).is_err());
    assert!(!p.path(".wh..wh.plnk").exists() && !p.path("d/.wh..wh..opq").exists());
    // d itself is still that of the layers below; d/e is not.
    assert_eq!(
        (names(&a.needs.dirs), names(&a.needs.whiteouts)),
        (vec!["d".into(), "w".into()], vec!["w".to_string()])
    );
    let p = Place::new();
    assert!(p.apply(Tar::default().file(".wh..wh..opq", "").end()).unwrap().opaque);
}

#[test]
fn what_is_not_in_the_layer_is_needed_of_those_below() {
    let p = Place::new();
    let tar = Tar::default()
        .file("a/b/c", "1")
        .link("h", "etc/passwd")
        .link("late", "z")
        .file("z", "1")
        .link("i", "h");
    let a = p.apply(tar.end()).unwrap();
    assert_eq!(names(&a.needs.dirs), ["a", "a/b"]);
    let links: Vec<_> =
        a.needs.links.iter().map(|(p, t)| names(&[p.clone(), t.clone()]).join(" -> ")).collect();
    assert_eq!(links, ["h -> etc/passwd", "i -> etc/passwd"]);
    assert_eq!(p.meta("late").ino(), p.meta("z").ino());
    assert_eq!((p.meta("a").mode() & 0o7777, p.meta("a").mtime()), (0o755, 0));
}

#[test]
fn an_image_does_not_speak_to_overlayfs() {
    let p = Place::new();
    let records: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.overlay.metacopy", b""),
        ("SCHILY.xattr.user.fine", b"1"),
    ];
    p.apply(Tar::default().pax(&records).dir("d").pax(&records).file("f", "").end()).unwrap();
    for name in ["d", "f"] {
        let mut list = vec![0; 1024];
        let n = rustix::fs::listxattr(p.path(name), &mut list[..]).unwrap();
        let list = String::from_utf8_lossy(&list[..n]).into_owned();
        assert!(list.contains("user.fine") && !list.contains("overlay"), "{list}");
    }
    let whiteout = Tar::default().entry(b'3', "c", "", b"");
    let mut raw = whiteout.0;
    raw[329..337].copy_from_slice(b"0000000\0");
    let mut h = tar::Header::from_byte_slice(&raw[..512]).clone();
    h.set_cksum();
    raw[..512].copy_from_slice(h.as_bytes());
    assert!(p.apply(Tar(raw).end()).unwrap_err().to_string().contains("0:0"));
}

#[test]
fn devices_are_made_by_root_and_counted_by_others() {
    let p = Place::new();
    let a = p.apply(Tar::default().entry(b'3', "null", "", b"").entry(b'4', "ram", "", b"").end()).unwrap();
    if rustix::process::geteuid().is_root() {
        assert_eq!((p.meta("null").rdev(), p.meta("null").mode()), (libc::makedev(1, 3), 0o20640));
        assert!(p.meta("ram").file_type().is_block_device());
    } else {
        assert_eq!(a.skipped, 2);
    }
}

#[test]
fn long_names_of_both_kinds_are_read() {
    let long = format!("{}/{}", "d".repeat(150), "n".repeat(200));
    let target = "t".repeat(180);
    let p = Place::new();
    let gnu = Tar::default()
        .entry(b'K', "././@LongLink", "", format!("{target}\0").as_bytes())
        .entry(b'L', "././@LongLink", "", format!("{long}\0").as_bytes())
        .symlink("cut", "cut");
    let both = gnu
        .pax(&[("path", format!("{long}2").as_bytes())])
        .entry(b'L', "", "", b"ignored\0")
        .file("cut", "pax");
    // Neither holds for the entry behind.
    p.apply(both.file("plain", "1").end()).unwrap();
    assert_eq!(fs::read_link(p.path(&long)).unwrap(), Path::new(&target));
    assert_eq!((p.text(&format!("{long}2")), p.text("plain")), ("pax".into(), "1".into()));
}

#[test]
fn sizes_have_one_reading() {
    // A PAX size that differs from the header's: the file behind starts where PAX says (CVE-2025-62518).
    let inner = Tar::default().file("hidden", "x").0;
    let mut tar = Tar::default().pax(&[("size", inner.len().to_string().as_bytes())]).file("outer", "");
    tar.push(&inner);
    let p = Place::new();
    p.apply(tar.file("behind", "1").end()).unwrap();
    assert!(!p.path("hidden").exists());
    assert_eq!(p.meta("outer").len(), inner.len() as u64);
    assert_eq!(p.text("behind"), "1");
    // Directories and links have no data, whatever their size says; a global header's size is nothing.
    let p = Place::new();
    let mut tar = Tar::default().entry(b'g', "global", "", b"16 path=hijack\n\n").dir("d");
    let at = tar.0.len() - 512;
    tar.0[at + 124..at + 136].copy_from_slice(b"00000001000\0");
    let mut h = tar::Header::from_byte_slice(&tar.0[at..]).clone();
    h.set_cksum();
    tar.0[at..].copy_from_slice(h.as_bytes());
    p.apply(tar.file("f", "1").end()).unwrap();
    assert_eq!(p.text("f"), "1");
    assert!(!p.path("hijack").exists());
}

#[test]
fn sparse_files_keep_their_holes() {
    let p = Place::new();
    let map = "2\n8192\n3\n20000\n2\n";
    let mut data = map.as_bytes().to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"abcde");
    let one: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"one"),
        ("GNU.sparse.realsize", b"1000000"),
    ];
    let old: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", b"9000"), ("GNU.sparse.map", b"0,1,8999,1"), ("GNU.sparse.name", b"old")];
    p.apply(Tar::default().pax(&one).entry(b'0', "x/1", "", &data).pax(&old).file("x/2", "yz").end())
        .unwrap();
    let bytes = fs::read(p.path("one")).unwrap();
    assert_eq!((bytes.len(), &bytes[8192..8195], &bytes[20000..20002]), (1_000_000, &b"abc"[..], &b"de"[..]));
    assert!(p.meta("one").blocks() * 512 < 100_000);
    let bytes = fs::read(p.path("old")).unwrap();
    assert_eq!((bytes.len(), bytes[0], bytes[8999]), (9000, b'y', b'z'));
    for bad in ["0,3", "5,2,0,0", "0,9001", "0,1,0,1", "18446744073709551615,2", "0,1"] {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"9000"), ("GNU.sparse.map", bad.as_bytes())];
        assert!(Place::new().apply(Tar::default().pax(&records).file("x", "yz").end()).is_err(), "{bad}");
    }
}

#[test]
fn broken_archives_are_refused() {
    let good = Tar::default().file("f", &"x".repeat(1000)).end();
    for cut in [1, 511, 513, 1000, 1500] {
        assert!(Place::new().apply(good[..cut].to_vec()).is_err(), "{cut}");
    }
    let mut flipped = good.clone();
    flipped[0] ^= 1;
    assert!(Place::new().apply(flipped).unwrap_err().to_string().contains("checksum"));
    // Without the two blocks at the end, or with an archive behind them, which is not read.
    Place::new().apply(good[..1536].to_vec()).unwrap();
    // Or without the padding of its last entry, as `umoci insert` leaves it.
    Place::new().apply(good[..1512].to_vec()).unwrap();
    let p = Place::new();
    p.apply([good.clone(), Tar::default().file("second", "").end()].concat()).unwrap();
    assert!(!p.path("second").exists());
    assert!(Place::new().apply([&good[..1536], &[0; 512], &good[..]].concat()).is_err());
}

#[test]
fn limits_hold() {
    let tar = Tar::default().file("a", "12345").file("b", "12345").end();
    let with = |limits: Limits| {
        let mut r = Reader::new(&tar[..], limits);
        while r.next_entry()?.is_some() {}
        Ok::<_, crate::error::Error>(())
    };
    with(Limits { bytes: 10, entries: 2, ..Limits::default() }).unwrap();
    assert!(with(Limits { bytes: 9, ..Limits::default() }).is_err());
    assert!(with(Limits { entries: 1, ..Limits::default() }).is_err());
    // As the index of an archive is read, without a limit of bytes: the padding wraps around.
    let wraps = Tar::default().pax(&[("size", b"18446744073709551615")]).file("a", "").end();
    let mut r = Reader::new(&wraps[..], Limits { bytes: u64::MAX, ..Limits::default() });
    r.next_entry().unwrap();
    assert!(r.next_entry().unwrap_err().to_string().contains("ends in the middle"));
    let xattr = vec![b'x'; 60_000];
    let many: Vec<String> = (0..16).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
    let records: Vec<(&str, &[u8])> = many.iter().map(|k| (k.as_str(), &xattr[..])).collect();
    let kept = (0..290).fold(Tar::default(), |t, n| t.pax(&records).dir(&format!("{n}/")));
    assert!(Place::new().apply(kept.end()).unwrap_err().to_string().contains("too many directories"));
    let mut huge = Tar::default().entry(b'x', "pax", "", b"");
    huge.0[124..136].copy_from_slice(b"77777777777\0");
    let mut h = tar::Header::from_byte_slice(&huge.0).clone();
    h.set_cksum();
    huge.0.copy_from_slice(h.as_bytes());
    assert!(Place::new().apply(huge.0).unwrap_err().to_string().contains("at most"));
}

#[test]
fn attributes_are_kept_or_refused_as_the_kernel_does() {
    if !rustix::process::geteuid().is_root() {
        return; // an ordinary user sets none of these
    }
    let entry = |tag: u8, bits: u8, id: u32| [&[tag, 0, bits, 0][..], &id.to_le_bytes()].concat();
    let acl = |list: &[(u8, u8, u32)]| {
        let all: Vec<Vec<u8>> = list.iter().map(|(t, b, i)| entry(*t, *b, *i)).collect();
        [vec![2, 0, 0, 0], all.concat()].concat()
    };
    let none = u32::MAX;
    let (plain, named) = (
        acl(&[(1, 6, none), (4, 4, none), (0x20, 0, none)]),
        acl(&[(1, 7, none), (2, 5, 42), (4, 1, none), (0x10, 3, none), (0x20, 4, none)]),
    );
    let capability = [&[1, 0, 0, 2][..], &[0; 16]].concat();
    let (access, default) = ("SCHILY.xattr.system.posix_acl_access", "SCHILY.xattr.system.posix_acl_default");
    let cap = "SCHILY.xattr.security.capability";
    for records in [
        &[(access, &plain[..])][..],
        &[(access, &named)],
        &[(access, b""), (cap, b"")],
        &[(cap, &capability), ("SCHILY.xattr.user.x", b""), ("SCHILY.xattr.trusted.y", b"1")],
        &[("SCHILY.xattr.odd", b"1"), ("SCHILY.xattr.security.selinux", b"system_u:object_r:etc_t:s0\0")],
    ] {
        let p = Place::new();
        p.apply(Tar::default().pax(records).file("f", "x").pax(records).dir("d").end()).unwrap();
    }
    let tar = Tar::default().pax(&[(default, &named)]).dir("d").pax(&[(access, &named)]).dir("./");
    Place::new().apply(tar.end()).unwrap();
    // Links and nodes have no attributes of users; a list is more than the mode in its header.
    let of: &[(&str, &[u8])] = &[("SCHILY.xattr.user.x", b"1"), (access, &plain)];
    let tar = Tar::default().pax(&of[..1]).symlink("l", "x").pax(of).entry(b'6', "fifo", "", b"");
    let p = Place::new();
    p.apply(tar.end()).unwrap();
    assert_eq!(p.meta("fifo").mode() & 0o777, 0o640);
    let unsorted = acl(&[(4, 4, none), (1, 6, none), (0x20, 0, none)]);
    let unmasked = acl(&[(1, 7, none), (2, 5, 42), (4, 1, none), (0x20, 4, none)]);
    let long = format!("SCHILY.xattr.user.{}", "x".repeat(256));
    for (key, value) in [
        (access, &unsorted[..]),
        (access, &unmasked),
        (access, &named[..9]),
        (default, &named),
        (cap, &capability[..12]),
        ("SCHILY.xattr.user.", b"1"),
        (&long, b"1"),
        ("SCHILY.xattr.user.big", &[1; 70_000]),
    ] {
        assert!(
            Place::new().apply(Tar::default().pax(&[(key, value)]).file("f", "x").end()).is_err(),
            "{key}"
        );
    }
}

#[test]
fn no_device_becomes_another_one() {
    let (zero, wide) = (b"00000000", b"\x80\0\0\x01\0\0\0\x01");
    for (major, minor) in [(b"00010000", zero), (b"00000001", b"04000000"), (zero, zero), (wide, zero)] {
        let mut tar = Tar::default().entry(b'3', "c", "", b"");
        tar.0[329..345].copy_from_slice(&[*major, *minor].concat());
        let mut h = tar::Header::from_byte_slice(&tar.0[..512]).clone();
        h.set_cksum();
        tar.0[..512].copy_from_slice(h.as_bytes());
        assert!(Place::new().apply(tar.end()).is_err(), "{major:?} {minor:?}");
    }
}

/// More names than a block of a directory holds, all that stands around the ends of blocks, and what replaces what.
#[test]
fn large_directories_and_files_of_every_size_are_the_same_in_both_forms() {
    let mut tar = Tar::default().dir("./").symlink("to", "d").symlink("long", &"x/".repeat(49)).dir("d");
    for n in 0..300 {
        tar = tar.file(&format!("d/{}{n}", ["!", "-", ".x", "a", "~"][n % 5]), &"y".repeat(n % 7));
    }
    for n in [0, 1, 4063, 4064, 4065, 4095, 4096, 4097, 8191, 65_535, 65_536, 70_000] {
        tar = tar.entry(b'0', &format!("f{n}"), "", &(0..n).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    }
    let owner: &[(&str, &[u8])] = &[("uid", b"100000"), ("gid", b"70000"), ("mtime", b"-5.5")];
    tar = tar.pax(owner).file("to/owned", "x").link("h1", "f1").link("h2", "h1").link("h3", "f70000");
    tar = tar.file("h2", "replaced").dir("again").file("again/x", "1").file("again", "file").dir("again");
    tar = tar.file("z/.wh.one", "").file("z/.wh.two", "").file("deep/er/est/f", "x");
    let p = Place::new();
    assert!(p.apply(tar.end()).unwrap().entries > 300);
    assert_eq!((p.meta("f1").nlink(), p.text("h2")), (2, "replaced".to_string()));
}
