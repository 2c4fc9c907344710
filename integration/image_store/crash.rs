//! Killed before any of its calls that change a file system, a command loses nothing that was reported done, and leaves
//! nothing but litter.

use crate::make::{self, Image, Packing, Place, dir, file, layer};
use crate::support::{self, Outcome, finish, rounds};
use crate::{has_all_of, index, names, needs_program, needs_root};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Calls that change a file system or order its changes; in a thread of its own each is counted apart.
const CALLS: &str = "openat,openat2,write,pwrite64,copy_file_range,ioctl,mkdir,mkdirat,mknodat,symlinkat,linkat,unlink,\
                     unlinkat,rmdir,rename,renameat,renameat2,fsync,fdatasync,syncfs,fchmod,fchownat,utimensat,flock";

/// The subdirectories of a store that must not have anything unknown.
const SUBS: [&str; 7] = ["layers", "blobs/sha256", "fixups", "refs", "bundles", "tmp", "locks"];

struct Crash {
    p: Place,
    first: crate::make::Layout,
    second: crate::make::Layout,
}

impl Crash {
    /// A store with one image, and another image to do things with, which shares a layer with it.
    fn new() -> Self {
        Self::in_place(Place::new())
    }

    fn in_place(p: Place) -> Self {
        let base = layer(&[dir("d", 0o750), file("d/base", "base"), file("gone", "")]);
        let top = |name: &str| layer(&[file(&format!("d/{name}"), name), file(".wh.gone", "")]);
        let image =
            |name: &str| Image::new(vec![base.clone(), top(name)]).packing(Packing::Gzip).name(name).write();
        let (first, second) = (image("first"), image("second"));
        p.imgtool(&["import", first.path()]).ok();
        Self { p, first, second }
    }

    fn log(&self) -> PathBuf {
        self.p.path().join("log")
    }

    fn traced(&self, what: &str, args: &[&str]) -> Command {
        let mut c = Command::new("strace");
        c.args(["-f", "-qq", "-e", what, "-o"]).arg(self.log()).arg(support::ORLOP);
        c.args(["imgtool", "--store"]).arg(self.p.store()).args(args).stdin(Stdio::null());
        c
    }

