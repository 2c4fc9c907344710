//! Bombs, and the limits that end them: in little memory, in every command that takes an image in.

use crate::make::{Image, Packing, Place, base, file, layer, pack};
use crate::raw::{Tar, head, records};
use crate::support::{ORLOP, Outcome, Scratch, finish, finish_within};
use crate::{forms, needs_root};
use orlop::image::digest::Digest;
use serde_json::json;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;
use std::time::Duration;

/// An import that has no room for what a bomb would make of it.
fn import_in_little_memory(p: &Place, args: &[&str]) -> Outcome {
    let mut c = Command::new("sh");
    c.args(["-c", "ulimit -v 200000; exec \"$@\"", "sh", ORLOP, "imgtool", "-q", "--store"]);
    c.arg(p.store()).arg("import").args(args).env("MALLOC_ARENA_MAX", "1");
    finish_within(&mut c, Duration::from_secs(120))
}

/// A layer in each form ends with these words, and leaves nothing.
#[track_caller]
fn is_stopped(what: &str, words: &str, layer: Vec<u8>) {
    let source = Image::new(vec![layer]).packing(Packing::Zstd).write();
    for form in forms() {
        let p = Place::new();
        let out = import_in_little_memory(&p, &["--layers", form, source.path(), "bomb"]);
        assert!(out.stderr.contains(words), "{what} as {form}: {} {}", out.stdout, out.stderr);
        assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn what_a_layer_makes_us_remember_has_a_limit() {
    needs_root!();
    // A million bytes of attributes, again and again before one entry.
    let value = vec![b'x'; 60_000];
    let many: Vec<String> = (0..16).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
    let block = |round: usize| {
        let named: Vec<(String, &[u8])> = many.iter().map(|k| (format!("{k}-{round}"), &value[..])).collect();
        records(&named.iter().map(|(k, v)| (k.as_str(), *v)).collect::<Vec<_>>())
    };
    let pile = (0..300).fold(Tar::default(), |t, n| t.entry(head(b'x', "pax"), &block(n)));
    is_stopped("attributes of one file", "has extended headers of", pile.file("f", "").end());
    let sparse: Vec<(&str, &[u8])> = vec![("GNU.sparse.numbytes", b"0"); 30_000];
    let pile = (0..40).fold(Tar::default(), |t, _| t.entry(head(b'x', "pax"), &records(&sparse)));
    is_stopped("a map of one file", "has extended headers of", pile.file("f", "").end());
    // Each name makes 250 directories that are remembered by their paths.
    let deep = |n: usize| format!("{n:015}/{}f", "0123456789abcde/".repeat(250));
    let pile = (0..600).fold(Tar::default(), |t, n| t.long(&deep(n), ""));
    is_stopped("directories", "has too many directories", pile.end());
}

/// Attributes that nobody keeps: sixty thousand in a header, of which each was looked for among the others.
#[test]
fn many_attributes_take_time_by_their_number() {
    needs_root!();
    let keys: Vec<String> = (0..24_000).map(|n| format!("SCHILY.xattr.trusted.overlay.{n}")).collect();
    let all: Vec<(&str, &[u8])> = keys.iter().map(|k| (k.as_str(), &b""[..])).collect();
    let header = records(&all);
    let tar =
        (0..20).fold(Tar::default(), |t, n| t.entry(head(b'x', "pax"), &header).file(&format!("f{n}"), ""));
    let source = Image::new(vec![tar.end()]).write();
    let start = std::time::Instant::now();
    Place::new().imgtool(&["import", source.path(), "x"]).ok();
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// Directories without entries were looked for in every layer below, from the root on: ten deep ones took a minute. They
/// are not kept open either: deep trees in many layers would need more descriptors than there are.
#[test]
fn directories_without_entries_take_time_by_their_number() {
    needs_root!();
    let way = "d/".repeat(239);
    let deep = |n: usize| match n {
        0 => Tar::default().entry(head(b'5', "d").mode(0o711), b"").long(&format!("{way}f0"), ""),
        // The last directory is nowhere below.
        n => Tar::default().long(&format!("{way}e{n}/f"), ""),
    };
    let name = |n: usize, layer: usize| format!("usr/lib/node_modules/p{}/lib/f{layer}-{n}", n % 50);
    let wide = |layer: usize| {
        let start = match layer {
            0 => Tar::default().entry(head(b'5', "usr/lib").mode(0o711), b""),
            _ => Tar::default(),
        };
        (0..200).fold(start, |t, n| t.file(&name(n, layer), ""))
    };
    let deep = Image::new((0..12).map(|n| deep(n).end()).collect()).write();
    let wide = Image::new((0..12).map(|n| wide(n).end()).collect()).write();
    for form in forms() {
        let p = Place::new();
        // Seconds of CPU: the machine may have other work.
        let bounded = |args: &[&str]| {
            let mut c = Command::new("sh");
            c.args(["-c", "ulimit -n 1000; ulimit -t 25; exec \"$@\"", "sh"]);
            c.args([ORLOP, "imgtool", "-q", "--store"]).arg(p.store()).args(args);
            finish_within(&mut c, Duration::from_secs(120)).ok();
        };
        for (source, image) in [(&deep, "deep"), (&wide, "wide")] {
            bounded(&["import", "--layers", form, source.path(), image]);
        }
        bounded(&["verify", "deep"]);
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o777;
        let bundle = p.unpack("deep", &[]);
        let root = bundle.join("rootfs");
        assert_eq!((mode(&root.join("d")), mode(&root.join(&way))), (0o711, 0o755));
        assert_eq!(fs::read_dir(root.join(&way)).unwrap().count(), 12);
        p.remove(&bundle);
        let bundle = p.unpack("wide", &[]);
        let root = bundle.join("rootfs");
        assert_eq!((mode(&root.join("usr")), mode(&root.join("usr/lib"))), (0o755, 0o711));
        assert_eq!(fs::read_dir(root.join("usr/lib/node_modules/p7/lib")).unwrap().count(), 48);
        p.remove(&bundle);
    }
}

#[test]
fn what_a_source_makes_us_remember_has_a_limit() {
    needs_root!();
    let s = Scratch::new("bombs");
    let path = |name: &str| s.path.join(name).to_str().unwrap().to_string();
    // Names, in an archive of few bytes.
    let name = |n: usize| format!("{n:08}/{}f", "0123456789abcde/".repeat(240));
    let names = (0..12_000).fold(Tar::default(), |t, n| t.long(&name(n), ""));
    fs::write(path("names.tar.zst"), pack(Packing::Zstd, &names.end())).unwrap();
    let p = Place::new();
    import_in_little_memory(&p, &[&path("names.tar.zst"), "x"]).fails("has too many files for an image");
    // One large configuration under many names.
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}});
    let config = format!("{config}{}", " ".repeat(6 << 20));
    let saved: Vec<_> =
        (0..300).map(|n| json!({"Config": "c", "RepoTags": [format!("x:{n}")], "Layers": []})).collect();
    let tar = Tar::default().file("manifest.json", &json!(saved).to_string()).file("c", &config);
    fs::write(path("docker.tar"), tar.end()).unwrap();
    import_in_little_memory(&p, &[&path("docker.tar")])
        .fails("has too many bytes of manifests and configurations");
    let source = Image::new(vec![]).write();
    source.edit_config(|c| c["author"] = json!("x".repeat(6 << 20)));
    let mut named = Vec::new();
    for n in 0..60 {
        source.edit_manifest(|m| m["annotations"] = json!({"n": n.to_string()}));
        source.edit_index(|i| {
            let mut d = i["manifests"][0].clone();
            d["annotations"] = json!({"org.opencontainers.image.ref.name": format!("x{n}")});
            named.push(d);
        });
    }
    source.edit_index(|i| i["manifests"] = json!(named));
    import_in_little_memory(&p, &[source.path()]).fails("has too many bytes of manifests and configurations");
    assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0);
}

