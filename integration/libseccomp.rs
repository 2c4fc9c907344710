//! The filter against what libseccomp makes of the same profile, call by call. Needs no root, but libseccomp's
//! header and a C compiler.

#[path = "../src/plan/seccomp/interpret.rs"]
mod interpret;
mod support;

use interpret::Call;
use orlop::config;
use orlop::plan::seccomp::{Native, compile};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const X32: u32 = 0x4000_0000;
/// Calls asked about for one number, where its rules test more than one argument.
const MOST: usize = 600;

/// Name, AUDIT_ARCH_*, first number.
const X86_64: Arch = ("x86_64", "SCMP_ARCH_X86_64", 0xc000_003e, 0);
const X86: Arch = ("x86", "SCMP_ARCH_X86", 0x4000_0003, 0);
const X32_ABI: Arch = ("x32", "SCMP_ARCH_X32", 0xc000_003e, X32);
const AARCH64: Arch = ("aarch64", "SCMP_ARCH_AARCH64", 0xc000_00b7, 0);
const ARM: Arch = ("arm", "SCMP_ARCH_ARM", 0x4000_0028, 0);
const RISCV64: Arch = ("riscv64", "SCMP_ARCH_RISCV64", 0xc000_00f3, 0);
type Arch = (&'static str, &'static str, u32, u32);

const OPS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];

/// The compiled C program.
fn tool() -> Option<&'static Path> {
    static TOOL: OnceLock<Option<PathBuf>> = OnceLock::new();
    let made = TOOL.get_or_init(|| {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libseccomp-export");
        support::compile("libseccomp", &to).map(|()| to)
    });
    made.as_deref()
}

/// What libseccomp says of a profile.
#[derive(Default)]
struct Theirs {
    program: Vec<(u16, u8, u8, u32)>,
    /// Names that it does not know.
    unknown: BTreeSet<String>,
    /// By architecture and number.
    names: BTreeMap<(String, u32), String>,
    refused: Vec<String>,
}

fn action(name: &str, errno: &Value) -> u32 {
    let errno = errno.as_u64().unwrap_or(1) as u32;
    match name.trim_start_matches("SCMP_ACT_") {
        "KILL" | "KILL_THREAD" => 0,
        "KILL_PROCESS" => 0x8000_0000,
        "TRAP" => 0x0003_0000,
        "ERRNO" => 0x0005_0000 | errno,
        "TRACE" => 0x7ff0_0000 | errno,
        "LOG" => 0x7ffc_0000,
        "ALLOW" => 0x7fff_0000,
        "NOTIFY" => 0x7fc0_0000,
        other => panic!("{other}"),
    }
}

fn list(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn names(rule: &Value) -> impl Iterator<Item = &str> {
    list(&rule["names"]).map(|n| n.as_str().unwrap())
}

/// The profile as a program that uses libseccomp hands it on: rules of the default action left out, and a rule that
/// tests one argument twice as one rule for each test.
fn commands(profile: &Value) -> String {
    let default = action(profile["defaultAction"].as_str().unwrap(), &profile["defaultErrnoRet"]);
    let mut out = format!("default {default}\n");
    for rule in list(&profile["syscalls"]) {
        let action = action(rule["action"].as_str().unwrap(), &rule["errnoRet"]);
        let tests: Vec<String> = list(&rule["args"])
            .map(|a| {
                let op = a["op"].as_str().unwrap().trim_start_matches("SCMP_CMP_");
                let op = OPS.iter().position(|o| *o == op).unwrap() + 1;
                let two = a["valueTwo"].as_u64().unwrap_or(0);
                format!("{} {op} {} {two}", a["index"], a["value"])
            })
            .collect();
        let indices: BTreeSet<_> = list(&rule["args"]).map(|a| a["index"].as_u64()).collect();
        for name in names(rule) {
            out += &format!("name {name}\n");
            if action == default {
                continue;
            }
            if indices.len() < tests.len() {
                for test in &tests {
                    out += &format!("rule {action} {name} 1 {test}\n");
                }
            } else {
                out += &format!("rule {action} {name} {} {}\n", tests.len(), tests.join(" "));
            }
        }
    }
    out
}

fn ask(tool: &Path, profile: &Value, arches: &[Arch]) -> Theirs {
    let mut child = Command::new(tool)
        .args(arches.iter().map(|a| a.0))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let commands = commands(profile);
    let mut stdin = child.stdin.take().unwrap();
    let text = commands.clone();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{:?} for\n{commands}", output.status);
    let mut out = Theirs::default();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |n: usize| words[n].parse::<u32>().unwrap();
        match words[0] {
            "unknown" => {
                out.unknown.insert(words[1].into());
            }
            "number" => {
                out.names.insert((words[1].into(), number(3)), words[2].into());
            }
            "refused" => out.refused.push(commands.lines().nth(number(1) as usize - 1).unwrap().into()),
            _ => out.program.push((number(1) as u16, number(2) as u8, number(3) as u8, number(4))),
        }
    }
    out
}

