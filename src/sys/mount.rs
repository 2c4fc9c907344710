//! mount(2)'s family, mostly the descriptor-based calls: a mount goes onto what was resolved, not onto a path.

use super::fd::owned;
use super::{Errno, Sys, check, check_int, remount};
use crate::plan::mounts::options::NOSYMFOLLOW;
use crate::plan::step::Attr;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// mount_setattr(2) was called once and is not there: Linux before 5.12, or a filter.
static MISSING: AtomicBool = AtomicBool::new(false);

/// open_tree_attr(2) was called once and is not there: Linux before 6.15, or a filter.
static NO_COPY: AtomicBool = AtomicBool::new(false);

/// Of unified numbers, the same on every architecture.
pub(super) const SYS_OPEN_TREE_ATTR: libc::c_long = 467;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct MountAttr {
    pub attr_set: u64,
    pub attr_clr: u64,
    pub propagation: u64,
    pub userns_fd: u64,
}

pub(super) const OPEN_TREE_CLONE: u32 = 1;
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC as u32;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSCONFIG_CMD_RECONFIGURE: u32 = 7;
const FSPICK_CLOEXEC: u32 = 1;
const FSPICK_EMPTY_PATH: u32 = 8;
const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

/// open_tree(2) with OPEN_TREE_CLONE: a detached copy of the mount at `path`.
pub fn clone_tree(path: &CStr, recursive: bool) -> Sys<OwnedFd> {
    clone_tree_of(path, recursive, false)
}

/// As [`clone_tree`]; with `nofollow`, of a link itself.
pub fn clone_tree_of(path: &CStr, recursive: bool, nofollow: bool) -> Sys<OwnedFd> {
    let more = if nofollow { libc::AT_SYMLINK_NOFOLLOW as u32 } else { 0 };
    clone_tree_raw(libc::AT_FDCWD, path, recursive, more)
}

/// As [`clone_tree`], of the mount that `fd` is in, at the file `fd`.
pub fn clone_tree_at(fd: impl AsFd, recursive: bool) -> Sys<OwnedFd> {
    clone_tree_raw(fd.as_fd().as_raw_fd(), c"", recursive, libc::AT_EMPTY_PATH as u32)
}

fn clone_tree_raw(dir: RawFd, path: &CStr, recursive: bool, more: u32) -> Sys<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | more | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string.
    owned(check(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) }))
}

/// open_tree_attr(2), Linux 6.15: a detached copy that has these attributes and this propagation. Of an error the two
/// calls that it is made of tell more.
pub fn copy_tree(path: &CStr, flags: (bool, bool), attr: Attr, propagation: u64) -> Sys<OwnedFd> {
    let (recursive, nofollow) = flags;
    let more = if nofollow { libc::AT_SYMLINK_NOFOLLOW as u32 } else { 0 };
    copy_tree_raw(libc::AT_FDCWD, path, recursive, more, attr, propagation)
}

/// As [`copy_tree`], of the mount that `fd` is in, at the file `fd`.
pub fn copy_tree_at(fd: impl AsFd, recursive: bool, attr: Attr) -> Sys<OwnedFd> {
    copy_tree_raw(fd.as_fd().as_raw_fd(), c"", recursive, libc::AT_EMPTY_PATH as u32, attr, 0)
}

fn copy_tree_raw(
    dir: RawFd,
    path: &CStr,
    recursive: bool,
    more: u32,
    attr: Attr,
    propagation: u64,
) -> Sys<OwnedFd> {
    if NO_COPY.load(Ordering::Relaxed) {
        return Err(Errno::ENOSYS);
    }
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | more | if recursive { AT_RECURSIVE } else { 0 };
    let arg = MountAttr { attr_set: attr.set, attr_clr: attr.clear, propagation, userns_fd: 0 };
    // SAFETY: path and `arg` outlive the call, and the size passed is that of `arg`.
    let ret = check(unsafe {
        libc::syscall(
            SYS_OPEN_TREE_ATTR,
            dir,
            path.as_ptr(),
            flags,
            &arg as *const MountAttr,
            size_of::<MountAttr>(),
        )
    });
    NO_COPY.store(ret == Err(Errno::ENOSYS), Ordering::Relaxed);
    owned(ret)
}

