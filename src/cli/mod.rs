//! The command line: argv to a [`Request`], and nothing else; no file is touched here.
//!
//! Flags are those of runc, which clients send, with the argument types of `liboci-cli`; what that crate lacks is
//! added here. Global options come before the verb. A verb's arguments are only built when that verb was named, so
//! that parsing costs the same however many verbs there are.

use crate::error::{Error, Result};
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgMatches, Command};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

mod args;
mod verbs;

pub use args::*;
use verbs::VERBS;
pub use verbs::Verb;

/// Everything the command line said.
#[derive(Debug)]
pub struct Request {
    pub global: Global,
    pub verb: Verb,
}

/// Options that stand before the verb.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Global {
    /// State root; see [`default_root`].
    pub root: Option<PathBuf>,
    pub log: Option<PathBuf>,
    pub log_format: LogFormat,
    pub debug: bool,
    pub log_level: Option<LogLevel>,
    pub cgroup_manager: CgroupManager,
    /// `None` is `auto`.
    pub rootless: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warning,
    Info,
    Debug,
}

/// Who makes the cgroup. `--systemd-cgroup` is runc's way to say `--cgroup-manager=systemd`, which is crun's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupManager {
    #[default]
    Cgroupfs,
    Systemd,
    /// No cgroup is made or joined.
    Disabled,
}

/// Why there is no request.
#[derive(Debug)]
pub enum Stop {
    /// `--help` or `--version`: print this on standard output and exit 0.
    Show(String),
    /// Wrong usage: exit 1. The global options are there, so that the error reaches the log too; `verb` is empty
    /// when none was recognised.
    Usage { verb: String, global: Box<Global>, error: Error },
}

/// The options before the verb.
fn globals() -> Command {
    let value = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    let flag = |name: &'static str, help: &'static str| value(name, help).action(clap::ArgAction::SetTrue);
    let path = clap::value_parser!(PathBuf);
    Command::new("orlop")
        .about("Open Container Initiative runtime")
        .args_override_self(true) // as in runc, the last of a repeated option counts
        .disable_version_flag(true)
        .arg(value("root", "Directory for the state of containers").value_parser(path.clone()))
        .arg(
            value(
                "log",
                "File to append log records to, or syslog:NAME, journald:NAME (default: standard error)",
            )
            .value_parser(path),
        )
        .arg(value("log-format", "Format of log records").value_parser(["text", "json"]))
        .arg(flag("debug", "Log debug messages"))
        .arg(
            value("log-level", "Least level of log records")
                .value_parser(["error", "warning", "warn", "info", "debug"]),
        )
        .arg(flag("systemd-cgroup", "Let systemd make cgroups (cgroupsPath is slice:prefix:name)"))
        .arg(
            value("cgroup-manager", "Who makes cgroups")
                .value_parser(["cgroupfs", "systemd", "disabled"])
                .conflicts_with("systemd-cgroup"),
        )
        .arg(
            value(
                "rootless",
                "Whether to go on without a cgroup that may not be made (default: auto, all but root)",
            )
            .value_parser(["auto", "true", "false"]),
        )
        .arg(value("criu", "Ignored, as runc does").hide(true))
        // printed after the name: "orlop version 1", the first line that engines parse of runc
        .version(format!("version {}\ncommit: {COMMIT}\nspec: {SPEC}", env!("CARGO_PKG_VERSION")))
        .arg(flag("version", "Print version").short('v').action(clap::ArgAction::Version))
}

/// The whole command line, or that of some verbs.
fn command(of: impl Fn(&str) -> bool) -> Command {
    let verbs = VERBS.iter().filter(|v| of(v.name));
    globals()
        .subcommand_required(true)
        .subcommands(verbs.map(|v| Command::new(v.name).about(v.about).defer(arguments)))
}

