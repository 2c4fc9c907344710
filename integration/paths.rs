//! Paths of an image are hostile: nothing outside of the rootfs may be read, made or changed by way of them; and what is
//! masked or read-only stays so.

mod support;

use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Bundle, Scratch, finish, rounds, sample};

/// Inode, mode, owner, group, time of change, content.
type Look = (u64, u32, u32, u32, i64, Vec<u8>);

/// A directory of the host that no container may change.
struct Canary {
    scratch: Scratch,
    before: BTreeMap<PathBuf, Look>,
}

impl Canary {
    fn new() -> Self {
        let scratch = Scratch::new("canary");
        fs::create_dir(scratch.path.join("dir")).unwrap();
        fs::write(scratch.path.join("file"), "secret").unwrap();
        fs::write(scratch.path.join("dir/inner"), "secret").unwrap();
        let before = Self::look(&scratch.path);
        Self { scratch, before }
    }

    fn look(top: &Path) -> BTreeMap<PathBuf, Look> {
        let mut seen = BTreeMap::new();
        let mut rest = vec![top.to_path_buf()];
        while let Some(p) = rest.pop() {
            let m = p.symlink_metadata().unwrap();
            let content = if m.is_file() { fs::read(&p).unwrap() } else { Vec::new() };
            if m.is_dir() {
                rest.extend(fs::read_dir(&p).unwrap().map(|e| e.unwrap().path()));
            }
            seen.insert(p, (m.ino(), m.mode(), m.uid(), m.gid(), m.ctime(), content));
        }
        seen
    }

    fn path(&self) -> &str {
        self.scratch.path.to_str().unwrap()
    }

    #[track_caller]
    fn untouched(&self, after: &str) {
        assert_eq!(Self::look(&self.scratch.path), self.before, "{after}");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.path()), "{after}: a mount on the host");
    }
}

/// Where a link of the image points, `@` standing for the canary: absolute, relative, by way of procfs, nested.
const LINKS: &[&str] = &[
    "@",
    "@/dir",
    "@/file",
    "@/new",
    "@/new/deep",
    "@/dir/inner",
    "../../../../../../../../..@",
    "../../../../../../../../..@/dir",
    "/../..@/new",
    "/proc/self/root@",
    "/proc/1/root@",
    "/proc/self/cwd/../../../../..@",
    "loop",
    "/tmp/hop",
    "/proc/self/fd/3",
];

/// The way in which a path of config.json meets the link.
const PLACES: &[&str] =
    &["tmpfs", "bind", "bind file", "proc", "device", "cwd", "masked", "readonly", "below"];

fn place(b: Bundle, how: &str, canary: &Canary) -> Bundle {
    let dir = canary.scratch.path.join("dir");
    match how {
        "tmpfs" => b.mount("/link", "tmpfs", "tmpfs", &["mode=777"]),
        "below" => b.mount("/link/a/b", "tmpfs", "tmpfs", &[]),
        "bind" => b.mount("/link", "bind", dir.to_str().unwrap(), &["rbind"]),
        "bind file" => b.mount("/link", "bind", "/dev/null", &["bind"]),
        "proc" => b.mount("/link", "proc", "proc", &[]),
        "device" => {
            let node = json!({ "path": "/link/node", "type": "c", "major": 1, "minor": 5, "fileMode": 438 });
            b.set("/linux/devices", json!([node]))
        }
        "cwd" => b.set("/process/cwd", json!("/link/work")),
        "masked" => b.set("/linux/maskedPaths", json!(["/link"])),
        "readonly" => b.set("/linux/readonlyPaths", json!(["/link"])),
        other => panic!("{other}"),
    }
}

#[test]
fn a_link_of_the_image_never_leads_out() {
    needs_root!();
    let canary = Canary::new();
    let all = PLACES.iter().flat_map(|how| LINKS.iter().map(move |target| (how, target)));
    for (how, target) in sample(all) {
        let b = place(Bundle::new(), how, &canary).set("/root/readonly", json!(false));
        let hop = target.replace('@', canary.path());
        symlink(&hop, b.rootfs().join("link")).unwrap();
        symlink("loop", b.rootfs().join("loop")).unwrap();
        symlink(format!("..{}", canary.path()), b.rootfs().join("tmp/hop")).unwrap();
        let out = b.run(); // whether it fails or stays inside is the kernel's answer to the shape
        canary.untouched(&format!("{how} at a link to {target}: {}", out.stderr));
    }
}

