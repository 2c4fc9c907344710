//! Copies of files from one layer or tree to another, by descriptor.

use super::fixup::copy_metadata;
use super::layer::dirs::open_dir;
use super::layer::entry::{join, overlay_name};
use super::rights::Rights;
use super::view::{at, failed, is_opaque, is_whiteout, proc_path};
use crate::error::Result as Told;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Copies what the `O_PATH` descriptor `from` is, anything but a directory, to a free name.
pub fn one(from: &OwnedFd, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    let stat = fs::fstat(from)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::RegularFile => {
            // By the name in procfs: the descriptor itself cannot be read, and nothing else is there now.
            let source = fs::open(proc_path(from), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
            data(source, to.try_clone().map_err(errno)?, stat.st_size as u64)?;
        }
        FileType::Symlink => fs::symlinkat(fs::readlinkat(from, "", Vec::new())?, dir, name)?,
        kind => fs::mknodat(dir, name, kind, Mode::empty(), stat.st_rdev)?,
    }
    metadata(from, &stat, dir, name)
}

/// Shares the blocks where the file system can (FICLONE), and copies otherwise.
fn data(from: OwnedFd, to: OwnedFd, size: u64) -> Result<(), Errno> {
    if size == 0 || fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let (mut from, mut to) = (File::from(from), File::from(to));
    std::io::copy(&mut from, &mut to).map(drop).map_err(errno)
}

fn errno(e: std::io::Error) -> Errno {
    e.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// Owner, mode, attributes and time, in this order: chown(2) clears set-id bits and file capabilities.
fn metadata(from: &OwnedFd, stat: &Stat, dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    if Rights::ours().owners {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // The name is what was just made, in a directory that is ours alone.
        fs::chmodat(dir, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    let mut there = format!("{}/", proc_path(dir)).into_bytes();
    there.extend_from_slice(name);
    xattrs(from, |key, value| fs::lsetxattr(&there[..], key, value, XattrFlags::empty()))?;
    fs::utimensat(dir, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// Access and modification time as the latter.
pub fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Sets the attributes of `from` that are not overlayfs' own.
pub fn xattrs(from: &OwnedFd, set: impl Fn(&[u8], &[u8]) -> Result<(), Errno>) -> Result<(), Errno> {
    let source = proc_path(from);
    let mut names = vec![0u8; 64 << 10];
    let n = fs::listxattr(&source, &mut names[..])?;
    let own = |name: &&[u8]| !name.is_empty() && overlay_name(name).is_none();
    for name in names[..n].split(|b| *b == 0).filter(own) {
        let mut value = vec![0u8; 64 << 10];
        let n = fs::getxattr(&source, name, &mut value[..])?;
        match set(name, &value[..n]) {
            Err(Errno::PERM | Errno::OPNOTSUPP) if !Rights::ours().nodes => {}
            other => other?,
        }
    }
    Ok(())
}

/// Copies the merged tree of `layers`, topmost first, into an empty directory, whose own metadata is left to the caller.
pub fn tree(layers: &[Rc<OwnedFd>], to: &OwnedFd) -> Told<()> {
    let dirs = layers.iter().map(|l| open_dir(l, b"").map_err(|e| failed(b"", "open", e)));
    Tree { to, linked: HashMap::new() }.merge(&dirs.collect::<Told<Vec<_>>>()?, b"", to)
}

struct Tree<'a> {
    to: &'a OwnedFd,
    /// Files of several names, by device and inode, and the first of them.
    linked: HashMap<(u64, u64), Vec<u8>>,
}

impl Tree<'_> {
    /// Fills `to`, which is at `path`, with what these directories have, the topmost first. Paths are bounded, and so
    /// is the recursion.
    fn merge(&mut self, dirs: &[OwnedFd], path: &[u8], to: &OwnedFd) -> Told<()> {
        let mut names: BTreeMap<Vec<u8>, Vec<&OwnedFd>> = BTreeMap::new();
        for dir in dirs {
            for entry in fs::Dir::read_from(dir).map_err(|e| failed(path, "read", e))? {
                let entry = entry.map_err(|e| failed(path, "read", e))?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    names.entry(name.to_vec()).or_default().push(dir);
                }
            }
        }
        for (name, holders) in names {
            let path = join(path, &name);
            let wrong = |call: &'static str| {
                let path = path.clone();
                move |e: Errno| failed(&path, call, e)
            };
            let mut below: Vec<(OwnedFd, OwnedFd)> = Vec::new();
            for dir in holders {
                let Some(fd) = at(dir, &name)? else { continue };
                let stat = fs::fstat(&fd).map_err(wrong("fstat"))?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                    if below.is_empty() && !is_whiteout(&stat) {
                        self.file(&fd, &stat, &path, to, &name).map_err(wrong("copy"))?;
                    }
                    break; // it hides what lies below
                }
                let last = is_opaque(&fd);
                below.push((fd, open_dir(dir, &name).map_err(wrong("open"))?));
                if last {
                    break;
                }
            }
            let Some(first) = below.first().map(|b| &b.0) else { continue };
            fs::mkdirat(to, &name[..], Mode::RWXU).map_err(wrong("mkdirat"))?;
            let made = open_dir(to, &name).map_err(wrong("open"))?;
            let first = first.try_clone().map_err(|e| wrong("dup")(errno(e)))?;
            let dirs: Vec<OwnedFd> = below.into_iter().map(|b| b.1).collect();
            self.merge(&dirs, &path, &made)?;
            copy_metadata(&first, &made).map_err(wrong("copy the metadata"))?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        from: &OwnedFd,
        stat: &Stat,
        path: &[u8],
        dir: &OwnedFd,
        name: &[u8],
    ) -> Result<(), Errno> {
        let key = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.linked.get(&key) {
            return fs::linkat(self.to, &first[..], dir, name, AtFlags::empty());
        }
        if stat.st_nlink > 1 {
            self.linked.insert(key, path.to_vec());
        }
        one(from, dir, name)
    }
}
