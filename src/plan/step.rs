//! What init does, as plain data: built before the clone, executed after it without a decision left.
//!
//! A [`Step`] is an [`Act`] and the property of the specification that asked for it. Descriptors that the parent
//! opens before the clone are named by their [`Slot`].

use super::idmap::Maps;
use std::ffi::CString;
use std::fmt;

/// Index of a descriptor that the parent opens before the clone (see [`Open`]).
pub type Slot = usize;

/// A file of ours or of the host, opened by the parent before the clone, so that what only the host can tell (a
/// missing bind source) is known before anything is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The property that names it.
    pub at: String,
    pub what: OpenWhat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenWhat {
    /// open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount at `path`, out of reach of later renames.
    Tree { path: CString, recursive: bool, nofollow: bool, propagation: u64 },
    /// The same, id-mapped (mount_setattr(2) MOUNT_ATTR_IDMAP) by these mappings, `deep` with all that is below it.
    MappedTree { path: CString, recursive: bool, propagation: u64, maps: Maps, deep: bool },
    /// The same for what exists only once the container is on record: its cgroup, with the one it stays in when it
    /// could have none as `own`, or the directory of its notify socket.
    LateTree { path: CString, own: Option<CString>, attr: Attr, propagation: u64 },
    /// A namespace file; `kind` is its CLONE_NEW* flag, checked by NS_GET_NSTYPE.
    Namespace { path: CString, kind: i32 },
    /// exec: a pidfd of the container's init, by which setns(2) joins all of its namespaces at once.
    Init,
    /// Nothing to open, but a check: the namespace of this slot is not the one that the runtime is in.
    NotOurs { namespace: Slot, kind: i32 },
    /// A check as well: the user namespace of this slot has these mappings.
    SameMaps { namespace: Slot, maps: Maps },
    /// An anonymous file which the parent fills with the container's state (runtime.md#state) of this status once
    /// the pid is known: standard input of hooks that init runs.
    State { status: &'static str },
    /// A file of the host that is appended to, made when it is missing.
    Append { path: CString },
    /// The FIFO by which `start` lets init go on; held open for both directions, so that a read waits.
    Gate,
    /// The FIFO by which init tells `start` of a failure; end of file means that the program runs.
    Report,
}

/// Where the tree of a bind mount comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Opened by the parent.
    Slot(Slot),
    /// Opened by init itself, which alone has the right to: an ordinary user's parent may not clone mounts.
    Path { path: CString, recursive: bool, nofollow: bool, propagation: u64 },
}

/// mount_setattr(2) arguments; all zero means no call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    pub set: u64,
    pub clear: u64,
}

impl Attr {
    /// MOUNT_ATTR_RDONLY
    pub const READ_ONLY: Self = Self { set: 1, clear: 0 };

    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0
    }
}

/// config.md#mounts, one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Destination inside the rootfs, as written.
    pub target: CString,
    pub what: MountWhat,
    /// No component of the target may be a link: proc, sysfs and what lies below them (CVE-2019-19921).
    pub strict_target: bool,
    /// A link at the target is covered itself (`dest-nofollow`).
    pub cover_link: bool,
    /// A source that is a link is made once more at the target (`copy-symlink`).
    pub copy_link: bool,
    pub proc: OnProc,
    /// Attributes of the mount itself (MOUNT_ATTR_*).
    pub attr: Attr,
    /// Attributes of the mount and everything below it (`rro` and its like).
    pub rattr: Attr,
    /// Propagation changes in order: (MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE, recursive).
    pub propagation: Vec<(u64, bool)>,
}

/// What a mount may do to a procfs of the container (CVE-2019-16884): files that a program or we ourselves trust are
/// there. The target counts as it was found, whatever its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnProc {
    /// It must not lie on one.
    #[default]
    Never,
    /// It covers /proc: it must be a procfs, from its root on.
    Whole,
    /// It covers one of the files that may be.
    File,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountWhat {
    Bind(Tree),
    /// `remount`: new attributes, and data, of what is mounted at the target.
    Remount {
        params: Vec<(CString, Option<CString>)>,
    },
    /// A new instance: fsopen(2) of `fstype`, every parameter by fsconfig(2) in order, then fsmount(2).
    New {
        fstype: CString,
        source: CString,
        params: Vec<(CString, Option<CString>)>,
        /// mount(2) in place of all that.
        page: Option<Page>,
        /// tmpfs only: copy what the mount covers into it.
        copy_up: bool,
        /// tmpfs without a `mode=`: take mode and owner of the directory that it covers.
        inherit_mode: bool,
        /// sysfs in a user namespace that does not own its network namespace: bind the host's instead.
        fallback: Option<Tree>,
    },
    /// The cgroup file systems of v1: a tmpfs with one mount a hierarchy and links for joined controllers.
    CgroupV1 {
        hierarchies: Vec<CgroupV1Mount>,
        links: Vec<(CString, CString)>,
        read_only: bool,
    },
}