#[test]
fn a_link_to_what_is_missing_is_made_inside() {
    needs_root!();
    let b = Bundle::new()
        .set("/root/readonly", json!(false))
        .mount("/etc/resolv.conf", "bind", "/proc/self/status", &["bind"])
        .mount("/var/run/a/b", "tmpfs", "tmpfs", &["mode=711"])
        .set("/process/cwd", json!("/var/run/work"))
        .sh("pwd; head -c 5 /run/resolve/stub.conf; echo; stat -c %a /run/a/b; ls /run");
    fs::create_dir(b.rootfs().join("var")).unwrap();
    symlink("../run/resolve/stub.conf", b.rootfs().join("etc/resolv.conf")).unwrap();
    symlink("/hop", b.rootfs().join("var/run")).unwrap();
    symlink("../../../../run", b.rootfs().join("hop")).unwrap();
    assert_eq!(b.run().ok().stdout, "/run/work\nName:\n711\na\nresolve\nwork\n");
    let b = Bundle::new().mount("/loop", "tmpfs", "tmpfs", &[]);
    symlink("loop", b.rootfs().join("loop")).unwrap();
    b.run().fails("too many symbolic links");
}

/// crun's options, which podman and others write.
#[test]
fn links_are_followed_bound_covered_or_copied_as_asked() {
    needs_root!();
    let host = Scratch::new("source");
    fs::write(host.path.join("file"), "of the host").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", host.path.join("link")).unwrap();
    let (file, link) = (host.path.join("file"), host.path.join("link"));
    let (file, link) = (file.to_str().unwrap(), link.to_str().unwrap());
    let b = Bundle::new()
        .mount("/bound", "bind", link, &["bind", "src-nofollow"])
        .mount("/copied", "bind", link, &["bind", "copy-symlink"])
        .mount("/new/copied", "bind", link, &["bind", "copy-symlink"])
        .mount("/plain", "bind", file, &["bind", "copy-symlink", "src-nofollow"])
        .mount("/covered", "bind", file, &["bind", "dest-nofollow"])
        .mount("/made", "bind", file, &["bind", "dest-nofollow"])
        .sh("for l in /bound /copied /new/copied; do readlink $l; done; cat /plain /covered /made; head -n 1 /etc/passwd /bound");
    std::os::unix::fs::symlink("/etc/group", b.rootfs().join("covered")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", b.rootfs().join("copied")).unwrap();
    let out = b.run().ok().stdout;
    assert!(
        out.starts_with("/etc/passwd\n/etc/passwd\n/etc/passwd\nof the hostof the hostof the host"),
        "{out}"
    );
    assert_eq!(fs::read_link(b.rootfs().join("new/copied")).unwrap(), Path::new("/etc/passwd"));
    let group = fs::read_to_string(b.rootfs().join("etc/group")).unwrap();
    assert!(!group.contains("of the host") && !out.contains("of the hostroot"), "{out}");

    let taken = Bundle::new().mount("/bin/busybox", "bind", link, &["bind", "copy-symlink"]);
    taken.run().fails("or make the same link: the existing file is not this link: symlinkat: file exists");
    let new = Bundle::new().mount("/t", "tmpfs", "tmpfs", &["copy-symlink"]);
    new.run().fails("mounts[7] (/t).options: src-nofollow and copy-symlink are for bind mounts alone");
}

#[test]
fn proc_and_sys_of_an_image_must_be_real_directories() {
    needs_root!();
    for (name, target) in [("proc", "/tmp"), ("proc", "tmp"), ("sys", "/etc"), ("sys", "../sys2")] {
        let b = Bundle::new();
        fs::create_dir(b.rootfs().join("sys2")).unwrap();
        fs::remove_dir(b.rootfs().join(name)).unwrap();
        symlink(target, b.rootfs().join(name)).unwrap();
        b.run().fails(&format!("(/{name})"));
    }
    let b = Bundle::new();
    fs::remove_dir(b.rootfs().join("proc")).unwrap();
    fs::write(b.rootfs().join("proc"), "").unwrap();
    b.run().fails("mounts[0] (/proc)");
}

#[test]
fn only_a_procfs_covers_proc() {
    needs_root!();
    let dir = Scratch::new("source");
    let mount =
        |to: &str, kind: &str, source: &str, options: &[&str]| Bundle::new().mount(to, kind, source, options);
    mount("/proc", "tmpfs", "tmpfs", &[]).run().fails("only a procfs may cover /proc");
    mount("/proc", "bind", dir.path.to_str().unwrap(), &["rbind"])
        .run()
        .fails("only a whole procfs may cover /proc");
    mount("/proc", "bind", "/proc/1", &["rbind"]).run().fails("only a whole procfs may cover /proc");
    mount("/proc", "bind", "/proc", &["rbind"]).run().ok();
    for file in ["/proc/uptime", "/proc/meminfo", "/proc/stat", "/proc/sys/kernel/ns_last_pid"] {
        let b = mount(file, "bind", "/dev/null", &["bind"]).set("/linux/readonlyPaths", json!([]));
        b.args(&["cat", file]).run().ok();
    }
    for file in ["/proc/sysrq-trigger", "/proc/self/attr/exec", "/proc/sys/kernel/core_pattern"] {
        mount(file, "bind", "/dev/null", &["bind"]).run().fails("only a procfs may cover /proc");
    }
}

/// The name says /x, the link says /proc: what counts is where the mount would go.
#[test]
fn a_link_to_proc_is_no_way_onto_it() {
    needs_root!();
    for (target, kind, source, options) in [
        ("proc", "tmpfs", "tmpfs", &[][..]),
        ("/proc/self/attr", "tmpfs", "tmpfs", &[]),
        ("/proc/sys/kernel", "bind", "/tmp", &["bind"]),
        ("proc/uptime", "bind", "/dev/null", &["bind"]),
    ] {
        let b = Bundle::new().mount("/x", kind, source, options);
        symlink(target, b.rootfs().join("x")).unwrap();
        let out = b.run();
        assert!(!out.status.success(), "{target}");
        let known = ["lies on the container's procfs", "too many symbolic links", "no such file"];
        assert!(known.iter().any(|k| out.stderr.contains(k)), "{target}: {}", out.stderr);
    }
}

/// A monitor's binds: the host's tree, and once more its /proc.
#[test]
fn a_procfs_that_came_with_a_tree_of_the_host_may_be_covered() {
    needs_root!();
    let host = Scratch::new("source");
    let proc = host.path.join("proc");
    fs::create_dir(&proc).unwrap();
    finish(std::process::Command::new("mount").args(["-t", "proc", "proc"]).arg(&proc)).ok();
    let b = Bundle::new().mount("/host", "bind", host.path.to_str().unwrap(), &["rbind", "ro"]);
    let b = b.mount("/host/proc", "bind", "/proc", &["rbind", "ro"]);
    let b = b.sh("cut -d ' ' -f 1 /host/proc/1/stat; cat /host/proc/1/comm");
    let comm = fs::read_to_string("/proc/1/comm").unwrap();
    assert_eq!(b.run().ok().stdout, format!("1\n{comm}"));
}

#[test]
fn masked_paths_are_empty_and_read_only() {
    needs_root!();
    let b = Bundle::new()
        .set("/root/readonly", json!(false))
        .set(
            "/linux/maskedPaths",
            json!(["/etc/secret", "/dir", "/dir2", "/absent", "/link", "/bin/busybox/x"]),
        )
        .sh("cat /etc/secret; ls -A /dir /dir2; echo x > /dir/x; echo x > /dir2/x; cat /real; \
             stat -c '%t:%T' /etc/secret; stat -c %d /dir /dir2");
    fs::write(b.rootfs().join("etc/secret"), "secret").unwrap();
    fs::write(b.rootfs().join("real"), "secret").unwrap();
    symlink("/real", b.rootfs().join("link")).unwrap();
    for dir in ["dir", "dir2"] {
        fs::create_dir(b.rootfs().join(dir)).unwrap();
        fs::write(b.rootfs().join(dir).join("secret"), "secret").unwrap();
    }
    let out = b.run().ok();
    assert!(!out.stdout.contains("secret"), "{}", out.stdout);
    assert!(out.stdout.contains("1:3"), "{}", out.stdout);
    let devices: Vec<_> = out.stdout.lines().rev().take(2).collect();
    assert_eq!(devices[0], devices[1], "masked directories share one tmpfs");
    assert_eq!(out.stderr.matches("Read-only file system").count(), 2, "{}", out.stderr);
    assert_eq!(fs::read(b.rootfs().join("etc/secret")).unwrap(), b"secret");
}

#[test]
fn the_hosts_null_device_is_out_of_reach() {
    needs_root!();
    let about = || {
        let m = fs::metadata("/dev/null").unwrap();
        (m.mode(), m.uid(), m.gid(), m.mtime())
    };
    let before = about();
    let all = json!(["CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE"]);
    let b = Bundle::new()
        .set("/linux/maskedPaths", json!(["/etc/passwd"]))
        .set("/process/capabilities", json!({ "bounding": all, "effective": all, "permitted": all }))
        .sh("for f in /etc/passwd /proc/self/fd/0; do chmod 0600 $f; chown 12:12 $f; touch -d @5 $f; done; \
             echo x > /etc/passwd && echo x > /proc/self/fd/0 && stat -Lc %t:%T /proc/self/fd/0");
    let out = b.run(); // its standard input is the host's null device
    let after = about();
    if after != before {
        // Whatever the test says, the machine must work on.
        let _ = fs::set_permissions("/dev/null", fs::Permissions::from_mode(before.0 & 0o7777));
        let _ = std::os::unix::fs::chown("/dev/null", Some(before.1), Some(before.2));
    }
    assert_eq!(after, before);
    assert_eq!(out.ok().stdout, "1:3\n");
}

#[test]
fn read_only_paths_are_read_only_with_all_below_them() {
    needs_root!();
    let b = Bundle::new()
        .set("/root/readonly", json!(false))
        .mount("/data", "tmpfs", "tmpfs", &["nosuid", "noexec"])
        .mount("/data/below", "tmpfs", "tmpfs", &[])
        .set("/linux/readonlyPaths", json!(["/data", "/etc/passwd", "/absent", "/proc/sys"]))
        .sh("for f in /data/x /data/below/x /etc/passwd /proc/sys/vm/swappiness; do \
             { echo 1 >> $f; } 2>/dev/null && echo wrote $f; done; echo ok > /etc/ok && grep ' /data ' /proc/self/mountinfo");
    let out = b.run().ok().stdout;
    assert!(!out.contains("wrote"), "{out}");
    assert!(out.lines().last().unwrap().contains("ro,nosuid,noexec"), "{out}");
}

#[test]
fn a_read_only_root_leaves_mounts_below_as_they_are() {
    needs_root!();
    let host = Scratch::new("source");
    let b = Bundle::new()
        .set("/root/readonly", json!(true))
        .mount("/vol", "bind", host.path.to_str().unwrap(), &["rbind"])
        .sh("touch /vol/written; touch /x /etc/x 2>/dev/null || echo ro");
    assert_eq!(b.run().ok().stdout, "ro\n");
    assert!(host.path.join("written").exists());
}

#[test]
fn wrong_values_are_named() {
    needs_root!();
    for (pointer, value, words) in [
        ("/linux/maskedPaths", json!(["proc/keys"]), "linux.maskedPaths[0]: \"proc/keys\" is not absolute"),
        ("/linux/readonlyPaths", json!(["/a", "b"]), "linux.readonlyPaths[1]: \"b\" is not absolute"),
    ] {
        Bundle::new().set(pointer, value).run().fails(words);
    }
    let b = Bundle::new().set("/linux/rootfsPropagation", json!("rprivate"));
    b.write();
    let mut c = b.orlop(["run", "--no-pivot", "--bundle"]);
    finish(c.arg(b.path()).arg(&b.id))
        .fails("linux.rootfsPropagation: \"rprivate\" is not safe with --no-pivot");
    let b = Bundle::new().without_namespace("mount").set("/mounts", json!([]));
    b.run().fails("needs a mount namespace");
}

/// Without SELinux there is nobody that a label could keep out; a program's own label is another matter.
#[test]
fn a_mount_label_is_left_out_with_a_warning_without_selinux() {
    needs_root!();
    if fs::exists("/sys/fs/selinux/enforce").expect("sysfs") {
        return support::skip("this host has SELinux");
    }
    let b = Bundle::new().set("/linux/mountLabel", json!("u:r:t")).sh("grep -c context= /proc/self/mounts");
    let out = b.run();
    assert_eq!(out.stdout, "0\n");
    assert!(
        out.stderr.contains("needs SELinux, which this host has not enabled; left out"),
        "{}",
        out.stderr
    );
    let b = b.set("/process/selinuxLabel", json!("u:r:t"));
    b.run().fails("process.selinuxLabel: ");
}

#[test]
fn without_pivot_the_container_still_sees_its_own_root() {
    needs_root!();
    let b = Bundle::new().sh("ls / | tr '\\n' ' '; ls /..  | tr '\\n' ' '");
    b.write();
    let mut c = b.orlop(["run", "--no-pivot", "--bundle"]);
    let out = finish(c.arg(b.path()).arg(&b.id)).ok();
    let names = "bin dev etc proc root sys tmp ";
    assert_eq!(out.stdout, format!("{names}{names}"));
}

/// Hooks of graphics drivers enter the mount namespace and mount at the rootfs' path (config.md#posix-platform-hooks).
#[test]
fn hooks_find_the_rootfs_at_its_path_and_mount_into_it() {
    needs_root!();
    needs_program!("nsenter");
    let b = Bundle::new().sh("ls /tmp /mnt; cat /dev/seen");
    fs::create_dir(b.rootfs().join("mnt")).unwrap();
    let root = b.rootfs();
    let at = root.to_str().unwrap();
    let of_host = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); nsenter -t $pid -m sh -c 'mount -t tmpfs hook {at}/mnt && \
         touch {at}/mnt/by-host && test -d {at}/proc/1 && echo yes > {at}/dev/seen'"
    );
    let inside = format!("mount -t tmpfs hook {at}/tmp && touch {at}/tmp/by-container");
    let hook = |script: &str| {
        let env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"];
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": env, "timeout": 20 }])
    };
    let b = b.set("/hooks/createRuntime", hook(&of_host)).set("/hooks/createContainer", hook(&inside));
    for more in [&[][..], &["--no-pivot"]] {
        b.write();
        let mut c = b.orlop(["run", "--bundle"]);
        let out = finish(c.arg(b.path()).args(more).arg(&b.id)).ok().stdout;
        assert_eq!(out, "/mnt:\nby-host\n\n/tmp:\nby-container\nyes\n", "{more:?}");
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(at), "{mounts}");
}

