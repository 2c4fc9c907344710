//! Mounts of each kind, the root file system, /dev.

use super::{Container, podman, prints, run, says};
use crate::image::NAME;
use crate::support::Scratch;
use crate::world::{Engine, sh};
use crate::{Check, check};
use std::fs;
use std::os::unix::fs::MetadataExt;

pub const CHECKS: &[Check] = &[
    check!(bind),
    check!(bind_of_a_file),
    check!(bind_propagation),
    check!(bind_changes_the_owner),
    check!(bind_relabels_where_there_are_labels),
    check!(bind_under_an_overlay),
    check!(recursive_read_only),
    check!(named_volume),
    check!(anonymous_volume_goes_with_rm),
    check!(volumes_from),
    check!(mount_tmpfs),
    check!(mount_devpts),
    check!(mount_image),
    check!(tmpfs),
    check!(read_only),
    check!(devices),
    check!(shm_size),
    check!(masked_and_read_only_paths),
    check!(rootfs_of_the_users_own),
    check!(secret),
    check!(mounted_from_outside),
];

/// A directory here with one file, and it as an option.
fn source(name: &str) -> (Scratch, String) {
    let dir = Scratch::new(name);
    fs::write(dir.path.join("file"), "from outside").expect("write");
    let path = dir.path.display().to_string();
    (dir, path)
}

/// The fields of /v in mountinfo.
const INFO: &str = "grep ' /v ' /proc/self/mountinfo";

fn bind(e: &Engine) {
    let (dir, path) = source("bind");
    let rw = format!("{path}:/v");
    assert_eq!(prints(e, &["-v", &rw], "cat /v/file; echo inside >/v/made"), "from outside");
    assert_eq!(fs::read_to_string(dir.path.join("made")).expect("made"), "inside\n");
    let flags = format!("{path}:/v:ro,noexec,nosuid,nodev");
    let o = run(e, &["-v", &flags], &format!("{INFO}; touch /v/x"));
    assert!(o.stdout.contains("/v ro,nosuid,nodev,noexec,relatime"), "{o:?}");
    assert!(o.stderr.contains("Read-only file system"), "{o:?}");
    let mount = format!("type=bind,src={path},dst=/v,ro=true");
    assert!(prints(e, &["--mount", &mount], INFO).contains(" /v ro,"));
    let missing = run(e, &["-v", "/no/such/dir:/v"], "true");
    assert_eq!(missing.code(), 125, "{missing:?}");
}

fn bind_of_a_file(e: &Engine) {
    let (_dir, path) = source("file");
    let option = format!("{path}/file:/new/place/file:ro");
    assert_eq!(prints(e, &["-v", &option], "cat /new/place/file"), "from outside");
    let over = format!("{path}/file:/etc/readable");
    assert_eq!(prints(e, &["-v", &over], "cat /etc/readable"), "from outside");
}

fn bind_propagation(e: &Engine) {
    let dir = Scratch::new("propagation");
    let path = dir.path.display().to_string();
    sh(&format!("mount --bind {path} {path}; mount --make-shared {path}; mkdir {path}/sub"));
    for (option, field) in [("rshared", "shared:"), ("rslave", "master:"), ("rprivate", "")] {
        let mount = format!("type=bind,src={path},dst=/v,bind-propagation={option}");
        let printed = prints(e, &["--mount", &mount], INFO);
        assert!(printed.contains(field), "{option}: {printed}");
        assert!(
            !field.is_empty() || !(printed.contains("shared:") || printed.contains("master:")),
            "{printed}"
        );
    }
    let seen = |option: &str, name: &str| {
        let c = Container::sleeping(e, name, &["-v", &format!("{path}:/v:{option}")]);
        sh(&format!("mount -t tmpfs later {path}/sub"));
        let is_seen = c.prints("grep -c later /proc/self/mountinfo || true") == "1";
        sh(&format!("umount {path}/sub"));
        is_seen
    };
    assert!(seen("rslave", "slave"));
    assert!(!seen("rprivate", "private"));
    let c = Container::sleeping(e, "shared", &["--privileged", "-v", &format!("{path}:/v:rshared")]);
    c.exec(&[], "mount -t tmpfs inner /v/sub").ok();
    sh(&format!("umount {path}/sub"));
    assert!(!c.prints("cat /proc/self/mountinfo").contains("inner"));
}

fn bind_changes_the_owner(e: &Engine) {
    let (dir, path) = source("owner");
    let options = ["--uidmap", "0:100000:1000", "--gidmap", "0:100000:1000", "-v", &format!("{path}:/v:U")];
    assert_eq!(prints(e, &options, "stat -c %u:%g /v/file; touch /v/made"), "0:0");
    let made = fs::metadata(dir.path.join("made")).expect("made");
    assert_eq!((made.uid(), made.gid()), (100000, 100000));
}

