//! config.md#process: terminal; and standard streams that are none.

use super::{Done, During, Fault, Init, mountpoint};
use crate::sync::{Head, Kind};
use crate::sys::{Errno, fd, mount, path, pty};
use std::os::fd::{AsRawFd, OwnedFd};

impl Init<'_> {
    /// The pty comes from the container's own devpts, the slave from its master and from no path (CVE-2025-52565).
    pub(super) fn console(&mut self, rows: u16, columns: u16, bind: bool, uid: u32) -> Done {
        let flags = libc::O_RDWR | libc::O_NOCTTY;
        let root = self.root()?;
        let master = path::open(root, c"dev/pts/ptmx", flags, 0, path::IN_ROOT)
            .or_else(|_| path::open(root, c"dev/ptmx", flags, 0, path::IN_ROOT))
            .during("open of /dev/ptmx")?;
        if fd::fs_magic(&master).during("fstatfs of /dev/ptmx")? != libc::DEVPTS_SUPER_MAGIC {
            return Err(Fault { call: "/dev/ptmx is not on devpts", errno: Errno::ENOTTY });
        }
        pty::unlock(&master).during("ioctl TIOCSPTLCK")?;
        let slave = pty::peer(&master).during("ioctl TIOCGPTPEER")?;
        if (rows, columns) != (0, 0) {
            pty::set_size(&slave, rows, columns).during("ioctl TIOCSWINSZ")?;
        }
        if uid != 0 {
            fd::chown(&slave, uid, u32::MAX).during("fchown of the terminal")?;
        }
        if bind {
            self.bind_console(&slave)?;
        }
        self.send_master(&master)?;
        drop(master);
        for stream in 0..3 {
            fd::dup_to(slave.as_raw_fd(), stream).during("dup3 of the terminal")?;
        }
        Ok(())
    }

    /// /dev/console is the terminal.
    fn bind_console(&mut self, slave: &OwnedFd) -> Done {
        let target = mountpoint::find_or_make(self.root()?, c"dev/console", false, true)?.fd;
        let copy = mount::clone_tree_at(slave, false).during("open_tree of the terminal")?;
        mount::attach(&copy, &target).during("move_mount of the terminal")
    }

    fn send_master(&self, master: &OwnedFd) -> Done {
        let number = pty::number(master).during("ioctl TIOCGPTN")?;
        let head = Head::new(Kind::Master, number as i32).to_bytes();
        fd::send_fd(&self.socket, &head, master).during("sendmsg of the terminal")
    }

    /// A standard stream that is the host's null device becomes the container's own, verified: by the host's, root of a
    /// container could change the mode and owner of the host's node through /proc/self/fd.
    pub(super) fn own_null(&mut self) -> Done {
        for number in 0..3 {
            if !fd::stat(fd::borrow(number)).is_ok_and(|st| is_null(&st)) {
                continue;
            }
            let null = path::open(self.root()?, c"dev/null", libc::O_RDWR | libc::O_NOCTTY, 0, path::IN_ROOT)
                .during("open of /dev/null")?;
            if !is_null(&fd::stat(&null).during("fstat of /dev/null")?) {
                return Err(Fault { call: "/dev/null is not the null device", errno: Errno::ENODEV });
            }
            fd::dup_to(null.as_raw_fd(), number).during("dup3 of /dev/null")?;
        }
        Ok(())
    }
}

pub(super) fn is_null(st: &libc::stat) -> bool {
    st.st_mode & libc::S_IFMT == libc::S_IFCHR && st.st_rdev == libc::makedev(1, 3)
}

/// Pipes and files of the caller become the container user's, who may reopen them by /proc/self/fd; the null device and
/// terminals never do (CVE-2026-88265).
pub fn own_stdio(uid: u32) -> Done {
    for number in 0..3 {
        let stream = fd::borrow(number);
        let Ok(st) = fd::stat(stream) else { continue };
        let device = st.st_mode & libc::S_IFMT == libc::S_IFCHR;
        if st.st_uid == uid || device {
            continue;
        }
        match fd::chown(stream, uid, u32::MAX) {
            // Sockets, read-only file systems and owners outside the mapping stay as they are.
            Ok(()) | Err(Errno::EINVAL | Errno::EPERM | Errno::EROFS | Errno::EBADF) => {}
            Err(errno) => return Err(Fault { call: "fchown of a standard stream", errno }),
        }
    }
    Ok(())
}