/// What `imgtool` left unmounted lives and dies with the container.
#[test]
fn an_overlay_description_becomes_the_rootfs() {
    needs_root!();
    let b =
        Bundle::new().set("/root/readonly", json!(false)).sh("cat /top; echo new > /written; rm /gone; ls /");
    let dir = Scratch::new("layers"); // overlayfs takes no overlayfs as its upper directory: a tmpfs is always fine
    finish(std::process::Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&dir.path)).ok();
    let at = |name: &str| dir.path.join(name);
    finish(std::process::Command::new("cp").arg("-a").arg(b.rootfs()).arg(at("base"))).ok();
    fs::write(at("base/gone"), "").unwrap();
    fs::remove_dir_all(b.rootfs()).unwrap();
    for d in [b.rootfs(), at("middle"), at("upper"), at("work")] {
        fs::create_dir(d).unwrap();
    }
    fs::write(at("base/top"), "below").unwrap();
    fs::write(at("middle/top"), "above\n").unwrap();
    let overlay = json!({ "lower": [at("middle"), at("base")], "upper": at("upper"), "work": at("work") });
    fs::write(b.path().join("overlay.json"), overlay.to_string()).unwrap();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let numbers: Vec<u32> = release.split(['.', '-']).map_while(|n| n.parse().ok()).collect();
    if numbers < vec![6, 8] {
        b.run().fails("overlay.json: needs overlayfs to take layers one by one, which Linux 6.8 does");
        return b.is_clean();
    }
    let out = b.run().ok().stdout;
    assert_eq!(out, "above\nbin\ndev\netc\nproc\nroot\nsys\ntmp\ntop\nwritten\n");
    assert_eq!(fs::read_to_string(at("upper/written")).unwrap(), "new\n");
    fs::write(b.path().join("overlay.json"), json!({ "lower": ["/nowhere"] }).to_string()).unwrap();
    b.run().fails("root.path (overlay.json)");
}

