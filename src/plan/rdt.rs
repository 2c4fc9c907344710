//! config-linux.md#intelrdt: the group of the resctrl file system whose share of cache and memory bandwidth a
//! container has.

use super::Draft;
use crate::error::{Error, Result};

const AT: &str = "linux.intelRdt";
/// Names that the file system has itself in each of its groups, or at its root.
const RESERVED: [&str; 3] = ["info", "mon_groups", "mon_data"];

/// What the host has of resctrl; asked only when the document needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resctrl {
    /// Not in this kernel, or not of this CPU: /proc/filesystems does not list it.
    #[default]
    Unknown,
    NotMounted,
    /// Its mount point.
    At(String),
}

/// The group, and what is written into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rdt {
    /// Absolute path of the file system.
    pub mount: String,
    /// Name of the group below the mount; empty is the default group.
    pub group: String,
    /// The document has named it: others may use it too, and it stays.
    pub named: bool,
    /// Lines for `schemata`, in order.
    pub schemata: Vec<Line>,
    /// Name of the group in `mon_groups` that counts for this container alone.
    pub monitor: Option<String>,
}

/// One line of `schemata`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub at: String,
    /// Without its newline: `L3:0=7f0;1=1f`.
    pub value: String,
    /// A group that is there already must have this, whoever made it.
    pub must_match: bool,
}

impl Rdt {
    /// In words, in the order in which it is done.
    pub fn lines(&self) -> Vec<String> {
        let path = self.path();
        let at = if self.named { "linux.intelRdt.closID" } else { AT };
        let verb = if self.must_exist() { "use" } else { "make" };
        let mut lines = vec![format!("{at}: {verb} {path}")];
        lines.extend(self.schemata.iter().map(|l| format!("  {}: write {:?} to schemata", l.at, l.value)));
        let monitor = self.monitor.iter();
        lines.extend(monitor.map(|m| format!("  {AT}.enableMonitoring: make {path}/mon_groups/{m}")));
        lines
    }

    /// Absolute path of the group.
    pub fn path(&self) -> String {
        if self.group.is_empty() { self.mount.clone() } else { format!("{}/{}", self.mount, self.group) }
    }

    /// A group that was named, and given nothing, is one that somebody else has set up.
    pub fn must_exist(&self) -> bool {
        self.group.is_empty() || self.named && self.schemata.is_empty()
    }
}

/// Checks `linux.intelRdt`; an object without properties is one too.
pub fn plan(d: &mut Draft) -> Result<Option<Rdt>> {
    let Some(r) = d.config.linux.as_ref().and_then(|l| l.intel_rdt.as_ref()) else { return Ok(None) };
    let name = r.clos_id.as_deref().unwrap_or_default();
    let group = match name {
        "" => d.request.id.as_str(),
        "/" => "",
        name => name,
    };
    let at = format!("{AT}.closID");
    if group == "." || group == ".." || group.contains(['/', '\n', '\0']) || group.len() > 255 {
        return Err(Error::invalid(at, format!("{name:?} is no name of a directory")));
    }
    if RESERVED.contains(&group) {
        return Err(Error::invalid(at, format!("{group:?} is a name that resctrl has itself")));
    }
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let mut schemata = Vec::new();
    schemata.extend(l3(&format!("{AT}.l3CacheSchema"), &text(&r.l3_cache_schema))?);
    schemata.extend(mb(&format!("{AT}.memBwSchema"), &text(&r.mem_bw_schema))?);
    for (n, value) in r.schemata.iter().flatten().enumerate() {
        schemata.push(line(format!("{AT}.schemata[{n}]"), value, &[], false)?);
    }
    for (name, set) in [("enableCMT", r.enable_cmt), ("enableMBM", r.enable_mbm)] {
        if set == Some(true) {
            d.warn(&format!("{AT}.{name}"), "not applied, enableMonitoring took its place in version 1.3.0");
        }
    }
    let mount = match &d.host.resctrl {
        Resctrl::At(mount) => mount.clone(),
        Resctrl::NotMounted => {
            let error = Error::unsupported(AT, "the resctrl file system is not mounted");
            return Err(error.hint("mount -t resctrl resctrl /sys/fs/resctrl"));
        }
        Resctrl::Unknown => {
            let what = "needs the file system resctrl, which this kernel does not have (/proc/filesystems)";
            return Err(Error::unsupported(AT, what).hint(
                "it comes with a CPU that can allocate cache or memory bandwidth, and CONFIG_X86_CPU_RESCTRL",
            ));
        }
    };
    let monitor = r.enable_monitoring.unwrap_or(false).then(|| d.request.id.clone());
    Ok(Some(Rdt { mount, group: group.into(), named: !name.is_empty(), schemata, monitor }))
}