/// The parameters of a file system as mount(2) takes them, in one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub options: CString,
    /// One is too long for fsconfig(2). Else mount(2) makes the same mount by fewer calls, and of one that it refuses the
    /// other way tells why.
    pub only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupV1Mount {
    /// Name of the directory, `cpu,cpuacct`.
    pub name: CString,
    /// The container's own cgroup to bind, when it has no cgroup namespace.
    pub bind: Option<Slot>,
    /// Options of a `cgroup` mount otherwise: `memory`, or `none,name=systemd`.
    pub options: CString,
}

/// config-linux.md#devices, one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Absolute path in the container.
    pub path: CString,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub kind: u32,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Where mknod(2) is not allowed: the host's node, bound.
    pub bind: Option<Tree>,
}

/// A hook that init runs itself, inside the container's namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideHook {
    pub path: CString,
    pub argv: CStrings,
    pub envp: CStrings,
    /// Where createContainer hooks run, if it can be entered; startContainer hooks are where the program will be.
    pub cwd: Option<CString>,
    /// Milliseconds.
    pub timeout: Option<u64>,
    /// The state on standard input.
    pub state: Slot,
    /// Files for standard output and error, in place of our own ends.
    pub output: [Option<Slot>; 2],
}

/// A list of C strings that execve(2) can take; the pointers are made by `init`, into a table reserved before the
/// clone.
pub type CStrings = Vec<CString>;

/// How the program is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// `args[0]` as written, for messages; empty when the document has no process, which `start` refuses.
    pub name: String,
    /// Paths to try in order: one when `args[0]` has a slash, else one for each directory of PATH.
    pub candidates: Vec<CString>,
    pub argv: CStrings,
    pub envp: CStrings,
    /// Append HOME from the container's /etc/passwd for this uid: the environment has none.
    pub home_of: Option<u32>,
}

/// The five sets as bit masks (capabilities(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// What init asks of its parent, and waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A unit of systemd around the pid of init, which must exist by then, and the cgroup that comes with it.
    Unit,
    /// uid and gid maps of the new user namespace.
    Maps,
    /// prestart and createRuntime hooks.
    Hooks,
    /// Resource limits, which only the parent may raise: prlimit(2).
    Limits,
    /// Interfaces to move into the new network namespace.
    NetDevices,
    /// All is done but the program: the parent records it, and init goes to the gate.
    Ready,
}

/// One step and the property that asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: String,
    pub act: Act,
}

impl Step {
    pub fn new(at: impl Into<String>, act: Act) -> Self {
        Self { at: at.into(), act }
    }
}

