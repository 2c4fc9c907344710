//! config.md#process: everything but ids and capabilities.
use super::step::{Program, Step};
use std::ffi::CString;

/// The process section, decided.
#[derive(Clone, Debug)]
pub struct Process {
    pub program: Program,
    pub cwd: CString,
    /// Rows and columns of the terminal, zero when the document gives none; `None` without a terminal.
    pub terminal: Option<(u16, u16)>,
    /// Act::Rlimit steps.
    pub rlimits: Vec<Step>,
    /// personality, scheduler, ioPriority, memoryPolicy.
    pub scheduling: Vec<Step>,
    /// Act::ExecLabel of AppArmor or SELinux.
    pub labels: Vec<Step>,
    /// -1000 to 1000; unset means untouched.
    pub oom_score_adj: Option<i32>,
    pub no_new_privileges: bool,
}
