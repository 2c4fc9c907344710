//! What entries say: two readings of a header, sparse files, devices, attributes, whiteouts.

use crate::canary::Canary;
use crate::make::{Image, Place};
use crate::raw::{Tar, head, records};
use crate::{Case, forms, hold, is_there, needs_root, refused, seen, text};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

fn tar() -> Tar {
    Tar::default()
}

/// An archive that hides in the data of a file for readers that take the header's size.
fn inner() -> Vec<u8> {
    tar().file("hidden", "x").0
}

#[test]
fn a_header_has_one_reading() {
    needs_root!();
    let canary = Canary::new();
    let size = inner().len().to_string();
    let absolute = format!("{}/x", canary.path());
    let global =
        records(&[("path", absolute.as_bytes()), ("size", b"512"), ("uid", b"7"), ("linkpath", b"../x")]);
    let no_hidden = |r: &Path| assert!(!is_there(r.join("hidden")) && text(r.join("behind")) == "1");
    let outer = head(b'0', "outer");
    let mut data_for_dir = head(b'5', "d");
    data_for_dir.size(512);
    hold(
        &canary,
        vec![
            // CVE-2025-62518: the header says nothing, PAX says an archive.
            seen(
                "a PAX size over the header's",
                tar().pax(&[("size", size.as_bytes())]).raw(&outer, &inner()).file("behind", "1"),
                no_hidden,
            ),
            seen(
                "an extension between PAX and the file",
                {
                    let long = head(b'L', "././@LongLink");
                    tar()
                        .pax(&[("size", size.as_bytes())])
                        .entry(long, b"outer\0")
                        .raw(&outer, &inner())
                        .file("behind", "1")
                },
                no_hidden,
            ),
            seen("a size of a directory", tar().raw(&data_for_dir, b"").file("behind", "1"), no_hidden),
            seen(
                "PAX over GNU over the header",
                {
                    let both =
                        tar().pax(&[("path", b"pax")]).entry(head(b'L', ""), b"gnu\0").file("header", "1");
                    both.entry(head(b'L', ""), b"gnu\0ignored").file("header", "2").file("header", "3")
                },
                |r| {
                    assert_eq!(["pax", "gnu", "header"].map(|n| text(r.join(n))), ["1", "2", "3"]);
                },
            ),
            seen(
                "the last of equal records",
                tar().pax(&[("path", b"a"), ("path", b"b")]).file("c", "1"),
                |r| {
                    assert!(is_there(r.join("b")) && !is_there(r.join("a")) && !is_there(r.join("c")));
                },
            ),
            // Readers in Go leave these out, GNU tar and Python apply them: nothing honest in a layer depends on it.
            seen(
                "global headers",
                tar().entry(head(b'g', "global"), &global).file("f", "1").soft("l", "f"),
                |r| {
                    let m = fs::metadata(r.join("f")).unwrap();
                    assert_eq!((m.len(), m.uid(), fs::read_dir(r).unwrap().count()), (1, 0, 2));
                },
            ),
            refused(
                "an extended header alone",
                "is missing behind its extended header",
                tar().pax(&[("path", b"f")]),
            ),
            refused(
                "a record that is cut",
                "malformed",
                tar().entry(head(b'x', ""), b"99 path=x\n").file("f", ""),
            ),
            refused("a size that is no number", "a wrong size", tar().pax(&[("size", b"-1")]).file("f", "")),
            refused("a negative size", "a wrong size", tar().raw(head(b'0', "f").set(124, &[0xff; 12]), b"")),
            refused("a huge size", "raise --max-layer-bytes", {
                tar().raw(
                    head(b'0', "f")
                        .set(124, &[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
                    b"",
                )
            }),
            refused(
                "a size of 96 bits",
                "a wrong size",
                tar().raw(head(b'0', "f").set(124, &[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), b""),
            ),
            refused(
                "a size beyond the archive",
                "ends in the middle",
                tar().raw(head(b'0', "f").size(1 << 20), b"x"),
            ),
            refused("an unknown type", "unknown type", tar().entry(head(b's', "socket"), b"")),
            refused("a wrong checksum", "checksum", Tar([&tar().file("f", "").0[..], &[1; 512]].concat())),
            refused(
                "a hole between entries",
                "behind an empty block",
                Tar([tar().file("f", "").0, vec![0; 512], inner()].concat()),
            ),
            seen(
                "bytes behind the end",
                Tar([tar().file("behind", "1").end(), inner(), vec![7; 999]].concat()),
                no_hidden,
            ),
        ],
    );
}

#[test]
fn ids_and_times_are_in_their_range() {
    needs_root!();
    let canary = Canary::new();
    let with = |records: &[(&str, &[u8])]| tar().pax(records).file("f", "");
    let field = |at: usize, bytes: &[u8]| tar().raw(head(b'0', "f").set(at, bytes), b"");
    let owner = |uid: u32| move |r: &Path| assert_eq!(fs::metadata(r.join("f")).unwrap().uid(), uid);
    let there = |r: &Path| assert!(is_there(r.join("f")));
    hold(
        &canary,
        vec![
            seen("the largest id", with(&[("uid", b"4294967294")]), owner(u32::MAX - 1)),
            refused("the id that is none", "has the uid 4294967295", with(&[("uid", b"4294967295")])),
            refused("an id of 33 bits", "has the uid 4294967296", with(&[("uid", b"4294967296")])),
            refused("an id of 65 bits", "a wrong gid", with(&[("gid", b"18446744073709551616")])),
            refused("a negative id", "a wrong uid", with(&[("uid", b"-1")])),
            refused("a negative id in base 256", "a wrong uid", field(108, &[0xff; 8])),
            seen("an id in base 256", field(108, &[0x80, 0, 0, 0, 0, 1, 0x11, 0x70]), owner(70_000)),
            refused("a mode that is none", "a wrong mode", field(100, b"rwxr-xr-")),
            seen("a time of 63 bits", with(&[("mtime", b"9223372036854775807")]), there),
            seen("a time long ago", with(&[("mtime", b"-9223372036854775807.999")]), there),
            refused("a time of 64 bits", "a wrong mtime", with(&[("mtime", b"9223372036854775808")])),
            refused("a time with a word", "a wrong mtime", with(&[("mtime", b"1.x")])),
            seen("a negative time in base 256", field(136, &[0xff; 12]), there),
        ],
    );
}

#[test]
fn sparse_files_are_expanded_within_the_limits() {
    needs_root!();
    let canary = Canary::new();
    let holes = |r: &Path| {
        let bytes = fs::read(r.join("s")).unwrap();
        assert_eq!((bytes.len(), bytes[0], bytes[1], bytes[8999]), (9000, b'y', 0, b'z'));
        assert_eq!(text(r.join("behind")), "1");
    };
    let map: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"9000"), ("GNU.sparse.map", b"0,1,8999,1")];
    let list: [(&str, &[u8]); 6] = [
        ("GNU.sparse.size", b"9000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"0"),
        ("GNU.sparse.numbytes", b"1"),
        ("GNU.sparse.offset", b"8999"),
        ("GNU.sparse.numbytes", b"1"),
    ];
    let one: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"9000"),
    ];
    let block = |text: &str| [text.as_bytes(), &vec![0; 512 - text.len()]].concat();
    let mut old = head(b'S', "s");
    for (n, text) in ["00000000000", "00000000001", "00000021447", "00000000001"].iter().enumerate() {
        old.set(386 + 12 * n, text.as_bytes());
    }
    old.set(483, b"00000021450").size(2);
    let wrong = |what, name: &'static str, value: &[u8]| {
        refused(what, "sparse map", tar().pax(&[("GNU.sparse.size", b"9000"), (name, value)]).file("s", "yz"))
    };
    hold(
        &canary,
        vec![
            seen("GNU 0.1", tar().pax(&map).file("s", "yz").file("behind", "1"), holes),
            seen("GNU 0.0", tar().pax(&list).file("s", "yz").file("behind", "1"), holes),
            seen(
                "GNU 1.0",
                {
                    let data = [block("2\n0\n1\n8999\n1\n"), b"yz".to_vec()].concat();
                    tar().pax(&one).entry(head(b'0', "GNUSparseFile.0/s"), &data).file("behind", "1")
                },
                holes,
            ),
            seen("old GNU", tar().raw(&old, b"yz").file("behind", "1"), holes),
            wrong("extents that overlap", "GNU.sparse.map", b"0,1,0,1"),
            wrong("extents out of order", "GNU.sparse.map", b"5,1,0,1"),
            wrong("extents beyond the end", "GNU.sparse.map", b"8999,2"),
            wrong("extents that wrap", "GNU.sparse.map", b"18446744073709551615,2"),
            wrong("more data than the map", "GNU.sparse.map", b"0,1"),
            wrong("an odd map", "GNU.sparse.map", b"0"),
            refused(
                "a map without a size",
                "without a size",
                tar().pax(&[("GNU.sparse.map", b"0,2")]).file("s", "yz"),
            ),
            refused("a map of a million", "a wrong sparse map", {
                tar().pax(&one).entry(head(b'0', "s"), &block("1000000\n0\n1\n"))
            }),
            refused(
                "a map without an end",
                "a wrong sparse map",
                tar().pax(&one).entry(head(b'0', "s"), &[b'1'; 1024]),
            ),
            refused("a bomb of holes", "raise --max-layer-bytes", {
                tar()
                    .pax(&[("GNU.sparse.size", b"4611686018427387904"), ("GNU.sparse.map", b"0,1")])
                    .file("s", "y")
            }),
            refused("an old bomb of holes", "raise --max-layer-bytes", {
                let mut bomb = old.clone();
                bomb.set(483, &[0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]);
                tar().raw(&bomb, b"yz")
            }),
        ],
    );
}