/// mount_setattr(2) on the mount at `fd`, and on all below it when `recursive`; ENOSYS where the kernel has it not.
pub fn set_attr_detached(fd: impl AsFd, attr: Attr, propagation: u64, recursive: bool) -> Sys {
    let arg = MountAttr { attr_set: attr.set, attr_clr: attr.clear, propagation, userns_fd: 0 };
    match set_attr_raw(fd.as_fd().as_raw_fd(), c"", &arg, recursive, libc::AT_EMPTY_PATH as u32) {
        // The attribute came with Linux 5.14 only.
        Err(Errno::EINVAL) if (attr.set | attr.clear) & NOSYMFOLLOW != 0 => Err(Errno::ENOSYS),
        other => other,
    }
}

/// The same of a mount that is attached in our mount namespace, where mount(2) does it for older kernels.
pub fn set_attr(fd: impl AsFd, attr: Attr, propagation: u64, recursive: bool) -> Sys {
    match set_attr_detached(&fd, attr, propagation, recursive) {
        Err(Errno::ENOSYS) => remount::set(&fd, attr, propagation, recursive),
        other => other,
    }
}

/// Whether a call found that the kernel has no mount_setattr(2).
pub fn lacks_set_attr() -> bool {
    MISSING.load(Ordering::Relaxed)
}

/// mount_setattr(2) MOUNT_ATTR_IDMAP on a detached mount, by the maps of a user namespace.
pub fn set_idmap(fd: impl AsFd, user_namespace: impl AsFd, recursive: bool) -> Sys {
    let userns_fd = user_namespace.as_fd().as_raw_fd() as u64;
    let arg = MountAttr { attr_set: MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    set_attr_raw(fd.as_fd().as_raw_fd(), c"", &arg, recursive, libc::AT_EMPTY_PATH as u32)
}

/// mount_setattr(2) of the propagation of the mount at a path, relative to the working directory; else mount(2).
pub fn propagate_path(path: &CStr, propagation: u64, recursive: bool) -> Sys {
    let arg = MountAttr { propagation, ..MountAttr::default() };
    match set_attr_raw(libc::AT_FDCWD, path, &arg, recursive, 0) {
        Err(Errno::ENOSYS) => remount::propagate(path, propagation, recursive),
        other => other,
    }
}

fn set_attr_raw(dir: RawFd, path: &CStr, arg: &MountAttr, recursive: bool, more: u32) -> Sys {
    if lacks_set_attr() {
        return Err(Errno::ENOSYS);
    }
    let flags = more | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: path and `arg` outlive the call, and the size passed is that of `arg`.
    let ret = check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir,
            path.as_ptr(),
            flags,
            arg as *const MountAttr,
            size_of::<MountAttr>(),
        )
    });
    if ret == Err(Errno::ENOSYS) {
        MISSING.store(true, Ordering::Relaxed);
    }
    ret.map(drop)
}

/// move_mount(2): attaches the detached mount `from` onto `to`.
pub fn attach(from: impl AsFd, to: impl AsFd) -> Sys {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    attach_raw(from.as_fd().as_raw_fd(), to.as_fd().as_raw_fd(), c"", flags)
}

/// move_mount(2) onto a path, relative to the working directory.
pub fn attach_path(from: impl AsFd, to: &CStr) -> Sys {
    attach_raw(from.as_fd().as_raw_fd(), libc::AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH)
}

fn attach_raw(from: RawFd, to: RawFd, path: &CStr, flags: u32) -> Sys {
    // SAFETY: both paths are C strings.
    check(unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, path.as_ptr(), flags) })
        .map(drop)
}