/// xorshift64: the same calls in each run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Values around those that the rules for `names` compare each argument with.
fn values(profile: &Value, asked: &BTreeSet<&str>) -> [Vec<u64>; 6] {
    let mut out: [BTreeSet<u64>; 6] = std::array::from_fn(|_| BTreeSet::from([0]));
    for rule in list(&profile["syscalls"]).filter(|r| names(r).any(|n| asked.contains(n))) {
        for a in list(&rule["args"]) {
            let set = &mut out[a["index"].as_u64().unwrap() as usize];
            set.insert(u64::MAX);
            for v in [a["value"].as_u64().unwrap(), a["valueTwo"].as_u64().unwrap_or(0)] {
                let high = 1 << 32;
                for v in [v, v.wrapping_sub(high), v.wrapping_add(high), !v, v & 0xffff_ffff] {
                    set.extend([v.wrapping_sub(1), v, v.wrapping_add(1)]);
                }
            }
        }
    }
    out.map(|s| s.into_iter().collect())
}

/// All combinations, or as many random ones as are tolerable.
fn arguments(values: &[Vec<u64>; 6], dice: &mut Dice) -> Vec<[u64; 6]> {
    let all: usize = values.iter().map(Vec::len).product();
    if all == 1 {
        return vec![[0; 6], [u64::MAX; 6]];
    }
    if all > MOST {
        return (0..MOST).map(|_| std::array::from_fn(|n| *dice.of(&values[n]))).collect();
    }
    let combination = |mut n: usize| {
        std::array::from_fn(|i| {
            let v = values[i][n % values[i].len()];
            n /= values[i].len();
            v
        })
    };
    (0..all).map(combination).collect()
}

/// Names removed that libseccomp is too old for; it skips them, as we do names that nobody knows.
fn without(profile: &Value, unknown: &BTreeSet<String>) -> Value {
    let mut profile = profile.clone();
    for rule in profile["syscalls"].as_array_mut().into_iter().flatten() {
        rule["names"].as_array_mut().unwrap().retain(|n| !unknown.contains(n.as_str().unwrap()));
    }
    if let Some(rules) = profile["syscalls"].as_array_mut() {
        rules.retain(|r| names(r).count() > 0);
    }
    profile
}

/// The actions of all rules that apply, whatever their order; the default if none does.
fn possible(profile: &Value, names_of_nr: &BTreeSet<&str>, args: &[u64; 6], wide: bool) -> BTreeSet<u32> {
    let all = if wide { u64::MAX } else { u32::MAX.into() };
    let passes = |a: &Value| {
        let (value, two) = (a["value"].as_u64().unwrap(), a["valueTwo"].as_u64().unwrap_or(0));
        let (x, v) = (args[a["index"].as_u64().unwrap() as usize] & all, value & all);
        match a["op"].as_str().unwrap().trim_start_matches("SCMP_CMP_") {
            "NE" => x != v,
            "LT" => x < v,
            "LE" => x <= v,
            "EQ" => x == v,
            "GE" => x >= v,
            "GT" => x > v,
            _ => x & v == two & v,
        }
    };
    let default = action(profile["defaultAction"].as_str().unwrap(), &profile["defaultErrnoRet"]);
    let mut out = BTreeSet::new();
    for rule in list(&profile["syscalls"]).filter(|r| names(r).any(|n| names_of_nr.contains(n))) {
        let action = action(rule["action"].as_str().unwrap(), &rule["errnoRet"]);
        let indices: BTreeSet<_> = list(&rule["args"]).map(|a| a["index"].as_u64()).collect();
        let applies = match indices.len() < list(&rule["args"]).count() {
            true => list(&rule["args"]).any(passes),
            false => list(&rule["args"]).all(passes),
        };
        if applies && action != default {
            out.insert(action);
        }
    }
    if out.is_empty() { BTreeSet::from([default]) } else { out }
}

#[derive(Default)]
struct Count {
    calls: usize,
    /// Calls that libseccomp gives an action which no applicable rule has: faults of its own.
    faults: usize,
    /// Calls that it gives that of another applicable rule than we. It loses one of two rules now and then whose tests
    /// have an upper half of 64 bits in common, where the first of them ends and the other has more.
    others: usize,
}

