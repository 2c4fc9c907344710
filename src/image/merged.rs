//! The merged tree of a stack of layers that grows: what was found out of one path is kept for the next, and for the next
//! stack.

use super::layer::dirs::parts;
use super::layer::entry::{join, split};
use super::view::{Found, at, failed, is_opaque, is_whiteout};
use crate::error::Result;
use rustix::fs::{self, FileType};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// What may be kept, in numbers of layers that hold a directory; a directory itself takes as much as [`DIRECTORY`] of
/// them. About 20 MiB.
const MOST: usize = 1 << 20;
const DIRECTORY: usize = 32;

/// A path costs a look into each layer that has the directory above it, once: layers are asked again only for what they
/// were not asked. No descriptor is held but those of the layers, for a deep tree in many of them would need too many.
#[derive(Default)]
pub struct Merged {
    /// All layers that were ever here. Their places are their names in [`Dir`]; the higher lies on the lower.
    all: Vec<Rc<OwnedFd>>,
    /// It has the layers that are here now.
    root: Dir,
    kept: usize,
}

/// What the merged tree has at a path.
#[derive(Default)]
struct Dir {
    /// The layers before this place were asked.
    asked: usize,
    /// Those whose directories are merged here, lowest first.
    holders: Vec<usize>,
    /// The one that has something else than a directory here, which shows.
    other: Option<usize>,
    /// Nothing below the layers that are here shows.
    sealed: bool,
    within: HashMap<Vec<u8>, Dir>,
}

impl Merged {
    /// Of layers, topmost first.
    pub fn of(layers: &[Rc<OwnedFd>]) -> Self {
        let mut merged = Self::default();
        merged.show(layers);
        merged
    }

    /// Takes these layers, topmost first, in the place of those that were here.
    pub fn show(&mut self, layers: &[Rc<OwnedFd>]) {
        let (mut new, mut gone, all) = (layers, Vec::new(), &self.all);
        self.root.holders.retain(|place| {
            let same = new.split_last().filter(|(lowest, _)| Rc::ptr_eq(lowest, &all[*place]));
            match same {
                Some((_, rest)) => new = rest,
                None => gone.push(*place),
            }
            same.is_some()
        });
        // One that lies on top of all others now hides them as it did where it was.
        if !gone.iter().all(|place| new.iter().any(|n| Rc::ptr_eq(n, &all[*place]))) {
            (*self, new) = (Self::default(), layers);
        }
        for layer in new.iter().rev() {
            self.root.holders.push(self.all.len());
            self.all.push(layer.clone());
        }
    }

    /// Looks a clean path up without following a link at any place of it.
    pub fn lookup(&mut self, path: &[u8]) -> Result<Option<Found>> {
        let Some(place) = self.find(path)?.0 else { return Ok(None) };
        let layer = self.all[place].clone();
        let Some(fd) = at(&layer, path)? else { return Ok(None) };
        let stat = fs::fstat(&fd).map_err(|e| failed(path, "fstat", e))?;
        Ok(Some(Found { layer, fd, stat }))
    }

    /// Whether nothing that lies below these layers can show at a path.
    pub fn hides(&mut self, path: &[u8]) -> Result<bool> {
        Ok(self.find(path)?.1)
    }

    /// The layer that shows what is at a path, and whether nothing below all of them does.
    fn find(&mut self, path: &[u8]) -> Result<(Option<usize>, bool)> {
        if self.kept > MOST {
            (self.root.within, self.kept) = (HashMap::new(), 0);
        }
        let (mut dir, mut sealed) = (&mut self.root, false);
        for end in (1..=path.len()).filter(|n| *n == path.len() || path[*n] == b'/') {
            if dir.holders.is_empty() {
                return Ok((None, sealed));
            }
            let (prefix, Dir { holders, within, .. }) = (&path[..end], dir);
            dir = within.entry(split(prefix).1.to_vec()).or_insert_with(|| {
                self.kept += DIRECTORY;
                Dir::default()
            });
            self.kept += dir.ask(prefix, holders, &self.all)?;
            sealed |= dir.sealed;
        }
        Ok((dir.other.or(dir.holders.last().copied()), sealed))
    }

    /// The path without links of `path`, as a process with this root would find it; `last` says whether a link as the
    /// last part is followed too. What is missing is kept as it is written.
    pub fn resolve(&mut self, path: &[u8], last: bool) -> Result<Vec<u8>> {
        let mut todo = parts(path);
        let (mut at, mut links) = (Vec::new(), 0);
        while let Some(part) = todo.pop() {
            if part == b".." {
                at = split(&at).0.to_vec();
                continue;
            }
            let next = join(&at, &part);
            let found = self.lookup(&next)?.filter(|f| f.kind() == FileType::Symlink);
            let Some(found) = found.filter(|_| last || !todo.is_empty()) else {
                at = next;
                continue;
            };
            links += 1;
            if links > 40 {
                return Err(failed(path, "look up", Errno::LOOP));
            }
            let target =
                fs::readlinkat(&found.fd, "", Vec::new()).map_err(|e| failed(&next, "readlinkat", e))?;
            if target.as_bytes().first() == Some(&b'/') {
                at.clear();
            }
            todo.extend(parts(target.as_bytes()));
        }
        Ok(at)
    }
}

