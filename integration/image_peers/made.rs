//! Stacks of layers made by hand: every kind of entry, and all that one layer can do to those below it.

use crate::model::{Item, What};
use crate::tree::Meta;

const TIME: (i64, u32) = (1_600_000_000, 0);

pub fn item(path: &str, what: What, mode: u32) -> Item {
    Item { path: path.into(), what, meta: Meta { mode, mtime: TIME, ..Meta::default() } }
}

pub fn dir(path: &str, mode: u32) -> Item {
    item(path, What::Dir, mode)
}

pub fn file(path: &str, data: &str) -> Item {
    item(path, What::File(data.into()), 0o644)
}

fn link(path: &str, target: &str) -> Item {
    item(path, What::Symlink(target.into()), 0o777)
}

fn hard(path: &str, target: &str) -> Item {
    item(path, What::Hard(target.into()), 0o644)
}

fn gone(path: &str) -> Item {
    item(path, What::Whiteout, 0o644)
}

fn opaque(path: &str) -> Item {
    item(path, What::Opaque, 0o644)
}

impl Item {
    fn own(mut self, uid: u32, gid: u32) -> Self {
        (self.meta.uid, self.meta.gid) = (uid, gid);
        self
    }

    fn at(mut self, seconds: i64, nanos: u32) -> Self {
        self.meta.mtime = (seconds, nanos);
        self
    }

    fn xattr(mut self, key: &str, value: &[u8]) -> Self {
        self.meta.xattrs.insert(key.into(), value.into());
        self
    }
}

/// Each stack by what it is about.
pub fn made() -> Vec<(&'static str, Vec<Vec<Item>>)> {
    vec![
        ("kinds", kinds()),
        ("kinds that change", changed_kinds()),
        ("whiteouts", whiteouts()),
        ("whiteouts of directories", hidden_directories()),
        ("whiteouts below what replaced their directory", replaced()),
        (
            "an opaque root",
            vec![base(), vec![dir("", 0o750), opaque(""), file("new", "n")], vec![file("top", "t")]],
        ),
        ("hard links over layers", links()),
        ("links as parents", link_parents()),
        ("odd names", odd_names()),
        ("holes", holes()),
        ("directories that are not listed", unlisted()),
        ("many layers", many()),
    ]
}

fn base() -> Vec<Item> {
    vec![
        dir("", 0o755),
        dir("d", 0o751).own(1, 2).at(1_500_000_000, 0),
        file("d/a", "a"),
        file("d/b", "b").own(3, 4),
        dir("d/sub", 0o700).xattr("user.x", b"1"),
        file("d/sub/f", "f"),
        dir("d/sub/deep", 0o755),
        file("d/sub/deep/g", "g"),
        dir("e", 0o711).at(1_400_000_000, 5),
        file("e/h", "h"),
        link("l", "d/sub"),
        file("f", "of the base"),
    ]
}

/// CAP_NET_BIND_SERVICE, permitted and effective (capabilities(7), VFS_CAP_REVISION_2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn kinds() -> Vec<Vec<Item>> {
    vec![vec![
        dir("", 0o1777).own(5, 6).at(1_234_567_890, 0),
        dir("dir", 0o2755).own(7, 8).xattr("user.of.dir", b"d").at(1_111_111_111, 111_111_111),
        file("dir/empty", ""),
        item("dir/set-id", What::File(b"#!".into()), 0o6755).own(1000, 1000),
        item("dir/none", What::File(b"x".into()), 0),
        file("dir/owned", "o").own(3_000_000, 4_000_000),
        file("dir/old", "o").at(-1000, 0),
        file("dir/older", "o").at(-1000, 250_000_000),
        file("dir/zero", "o").at(0, 0),
        file("dir/attributes", "o").xattr("user.a", b"1\n\0=").xattr("user.b", b"").xattr("trusted.c", b"c"),
        file("dir/capable", "o").own(9, 9).xattr("security.capability", CAPABILITY),
        link("dir/link", "../dir/empty").own(11, 12).at(1_222_222_222, 0),
        link("dir/absolute", "/dir/empty"),
        link("dir/dangling", "no/where/../at all"),
        item("dir/fifo", What::Fifo, 0o622).own(1, 1),
        item("dir/char", What::Char(1, 3), 0o666),
        item("dir/large", What::Char(254, 0xfffff), 0o6600).own(0, 5),
        item("dir/block", What::Block(7, 300), 0o660).own(0, 6),
        hard("dir/empty-too", "dir/empty"),
        hard("link-too", "dir/link").own(11, 12).at(1_222_222_222, 0),
        Item {
            meta: Meta { mode: 0o622, uid: 1, gid: 1, mtime: TIME, ..Meta::default() },
            ..hard("fifo-too", "dir/fifo")
        },
        dir("closed", 0).own(2, 2),
        file("closed/f", "inside"),
    ]]
}

