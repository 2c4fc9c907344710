//! **The** order of init's steps, with the whys.

use super::hooks::{self, Hook};
use super::idmap::setgroups_denied;
use super::spawn::{self, NEWCGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, Shape};
use super::step::{Act, Ask, CapSets, InsideHook, Open, OpenWhat, Slot, Step, Tree};
use super::{Draft, caps, cstring, mounts, net, paths, process, seccomp, user};
use crate::bundle::IMAGE;
use crate::error::{Error, Result};

/// The sections, decided; what is left is to put them in order.
pub struct Parts {
    pub shape: Shape,
    pub mounts: mounts::Mounts,
    pub devices: Vec<Step>,
    pub paths: paths::Paths,
    pub net: net::Net,
    pub time: Option<Step>,
    pub hooks: hooks::Hooks,
    pub identity: Identity,
}

/// What a program runs as, be it that of `create` or of `exec`.
pub struct Identity {
    pub process: process::Process,
    pub user: user::User,
    pub caps: CapSets,
    pub seccomp: Option<seccomp::Filter>,
}

fn step(at: &str, act: Act) -> Step {
    Step::new(at, act)
}

/// create and run: from the clone to execve(2).
pub fn create(d: &mut Draft, p: &Parts) -> Result<Vec<Step>> {
    let mut s = Vec::with_capacity(64);
    let first = 3 + d.request.listen_fds + d.request.preserve_fds;
    s.push(step("process", Act::CloseInherited { first })); // while no filter can refuse it
    identity_of_the_namespaces(d, p, &mut s);
    s.push(step("process", Act::NewSession)); // no terminal of the caller's: TIOCSTI (CVE-2005-4890)
    if !d.request.no_new_keyring {
        new_keyring(d, &p.identity.process, &mut s)?;
    }
    if p.shape.late & NEWCGROUP != 0 {
        // It sits in its cgroup by now, which thus becomes the namespace's root.
        s.push(step("linux.namespaces (cgroup)", Act::Unshare(NEWCGROUP)));
    }
    let exposed = p.time.is_some() && d.ns.is_joined(NEWUSER);
    if exposed {
        s.push(step("process", Act::Dumpable(true))); // for the offsets, as short as can be
    }
    s.extend(p.time.clone());
    if exposed {
        s.push(step("process", Act::Dumpable(false)));
    }
    if d.ns.is_new(NEWNET) && p.net.loopback {
        s.push(step("linux.namespaces (network)", Act::LoopbackUp));
    }
    if !p.net.interfaces.is_empty() {
        s.push(step("linux.netDevices", Act::Ask(Ask::NetDevices))); // hooks, and sysctls, may name them
    }
    rootfs(d, p, &mut s)?;
    s.extend(p.identity.process.labels.iter().cloned());
    program(d, &p.identity, &p.hooks.start_container, &mut s)?;
    Ok(s)
}

