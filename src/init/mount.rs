//! config.md#mounts: one entry, onto the descriptor of its target.

use super::detached::{self, Detached};
use super::mountpoint::{Point, in_root};
use super::{Done, During, Fault, Init};
use crate::plan::mounts::options::{NODEV, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY};
use crate::plan::step::{Attr, CgroupV1Mount, Mount, MountWhat, OnProc, Tree};
use crate::sys::{Errno, Sys, cred, fd, mount, path};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

/// The root of every procfs (linux/proc_ns.h).
const PROC_ROOT_INO: u64 = 1;

/// Where the kernel shows itself: `Init::fixed` has these mounts.
pub(super) const FIXED: [&CStr; 2] = [c"/proc", c"/sys"];

pub type Params = [(CString, Option<CString>)];

impl<'a> Init<'a> {
    pub(super) fn mount(&mut self, m: &'a Mount) -> Done {
        match &m.what {
            MountWhat::Bind(tree) => self.bind(m, tree),
            MountWhat::New { .. } => self.mount_new(m),
            MountWhat::Remount { params } => self.remount(m, params),
            MountWhat::CgroupV1 { hierarchies, links, read_only } => {
                self.mount_cgroup_v1(m, hierarchies, links, *read_only)
            }
        }
    }

    fn bind(&mut self, m: &'a Mount, tree: &Tree) -> Done {
        let mut tree = self.tree(tree)?;
        let directory = is_directory(&tree.fd)?;
        // Attributes first, while nobody can reach it: a read-only bind is never writable, not even for a moment.
        for (attr, recursive) in asked(m) {
            tree.set(attr, 0, recursive)?;
        }
        if m.copy_link && is_link(&tree.fd)? {
            return self.copy_link(&tree.fd, &m.target);
        }
        let point = self.mount_point(m, directory)?;
        let fd = self.attach(m, tree, &point)?;
        self.keep_fixed(m, fd);
        self.leave(point.fd);
        Ok(())
    }

    fn keep_fixed(&mut self, m: &Mount, fd: OwnedFd) {
        let [proc, sys] = &mut self.fixed;
        let fixed = match m.proc {
            OnProc::Whole => Some(proc),
            _ => Some(sys).filter(|_| m.target.as_c_str() == FIXED[1]),
        };
        match fixed {
            Some(fixed) => {
                if let Some(covered) = fixed.replace(fd) {
                    self.leave(covered);
                }
            }
            None => self.leave(fd),
        }
    }

    fn mount_point(&mut self, m: &'a Mount, directory: bool) -> Done<Point> {
        if m.cover_link {
            let link = path::open(
                self.root()?,
                &m.target,
                libc::O_PATH | libc::O_NOFOLLOW,
                0,
                in_root(m.strict_target),
            );
            if let Ok(fd) = link {
                self.forget_near();
                return Ok(Point { fd, made: false });
            }
        }
        self.point(&m.target, directory, m.strict_target)
    }

    /// The link `from` once more. One that is there already must be the same.
    fn copy_link(&self, from: &OwnedFd, to: &CStr) -> Done {
        let (mut dir, mut name, mut text) = (path::Buf::new(), path::Buf::new(), [0; 4096]);
        let n = path::readlink(from, c"", &mut text).during("readlinkat of the source")?;
        let Some((parent, name)) = path::split(to, &mut dir, &mut name).during("symlinkat")? else {
            return Err(Fault { call: "symlinkat", errno: Errno::EISDIR });
        };
        let (dir, mut target) = (self.make_dirs(parent, false)?, path::Buf::new());
        let target = target.set(&text[..n]).during("symlinkat")?;
        match path::symlink(target, &dir, name) {
            Err(Errno::EEXIST) => {
                let mut there = [0; 4096];
                match path::readlink(&dir, name, &mut there) {
                    Ok(len) if there[..len] == text[..n] => Ok(()),
                    _ => Err(Fault {
                        call: "the existing file is not this link: symlinkat",
                        errno: Errno::EEXIST,
                    }),
                }
            }
            other => other.during("symlinkat"),
        }
    }

    fn attach(&mut self, m: &Mount, tree: Detached, point: &Point) -> Done<OwnedFd> {
        let fd = &tree.fd;
        match m.proc {
            OnProc::Never if !self.may_cover(point)? => {
                return Err(Fault {
                    call: "the mount point lies on the container's procfs: move_mount",
                    errno: Errno::EPERM,
                });
            }
            OnProc::Whole if !is_procfs(fd)? || fd::stat(fd).during("fstat")?.st_ino != PROC_ROOT_INO => {
                return Err(Fault {
                    call: "only a whole procfs may cover /proc: move_mount",
                    errno: Errno::EPERM,
                });
            }
            _ => {}
        }
        let fd = tree.attach(&point.fd, "move_mount")?;
        propagate(m, &fd)?;
        Ok(fd)
    }