/// Compares the two filters, and ours with the rules themselves; what was counted, or `None` where libseccomp refuses
/// the profile.
fn compare(tool: &Path, profile: &Value, native: Native, arches: &[Arch]) -> Option<Count> {
    let theirs = ask(tool, profile, arches);
    let refused = !theirs.refused.is_empty();
    let mut profile = without(profile, &theirs.unknown);
    profile["architectures"] = arches.iter().map(|a| a.1).collect();
    profile["listenerPath"] = json!("/agent");
    let doc: config::Seccomp = serde_json::from_value(profile.clone()).unwrap();
    let ours = compile(&doc, native, &mut Vec::new()).unwrap().unwrap();
    let ours: Vec<_> = ours.program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut count, native_audit) = (Count::default(), arches[0].2);
    for (name, _, audit, first) in arches {
        let newest = theirs.names.keys().filter(|k| k.0 == *name && k.1 != 0x000f_0005).map(|k| k.1).max();
        let edges = [0x3fff_ffff, 0x4000_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        let private = 0xf_0000..0xf_0008;
        let shared = arches.contains(&X32_ABI) && *audit == X32_ABI.2;
        let its = |nr: &u32| !shared || (*nr >= X32) == (*first == X32);
        for nr in (*first..=*first + 600).chain(edges).chain(private).filter(its) {
            let mut these: BTreeSet<&str> =
                theirs.names.get(&(name.to_string(), nr)).map(String::as_str).into_iter().collect();
            let multiplexer = *name == "x86" && matches!(nr, 102 | 117);
            if multiplexer {
                these.extend(list(&profile["syscalls"]).flat_map(names));
            }
            let mut values = values(&profile, &these);
            if multiplexer {
                values[0] = (0..26).chain([u64::MAX, 1 << 32]).collect();
            }
            for args in arguments(&values, &mut dice) {
                let call = Call { nr, arch: *audit, args };
                let (we, they) = (interpret::run(&ours, &call).0, interpret::run(&theirs.program, &call).0);
                // runc's addition to libseccomp: calls newer than any in the profile.
                let newer = we == ENOSYS && newest.is_none_or(|n| nr > n);
                count.calls += 1;
                let possible = if multiplexer || these.is_empty() {
                    BTreeSet::from([we])
                } else {
                    possible(&profile, &these, &args, *audit == native_audit && *first == 0)
                };
                let fault = we != they && !newer && !possible.contains(&they);
                count.faults += usize::from(fault);
                let other = we != they && !newer && !fault && !refused;
                count.others += usize::from(other);
                assert!(
                    possible.contains(&we) && (!other || possible.len() > 1),
                    "{name} {nr} {these:?} {args:x?}: we {we:#x}, libseccomp {they:#x}, of\n{}",
                    commands(&profile)
                );
            }
        }
    }
    for audit in [X86_64.2, X86.2, AARCH64.2, ARM.2, RISCV64.2, 0xc000_0016] {
        let call = Call { nr: 1, arch: audit, args: [0; 6] };
        assert_eq!(interpret::run(&ours, &call).0, interpret::run(&theirs.program, &call).0, "{audit:#x}");
    }
    (!refused).then_some(count)
}

/// Profiles of engines, for the machines that they were written for and others.
#[test]
fn profiles_of_engines_mean_what_libseccomp_makes_of_them() {
    let Some(tool) = tool() else { return };
    for name in ["docker", "podman", "containerd"] {
        let path = format!("{}/integration/data/seccomp/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let profile: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        for (native, arches) in [
            (Native::X86_64, &[X86_64, X86, X32_ABI][..]),
            (Native::X86_64, &[X86_64]),
            (Native::Aarch64, &[AARCH64, ARM]),
            (Native::Riscv64, &[RISCV64]),
        ] {
            let asked = compare(tool, &profile, native, arches);
            let asked = asked.unwrap_or_else(|| panic!("libseccomp refuses {name}"));
            println!("{name} for {}: {} calls", arches[0].0, asked.calls);
            assert_eq!((asked.faults, asked.others), (0, 0));
        }
    }
}

fn rule(names: &[&str], action: &str, args: &[(u32, &str, u64, u64)]) -> Value {
    let args: Vec<_> = args
        .iter()
        .map(|(index, op, value, two)| {
            json!({ "index": index, "op": format!("SCMP_CMP_{op}"), "value": value, "valueTwo": two })
        })
        .collect();
    json!({ "names": names, "action": format!("SCMP_ACT_{action}"), "args": args })
}

fn profile(default: &str, rules: Vec<Value>) -> Value {
    json!({ "defaultAction": format!("SCMP_ACT_{default}"), "syscalls": rules })
}

