//! Descriptors: read, write, sockets, polls.

use super::{Errno, Sys, check, check_int, dir, retry};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// Takes a number that a system call has just returned.
fn own(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just made this descriptor for the caller, who owns it alone.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

pub(super) fn owned(fd: Sys<libc::c_long>) -> Sys<OwnedFd> {
    fd.map(own)
}

/// Borrows a descriptor by number: for those that were there before us (standard streams, preserved ones).
pub fn borrow(fd: RawFd) -> BorrowedFd<'static> {
    assert!(fd >= 0);
    // SAFETY: the number is not -1; whoever calls vouches that it stays open, and a stale number gives EBADF only.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Takes over a descriptor by number.
///
/// The caller must be its only owner: it comes from the kernel (SCM_RIGHTS) or was inherited.
pub fn adopt(fd: RawFd) -> OwnedFd {
    own(fd as libc::c_long)
}

/// Stays open for the rest of our life.
pub fn keep(fd: OwnedFd) {
    let _ = fd.into_raw_fd();
}

/// read(2)
pub fn read(fd: impl AsFd, buf: &mut [u8]) -> Sys<usize> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the buffer is valid for its length for the time of the call.
    retry(|| unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) as libc::c_long })
        .map(|n| n as usize)
}

/// What one read(2) has: all of a file that the kernel writes as one record (proc(5), cgroupfs, sysfs), if it fits, and all
/// of a short regular file.
pub fn read_value(path: &CStr, buf: &mut [u8]) -> Sys<usize> {
    read(open(path, libc::O_RDONLY, 0)?, buf)
}

/// write(2)
pub fn write(fd: impl AsFd, buf: &[u8]) -> Sys<usize> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the buffer is valid for its length for the time of the call.
    retry(|| unsafe { libc::write(fd, buf.as_ptr().cast(), buf.len()) as libc::c_long }).map(|n| n as usize)
}

/// sendfile(2) from the position of `from`; 0 at its end.
pub fn send_file(to: impl AsFd, from: impl AsFd, count: usize) -> Sys<usize> {
    let (to, from) = (to.as_fd().as_raw_fd(), from.as_fd().as_raw_fd());
    // SAFETY: no offset is passed.
    retry(|| unsafe { libc::sendfile(to, from, std::ptr::null_mut(), count) as libc::c_long })
        .map(|n| n as usize)
}

/// lseek(2) to the start.
pub fn rewind(fd: impl AsFd) -> Sys {
    // SAFETY: no memory is passed.
    check(unsafe { libc::lseek(fd.as_fd().as_raw_fd(), 0, libc::SEEK_SET) }).map(drop)
}

/// openat(2) with O_CLOEXEC.
pub fn openat(dir: impl AsFd, path: &CStr, flags: i32, mode: u32) -> Sys<OwnedFd> {
    openat_raw(dir.as_fd().as_raw_fd(), path, flags, mode)
}

/// open(2) with O_CLOEXEC, relative to the working directory.
pub fn open(path: &CStr, flags: i32, mode: u32) -> Sys<OwnedFd> {
    openat_raw(libc::AT_FDCWD, path, flags, mode)
}

fn openat_raw(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> Sys<OwnedFd> {
    // SAFETY: the path is a C string that outlives the call.
    owned(retry(|| unsafe {
        libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode) as libc::c_long
    }))
}

/// dup3(2); with equal numbers, close-on-exec is cleared instead.
pub fn dup_to(from: RawFd, to: RawFd) -> Sys {
    if from == to {
        // SAFETY: no memory is passed.
        return check_int(unsafe { libc::fcntl(from, libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: no memory is passed; `to` is replaced, which is what the caller asks for.
    check_int(unsafe { libc::dup3(from, to, 0) }).map(drop)
}

/// Is this number open, and came from our caller: not close-on-exec, as all that we open is?
pub fn is_inherited(fd: RawFd) -> bool {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fcntl(fd, libc::F_GETFD) }).is_ok_and(|f| f & libc::FD_CLOEXEC == 0)
}

/// fcntl(2) F_SETFD: closed by execve.
pub fn close_on_exec(fd: RawFd) -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) }).map(drop)
}

