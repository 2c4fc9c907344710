//! `imgtool` of an ordinary user: alone with one id, and as root of a user namespace with subordinate ones.

mod support;

#[path = "image_peers/archive.rs"]
mod archive;
#[path = "image_peers/made.rs"]
mod made;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/make.rs"]
mod make;
#[allow(dead_code)] // trees of root
#[path = "image_peers/model.rs"]
mod model;
#[allow(dead_code)] // of it each test program uses its part
#[path = "image/tree.rs"]
mod tree;

use made::{dir, file, item};
use make::{Image, Layout, Packing, base, layer, script};
use model::{Item, Model, What};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Outcome, Scratch, finish, unique};

const UID: u32 = 12345;
const SUB: u32 = 300_000;

/// A user with a home, and a copy of the program there: our own directory may be closed to others.
struct User {
    home: Scratch,
}

impl User {
    fn new() -> Self {
        let home = Scratch::new("user");
        support::copy_orlop(&home.path.join("orlop"));
        chown(&home.path, Some(UID), Some(UID)).unwrap();
        Self { home }
    }

    fn path(&self) -> &Path {
        &self.home.path
    }

    fn at(&self, c: &mut Command) -> Outcome {
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path().display());
        let c = c.current_dir(self.path()).env_clear().env("PATH", path).env("HOME", self.path());
        finish(c.stdin(Stdio::null()))
    }

    /// With the one id that a user has.
    #[track_caller]
    fn orlop(&self, args: &[&str]) -> Outcome {
        let id = UID.to_string();
        let mut c = Command::new("setpriv");
        c.args(["--reuid", &id, "--regid", &id, "--clear-groups", "orlop"]).args(args);
        self.at(&mut c)
    }

    #[track_caller]
    fn imgtool(&self, args: &[&str]) -> Outcome {
        self.orlop(&[&["imgtool"], args].concat())
    }

    #[track_caller]
    fn run(&self, bundle: &str) -> String {
        self.orlop(&["--root", "state", "run", "--bundle", bundle, &format!("orlop-test-{}", unique())])
            .ok()
            .stdout
    }

    /// A script of root of a user namespace, with a mount namespace, in which ids from 1 are the user's subordinate ones,
    /// which newuidmap(1) maps.
    #[track_caller]
    fn inside(&self, script: &str) -> Outcome {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let file = |name: &str, text: &str| fs::write(self.path().join(name), text).unwrap();
        file("passwd", &format!("{passwd}orlop-test:x:{UID}:{UID}::/:/bin/sh\n"));
        file("ranges", &format!("orlop-test:{SUB}:65536\n"));
        let become_user = format!(
            "mount --bind passwd /etc/passwd && mount --bind ranges /etc/subuid && mount --bind ranges /etc/subgid && \
             exec setpriv --reuid {UID} --regid {UID} --clear-groups \
             unshare --map-auto --map-root-user --mount sh -ec \"$1\""
        );
        self.at(Command::new("unshare").args(["--mount", "sh", "-c", &become_user, "sh", script]))
    }
}

macro_rules! needs_ranges {
    () => {
        needs_root!();
        needs_program!("newuidmap");
        if !Path::new("/etc/subuid").exists() || !Path::new("/etc/subgid").exists() {
            return support::skip("needs /etc/subuid and /etc/subgid");
        }
        let help = finish(Command::new("unshare").arg("--help"));
        if !help.stdout.contains("--map-auto") {
            return support::skip("needs an unshare with --map-auto");
        }
    };
}

/// What is told of a file, and what an ordinary user cannot have: devices, others' files.
fn system(show: &str) -> Layout {
    let low = [
        dir("", 0o755),
        dir("old", 0o751),
        file("old/a", "a"),
        dir("again", 0o755),
        file("again/old", "x"),
        file("gone", "x"),
        dir("odd", 0o755),
        item("odd/char", What::Char(10, 200), 0o666),
        item("odd/block", What::Block(7, 1), 0o660),
    ];
    let mut owned = file("old/owned", "o");
    (owned.meta.uid, owned.meta.gid) = (5, 1000);
    let top = [
        owned,
        item("gone", What::Whiteout, 0),
        item("again", What::Whiteout, 0),
        dir("again", 0o700),
        file("again/new", "n"),
        item("old/set-id", What::File(b"#!".to_vec()), 0o4755),
    ];
    let layers = vec![layer(&base()), archive::archive(&low), archive::archive(&top)];
    Image::new(layers).packing(Packing::Gzip).config(script(show)).name("x").write()
}

