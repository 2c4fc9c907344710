//! Containers without a mount namespace of their own: their mounts are in the host's table, below the rootfs, and go with
//! the container.

mod support;

use serde_json::json;
use std::fs;
use std::process::Command;
use std::time::Duration;
use support::{Bundle, Scratch, finish, rounds};

/// Lines of our mountinfo that name something in the bundle.
fn mounted(b: &Bundle) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    // Not those of a bundle whose number begins with ours; one that was moved is `….moved`.
    let ends = ["/", "."].map(|end| format!("{}{end}", b.path().display()));
    table.lines().filter(|l| ends.iter().any(|path| l.contains(path))).map(String::from).collect()
}

#[track_caller]
fn nothing_is_left(b: &Bundle) {
    assert_eq!(mounted(b), [""; 0]);
    b.is_clean();
}

#[test]
fn the_mounts_lie_below_the_rootfs_and_go_with_the_container() {
    needs_root!();
    let volume = Scratch::new("volume");
    fs::write(volume.path.join("mark"), "here").expect("write");
    let b = Bundle::sleeping().in_the_hosts_mounts();
    let b = b.mount("/volume", "bind", &volume.path.to_string_lossy(), &["bind", "ro"]);
    b.create().ok();
    b.start().ok();
    let pid = b.state()["pid"].to_string();
    let ours = |file: &str| fs::read_link(format!("/proc/self/{file}")).expect("a link");
    let its = |file: &str| fs::read_link(format!("/proc/{pid}/{file}")).expect("a link");
    assert_eq!(its("ns/mnt"), ours("ns/mnt"));
    assert_eq!(its("root"), b.rootfs().canonicalize().expect("rootfs"));

    let inside =
        b.verb("exec", &["sh", "-c", "cat /volume/mark; touch /volume/x; readlink /proc/1/exe; ls /dev/pts"]);
    assert_eq!(inside.stdout, "here/bin/busybox\nptmx\n", "{}", inside.stderr);
    let seen = mounted(&b);
    let points: Vec<_> = seen.iter().filter_map(|l| l.split(' ').nth(4)).collect();
    let wanted = b.config["mounts"].as_array().expect("mounts").iter().map(|m| m["destination"].as_str());
    let rootfs = b.rootfs().to_string_lossy().into_owned();
    for point in wanted.flatten().chain([""]) {
        assert_eq!(
            points.iter().filter(|p| **p == format!("{rootfs}{point}")).count(),
            1,
            "{point}: {seen:#?}"
        );
    }
    assert!(points.iter().all(|p| p.starts_with(&rootfs)), "{seen:#?}");
    assert!(!seen.iter().any(|l| l.contains("shared:")), "{seen:#?}");
    // What the container mounts itself goes, too.
    b.verb("exec", &["--cap", "CAP_SYS_ADMIN", "mount", "-t", "tmpfs", "own", "/tmp"]).ok();
    assert_eq!(mounted(&b).len(), seen.len() + 1);

    b.delete().ok();
    nothing_is_left(&b);
    assert!(volume.path.join("mark").exists());
}

#[test]
fn nothing_is_left_of_a_program_that_ends_nor_of_a_create_that_fails() {
    needs_root!();
    let b = || Bundle::new().in_the_hosts_mounts();
    let ran = b().sh("cat /proc/self/mountinfo | grep -c ' /proc '; exit 3");
    let out = ran.run();
    assert_eq!((out.stdout.trim() != "0", out.code()), (true, 3), "{}", out.stderr);
    nothing_is_left(&ran);
    let hook = json!([{ "path": "/bin/false" }]);
    for (b, words) in [
        (b().mount("/x", "tmpfs", "x", &["size=none"]), "mounts[7] (/x)"),
        (b().args(&["/absent"]), "process.args[0]: exec: \"/absent\""),
        (b().set("/hooks/createRuntime", hook.clone()), "hooks.createRuntime[0]"),
        (b().set("/hooks/createContainer", hook), "hooks.createContainer[0]"),
    ] {
        b.create().fails(words);
        assert_eq!(mounted(&b), [""; 0], "{words}");
        assert!(fs::read_dir(b.state_root()).expect("state root").next().is_none(), "{words}");
    }
}

