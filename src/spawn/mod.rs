//! The parent's half: descriptors opened, init cloned, its requests answered, until it stands at the gate.

pub mod fault;

use crate::cgroup::Cgroup;
use crate::container::{Container, ProcStat, Process, proc_stat};
use crate::error::{Error, Kind, Result, os};
use crate::init::{Init, Parts};
use crate::plan::step::{Act, Ask, Attr, Open, OpenWhat};
use crate::plan::{Plan, cpath};
use crate::sync::{self, Message};
use crate::sys::{Errno, clone, cred, fd, mount, ns, path, shared, signal};
use crate::{hooks, idmaps, interfaces};
use fault::{clone_failed, failure, few_descriptors, filtered, perhaps_for_memory};
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Descriptors by slot; those that need the container to be on record come later.
pub type Slots = Vec<Option<OwnedFd>>;

/// Opens what only the host can tell: bind sources and namespaces. Nothing was touched yet.
pub fn open_early(plan: &Plan) -> Result<Slots> {
    let mut slots: Slots = plan.opens.iter().map(|_| None).collect();
    // The rootfs first: its mount is then the oldest of the container's, and criu, which takes the propagation of all
    // that come from one mount of the host from the youngest, finds it at a source that is not the rootfs alone.
    let is_root = |n: &usize| plan.opens[*n].at == "root.path";
    let (root, others): (Vec<_>, Vec<_>) = (0..slots.len()).partition(is_root);
    for n in root.into_iter().chain(others) {
        slots[n] = open_one(&plan.opens[n])?;
    }
    for open in &plan.opens {
        match &open.what {
            OpenWhat::NotOurs { namespace, kind } => not_ours(&open.at, slots[*namespace].as_ref(), *kind)?,
            OpenWhat::SameMaps { namespace, maps } => idmaps::same(slots[*namespace].as_ref(), maps)?,
            _ => {}
        }
    }
    plan.interfaces.iter().try_for_each(|i| interfaces::index(i).map(drop))?;
    Ok(slots)
}

/// What is set in a namespace that is joined must not be set on the host (runtime-spec config-linux.md#sysctl).
fn not_ours(at: &str, joined: Option<&OwnedFd>, kind: i32) -> Result<()> {
    let file = format!("/proc/self/ns/{}", crate::plan::spawn::file_of(kind));
    let ours = nix::sys::stat::stat(file.as_str()).map_err(os(at, format!("stat {file:?}")))?;
    let theirs = joined.map(fd::stat).transpose().map_err(os(at, "fstat of the namespace"))?;
    if theirs.is_some_and(|t| (t.st_dev, t.st_ino) == (ours.st_dev, ours.st_ino)) {
        let name = crate::plan::spawn::name_of(kind);
        return Err(Error::invalid(at, format!("the {name} namespace that is joined is the runtime's own")));
    }
    Ok(())
}

fn open_one(open: &Open) -> Result<Option<OwnedFd>> {
    match &open.what {
        OpenWhat::Tree { path, recursive, nofollow, propagation } => {
            open_tree(&open.at, path, (*recursive, *nofollow), *propagation).map(Some)
        }
        OpenWhat::MappedTree { path, recursive, propagation, maps, deep } => {
            let tree = open_tree(&open.at, path, (*recursive, false), *propagation)?;
            let namespace = idmaps::namespace(maps)?;
            mount::set_idmap(&tree, namespace, *deep).map_err(|e| {
                let e = Error::os(&open.at, "mount_setattr MOUNT_ATTR_IDMAP", e as i32);
                match e.kind {
                    Kind::Os(libc::EINVAL) => e.hint("its file system cannot be id-mapped"),
                    Kind::Os(libc::ENOSYS) => e.hint("id-mapped mounts need Linux 5.12"),
                    _ => e,
                }
            })?;
            Ok(Some(tree))
        }
        OpenWhat::Append { path } => hooks::append_to(&open.at, path).map(Some),
        OpenWhat::Namespace { path, kind } => {
            let shown = path.to_string_lossy();
            let file = fd::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0)
                .map_err(os(&open.at, format!("open {shown:?}")))?;
            let wanted = crate::plan::spawn::name_of(*kind);
            match ns::kind(&file) {
                Ok(k) if k == *kind => Ok(Some(file)),
                Ok(k) => {
                    let is = crate::plan::spawn::name_of(k);
                    Err(Error::invalid(
                        &open.at,
                        format!("{shown:?} is a {is} namespace, not a {wanted} namespace"),
                    ))
                }
                Err(_) => Err(Error::invalid(&open.at, format!("{shown:?} is not a namespace"))),
            }
        }
        _ => Ok(None),
    }
}

