//! The plan in words: what `orlop explain` prints, golden plans hold, and error messages say of a step.
//!
//! A step has two forms: `{}` for messages, in which long lists are counted, and `{:#}` for the reader of a plan, in
//! which they are written out.

mod mounts;

use super::idmap::IdMap;
use super::step::{Act, Ask, CapSets, Device, InsideHook, Open, OpenWhat, Scheduler, Step};
use super::{Plan, caps, order, spawn};
use mounts::{bind, mount, parameters, propagation};
use std::ffi::CStr;
use std::fmt::{self, Formatter, Write};

/// The plan, one line for each thing that is done.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let mut line = |l: fmt::Arguments| {
        let _ = writeln!(out, "{l}"); // a String takes everything
    };
    for w in &plan.warnings {
        line(format_args!("warning: {w}"));
    }
    for (n, open) in plan.opens.iter().enumerate() {
        line(format_args!("{}: {} as #{n}", open.at, Opened(open)));
    }
    for l in plan.cgroup.lines() {
        line(format_args!("{l}"));
    }
    for l in plan.rdt.iter().flat_map(|r| r.lines()) {
        line(format_args!("{l}"));
    }
    line(format_args!("linux.namespaces: {}", order::describe(&plan.shape)));
    for (at, map) in [("linux.uidMappings", &plan.maps.uid), ("linux.gidMappings", &plan.maps.gid)] {
        for IdMap { inside, outside, size } in map {
            line(format_args!("{at}: {size} ids from {inside} inside are those from {outside} outside"));
        }
    }
    if let Some(score) = plan.oom_score_adj {
        line(format_args!("process.oomScoreAdj: write \"{score}\" to oom_score_adj"));
    }
    for step in &plan.steps {
        line(format_args!("{step:#}"));
        match step.act {
            Act::Ask(Ask::Hooks) => {
                for (name, hooks) in
                    [("prestart", &plan.hooks.prestart), ("createRuntime", &plan.hooks.create_runtime)]
                {
                    for (n, hook) in hooks.iter().enumerate() {
                        line(format_args!("  hooks.{name}[{n}]: run {:?}", hook.path));
                    }
                }
            }
            Act::Ask(Ask::Limits) => plan.limits.iter().for_each(|s| line(format_args!("  {s:#}"))),
            Act::Seccomp { listener: true, .. } => {
                if let Some(l) = &plan.listener {
                    line(format_args!("  linux.seccomp.listenerPath: hand the listener to {:?}", l.path));
                }
            }
            _ => {}
        }
    }
    out
}

/// One line for one step: the property that asked for it and what is done.
pub fn step(f: &mut Formatter<'_>, s: &Step) -> fmt::Result {
    write!(f, "{}: ", s.at)?;
    words(f, &s.act)
}

