//! config.md#mounts: what each option does, seen from inside, and what must never happen to the host.

mod support;

use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use support::{Bundle, Scratch, finish, until};

/// What mountinfo says of one mount point.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    options: String,
    /// `shared`, `master` and `unbindable`, without the numbers of peer groups.
    propagation: String,
    kind: String,
    superblock: String,
}

/// By mount point; the topmost counts.
fn mountinfo(text: &str) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    for line in text.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let left: Vec<_> = left.split(' ').collect();
        let right: Vec<_> = right.split(' ').collect();
        let tags: Vec<_> = left[6..].iter().map(|t| t.split(':').next().unwrap_or(t)).collect();
        let seen = Seen {
            options: left[5].to_string(),
            propagation: tags.join(" "),
            kind: right[0].to_string(),
            superblock: right[2].to_string(),
        };
        all.insert(left[4].to_string(), seen);
    }
    all
}

fn inside(b: Bundle) -> BTreeMap<String, Seen> {
    mountinfo(&b.args(&["cat", "/proc/self/mountinfo"]).run().ok().stdout)
}

/// The mount points of the host, as they are before and after.
fn host_table() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    text.lines().filter(|l| !l.contains("/orlop-")).map(str::to_string).collect()
}

#[test]
fn options_do_what_runc_makes_of_them() {
    needs_root!();
    needs_program!("runc");
    let host = source();
    let source = host.path.to_str().unwrap();
    let lists: &[&[&str]] = &[
        &[],
        &["ro", "nosuid", "nodev", "noexec"],
        &["ro", "rw"],
        &["noatime"],
        &["strictatime"],
        &["noatime", "strictatime"],
        &["relatime", "nodiratime"],
        &["noatime", "atime"],
        &["strictatime", "nostrictatime"],
        &["norelatime", "suid", "dev", "exec"],
        &["sync", "dirsync"],
        &["sync", "async"],
        &["private"],
        &["rshared"],
        &["shared", "slave"],
        &["unbindable"],
        &["rprivate", "nosuid"],
    ];
    let mut b = Bundle::new();
    for (n, list) in lists.iter().enumerate() {
        b = b.mount(&format!("/t{n}"), "tmpfs", "tmpfs", &[&["size=64k", "mode=755"], *list].concat());
        if !list.iter().any(|o| o.ends_with("sync")) {
            b = b.mount(&format!("/b{n}"), "bind", source, &[&["rbind"], *list].concat());
        }
    }
    let b = b.args(&["cat", "/proc/self/mountinfo"]);
    let ours = mountinfo(&b.run().ok().stdout);
    let theirs = mountinfo(&b.run_by_runc().ok().stdout);
    for (point, want) in theirs.iter().filter(|(p, _)| p.starts_with("/t") || p.starts_with("/b")) {
        let list = lists[point[2..].parse::<usize>().unwrap()];
        let got = &ours[point];
        // runc makes the superblock of a new read-only tmpfs read-only as well.
        let same_superblock = got.superblock.replace("rw", "ro") == want.superblock.replace("rw", "ro");
        assert!(same_superblock, "{point} {list:?}: {got:?} {want:?}");
        assert_eq!((&got.options, &got.propagation), (&want.options, &want.propagation), "{point} {list:?}");
    }
    for point in ["/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        assert_eq!(ours[point].options, theirs[point].options, "{point}");
        assert_eq!(ours[point].kind, theirs[point].kind, "{point}");
    }
}

