//! The making of a container, which `create` and `run` share; all of it is undone when any of it fails. `restore` and `exec`
//! take the parts that are the same for them.

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::cli::CgroupManager;
use crate::container::{Container, Process, Record, StateRoot};
use crate::error::{Error, Result, os};
use crate::foreground::Foreground;
use crate::plan::spawn::NEWPID;
use crate::plan::{Plan, Request};
use crate::ready::{self, Ready};
use crate::spawn::{self, Child, Member};
use crate::sys::{cred, fd, signal};
use crate::{attached, console, hooks, host, log, resctrl, seal};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a removal waits for the last process to be gone.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What `create`, `run` and `restore` are asked.
#[derive(Clone, Debug, Default)]
pub struct Order {
    pub id: String,
    pub bundle: PathBuf,
    /// Name of the document in the bundle.
    pub config: PathBuf,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub preserve_fds: u32,
    pub foreground: bool,
    pub gate: bool,
    /// Go on without a cgroup that may not be made; unset, unless we are root.
    pub rootless: Option<bool>,
    pub cgroup_manager: CgroupManager,
    /// Directory of the container's record.
    pub dir: PathBuf,
    /// Directory of the socket by which the program says that it is ready.
    pub notify: Option<PathBuf>,
}

/// A container that is created; its init waits to go on.
#[derive(Debug)]
pub struct Made {
    pub container: Container,
    pub child: Child,
    pub plan: Plan,
    /// Not with a gate: `start` waits for that.
    pub ready: Option<Ready>,
}

/// Makes the container as far as `created`. `before_clone` runs when the plan stands and nothing was touched, `begin`
/// when init is ready: it takes the container further.
pub fn make(
    root: &StateRoot,
    order: &Order,
    before_clone: &mut dyn FnMut(&Plan) -> Result<()>,
    begin: &mut dyn FnMut(&mut Made) -> Result<()>,
) -> Result<Made> {
    crate::container::check_id(&order.id)?;
    let mut copy = settle()?;
    let notify = ready::manager().map(|_| root.path.join(&order.id).join(ready::DIR));
    let order = &Order { notify, dir: root.path.join(&order.id), ..order.clone() };
    let bundle = Bundle::open(&order.bundle, &order.config)?;
    let plan = plan(&bundle, order)?;
    let slots = spawn::open_early(&plan)?;
    // Others see init at once, unless it is born into a pid namespace of its own.
    if plan.shape.staged || plan.shape.clone & NEWPID == 0 {
        copy = None;
    }
    check_sockets(order.pidfd_socket.as_deref(), order.console_socket.as_deref())?;
    before_clone(&plan)?;
    let attached = attached::Recorded::of(&plan, &slots)?;
    let record = Record { attached, ..record(&bundle, order, &plan) };
    let (container, cgroup) = reserve(root, &bundle, record, &plan)?;
    let built = listen(order, &container)
        .and_then(|ready| Ok((ready, build(order, &plan, &container, cgroup, (slots, copy))?)))
        .inspect_err(|_| undo(&container));
    let (ready, child) = built?;
    let mut made = Made { container, child, plan, ready };
    let begun = begin(&mut made)
        .and_then(|()| publish(order.pidfd_socket.as_deref(), order.pid_file.as_deref(), &made.child));
    if let Err(e) = begun {
        made.child.kill();
        undo_ours(&mut made.container, made.child.process);
        return Err(e);
    }
    Ok(made)
}

/// Somebody listens at the sockets of the command line.
pub fn check_sockets(pidfd: Option<&Path>, console: Option<&Path>) -> Result<()> {
    [("--pidfd-socket", pidfd), ("--console-socket", console)]
        .iter()
        .try_for_each(|(flag, path)| path.map_or(Ok(()), |path| console::check_socket(flag, path)))
}

/// The directory of the notify socket and, unless `start` will do that, the socket.
fn listen(order: &Order, container: &Container) -> Result<Option<Ready>> {
    if order.notify.is_none() {
        return Ok(None);
    }
    ready::make_dir(container)?;
    if order.gate { Ok(None) } else { Ready::bind(container) }
}

/// What a caller may have left us in must not show in the container: umask, an ignored SIGCHLD, whose children cannot be
/// waited for, a program that can be written to. What comes back is of [`seal::ensure`].
pub fn settle() -> Result<Option<OwnedFd>> {
    let copy = seal::ensure()?; // which begins anew
    cred::set_umask(0o022);
    signal::set_default(libc::SIGCHLD).map_err(os("process", "sigaction"))?;
    Ok(copy)
}