/// The cache's line, with separate halves for code and data where the kernel was told to have these; empty is none.
pub fn l3(at: &str, value: &str) -> Result<Option<Line>> {
    optional(at, value, &["L3:", "L3CODE:", "L3DATA:"])
}

/// The line of the memory bandwidth; empty is none.
pub fn mb(at: &str, value: &str) -> Result<Option<Line>> {
    optional(at, value, &["MB:"])
}

fn optional(at: &str, value: &str, prefixes: &[&str]) -> Result<Option<Line>> {
    if value.is_empty() { Ok(None) } else { line(at.to_string(), value, prefixes, true).map(Some) }
}

fn line(at: String, value: &str, prefixes: &[&str], must_match: bool) -> Result<Line> {
    if value.contains(['\n', '\0']) {
        return Err(Error::invalid(at, format!("{value:?} is more than one line")));
    }
    if !prefixes.is_empty() && !prefixes.iter().any(|p| value.starts_with(p)) {
        return Err(Error::invalid(at, format!("{value:?} does not begin with {:?}", prefixes[0])));
    }
    if value.split_once(':').is_none_or(|(name, _)| name.trim().is_empty()) {
        return Err(Error::invalid(at, format!("{value:?} is no line like \"L3:0=ff;1=ff\"")));
    }
    Ok(Line { at, value: value.to_string(), must_match })
}