/// close_range(2), both ends included. The caller owns what is in the range, or ends before anybody uses it.
pub fn close_range(first: u32, last: u32, flags: u32) -> Sys {
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Closes these, those of adjacent numbers by one call.
pub fn close_all(fds: Vec<OwnedFd>) {
    let mut numbers: Vec<_> = fds.into_iter().map(OwnedFd::into_raw_fd).collect();
    numbers.sort_unstable();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        if close_range(run[0] as u32, run[run.len() - 1] as u32, 0).is_err() {
            run.iter().for_each(|n| drop(adopt(*n))); // a filter may know no close_range
        }
    }
}

/// Everything from `first` on is closed by execve.
pub fn cloexec_from(first: u32) -> Sys {
    match close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) {
        Err(Errno::EINVAL) => cloexec_each(first), // the flag came with Linux 5.11
        other => other,
    }
}

fn cloexec_each(first: u32) -> Sys {
    let list = open(c"/proc/self/fd", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut buf = [0; 4096];
    loop {
        let n = dir::entries(&list, &mut buf)?;
        if n == 0 {
            return Ok(());
        }
        let mut rest = &buf[..n];
        while let Some((name, tail)) = dir::next(rest) {
            rest = tail;
            let number = name.to_str().ok().and_then(|n| n.parse::<u32>().ok());
            if let Some(number) = number.filter(|n| *n >= first) {
                close_on_exec(number as RawFd)?;
            }
        }
    }
}

/// fstat(2)
pub fn stat(fd: impl AsFd) -> Sys<libc::stat> {
    let mut st = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the kernel fills the buffer, which has the right size; zeroed is a valid `stat`.
    check_int(unsafe { libc::fstat(fd.as_fd().as_raw_fd(), st.as_mut_ptr()) })?;
    // SAFETY: filled by the successful call above.
    Ok(unsafe { st.assume_init() })
}

/// fstatfs(2): the file system's magic number.
pub fn fs_magic(fd: impl AsFd) -> Sys<i64> {
    let mut st = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel fills the buffer, which has the right size; zeroed is a valid `statfs`.
    check_int(unsafe { libc::fstatfs(fd.as_fd().as_raw_fd(), st.as_mut_ptr()) })?;
    // SAFETY: filled by the successful call above.
    Ok(unsafe { st.assume_init() }.f_type)
}

/// fstatvfs(3): ST_* of the mount that `fd` is on.
pub fn mount_flags(fd: impl AsFd) -> Sys<u64> {
    let mut st = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the kernel fills the buffer, which has the right size.
    check_int(unsafe { libc::fstatvfs(fd.as_fd().as_raw_fd(), st.as_mut_ptr()) })?;
    // SAFETY: filled by the successful call above.
    Ok(unsafe { st.assume_init() }.f_flag)
}

/// statfs(2): the magic number of the file system that holds `path`, and ST_* of its mount.
pub fn fs_of(path: &CStr) -> Sys<(i64, u64)> {
    let st = rustix::fs::statfs(path).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    Ok((st.f_type as i64, st.f_flags as u64)) // libc's structure has no flags
}

/// fchown(2)
pub fn chown(fd: impl AsFd, uid: u32, gid: u32) -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fchown(fd.as_fd().as_raw_fd(), uid, gid) }).map(drop)
}

/// flock(2)
pub fn flock(fd: impl AsFd, operation: i32) -> Sys {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: no memory is passed.
    retry(|| unsafe { libc::flock(fd, operation) as libc::c_long }).map(drop)
}

/// fcntl(2) F_SETFL: writes go to the end, and wait again after an open that did not.
pub fn set_appending(fd: impl AsFd) -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFL, libc::O_APPEND) }).map(drop)
}

/// fcntl(2) F_SETFL: reads and writes never wait. It acts on the open file, whoever else has it.
pub fn set_nonblocking(fd: impl AsFd) -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// pipe2(2) with O_CLOEXEC: read end, write end.
pub fn pipe() -> Sys<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the kernel writes two numbers into an array of two.
    check_int(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    Ok((adopt(ends[0]), adopt(ends[1])))
}

/// socketpair(2) of type SOCK_SEQPACKET: messages keep their bounds, and the end of the peer is seen.
pub fn socketpair() -> Sys<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two numbers into an array of two.
    check_int(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) })?;
    Ok((adopt(ends[0]), adopt(ends[1])))
}

/// memfd_create(2) with MFD_CLOEXEC.
pub fn memfd(name: &CStr) -> Sys<OwnedFd> {
    // SAFETY: the name is a C string.
    owned(check(unsafe {
        libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) as _
    }))
}

/// fcntl(2) F_ADD_SEALS
pub fn seal(fd: impl AsFd, seals: i32) -> Sys {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_ADD_SEALS, seals) }).map(drop)
}

