//! The container side: each step of the plan done, or reported, in order.
//!
//! Runs between clone3(2) and execve(2) in a copy of the runtime's memory. It never allocates, logs, formats, reads
//! config or panics: all it needs was built before the clone. A step may branch on errno and on what stat(2) says,
//! never on config.

mod console;
mod copy;
mod detached;
mod device;
mod exec;
pub mod hook;
mod ids;
pub mod mount;
pub mod mountpoint;
mod paths;
pub mod rootfs;

use crate::plan::step::{Act, Ask, Attr, CStrings, Program, Step, Tree};
use crate::sync::{self, HEAD, Head, Kind, MAX};
use crate::sys::{self, Errno, Sys, clone, cred, fd, ns, path, pty};
use detached::Detached;
use rootfs::Near;
use std::ffi::{CStr, c_char};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

/// Descriptors of ours beside slots and cgroups: socket, the host's procfs, rootfs, directory at work, two masks, /proc,
/// /sys, `cgroup.procs` of a cgroup to join.
const OWN: usize = 9;
/// So many descriptors that nobody needs are closed at once, or fewer where RLIMIT_NOFILE is low.
const MOST_LEFT: u64 = 44;
/// What one step opens at most.
const OF_A_STEP: u64 = 8;

/// A step that failed: the call and its errno; longer words stand in `Init::detail`.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub call: &'static str,
    pub errno: Errno,
}

pub type Done<T = ()> = Result<T, Fault>;

/// Names the call that failed.
pub trait During<T> {
    fn during(self, call: &'static str) -> Done<T>;
}

impl<T> During<T> for Sys<T> {
    fn during(self, call: &'static str) -> Done<T> {
        self.map_err(|errno| Fault { call, errno })
    }
}

/// Pointers for execve(2) into strings of the plan, with a null at the end and, in `envp`, room for HOME.
pub struct Tables {
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

impl Tables {
    fn of(argv: &CStrings, envp: &CStrings) -> Self {
        let table = |list: &CStrings, spare: usize| {
            let nulls = std::iter::repeat_n(std::ptr::null(), 1 + spare);
            list.iter().map(|s| s.as_ptr()).chain(nulls).collect()
        };
        Self { argv: table(argv, 0), envp: table(envp, 1) }
    }
}

/// Everything that init needs, made by the parent before the clone.
pub struct Init<'a> {
    steps: &'a [Step],
    program: Option<&'a Program>,
    /// Pointer tables: of the program, and of each hook in the order of steps.
    tables: Vec<Tables>,
    hooks_run: usize,
    /// Numbers of the descriptors that are init's own, ascending; room for all that there can be.
    own: Vec<u32>,
    /// Everything from this number on is init's.
    first: u32,
    /// So many descriptors are open that nobody needs, of so many that may be.
    left: u64,
    most_left: u64,
    /// Descriptors by slot.
    slots: Vec<Option<OwnedFd>>,
    /// By slot, what the parent's kernel could not give to a tree.
    unset: Vec<(Attr, u64)>,
    /// The step at work, for the parent: a filter or the kernel may end us without a word.
    progress: &'static AtomicU32,
    /// `tasks` files of v1 hierarchies.
    cgroups: Vec<OwnedFd>,
    socket: OwnedFd,
    /// The host's procfs, for what is written to our own process and to sysctls: no mount of the container can
    /// cover it (CVE-2025-52881). Gone before a path is followed that the container names: its links in /proc/self/fd
    /// would lead to the host's / over it (CVE-2024-21626).
    proc: Option<OwnedFd>,
    /// Where failures go once the gate is open.
    report: Option<usize>,
    /// The rootfs, once attached.
    root: Option<OwnedFd>,
    /// The mounts at /proc and /sys. What shares the rootfs with us may rename a directory that is a mount point here
    /// alone, and the mount goes along: covers of what is in them are placed by these.
    fixed: [Option<OwnedFd>; 2],
    /// The directory of what was made last.
    near: Option<Near<'a>>,
    /// Whether there is a file that links ask for.
    seen: Option<(&'a CStr, bool)>,
    /// The empty read-only tmpfs that masks directories, once made.
    mask: Option<OwnedFd>,
    /// The mount of the host's null device that masks files, once made.
    null: Option<OwnedFd>,
    /// Which candidate of the program was found.
    chosen: usize,
    home: path::Buf,
    detail: [u8; 1024],
    detail_len: usize,
}

/// What the parent opened for init.
pub struct Parts {
    pub slots: Vec<Option<OwnedFd>>,
    pub unset: Vec<(Attr, u64)>,
    pub cgroups: Vec<OwnedFd>,
    pub socket: OwnedFd,
    pub proc: OwnedFd,
    pub report: Option<usize>,
    pub progress: &'static AtomicU32,
}

impl<'a> Init<'a> {
    /// Builds all that the steps will need; the last place that allocates.
    pub fn prepare(steps: &'a [Step], program: Option<&'a Program>, parts: Parts) -> Self {
        let mut tables = Vec::new();
        if let Some(p) = program {
            tables.push(Tables::of(&p.argv, &p.envp));
        }
        for step in steps {
            if let Act::Hook(h) = &step.act {
                tables.push(Tables::of(&h.argv, &h.envp));
            }
        }
        Self {
            steps,
            program,
            tables,
            hooks_run: 0,
            own: Vec::with_capacity(parts.slots.len() + parts.cgroups.len() + OWN),
            first: u32::MAX,
            left: 0,
            most_left: MOST_LEFT,
            slots: parts.slots,
            unset: parts.unset,
            cgroups: parts.cgroups,
            socket: parts.socket,
            proc: Some(parts.proc),
            report: parts.report,
            progress: parts.progress,
            root: None,
            fixed: [None, None],
            near: None,
            seen: None,
            mask: None,
            null: None,
            chosen: 0,
            home: path::Buf::new(),
            detail: [0; 1024],
            detail_len: 0,
        }
    }

