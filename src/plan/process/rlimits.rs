//! config.md#posix-process: rlimits

use crate::config::Rlimit;
use crate::error::{Error, Result};
use crate::plan::step::{Act, Step};

/// getrlimit(2)
const TYPES: [(&str, u32); 16] = [
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
];

/// RLIMIT_* by its name.
pub fn number(name: &str) -> Option<u32> {
    TYPES.iter().find(|t| t.0 == name).map(|t| t.1)
}

/// Act::Rlimit steps. `ours` has the runtime's own hard limits by number, unlimited where it may raise them.
pub fn plan(list: &[Rlimit], ours: &[u64; 16]) -> Result<Vec<Step>> {
    let mut seen = 0u32;
    list.iter().enumerate().map(|(n, r)| one(n, r, ours, &mut seen)).collect()
}

fn one(n: usize, r: &Rlimit, ours: &[u64; 16], seen: &mut u32) -> Result<Step> {
    let at = |property: &str| format!("process.rlimits[{n}].{property}");
    let kind = r.kind.as_deref().unwrap_or_default();
    let Some(resource) = number(kind) else {
        let known: Vec<_> = TYPES.iter().map(|t| t.0).collect();
        let what = format!("{kind:?} is no resource limit; known are {}", known.join(", "));
        return Err(Error::invalid(at("type"), what));
    };
    if *seen & 1 << resource != 0 {
        return Err(Error::invalid(at("type"), format!("{kind:?} is listed twice")));
    }
    *seen |= 1 << resource;
    let required =
        |property, value: Option<u64>| value.ok_or_else(|| Error::invalid(at(property), "is required"));
    let (soft, hard) = (required("soft", r.soft)?, required("hard", r.hard)?);
    if soft > hard {
        return Err(Error::invalid(at("soft"), format!("{soft} is above hard {hard}")));
    }
    let limit = ours[resource as usize];
    if hard > limit {
        let what = format!("{hard} is above our own hard limit of {limit} for {kind}");
        return Err(Error::unsupported(at("hard"), what).hint("raising it needs CAP_SYS_RESOURCE"));
    }
    Ok(Step::new(format!("process.rlimits[{n}] ({kind})"), Act::Rlimit { resource, soft, hard }))
}