/// Where the mount below is shared, its peers see the rootfs, and nothing that is mounted in it.
#[test]
fn peers_of_a_shared_mount_see_no_mount_of_the_container() {
    needs_root!();
    let b = Bundle::sleeping().in_the_hosts_mounts();
    let peer = Scratch::new("peer");
    b.write();
    let script = "set -e; mount --make-rprivate /; mount --bind $1 $1; mount --make-shared $1; mount --bind $1 $2; \
        o=\"$3 --root $1/state\"; $o create --bundle $1 $4 >&2; $o start $4; \
        awk '{ print $5 }' /proc/self/mountinfo | grep ^$2; $o delete --force $4; echo after; \
        awk '{ print $5 }' /proc/self/mountinfo | grep -e ^$1 -e ^$2";
    let mut c = Command::new("unshare");
    c.args(["-m", "sh", "-c", script, "sh"]).args([b.path(), &peer.path]).arg(support::ORLOP).arg(&b.id);
    let out = finish(c.stdin(std::process::Stdio::null())).ok().stdout;
    let (one, two) = (b.path().display(), peer.path.display());
    assert_eq!(out, format!("{two}\n{two}/rootfs\nafter\n{one}\n{two}\n"));
    b.is_clean();
}

#[test]
fn a_create_killed_at_any_moment_leaves_no_mount_behind_its_deletion() {
    needs_root!();
    let b = Bundle::sleeping().in_the_hosts_mounts();
    for round in 0..rounds(25, 500) {
        let mut create = b.making("create").spawn().expect("orlop starts");
        let pause = Duration::from_micros((round as u64).wrapping_mul(2_654_435_761) % 30_000);
        std::thread::sleep(pause);
        let _ = create.kill(); // ended already is as good
        create.wait().expect("wait");
        // At once: an init that nobody knows of may live on for a moment, and mounts nothing then.
        b.delete().ok();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(mounted(&b), [""; 0], "killed after {pause:?}");
    }
    nothing_is_left(&b);
}

#[test]
fn only_our_own_mount_is_taken_away() {
    needs_root!();
    let b = Bundle::sleeping().in_the_hosts_mounts();
    b.create().ok();
    let rootfs = b.rootfs();
    let sh = |script: &str| finish(Command::new("sh").args(["-c", script, "sh"]).arg(&rootfs)).ok();
    sh("umount -l \"$1\" && mount -t tmpfs theirs \"$1\"");
    b.delete().ok();
    let left = mounted(&b);
    assert!(left.len() == 1 && left[0].contains(" - tmpfs theirs "), "{left:?}");
    sh("umount \"$1\"");

    // One that is covered cannot be told from what covers it: nothing is forgotten.
    b.create().ok();
    sh("mount -t tmpfs theirs \"$1\"");
    b.delete().fails("root.path: umount of the rootfs: device or resource busy");
    sh("umount \"$1\"");
    b.delete().ok();
    nothing_is_left(&b);

    // Wherever the bundle is by now.
    b.create().ok();
    let (old, new) = (b.path().to_path_buf(), b.path().with_extension("moved"));
    fs::rename(&old, &new).expect("rename");
    let moved =
        |args: &[&str]| finish(Command::new(support::ORLOP).arg("--root").arg(new.join("state")).args(args));
    let out = moved(&["delete", "--force", &b.id]);
    let back = fs::rename(&new, &old);
    out.ok();
    back.expect("rename");
    nothing_is_left(&b);
}

#[test]
fn what_would_change_the_host_is_refused() {
    needs_root!();
    let b = || Bundle::new().in_the_hosts_mounts();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let mapped = |b: Bundle| b.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map.clone());
    for (b, words) in [
        (
            b().set("/root/path", json!("/")),
            "mounts: need a mount namespace in linux.namespaces: root.path is the host's",
        ),
        (b().set("/linux/maskedPaths", json!(["/proc/keys"])), "linux.maskedPaths: needs a mount namespace"),
        (
            b().set("/linux/readonlyPaths", json!(["/proc/sys"])),
            "linux.readonlyPaths: needs a mount namespace",
        ),
        (b().set("/root/readonly", json!(true)), "root.readonly: needs a mount namespace"),
        (mapped(b().namespace("user", None)), "over the host's a user namespace has no rights"),
    ] {
        b.create().fails(words);
        assert_eq!(mounted(&b), [""; 0], "{words}");
    }
}