    /// Not on the container's own procfs. A name without links leads there, too, when a directory above is renamed.
    /// Another procfs, such as the host's below a bind of its root, is not what anything trusts.
    fn may_cover(&self, point: &Point) -> Done<bool> {
        let Some(own) = &self.fixed[0] else { return Ok(true) };
        Ok(!is_procfs(&point.fd)? || {
            let device = |fd| fd::stat(fd).during("fstat").map(|st| st.st_dev);
            device(own)? != device(&point.fd)?
        })
    }

    fn mount_new(&mut self, m: &'a Mount) -> Done {
        let MountWhat::New { fstype, source, params, page, copy_up, inherit_mode, fallback } = &m.what else {
            return Err(Fault { call: "mount", errno: Errno::EINVAL });
        };
        let point = self.mount_point(m, true)?;
        if let Some(page) = page {
            match self.mount_page(m, fstype, source, &page.options, &point) {
                Err(_) if !page.only => {} // the other way tells more
                done => {
                    self.leave(point.fd);
                    return done;
                }
            }
        }
        let mut new = match (self.new_instance(fstype, source, params, m.attr.set), fallback) {
            (Err(fault), Some(tree)) if cred::is_denied(fault.errno) => {
                let mut host = self.tree(tree)?;
                let read_only = Attr { set: m.attr.set | RDONLY, clear: 0 };
                host.set(read_only, 0, true)?;
                host
            }
            (Ok(new), Some(Tree::Slot(unused))) => {
                self.slots[*unused] = None;
                new
            }
            (other, _) => other?,
        };
        if *inherit_mode && !point.made {
            let st = fd::stat(&point.fd).during("fstat of the mount point")?;
            path::chmod(&new.fd, c".", st.st_mode & 0o7777).during("fchmodat of the mount")?;
        }
        if *copy_up {
            let from = path::open(&point.fd, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0, path::NO_LINKS)
                .during("open of the covered directory")?;
            super::copy::tree(&from, &new.fd)?;
        }
        if !m.rattr.is_empty() {
            new.set(m.rattr, 0, true)?;
        }
        let fd = self.attach(m, new, &point)?;
        self.keep_fixed(m, fd);
        self.leave(point.fd);
        Ok(())
    }

    /// mount(2) onto the descriptor, which becomes our working directory: we leave that with the pivot.
    fn mount_page(&mut self, m: &Mount, fstype: &CStr, source: &CStr, page: &CStr, point: &Point) -> Done {
        if m.proc == OnProc::Never && !self.may_cover(point)? {
            return Err(Fault {
                call: "the mount point lies on the container's procfs: mount",
                errno: Errno::EPERM,
            });
        }
        path::enter(point.fd.as_fd()).during("fchdir to the mount point")?;
        let attr = m.attr.set & !RDONLY; // which would be the superblock's as well
        mount::mount_new(fstype, source, c".", attr, page).during("mount")?;
        if m.attr.set == attr && m.rattr.is_empty() && m.propagation.is_empty() {
            return Ok(());
        }
        let fd = path::open(self.root()?, &m.target, libc::O_PATH, 0, in_root(m.strict_target))
            .during("openat2 of the mount")?;
        for (attr, recursive) in asked(m) {
            detached::set(&fd, attr, 0, recursive)?;
        }
        propagate(m, &fd)
    }

    fn remount(&mut self, m: &Mount, params: &Params) -> Done {
        let fd = path::open(self.root()?, &m.target, libc::O_PATH, 0, in_root(m.strict_target))
            .during("openat2 of the mount point")?;
        for (attr, recursive) in asked(m) {
            detached::set(&fd, attr, 0, recursive)?;
        }
        if !params.is_empty() {
            let fs = mount::fs_pick(&fd).during("fspick")?;
            let set = params.iter().try_for_each(|(key, value)| mount::fs_set(&fs, key, value.as_deref()));
            if let Err(errno) = set.and_then(|()| mount::fs_reconfigure(&fs)) {
                self.note_log(&fs);
                return Err(Fault { call: "fsconfig", errno });
            }
        }
        propagate(m, &fd)
    }