#[test]
fn devices_and_set_id_bits_are_what_they_were() {
    needs_root!();
    let canary = Canary::new();
    let device = |kind: u8, n: (u32, u32)| tar().entry(head(kind, "n").mode(0o666).device(n.0, n.1), b"");
    hold(
        &canary,
        vec![
            seen("a device", device(b'3', (1, 7)), |r| {
                let m = fs::metadata(r.join("n")).unwrap();
                assert_eq!((m.rdev(), m.mode()), (0x107, 0o20666));
            }),
            seen("a block device", device(b'4', (7, 0)), |r| {
                assert!(fs::metadata(r.join("n")).unwrap().file_type().is_block_device());
            }),
            refused("the device of whiteouts", "0:0, which overlayfs takes", device(b'3', (0, 0))),
            refused("one that the kernel would cut to it", "which Linux has not", device(b'3', (4096, 0))),
            refused("a minor number too large", "which Linux has not", device(b'4', (1, 1 << 20))),
            seen("set-id bits", tar().pax(&[("uid", b"7")]).entry(head(b'0', "su").mode(0o6755), b""), |r| {
                let m = fs::metadata(r.join("su")).unwrap();
                assert_eq!((m.mode() & 0o7777, m.uid()), (0o6755, 7));
            }),
            seen("a FIFO", tar().entry(head(b'6', "p").mode(0o622), b""), |r| {
                let m = fs::metadata(r.join("p")).unwrap();
                assert!(m.file_type().is_fifo() && m.mode() & 0o777 == 0o622);
            }),
        ],
    );
}

