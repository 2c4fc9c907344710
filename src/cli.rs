//! The command line: argv to a [`Request`], and nothing else; no file is touched here.
//!
//! Flags are those of runc, which clients send, with the argument types of `liboci-cli`; what that crate lacks is
//! added here. Global options come before the verb. A verb's arguments are only built when that verb was named, so
//! that parsing costs the same however many verbs there are.

use crate::error::{Error, Result};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

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

#[derive(Debug)]
pub enum Verb {
    Create(Create),
    Start(liboci_cli::Start),
    State(liboci_cli::State),
    Kill(liboci_cli::Kill),
    Delete(liboci_cli::Delete),
    Run(Run),
    List(liboci_cli::List),
    Spec(Spec),
    Features,
    Explain(Explain),
    /// Everything after `imgtool`, which has a command line of its own.
    Imgtool(Vec<OsString>),
}

#[derive(Args, Debug)]
#[group(skip)] // its name is that of the type it wraps
pub struct Create {
    #[command(flatten)]
    pub oci: liboci_cli::Create,
    #[command(flatten)]
    pub more: MoreCreate,
    /// Accepted for crun's callers: create never becomes a subreaper
    #[arg(long)]
    pub no_subreaper: bool,
}

#[derive(Args, Debug)]
#[group(skip)] // its name is that of the type it wraps
pub struct Run {
    #[command(flatten)]
    pub oci: liboci_cli::Run,
    #[command(flatten)]
    pub more: MoreCreate,
}

