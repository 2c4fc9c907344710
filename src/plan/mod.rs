//! Document + host facts to a decided plan; pure: no I/O, no system calls, no logging.
//!
//! Each section of config.json has a file that checks it and returns its part; [`order`] writes the parts down in the
//! one order in which init carries them out. After this room no `Option` of the document is left.

pub mod caps;
pub mod cgroup;
pub mod devices;
pub mod document;
pub mod exec;
pub mod explain;
#[cfg(test)]
mod golden;
pub mod hooks;
pub mod idmap;
pub mod mounts;
pub mod net;
pub mod order;
pub mod paths;
pub mod process;
pub mod rdt;
#[cfg(test)]
pub mod sample;
pub mod seccomp;
pub mod spawn;
pub mod step;
pub mod user;

use crate::config::Config;
use crate::error::{Error, Result};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use step::{Open, Slot};

/// What the plan must know of the host; asked once, by `host`.
#[derive(Clone, Debug)]
pub struct Facts {
    pub euid: u32,
    pub egid: u32,
    /// CAP_SYS_ADMIN here: mounts can be cloned, and namespaces made, without a user namespace.
    pub privileged: bool,
    /// Our own user namespace is not the host's: what the kernel asks the host's capabilities for is refused.
    pub nested: bool,
    /// The capabilities that can be given: our bounding set.
    pub bounding: u64,
    /// Our own user namespace denies setgroups(2), and those below it do too (user_namespaces(7)).
    pub setgroups_denied: bool,
    /// mknod(2) of devices is allowed: CAP_MKNOD in the initial user namespace.
    pub mknod: bool,
    /// Nodes of the host's /dev for devices of the document, by type and numbers; asked only where they are bound.
    pub nodes: Vec<((char, u32, u32), String)>,
    /// Highest capability number of the kernel.
    pub last_cap: u32,
    /// Signals that our caller ignores, a bit each from that of 1 on; execve(2) would keep that.
    pub ignored_signals: u64,
    pub apparmor: bool,
    pub selinux: bool,
    /// Hard limit of RLIMIT_* by number; `u64::MAX` is unlimited.
    pub hard_limits: [u64; 16],
    pub cgroups: cgroup::Hierarchies,
    pub resctrl: rdt::Resctrl,
    /// The systemd that makes the cgroup, if one is to.
    pub systemd: Option<cgroup::systemd::Manager>,
}

/// Annotations, or how their names begin, that change what the runtime does (features.md#potentiallyunsafeconfigannotations):
/// for the writer of the document, and not for that of an image.
pub const UNSAFE_ANNOTATIONS: [&str; 3] = ["org.criu.config", cgroup::systemd::ANNOTATION, "run.oci."];

/// What the command line adds to the document.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub id: String,
    /// Directory of its record, not made yet.
    pub dir: PathBuf,
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
    /// Directory on the host, not made yet, of the socket by which the program says that it is ready (sd_notify(3)).
    pub notify: Option<PathBuf>,
    /// create: init waits at the gate for `start`.
    pub gate: bool,
    /// `--rootless`, unless it is `auto`: whether to go on without a cgroup that may not be made.
    pub rootless: Option<bool>,
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

/// As [`cstring`], for a path, whatever its bytes.
pub fn cpath(at: &str, path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::invalid(at, format!("{path:?} has a NUL byte")))
}

/// Everything decided: what the parent opens, clones, answers and limits, and what init does.
#[derive(Debug)]
pub struct Plan {
    pub shape: spawn::Shape,
    pub opens: Vec<Open>,
    pub steps: Vec<step::Step>,
    pub program: step::Program,
    /// Written by the parent; empty when the user namespace is joined or the runtime's own.
    pub maps: idmap::Maps,
    /// Set by the parent when init asks for it: an ordinary process in a user namespace may not raise them.
    pub limits: Vec<step::Step>,
    /// Moved by the parent when init asks for it.
    pub interfaces: Vec<net::Interface>,
    pub oom_score_adj: Option<i32>,
    pub hooks: hooks::Hooks,
    pub cgroup: cgroup::CgroupPlan,
    pub rdt: Option<rdt::Rdt>,
    pub listener: Option<seccomp::Listener>,
    pub terminal: bool,
    pub private_pids: bool,
    /// The runtime has not the host's rights: what only they allow is warned of and left out.
    pub rootless: bool,
    pub warnings: Vec<String>,
}

impl Plan {
    /// create and run: document, host and command line to a plan, or the first rule that is broken. Touches nothing.
    pub fn for_create(config: &Config, host: &Facts, request: &Request) -> Result<Plan> {
        let linux = config.linux.as_ref();
        let ns = spawn::namespaces(linux)?;
        if host.euid != 0 && !ns.is_own(spawn::NEWUSER) {
            return Err(Error::invalid("linux.namespaces", "an ordinary user needs a user namespace")
                .hint("`orlop spec --rootless` writes such a config.json"));
        }
        let maps = idmap::plan(linux, &ns)?;
        let (opens, warnings) = (Vec::new(), Vec::new());
        let mut d = Draft { config, host, request, ns, maps, opens, warnings };
        document::check(&mut d)?;
        let hooks = hooks::plan(config)?;
        let seccomp = seccomp::plan(&mut d)?;
        let shape = spawn::shape(&mut d)?;
        let user = user::plan(&mut d)?;
        let caps = caps::plan(&mut d)?;
        let process = process::plan(&mut d)?;
        let net = net::plan(&mut d)?;
        let time = net::time_offsets(&mut d)?;
        let (cgroup_path, unit) = cgroup::place(&d)?;
        let mut mounts = mounts::plan(&mut d, &cgroup_path)?;
        mounts.steps.extend(mounts::notify::plan(&mut d)?);
        let devices = devices::plan(&mut d, mounts.dev_is_bind)?;
        let cgroup = cgroup::for_create(&mut d, unit.as_ref(), &devices.nodes)?;
        let rdt = rdt::plan(&mut d)?;
        let paths = paths::plan(&mut d)?;
        let parts = order::Parts {
            shape,
            mounts,
            devices: devices.steps,
            paths,
            net,
            time,
            hooks,
            identity: order::Identity { process, user, caps, seccomp },
        };
        let steps = order::create(&mut d, &parts)?;
        if request.gate {
            d.open(Open { at: "process".into(), what: step::OpenWhat::Report });
        }
        let id = parts.identity;
        Ok(Plan {
            steps,
            maps: if d.ns.is_new(spawn::NEWUSER) { d.maps.clone() } else { idmap::Maps::default() },
            interfaces: parts.net.interfaces,
            oom_score_adj: id.process.oom_score_adj,
            terminal: id.process.terminal.is_some(),
            limits: id.process.rlimits,
            program: id.process.program,
            listener: id.seccomp.and_then(|s| s.listener),
            private_pids: d.ns.is_new(spawn::NEWPID),
            rootless: host.euid != 0,
            shape: parts.shape,
            opens: d.opens,
            hooks: parts.hooks,
            cgroup,
            rdt,
            warnings: d.warnings,
        })
    }
}