    /// Does every step; the last one is execve(2). A failure is reported and ends the process.
    pub fn run(&mut self) -> ! {
        #[cfg(debug_assertions)]
        sys::alloc::forbid();
        // The caller's mask must not change the modes of what is made in the rootfs.
        cred::set_umask(0);
        let mut gated = false;
        for n in 0..self.steps.len() {
            self.progress.store(n as u32, Ordering::Relaxed);
            if let Err(fault) = self.step(n) {
                self.fail(n, fault, gated);
            }
            gated |= matches!(self.steps[n].act, Act::WaitGate { .. });
        }
        clone::exit(255) // not reached: every order ends in Exec
    }

    /// In the parent: init is not born in its cgroup, and has to join it by this `cgroup.procs`.
    pub fn join_by(&mut self, procs: OwnedFd) {
        self.cgroups.push(procs);
    }

    /// In the parent: everything closed but the slots, some of which it has to fill; `spent` with it.
    pub fn into_slots(self, mut spent: Vec<OwnedFd>) -> Vec<Option<OwnedFd>> {
        spent.extend(self.cgroups);
        spent.extend([self.socket]);
        spent.extend(self.proc);
        fd::close_all(spent);
        self.slots
    }

    /// As long as the list of acts is.
    fn step(&mut self, n: usize) -> Done {
        if self.left >= self.most_left {
            self.close_others()?;
        }
        let steps = self.steps;
        let act = &steps[n].act;
        if !matches!(act, Act::Mount(_) | Act::Device(_) | Act::Symlink { .. }) {
            self.forget_near();
        }
        match act {
            Act::Dumpable(on) => cred::set_dumpable(*on).during("prctl PR_SET_DUMPABLE"),
            Act::JoinCgroups => self.join_cgroups(),
            Act::JoinNamespaces { list, keep_groups } => self.join_namespaces(list, *keep_groups),
            Act::Unshare(flags) => ns::unshare(*flags).during("unshare"),
            Act::Fork { flags } => self.fork(*flags),
            Act::BecomeRoot { clear_groups } => ids::become_root(*clear_groups),
            Act::EnterTime { offsets } => self.enter_time(offsets),
            Act::NewSession => ns::new_session().during("setsid"),
            Act::NewKeyring { name } => ids::new_keyring(name),
            Act::Ask(what) => self.ask(*what),
            Act::LoopbackUp => ns::loopback_up().during("ioctl SIOCSIFFLAGS lo").map(|fd| self.leave(fd)),
            Act::IsolateMounts { flag } => rootfs::isolate(*flag),
            Act::AttachRoot { tree, path } => self.attach_root(tree, path),
            Act::AttachOverlay { params, path } => self.attach_overlay(params, path),
            Act::OpenRoot { path } => self.open_root(path),
            Act::TakeRoot { tree, .. } => self.take_root(*tree),
            Act::Mount(m) => self.mount(m),
            Act::Device(d) => self.device(d),
            Act::Symlink { target, path, only_if, replace } => {
                self.symlink(target, path, only_if.as_deref(), *replace)
            }
            Act::Hook(h) => self.hook(h),
            Act::Pivot => self.pivot().and_then(|()| self.leave_host()),
            Act::MoveRoot => self.move_root().and_then(|()| self.leave_host()),
            Act::Chroot => self.chroot().and_then(|()| self.leave_host()),
            Act::RootPropagation { flag, recursive } => self.root_propagation(*flag, *recursive),
            Act::MakeReadonly { target } => self.make_readonly(target),
            Act::ReadonlyRoot => self.readonly_root(),
            Act::Hostname(name) => ns::set_hostname(name).during("sethostname"),
            Act::Domainname(name) => ns::set_domainname(name).during("setdomainname"),
            Act::Sysctl { path, value } => self.sysctl(path, value),
            Act::ReadonlyPath(path) => self.readonly_path(path),
            Act::MaskPath(path) => self.mask_path(path),
            Act::Console { rows, columns, mount, uid } => self.console(*rows, *columns, *mount, *uid),
            Act::ControlTerminal => pty::make_controlling(fd::borrow(0)).during("ioctl TIOCSCTTY"),
            Act::OwnNull => self.own_null(),
            Act::OwnStdio { uid } => console::own_stdio(*uid),
            Act::Rlimit { resource, soft, hard } => {
                cred::set_limit(0, *resource, *soft, *hard).during("prlimit")
            }
            Act::Personality(p) => cred::set_personality(*p).during("personality"),
            Act::Scheduler(s) => cred::set_scheduler(0, s).during("sched_setattr"),
            Act::IoPriority(value) => cred::set_io_priority(*value).during("ioprio_set"),
            Act::MemoryPolicy { mode, nodes } => cred::set_mempolicy(*mode, nodes).during("set_mempolicy"),
            Act::ResetAffinity => cred::reset_affinity().during("sched_setaffinity"),
            Act::Affinity(mask) => cred::set_affinity(mask).during("sched_setaffinity"),
            Act::ExecLabel { file, label } => self.exec_label(file, label),
            Act::Seccomp { program, flags, listener } => self.seccomp(program, *flags, *listener),
            Act::DropBounding { have, keep } => ids::drop_bounding(*have & !*keep),
            Act::KeepCaps => cred::keep_caps().during("prctl PR_SET_KEEPCAPS"),
            Act::SetUser { uid, gid, groups } => ids::set_user(*uid, *gid, groups.as_deref()),
            Act::SetCaps(caps) => ids::set_caps(caps),
            Act::NoNewPrivs => cred::no_new_privs().during("prctl PR_SET_NO_NEW_PRIVS"),
            Act::Umask(mask) => {
                cred::set_umask(*mask);
                Ok(())
            }
            Act::MakeCwd { path } => self.make_dirs(path, false).map(drop),
            Act::Cwd { path } => {
                self.proc = None;
                self.cwd(path)
            }
            Act::ResetSignals { ignored } => crate::sys::signal::reset(*ignored).during("rt_sigprocmask"),
            Act::CloseInherited { first } => self.close_inherited(*first),
            Act::CloseHosts { first } => self.close_hosts(*first),
            Act::FindProgram => self.find_program(),
            Act::WaitGate { gate } => self.wait_gate(*gate),
            Act::Exec => self.exec(),
        }
    }

