//! The command line of `imgtool`.

use super::driver::{Driver, Form};
use super::limits::Limits;
use super::made::Made;
use super::names::about;
use super::output::{Output, OutputOfRemoval, json, lines, print};
use super::platform::Platform;
use super::registry::reference::Reference;
use super::rights::Rights;
use super::source::{Documents, is_source};
use super::store::Store;
use super::{bundle, change, collect, docker, help, import, info, inspect, progress, registry, rest, tags};
use crate::error::{Error, Result};
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Bring images in, unpack and mount them, look into them, change them, send them on
#[derive(Parser)]
#[command(name = "orlop imgtool", after_long_help = help::MORE)]
struct Line<C: Subcommand> {
    /// Directory of the store (default: $ORLOP_STORE, /var/lib/orlop for root of the machine, $XDG_DATA_HOME/orlop for others)
    #[arg(long, global = true, value_name = "DIR")]
    store: Option<PathBuf>,
    /// How to tell on standard error how far commands are that move much
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value = "auto")]
    progress: progress::Mode,
    /// Tell no progress, and of what is listed or made names or digests alone, one on a line
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: C,
}

/// The commands that the start of a container waits for. The command line of all takes as long to make as a mount, so
/// these are looked for alone first.
#[derive(Subcommand)]
enum Bundles {
    /// Make a bundle of an image
    Unpack {
        /// Image: a name, or a digest or the start of one
        image: String,
        /// Directory of the bundle: empty, or made where nothing is
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
        /// Keep what is written there, a new directory, on a tmpfs or on another disk (default: in the bundle)
        #[arg(long, value_name = "DIR", conflicts_with = "rootfs_readonly")]
        upper: Option<PathBuf>,
    },
    /// Mount the rootfs of a bundle
    Mount {
        /// Directory of the bundle
        bundle: PathBuf,
    },
    /// Unmount the rootfs of a bundle
    #[command(visible_alias = "unmount")]
    Umount {
        /// Directory of the bundle
        bundle: PathBuf,
    },
}

#[derive(Subcommand)]
enum Command {
    /// Import the images of an OCI layout or of docker save
    #[command(after_help = help::IMPORT)]
    Import {
        /// Directory of a layout, an archive, packed or not, or - for one from standard input
        source: PathBuf,
        /// Name of the image, or which of several to import (default: their own, or that of the file)
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
        #[command(flatten)]
        output: Output,
    },
    #[command(flatten)]
    Registry(registry::Command),
    /// List images
    #[command(visible_alias = "ls", after_help = help::LIST)]
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Print what is known of an image as JSON
    #[command(after_help = help::INSPECT)]
    Inspect {
        /// Image: a name, or a digest or the start of one; or the path of a layout or an archive, with :NAME for one of several
        image: String,
        /// Form of the answer
        #[arg(short, long, value_enum, value_name = "FORM", default_value = "oci")]
        format: docker::Form,
    },
    #[command(flatten)]
    Bundles(Bundles),
    /// Remove images, and what no other image and no bundle uses
    #[command(visible_alias = "rmi", after_help = help::RM)]
    Rm {
        /// Images: by a name this alone goes, by a digest all names of the image
        #[arg(value_name = "IMAGE", required = true)]
        images: Vec<String>,
        #[command(flatten)]
        output: OutputOfRemoval,
    },
    /// Remove what no image and no bundle uses any more
    #[command(visible_alias = "prune", after_help = help::GC)]
    Gc {
        /// Keep what each name pointed to, that many images back
        #[arg(long, value_name = "COUNT", default_value_t = tags::KEPT)]
        log: usize,
        #[command(flatten)]
        output: OutputOfRemoval,
    },
    #[command(flatten)]
    Info(info::Command),
    #[command(flatten)]
    Rest(rest::Command),
    #[command(flatten)]
    Change(change::Command),
}

/// The command line, for those who describe it.
pub fn command() -> clap::Command {
    Line::<Command>::command()
}

/// Carries out `imgtool` with these arguments.
pub fn run(args: Vec<OsString>) -> Result<u8> {
    let words = [OsString::from("orlop imgtool")].into_iter().chain(args.clone());
    let of_bundles = Line::<Bundles>::try_parse_from(words.clone()).map(|l| Line {
        store: l.store,
        progress: l.progress,
        quiet: l.quiet,
        command: Command::Bundles(l.command),
    });
    let line = match of_bundles.or_else(|_| Line::<Command>::try_parse_from(words)) {
        Ok(line) => line,
        Err(e) if !e.use_stderr() => {
            print(&e.to_string())?;
            return Ok(0);
        }
        Err(e) => return Err(crate::cli::one_line(&refused(&args), &e)),
    };
    raise_descriptors();
    progress::show(if line.quiet { progress::Mode::None } else { line.progress });
    let dir = line.store.map_or_else(default_store, Ok)?;
    let is_export = matches!(line.command, Command::Rest(rest::Command::Export { .. }));
    let done = carry_out(line.command, &dir, line.quiet);
    done.inspect_err(|_| progress::clear()).map_err(|e| if is_export { e } else { with_room(e) })
}

/// The command whose help says what is wrong.
fn refused(args: &[OsString]) -> String {
    let all = command();
    let known = args.iter().find_map(|a| all.find_subcommand(a));
    known.map_or("imgtool".into(), |c| format!("imgtool {}", c.get_name()))
}

