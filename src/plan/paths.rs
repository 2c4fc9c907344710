//! config-linux.md#masked-paths, #readonly-paths and #rootfs-mount-propagation.

use super::spawn::NEWNS;
use super::step::{Act, Step};
use super::{Draft, cstring, mounts};
use crate::error::{Error, Result};
use std::ffi::CString;

/// What is covered, and how the root relates to the host.
#[derive(Debug, Default)]
pub struct Paths {
    pub readonly: Vec<Step>,
    pub masked: Vec<Step>,
    /// Of the root, once it is the root: MS_* flag, with all that is below it or not.
    pub propagation: Option<(u64, bool)>,
    /// Of our copy of the host's mounts, before anything is mounted.
    pub isolate: u64,
}

/// Reads the three sections, and checks what else needs a mount namespace of its own.
pub fn plan(d: &mut Draft) -> Result<Paths> {
    let linux = d.config.linux.as_ref();
    let list = |l: &Option<Vec<String>>| l.clone().unwrap_or_default();
    let readonly = linux.map(|l| list(&l.readonly_paths)).unwrap_or_default();
    let masked = linux.map(|l| list(&l.masked_paths)).unwrap_or_default();
    let name = linux.and_then(|l| l.rootfs_propagation.clone()).unwrap_or_default();
    let read_only_root = d.config.root.as_ref().and_then(|r| r.readonly).unwrap_or(false);
    if !d.ns.is_own(NEWNS) {
        for (at, is_set) in [
            ("linux.maskedPaths", !masked.is_empty()),
            ("linux.readonlyPaths", !readonly.is_empty()),
            ("linux.rootfsPropagation", !name.is_empty()),
            ("root.readonly", read_only_root),
            ("overlay.json", d.request.overlay.is_some()),
        ] {
            if is_set {
                let rule = "needs a mount namespace in linux.namespaces: it would change the host's mounts";
                return Err(Error::invalid(at, rule));
            }
        }
    }
    let propagation = propagation(d, &name)?;
    // Never shared, whatever the root will be: what we mount on our copy must not appear on the host.
    let isolate = match propagation.map(|p| p.0) {
        Some(libc::MS_PRIVATE | libc::MS_UNBINDABLE) => libc::MS_PRIVATE,
        _ => libc::MS_SLAVE,
    };
    Ok(Paths {
        readonly: steps("linux.readonlyPaths", &readonly, Act::ReadonlyPath)?,
        masked: steps("linux.maskedPaths", &masked, Act::MaskPath)?,
        propagation,
        isolate,
    })
}

fn propagation(d: &mut Draft, name: &str) -> Result<Option<(u64, bool)>> {
    let at = "linux.rootfsPropagation";
    if d.request.no_pivot && d.ns.is_own(NEWNS) {
        d.warn("--no-pivot", "a process with CAP_SYS_ADMIN inside can reach the host's files");
    }
    if name.is_empty() {
        return Ok(None);
    }
    let Some((flag, recursive)) = mounts::propagation(name) else {
        return Err(Error::invalid(
            at,
            format!("{name:?} is no propagation; known are shared, slave, private, unbindable"),
        ));
    };
    if d.request.no_pivot && flag == libc::MS_PRIVATE {
        return Err(Error::invalid(at, format!("{name:?} is not safe with --no-pivot")));
    }
    Ok(Some((flag, recursive)))
}