    /// Leaves a descriptor open: many are closed by one call, and what is there at its end execve(2) closes.
    fn leave(&mut self, fd: OwnedFd) {
        fd::keep(fd);
        self.left += 1;
    }

    /// After the host's root: no path of the container's may lead back by what was left open (CVE-2024-21626).
    fn leave_host(&mut self) -> Done {
        let [proc, sys] = self.fixed.each_mut().map(Option::take);
        for fd in [self.mask.take(), self.null.take(), proc, sys].into_iter().flatten() {
            self.leave(fd);
        }
        if self.left > 0 { self.close_others() } else { Ok(()) }
    }

    fn close_inherited(&mut self, first: u32) -> Done {
        let soft = cred::limit(libc::RLIMIT_NOFILE).map_or(0, |l| l.0);
        let ours = u64::from(first) + self.own.capacity() as u64 + OF_A_STEP;
        self.most_left = soft.saturating_sub(ours).clamp(1, MOST_LEFT);
        self.first = first;
        self.close_others()
    }

    fn close_hosts(&mut self, first: u32) -> Done {
        self.first = first;
        let slots = self.slots.iter_mut().filter_map(Option::take);
        let hosts = self.cgroups.drain(..).chain(self.proc.take()).chain(slots);
        hosts.for_each(fd::keep); // until the next line
        self.close_others()
    }