/// Ten thousand layers that are all links to one file, which is read once.
#[test]
fn equal_layers_of_an_archive_are_read_once() {
    needs_root!();
    let s = Scratch::new("links");
    let plain = layer(&[file("f", &"x".repeat(3 << 20))]);
    let packed = pack(Packing::Gzip, &[&plain[..], &vec![7; 64 << 20]].concat());
    let id = Digest::of(b"wrong").to_string();
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": vec![id; 9000]}});
    let names: Vec<String> = (0..9000).map(|n| format!("l{n}")).collect();
    let saved = json!([{"Config": "c", "RepoTags": ["x:1"], "Layers": names}]);
    let mut tar = Tar::default().file("manifest.json", &saved.to_string()).file("c", &config.to_string());
    tar = tar.entry(head(b'0', "real"), &packed);
    for name in &names {
        tar = tar.entry(head(b'1', name).link("real"), b"");
    }
    let path = s.path.join("docker.tar");
    fs::write(&path, tar.end()).unwrap();
    let start = std::time::Instant::now();
    Place::new().imgtool(&["import", path.to_str().unwrap()]).fails("has the diffID");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn bombs_of_gzip_and_wide_windows_are_refused() {
    needs_root!();
    let zeros = || std::io::repeat(0).take(300 << 20);
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut zeros(), &mut e).unwrap();
    let bomb = e.finish().unwrap();
    let source = Image::new(vec![layer(&base())]).packing(Packing::Gzip).write();
    crate::documents::replace_blob(&source, 0, &bomb);
    let p = Place::new();
    import_in_little_memory(&p, &[source.path(), "x"]).fails("");
    let head = Tar::default().raw(head(b'0', "zeros").size(300 << 20), b"").0;
    let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::copy(&mut head.chain(zeros()), &mut e).unwrap();
    let bomb = e.finish().unwrap();
    crate::documents::replace_blob(&source, 0, &bomb);
    import_in_little_memory(&p, &[source.path(), "x"]).fails("raise --max-ratio");
    // 128 MiB of window.
    let plain = layer(&[file("f", &"x".repeat(1 << 20))]);
    let mut e = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    e.window_log(27).unwrap();
    std::io::copy(&mut &plain[..], &mut e).unwrap();
    let wide = e.finish().unwrap();
    let source = Image::new(vec![plain]).packing(Packing::Zstd).write();
    crate::documents::replace_blob(&source, 0, &wide);
    import_in_little_memory(&p, &[source.path(), "x"]).fails("raise --max-zstd-window");
    p.imgtool(&["import", "--max-zstd-window", "134217728", source.path(), "x"]).ok();
    for size in ["0", "1023", "2147483649", "x"] {
        p.imgtool(&["import", "--max-zstd-window", size, source.path(), "y"]).fails("--max-zstd-window");
    }
}

