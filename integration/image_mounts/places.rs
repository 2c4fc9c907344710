//! Bundles that are moved, copied, reached by others, cut short, or away.

use super::{place, text};
use crate::support::{ORLOP, finish};
use crate::{needs_program, needs_root};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

/// Set-id programs of an image would run as root for whoever reaches them.
#[test]
fn nobody_else_reaches_what_is_unpacked() {
    needs_root!();
    needs_program!("setpriv");
    let p = place();
    fs::set_permissions(p.path(), Permissions::from_mode(0o755)).unwrap();
    let open = |name: &str, mode: u32| {
        let dir = p.path().join(name);
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        dir
    };
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let seen = |path: &Path| {
        let mut c = Command::new("setpriv");
        c.args(["--reuid", "12345", "--regid", "12345", "--clear-groups", "ls"]).arg(path);
        finish(&mut c)
    };
    let (bundle, upper) = (open("b", 0o755), open("u", 0o777));
    assert!(seen(&bundle).status.success());
    let out = p.imgtool(&["unpack", "--upper", text(&upper), "x", text(&bundle)]).ok();
    for dir in [&bundle, &upper] {
        let warned = format!("{}: its mode was", dir.display());
        assert!(out.stderr.contains(&warned) && mode(dir) == 0o700, "{}", out.stderr);
    }
    seen(&bundle.join("rootfs")).fails("Permission denied");
    seen(&upper.join("upper")).fails("Permission denied");
    p.remove(&bundle);
    // What is refused keeps its mode.
    let full = open("full", 0o755);
    fs::write(full.join("f"), "").unwrap();
    p.imgtool(&["unpack", "x", text(&full)]).fails("is not empty");
    assert_eq!(mode(&full), 0o755);
    let theirs = open("theirs", 0o755);
    chown(&theirs, Some(12345), None).unwrap();
    p.imgtool(&["unpack", "x", text(&theirs)]).fails("theirs: is no directory of this user's own");
    assert_eq!(mode(&theirs), 0o755);
}

#[test]
fn an_unpack_to_an_upper_elsewhere_is_repeated_after_a_kill() {
    needs_root!();
    needs_program!("strace");
    let p = place();
    let (bundle, upper) = (p.path().join("b"), p.path().join("u"));
    let args = ["unpack", "--mount", "--upper", text(&upper), "x", text(&bundle)];
    let mut c = Command::new("strace");
    c.args([
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "inject=move_mount:signal=KILL",
        ORLOP,
        "imgtool",
        "--store",
    ]);
    assert!(!finish(c.arg(p.store()).args(args)).status.success());
    assert!(upper.join("upper").exists());
    // Whoever holds the lock is at it.
    let held = fs::File::open(&upper).unwrap();
    held.lock().unwrap();
    p.imgtool(&args).fails("u: is taken by another unpack just now");
    drop(held);
    p.imgtool(&args).ok();
    assert_eq!(p.run(&bundle).stdout, "bn751\n");
    let fresh = p.path().join("c");
    p.imgtool(&["umount", text(&bundle)]).ok();
    p.imgtool(&["unpack", "--upper", text(&upper), "x", text(&fresh)]).fails("u: is not empty");
    p.remove(&bundle);
}
