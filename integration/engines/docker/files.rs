//! Mounts, volumes, devices, and what a container writes.

use super::{container, prints, run, script};
use crate::image::NAME;
use crate::support::until;
use crate::world::{Engine, sh};
use crate::{Check, check};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub const CHECKS: &[Check] = &[
    check!(binds),
    check!(bind_of_a_file),
    check!(bind_is_recursive_and_its_flags_stay),
    check!(trees_of_the_host),
    check!(nested_and_linked_places),
    check!(propagation),
    check!(volumes),
    check!(volumes_take_what_the_image_has),
    check!(volumes_from),
    check!(tmpfs),
    check!(read_only),
    check!(shm_size),
    check!(devices),
    check!(device_rules),
    check!(default_devices),
    check!(masked_paths),
    check!(unmasked_paths),
    check!(copies),
    check!(commit_and_diff),
    check!(export_and_import),
    check!(workdir_is_made),
];

/// A directory of this check alone.
fn own(e: &Engine) -> PathBuf {
    let dir = e.dir.join("tmp").join(format!("own-{}", crate::support::unique()));
    fs::create_dir(&dir).expect("mkdir");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod");
    dir
}

fn binds(e: &Engine) {
    let dir = own(e);
    fs::write(dir.join("file"), "host\n").expect("write");
    let d = dir.to_str().expect("UTF-8");
    for (options, writable) in [
        (["-v", &format!("{d}:/m")], true),
        (["-v", &format!("{d}:/m:ro")], false),
        (["--mount", &format!("type=bind,source={d},target=/m")], true),
        (["--mount", &format!("type=bind,source={d},target=/m,readonly")], false),
    ] {
        let _ = fs::remove_file(dir.join("made"));
        let o = script(&options, "cat /m/file; echo inside > /m/made");
        assert_eq!(
            (o.stdout.as_str(), o.status.success()),
            ("host\n", writable),
            "{options:?}: {}",
            o.stderr
        );
        assert_eq!(dir.join("made").exists(), writable, "{options:?}");
        assert!(writable || o.stderr.contains("Read-only file system"), "{}", o.stderr);
    }
    run(&["run", "--rm", "--mount", &format!("type=bind,source={d}/none,target=/m"), NAME, "true"])
        .fails("does not exist");
    assert_eq!(prints(&["-v", &format!("{d}/made-by-docker:/deep/er/m")], "ls -d /deep/er/m"), "/deep/er/m");
}

fn bind_of_a_file(e: &Engine) {
    let file = own(e).join("passwd");
    fs::write(&file, "replaced:x:0:0:::\n").expect("write");
    let option = format!("{}:/etc/passwd:ro", file.display());
    assert_eq!(prints(&["-v", &option], "cat /etc/passwd"), "replaced:x:0:0:::");
    let option = format!("{}:/new/file", file.display());
    prints(&["-v", &option], "echo inside >> /new/file");
    assert!(fs::read_to_string(&file).expect("read").ends_with("inside\n"));
    // A file over a directory is refused, whatever the words.
    let o = run(&["run", "--rm", "-v", &format!("{}:/etc", file.display()), NAME, "true"]);
    assert_eq!(o.code(), 125, "{}", o.stderr);
    assert!(o.stderr.contains("not a directory"), "{}", o.stderr);
}

fn bind_is_recursive_and_its_flags_stay(e: &Engine) {
    let dir = own(e);
    let d = dir.display();
    sh(&format!(
        "mkdir {d}/sub; mount -t tmpfs -o nosuid,nodev,noexec,size=1m sub {d}/sub; echo below > {d}/sub/file"
    ));
    let seen = prints(
        &["-v", &format!("{d}:/m")],
        "cat /m/sub/file; grep ' /m/sub ' /proc/mounts | cut -d ' ' -f 4",
    );
    let one = prints(&["--mount", &format!("type=bind,source={d},target=/m,bind-nonrecursive")], "ls /m/sub");
    let read_only = prints(&["-v", &format!("{d}/sub:/m:ro")], "grep ' /m ' /proc/mounts | cut -d ' ' -f 4");
    sh(&format!("umount {d}/sub"));
    assert!(seen.starts_with("below\nrw,nosuid,nodev,noexec"), "{seen}");
    assert_eq!(one, "");
    assert!(read_only.starts_with("ro,"), "{read_only}");
}