impl Dir {
    /// Asks those layers that hold the directory above and were not asked before; how many more are kept.
    fn ask(&mut self, path: &[u8], above: &[usize], all: &[Rc<OwnedFd>]) -> Result<usize> {
        if self.asked == all.len() {
            return Ok(0);
        }
        let holds = |place: &usize| above.binary_search(place).is_ok();
        self.holders.retain(holds);
        self.other = self.other.filter(holds);
        let (mut found, mut other, mut hides) = (Vec::new(), None, false);
        let new = above.partition_point(|place| *place < self.asked);
        for place in above[new..].iter().rev() {
            let Some(fd) = at(&all[*place], path)? else { continue };
            let stat = fs::fstat(&fd).map_err(|e| failed(path, "fstat", e))?;
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_dir {
                found.push(*place);
            } else if found.is_empty() && !is_whiteout(&stat) {
                other = Some(*place);
            }
            hides = !is_dir || is_opaque(&fd);
            if hides {
                break;
            }
        }
        if hides {
            self.holders.clear();
            self.sealed = true;
        }
        if hides || !found.is_empty() {
            self.other = other;
        }
        self.holders.extend(found.iter().rev());
        self.asked = all.len();
        Ok(found.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::rights::Rights;
    use crate::image::view::open;
    use rustix::fs::{CWD, Mode, XattrFlags};
    use std::path::Path;

    /// The same throws in each run.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 33) as usize % n
        }
    }

    fn fill(dir: &Path, depth: usize, dice: &mut Dice) {
        for name in ["a", "b"] {
            let path = dir.join(name);
            match dice.below(9) {
                0 => std::fs::write(&path, "").unwrap(),
                1 => fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0).unwrap(),
                n @ 2..6 => {
                    std::fs::create_dir(&path).unwrap();
                    if n == 2 {
                        let key = Rights::ours().opaque();
                        fs::setxattr(&path, key, b"y", XattrFlags::empty()).unwrap();
                    }
                    if depth > 1 {
                        fill(&path, depth - 1, dice);
                    }
                }
                _ => {}
            }
        }
    }

    type Seen = (Option<(u64, u64)>, bool);

    /// What shows at a path, and whether nothing below would: all layers are asked, one part of the path after another.
    fn plain(layers: &[Rc<OwnedFd>], path: &[u8]) -> Seen {
        let (mut layers, mut hides, mut shown) = (layers.iter().collect::<Vec<_>>(), false, None);
        for end in (0..=path.len()).filter(|n| *n == path.len() || path[*n] == b'/') {
            let mut holding = Vec::new();
            shown = None;
            for layer in layers {
                let Some(fd) = at(layer, &path[..end]).unwrap() else { continue };
                let stat = fs::fstat(&fd).unwrap();
                let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if holding.is_empty() && !is_whiteout(&stat) {
                    shown = Some((stat.st_dev, stat.st_ino));
                }
                if is_dir {
                    holding.push(layer);
                }
                if !is_dir || end > 0 && is_opaque(&fd) {
                    hides = true;
                    break;
                }
            }
            layers = holding;
        }
        (shown, hides)
    }

    #[test]
    fn what_is_kept_of_one_stack_is_right_for_the_next() {
        let dir = std::env::temp_dir().join(format!("orlop-merged-{}", std::process::id()));
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        let mut paths = vec![Vec::new()];
        for n in 0..40 {
            let path = join(&paths[n / 2], if n % 2 == 0 { b"a" } else { b"b" });
            paths.push(path);
        }
        let layers: Vec<_> = (0..12)
            .map(|n| {
                let layer = dir.join(n.to_string());
                std::fs::create_dir_all(&layer).unwrap();
                fill(&layer, 4, &mut dice);
                Rc::new(open(&layer).unwrap())
            })
            .collect();
        let (mut merged, mut stack, mut kept) = (Merged::default(), Vec::new(), 0);
        for round in 0..600 {
            match dice.below(12) {
                0 if !stack.is_empty() => drop(stack.remove(dice.below(stack.len()))),
                1 if !stack.is_empty() => stack.rotate_left(1),
                2 => stack.clear(),
                _ => {
                    let layer = layers[dice.below(layers.len())].clone();
                    stack.retain(|l| !Rc::ptr_eq(l, &layer)); // a layer is put on top once more
                    stack.insert(0, layer);
                }
            }
            let places = merged.all.len();
            merged.show(&stack);
            kept += usize::from(merged.all.len() > places && places > 0);
            // Not all of it each time: some is asked for late.
            for path in paths.iter().filter(|_| dice.below(3) > 0) {
                let found = merged.lookup(path).unwrap().map(|f| (f.stat.st_dev, f.stat.st_ino));
                let seen: Seen = (found, merged.hides(path).unwrap());
                assert_eq!(seen, plain(&stack, path), "round {round}: {:?}", String::from_utf8_lossy(path));
            }
        }
        assert!(kept > 300, "only {kept} of the stacks were looked at as grown");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let dir = std::env::temp_dir().join(format!("orlop-merged-bound-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("d")).unwrap();
        let mut merged = Merged::of(&[Rc::new(open(&dir).unwrap())]);
        for n in 0..MOST / DIRECTORY + 100 {
            assert!(merged.lookup(format!("d/{n}").as_bytes()).unwrap().is_none());
        }
        assert!(merged.kept < 200 * DIRECTORY && merged.lookup(b"d").unwrap().is_some());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
