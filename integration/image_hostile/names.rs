//! Where entries lead: names, links, and what is there already.

use crate::canary::Canary;
use crate::raw::{Tar, head};
use crate::{Case, hold, is_there, needs_root, refused, seen, text};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

fn tar() -> Tar {
    Tar::default()
}

#[test]
fn names_stay_in_the_layer() {
    needs_root!();
    let canary = Canary::new();
    let at = canary.path();
    let inside = at.trim_start_matches('/').to_string();
    let (name255, name256) = ("n".repeat(255), "n".repeat(256));
    let wide = "w/".repeat(300);
    let deep = format!("{}f", "d/".repeat(257));
    let edge = format!("{}f", "d/".repeat(256));
    let long = |n: usize| format!("{}{}", "0123456789abcde/".repeat(n / 16), "x".repeat(n % 16));
    let (shown, full, root) = (inside.clone(), name255.clone(), "is the root, which is a directory");
    hold(
        &canary,
        vec![
            seen("an absolute name", tar().long(&format!("{at}/x"), "in"), move |r| {
                assert_eq!(text(r.join(&shown).join("x")), "in");
            }),
            seen("many slashes", tar().file("//a//./b", "in"), |r| assert_eq!(text(r.join("a/b")), "in")),
            refused("a name that goes up", "leads out of its directory", tar().file("../x", "out")),
            refused("up behind down", "leads out of its directory", tar().file("a/../../x", "out")),
            refused("up in the PAX name", "leads out", tar().long("a/../../x", "out")),
            refused("up in the GNU name", "leads out", {
                tar().entry(head(b'L', "././@LongLink"), b"../x\0").file("harmless", "out")
            }),
            seen("an empty name for the root", tar().entry(head(b'5', "").mode(0o711), b""), |r| {
                assert_eq!(fs::metadata(r).unwrap().mode() & 0o7777, 0o711);
            }),
            seen("the root itself", tar().entry(head(b'5', "./").mode(0o700), b""), |r| {
                assert_eq!(fs::metadata(r).unwrap().mode() & 0o7777, 0o700);
            }),
            refused("a file for the root", root, tar().file(".", "")),
            refused("a link for the root", root, tar().soft(".", at)),
            refused("a device for the root", root, tar().entry(head(b'3', "/").device(1, 3), b"")),
            refused("a whiteout of the directory itself", "hides no name", tar().file("a/.wh..", "")),
            seen("a name of 255 bytes", tar().long(&name255, "in"), move |r| {
                assert_eq!(text(r.join(&full)), "in");
            }),
            refused("a name of 256 bytes", "more than 255 bytes", tar().long(&name256, "")),
            refused(
                "a whiteout of 256 bytes",
                "more than 255 bytes",
                tar().long(&format!(".wh.{name255}"), ""),
            ),
            seen("a path of 4095 bytes", tar().long(&long(4095), ""), |r| {
                assert!(is_there(r.join("0123456789abcde")))
            }),
            refused("a path of 4096 bytes", "raise --max-path", tar().long(&format!("{}y", long(4095)), "")),
            refused("a path that is too deep", "raise --max-depth", tar().long(&deep, "")),
            seen("a path that is as deep as allowed", tar().long(&edge, ""), |r| {
                assert!(is_there(r.join("d/d")))
            }),
            refused("slashes enough for a deep path", "raise --max-depth", tar().long(&wide, "")),
            refused("a NUL in a PAX name", "has a NUL byte", tar().long("a\0b", "")),
            refused(
                "a NUL in a PAX link",
                "wrong target",
                tar().pax(&[("linkpath", b"a\0b")]).soft("l", "x"),
            ),
            refused("a link without a target", "wrong target", tar().soft("l", "")),
        ],
    );
}