    /// Closes all from `first` on but our own.
    fn close_others(&mut self) -> Done {
        let (mut first, near) = (self.first, self.near.as_ref().map(|n| &n.dir));
        let [proc, sys] = &self.fixed;
        let kept =
            [&self.root, &self.mask, &self.null, proc, sys].map(Option::as_ref).into_iter().chain([near]);
        let ours = self.cgroups.iter().chain(&self.proc).chain([&self.socket]);
        let own = self.slots.iter().map(Option::as_ref).chain(kept).flatten().chain(ours);
        self.own.clear();
        self.own.extend(own.map(|fd| fd.as_raw_fd() as u32)); // within its capacity
        self.own.sort_unstable();
        self.left = 0;
        for own in &self.own {
            if *own > first {
                fd::close_range(first, *own - 1, 0).during("close_range")?;
            }
            first = first.max(*own + 1);
        }
        fd::close_range(first, u32::MAX, 0).during("close_range")
    }

    /// "0" means the writer itself, which spares the kernel the lock that moving another process takes.
    fn join_cgroups(&mut self) -> Done {
        for tasks in &self.cgroups {
            fd::write(tasks, b"0").during("write \"0\" to the cgroup")?;
        }
        while let Some(tasks) = self.cgroups.pop() {
            self.leave(tasks);
        }
        Ok(())
    }

    /// Joins in order, the user namespace last. Over some of the others we may have rights only then: what is refused
    /// at first is tried again at the end.
    fn join_namespaces(&mut self, list: &[(usize, i32)], keep_groups: bool) -> Done {
        let mut refused = 0u64;
        for (n, (slot, kind)) in list.iter().enumerate() {
            if *kind & crate::plan::spawn::NEWUSER != 0 && !keep_groups {
                // It may deny setgroups(2): our caller's groups must not come along (user_namespaces(7)).
                match cred::set_groups(&[]) {
                    Err(Errno::EPERM) => {} // an ordinary user cannot, and has no right to lose
                    other => other.during("setgroups")?,
                }
            }
            match ns::enter(self.slot(*slot)?, *kind) {
                Err(Errno::EPERM) if n < 64 => refused |= 1 << n,
                other => other.during("setns")?,
            }
        }
        for (n, (slot, kind)) in list.iter().enumerate() {
            if n < 64 && refused & (1 << n) != 0 {
                ns::enter(self.slot(*slot)?, *kind).during("setns")?;
            }
        }
        Ok(())
    }

