//! orlop, a low-level OCI container runtime.
//!
//! **config.json becomes a plan, the plan becomes a process.** The rooms, from the outside in:
//!
//! | room | job | may touch |
//! |---|---|---|
//! | [`cli`], [`log`] | argv to a request; a log file, syslog or the journal, and what goes to standard error | the log |
//! | [`error`] | the one error type, its printing | nothing |
//! | [`config`], [`bundle`] | the document as it was written; a bundle opened | the bundle |
//! | [`host`] | facts about the host, asked once | procfs, sysfs, read only |
//! | [`seal`] | our own program sealed against the container | our executable |
//! | [`container`] | ids, locks, records; the status as reality has it | the state root |
//! | [`plan`] | document + facts to a decided plan: one file for each section, and [`plan::order`] for **the** order of steps | nothing: pure |
//! | [`spawn`], [`sync`], [`idmaps`], [`interfaces`], [`notify`] | the parent's half: descriptors, the clone, answers to init | the child |
//! | [`init`] | the container's half: each step done or reported, without allocating | its own namespaces |
//! | [`cgroup`] | cgroups made, by us or by systemd, joined, limited, read, frozen, killed, removed | cgroupfs, the bus of systemd |
//! | [`resctrl`] | shares of cache and memory bandwidth (Intel RDT) | the resctrl file system |
//! | [`attached`] | the rootfs of a container without a mount namespace, in the runtime's | that mount |
//! | [`hooks`], [`console`], [`foreground`], [`ready`] | hooks of the host; terminals; the wait for a program in the foreground; sd_notify | processes, ttys |
//! | [`criu`] | checkpoint and restore: criu asked over its socket, and the mounts that it finds | criu, a mount namespace for it |
//! | [`verbs`] | one file per verb: load, plan, act, record | through the rooms above |
//! | [`image`] | `imgtool`: layered images to bundles | store, bundle |
//! | [`sys`] | one function per system call; **the only unsafe code** | the kernel |
//!
//! A container's life: `cli` → `verbs::make` → `bundle` → `host` → `plan` (all that can be told without touching
//! anything ends here) → `container` reserves the id → `cgroup`, `resctrl` → `spawn` clones `init`, which asks its
//! parent for what only it may do, and waits at the gate → `verbs::start` opens the gate.
#![deny(unsafe_code)]

pub mod attached;
pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod console;
pub mod container;
pub mod criu;
pub mod error;
pub mod foreground;
pub mod hooks;
pub mod host;
pub mod idmaps;
pub mod image;
pub mod init;
pub mod interfaces;
pub mod log;
pub mod notify;
pub mod plan;
pub mod ready;
pub mod resctrl;
pub mod seal;
pub mod spawn;
pub mod sync;
pub mod sys;
pub mod verbs;

/// Runs the command line and returns its exit code: 0, 1 for an error, or that of a program in the foreground.
pub fn main() -> u8 {
    let request = match cli::parse(std::env::args_os()) {
        Ok(request) => request,
        Err(cli::Stop::Show(text)) => {
            use std::io::Write;
            return match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => 0,
                Err(_) => 1,
            };
        }
        Err(cli::Stop::Usage { verb, global, error }) => {
            let _ = log::init(&global); // the usage error is the one to tell
            log::fatal(&verb, &error);
            return 1;
        }
    };
    let (verb, failure) = (request.verb.name(), request.verb.failure_code());
    match log::init(&request.global).and_then(|()| verbs::dispatch(request)) {
        Ok(code) => code,
        Err(e) => {
            log::fatal(verb, &e);
            failure
        }
    }
}
