//! Memory that a clone shares with its parent.

use super::{Errno, Sys};
use std::sync::atomic::AtomicU32;

/// A number that both sides of a later clone(2) see; it stays for the life of the process.
pub fn number() -> Sys<&'static AtomicU32> {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the kernel's choosing.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), size_of::<AtomicU32>(), access, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the page is zeroed, aligned, and never unmapped; all access to it is atomic.
    Ok(unsafe { &*page.cast::<AtomicU32>() })
}