    /// Clones init as our sibling, tells the parent its pid, and ends: a child of the middle process could not be
    /// waited for by whoever called us.
    fn fork(&mut self, flags: i32) -> Done {
        match clone::sibling(flags).during("clone")? {
            0 => {
                self.await_go(); // what we ask before the parent knows our pid would be answered for the other
                Ok(())
            }
            pid => {
                let head = Head::new(Kind::Pid, pid);
                let _ = fd::write(&self.socket, &head.to_bytes()); // a dead parent is noticed by init itself
                clone::exit(0)
            }
        }
    }

    fn proc(&self) -> Done<BorrowedFd<'_>> {
        self.proc.as_ref().map(|f| f.as_fd()).ok_or(Fault { call: "open in /proc", errno: Errno::EBADF })
    }

    fn enter_time(&mut self, offsets: &CStr) -> Done {
        ns::unshare(crate::plan::spawn::NEWTIME).during("unshare CLONE_NEWTIME")?;
        if !offsets.is_empty() {
            self.write_proc(c"self/timens_offsets", offsets.to_bytes())?;
        }
        let file = path::open(self.proc()?, c"self/ns", libc::O_PATH | libc::O_DIRECTORY, 0, path::BENEATH)
            .and_then(|dir| fd::openat(&dir, c"time_for_children", libc::O_RDONLY, 0))
            .during("open time_for_children")?;
        ns::enter(&file, crate::plan::spawn::NEWTIME).during("setns time_for_children")
    }

    fn exec_label(&mut self, file: &CStr, label: &CStr) -> Done {
        match self.write_proc(file, label.to_bytes()) {
            // Kernels before 5.8 have no directory for each LSM.
            Err(Fault { errno: Errno::ENOENT, .. }) => self.write_proc(c"self/attr/exec", label.to_bytes()),
            other => other,
        }
    }

    fn sysctl(&mut self, name: &CStr, value: &CStr) -> Done {
        let mut buf = path::Buf::new();
        let name = buf.join(&[b"sys/", name.to_bytes()]).during("open")?;
        self.write_proc(name, value.to_bytes())
    }

    /// One write to a file of procfs, which is proven to be procfs all the way: nothing may be mounted on it.
    fn write_proc(&self, name: &CStr, value: &[u8]) -> Done {
        let file =
            path::open(self.proc()?, name, libc::O_WRONLY, 0, path::BENEATH).during("open in /proc")?;
        match fd::write(&file, value).during("write to /proc")? {
            n if n == value.len() => Ok(()),
            _ => Err(Fault { call: "write to /proc", errno: Errno::EIO }),
        }
    }

    fn ask(&mut self, what: Ask) -> Done {
        let head = Head::new(Kind::Ask, sync::ask_number(what));
        self.tell(head, &[]);
        self.await_go();
        Ok(())
    }

    /// Waits for the parent; when it is gone, so are we: init never outlives a dead creator.
    fn await_go(&self) {
        let mut buf = [0; HEAD];
        match fd::read(&self.socket, &mut buf) {
            Ok(n) if Head::from_bytes(&buf[..n]).is_some_and(|h| h.kind == Kind::Go) => {}
            _ => clone::exit(255),
        }
    }

    /// Sends a message to the parent; ends when it is gone.
    fn tell(&self, head: Head, parts: &[&[u8]]) {
        let mut buf = [0; MAX];
        let len = compose(&mut buf, head, parts);
        if fd::write(&self.socket, &buf[..len]).is_err() {
            clone::exit(255);
        }
    }

