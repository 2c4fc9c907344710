//! What engines and scripts read of a runtime: the records of its log, its exit codes, and the documents that it prints,
//! beside those of Debian's runc.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use support::{Bundle, ORLOP, Outcome, Scratch, finish, until};

/// A container of a runtime, and a log for each call.
struct Subject {
    bundle: Bundle,
    program: &'static str,
    root: PathBuf,
    id: String,
}

impl Subject {
    /// Debian's runc knows no newer version than this.
    fn both() -> Vec<Self> {
        let subject = |program, state: &str, suffix| {
            let bundle = Bundle::sleeping().set("/ociVersion", json!("1.0.2"));
            bundle.write();
            let (root, id) = (bundle.path().join(state), format!("{}{suffix}", bundle.id));
            Self { bundle, program, root, id }
        };
        let mut both = vec![subject(ORLOP, "state", "")];
        if support::has_program("runc") {
            both.push(subject("runc", "runc-state", "-runc"));
        }
        both
    }

    fn call(&self, args: &[&str]) -> (Outcome, Option<Value>) {
        let log = self.bundle.path().join("log.json");
        let _ = fs::remove_file(&log);
        let mut c = Command::new(self.program);
        c.arg("--root").arg(&self.root).arg("--log").arg(&log).args(["--log-format", "json"]);
        let args = args.iter().map(|a| a.replace("BUNDLE", self.bundle.path().to_str().expect("UTF-8")));
        let out = finish(c.args(args.map(|a| a.replace("CTR", &self.id))).stdin(Stdio::null()));
        let text = fs::read_to_string(&log).unwrap_or_default();
        let records = text.lines().map(|l| serde_json::from_str(l).expect("a record is JSON"));
        let records: Vec<Value> = records.collect();
        // The shim takes the last one of this level.
        let last = records.into_iter().rfind(|r| r["level"] == "error");
        (out, last)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.call(args).0.ok().stdout
    }

    fn status(&self) -> String {
        let out = self.ok(&["state", "CTR"]);
        serde_json::from_str::<Value>(&out).expect("JSON")["status"].as_str().expect("a status").into()
    }

    /// Brings it from one status to the next.
    fn reach(&self, status: &str) {
        let steps: &[&[&str]] = match status {
            "created" => &[&["create", "--bundle", "BUNDLE", "CTR"]],
            "running" => &[&["start", "CTR"]],
            "paused" => &[&["pause", "CTR"]],
            "stopped" => &[&["resume", "CTR"], &["kill", "CTR", "KILL"]],
            _ => &[],
        };
        steps.iter().for_each(|s| drop(self.ok(s)));
        if !steps.is_empty() {
            until(status, || self.status() == status);
        }
    }

    /// A call that fails with these words, where the shim looks for them.
    #[track_caller]
    fn fails(&self, args: &[&str], words: &str) {
        let (out, record) = self.call(args);
        let what = format!("{} {args:?}: {out:?}", self.program);
        assert_eq!(out.code(), if args[0] == "exec" { 255 } else { 1 }, "{what}");
        let record = record.unwrap_or_else(|| panic!("no record of an error: {what}"));
        let message = record["msg"].as_str().expect("a message");
        assert!(message.contains(&words.replace("CTR", &self.id)), "{words:?}: {record}: {what}");
        assert!(out.stderr.contains(message), "{record}: {what}");
        assert!(record["time"].as_str().is_some_and(|t| t.ends_with('Z')), "{record}");
        assert_eq!(out.stdout, "", "{what}"); // it would land in the container's own log
    }
}