/// What `create` and `run` take beyond `liboci-cli`.
#[derive(Args, Debug, Default)]
pub struct MoreCreate {
    /// Unix socket which receives a pidfd of the container's init
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// Configuration to use in place of the bundle's config.json
    #[arg(short = 'f', long)]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[group(skip)] // its name is that of the type it wraps
pub struct Spec {
    #[command(flatten)]
    pub oci: liboci_cli::Spec,
    /// File to write in place of the bundle's config.json
    #[arg(short, long)]
    pub file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Explain {
    /// Path to the bundle directory
    #[arg(default_value = ".")]
    pub bundle: PathBuf,
    /// Configuration to use in place of the bundle's config.json
    #[arg(short = 'f', long)]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct ImgtoolArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<OsString>,
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

impl Verb {
    /// The name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Create(_) => "create",
            Verb::Start(_) => "start",
            Verb::State(_) => "state",
            Verb::Kill(_) => "kill",
            Verb::Delete(_) => "delete",
            Verb::Run(_) => "run",
            Verb::List(_) => "list",
            Verb::Spec(_) => "spec",
            Verb::Features => "features",
            Verb::Explain(_) => "explain",
            Verb::Imgtool(_) => "imgtool",
        }
    }
}

/// One verb: its name, its line in `--help`, its arguments, and how they become a [`Verb`].
struct Entry {
    name: &'static str,
    about: &'static str,
    args: fn(Command) -> Command,
    verb: fn(&ArgMatches) -> Result<Verb, clap::Error>,
}

/// The verbs that exist.
const VERBS: [Entry; 11] = [
    Entry {
        name: "create",
        about: "Create a container",
        args: |c| preserve(Create::augment_args(c)),
        verb: |m| Ok(Verb::Create(Create::from_arg_matches(m)?)),
    },
    Entry {
        name: "start",
        about: "Start the program of a created container",
        args: liboci_cli::Start::augment_args,
        verb: |m| Ok(Verb::Start(liboci_cli::Start::from_arg_matches(m)?)),
    },
    Entry {
        name: "state",
        about: "Print the state of a container",
        args: liboci_cli::State::augment_args,
        verb: |m| Ok(Verb::State(liboci_cli::State::from_arg_matches(m)?)),
    },
    Entry {
        name: "kill",
        about: "Send a signal to a container",
        // liboci-cli demands a signal; callers rely on runc's default.
        args: |c| {
            liboci_cli::Kill::augment_args(c).mut_arg("signal", |a| a.required(false).default_value("TERM"))
        },
        verb: |m| Ok(Verb::Kill(liboci_cli::Kill::from_arg_matches(m)?)),
    },
    Entry {
        name: "delete",
        about: "Delete a container and what was made for it",
        args: liboci_cli::Delete::augment_args,
        verb: |m| Ok(Verb::Delete(liboci_cli::Delete::from_arg_matches(m)?)),
    },
    Entry {
        name: "run",
        about: "Create and start a container",
        args: |c| preserve(Run::augment_args(c)),
        verb: |m| Ok(Verb::Run(Run::from_arg_matches(m)?)),
    },
    Entry {
        name: "list",
        about: "List containers",
        args: |c| {
            liboci_cli::List::augment_args(c)
                .mut_arg("format", |a| a.short('f').value_parser(["table", "json"]))
        },
        verb: |m| Ok(Verb::List(liboci_cli::List::from_arg_matches(m)?)),
    },
    Entry {
        name: "spec",
        about: "Write a config.json to begin with",
        args: Spec::augment_args,
        verb: |m| Ok(Verb::Spec(Spec::from_arg_matches(m)?)),
    },
    Entry {
        name: "features",
        about: "Print what this runtime supports",
        args: |c| c,
        verb: |_| Ok(Verb::Features),
    },
    Entry {
        name: "explain",
        about: "Print the plan of a bundle without touching anything",
        args: Explain::augment_args,
        verb: |m| Ok(Verb::Explain(Explain::from_arg_matches(m)?)),
    },
    Entry {
        name: "imgtool",
        about: "Import, unpack, mount and remove images",
        // Its own command line answers --help.
        args: |c| ImgtoolArgs::augment_args(c.disable_help_flag(true)),
        verb: |m| Ok(Verb::Imgtool(ImgtoolArgs::from_arg_matches(m)?.rest)),
    },
];

/// A negative count is an error here and not a container without descriptors.
fn preserve(c: Command) -> Command {
    c.mut_arg("preserve_fds", |a| {
        a.value_parser(clap::value_parser!(i32).range(0..)).allow_negative_numbers(true)
    })
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
        .arg(value("log", "File to append log records to (default: standard error)").value_parser(path))
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
            value("rootless", "Accepted for runc's callers: what a user may do is asked of the host")
                .value_parser(["auto", "true", "false"]),
        )
        .arg(value("criu", "Ignored, as runc does").hide(true))
        // printed after the name: "orlop version 1", the first line that engines parse of runc
        .version(format!("version {}\ncommit: {COMMIT}\nspec: {SPEC}", env!("CARGO_PKG_VERSION")))
        .arg(flag("version", "Print version").short('v').action(clap::ArgAction::Version))
}

/// The whole command line.
fn command() -> Command {
    let mut c = globals().subcommand_required(true);
    for v in VERBS {
        c = c.subcommand(Command::new(v.name).about(v.about).defer(v.args));
    }
    c
}

