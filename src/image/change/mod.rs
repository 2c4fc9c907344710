//! Changing images: each change makes a new image and shares what stays.

pub mod config;
pub mod edit;
pub mod history;
pub mod layers;
pub mod left;
pub mod tree;

use super::layer::compress::Packing;
use super::store::Store;
use super::{cli, diff, tags};
use crate::error::{Error, Result};
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
        changes: Box<config::Changes>,
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
    /// Show how an image came about, the newest step first
    History {
        image: String,
        #[arg(short, long, value_enum, default_value = "table")]
        format: cli::Format,
    },
    /// Show what each layer of an image adds, replaces and removes, and what of it is hidden by those above
    Tree {
        image: String,
        /// Directories that paths are told down to
        #[arg(long, value_name = "N", default_value_t = 1)]
        depth: usize,
        #[arg(short, long, value_enum, default_value = "table")]
        format: cli::Format,
    },
    /// Show what the second of two images, or bundles, has that the first has not so; of a bundle alone, what was
    /// changed in it
    Diff {
        #[arg(value_name = "IMAGE|BUNDLE")]
        a: String,
        #[arg(value_name = "IMAGE|BUNDLE")]
        b: Option<String>,
        /// Show what each layer does that only one of them has
        #[arg(long)]
        layers: bool,
        /// Count files that differ only in their modification time
        #[arg(long)]
        times: bool,
        #[arg(short, long, value_enum, default_value = "table")]
        format: cli::Format,
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
        Command::History { image, format } => {
            let steps = history::history(store, &image)?;
            return shown(format, &steps, || history::table(&steps));
        }
        Command::Tree { image, depth, format } => {
            let report = tree::report(store, &image, depth)?;
            return shown(format, &report, || tree::table(&report));
        }
        Command::Diff { a, b, layers, times, format } => {
            return show_diff(store, &a, b.as_deref(), layers, times, format);
        }
        Command::Log { name, format } => {
            let entries = tags::log(store, &name)?.1;
            return shown(format, &entries, || log_lines(&entries));
        }
    };
    cli::print(&format!("{name} {digest}\n"))?;
    Ok(0)
}

fn shown(format: cli::Format, value: &impl serde::Serialize, table: impl Fn() -> String) -> Result<u8> {
    match format {
        cli::Format::Json => cli::json(value)?,
        cli::Format::Table => cli::print(&table())?,
    }
    Ok(0)
}

fn log_lines(entries: &[tags::Entry]) -> String {
    let line = |e: &tags::Entry| match e.digest {
        Some(d) if e.kept => format!("{} {d}\n", e.time),
        Some(d) => format!("{} {d} (no longer in the store)\n", e.time),
        None => format!("{} removed\n", e.time),
    };
    entries.iter().map(line).collect()
}

fn show_diff(
    store: &Store,
    a: &str,
    b: Option<&str>,
    layers: bool,
    times: bool,
    format: cli::Format,
) -> Result<u8> {
    let (first, second) = match b {
        Some(b) => (diff::Side::of(store, a)?, diff::Side::of(store, b)?),
        None => {
            let bundle = diff::Side::of(store, a)?;
            if bundle.upper.is_none() {
                let what =
                    "is an image, which is compared with a second one, or a bundle that nothing can change";
                return Err(Error::invalid(a, what));
            }
            (diff::Side { ids: bundle.ids.clone(), upper: None }, bundle)
        }
    };
    if !layers {
        let changes = diff::diff(store, &first, &second, times)?;
        return shown(format, &changes, || changes.iter().map(|c| format!("{c}\n")).collect());
    }
    let by_layers = diff::by_layers(store, &first, &second, times)?;
    shown(format, &by_layers, || {
        let common = by_layers.common.iter().enumerate().map(|(n, id)| format!("= layer {} {id}\n", n + 1));
        let rest = |sign: char, all: &[diff::LayerDiff]| -> String {
            let head = |l: &diff::LayerDiff| match l.diff_id {
                Some(id) => format!("{sign} layer {} {id}\n", l.layer),
                None => format!("{sign} upper directory\n"),
            };
            let text = |l: &diff::LayerDiff| {
                head(l) + &l.changes.iter().map(|c| format!("    {c}\n")).collect::<String>()
            };
            all.iter().map(text).collect()
        };
        common.collect::<String>() + &rest('-', &by_layers.a) + &rest('+', &by_layers.b)
    })
}
