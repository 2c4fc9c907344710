//! What is kept of a container on disk: its state root, state.json, and what becomes of them.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use support::{Bundle, finish};

#[test]
fn a_bundle_that_is_gone_stops_nobody() {
    needs_root!();
    let b = Bundle::sleeping();
    b.create().ok();
    fs::remove_file(b.path().join("config.json")).expect("remove");
    fs::rename(b.rootfs(), b.path().join("moved")).expect("rename");
    b.start().ok();
    assert_eq!(b.state()["status"], "running");
    b.verb("kill", &["KILL"]).ok();
    b.await_status("stopped");
    b.verb("delete", &[]).ok();
    b.is_clean();
    finish(b.orlop(["create", "--bundle"]).arg(b.path()).arg(&b.id)).fails("config.json");
    b.is_clean();
}

#[test]
fn a_state_that_is_torn_is_named() {
    needs_root!();
    let b = Bundle::sleeping();
    b.create().ok();
    let file = b.state_root().join(&b.id).join("state.json");
    let whole = fs::read(&file).expect("state.json");
    let name = file.to_string_lossy().into_owned();
    let step = whole.len() / support::rounds(7, whole.len());
    for cut in (0..whole.len()).step_by(step) {
        fs::write(&file, &whole[..cut]).expect("write");
        b.verb("state", &[]).fails(&name);
        b.start().fails(&name);
        finish(&mut b.orlop(["list"])).ok();
    }
    fs::write(&file, whole).expect("write");
    b.start().ok();
    b.delete().ok();
    b.is_clean();
}

/// Nobody writes to it, and a verb that opened it as a file would wait for that.
#[test]
fn a_fifo_in_place_of_a_document_is_not_waited_for() {
    needs_root!();
    let fifo = |file: &std::path::Path| {
        let _ = fs::remove_file(file); // overlay.json is not there
        nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
    };
    let b = Bundle::sleeping();
    b.create().ok();
    fifo(&b.state_root().join(&b.id).join("state.json"));
    for verb in ["state", "start", "kill", "pause", "delete"] {
        b.verb(verb, &[]).fails("state.json: is not a regular file");
    }
    assert!(finish(&mut b.orlop(["list"])).ok().stderr.contains("is not a regular file"));
    b.delete().ok();
    b.is_clean();
    fifo(&b.path().join("overlay.json"));
    b.create().fails("overlay.json: is not a regular file");
}

#[test]
fn a_state_root_that_cannot_be_used_is_named() {
    needs_root!();
    let b = Bundle::sleeping();
    b.write();
    let with = |root: &std::path::Path| {
        let mut c = Command::new(support::ORLOP);
        finish(c.arg("--root").arg(root).args(["create", "--bundle"]).arg(b.path()).arg(&b.id))
    };
    let file = b.path().join("file");
    fs::write(&file, "").expect("write");
    with(&file.join("root")).fails("not a directory");
    let long = b.path().join(["d".repeat(250).as_str(); 17].join("/"));
    with(&long).fails("file name too long");
    with(std::path::Path::new("/proc/no")).fails("/proc/no");
    use nix::mount::{MsFlags, mount};
    let tmpfs = |name: &str, flags, data: &str| {
        let dir = b.path().join(name);
        fs::create_dir(&dir).expect("mkdir");
        mount(Some("none"), &dir, Some("tmpfs"), flags, Some(data)).expect("mount");
        dir
    };
    with(&tmpfs("read-only", MsFlags::MS_RDONLY, "")).fails("read-only file system");
    // One inode is left, for the directory and not for what is in it.
    let full = tmpfs("full", MsFlags::empty(), "nr_inodes=2");
    with(&full).fails("no space left on device");
    assert_eq!(fs::read_dir(&full).expect("read").count(), 0);
    // A long one that the kernel takes works: nothing of ours is a socket with its 108 bytes.
    let deep = b.path().join(["d".repeat(200).as_str(); 3].join("/"));
    with(&deep).ok();
    let mut c = Command::new(support::ORLOP);
    finish(c.arg("--root").arg(&deep).args(["delete", "--force", &b.id])).ok();
    assert!(support::cgroups_named(&b.id).is_empty());
    for made in [b.path().join("d".repeat(200)), deep] {
        assert_eq!(fs::metadata(made).expect("stat").permissions().mode() & 0o777, 0o700);
    }
}

#[test]
fn what_is_kept_on_record_is_for_its_owner_alone() {
    needs_root!();
    for mask in ["0", "0777", "077"] {
        let b = Bundle::sleeping();
        b.write();
        let line = format!(
            "umask {mask}; exec {} --root {} create -b {} --pid-file {} {}",
            support::ORLOP,
            b.path().join("new").display(),
            b.path().display(),
            b.path().join("pid").display(),
            b.id
        );
        finish(Command::new("bash").args(["-c", &line]).stdin(Stdio::null())).ok();
        let dir = b.path().join("new").join(&b.id);
        let mode = |p: &std::path::Path| fs::symlink_metadata(p).expect("stat").permissions().mode() & 0o777;
        assert_eq!((mode(&b.path().join("new")), mode(&dir)), (0o700, 0o700), "umask {mask}");
        // A link has no mode of its own.
        for entry in fs::read_dir(&dir).expect("read").flatten().filter(|e| !e.path().is_symlink()) {
            assert_eq!(mode(&entry.path()), 0o600, "umask {mask}: {:?}", entry.path());
        }
        assert_eq!(mode(&b.path().join("pid")), 0o644, "umask {mask}");
        let mut c = Command::new(support::ORLOP);
        finish(c.arg("--root").arg(b.path().join("new")).args(["delete", "--force", &b.id])).ok();
    }
}
