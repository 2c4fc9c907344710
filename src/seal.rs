//! Our own program sealed against the container (CVE-2019-5736).
//!
//! A process inside the container's namespaces that still runs our program shows it as /proc/PID/exe; opened for
//! writing from there, the host's runtime could be replaced. So we run again from a read-only detached clone of the
//! mount that holds us: the file is the same and no byte is copied, but no descriptor of that mount can write.
//! Without the right to clone mounts the program is copied into a sealed memory file.
//!
//! Where the entry point is ours, `sys::start` has done the first before `main`; here is what is left to do or to tell.

use crate::error::{Error, Result, os};
use crate::plan::step::Attr;
use crate::sys::{Errno, clone, fd, mount, start};
use std::ffi::{CString, c_char};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

const EXE: &std::ffi::CStr = c"/proc/self/exe";
const SEALS: i32 = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

/// Returns when the program that runs is sealed already, else runs it again, sealed, with the same arguments.
///
/// While the descriptor that may come back is open, who has it and CAP_SYS_ADMIN could make the mount writable. So it is
/// to be closed before anything of a container can see a process of ours; the kernel waits for an RCU grace period then.
pub fn ensure() -> Result<Option<OwnedFd>> {
    let at = "/proc/self/exe";
    let (magic, flags) = fd::fs_of(EXE).map_err(os(at, "statfs"))?;
    if flags & libc::ST_RDONLY != 0 || magic == libc::TMPFS_MAGIC && is_sealed_memory() {
        return Ok(start::executed_by());
    }
    let program = read_only_clone()
        .or_else(|_| memory_copy())
        .map_err(os(at, "make a read-only copy of our own program"))?;
    let args: Vec<CString> = std::env::args_os().filter_map(|a| CString::new(a.into_vec()).ok()).collect();
    let argv: Vec<*const c_char> =
        args.iter().map(|a| a.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
    let errno = clone::exec_fd(&program, &argv);
    Err(Error::os(at, "execveat of the sealed copy", errno as i32))
}

/// The descriptor is close-on-exec: nobody shall have it open, see [`ensure`].
fn read_only_clone() -> Result<OwnedFd, Errno> {
    if let Ok(tree) = mount::copy_tree(EXE, (false, false), Attr::READ_ONLY, libc::MS_PRIVATE) {
        return Ok(tree);
    }
    let tree = mount::clone_tree(EXE, false)?;
    mount::set_attr_detached(&tree, Attr::READ_ONLY, libc::MS_PRIVATE, false)?;
    Ok(tree)
}

fn memory_copy() -> Result<OwnedFd, Errno> {
    let copy = fd::memfd(c"orlop")?;
    let program = fd::open(EXE, libc::O_RDONLY, 0)?;
    while fd::send_file(&copy, &program, 1 << 30)? > 0 {}
    fd::seal(&copy, SEALS)?;
    Ok(copy)
}

fn is_sealed_memory() -> bool {
    fd::open(EXE, libc::O_RDONLY, 0).is_ok_and(|f| fd::seals(&f).is_ok_and(|s| s & SEALS == SEALS))
}
