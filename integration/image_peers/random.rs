//! Stacks of layers by chance, the same for the same seed, as a builder could have made them: no layer says of one path
//! two things.

use crate::model::{Item, Model, What, is_below, join, split};
use crate::tree::Meta;
use std::collections::BTreeSet;

/// xorshift64: the same throws in each run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..8).for_each(|_| {
            dice.below(2);
        });
        dice
    }

    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }

    fn one<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// One in `n` times.
    fn rarely(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Few, so that layers meet.
const NAMES: &[&[u8]] = &[
    b"a", b"b", b"c", b"d", b"etc", b"lib", b"usr", b"x y", b"-n", b".whiteout", b"\xff", b"new\nline", b"back\\slash",
    b"a:b", b"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
];

/// The layers, lowest first.
pub fn stack(seed: u64) -> Vec<Vec<Item>> {
    let mut dice = Dice::new(seed);
    let mut model = Model::new();
    let mut out = Vec::new();
    for n in 0..2 + dice.below(5) {
        let steps = if n == 0 { 25 } else { 3 + dice.below(14) };
        let mut layer = Layer::new(&mut dice, &model);
        if n == 0 {
            layer.push(Vec::new(), What::Dir);
        }
        (0..steps).for_each(|_| layer.step());
        let items = layer.items;
        model.apply(&items);
        out.push(items);
    }
    out
}

struct Layer<'a> {
    dice: &'a mut Dice,
    below: &'a Model,
    /// With what the layer has so far.
    now: Model,
    items: Vec<Item>,
    /// Paths without links that an entry or whiteout names, and those that must stay as they are.
    taken: BTreeSet<Vec<u8>>,
    frozen: BTreeSet<Vec<u8>>,
    hidden: BTreeSet<Vec<u8>>,
}

impl<'a> Layer<'a> {
    fn new(dice: &'a mut Dice, below: &'a Model) -> Self {
        let (taken, frozen, hidden) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { dice, now: below.clone(), below, items: Vec::new(), taken, frozen, hidden }
    }

    fn step(&mut self) {
        match self.dice.below(12) {
            0..5 => self.add(),
            5 => self.list(),
            6..8 => self.hide(),
            8 => self.empty(),
            9..11 => self.link(),
            _ => self.through(),
        }
    }

    fn push(&mut self, path: Vec<u8>, what: What) {
        let meta = self.meta(&what);
        self.put(Item { path, what, meta });
    }

    fn put(&mut self, item: Item) {
        self.taken.insert(item.path.clone());
        // Whiteouts stand anywhere in real layers.
        let n = match item.what {
            What::Whiteout | What::Opaque => self.dice.below(self.items.len() + 1),
            _ => self.items.len(),
        };
        self.items.insert(n, item);
        self.now = self.below.clone();
        self.now.apply(&self.items);
    }

    fn meta(&mut self, what: &What) -> Meta {
        let d = &mut *self.dice;
        let mode = match what {
            What::Dir => *d.one(&[0o755, 0o755, 0o700, 0o1777, 0o2750, 0o555, 0]),
            What::Symlink(_) => 0o777,
            _ => *d.one(&[0o644, 0o644, 0o755, 0o600, 0o4755, 0o2711, 0]),
        };
        let id = |d: &mut Dice| *d.one(&[0, 0, 0, 1, 1000, 65_534, 3_000_000]);
        let (uid, gid) = (id(d), id(d));
        let nanos = if d.rarely(3) { d.below(1_000_000_000) as u32 } else { 0 };
        let mut meta = Meta {
            mode,
            uid,
            gid,
            mtime: (1_000_000_000 + d.below(600_000_000) as i64, nanos),
            ..Meta::default()
        };
        if matches!(what, What::Dir | What::File(_)) && d.rarely(4) {
            let key = *d.one(&["user.a", "user.b", "trusted.t"]);
            meta.xattrs.insert(key.into(), vec![b'v'; d.below(40)]);
        }
        meta
    }

    /// A path that this layer says nothing of and that nothing leans on.
    fn is_free(&self, path: &[u8]) -> bool {
        let clash = |p: &Vec<u8>| p == path || is_below(p, path);
        !self.taken.iter().any(clash) && !self.frozen.iter().any(clash)
    }

    fn pick(&mut self, wanted: impl Fn(&Self, &[u8]) -> bool) -> Option<Vec<u8>> {
        let all: Vec<Vec<u8>> = self.now.paths().filter(|p| wanted(self, p)).cloned().collect();
        (!all.is_empty()).then(|| self.dice.one(&all).clone())
    }

