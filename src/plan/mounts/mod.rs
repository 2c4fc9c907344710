//! config.md#mounts: each entry checked, its options read, and what it takes to mount it.

mod cgroup;
pub mod notify;
pub mod options;

use super::idmap::{self, Maps, to_host};
use super::spawn::{NEWNET, NEWNS, NEWUSER};
use super::step::{Act, Mount, MountWhat, OnProc, Open, OpenWhat, Page, Step, Tree};
use super::{Draft, cstring};
use crate::config;
use crate::error::{Error, Result};
use options::{Idmap, Options, RDONLY};
use std::ffi::CString;

pub use options::propagation;

/// The mounts, in the order of the document (which is contract), and what has to come after all of them.
#[derive(Debug, Default)]
pub struct Mounts {
    pub steps: Vec<Step>,
    /// Read-only at last: mount points and devices are made in it before.
    pub late: Vec<Step>,
    /// The container's /dev is the host's or a volume: nodes and links in it are not ours to make.
    pub dev_is_bind: bool,
}

/// Files below /proc that may be covered: those of lxcfs, and two that CRIU and FIPS images need.
const PROC_FILES: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// File systems without a device behind them: read-only is a matter of the mount, and their superblock may be shared
/// with the host's.
const PSEUDO: &[&str] = &[
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "overlay",
    "proc",
    "pstore",
    "ramfs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// Those that take no SELinux context: the kernel labels their files itself.
const UNLABELLED: &[&str] = &["cgroup", "cgroup2", "mqueue", "proc", "sysfs"];

/// One entry of the document, as far as messages and decisions need it.
struct Entry<'a> {
    /// `mounts[3] (/dev/shm)`
    at: String,
    doc: &'a config::Mount,
    kind: &'a str,
    /// Absolute and without `.` and `..`.
    target: String,
}

impl<'a> Entry<'a> {
    fn source_or(&self, other: &'a str) -> &'a str {
        self.doc.source.as_deref().filter(|s| !s.is_empty()).unwrap_or(other)
    }
}

/// Reads `mounts`; `cgroup_path` is the container's cgroup below the root of every hierarchy.
pub fn plan(d: &mut Draft, cgroup_path: &str) -> Result<Mounts> {
    let mut out = Mounts::default();
    let list = d.config.mounts.as_deref().unwrap_or_default();
    if !list.is_empty() && !d.ns.is_own(NEWNS) && d.in_user_namespace() {
        let rule =
            "need a mount namespace in linux.namespaces: over the host's a user namespace has no rights";
        return Err(Error::invalid("mounts", rule));
    }
    let label = mount_label(d);
    for (n, doc) in list.iter().enumerate() {
        let e = entry(d, n, doc)?;
        let mut o = options::parse(&e.at, doc.options.as_deref().unwrap_or_default())?;
        if o.bind.is_none() && e.kind == "bind" {
            o.bind = Some(false); // the type alone says it to some callers
        }
        let proc = on_proc(&e, &o)?;
        let deferred = o.attr.set & RDONLY != 0 && !o.remount && (e.target == "/dev" || is_tmpfs(&e, &o));
        if deferred {
            o.attr.set &= !RDONLY;
        }
        let what = what(d, &e, &mut o, cgroup_path, &label)?;
        let target = cstring(&e.at, &e.target)?;
        out.dev_is_bind |= e.target == "/dev" && o.bind.is_some();
        let strict_target = matches!(e.kind, "proc" | "sysfs") && o.bind.is_none()
            || ["/proc", "/sys"].iter().any(|top| below(&e.target, top));
        if deferred {
            out.late.push(Step::new(&e.at, Act::MakeReadonly { target: target.clone() }));
        }
        let (attr, rattr, propagation) = (o.attr, o.rattr, o.propagation);
        let (cover_link, copy_link) = (o.target_nofollow, o.copy_link);
        let mount =
            Mount { target, what, strict_target, cover_link, copy_link, proc, attr, rattr, propagation };
        out.steps.push(Step::new(&e.at, Act::Mount(mount)));
    }
    Ok(out)
}

/// How the copy of a host's mount relates to it, unless an option says otherwise: events of the host come in, ours
/// stay inside. `linux.rootfsPropagation` may ask for both ways, or none (config-linux.md#rootfs-mount-propagation).
pub fn tree_propagation(d: &Draft) -> u64 {
    let name = d.config.linux.as_ref().and_then(|l| l.rootfs_propagation.as_deref()).unwrap_or_default();
    match propagation(name).map(|p| p.0) {
        // Not out of a user namespace: its root would mount on the host.
        Some(libc::MS_SHARED) if !d.ns.is_own(NEWUSER) => 0,
        Some(libc::MS_PRIVATE | libc::MS_UNBINDABLE) => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    }
}

/// The same for what nobody named as a volume: the host's cgroups, and what is ours. Never both ways.
fn inward(d: &Draft) -> u64 {
    match tree_propagation(d) {
        0 => libc::MS_SLAVE,
        other => other,
    }
}

fn entry<'a>(d: &mut Draft<'_>, n: usize, doc: &'a config::Mount) -> Result<Entry<'a>> {
    let destination = doc.destination.as_deref().unwrap_or_default();
    let at = format!("mounts[{n}] ({destination})");
    if destination.is_empty() {
        return Err(Error::invalid(format!("mounts[{n}].destination"), "is required"));
    }
    for (name, value) in
        [("destination", Some(destination)), ("type", doc.kind.as_deref()), ("source", doc.source.as_deref())]
    {
        if let Some(value) = value.filter(|v| v.contains('\0')) {
            return Err(Error::invalid(format!("mounts[{n}].{name}"), format!("{value:?} has a NUL byte")));
        }
    }
    if !destination.starts_with('/') {
        d.warn(
            &format!("mounts[{n}].destination"),
            format!("{destination:?} is not absolute, taken relative to /"),
        );
    }
    let mut parts = Vec::new();
    for part in destination.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Err(Error::invalid(
                format!("mounts[{n}].destination"),
                format!("{destination:?} is above the rootfs"),
            ));
        }
    }
    if parts.is_empty() {
        return Err(Error::invalid(
            format!("mounts[{n}].destination"),
            format!("{destination:?} is the rootfs itself"),
        )
        .hint("mount it beforehand and name it in root.path"));
    }
    Ok(Entry {
        at,
        doc,
        kind: doc.kind.as_deref().unwrap_or_default(),
        target: format!("/{}", parts.join("/")),
    })
}

