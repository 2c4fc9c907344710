//! What a pull keeps of a blob on its way: the next pull goes on from it, and it becomes the blob.

use crate::hostile::{image, noise, pull, serve};
use crate::make::{Image, Packing, Place, Small, file, layer};
use crate::needs_root;
use crate::server::{Reply, Repository};
use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, makedev, mknodat};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What is kept of the first layer.
fn partial(p: &Place, repository: &Repository) -> PathBuf {
    let (layer, size) = (repository.layer(0), repository.blob(&repository.layer(0)).unwrap().len());
    p.store().join("partial").join(format!("{}.{size}", &layer["sha256:".len()..]))
}

#[test]
fn the_next_pull_takes_up_what_a_broken_one_left() {
    needs_root!();
    let p = Place::new();
    let repository = Arc::new(image());
    let broken = Arc::new(AtomicUsize::new(1));
    let state = broken.clone();
    let server = serve(&repository, move |q, r| {
        let cut = state.load(Ordering::Relaxed) > 0 && q.is("GET", &r.layer(0));
        cut.then(|| if q.header("range").is_none() { r.answer(q).cut(60_000) } else { Reply::new(403) })
    });
    pull(&p, &server).fails("403 forbidden");
    let kept = partial(&p, &repository);
    assert_eq!(fs::metadata(&kept).unwrap().len(), 60_000);
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    broken.store(0, Ordering::Relaxed);
    let inode = fs::metadata(&kept).unwrap().ino();
    pull(&p, &server).ok();
    assert_eq!(server.seen().iter().filter(|q| q.header("range") == Some("bytes=60000-")).count(), 2);
    assert!(!kept.exists());
    // It was written once: what was kept of it is the blob.
    let blob = p.store().join("blobs/sha256").join(&repository.layer(0)["sha256:".len()..]);
    let blob = fs::metadata(blob).unwrap();
    assert_eq!((blob.ino(), blob.nlink()), (inode, 1));
    p.imgtool(&["verify"]).ok();
    // Spoiled, it costs one more round.
    let p = Place::new();
    p.imgtool(&["info"]).ok();
    let kept = partial(&p, &repository);
    fs::write(&kept, vec![7; 10_000]).unwrap();
    pull(&p, &server).ok();
    assert!(!kept.exists());
    // Longer than the blob, it is cut.
    let p = Place::new();
    p.imgtool(&["info"]).ok();
    let kept = partial(&p, &repository);
    let whole = repository.blob(&repository.layer(0)).unwrap();
    fs::write(&kept, [&whole[..], b"more"].concat()).unwrap();
    pull(&p, &server).ok();
    p.imgtool(&["verify"]).ok();
    // Gone with gc, when nobody comes back for it.
    fs::write(&kept, "x").unwrap();
    p.imgtool(&["gc"]).ok();
    assert!(!kept.exists());
}

#[test]
fn what_cannot_be_taken_up_is_no_hindrance() {
    needs_root!();
    let repository = Arc::new(image());
    let server = serve(&repository, |_, _| None);
    let fresh = || {
        let p = Place::new();
        p.imgtool(&["info"]).ok();
        let kept = partial(&p, &repository);
        (p, kept)
    };
    let pulled = |p: &Place| {
        pull(p, &server).ok();
        p.imgtool(&["verify"]).ok();
    };
    // Another pull is at it.
    let (p, kept) = fresh();
    fs::write(&kept, "its").unwrap();
    let its = fs::File::open(&kept).unwrap();
    flock(&its, FlockOperation::LockExclusive).unwrap();
    pulled(&p);
    assert_eq!(its.metadata().unwrap().len(), 3);
    // It is no file.
    for kind in [FileType::Fifo, FileType::CharacterDevice] {
        let (p, kept) = fresh();
        mknodat(CWD, &kept, kind, Mode::RWXU, makedev(1, 3)).unwrap();
        pulled(&p);
    }
    // It is the blob, of a pull that was killed behind its last rename.
    let (p, kept) = fresh();
    pulled(&p);
    let blob = p.store().join("blobs/sha256").join(&repository.layer(0)["sha256:".len()..]);
    fs::hard_link(&blob, &kept).unwrap();
    fs::File::options().write(true).open(&blob).unwrap().set_len(1000).unwrap();
    pulled(&p);
    assert!(!kept.exists());
}