/// What monitors and managers bind.
fn trees_of_the_host(e: &Engine) {
    let options =
        ["-v", "/:/host:ro", "-v", "/proc:/host/proc:ro", "-v", "/sys:/host/sys:ro", "-v", "/run:/host/run"];
    let own = e.dir.join("image.tar");
    let text = format!(
        "cat /host/proc/1/cmdline | grep -q world && ls /host{} /host/sys/class/net | tail -n 1",
        own.display()
    );
    assert_eq!(prints(&options, &text), "lo");
    let cgroups = ["-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro"];
    assert_eq!(
        prints(&cgroups, &format!("ls -d /sys/fs/cgroup/pids{}", e.cgroup)),
        format!("/sys/fs/cgroup/pids{}", e.cgroup)
    );
    assert_eq!(prints(&["-v", "/dev:/dev"], "ls /dev/loop-control; echo x > /dev/null"), "/dev/loop-control");
    assert_eq!(
        prints(&["-v", "/run/docker.sock:/run/docker.sock"], "test -S /run/docker.sock && echo socket"),
        "socket"
    );
}

fn nested_and_linked_places(e: &Engine) {
    let (one, two) = (own(e), own(e));
    fs::write(one.join("file"), "one").expect("write");
    fs::write(two.join("file"), "two").expect("write");
    let [outer, inner] = [format!("{}:/m", one.display()), format!("{}:/m/deep/er", two.display())];
    // Whatever the order on the command line.
    let seen = prints(&["-v", &inner, "-v", &outer], "cat /m/file /m/deep/er/file");
    assert_eq!(seen, "onetwo");
    let below_dev = format!("{}:/dev/mine", two.display());
    assert_eq!(prints(&["-v", &below_dev], "cat /dev/mine/file"), "two");
    // A link in the image is followed inside the root.
    let c = container(&[], "mkdir /real; ln -s /real /link; ln -s ../../../../etc /out; sleep 1000");
    until("the links", || c.exec("ls /out").contains("passwd"));
    let image = format!("localhost/links:{}", c.id);
    run(&["commit", &c.id, &image]).ok();
    let at = |place: &str| format!("{}:{place}", two.display());
    let o = run(&[
        "run",
        "--rm",
        "-v",
        &at("/link/x"),
        "-v",
        &at("/out/y"),
        &image,
        "cat",
        "/real/x/file",
        "/etc/y/file",
    ]);
    run(&["rmi", &image]).ok();
    assert_eq!(o.ok().stdout, "twotwo");
    assert!(!fs::exists("/etc/y").expect("stat"));
}

fn propagation(e: &Engine) {
    for (mode, arrives, leaves) in
        [("rprivate", false, false), ("rslave", true, false), ("rshared", true, true)]
    {
        let dir = own(e);
        let d = dir.display();
        sh(&format!("mount --bind {d} {d}; mount --make-shared {d}; mkdir {d}/in {d}/out"));
        let option = format!("{d}:/m:{mode}");
        let c = container(&["--cap-add", "SYS_ADMIN", "-v", &option], "sleep 1000");
        let kind = c.exec("grep ' /m ' /proc/self/mountinfo");
        sh(&format!("mount -t tmpfs in {d}/in; echo x > {d}/in/file"));
        let arrived = c.exec("ls /m/in") == "file";
        let o = c.exec_with(&[], "mount -t tmpfs out /m/out && echo x > /m/out/file");
        let left = dir.join("out/file").exists();
        drop(c);
        sh(&format!("umount -R -l {d}"));
        assert_eq!((arrived, left), (arrives, leaves), "{mode}: {kind}: {}", o.stderr);
        assert_eq!(o.code(), 0, "{mode}: {}", o.stderr);
        let words = [("rprivate", ""), ("rslave", "master:"), ("rshared", "shared:")];
        assert!(words.iter().any(|w| w.0 == mode && kind.contains(w.1)), "{mode}: {kind}");
    }
}