fn open_tree(
    at: &str,
    path: &CStr,
    (recursive, nofollow): (bool, bool),
    propagation: u64,
) -> Result<OwnedFd> {
    let shown = path.to_string_lossy();
    if propagation != 0 {
        if let Ok(tree) = mount::copy_tree(path, (recursive, nofollow), Attr::default(), propagation) {
            return Ok(tree);
        }
    }
    let tree =
        mount::clone_tree_of(path, recursive, nofollow).map_err(os(at, format!("open_tree {shown:?}")))?;
    relate(at, path, &tree, (Attr::default(), propagation))?;
    Ok(tree)
}

/// How a copy relates to the mount at `path`: its own would be one with it, and a mount in the container one on the host.
fn relate(at: &str, path: &CStr, tree: &OwnedFd, (attr, propagation): (Attr, u64)) -> Result<()> {
    if attr.is_empty() && propagation == 0 {
        return Ok(());
    }
    match mount::set_attr_detached(tree, attr, propagation, true) {
        Err(Errno::ENOSYS) => Ok(()), // init sets it on what is attached
        other => other.map_err(os(at, format!("mount_setattr of the copy of {:?}", path.to_string_lossy()))),
    }
}

/// Opens what exists only now: the container's cgroups, FIFOs and files for its state.
pub fn open_late(plan: &Plan, container: &Container, slots: &mut Slots) -> Result<()> {
    for (slot, open) in plan.opens.iter().enumerate() {
        let fd = match &open.what {
            OpenWhat::LateTree { path, own, attr, propagation } => {
                if plan.cgroup.unit.is_some() {
                    // systemd takes it as it is, once there is a process; without a right to make it, `own` is left
                    let _ = std::fs::create_dir_all(OsStr::from_bytes(path.to_bytes()));
                }
                late_tree(&open.at, path, own.as_deref(), (*attr, *propagation))?
            }
            OpenWhat::State { .. } => fd::memfd(c"state").map_err(os(&open.at, "memfd_create"))?,
            OpenWhat::Gate => fifo(&container.file("gate"))?,
            OpenWhat::Report => fifo(&container.file("report"))?,
            _ => continue,
        };
        slots[slot] = Some(fd);
    }
    Ok(())
}

/// A copy of the mount at the container's cgroup or, as long as there is none, at our own.
fn late_tree(at: &str, path: &CStr, own: Option<&CStr>, change: (Attr, u64)) -> Result<OwnedFd> {
    if let Ok(tree) = mount::copy_tree(path, (false, false), change.0, change.1) {
        return Ok(tree);
    }
    let tree = mount::clone_tree(path, false)
        .or_else(|e| match own {
            Some(own) if e == Errno::ENOENT => mount::clone_tree(own, false),
            _ => Err(e),
        })
        .map_err(os(at, format!("open_tree {:?}", path.to_string_lossy())))?;
    relate(at, path, &tree, change)?;
    Ok(tree)
}

/// A FIFO, open for both directions: a read waits for `start`, and a write needs no reader.
fn fifo(path: &Path) -> Result<OwnedFd> {
    let at = path.to_string_lossy();
    let c = cpath(&at, path)?;
    nix::unistd::mkfifo(&*c, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR)
        .map_err(os(&*at, "mkfifo"))?;
    fd::open(&c, libc::O_RDWR, 0).map_err(os(&*at, "open"))
}

/// The container that a process of ours belongs to. Its init goes on record; what `exec` starts does not.
#[derive(Clone, Copy)]
pub struct Member<'a> {
    pub container: &'a Container,
    pub init: bool,
}

