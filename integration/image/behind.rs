//! What a layer hides behind a directory that is a link in the layers below: what the link leads to.

use crate::make::{Entry, Image, Place, dir, file, in_both_forms, layer, link};
use crate::needs_root;
use std::fs;
use std::path::Path;

/// Everything at a path and below it, each name with what it is.
fn shown(root: &Path, name: &str, out: &mut Vec<String>) {
    let path = root.join(name);
    let Ok(about) = fs::symlink_metadata(&path) else {
        out.push(format!("{name} is no more than a name"));
        return;
    };
    if about.is_symlink() {
        out.push(format!("{name}@"));
    } else if about.is_file() {
        out.push(format!("{name}={}", fs::read_to_string(&path).unwrap()));
    } else {
        out.push(format!("{name}/"));
        let mut names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names.iter().for_each(|n| shown(root, &format!("{name}/{}", n.to_str().unwrap()), out));
    }
}

/// A layer on one with files in `a` and a link `c` to it, and what is at `a` then.
type Case<'a> = (&'a [Entry], &'a [&'a str]);

#[test]
fn marks_behind_a_link_hide_what_it_leads_to() {
    needs_root!();
    in_both_forms(|p: &Place| {
        let mark = |name: &str| file(name, "");
        let new = || file("a/x", "new");
        let cases: &[Case] = &[
            (&[mark("c/.wh.x")], &["a/", "a/s/", "a/s/q=", "a/y="]),
            (&[mark("c/.wh.none")], &["a/", "a/s/", "a/s/q=", "a/x=", "a/y="]),
            (&[mark("c/.wh.s")], &["a/", "a/x=", "a/y="]),
            (&[mark(".wh.a"), mark("c/.wh.x")], &[]),
            (&[file("a", "f"), mark("c/.wh.x")], &["a=f"]),
            (&[link("a", "e"), mark("c/.wh.x")], &["a@"]),
            (&[new(), mark("c/.wh.x")], &["a/", "a/s/", "a/s/q=", "a/x=new", "a/y="]),
            (&[mark("c/.wh.x"), new()], &["a/", "a/s/", "a/s/q=", "a/x=new", "a/y="]),
            (&[mark("c/s/.wh..wh..opq")], &["a/", "a/s/", "a/x=", "a/y="]),
            (&[mark("c/s/.wh..wh..opq"), file("c/s/n", "")], &["a/", "a/s/", "a/s/n=", "a/x=", "a/y="]),
            (&[mark("c/s/.wh..wh..opq"), mark("c/s/.wh.q")], &["a/", "a/s/", "a/x=", "a/y="]),
            (
                &[dir("c/s", 0o755), mark("c/s/.wh..wh..opq"), mark("c/s/.wh.q")],
                &["a/", "a/s/", "a/x=", "a/y="],
            ),
            (&[mark("c/.wh..wh..opq"), file("c/n", "")], &["a/", "a/n="]),
        ];
        let below = [
            dir("a", 0o755),
            mark("a/x"),
            mark("a/y"),
            dir("a/s", 0o755),
            mark("a/s/q"),
            link("c", "a"),
            dir("e", 0o755),
        ];
        for (n, (above, expected)) in cases.iter().enumerate() {
            let source = Image::new(vec![layer(&below), layer(above)]).write();
            p.imgtool(&["import", source.path(), "x"]).ok();
            let bundle = p.unpack("x", &["--mount"]);
            let mut found = Vec::new();
            let root = bundle.join("rootfs");
            if fs::read_dir(&root).unwrap().any(|e| e.unwrap().file_name() == "a") {
                shown(&root, "a", &mut found);
            }
            assert_eq!(found, *expected, "{n}");
            assert!(fs::read_link(root.join("c")).is_ok_and(|to| to == Path::new("a")), "{n}");
            p.remove(&bundle);
        }
    });
}