/// cap_setuid=ep (capabilities(7)).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    rustix::fs::lgetxattr(path, name, &mut value[..]).ok().map(|n| value[..n].to_vec())
}

#[test]
fn attributes_of_files_are_kept_and_those_of_overlayfs_are_not() {
    needs_root!();
    let canary = Canary::new();
    let evil: [(&str, &[u8]); 7] = [
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/other"),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.redirect", b"/other"),
        ("SCHILY.xattr.user.fine", b"1"),
        ("SCHILY.xattr.security.capability", CAPABILITY),
    ];
    let below =
        || tar().dir("d").file("d/shown", "1").dir("other").file("other/secret", "2").file("f", "below");
    let hidden = ["user.overlay.opaque", "user.overlay.redirect", "trusted.overlay.redirect"];
    let none = move |path: &Path| hidden.iter().all(|n| attribute(path, n).is_none());
    hold(
        &canary,
        vec![
            seen(
                "a directory that is opaque by its attribute",
                tar().pax(&evil[..6]).dir("d").file("d/new", ""),
                move |r| {
                    let d = r.join("d");
                    assert!(
                        is_there(d.join("shown")) && is_there(d.join("new")) && !is_there(d.join("secret"))
                    );
                    assert!(none(&d) && attribute(&d, "user.fine").is_some());
                },
            )
            .on(below()),
            seen("a file that lies elsewhere", tar().pax(&evil).file("f", "own"), move |r| {
                let f = r.join("f");
                assert!(text(&f) == "own" && none(&f));
                assert_eq!(attribute(&f, "security.capability").as_deref(), Some(CAPABILITY));
            })
            .on(below()),
            seen(
                "an opaque directory with a redirect",
                tar().pax(&evil[1..2]).dir("d").file("d/.wh..wh..opq", "").file("d/new", ""),
                |r| {
                    assert!(is_there(r.join("d/new")) && fs::read_dir(r.join("d")).unwrap().count() == 1);
                },
            )
            .on(below()),
            refused(
                "an attribute that is too large",
                "",
                tar().pax(&[("SCHILY.xattr.user.x", &[b'x'; 70_000])]).file("f", ""),
            ),
        ],
    );
}