/// Whoever shares the rootfs may rename `proc` there, though it is a mount point for us, and the mount goes along.
#[test]
fn covers_are_placed_where_proc_was_renamed_to() {
    needs_root!();
    let looks = |b: &Bundle| {
        let script = "grep -c ' /proc/' /proc/self/mountinfo; for f in sys/kernel/core_pattern sysrq-trigger; do \
            (: >>/proc/$f) 2>/dev/null && echo $f; done; wc -c </proc/kcore; true";
        b.verb("exec", &["sh", "-c", script]).ok().stdout
    };
    let b = Bundle::sleeping();
    b.create().ok();
    let undisturbed = looks(&b);
    let swap = "cd rootfs && mv proc other && mv data proc && mv other data";
    let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", swap] }]);
    let b = Bundle::sleeping().set("/hooks/createRuntime", hook);
    fs::create_dir(b.rootfs().join("data")).unwrap();
    let mut c = b.making("create");
    finish(c.current_dir(b.path())).ok();
    finish(Command::new("sh").args(["-c", swap]).current_dir(b.path())).ok();
    assert_eq!(looks(&b), undisturbed);
    let covers = undisturbed.lines().next().and_then(|n| n.parse::<u32>().ok());
    assert!(covers.is_some_and(|n| n > 4), "{undisturbed}");
}