/// All of the command line at once, with that of imgtool, for those who describe it; no request is read by it.
pub fn whole(imgtool: Command) -> Command {
    let verb = |v: &verbs::Entry| match v.name {
        "imgtool" => imgtool.clone().name("imgtool"),
        name => arguments(Command::new(name)),
    };
    // One line, for the head of a page.
    globals().version(env!("CARGO_PKG_VERSION")).subcommand_required(true).subcommands(VERBS.iter().map(verb))
}

/// What a command line of a verb reads as to a parser that knows only the verbs among its words. Refusals and help are
/// for the one that knows all.
fn matches(args: &[OsString]) -> clap::error::Result<ArgMatches> {
    let named = command(|verb| args.iter().any(|a| a == verb));
    let read = named.try_get_matches_from(args).or_else(|_| command(|_| true).try_get_matches_from(args));
    read.or_else(|e| match without_empty(args, &e) {
        Some(fewer) => matches(&fewer),
        None => Err(e),
    })
}

/// Paths which are as good as not given when they are empty, as with runc: scripts have `--pid-file "$FILE"`. But not
/// `--root`, which would then be where nobody looks for it.
const MAY_BE_EMPTY: [(&str, &str); 11] = [
    ("--log", ""),
    ("--bundle", "-b"),
    ("--pid-file", ""),
    ("--console-socket", ""),
    ("--pidfd-socket", ""),
    ("--process", "-p"),
    ("--cwd", ""),
    ("--resources", "-r"),
    ("--image-path", ""),
    ("--work-path", ""),
    ("--parent-path", ""),
];

/// The command line without the empty option that it was refused for.
fn without_empty(args: &[OsString], e: &clap::Error) -> Option<Vec<OsString>> {
    let Some(ContextValue::String(option)) = e.get(ContextKind::InvalidArg) else { return None };
    let (long, short) = MAY_BE_EMPTY.iter().find(|o| option.split(' ').next() == Some(o.0))?;
    let is_empty = |n: &usize| args.get(n + 1).is_some_and(|value| value.is_empty());
    let named = |n: &usize| args[*n] == *long || !short.is_empty() && args[*n] == *short;
    let (at, words) = (0..args.len()).find_map(|n| {
        let joined = args[n].to_str().and_then(|a| a.strip_suffix('=')) == Some(*long);
        if joined { Some((n, 1)) } else { Some((n, 2)).filter(|_| named(&n) && is_empty(&n)) }
    })?;
    let mut fewer = args.to_vec();
    fewer.drain(at..at + words);
    Some(fewer)
}

/// A verb's arguments. Their type comes with a line of its own, which is not the verb's.
fn arguments(c: Command) -> Command {
    match VERBS.iter().find(|v| v.name == c.get_name()) {
        Some(v) => (v.args)(c).about(v.about).long_about(None),
        None => c,
    }
}

/// Reads argv, the program's name first.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Request, Stop> {
    let args: Vec<OsString> = args.collect();
    let matches = match matches(&args) {
        Ok(m) => m,
        Err(e) if !e.use_stderr() => return Err(Stop::Show(e.to_string())),
        Err(e) => return Err(usage(&args, &e)),
    };
    let global = global(&matches);
    let stop =
        |verb: &str, error| Stop::Usage { verb: verb.to_string(), global: Box::new(global.clone()), error };
    if let Some(root) = global.root.as_deref().filter(|r| is_slash(r)) {
        return Err(stop(
            "",
            Error::invalid("--root", format!("{root:?} cannot hold the state of containers")),
        ));
    }
    let (name, m) = matches.subcommand().unwrap_or(("", &matches));
    let Some(entry) = VERBS.iter().find(|v| v.name == name) else {
        return Err(stop("", Error::invalid("", "no verb given")));
    };
    match (entry.verb)(m) {
        Ok(verb) => Ok(Request { global, verb }),
        Err(e) => Err(stop(name, one_line(name, &e))),
    }
}

/// The options before the verb alone, whatever follows it.
fn parse_globals(args: &[OsString]) -> Option<ArgMatches> {
    globals().allow_external_subcommands(true).try_get_matches_from(args).ok()
}