fn volumes(_: &Engine) {
    let name = format!("v{}", crate::support::unique());
    prints(&["-v", &format!("{name}:/data")], "echo kept > /data/file");
    let option = format!("type=volume,source={name},target=/data,readonly");
    let o = script(&["--mount", &option], "cat /data/file; echo x > /data/file");
    assert_eq!((o.stdout.as_str(), o.code()), ("kept\n", 1), "{}", o.stderr);
    run(&["volume", "rm", &name]).ok();
    let c = container(&["-v", "/data"], "echo anonymous > /data/file; sleep 1000");
    until("the file", || c.exec("cat /data/file") == "anonymous");
    let source = c.inspect("(index .Mounts 0).Source");
    assert_eq!(fs::read_to_string(format!("{source}/file")).expect("read"), "anonymous\n");
}

fn volumes_take_what_the_image_has(_: &Engine) {
    assert_eq!(prints(&["--mount", "type=volume,target=/etc"], "cat /etc/readable"), "from the image");
    assert_eq!(prints(&["--mount", "type=volume,target=/etc,volume-nocopy"], "ls /etc/readable || true"), "");
}

fn volumes_from(_: &Engine) {
    let c = container(&["-v", "/data"], "echo shared > /data/file; sleep 1000");
    until("the file", || c.exec("cat /data/file") == "shared");
    assert_eq!(prints(&["--volumes-from", &c.id], "cat /data/file"), "shared");
}

fn tmpfs(_: &Engine) {
    let mount = "grep ' /t ' /proc/mounts; stat -c %a /t";
    let seen = prints(&["--tmpfs", "/t:size=1m,mode=700,noexec"], mount);
    assert!(seen.contains("noexec") && seen.contains("size=1024k") && seen.ends_with("700"), "{seen}");
    let seen = prints(&["--mount", "type=tmpfs,target=/t,tmpfs-size=2097152,tmpfs-mode=1770"], mount);
    assert!(seen.contains("size=2048k") && seen.ends_with("1770"), "{seen}");
    let seen = prints(&["--tmpfs", "/t"], mount);
    assert!(seen.starts_with("tmpfs /t tmpfs rw,nosuid,nodev,noexec"), "{seen}");
    let o = script(&["--tmpfs", "/t:size=1m"], "head -c 2000000 /dev/zero > /t/file || stat -c %s /t/file");
    assert_eq!(o.stdout, "1048576\n", "{}", o.stderr);
}

fn read_only(_: &Engine) {
    let options = ["--read-only", "--tmpfs", "/tmp", "-v", "/data"];
    let text = "echo a > /tmp/x && echo b > /data/x && echo c > /dev/shm/x && echo written; : > /x";
    let o = script(&options, text);
    assert_eq!(o.stdout, "written\n", "{}", o.stderr);
    assert!(o.stderr.contains("Read-only file system") && o.code() != 0, "{}", o.stderr);
    let c = container(&["--read-only"], "sleep 1000");
    assert!(c.exec_with(&[], ": > /x").stderr.contains("Read-only file system"));
}

fn shm_size(_: &Engine) {
    let shown = "df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2";
    assert_eq!(prints(&[], shown), "65536");
    assert_eq!(prints(&["--shm-size", "8m"], shown), "8192");
}

fn devices(_: &Engine) {
    let text = "head -c 3 /dev/mine | wc -c; echo x > /dev/mine && echo writes; stat -c '%t %T %a' /dev/mine";
    assert_eq!(prints(&["--device", "/dev/zero:/dev/mine"], text), "3\nwrites\n1 5 666");
    // Devices that every container has are open to it by number; this one is not.
    let text = "(: < /dev/mine) && echo reads; (: > /dev/mine) && echo writes; true";
    let o = script(&["--device", "/dev/loop-control:/dev/mine:r"], text).ok();
    assert_eq!(o.stdout, "reads\n", "{}", o.stderr);
    assert!(o.stderr.contains("Operation not permitted"), "{}", o.stderr);
    run(&["run", "--rm", "--device", "/dev/none-such", NAME, "true"]).fails("no such file or directory");
}

fn device_rules(_: &Engine) {
    let text = "mknod /dev/k c 10 237 && (: < /dev/k) && echo reads; true";
    assert_eq!(script(&[], text).ok().stdout, "");
    assert_eq!(prints(&["--device-cgroup-rule", "c 10:237 rm"], text), "reads");
}