/// Whiteouts before and behind what they hide, of names that are none, of the root.
#[test]
fn whiteouts_stay_in_their_directory() {
    needs_root!();
    let canary = Canary::new();
    let below = || tar().dir("d").file("d/a", "1").file("d/b", "1").file("f", "1").dir("e").file("e/x", "1");
    let names = |r: &Path| {
        let mut all: Vec<_> =
            fs::read_dir(r).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };
    let none = |what, name: &str| refused(what, "hides no name", tar().file(name, "")).on(below());
    let mut cases: Vec<Case> = vec![
        none("a whiteout of nothing", "d/.wh."),
        none("a whiteout of the directory", "d/.wh.."),
        none("a whiteout of the one above", "d/.wh..."),
        refused("something below a whiteout", "the name of a whiteout", tar().file(".wh.d/x", ""))
            .on(below()),
        seen(
            "aufs' own names",
            tar().file("d/.wh..wh.plnk", "").dir("d/.wh..wh.orph").file("d/.wh..wh.aufs", ""),
            move |r| {
                assert_eq!(names(&r.join("d")), ["a", "b"]);
            },
        )
        .on(below()),
        seen("a whiteout before what replaces it", tar().file(".wh.f", "").file("f", "2"), |r| {
            assert_eq!(text(r.join("f")), "2");
        })
        .on(below()),
        seen("a whiteout behind what replaces it", tar().file("f", "2").file(".wh.f", ""), |r| {
            assert_eq!(text(r.join("f")), "2");
        })
        .on(below()),
        seen("a directory made anew", tar().file("d/c", "2").file(".wh.d", ""), move |r| {
            assert_eq!(names(&r.join("d")), ["c"]);
        })
        .on(below()),
        seen("an opaque root", tar().file("new", "").file(".wh..wh..opq", ""), move |r| {
            assert_eq!(names(r), ["new"])
        })
        .on(below()),
        seen("whiteouts of nothing", tar().file("fresh/.wh.x", "").file("d/.wh.nothing", ""), move |r| {
            assert!(names(&r.join("fresh")).is_empty() && names(&r.join("d")) == ["a", "b"]);
        })
        .on(below()),
    ];
    // Whatever the type of an entry with such a name is.
    for kind in b"0123456" {
        let entry = head(*kind, "d/.wh.a").link("x").device(1, 3);
        let case = seen("a whiteout of another type", tar().entry(entry, b""), move |r| {
            assert_eq!(names(&r.join("d")), ["b"]);
        });
        cases.push(case.on(below()));
    }
    hold(&canary, cases);
}

/// Two members of gzip are one stream, what is cut is refused.
#[test]
fn a_packed_stream_is_whole() {
    needs_root!();
    let gzip = |data: &[u8]| crate::make::pack(crate::make::Packing::Gzip, data);
    let plain = tar().file("a", &"1".repeat(5000)).file("b", "2").end();
    let image = || Image::new(vec![plain.clone()]).packing(crate::make::Packing::Gzip);
    for form in forms() {
        for (what, words, blob) in [
            ("two members", None, [gzip(&plain[..700]), gzip(&plain[700..])].concat()),
            ("cut in the stream", Some(""), gzip(&plain)[..40].to_vec()),
            ("cut in the checksum", Some(""), {
                let mut b = gzip(&plain);
                b.truncate(b.len() - 2);
                b
            }),
            ("bytes behind the stream", Some(""), [&gzip(&plain)[..], b"garbage"].concat()),
        ] {
            let p = Place::new();
            let source = image().write();
            crate::documents::replace_blob(&source, 0, &blob);
            let out = p.imgtool(&["import", "--layers", form, source.path(), "x"]);
            match words {
                None => {
                    out.ok();
                    let bundle = p.unpack("x", &[]);
                    assert_eq!(text(bundle.join("rootfs/b")), "2");
                    p.remove(&bundle);
                }
                Some(words) => {
                    let out = out.fails(words);
                    assert!(out.stderr.contains("layer sha256:"), "{what}: {}", out.stderr);
                }
            }
        }
    }
}

/// Both forms of layers take the same; how much of it a file system takes is told as that.
#[test]
fn attributes_have_limits() {
    needs_root!();
    let canary = Canary::new();
    let set = |all: &[(String, usize)]| {
        let values: Vec<Vec<u8>> = all.iter().map(|(_, n)| vec![b'v'; *n]).collect();
        let all: Vec<(String, &[u8])> =
            all.iter().zip(&values).map(|((k, _), v)| (format!("SCHILY.xattr.user.{k}"), &v[..])).collect();
        tar().pax(&all.iter().map(|(k, v)| (k.as_str(), *v)).collect::<Vec<_>>()).file("f", "")
    };
    let many: Vec<(String, usize)> = (0..300).map(|n| (format!("{n:0>250}"), 0)).collect();
    hold(
        &canary,
        vec![
            refused("a long name", "whose name has 256 bytes, at most 255", set(&[("n".repeat(251), 1)])),
            refused("a large value", "of 65536 bytes, at most 65535", set(&[("a".into(), 65536)])),
            refused("many names", "have 76800 bytes, at most 65536", set(&many)),
        ],
    );
    let p = Place::new();
    let out = p.imgtool(&[
        "import",
        "--layers",
        "dir",
        Image::new(vec![set(&[("a".into(), 20_000)]).end()]).write().path(),
        "x",
    ]);
    assert!(!out.stderr.contains("no space left"), "{}", out.stderr);
    assert!(out.status.success() || out.stderr.contains("has no room in one file"), "{}", out.stderr);
}
