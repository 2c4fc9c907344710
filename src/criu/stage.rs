//! The mount namespace that criu works in, and what it finds there: the rootfs, with every mount point that the
//! container needs, and the trees that are the host's.
//!
//! criu wants a root that is a mount point whose parent is not covered, and makes no mount points. What we mount for it
//! goes with it, whatever becomes of us.

use super::mounts::{self, NULL};
use super::rpc::Pair;
use crate::error::{Error, Result, os};
use crate::init::{self, Fault, mountpoint, rootfs};
use crate::plan::spawn::NEWNS;
use crate::plan::step::{Act, Attr, Mount, MountWhat, OpenWhat, Step, Tree};
use crate::plan::{Plan, cpath};
use crate::spawn::Slots;
use crate::sys::{Sys, fd, mount, ns, path};
use std::ffi::{CStr, OsStr};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Does `work` in a mount namespace of its own. Our hooks run in the one that we came from, so we go back.
pub fn within<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let call = |what: &'static str| os("criu", what);
    let home = fd::open(c"/proc/self/ns/mnt", libc::O_RDONLY, 0).map_err(call("open of our namespace"))?;
    let root = fd::open(c"/", libc::O_PATH, 0).map_err(call("open of /"))?;
    let cwd = fd::open(c".", libc::O_PATH, 0).map_err(call("open of the working directory"))?;
    ns::unshare(NEWNS).map_err(call("unshare CLONE_NEWNS"))?;
    let done = mount::propagate_path(c"/", libc::MS_SLAVE, true)
        .map_err(call("mount_setattr of /"))
        .and_then(|()| work());
    // setns(2) leaves us at the root of the namespace, which a chroot(2) of our caller's would not have.
    let back = ns::enter(&home, NEWNS)
        .and_then(|()| path::enter(root.as_fd()))
        .and_then(|()| mount::chroot_here())
        .and_then(|()| path::enter(cwd.as_fd()));
    back.map_err(call("setns back to our mount namespace"))?;
    done
}

/// The rootfs for criu, and where it finds the mounts that are the host's.
pub struct Stage {
    pub root: PathBuf,
    pub external: Vec<Pair>,
}

/// Mounts the rootfs in a tmpfs over a directory of the container's record, and looks for mount points that are
/// missing, in a copy on top of it, where binds may come and go.
pub fn build(plan: &Plan, slots: &Slots, dir: &Path) -> Result<Stage> {
    let at = dir.to_string_lossy().into_owned();
    fs::create_dir(dir).map_err(|e| Error::io(&*at, "mkdir", &e))?;
    let (tmpfs, _) = init::mount::small_tmpfs(0).map_err(|f| Error::os(&*at, f.call, f.errno as i32))?;
    attach(&at, &tmpfs, dir)?;
    let place = dir.join("root");
    fs::create_dir(&place).map_err(|e| Error::io(place.to_string_lossy(), "mkdir", &e))?;
    let mut points = Points {
        root: root_tree(plan, &place)?,
        plan,
        slots,
        sources: Sources { dir, views: Vec::new() },
        covered: Vec::new(),
        external: Vec::new(),
    };
    plan.steps.iter().try_for_each(|s| points.step(s))?;
    mount::detach(&cpath(&at, &place)?).map_err(os("root.path", "umount of the copy"))?;
    if plan.steps.iter().any(|s| s.act == Act::ReadonlyRoot) {
        // criu takes the attributes of the root from what it finds.
        let root = fd::open(&cpath(&at, &place)?, libc::O_PATH, 0).map_err(os("root.readonly", "open"))?;
        mount::set_attr(&root, Attr::READ_ONLY, 0, false).map_err(os("root.readonly", "mount_setattr"))?;
    }
    Ok(Stage { root: place, external: points.external })
}

fn attach(at: &str, tree: &OwnedFd, to: &Path) -> Result<()> {
    fd::open(&cpath(at, to)?, libc::O_PATH, 0)
        .and_then(|to| mount::attach(tree, &to))
        .map_err(os(at, format!("move_mount to {:?}", to.to_string_lossy())))
}

fn fault(step: &Step, f: Fault) -> Error {
    Error::os(&step.at, f.call, f.errno as i32)
}