#[test]
fn options_newer_than_runc_work() {
    needs_root!();
    let host = source();
    fs::create_dir(host.path.join("below")).unwrap();
    let source = host.path.to_str().unwrap();
    mount(&["-t", "tmpfs", "tmpfs"], &host.path.join("below"));
    let mut b = Bundle::new();
    for (n, list) in [
        &["rro"][..],
        &["rnosuid", "rnodev", "rnoexec"],
        &["rnoatime"],
        &["rstrictatime", "rnodiratime"],
        &["nosymfollow"],
        &["rnosymfollow"],
        &["ro", "rrw"],
        &["rro", "ratime"],
        &["ro"],
    ]
    .iter()
    .enumerate()
    {
        b = b.mount(&format!("/m{n}"), "bind", source, &[&["rbind"], *list].concat());
    }
    b = b.mount(
        "/lazy",
        "tmpfs",
        "tmpfs",
        &["defaults", "lazytime", "silent", "loud", "iversion", "nomand", "rro"],
    );
    let seen = inside(b);
    for (n, top, below) in [
        (0, "ro,relatime", "ro,relatime"),
        (1, "rw,nosuid,nodev,noexec,relatime", "rw,nosuid,nodev,noexec,relatime"),
        (2, "rw,noatime", "rw,noatime"),
        (3, "rw,nodiratime", "rw,nodiratime"),
        (4, "rw,relatime,nosymfollow", "rw,relatime"),
        (5, "rw,relatime,nosymfollow", "rw,relatime,nosymfollow"),
        (6, "rw,relatime", "rw,relatime"),
        (7, "ro,relatime", "ro,relatime"),
        (8, "ro,relatime", "rw,relatime"),
    ] {
        assert_eq!(seen[&format!("/m{n}")].options, top, "/m{n}");
        assert_eq!(seen[&format!("/m{n}/below")].options, below, "/m{n}/below");
    }
    assert!(seen["/lazy"].superblock.contains("lazytime"), "{:?}", seen["/lazy"]);
    assert!(seen["/lazy"].options.starts_with("ro,"), "{:?}", seen["/lazy"]);
}

#[test]
fn a_bind_mount_that_clears_flags_gets_them_cleared() {
    needs_root!();
    let host = Scratch::new("source");
    mount(&["-t", "tmpfs", "-o", "ro,nosuid,nodev,noexec,noatime", "tmpfs"], &host.path);
    let source = host.path.to_str().unwrap();
    let b = Bundle::new().mount("/kept", "bind", source, &["rbind"]).mount(
        "/cleared",
        "bind",
        source,
        &["rbind", "rw", "suid", "dev", "exec", "atime"],
    );
    let seen = inside(b);
    assert_eq!(seen["/kept"].options, "ro,nosuid,nodev,noexec,noatime");
    assert_eq!(seen["/cleared"].options, "rw,relatime");
}

/// A mount of its own to bind from: the options and peers of the host's file system are not the test's.
fn source() -> Scratch {
    let scratch = Scratch::new("source");
    mount(&["-t", "tmpfs", "tmpfs"], &scratch.path);
    scratch
}