/// A file, a directory and so on under every other's name.
fn changed_kinds() -> Vec<Vec<Item>> {
    let make = |path: String, kind: usize, data: &str| -> Vec<Item> {
        match kind {
            0 => vec![file(&path, data)],
            1 => vec![dir(&path, 0o750), file(&format!("{path}/{data}"), data)],
            2 => vec![link(&path, &format!("to-{data}"))],
            3 => vec![item(&path, What::Fifo, 0o600)],
            4 => vec![item(&path, What::Char(1, 5), 0o640)],
            _ => vec![hard(&path, &format!("of-{data}"))],
        }
    };
    let layer = |data: &str, kind: &dyn Fn(usize, usize) -> usize| {
        let all = (0..36).flat_map(|n| make(format!("{}{}", n / 6, n % 6), kind(n / 6, n % 6), data));
        let mut out = vec![dir("", 0o755), file(&format!("of-{data}"), data)];
        out.extend(all);
        out
    };
    vec![layer("low", &|a, _| a), layer("top", &|_, b| b)]
}

fn whiteouts() -> Vec<Vec<Item>> {
    vec![
        base(),
        vec![
            gone("d/a"),
            file("d/b", "again"),
            gone("d/b"),
            gone("l"),
            link("l", "e"),
            gone("d/nothing"),
            gone("f"),
        ],
        vec![file("d/a", "back"), gone("d/sub/f"), gone("e/h")],
        vec![gone("d/a"), file("d/sub/f", "back")],
    ]
}

fn hidden_directories() -> Vec<Vec<Item>> {
    let mut base = base();
    base.extend([dir("o", 0o700).own(5, 5), file("o/1", "1"), dir("o/in", 0o755), file("o/in/2", "2")]);
    vec![
        base,
        vec![gone("d"), gone("e"), dir("e", 0o700), file("e/new", "n"), opaque("o"), file("o/3", "3")],
        vec![dir("d", 0o755), file("d/only", "o"), dir("o", 0o777), dir("o/in", 0o711), file("o/in/4", "4")],
        vec![opaque("e"), gone("o"), file("o", "a file now")],
        vec![gone("d/only"), dir("d/sub", 0o755), file("d/sub/new", "")],
        // What lies in a hidden directory is hidden once more.
        vec![gone("d/sub/new"), opaque("d"), gone("l"), file("d/last", ""), gone("e/new"), gone("e")],
    ]
}

/// As `umoci repack` writes it.
fn replaced() -> Vec<Vec<Item>> {
    let all = |dir: &str| ["a", "b", "h"].map(|name| gone(&format!("{dir}/{name}")));
    let mut low = base();
    low.extend([file("e/a", "a"), dir("o", 0o755), file("o/a", "a"), file("o/b", "b"), file("o/h", "h")]);
    let mut top = vec![file("d", "a file now"), gone("d/sub/deep/g"), gone("e/h"), link("e", "o")];
    top.extend([all("d"), all("e")].into_iter().flatten());
    vec![low, top]
}

fn links() -> Vec<Vec<Item>> {
    let of = |path: &str, target: &str| hard(path, target).own(3, 4);
    let mut low = base();
    low.extend([of("d/b2", "d/b"), of("b3", "d/b"), link("sym", "no"), item("pipe", What::Fifo, 0o600)]);
    vec![
        low,
        vec![
            of("b4", "d/b"),
            Item { meta: Meta { mode: 0o777, mtime: TIME, ..Meta::default() }, ..hard("sym2", "sym") },
            Item { meta: Meta { mode: 0o600, mtime: TIME, ..Meta::default() }, ..hard("pipe2", "pipe") },
            file("own", "o"),
            hard("d/own2", "own"),
        ],
        vec![of("e/b5", "b4"), of("b6", "d/b2"), gone("d/b2"), hard("own3", "d/own2")],
        vec![file("d/b", "another file"), hard("f2", "f")],
        // What is hidden is linked to first, as if it were renamed.
        vec![hard("f3", "f"), gone("f")],
        // One leads to another of the layer, the name of which is another file below, or none.
        vec![hard("f2", "own"), hard("a", "f2"), hard("own4", "a"), hard("z", "own"), hard("b", "z")],
    ]
}