/// The rootfs at `place`, and on top of it the copy, which is returned. As with create, nothing of it may appear on the
/// host.
fn root_tree(plan: &Plan, place: &Path) -> Result<OwnedFd> {
    let at = "root.path";
    let rootfs = plan.steps.iter().find_map(|step| match &step.act {
        Act::AttachRoot { path, .. } | Act::OpenRoot { path } | Act::TakeRoot { path, .. } => {
            Some(mount::clone_tree(path, true).map_err(os(at, "open_tree")))
        }
        Act::AttachOverlay { params, .. } => Some(rootfs::overlay(params).map_err(|(f, _)| fault(step, f))),
        _ => None,
    });
    let rootfs = rootfs.unwrap_or_else(|| Err(Error::invalid(at, "is not there")))?;
    attach(at, &rootfs, place)?;
    mount::set_attr(&rootfs, Attr::default(), libc::MS_SLAVE, true).map_err(os(at, "mount_setattr"))?;
    let copy = mount::clone_tree_at(&rootfs, true).map_err(os(at, "open_tree of the copy"))?;
    attach(at, &copy, place)?;
    Ok(copy)
}

/// Where criu finds what is the host's, with the attributes that the mount shall have.
///
/// criu sets those of the first mount of a source alone: of two read-only mounts of one directory the second would
/// become writable. So a source with attributes lies in a view of its file system that has them already. The view
/// shows the whole mount: criu takes its propagation for every mount that comes from there, which the kernel allows
/// only from a root that is above theirs.
struct Sources<'a> {
    dir: &'a Path,
    views: Vec<(PathBuf, Attr, PathBuf)>,
}

impl Sources<'_> {
    /// `path` is canonical.
    fn find(&mut self, at: &str, path: &Path, attr: Attr) -> Result<PathBuf> {
        if attr.is_empty() {
            return Ok(path.to_path_buf());
        }
        let point = mounts::holding(path)?;
        let rest = path.strip_prefix(&point).unwrap_or(path);
        let known = self.views.iter().find(|v| v.0 == point && v.1 == attr).map(|v| v.2.clone());
        let view = match known {
            Some(view) => view,
            None => {
                let tree = mount::clone_tree(&cpath(at, &point)?, false).map_err(os(at, "open_tree"))?;
                let view = self.place(at, &tree)?;
                mount::set_attr(&tree, attr, 0, false).map_err(os(at, "mount_setattr"))?;
                self.views.push((point, attr, view.clone()));
                view
            }
        };
        // A path that ends in a slash would not be the mount itself.
        Ok(if rest.as_os_str().is_empty() { view } else { view.join(rest) })
    }

    /// Mounts a tree in our directory.
    fn place(&self, at: &str, tree: &OwnedFd) -> Result<PathBuf> {
        let count = fs::read_dir(self.dir).map_err(|e| Error::io(at, "read of the stage", &e))?.count();
        let place = self.dir.join(count.to_string());
        let made = match is_directory(tree).map_err(os(at, "fstat"))? {
            true => fs::create_dir(&place),
            false => fs::write(&place, ""),
        };
        made.map_err(|e| Error::io(place.to_string_lossy(), "create", &e))?;
        attach(at, tree, &place)?;
        Ok(place)
    }
}

/// The walk through the mounts, in the order in which `create` makes them.
struct Points<'a> {
    /// The copy of the rootfs, with the binds so far: mount points of others may lie in them.
    root: OwnedFd,
    plan: &'a Plan,
    slots: &'a Slots,
    sources: Sources<'a>,
    /// New file systems, whose content comes from the image.
    covered: Vec<PathBuf>,
    external: Vec<Pair>,
}

