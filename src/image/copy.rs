//! Copies of files from one layer or tree to another, by descriptor.

use super::fixup::copy_metadata;
use super::layer::dirs::open_dir;
use super::layer::entry::{overlay_name, split};
use super::layer::merge;
use super::rights::Rights;
use super::view::{View, at, failed, proc_path, whole};
use crate::error::Result as Told;
use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;

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
    let there = merge::proc_path(dir, name);
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
    let names = whole(|buf| fs::listxattr(&source, buf))?;
    let own = |name: &&[u8]| !name.is_empty() && overlay_name(name).is_none();
    for name in names.split(|b| *b == 0).filter(own) {
        match set(name, &whole(|buf| fs::getxattr(&source, name, buf))?) {
            Err(Errno::PERM | Errno::OPNOTSUPP) if !Rights::ours().nodes => {}
            other => other?,
        }
    }
    Ok(())
}

/// Copies the merged tree of a view into an empty directory, whose own metadata is left to the caller.
pub fn tree(view: &View, to: &OwnedFd) -> Told<()> {
    // Directories, whose metadata comes last: each name that is made changes the time.
    let mut dirs = Vec::new();
    // Files of several names, by device and inode, and the first of them.
    let mut linked: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    merge::walk(view, false, |node| {
        if node.is_whiteout() {
            return Ok(());
        }
        let wrong = |call: &'static str| move |e: Errno| failed(node.path, call, e);
        let dir = open_dir(to, split(node.path).0).map_err(wrong("open"))?;
        if node.is_dir() {
            dirs.push((node.path.to_vec(), node.layer));
            return fs::mkdirat(&dir, node.name, Mode::RWXU).map_err(wrong("mkdirat"));
        }
        let file = (node.stat.st_dev, node.stat.st_ino);
        if let Some(first) = linked.get(&file) {
            return fs::linkat(to, &first[..], &dir, node.name, AtFlags::empty()).map_err(wrong("linkat"));
        }
        if node.stat.st_nlink > 1 {
            linked.insert(file, node.path.to_vec());
        }
        let from = at(node.dir, node.name)?.ok_or_else(|| wrong("open")(Errno::NOENT))?;
        one(&from, &dir, node.name).map_err(wrong("copy"))
    })?;
    for (path, layer) in dirs.iter().rev() {
        let wrong = |call: &'static str| move |e: Errno| failed(path, call, e);
        let from = at(&view.layers[*layer], path)?.ok_or_else(|| wrong("open")(Errno::NOENT))?;
        let made = open_dir(to, path).map_err(wrong("open"))?;
        copy_metadata(&from, &made).map_err(wrong("copy the metadata"))?;
    }
    Ok(())
}
