//! Debug builds end the process when init allocates: between the clone and execve(2) no memory may be asked for, since
//! a caller's limit may leave none, and none is worth its time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

struct Guard;

static FORBIDDEN: AtomicBool = AtomicBool::new(false);

#[global_allocator]
static GUARD: Guard = Guard;

/// From here on this process does not allocate.
pub fn forbid() {
    FORBIDDEN.store(true, Ordering::Relaxed);
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Guard {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if FORBIDDEN.load(Ordering::Relaxed) {
            // SAFETY: it does not return; no memory is passed.
            unsafe { libc::abort() }
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }
}