/// As long as the list of acts is.
fn words(f: &mut Formatter<'_>, act: &Act) -> fmt::Result {
    match act {
        Act::Dumpable(true) => f.write_str("become dumpable"),
        Act::Dumpable(false) => f.write_str("become undumpable"),
        Act::JoinCgroups => f.write_str("enter the cgroup"),
        Act::JoinNamespaces { list, .. } => {
            f.write_str("join namespaces")?;
            each(f, list, |f, (slot, kind)| write!(f, "{}{}", kinds(*kind), Slot(*slot)))
        }
        Act::Unshare(flags) => write!(f, "make namespaces: {}", kinds(*flags)),
        Act::Fork { flags } => write!(f, "clone init with new namespaces: {}", kinds(*flags)),
        Act::BecomeRoot { clear_groups: true } => f.write_str("become uid 0 and gid 0, without groups"),
        Act::BecomeRoot { clear_groups: false } => f.write_str("become uid 0 and gid 0"),
        Act::EnterTime { offsets } => {
            write!(f, "make and enter a time namespace{}", list_of(offsets.to_string_lossy().lines()))
        }
        Act::NewSession => f.write_str("start a session"),
        Act::NewKeyring { name } => write!(f, "join the new keyring {name:?}"),
        Act::Ask(ask) => f.write_str(match ask {
            Ask::Unit => "ask the parent for a unit of systemd",
            Ask::Maps => "ask the parent to write the id maps",
            Ask::Hooks => "ask the parent to run hooks",
            Ask::Limits => "ask the parent to set limits",
            Ask::NetDevices => "ask the parent to move interfaces",
            Ask::Ready => "tell the parent that all is ready",
        }),
        Act::LoopbackUp => f.write_str("set lo up"),
        Act::IsolateMounts { flag } => write!(f, "make every mount {}", propagation(*flag, true)),
        Act::AttachRoot { tree, .. } => bind(f, "attach the rootfs", tree),
        Act::AttachOverlay { params, .. } => {
            f.write_str("mount overlay as the rootfs")?;
            parameters(f, params)
        }
        Act::OpenRoot { path } => write!(f, "open the rootfs {path:?}"),
        Act::TakeRoot { path, .. } => write!(f, "take the rootfs {path:?}, which the parent has attached"),
        Act::Mount(m) => mount(f, m),
        Act::Device(d) => device(f, d),
        Act::Symlink { target, path, only_if, replace } => {
            write!(f, "link {path:?} to {target:?}")?;
            if let Some(file) = only_if {
                write!(f, " if {file:?} is there")?;
            }
            f.write_str(if *replace { ", replacing" } else { "" })
        }
        Act::Hook(h) => hook(f, h),
        Act::Pivot => f.write_str("pivot_root"),
        Act::MoveRoot => f.write_str("move the rootfs onto / and chroot"),
        Act::Chroot => f.write_str("chroot"),
        Act::RootPropagation { flag, recursive } => {
            write!(f, "make / {}", propagation(*flag, *recursive))
        }
        Act::MakeReadonly { target } => write!(f, "make {target:?} read-only"),
        Act::ReadonlyRoot => f.write_str("make / read-only"),
        Act::Hostname(name) => write!(f, "sethostname {name:?}"),
        Act::Domainname(name) => write!(f, "setdomainname {name:?}"),
        Act::Sysctl { path, value } => write!(f, "write {} to /proc/sys/{}", cut(f, value), plain(path)),
        Act::ReadonlyPath(path) => write!(f, "make {path:?} read-only"),
        Act::MaskPath(path) => write!(f, "mask {path:?}"),
        Act::Console { rows, columns, mount, uid } => {
            f.write_str("open a terminal")?;
            if (*rows, *columns) != (0, 0) {
                write!(f, " of {rows} rows and {columns} columns")?;
            }
            write!(f, ", owned by uid {uid}")?;
            f.write_str(if *mount { ", at /dev/console" } else { "" })
        }
        Act::ControlTerminal => f.write_str("make it the terminal of the session"),
        Act::OwnNull => f.write_str("reopen standard streams that are the host's null device"),
        Act::OwnStdio { uid } => write!(f, "give the standard streams to uid {uid}"),
        Act::Rlimit { resource, soft, hard } => {
            write!(f, "setrlimit {} {} {}", limit_name(*resource), Limit(*soft), Limit(*hard))
        }
        Act::Personality(p) => write!(f, "personality {p:#x}"),
        Act::Scheduler(s) => scheduler(f, s),
        Act::IoPriority(value) => {
            write!(f, "ioprio_set class {}, priority {}", value >> 13, value & 0x1fff)
        }
        Act::MemoryPolicy { mode, nodes } => {
            let bits = nodes.iter().map(|word| word.count_ones()).sum::<u32>();
            write!(f, "set_mempolicy mode {mode:#x}, {bits} nodes")
        }
        Act::Affinity(mask) => {
            let on = |n: &usize| mask[n / 64] >> (n % 64) & 1 == 1;
            let numbers = (0..mask.len() * 64).filter(on).map(|n| n.to_string());
            write!(f, "run on processors {}", join(numbers, " "))
        }
        Act::ResetAffinity => f.write_str("run on every processor"),
        Act::ExecLabel { file, label } => write!(f, "write {label:?} to /proc/{}", plain(file)),
        Act::Seccomp { program, flags, listener } => seccomp(f, program.len(), *flags, *listener),
        Act::DropBounding { keep, .. } => {
            write!(f, "drop all from the bounding set but {}", Caps(*keep, f.alternate()))
        }
        Act::KeepCaps => f.write_str("keep capabilities over the change of ids"),
        Act::SetUser { uid, gid, groups } => user(f, *uid, *gid, groups.as_deref()),
        Act::SetCaps(sets) => cap_sets(f, sets),
        Act::NoNewPrivs => f.write_str("set no_new_privs"),
        Act::Umask(mask) => write!(f, "umask {mask:04o}"),
        Act::MakeCwd { path } => write!(f, "make the directory {path:?}"),
        Act::Cwd { path } => write!(f, "chdir {path:?}"),
        Act::ResetSignals { .. } => f.write_str("reset signals"),
        Act::CloseInherited { first } => {
            write!(f, "close inherited descriptors from {first} on")
        }
        Act::CloseHosts { .. } => f.write_str("close what leads to the host"),
        Act::FindProgram => f.write_str("find the program"),
        Act::WaitGate { gate } => write!(f, "wait at the gate{}", Slot(*gate)),
        Act::Exec => f.write_str("execve"),
    }
}