/// By status: a call, and what runc says to it too.
const REFUSALS: &[(&str, &[&str], &str)] = &[
    ("unknown", &["start", "CTR"], "container does not exist"),
    ("unknown", &["state", "CTR"], "container does not exist"),
    ("unknown", &["kill", "CTR", "9"], "container does not exist"),
    ("unknown", &["kill", "--all", "CTR", "9"], "container does not exist"),
    ("unknown", &["delete", "CTR"], "container does not exist"),
    ("unknown", &["pause", "CTR"], "container does not exist"),
    ("unknown", &["resume", "CTR"], "container does not exist"),
    ("unknown", &["ps", "--format", "json", "CTR"], "container does not exist"),
    ("unknown", &["events", "--stats", "CTR"], "container does not exist"),
    ("unknown", &["exec", "CTR", "true"], "container does not exist"),
    ("unknown", &["update", "--pids-limit", "5", "CTR"], "container does not exist"),
    ("unknown", &["create", "--bundle", "BUNDLE/missing", "CTR"], "no such file or directory"),
    ("created", &["create", "--bundle", "BUNDLE", "CTR"], "container with given ID already exists"),
    ("created", &["run", "--bundle", "BUNDLE", "CTR"], "container with given ID already exists"),
    ("created", &["resume", "CTR"], "container not paused"),
    ("running", &["start", "CTR"], "cannot start a"),
    ("running", &["resume", "CTR"], "container not paused"),
    ("running", &["delete", "CTR"], "that is not stopped: running"),
    ("running", &["kill", "CTR", "FOO"], "\"FOO\""),
    ("running", &["exec", "CTR", "nope"], "exec: \"nope\": executable file not found in $PATH"),
    ("running", &["exec", "CTR", "/nope"], "exec: \"/nope\": stat /nope: no such file or directory"),
    ("running", &["exec", "CTR", "/etc"], "exec: \"/etc\": "),
    ("running", &["exec", "CTR", "/etc/passwd"], "exec: \"/etc/passwd\": permission denied"),
    ("paused", &["start", "CTR"], "cannot start a"),
    ("paused", &["pause", "CTR"], "container not running"),
    ("paused", &["exec", "CTR", "true"], "cannot exec in a paused container"),
    ("paused", &["delete", "CTR"], "that is not stopped: paused"),
    ("stopped", &["start", "CTR"], "cannot start a"),
    ("stopped", &["kill", "CTR", "15"], "container not running"),
    ("stopped", &["pause", "CTR"], "container not running"),
    ("stopped", &["resume", "CTR"], "container not paused"),
    ("stopped", &["exec", "CTR", "true"], "cannot exec in a stopped container"),
    ("stopped", &["events", "--stats", "CTR"], "container with id CTR is not running"),
    ("stopped", &["update", "--pids-limit", "5", "CTR"], "container not running"),
];

#[test]
fn a_refusal_is_a_record_with_the_words_that_engines_match() {
    needs_controllers!("freezer", "pids");
    for s in Subject::both() {
        for status in ["unknown", "created", "running", "paused", "stopped"] {
            s.reach(status);
            for (_, args, words) in REFUSALS.iter().filter(|r| r.0 == status) {
                s.fails(args, words);
                if status != "unknown" {
                    assert_eq!(s.status(), status, "after {args:?}");
                }
            }
        }
        // What is no error: a second signal to all, and deletions by force.
        s.ok(&["kill", "--all", "CTR", "9"]);
        s.ok(&["delete", "CTR"]);
        assert_eq!(s.ok(&["delete", "--force", "CTR"]), "");
    }
}

/// Docker's exit codes 126 and 127 are made of these words, podman's of the same in any case.
#[test]
fn a_program_that_cannot_be_is_refused_by_create_in_the_words_of_exit_codes() {
    needs_root!();
    for mut s in Subject::both() {
        let text = s.bundle.rootfs().join("bin/text");
        fs::write(&text, "text").expect("write");
        fs::set_permissions(&text, fs::Permissions::from_mode(0o644)).expect("chmod");
        for (program, words) in [
            ("nope", "exec: \"nope\": executable file not found in $PATH"),
            ("/nope", "exec: \"/nope\": stat /nope: no such file or directory"),
            ("/bin/text", "exec: \"/bin/text\": permission denied"),
            ("/etc", "exec: \"/etc\": "),
        ] {
            s.bundle.config["process"]["args"] = json!([program]);
            s.bundle.write();
            s.fails(&["create", "--bundle", "BUNDLE", "CTR"], words);
            s.fails(&["state", "CTR"], "container does not exist");
        }
        // One version of runc says the first, another the second; one of Docker matches either.
        if s.program == ORLOP {
            s.fails(&["create", "--bundle", "BUNDLE", "CTR"], "\"/etc\": is a directory: permission denied");
        }
    }
}

#[test]
fn a_document_that_is_broken_is_a_record_too() {
    needs_root!();
    for s in Subject::both() {
        fs::write(s.bundle.path().join("config.json"), "{").expect("write");
        s.fails(&["create", "--bundle", "BUNDLE", "CTR"], "EOF");
    }
}

