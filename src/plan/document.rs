//! config.md: the rules of the document as a whole.

use super::{Draft, cstring};
use crate::config::{Config, Resources};
use crate::error::{Error, Result};
use std::borrow::Cow;

/// Version, root and annotations; sections for other platforms are no concern of ours.
pub fn check(d: &mut Draft) -> Result<()> {
    version(d.config.oci_version.as_deref().unwrap_or_default())?;
    let Some(root) = &d.config.root else { return Err(Error::invalid("root", "is required")) };
    match root.path.as_deref().unwrap_or_default() {
        "" => return Err(Error::invalid("root.path", "is required")),
        path => drop(cstring("root.path", path)?),
    }
    if d.config.annotations.as_ref().is_some_and(|a| a.contains_key("")) {
        return Err(Error::invalid("annotations", "has an empty key"));
    }
    if d.config.vm.is_some() {
        d.warn("vm", "is for runtimes of virtual machines, not applied");
    }
    Ok(())
}

/// config.md#specification-version. Of version 1 every minor: what is newer than us is unknown properties, which are
/// ignored.
fn version(text: &str) -> Result<()> {
    let at = "ociVersion";
    if text.is_empty() {
        return Err(Error::invalid(at, "is required"));
    }
    match major(text) {
        None => Err(Error::invalid(at, format!("{text:?} is no version like 1.3.0 (semver 2.0.0)"))),
        Some("1") => Ok(()),
        Some(_) => Err(Error::unsupported(at, format!("{text:?} is not of major version 1"))),
    }
}

/// `linux.resources` as the version of the document means it: before 1.3.0 a pids.limit of 0 was none, and podman
/// writes it for `--pids-limit -1`.
pub fn resources(config: &Config) -> Option<Cow<'_, Resources>> {
    let r = config.linux.as_ref()?.resources.as_ref()?;
    let minor = config.oci_version.as_deref().and_then(|v| v.split('.').nth(1)?.parse::<u32>().ok());
    let is_none = minor.is_some_and(|m| m < 3) && r.pids.as_ref().is_some_and(|p| p.limit == Some(0));
    Some(if is_none { Cow::Owned(Resources { pids: None, ..r.clone() }) } else { Cow::Borrowed(r) })
}

/// The major version of what is a version by SemVer 2.0.0.
fn major(text: &str) -> Option<&str> {
    let (text, build) = text.split_once('+').map_or((text, None), |(t, b)| (t, Some(b)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(t, p)| (t, Some(p)));
    let number = |s: &str| {
        !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) && (s.len() == 1 || !s.starts_with('0'))
    };
    let word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let numeric = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let good = core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|p| p.split('.').all(|s| word(s) && (!numeric(s) || number(s))))
        && build.is_none_or(|b| b.split('.').all(word));
    core.split('.').next().filter(|_| good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::sample;
    use serde_json::json;

    #[test]
    fn no_processes_at_all_is_a_limit_since_1_3_0() {
        let limits = json!({ "pids": { "limit": 0 }, "cpu": { "shares": 5 } });
        for (version, limit) in
            [("1.0.2-dev", None), ("1.2.1", None), ("1.3.0", Some(0)), ("1.10.0", Some(0))]
        {
            let s = sample().set("/ociVersion", json!(version)).set("/linux/resources", limits.clone());
            s.run(|d| {
                let r = resources(d.config).unwrap();
                assert_eq!(r.pids.as_ref().and_then(|p| p.limit), limit, "{version}");
                assert_eq!(r.cpu.as_ref().and_then(|c| c.shares), Some(5));
            });
        }
    }

    #[test]
    fn every_minor_of_version_1_is_taken() {
        for v in
            ["1.0.0", "1.3.0", "1.0.2-dev", "1.0.0-rc5-dev", "1.99.0", "1.2.0+build.01", "1.0.0-rc.1+b-2"]
        {
            sample().set("/ociVersion", json!(v)).run(check).unwrap();
        }
    }

    #[test]
    fn broken_documents_name_property_and_rule() {
        let semver = |v: &str| format!("ociVersion: {v:?} is no version like 1.3.0 (semver 2.0.0)");
        for v in [
            "1", "1.0", "v1.0.0", "1.0.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0+", "1.0.x", "1.-1.0",
            " 1.0.0",
        ] {
            assert_eq!(sample().set("/ociVersion", json!(v)).error(check), semver(v));
        }
        for (pointer, value, message) in [
            ("/ociVersion", json!(null), "ociVersion: is required"),
            ("/ociVersion", json!(""), "ociVersion: is required"),
            ("/ociVersion", json!("2.0.0"), "ociVersion: \"2.0.0\" is not of major version 1"),
            ("/ociVersion", json!("0.6.0"), "ociVersion: \"0.6.0\" is not of major version 1"),
            ("/root", json!(null), "root: is required"),
            ("/root", json!({}), "root.path: is required"),
            ("/root/path", json!(""), "root.path: is required"),
            ("/root/path", json!("a\0b"), "root.path: \"a\\0b\" has a NUL byte"),
            ("/annotations", json!({ "": "x" }), "annotations: has an empty key"),
        ] {
            assert_eq!(sample().set(pointer, value).error(check), message);
        }
    }

    #[test]
    fn a_vm_section_is_warned_of_and_other_platforms_are_not() {
        let warnings = |key: &str| {
            let s = sample().set(key, json!({ "hypervisor": { "path": "/qemu" } }));
            s.run(|d| check(d).map(|()| d.warnings.clone())).unwrap()
        };
        assert_eq!(warnings("/vm"), ["vm: is for runtimes of virtual machines, not applied"]);
        for platform in ["/windows", "/solaris", "/zos", "/freebsd"] {
            assert!(warnings(platform).is_empty());
        }
    }
}