fn listed(dir: &Path) -> Result<Vec<inspect::Row>> {
    let rows = match Store::existing(dir, false) {
        // Nothing was brought in yet.
        Err(e) if e.errno() == Some(libc::ENOENT) && default_store().is_ok_and(|d| d == dir) => Vec::new(),
        store => inspect::rows(&store?)?,
    };
    for row in &rows {
        row.error.iter().for_each(|e| tracing::warn!("image {:?}: {e}", row.name));
    }
    Ok(rows)
}

fn carry_out(command: Command, dir: &Path, quiet: bool) -> Result<u8> {
    let store = |exclusive| Store::existing(dir, exclusive);
    // What lies elsewhere needs none that is there, but a place to inflate it.
    let asked = |image: &str| match is_source(image) {
        true => Store::open(dir, false),
        false => Store::existing(dir, false),
    };
    match command {
        Command::Import { source, name, platform, no_blobs, limits, layers: form, output } => {
            let platform = platform.as_deref().map_or_else(|| Ok(Platform::host()), Platform::parse)?;
            let (name, blobs) = (name.as_deref(), !no_blobs);
            let order = import::Order { source: &source, name, platform, limits, blobs, form };
            let store = Store::open(dir, false)?;
            let all = import::import(&store, &order).map_err(|e| source_hint(e, &source))?;
            let made = |(name, digest)| Made::of(&store, name, digest);
            Made::show_all(&all.into_iter().map(made).collect::<Vec<_>>(), output, quiet)?;
        }
        Command::Registry(command @ registry::Command::Pull { .. }) => {
            registry::run(command, &Store::open(dir, false)?, quiet)?
        }
        Command::Registry(command) => registry::run(command, &store(false)?, quiet)?,
        Command::List { output } => {
            let rows = listed(dir)?;
            output.show(quiet, &rows, || inspect::table(&rows), rows.iter().map(|r| r.name.clone()))?;
        }
        Command::Inspect { image, .. } if quiet => {
            lines([Documents::find(&asked(&image)?, &image)?.digest.to_string()])?;
        }
        Command::Inspect { image, format: docker::Form::Oci } => {
            let store = asked(&image)?;
            let documents = Documents::find(&store, &image)?;
            json(&about(&image, inspect::inspect(&store, &documents))?)?;
        }
        Command::Inspect { image, format: docker::Form::Docker } => {
            json(&about(&image, docker::inspect(&store(false)?, &image))?)?;
        }
        Command::Bundles(command) => return carry_out_of_bundles(command, dir),
        Command::Rm { images, output } => {
            let removed = collect::remove(&store(true)?, &images)?;
            Output::from(output).show(quiet, &removed, || removed.line(), removed.names.clone())?;
        }
        Command::Gc { log, output } => {
            let removed = collect::sweep(&store(true)?, log)?;
            let all = removed.layers.iter().chain(&removed.blobs).cloned();
            Output::from(output).show(quiet, &removed, || removed.line(), all)?;
        }
        Command::Info(command) => info::run(&command, &Store::open(dir, false)?, quiet)?,
        Command::Rest(command) => return rest::run(command, dir, quiet),
        Command::Change(command) => {
            let store = match &command {
                change::Command::History { image, .. } => asked(image),
                _ => store(false),
            };
            return change::run(command, &store?, quiet);
        }
    }
    Ok(0)
}

fn carry_out_of_bundles(command: Bundles, dir: &Path) -> Result<u8> {
    match command {
        Bundles::Unpack {
            image,
            bundle: path,
            mount,
            no_mount,
            rootfs_readonly: readonly,
            driver,
            upper,
        } => {
            // An ordinary user cannot mount, but in a user namespace: as its container does.
            let mount = mount || !no_mount && rustix::process::geteuid().is_root();
            let upper = upper.as_deref();
            let order = bundle::Order { image: &image, bundle: &path, mount, readonly, driver, upper };
            about(&image, bundle::unpack(&Store::existing(dir, false)?, &order))?;
        }
        Bundles::Mount { bundle: path } => bundle::mount(&path)?,
        Bundles::Umount { bundle: path } => bundle::unmount(&path)?,
    }
    Ok(0)
}

/// What to do about a full store.
fn with_room(e: Error) -> Error {
    match e.errno() {
        Some(libc::ENOSPC | libc::EDQUOT) if e.hint.is_none() => {
            e.hint("orlop imgtool df shows what the store takes, gc removes what nothing uses")
        }
        _ => e,
    }
}

/// What to do about a source that is written as other tools have it.
fn source_hint(e: Error, source: &Path) -> Error {
    let word = source.to_string_lossy();
    let transports = ["oci:", "oci-archive:", "docker-archive:", "dir:"];
    if e.errno() != Some(libc::ENOENT) || e.hint.is_some() || source.exists() {
        e
    } else if transports.iter().any(|t| word.starts_with(t)) {
        e.hint("give the path alone, and a name behind it")
    } else if word.starts_with("docker://") || Reference::parse(&word).is_ok() {
        e.hint("images of a registry come by orlop imgtool pull")
    } else {
        e
    }
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
    // That of the machine is not for root of a user namespace, who is somebody else outside.
    if Rights::ours().nodes {
        return Ok("/var/lib/orlop".into());
    }
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|h| h.join(".local/share")));
    data.map(|d| d.join("orlop"))
        .ok_or_else(|| Error::invalid("--store", "is not given, and neither XDG_DATA_HOME nor HOME is set"))
}