impl Member<'_> {
    fn record(&self, process: Process) -> Result<()> {
        if self.init { self.container.record_init(process) } else { Ok(()) }
    }

    fn ready(&self) -> Result<()> {
        if self.init { self.container.mark_created() } else { Ok(()) }
    }

    /// runtime.md#state, for whoever is told of `process`.
    fn state(&self, process: Process) -> serde_json::Value {
        match self.container.init() {
            Some((init, _)) if !self.init => self.container.state("running", init.pid),
            _ => self.container.state("creating", process.pid),
        }
    }
}

/// A process of the container that lives, and the wire to it.
#[derive(Debug)]
pub struct Child {
    pub process: Process,
    pub pidfd: OwnedFd,
    socket: OwnedFd,
    /// The step that init is at.
    progress: &'static AtomicU32,
    /// The step that it may ask for next, by its own word.
    next: usize,
    /// The signals that end us as long as there is no program that they could go to.
    pub interrupts: Option<OwnedFd>,
    /// The pty's master, until it is handed on.
    pub master: Option<OwnedFd>,
}

/// Clones init, or a process more. Answers nothing yet: first it must be on record.
pub fn clone_init(plan: &Plan, slots: Slots, cgroup: &mut Cgroup, member: Member) -> Result<(Child, Slots)> {
    let call = |what: &'static str| os("process", what);
    let (ours, theirs) = fd::socketpair().map_err(call("socketpair"))?;
    let proc = open_proc()?;
    let progress = shared::number().map_err(call("mmap"))?;
    let home = enter_pid(plan, &slots)?;
    let parts = Parts {
        progress,
        unset: if mount::lacks_set_attr() { changes(plan) } else { Vec::new() },
        slots,
        cgroups: cgroup.join_fds(),
        socket: theirs,
        proc,
        report: plan.opens.iter().position(|o| o.what == OpenWhat::Report),
    };
    let born_in = cgroup.clone_fd();
    let mut init = Init::prepare(&plan.steps, Some(&plan.program), parts);
    let flags = if plan.shape.staged { 0 } else { plan.shape.clone };
    let by_parent = plan.steps.iter().any(|s| s.act == Act::Ask(Ask::Unit));
    let cloned = match clone_into(&mut init, flags, born_in.as_ref(), by_parent) {
        Ok(clone::Side::Child) => init.run(),
        Ok(clone::Side::Parent { pid, pidfd }) => Ok((pid, pidfd)),
        Err(e) => Err(e),
    };
    // Whatever became of the clone: hooks are children of ours, too. Root of a user namespace below the one that owns
    // our pid namespace may not go back (setns(2)), which matters to nobody else.
    let back = match home.map_or(Ok(()), |home| ns::enter(&home, crate::plan::spawn::NEWPID)) {
        Err(Errno::EPERM) if plan.hooks == Default::default() => Ok(()),
        other => other,
    };
    let (pid, pidfd) = cloned?;
    let slots = init.into_slots(cgroup.spent_fds().into_iter().chain(born_in).collect());
    let recorded = (|| {
        back.map_err(call("setns back to our pid namespace"))?;
        let process = Process::of(pid)
            .ok_or_else(|| Error::os("process", "read /proc/PID/stat of init", libc::ESRCH))?;
        member.record(process)?;
        Ok(process)
    })();
    match recorded {
        Ok(process) => Ok((
            Child { process, pidfd, socket: ours, progress, next: 0, interrupts: None, master: None },
            slots,
        )),
        Err(e) => {
            end(&pidfd, pid); // nobody else knows of it
            Err(e)
        }
    }
}

/// What each tree would have got of the parent, which can change only what is attached.
fn changes(plan: &Plan) -> Vec<(Attr, u64)> {
    let of = |open: &Open| match open.what {
        OpenWhat::Tree { propagation, .. } => (Attr::default(), propagation),
        OpenWhat::LateTree { attr, propagation, .. } => (attr, propagation),
        _ => Default::default(),
    };
    plan.opens.iter().map(of).collect()
}

/// Enters the pid namespace that is joined, for our children; returns our own, to go back to.
fn enter_pid(plan: &Plan, slots: &Slots) -> Result<Option<OwnedFd>> {
    let Some(pid) = plan.shape.join_pid.and_then(|slot| slots[slot].as_ref()) else { return Ok(None) };
    let home = fd::open(c"/proc/self/ns/pid_for_children", libc::O_RDONLY, 0)
        .map_err(os("process", "open our pid namespace"))?;
    ns::enter(pid, crate::plan::spawn::NEWPID).map_err(os("linux.namespaces (pid)", "setns"))?;
    Ok(Some(home))
}