/// exec: the same for a process more, which finds everything made; and what of it is left to the parent.
pub fn exec(
    d: &mut Draft,
    shape: &Shape,
    affinity: process::Affinity,
    p: &Identity,
) -> Result<(Vec<Step>, Vec<Step>)> {
    let mut s = Vec::with_capacity(32);
    let first = 3 + d.request.listen_fds + d.request.preserve_fds;
    s.push(step("process", Act::CloseInherited { first }));
    // The container's own processes must not read our descriptors or memory (CVE-2016-9962).
    s.push(step("process", Act::Dumpable(false)));
    let on = |mask| step("process.execCPUAffinity", Act::Affinity(mask));
    s.extend(affinity.initial.map(on));
    if d.host.systemd.as_ref().is_some_and(|m| m.user) {
        s.push(step("linux.cgroupsPath", Act::Ask(Ask::Unit))); // its systemd may move it where the user may not
    }
    s.push(step("linux.cgroupsPath", Act::JoinCgroups));
    s.push(affinity.last.map_or_else(|| step("process", Act::ResetAffinity), on)); // needs the cpuset
    if !shape.join.is_empty() {
        let (list, keep_groups) = (shape.join.clone(), p.user.keep_groups);
        s.push(step("linux.namespaces", Act::JoinNamespaces { list, keep_groups }));
    }
    if d.in_user_namespace() {
        let clear_groups = !p.user.keep_groups && !setgroups_denied(&d.maps, &d.ns, d.host);
        s.push(step("linux.uidMappings", Act::BecomeRoot { clear_groups }));
    }
    s.extend(p.process.labels.iter().cloned()); // through the host's procfs
    if !shape.staged {
        s.push(step("process", Act::NewSession));
    }
    if !d.request.no_new_keyring {
        new_keyring(d, &p.process, &mut s)?; // that of init, by its name
    }
    if d.ns.is_own(NEWNS) {
        s.push(step("root.path", Act::OpenRoot { path: c"/".into() }));
    } else {
        let path = root_path(d)?;
        s.push(step("root.path", Act::OpenRoot { path }));
        s.push(step("root.path", Act::Chroot));
    }
    if let Some((rows, columns)) = p.process.terminal {
        let uid = p.user.uid;
        s.push(step("process.terminal", Act::Console { rows, columns, mount: false, uid }));
    }
    let left = if shape.staged {
        program_among_others(d, p, first, &mut s)
    } else {
        s.extend(control(p));
        program(d, p, &[], &mut s)?;
        p.process.rlimits.clone()
    };
    Ok((s, left))
}

/// A session keyring, which the container's label may use (config.md#linux-process: selinuxLabel). Keys of the
/// program's own are labelled by its policy again.
fn new_keyring(d: &Draft, process: &process::Process, s: &mut Vec<Step>) -> Result<()> {
    let label =
        |label| step("process.selinuxLabel", Act::ExecLabel { file: c"self/attr/keycreate".into(), label });
    s.extend(process.key_label.clone().map(label));
    let name = cstring("container id", &format!("_ses.{}", d.request.id))?;
    s.push(step("process", Act::NewKeyring { name }));
    s.extend(process.key_label.as_ref().map(|_| label(c"\n".into())));
    Ok(())
}

/// From the clone to being root of every namespace.
fn identity_of_the_namespaces(d: &mut Draft, p: &Parts, s: &mut Vec<Step>) {
    let (privileged, keep_groups) = (d.host.privileged, p.identity.user.keep_groups);
    if privileged || d.ns.is_joined(NEWUSER) {
        // Whoever is in a namespace that we join must not read our descriptors or memory (CVE-2016-9962). An ordinary
        // user's parent could then not write our maps: there it comes later.
        s.push(step("process", Act::Dumpable(false)));
    }
    if d.host.systemd.is_some() {
        s.push(step("linux.cgroupsPath", Act::Ask(Ask::Unit))); // systemd moves it, other hierarchies are joined next
    }
    s.push(step("linux.cgroupsPath", Act::JoinCgroups));
    s.push(step("process", Act::ResetAffinity)); // needs the cpuset; the caller's own pinning must not stick
    if !p.shape.join.is_empty() {
        let list = p.shape.join.clone();
        s.push(step("linux.namespaces", Act::JoinNamespaces { list, keep_groups }));
    }
    let clear_groups = !keep_groups && !setgroups_denied(&d.maps, &d.ns, d.host);
    let become_root = step("linux.uidMappings", Act::BecomeRoot { clear_groups });
    if d.ns.is_new(NEWUSER) {
        if p.shape.staged {
            s.push(step("linux.namespaces (user)", Act::Unshare(NEWUSER)));
        }
        s.push(step("linux.uidMappings", Act::Ask(Ask::Maps)));
        s.push(become_root);
    } else if d.ns.is_joined(NEWUSER) {
        s.push(become_root);
    }
    if p.shape.staged {
        s.push(step("linux.namespaces", Act::Fork { flags: p.shape.clone & !NEWUSER }));
    }
    if p.shape.late & NEWIPC != 0 {
        s.push(step("linux.namespaces (ipc)", Act::Unshare(NEWIPC)));
    }
    if d.ns.is_new(NEWUSER) {
        // The change of ids made /proc/self the host root's; time offsets are written there. Nobody else is inside.
        s.push(step("process", Act::Dumpable(true)));
    }
}