fn seccomp(f: &mut Formatter<'_>, len: usize, flags: u32, listener: bool) -> fmt::Result {
    const NAMES: [(u32, &str); 5] =
        [(1, "tsync"), (2, "log"), (4, "spec_allow"), (16, "tsync_esrch"), (32, "wait_killable_recv")];
    write!(f, "load a seccomp filter of {len} instructions")?;
    f.write_str(&list_of(NAMES.iter().filter(|n| flags & n.0 != 0).map(|n| n.1)))?;
    f.write_str(if listener { ", with a listener" } else { "" })
}

fn user(f: &mut Formatter<'_>, uid: u32, gid: u32, groups: Option<&[u32]>) -> fmt::Result {
    write!(f, "become uid {uid} and gid {gid}")?;
    match groups {
        None => f.write_str(", groups untouched"),
        Some([]) => f.write_str(", without groups"),
        Some(list) if list.len() > 8 && !f.alternate() => write!(f, ", {} groups", list.len()),
        Some(list) => write!(f, ", groups {}", join(list.iter().map(u32::to_string), " ")),
    }
}

fn device(f: &mut Formatter<'_>, d: &Device) -> fmt::Result {
    let Device { path, major, minor, mode, uid, gid, .. } = d;
    let kind = match d.kind {
        libc::S_IFBLK => 'b',
        libc::S_IFIFO => 'p',
        _ => 'c',
    };
    match &d.bind {
        Some(tree) => {
            bind(f, "bind", tree)?;
            write!(f, " onto {path:?}, {kind} {major}:{minor}")
        }
        None => write!(f, "mknod {path:?} {kind} {major}:{minor}, mode {mode:04o}, owner {uid}:{gid}"),
    }
}

fn hook(f: &mut Formatter<'_>, h: &InsideHook) -> fmt::Result {
    write!(f, "run {:?}", h.path)?;
    match h.timeout {
        Some(ms) => write!(f, " for at most {ms} ms"),
        None => Ok(()),
    }
}

fn scheduler(f: &mut Formatter<'_>, s: &Scheduler) -> fmt::Result {
    let name = match s.policy {
        0 => "other",
        1 => "fifo",
        2 => "rr",
        3 => "batch",
        5 => "idle",
        6 => "deadline",
        _ => "ext",
    };
    write!(f, "sched_setattr {name}, nice {}, priority {}, flags {:#x}", s.nice, s.priority, s.flags)?;
    if s.policy == 6 {
        write!(f, ", {} ns of {} ns, within {} ns", s.runtime, s.period, s.deadline)?;
    }
    Ok(())
}

fn cap_sets(f: &mut Formatter<'_>, c: &CapSets) -> fmt::Result {
    let sets = [
        ("effective", c.effective),
        ("permitted", c.permitted),
        ("inheritable", c.inheritable),
        ("ambient", c.ambient),
    ];
    f.write_str("capset")?;
    for (n, (name, mask)) in sets.iter().enumerate() {
        let value = match sets[..n].iter().find(|s| s.1 == *mask && *mask != 0) {
            Some((same, _)) => format!("as {same}"),
            None => Caps(*mask, f.alternate()).to_string(),
        };
        write!(f, "{} {name} {value}", if n == 0 { ":" } else { ";" })?;
    }
    Ok(())
}