impl Points<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        match &step.act {
            Act::Mount(m) => self.mount(step, m),
            Act::Device(d) => {
                let Some(tree) = &d.bind else { return Ok(()) };
                let (point, _) = self.point(step, &d.path, false, false)?;
                self.add(&point, &self.host_path(step, tree)?)
            }
            Act::MaskPath(_) if self.external.iter().all(|p| p.key != NULL) => {
                let null = self.sources.find(&step.at, Path::new(NULL), Attr::READ_ONLY)?;
                self.add(Path::new(NULL), &null)
            }
            _ => Ok(()),
        }
    }

    fn mount(&mut self, step: &Step, m: &Mount) -> Result<()> {
        match &m.what {
            MountWhat::Remount { .. } => Ok(()),
            MountWhat::New { .. } => {
                let (point, _) = self.point(step, &m.target, true, m.strict_target)?;
                self.covered.push(point);
                Ok(())
            }
            MountWhat::CgroupV1 { hierarchies, .. } => {
                let (point, _) = self.point(step, &m.target, true, m.strict_target)?;
                for h in hierarchies {
                    if let Some(slot) = h.bind {
                        let path = self.host_path(step, &Tree::Slot(slot))?;
                        self.add(&point.join(path_of(&h.name)), &path)?;
                    }
                }
                self.covered.push(point);
                Ok(())
            }
            MountWhat::Bind(tree) => self.bind(step, m, tree),
        }
    }

    /// What the host has mounted below the source comes with it, each a mount of its own for criu.
    fn bind(&mut self, step: &Step, m: &Mount, tree: &Tree) -> Result<()> {
        let at = &step.at;
        let path = self.host_path(step, tree)?;
        let (point, target) = self.point(step, &m.target, path.is_dir(), m.strict_target)?;
        let all = Attr { set: m.attr.set | m.rattr.set, clear: m.attr.clear | m.rattr.clear };
        match self.mapped(tree) {
            Some(mapped) => {
                mount::set_attr(mapped, all, 0, false).map_err(os(at, "mount_setattr"))?;
                let place = self.sources.place(at, mapped)?;
                self.add(&point, &place)?;
            }
            None => {
                let source = self.sources.find(at, &path, all)?;
                self.add(&point, &source)?;
            }
        }
        for part in mounts::below(&path)? {
            let source = self.sources.find(at, &path.join(&part), m.rattr)?;
            self.add(&point.join(&part), &source)?;
        }
        let Some(target) = target else { return Ok(()) };
        mount::clone_tree(&cpath(at, &path)?, true)
            .and_then(|copy| mount::attach(&copy, &target))
            .map_err(os(at, "move_mount of a copy"))
    }

    /// An id-mapped tree is the only one of its kind.
    fn mapped(&self, tree: &Tree) -> Option<&OwnedFd> {
        match tree {
            Tree::Slot(n) => match &self.plan.opens[*n].what {
                OpenWhat::MappedTree { .. } => self.slots[*n].as_ref(),
                _ => None,
            },
            Tree::Path { .. } => None,
        }
    }

    /// Without links, as mountinfo has it.
    fn host_path(&self, step: &Step, tree: &Tree) -> Result<PathBuf> {
        let path = match tree {
            Tree::Path { path, .. } => path,
            Tree::Slot(n) => match &self.plan.opens[*n].what {
                OpenWhat::Tree { path, .. } | OpenWhat::MappedTree { path, .. } => path,
                OpenWhat::LateTree { path, .. } => path,
                _ => return Err(Error::os(&step.at, "open_tree", libc::EBADF)),
            },
        };
        let path = path_of(path);
        fs::canonicalize(&path).map_err(|e| Error::io(&step.at, format!("open {path:?}"), &e))
    }

    /// Finds or makes a mount point. Its path in the container is that which the kernel tells, without links. What
    /// lies in a new file system criu brings back itself.
    fn point(
        &self,
        step: &Step,
        target: &CStr,
        directory: bool,
        strict: bool,
    ) -> Result<(PathBuf, Option<OwnedFd>)> {
        let named = path_of(target);
        if self.covered.iter().any(|c| named.starts_with(c) && named != *c) {
            return Ok((named, None));
        }
        let found = mountpoint::find_or_make(self.root.as_fd(), target, directory, strict);
        let found = found.map_err(|f| fault(step, f))?.fd;
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        let real =
            fs::read_link(&link).map_err(|e| Error::io(&step.at, "readlink of the mount point", &e))?;
        let inside =
            real.strip_prefix(self.sources.dir.join("root")).map_or(named, |p| Path::new("/").join(p));
        Ok((inside, Some(found)))
    }

    fn add(&mut self, point: &Path, source: &Path) -> Result<()> {
        self.external.push(Pair { key: super::utf8(point)?, value: super::utf8(source)? });
        Ok(())
    }
}

fn is_directory(tree: &OwnedFd) -> Sys<bool> {
    Ok(fd::stat(tree)?.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

fn path_of(c: &CStr) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(c.to_bytes()))
}