/// Mounts, devices, hooks that see them, and the way in.
fn rootfs(d: &mut Draft, p: &Parts, s: &mut Vec<Step>) -> Result<()> {
    if d.ns.is_own(NEWNS) {
        s.push(step("linux.rootfsPropagation", Act::IsolateMounts { flag: p.paths.isolate }));
        s.push(attach_root(d)?);
    } else if !p.mounts.steps.is_empty() {
        s.push(take_root(d)?);
    } else {
        let path = root_path(d)?;
        s.push(step("root.path", Act::OpenRoot { path }));
    }
    s.extend(p.mounts.steps.iter().cloned()); // config order is contract: config.md#mounts
    s.extend(p.devices.iter().cloned());
    if !p.hooks.prestart.is_empty() || !p.hooks.create_runtime.is_empty() {
        s.push(step("hooks", Act::Ask(Ask::Hooks)));
    }
    inside_hooks(d, "createContainer", &p.hooks.create_container, "creating", s)?;
    s.extend(p.net.names.iter().cloned());
    s.extend(p.net.sysctl.iter().cloned()); // hooks may have made the interfaces that sysctls name
    if let Some((rows, columns)) = p.identity.process.terminal {
        let ours = d.ns.is_own(NEWNS) || !p.mounts.steps.is_empty();
        let (mount, uid) = (ours && !p.mounts.dev_is_bind, p.identity.user.uid);
        s.push(step("process.terminal", Act::Console { rows, columns, mount, uid }));
        s.extend(control(&p.identity));
    }
    let cwd = &p.identity.process.cwd;
    if cwd.as_bytes() != b"/" {
        s.push(step("process.cwd", Act::MakeCwd { path: cwd.clone() })); // while the rootfs is writable
    }
    s.extend(p.mounts.late.iter().cloned());
    // Before the pivot: the host's null device is still in reach, so that no file of the image stands in for it.
    s.extend(p.paths.readonly.iter().cloned());
    s.extend(p.paths.masked.iter().cloned());
    if d.config.root.as_ref().and_then(|r| r.readonly).unwrap_or(false) {
        s.push(step("root.readonly", Act::ReadonlyRoot));
    }
    s.push(match (d.ns.is_own(NEWNS), d.request.no_pivot) {
        (false, _) => step("root.path", Act::Chroot),
        (true, true) => step("root.path", Act::MoveRoot),
        (true, false) => step("root.path", Act::Pivot),
    });
    if let Some((flag, recursive)) = p.paths.propagation {
        s.push(step("linux.rootfsPropagation", Act::RootPropagation { flag, recursive }));
    }
    Ok(())
}

/// Limits, identity, seccomp, program.
fn program(d: &mut Draft, p: &Identity, start_container: &[Hook], s: &mut Vec<Step>) -> Result<()> {
    if d.in_user_namespace() && !p.process.rlimits.is_empty() {
        // Only the parent, outside of the user namespace, may raise them; now, since the steps before need descriptors.
        s.push(step("process.rlimits", Act::Ask(Ask::Limits)));
    } else {
        s.extend(p.process.rlimits.iter().cloned());
    }
    s.extend(p.process.scheduling.iter().cloned());
    standard_streams(d, p, s);
    let filter = p.seccomp.as_ref().map(|f| seccomp_steps(d, f)).unwrap_or_default();
    if !p.process.no_new_privileges {
        s.extend(filter.clone()); // needs CAP_SYS_ADMIN, which `SetCaps` takes away
    }
    identity(d, p, p.caps, s);
    without_rights(d, p, s);
    if p.process.no_new_privileges {
        s.push(step("process.noNewPrivileges", Act::NoNewPrivs));
        s.extend(filter); // late: only the gate, startContainer hooks and execve come after it
    }
    s.push(step("process", Act::Ask(Ask::Ready)));
    if d.request.gate {
        let gate = d.open(Open { at: "process".into(), what: OpenWhat::Gate });
        s.push(step("process", Act::WaitGate { gate }));
    }
    inside_hooks(d, "startContainer", start_container, "created", s)?;
    s.push(step("process.args", Act::Exec));
    Ok(())
}