fn global(m: &ArgMatches) -> Global {
    let text = |name: &str| m.get_one::<String>(name).map(String::as_str);
    Global {
        root: m.get_one("root").cloned(),
        log: m.get_one("log").cloned(),
        log_format: if text("log-format") == Some("json") { LogFormat::Json } else { LogFormat::Text },
        debug: m.get_flag("debug"),
        log_level: text("log-level").map(|l| match l {
            "error" => LogLevel::Error,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            _ => LogLevel::Warning,
        }),
        cgroup_manager: match text("cgroup-manager") {
            Some("disabled") => CgroupManager::Disabled,
            Some("systemd") => CgroupManager::Systemd,
            _ if m.get_flag("systemd-cgroup") => CgroupManager::Systemd,
            _ => CgroupManager::Cgroupfs,
        },
        rootless: text("rootless").and_then(|r| r.parse().ok()),
    }
}

/// A refusal of the parser, with the global options as far as they can be read without the rest.
fn usage(args: &[OsString], e: &clap::Error) -> Stop {
    let m = parse_globals(args);
    let verb = m.as_ref().and_then(|m| m.subcommand_name()).unwrap_or_default();
    let known = VERBS.iter().find(|v| v.name == verb).map_or("", |v| v.name);
    let global = m.as_ref().map(global).unwrap_or_default();
    Stop::Usage { verb: known.to_string(), global: Box::new(global), error: one_line(known, e) }
}

/// The first paragraph of the parser's message on one line: logs and shims take lines.
pub fn one_line(verb: &str, e: &clap::Error) -> Error {
    let text = e.to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = first.split_whitespace().collect();
    let what = words.join(" ");
    let help = if verb.is_empty() { "orlop --help".into() } else { format!("orlop {verb} --help") };
    let what = what.strip_prefix("error: ").unwrap_or(&what);
    let what = match what.strip_prefix("a value is required for ") {
        // runc's words: podman and CRI-O find out by them whether a runtime has a flag.
        Some(rest) => format!("flag needs an argument: {}", rest.split('\'').nth(1).unwrap_or(rest)),
        None => what.to_string(),
    };
    Error::invalid("", what).hint(format!("see {help}"))
}

/// `/`, however it is spelt.
fn is_slash(p: &Path) -> bool {
    p.has_root() && p.components().all(|c| !matches!(c, Component::Normal(_)))
}

/// The newest specification that is understood.
pub const SPEC: &str = "1.3.0";

/// The commit of the build, where the build said it.
pub const COMMIT: &str = match option_env!("ORLOP_COMMIT") {
    Some(c) => c,
    None => "unknown",
};

/// Where state lives without `--root`: `/run/orlop` for root, `$XDG_RUNTIME_DIR/orlop` for others. Callers export
/// that variable empty, or with a directory of someone else: then `/run/user/UID/orlop`, or at last
/// `/tmp/orlop-UID`, which must be made 0700 and be refused when it belongs to another.
///
/// `usable` says whether a directory is there and ours to write. Root of a user namespace may be an ordinary user
/// (rootless podman and buildah call us from theirs), who cannot write to /run.
pub fn default_root(euid: u32, xdg: Option<OsString>, usable: impl Fn(&Path) -> bool) -> PathBuf {
    let xdg = xdg.map(PathBuf::from).filter(|p| p.is_absolute());
    if euid == 0 {
        let own = xdg.filter(|p| !usable(Path::new("/run")) && usable(p));
        return own.unwrap_or_else(|| "/run".into()).join("orlop");
    }
    let run = PathBuf::from(format!("/run/user/{euid}"));
    match xdg.into_iter().chain([run]).find(|p| usable(p)) {
        Some(dir) => dir.join("orlop"),
        None => PathBuf::from(format!("/tmp/orlop-{euid}")),
    }
}

#[cfg(test)]
mod tests;
