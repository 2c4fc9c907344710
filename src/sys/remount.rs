//! mount(2) as it changes a mount that is attached: the way before mount_setattr(2), Linux 5.12.

use super::path::{self, Buf};
use super::{Errno, Sys, check_int, decimal, fd};
use crate::plan::mounts::options::{
    ATIME, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY, STRICTATIME,
};
use crate::plan::step::Attr;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// MS_NOSYMFOLLOW, Linux 5.10.
const MS_NOSYMFOLLOW: u64 = 0x100;
/// ST_NOSYMFOLLOW of statfs(2).
const ST_NOSYMFOLLOW: u64 = 0x2000;

/// MOUNT_ATTR_*, the flag of mount(2), and that of statfs(2). relatime and strictatime are told apart by neither's
/// value.
const FLAGS: [(u64, u64, u64); 7] = [
    (RDONLY, libc::MS_RDONLY, libc::ST_RDONLY),
    (NOSUID, libc::MS_NOSUID, libc::ST_NOSUID),
    (NODEV, libc::MS_NODEV, libc::ST_NODEV),
    (NOEXEC, libc::MS_NOEXEC, libc::ST_NOEXEC),
    (NOATIME, libc::MS_NOATIME, libc::ST_NOATIME),
    (NODIRATIME, libc::MS_NODIRATIME, libc::ST_NODIRATIME),
    (NOSYMFOLLOW, MS_NOSYMFOLLOW, ST_NOSYMFOLLOW),
];

/// Attributes and propagation of the mount at `fd`, which is its root, with all below when `recursive`.
pub fn set(fd: impl AsFd, attr: Attr, propagation: u64, recursive: bool) -> Sys {
    if !attr.is_empty() {
        one(&fd, attr)?;
    }
    if !attr.is_empty() && recursive {
        below(&fd, attr)?;
    }
    if propagation == 0 {
        return Ok(());
    }
    propagate(of_descriptor(&mut Buf::new(), fd.as_fd().as_raw_fd())?, propagation, recursive)
}

fn one(fd: impl AsFd, attr: Attr) -> Sys {
    // What is not named would be cleared.
    let now = of_statfs(fd::mount_flags(&fd)?);
    let path = &mut Buf::new();
    let path = of_descriptor(path, fd.as_fd().as_raw_fd())?;
    call(path, libc::MS_REMOUNT | libc::MS_BIND | of_mount(now & !attr.clear | attr.set))
}

/// As many mounts as a tree may have below it.
const MOST: usize = 1024;

/// mount(2) does one mount a call: all those whose parents lead up to the mount `top`, by /proc/self/mountinfo.
fn below(top: impl AsFd, attr: Attr) -> Sys {
    let (mut tree, mut len) = ([mount_id(&top, false)?; MOST], 1);
    loop {
        let before = len;
        lines(|line| {
            let mut fields = line.split(|b| *b == b' ');
            let (id, parent) = (number(fields.next()), number(fields.next()));
            if tree[..len].contains(&id) || !tree[..len].contains(&parent) {
                return Ok(());
            }
            *tree.get_mut(len).ok_or(Errno::E2BIG)? = id;
            len += 1;
            let mut buf = Buf::new();
            let to = unescape(fields.nth(2).unwrap_or_default(), &mut buf)?;
            let at = path::open(&top, to, libc::O_PATH, 0, libc::RESOLVE_NO_SYMLINKS)?; // absolute
            let st = statx(&at, libc::STATX_MNT_ID)?;
            match st.stx_mnt_id == id {
                true => one(&at, attr),
                // Another one covers it: then nobody reaches it.
                false if st.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0 => Ok(()),
                // Somebody moved the directories that lead there.
                false => Err(Errno::EBUSY),
            }
        })?;
        if len == before {
            return Ok(());
        }
    }
}

/// The root of the mount of this id, when it is in our mount namespace; EBUSY when another one covers it.
pub fn find(id: u64) -> Sys<Option<OwnedFd>> {
    let mut found = None;
    lines(|line| {
        let mut fields = line.split(|b| *b == b' ');
        if number(fields.next()) == id {
            let at =
                fd::open(unescape(fields.nth(3).unwrap_or_default(), &mut Buf::new())?, libc::O_PATH, 0)?;
            found = Some(if mount_id(&at, false)? == id { at } else { return Err(Errno::EBUSY) });
        }
        Ok(())
    })?;
    Ok(found)
}

/// statx(2) STATX_MNT_ID, Linux 5.8: the number that mountinfo has, and that a later mount may get. `unique`:
/// STATX_MNT_ID_UNIQUE, Linux 6.8, which none will get; older kernels answer as for the other.
pub fn mount_id(fd: impl AsFd, unique: bool) -> Sys<u64> {
    let unique = if unique { 0x4000 } else { libc::STATX_MNT_ID };
    statx(fd, unique).map(|st| st.stx_mnt_id)
}

fn statx(fd: impl AsFd, mask: u32) -> Sys<libc::statx> {
    let mut st = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let (fd, flags) = (fd.as_fd().as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: the path is a C string; the kernel fills the buffer, which has the right size.
    check_int(unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, st.as_mut_ptr()) })?;
    // SAFETY: filled by the successful call above.
    Ok(unsafe { st.assume_init() })
}

/// Each line of our mountinfo; of a long one, as the options of an overlay make it, its beginning.
fn lines(each: impl FnMut(&[u8]) -> Sys) -> Sys {
    lines_of(fd::open(c"/proc/self/mountinfo", libc::O_RDONLY, 0)?, each)
}