/// What init can do. Each variant names the section of the runtime specification (or the man page) it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// prctl(PR_SET_DUMPABLE): off hides /proc/self from processes of a namespace that is joined (CVE-2016-9962).
    Dumpable(bool),
    /// Write "0" to the `tasks` file of each v1 hierarchy (config-linux.md#cgroups-path).
    JoinCgroups,
    /// setns(2), of a namespace or, by a pidfd, of several at once; those refused with EPERM are tried again once the
    /// user namespace was joined (config-linux.md#namespaces).
    JoinNamespaces {
        list: Vec<(Slot, i32)>,
        /// Our caller's groups stay with us in the user namespace, where they could not be dropped.
        keep_groups: bool,
    },
    /// unshare(2) of these namespaces.
    Unshare(i32),
    /// A process more (see [`super::spawn::Shape::staged`]): clone init as our sibling, with these new namespaces, tell
    /// the parent its pid and end. For `exec`, the parent sets limits before the other goes on.
    Fork {
        flags: i32,
    },
    /// Become uid 0 and gid 0 of the user namespace; `clear_groups` unless setgroups(2) is denied.
    BecomeRoot {
        clear_groups: bool,
    },
    /// Offsets of a new time namespace, one line a clock, and entering it (config-linux.md#offset-for-time-namespace).
    EnterTime {
        offsets: CString,
    },
    /// setsid(2)
    NewSession,
    /// keyctl(KEYCTL_JOIN_SESSION_KEYRING) of this name.
    NewKeyring {
        name: CString,
    },
    /// Wait until the parent has done this.
    Ask(Ask),
    /// lo up (config-linux.md#network).
    LoopbackUp,
    /// Host mounts get no event of ours: everything slave (or as `flag` says) in our copy of the mount table.
    IsolateMounts {
        flag: u64,
    },
    /// Attach the rootfs' tree at its own path, where hooks look for it (config.md#posix-platform-hooks); every path of
    /// the container is resolved below it from here on (config.md#root).
    AttachRoot {
        tree: Tree,
        path: CString,
    },
    /// Assemble the rootfs from the layers that `imgtool` left unmounted.
    AttachOverlay {
        params: Vec<(CString, Option<CString>)>,
        path: CString,
    },
    /// Without a mount namespace of its own the rootfs is entered as it is.
    OpenRoot {
        path: CString,
    },
    /// The same with mounts in it: the tree that the parent has attached at its path, and takes away with the container.
    TakeRoot {
        tree: Slot,
        path: CString,
    },
    Mount(Mount),
    Device(Device),
    /// symlinkat(2) at `path`; an existing file stays, unless `replace`.
    Symlink {
        target: CString,
        path: CString,
        only_if: Option<CString>,
        replace: bool,
    },
    /// createContainer and startContainer (config.md#posix-platform-hooks).
    Hook(InsideHook),
    /// pivot_root(2), and the old root unmounted.
    Pivot,
    /// move_mount(2) onto / and chroot(2): `--no-pivot`.
    MoveRoot,
    /// chroot(2) only.
    Chroot,
    /// Propagation of the root (config-linux.md#rootfs-mount-propagation).
    RootPropagation {
        flag: u64,
        recursive: bool,
    },
    /// A mount made writable for what had to be made below it becomes read-only.
    MakeReadonly {
        target: CString,
    },
    /// config.md#root: readonly
    ReadonlyRoot,
    /// sethostname(2)
    Hostname(CString),
    /// setdomainname(2)
    Domainname(CString),
    /// `path` below /proc/sys (config-linux.md#sysctl).
    Sysctl {
        path: CString,
        value: CString,
    },
    /// config-linux.md#readonly-paths; absent is fine.
    ReadonlyPath(CString),
    /// config-linux.md#masked-paths; absent is fine.
    MaskPath(CString),
    /// A new pty from the container's devpts, its master sent to the parent, its slave on 0 to 2 and
    /// at /dev/console (config.md#process: terminal). Size in characters.
    Console {
        rows: u16,
        columns: u16,
        mount: bool,
        uid: u32,
    },
    /// The terminal on 0 becomes that of our session: ioctl(2) TIOCSCTTY.
    ControlTerminal,
    /// Standard streams that are the host's null device become the container's.
    OwnNull,
    /// Standard streams that are not terminals belong to the container's user.
    OwnStdio {
        uid: u32,
    },
    /// setrlimit(2): (RLIMIT_*, soft, hard).
    Rlimit {
        resource: u32,
        soft: u64,
        hard: u64,
    },
    /// personality(2)
    Personality(u64),
    /// sched_setattr(2)
    Scheduler(Scheduler),
    /// ioprio_set(2), class and data as one value.
    IoPriority(u32),
    /// set_mempolicy(2): mode with flags, nodes as a bit mask.
    MemoryPolicy {
        mode: i32,
        nodes: Vec<u64>,
    },
    /// sched_setaffinity(2) to all processors: the caller's own pinning must not stick.
    ResetAffinity,
    /// sched_setaffinity(2) to these processors (config.md#linux-process: execCPUAffinity).
    Affinity(Vec<u64>),
    /// The label of the next execve(2), to `attr/<file>` of our own process (LSM documentation).
    ExecLabel {
        file: CString,
        label: CString,
    },
    /// A compiled filter; `listener` asks for a descriptor that is handed to the agent before any other call.
    Seccomp {
        program: Vec<u64>,
        flags: u32,
        listener: bool,
    },
    /// Drop what is not in `keep` from the bounding set, which is `have` at most.
    DropBounding {
        have: u64,
        keep: u64,
    },
    /// prctl(PR_SET_KEEPCAPS): permitted capabilities outlive the change of ids.
    KeepCaps,
    /// setgroups, setresgid, setresuid. No call of setgroups when `groups` is `None`: it is denied.
    SetUser {
        uid: u32,
        gid: u32,
        groups: Option<Vec<u32>>,
    },
    /// capset(2), then the ambient set.
    SetCaps(CapSets),
    /// prctl(PR_SET_NO_NEW_PRIVS)
    NoNewPrivs,
    /// umask(2)
    Umask(u32),
    /// The working directory is made while the rootfs is writable.
    MakeCwd {
        path: CString,
    },
    /// chdir(2) with final rights, then proven to lie inside (CVE-2024-21626).
    Cwd {
        path: CString,
    },
    /// Default actions and an empty mask for signals: execve keeps what is ignored.
    ResetSignals {
        ignored: u64,
    },
    /// Everything from this number on is closed but init's own descriptors, which execve closes: the caller's leaks
    /// never reach the program, and our lock and our end of the wire do not outlive us in init.
    CloseInherited {
        first: u32,
    },
    /// All that the parent has opened is closed too, before processes of the container see ours.
    CloseHosts {
        first: u32,
    },
    /// Choose the program with the user's final rights; `execve` comes later.
    FindProgram,
    /// Wait until `start` opens the gate.
    WaitGate {
        gate: Slot,
    },
    /// execve(2)
    Exec,
}

/// sched_setattr(2), times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::explain::step(f, self)
    }
}