/// The id and the cgroup, which are this container's alone from here on.
pub fn reserve(
    root: &StateRoot,
    bundle: &Bundle,
    mut record: Record,
    plan: &Plan,
) -> Result<(Container, Cgroup)> {
    let rdt = plan.rdt.as_ref().map(|rdt| Ok((resctrl::lock(rdt)?, rdt))).transpose()?;
    record.rdt = rdt.as_ref().map(|(_, rdt)| resctrl::Recorded::of(rdt)).unwrap_or_default();
    let mut container = root.reserve(record, &bundle.text)?;
    // What was there before the lock was ours may have been of a container of this id that is gone by now.
    if container.record.cgroup.was_found() {
        container.record.cgroup = Cgroup::recorded(&plan.cgroup);
        container.save()?;
    }
    let made = Cgroup::create(&plan.cgroup, &container.record.cgroup).and_then(|cgroup| {
        rdt.map_or(Ok(()), |(_, rdt)| container.record.rdt.create(rdt))?;
        Ok(cgroup)
    });
    match made {
        Ok(cgroup) => Ok((container, cgroup)),
        Err(e) => {
            // It has undone itself, and what is in a cgroup that was refused is not ours to kill.
            if let Err(e) = container.remove() {
                tracing::warn!("{e}");
            }
            Err(e)
        }
    }
}

/// What the document and the order amount to on this host; warnings are logged.
pub fn plan(bundle: &Bundle, order: &Order) -> Result<Plan> {
    let mut facts = host::facts(&bundle.config, order.cgroup_manager != CgroupManager::Disabled)?;
    if order.cgroup_manager == CgroupManager::Systemd {
        facts.systemd = Some(crate::cgroup::systemd::manager()?);
    }
    let request = Request {
        id: order.id.clone(),
        dir: order.dir.clone(),
        bundle: bundle.path.clone(),
        foreground: order.foreground,
        console_socket: order.console_socket.clone(),
        no_pivot: order.no_pivot,
        no_new_keyring: order.no_new_keyring,
        preserve_fds: order.preserve_fds,
        listen_fds: handed_on(order.preserve_fds)?,
        notify: order.notify.clone(),
        gate: order.gate,
        rootless: order.rootless,
        overlay: bundle.overlay.clone(),
    };
    let plan = Plan::for_create(&bundle.config, &facts, &request)?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    Ok(plan)
}

/// The count of LISTEN_FDS; these and the preserved ones must be there.
pub fn handed_on(preserve: u32) -> Result<u32> {
    let listen = listen_fds()?;
    check_preserved(u64::from(listen) + u64::from(preserve))?;
    Ok(listen)
}

/// sd_listen_fds(3): the caller passes so many descriptors after 2, unless they were meant for another process.
fn listen_fds() -> Result<u32> {
    if std::env::var("LISTEN_PID").is_ok_and(|pid| pid != std::process::id().to_string()) {
        return Ok(0);
    }
    match std::env::var("LISTEN_FDS") {
        Err(_) => Ok(0),
        Ok(n) if n.is_empty() => Ok(0),
        Ok(n) => n.parse().map_err(|_| Error::invalid("LISTEN_FDS", format!("{n:?} is not a number"))),
    }
}

/// Descriptors that the program keeps must be there.
fn check_preserved(count: u64) -> Result<()> {
    let missing = (3..3 + count).find(|n| !i32::try_from(*n).is_ok_and(fd::is_inherited));
    missing.map_or(Ok(()), |n| Err(Error::invalid("--preserve-fds", format!("descriptor {n} is not open"))))
}

/// What every later call must know of the container.
pub fn record(bundle: &Bundle, order: &Order, plan: &Plan) -> Record {
    let config = &bundle.config;
    Record {
        oci_version: config.oci_version.clone().unwrap_or_default(),
        id: order.id.clone(),
        bundle: bundle.path.clone(),
        rootfs: bundle.path.join(config.root.as_ref().and_then(|r| r.path.as_deref()).unwrap_or_default()),
        created: log::rfc3339(std::time::SystemTime::now()),
        owner: nix::unistd::geteuid().as_raw(),
        annotations: config.annotations.clone().unwrap_or_default(),
        cgroup: Cgroup::recorded(&plan.cgroup),
        rdt: Default::default(), // known with its lock held
        attached: Default::default(),
        hooks: plan.hooks.clone(),
        program: plan.program.name.clone(),
        private_pids: plan.private_pids,
        no_new_keyring: order.no_new_keyring,
        criu: crate::criu::Recorded::of(plan),
    }
}