/// It may have become a blob just now, for another pull.
#[test]
fn who_lies_of_a_size_does_not_write_to_what_was_kept() {
    needs_root!();
    let repository = Arc::new(image());
    let whole = repository.blob(&repository.layer(0)).unwrap();
    for size in [whole.len() - 1000, whole.len() + 1000] {
        let mut manifest = repository.manifest();
        manifest["layers"][0]["size"] = size.into();
        let manifest = manifest.to_string();
        let server = serve(&repository, move |q, r| match q.header("range") {
            _ if q.path.contains("/manifests/") => {
                let kind = "application/vnd.oci.image.manifest.v1+json";
                Some(Reply::new(200).header("Content-Type", kind).body(manifest.clone()))
            }
            Some(_) => Some(Reply::new(206).header("Content-Range", "bytes 0-/9").body(vec![0; 1000])),
            None if q.is("GET", &r.layer(0)) => Some(r.answer(q).claims(size as u64)),
            None => None,
        });
        let p = Place::new();
        p.imgtool(&["info"]).ok();
        // By its own name, and by that of its digest alone.
        let kept = partial(&p, &repository);
        let plain = kept.with_extension("");
        for name in [&kept, &plain] {
            fs::write(name, &whole).unwrap();
        }
        assert_eq!(pull(&p, &server).code(), 1);
        assert!([&kept, &plain].iter().all(|name| fs::read(name).unwrap() == whole), "{size}");
    }
}

#[test]
fn a_server_that_has_no_ranges_sends_all_of_it() {
    needs_root!();
    let repository = Arc::new(image());
    let server = serve(&repository, |q, r| {
        (q.is("GET", &r.layer(0)) && q.header("range").is_some()).then(|| Reply::new(416))
    });
    let p = Place::new();
    p.imgtool(&["info"]).ok();
    let whole = repository.blob(&repository.layer(0)).unwrap();
    fs::write(partial(&p, &repository), &whole[..60_000]).unwrap();
    pull(&p, &server).ok();
    p.imgtool(&["verify"]).ok();
    assert_eq!(server.count("GET", &repository.layer(0)), 2);
}

#[test]
fn a_pull_onto_a_full_disk_goes_on_when_there_is_room() {
    needs_root!();
    // The first piece of what is inflated comes when more of the blob has arrived than there is room.
    let layers = vec![layer(&[file("f", &noise(600_000))])];
    let repository = Arc::new(Repository::new(Image::new(layers).packing(Packing::Gzip).write()));
    let server = serve(&repository, |_, _| None);
    let p = Place::new();
    let small = Small::on(p.store(), "size=100k");
    pull(&p, &server).fails("/blob: write: no space left on device; orlop imgtool df shows");
    let kept = partial(&p, &repository);
    let range = format!("bytes={}-", fs::metadata(kept).unwrap().len());
    assert_ne!(range, "bytes=0-");
    small.mount("remount,size=10m");
    pull(&p, &server).ok();
    p.imgtool(&["verify"]).ok();
    assert!(server.seen().iter().any(|q| q.header("range") == Some(&range)), "{range}");
}

#[test]
fn a_killed_pull_is_taken_up() {
    needs_root!();
    let p = Place::new();
    let repository = Arc::new(image());
    let server = serve(&repository, |q, r| {
        let hangs = q.is("GET", &r.layer(0)) && q.header("range").is_none();
        hangs.then(|| r.answer(q).cut(60_000).hangs())
    });
    let mut child = p.command(&["-q", "pull", &format!("{}/x:1", server.address)]).spawn().unwrap();
    let kept = partial(&p, &repository);
    let end = Instant::now() + Duration::from_secs(30);
    while fs::metadata(&kept).map_or(0, |m| m.len()) < 60_000 {
        assert!(Instant::now() < end, "nothing was kept");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    pull(&p, &server).ok();
    assert_eq!(server.seen().iter().filter(|q| q.header("range") == Some("bytes=60000-")).count(), 1);
    assert_eq!(fs::read_dir(p.store().join("tmp")).unwrap().count(), 0);
}
