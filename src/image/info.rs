//! What the store is, and how this machine uses it.

use super::driver::{self, Driver};
use super::help;
use super::output::Output;
use super::store::{FORMAT, Store};
use crate::error::{Error, Result};
use clap::Subcommand;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Command {
    /// Tell of the store, and how this machine mounts its layers
    #[command(after_help = help::INFO)]
    Info {
        #[command(flatten)]
        output: Output,
    },
}

/// A choice, and the reason for it.
#[derive(Serialize)]
struct Chosen {
    name: &'static str,
    why: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    store: PathBuf,
    format: &'static str,
    /// Of the store.
    file_system: String,
    /// Whether files can be copied without their data (FICLONE).
    reflink: bool,
    driver: Chosen,
    /// Form of new layers.
    layer_form: Chosen,
    images: usize,
    bundles: usize,
    layers: usize,
    /// How many of the layers are EROFS images.
    erofs_layers: usize,
}

pub fn run(command: &Command, store: &Store, quiet: bool) -> Result<()> {
    let Command::Info { output } = command;
    let info = info(store)?;
    output.show(quiet, &info, || lines(&info), [info.store.display().to_string()])
}

fn lines(info: &Info) -> String {
    let line = |name: &str, text: String| format!("{name:<12} {text}\n");
    let reflink = if info.reflink { "copies share blocks" } else { "copies share no blocks" };
    [
        line("store", format!("{} ({})", info.store.display(), info.format)),
        line("file system", format!("{}, {reflink}", info.file_system)),
        line("driver", format!("{}: {}", info.driver.name, info.driver.why)),
        line("new layers", format!("{}: {}", info.layer_form.name, info.layer_form.why)),
        line("images", info.images.to_string()),
        line("bundles", info.bundles.to_string()),
        line("layers", format!("{}, {} of them EROFS images", info.layers, info.erofs_layers)),
    ]
    .concat()
}

fn info(store: &Store) -> Result<Info> {
    let (driver, why) = driver::fitting(store)?;
    let driver = Chosen { name: driver.name(), why };
    let layer_form = match driver::trial(store)? {
        None => Chosen { name: "erofs", why: "an image was mounted from its file and stacked".into() },
        Some(why) => Chosen { name: "dir", why },
    };
    let layers = store.dir().join("layers");
    let names =
        std::fs::read_dir(&layers).map_err(|e| Error::io(layers.display().to_string(), "read", &e))?;
    let (mut count, mut erofs_layers) = (0, 0);
    for name in names.flatten() {
        count += 1;
        erofs_layers += usize::from(name.path().join("erofs").exists());
    }
    let mut images: Vec<_> = store.refs()?.into_iter().map(|r| r.1).collect();
    images.sort_unstable();
    images.dedup();
    Ok(Info {
        store: store.dir().to_path_buf(),
        format: FORMAT.trim_end(),
        file_system: file_system(store.dir())?,
        reflink: driver::reflinks(store)?,
        driver,
        layer_form,
        images: images.len(),
        bundles: store.bundles()?.len(),
        layers: count,
        erofs_layers,
    })
}

/// The name of the file system that a directory is on, by its magic number (statfs(2)).
fn file_system(dir: &Path) -> Result<String> {
    let about = rustix::fs::statfs(dir)
        .map_err(|e| Error::os(dir.display().to_string(), "statfs", e.raw_os_error()))?;
    let magic = about.f_type as u32;
    let known = [
        (0xef53, "ext4"),
        (0x5846_5342, "xfs"),
        (0x9123_683e, "btrfs"),
        (0x0102_1994, "tmpfs"),
        (0x794c_7630, "overlayfs"),
        (0x2fc1_2fc1, "zfs"),
        (0xf2f5_2010, "f2fs"),
        (0xca45_1a4e, "bcachefs"),
        (0x6969, "nfs"),
        (0x6573_5546, "fuse"),
    ];
    let name = known.iter().find(|k| k.0 == magic).map(|k| k.1.to_string());
    Ok(name.unwrap_or_else(|| format!("{magic:#x}")))
}

impl Driver {
    fn name(self) -> &'static str {
        match self {
            Driver::Overlay => "overlay",
            Driver::FuseOverlayfs => "fuse-overlayfs",
            Driver::Copy => "copy",
        }
    }
}