    /// Runs the command with each of its calls refused by death, every time after `before`, and `after` looks.
    fn at_every_call(&self, args: &[&str], before: impl Fn(), after: impl Fn(&Outcome)) {
        before();
        finish(&mut self.traced(&format!("trace={CALLS}"), args)).ok();
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
        let points: Vec<(String, usize)> =
            most.into_iter().flat_map(|(call, n)| (1..=n).map(move |n| (call.clone(), n))).collect();
        let few = rounds(8, points.len()).min(points.len());
        let (step, start) = (points.len() / few, std::process::id() as usize);
        let mut killed = 0;
        for (call, n) in points.iter().skip(start % step).step_by(step) {
            before();
            let out = finish(&mut self.traced(&format!("inject={call}:signal=KILL:when={n}"), args));
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
    fn is_clean(&self) {
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

    fn has_second(&self) -> bool {
        self.p.store().join("refs/second").exists()
    }

    fn remove_second(&self) {
        if self.has_second() {
            self.p.imgtool(&["rm", "second"]).ok();
        }
    }
}

#[test]
fn an_import_that_is_killed_leaves_litter_only() {
    needs_root!();
    needs_program!("strace");
    let c = Crash::new();
    let source = c.second.path();
    c.at_every_call(
        &["import", source],
        || c.remove_second(),
        |out| {
            assert!(c.has_second() || !out.stdout.contains("second "), "it was reported");
            c.is_clean();
            c.p.imgtool(&["import", source]).ok();
            c.is_clean();
        },
    );
}

#[test]
fn the_first_command_of_a_store_may_be_killed() {
    needs_root!();
    needs_program!("strace");
    let c = Crash::new();
    let source = c.first.path();
    let absent = || fs::remove_dir_all(c.p.store()).unwrap();
    c.at_every_call(&["import", source], absent, |_| {
        c.p.imgtool(&["import", source]).ok();
        c.is_clean();
    });
}

#[test]
fn a_removal_that_is_killed_leaves_litter_only() {
    needs_root!();
    needs_program!("strace");
    let c = Crash::new();
    let import = || drop(c.p.imgtool(&["import", c.second.path()]).ok());
    c.at_every_call(&["rm", "second"], import, |out| {
        assert!(!c.has_second() || !out.stdout.contains("removed"), "it was reported");
        c.is_clean();
    });
    let orphan = || {
        import();
        fs::remove_file(c.p.store().join("refs/second")).unwrap();
    };
    c.at_every_call(&["gc", "--log", "0"], orphan, |_| c.is_clean());
}

#[test]
fn an_export_that_is_killed_leaves_the_layout_as_it_was() {
    needs_root!();
    needs_program!("strace");
    let c = Crash::new();
    c.p.imgtool(&["import", c.second.path()]).ok();
    let out = c.p.path().join("out");
    let dest = out.to_str().unwrap();
    let before = || {
        let _ = fs::remove_dir_all(&out);
        c.p.imgtool(&["export", "first", dest]).ok();
    };
    c.at_every_call(&["export", "second", dest], before, |outcome| {
        let have: Vec<String> = index(&out).into_iter().map(|i| i.0).collect();
        assert!(have.contains(&"first".to_string()));
        assert!(have.len() == 2 || !outcome.stdout.contains("second "), "it was reported");
        has_all_of(&out, c.first.path().as_ref());
        c.p.imgtool(&["export", "second", dest]).ok();
        has_all_of(&out, c.second.path().as_ref());
        assert_eq!(names(&out), ["blobs", "index.json", "oci-layout"]);
        let q = Place::new();
        assert_eq!(q.imgtool(&["import", dest]).ok().stdout.lines().count(), 2);
    });
    // A new layout, and an archive that was there before.
    let absent = || drop(fs::remove_dir_all(&out));
    c.at_every_call(&["export", "second", dest], absent, |_| {
        c.p.imgtool(&["export", "second", dest]).ok();
        assert_eq!(names(&out), ["blobs", "index.json", "oci-layout"]);
    });
    let tar = c.p.path().join("x.tar");
    let old = || fs::write(&tar, "old").unwrap();
    c.at_every_call(&["export", "second", tar.to_str().unwrap()], old, |outcome| {
        let whole = |tar: &Path| Place::new().imgtool(&["import", tar.to_str().unwrap()]).status.success();
        assert!(whole(&tar) || fs::read(&tar).unwrap() == b"old" && !outcome.status.success());
    });
}

#[test]
fn a_repair_that_is_killed_is_done_by_the_next() {
    needs_root!();
    needs_program!("strace");
    make::forms().iter().for_each(|form| repairs_are_killed(&Crash::in_place(Place::of(form))));
}

fn repairs_are_killed(c: &Crash) {
    let damage = || {
        c.p.imgtool(&["fsck", "--repair"]).ok();
        for id in names(&c.p.store().join("layers")) {
            let layer = c.p.store().join("layers").join(id);
            match layer.join("fs").exists() {
                true => fs::write(layer.join("fs/d/new"), "").unwrap(),
                false => fs::write(layer.join("erofs"), "").unwrap(),
            }
        }
        fs::create_dir_all(c.p.store().join("tmp/1-0/x")).unwrap();
    };
    damage();
    let mend = || {
        let out = c.p.imgtool(&["fsck", "--repair"]).ok();
        assert!(
            out.stdout.lines().all(|l| l.starts_with("litter: ") || l.ends_with("it was made again")),
            "{}",
            out.stdout
        );
    };
    mend();
    let args = ["fsck", "--repair"];
    let points = rounds(8, 200);
    for n in 1..=points {
        for call in ["renameat2", "rename", "unlinkat", "syncfs", "fsync", "mkdirat", "flock"] {
            damage();
            finish(&mut c.traced(&format!("inject={call}:signal=KILL:when={n}"), &args));
            mend();
            assert_eq!(c.p.imgtool(&["verify"]).ok().stdout, "");
        }
    }
    c.is_clean();
}
