//! Runs a filter as the kernel does (net/core/filter.c, seccomp_check_filter): only what seccomp(2) accepts.

/// struct seccomp_data, without the instruction pointer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Call {
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.nr),
            4 => Some(self.arch),
            16..64 if offset % 8 == 0 => Some(self.args[(offset as usize - 16) / 8] as u32),
            16..64 if offset % 8 == 4 => Some((self.args[(offset as usize - 16) / 8] >> 32) as u32),
            _ => None,
        }
    }
}

/// The value returned, and how many instructions that took. A program that the kernel would not take kills.
/// `program`: code, jt, jf, k.
pub fn run(program: &[(u16, u8, u8, u32)], call: &Call) -> (u32, usize) {
    let mut steps = 0;
    let value = value(program, call, &mut steps);
    (value.unwrap_or(libc::SECCOMP_RET_KILL_PROCESS), steps)
}

fn value(program: &[(u16, u8, u8, u32)], call: &Call, steps: &mut usize) -> Option<u32> {
    let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [0u32; 16], 0);
    loop {
        let (code, jt, jf, k) = *program.get(at)?;
        let skip = |yes: bool| usize::from(if yes { jt } else { jf });
        *steps += 1;
        at += 1; // all jumps lead forwards: it ends
        match code {
            0x20 => a = call.word(k)?,
            0x00 => a = k,
            0x01 => x = k,
            0x60 => a = *memory.get(k as usize)?,
            0x02 => *memory.get_mut(k as usize)? = a,
            0x07 => x = a,
            0x87 => a = x,
            0x54 => a &= k,
            0x05 => at = at.checked_add(k as usize)?,
            0x15 => at += skip(a == k),
            0x25 => at += skip(a > k),
            0x35 => at += skip(a >= k),
            0x45 => at += skip(a & k != 0),
            0x06 => return Some(k),
            _ => return None,
        }
    }
}
