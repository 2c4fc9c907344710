//! features: each word that it lists is held against what `explain` makes of a document with it.

mod support;

use serde_json::{Value, json};
use std::process::Command;
use support::{Bundle, ORLOP, Outcome, finish};

fn features() -> Value {
    finish(Command::new(ORLOP).arg("features")).ok().json()
}

fn words(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|w| w.as_str().expect("a word")).collect()
}

fn explain(b: &Bundle) -> Outcome {
    b.write();
    finish(b.orlop(["explain"]).arg(b.path()))
}

#[test]
fn features_are_one_json_object_with_versions_and_all_hooks() {
    let f = features();
    assert_eq!((&f["ociVersionMin"], &f["ociVersionMax"]), (&json!("1.0.0"), &json!("1.3.0")));
    let hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    assert_eq!(f["hooks"], json!(hooks));
    for version in ["1.0.0", "1.3.0"] {
        explain(&Bundle::new().set("/ociVersion", json!(version))).ok();
    }
}

#[test]
fn every_mount_option_is_an_option_of_a_mount() {
    needs_root!();
    let f = features();
    let options = words(&f["mountOptions"]);
    for option in &options {
        let of_binds = ["idmap", "ridmap", "src-nofollow", "copy-symlink"].contains(option);
        let (kind, source) = match *option {
            "bind" | "rbind" | "remount" => ("none", "/"),
            _ if of_binds => ("none", "/"),
            _ => ("tmpfs", "tmpfs"),
        };
        let mut list = vec![*option];
        if of_binds {
            list.push("rbind");
        }
        let mut b = Bundle::new().mount("/tmp", kind, source, &list);
        if option.ends_with("idmap") {
            let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
            let last = b.config["mounts"].as_array().unwrap().len() - 1;
            b = b
                .set(&format!("/mounts/{last}/uidMappings"), map.clone())
                .set(&format!("/mounts/{last}/gidMappings"), map);
        }
        explain(&b).ok();
    }
    for option in ["ro", "rro", "nosymfollow", "rbind", "rslave", "idmap", "tmpcopyup"] {
        assert!(options.contains(&option), "{option}");
    }
}

#[test]
fn namespaces_and_capabilities_are_known_by_name() {
    let f = features();
    let namespaces = words(&f["linux"]["namespaces"]);
    assert_eq!(namespaces, ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]);
    let capabilities = words(&f["linux"]["capabilities"]);
    assert_eq!(capabilities.len(), 41);
    assert_eq!((capabilities[0], capabilities[40]), ("CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"));
    let out = explain(&Bundle::new().set("/process/capabilities/bounding", json!(capabilities))).ok();
    assert!(!out.stdout.contains("is unknown"), "{}", out.stdout);
}

#[test]
fn seccomps_words_are_understood() {
    let f = features();
    let s = &f["linux"]["seccomp"];
    assert_eq!(s["enabled"], true);
    let with = |action: &str, op: &str, flags: &Value| {
        let args = json!([{ "index": 0, "value": 1, "op": op }]);
        Bundle::new().set(
            "/linux/seccomp",
            json!({
                "defaultAction": "SCMP_ACT_ALLOW", "architectures": s["archs"], "flags": flags, "listenerPath": "/a",
                "syscalls": [
                    { "names": ["read"], "action": "SCMP_ACT_NOTIFY" },
                    { "names": ["close"], "action": action, "args": args },
                ],
            }),
        )
    };
    for action in words(&s["actions"]) {
        explain(&with(action, "SCMP_CMP_EQ", &s["knownFlags"])).ok();
    }
    for op in words(&s["operators"]) {
        explain(&with("SCMP_ACT_ERRNO", op, &s["supportedFlags"])).ok();
    }
    let known = words(&s["knownFlags"]);
    assert!(words(&s["supportedFlags"]).iter().all(|w| known.contains(w)));
    // This is of Linux 4.17, older than our oldest kernel.
    assert!(words(&s["supportedFlags"]).contains(&"SECCOMP_FILTER_FLAG_SPEC_ALLOW"));
}

#[test]
fn memory_policies_are_understood() {
    let f = features();
    for mode in words(&f["linux"]["memoryPolicy"]["modes"]) {
        let nodes = if ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode) { "" } else { "0" };
        let policy = json!({ "mode": mode, "nodes": nodes });
        explain(&Bundle::new().set("/linux/memoryPolicy", policy)).ok();
    }
    for flag in words(&f["linux"]["memoryPolicy"]["flags"]) {
        let policy = json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": [flag] });
        explain(&Bundle::new().set("/linux/memoryPolicy", policy)).ok();
    }
}

/// What is reported as missing is refused, and the other way round.
#[test]
fn what_features_deny_is_refused() {
    needs_root!();
    let f = features();
    let linux = &f["linux"];
    let out = explain(&Bundle::new().set("/linux/netDevices", json!({ "eth7": {} })));
    assert_eq!(out.status.success(), linux["netDevices"]["enabled"] == true, "{}", out.stderr);
    // A host may have none; what is asked of it is understood.
    assert_eq!((&linux["cgroup"]["systemd"], &linux["cgroup"]["systemdUser"]), (&json!(true), &json!(true)));
    let unsafe_ones = json!(["org.criu.config", "org.systemd.property.", "run.oci."]);
    assert_eq!(f["potentiallyUnsafeConfigAnnotations"], unsafe_ones);
    let rdt = &linux["intelRdt"];
    assert_eq!(
        (&rdt["enabled"], &rdt["schemata"], &rdt["monitoring"]),
        (&json!(true), &json!(true), &json!(true))
    );
    for lsm in ["apparmor", "selinux"] {
        assert_eq!(linux[lsm]["enabled"], true, "labels are planned and applied");
    }
}

/// As runc says it, and only where criu is: engines offer a checkpoint then.
#[test]
fn a_missing_criu_is_told() {
    let scratch = support::Scratch::new("path");
    let enabled = || {
        let f = finish(Command::new(ORLOP).arg("features").env("PATH", &scratch.path)).ok().json();
        f["annotations"]["org.opencontainers.runc.checkpoint.enabled"].clone()
    };
    assert_eq!(enabled(), "false");
    std::fs::write(scratch.path.join("criu"), "").unwrap();
    assert_eq!(enabled(), "true");
}

/// What of the annotations changes more than what engines show.
#[test]
fn annotations_that_we_act_on_are_listed() {
    let list = features()["potentiallyUnsafeConfigAnnotations"].clone();
    assert!(words(&list).contains(&"org.criu.config"), "{list}");
}