/// A set of capabilities: names, or their number where there are many and no room.
struct Caps(u64, bool);

impl fmt::Display for Caps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.count_ones() {
            0 => f.write_str("none"),
            n if n > 2 && !self.1 => write!(f, "{n} capabilities"),
            _ => f.write_str(&caps::names(self.0)),
        }
    }
}

struct Slot(usize);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, " #{}", self.0)
    }
}

struct Limit(u64);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            u64::MAX => f.write_str("unlimited"),
            n => n.fmt(f),
        }
    }
}

/// RLIMIT_*, getrlimit(2).
fn limit_name(resource: u32) -> String {
    const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    NAMES.get(resource as usize).map_or(resource.to_string(), |n| n.to_string())
}

/// CLONE_NEW* flags by the names of config.json.
fn kinds(flags: i32) -> String {
    join(spawn::KINDS.iter().filter(|k| flags & k.1 != 0).map(|k| k.0), " ")
}

/// What the parent opens.
struct Opened<'a>(&'a Open);

impl fmt::Display for Opened<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0.what {
            OpenWhat::Tree { path, recursive, nofollow, propagation: flag } => {
                write!(f, "open_tree {path:?}{}", if *recursive { " with all below" } else { "" })?;
                f.write_str(if *nofollow { ", a link itself" } else { "" })?;
                f.write_str(&list_of((*flag != 0).then(|| propagation(*flag, true))))
            }
            OpenWhat::MappedTree { path, recursive, propagation: flag, maps, deep } => {
                write!(f, "open_tree {path:?}{}", if *recursive { " with all below" } else { "" })?;
                f.write_str(&list_of((*flag != 0).then(|| propagation(*flag, true))))?;
                f.write_str(if *deep { ", all of it" } else { "," })?;
                f.write_str(" idmapped by")?;
                for (kind, map) in [("uids", &maps.uid), ("gids", &maps.gid)] {
                    let lines = map.iter().map(|m| format!("{}:{}:{}", m.inside, m.outside, m.size));
                    write!(f, " {kind} {}", join(lines, " "))?;
                }
                Ok(())
            }
            OpenWhat::NotOurs { namespace, kind } => {
                write!(f, "check that the {} namespace{} is not ours", kinds(*kind), Slot(*namespace))
            }
            OpenWhat::LateTree { path, .. } => write!(f, "open_tree {path:?}, once it is made"),
            OpenWhat::Namespace { path, kind } => write!(f, "open the {} namespace {path:?}", kinds(*kind)),
            OpenWhat::Append { path } => write!(f, "open {path:?} to append"),
            OpenWhat::Init => f.write_str("a pidfd of the container's init"),
            OpenWhat::State { status } => write!(f, "a file with the state of status {status}"),
            OpenWhat::Gate => f.write_str("the gate"),
            OpenWhat::SameMaps { namespace, .. } => {
                write!(f, "make sure that {} has the mappings of the document", Slot(*namespace))
            }
            OpenWhat::Report => f.write_str("the report to start"),
        }
    }
}

fn plain(s: &CStr) -> String {
    s.to_string_lossy().into_owned()
}

/// A value in quotes; of a long one the beginning, where there is no room.
fn cut(f: &Formatter<'_>, s: &CStr) -> String {
    let s = s.to_string_lossy();
    match s.char_indices().nth(60) {
        Some((n, _)) if !f.alternate() => format!("{:?}...", &s[..n]),
        _ => format!("{s:?}"),
    }
}

fn join<S: AsRef<str>>(list: impl IntoIterator<Item = S>, with: &str) -> String {
    let mut out = String::new();
    for s in list {
        if !out.is_empty() {
            out.push_str(with);
        }
        out.push_str(s.as_ref());
    }
    out
}