/// Whether a line that is in force, as the kernel prints it, gives each domain that `asked` names what that asks.
/// Bandwidth is rounded up to its `granularity`.
pub fn matches(asked: &str, in_force: &str, granularity: u64) -> bool {
    let (Some((name, asked)), Some((theirs, in_force))) = (asked.split_once(':'), in_force.split_once(':'))
    else {
        return false;
    };
    if name.trim() != theirs.trim() {
        return false;
    }
    let is_bandwidth = name.trim() == "MB";
    let value = |v: &str| u64::from_str_radix(v.trim(), if is_bandwidth { 10 } else { 16 }).ok();
    let domain = |part: &str| {
        let (id, v) = part.split_once('=')?;
        Some((id.trim().parse::<u64>().ok()?, value(v)?))
    };
    let there: Vec<_> = in_force.split(';').filter_map(domain).collect();
    asked.split(';').all(|part| {
        let Some((id, v)) = domain(part) else { return false };
        let rounded = if is_bandwidth && granularity > 0 { v.div_ceil(granularity) * granularity } else { v };
        there.contains(&(id, v)) || there.contains(&(id, rounded))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{Sample, sample};
    use serde_json::{Value, json};

    fn with(rdt: Value) -> Sample {
        sample().set("/linux/intelRdt", rdt).host(|h| h.resctrl = Resctrl::At("/r".into()))
    }

    #[test]
    fn each_form_of_the_document_has_its_group_and_lines() {
        let id = "linux.intelRdt: make /r/web";
        for (rdt, lines) in [
            (json!({}), vec![id]),
            (json!({ "closID": "" }), vec![id]),
            (json!({ "closID": "gold" }), vec!["linux.intelRdt.closID: use /r/gold"]),
            (json!({ "closID": "/" }), vec!["linux.intelRdt.closID: use /r"]),
            (
                json!({ "closID": "/", "memBwSchema": "MB:0=20" }),
                vec![
                    "linux.intelRdt.closID: use /r",
                    "  linux.intelRdt.memBwSchema: write \"MB:0=20\" to schemata",
                ],
            ),
            (
                json!({
                    "closID": "gold", "schemata": ["L2:0=f", "MB:0=30"], "memBwSchema": "MB:0=20;1=70",
                    "l3CacheSchema": "L3:0=7f0;1=1f", "enableMonitoring": true,
                }),
                vec![
                    "linux.intelRdt.closID: make /r/gold",
                    "  linux.intelRdt.l3CacheSchema: write \"L3:0=7f0;1=1f\" to schemata",
                    "  linux.intelRdt.memBwSchema: write \"MB:0=20;1=70\" to schemata",
                    "  linux.intelRdt.schemata[0]: write \"L2:0=f\" to schemata",
                    "  linux.intelRdt.schemata[1]: write \"MB:0=30\" to schemata",
                    "  linux.intelRdt.enableMonitoring: make /r/gold/mon_groups/web",
                ],
            ),
            (
                json!({ "enableMonitoring": true }),
                vec![id, "  linux.intelRdt.enableMonitoring: make /r/web/mon_groups/web"],
            ),
        ] {
            let planned = with(rdt.clone()).run(plan).unwrap().unwrap();
            assert_eq!(planned.lines(), lines, "{rdt}");
        }
        assert_eq!(sample().run(plan), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (rdt, message) in [
            (json!({ "closID": ".." }), ".closID: \"..\" is no name of a directory"),
            (json!({ "closID": "." }), ".closID: \".\" is no name of a directory"),
            (json!({ "closID": "a/b" }), ".closID: \"a/b\" is no name of a directory"),
            (json!({ "closID": "//" }), ".closID: \"//\" is no name of a directory"),
            (json!({ "closID": "a\n" }), ".closID: \"a\\n\" is no name of a directory"),
            (json!({ "closID": "info" }), ".closID: \"info\" is a name that resctrl has itself"),
            (json!({ "l3CacheSchema": "MB:0=1" }), ".l3CacheSchema: \"MB:0=1\" does not begin with \"L3:\""),
            (
                json!({ "l3CacheSchema": "L3:0=1\nMB:0=9" }),
                ".l3CacheSchema: \"L3:0=1\\nMB:0=9\" is more than one line",
            ),
            (json!({ "memBwSchema": "L3:0=1" }), ".memBwSchema: \"L3:0=1\" does not begin with \"MB:\""),
            (json!({ "memBwSchema": "MB:0=1\n" }), ".memBwSchema: \"MB:0=1\\n\" is more than one line"),
            (json!({ "schemata": ["L3:0=1", "x"] }), ".schemata[1]: \"x\" is no line like \"L3:0=ff;1=ff\""),
            (
                json!({ "schemata": ["L2:0=1\nL3:0=1"] }),
                ".schemata[0]: \"L2:0=1\\nL3:0=1\" is more than one line",
            ),
        ] {
            assert_eq!(with(rdt).error(plan), format!("linux.intelRdt{message}"));
        }
        let without = |host: Resctrl| {
            sample().set("/linux/intelRdt", json!({ "closID": "a" })).host(|h| h.resctrl = host).error(plan)
        };
        assert_eq!(
            without(Resctrl::NotMounted),
            "linux.intelRdt: the resctrl file system is not mounted; mount -t resctrl resctrl /sys/fs/resctrl"
        );
        let unknown = without(Resctrl::Unknown);
        assert!(
            unknown.starts_with("linux.intelRdt: needs the file system resctrl, which this kernel"),
            "{unknown}"
        );
        // What is wrong is wrong everywhere.
        let wrong = sample().set("/linux/intelRdt", json!({ "closID": ".." })).error(plan);
        assert!(wrong.starts_with("linux.intelRdt.closID: "), "{wrong}");
    }

    #[test]
    fn what_1_3_0_replaced_is_warned_of() {
        let warnings = with(json!({ "enableCMT": true, "enableMBM": false })).run(|d| {
            plan(d).unwrap();
            d.warnings.clone()
        });
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("linux.intelRdt.enableCMT: not applied"), "{warnings:?}");
    }

    #[test]
    fn lines_are_compared_by_what_they_mean() {
        for (asked, in_force, same) in [
            ("L3:0=7f0;1=1f", "    L3:0=7f0;1=01f", true),
            ("L3:0=07F0", "L3:0=7f0;1=fff", true), // the other domain is as it was
            ("L3:1=1f;0=7f0", "L3:0=7f0;1=1f", true),
            ("L3:0=7f0", "L3:0=7ff", false),
            ("L3:2=7f0", "L3:0=7f0", false),
            ("L3:0=7f0", "L2:0=7f0", false),
            ("L3:0", "L3:0=7f0", false),
            ("L3:0=zz", "L3:0=7f0", false),
            ("MB:0=20;1=70", "    MB:0= 20;1= 70", true),
            ("MB:0=25", "MB:0= 30", true),
            ("MB:0=30", "MB:0= 20", false),
        ] {
            assert_eq!(matches(asked, in_force, 10), same, "{asked} in {in_force}");
        }
        assert!(matches("MB:0=2500", "MB:0=2500", 0));
    }
}