fn mount(args: &[&str], at: &Path) {
    finish(std::process::Command::new("mount").args(args).arg(at)).ok();
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_touched() {
    needs_root!();
    let before = host_table();
    for (destination, kind, source, options, words) in [
        (
            "/x",
            "bind",
            "/no/such/source",
            &["rbind"][..],
            "mounts[7] (/x): bind \"/no/such/source\" with all below, rslave: open_tree: no such file or directory",
        ),
        ("/x", "bind", "no-such", &["bind"], "/no-such\", rslave: open_tree: no such file or directory"),
        ("/x", "nosuchfs", "none", &[], "mounts[7] (/x): "),
        ("/x", "nosuchfs", "none", &[], "no such device"),
        ("/x", "tmpfs", "tmpfs", &["size=banana"], "Bad value for 'size'"),
        ("/x", "tmpfs", "tmpfs", &["nonsense"], "Unknown parameter 'nonsense'"),
        ("/bin/busybox/x", "tmpfs", "tmpfs", &[], "not a directory"),
        ("/etc", "bind", "/bin/busybox", &["rbind"], "with all below, rslave: move_mount: not a directory"),
        ("/etc/passwd", "bind", "/tmp", &["rbind"], "not a directory"),
        ("/../x", "tmpfs", "tmpfs", &[], "mounts[7].destination: \"/../x\" is above the rootfs"),
        ("/proc/sysrq-trigger", "bind", "/dev/null", &["bind"], "only a procfs may cover /proc"),
        ("/x", "bind", "/tmp", &["rbind", "roo"], "mounts[7] (/x).options: \"roo\" is unknown"),
        ("/x", "bind", "/dev/null", &["rbind", "tmpcopyup"], "tmpcopyup is for the type tmpfs"),
    ] {
        let b = Bundle::new().mount(destination, kind, source, options);
        b.run().fails(words);
        b.verb("state", &[]).fails("does not exist");
    }
    assert_eq!(host_table(), before);
}

#[test]
fn a_bad_root_is_named() {
    needs_root!();
    for (path, words) in [
        (json!(""), "root.path: is required"),
        (json!("nowhere"), "/nowhere\": no such file or directory"),
        (json!("config.json"), "not a directory"),
    ] {
        Bundle::new().set("/root/path", path).run().fails(words).fails_at("root.path");
    }
}

trait At {
    fn fails_at(self, property: &str);
}

impl At for support::Outcome {
    #[track_caller]
    fn fails_at(self, property: &str) {
        assert!(self.stderr.contains(property), "{property} is not in {}", self.stderr);
    }
}

#[test]
fn relative_destinations_and_sources_are_taken_from_root_and_bundle() {
    needs_root!();
    let b = Bundle::new().mount("data/in", "none", "outside", &["bind"]).sh("cat /data/in/file");
    fs::create_dir(b.path().join("outside")).unwrap();
    fs::write(b.path().join("outside/file"), "here").unwrap();
    assert_eq!(b.run().ok().stdout, "here");
    let made = fs::metadata(b.rootfs().join("data")).unwrap();
    assert_eq!(made.mode() & 0o7777, 0o755, "missing parents are 0755 whatever the caller's umask");
}

#[test]
fn files_are_bound_onto_files() {
    needs_root!();
    let host = Scratch::new("source");
    let file = host.path.join("hosts");
    fs::write(&file, "127.0.0.1 web").unwrap();
    let b = Bundle::new().mount("/etc/new/hosts", "bind", file.to_str().unwrap(), &["bind", "ro"]);
    let b = b.sh("cat /etc/new/hosts; echo x 2>/dev/null > /etc/new/hosts || echo :ro");
    assert_eq!(b.run().ok().stdout, "127.0.0.1 web:ro\n");
}

#[test]
fn order_is_that_of_the_document() {
    needs_root!();
    let b = Bundle::new()
        .mount("/a", "tmpfs", "one", &["mode=700"])
        .mount("/a/b", "tmpfs", "two", &["mode=711"])
        .mount("/a", "tmpfs", "three", &["mode=755"])
        .sh("stat -c %a /a; ls /a");
    assert_eq!(b.run().ok().stdout, "755\n");
}

#[test]
fn a_tmpfs_takes_the_mode_of_what_it_covers() {
    needs_root!();
    let b = Bundle::new()
        .mount("/covered", "tmpfs", "tmpfs", &[])
        .mount("/given", "tmpfs", "tmpfs", &["mode=1770"])
        .mount("/fresh", "tmpfs", "tmpfs", &["size=64k"])
        .mount("/ro", "tmpfs", "tmpfs", &["ro"])
        .mount("/ro/inside", "tmpfs", "tmpfs", &["mode=700"])
        .sh("stat -c %a /covered /given /fresh /ro/inside; mkdir /ro/x 2>/dev/null || echo ro");
    for dir in ["covered", "given"] {
        fs::create_dir(b.rootfs().join(dir)).unwrap();
        fs::set_permissions(b.rootfs().join(dir), fs::Permissions::from_mode(0o2751)).unwrap();
    }
    let ours = b.run().ok().stdout;
    assert_eq!(ours, "2751\n1770\n1777\n700\nro\n");
}

#[test]
fn tmpcopyup_brings_what_it_covers() {
    needs_root!();
    let b = Bundle::new().mount("/srv", "tmpfs", "tmpfs", &["tmpcopyup", "ro"]).sh(
        "cd /srv && cat deep/er/file && readlink link && stat -c '%a %u:%g' deep deep/er/file && stat -c '%F %t:%T %a' fifo \
         && stat -c %Y deep/er/file && ls | wc -l && touch /srv/x 2>/dev/null || echo ro",
    );
    let srv = b.rootfs().join("srv");
    fs::create_dir_all(srv.join("deep/er")).unwrap();
    fs::write(srv.join("deep/er/file"), "content\n").unwrap();
    fs::set_permissions(srv.join("deep/er/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    chown(srv.join("deep"), Some(1000), Some(1001)).unwrap();
    std::os::unix::fs::symlink("../etc", srv.join("link")).unwrap();
    nix::unistd::mkfifo(&srv.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o640)).unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::open(srv.join("deep/er/file")).unwrap().set_modified(time).unwrap();
    for n in 0..500 {
        fs::write(srv.join(format!("file with a long name, so that one read is not enough {n}")), "")
            .unwrap();
    }
    assert_eq!(
        b.run().ok().stdout,
        "content\n../etc\n755 1000:1001\n4751 0:0\nfifo 0:0 640\n1000000000\n503\nro\n"
    );
}

#[test]
fn host_mounts_reach_a_slave_and_never_come_back() {
    needs_root!();
    let host = Scratch::new("shared");
    mount(&["-t", "tmpfs", "tmpfs"], &host.path);
    finish(std::process::Command::new("mount").args(["--make-shared"]).arg(&host.path)).ok();
    for name in ["late-slave", "late-private", "from-inside"] {
        fs::create_dir(host.path.join(name)).unwrap();
    }
    let source = host.path.to_str().unwrap();
    for (option, propagation, arrives, leaves) in [
        ("rslave", json!(null), true, false),
        ("rprivate", json!(null), false, false),
        ("rslave", json!("rslave"), true, false),
        ("rslave", json!("rprivate"), false, false),
        ("rshared", json!("rshared"), true, true),
        ("rshared", json!(null), true, false),
    ] {
        let name = "late-slave";
        let b = Bundle::new()
            .mount("/v", "bind", source, &["rbind", option])
            .set("/linux/rootfsPropagation", propagation.clone())
            .set("/process/capabilities/effective/-", json!("CAP_SYS_ADMIN"))
            .set("/process/capabilities/permitted/-", json!("CAP_SYS_ADMIN"))
            .set("/process/capabilities/bounding/-", json!("CAP_SYS_ADMIN"))
            .sh("mount -t tmpfs inner /v/from-inside; touch /v/from-inside/inner; echo > /v/ready;
                 while [ ! -e /v/go ]; do sleep 0.02; done; ls /v/late-slave");
        let b = &b;
        std::thread::scope(|s| {
            let running = s.spawn(|| b.run().ok().stdout);
            until("the container is up", || host.path.join("ready").exists());
            let left = host.path.join("from-inside/inner").exists();
            mount(&["-t", "tmpfs", "tmpfs"], &host.path.join(name));
            fs::write(host.path.join(name).join("hot-plugged"), "").unwrap();
            fs::write(host.path.join("go"), "").unwrap();
            let out = running.join().unwrap();
            assert_eq!(out.contains("hot-plugged"), arrives, "{option} under {propagation}: {out}");
            assert_eq!(left, leaves, "{option} under {propagation}");
        });
        for gone in ["ready", "go"] {
            fs::remove_file(host.path.join(gone)).unwrap();
        }
        let _ = nix::mount::umount2(&host.path.join("from-inside"), nix::mount::MntFlags::MNT_DETACH);
        nix::mount::umount2(&host.path.join(name), nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn the_roots_propagation_is_as_asked() {
    needs_root!();
    // Where the host's mounts are shared, as systemd has them, its events come in.
    let b = Bundle::new();
    let on =
        finish(std::process::Command::new("findmnt").args(["-no", "PROPAGATION", "-T"]).arg(b.path())).ok();
    let from =
        |master: &'static str, alone: &'static str| if on.stdout.contains("shared") { master } else { alone };
    for (value, want) in [
        (json!("shared"), from("shared master", "shared")),
        (json!("rshared"), from("shared master", "shared")),
        (json!("private"), ""),
        (json!("rprivate"), ""),
        (json!("slave"), from("master", "")),
        (json!("unbindable"), "unbindable"),
        (json!("runbindable"), "unbindable"),
    ] {
        let seen = inside(Bundle::new().set("/linux/rootfsPropagation", value.clone()));
        assert_eq!(seen["/"].propagation, want, "{value}");
    }
    let e = "linux.rootfsPropagation: \"sideways\" is no propagation";
    Bundle::new().set("/linux/rootfsPropagation", json!("sideways")).run().fails(e);
}

/// A host whose / is shared, as systemd makes it: nothing of ours may show up there.
#[test]
fn no_mount_of_the_container_reaches_a_shared_host() {
    needs_root!();
    for propagation in [json!(null), json!("rshared"), json!("rslave"), json!("runbindable")] {
        let b = Bundle::new()
            .mount("/m", "tmpfs", "tmpfs", &["rshared"])
            .mount("/etc", "bind", "/etc", &["rbind", "rshared"])
            .set("/linux/rootfsPropagation", propagation)
            .without_namespace("cgroup")
            .set("/process/capabilities/effective/-", json!("CAP_SYS_ADMIN"))
            .set("/process/capabilities/permitted/-", json!("CAP_SYS_ADMIN"))
            .set("/process/capabilities/bounding/-", json!("CAP_SYS_ADMIN"))
            .sh("mount -t tmpfs own /run/notify
                for d in $(ls -d /sys/fs/cgroup/*/) /sys/fs/cgroup; do mount -t tmpfs own $d || exit; done; echo inside");
        b.write();
        let script = "mount --make-rshared / && cat /proc/self/mountinfo > $1/before && shift && \"$@\" && \
            cat /proc/self/mountinfo > $0/after";
        let dir = b.path().to_path_buf();
        let mut c = std::process::Command::new("unshare");
        c.args(["-m", "--propagation", "private", "sh", "-c", script]).arg(&dir).arg(&dir);
        c.arg(support::ORLOP)
            .arg("--root")
            .arg(b.state_root())
            .args(["run", "--bundle"])
            .arg(b.path())
            .arg(&b.id);
        let _manager = UnixDatagram::bind(dir.join("manager")).unwrap();
        assert_eq!(finish(c.env("NOTIFY_SOCKET", dir.join("manager"))).ok().stdout, "inside\n");
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let (before, after) = (read("before"), read("after"));
        // Without the options of its file system, which others may change meanwhile.
        let mount = |line: &str| line.rsplit_once(' ').unwrap().0.to_string();
        let before: Vec<_> = before.lines().map(mount).collect();
        let more: Vec<_> = after.lines().map(mount).filter(|m| !before.contains(m)).collect();
        assert!(more.is_empty(), "{more:?}");
    }
}

#[test]
fn cgroup_mounts_show_every_hierarchy_read_only() {
    needs_root!();
    if !Path::new("/sys/fs/cgroup/memory").exists() {
        return support::skip("needs cgroup v1");
    }
    for own in [true, false] {
        let b = Bundle::new().without_namespace("cgroup");
        let b = if own { b.namespace("cgroup", None) } else { b };
        let b = b.sh("cat /proc/self/mountinfo; for d in /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && echo writable $d; done; true");
        let out = b.run().ok().stdout;
        assert!(!out.contains("writable"), "{out}");
        let seen = mountinfo(&out);
        let theirs = mountinfo(&b.run_by_runc().ok().stdout);
        for (point, want) in theirs.iter().filter(|m| m.0.starts_with("/sys/fs/cgroup/")) {
            assert_eq!(
                seen.get(point).map(|s| (&s.options, &s.superblock)),
                Some((&want.options, &want.superblock)),
                "{point}"
            );
        }
        assert!(seen["/sys/fs/cgroup"].options.starts_with("ro,"), "{out}");
    }
}

/// The view of a v2 host, in a mount namespace of the test's own.
#[test]
fn cgroup_v2_is_a_mount_of_its_own_or_the_containers_cgroup() {
    needs_root!();
    let v2 = "umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec \"$@\"";
    for own in [true, false] {
        let b = Bundle::new().without_namespace("cgroup");
        let b = if own { b.namespace("cgroup", None) } else { b };
        let script = "cat /proc/self/mountinfo; mkdir /sys/fs/cgroup/x 2>/dev/null && echo writable; \
            cat /sys/fs/cgroup/cgroup.procs";
        let b = b.sh(script);
        b.write();
        let mut c = std::process::Command::new("unshare");
        c.args(["-m", "sh", "-c", v2, "sh", support::ORLOP, "--root"]).arg(b.state_root());
        let out = finish(c.args(["run", "--bundle"]).arg(b.path()).arg(&b.id)).ok().stdout;
        let seen = mountinfo(&out);
        let cgroup = &seen["/sys/fs/cgroup"];
        assert_eq!(
            (cgroup.kind.as_str(), cgroup.options.as_str()),
            ("cgroup2", "ro,nosuid,nodev,noexec,relatime")
        );
        assert!(out.ends_with("\n1\n"), "its own processes are all there are: {out}");
        let root = if own { " / /sys/fs/cgroup ".to_string() } else { format!("/{} /sys/fs/cgroup ", b.id) };
        assert!(out.contains(&root), "{out}");
    }
}

#[test]
fn sysfs_without_a_network_namespace_of_its_own_is_the_hosts_read_only() {
    needs_root!();
    let b = Bundle::new()
        .in_a_user_namespace()
        .without_namespace("network")
        .args(&["cat", "/proc/self/mountinfo"]);
    let seen = mountinfo(&b.run().ok().stdout);
    assert_eq!(seen["/sys"].kind, "sysfs");
    assert!(seen["/sys"].options.starts_with("ro,"), "{:?}", seen["/sys"]);
}

#[test]
fn remount_changes_a_mount_that_is_there() {
    needs_root!();
    let b = Bundle::new().mount("/t", "tmpfs", "tmpfs", &["size=64k", "mode=755"]).mount(
        "/t",
        "tmpfs",
        "tmpfs",
        &["remount", "nosuid", "noexec", "size=128k"],
    );
    let seen = inside(b);
    assert_eq!(seen["/t"].options, "rw,nosuid,noexec,relatime");
    assert!(seen["/t"].superblock.contains("size=128k"), "{:?}", seen["/t"]);
}

/// config.md#mounts: "in the listed order", which the kernel shows (since Linux 6.8 by when each was made), and in which
/// the source of one may lie on another.
#[test]
fn binds_take_their_turn_among_other_mounts() {
    needs_root!();
    let b = Bundle::new().mount("/a", "bind", "/etc", &["bind"]).mount("/b", "tmpfs", "tmpfs", &["mode=700"]);
    let again = b.rootfs().join("a").to_string_lossy().into_owned();
    let b = b.mount("/c", "bind", &again, &["bind", "size=1k", "mode=755"]);
    let script = "grep -oE ' /[abc] ' /proc/self/mountinfo; ls -d /c/hostname";
    let out = b.sh(script).run().ok();
    assert_eq!(out.stdout, " /a \n /b \n /c \n/c/hostname\n");
    assert!(out.stderr.contains("(/c).options: size=1k is data of a file system"), "{}", out.stderr);
}