    fn seccomp(&mut self, program: &[u64], flags: u32, listener: bool) -> Done {
        let Some(fd) = crate::sys::seccomp::load(program, flags, listener).during("seccomp")? else {
            return Ok(());
        };
        // The parent takes a copy by pidfd_getfd(2): only read and write are called under the filter for that.
        self.tell(Head::new(Kind::Listener, fd.as_raw_fd()), &[]);
        self.await_go();
        Ok(())
    }

    fn slot(&self, slot: usize) -> Done<BorrowedFd<'_>> {
        let fd = self.slots.get(slot).and_then(Option::as_ref);
        fd.map(|f| f.as_fd()).ok_or(Fault { call: "slot", errno: Errno::EBADF })
    }

    /// The rootfs; every path of the container is resolved below it.
    fn root(&self) -> Done<BorrowedFd<'_>> {
        self.root.as_ref().map(|f| f.as_fd()).ok_or(Fault { call: "rootfs", errno: Errno::EBADF })
    }

    /// The tree of a bind mount, a descriptor of our own.
    fn tree(&mut self, tree: &Tree) -> Done<Detached> {
        match tree {
            Tree::Slot(slot) => {
                let fd = self.slots.get_mut(*slot).and_then(Option::take);
                let mut tree = Detached::new(fd.ok_or(Fault { call: "slot", errno: Errno::EBADF })?);
                if let Some(change) = self.unset.get(*slot).filter(|c| **c != Default::default()) {
                    tree.wait(change.0, change.1, true)?;
                }
                Ok(tree)
            }
            Tree::Path { path, recursive, nofollow, propagation } => {
                let flags = (*recursive, *nofollow);
                if *propagation != 0 {
                    if let Ok(fd) = sys::mount::copy_tree(path, flags, Attr::default(), *propagation) {
                        return Ok(Detached::new(fd));
                    }
                }
                let fd = sys::mount::clone_tree_of(path, *recursive, *nofollow).during("open_tree")?;
                let mut tree = Detached::new(fd);
                if *propagation != 0 {
                    tree.set(Attr::default(), *propagation, true)?;
                }
                Ok(tree)
            }
        }
    }

    fn set_detail(&mut self, parts: &[&[u8]]) {
        self.detail_len = append(&mut self.detail, 0, parts);
    }

    fn wait_gate(&mut self, gate: usize) -> Done {
        let mut byte = [0];
        let n = fd::read(self.slot(gate)?, &mut byte).during("read of the gate")?;
        if n == 1 { Ok(()) } else { Err(Fault { call: "read of the gate", errno: Errno::EPIPE }) }
    }

    /// Reports a failed step, to the parent or, once the gate was open, to `start`; then ends.
    fn fail(&self, step: usize, fault: Fault, gated: bool) -> ! {
        let head = Head { kind: Kind::Fail, number: step as i32, errno: fault.errno as i32 };
        let mut buf = [0; MAX];
        let at = self.steps[step].at.as_bytes();
        let at = &at[..at.len().min(400)];
        let detail = &self.detail[..self.detail_len];
        let len = compose(&mut buf, head, &[at, b"\0", fault.call.as_bytes(), b"\0", detail]);
        let target = match self.report {
            Some(slot) if gated => self.slot(slot).ok(),
            _ => Some(self.socket.as_fd()),
        };
        if let Some(target) = target {
            let _ = fd::write(target, &buf[..len]); // nobody is left to tell
        }
        clone::exit(255)
    }
}

/// Writes head and parts one behind the other; what does not fit is cut.
fn compose(buf: &mut [u8; MAX], head: Head, parts: &[&[u8]]) -> usize {
    buf[..HEAD].copy_from_slice(&head.to_bytes());
    append(buf, HEAD, parts)
}

/// Writes the parts behind the first `len` bytes; what does not fit is cut. The new length.
fn append(buf: &mut [u8], mut len: usize, parts: &[&[u8]]) -> usize {
    for part in parts {
        let n = part.len().min(buf.len() - len);
        buf[len..len + n].copy_from_slice(&part[..n]);
        len += n;
    }
    len
}
