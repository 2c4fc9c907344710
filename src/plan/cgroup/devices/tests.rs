//! Rules against the program and the lists: an interpreter for the one, the kernel's matching for the other.

use super::*;
use crate::config::DeviceRule;

/// What the rules mean: each access is decided by the last rule that names it.
fn reference(rules: &[Rule], kind: char, major: u32, minor: u32, access: u32) -> bool {
    [MKNOD, READ, WRITE].iter().filter(|bit| access & **bit != 0).all(|bit| {
        let last = rules.iter().rev().find(|r| {
            r.access & bit != 0
                && r.kind.is_none_or(|k| k == kind)
                && r.major.is_none_or(|m| m == major)
                && r.minor.is_none_or(|m| m == minor)
        });
        last.is_some_and(|r| r.allow)
    })
}

/// Executes a device program; panics on what the verifier would refuse.
fn execute(program: &[u64], kind: char, major: u32, minor: u32, access: u32) -> bool {
    let context = [access << 16 | if kind == 'b' { 1 } else { 2 }, major, minor];
    let mut r = [None::<u32>; 6];
    let mut pc = 0usize;
    loop {
        let b = program[pc].to_ne_bytes();
        let (code, dst, src) = (b[0], (b[1] & 15) as usize, (b[1] >> 4) as usize);
        let offset = i16::from_ne_bytes([b[2], b[3]]);
        let imm = u32::from_ne_bytes([b[4], b[5], b[6], b[7]]);
        pc += 1;
        let mut jump = |taken: bool| {
            assert!(offset >= 0, "only forward");
            pc += if taken { offset as usize } else { 0 };
        };
        match code {
            LOAD_WORD => r[dst] = Some(context[offset as usize / 4]),
            AND_IMM => r[dst] = r[dst].map(|v| v & imm),
            RSH_IMM => r[dst] = r[dst].map(|v| v >> imm),
            MOV_IMM => r[dst] = Some(imm),
            MOV_REG => r[dst] = r[src],
            JUMP => jump(true),
            JNE_IMM => jump(r[dst].expect("set") != imm),
            JSET_IMM => jump(r[dst].expect("set") & imm != 0),
            EXIT => return r[0].expect("a result") == 1,
            other => panic!("opcode {other:#x}"),
        }
    }
}

/// v1 as the kernel does it: one exception must name all that is asked, or none may name any of it.
fn lists_allow(writes: &[Write], kind: char, major: u32, minor: u32, access: u32) -> bool {
    let mut default = true;
    let mut exceptions = Vec::new();
    for w in writes {
        if w.value == "a" {
            default = w.file == "devices.allow";
            continue;
        }
        let words: Vec<_> = w.value.split([' ', ':']).collect();
        let number = |s: &str| s.parse::<u32>().ok();
        let bits = words[3].chars().map(|c| match c {
            'r' => READ,
            'w' => WRITE,
            _ => MKNOD,
        });
        assert_eq!(w.file, if default { "devices.deny" } else { "devices.allow" });
        exceptions.push((words[0].to_string(), number(words[1]), number(words[2]), bits.sum::<u32>()));
    }
    let matches = |e: &(String, Option<u32>, Option<u32>, u32)| {
        e.0 == kind.to_string() && e.1.is_none_or(|m| m == major) && e.2.is_none_or(|m| m == minor)
    };
    if default {
        !exceptions.iter().any(|e| matches(e) && e.3 & access != 0)
    } else {
        exceptions.iter().any(|e| matches(e) && access & !e.3 == 0)
    }
}

fn every_request(mut visit: impl FnMut(char, u32, u32, u32)) {
    for kind in ['b', 'c'] {
        for (major, minor) in
            [(0, 0), (1, 3), (1, 5), (5, 1), (5, 2), (7, 0), (10, 200), (136, 9), (1 << 31, u32::MAX)]
        {
            for access in 1..=7 {
                visit(kind, major, minor, access);
            }
        }
    }
}

fn r(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
    DeviceRule {
        allow: Some(allow),
        kind: Some(kind.into()),
        major: Some(major),
        minor: Some(minor),
        access: Some(access.into()),
    }
}

const NULL: (char, u32, u32) = ('c', 1, 3);

