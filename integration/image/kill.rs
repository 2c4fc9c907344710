//! A command that is killed before any of its calls that change a file system or tell another machine something.

use crate::make::{Image, Layout, Packing, Place, dir, file, layer};
use crate::support::{ORLOP, Outcome, finish, rounds};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// These calls, and those that order them; in a thread of its own each is counted apart.
const CALLS: &str = "openat,openat2,write,pwrite64,copy_file_range,ioctl,mkdir,mkdirat,mknodat,symlinkat,linkat,unlink,\
                     unlinkat,rmdir,rename,renameat,renameat2,fsync,fdatasync,syncfs,fchmod,fchownat,utimensat,flock,\
                     connect,sendto";

/// The subdirectories of a store that must not have anything unknown.
const SUBS: [&str; 8] = ["layers", "blobs/sha256", "fixups", "refs", "bundles", "tmp", "locks", "partial"];

/// A store with one image, and another image to do things with, which shares a layer with it.
pub struct Crash {
    pub p: Place,
    pub first: Layout,
    pub second: Layout,
}

impl Crash {
    pub fn new() -> Self {
        Self::in_place(Place::new())
    }

    pub fn in_place(p: Place) -> Self {
        Self::of(p, Self::image("second", "second"))
    }

    /// With this image as the other one.
    pub fn of(p: Place, second: Image) -> Self {
        let (first, second) = (Self::image("first", "first").write(), second.write());
        p.imgtool(&["import", first.path()]).ok();
        Self { p, first, second }
    }

    /// An image whose top layer has such a file.
    pub fn image(name: &str, data: &str) -> Image {
        let base = layer(&[dir("d", 0o750), file("d/base", "base"), file("gone", "")]);
        let top = layer(&[file(&format!("d/{name}"), data), file(".wh.gone", "")]);
        Image::new(vec![base, top]).packing(Packing::Gzip).name(name)
    }

    fn log(&self) -> PathBuf {
        self.p.path().join("log")
    }

    fn traced(&self, what: &str, args: &[&str]) -> Outcome {
        let mut c = Command::new("strace");
        c.args(["-f", "-qq", "-e", what, "-o"]).arg(self.log()).arg(ORLOP);
        finish(c.args(["imgtool", "--store"]).arg(self.p.store()).args(args).stdin(Stdio::null()))
    }

    /// Runs the command with the `n`th of these calls of a thread refused by death.
    pub fn killed_at(&self, call: &str, n: usize, args: &[&str]) -> Outcome {
        self.traced(&format!("inject={call}:signal=KILL:when={n}"), args)
    }

    /// How often each call is made by the thread that makes most of them.
    fn counts(&self, args: &[&str]) -> BTreeMap<String, usize> {
        self.traced(&format!("trace={CALLS}"), args).ok();
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for line in fs::read_to_string(self.log()).unwrap().lines() {
            // PID CALL(ARGUMENTS) = RESULT; a call that was interrupted by another thread has two lines.
            let mut words = line.split_whitespace();
            let thread = words.next().unwrap_or_default().to_string();
            if let Some((call, _)) = words.next().and_then(|w| w.split_once('(')) {
                *counts.entry((call.to_string(), thread)).or_default() += 1;
            }
        }
        let mut most: BTreeMap<String, usize> = BTreeMap::new();
        for ((call, _), n) in counts {
            let m = most.entry(call).or_default();
            *m = n.max(*m);
        }
        most
    }

    /// Runs the command with each of its calls refused by death, every time after `before`, and `after` looks.
    pub fn at_every_call(&self, args: &[&str], before: impl Fn(), after: impl Fn(&Outcome)) {
        before();
        let points: Vec<(String, usize)> = self
            .counts(args)
            .into_iter()
            .flat_map(|(call, n)| (1..=n).map(move |n| (call.clone(), n)))
            .collect();
        let few = rounds(8, points.len()).min(points.len());
        let (step, start) = (points.len() / few, std::process::id() as usize);
        let mut killed = 0;
        for (call, n) in points.iter().skip(start % step).step_by(step) {
            before();
            let out = self.killed_at(call, *n, args);
            killed += usize::from(!out.status.success());
            if !self.p.store().exists() {
                after(&out); // killed before it made its store
                continue;
            }
            let found = self.p.imgtool(&["fsck"]);
            let place = format!("{args:?} killed at {call} {n}: {}", found.stdout);
            assert!(found.status.success(), "{place}{}", found.stderr);
            assert!(found.stdout.lines().all(|l| l.starts_with("litter: ")), "{place}");
            after(&out);
            assert_eq!(self.p.imgtool(&["verify"]).ok().stdout, "", "{place}");
        }
        assert!(killed > 0, "{args:?}");
    }

    /// After a collection the store has what its names need, and nothing else.
    pub fn is_clean(&self) {
        // What only a log names is kept otherwise: an import may end between its log and its name.
        self.p.imgtool(&["gc", "--log", "0"]).ok();
        assert!(names(&self.p.store().join("refs")).contains(&"first".to_string()));
        let q = Place::new();
        for name in names(&self.p.store().join("refs")) {
            let source = if name == "first" { &self.first } else { &self.second };
            q.imgtool(&["import", source.path()]).ok();
        }
        for sub in SUBS {
            assert_eq!(names(&self.p.store().join(sub)), names(&q.store().join(sub)), "{sub}");
        }
        assert_eq!(names(&self.p.store()).iter().filter(|n| n.starts_with("format")).count(), 1);
    }

    pub fn has_second(&self) -> bool {
        self.p.store().join("refs/second").exists()
    }

    pub fn remove_second(&self) {
        if self.has_second() {
            self.p.imgtool(&["rm", "second"]).ok();
        }
    }
}

/// The sorted names of a directory.
pub fn names(dir: &Path) -> Vec<String> {
    let mut out: Vec<String> = fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    out.sort();
    out
}

/// Every name below a directory with all that stat(2) says of it, but for the times of reading and of its last link.
pub fn snapshot(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut out = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let m = fs::symlink_metadata(&path).unwrap();
            let times = (m.mtime(), m.mtime_nsec());
            let owner = (m.uid(), m.gid(), m.nlink(), m.rdev());
            out.push(format!("{path:?} {} {:o} {} {owner:?} {times:?}", m.ino(), m.mode(), m.size()));
            if m.is_dir() {
                todo.push(path);
            }
        }
    }
    out.sort();
    out
}