/// mount(2) of a new instance onto a path, relative to the working directory, its options in one page. MOUNT_ATTR_RDONLY
/// makes a superblock read-only, too, if it is a new one.
pub fn mount_new(fstype: &CStr, source: &CStr, to: &CStr, attr: u64, page: &CStr) -> Sys {
    let (flags, data) = (remount::of_mount(attr), page.as_ptr().cast());
    // SAFETY: all four are C strings, and the call keeps none.
    check_int(unsafe { libc::mount(source.as_ptr(), to.as_ptr(), fstype.as_ptr(), flags, data) }).map(drop)
}

/// fsopen(2)
pub fn fs_open(fstype: &CStr) -> Sys<OwnedFd> {
    // SAFETY: the name is a C string.
    owned(check(unsafe { libc::syscall(libc::SYS_fsopen, fstype.as_ptr(), FSOPEN_CLOEXEC) }))
}

/// fsconfig(2): one parameter, a flag when it has no value.
pub fn fs_set(fs: impl AsFd, key: &CStr, value: Option<&CStr>) -> Sys {
    let (command, value) = match value {
        Some(v) => (FSCONFIG_SET_STRING, v.as_ptr()),
        None => (FSCONFIG_SET_FLAG, std::ptr::null()),
    };
    let fs = fs.as_fd().as_raw_fd();
    // SAFETY: key and value are C strings; a flag takes a null value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs, command, key.as_ptr(), value, 0) }).map(drop)
}

/// fsconfig(2): one parameter, a descriptor.
pub fn fs_set_fd(fs: impl AsFd, key: &CStr, value: impl AsFd) -> Sys {
    let (fs, value, none) =
        (fs.as_fd().as_raw_fd(), value.as_fd().as_raw_fd(), std::ptr::null::<libc::c_char>());
    // SAFETY: the key is a C string, and this command takes null for the value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs, FSCONFIG_SET_FD, key.as_ptr(), none, value) })
        .map(drop)
}

/// fsconfig(2): make the superblock.
pub fn fs_create(fs: impl AsFd) -> Sys {
    let (fs, none) = (fs.as_fd().as_raw_fd(), std::ptr::null::<libc::c_char>());
    // SAFETY: this command takes null for key and value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, none, none, 0) }).map(drop)
}

/// fspick(2): the superblock of the mount at `fd`.
pub fn fs_pick(fd: impl AsFd) -> Sys<OwnedFd> {
    let (fd, flags) = (fd.as_fd().as_raw_fd(), FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
    // SAFETY: a C string.
    owned(check(unsafe { libc::syscall(libc::SYS_fspick, fd, c"".as_ptr(), flags) }))
}

/// fsconfig(2): give the superblock its new parameters.
pub fn fs_reconfigure(fs: impl AsFd) -> Sys {
    let (fs, none) = (fs.as_fd().as_raw_fd(), std::ptr::null::<libc::c_char>());
    // SAFETY: this command takes null for key and value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, none, none, 0) }).map(drop)
}

/// fsmount(2) with attributes (MOUNT_ATTR_*).
pub fn fs_mount(fs: impl AsFd, attr: u64) -> Sys<OwnedFd> {
    let fs = fs.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    owned(check(unsafe { libc::syscall(libc::SYS_fsmount, fs, FSMOUNT_CLOEXEC, attr as u32) }))
}

/// pivot_root(2) of the working directory onto itself: the old root ends up on top of the new one.
pub fn pivot_here() -> Sys {
    // SAFETY: both are C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) }).map(drop)
}

/// umount2(2) with MNT_DETACH of what lies on the working directory.
pub fn detach_here() -> Sys {
    // SAFETY: a C string.
    check_int(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// umount2(2) with MNT_DETACH, not following a link.
pub fn detach(path: &CStr) -> Sys {
    // SAFETY: a C string.
    check_int(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }).map(drop)
}

/// chroot(2) to the working directory.
pub fn chroot_here() -> Sys {
    // SAFETY: a C string.
    check_int(unsafe { libc::chroot(c".".as_ptr()) }).map(drop)
}
