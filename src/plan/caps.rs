//! config.md#linux-process: capabilities. Names to bits, and what the kernel would refuse taken out beforehand, so
//! that capset(2) does not fail as a whole for one bit.

use super::Draft;
use super::step::CapSets;
use crate::error::Result;
use std::collections::BTreeSet;

/// Reads `process.capabilities`; absent means none at all. What is unknown or cannot be given is left out with a
/// warning (the specification's SHOULD), from every set.
pub fn plan(d: &mut Draft) -> Result<CapSets> {
    let caps = d.config.process.as_ref().and_then(|p| p.capabilities.clone()).unwrap_or_default();
    let mut warned = BTreeSet::new();
    let mut set = |d: &mut Draft, name: &str, list: Option<Vec<String>>| {
        mask(d, name, &list.unwrap_or_default(), &mut warned)
    };
    let bounding = set(d, "bounding", caps.bounding);
    let permitted = set(d, "permitted", caps.permitted);
    let emptied = caps.inheritable.as_ref().is_none_or(Vec::is_empty);
    let inheritable = set(d, "inheritable", caps.inheritable);
    let effective = set(d, "effective", caps.effective);
    let ambient = set(d, "ambient", caps.ambient);
    // capset(2): effective within permitted, and nothing new inheritable beyond the bounding set, which is dropped
    // before. Ambient within both (capabilities(7)).
    let effective = within(d, "effective", effective, &[("permitted", permitted)]);
    let inheritable = within(d, "inheritable", inheritable, &[("bounding", bounding)]);
    // Engines that emptied the inheritable set (CVE-2022-24769) still write an ambient one: worth no word at each run.
    let ambient = if emptied { 0 } else { ambient };
    let ambient = within(d, "ambient", ambient, &[("permitted", permitted), ("inheritable", inheritable)]);
    Ok(CapSets { bounding, effective, permitted, inheritable, ambient })
}

/// CAP_SYS_ADMIN
pub const SYS_ADMIN: u32 = 21;

/// The number of a capability by name: any case, with or without `CAP_`, even several, as the field accepts it.
pub fn number(name: &str) -> Option<u8> {
    let mut rest = name.to_ascii_uppercase();
    while let Some(r) = rest.strip_prefix("CAP_") {
        rest = r.to_string();
    }
    format!("CAP_{rest}").parse::<caps::Capability>().ok().map(|c| c.index())
}

/// `CAP_CHOWN` for 0; a number that this version has no name for stays a number.
pub fn name(number: u8) -> String {
    caps::all().into_iter().find(|c| c.index() == number).map_or(number.to_string(), |c| c.to_string())
}

/// The names of the bits, for messages and the plan in words.
pub fn names(mask: u64) -> String {
    let names: Vec<_> = (0..64).filter(|n| mask >> n & 1 == 1).map(name).collect();
    names.join(", ")
}

fn mask(d: &mut Draft, set: &str, list: &[String], warned: &mut BTreeSet<String>) -> u64 {
    let mut mask = 0;
    for (n, name) in list.iter().enumerate() {
        let at = format!("process.capabilities.{set}[{n}]");
        // A user namespace gives its first process every capability that the kernel has.
        let why = match number(name) {
            None => "is unknown",
            Some(c) if u32::from(c) > d.host.last_cap => "is newer than this kernel",
            Some(c) if !d.in_user_namespace() && d.host.bounding >> c & 1 == 0 => {
                "is not in the runtime's own bounding set"
            }
            Some(c) => {
                mask |= 1 << c;
                continue;
            }
        };
        if warned.insert(name.clone()) {
            d.warn(&at, format!("{name:?} {why}, left out"));
        }
    }
    mask
}

