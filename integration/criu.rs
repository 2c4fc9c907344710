//! What each flag of checkpoint and restore has criu told: a program in its place keeps the request, and refuses.

#[macro_use]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use support::{Bundle, Outcome, finish};

/// Answers as criu 4.1 does when asked for its version (10) and features (9), and keeps any other request by its number.
const CRIU: &str = r#"#!/bin/bash
dd bs=65536 count=1 <&$2 >"$REQUESTS/new" 2>/dev/null
kind=$(od -An -tu1 -j1 -N1 "$REQUESTS/new")
case $((kind)) in
10) printf '\010\012\020\001\122\004\010\004\020\001' ;;
9) printf '\010\011\020\001\102\004\010\001\020\001' ;;
*) mv "$REQUESTS/new" "$REQUESTS/$((kind))"; printf '\010\001\020\000' ;;
esac | dd bs=64 iflag=fullblock >&$2 2>/dev/null # in one packet
"#;
const DUMP: &str = "1";
const RESTORE: &str = "2";
const PRE_DUMP: &str = "4";

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (b, rest) = bytes.split_first().expect("a byte more");
        *bytes = rest;
        value |= u64::from(b & 0x7f) << shift;
        if b & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

/// A message of protobuf by the numbers of its fields; the last of a repeated one.
fn fields(mut bytes: &[u8]) -> BTreeMap<u64, Field> {
    let mut all = BTreeMap::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(content.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        all.insert(key >> 3, value);
    }
    all
}

struct Bench {
    bundle: Bundle,
    bin: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let bundle = Bundle::sleeping();
        let bin = bundle.path().join("bin");
        for dir in ["bin", "requests", "images", "images/earlier", "work"] {
            fs::create_dir_all(bundle.path().join(dir)).unwrap();
        }
        fs::write(bin.join("criu"), CRIU).unwrap();
        fs::set_permissions(bin.join("criu"), fs::Permissions::from_mode(0o755)).unwrap();
        bundle.create().ok();
        bundle.start().ok();
        Self { bundle, bin }
    }

    fn call(&self, args: &[&str], flags: &str) -> Outcome {
        let b = &self.bundle;
        let path = std::env::var("PATH").unwrap();
        let mut c = b.orlop(args);
        c.arg("--image-path").arg(b.path().join("images")).args(flags.split_whitespace()).arg(&b.id);
        c.env("PATH", format!("{}:{path}", self.bin.display())).env("REQUESTS", b.path().join("requests"));
        finish(&mut c)
    }

    /// The options that criu was told.
    fn told(&self, kind: &str, args: &[&str], flags: &str) -> BTreeMap<u64, Field> {
        let kept = self.bundle.path().join("requests").join(kind);
        let _ = fs::remove_file(&kept);
        let out = self.call(args, flags);
        assert!(!out.status.success(), "it was refused");
        let bytes = fs::read(&kept).unwrap_or_else(|e| panic!("{e}: {}", out.stderr));
        match fields(&bytes).remove(&2) {
            Some(Field::Bytes(opts)) => fields(&opts),
            other => panic!("{other:?}"),
        }
    }
}

fn text(t: &str) -> Field {
    Field::Bytes(t.into())
}

const ON: Field = Field::Number(1);

#[test]
fn each_flag_of_checkpoint_is_told() {
    needs_root!();
    needs_program!("bash");
    let bench = Bench::new();
    let plain = bench.told(DUMP, &["checkpoint"], "");
    let work = bench.bundle.path().join("work");
    let flags = format!(
        "--leave-running --ext-unix-sk --tcp-established --shell-job --file-locks --page-server 10.0.0.1:99 \
         --parent-path earlier --auto-dedup --link-remap --manage-cgroups-mode full --empty-ns network \
         --tcp-skip-in-flight --network-lock nftables --work-path {}",
        work.display()
    );
    let told = bench.told(DUMP, &["checkpoint"], &flags);
    for (name, field, value) in [
        ("--leave-running", 3, ON),
        ("--ext-unix-sk", 4, ON),
        ("--tcp-established", 5, ON),
        ("--shell-job", 7, ON),
        ("--file-locks", 8, ON),
        ("--page-server", 11, text("\n\u{8}10.0.0.1\u{10}c")), // 1: the address, 2: 99
        ("--parent-path", 14, text("earlier")),
        ("--auto-dedup", 16, ON),
        ("--link-remap", 18, ON),
        ("--tcp-skip-in-flight", 46, ON),
        ("--network-lock", 64, Field::Number(2)),
    ] {
        assert_eq!(told.get(&field), Some(&value), "{name}");
        assert_eq!(plain.get(&field), None, "{name}");
    }
    assert!(told.contains_key(&17) && !plain.contains_key(&17), "--work-path");
    let network = Field::Number(nix::libc::CLONE_NEWNET as u64);
    assert_eq!(
        (told.get(&38), told.get(&15)),
        (Some(&network), Some(&ON)),
        "--empty-ns, and what a parent needs"
    );
    for (mode, number) in [("ignore", 0), ("soft", 3), ("full", 4), ("strict", 5)] {
        let told = bench.told(DUMP, &["checkpoint"], &format!("--manage-cgroups-mode {mode}"));
        assert_eq!(told.get(&34), Some(&Field::Number(number)), "{mode}");
    }
    assert_eq!(bench.told(DUMP, &["checkpoint"], "--lazy-pages").get(&48), Some(&ON));
    assert_eq!(bench.told(PRE_DUMP, &["checkpoint"], "--pre-dump").get(&15), Some(&ON));
    bench.call(&["checkpoint"], "--lazy-pages --status-fd 77").fails("--status-fd: ");
    bench.call(&["checkpoint"], "--parent-path /earlier").fails("--parent-path: ");
    bench.call(&["checkpoint"], "--page-server x").fails("--page-server: \"x\" is not ADDRESS:PORT");
    assert_eq!(bench.bundle.state()["status"], "running");
}

#[test]
fn each_flag_of_restore_is_told() {
    needs_root!();
    needs_program!("bash");
    let bench = Bench::new();
    bench.told(DUMP, &["checkpoint"], ""); // leaves what a restore looks for
    bench.bundle.delete().ok();
    let bundle = bench.bundle.path().to_str().unwrap().to_string();
    let restore = |flags: &str| bench.told(RESTORE, &["restore", "--bundle", &bundle], flags);
    let plain = restore("");
    let flags = "--ext-unix-sk --tcp-established --shell-job --file-locks --manage-cgroups-mode strict --empty-ns network \
                 --auto-dedup --lazy-pages --tcp-close --network-lock skip --lsm-profile apparmor:web \
                 --lsm-mount-context system_u:x --detach --no-subreaper --no-pivot";
    let told = restore(flags);
    for (name, field, value) in [
        ("--ext-unix-sk", 4, ON),
        ("--tcp-established", 5, ON),
        ("--shell-job", 7, ON),
        ("--file-locks", 8, ON),
        ("--auto-dedup", 16, ON),
        ("--lazy-pages", 48, ON),
        ("--tcp-close", 52, ON),
        ("--lsm-profile", 53, text("apparmor:web")),
        ("--lsm-mount-context", 63, text("system_u:x")),
        ("--network-lock", 64, Field::Number(3)),
    ] {
        assert_eq!(told.get(&field), Some(&value), "{name}");
        assert_eq!(plain.get(&field), None, "{name}");
    }
    assert_eq!(told.get(&34), Some(&Field::Number(5)), "--manage-cgroups-mode");
    bench.bundle.is_clean();
}
