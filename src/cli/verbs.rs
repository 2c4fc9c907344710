//! The table of verbs.

use super::args::*;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use std::ffi::OsString;

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
    Exec(Exec),
    Ps(liboci_cli::Ps),
    Pause(liboci_cli::Pause),
    Resume(liboci_cli::Resume),
    Update(Box<Update>),
    Events(Events),
    Checkpoint(Box<Checkpoint>),
    Restore(Box<Restore>),
    Explain(Explain),
    /// Everything after `imgtool`, which has a command line of its own.
    Imgtool(Vec<OsString>),
    Completions(Completions),
    Man(Man),
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
            Verb::Exec(_) => "exec",
            Verb::Ps(_) => "ps",
            Verb::Pause(_) => "pause",
            Verb::Resume(_) => "resume",
            Verb::Update(_) => "update",
            Verb::Events(_) => "events",
            Verb::Checkpoint(_) => "checkpoint",
            Verb::Restore(_) => "restore",
            Verb::Explain(_) => "explain",
            Verb::Imgtool(_) => "imgtool",
            Verb::Completions(_) => "completions",
            Verb::Man(_) => "man",
        }
    }

    /// The exit code of an error: `exec` leaves 1 to the program.
    pub fn failure_code(&self) -> u8 {
        if matches!(self, Verb::Exec(_)) { 255 } else { 1 }
    }
}

/// One verb: its name, its line in `--help`, its arguments, and how they become a [`Verb`].
pub(super) struct Entry {
    pub name: &'static str,
    pub about: &'static str,
    pub args: fn(Command) -> Command,
    pub verb: fn(&ArgMatches) -> Result<Verb, clap::Error>,
}

/// The verbs that exist.
pub(super) const VERBS: [Entry; 21] = [
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
        name: "exec",
        about: "Run another program in a container",
        args: |c| preserve(Exec::augment_args(c)),
        verb: |m| Ok(Verb::Exec(Exec::from_arg_matches(m)?)),
    },
    Entry {
        name: "ps",
        about: "List the processes of a container",
        args: |c| liboci_cli::Ps::augment_args(c).mut_arg("format", |a| a.value_parser(["table", "json"])),
        verb: |m| Ok(Verb::Ps(liboci_cli::Ps::from_arg_matches(m)?)),
    },
    Entry {
        name: "pause",
        about: "Freeze the processes of a container",
        args: liboci_cli::Pause::augment_args,
        verb: |m| Ok(Verb::Pause(liboci_cli::Pause::from_arg_matches(m)?)),
    },
    Entry {
        name: "resume",
        about: "Thaw the processes of a paused container",
        args: liboci_cli::Resume::augment_args,
        verb: |m| Ok(Verb::Resume(liboci_cli::Resume::from_arg_matches(m)?)),
    },
    Entry {
        name: "update",
        about: "Change the limits of a container",
        args: Update::augment_args,
        verb: |m| Ok(Verb::Update(Box::new(Update::from_arg_matches(m)?))),
    },
    Entry {
        name: "events",
        about: "Print what a container uses, and when it runs out of memory",
        args: Events::augment_args,
        verb: |m| Ok(Verb::Events(Events::from_arg_matches(m)?)),
    },
    Entry {
        name: "checkpoint",
        about: "Save a running container to files, through criu",
        args: Checkpoint::augment_args,
        verb: |m| Ok(Verb::Checkpoint(Box::new(Checkpoint::from_arg_matches(m)?))),
    },
    Entry {
        name: "restore",
        about: "Bring a saved container back, through criu",
        args: |c| preserve(Restore::augment_args(c)),
        verb: |m| Ok(Verb::Restore(Box::new(Restore::from_arg_matches(m)?))),
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
        about: "Bring images in, unpack and mount them, look into them, change them, send them on",
        // Its own command line answers --help.
        args: |c| ImgtoolArgs::augment_args(c.disable_help_flag(true)),
        verb: |m| Ok(Verb::Imgtool(ImgtoolArgs::from_arg_matches(m)?.rest)),
    },
    Entry {
        name: "completions",
        about: "Print the script that completes command lines in a shell",
        args: Completions::augment_args,
        verb: |m| Ok(Verb::Completions(Completions::from_arg_matches(m)?)),
    },
    Entry {
        name: "man",
        about: "Write the manual pages",
        args: Man::augment_args,
        verb: |m| Ok(Verb::Man(Man::from_arg_matches(m)?)),
    },
];

/// A negative count is an error here and not a container without descriptors.
fn preserve(c: Command) -> Command {
    c.mut_arg("preserve_fds", |a| {
        a.value_parser(clap::value_parser!(i32).range(0..)).allow_negative_numbers(true)
    })
}