/// The same where other processes of a pid namespace see ours, and with CAP_SYS_PTRACE do with it as they like: by then it
/// has nothing more than they have. A middle process, which nobody in there sees, gives everything up; what is left is
/// what only the last process can do, and needs no right. What does need one, a scheduler that no fork inherits or the
/// limits of a user namespace, the parent sets before it lets it go on.
///
/// The filter comes first, too, but for two kinds: one that refuses that rest, and one with a listener, whose agent is told
/// the pid. Where no_new_privs is not asked for either, such a filter needs CAP_SYS_ADMIN for one call more.
///
/// A container that joins a pid namespace of others has no such order: procfs shows the pid namespace of whoever mounts
/// it, so that init makes the whole rootfs in there. Who joins it trusts what has CAP_SYS_PTRACE in it.
///
/// Answers with what is left to the parent.
fn program_among_others(d: &Draft, p: &Identity, first: u32, s: &mut Vec<Step>) -> Vec<Step> {
    let no_new_privileges = p.process.no_new_privileges;
    let (inherited, mut own): (Vec<_>, Vec<_>) =
        p.process.scheduling.iter().cloned().partition(process::outlives_fork);
    let mut left = if d.host.privileged { std::mem::take(&mut own) } else { Vec::new() };
    match d.in_user_namespace() {
        true => left.extend(p.process.rlimits.iter().cloned()),
        false => own.extend(limits_but_processes(d, p, s)),
    }
    s.extend(inherited);
    standard_streams(d, p, s);
    let early = |f: &seccomp::Filter| f.listener.is_none() && f.lets_through(&own, no_new_privileges);
    let early = p.seccomp.as_ref().is_some_and(early);
    let filter = p.seccomp.as_ref().map(|f| seccomp_steps(d, f)).unwrap_or_default();
    let (before, after) = if early { (filter, Vec::new()) } else { (Vec::new(), filter) };
    let mut caps = p.caps;
    if !no_new_privileges {
        s.extend(before.clone());
        let kept = if after.is_empty() { 0 } else { 1 << caps::SYS_ADMIN };
        (caps.permitted, caps.effective) = (caps.permitted | kept, caps.effective | kept);
    }
    identity(d, p, caps, s);
    if no_new_privileges {
        s.push(step("process.noNewPrivileges", Act::NoNewPrivs));
        s.extend(before);
    }
    s.push(step("process", Act::CloseHosts { first }));
    s.push(step("linux.namespaces (pid)", Act::Fork { flags: 0 }));
    s.push(step("process", Act::NewSession)); // its leader, who has a pid in there
    s.extend(control(p));
    s.extend(own);
    if !no_new_privileges && !after.is_empty() {
        s.extend(after.clone());
        s.push(step("process.capabilities", Act::SetCaps(p.caps)));
    }
    without_rights(d, p, s);
    if no_new_privileges {
        s.extend(after);
    }
    s.push(step("process", Act::Ask(Ask::Ready)));
    s.push(step("process.args", Act::Exec));
    left
}

/// Limits, which are inherited; of processes there is one more of this user while it forks: that one is left to lower.
fn limits_but_processes(d: &Draft, p: &Identity, s: &mut Vec<Step>) -> Option<Step> {
    let mut left = None;
    for limit in &p.process.rlimits {
        let mut now = limit.clone();
        if let Act::Rlimit { resource, soft, hard } = &mut now.act {
            if *resource == libc::RLIMIT_NPROC {
                let may_rise = *hard < d.host.hard_limits[libc::RLIMIT_NPROC as usize];
                *hard += u64::from(may_rise);
                *soft = *hard;
                left = Some(limit.clone());
            }
        }
        s.push(now);
    }
    left
}

/// The terminal that `Console` has made, for the leader of a session.
fn control(p: &Identity) -> Option<Step> {
    p.process.terminal.map(|_| step("process.terminal", Act::ControlTerminal))
}