fn within(d: &mut Draft, set: &str, mask: u64, others: &[(&str, u64)]) -> u64 {
    let mut kept = mask;
    for (other, limit) in others {
        let extra = kept & !limit;
        if extra != 0 {
            d.warn(&format!("process.capabilities.{set}"), format!("{} not {other}, left out", names(extra)));
            kept &= limit;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{Sample, sample};
    use serde_json::{Value, json};

    const CHOWN: u64 = 1;
    const KILL: u64 = 1 << 5;
    const SYS_RESOURCE: u64 = 1 << 24;

    fn run(s: Sample, caps: Value) -> (CapSets, Vec<String>) {
        s.set("/process/capabilities", caps).run(|d| (plan(d).unwrap(), std::mem::take(&mut d.warnings)))
    }

    fn all(names: &[&str]) -> Value {
        json!({ "bounding": names, "effective": names, "permitted": names, "inheritable": names, "ambient": names })
    }

    #[test]
    fn an_ambient_set_beside_an_empty_inheritable_one_is_none() {
        let caps = json!({ "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "ambient": ["CAP_KILL"] });
        let (sets, warnings) = run(sample(), caps);
        assert_eq!((sets.ambient, warnings), (0, vec![]));
    }

    #[test]
    fn absent_and_empty_mean_none() {
        for caps in [json!(null), json!({}), json!({ "bounding": [] })] {
            assert_eq!(run(sample(), caps), (CapSets::default(), vec![]));
        }
    }

    #[test]
    fn names_in_every_spelling() {
        for name in ["CAP_KILL", "KILL", "cap_kill", "kill", "CAP_CAP_KILL", "cap_CAP_Kill"] {
            assert_eq!(number(name), Some(5), "{name}");
        }
        for name in ["", "CAP_", "CAP_NOPE", "CAP_ALL", "5"] {
            assert_eq!(number(name), None, "{name}");
        }
    }

    #[test]
    fn every_name_of_the_kernel_has_its_number() {
        for (name, n) in [("CAP_CHOWN", 0), ("CAP_SYS_ADMIN", 21), ("CAP_CHECKPOINT_RESTORE", 40)] {
            assert_eq!(number(name), Some(n));
            assert_eq!(super::name(n), name);
        }
        assert_eq!(caps::all().len(), 41);
    }

    #[test]
    fn unknown_names_warn_once_and_the_rest_stays() {
        let (sets, warnings) = run(sample(), all(&["CAP_CHOWN", "CAP_MOON"]));
        assert_eq!(sets.bounding, CHOWN);
        assert_eq!(sets.ambient, CHOWN);
        assert_eq!(warnings, ["process.capabilities.bounding[1]: \"CAP_MOON\" is unknown, left out"]);
    }

    #[test]
    fn what_the_host_lacks_is_left_out_of_every_set() {
        let lacking = || sample().host(|h| h.bounding &= !SYS_RESOURCE);
        let (sets, warnings) = run(lacking(), all(&["CAP_SYS_RESOURCE", "CAP_CHOWN"]));
        let want = CapSets { bounding: 1, effective: 1, permitted: 1, inheritable: 1, ambient: 1 };
        assert_eq!(sets, want);
        assert_eq!(
            warnings,
            [
                "process.capabilities.bounding[0]: \"CAP_SYS_RESOURCE\" is not in the runtime's own bounding set, left out"
            ]
        );
        let (sets, warnings) = run(lacking().user_namespace(), all(&["CAP_SYS_RESOURCE"]));
        assert_eq!((sets.effective, warnings.len()), (SYS_RESOURCE, 0));
    }

    #[test]
    fn what_is_newer_than_the_kernel_is_left_out() {
        let (sets, warnings) = run(sample().host(|h| h.last_cap = 39), all(&["CAP_CHECKPOINT_RESTORE"]));
        assert_eq!(sets, CapSets::default());
        assert!(warnings[0].ends_with("\"CAP_CHECKPOINT_RESTORE\" is newer than this kernel, left out"));
    }

    #[test]
    fn sets_that_the_kernel_would_refuse_are_cut() {
        let caps = json!({
            "bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN", "CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_CHOWN", "CAP_KILL"],
        });
        let (sets, warnings) = run(sample(), caps);
        let want = CapSets { bounding: CHOWN, effective: CHOWN, permitted: CHOWN, ..CapSets::default() };
        assert_eq!(sets, want);
        assert_eq!(
            warnings,
            [
                "process.capabilities.effective: CAP_KILL not permitted, left out",
                "process.capabilities.inheritable: CAP_KILL not bounding, left out",
                "process.capabilities.ambient: CAP_KILL not permitted, left out",
                "process.capabilities.ambient: CAP_CHOWN not inheritable, left out",
            ]
        );
    }

    #[test]
    fn permitted_may_exceed_the_bounding_set() {
        let (sets, warnings) = run(sample(), json!({ "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"] }));
        assert_eq!((sets.permitted, sets.bounding, warnings.len()), (KILL, 0, 0));
    }
}