#[test]
fn every_operator_and_action_is_libseccomps() {
    let Some(tool) = tool() else { return };
    let mut profiles = Vec::new();
    for op in OPS {
        for value in [0, 1, 8, 0xffff_ffff, 0x1_0000_0000, 0x1234_5678_9abc, 1 << 63, u64::MAX] {
            for two in if op == "MASKED_EQ" { &[0, 1, 0xffff_ffff, 0x1_0000_0008][..] } else { &[0] } {
                let test = (2, op, value, *two);
                profiles.push(profile("ERRNO", vec![rule(&["openat", "socket", "read"], "ALLOW", &[test])]));
            }
        }
    }
    for action in ["ALLOW", "ERRNO", "KILL", "KILL_THREAD", "KILL_PROCESS", "LOG", "NOTIFY", "TRACE", "TRAP"]
    {
        for default in ["ALLOW", "ERRNO", "KILL_PROCESS", "LOG", "TRACE", "TRAP"] {
            let mut p = profile(default, vec![rule(&["openat"], action, &[]), rule(&["mount"], "LOG", &[])]);
            if matches!(action, "ERRNO" | "TRACE") {
                p["syscalls"][0]["errnoRet"] = json!(38);
            }
            if matches!(default, "ERRNO" | "TRACE") {
                p["defaultErrnoRet"] = json!(95);
            }
            profiles.push(p);
        }
    }
    let two = [(0, "EQ", 16, 0), (2, "EQ", 9, 0)];
    profiles.push(profile(
        "ERRNO",
        vec![
            rule(&["socket"], "ERRNO", &two),
            rule(&["socket"], "ALLOW", &[(2, "NE", 9, 0)]),
            rule(&["socket"], "ALLOW", &[(0, "NE", 16, 0)]),
        ],
    ));
    // One argument twice: each test stands alone. The first argument of socketcall and ipc is the call's number.
    profiles.push(profile("ERRNO", vec![rule(&["socket"], "ALLOW", &[(0, "EQ", 1, 0), (0, "EQ", 2, 0)])]));
    profiles.push(profile("ALLOW", vec![rule(&["semop", "shmat", "bind"], "LOG", &[(1, "GT", 7, 0)])]));
    profiles.push(profile("ALLOW", vec![rule(&["socketcall", "ipc", "accept"], "TRAP", &[])]));
    profiles.push(profile("KILL", vec![]));
    let mut asked = 0;
    for p in &profiles {
        for (native, arches) in
            [(Native::X86_64, &[X86_64, X86, X32_ABI][..]), (Native::Aarch64, &[AARCH64, ARM])]
        {
            let count = compare(tool, p, native, arches).unwrap_or_else(|| panic!("libseccomp refuses {p}"));
            assert_eq!((count.faults, count.others), (0, 0), "{p}");
            asked += count.calls;
        }
    }
    println!("{} profiles, {asked} calls", profiles.len());
}

/// Several rules for the same calls, whose precedence is libseccomp's (see plan/seccomp/precedence.rs).
#[test]
fn random_rules_are_asked_in_libseccomps_order() {
    let Some(tool) = tool() else { return };
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let profiles = support::rounds(80, 2000);
    let (mut refused, mut asked, mut faults, mut others, mut lossy) = (0, 0, 0, 0, 0);
    for _ in 0..profiles {
        // No semop: where the first call of i386 is made through `ipc` only, libseccomp 2.5.4 does not load the number.
        // It mistakes some values above 32 bits where `<`, `<=` and `!=` of different actions meet.
        let plain = dice.below(2) == 0;
        let ops = if plain { &["EQ", "GE", "GT", "MASKED_EQ"][..] } else { &OPS[..] };
        let actions = if plain { &["ALLOW", "LOG", "TRAP"][..] } else { &["ALLOW"] };
        let mut rules = Vec::new();
        for _ in 0..1 + dice.below(4) {
            let args: Vec<_> = (0..dice.below(3))
                .map(|_| {
                    let value = *dice.of(&[0, 1, 5, 6, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005]);
                    (dice.below(3) as u32, *dice.of(ops), value, *dice.of(&[0, 1, 5, 0x1_0000_0001]))
                })
                .collect();
            let names = [*dice.of(&["openat", "connect", "recvmsg"]), *dice.of(&["openat", "personality"])];
            rules.push(rule(&names, dice.of::<&str>(actions), &args));
        }
        let p = profile(dice.of::<&str>(&["ERRNO", "KILL_PROCESS"]), rules);
        match compare(tool, &p, Native::X86_64, &[X86_64, X86, X32_ABI]) {
            Some(n) => {
                (asked, faults, others) = (asked + n.calls, faults + n.faults, others + n.others);
                lossy += usize::from(n.others > 0);
            }
            None => refused += 1,
        }
    }
    println!("{profiles} profiles, {refused} refused by libseccomp, {asked} calls, {faults} of its faults");
    println!("another rule is taken of {others} calls in {lossy} profiles");
    assert!(refused < profiles / 4 && faults < asked / 100);
    assert!(others < asked / 1000);
    assert!(lossy <= profiles.div_ceil(100));
}