fn standard_streams(d: &Draft, p: &Identity, s: &mut Vec<Step>) {
    if p.process.terminal.is_none() {
        s.push(step("process", Act::OwnNull)); // by the right of root: the user may not be able to open it
    }
    if d.in_user_namespace() || p.user.uid != 0 {
        s.push(step("process.user", Act::OwnStdio { uid: p.user.uid }));
    }
    if d.in_user_namespace() || !d.host.privileged {
        s.push(step("process", Act::Dumpable(false))); // what else there is was so from the start
    }
}

fn identity(d: &Draft, p: &Identity, caps: CapSets, s: &mut Vec<Step>) {
    // Where setgroups(2) is denied, an empty list needs no call; a namespace that is joined may deny it, and there the
    // groups went before (`BecomeRoot`).
    let denied = setgroups_denied(&d.maps, &d.ns, d.host) || d.ns.is_joined(NEWUSER);
    let denied = denied && p.user.groups.is_empty();
    let groups = (!denied && !p.user.keep_groups).then(|| p.user.groups.clone());
    // A user namespace gives its first process all that the kernel has.
    let have = if d.in_user_namespace() { u64::MAX } else { d.host.bounding };
    let bounding = Act::DropBounding { have, keep: p.caps.bounding };
    // Needs CAP_SETPCAP, which setresuid clears.
    s.push(step("process.capabilities.bounding", bounding));
    if p.user.uid != 0 {
        s.push(step("process.capabilities", Act::KeepCaps));
    }
    s.push(step("process.user", Act::SetUser { uid: p.user.uid, gid: p.user.gid, groups }));
    s.push(step("process.capabilities", Act::SetCaps(caps)));
}

/// Directory and program are seen as the program will see them: with its rights, and its /proc/self.
fn without_rights(d: &Draft, p: &Identity, s: &mut Vec<Step>) {
    s.push(step("process.cwd", Act::Cwd { path: p.process.cwd.clone() }));
    if !p.process.program.name.is_empty() {
        s.push(step("process.args", Act::FindProgram));
    }
    s.push(step("process.user.umask", Act::Umask(p.user.umask)));
    s.push(step("process", Act::ResetSignals { ignored: d.host.ignored_signals }));
}

fn seccomp_steps(d: &Draft, f: &seccomp::Filter) -> Vec<Step> {
    let program = f
        .program
        .iter()
        .map(|i| u64::from(i.code) | u64::from(i.jt) << 16 | u64::from(i.jf) << 24 | u64::from(i.k) << 32)
        .collect();
    let listener = f.listener.is_some();
    let mut steps = Vec::with_capacity(2);
    if listener && !d.host.privileged && d.ns.is_new(NEWUSER) {
        // An ordinary user's parent may not take the listener out of what is undumpable. Nobody else is in there yet.
        steps.push(step("linux.seccomp.listenerPath", Act::Dumpable(true)));
    }
    steps.push(step("linux.seccomp", Act::Seccomp { program, flags: f.flags, listener }));
    steps
}

/// With a slash at the end, which makes the kernel refuse what is no directory.
fn root_path(d: &Draft) -> Result<std::ffi::CString> {
    let path = d.config.root.as_ref().and_then(|r| r.path.as_deref()).unwrap_or_default();
    cstring("root.path", &format!("{}/", d.request.bundle.join(path).to_string_lossy()))
}

/// The rootfs as a detached tree: looked up once, by the parent where it has the right.
fn attach_root(d: &mut Draft) -> Result<Step> {
    if let Some(overlay) = d.request.overlay.clone() {
        let has_images = overlay.lower.iter().any(|l| l.starts_with(IMAGE));
        if has_images && (d.ns.is_new(NEWUSER) || d.ns.is_joined(NEWUSER)) {
            let what = "has layers that are EROFS images, which are not mounted in a user namespace";
            return Err(Error::unsupported("overlay.json", what)
                .hint("orlop imgtool mount mounts them before, or import with --layers dir"));
        }
        return Ok(step(
            "root.path (overlay.json)",
            Act::AttachOverlay { params: overlay_params(&overlay)?, path: root_path(d)? },
        ));
    }
    let path = root_path(d)?;
    let slave = |p: &u64| *p == libc::MS_SLAVE; // which it becomes when it is attached
    let (recursive, propagation) =
        (true, Some(super::mounts::tree_propagation(d)).filter(|p| !slave(p)).unwrap_or(0));
    let tree = if d.host.privileged && !d.ns.is_joined(NEWNS) {
        let what = OpenWhat::Tree { path, recursive, nofollow: false, propagation };
        Tree::Slot(d.open(Open { at: "root.path".into(), what }))
    } else {
        Tree::Path { path, recursive, nofollow: false, propagation }
    };
    Ok(step("root.path", Act::AttachRoot { tree, path: root_path(d)? }))
}

