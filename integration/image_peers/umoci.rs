//! The same images unpacked by umoci. Where it does not do what the specification says, the reason stands here by name.

use crate::archive::archive_of;
use crate::make::Packing;
use crate::model::{Item, What, is_below};
use crate::support::{Scratch, finish, rounds};
use crate::tree::{differences, scan};
use crate::{Tree, image, import, made, mounted, needs_program, needs_root, places, random};
use std::process::{Command, Stdio};

/// What umoci 0.4.7 is known to do otherwise: `true` when this is why two lines differ.
type Fault = (&'static str, fn(&Case) -> bool);

struct Case<'a> {
    layers: &'a [Vec<Item>],
    ours: Option<&'a str>,
    theirs: Option<&'a str>,
}

const FAULTS: &[Fault] = &[
    // What is made or removed in a directory after its entry changes its time, which is not set again; directories
    // without an entry have the time of the unpacking.
    ("a directory loses its time", |c| {
        let both = c.ours.zip(c.theirs).and_then(|(a, b)| Some((cut(a)?, cut(b)?)));
        both.is_some_and(|(a, b)| a.0 == b.0 && b.1 > OURS)
    }),
    // They keep what was hidden by the layer, or have what their parent gives, such as its group.
    ("a directory without an entry is not made anew", |c| {
        c.ours.is_some_and(|a| a.starts_with("dir 755 0:0 0.000000000"))
            && c.theirs.is_some_and(|b| b.starts_with("dir "))
    }),
    ("an attribute without a value is not set", |c| {
        c.ours.zip(c.theirs).is_some_and(|(a, b)| {
            let set = |line: &str| {
                line.split(' ')
                    .filter(|w| !w.ends_with('=') || !["user.", "trusted."].iter().any(|p| w.starts_with(p)))
                    .map(str::to_string)
                    .collect::<Vec<_>>()
            };
            set(a) == set(b)
        })
    }),
    // Of a link in place of a directory, umoci writes this itself when it repacks.
    ("a whiteout below a link of its layer removes what the link leads to", |c| {
        let hides = |l: &Vec<Item>, i: &Item| {
            let is_above = |k: &Item| matches!(k.what, What::Symlink(_)) && is_below(&i.path, &k.path);
            i.what == What::Whiteout && l.iter().any(is_above)
        };
        c.theirs.is_none() && c.layers.iter().any(|l| l.iter().any(|i| hides(l, i)))
    }),
];

/// No time in the images is later.
const OURS: i64 = 1_700_000_000;

/// The line of a directory without its time, and that.
fn cut(line: &str) -> Option<(String, i64)> {
    let words: Vec<&str> = line.strip_prefix("dir ")?.split(' ').collect();
    let seconds = words[2].split_once('.')?.0.parse().ok()?;
    Some(([&words[..2], &words[3..]].concat().join(" "), seconds))
}

fn unpacked(layers: &[Vec<Item>]) -> Result<Tree, String> {
    // The release that there is knows no zstd, and refuses files with holes in GNU's old form.
    let source = image(layers.iter().map(|l| archive_of(l, false)).collect(), Packing::Gzip);
    let out = Scratch::new("umoci");
    let mut c = Command::new("umoci");
    c.args(["raw", "unpack", "--image", &format!("{}:x", source.path())]).arg(out.path.join("rootfs"));
    let o = finish(c.stdin(Stdio::null()));
    if o.status.success() { Ok(scan(&out.path.join("rootfs"))) } else { Err(o.stderr) }
}

/// Lines for what no fault explains.
fn unexplained(layers: &[Vec<Item>], ours: &Tree, theirs: &Tree) -> Vec<String> {
    let odd = differences(ours, theirs).into_iter().filter(|(_, ours, theirs)| {
        let case = Case { layers, ours: *ours, theirs: *theirs };
        !FAULTS.iter().any(|f| (f.1)(&case))
    });
    odd.map(|(path, a, b)| format!("{path:?}\n  {}\n  {}", a.unwrap_or("-"), b.unwrap_or("-"))).collect()
}

#[test]
fn umoci_and_orlop_unpack_the_same() {
    needs_root!();
    needs_program!("umoci");
    let seeds = 1..=rounds(12, 150) as u64;
    let random = seeds.map(|seed| (format!("seed {seed}"), random::stack(seed)));
    let places = places();
    let mut told = Vec::new();
    let all = made::made().into_iter().map(|(w, l)| (w.to_string(), l)).chain(random);
    for (n, (what, layers)) in all.enumerate() {
        let theirs = match unpacked(&layers) {
            Ok(tree) => tree,
            Err(words) => {
                told.push(format!("{what}: {words}"));
                continue;
            }
        };
        // In turn: the model is held against all of them.
        let p = &places[n % places.len()];
        if let Err(words) = import(p, &layers, Packing::Gzip) {
            told.push(format!("{what}: {words}"));
            continue;
        }
        let odd = unexplained(&layers, &mounted(p, "x"), &theirs);
        p.imgtool(&["rm", "x"]).ok();
        if !odd.is_empty() {
            told.push(format!("{what} {:?}:\n{}", p.form, odd.join("\n")));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}
