//! Changing images: each change makes a new image and shares what stays.

pub mod config;
pub mod edit;
pub mod layers;

use super::layer::compress::Packing;
use super::store::Store;
use super::{cli, tags};
use crate::error::Result;
use clap::{Subcommand, ValueEnum};
use layers::Note;
use std::path::PathBuf;

#[derive(Clone, Copy, ValueEnum)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl From<Compression> for Packing {
    fn from(c: Compression) -> Self {
        match c {
            Compression::None => Packing::Plain,
            Compression::Gzip => Packing::Gzip,
            Compression::Zstd => Packing::Zstd,
        }
    }
}

#[derive(clap::Args)]
pub struct Layering {
    /// What the history says of the new layer
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// How the new layer is packed
    #[arg(long, value_enum, default_value = "gzip")]
    compression: Compression,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make an image of a bundle: what was changed in it becomes a layer on its image
    Commit {
        bundle: PathBuf,
        name: String,
        /// Author of the image
        #[arg(short, long, value_name = "NAME")]
        author: Option<String>,
        #[command(flatten)]
        layering: Layering,
    },
    /// Make an image with another configuration
    Config {
        image: String,
        name: String,
        #[command(flatten)]
        changes: config::Changes,
    },
    /// Make an image with one layer instead of several
    Squash {
        image: String,
        name: String,
        /// The lowest of the layers, counted from 1
        #[arg(long, value_name = "N")]
        from: Option<usize>,
        /// The topmost of the layers
        #[arg(long, value_name = "M")]
        to: Option<usize>,
        #[command(flatten)]
        layering: Layering,
    },
    /// Make an image without one of its layers, counted from 1, the lowest
    RmLayer { image: String, layer: usize, name: String },
    /// Make an image of the same layers on another base
    Rebase {
        image: String,
        name: String,
        /// The new base
        #[arg(long, value_name = "IMAGE")]
        onto: String,
        /// The base that it has (default: the one that the image names)
        #[arg(long, value_name = "IMAGE")]
        base: Option<String>,
    },
    /// Make an image with a directory or an archive as a layer on top
    Append {
        image: String,
        source: PathBuf,
        name: String,
        #[command(flatten)]
        layering: Layering,
    },
    /// Give an image another name
    Tag { image: String, name: String },
    /// Take a name away; what it named stays in its log
    Untag { name: String },
    /// Show what a name pointed to, the newest first
    Log {
        name: String,
        #[arg(short, long, value_enum, default_value = "table")]
        format: cli::Format,
    },
    /// Let a name point to the image that it named before, or N images before
    Revert {
        name: String,
        #[arg(default_value_t = 1)]
        n: usize,
    },
}

impl Layering {
    fn note<'a>(&'a self, author: Option<&'a str>) -> Note<'a> {
        Note { message: self.message.as_deref(), author, packing: self.compression.into() }
    }
}

/// Carries a command out.
pub fn run(command: Command, store: &Store) -> Result<u8> {
    let (name, digest) = match command {
        Command::Commit { bundle, name, author, layering } => {
            let digest = layers::commit(store, &bundle, &name, &layering.note(author.as_deref()))?;
            (name, digest)
        }
        Command::Config { image, name, changes } => {
            let digest = config::config(store, &image, &name, &changes)?;
            (name, digest)
        }
        Command::Squash { image, name, from, to, layering } => {
            let digest = layers::squash(store, &image, (from, to), &name, &layering.note(None))?;
            (name, digest)
        }
        Command::RmLayer { image, layer, name } => {
            let digest = layers::remove(store, &image, layer, &name)?;
            (name, digest)
        }
        Command::Rebase { image, name, onto, base } => {
            let digest = layers::rebase(store, &image, &onto, base.as_deref(), &name)?;
            (name, digest)
        }
        Command::Append { image, source, name, layering } => {
            let digest = layers::append(store, &image, &source, &name, &layering.note(None))?;
            (name, digest)
        }
        Command::Tag { image, name } => {
            let digest = tags::tag(store, &image, &name)?;
            (name, digest)
        }
        Command::Untag { name } => tags::untag(store, &name)?,
        Command::Revert { name, n } => tags::revert(store, &name, n)?,
        Command::Log { name, format } => {
            show_log(&tags::log(store, &name)?.1, format)?;
            return Ok(0);
        }
    };
    cli::print(&format!("{name} {digest}\n"))?;
    Ok(0)
}

fn show_log(entries: &[tags::Entry], format: cli::Format) -> Result<()> {
    if matches!(format, cli::Format::Json) {
        return cli::json(&entries);
    }
    let line = |e: &tags::Entry| match e.digest {
        Some(d) if e.kept => format!("{} {d}\n", e.time),
        Some(d) => format!("{} {d} (no longer in the store)\n", e.time),
        None => format!("{} removed\n", e.time),
    };
    cli::print(&entries.iter().map(line).collect::<String>())
}