/// In the runtime's own mount namespace: the tree that all mounts of the container lie in, so that they go with it. The
/// parent attaches it, before there is an init that could outlive the record of it.
fn take_root(d: &mut Draft) -> Result<Step> {
    let (recursive, propagation) = (true, libc::MS_PRIVATE);
    let what = OpenWhat::Tree { path: root_path(d)?, recursive, propagation, nofollow: false };
    let tree = d.open(Open { at: "root.path".into(), what });
    Ok(step("root.path", Act::TakeRoot { tree, path: root_path(d)? }))
}

type Params = Vec<(std::ffi::CString, Option<std::ffi::CString>)>;

/// Options of overlayfs; [`IMAGE`] is none, but a layer that is to be mounted from its file.
fn overlay_params(o: &crate::bundle::Overlay) -> Result<Params> {
    let at = "overlay.json";
    let pair = |key: &str, value: &str| Ok((cstring(at, key)?, Some(cstring(at, value)?)));
    let lower = |l: &String| match l.strip_prefix(IMAGE) {
        Some(path) => pair(IMAGE, path),
        None => pair("lowerdir+", l),
    };
    let mut out = o.lower.iter().map(lower).collect::<Result<Params>>()?;
    if let (Some(upper), Some(work)) = (&o.upper, &o.work) {
        out.push(pair("upperdir", upper)?);
        out.push(pair("workdir", work)?);
    }
    for option in &o.options {
        out.push(match option.split_once('=') {
            Some((key, value)) => pair(key, value)?,
            None => (cstring(at, option)?, None),
        });
    }
    Ok(out)
}

/// Hooks that init runs itself, with the state of this status on standard input.
fn inside_hooks(
    d: &mut Draft,
    kind: &str,
    list: &[Hook],
    status: &'static str,
    s: &mut Vec<Step>,
) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let state: Slot = d.open(Open { at: format!("hooks.{kind}"), what: OpenWhat::State { status } });
    let mut output = [None; 2];
    for (slot, stream) in output.iter_mut().zip(hooks::outputs(d.config)) {
        if let Some((at, path)) = stream {
            let path = cstring(at, path)?;
            *slot = Some(d.open(Open { at: at.into(), what: OpenWhat::Append { path } }));
        }
    }
    for (n, hook) in list.iter().enumerate() {
        let at = format!("hooks.{kind}[{n}]");
        let strings = |list: &[String]| list.iter().map(|a| cstring(&at, a)).collect::<Result<Vec<_>>>();
        let path = hook.path.to_string_lossy();
        let argv = if hook.args.is_empty() { strings(&[path.to_string()])? } else { strings(&hook.args)? };
        let inside = InsideHook {
            path: cstring(&at, &path)?,
            argv,
            envp: strings(hook.env.as_deref().unwrap_or_default())?, // none inside unless given
            cwd: if kind == "createContainer" { Some(root_path(d)?) } else { None }, // as runc has it
            timeout: hook.timeout.map(|t| t.as_millis() as u64),
            state,
            output,
        };
        s.push(step(&at, Act::Hook(inside)));
    }
    Ok(())
}

/// The clone's shape for `explain`.
pub fn describe(shape: &Shape) -> String {
    let names: Vec<_> =
        spawn::KINDS.iter().filter(|k| (shape.clone | shape.late) & k.1 != 0).map(|k| k.0).collect();
    let stages = if shape.staged { ", by way of a middle process" } else { "" };
    let pid = if shape.join_pid.is_some() && shape.clone & NEWPID == 0 {
        ", in a joined pid namespace"
    } else {
        ""
    };
    format!("clone init with new namespaces: {}{pid}{stages}", names.join(" "))
}