fn link_parents() -> Vec<Vec<Item>> {
    let mut low = base();
    low.extend([
        dir("usr", 0o755),
        dir("usr/lib", 0o750).own(8, 9),
        file("usr/lib/x", "x"),
        file("usr/lib/y", "y"),
        link("lib", "usr/lib"),
        link("lib64", "/lib"),
        link("e/up", "../usr"),
        link("d/sub/twice", "../../e/up/lib"),
    ]);
    vec![
        low,
        vec![
            file("lib/z", "through a link"),
            gone("lib/x"),
            file("lib64/w", "through two"),
            file("e/up/v", "through one that leads up"),
        ],
        vec![
            file("d/sub/twice/deep", "d"),
            dir("lib/in", 0o700),
            file("lib/in/n", "n"),
            Item { meta: Meta { mode: 0o777, mtime: TIME, ..Meta::default() }, ..hard("lib-too", "lib") },
        ],
        // A directory in place of the link: what lies behind it stays.
        vec![dir("lib", 0o711), file("lib/own", "o"), gone("lib/y")],
    ]
}

fn odd_names() -> Vec<Vec<Item>> {
    let long = "n".repeat(255);
    let deep = ["long-name-of-a-directory"; 12].join("/");
    let mut low = vec![dir("", 0o755)];
    let mut top = Vec::new();
    for name in [
        "-rf",
        "a b",
        "new\nline",
        "tab\t",
        "back\\slash",
        "a:b,c=d",
        "...",
        "*?[",
        ".whx",
        "é\u{1b}[31m",
        "\"q'",
        "~",
        &long,
    ] {
        low.push(file(name, name).xattr("user.name", name.as_bytes()));
        top.push(if name.len() % 2 == 0 { gone(name) } else { file(name, "again") });
    }
    for n in 0..12 {
        low.push(dir(&["long-name-of-a-directory"; 12][..=n].join("/"), 0o755));
    }
    low.push(file(&format!("{deep}/f"), "deep"));
    low.push(hard(&format!("{deep}/g"), &format!("{deep}/f")));
    low.push(link(&format!("{deep}/l"), &deep));
    let bytes = |path: &[u8]| Item { path: path.into(), ..file("", "bytes") };
    low.extend([bytes(b"\xff\xfe"), bytes(b"caf\xe9")]);
    top.extend([bytes(b"\xff\xfe"), gone(&format!("{deep}/f"))]);
    vec![low, top]
}

fn holes() -> Vec<Vec<Item>> {
    let sparse = |path: &str, size: u64, parts: &[(u64, &str)]| {
        let parts = parts.iter().map(|(at, text)| (*at, text.as_bytes().to_vec())).collect();
        item(path, What::Sparse(size, parts), 0o640).own(1, 0)
    };
    let k = "0123456789abcdef".repeat(32);
    let files = |n: usize| {
        vec![
            sparse(&format!("{n}/all"), 1 << 20, &[]),
            sparse(&format!("{n}/front"), 70_000, &[(65_536, &k), (69_488, &k)]),
            sparse(&format!("{n}/end"), 1_000_001, &[(0, &k)]),
            sparse(&format!("{n}/both"), 200_000, &[(4096, &k), (131_072, &k)]),
        ]
    };
    // Each in both forms: what stands at an even place has the one, at an odd place the other.
    let mut all = vec![dir("", 0o755), dir("1", 0o755)];
    all.extend(files(1));
    all.push(dir("2", 0o755));
    all.extend(files(2));
    vec![all]
}

fn unlisted() -> Vec<Vec<Item>> {
    vec![
        vec![
            dir("", 0o755),
            dir("d", 0o2711).own(5, 6).xattr("user.d", b"d").xattr("trusted.d", b"t").at(1_300_000_000, 7),
            dir("d/in", 0o700).own(7, 8),
            file("d/in/f", "f"),
        ],
        vec![file("d/in/new", "n"), file("d/top", "t")],
        vec![file("all/is/new", "n")],
        vec![gone("d/in/f"), gone("all/is/new"), file("all/is/newer", "n")],
        vec![gone("d/in"), file("d/in/anew", "a")],
    ]
}

fn many() -> Vec<Vec<Item>> {
    let mut layers = vec![base()];
    for n in 0..40 {
        let mut layer =
            vec![dir("d", 0o700 + n % 8), file(&format!("d/{n}"), "x"), file("f", &n.to_string())];
        if n > 3 {
            layer.push(gone(&format!("d/{}", n - 3)));
        }
        layers.push(layer);
    }
    layers
}