/// poll(2) on some descriptors, negative ones left out; answers with the `revents` of each. `timeout` in
/// milliseconds, negative for none.
pub fn poll<const N: usize>(fds: [(RawFd, i16); N], timeout: i32) -> Sys<[i16; N]> {
    let mut set = fds.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    // SAFETY: the array is valid for its length.
    check_int(unsafe { libc::poll(set.as_mut_ptr(), N as libc::nfds_t, timeout) })?;
    Ok(set.map(|p| p.revents))
}

#[repr(C, align(8))]
struct Control([u8; 32]);

/// sendmsg(2) of `bytes` with one descriptor (SCM_RIGHTS).
pub fn send_fd(socket: impl AsFd, bytes: &[u8], fd: impl AsFd) -> Sys {
    let mut iov = libc::iovec { iov_base: bytes.as_ptr() as *mut _, iov_len: bytes.len() };
    let mut control = Control([0; 32]);
    // SAFETY: zero is a valid msghdr; every pointer put into it outlives the call, and the control buffer has room for
    // one header with one descriptor (CMSG_SPACE(4) is 24).
    retry(|| unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.0.as_mut_ptr().cast();
        msg.msg_controllen = libc::CMSG_SPACE(4) as _;
        let head = libc::CMSG_FIRSTHDR(&msg);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(4) as _;
        std::ptr::write_unaligned(libc::CMSG_DATA(head).cast::<RawFd>(), fd.as_fd().as_raw_fd());
        libc::sendmsg(socket.as_fd().as_raw_fd(), &msg, libc::MSG_NOSIGNAL) as libc::c_long
    })
    .map(drop)
}

/// recvmsg(2) of one message and at most one descriptor, close-on-exec.
pub fn recv_fd(socket: impl AsFd, buf: &mut [u8]) -> Sys<(usize, Option<OwnedFd>)> {
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    let mut control = Control([0; 32]);
    let mut fd = None;
    // SAFETY: as in `send_fd`; the kernel writes at most the given lengths, and a header is read only when the kernel
    // says that it is there.
    let n = retry(|| unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.0.as_mut_ptr().cast();
        msg.msg_controllen = libc::CMSG_LEN(4) as _; // CMSG_SPACE has room for two
        let n = libc::recvmsg(socket.as_fd().as_raw_fd(), &mut msg, libc::MSG_CMSG_CLOEXEC);
        let head = libc::CMSG_FIRSTHDR(&msg);
        if n >= 0 && !head.is_null() && (*head).cmsg_type == libc::SCM_RIGHTS {
            fd = Some(adopt(std::ptr::read_unaligned(libc::CMSG_DATA(head).cast::<RawFd>())));
        }
        n as libc::c_long
    })?;
    Ok((n as usize, fd))
}

/// fcntl(2) F_GET_SEALS; EINVAL for what is not a memory file.
pub fn seals(fd: impl AsFd) -> Sys<i32> {
    // SAFETY: no memory is passed.
    check_int(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GET_SEALS) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_become_close_on_exec_one_by_one_too() {
        let [kept, marked] = [7000, 7001].map(|n| {
            let file = open(c"/dev/null", libc::O_RDONLY, 0).unwrap();
            dup_to(file.as_raw_fd(), n).unwrap();
            n
        });
        cloexec_each(7001).unwrap();
        assert!(is_inherited(kept) && !is_inherited(marked));
        for n in [kept, marked] {
            drop(adopt(n));
        }
    }

    #[test]
    fn of_two_descriptors_the_second_is_not_taken() {
        use nix::sys::socket::{ControlMessage::ScmRights, MsgFlags, sendmsg};
        let (ours, theirs) = socketpair().unwrap();
        let file = open(c"/dev/null", libc::O_RDONLY, 0).unwrap();
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        let both = [file.as_raw_fd(), writer.as_raw_fd()];
        let bytes = [std::io::IoSlice::new(b"x")];
        sendmsg::<()>(theirs.as_raw_fd(), &bytes, &[ScmRights(&both)], MsgFlags::empty(), None).unwrap();
        drop(writer);
        assert!(matches!(recv_fd(&ours, &mut [0; 8]), Ok((1, Some(_)))));
        // Nobody holds the writer; a process that a test forks meanwhile has a copy for as long as it takes to execute.
        assert_eq!(poll([(reader.as_raw_fd(), 0)], 10_000), Ok([libc::POLLHUP]));
    }
}
