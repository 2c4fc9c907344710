//! orlop, a low-level OCI container runtime.
//!
//! **config.json becomes a plan, the plan becomes a process.** The rooms, from the outside in:
//!
//! | room | job |
//! |---|---|
//! | `cli` | argv to a request |
//! | `config`, `bundle` | the document as written; a bundle opened |
//! | `error` | the one error type and its printing |
//! | `plan` | document + host facts to a decided plan; pure |
//! | `cgroup` | cgroups created, joined, limited, frozen, removed |
//! | `image` | `imgtool` |
//! | `sys` | system calls; the only unsafe code |
#![deny(unsafe_code)]

pub mod bundle;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod console;
pub mod container;
pub mod error;
pub mod hooks;
pub mod host;
pub mod image;
pub mod init;
pub mod log;
pub mod plan;
pub mod seal;
pub mod spawn;
pub mod sync;
pub mod sys;
pub mod verbs;

/// Runs the command line and returns its exit code.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
