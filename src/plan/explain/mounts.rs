//! Mounts in words.

use super::{Slot, join, list_of, plain};
use crate::plan::mounts::options::{
    ATIME, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY, STRICTATIME,
};
use crate::plan::step::{Attr, CgroupV1Mount, Mount, MountWhat, Tree};
use std::ffi::CString;
use std::fmt::{self, Formatter};

pub(super) fn mount(f: &mut Formatter<'_>, m: &Mount) -> fmt::Result {
    match &m.what {
        MountWhat::Bind(tree) => bind(f, "bind", tree)?,
        MountWhat::Remount { params } => {
            f.write_str("remount")?;
            attributes(f, &m.attr, "")?;
            attributes(f, &m.rattr, "r")?;
            parameters(f, params)?;
            return spread(f, &m.propagation);
        }
        MountWhat::New { fstype, source, params, copy_up, inherit_mode, fallback, .. } => {
            write!(f, "mount {}", plain(fstype))?;
            if f.alternate() && source != fstype {
                write!(f, " from {source:?}")?;
            }
            attributes(f, &m.attr, "")?;
            attributes(f, &m.rattr, "r")?;
            parameters(f, params)?;
            let more = [("copied up", *copy_up), ("mode as covered", *inherit_mode)];
            f.write_str(&list_of(more.iter().filter(|m| m.1).map(|m| m.0)))?;
            if let Some(tree) = fallback {
                bind(f, ", or bind", tree)?;
            }
            return spread(f, &m.propagation);
        }
        MountWhat::CgroupV1 { hierarchies, links, read_only } => {
            write!(f, "mount {} cgroup hierarchies", hierarchies.len())?;
            if f.alternate() {
                let name = |h: &CgroupV1Mount| plain(&h.name);
                write!(f, " ({})", join(hierarchies.iter().map(name), " "))?;
                let link = |(from, to): &(CString, CString)| format!("{} -> {}", plain(from), plain(to));
                f.write_str(&list_of(links.iter().map(link)))?;
            }
            f.write_str(if *read_only { ", ro" } else { "" })?;
        }
    }
    f.write_str(if m.cover_link { ", over a link itself" } else { "" })?;
    f.write_str(if m.copy_link { ", or make the same link" } else { "" })?;
    attributes(f, &m.attr, "")?;
    attributes(f, &m.rattr, "r")?;
    spread(f, &m.propagation)
}

fn spread(f: &mut Formatter<'_>, list: &[(u64, bool)]) -> fmt::Result {
    f.write_str(&list_of(list.iter().map(|(flag, recursive)| propagation(*flag, *recursive))))
}

pub(super) fn bind(f: &mut Formatter<'_>, verb: &str, tree: &Tree) -> fmt::Result {
    f.write_str(verb)?;
    match tree {
        Tree::Slot(slot) if f.alternate() => write!(f, "{}", Slot(*slot)),
        Tree::Slot(_) => Ok(()),
        Tree::Path { path, recursive, nofollow, propagation: flag } => {
            write!(f, " {path:?}{}", if *recursive { " with all below" } else { "" })?;
            f.write_str(if *nofollow { ", a link itself" } else { "" })?;
            match flag {
                0 => Ok(()),
                _ => write!(f, ", {}", propagation(*flag, true)),
            }
        }
    }
}

pub(super) fn parameters(f: &mut Formatter<'_>, params: &[(CString, Option<CString>)]) -> fmt::Result {
    let one = |(key, value): &(CString, Option<CString>)| match value {
        Some(value) => format!("{}={}", plain(key), plain(value)),
        None => plain(key),
    };
    let text = list_of(params.iter().map(one));
    if text.len() > 80 && !f.alternate() {
        return write!(f, ", {} options", params.len());
    }
    f.write_str(&text)
}

/// MOUNT_ATTR_*, by the names of their options.
fn attributes(f: &mut Formatter<'_>, attr: &Attr, prefix: &str) -> fmt::Result {
    const NAMES: [(u64, &str, &str); 6] = [
        (RDONLY, "ro", "rw"),
        (NOSUID, "nosuid", "suid"),
        (NODEV, "nodev", "dev"),
        (NOEXEC, "noexec", "exec"),
        (NODIRATIME, "nodiratime", "diratime"),
        (NOSYMFOLLOW, "nosymfollow", "symfollow"),
    ];
    for (bit, on, off) in NAMES {
        if attr.set & bit != 0 {
            write!(f, ", {prefix}{on}")?;
        } else if attr.clear & bit != 0 {
            write!(f, ", {prefix}{off}")?;
        }
    }
    if (attr.set | attr.clear) & ATIME != 0 {
        let name = match attr.set & ATIME {
            NOATIME => "noatime",
            STRICTATIME => "strictatime",
            _ => "relatime",
        };
        write!(f, ", {prefix}{name}")?;
    }
    Ok(())
}

pub(super) fn propagation(flag: u64, recursive: bool) -> String {
    let name = match flag {
        f if f == libc::MS_SHARED => "shared",
        f if f == libc::MS_SLAVE => "slave",
        f if f == libc::MS_PRIVATE => "private",
        f if f == libc::MS_UNBINDABLE => "unbindable",
        _ => "as they are",
    };
    format!("{}{name}", if recursive { "r" } else { "" })
}
