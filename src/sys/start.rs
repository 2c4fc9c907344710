//! Where the program starts. Before its own main the standard library makes eighteen system calls, for a stack guard most
//! of them; needed is the work of two.

use super::{fd, signal};

/// Makes `$run`, which answers with the exit code, the program. Its arguments are those of [`std::env::args_os`], which
/// glibc hands to the standard library itself.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        #[cfg(target_env = "gnu")]
        #[unsafe(no_mangle)]
        extern "C" fn main() -> std::ffi::c_int {
            $crate::sys::start::prepare();
            std::process::exit($run().into()) // with what is left of the standard output
        }

        #[cfg(not(target_env = "gnu"))]
        fn main() {
            std::process::exit($run().into())
        }
    };
}

/// Standard streams that our caller closed become the null device, or the next file that is opened would be one; and who
/// writes to a pipe that nobody reads is told so, not killed.
pub fn prepare() {
    if let Ok(seen) = fd::poll([(0, 0), (1, 0), (2, 0)], 0) {
        for _ in seen.iter().filter(|s| **s & libc::POLLNVAL != 0) {
            let _ = fd::open(c"/dev/null", libc::O_RDWR, 0).map(fd::keep); // the lowest that is free; nobody to tell
        }
    }
    let _ = signal::ignore(libc::SIGPIPE); // of a signal that there is it cannot fail
}
