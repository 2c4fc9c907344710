//! Runs a filter as the kernel does (net/core/filter.c, seccomp_check_filter): only what seccomp(2) accepts. For tests.

/// struct seccomp_data, without the instruction pointer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Call {
    pub nr: u32,
    pub arch: u32,
    pub args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.nr,
            4 => self.arch,
            16..64 if offset % 8 == 0 => self.args[(offset as usize - 16) / 8] as u32,
            16..64 if offset % 8 == 4 => (self.args[(offset as usize - 16) / 8] >> 32) as u32,
            _ => panic!("load of {offset}"),
        }
    }
}

/// The value returned, and how many instructions that took. `program`: code, jt, jf, k.
pub fn run(program: &[(u16, u8, u8, u32)], call: &Call) -> (u32, usize) {
    assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [0u32; 16], 0);
    for steps in 1.. {
        let (code, jt, jf, k) = program[at];
        let skip = |yes: bool| usize::from(if yes { jt } else { jf });
        at += 1;
        match code {
            0x20 => a = call.word(k),
            0x00 => a = k,
            0x01 => x = k,
            0x60 => a = memory[k as usize],
            0x02 => memory[k as usize] = a,
            0x07 => x = a,
            0x87 => a = x,
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += skip(a == k),
            0x25 => at += skip(a > k),
            0x35 => at += skip(a >= k),
            0x45 => at += skip(a & k != 0),
            0x06 => return (k, steps),
            _ => panic!("instruction {code:#x} at {}", at - 1),
        }
    }
    unreachable!()
}