#[test]
fn links_are_never_followed_to_the_host() {
    needs_root!();
    let canary = Canary::new();
    let at = canary.path();
    let x = format!("{at}/x");
    let up = format!("{}{}", "../".repeat(30), at.trim_start_matches('/'));
    let inside = at.trim_start_matches('/').to_string();
    let under = |name: &str| format!("{inside}/{name}");
    let (a, b, c, d) = (under("z"), under("z"), under("x"), inside.clone());
    hold(
        &canary,
        vec![
            seen("a file through a link", tar().soft("l", at).file("l/z", "in"), move |r| {
                assert_eq!(text(r.join(&a)), "in");
            }),
            seen("a file through a link that goes up", tar().soft("l", &up).file("l/z", "in"), move |r| {
                assert_eq!(text(r.join(&b)), "in");
            }),
            seen("a file in the place of a link", tar().soft("x", &x).file("x", "in"), |r| {
                assert!(fs::symlink_metadata(r.join("x")).unwrap().is_file() && text(r.join("x")) == "in");
            }),
            seen(
                "a directory in the place of a link",
                tar().soft("l", at).entry(head(b'5', "l").mode(0o777), b""),
                |r| {
                    assert!(fs::symlink_metadata(r.join("l")).unwrap().is_dir());
                },
            ),
            seen(
                "a directory behind a dot",
                tar().soft("foo", at).entry(head(b'5', "foo/.").mode(0o777), b""),
                |r| {
                    assert!(fs::symlink_metadata(r.join("foo")).unwrap().is_dir());
                },
            ),
            seen("a FIFO in the place of a link", tar().soft("x", &x).entry(head(b'6', "x"), b""), |r| {
                assert!(fs::symlink_metadata(r.join("x")).unwrap().file_type().is_fifo());
            }),
            seen("a whiteout through a link", tar().soft("l", at).file("l/.wh.x", ""), move |r| {
                assert!(!is_there(r.join(&c)));
            }),
            seen(
                "an opaque directory through a link",
                tar().soft("l", at).file("l/.wh..wh..opq", ""),
                move |r| {
                    // Below a link of the layer a whiteout means nothing.
                    assert!(fs::symlink_metadata(r.join("l")).unwrap().is_symlink() && !is_there(r.join(&d)));
                },
            ),
            refused("a hard link that goes up", "leads out", tar().hard("h", "../x")),
            refused("a hard link to a file of the host", "is in no layer", tar().hard("h", &x)),
            refused("a hard link through a link", "is in no layer", tar().soft("l", at).hard("h", "l/x")),
            seen("a hard link to a link", tar().soft("l", &x).hard("h", "l").file("h", "in"), |r| {
                assert!(text(r.join("h")) == "in" && fs::symlink_metadata(r.join("l")).unwrap().is_symlink());
            }),
            refused("a hard link to itself", "is a hard link to itself", tar().file("f", "").hard("f", "f")),
            refused("a hard link to itself and nothing", "is a hard link to itself", tar().hard("f", "./f")),
            refused(
                "hard links in a ring",
                "is in no layer",
                tar().hard("a", "b").hard("b", "c").hard("c", "a"),
            ),
            refused(
                "a hard link to a directory",
                "is a hard link to a directory",
                tar().dir("d").hard("h", "d"),
            ),
            refused("a hard link to the root", "is a hard link to nothing", tar().hard("h", "/")),
            refused("a hard link into what it replaces", "the directory that it replaces", {
                tar().dir("d").file("d/x", "1").hard("d", "d/x")
            }),
            seen(
                "hard links in a chain",
                tar().file("a", "1").hard("b", "a").hard("c", "b").hard("d", "c"),
                |r| {
                    assert_eq!(fs::metadata(r.join("d")).unwrap().nlink(), 4);
                },
            ),
            refused(
                "links in a ring",
                "too many symbolic links",
                tar().soft("a", "b").soft("b", "a").file("a/f", ""),
            ),
            refused(
                "a link to below itself",
                "too many symbolic links",
                tar().soft("l", "l/l").file("l/f", ""),
            ),
            refused("a file as a directory", "to be a directory", tar().file("f", "").file("f/g", "")),
        ],
    );
}

#[test]
fn links_of_lower_layers_are_not_followed_to_the_host() {
    needs_root!();
    let canary = Canary::new();
    let at = canary.path();
    let x = format!("{at}/x");
    let inside = at.trim_start_matches('/').to_string();
    let below = || tar().dir("./").soft("l", at).soft("x", &x).soft("a", "b").soft("b", "a");
    let (a, b) = (format!("{inside}/z"), format!("{inside}/d/y"));
    hold(
        &canary,
        vec![
            seen("a file through a link below", tar().file("l/z", "in"), move |r| {
                assert_eq!(text(r.join(&a)), "in")
            })
            .on(below()),
            seen("a tree through a link below", tar().file("l/d/y", "in").file("l/.wh.x", ""), move |r| {
                assert_eq!(text(r.join(&b)), "in");
            })
            .on(below()),
            seen("metadata on a link below", tar().entry(head(b'5', "l").mode(0o777), b""), |r| {
                assert!(fs::symlink_metadata(r.join("l")).unwrap().is_dir());
            })
            .on(below()),
            seen("a file on a link below", tar().file("x", "in"), |r| assert_eq!(text(r.join("x")), "in"))
                .on(below()),
            seen("a hard link to a link below", tar().hard("h", "x"), |r| {
                assert!(fs::symlink_metadata(r.join("h")).unwrap().is_symlink());
            })
            .on(below()),
            refused("a hard link through a link below", "is in no layer", tar().hard("h", "l/x")).on(below()),
            refused("a file in a ring below", "too many symbolic links", tar().file("a/f", "")).on(below()),
        ],
    );
}

/// One name twice, with all pairs of types: the second counts.
#[test]
fn the_last_of_equal_names_counts() {
    needs_root!();
    let canary = Canary::new();
    let at = canary.path();
    let kinds: [(u8, &str); 6] =
        [(b'0', ""), (b'1', "other"), (b'2', at), (b'3', ""), (b'5', ""), (b'6', "")];
    let put = |t: Tar, (kind, link): (u8, &str)| t.entry(head(kind, "n").link(link).device(1, 5), b"");
    let is = |kind: u8, m: &fs::Metadata| {
        let t = m.file_type();
        match kind {
            b'0' => t.is_file() && m.nlink() == 1,
            b'1' => t.is_file() && m.nlink() == 2,
            b'2' => t.is_symlink(),
            b'3' => t.is_char_device() && m.rdev() == 0x105,
            b'5' => t.is_dir(),
            _ => t.is_fifo(),
        }
    };
    let mut cases: Vec<Case> = Vec::new();
    for first in kinds {
        for second in kinds {
            let layer = put(put(tar().file("other", ""), first), second);
            let case = seen("one name twice", layer, move |r| {
                let m = fs::symlink_metadata(r.join("n")).unwrap();
                assert!(is(second.0, &m), "{} then {}: {m:?}", first.0 as char, second.0 as char);
            });
            cases.push(case);
        }
    }
    hold(&canary, cases);
}