/// Flags with unit and default, where images are taken in.
const FLAGS: [(&str, &str, &str); 8] = [
    ("--max-layer-bytes", "<BYTES>", "68719476736"),
    ("--max-entries", "<COUNT>", "4000000"),
    ("--max-ratio", "<FACTOR>", "500"),
    ("--max-zstd-window", "<BYTES>", "8388608"),
    ("--max-depth", "<COUNT>", "256"),
    ("--max-path", "<BYTES>", "4095"),
    ("--max-manifest-bytes", "<BYTES>", "4194304"),
    ("--max-config-bytes", "<BYTES>", "8388608"),
];

#[test]
fn every_limit_has_a_flag_with_its_unit_and_default() {
    let help = |command: &str| finish(Command::new(ORLOP).args(["imgtool", command, "--help"])).ok().stdout;
    for command in ["import", "pull", "append", "commit", "squash"] {
        let text = help(command);
        for (flag, unit, default) in FLAGS {
            let at =
                text.find(&format!("{flag} {unit}")).unwrap_or_else(|| panic!("{command} {flag}: {text}"));
            let entry: String = text[at..].lines().take(4).collect();
            assert!(entry.contains(&format!("[default: {default}]")), "{command} {flag}: {entry}");
        }
    }
    let text = help("export");
    assert!(
        ["--max-layer-bytes <BYTES>", "--max-entries <COUNT>"].iter().all(|f| text.contains(f)),
        "{text}"
    );
}

