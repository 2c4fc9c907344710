//! tmpcopyup: what a tmpfs covers is copied into it. Directories, files, links and special files with mode, owner and
//! times; by descriptors, on the stack, to a fixed depth.

use super::{Done, During, Fault};
use crate::sys::{Errno, dir, fd, path};
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// Deeper trees are refused rather than followed: the stack is what there is.
const DEPTH: u32 = 64;

/// Copies the entries of the directory `from` into the directory `to`.
pub fn tree(from: &OwnedFd, to: &OwnedFd) -> Done {
    level(from, to, 0)
}

fn level(from: &OwnedFd, to: &OwnedFd, depth: u32) -> Done {
    if depth == DEPTH {
        return Err(Fault { call: "copy of the covered directory", errno: Errno::ELOOP });
    }
    let mut buf = [0; 4096];
    loop {
        let n = dir::entries(from, &mut buf).during("getdents64")?;
        if n == 0 {
            return Ok(());
        }
        let mut rest = &buf[..n];
        while let Some((name, tail)) = dir::next(rest) {
            rest = tail;
            if name != c"." && name != c".." {
                entry(from, to, name, depth)?;
            }
        }
    }
}

fn entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: u32) -> Done {
    let source = path::open(from, name, libc::O_PATH | libc::O_NOFOLLOW, 0, path::NO_FOLLOW)
        .during("openat2 of a covered file")?;
    let st = fd::stat(&source).during("fstat of a covered file")?;
    let mode = st.st_mode & 0o7777;
    match st.st_mode & libc::S_IFMT {
        libc::S_IFDIR => {
            path::mkdir(to, name, 0o700).during("mkdirat of a copy")?;
            let inner = open_dir(from, name)?;
            level(&inner, &open_dir(to, name)?, depth + 1)?;
        }
        libc::S_IFREG => file(from, to, name)?,
        libc::S_IFLNK => {
            let mut buf = [0; 4097];
            let n = path::readlink(&source, c"", &mut buf[..4096]).during("readlinkat of a covered link")?;
            let target = CStr::from_bytes_until_nul(&buf[..n + 1])
                .map_err(|_| Fault { call: "readlinkat of a covered link", errno: Errno::EINVAL })?;
            path::symlink(target, to, name).during("symlinkat of a copy")?;
            path::chown(to, name, st.st_uid, st.st_gid).during("fchownat of a copy")?;
            return path::set_times(to, name, &st).during("utimensat of a copy");
        }
        kind => path::mknod(to, name, kind | 0o600, st.st_rdev).during("mknodat of a copy")?,
    }
    path::chown(to, name, st.st_uid, st.st_gid).during("fchownat of a copy")?;
    path::chmod(to, name, mode).during("fchmodat of a copy")?; // chown(2) takes set-id bits away
    path::set_times(to, name, &st).during("utimensat of a copy")
}

fn open_dir(dir: &OwnedFd, name: &CStr) -> Done<OwnedFd> {
    path::open(dir, name, libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW, 0, path::NO_FOLLOW)
        .during("openat2 of a directory")
}

fn file(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Done {
    let source = path::open(from, name, libc::O_RDONLY | libc::O_NOFOLLOW, 0, path::NO_FOLLOW)
        .during("openat2 of a covered file")?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW;
    let copy = fd::openat(to, name, flags, 0o600).during("openat of a copy")?;
    while fd::send_file(&copy, &source, 1 << 20).during("sendfile of a covered file")? > 0 {}
    Ok(())
}
