//! Registries by the OCI distribution specification: images are pulled from them and pushed to them.
//!
//! [`client`] speaks HTTP for a repository that [`reference`] names, with rights ([`auth`], [`challenge`],
//! [`credentials`]) and addresses ([`resolve`]) of its own. [`pull`] shows a repository as the files of an OCI layout,
//! whose layers are [`body`]s on their way; [`push`] sends what the store has.

pub mod auth;
pub mod body;
pub mod challenge;
pub mod client;
pub mod credentials;
pub mod pull;
pub mod push;
pub mod reference;
pub mod resolve;
pub mod url;

use super::driver::Form;
use super::help;
use super::limits::Limits;
use super::made::Made;
use super::names::about;
use super::output::Output;
use super::platform::Platform;
use super::store::Store;
use crate::error::Result;
use client::Wire;
use reference::Reference;

#[derive(clap::Subcommand)]
pub enum Command {
    /// Pull an image from a registry
    #[command(after_help = help::MADE)]
    Pull {
        /// [REGISTRY/]REPOSITORY[:TAG][@DIGEST]
        image: String,
        /// Name of the image in the store (default: as it was asked for, with its tag)
        name: Option<String>,
        /// Platform to choose, os/arch[/variant] (default: that of this machine)
        #[arg(long)]
        platform: Option<String>,
        /// Do not keep the blobs of layers: what is pulled so cannot be pushed or exported
        #[arg(long)]
        no_blobs: bool,
        #[command(flatten)]
        wire: Wire,
        #[command(flatten)]
        limits: Limits,
        /// Form of new layers in the store
        #[arg(long, value_enum, default_value = "auto")]
        layers: Form,
        #[command(flatten)]
        output: Output,
    },
    /// Push an image to a registry
    #[command(after_help = help::MADE)]
    Push {
        /// Image: a name, or a digest or the start of one
        image: String,
        /// [REGISTRY/]REPOSITORY[:TAG]
        target: String,
        /// Send blobs in pieces of so many bytes, for servers that take no large ones (default: in one)
        #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
        chunk_bytes: Option<u64>,
        #[command(flatten)]
        wire: Wire,
        #[command(flatten)]
        output: Output,
    },
}

/// Carries out a command.
pub fn run(command: Command, store: &Store, quiet: bool) -> Result<()> {
    // As skopeo has it.
    let parse = |word: &str| Reference::parse(word.strip_prefix("docker://").unwrap_or(word));
    match command {
        Command::Pull { image, name, platform, no_blobs, wire, limits, layers: form, output } => {
            let platform = platform.as_deref().map_or_else(|| Ok(Platform::host()), Platform::parse)?;
            let reference = parse(&image)?;
            let name = name.unwrap_or_else(|| reference.familiar());
            let blobs = !no_blobs;
            let order = pull::Order { reference, name: &name, platform, wire, limits, blobs, form };
            let digest = pull::pull(store, &order)?;
            Made::of(store, name, digest).show(output, quiet)
        }
        Command::Push { image, target, chunk_bytes, wire, output } => {
            let order = push::Order { image: &image, target: parse(&target)?, chunk_bytes, wire };
            let digest = about(&image, push::push(store, &order))?;
            Made::of(store, order.target.to_string(), digest).show(output, quiet)
        }
    }
}
