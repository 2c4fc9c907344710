//! Layers of arbitrary entries on each other: what we show of the stack is what overlayfs shows, and it is the same of
//! directories and of images.

use super::facts::{of_dir, of_view, same};
use super::layer::{as_dir, as_image};
use super::place::Place;
use super::script::{Bytes, archive};
use orlop::error::Result;
use orlop::image::erofs;
use orlop::image::fixup;
use orlop::image::layer::apply::Applied;
use orlop::image::merged::Merged;
use orlop::image::view::{View, open, proc_path};
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::OnceLock;

const NAMES: [&str; 3] = ["0", "1", "2"];

pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let layers: Vec<Vec<u8>> = NAMES.iter().map(|_| archive(&mut bytes)).collect();
    let place = Place::new();
    let empty = place.make("empty");
    let (mut made, mut dirs, mut images) = (vec!["empty".to_string()], Stack::default(), Stack::default());
    for (tar, name) in layers.iter().zip(NAMES) {
        let names = [name, &format!("{name}-fix"), &format!("{name}-image"), &format!("{name}-image-fix")]
            .map(str::to_string);
        let paths = names.each_ref().map(|n| place.make(n));
        made.extend(names);
        let (Ok(a), Ok((_, file))) = (as_dir(tar, &paths[0]), as_image(tar, &paths[2])) else { break };
        let settled = dirs.push(open(&paths[0]).unwrap(), &a, &paths[1]);
        // Some kernels and file systems mount no image.
        let mounted = erofs::mount::open(&file).ok();
        let is_mounted = mounted.is_some();
        if let Some(mounted) = mounted {
            let other = images.push(mounted, &a, &paths[3]);
            assert_eq!(settled.is_ok(), other.is_ok(), "{settled:?} {other:?}");
        }
        if settled.is_err() {
            break;
        }
        let shown = of_view(&dirs.view());
        if is_mounted {
            same(&shown, &of_view(&images.view()), "directories and images");
        }
        if is_compared() {
            let merged = overlay(&dirs.lowers, &empty).unwrap();
            same(&shown, &of_dir(Path::new(&proc_path(&merged))), "view and overlayfs");
        }
    }
    made.sort();
    place.check(&made.iter().map(String::as_str).collect::<Vec<_>>());
}

/// As `orlop::image::stack`, of what is not in a store.
#[derive(Default)]
struct Stack {
    /// Topmost first.
    lowers: Vec<Rc<OwnedFd>>,
    merged: Merged,
}

impl Stack {
    fn view(&self) -> View {
        View { layers: self.lowers.clone() }
    }

    fn push(&mut self, layer: OwnedFd, applied: &Applied, fix: &Path) -> Result<()> {
        if applied.opaque {
            self.lowers.clear();
        }
        let layer = Rc::new(layer);
        self.merged.show(&self.lowers);
        let fixed = fixup::build(open(fix)?, layer.clone(), &mut self.merged, &applied.needs)?;
        self.lowers.insert(0, layer);
        if fixed {
            self.lowers.insert(0, Rc::new(open(fix)?));
        }
        Ok(())
    }
}

/// Whether the kernel stacks directories for us, whose view is then held against ours.
pub fn is_compared() -> bool {
    static STACKS: OnceLock<bool> = OnceLock::new();
    *STACKS.get_or_init(|| {
        let place = Place::new();
        let [lower, empty] = ["lower", "empty"].map(|name| place.make(name));
        overlay(&[Rc::new(open(&lower).unwrap())], &empty).is_ok()
    })
}

/// The kernel's view.
fn overlay(lowers: &[Rc<OwnedFd>], empty: &Path) -> std::io::Result<OwnedFd> {
    let fs = mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |value: &str| mount::fsconfig_set_string(fs.as_fd(), "lowerdir+", value);
    for lower in lowers {
        set(std::fs::read_link(proc_path(lower))?.to_str().unwrap())?;
    }
    set(empty.to_str().unwrap())?; // two are the least
    mount::fsconfig_create(fs.as_fd())?;
    Ok(mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}