/// Reads argv, the program's name first.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Request, Stop> {
    let args: Vec<OsString> = args.collect();
    let matches = match command().try_get_matches_from(&args) {
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
    Error::invalid("", what.strip_prefix("error: ").unwrap_or(&what)).hint(format!("see {help}"))
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
/// `usable` says whether a directory is there and ours to write.
pub fn default_root(euid: u32, xdg: Option<OsString>, usable: impl Fn(&Path) -> bool) -> PathBuf {
    if euid == 0 {
        return PathBuf::from("/run/orlop");
    }
    let xdg = xdg.map(PathBuf::from).filter(|p| p.is_absolute());
    let run = PathBuf::from(format!("/run/user/{euid}"));
    match xdg.into_iter().chain([run]).find(|p| usable(p)) {
        Some(dir) => dir.join("orlop"),
        None => PathBuf::from(format!("/tmp/orlop-{euid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        std::iter::once("orlop").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    fn request(line: &str) -> Request {
        match parse(args(line).into_iter()) {
            Ok(r) => r,
            Err(e) => panic!("{line}: {e:?}"),
        }
    }

    /// The verb and the message of a refusal.
    fn refused(line: &str) -> (String, String) {
        match parse(args(line).into_iter()) {
            Err(Stop::Usage { verb, error, .. }) => (verb, error.to_string()),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn definitions_are_consistent() {
        let mut c = globals();
        for v in VERBS {
            c = c.subcommand((v.args)(Command::new(v.name)));
        }
        c.debug_assert();
    }

    #[test]
    fn every_call_that_engines_make_is_read() {
        for (line, verb) in [
            (
                "--root /r --log /b/log.json --log-format json create --bundle /b --pid-file /b/p --console-socket /s c",
                "create",
            ),
            (
                "--root=/r --log=/b/l --log-format=json create --bundle=/b --pid-file=/b/p --preserve-fds=2 c",
                "create",
            ),
            (
                "--cgroup-manager=disabled create --no-pivot --no-new-keyring --no-subreaper --pidfd-socket /s c",
                "create",
            ),
            ("--systemd-cgroup --rootless true start c", "start"),
            ("--debug state c", "state"),
            ("kill c 9", "kill"),
            ("kill --all c SIGTERM", "kill"),
            ("kill c", "kill"),
            ("delete c", "delete"),
            ("delete --force c", "delete"),
            ("run --bundle /b --keep --no-subreaper -d -f other.json c", "run"),
            ("list -q -f json", "list"),
            ("list --format=table", "list"),
            ("spec -b /b --rootless -f x.json", "spec"),
            ("--criu /usr/sbin/criu features", "features"),
            ("explain /b", "explain"),
            ("imgtool --store /s import -q --help x", "imgtool"),
        ] {
            assert_eq!(request(line).verb.name(), verb, "{line}");
        }
    }

    #[test]
    fn values_arrive() {
        let r = request(
            "--root /r --log l --log-format json --debug --log-level warn --rootless false run -b /b -c /s -p p --preserve-fds 3 --pidfd-socket=/q -f g --no-pivot --no-new-keyring --no-subreaper --keep -d id",
        );
        let want = Global {
            root: Some("/r".into()),
            log: Some("l".into()),
            log_format: LogFormat::Json,
            debug: true,
            log_level: Some(LogLevel::Warning),
            cgroup_manager: CgroupManager::Cgroupfs,
        };
        assert_eq!(r.global, want);
        let Verb::Run(Run { oci, more }) = r.verb else { panic!("run") };
        assert_eq!((oci.bundle, oci.container_id.as_str(), oci.preserve_fds), ("/b".into(), "id", 3));
        assert_eq!((oci.console_socket, oci.pid_file), (Some("/s".into()), Some("p".into())));
        assert!(oci.no_pivot && oci.no_new_keyring && oci.no_subreaper && oci.keep && oci.detach);
        assert_eq!((more.pidfd_socket, more.config), (Some("/q".into()), Some("g".into())));
    }

    #[test]
    fn defaults_are_those_of_runc() {
        let r = request("kill c");
        assert_eq!(r.global, Global::default());
        assert!(matches!(r.verb, Verb::Kill(k) if k.signal == "TERM" && !k.all));
        assert!(matches!(request("list").verb, Verb::List(l) if l.format == "table" && !l.quiet));
        assert!(matches!(request("create c").verb, Verb::Create(c) if c.oci.bundle == Path::new(".")));
    }

    #[test]
    fn the_cgroup_manager_has_two_spellings() {
        for (line, manager) in [
            ("list", CgroupManager::Cgroupfs),
            ("--systemd-cgroup list", CgroupManager::Systemd),
            ("--cgroup-manager systemd list", CgroupManager::Systemd),
            ("--cgroup-manager cgroupfs list", CgroupManager::Cgroupfs),
            ("--cgroup-manager disabled list", CgroupManager::Disabled),
        ] {
            assert_eq!(request(line).global.cgroup_manager, manager, "{line}");
        }
    }

    #[test]
    fn the_last_of_a_repeated_option_counts() {
        let r = request("--root /a --root /b list -f json -f table");
        assert_eq!(r.global.root, Some("/b".into()));
        assert!(matches!(r.verb, Verb::List(l) if l.format == "table"));
    }

    #[test]
    fn wrong_usage_is_one_line_with_the_verb() {
        for (line, verb, part) in [
            ("", "", "requires a subcommand"),
            ("frob", "", "'frob'"),
            ("--bogus list", "", "'--bogus'"),
            ("list --bogus", "list", "'--bogus'"),
            ("--log-format xml list", "", "'xml'"),
            ("--rootless maybe list", "", "'maybe'"),
            ("--cgroup-manager x list", "", "'x'"),
            ("--log-level loud list", "", "'loud'"),
            ("list -f yaml", "list", "'yaml'"),
            ("start", "start", "<CONTAINER_ID>"),
            ("start a b", "start", "'b'"),
            ("state", "state", "<CONTAINER_ID>"),
            ("features x", "features", "'x'"),
            ("run --preserve-fds -1 c", "run", "-1"),
            ("run --preserve-fds x c", "run", "'x'"),
            ("delete --regex c", "delete", "'--regex'"),
            ("--root / list", "", "--root"),
            ("--root /.././/. list", "", "--root"),
            ("list --root /r", "list", "'--root'"),
        ] {
            let (v, message) = refused(line);
            assert_eq!(v, verb, "{line}: {message}");
            assert!(message.contains(part), "{line}: {message}");
            assert!(!message.contains("\\n") && !message.contains('\n'), "{line}: {message}");
        }
    }

    #[test]
    fn a_refused_verb_still_has_its_log() {
        let line = "--log /l --log-format json run --bogus c";
        match parse(args(line).into_iter()) {
            Err(Stop::Usage { global, .. }) => {
                assert_eq!((global.log, global.log_format), (Some("/l".into()), LogFormat::Json));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn version_and_help_are_shown() {
        for line in ["--version", "-v", "--debug --version"] {
            let Err(Stop::Show(text)) = parse(args(line).into_iter()) else { panic!("{line}") };
            let lines: Vec<_> = text.lines().collect();
            assert_eq!(lines[0], concat!("orlop version ", env!("CARGO_PKG_VERSION")), "{line}");
            assert!(lines[1].starts_with("commit: "), "{text}");
            assert_eq!(lines[2..], ["spec: 1.3.0"], "{text}");
        }
        for (line, part) in [
            ("--help", "imgtool"),
            ("-h", "--root"),
            ("run --help", "--pidfd-socket"),
            ("help kill", "[SIGNAL]"),
        ] {
            let Err(Stop::Show(text)) = parse(args(line).into_iter()) else { panic!("{line}") };
            assert!(text.contains(part), "{line}: {text}");
        }
    }

    #[test]
    fn imgtool_gets_its_arguments_untouched() {
        let Verb::Imgtool(rest) = request("imgtool -x --help import -- a").verb else { panic!() };
        assert_eq!(rest, ["-x", "--help", "import", "--", "a"].map(OsString::from));
    }

    #[test]
    fn default_root_never_trusts_a_bad_runtime_directory() {
        let there = |dirs: &'static [&'static str]| move |p: &Path| dirs.iter().any(|d| p == Path::new(d));
        for (euid, xdg, dirs, want) in [
            (0, Some("/x"), &["/x"] as &[_], "/run/orlop"),
            (0, None, &[], "/run/orlop"),
            (7, Some("/x"), &["/x", "/run/user/7"], "/x/orlop"),
            (7, Some(""), &["/run/user/7"], "/run/user/7/orlop"),
            (7, Some("x"), &["x", "/run/user/7"], "/run/user/7/orlop"),
            (7, Some("/x"), &["/run/user/7"], "/run/user/7/orlop"),
            (7, None, &["/run/user/7"], "/run/user/7/orlop"),
            (7, Some("/x"), &[], "/tmp/orlop-7"),
            (7, None, &[], "/tmp/orlop-7"),
        ] {
            let got = default_root(euid, xdg.map(OsString::from), there(dirs));
            assert_eq!(got, Path::new(want), "{euid} {xdg:?} {dirs:?}");
        }
    }
}
