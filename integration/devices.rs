//! Device nodes and links of /dev, as the program sees them.

mod support;

use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use support::Bundle;

/// Type, numbers, mode and owner of files.
fn stat(paths: &str) -> String {
    format!("stat -c '%n %F %t:%T %a %u:%g' {paths}")
}

fn user_namespace(b: Bundle) -> Bundle {
    let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
    b.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
}

/// Without a tmpfs at /dev: the image's own directory.
fn on_the_image(mut b: Bundle) -> Bundle {
    let mounts = b.config["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
    b.set("/root/readonly", json!(false))
}

const DEFAULTS: &str = "/dev/null character special file 1:3 666 0:0
/dev/zero character special file 1:5 666 0:0
/dev/full character special file 1:7 666 0:0
/dev/random character special file 1:8 666 0:0
/dev/urandom character special file 1:9 666 0:0
/dev/tty character special file 5:0 666 0:0
";

#[test]
fn default_devices_are_there() {
    needs_root!();
    let script = stat("/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty");
    assert_eq!(Bundle::new().sh(&script).run().ok().stdout, DEFAULTS);
    // The caller's umask must not touch the modes.
    let b = Bundle::new().sh(&script);
    b.write();
    let mut c = std::process::Command::new("sh");
    c.args(["-c", "umask 077; exec \"$@\"", "sh", support::ORLOP, "--root"]).arg(b.state_root());
    let out = support::finish(c.args(["run", "--bundle"]).arg(b.path()).arg(&b.id)).ok();
    assert_eq!(out.stdout, DEFAULTS);
}

#[test]
fn in_a_user_namespace_the_hosts_devices_are_bound() {
    needs_root!();
    let script = "for d in null zero full random urandom tty; do stat -c '%n %F %t:%T' /dev/$d; done; \
                  echo x > /dev/null; head -c 2 /dev/urandom | wc -c";
    let out = user_namespace(Bundle::new()).sh(script).run().ok().stdout;
    let want: String =
        DEFAULTS.lines().map(|l| l.rsplitn(3, ' ').last().unwrap_or_default().to_string() + "\n").collect();
    assert_eq!(out, want + "2\n");
}

#[test]
fn links_lead_to_what_is_there() {
    needs_root!();
    let script = "cd /dev; for l in fd stdin stdout stderr core ptmx; do echo $l $(readlink $l); done; echo y | cat /dev/stdin";
    let all = "fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2\n\
               core /proc/kcore\nptmx pts/ptmx\ny\n";
    let kcore = std::path::Path::new("/proc/kcore").exists();
    let all = if kcore { all.to_string() } else { all.replace(" /proc/kcore", "") };
    assert_eq!(Bundle::new().sh(script).run().ok().stdout, all);
    let mut b = Bundle::new().sh("cd /dev; readlink fd; readlink core; readlink ptmx");
    b.config["mounts"].as_array_mut().expect("mounts").retain(|m| m["destination"] != "/proc");
    let b = b.unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    assert_eq!(b.run().ok().stdout, "pts/ptmx\n", "nothing leads to a /proc that is not there");
}

#[test]
fn listed_devices_are_made_as_asked() {
    needs_root!();
    let b = Bundle::new().set("/root/readonly", json!(false)).set(
        "/linux/devices",
        json!([
            { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8 },
            { "path": "/dev/deep/er/loop9", "type": "b", "major": 7, "minor": 9 },
            { "path": "/srv/pipe", "type": "p", "fileMode": 0o600 },
            { "path": "/dev/u", "type": "u", "major": 1, "minor": 5, "fileMode": 0o20_604 },
            { "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600 },
        ]),
    );
    let script = format!(
        "{}; stat -c '%a %u:%g' /dev/deep /dev/deep/er /srv",
        stat("/dev/fuse /dev/deep/er/loop9 /srv/pipe /dev/u /dev/zero /dev/null")
    );
    let want = "/dev/fuse character special file a:e5 640 7:8
/dev/deep/er/loop9 block special file 7:9 666 0:0
/srv/pipe fifo 0:0 600 0:0
/dev/u character special file 1:5 604 0:0
/dev/zero character special file 1:5 600 0:0
/dev/null character special file 1:3 666 0:0
755 0:0
755 0:0
755 0:0
";
    assert_eq!(b.sh(&script).run().ok().stdout, want);
}

#[test]
fn a_device_of_another_name_is_found_on_the_host() {
    needs_root!();
    let b = user_namespace(Bundle::new()).set(
        "/linux/devices",
        json!([
            { "path": "/dev/nothing", "type": "c", "major": 1, "minor": 3 }, { "path": "/dev/pipe", "type": "p" },
        ]),
    );
    let out = b.sh("stat -c '%F %t:%T' /dev/nothing /dev/pipe; echo x > /dev/nothing").run().ok().stdout;
    assert_eq!(out, "character special file 1:3\nfifo 0:0\n");
    let b = user_namespace(Bundle::new())
        .set("/linux/devices", json!([{ "path": "/dev/x", "type": "b", "major": 4000, "minor": 3 }]));
    b.run().fails("linux.devices[0] (/dev/x): the host's /dev has no node b 4000:3");
}

#[test]
fn a_file_of_the_image_that_is_not_the_device_is_an_error() {
    needs_root!();
    for user in [false, true] {
        let new =
            || if user { user_namespace(on_the_image(Bundle::new())) } else { on_the_image(Bundle::new()) };
        let b = new();
        fs::write(b.rootfs().join("dev/null"), "data").expect("write");
        b.run().fails("the existing file is not this device");
        let b = new()
            .set("/linux/devices", json!([{ "path": "/dev/fuse", "type": "c", "major": 1, "minor": 3 }]));
        fs::create_dir(b.rootfs().join("dev/fuse")).expect("mkdir");
        b.run().fails("linux.devices[0] (/dev/fuse): ").fails("the existing file is not this device");
        assert!(b.rootfs().join("dev/fuse").is_dir());
    }
}

#[test]
fn a_link_of_the_image_leads_no_device_elsewhere() {
    needs_root!();
    for user in [false, true] {
        let new =
            || if user { user_namespace(on_the_image(Bundle::new())) } else { on_the_image(Bundle::new()) };
        let b = new();
        let canary = b.path().join("canary");
        fs::write(&canary, "").expect("write");
        symlink(&canary, b.rootfs().join("dev/null")).expect("symlink");
        b.run().fails("the existing file is not this device");
        assert!(fs::metadata(&canary).expect("stat").is_file());
        // A directory of the image that leads out is resolved inside.
        let b = new();
        let outside = b.path().join("outside");
        fs::create_dir(&outside).expect("mkdir");
        fs::remove_dir(b.rootfs().join("dev")).expect("rmdir");
        symlink(&outside, b.rootfs().join("dev")).expect("symlink");
        b.run();
        assert_eq!(fs::read_dir(&outside).expect("read").count(), 0);
    }
}

#[test]
fn the_devices_of_the_image_are_kept_and_a_second_run_finds_its_own() {
    needs_root!();
    let b = on_the_image(Bundle::new()).sh(&stat("/dev/null"));
    let null = b.rootfs().join("dev/null");
    nix::sys::stat::mknod(
        &null,
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::from_bits_truncate(0o600),
        nix::sys::stat::makedev(1, 3),
    )
    .expect("mknod");
    fs::write(b.rootfs().join("dev/stdin"), "kept").expect("write");
    for _ in 0..2 {
        assert_eq!(b.run().ok().stdout, "/dev/null character special file 1:3 600 0:0\n");
    }
    assert!(fs::metadata(&null).expect("stat").file_type().is_char_device());
    assert_eq!(fs::read_to_string(b.rootfs().join("dev/stdin")).expect("read"), "kept");
    assert_eq!(fs::metadata(b.rootfs().join("dev/zero")).expect("stat").rdev(), 0x105);
    let b = user_namespace(on_the_image(Bundle::new())).sh("stat -c %F /dev/null");
    for _ in 0..2 {
        assert_eq!(b.run().ok().stdout, "character special file\n");
    }
}

#[test]
fn a_ptmx_of_the_image_gives_way() {
    needs_root!();
    let b = on_the_image(Bundle::new()).sh("readlink /dev/ptmx");
    fs::write(b.rootfs().join("dev/ptmx"), "").expect("write");
    assert_eq!(b.run().ok().stdout, "pts/ptmx\n");
}

#[test]
fn broken_entries_are_refused_before_anything_is_made() {
    needs_root!();
    let b = Bundle::new().set("/linux/devices", json!([{ "path": "/dev/x", "type": "c", "major": 1 }]));
    b.create().fails("linux.devices[0].minor: is required");
    assert!(fs::read_dir(b.rootfs().join("dev")).expect("read").next().is_none());
}