#[test]
fn nothing_is_allowed_but_the_defaults() {
    for list in [None, Some(vec![]), Some(vec![r(false, "a", -1, -1, "rwm")])] {
        let rules = rules(list.as_deref(), &[NULL]).unwrap();
        let p = program(&rules).unwrap();
        for (kind, major, minor, access, allowed) in [
            ('c', 1, 3, 7, true),
            ('c', 1, 5, READ, false),
            ('c', 1, 5, MKNOD, true),
            ('b', 8, 0, MKNOD, true),
            ('b', 8, 0, READ, false),
            ('b', 8, 0, READ | MKNOD, false),
            ('c', 5, 1, READ, false),
            ('c', 5, 2, 7, true),
            ('c', 10, 200, 7, true),
            ('c', 136, 77, 7, true),
            ('b', 136, 77, READ, false),
        ] {
            assert_eq!(execute(&p, kind, major, minor, access), allowed, "{kind} {major}:{minor} {access}");
        }
    }
}

#[test]
fn rules_that_allow_everything_need_no_program() {
    let all = r(true, "a", -1, -1, "rwm");
    assert_eq!(program(&rules(Some(&[r(false, "b", 8, 0, "rwm"), all.clone()]), &[]).unwrap()), None);
    assert!(program(&rules(Some(&[all, r(false, "b", 8, 0, "w")]), &[]).unwrap()).is_some());
}

#[test]
fn lists_of_the_default_container() {
    let rules = rules(Some(&[r(false, "a", -1, -1, "rwm"), r(true, "c", 10, 229, "rwm")]), &[NULL]).unwrap();
    let lines: Vec<_> = lists(&rules).unwrap().iter().map(|w| format!("{} {}", w.file, w.value)).collect();
    assert_eq!(
        lines,
        [
            "devices.deny a",
            "devices.allow c 10:229 rwm",
            "devices.allow c *:* m",
            "devices.allow b *:* m",
            "devices.allow c 1:3 rwm",
            "devices.allow c 136:* rwm",
            "devices.allow c 5:2 rwm",
            "devices.allow c 10:200 rwm",
        ]
    );
}

#[test]
fn program_and_lists_agree_with_the_rules() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut next = move |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 33) as usize % n
    };
    let (mut said, mut total) = (0, 0);
    for _ in 0..400 {
        let list: Vec<_> = (0..next(8))
            .map(|_| {
                let kind = ["a", "b", "c"][next(3)];
                let (major, minor) = ([-1, 1, 5, 136][next(4)], [-1, 0, 2, 3][next(4)]);
                r(next(2) == 0, kind, major, minor, ["r", "w", "m", "rw", "rwm"][next(5)])
            })
            .collect();
        let rules = rules(Some(&list), &[NULL]).unwrap();
        let program = program(&rules);
        let lists = lists(&rules).ok();
        said += usize::from(lists.is_some());
        total += 1;
        every_request(|kind, major, minor, access| {
            let expected = reference(&rules, kind, major, minor, access);
            let got = program.as_ref().is_none_or(|p| execute(p, kind, major, minor, access));
            assert_eq!(got, expected, "{kind} {major}:{minor} {access} by {list:?}");
            if let Some(lists) = &lists {
                let got = lists_allow(lists, kind, major, minor, access);
                // v1 may refuse what two exceptions allow together, and never the other way.
                let single = access.count_ones() == 1;
                assert!(got == expected || (!got && !single), "{kind} {major}:{minor} {access} by {list:?}");
            }
        });
    }
    assert!(said > total / 10, "lists could say {said} of {total}");
}

#[test]
fn bad_rules_name_the_property() {
    let mut no_allow = r(true, "c", 1, 3, "r");
    no_allow.allow = None;
    for (rule, message) in [
        (r(true, "c", 1, 3, ""), "linux.resources.devices[0].access: is empty"),
        (r(true, "c", 1, 3, "rx"), "linux.resources.devices[0].access: 'x' is not one of r, w, m"),
        (r(true, "x", 1, 3, "r"), "linux.resources.devices[0].type: \"x\" is not one of a, b, c"),
        (r(true, "c", -2, 3, "r"), "linux.resources.devices[0].major: -2 is no device number"),
        (r(true, "c", 1, 1 << 32, "r"), "linux.resources.devices[0].minor: 4294967296 is no device number"),
        (no_allow, "linux.resources.devices[0].allow: is required"),
    ] {
        assert_eq!(rules(Some(&[rule]), &[]).unwrap_err().to_string(), message);
    }
}

#[test]
fn what_v1_cannot_say_is_an_error() {
    let list = [r(true, "c", -1, -1, "rwm"), r(false, "c", 1, 3, "w")];
    let e = lists(&rules(Some(&list), &[]).unwrap()).unwrap_err().to_string();
    assert_eq!(
        e,
        "linux.resources.devices[1]: takes a part of linux.resources.devices[0] back, which cgroup v1 cannot do"
    );
}
