//! Checkpoint and restore by criu, the program.
//!
//! We speak criu's RPC (`criu swrk FD`, protobuf messages over a socket) rather than its command line, though that has
//! nearly every option: only by RPC does criu hand over the master of a restored terminal (`orphan-pts-master`), wait
//! while hooks prepare the network (`setup-namespaces`), and tell init's pid before anything of it runs, so that it
//! is on record first. `--action-script` would be a program of ours that criu starts, without the descriptor and
//! without our lock. The messages are few, so they are declared as structs for prost, and no compiler of `.proto`
//! files is needed; crates around criu's RPC bring one, and lack half of the fields.
//!
//! criu restores init as a child of ours (`rst_sibling`), in the place where [`crate::spawn`] clones it for `create`:
//! whoever reaps created containers reaps restored ones. It works in a mount namespace that we made for it, where the
//! rootfs is mounted at a place of its own, inside the container's cgroup, which has its limits by then.

mod dump;
mod mounts;
mod restore;
mod rpc;
mod stage;
mod swrk;

pub use dump::dump;
pub use restore::{Restored, Source, Target};

use crate::cli::Images;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::spawn::{NEWNET, NEWPID};
use rpc::{CgroupMode, NetworkLock, Opts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a checkpoint must know of how the container was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Recorded {
    /// Init came from a checkpoint: it never executes a program, and runs all the same.
    pub restored: bool,
    /// What its standard streams were: pipes of the caller, `pipe:[123]`, are connected again when it is restored.
    /// Empty when it has a terminal.
    pub streams: Vec<String>,
}

impl Recorded {
    pub fn of(plan: &Plan) -> Self {
        let stream = |n| std::fs::read_link(format!("/proc/self/fd/{n}")).unwrap_or_default();
        let streams = (0..3).map(|n| stream(n).to_string_lossy().into_owned());
        Self { restored: false, streams: if plan.terminal { Vec::new() } else { streams.collect() } }
    }
}

/// The file of the image directory with [`Recorded::streams`], by the name and in the form that runc has.
const STREAMS: &str = "descriptors.json";

/// Kinds of joined namespaces that criu leaves alone, and what we call them, as runc does, so that either's images
/// serve the other.
const EXTERNAL: [(i32, &str); 2] = [(NEWNET, "extRootNetNS"), (NEWPID, "extRootPidNS")];

/// Directories of criu, held open.
struct Directories {
    images: OwnedFd,
    work: Option<OwnedFd>,
    /// Absolute paths.
    path: PathBuf,
    work_path: Option<PathBuf>,
    log: PathBuf,
}

impl Directories {
    fn new(images: (OwnedFd, PathBuf), work: Option<&Path>, log: &str) -> Result<Self> {
        let (images, path) = images;
        let (work, work_path) = work.map(|w| swrk::directory("--work-path", w, false)).transpose()?.unzip();
        let log = work_path.as_ref().unwrap_or(&path).join(log);
        Ok(Self { images, work, path, work_path, log })
    }

    /// Opens them in the mount namespace that we are in now: criu makes mounts below its working directory, which must
    /// belong to its own.
    fn reopen(&mut self, opts: &mut Opts) -> Result<()> {
        self.images = swrk::open_directory("--image-path", &self.path)?.0;
        let work = self.work_path.as_deref().map(|w| swrk::open_directory("--work-path", w)).transpose()?;
        self.work = work.map(|w| w.0);
        self.name(opts);
        Ok(())
    }

    fn name(&self, opts: &mut Opts) {
        opts.images_dir_fd = self.images.as_raw_fd();
        opts.work_dir_fd = self.work.as_ref().map(AsRawFd::as_raw_fd);
    }
}

/// The options that both directions share.
fn options(a: &Images, dirs: &Directories, annotations: &BTreeMap<String, String>) -> Result<Opts> {
    let mut opts = Opts {
        log_level: 4,
        log_file: dirs.log.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        notify_scripts: true,
        manage_cgroups: true,
        manage_cgroups_mode: Some(cgroup_mode(&a.manage_cgroups_mode)? as i32),
        shell_job: a.shell_job,
        tcp_established: a.tcp_established,
        ext_unix_sk: a.ext_unix_sk,
        file_locks: a.file_locks,
        empty_ns: NEWNET as u32, // interfaces are the engine's, who makes them again
        orphan_pts_master: true,
        auto_dedup: a.auto_dedup,
        lazy_pages: a.lazy_pages,
        config_file: config_file(annotations),
        network_lock: network_lock(a.network_lock.as_deref()).map(|l| l as i32),
        ..Opts::default()
    };
    dirs.name(&mut opts);
    Ok(opts)
}

fn network_lock(method: Option<&str>) -> Option<NetworkLock> {
    Some(match method? {
        "nftables" => NetworkLock::Nftables,
        "skip" => NetworkLock::Skip,
        _ => NetworkLock::Iptables, // the command line knows no other
    })
}

fn cgroup_mode(mode: &str) -> Result<CgroupMode> {
    Ok(match mode {
        "soft" => CgroupMode::Soft,
        "full" => CgroupMode::Full,
        "strict" => CgroupMode::Strict,
        "ignore" => CgroupMode::Ignore,
        other => {
            let what = format!("{other:?} is none of soft, full, strict, ignore");
            return Err(Error::invalid("--manage-cgroups-mode", what));
        }
    })
}

/// Whether the program is there; whether it works on this kernel is told by a call of it.
pub fn is_installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("criu").is_file())
}

/// criu's own settings for this container, which win over ours: the file that an annotation names, none when that is
/// empty; without the annotation that of the host, where runc looks too. criu does without one that is not there.
fn config_file(annotations: &BTreeMap<String, String>) -> Option<String> {
    match annotations.get("org.criu.config") {
        Some(file) => Some(file.clone()).filter(|f| !f.is_empty()),
        None => {
            let own = "/etc/criu/orlop.conf";
            Some(if Path::new(own).exists() { own } else { "/etc/criu/runc.conf" }.to_string())
        }
    }
}

fn utf8(path: &Path) -> Result<String> {
    let text = path.to_str().map(String::from);
    text.ok_or_else(|| Error::invalid(path.to_string_lossy(), "criu takes paths of UTF-8 only"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn criu_is_told_by_what_to_hold_packets_back() {
        for (flag, number) in
            [(None, None), (Some("iptables"), Some(1)), (Some("nftables"), Some(2)), (Some("skip"), Some(3))]
        {
            let network_lock = network_lock(flag).map(|l| l as i32);
            let bytes = Opts { network_lock, ..Opts::default() }.encode_to_vec();
            assert_eq!(network_lock, number);
            // Field 64 of criu_opts, a varint.
            assert_eq!(
                bytes.ends_with(&[0x80, 0x04, number.unwrap_or(0) as u8]),
                number.is_some(),
                "{bytes:?}"
            );
        }
    }
}