    /// fsopen(2), every parameter, fsmount(2): the mount has its attributes before anybody sees it.
    pub(super) fn new_instance(
        &mut self,
        fstype: &CStr,
        source: &CStr,
        params: &Params,
        attr: u64,
    ) -> Done<Detached> {
        let fs = match mount::fs_open(fstype) {
            Err(Errno::ENODEV) => {
                let call = "fsopen: the kernel has no such type (is its module loaded?)";
                return Err(Fault { call, errno: Errno::ENODEV });
            }
            other => other.during("fsopen")?,
        };
        if let Err(errno) = configure(&fs, source, params) {
            self.note_log(&fs);
            return Err(Fault { call: "fsconfig", errno });
        }
        let new = match mount::fs_mount(&fs, attr) {
            // Linux before 5.14: mount(2) knows it since 5.10.
            Err(Errno::EINVAL) if attr & NOSYMFOLLOW != 0 => {
                let mut new = Detached::new(mount::fs_mount(&fs, attr & !NOSYMFOLLOW).during("fsmount")?);
                new.wait(Attr { set: NOSYMFOLLOW, clear: 0 }, 0, false)?;
                new
            }
            other => Detached::new(other.during("fsmount")?),
        };
        self.leave(fs);
        Ok(new)
    }

    /// A tmpfs with a directory for each hierarchy, as systemd lays them out on v1 hosts. Nobody else can write to it yet.
    fn mount_cgroup_v1(
        &mut self,
        m: &'a Mount,
        list: &[CgroupV1Mount],
        links: &[(CString, CString)],
        read_only: bool,
    ) -> Done {
        let point = self.point(&m.target, true, true)?;
        let flags = NOSUID | NODEV | NOEXEC;
        let (top, context) = small_tmpfs(flags)?;
        let top = self.attach(m, Detached::new(top), &point)?;
        self.leave(context);
        self.leave(point.fd);
        path::enter(top.as_fd()).during("fchdir to the tmpfs")?; // we leave it with the pivot
        let attr = Attr { set: flags | if read_only { RDONLY } else { 0 }, clear: 0 };
        for h in list {
            path::mkdir(&top, &h.name, 0o755).during("mkdirat")?;
            let Some(slot) = h.bind else {
                mount::mount_new(c"cgroup", c"cgroup", &h.name, attr.set, &h.options)
                    .during("mount cgroup")?;
                continue;
            };
            let own = self.tree(&Tree::Slot(slot))?.attach_here(&h.name, "move_mount")?;
            self.leave(own);
        }
        for (name, to) in links {
            path::symlink(to, &top, name).during("symlinkat")?;
        }
        if read_only {
            detached::set(&top, Attr::READ_ONLY, 0, false)?;
        }
        self.leave(top);
        Ok(())
    }
}

/// An empty tmpfs, 0755, and its context.
pub fn small_tmpfs(attr: u64) -> Done<(OwnedFd, OwnedFd)> {
    let fs = mount::fs_open(c"tmpfs").during("fsopen")?;
    mount::fs_set(&fs, c"mode", Some(c"755")).and_then(|()| mount::fs_create(&fs)).during("fsconfig")?;
    Ok((mount::fs_mount(&fs, attr).during("fsmount")?, fs))
}

fn configure(fs: &OwnedFd, source: &CStr, params: &Params) -> Sys {
    if !source.is_empty() {
        mount::fs_set(fs, c"source", Some(source))?;
    }
    for (key, value) in params {
        mount::fs_set(fs, key, value.as_deref())?;
    }
    mount::fs_create(fs)
}

/// What is to be set and cleared: on the mount itself, and on all below it too.
fn asked(m: &Mount) -> impl Iterator<Item = (Attr, bool)> {
    [(m.attr, false), (m.rattr, true)].into_iter().filter(|a| !a.0.is_empty())
}

fn propagate(m: &Mount, fd: &OwnedFd) -> Done {
    m.propagation.iter().try_for_each(|(flag, recursive)| {
        mount::set_attr(fd, Attr::default(), *flag, *recursive).during("mount_setattr of the propagation")
    })
}

fn is_procfs(fd: &OwnedFd) -> Done<bool> {
    Ok(fd::fs_magic(fd).during("fstatfs")? == libc::PROC_SUPER_MAGIC)
}

fn is_link(fd: &OwnedFd) -> Done<bool> {
    Ok(fd::stat(fd).during("fstat")?.st_mode & libc::S_IFMT == libc::S_IFLNK)
}

pub(super) fn is_directory(fd: impl AsFd) -> Done<bool> {
    let st = fd::stat(fd).during("fstat")?;
    Ok(st.st_mode & libc::S_IFMT == libc::S_IFDIR)
}