/// Nor is another mount led onto it.
#[test]
fn a_race_of_renames_leads_no_mount_onto_proc() {
    needs_root!();
    let volume = Scratch::new("volume");
    fs::write(volume.path.join("mark"), "").unwrap();
    for _ in 0..rounds(8, 500) {
        let b = Bundle::sleeping().mount("/data/sys", "bind", &volume.path.to_string_lossy(), &["bind"]);
        fs::create_dir_all(b.rootfs().join("data/sys")).unwrap();
        let mut created = false;
        racing(&b.rootfs().join("proc"), &b.rootfs().join("data"), || {
            created = finish(&mut b.making("create")).status.success();
        });
        if created {
            let script = "for d in $(sed -n 's/.* - proc .*/&/p' /proc/self/mountinfo | cut -d ' ' -f 5) /data; do \
                test -e $d/self/status -a -e $d/sys/mark && echo covered; done; true";
            let seen = b.verb("exec", &["sh", "-c", script]);
            assert!(!seen.stdout.contains("covered"), "{}", seen.stdout);
        }
    }
}

fn exchange(a: &CString, b: &CString) {
    use nix::fcntl::{RenameFlags, renameat2};
    let _ = renameat2(
        nix::fcntl::AT_FDCWD,
        a.as_c_str(),
        nix::fcntl::AT_FDCWD,
        b.as_c_str(),
        RenameFlags::RENAME_EXCHANGE,
    );
}