fn steps(at: &str, list: &[String], act: fn(CString) -> Act) -> Result<Vec<Step>> {
    let one = |(n, path): (usize, &String)| {
        let at = format!("{at}[{n}]");
        if !path.starts_with('/') {
            return Err(Error::invalid(at, format!("{path:?} is not absolute")));
        }
        let path = cstring(&at, path)?;
        Ok(Step::new(at, act(path)))
    };
    list.iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::sample;
    use serde_json::json;

    #[test]
    fn paths_are_absolute_and_keep_their_order() {
        let s = sample()
            .set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware"]))
            .set("/linux/readonlyPaths", json!(["/proc/sys"]));
        let p = s.run(plan).unwrap();
        let acts: Vec<_> = p.masked.iter().map(|s| (s.at.as_str(), &s.act)).collect();
        assert_eq!(
            acts,
            [
                ("linux.maskedPaths[0]", &Act::MaskPath(c"/proc/keys".into())),
                ("linux.maskedPaths[1]", &Act::MaskPath(c"/sys/firmware".into())),
            ]
        );
        assert_eq!(p.readonly[0].act, Act::ReadonlyPath(c"/proc/sys".into()));
        for (key, path, message) in [
            ("maskedPaths", "keys", "linux.maskedPaths[0]: \"keys\" is not absolute"),
            ("readonlyPaths", "", "linux.readonlyPaths[0]: \"\" is not absolute"),
            ("maskedPaths", "/a\0", "linux.maskedPaths[0]: \"/a\\0\" has a NUL byte"),
        ] {
            assert_eq!(sample().set(&format!("/linux/{key}"), json!([path])).error(plan), message);
        }
    }

    #[test]
    fn the_roots_propagation_is_a_known_word_and_our_copy_never_shared() {
        for (name, want, isolate) in [
            ("", None, libc::MS_SLAVE),
            ("shared", Some((libc::MS_SHARED, false)), libc::MS_SLAVE),
            ("rshared", Some((libc::MS_SHARED, true)), libc::MS_SLAVE),
            ("slave", Some((libc::MS_SLAVE, false)), libc::MS_SLAVE),
            ("rslave", Some((libc::MS_SLAVE, true)), libc::MS_SLAVE),
            ("private", Some((libc::MS_PRIVATE, false)), libc::MS_PRIVATE),
            ("rprivate", Some((libc::MS_PRIVATE, true)), libc::MS_PRIVATE),
            ("unbindable", Some((libc::MS_UNBINDABLE, false)), libc::MS_PRIVATE),
            ("runbindable", Some((libc::MS_UNBINDABLE, true)), libc::MS_PRIVATE),
        ] {
            let p = sample().set("/linux/rootfsPropagation", json!(name)).run(plan).unwrap();
            assert_eq!((p.propagation, p.isolate), (want, isolate), "{name}");
        }
        for name in ["ro", "SHARED", "rbind"] {
            assert_eq!(
                sample().set("/linux/rootfsPropagation", json!(name)).error(plan),
                format!(
                    "linux.rootfsPropagation: {name:?} is no propagation; known are shared, slave, private, unbindable"
                )
            );
        }
    }

    #[test]
    fn no_pivot_warns_and_refuses_private() {
        let s = sample().request(|r| r.no_pivot = true);
        let warnings = s.run(|d| plan(d).map(|_| d.warnings.clone())).unwrap();
        assert_eq!(warnings, ["--no-pivot: a process with CAP_SYS_ADMIN inside can reach the host's files"]);
        let s = s.set("/linux/rootfsPropagation", json!("rprivate"));
        assert_eq!(s.error(plan), "linux.rootfsPropagation: \"rprivate\" is not safe with --no-pivot");
    }

    #[test]
    fn without_a_mount_namespace_nothing_may_be_covered() {
        let s = || sample().without("mount");
        assert!(s().run(plan).is_ok());
        for (pointer, value) in [
            ("/linux/maskedPaths", json!(["/a"])),
            ("/linux/readonlyPaths", json!(["/a"])),
            ("/linux/rootfsPropagation", json!("rslave")),
            ("/root/readonly", json!(true)),
        ] {
            let at = pointer[1..].replace('/', ".");
            assert_eq!(
                s().set(pointer, value).error(plan),
                format!(
                    "{at}: needs a mount namespace in linux.namespaces: it would change the host's mounts"
                )
            );
        }
        assert!(
            s().request(|r| r.overlay = Some(Default::default()))
                .error(plan)
                .starts_with("overlay.json: needs")
        );
    }
}