    fn what(&mut self) -> What {
        let d = &mut *self.dice;
        match d.below(14) {
            0..4 => What::Dir,
            4..9 => {
                let size = *d.one(&[0, 1, 5, 511, 512, 5000]);
                What::File((0..size).map(|_| b'a' + d.below(26) as u8).collect())
            }
            9 => {
                let parts = [(4096 * (1 + d.below(9) as u64), vec![b's'; 512])];
                What::Sparse(60_000 + d.below(1000) as u64, parts.into())
            }
            10 | 11 => self.target(),
            12 => d.one(&[What::Fifo, What::Char(1, 3), What::Block(7, 1)]).clone(),
            _ => What::Char(10, 200),
        }
    }

    /// A symbolic link: to a directory that is there, or to nothing.
    fn target(&mut self) -> What {
        let dirs: Vec<Vec<u8>> =
            self.now.paths().filter(|p| self.now.is_dir(p) && !p.is_empty()).cloned().collect();
        if dirs.is_empty() || self.dice.rarely(3) {
            return What::Symlink(b"../no/where".to_vec());
        }
        let dir = self.dice.one(&dirs).clone();
        What::Symlink([b"/", &dir[..]].concat())
    }

    fn add(&mut self) {
        let Some(dir) = self.pick(|s, p| s.now.is_dir(p)) else { return };
        let name: &[u8] = self.dice.one::<&[u8]>(NAMES);
        let mut path = join(&dir, name);
        if path.iter().filter(|b| **b == b'/').count() > 5 {
            return;
        }
        if self.dice.rarely(25) && self.now.get(&path).is_none() {
            path = join(&path, b"in"); // in a directory that is not listed
        }
        let what = self.what();
        let stays = what == What::Dir && self.now.is_dir(&path);
        if self.is_free(&path) || stays && !self.taken.contains(&path) {
            self.push(path, what);
        }
    }

    /// A directory again, with other metadata.
    fn list(&mut self) {
        if let Some(path) = self.pick(|s, p| s.now.is_dir(p) && !s.taken.contains(p)) {
            self.push(path, What::Dir);
        }
    }

    /// What lies below, whether this layer has something of the name or not.
    fn hide(&mut self) {
        let below: Vec<Vec<u8>> = self.below.paths().filter(|p| !p.is_empty()).cloned().collect();
        if below.is_empty() {
            return;
        }
        let path = self.dice.one(&below).clone();
        let leans = |p: &Vec<u8>| *p == path || is_below(p, &path);
        let is_there = self.now.is_dir(split(&path).0);
        if is_there && !self.hidden.contains(&path) && !self.frozen.iter().any(leans) {
            self.hidden.insert(path.clone());
            self.push(path, What::Whiteout);
        }
    }

    fn empty(&mut self) {
        let Some(path) = self.pick(|s, p| s.below.is_dir(p) && s.now.is_dir(p) && !p.is_empty()) else {
            return;
        };
        let leans = |p: &Vec<u8>| *p == path || is_below(p, &path);
        if !self.hidden.contains(&path) && !self.frozen.iter().any(leans) {
            let is_listed = self.taken.contains(&path);
            self.hidden.insert(path.clone());
            self.push(path.clone(), What::Opaque);
            if !is_listed {
                self.taken.remove(&path); // it may still get metadata
                self.frozen.insert(path);
            }
        }
    }

    /// To a file of this layer or of those below, with its metadata, as archives have it.
    fn link(&mut self) {
        let Some(target) = self.pick(|s, p| !s.now.is_dir(p)) else { return };
        let Some(dir) = self.pick(|s, p| s.now.is_dir(p)) else { return };
        let path = join(&dir, self.dice.one::<&[u8]>(NAMES));
        if path == target || !self.is_free(&path) || is_below(&target, &path) {
            return;
        }
        let Some(meta) = self.now.get(&target).map(|n| n.1.clone()) else { return };
        self.frozen.insert(target.clone());
        self.put(Item { path, what: What::Hard(target), meta });
    }

    /// A file, directory or whiteout by a path through a link of the layers below.
    fn through(&mut self) {
        let is_way = |s: &Self, p: &[u8]| {
            let same = s.now.get(p) == s.below.get(p);
            let leads = matches!(s.now.get(p), Some((What::Symlink(_), _)));
            same && leads && s.is_free(p) && s.below.is_dir(&s.below.resolve(p))
        };
        let Some(way) = self.pick(is_way) else { return };
        let dir = self.below.resolve(&way);
        let name = *self.dice.one(NAMES);
        let (real, path) = (join(&dir, name), join(&way, name));
        if !self.now.is_dir(&dir)
            || self.hidden.iter().any(|h| *h == dir || is_below(&dir, h))
            || !self.is_free(&real)
        {
            return;
        }
        self.frozen.extend([way, dir]);
        self.taken.insert(real.clone());
        let what =
            if self.below.get(&real).is_some() && self.dice.rarely(2) { What::Whiteout } else { self.what() };
        let is_merged = what == What::Dir || self.now.is_dir(&real);
        if !is_merged || what == What::Whiteout {
            self.push(path, what);
        }
    }
}
