//! The commands on the store at rest, and the way out of it.

use super::cli::{self, Format};
use super::store::Store;
use super::{df, export, fsck, verify};
use crate::error::{Error, Result, clean};
use clap::Subcommand;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

#[derive(Subcommand)]
pub enum Command {
    /// Write an image as it came: to an OCI layout, new or with others in it, or to an archive
    Export {
        /// Image, or with --rootfs a bundle
        image: OsString,
        /// Directory of a layout, or an archive where it ends in .tar or is - for standard output
        dest: PathBuf,
        #[arg(long, value_enum, default_value = "oci")]
        format: export::Format,
        /// Name of the image there (default: that in the store)
        #[arg(long)]
        name: Option<String>,
        /// Write the tree of a bundle to an archive, with what its container has changed
        #[arg(long, conflicts_with_all = ["format", "name"])]
        rootfs: bool,
    },
    /// Compare the store with what it says of itself: these images, or all that is there
    Verify { images: Vec<String> },
    /// Find what is damaged or left over in the store
    Fsck {
        /// Mend it: remove what is left over, make damaged layers again from their blobs
        #[arg(long)]
        repair: bool,
    },
    /// Show what the store takes of its disk
    Df {
        #[arg(short, long, value_enum, default_value = "table")]
        format: Format,
    },
}

/// Carries a command out on the store at `dir`.
pub fn run(command: Command, dir: &Path) -> Result<u8> {
    match command {
        Command::Export { image: bundle, dest, rootfs: true, .. } => {
            export::rootfs::export(bundle.as_ref(), &dest)?;
        }
        Command::Export { image, dest, format, name, .. } => {
            let image = image.to_string_lossy(); // no name has other bytes
            let order = export::Order { image: &image, dest: &dest, format, name: name.as_deref() };
            let (name, digest) = export::export(&Store::open(dir, false)?, &order)?;
            if dest != Path::new("-") {
                cli::print(&format!("{} {digest}\n", clean(&name)))?;
            }
        }
        Command::Verify { images } => {
            let damages = verify::verify(&Store::open(dir, false)?, &images)?;
            cli::print(&damages.iter().map(|d| format!("{d}\n")).collect::<String>())?;
            return Ok(u8::from(!damages.is_empty()));
        }
        Command::Fsck { repair } => {
            if !dir.exists() {
                return Err(Error::os(dir.display().to_string(), "open", libc::ENOENT));
            }
            let report = fsck::fsck(&Store::open_unswept(dir, true)?, repair)?;
            cli::print(&report.to_string())?;
            return Ok(u8::from(!report.is_whole()));
        }
        Command::Df { format } => {
            let report = df::df(&Store::open(dir, false)?)?;
            match format {
                Format::Table => cli::print(&df::table(&report))?,
                Format::Json => cli::json(&report)?,
            }
        }
    }
    Ok(0)
}