fn lines_of(file: OwnedFd, mut each: impl FnMut(&[u8]) -> Sys) -> Sys {
    let (mut buf, mut len, mut begun) = ([0; 16384], 0, false);
    loop {
        let n = fd::read(&file, &mut buf[len..])?;
        len += n;
        let mut start = 0;
        while let Some(end) = buf[start..len].iter().position(|b| *b == b'\n') {
            if !begun {
                each(&buf[start..start + end])?;
            }
            begun = false;
            start += end + 1;
        }
        buf.copy_within(start..len, 0);
        len -= start;
        if len == buf.len() {
            if !begun {
                each(&buf)?;
            }
            (begun, len) = (true, 0);
        } else if n == 0 {
            return Ok(());
        }
    }
}

fn number(field: Option<&[u8]>) -> u64 {
    let digits = field.unwrap_or_default();
    digits.iter().fold(0, |n: u64, b| n.wrapping_mul(10).wrapping_add(u64::from(b.wrapping_sub(b'0'))))
}

/// Blanks and backslashes of a path stand there as three octal digits (proc_pid_mountinfo(5)).
fn unescape<'a>(text: &[u8], buf: &'a mut Buf) -> Sys<&'a CStr> {
    let (mut out, mut len, mut rest) = ([0; 4096], 0, text);
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match rest {
            [b'\\', a @ b'0'..=b'3', b, c, tail @ ..] => ((a - b'0') << 6 | (b & 7) << 3 | c & 7, tail),
            _ => (*first, tail),
        };
        *out.get_mut(len).ok_or(Errno::ENAMETOOLONG)? = byte;
        len += 1;
        rest = tail;
    }
    buf.set(&out[..len])
}

/// umount2(2) with MNT_DETACH of the very mount that `fd` is the root of.
pub fn detach(fd: impl AsFd) -> Sys {
    let path = &mut Buf::new();
    let path = of_descriptor(path, fd.as_fd().as_raw_fd())?;
    // SAFETY: a C string.
    check_int(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// The propagation of the mount at `path`.
pub fn propagate(path: &CStr, propagation: u64, recursive: bool) -> Sys {
    call(path, propagation | if recursive { libc::MS_REC } else { 0 })
}

fn of_statfs(flags: u64) -> u64 {
    let plain = FLAGS.iter().filter(|f| flags & f.2 != 0).fold(0, |all, f| all | f.0);
    let strict = flags & (libc::ST_RELATIME | libc::ST_NOATIME) == 0;
    plain | if strict { STRICTATIME } else { 0 }
}

/// MOUNT_ATTR_* as flags of mount(2).
pub(super) fn of_mount(attr: u64) -> u64 {
    let plain = FLAGS.iter().filter(|f| attr & f.0 != 0).fold(0, |all, f| all | f.1);
    plain
        | match attr & ATIME {
            STRICTATIME => libc::MS_STRICTATIME,
            0 => libc::MS_RELATIME,
            _ => 0,
        }
}

/// mount(2) takes no descriptor; the link of procfs leads to the very mount.
fn of_descriptor(buf: &mut Buf, fd: i32) -> Sys<&CStr> {
    buf.join(&[b"/proc/self/fd/", decimal(fd.unsigned_abs(), &mut [0; 10])])
}

fn call(path: &CStr, flags: u64) -> Sys {
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: the path is a C string; source, type and data may be null for what changes a mount.
    check_int(unsafe { libc::mount(none, path.as_ptr(), none, flags, none.cast()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_mount_are_kept_unless_named() {
        for (statfs, attr, mount) in [
            (libc::ST_RELATIME, 0, libc::MS_RELATIME),
            (libc::ST_NOATIME | libc::ST_RDONLY, NOATIME | RDONLY, libc::MS_NOATIME | libc::MS_RDONLY),
            (libc::ST_NODIRATIME, STRICTATIME | NODIRATIME, libc::MS_STRICTATIME | libc::MS_NODIRATIME),
            (ST_NOSYMFOLLOW | libc::ST_RELATIME, NOSYMFOLLOW, MS_NOSYMFOLLOW | libc::MS_RELATIME),
        ] {
            assert_eq!((of_statfs(statfs), of_mount(attr)), (attr, mount));
        }
        let mut buf = Buf::new();
        assert_eq!(unescape(b"/a\\040b\\134\\011/c", &mut buf).unwrap(), c"/a b\\\t/c");
        assert_eq!(number(Some(b"1207")), 1207);
        assert_eq!(of_descriptor(&mut buf, 0).unwrap(), c"/proc/self/fd/0");
        assert_eq!(of_descriptor(&mut buf, 1_234_567_890).unwrap(), c"/proc/self/fd/1234567890");
    }

    #[test]
    fn a_line_longer_than_the_buffer_is_one_line() {
        let long = format!("1 {}\n2 b\n3 {}", "x".repeat(40_000), "y".repeat(16_382));
        for text in [long.clone() + "\n4 d\n", long + "\n"] {
            let file = fd::memfd(c"mountinfo").unwrap();
            assert_eq!(fd::write(&file, text.as_bytes()).unwrap(), text.len());
            fd::rewind(&file).unwrap();
            let mut seen = Vec::new();
            lines_of(file, |line| {
                seen.push(line[0]);
                Ok(())
            })
            .unwrap();
            let first: Vec<_> = text.lines().map(|l| l.as_bytes()[0]).collect();
            assert_eq!(seen, first);
        }
    }
}