fn build(
    order: &Order,
    plan: &Plan,
    container: &Container,
    mut cgroup: Cgroup,
    (mut slots, copy): (spawn::Slots, Option<OwnedFd>),
) -> Result<Child> {
    spawn::open_late(plan, container, &mut slots)?;
    attached::attach(plan, &slots)?;
    let member = Member { container, init: true };
    let interrupts = order.foreground.then(Foreground::interrupts).transpose()?;
    let (mut child, slots) = spawn::clone_init(plan, slots, &mut cgroup, member)?;
    child.interrupts = interrupts;
    drop(copy); // init has closed its own first, and is at work while we wait for the kernel
    cgroup.keep();
    serve(child, plan, member, slots, order.console_socket.as_deref())
}

/// Answers the process until it is ready; the terminal's master goes to the caller's socket, or stays with the child.
pub fn serve(
    mut child: Child,
    plan: &Plan,
    member: Member,
    slots: spawn::Slots,
    socket: Option<&Path>,
) -> Result<Child> {
    if let Err(e) = child.serve(plan, member, slots, &mut |master, number| hand_on(socket, master, number)) {
        child.kill();
        return Err(e);
    }
    Ok(child)
}

/// The terminal's master, to the caller's socket if there is one.
pub fn hand_on(socket: Option<&Path>, master: OwnedFd, number: i32) -> Result<Option<OwnedFd>> {
    match socket {
        Some(socket) => {
            let name = format!("/dev/pts/{number}");
            console::send("--console-socket", socket, &name, master.as_fd()).map(|()| None)
        }
        None => {
            console::give_size(&master); // before the program looks
            Ok(Some(master))
        }
    }
}

/// What callers wait for, when all else is done: a pidfd for a manager that cannot wait for init, and the pid file.
pub fn publish(pidfd_socket: Option<&Path>, pid_file: Option<&Path>, child: &Child) -> Result<()> {
    if let Some(socket) = pidfd_socket {
        console::send("--pidfd-socket", socket, "pidfd", child.pidfd.as_fd())?;
    }
    // Last: whoever sees it may call start.
    pid_file.map_or(Ok(()), |file| write_pid_file(file, child.process.pid))
}

/// By a temporary file and rename(2): it is complete when it is seen.
pub fn write_pid_file(file: &Path, pid: i32) -> Result<()> {
    let temp = file.with_file_name(format!(".orlop-pid.{}", std::process::id()));
    let _ = std::fs::remove_file(&temp); // of a process that was killed; the next call says if it stays
    // Others may be able to write to the directory: their links are not followed.
    let written = File::create_new(&temp)
        .and_then(|mut f| f.write_all(pid.to_string().as_bytes()))
        .and_then(|()| std::fs::rename(&temp, file));
    written.map_err(|e| {
        let _ = std::fs::remove_file(&temp); // perhaps it is not even there
        Error::io("--pid-file", format!("write {:?}", file.to_string_lossy()), &e)
    })
}

/// Nothing of a failed create stays; what cannot be removed is logged, since the cause matters more.
pub fn undo(container: &Container) {
    let init = container.init();
    if let Some((p, _)) = init {
        let _ = crate::container::signal(p, libc::SIGKILL); // gone already is as good
    }
    if let Err(e) = take_away(container, init.is_some(), true) {
        tracing::warn!("{e}");
    }
}

/// As [`undo`], where others may have had the lock meanwhile, and deleted it.
pub fn undo_ours(container: &mut Container, init: Process) {
    match container.relock(init) {
        Ok(true) => undo(container),
        Ok(false) => {}
        Err(e) => tracing::warn!("{e}"),
    }
}

/// Ends what is left of a container whose init is dead or dying, frees all that create made, runs the poststop hooks.
/// Unless it `lived`, with an init on record, nothing of ours ever ran in its cgroup: what is there is somebody else's.
pub fn remove(container: &Container, lived: bool) -> Result<()> {
    take_away(container, lived, false)
}

/// As [`remove`]; whoever had the lock and deleted it meanwhile has done our work.
pub fn remove_ours(container: &mut Container, init: Process) -> Result<()> {
    if container.relock(init)? { remove(container, true) } else { Ok(()) }
}

/// `failed`: it was never created.
fn take_away(container: &Container, lived: bool, failed: bool) -> Result<()> {
    container.cgroup().remove(PATIENCE, lived)?;
    container.record.rdt.remove(failed)?;
    container.record.attached.remove()?;
    container.remove()?;
    let state = container.state("stopped", 0).to_string();
    hooks::run_lenient("poststop", &container.record.hooks.poststop, state.as_bytes());
    Ok(())
}