/// Clones init into its cgroup. Where clone3 is filtered, or pids.max is 0, which lets nobody be born but anybody in,
/// init joins by itself, as on v1. Where we may not move a process into it, `by_parent` systemd may.
fn clone_into(init: &mut Init, flags: i32, cgroup: Option<&OwnedFd>, by_parent: bool) -> Result<clone::Side> {
    let failed = |e| clone_failed("linux.namespaces", "clone3", e);
    match (clone::clone(flags, cgroup), cgroup) {
        (Err(Errno::EACCES | Errno::EPERM), Some(_)) if by_parent => {}
        (Err(Errno::ENOSYS | Errno::EAGAIN), Some(cgroup)) => {
            let procs = fd::openat(cgroup, c"cgroup.procs", libc::O_WRONLY, 0);
            init.join_by(procs.map_err(os("linux.cgroupsPath", "open cgroup.procs"))?);
        }
        (cloned, _) => return cloned.map_err(failed),
    }
    clone::clone(flags, None).map_err(failed)
}

/// Kills a child of ours and collects it. One that is frozen (v1) ends once it is thawed: no wait for that.
fn end(pidfd: &OwnedFd, pid: i32) {
    let _ = clone::signal(pidfd, libc::SIGKILL); // gone already is as good
    let _ = fd::poll([(pidfd.as_raw_fd(), libc::POLLIN)], 10_000);
    let _ = clone::wait(pid, false);
}

/// The host's procfs, proven to be one, and ours: by another pid namespace's, strangers would be written to.
fn open_proc() -> Result<OwnedFd> {
    let proc = fd::open(c"/proc", libc::O_PATH | libc::O_DIRECTORY, 0).map_err(os("/proc", "open"))?;
    if fd::fs_magic(&proc).map_err(os("/proc", "fstatfs"))? != libc::PROC_SUPER_MAGIC {
        return Err(Error::invalid("/proc", "is not procfs"));
    }
    let mut us = [0; 16];
    match path::readlink(&proc, c"self", &mut us) {
        Ok(len) if us[..len] == *std::process::id().to_string().as_bytes() => Ok(proc),
        _ => Err(Error::invalid("/proc", "is of another pid namespace").hint("mount that of ours there")),
    }
}

impl Child {
    /// Answers init's requests until it is ready; `ready` records that before it is acknowledged.
    pub fn serve(
        &mut self,
        plan: &Plan,
        member: Member,
        mut slots: Slots,
        on_master: &mut dyn FnMut(OwnedFd, i32) -> Result<Option<OwnedFd>>,
    ) -> Result<()> {
        if !plan.shape.staged {
            self.prepare(plan, member, std::mem::take(&mut slots))?;
        }
        let odd = || Error::os("process", "request of init", libc::EPROTO);
        loop {
            let message = self.receive(plan, member)?;
            self.next = sync::turn(&plan.steps, self.next, message.head).ok_or_else(odd)?;
            match message.head.kind {
                sync::Kind::Ask => {
                    let ask = sync::ask_of(message.head.number).ok_or_else(odd)?;
                    self.answer(ask, plan, member)?;
                    if ask == Ask::Ready {
                        return Ok(());
                    }
                }
                sync::Kind::Pid => {
                    self.adopt(message.head.number, member)?;
                    if !member.init {
                        self.set_limits(plan)?; // of `create`, init asks for them
                    }
                    self.prepare(plan, member, std::mem::take(&mut slots))?;
                    self.go(plan, member)?;
                }
                sync::Kind::Master => {
                    let is_pty = |fd: &OwnedFd| fd::fs_magic(fd) == Ok(libc::DEVPTS_SUPER_MAGIC);
                    if let Some(master) = message.fd.filter(is_pty) {
                        self.master = on_master(master, message.head.number)?;
                    }
                }
                sync::Kind::Listener => self.hand_listener_on(message.head.number, plan, member)?,
                sync::Kind::Fail => return Err(self.failure(plan, &message)),
                sync::Kind::Go => return Err(odd()),
            }
        }
    }

