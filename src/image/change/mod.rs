//! Changing images: each change makes a new image and shares what stays.

pub mod config;
pub mod edit;
pub mod history;
pub mod layers;
pub mod left;
pub mod tree;

use super::layer::compress::Packing;
use super::limits::Limits;
use super::made::Made;
use super::names::about;
use super::output::Output;
use super::store::Store;
use super::{diff, help, tags};
use crate::error::{Error, Result};
use clap::{Subcommand, ValueEnum};
use layers::Note;
use std::path::PathBuf;

#[derive(Clone, Copy, ValueEnum)]
pub enum Compression {
    /// As a plain tar stream
    None,
    /// Taken by every tool
    Gzip,
    /// Smaller and faster, for tools since 2020
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
    /// What the history says of the new layer (default: nothing)
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// How the new layer is packed
    #[arg(long, value_enum, default_value = "gzip")]
    compression: Compression,
    #[command(flatten)]
    limits: Limits,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make an image of a bundle: what was changed in it becomes a layer on its image
    ///
    /// Pause a container that goes on meanwhile (orlop pause): a file that it renames just then may be in the layer under
    /// neither name.
    #[command(after_help = help::CHANGED)]
    Commit {
        /// Directory of the bundle
        bundle: PathBuf,
        /// Name of the new image
        name: String,
        /// Author of the image (default: as it was)
        #[arg(short, long, value_name = "NAME")]
        author: Option<String>,
        #[command(flatten)]
        layering: Box<Layering>,
        #[command(flatten)]
        output: Output,
    },
    /// Make an image with another configuration
    #[command(after_help = help::CHANGED)]
    Config {
        /// Image: a name, or a digest or the start of one
        image: String,
        /// Name of the new image
        name: String,
        #[command(flatten)]
        changes: Box<config::Changes>,
        #[command(flatten)]
        output: Output,
    },
    /// Make an image with one layer instead of several
    #[command(after_help = help::CHANGED)]
    Squash {
        /// Image: a name, or a digest or the start of one
        image: String,
        /// Name of the new image
        name: String,
        /// The lowest of the layers: its number, or a digest or the start of one (default: 1, the lowest of the image)
        #[arg(long, value_name = "LAYER")]
        from: Option<String>,
        /// The topmost of the layers, in the same way (default: that of the image)
        #[arg(long, value_name = "LAYER")]
        to: Option<String>,
        #[command(flatten)]
        layering: Box<Layering>,
        #[command(flatten)]
        output: Output,
    },
    /// Make an image without one of its layers
    #[command(after_help = help::CHANGED)]
    RmLayer {
        /// Image: a name, or a digest or the start of one
        image: String,
        /// The layer: its number, counted from 1, the lowest, or a digest or the start of one
        layer: String,
        /// Name of the new image
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make an image of the same layers on another base
    #[command(after_help = help::CHANGED)]
    Rebase {
        /// Image: a name, or a digest or the start of one
        image: String,
        /// Name of the new image
        name: String,
        /// The new base
        #[arg(long, value_name = "IMAGE")]
        onto: String,
        /// The base that it has (default: the one that the image names in its annotations)
        #[arg(long, value_name = "IMAGE")]
        base: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Make an image with a directory or an archive as a layer on top
    #[command(after_help = help::CHANGED)]
    Append {
        /// Image: a name, or a digest or the start of one
        image: String,
        /// Directory, or archive, packed or not
        source: PathBuf,
        /// Name of the new image
        name: String,
        #[command(flatten)]
        layering: Box<Layering>,
        #[command(flatten)]
        output: Output,
    },
    /// Show how an image came about, the newest step first
    #[command(after_help = help::HISTORY)]
    History {
        /// Image: a name, or a digest or the start of one; or the path of a layout or an archive, with :NAME for one of several
        image: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show what each layer of an image adds, replaces and removes, and what of it is hidden by those above
    #[command(after_help = help::TREE)]
    Tree {
        /// Image: a name, or a digest or the start of one
        image: String,
        /// How many directories deep paths are told
        #[arg(long, value_name = "N", default_value_t = 1)]
        depth: usize,
        #[command(flatten)]
        output: Output,
    },
    /// Show what the second of two images or bundles has that the first has not so, or what was changed in a bundle
    #[command(after_help = help::DIFF)]
    Diff {
        /// What it is compared with, or a bundle that is compared with its image
        #[arg(value_name = "IMAGE|BUNDLE")]
        a: String,
        /// What is looked at (default: the bundle that is given alone)
        #[arg(value_name = "IMAGE|BUNDLE")]
        b: Option<String>,
        /// Show what each layer does that only one of them has
        #[arg(long)]
        layers: bool,
        /// Count files that differ only in their modification time
        #[arg(long)]
        times: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Give an image another name
    #[command(after_help = help::MADE)]
    Tag {
        /// Image: a name, or a digest or the start of one
        image: String,
        /// The other name
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Take a name away; what it named stays in its log
    #[command(after_help = help::MADE)]
    Untag {
        /// Name of an image
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show what a name pointed to, the newest first
    #[command(after_help = help::LOG)]
    Log {
        /// Name that an image has or had
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Let a name point to an image that it named before
    #[command(after_help = help::MADE)]
    Revert {
        /// Name that an image has or had
        name: String,
        /// How many images back
        #[arg(default_value_t = 1)]
        n: usize,
        #[command(flatten)]
        output: Output,
    },
}

impl Layering {
    fn note<'a>(&'a self, author: Option<&'a str>) -> Note<'a> {
        let packing = self.compression.into();
        Note { message: self.message.as_deref(), author, packing, limits: &self.limits }
    }
}

/// Carries a command out.
pub fn run(command: Command, store: &Store, quiet: bool) -> Result<u8> {
    let of = |name, digest| Made::of(store, name, digest);
    let (made, output) = match command {
        Command::Commit { bundle, name, author, layering, output } => {
            (layers::commit(store, &bundle, &name, &layering.note(author.as_deref()))?, output)
        }
        Command::Config { image, name, changes, output } => {
            (about(&image, config::config(store, &image, &name, &changes))?, output)
        }
        Command::Squash { image, name, from, to, layering, output } => {
            let range = (from.as_deref(), to.as_deref());
            (about(&image, layers::squash(store, &image, range, &name, &layering.note(None)))?, output)
        }
        Command::RmLayer { image, layer, name, output } => {
            (about(&image, layers::remove(store, &image, &layer, &name))?, output)
        }
        Command::Rebase { image, name, onto, base, output } => {
            (about(&image, layers::rebase(store, &image, &onto, base.as_deref(), &name))?, output)
        }
        Command::Append { image, source, name, layering, output } => {
            (about(&image, layers::append(store, &image, &source, &name, &layering.note(None)))?, output)
        }
        Command::Tag { image, name, output } => {
            let digest = tags::tag(store, &image, &name)?;
            (of(name, digest), output)
        }
        Command::Untag { name, output } => {
            let (name, digest) = tags::untag(store, &name)?;
            (of(name, digest), output)
        }
        Command::Revert { name, n, output } => {
            let (name, digest) = tags::revert(store, &name, n)?;
            (of(name, digest), output)
        }
        shown => return show(shown, store, quiet),
    };
    made.show(output, quiet)?;
    Ok(0)
}

/// Carries out a command that only shows.
fn show(command: Command, store: &Store, quiet: bool) -> Result<u8> {
    match command {
        Command::History { image, output } => {
            let steps = about(&image, history::history(store, &image))?;
            let ids = steps.iter().filter_map(|s| s.diff_id).map(|d| d.to_string());
            output.show(quiet, &steps, || history::table(&steps), ids)?;
        }
        Command::Tree { image, depth, output } => {
            let report = about(&image, tree::report(store, &image, depth))?;
            let ids = report.layers.iter().map(|l| l.diff_id.to_string());
            output.show(quiet, &report, || tree::table(&report), ids)?;
        }
        Command::Diff { a, b, layers, times, output } => {
            let (a, b) = sides(store, &a, b.as_deref())?;
            if layers {
                let all = diff::by_layers(store, &a, &b, times)?;
                let ids = all.a.iter().chain(&all.b).filter_map(|l| l.diff_id).map(|d| d.to_string());
                output.show(quiet, &all, || layers_lines(&all), ids)?;
            } else {
                let all = diff::diff(store, &a, &b, times)?;
                let paths = all.iter().map(|c| c.path.clone());
                output.show(quiet, &all, || all.iter().map(|c| format!("{c}\n")).collect(), paths)?;
            }
        }
        Command::Log { name, output } => {
            let entries = tags::log(store, &name)?.1;
            let ids = entries.iter().filter_map(|e| e.digest).map(|d| d.to_string());
            output.show(quiet, &entries, || log_lines(&entries), ids)?;
        }
        _ => {}
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

/// What is compared with what; of a bundle alone, with its image.
fn sides(store: &Store, a: &str, b: Option<&str>) -> Result<(diff::Side, diff::Side)> {
    let first = diff::Side::of(store, a)?;
    match b {
        Some(b) => Ok((first, diff::Side::of(store, b)?)),
        None if first.upper.is_some() => Ok((diff::Side { ids: first.ids.clone(), upper: None }, first)),
        None => {
            let what =
                "is an image, which is compared with a second one, or a bundle that nothing can change";
            Err(Error::invalid(a, what))
        }
    }
}

fn layers_lines(all: &diff::LayersDiff) -> String {
    let common = all.common.iter().enumerate().map(|(n, id)| format!("= layer {} {id}\n", n + 1));
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
    common.collect::<String>() + &rest('-', &all.a) + &rest('+', &all.b)
}
