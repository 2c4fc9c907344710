//! Names of system calls to their numbers, per architecture.

mod rows;

use rows::ROWS;
pub use rows::Row;

/// An architecture whose calls we can filter; the discriminant is its column in [`Row`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    X86_64,
    X86,
    X32,
    Aarch64,
    Arm,
    Riscv64,
}

/// Bit 30 of a number says that the caller is x32 (linux/seccomp.h has no architecture of its own for it).
pub const X32_BIT: u32 = 0x4000_0000;

/// Where arm's private calls begin (asm/unistd.h: `__ARM_NR_BASE`), far above all others.
pub const ARM_PRIVATE: u32 = 0x000f_0000;

impl Arch {
    /// `AUDIT_ARCH_*` (linux/audit.h): ELF machine, bit 31 for 64-bit, bit 30 for little endian.
    pub const fn audit(self) -> u32 {
        match self {
            Arch::X86_64 | Arch::X32 => 0xc000_003e,
            Arch::X86 => 0x4000_0003,
            Arch::Aarch64 => 0xc000_00b7,
            Arch::Arm => 0x4000_0028,
            Arch::Riscv64 => 0xc000_00f3,
        }
    }

    /// Whether arguments are compared with all 64 bits. Callers of the other ABIs pass 32-bit words: a profile's
    /// `0xffffffffffffff9c` (AT_FDCWD) means their `0xffffff9c`, so the upper halves are not looked at.
    pub const fn wide(self) -> bool {
        matches!(self, Arch::X86_64 | Arch::Aarch64 | Arch::Riscv64)
    }

    /// The number that `seccomp_data.nr` has for the call of this row.
    pub fn number(self, row: &Row) -> Option<u32> {
        let nr = u32::try_from(row.1[self as usize]).ok()?;
        Some(if self == Arch::X32 { nr | X32_BIT } else { nr })
    }
}

/// The row of a system call, `None` if no architecture has it.
pub fn find(name: &str) -> Option<&'static Row> {
    let mut slot = hash(name.as_bytes());
    loop {
        let n = INDEX[slot & MASK];
        if n == EMPTY {
            return None;
        }
        let row = &ROWS[n as usize];
        if row.0 == name {
            return Some(row);
        }
        slot += 1;
    }
}

/// The number of the call inside `socketcall` (linux/net.h) or `ipc` (linux/ipc.h), through which i386 makes it as
/// well as, since Linux 4.3, directly; with the number of that multiplexer.
pub fn multiplexed(name: &str) -> Option<(u32, u8)> {
    const SOCKETCALL: u32 = 102;
    const IPC: u32 = 117;
    Some(match name {
        "socket" => (SOCKETCALL, 1),
        "bind" => (SOCKETCALL, 2),
        "connect" => (SOCKETCALL, 3),
        "listen" => (SOCKETCALL, 4),
        "accept" => (SOCKETCALL, 5),
        "getsockname" => (SOCKETCALL, 6),
        "getpeername" => (SOCKETCALL, 7),
        "socketpair" => (SOCKETCALL, 8),
        "send" => (SOCKETCALL, 9),
        "recv" => (SOCKETCALL, 10),
        "sendto" => (SOCKETCALL, 11),
        "recvfrom" => (SOCKETCALL, 12),
        "shutdown" => (SOCKETCALL, 13),
        "setsockopt" => (SOCKETCALL, 14),
        "getsockopt" => (SOCKETCALL, 15),
        "sendmsg" => (SOCKETCALL, 16),
        "recvmsg" => (SOCKETCALL, 17),
        "accept4" => (SOCKETCALL, 18),
        "recvmmsg" => (SOCKETCALL, 19),
        "sendmmsg" => (SOCKETCALL, 20),
        "semop" => (IPC, 1),
        "semget" => (IPC, 2),
        "semctl" => (IPC, 3),
        "semtimedop" => (IPC, 4),
        "msgsnd" => (IPC, 11),
        "msgrcv" => (IPC, 12),
        "msgget" => (IPC, 13),
        "msgctl" => (IPC, 14),
        "shmat" => (IPC, 21),
        "shmdt" => (IPC, 22),
        "shmget" => (IPC, 23),
        "shmctl" => (IPC, 24),
        _ => return None,
    })
}

// Every create looks up some 400 names, so the index is made at build time: open addressing, a quarter full.
const SLOTS: usize = 2048;
const MASK: usize = SLOTS - 1;
const EMPTY: u16 = u16::MAX;
static INDEX: [u16; SLOTS] = index();

const fn hash(name: &[u8]) -> usize {
    let mut h: u32 = 0x811c_9dc5; // FNV-1a
    let mut i = 0;
    while i < name.len() {
        h = (h ^ name[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    ((h >> 16) ^ h) as usize
}

const fn index() -> [u16; SLOTS] {
    let mut index = [EMPTY; SLOTS];
    let mut n = 0;
    while n < ROWS.len() {
        let mut slot = hash(ROWS[n].0.as_bytes());
        while index[slot & MASK] != EMPTY {
            slot += 1;
        }
        index[slot & MASK] = n as u16;
        n += 1;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_and_others_are_not() {
        for pair in ROWS.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} is out of order", pair[1].0);
        }
        for row in &ROWS {
            assert!(std::ptr::eq(find(row.0).unwrap(), row), "{}", row.0);
        }
        for name in ["", "rea", "readd", "READ", "no_such_call"] {
            assert!(find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn numbers_are_the_kernels() {
        let known = [
            ("read", Arch::X86_64, Some(0)),
            ("read", Arch::X86, Some(3)),
            ("read", Arch::X32, Some(X32_BIT)),
            ("read", Arch::Aarch64, Some(63)),
            ("execve", Arch::X32, Some(X32_BIT + 520)),
            ("open", Arch::Aarch64, None),
            ("socketcall", Arch::X86_64, None),
            ("set_tls", Arch::Arm, Some(0xf0005)),
            ("clone3", Arch::Riscv64, Some(435)),
            ("file_setattr", Arch::Arm, Some(469)),
        ];
        for (name, arch, number) in known {
            assert_eq!(arch.number(find(name).unwrap()), number, "{name} on {arch:?}");
        }
        // Since 424 one number is given for all architectures at once (syscall.tbl of each of them).
        for (name, numbers) in &ROWS {
            let high = numbers[Arch::X86_64 as usize];
            if (424..512).contains(&high) {
                assert!(numbers.iter().all(|n| *n == high || *n == -1), "{name}: {numbers:?}");
            }
        }
    }
}