/// A container can make a file of any size and a tree of any depth without writing a byte.
#[test]
fn what_a_container_left_is_taken_within_the_limits() {
    needs_root!();
    let p = Place::new();
    p.imgtool(&["import", Image::new(vec![layer(&base())]).write().path(), "x"]).ok();
    let bundle = p.unpack("x", &[]);
    let b = bundle.to_str().unwrap();
    let rootfs = bundle.join("rootfs");
    let tar = p.path().join("out.tar");
    let tar = tar.to_str().unwrap();
    let huge = rootfs.join("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    p.imgtool(&["commit", b, "y"]).fails("entry \"huge\": takes the layer beyond 68719476736 bytes");
    p.imgtool(&["export", "--rootfs", b, tar])
        .fails("entry \"huge\": takes the layer beyond 68719476736 bytes");
    fs::remove_file(&huge).unwrap();
    fs::write(rootfs.join("file"), "12345").unwrap();
    p.imgtool(&["commit", "--max-layer-bytes", "4", b, "y"]).fails("raise --max-layer-bytes");
    p.imgtool(&["commit", "--max-entries", "1", b, "y"]).fails("raise --max-entries");
    p.imgtool(&["export", "--rootfs", "--max-layer-bytes", "4", b, tar]).fails("raise --max-layer-bytes");
    p.imgtool(&["export", "--rootfs", "--max-entries", "4", b, tar]).fails("raise --max-entries");
    p.imgtool(&["squash", "--max-layer-bytes", "4", "x", "y"]).fails("raise --max-layer-bytes");
    fs::create_dir_all(p.path().join("more/deep/er")).unwrap();
    fs::write(p.path().join("more/file"), "12345").unwrap();
    let more = p.path().join("more");
    let append = |flag: &str, n: &str, source: &str| p.imgtool(&["append", flag, n, "x", source, "y"]);
    append("--max-layer-bytes", "4", more.to_str().unwrap()).fails("raise --max-layer-bytes");
    append("--max-entries", "2", more.to_str().unwrap()).fails("raise --max-entries");
    append("--max-depth", "0", more.to_str().unwrap()).fails("raise --max-depth");
    let archive = p.path().join("more.tar");
    fs::write(&archive, layer(&[file("a/b/c", "12345")])).unwrap();
    append("--max-layer-bytes", "4", archive.to_str().unwrap()).fails("raise --max-layer-bytes");
    append("--max-path", "4", archive.to_str().unwrap()).fails("raise --max-path");
    // Deeper than any path is long.
    let thousand = vec!["d"; 1000].join("/");
    fs::create_dir_all(rootfs.join(&thousand)).unwrap();
    for _ in 0..2 {
        fs::create_dir_all(rootfs.join("top").join(&thousand)).unwrap();
        fs::rename(rootfs.join("d"), rootfs.join("top").join(&thousand).join("d")).unwrap();
        fs::rename(rootfs.join("top"), rootfs.join("d")).unwrap();
    }
    let refused = p.imgtool(&["commit", b, "y"]);
    assert!(refused.code() == 1 && refused.stderr.contains("file name too long"), "{}", refused.stderr);
    let refused = p.imgtool(&["export", "--rootfs", b, tar]);
    assert!(refused.code() == 1 && refused.stderr.contains("file name too long"), "{}", refused.stderr);
    assert!(!p.imgtool(&["diff", b]).stderr.contains("overflow"));
    finish(Command::new("rm").arg("-rf").arg(rootfs.join("d"))).ok();
    p.imgtool(&["commit", b, "y"]).ok();
    p.remove(&bundle);
}

/// One bit of a blob, an image file or a directory: what is damaged on the disk costs no more than what is whole.
#[test]
fn a_damaged_store_does_not_lift_the_limits() {
    needs_root!();
    let p = Place::new();
    let source = Image::new(vec![layer(&[file("f", &"x".repeat(100_000))])]).packing(Packing::Zstd).write();
    p.imgtool(&["import", source.path(), "x"]).ok();
    let mut blobs: Vec<_> =
        fs::read_dir(p.store().join("blobs/sha256")).unwrap().map(|e| e.unwrap().path()).collect();
    blobs.sort();
    for blob in blobs {
        let bytes = fs::read(&blob).unwrap();
        // The window of a zstd frame stands here, else something else does.
        for (at, byte) in [(5, 0xff), (bytes.len() as u64 / 2, 0x55)] {
            let file = fs::File::options().write(true).open(&blob).unwrap();
            file.write_at(&[byte], at).unwrap();
            for command in ["verify", "fsck"] {
                let out = p.imgtool(&[command]);
                assert!(
                    out.code() == 1 && out.stdout.contains("is damaged"),
                    "{command}: {} {}",
                    out.stdout,
                    out.stderr
                );
            }
            fs::write(&blob, &bytes).unwrap();
        }
    }
    p.imgtool(&["verify"]).ok();
}