/// Each with a comma before it.
fn list_of<S: AsRef<str>>(list: impl IntoIterator<Item = S>) -> String {
    list.into_iter().fold(String::new(), |out, s| out + ", " + s.as_ref())
}

fn each<T>(
    f: &mut Formatter<'_>,
    list: &[T],
    one: impl Fn(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (n, item) in list.iter().enumerate() {
        f.write_str(if n == 0 { ": " } else { ", " })?;
        one(f, item)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::step::{Attr, Mount, MountWhat};
    use std::ffi::CString;

    fn c(s: &str) -> CString {
        CString::new(s).unwrap()
    }

    fn tmpfs(params: &[(&str, Option<&str>)]) -> Act {
        Act::Mount(Mount {
            target: c("/dev/shm"),
            what: MountWhat::New {
                fstype: c("tmpfs"),
                source: c("shm"),
                params: params.iter().map(|(k, v)| (c(k), v.map(c))).collect(),
                page: None,
                copy_up: false,
                inherit_mode: false,
                fallback: None,
            },
            strict_target: false,
            cover_link: false,
            copy_link: false,
            proc: Default::default(),
            attr: Attr { set: 0xe, clear: 0x1 },
            rattr: Attr { set: 0x10, clear: 0x70 },
            propagation: vec![(libc::MS_SLAVE, true)],
        })
    }

    #[test]
    fn a_mount_is_told_as_its_options_were_written() {
        let s = Step::new("mounts[3] (/dev/shm)", tmpfs(&[("mode", Some("1777")), ("size", Some("65536k"))]));
        let end = ", rw, nosuid, nodev, noexec, rnoatime, mode=1777, size=65536k, rslave";
        assert_eq!(s.to_string(), format!("mounts[3] (/dev/shm): mount tmpfs{end}"));
        assert_eq!(format!("{s:#}"), format!("mounts[3] (/dev/shm): mount tmpfs from \"shm\"{end}"));
    }

    #[test]
    fn long_lists_are_counted_in_messages_and_written_out_in_plans() {
        let long = "/l".repeat(60);
        let caps = 0b11111;
        let sets = CapSets { effective: caps, permitted: caps, bounding: caps, ..CapSets::default() };
        let names = "CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID";
        let groups = Some((0..9).collect());
        for (act, short, full) in [
            (
                Act::AttachOverlay { params: vec![(c("lowerdir+"), Some(c(&long)))], path: c("/b/rootfs/") },
                "mount overlay as the rootfs, 1 options".to_string(),
                format!("mount overlay as the rootfs, lowerdir+={long}"),
            ),
            (
                Act::SetCaps(sets),
                "capset: effective 5 capabilities; permitted as effective; inheritable none; ambient none"
                    .into(),
                format!("capset: effective {names}; permitted as effective; inheritable none; ambient none"),
            ),
            (
                Act::DropBounding { have: u64::MAX, keep: caps },
                "drop all from the bounding set but 5 capabilities".into(),
                format!("drop all from the bounding set but {names}"),
            ),
            (
                Act::SetUser { uid: 1, gid: 2, groups },
                "become uid 1 and gid 2, 9 groups".into(),
                "become uid 1 and gid 2, groups 0 1 2 3 4 5 6 7 8".into(),
            ),
            (
                Act::Sysctl { path: c("net/ipv4/x"), value: c(&long) },
                format!("write \"{}\"... to /proc/sys/net/ipv4/x", &long[..60]),
                format!("write \"{long}\" to /proc/sys/net/ipv4/x"),
            ),
            (
                Act::Seccomp { program: vec![0; 7], flags: 6, listener: true },
                "load a seccomp filter of 7 instructions, log, spec_allow, with a listener".into(),
                "load a seccomp filter of 7 instructions, log, spec_allow, with a listener".into(),
            ),
            (
                Act::Rlimit { resource: 7, soft: 1024, hard: u64::MAX },
                "setrlimit nofile 1024 unlimited".into(),
                "setrlimit nofile 1024 unlimited".into(),
            ),
        ] {
            let s = Step::new("at", act);
            assert_eq!(s.to_string(), format!("at: {short}"));
            assert_eq!(format!("{s:#}"), format!("at: {full}"));
        }
    }
}
