//! Document + host facts to a decided plan; pure: no I/O, no system calls, no logging.
//!
//! Each section of config.json has a file that checks it and returns its part; [`order`] writes the parts down in the
//! one order in which init carries them out. After this room no `Option` of the document is left.

pub mod caps;
pub mod cgroup;
pub mod devices;
pub mod explain;
pub mod hooks;
pub mod idmap;
pub mod mounts;
pub mod net;
pub mod order;
pub mod paths;
pub mod process;
pub mod seccomp;
pub mod spawn;
pub mod step;
pub mod user;

use crate::config::Config;
use crate::error::{Error, Result};
use std::ffi::CString;
use std::path::PathBuf;
use step::{Open, Slot};

/// What the plan must know of the host; asked once, by `host`.
#[derive(Clone, Debug)]
pub struct Facts {
    pub euid: u32,
    pub egid: u32,
    /// CAP_SYS_ADMIN here: mounts can be cloned, and namespaces made, without a user namespace.
    pub privileged: bool,
    /// The capabilities that can be given: our bounding set.
    pub bounding: u64,
    /// Highest capability number of the kernel.
    pub last_cap: u32,
    pub apparmor: bool,
    pub selinux: bool,
    /// Hard limit of RLIMIT_* by number; `u64::MAX` is unlimited.
    pub hard_limits: [u64; 16],
    pub cgroups: cgroup::Hierarchies,
}

/// What the command line adds to the document.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub id: String,
    /// Absolute path of the bundle.
    pub bundle: PathBuf,
    /// `run` without `--detach`: the runtime stays and copies the terminal.
    pub foreground: bool,
    pub console_socket: Option<PathBuf>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// Descriptors after 2 (and those of LISTEN_FDS) that the program keeps.
    pub preserve_fds: u32,
    pub listen_fds: u32,
    /// create: init waits at the gate for `start`.
    pub gate: bool,
    /// The bundle has an overlay description of `imgtool` and its rootfs is not mounted.
    pub overlay: Option<crate::bundle::Overlay>,
}

/// The plan being written: the inputs, and what sections add beside their steps.
pub struct Draft<'a> {
    pub config: &'a Config,
    pub host: &'a Facts,
    pub request: &'a Request,
    pub ns: spawn::Namespaces,
    /// Mappings of the user namespace, whether new or joined.
    pub maps: idmap::Maps,
    pub opens: Vec<Open>,
    pub warnings: Vec<String>,
}

impl Draft<'_> {
    /// Asks the parent to open this before the clone.
    pub fn open(&mut self, open: Open) -> Slot {
        self.opens.push(open);
        self.opens.len() - 1
    }

    pub fn warn(&mut self, at: &str, what: impl std::fmt::Display) {
        self.warnings.push(format!("{at}: {what}"));
    }

    /// In a user namespace that is not the host's: no mknod(2), no raising of limits.
    pub fn in_user_namespace(&self) -> bool {
        self.ns.is_own(spawn::NEWUSER)
    }
}

/// A string of the document for a system call; a NUL inside is an error.
pub fn cstring(at: &str, value: &str) -> Result<CString> {
    CString::new(value).map_err(|_| Error::invalid(at, format!("{value:?} has a NUL byte")))
}
