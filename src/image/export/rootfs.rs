//! The tree of a bundle as one archive: what its container sees, whether it is mounted or not.

use super::archive::to_file;
use crate::bundle::IMAGE;
use crate::error::Result;
use crate::image::layer::write::{Times, Tree, write};
use crate::image::limits::Limits;
use crate::image::view::{Opened, View};
use crate::image::{bundle, overlay, progress};
use std::path::{Path, PathBuf};

pub fn export(bundle: &Path, dest: &Path, limits: &Limits) -> Result<()> {
    let rootfs = bundle.join("rootfs");
    let is_copy = !bundle.join("overlay.json").exists() && bundle.join("config.json").exists();
    let dirs: Vec<PathBuf> = if is_copy || overlay::is_mounted(&rootfs).unwrap_or(false) {
        vec![rootfs]
    } else {
        // Topmost first; without an upper directory the bundle's own one is the first of these.
        let o = bundle::settled(bundle)?.1;
        o.upper.iter().chain(&o.lower).map(|l| l.strip_prefix(IMAGE).unwrap_or(l).into()).collect()
    };
    let view = Opened::default().view(&dirs)?;
    let below = View::default();
    let times = Times::of_environment()?;
    let root = view.layers.first().map(|l| &**l);
    let tree = Tree { view: &view, root, opaque: false, below: Some(&below), times, limits };
    let task = progress::open_task("rootfs", None, None);
    to_file(dest, |out| write(&tree, task.write(out)).map(drop))?;
    task.done("exported");
    Ok(())
}