const SHOW: &str = "stat -c '%n %a %u:%g' /old /old/* /again /again/*; ls /odd; test -e /gone && echo there; \
                    echo mine > /old/a; rm -r /again; mkdir /again; echo n > /again/newer; rm /etc/group; cat /proc/self/uid_map";

/// What [`SHOW`] prints, with this owner of a file that is another's.
fn shown(owner: &str) -> String {
    format!(
        "/old 751 0:0\n/old/a 644 0:0\n/old/owned 644 {owner}\n/old/set-id 4755 0:0\n/again 700 0:0\n/again/new 644 0:0\n"
    )
}

#[test]
fn one_id_is_enough_for_all_of_it() {
    needs_root!();
    let u = User::new();
    let source = system(SHOW);
    let why = "only root of the machine, outside of user namespaces, may mount EROFS images";
    let info = u.imgtool(&["info", "--format", "json"]).ok().json();
    assert_eq!((&info["layerForm"]["name"], &info["layerForm"]["why"]), (&json!("dir"), &json!(why)));
    u.imgtool(&["import", "--layers", "erofs", source.path()]).fails(why);
    let out = u.imgtool(&["import", source.path()]).ok();
    assert!(out.stderr.contains("2 device nodes were left out"), "{}", out.stderr);
    u.imgtool(&["unpack", "x", "b"]).ok();
    u.imgtool(&["unpack", "--mount", "x", "c"])
        .fails("operation not permitted")
        .fails("in the container's user namespace");
    assert!(!u.path().join("c").exists());
    let map = format!("{:>10} {:>10} {:>10}\n", 0, UID, 1);
    assert_eq!(u.run("b"), shown("0:0") + &map);
    let told = u.imgtool(&["diff", "b"]).ok().stdout;
    assert_eq!(told, "C /again\nD /again/new\nA /again/newer\nD /etc/group\nC /old/a\n");
    u.imgtool(&["commit", "b", "y"]).ok();
    u.imgtool(&["config", "y", "z", "--cmd", r#"["sh","-c","cat /old/a; ls /again /etc"]"#]).ok();
    u.imgtool(&["unpack", "z", "d"]).ok();
    assert_eq!(u.run("d"), "mine\n/again:\nnewer\n\n/etc:\npasswd\n");
    u.imgtool(&["squash", "z", "s"]).ok();
    u.imgtool(&["export", "s", "layout"]).ok();
    u.imgtool(&["export", "--rootfs", "d", "tree.tar"]).ok();
    assert_eq!(u.imgtool(&["verify"]).ok().stdout, "");
    u.imgtool(&["fsck"]).ok();
    // Root makes of it what the user has.
    let p = make::Place::new();
    p.imgtool(&["import", u.path().join("layout").to_str().unwrap(), "s"]).ok();
    let bundle = p.unpack("s", &[]);
    assert_eq!(p.run(&bundle).ok().stdout, "mine\n/again:\nnewer\n\n/etc:\npasswd\n");
    p.remove(&bundle);
    for image in ["x", "y", "z", "s"] {
        u.imgtool(&["rm", image]).ok();
    }
    assert_eq!(u.run("d"), "mine\n/again:\nnewer\n\n/etc:\npasswd\n", "what a bundle uses stays");
    let names = |sub: &str| fs::read_dir(u.path().join(".local/share/orlop").join(sub)).unwrap().count();
    for bundle in ["b", "d"] {
        let path = u.path().join(bundle);
        // As the user would: overlayfs leaves a directory without rights.
        fs::set_permissions(path.join("work/work"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_dir_all(path).unwrap();
    }
    u.imgtool(&["gc", "--log", "0"]).ok();
    for sub in ["layers", "fixups", "bundles", "blobs/sha256", "tmp"] {
        assert_eq!(names(sub), 0, "{sub}");
    }
}

#[test]
fn subordinate_ids_own_what_the_image_says() {
    needs_ranges!();
    let u = User::new();
    let source = system(SHOW);
    let out = u.inside(&format!("orlop imgtool import {}; orlop imgtool unpack --mount x b; stat -c '%n %u:%g' b/rootfs/old/owned;
        stat -c '%a %u' b/rootfs/old/set-id; test ! -e b/rootfs/gone; ls b/rootfs/again b/rootfs/odd; echo w > b/rootfs/written;
        grep -c userxattr /proc/self/mountinfo; orlop imgtool umount b; ls b/rootfs", source.path()));
    let out = out.ok();
    assert!(out.stderr.contains("2 device nodes were left out"), "{}", out.stderr);
    let lines: Vec<&str> = out.stdout.lines().skip(1).collect();
    assert_eq!(
        lines,
        ["b/rootfs/old/owned 5:1000", "4755 0", "b/rootfs/again:", "new", "", "b/rootfs/odd:", "1"]
    );
    // On the disk these are the subordinate ids, and marks are those that a user namespace may set.
    let layers = u.path().join(".local/share/orlop/layers");
    let owner = |path: &str| {
        let all = fs::read_dir(&layers).unwrap().map(|l| l.unwrap().path().join("fs").join(path));
        let found = all.filter_map(|p| fs::symlink_metadata(p).ok()).next().unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!(owner("old/owned"), (SUB + 4, SUB + 999));
    // The next one, as after a reboot, has the upper's content.
    let run = "orlop --root state run --bundle b orlop-test-$$";
    let out = u
        .inside(&format!(
            "orlop imgtool mount b; cat b/rootfs/written; {run}; orlop imgtool umount b; orlop imgtool diff b"
        ))
        .ok();
    let map = format!("{:>10} {:>10} {:>10}\n{:>10} {:>10} {:>10}\n", 0, UID, 1, 1, SUB, 65535);
    let diff = "C /again\nD /again/new\nA /again/newer\nD /etc/group\nC /old/a\nA /written\n";
    assert_eq!(out.stdout, format!("w\n{}{map}{diff}", shown("5:1000")), "{}", out.stderr);
    // Left to the runtime, in the same namespace.
    let tell = r#"["sh","-c","cat /old/a; stat -c %u:%g /old/owned; ls /again"]"#;
    let out = u.inside(&format!("orlop imgtool commit b y; orlop imgtool config y z --cmd '{tell}'; orlop imgtool unpack --no-mount z c
        orlop --root state run --bundle c orlop-test-$$; orlop imgtool export z layout; orlop imgtool verify")).ok();
    assert!(out.stdout.contains("\nmine\n5:1000\nnewer\n"), "{}{}", out.stdout, out.stderr);
    u.inside(
        "rm -r b c; orlop imgtool rm x; orlop imgtool rm y; orlop imgtool rm z; orlop imgtool gc --log 0",
    )
    .ok();
    assert_eq!(fs::read_dir(&layers).unwrap().count(), 0);
}

/// Everything is the one user's, whoever the image says.
#[test]
fn a_namespace_of_one_id_has_all_files_as_its_own() {
    needs_root!();
    let u = User::new();
    let source = system(SHOW);
    let id = UID.to_string();
    let text = format!(
        "orlop imgtool import {}; orlop imgtool unpack --mount x b; orlop --root state run --bundle b orlop-test-$$; \
         orlop imgtool umount b; orlop imgtool diff b",
        source.path()
    );
    let mut c = Command::new("setpriv");
    c.args([
        "--reuid",
        &id,
        "--regid",
        &id,
        "--clear-groups",
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-ec",
        &text,
    ]);
    let out = u.at(&mut c).ok();
    assert!(out.stdout.contains(&shown("0:0")), "{}{}", out.stdout, out.stderr);
    assert!(out.stdout.ends_with("D /etc/group\nC /old/a\n"), "{}", out.stdout);
}

/// What is closed to its owner is read by a root alone, which the user is in a user namespace.
#[test]
fn files_closed_to_their_owner_are_read_in_a_namespace() {
    needs_ranges!();
    let u = User::new();
    let source =
        Image::new(vec![layer(&[make::dir("closed", 0), make::file("closed/in", "x")])]).name("x").write();
    u.imgtool(&["import", source.path()]).ok();
    u.imgtool(&["unpack", "--no-mount", "x", "b"]).ok();
    for args in [&["tree", "x"][..], &["squash", "x", "y"], &["unpack", "--driver", "copy", "x", "c"]] {
        u.imgtool(args)
            .fails("\"closed\": open: permission denied")
            .fails("unshare --map-auto --map-root-user");
    }
    u.inside("orlop imgtool squash x y; orlop imgtool unpack --driver copy y c; cat c/rootfs/closed/in").ok();
}

/// An id that is not mapped can own nothing there.
#[test]
fn an_owner_that_is_not_mapped_is_refused_by_name() {
    needs_ranges!();
    let u = User::new();
    let mut far = file("far", "x");
    far.meta.uid = 3_000_000;
    let source = Image::new(vec![archive::archive(&[dir("", 0o755), far])]).name("x").write();
    u.inside(&format!("orlop imgtool import {}", source.path()))
        .fails("\"far\"")
        .fails("3000000")
        .fails("/etc/subuid");
}

/// Names and what is told of them, of an archive of a tree.
fn told(tar: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    let line = |e: tar::Entry<fs::File>| {
        let path = e.path_bytes().into_owned();
        let path = path.strip_prefix(b"./").unwrap_or(&path);
        let h = e.header();
        let mode = if h.entry_type().is_symlink() { 0o777 } else { h.mode().unwrap() };
        let (uid, gid) = (h.uid().unwrap(), h.gid().unwrap());
        (
            path.strip_suffix(b"/").unwrap_or(path).escape_ascii().to_string(),
            format!("{mode:o} {uid}:{gid} {}", h.mtime().unwrap()),
        )
    };
    archive.entries().unwrap().map(|e| line(e.unwrap())).collect()
}

#[test]
fn layers_become_the_same_in_a_user_namespace() {
    needs_ranges!();
    let u = User::new();
    let mut script = String::new();
    let mut want = Vec::new();
    let mut sources = Vec::new();
    for (what, layers) in made::made() {
        let ours = |i: &Item| {
            !matches!(i.what, What::Char(..) | What::Block(..))
                && i.meta.uid < 65536
                && i.meta.gid < 65536
                && i.meta.mtime.0 >= 0
        };
        let layers: Vec<Vec<Item>> =
            layers.into_iter().map(|l| l.into_iter().filter(ours).collect()).collect();
        let source = Image::new(layers.iter().map(|l| archive::archive(l)).collect()).name("x").write();
        let n = want.len();
        script += &format!(
            "orlop imgtool import {} x; orlop imgtool unpack --mount x b; orlop imgtool export --rootfs b {n}.tar; \
             orlop imgtool umount b; rm -r b\n",
            source.path()
        );
        sources.push(source);
        let line = |(path, text): (String, String)| {
            let meta: Vec<&str> = text.split(' ').collect();
            let at = meta.iter().position(|w| w.split_once('.').is_some_and(|(_, n)| n.len() == 9)).unwrap();
            let seconds = meta[at].split_once('.').unwrap().0;
            (path, format!("{} {} {seconds}", meta[at - 2], meta[at - 1]))
        };
        want.push((what, Model::of(&layers).show().into_iter().map(line).collect::<BTreeMap<_, _>>()));
    }
    u.inside(&script).ok();
    for (n, (what, want)) in want.iter().enumerate() {
        tree::same(want, &told(&u.path().join(format!("{n}.tar"))), what);
    }
}