fn bind_relabels_where_there_are_labels(e: &Engine) {
    let (_dir, path) = source("label");
    for flag in ["z", "Z"] {
        assert_eq!(prints(e, &["-v", &format!("{path}:/v:{flag}")], "cat /v/file"), "from outside");
    }
}

fn bind_under_an_overlay(e: &Engine) {
    let (dir, path) = source("overlay");
    assert_eq!(prints(e, &["-v", &format!("{path}:/v:O")], "touch /v/made; ls /v"), "file\nmade");
    assert!(!dir.path.join("made").exists());
}

fn recursive_read_only(e: &Engine) {
    let (dir, path) = source("recursive");
    sh(&format!("mkdir {path}/sub && mount -t tmpfs tmpfs {path}/sub"));
    let info = "grep ' /v/sub ' /proc/self/mountinfo";
    let recursive = prints(e, &["--mount", &format!("type=bind,src={path},dst=/v,ro=true")], info);
    assert!(recursive.contains(" /v/sub "), "{recursive}");
    let alone = run(e, &["--mount", &format!("type=bind,src={path},dst=/v,bind-nonrecursive=true")], info);
    assert_eq!(alone.stdout, "", "{alone:?}");
    drop(dir);
}

fn named_volume(e: &Engine) {
    prints(e, &["-v", "kept:/v"], "echo words >/v/file");
    let printed = prints(e, &["-v", "kept:/v:noexec,nodev"], &format!("cat /v/file; {INFO}"));
    assert!(printed.starts_with("words\n") && printed.contains(" rw,nosuid,nodev,noexec,"), "{printed}");
    // A new volume takes what the image has in its place.
    assert_eq!(prints(e, &["-v", "filled:/etc"], "cat /etc/readable"), "from the image");
    let options =
        ["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=noexec", "mem"];
    says(e, &options);
    assert_eq!(
        prints(
            e,
            &["--mount", "type=volume,src=mem,dst=/v"],
            "grep -c ' /v .* - tmpfs ' /proc/self/mountinfo"
        ),
        "1"
    );
    says(e, &["volume", "rm", "kept", "filled", "mem"]);
}

fn anonymous_volume_goes_with_rm(e: &Engine) {
    let c = Container::sleeping(e, "anonymous", &["-v", "/v"]);
    assert!(c.prints(INFO).contains("/_data /v "));
    let volume = c.inspect("(index .Mounts 0).Name");
    says(e, &["volume", "inspect", &volume]);
    c.verb("rm", &["--force", "--time", "0", "--volumes"]).ok();
    assert!(!podman(e, &["volume", "exists", &volume]).status.success());
}

fn volumes_from(e: &Engine) {
    let (_dir, path) = source("from");
    let _c = Container::sleeping(e, "volumes_from", &["-v", &format!("{path}:/v"), "-v", "/w"]);
    let o = run(e, &["--volumes-from", "volumes_from:ro"], "cat /v/file; ls -d /w; touch /v/x");
    assert_eq!(o.stdout, "from outside/w\n");
    assert!(o.stderr.contains("Read-only file system"), "{o:?}");
}

fn mount_tmpfs(e: &Engine) {
    let option = "type=tmpfs,dst=/v,tmpfs-size=1m,tmpfs-mode=0710,noexec";
    let printed = prints(e, &["--mount", option], &format!("{INFO}; stat -c %a /v"));
    assert!(printed.contains(" /v rw,nosuid,nodev,noexec,relatime"), "{printed}");
    assert!(printed.contains("size=1024k") && printed.ends_with("\n710"), "{printed}");
    // By default, what the image has in the place is copied up.
    assert_eq!(
        prints(e, &["--mount", "type=tmpfs,dst=/etc,tmpcopyup"], "cat /etc/readable"),
        "from the image"
    );
    assert_eq!(
        prints(e, &["--mount", "type=tmpfs,dst=/etc,notmpcopyup"], "ls /etc/readable 2>/dev/null | wc -l"),
        "0"
    );
}

fn mount_devpts(e: &Engine) {
    let printed = prints(e, &["--mount", "type=devpts,dst=/v"], &format!("{INFO}; ls /v"));
    assert!(printed.contains(" - devpts ") && printed.ends_with("\nptmx"), "{printed}");
}

fn mount_image(e: &Engine) {
    let option = format!("type=image,src={NAME},dst=/v");
    assert_eq!(prints(e, &["--mount", &option], "cat /v/etc/readable"), "from the image");
}

