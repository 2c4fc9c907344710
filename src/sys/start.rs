//! Where the program starts: what comes before `main`, of us and of the C library.
//!
//! The C library asks the processor some forty questions about its caches, each of which leaves a virtual machine, and
//! the standard library sets up a guard of the stack: half a millisecond and thirty system calls. What has to run again
//! from a sealed copy (see `seal`) therefore does so before either: [`before_libc`] is the ELF entry point's.

use super::{fd, signal};
use std::ffi::{CStr, c_char};
use std::os::fd::{OwnedFd, RawFd};

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

        // At entry the stack pointer is at argc, and rdx is for atexit(3); _start finds both as they were.
        #[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
        std::arch::global_asm!(
            ".globl orlop_start",
            "orlop_start:",
            "mov rbx, rsp",
            "mov r12, rdx",
            "mov rdi, rsp",
            "and rsp, -16",
            "call {before}",
            "mov rsp, rbx",
            "mov rdx, r12",
            "jmp _start",
            before = sym $crate::sys::start::before_libc,
        );
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

/// The copy of our mount that [`before_libc`] executed, close-on-exec from here on. To be asked for once.
pub fn executed_by() -> Option<OwnedFd> {
    // SAFETY: no memory is passed.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as *const c_char;
    // SAFETY: the kernel's string stays for as long as we run.
    let name = (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })?;
    let number: RawFd = name.to_str().ok()?.strip_prefix("/dev/fd/")?.parse().ok()?;
    // One that was closed by the execution may be another file of ours, or a standard stream, by now.
    (number > 2 && fd::is_inherited(number) && fd::close_on_exec(number).is_ok()).then(|| fd::adopt(number))
}

#[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
pub use early::before_libc;

/// Nothing of the C library may be called here, not even what compilers put in for loops: it is not relocated, and
/// there is no errno. Bytes are read by volatile reads, which no compiler makes a strlen(3) of.
#[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
mod early {
    use crate::plan::mounts::options::RDONLY;
    use crate::sys::mount::{MountAttr, OPEN_TREE_CLONE, SYS_OPEN_TREE_ATTR};
    use std::ffi::c_char;
    use std::mem::MaybeUninit;

    const EXE: *const c_char = c"/proc/self/exe".as_ptr();
    /// Verbs whose processes are seen in a container: those that call `make::settle`. Another word of the same name
    /// costs a run more, no harm.
    const VERBS: [&[u8; 8]; 4] = [b"create\0\0", b"run\0\0\0\0\0", b"exec\0\0\0\0", b"restore\0"];

    /// Runs us again from a read-only copy of our mount, if this is for a container and we are not sealed already. What
    /// fails here `seal` tries once more, and tells. The copy stays open: to close it takes the kernel a while, which
    /// `seal::ensure` lets its caller choose.
    ///
    /// # Safety
    /// `stack` is that of the process at its entry: argc, argv, a null, the environment, a null.
    pub unsafe extern "C" fn before_libc(stack: *const usize) {
        // SAFETY: what `stack` is, is the caller's to know.
        let (argc, argv) = unsafe { (stack.read(), stack.add(1).cast::<*const u8>()) };
        let mut n = 1;
        // SAFETY: there are argc strings.
        while n < argc && !unsafe { is_verb(argv.add(n).read()) } {
            n += 1;
        }
        if n >= argc || !on_plain_file() {
            return;
        }
        let attr = MountAttr { attr_set: RDONLY, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
        let (attr, size) = (&raw const attr as usize, size_of::<MountAttr>());
        let (here, clone) = (libc::AT_FDCWD as usize, OPEN_TREE_CLONE as usize);
        let (empty, at) = (c"".as_ptr() as usize, libc::AT_EMPTY_PATH as usize);
        let mut tree = call(SYS_OPEN_TREE_ATTR, here, EXE as usize, clone, attr, size);
        let mut sealed = tree;
        if tree < 0 {
            tree = call(libc::SYS_open_tree, here, EXE as usize, clone, 0, 0);
            if tree < 0 {
                return;
            }
            sealed = call(libc::SYS_mount_setattr, tree as usize, empty, at, attr, size);
        }
        if tree <= 2 {
            // The caller closed its standard streams: it must not stand for one.
            call(libc::SYS_fcntl, tree as usize, libc::F_SETFD as usize, libc::FD_CLOEXEC as usize, 0, 0);
        }
        if sealed >= 0 {
            let envp = argv.wrapping_add(argc + 1) as usize;
            call(libc::SYS_execveat, tree as usize, empty, argv as usize, envp, at);
        }
        call(libc::SYS_close, tree as usize, 0, 0, 0, 0);
    }

    /// # Safety
    /// A C string.
    unsafe fn is_verb(word: *const u8) -> bool {
        let mut verb = 0;
        while verb < VERBS.len() {
            let mut n = 0;
            // SAFETY: no byte is read behind the first that is another one, and a NUL is the last that is the same.
            while n < 8 && unsafe { word.add(n).read_volatile() } == VERBS[verb][n] {
                if VERBS[verb][n] == 0 {
                    return true;
                }
                n += 1;
            }
            verb += 1;
        }
        false
    }

    /// Neither on a read-only mount nor, perhaps, in memory.
    fn on_plain_file() -> bool {
        const WORDS: usize = 15; // of struct statfs: the type is the first, the flags are number 10
        let mut st = MaybeUninit::<[usize; WORDS]>::uninit();
        let words = st.as_mut_ptr().cast::<usize>();
        if call(libc::SYS_statfs, EXE as usize, words as usize, 0, 0, 0) < 0 {
            return false;
        }
        // SAFETY: the kernel has filled its structure.
        let (kind, flags) = unsafe { (words.read(), words.add(10).read()) };
        flags & libc::ST_RDONLY as usize == 0 && kind != libc::TMPFS_MAGIC as usize
    }

    /// The kernel's own answer, negative for an error.
    fn call(number: libc::c_long, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
        let answer;
        // SAFETY: the callers pass pointers that outlive the call; the kernel keeps all registers but three.
        unsafe {
            std::arch::asm!(
                "syscall",
                inlateout("rax") number as isize => answer,
                in("rdi") a,
                in("rsi") b,
                in("rdx") c,
                in("r10") d,
                in("r8") e,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        answer
    }
}