fn below(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_tmpfs(e: &Entry, o: &Options) -> bool {
    o.bind.is_none() && e.kind == "tmpfs"
}

fn on_proc(e: &Entry, o: &Options) -> Result<OnProc> {
    if e.target == "/proc" && (e.kind == "proc" || o.bind.is_some() || o.remount) {
        return Ok(OnProc::Whole);
    }
    if !below(&e.target, "/proc") {
        return Ok(OnProc::Never);
    }
    if PROC_FILES.contains(&e.target.as_str()) || o.remount {
        return Ok(OnProc::File);
    }
    Err(Error::invalid(
        &e.at,
        "only a procfs may cover /proc, and of the files below it only these may be covered",
    )
    .hint(PROC_FILES.join(", ")))
}

fn what(d: &mut Draft, e: &Entry, o: &mut Options, cgroup_path: &str, label: &str) -> Result<MountWhat> {
    let at = e.at.as_str();
    if o.copy_up && !is_tmpfs(e, o) {
        return Err(Error::invalid(format!("{at}.options"), "tmpcopyup is for the type tmpfs alone"));
    }
    if (o.source_nofollow || o.copy_link) && o.bind.is_none() {
        return Err(Error::invalid(
            format!("{at}.options"),
            "src-nofollow and copy-symlink are for bind mounts alone",
        ));
    }
    if o.remount {
        return Ok(MountWhat::Remount { params: superblock(e, o)? });
    }
    if let Some(recursive) = o.bind {
        return bind(d, e, o, recursive);
    }
    let mapped = o.idmap.is_some() || e.doc.uid_mappings.is_some() || e.doc.gid_mappings.is_some();
    if mapped {
        return Err(Error::unsupported(at, "id mappings are for bind mounts alone"));
    }
    match e.kind {
        "" => Err(Error::invalid(at, "the type is required, unless an option is bind or rbind")),
        "cgroup" => cgroup::plan(d, e, o, cgroup_path),
        _ => new(d, e, o, label),
    }
}

fn bind(d: &mut Draft, e: &Entry, o: &Options, recursive: bool) -> Result<MountWhat> {
    let at = e.at.as_str();
    for (key, value) in &o.data {
        let options = format!("{at}.options");
        // mount(2) ignores the data of a bind mount, and so may we; a single word can be a flag that is misspelt.
        match value {
            Some(value) => {
                d.warn(&options, format!("{key}={value} is data of a file system, a bind mount has none"))
            }
            None => return Err(Error::invalid(options, format!("{key:?} is unknown"))),
        }
    }
    let source = e.source_or("");
    if source.is_empty() {
        return Err(Error::invalid(format!("{at}.source"), "is required for a bind mount"));
    }
    let path = cstring(at, &d.request.bundle.join(source).to_string_lossy())?;
    let propagation = tree_propagation(d);
    let nofollow = o.source_nofollow || o.copy_link;
    let Some(maps) = id_maps(d, e, o)? else {
        return Ok(MountWhat::Bind(tree(d, at, path, (recursive, nofollow), propagation)));
    };
    if nofollow {
        let what =
            "a link itself cannot be id-mapped: src-nofollow or copy-symlink stands beside id mappings";
        return Err(Error::invalid(format!("{at}.options"), what));
    }
    if !d.host.privileged {
        return Err(Error::unsupported(at, "id-mapped mounts need the host's CAP_SYS_ADMIN"));
    }
    let deep = o.idmap.as_ref().is_some_and(|i| i.deep);
    let what = OpenWhat::MappedTree { path, recursive, propagation, maps, deep };
    Ok(MountWhat::Bind(Tree::Slot(d.open(Open { at: at.into(), what }))))
}

/// The mappings of an id-mapped mount: its own, those that the option names, or those of the container's user
/// namespace.
fn id_maps(d: &Draft, e: &Entry, o: &Options) -> Result<Option<Maps>> {
    let at = format!("{}.options", e.at);
    match (idmap::of_mount(&e.at, e.doc)?, &o.idmap) {
        (None, None) => Ok(None),
        (Some(_), Some(Idmap { maps: Some(_), .. })) => Err(Error::invalid(
            at,
            "idmap has mappings, and so have uidMappings and gidMappings of the mount",
        )),
        (Some(maps), _) => Ok(Some(maps)),
        (None, Some(Idmap { maps: Some(text), .. })) => idmap::of_option(&at, text, &d.maps).map(Some),
        (None, Some(_)) if d.maps.uid.is_empty() => {
            Err(Error::invalid(at, "idmap needs uidMappings and gidMappings, of the mount or of linux"))
        }
        (None, Some(_)) => Ok(Some(d.maps.clone())),
    }
}

/// A copy of a host's mount, made when its turn comes: its source may lie on a mount before it, and the kernel lists
/// mounts by when they were made (since Linux 6.8). The parent makes it before anything else where a user namespace may
/// not reach the source, and where it shares its events with the host's, which our own copy of them does not.
fn tree(
    d: &mut Draft,
    at: &str,
    path: CString,
    (recursive, nofollow): (bool, bool),
    propagation: u64,
) -> Tree {
    let early = d.in_user_namespace() || propagation == 0;
    if !early || !d.host.privileged || d.ns.is_joined(NEWNS) {
        return Tree::Path { path, recursive, nofollow, propagation };
    }
    let what = OpenWhat::Tree { path, recursive, nofollow, propagation };
    Tree::Slot(d.open(Open { at: at.into(), what }))
}

fn new(d: &mut Draft, e: &Entry, o: &mut Options, label: &str) -> Result<MountWhat> {
    let at = e.at.as_str();
    if e.kind == "devpts" {
        unmapped_group(d, e, o);
    }
    let mut params = superblock(e, o)?;
    if !label.is_empty() && !UNLABELLED.contains(&e.kind) {
        params.push((cstring(at, context_type(d)?)?, Some(cstring("linux.mountLabel", label)?)));
    }
    let inherit_mode = e.kind == "tmpfs" && !o.data.iter().any(|p| p.0 == "mode");
    // The kernel mounts a sysfs for the owner of the network namespace alone.
    let fallback = if e.kind == "sysfs" && d.in_user_namespace() && !d.ns.is_new(NEWNET) {
        let propagation = tree_propagation(d);
        Some(tree(d, at, cstring(at, "/sys")?, (true, false), propagation))
    } else {
        None
    };
    Ok(MountWhat::New {
        fstype: cstring(at, e.kind)?,
        source: cstring(at, e.source_or(e.kind))?,
        page: page(e, o, &params, inherit_mode || fallback.is_some())?,
        params,
        copy_up: o.copy_up,
        inherit_mode,
        fallback,
    })
}

/// devpts refuses a group that the user namespace does not map; terminals then belong to their opener's group.
fn unmapped_group(d: &mut Draft, e: &Entry, o: &mut Options) {
    if !d.in_user_namespace() || d.maps.gid.is_empty() {
        return;
    }
    let maps = d.maps.gid.clone();
    let unmapped = |p: &(String, Option<String>)| {
        let gid = p.1.as_deref().and_then(|v| v.parse().ok());
        p.0 == "gid" && gid.is_some_and(|g| to_host(&maps, g).is_none())
    };
    if o.data.iter().any(unmapped) {
        d.warn(&format!("{}.options", e.at), "the gid is not in linux.gidMappings, left out");
        o.data.retain(|p| !unmapped(p));
    }
}

/// Parameters of the file system: the superblock's own flags, then data as it was written.
fn superblock(e: &Entry, o: &Options) -> Result<Params> {
    let mut out = params(&e.at, &o.data)?;
    let pseudo = PSEUDO.contains(&e.kind) || o.bind.is_some();
    let mut flags = o.superblock.clone();
    if o.attr.set & RDONLY != 0 && !pseudo && !o.remount {
        flags.push("ro"); // a device may be read-only
    }
    if o.iversion && e.kind == "ext4" {
        flags.push("i_version");
    }
    for flag in flags {
        out.push((cstring(&e.at, flag)?, None));
    }
    Ok(out)
}

type Params = Vec<(CString, Option<CString>)>;

fn params(at: &str, data: &[(String, Option<String>)]) -> Result<Params> {
    let value = |v: &Option<String>| v.as_deref().map(|v| cstring(at, v)).transpose();
    data.iter().map(|(k, v)| Ok((cstring(at, k)?, value(v)?))).collect()
}

/// File systems of which mount(2) makes what fsopen(2) and its followers make: the kernel reads the options one by one.
/// Not proc, whose mount is wanted afterwards.
const SAME_BY_PAGE: &[&str] = &["devpts", "mqueue", "tmpfs"];

/// The options in one string. A value may be longer than fsconfig(2) takes, 255 bytes: podman mounts images with a
/// `lowerdir` of many paths. mount(2) has a page for them all. It is also one call in place of many, where nothing is to
/// be done with the mount before it is attached; not for MS_RDONLY, which makes the superblock read-only as well.
fn page(e: &Entry, o: &Options, params: &Params, detached: bool) -> Result<Option<Page>> {
    let at = &e.at;
    let values = || params.iter().filter_map(|(_, v)| v.as_ref());
    let only = values().any(|v| v.as_bytes().len() > 255);
    let plain = o.attr.set & RDONLY == 0 && o.rattr.is_empty() && o.propagation.is_empty();
    let plain = plain && o.superblock.is_empty() && !(detached || o.copy_up || o.target_nofollow);
    let split = params.iter().map(|p| &p.0).chain(values()).any(|text| text.as_bytes().contains(&b','));
    if !only && (split || !plain || !SAME_BY_PAGE.contains(&e.kind)) {
        return Ok(None);
    }
    let one = |(k, v): &(CString, Option<CString>)| match v {
        Some(v) => [k.as_bytes(), b"=", v.as_bytes()].concat(),
        None => k.as_bytes().to_vec(),
    };
    let all = params.iter().map(one).collect::<Vec<_>>().join(&b","[..]);
    if all.len() > 4095 && !only {
        return Ok(None);
    }
    if all.len() > 4095 {
        return Err(Error::invalid(
            format!("{at}.options"),
            format!("are {} bytes, and mount(2) takes 4095", all.len()),
        ));
    }
    let options = CString::new(all).map_err(|_| Error::invalid(at, "has a NUL byte"))?;
    Ok(Some(Page { options, only }))
}

/// Which option takes the label: `podman run --security-opt label=nested` and its systemd mode ask for `rootcontext`,
/// so that files inside may have labels of their own.
fn context_type<'a>(d: &Draft<'a>) -> Result<&'a str> {
    const AT: &str = "annotations[\"run.oci.mount_context_type\"]";
    const TYPES: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];
    match d.config.annotation("run.oci.mount_context_type") {
        None => Ok(TYPES[0]),
        Some(name) if TYPES.contains(&name) => Ok(name),
        Some(name) => Err(Error::invalid(AT, format!("{name:?} is unknown; known are {}", TYPES.join(", ")))),
    }
}

/// config-linux.md#mount-label. Without SELinux there is nobody that a label could keep out.
fn mount_label(d: &mut Draft) -> String {
    let label = d.config.linux.as_ref().and_then(|l| l.mount_label.clone()).unwrap_or_default();
    if label.is_empty() || d.host.selinux {
        return label;
    }
    d.warn("linux.mountLabel", format!("{label:?} needs SELinux, which this host has not enabled; left out"));
    String::new()
}

#[cfg(test)]
mod tests;
