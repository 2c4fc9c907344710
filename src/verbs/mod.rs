//! One file per verb: load, plan, act, record.

pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod describe;
pub mod events;
pub mod exec;
pub mod explain;
pub mod features;
pub mod kill;
pub mod list;
pub mod make;
pub mod pause;
pub mod ps;
pub mod restore;
pub mod resume;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use crate::cli::{self, Global, Request, Verb};
use crate::container::{Container, StateRoot, Status};
use crate::error::{Error, Kind, Result};
use crate::sys::signal;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Carries out a request; the exit code.
pub fn dispatch(request: Request) -> Result<u8> {
    let global = &request.global;
    match request.verb {
        Verb::Create(a) => create::create(&root(global)?, &order_of_create(&a, global)?)?,
        Verb::Run(a) => {
            let stay = run::Stay { detach: a.oci.detach, keep: a.oci.keep, subreaper: !a.oci.no_subreaper };
            return Ok(exit_code(run::run(&root(global)?, &order_of_run(&a, global)?, &stay)?));
        }
        Verb::Start(a) => start::start(&root(global)?, &a.container_id)?,
        Verb::State(a) => state::state(&root(global)?, &a.container_id)?,
        Verb::Kill(a) => kill::kill(&root(global)?, &a.container_id, &a.signal, a.all)?,
        Verb::Delete(a) => delete::delete(&root(global)?, &a.container_id, a.force)?,
        Verb::List(a) => list::list(&root(global)?, global.root.is_some(), list_format(&a)?)?,
        Verb::Spec(a) => spec::run(&a)?,
        Verb::Features => features::run()?,
        Verb::Exec(a) => return Ok(exit_code(exec::exec(&root(global)?, &a)?)),
        Verb::Ps(a) => ps::ps(&root(global)?, &a)?,
        Verb::Pause(a) => pause::pause(&root(global)?, &a.container_id)?,
        Verb::Resume(a) => resume::resume(&root(global)?, &a.container_id)?,
        Verb::Update(a) => update::update(&root(global)?, &a)?,
        Verb::Events(a) => events::events(&root(global)?, &a)?,
        Verb::Checkpoint(a) => checkpoint::checkpoint(&root(global)?, &a)?,
        Verb::Restore(a) => return Ok(exit_code(restore::restore(&root(global)?, &a, global)?)),
        Verb::Explain(a) => explain::explain(&a.bundle, a.config.as_deref(), global.cgroup_manager)?,
        Verb::Imgtool(args) => return imgtool(args),
        Verb::Completions(a) => describe::completions(whole(), &a)?,
        Verb::Man(a) => describe::man(whole(), &a)?,
    }
    Ok(0)
}

fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(255)
}

/// The seam to the image tool, whose code no other verb reaches.
fn imgtool(args: Vec<std::ffi::OsString>) -> Result<u8> {
    crate::image::cli::run(args)
}

/// The whole command line, with that of the image tool.
fn whole() -> clap::Command {
    cli::whole(crate::image::cli::command())
}

/// A verb that this status does not allow; `act` is what cannot be done: `pause`. The first words are those of runc,
/// which engines look for.
fn not_running(c: &Container, status: Status, act: &str) -> Error {
    let what = format!("container not running: cannot {act} a {} container", status.as_str());
    Error::new(Kind::WrongState, format!("container {:?}", c.record.id), what)
}

/// A reader that leaves early, `events ID | head -1`, ends us without a word, as it ends any filter.
pub(crate) fn print(text: &str) -> Result<()> {
    let write = || std::io::stdout().write_all(text.as_bytes());
    let gone = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    let done = match write() {
        Err(e) if gone(&e) && signal::set_default(libc::SIGPIPE).is_ok() => write(), // returns if SIGPIPE is blocked
        other => other,
    };
    done.map_err(|e| Error::io("standard output", "write", &e))
}

/// The state root; without `--root` it is the user's own directory.
fn root(global: &Global) -> Result<StateRoot> {
    if let Some(path) = &global.root {
        let path = std::path::absolute(path).map_err(|e| Error::io("--root", "resolve", &e))?;
        return Ok(StateRoot::new(path));
    }
    let euid = nix::unistd::geteuid().as_raw();
    let usable =
        |p: &Path| std::fs::metadata(p).is_ok_and(|m| m.is_dir() && m.uid() == euid && m.mode() & 0o200 != 0);
    let path = cli::default_root(euid, std::env::var_os("XDG_RUNTIME_DIR"), usable);
    if path.starts_with("/tmp") {
        secure(&path, euid)?;
    }
    Ok(StateRoot::new(path))
}

/// Where everybody may make names, only a directory that is ours already stays the one that was checked: a link, or a
/// name that is free, could be another's directory a moment later, and its state.json names programs to run.
fn secure(dir: &Path, euid: u32) -> Result<()> {
    let at = dir.to_string_lossy();
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            let other = "the state of containers goes to XDG_RUNTIME_DIR, if it is set, or where --root says";
            return Err(Error::io(at, "mkdir", &e).hint(other));
        }
        _ => {}
    }
    let about = std::fs::symlink_metadata(dir).map_err(|e| Error::io(&*at, "lstat", &e))?;
    if about.is_dir() && about.uid() == euid && about.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::invalid(at, "is no directory that belongs to this user alone"))
}

fn list_format(a: &liboci_cli::List) -> Result<list::Format> {
    match a.format.as_str() {
        _ if a.quiet => Ok(list::Format::Quiet),
        "table" => Ok(list::Format::Table),
        "json" => Ok(list::Format::Json),
        other => Err(Error::invalid("--format", format!("{other:?} is neither table nor json"))),
    }
}

fn order(id: &str, bundle: &Path, more: &cli::MoreCreate, global: &Global) -> Result<make::Order> {
    Ok(make::Order {
        id: id.to_string(),
        bundle: bundle.to_path_buf(),
        config: more.config.clone().unwrap_or_else(|| PathBuf::from("config.json")),
        pidfd_socket: more.pidfd_socket.clone(),
        cgroup_manager: global.cgroup_manager,
        rootless: global.rootless,
        ..make::Order::default()
    })
}

fn preserve(count: i32) -> Result<u32> {
    u32::try_from(count).map_err(|_| Error::invalid("--preserve-fds", format!("{count} is negative")))
}

/// liboci-cli has two types of the same fields for the two verbs.
macro_rules! order {
    ($args:expr, $global:expr) => {{
        let oci = &$args.oci;
        Ok(make::Order {
            console_socket: oci.console_socket.clone(),
            pid_file: oci.pid_file.clone(),
            no_pivot: oci.no_pivot,
            no_new_keyring: oci.no_new_keyring,
            preserve_fds: preserve(oci.preserve_fds)?,
            ..order(&oci.container_id, &oci.bundle, &$args.more, $global)?
        })
    }};
}

fn order_of_create(args: &cli::Create, global: &Global) -> Result<make::Order> {
    order!(args, global)
}

fn order_of_run(args: &cli::Run, global: &Global) -> Result<make::Order> {
    order!(args, global)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_that_cannot_be_made_says_what_else_to_set() {
        let e = secure(Path::new("/proc/nowhere/orlop-7"), 7).unwrap_err().to_string();
        let words = ["/proc/nowhere/orlop-7: mkdir: no such file", "XDG_RUNTIME_DIR", "--root"];
        assert!(words.iter().all(|w| e.contains(w)), "{e}");
    }
}
