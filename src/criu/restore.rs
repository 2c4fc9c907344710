//! Image files to a running container.

use super::rpc::{CgroupRoot, InheritFd, JoinNamespace, Kind, Notify, Opts, Version};
use super::swrk::{self, Streams, Swrk};
use super::{Directories, EXTERNAL, STREAMS, stage};
use crate::cgroup::Cgroup;
use crate::cli;
use crate::container::{Container, Process};
use crate::error::{Error, Result, os};
use crate::hooks;
use crate::plan::Plan;
use crate::plan::spawn::{self as namespaces, NEWCGROUP, NEWNET, NEWPID};
use crate::plan::step::{Act, OpenWhat};
use crate::spawn::Slots;
use crate::sys::{fd, ns};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A checkpoint and a criu that can read it: nothing was touched yet.
pub struct Source {
    dirs: Directories,
    version: Version,
    /// What the standard streams were when it was saved.
    streams: Vec<String>,
}

/// An init that lives again.
pub struct Restored {
    pub process: Process,
    pub pidfd: OwnedFd,
    /// The pty's master, unless it was handed on.
    pub master: Option<OwnedFd>,
}

/// What a restore works on.
pub struct Target<'a> {
    pub container: &'a Container,
    pub plan: &'a Plan,
    pub slots: Slots,
    pub cgroup: Cgroup,
    /// Takes the pty's master; gives it back when nobody else wants it.
    pub on_master: &'a mut dyn FnMut(OwnedFd) -> Result<Option<OwnedFd>>,
}

impl Source {
    pub fn open(a: &cli::Restore) -> Result<Self> {
        let version = swrk::check()?;
        let images = swrk::open_directory("--image-path", &a.images.image_path)?;
        let dirs = Directories::new(images, a.images.work_path.as_deref(), "restore.log")?;
        let file = dirs.path.join(STREAMS);
        let text = fs::read(&file).map_err(|e| {
            Error::io(file.to_string_lossy(), "open", &e)
                .hint("--image-path is a directory that checkpoint wrote")
        })?;
        let streams = serde_json::from_slice(&text)
            .map_err(|e| Error::invalid(file.to_string_lossy(), format!("is no list of descriptors: {e}")))?;
        Ok(Self { dirs, version, streams })
    }

    /// Brings the container back. criu, and then init, are on record as soon as they are there: whoever kills us leaves
    /// nothing that `delete --force` does not find.
    pub fn restore(mut self, a: &cli::Restore, t: Target) -> Result<Restored> {
        let mut opts = Opts {
            evasive_devices: true,
            restore_sibling: true,
            tcp_close: a.tcp_close,
            lsm_profile: a.lsm_profile.clone(),
            lsm_mount_context: a.lsm_mount_context.clone(),
            inherit_fd: self.pipes(),
            ..super::options(&a.images, &self.dirs, &t.container.record.annotations)?
        };
        let keep = namespaces(t.plan, &t.slots, &mut opts)?;
        let dir = t.container.file("criu");
        let mut criu = stage::within(|| {
            self.dirs.reopen(&mut opts)?;
            let stage = stage::build(t.plan, &t.slots, &dir)?;
            opts.root = Some(super::utf8(&stage.root)?);
            opts.external_mounts = stage.external;
            Swrk::spawn(Streams::Ours, &keep)
        })?;
        let mut coming =
            Coming { container: t.container, plan: t.plan, on_master: t.on_master, init: None, master: None };
        let answer = admit(criu.pid(), t.plan, t.container, t.cgroup)
            .and_then(|roots| {
                opts.cgroup_roots = roots;
                criu.call(Kind::Restore, Some(opts), &mut |notify, fd| coming.hear(notify, fd))
            })
            .inspect_err(|_| criu.kill());
        criu.end();
        let _ = fs::remove_dir(&dir); // delete removes what is left
        let answer = answer.map_err(|e| swrk::explained(e, &self.version, &self.dirs.log))?;
        match (answer.success, coming.init, &answer.restore) {
            (true, Some((process, pidfd)), Some(r)) if r.pid == process.pid => {
                Ok(Restored { process, pidfd, master: coming.master })
            }
            _ => Err(swrk::refused("restore", &answer, &self.version, &self.dirs.log)),
        }
    }

    /// The caller's pipes take the place of those that were saved.
    fn pipes(&self) -> Vec<InheritFd> {
        let mut pipes: Vec<InheritFd> = Vec::new();
        for (key, fd) in self.streams.iter().zip(0..3) {
            if key.starts_with("pipe:") && pipes.iter().all(|p| p.key != *key) {
                pipes.push(InheritFd { key: key.clone(), fd });
            }
        }
        pipes
    }
}

