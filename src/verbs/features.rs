//! features: what this version understands, whatever this host has (features.md).

use crate::cli::SPEC;
use crate::criu;
use crate::error::Result;
use crate::plan::{UNSAFE_ANNOTATIONS, mounts, process, seccomp, spawn};
use serde_json::{Value, json};

/// Every version of the specification from this one on, up to [`SPEC`]; what is newer is properties that we do not
/// know.
const OLDEST: &str = "1.0.0";
const HOOKS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

pub fn run() -> Result<()> {
    super::print(&format!("{:#}\n", features()))
}

fn features() -> Value {
    let mut options: Vec<_> = mounts::options::known().collect();
    options.sort_unstable();
    json!({
        "ociVersionMin": OLDEST,
        "ociVersionMax": SPEC,
        "hooks": HOOKS,
        "mountOptions": options,
        "linux": linux(),
        "annotations": {
            "orlop.version": env!("CARGO_PKG_VERSION"),
            // runc's name, which engines know; ours tells of the host too, since criu may come later.
            "org.opencontainers.runc.checkpoint.enabled": criu::is_installed().to_string(),
        },
        "potentiallyUnsafeConfigAnnotations": UNSAFE_ANNOTATIONS,
    })
}

fn linux() -> Value {
    let mut namespaces = spawn::KINDS.map(|k| k.0);
    namespaces.sort_unstable();
    let mut capabilities: Vec<_> = caps::all().into_iter().collect();
    capabilities.sort_unstable_by_key(caps::Capability::index);
    let capabilities: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
    let supported = |flag: &&str| seccomp::flag(flag).is_some_and(crate::sys::seccomp::knows);
    let flags: Vec<_> = seccomp::known_flags().iter().copied().filter(supported).collect();
    let (modes, policy_flags) = process::memory_policies();
    json!({
        "namespaces": namespaces,
        "capabilities": capabilities,
        "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
        "seccomp": {
            "enabled": true,
            "actions": seccomp::known_actions(),
            "operators": seccomp::known_operators(),
            "archs": seccomp::known_arches(),
            "knownFlags": seccomp::known_flags(),
            "supportedFlags": flags,
        },
        "apparmor": { "enabled": true },
        "selinux": { "enabled": true },
        "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
        "memoryPolicy": { "modes": modes, "flags": policy_flags },
        "mountExtensions": { "idmap": { "enabled": true } },
        "netDevices": { "enabled": true },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_have_the_structure_of_the_specification() {
        let text = features().to_string();
        let typed: oci_spec::runtime::Features = serde_json::from_str(&text).unwrap();
        // What the typed structure has no word for would be lost on the way back.
        let back = serde_json::to_value(&typed).unwrap();
        for (path, value) in leaves("", &features()) {
            assert_eq!(back.pointer(&path), Some(&value), "{path}");
        }
        assert!(typed.mount_options().as_ref().unwrap().contains(&"rro".to_string()));
    }

    fn leaves(path: &str, v: &Value) -> Vec<(String, Value)> {
        match v {
            Value::Object(map) => map.iter().flat_map(|(k, v)| leaves(&format!("{path}/{k}"), v)).collect(),
            _ => vec![(path.to_string(), v.clone())],
        }
    }

    #[test]
    fn the_newest_version_is_the_one_that_spec_writes() {
        let example: Value = serde_json::from_str(include_str!("../../config.json.example")).unwrap();
        assert_eq!(example["ociVersion"], SPEC);
    }
}