fn default_devices(_: &Engine) {
    let names = "cd /dev; ls -d fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    let expected =
        "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero";
    assert_eq!(prints(&[], names), expected);
    assert_eq!(prints(&["--tty"], "ls -l /dev/console | cut -c1").trim(), "c");
    assert_eq!(prints(&[], "readlink /dev/ptmx; readlink /dev/fd"), "pts/ptmx\n/proc/self/fd");
    let text =
        "echo x > /dev/null; head -c 2 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c; echo x > /dev/full";
    let o = script(&[], text);
    assert_eq!(o.stdout, "2\n2\n");
    assert!(o.stderr.contains("No space left"), "{}", o.stderr);
}

fn masked_paths(_: &Engine) {
    assert_eq!(
        prints(&[], "cat /proc/kcore /proc/timer_list /proc/keys | wc -c; ls /sys/firmware | wc -l"),
        "0\n0"
    );
    for path in ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/profiling"] {
        let o = script(&["--cap-add", "SYS_ADMIN"], &format!(": > {path}"));
        assert_ne!(o.code(), 0, "{path}");
    }
    let mounts = prints(
        &[],
        "grep -E ' (/proc/(bus|fs|irq|sys|sysrq-trigger)|/sys|/sys/fs/cgroup/[^ ]*) ' /proc/mounts",
    );
    assert!(mounts.lines().count() > 5 && mounts.lines().all(|l| l.contains(" ro,")), "{mounts}");
}

fn unmasked_paths(_: &Engine) {
    let options = ["--security-opt", "systempaths=unconfined"];
    let text = "grep -E ' /proc/' /proc/mounts; wc -c < /proc/timer_list";
    let seen = prints(&options, text);
    assert!(!seen.contains("/proc/") && seen != "0", "{seen}");
}

fn copies(e: &Engine) {
    let dir = own(e);
    fs::write(dir.join("file"), "from the host\n").expect("write");
    let d = dir.to_str().expect("UTF-8");
    let c = container(&[], "echo inside > /tmp/made; sleep 1000");
    run(&["cp", &format!("{d}/file"), &format!("{}:/tmp/copied", c.id)]).ok();
    assert_eq!(c.exec("cat /tmp/copied"), "from the host");
    until("the file", || run(&["cp", &format!("{}:/tmp/made", c.id), d]).status.success());
    assert_eq!(fs::read_to_string(dir.join("made")).expect("read"), "inside\n");
    c.verb(&["kill"]).ok();
    c.wait();
    run(&["cp", &format!("{d}/file"), &format!("{}:/tmp/after", c.id)]).ok();
    run(&["cp", &format!("{}:/tmp", c.id), &format!("{d}/all")]).ok();
    assert_eq!(fs::read_to_string(dir.join("all/after")).expect("read"), "from the host\n");
}

fn commit_and_diff(_: &Engine) {
    let c = container(&[], "echo changed > /new; rm /etc/readable; sleep 1000");
    until("the change", || c.exec("ls /new").contains("new"));
    until("the diff", || c.verb(&["diff"]).ok().stdout.contains("D /etc/readable"));
    let diff = c.verb(&["diff"]).ok().stdout;
    let mut lines: Vec<_> = diff.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /new", "C /etc", "D /etc/readable"]);
    let image = format!("localhost/commit:{}", c.id);
    run(&["commit", "--change", "ENV ADDED=1", &c.id, &image]).ok();
    let o = run(&["run", "--rm", &image, "sh", "-c", "cat /new; ls /etc/readable; echo $ADDED"]);
    run(&["rmi", &image]).ok();
    assert_eq!(o.stdout, "changed\n1\n", "{}", o.stderr);
}

fn export_and_import(e: &Engine) {
    let dir = own(e);
    let file = dir.join("tree.tar");
    let c = container(&[], "echo changed > /new");
    c.wait();
    run(&["export", "--output", file.to_str().expect("UTF-8"), &c.id]).ok();
    let image = format!("localhost/import:{}", c.id);
    run(&["import", file.to_str().expect("UTF-8"), &image]).ok();
    let o = run(&["run", "--rm", &image, "/bin/cat", "/new"]);
    run(&["rmi", &image]).ok();
    assert_eq!(o.ok().stdout, "changed\n");
}

fn workdir_is_made(_: &Engine) {
    assert_eq!(prints(&["--workdir", "/new/dir", "--user", "1000"], "pwd; stat -c %u ."), "/new/dir\n0");
}
