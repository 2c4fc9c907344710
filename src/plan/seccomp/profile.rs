//! The document's rules, checked: after this file every value is decided.

use super::tables::{self, Row};
use super::vocabulary::{self as words, Op};
use crate::config::{Seccomp, SeccompArg, SeccompRule};
use crate::error::{Error, Result};

/// A checked profile.
pub struct Profile {
    /// What a call without a rule gets: a `SECCOMP_RET_*` with its data.
    pub default: u32,
    pub rules: Vec<Rule>,
    /// Path of the first property that asks for SCMP_ACT_NOTIFY.
    pub notify: Option<String>,
}

/// One entry of `linux.seccomp.syscalls`.
pub struct Rule {
    pub action: u32,
    /// The calls, where some architecture knows the name; others are skipped, as profiles are written for all
    /// architectures and for newer kernels.
    pub calls: Vec<&'static Row>,
    /// The rule applies if all tests of one of these lists pass; an empty list always does.
    pub any_of: Vec<Vec<Test>>,
}

/// One comparison of an argument: `argument & mask` against `value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Test {
    /// 0 to 5.
    pub arg: u8,
    pub op: Op,
    pub mask: u64,
    /// Has no bit that `mask` has not.
    pub value: u64,
}

pub fn check(doc: &Seccomp) -> Result<Profile> {
    let at = || "linux.seccomp.defaultAction".to_string();
    let default = action(doc.default_action.as_deref(), at)?;
    if default == libc::SECCOMP_RET_USER_NOTIF {
        // The runtime itself would wait for the agent before it could hand over the listener.
        return Err(Error::invalid(at(), "\"SCMP_ACT_NOTIFY\" cannot be the default"));
    }
    let default = with_errno(default, doc.default_errno_ret, || "linux.seccomp.defaultErrnoRet".to_string())?;
    let mut profile = Profile { default, rules: Vec::new(), notify: None };
    for (n, rule) in doc.syscalls.iter().flatten().enumerate() {
        let rule = check_rule(n, rule)?;
        if rule.action == libc::SECCOMP_RET_USER_NOTIF && profile.notify.is_none() {
            profile.notify = Some(format!("linux.seccomp.syscalls[{n}].action"));
        }
        profile.rules.push(rule);
    }
    Ok(profile)
}

fn check_rule(n: usize, rule: &SeccompRule) -> Result<Rule> {
    let at = |property: &str| format!("linux.seccomp.syscalls[{n}].{property}");
    let action = action(rule.action.as_deref(), || at("action"))?;
    let action = with_errno(action, rule.errno_ret, || at("errnoRet"))?;
    let names = rule.names.as_deref().unwrap_or_default();
    if names.is_empty() {
        return Err(Error::invalid(at("names"), "needs at least one system call"));
    }
    let mut calls = Vec::with_capacity(names.len());
    for (i, name) in names.iter().enumerate() {
        if name.is_empty() {
            return Err(Error::invalid(at(&format!("names[{i}]")), "is empty"));
        }
        if action == libc::SECCOMP_RET_USER_NOTIF && name == "write" {
            // runc's rule, kept so that a profile means the same here: its init writes to its parent under the filter.
            let what = "\"write\" cannot have the action SCMP_ACT_NOTIFY";
            return Err(Error::invalid(at(&format!("names[{i}]")), what));
        }
        calls.extend(tables::find(name));
    }
    let args = rule.args.as_deref().unwrap_or_default();
    let mut tests = Vec::with_capacity(args.len());
    for (i, arg) in args.iter().enumerate() {
        tests.push(check_arg(arg, |property| at(&format!("args[{i}].{property}")))?);
    }
    Ok(Rule { action, calls, any_of: alternatives(tests) })
}

/// Tests of different arguments must all pass. Where one argument is tested twice, every test of the rule becomes a
/// rule of its own: so runc reads such profiles since its first version, and they were written for it.
fn alternatives(tests: Vec<Test>) -> Vec<Vec<Test>> {
    let twice = tests.iter().enumerate().any(|(i, t)| tests[..i].iter().any(|u| u.arg == t.arg));
    if !twice {
        let mut tests = tests;
        tests.sort_by_key(|t| t.arg);
        return vec![tests];
    }
    tests.into_iter().map(|t| vec![t]).collect()
}

fn check_arg(arg: &SeccompArg, at: impl Fn(&str) -> String) -> Result<Test> {
    let index = arg.index.unwrap_or(0);
    if index > 5 {
        return Err(Error::invalid(at("index"), format!("{index} is not one of the arguments 0 to 5")));
    }
    let Some(op) = &arg.op else {
        return Err(Error::invalid(at("op"), "is required"));
    };
    let Some(op) = words::operator(op) else {
        return Err(Error::invalid(at("op"), format!("\"{op}\" is not a seccomp operator")));
    };
    let (value, two) = (arg.value.unwrap_or(0), arg.value_two.unwrap_or(0));
    // config-linux.md#seccomp leaves it to libseccomp's SCMP_CMP_MASKED_EQ: first the mask, then the value.
    let (mask, value) = if op == Op::MaskedEq { (value, two & value) } else { (u64::MAX, value) };
    Ok(Test { arg: index as u8, op, mask, value })
}

fn action(name: Option<&str>, at: impl Fn() -> String) -> Result<u32> {
    let Some(name) = name else {
        return Err(Error::invalid(at(), "is required"));
    };
    words::action(name).ok_or_else(|| Error::invalid(at(), format!("\"{name}\" is not a seccomp action")))
}

/// The action with its data: an errno, or the number that a tracer reads.
fn with_errno(action: u32, errno: Option<u64>, at: impl Fn() -> String) -> Result<u32> {
    // The kernel answers 4095, the last errno (linux/err.h), for anything above; a tracer gets all 16 bits.
    let max = match action {
        libc::SECCOMP_RET_ERRNO => 4095,
        libc::SECCOMP_RET_TRACE => 0xffff,
        _ if errno.is_some() => {
            let what = "needs the action SCMP_ACT_ERRNO or SCMP_ACT_TRACE";
            return Err(Error::invalid(at(), what));
        }
        _ => return Ok(action),
    };
    let errno = errno.unwrap_or(libc::EPERM as u64);
    if errno > max {
        return Err(Error::invalid(at(), format!("{errno} is above {max}")));
    }
    Ok(action | errno as u32)
}