/// Tells criu which namespaces are there already; answers with the descriptors that it needs for that.
fn namespaces<'a>(plan: &Plan, slots: &'a Slots, opts: &mut Opts) -> Result<Vec<&'a OwnedFd>> {
    let mut keep = Vec::new();
    let joined = plan.shape.join.iter().copied().chain(plan.shape.join_pid.map(|slot| (slot, NEWPID)));
    for (slot, kind) in joined {
        let (Some(file), OpenWhat::Namespace { path, .. }) = (&slots[slot], &plan.opens[slot].what) else {
            continue;
        };
        if let Some((_, key)) = EXTERNAL.iter().find(|e| e.0 == kind) {
            opts.inherit_fd.push(InheritFd { key: key.to_string(), fd: file.as_raw_fd() });
            keep.push(file);
        } else if kind == NEWCGROUP {
            let at = &plan.opens[slot].at;
            return Err(Error::unsupported(at, "criu cannot restore into a cgroup namespace that is there"));
        } else {
            let kind = namespaces::file_of(kind).to_string();
            opts.join_ns.push(JoinNamespace { kind, file: path.to_string_lossy().into_owned() });
        }
    }
    Ok(keep)
}

/// Puts criu on record and into the container's cgroups, where what it restores is then born; answers with the paths of
/// these, which stand for those that were saved.
fn admit(pid: i32, plan: &Plan, container: &Container, mut cgroup: Cgroup) -> Result<Vec<CgroupRoot>> {
    let call = |what: &'static str| os("linux.cgroupsPath", what);
    let criu = Process::of(pid).ok_or_else(|| Error::os("criu", "read /proc/PID/stat", libc::ESRCH))?;
    container.record_init(criu)?;
    Cgroup::enter_unit(&plan.cgroup, &container.record.cgroup, pid)?;
    let number = pid.to_string();
    for tasks in cgroup.join_fds() {
        fd::write(&tasks, number.as_bytes()).map_err(call("write to tasks"))?;
    }
    if let Some(dir) = cgroup.clone_fd() {
        let procs =
            fd::openat(&dir, c"cgroup.procs", libc::O_WRONLY, 0).map_err(call("open cgroup.procs"))?;
        fd::write(&procs, number.as_bytes()).map_err(call("write to cgroup.procs"))?;
    }
    cgroup.keep();
    container.record.rdt.join(pid)?;
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).map_err(|e| Error::io(&file, "read", &e))?;
    Ok(cgroup_roots(&text))
}

/// One for each controller, however they are mounted; that of v2 has an empty name (cgroups(7)).
fn cgroup_roots(text: &str) -> Vec<CgroupRoot> {
    let line = |l: &str| {
        let mut fields = l.splitn(3, ':');
        let (_, list, path) = (fields.next()?, fields.next()?.to_string(), fields.next()?.to_string());
        let root = move |c: &str| CgroupRoot { controller: Some(c.to_string()), path: path.clone() };
        Some(list.split(',').map(root).collect::<Vec<_>>())
    };
    text.lines().filter_map(line).flatten().collect()
}

/// The container while criu works on it.
struct Coming<'a> {
    container: &'a Container,
    plan: &'a Plan,
    on_master: &'a mut dyn FnMut(OwnedFd) -> Result<Option<OwnedFd>>,
    init: Option<(Process, OwnedFd)>,
    master: Option<OwnedFd>,
}

impl Coming<'_> {
    fn hear(&mut self, notify: &Notify, fd: Option<OwnedFd>) -> Result<()> {
        match (notify.script.as_str(), notify.pid, fd) {
            ("setup-namespaces", Some(pid), _) => self.take_init(pid),
            ("orphan-pts-master", _, Some(master)) => {
                self.master = (self.on_master)(master)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Init is there, with its namespaces and nothing in them.
    fn take_init(&mut self, pid: i32) -> Result<()> {
        let gone = || Error::os("process", "pidfd_open of init", libc::ESRCH);
        let process = Process::of(pid).ok_or_else(gone)?;
        let pidfd = process.pidfd().ok_or_else(gone)?;
        self.container.record_init(process)?;
        if self.plan.steps.iter().any(|s| s.act == Act::LoopbackUp) {
            loopback_up(pid)?;
        }
        hooks::of_create(self.container, pid, pidfd.as_fd(), &self.plan.hooks)?;
        self.init = Some((process, pidfd));
        Ok(())
    }
}

/// criu leaves an empty network namespace as it is; config-linux.md#network is as with create.
fn loopback_up(pid: i32) -> Result<()> {
    let call = |what: &'static str| os("linux.namespaces (network)", what);
    let open = |who: &str| {
        let path = crate::plan::cstring("", &format!("/proc/{who}/ns/net"))?;
        fd::open(&path, libc::O_RDONLY, 0).map_err(call("open"))
    };
    let (home, theirs) = (open("self")?, open(&pid.to_string())?);
    ns::enter(&theirs, NEWNET).map_err(call("setns"))?;
    let up = ns::loopback_up();
    ns::enter(&home, NEWNET).map_err(call("setns back"))?;
    up.map(drop).map_err(call("set lo up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_controller_has_its_root() {
        let roots = cgroup_roots("3:cpu,cpuacct:/a:b\n2:name=systemd:/s\n0::/u\n");
        let pairs: Vec<_> =
            roots.iter().map(|r| (r.controller.as_deref().unwrap(), r.path.as_str())).collect();
        assert_eq!(pairs, [("cpu", "/a:b"), ("cpuacct", "/a:b"), ("name=systemd", "/s"), ("", "/u")]);
    }
}
