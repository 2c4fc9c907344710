//! An archive as a layer, in both forms: the same tree or the same refusal, and nothing outside of it.

use super::facts::{of_dir, same};
use super::place::Place;
use super::script::{Bytes, archive, raw};
use orlop::error::Result;
use orlop::image::erofs::{self, image::Image};
use orlop::image::layer::apply::{Applied, apply};
use orlop::image::layer::files::Files;
use orlop::image::limits::Limits;
use orlop::image::view::{open, proc_path};
use std::fs::File;
use std::path::{Path, PathBuf};

pub fn limits() -> Limits {
    Limits { bytes: 1 << 20, entries: 1000, depth: 20, path: 1000, ..Limits::default() }
}

pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let tar = if bytes.next() % 4 == 0 { raw(bytes.0) } else { archive(&mut bytes) };
    let place = Place::new();
    let (dir, image) = (place.make("dir"), place.make("image"));
    let (a, b) = (as_dir(&tar, &dir), as_image(&tar, &image));
    place.check(&["dir", "image"]);
    match (a, b) {
        (Ok(a), Ok((b, file))) => {
            assert_eq!(a, b);
            if let Ok(mounted) = erofs::mount::open(&file) {
                same(&of_dir(&dir), &of_dir(Path::new(&proc_path(&mounted))), "directory and image");
            }
        }
        (Err(_), Err(_)) => {}
        (a, b) => panic!("directory {a:?}, image {b:?}"),
    }
}

/// As files below a directory.
pub fn as_dir(tar: &[u8], dir: &Path) -> Result<Applied> {
    Ok(apply(tar, Files::new(open(dir)?), &limits())?.0)
}

/// As an image in a directory.
pub fn as_image(tar: &[u8], dir: &Path) -> Result<(Applied, PathBuf)> {
    let path = dir.join("erofs");
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    Ok((apply(tar, Image::new(file, [7; 16]), &limits())?.0, path))
}