    /// What needs the pid of init and no request: its group of resctrl, the OOM score, and the state for hooks that
    /// init runs. The slots are init's alone from here on, closed while it is at work and nobody waits for us.
    fn prepare(&self, plan: &Plan, member: Member, slots: Slots) -> Result<()> {
        match member.container.record.rdt.join(self.process.pid) {
            // Whoever removed it has put the container into the default group, and what exec starts goes there too.
            Err(e) if !member.init && e.errno() == Some(libc::ENOENT) => tracing::warn!("{e}"),
            other => other?,
        }
        if let Some(score) = plan.oom_score_adj {
            self.set_oom_score(score, plan.rootless)?;
        }
        for (open, fd) in plan.opens.iter().zip(&slots) {
            if let (OpenWhat::State { status }, Some(file)) = (&open.what, fd) {
                let text = member.container.state(status, self.process.pid).to_string();
                fd::write(file, text.as_bytes()).map_err(os(&open.at, "write of the state"))?;
            }
        }
        fd::close_all(slots.into_iter().flatten().collect());
        Ok(())
    }

    /// Lowering needs CAP_SYS_RESOURCE: an ordinary user is warned, as is a nested root that was not given it.
    fn set_oom_score(&self, score: i32, tolerate: bool) -> Result<()> {
        let at = "process.oomScoreAdj";
        let file = format!("/proc/{}/oom_score_adj", self.process.pid);
        match std::fs::write(&file, score.to_string()) {
            Err(e) if tolerate && matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
                tracing::warn!("{at}: write {score} to oom_score_adj: {e}; the container keeps ours");
                Ok(())
            }
            other => other.map_err(|e| Error::io(at, format!("write \"{score}\" to oom_score_adj"), &e)),
        }
    }

    fn answer(&mut self, ask: Ask, plan: &Plan, member: Member) -> Result<()> {
        match ask {
            Ask::Unit => {
                let (recorded, pid) = (&member.container.record.cgroup, self.process.pid);
                match member.init {
                    true => Cgroup::enter_unit(&plan.cgroup, recorded, pid)?,
                    false => Cgroup::open(recorded).join_unit(pid)?,
                }
            }
            Ask::Maps => idmaps::write(self.process.pid, &plan.maps)?,
            Ask::Hooks => {
                hooks::of_create(member.container, self.process.pid, self.pidfd.as_fd(), &plan.hooks)?
            }
            Ask::Limits => self.set_limits(plan)?,
            Ask::NetDevices => interfaces::hand_over(&plan.interfaces, self.process.pid)?,
            Ask::Ready => member.ready()?,
        }
        self.go(plan, member)
    }

    fn set_limits(&self, plan: &Plan) -> Result<()> {
        let pid = self.process.pid;
        plan.limits.iter().try_for_each(|step| match &step.act {
            Act::Rlimit { resource, soft, hard } => {
                cred::set_limit(pid, *resource, *soft, *hard).map_err(os(&step.at, "prlimit"))
            }
            Act::Scheduler(s) => cred::set_scheduler(pid, s).map_err(os(&step.at, "sched_setattr")),
            _ => Ok(()),
        })
    }

    fn go(&self, plan: &Plan, member: Member) -> Result<()> {
        match sync::go(&self.socket) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(self.died(plan, member)),
            other => other.map_err(os("process", "answer to init")),
        }
    }

    fn receive(&self, plan: &Plan, member: Member) -> Result<Message> {
        self.wait()?;
        match sync::receive(&self.socket) {
            Ok(Some(m)) => Ok(m),
            Ok(None) | Err(Errno::ECONNRESET) => Err(self.died(plan, member)),
            Err(e) => Err(Error::os("process", "recvmsg from init", e as i32)),
        }
    }

    /// Waits for the wire. A process that the container has stopped says nothing, and must not hold our caller up.
    fn wait(&self) -> Result<()> {
        let Some(signals) = &self.interrupts else { return Ok(()) };
        loop {
            let watch = [(self.socket.as_raw_fd(), libc::POLLIN), (signals.as_raw_fd(), libc::POLLIN)];
            let [said, _] = match fd::poll(watch, -1) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(os("process", "poll of the wire"))?,
            };
            if said != 0 {
                return Ok(()); // a program that runs gets the signal itself
            }
            if let Some((number, _)) = signal::next(signals).map_err(os("process", "read of signals"))? {
                let what = format!("had no program yet when signal {number} came to us");
                return Err(Error::new(Kind::WrongState, "container process", what));
            }
        }
    }

    /// Init came from a middle process: take its pid over and let the other go. It must be a child of ours.
    fn adopt(&mut self, pid: i32, member: Member) -> Result<()> {
        let gone = || Error::os("process", "pidfd_open of init", libc::ESRCH);
        let pidfd = clone::pidfd(pid).map_err(os("process", "pidfd_open of init"))?;
        // Nobody else waits for our children: what is one now was one before.
        let ours = |s: &ProcStat| !s.is_dead() && s.parent as u32 == std::process::id();
        let process =
            proc_stat(pid).filter(ours).map(|s| Process { pid, start: s.start }).ok_or_else(gone)?;
        member.record(process)?;
        let middle = std::mem::replace(&mut self.process, process);
        self.pidfd = pidfd;
        let _ = clone::wait(middle.pid, true); // it exits at once; only its zombie is collected
        if self.interrupts.is_some() {
            signal::forget(libc::SIGCHLD); // else it wakes the wait for the program, which has four calls to find nothing
        }
        Ok(())
    }

    /// The agent gets the listener before init makes another call (config-linux.md#seccomp: listenerPath).
    fn hand_listener_on(&self, number: i32, plan: &Plan, member: Member) -> Result<()> {
        let at = "linux.seccomp.listenerPath";
        let listener =
            clone::pidfd_take(&self.pidfd, number).map_err(os(at, "pidfd_getfd of the listener"))?;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd()));
        if link.is_ok_and(|l| l.as_os_str() != "anon_inode:seccomp notify") {
            return Err(Error::os(at, "pidfd_getfd of the listener", libc::EPROTO));
        }
        if let Some(l) = &plan.listener {
            crate::notify::hand_on(l, &listener, &member.state(self.process), self.process.pid)?;
        }
        self.go(plan, member)
    }

    /// Waits until the program runs: the wire is close-on-exec.
    pub fn await_exec(&mut self, plan: &Plan, member: Member) -> Result<()> {
        self.wait()?;
        match sync::receive(&self.socket) {
            Ok(Some(m)) if m.head.kind == sync::Kind::Fail => Err(self.failure(plan, &m)),
            Ok(_) | Err(Errno::ECONNRESET) => match self.process.stat() {
                Some(s) if !s.has_exec() => Err(self.died(plan, member)),
                _ => Ok(()),
            },
            Err(e) => Err(Error::os("process", "recvmsg from init", e as i32)),
        }
    }

    fn failure(&self, plan: &Plan, m: &Message) -> Error {
        let n = usize::try_from(m.head.number).unwrap_or(usize::MAX);
        let step = plan.steps.get(n).map(|s| (s.to_string(), &s.act));
        let e = failure(m, step, &plan.program.name);
        match m.head.errno {
            // What filters answer; EACCES is the word of a file's mode.
            libc::EPERM | libc::ENOSYS if e.hint.is_none() => filtered(plan, n, e),
            libc::EMFILE if e.hint.is_none() => few_descriptors(plan, n, e),
            _ => e,
        }
    }

    /// Why init is gone without a word.
    fn died(&self, plan: &Plan, member: Member) -> Error {
        let exit = clone::wait(self.process.pid, true);
        let how = match exit {
            Ok(Some(clone::Exit::Signal(s))) => format!("was killed by signal {s} before the program ran"),
            Ok(Some(clone::Exit::Code(c))) => format!("ended with status {c} before the program ran"),
            _ => "ended before the program ran".to_string(),
        };
        let n = self.progress.load(Ordering::Relaxed) as usize;
        let step = plan.steps.get(n).map_or(String::new(), |s| format!(", at its step {s}"));
        let e = Error::new(Kind::WrongState, "container process", how + &step);
        let e = match exit {
            Ok(Some(clone::Exit::Signal(libc::SIGKILL))) => perhaps_for_memory(e, member.container),
            _ => e,
        };
        if e.hint.is_some() { e } else { filtered(plan, n, e) }
    }

    /// Ends init and collects it.
    pub fn kill(&self) {
        end(&self.pidfd, self.process.pid);
    }
}
