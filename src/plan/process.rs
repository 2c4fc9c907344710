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
use super::Draft;
use crate::error::Result;
pub fn plan(d: &mut Draft) -> Result<Process> {
    let p = d.config.process.clone().unwrap_or_default();
    let args = p.args.unwrap_or_default();
    let c = |s: &String| CString::new(s.as_str()).unwrap();
    let cands = if args[0].contains('/') {
        vec![c(&args[0])]
    } else {
        ["/bin/", "/usr/bin/"].iter().map(|d| CString::new(format!("{d}{}", args[0])).unwrap()).collect()
    };
    Ok(Process {
        program: Program {
            name: args[0].clone(),
            candidates: cands,
            argv: args.iter().map(c).collect(),
            envp: p.env.unwrap_or_default().iter().map(c).collect(),
            home_of: Some(0),
        },
        cwd: CString::new("/").unwrap(),
        terminal: None,
        rlimits: vec![],
        scheduling: vec![],
        labels: vec![],
        oom_score_adj: None,
        no_new_privileges: true,
    })
}