fn tmpfs(e: &Engine) {
    let printed = prints(e, &["--tmpfs", "/v:size=2m,mode=1770,ro"], &format!("{INFO}; stat -c %a /v"));
    assert!(printed.contains(" /v ro,nosuid,nodev,") && printed.contains("size=2048k"), "{printed}");
    assert!(printed.ends_with("\n1770"), "{printed}");
}

fn read_only(e: &Engine) {
    let o = run(e, &["--read-only"], "touch /tmp/x /run/x /dev/shm/x && touch /x");
    assert_eq!(o.code(), 1);
    assert!(o.stderr.contains("touch: /x: Read-only file system"), "{o:?}");
    let o = run(e, &["--read-only", "--read-only-tmpfs=false"], "touch /tmp/x");
    assert!(o.stderr.contains("Read-only file system"), "{o:?}");
    let (dir, path) = source("ro");
    prints(e, &["--read-only", "-v", &format!("{path}:/var/v")], "touch /var/v/made");
    assert!(dir.path.join("made").exists());
}

fn devices(e: &Engine) {
    let script = "stat -c '%n %t:%T %a %u:%g' /dev/null /dev/zero /dev/tty /dev/here; for l in ptmx fd stdout; do readlink /dev/$l; done";
    let printed = prints(e, &["--device", "/dev/fuse:/dev/here"], script);
    assert_eq!(
        printed.lines().filter(|l| !l.starts_with("/dev/here")).collect::<Vec<_>>(),
        [
            "/dev/null 1:3 666 0:0",
            "/dev/zero 1:5 666 0:0",
            "/dev/tty 5:0 666 0:0",
            "pts/ptmx",
            "/proc/self/fd",
            "/proc/self/fd/1"
        ]
    );
    assert!(printed.contains("/dev/here a:e5 "), "{printed}");
    let o = run(
        e,
        &["--device", "/dev/null:/dev/deep/er:r"],
        "cat /dev/deep/er && echo x >/dev/null && ls /dev/fuse",
    );
    assert!(o.stderr.contains("/dev/fuse: No such file"), "{o:?}");
    let all = prints(e, &["--privileged"], "ls /dev/fuse /dev/kmsg; ls /dev | wc -l");
    assert!(all.starts_with("/dev/fuse\n/dev/kmsg"), "{all}");
}

fn shm_size(e: &Engine) {
    let script = "df -P /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; stat -c %a /dev/shm";
    assert_eq!(prints(e, &["--shm-size", "3m"], script), "3072\n1777");
}

fn masked_and_read_only_paths(e: &Engine) {
    let o = run(
        e,
        &[],
        "cat /proc/kcore /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 >/proc/sys/vm/swappiness",
    );
    assert_eq!(o.stdout, "0\n0\n");
    assert!(o.stderr.contains("Read-only file system"), "{o:?}");
    assert_eq!(prints(e, &["--security-opt", "mask=/etc/readable:/var"], "cat /etc/readable; ls /var"), "");
    assert_eq!(
        prints(e, &["--security-opt", "unmask=ALL"], "grep -c ' /proc/' /proc/self/mountinfo || true"),
        "0"
    );
    let printed = prints(
        e,
        &["--security-opt", "unmask=/proc/acpi"],
        "grep -c ' /proc/acpi ' /proc/self/mountinfo || true",
    );
    assert_eq!(printed, "0");
    let hidden = prints(e, &["--security-opt", "proc-opts=hidepid=2"], "grep ' /proc ' /proc/self/mountinfo");
    assert!(hidden.contains("hidepid=invisible"), "{hidden}");
}

fn rootfs_of_the_users_own(e: &Engine) {
    let dir = Scratch::new("rootfs");
    crate::support::make_rootfs(&dir.path);
    let path = dir.path.display().to_string();
    let overlay = format!("{path}:O");
    for (root, is_there) in [(&overlay, false), (&path, true)] {
        let args = ["run", "--rm", "--rootfs", root, "sh", "-c", "echo words >/made; cat /made"];
        assert_eq!(says(e, &args), "words");
        assert_eq!(dir.path.join("made").exists(), is_there);
    }
}

fn secret(e: &Engine) {
    let (_dir, path) = source("secret");
    says(e, &["secret", "create", "sesame", &format!("{path}/file")]);
    let options = ["--secret", "sesame", "--secret", "sesame,type=env,target=SESAME"];
    assert_eq!(
        prints(e, &options, "cat /run/secrets/sesame; echo \" $SESAME\""),
        "from outside from outside"
    );
    says(e, &["secret", "rm", "sesame"]);
}

fn mounted_from_outside(e: &Engine) {
    let c = Container::sleeping(e, "mounted", &[]);
    let root = says(e, &["mount", c.name]);
    fs::write(format!("{root}/made"), "outside").expect("write");
    assert_eq!(c.prints("cat /made"), "outside");
    c.verb("umount", &[]).ok();
}
