//! Processes: made, waited for, signalled, executed.

use super::fd::{adopt, owned};
use super::{Errno, Sys, check, check_int, retry};
use std::ffi::{CStr, c_char};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `struct clone_args` of clone3(2), version 2.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The two sides of a clone.
pub enum Side {
    Parent { pid: i32, pidfd: OwnedFd },
    Child,
}

/// clone3(2) like fork(2): with new namespaces (`flags`), born inside `cgroup` (ENOSYS where clone3 is filtered).
///
/// The caller must be single-threaded: the child goes on with a copy of this thread alone, in which a lock held by
/// another thread (the allocator's) would stay held.
pub fn clone(flags: i32, cgroup: Option<&OwnedFd>) -> Sys<Side> {
    let mut pidfd: i32 = -1;
    let mut args = CloneArgs {
        flags: flags as u32 as u64 | CLONE_PIDFD,
        pidfd: &mut pidfd as *mut i32 as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: no stack is given and memory is not shared, so the child continues on a copy of this one, as after fork;
    // `args` and `pidfd` outlive the call, and the size passed is that of `args`.
    let mut pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &mut args as *mut CloneArgs, size_of::<CloneArgs>())
    });
    if pid == Err(Errno::ENOSYS) && cgroup.is_none() {
        // A container around us filters clone3, whose flags a filter cannot see; clone(2) has the same but
        // CLONE_INTO_CGROUP.
        let flags = args.flags | libc::SIGCHLD as u64;
        // SAFETY: as above; the third argument is where CLONE_PIDFD puts the descriptor, on every architecture that
        // takes the flags first.
        pid = check(unsafe {
            libc::syscall(libc::SYS_clone, flags, 0usize, &mut pidfd as *mut i32, 0usize, 0usize)
        });
    }
    let pid = pid?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    Ok(Side::Parent { pid: pid as i32, pidfd: adopt(pidfd) })
}

/// clone(2) of a child of our own parent's, as under [`clone`]; its pid, or 0 on its side. It takes no descriptor, of which
/// there may be none left, and is the call that filters know.
pub fn sibling(flags: i32) -> Sys<i32> {
    let flags = flags as u32 as u64 | (libc::CLONE_PARENT | libc::SIGCHLD) as u64;
    // SAFETY: no stack is given and memory is not shared, so the child continues on a copy of this one, as after fork.
    check(unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize) })
        .map(|pid| pid as i32)
}

/// pidfd_open(2)
pub fn pidfd(pid: i32) -> Sys<OwnedFd> {
    // SAFETY: no memory is passed.
    owned(check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }))
}

/// pidfd_getfd(2): a copy of another process' descriptor.
pub fn pidfd_take(pidfd: impl AsFd, number: i32) -> Sys<OwnedFd> {
    // SAFETY: no memory is passed.
    owned(check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0) }))
}

/// pidfd_send_signal(2)
pub fn signal(pidfd: impl AsFd, signal: i32) -> Sys {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo asks for that of kill(2).
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, none, 0) })
        .map(drop)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// As shells count: 128 and the signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(c) => c,
            Exit::Signal(s) => 128 + s,
        }
    }
}

/// waitpid(2) for this child; `None` when it still runs and `block` is not set.
pub fn wait(pid: i32, block: bool) -> Sys<Option<Exit>> {
    let flags = if block { 0 } else { libc::WNOHANG };
    wait_for(pid, flags).map(|got| got.map(|g| g.1))
}

/// waitpid(2) for any child that has ended; `None` when there is none.
pub fn wait_any() -> Sys<Option<(i32, Exit)>> {
    wait_for(-1, libc::WNOHANG)
}

fn wait_for(pid: i32, flags: i32) -> Sys<Option<(i32, Exit)>> {
    let mut status = 0;
    // SAFETY: the kernel writes one int.
    let got = retry(|| unsafe { libc::waitpid(pid, &mut status, flags) as libc::c_long })?;
    let exit = match libc::WIFEXITED(status) {
        true => Exit::Code(libc::WEXITSTATUS(status)),
        false => Exit::Signal(libc::WTERMSIG(status)),
    };
    Ok((got != 0).then_some((got as i32, exit)))
}

/// setpgid(2) of this process: a group of its own.
pub fn new_group() -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::setpgid(0, 0) }).map(drop)
}

/// kill(2) of a process group.
pub fn kill_group(group: i32, signal: i32) -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::kill(-group, signal) }).map(drop)
}

/// execve(2). Both tables end with a null pointer.
pub fn exec(path: &CStr, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    if argv.last().is_none_or(|p| !p.is_null()) || envp.last().is_none_or(|p| !p.is_null()) {
        return Errno::EFAULT;
    }
    // SAFETY: path and every string that the tables point to are C strings which the caller keeps; both tables are
    // null-terminated, as was just checked.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Errno::last()
}

/// execveat(2) of an open file, with the environment as it is.
pub fn exec_fd(fd: impl AsFd, argv: &[*const c_char]) -> Errno {
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    if argv.last().is_none_or(|p| !p.is_null()) {
        return Errno::EFAULT;
    }
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: `argv` is null-terminated, as was just checked; `environ` was set by the C library before main, and
    // nothing in this program changes it.
    unsafe {
        libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv.as_ptr(), environ, libc::AT_EMPTY_PATH)
    };
    Errno::last()
}

/// _exit(2): no destructor, no handler.
pub fn exit(code: i32) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(code) }
}