#[test]
fn list_and_state_have_the_properties_of_runc_in_their_order() {
    needs_controllers!("freezer");
    let mut seen = Vec::new();
    for s in Subject::both() {
        assert_eq!(s.ok(&["list"]).split_whitespace().count(), 6);
        s.reach("created");
        s.reach("running");
        s.reach("paused");
        assert_eq!(s.ok(&["list", "-q"]), format!("{}\n", s.id));
        let (list, state) = (s.ok(&["list", "-f", "json"]), s.ok(&["state", "CTR"]));
        let (rows, one): (Value, Value) =
            (serde_json::from_str(&list).expect("JSON"), serde_json::from_str(&state).expect("JSON"));
        assert_eq!((&rows[0]["status"], &one["status"]), (&json!("paused"), &json!("paused")));
        assert_eq!((&rows[0]["pid"], &rows[0]["owner"]), (&one["pid"], &json!("root")));
        assert!(one["pid"].as_i64() > Some(1), "{one}");
        for key in ["bundle", "rootfs", "created", "id"] {
            assert_eq!(rows[0][key], one[key], "{key}");
        }
        let table = s.ok(&["list"]);
        let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
        let starts: Vec<usize> = lines[0].iter().map(|w| table.find(w).expect("a header")).collect();
        let widths: Vec<usize> = starts.windows(2).map(|s| s[1] - s[0]).collect();
        let needed: Vec<usize> = lines[1].iter().map(|w| (w.len() + 3).max(12)).collect();
        assert_eq!((lines.len(), &widths[..]), (2, &needed[..5]), "{table}");
        // In their order, for those who read with grep and cut.
        let keys = |text: &str| -> String {
            text.split(',').filter_map(|p| p.split('"').nth(1)).collect::<Vec<_>>().join(" ")
        };
        seen.push((keys(&list), keys(&state)));
        s.ok(&["delete", "--force", "CTR"]);
    }
    assert_eq!(seen[0].0, "ociVersion id pid status bundle rootfs created owner");
    assert!(seen.iter().all(|s| s == &seen[0] && s.0 == s.1), "{seen:?}");
}

#[test]
fn annotations_are_part_of_list_and_state() {
    needs_root!();
    let b = Bundle::sleeping().set("/annotations", json!({ "a.b": "c" }));
    b.create().ok();
    let rows = finish(&mut b.orlop(["list", "-f", "json"])).ok().json();
    assert_eq!(
        (&rows[0]["annotations"], &b.state()["annotations"]),
        (&json!({ "a.b": "c" }), &json!({ "a.b": "c" }))
    );
}

#[test]
fn a_state_root_that_was_named_must_be_there() {
    let dir = Scratch::new("root");
    let list = |root: &str| {
        finish(Command::new(ORLOP).arg("--root").arg(dir.path.join(root)).args(["list", "-f", "json"]))
    };
    list("missing").fails("no such file or directory");
    fs::create_dir(dir.path.join("empty")).expect("mkdir");
    assert_eq!(list("empty").ok().stdout, "[]\n");
}

/// All words of `runc features`, but for two mount options that newer ones dropped.
#[test]
fn features_have_all_that_runc_lists() {
    needs_program!("runc");
    let features = |program: &str| finish(Command::new(program).arg("features")).ok().json();
    let (ours, theirs) = (features(ORLOP), features("runc"));
    for list in [
        "/hooks",
        "/mountOptions",
        "/linux/namespaces",
        "/linux/capabilities",
        "/linux/seccomp/actions",
        "/linux/seccomp/operators",
        "/linux/seccomp/archs",
    ] {
        let words = |v: &Value| -> BTreeSet<String> {
            let list = v.pointer(list).and_then(Value::as_array).expect("a list");
            list.iter().map(|w| w.as_str().expect("a word").to_string()).collect()
        };
        let missing: Vec<_> = words(&theirs).difference(&words(&ours)).cloned().collect();
        assert!(missing.iter().all(|w| w == "acl" || w == "noacl"), "{list}: {missing:?}");
    }
    for flag in ["/linux/cgroup/v1", "/linux/cgroup/v2", "/linux/seccomp/enabled", "/linux/apparmor/enabled"]
    {
        assert_eq!(
            (ours.pointer(flag), theirs.pointer(flag)),
            (Some(&json!(true)), Some(&json!(true))),
            "{flag}"
        );
    }
}

#[test]
fn spec_writes_the_document_of_runc_but_for_what_newer_ones_changed() {
    needs_program!("runc");
    for flags in [&[][..], &["--rootless"]] {
        let write = |program: &str| {
            let dir = Scratch::new("spec");
            finish(Command::new(program).arg("spec").args(["--bundle"]).arg(&dir.path).args(flags)).ok();
            let again =
                finish(Command::new(program).arg("spec").args(["--bundle"]).arg(&dir.path).args(flags));
            assert_eq!(again.code(), 1);
            let text = fs::read(dir.path.join("config.json")).expect("config.json");
            let mut config: Value = serde_json::from_slice(&text).expect("JSON");
            config["ociVersion"] = Value::Null; // the newest of each
            config["hostname"] = Value::Null; // the name of each
            let capabilities = config["process"]["capabilities"].as_object_mut().expect("an object");
            capabilities.retain(|set, _| set != "ambient" && set != "inheritable"); // CVE-2022-29162
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("a list");
            namespaces.retain(|n| n["type"] != "cgroup"); // runc's depends on the host
            namespaces.sort_by_key(|n| n["type"].to_string());
            config
        };
        assert_eq!(write(ORLOP), write("runc"), "{flags:?}");
    }
}
