//! The command line of `imgtool`.

use super::driver::{Driver, Form};
use super::limits::Limits;
use super::platform::Platform;
use super::store::Store;
use super::{bundle, change, collect, docker, import, info, inspect, progress, registry, rest, tags};
use crate::error::{Error, Result};
use clap::{Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// Import, unpack, mount and remove images
#[derive(Parser)]
#[command(name = "orlop imgtool")]
struct Line {
    /// Directory of the store (default: $ORLOP_STORE, /var/lib/orlop for root, $XDG_DATA_HOME/orlop for others)
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// How to tell the progress of import, pull and push, on standard error
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value = "auto")]
    progress: progress::Mode,
    /// Tell no progress
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Import the images of an OCI layout or of docker save: a directory, an archive, or - for standard input
    Import {
        source: PathBuf,
        /// Name of the image, or which of several to import
        name: Option<String>,
        /// Platform to choose, os/arch[/variant] (default: that of this machine)
        #[arg(long)]
        platform: Option<String>,
        /// Leave the blobs of layers out: less room, and no export
        #[arg(long)]
        no_blobs: bool,
        #[command(flatten)]
        limits: Limits,
        /// Form of new layers in the store
        #[arg(long, value_enum, default_value = "auto")]
        layers: Form,
    },
    #[command(flatten)]
    Registry(registry::Command),
    /// List images
    List {
        #[arg(short, long, value_enum, default_value = "table")]
        format: Format,
    },
    /// Print what is known of an image as JSON
    Inspect {
        image: String,
        #[arg(short, long, value_enum, default_value = "oci")]
        format: docker::Form,
    },
    /// Make a bundle of an image
    Unpack {
        image: String,
        bundle: PathBuf,
        /// Mount the rootfs (the default for root)
        #[arg(long, overrides_with = "no_mount")]
        mount: bool,
        /// Leave the mount to the runtime, which makes it for as long as the container lives
        #[arg(long)]
        no_mount: bool,
        /// Make the rootfs read-only
        #[arg(long)]
        rootfs_readonly: bool,
        /// How the layers become a rootfs (default: what the machine can)
        #[arg(long, value_enum)]
        driver: Option<Driver>,
    },
    /// Mount the rootfs of a bundle
    Mount { bundle: PathBuf },
    /// Unmount the rootfs of a bundle
    Umount { bundle: PathBuf },
    /// Remove an image, and what no other image and no bundle uses
    Rm { image: String },
    /// Remove what no image and no bundle uses any more
    Gc {
        /// Keep what each name pointed to, that many images back
        #[arg(long, value_name = "COUNT", default_value_t = tags::KEPT)]
        log: usize,
    },
    #[command(flatten)]
    Info(info::Command),
    #[command(flatten)]
    Rest(rest::Command),
    #[command(flatten)]
    Change(change::Command),
}

/// Carries out `imgtool` with these arguments.
pub fn run(args: Vec<OsString>) -> Result<u8> {
    let line = match Line::try_parse_from([OsString::from("orlop imgtool")].into_iter().chain(args)) {
        Ok(line) => line,
        Err(e) if !e.use_stderr() => {
            print(&e.to_string())?;
            return Ok(0);
        }
        Err(e) => return Err(crate::cli::one_line("imgtool", &e)),
    };
    raise_descriptors();
    progress::show(if line.quiet { progress::Mode::None } else { line.progress });
    let dir = line.store.map_or_else(default_store, Ok)?;
    let store = |exclusive| Store::open(&dir, exclusive);
    match line.command {
        Command::Import { source, name, platform, no_blobs, limits, layers: form } => {
            let platform = platform.as_deref().map_or_else(|| Ok(Platform::host()), Platform::parse)?;
            let (name, blobs) = (name.as_deref(), !no_blobs);
            let order = import::Order { source: &source, name, platform, limits, blobs, form };
            let lines = import::import(&store(false)?, &order)?;
            print(&lines.iter().map(|(name, digest)| format!("{name} {digest}\n")).collect::<String>())?;
        }
        Command::Registry(command) => print(&registry::run(command, &store(false)?)?)?,
        Command::List { format } => {
            let rows = inspect::rows(&store(false)?)?;
            match format {
                Format::Table => print(&inspect::table(&rows))?,
                Format::Json => json(&rows)?,
            }
        }
        Command::Inspect { image, format: docker::Form::Oci } => {
            json(&inspect::inspect(&store(false)?, &image)?)?;
        }
        Command::Inspect { image, format: docker::Form::Docker } => {
            json(&docker::inspect(&store(false)?, &image)?)?;
        }
        Command::Unpack { image, bundle: path, mount, no_mount, rootfs_readonly: readonly, driver } => {
            // An ordinary user cannot mount, but in a user namespace: as its container does.
            let mount = mount || !no_mount && rustix::process::geteuid().is_root();
            let order = bundle::Order { image: &image, bundle: &path, mount, readonly, driver };
            bundle::unpack(&store(false)?, &order)?;
        }
        Command::Mount { bundle: path } => bundle::mount(&path)?,
        Command::Umount { bundle: path } => bundle::unmount(&path)?,
        Command::Rm { image } => {
            let (names, removed) = collect::remove(&store(true)?, &image)?;
            print(&format!("{}: removed, {}\n", names.join(" "), removed))?;
        }
        Command::Gc { log } => print(&format!("removed {}\n", collect::sweep(&store(true)?, log)?))?,
        Command::Info(command) => print(&info::run(&command, &store(false)?)?)?,
        Command::Rest(command) => return rest::run(command, &dir),
        Command::Change(command) => return change::run(command, &store(false)?),
    }
    Ok(0)
}

pub fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::io("standard output", "write", &e))
}

pub fn json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::invalid("json", e.to_string()))?;
    print(&format!("{text}\n"))
}

/// A descriptor for each layer of a tall image.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit); // most images need few
}

fn default_store() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(dir) = std::env::var_os("ORLOP_STORE").filter(|d| !d.is_empty()) {
        return Ok(dir.into());
    }
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/orlop".into());
    }
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|h| h.join(".local/share")));
    data.map(|d| d.join("orlop"))
        .ok_or_else(|| Error::invalid("--store", "is not given, and neither XDG_DATA_HOME nor HOME is set"))
}