/// A thread that swaps a directory of a shared volume with a link out, as fast as it can, while `work` runs.
fn racing(dir: &Path, link: &Path, work: impl FnOnce()) {
    let c = |p: &Path| CString::new(p.as_os_str().as_bytes()).unwrap();
    let (a, b, stop) = (c(dir), c(link), AtomicBool::new(false));
    std::thread::scope(|s| {
        let swapper = s.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                exchange(&a, &b);
            }
        });
        work();
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
    });
}

#[test]
fn a_race_on_mount_points_and_their_parents_stays_inside() {
    needs_root!();
    let canary = Canary::new();
    for (destination, kind, source, options) in [
        ("/swap", "tmpfs", "tmpfs", &["mode=700"][..]),
        ("/swap/new/deep", "tmpfs", "tmpfs", &[]),
        ("/swap/file", "bind", "/dev/null", &["bind"]),
        ("/swap", "tmpfs", "tmpfs", &["tmpcopyup"]),
    ] {
        let b = Bundle::new().set("/root/readonly", json!(false)).mount(destination, kind, source, options);
        let b = b.set("/process/cwd", json!("/swap/work"));
        let (dir, link) = (b.rootfs().join("swap"), b.rootfs().join("other"));
        fs::create_dir(&dir).unwrap();
        symlink(canary.path(), &link).unwrap();
        racing(&dir, &link, || {
            for _ in 0..rounds(60, 2500) {
                b.run();
            }
        });
        canary.untouched(&format!("race at {destination}"));
    }
}

/// GHSA-3q8j-pf29-vwv8: looked up twice, a masked or read-only path could be applied elsewhere.
#[test]
fn a_race_on_masked_and_read_only_paths_is_applied_inside_or_fails() {
    needs_root!();
    let canary = Canary::new();
    let b = Bundle::new()
        .set("/root/readonly", json!(false))
        .set("/linux/maskedPaths", json!(["/swap/secret", "/swap"]))
        .set("/linux/readonlyPaths", json!(["/swap"]));
    let (dir, link) = (b.rootfs().join("swap"), b.rootfs().join("other"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("secret"), "").unwrap();
    symlink(canary.path(), &link).unwrap();
    racing(&dir, &link, || {
        for _ in 0..rounds(60, 2500) {
            b.run();
        }
    });
    canary.untouched("race at masked and read-only paths");
}
