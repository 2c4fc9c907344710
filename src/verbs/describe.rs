//! `completions` and `man`: the command line as shells and readers want it.

use crate::cli;
use crate::error::{Error, Result};
use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use std::path::Path;
use std::str::FromStr;

/// Prints the script for a shell.
pub fn completions(mut whole: Command, a: &cli::Completions) -> Result<()> {
    let shell = Shell::from_str(&a.shell).map_err(|e| Error::invalid("completions", e))?;
    let mut text = Vec::new();
    generate(shell, &mut whole, "orlop", &mut text);
    super::print(&String::from_utf8_lossy(&text))
}

/// Writes a page for the program and each of its commands, `orlop-VERB.1`.
pub fn man(whole: Command, a: &cli::Man) -> Result<()> {
    let dir = &a.dir;
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir.display().to_string(), "make", &e))?;
    let mut whole = whole.disable_help_subcommand(true);
    whole.build();
    pages(&whole, dir)
}

fn pages(command: &Command, dir: &Path) -> Result<()> {
    let page = Man::new(command.clone()).manual("orlop").source(concat!("orlop ", env!("CARGO_PKG_VERSION")));
    let path = dir.join(page.get_filename());
    let failed = |e: std::io::Error| Error::io(path.display().to_string(), "write", &e);
    let mut text = Vec::new();
    page.render(&mut text).map_err(failed)?;
    std::fs::write(&path, text).map_err(failed)?;
    command.get_subcommands().filter(|c| !c.is_hide_set()).try_for_each(|c| pages(c, dir))
}
