//! The commands on the store at rest, and the way out of it.

use super::driver::Form;
use super::limits::Limits;
use super::made::Made;
use super::names::about;
use super::output::Output;
use super::store::Store;
use super::{convert, df, export, found, fsck, help, verify};
use crate::error::{Error, Result};
use clap::Subcommand;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Command {
    /// Write an image as it came to an OCI layout or an archive, or the tree of a bundle to an archive
    Export {
        /// Image, or with --rootfs a bundle
        image: OsString,
        /// Directory of a layout, new or with others in it, or an archive where it ends in .tar or is - for standard output
        dest: PathBuf,
        /// Form of what is written
        #[arg(long, value_enum, value_name = "FORM", default_value = "oci")]
        format: export::Format,
        /// Name of the image there (default: that in the store)
        #[arg(long)]
        name: Option<String>,
        /// Write the tree of a bundle to an archive, with what its container has changed
        #[arg(long, conflicts_with_all = ["format", "name"])]
        rootfs: bool,
        /// Most bytes of the files of a tree
        #[arg(long, value_name = "BYTES", default_value_t = Limits::default().bytes, requires = "rootfs")]
        max_layer_bytes: u64,
        /// Most entries of a tree
        #[arg(long, value_name = "COUNT", default_value_t = Limits::default().entries, requires = "rootfs")]
        max_entries: u64,
    },
    /// Compare the store with what it says of itself
    #[command(after_help = help::VERIFY)]
    Verify {
        /// Images (default: all that is in the store)
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Find what is damaged or left over in the store
    #[command(after_help = help::FSCK)]
    Fsck {
        /// Mend it: remove what is left over, make damaged layers again from their blobs
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Change the form of layers that are in the store
    #[command(after_help = help::CONVERT)]
    Convert {
        /// Images whose layers change (default: all layers of the store)
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
        /// The form that they get
        #[arg(long, value_enum)]
        layers: Form,
        #[command(flatten)]
        output: Output,
    },
    /// Show what the store takes of its disk
    #[command(after_help = help::DF)]
    Df {
        #[command(flatten)]
        output: Output,
    },
}

/// Carries a command out on the store at `dir`.
pub fn run(command: Command, dir: &Path, quiet: bool) -> Result<u8> {
    match command {
        Command::Export { image: bundle, dest, rootfs: true, max_layer_bytes, max_entries, .. } => {
            let limits = Limits { bytes: max_layer_bytes, entries: max_entries, ..Limits::default() };
            export::rootfs::export(bundle.as_ref(), &dest, &limits)?;
        }
        Command::Export { image, dest, format, name, .. } => {
            let image = image.to_string_lossy(); // no name has other bytes
            let order = export::Order { image: &image, dest: &dest, format, name: name.as_deref() };
            let store = Store::existing(dir, false)?;
            let (name, digest) = about(&image, export::export(&store, &order))?;
            if dest != Path::new("-") {
                Made::of(&store, name, digest).show(Output::default(), quiet)?;
            }
        }
        Command::Verify { images, output } => {
            let damages = verify::verify(&Store::existing(dir, false)?, &images)?;
            let all: Vec<_> = damages.iter().map(found::damage).collect();
            let table = || damages.iter().map(|d| format!("{d}\n")).collect();
            output.show(quiet, &all, table, found::names(damages.iter()))?;
            return Ok(u8::from(!damages.is_empty()));
        }
        Command::Fsck { repair, output } => {
            if !dir.exists() {
                return Err(Error::os(dir.display().to_string(), "open", libc::ENOENT));
            }
            let report = fsck::fsck(&Store::open_unswept(dir, true)?, repair)?;
            let mut names = found::names(report.damages.iter().map(|d| &d.0));
            names.extend(report.litter.iter().map(|p| p.display().to_string()));
            output.show(quiet, &found::report(&report), || report.to_string(), names)?;
            return Ok(u8::from(!report.is_whole()));
        }
        Command::Convert { images, layers, output } => {
            let done = convert::convert(&Store::existing(dir, true)?, &images, layers)?;
            let converted = done.iter().filter(|d| d.result == "converted").map(|d| d.diff_id.to_string());
            output.show(quiet, &done, || done.iter().map(convert::Done::line).collect(), converted)?;
            return Ok(u8::from(done.iter().any(|d| d.result == "kept")));
        }
        Command::Df { output } => {
            let report = df::df(&Store::existing(dir, false)?)?;
            let names = report.images.iter().flat_map(|i| i.names.clone());
            output.show(quiet, &report, || df::table(&report), names)?;
        }
    }
    Ok(0)
}
