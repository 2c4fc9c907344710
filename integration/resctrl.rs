//! linux.intelRdt. No kernel here has resctrl: without it the message is shown; with it, the binary runs on a directory at
//! the usual place, for which strace answers statfs(2) as that file system would, and a thread of the test makes in a new
//! directory what the kernel makes there.

#[macro_use]
mod support;

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Bundle, ORLOP, Outcome, cgroups_named, finish};

fn has_resctrl() -> bool {
    fs::read_to_string("/proc/filesystems").is_ok_and(|t| t.contains("\tresctrl"))
}

#[test]
fn without_the_file_system_it_is_refused_with_the_remedy() {
    needs_root!();
    let b = Bundle::new().set("/linux/intelRdt", json!({ "closID": "gold" }));
    let message = match has_resctrl() {
        true => {
            "linux.intelRdt: the resctrl file system is not mounted; mount -t resctrl resctrl /sys/fs/resctrl"
        }
        false => {
            "linux.intelRdt: needs the file system resctrl, which this kernel does not have (/proc/filesystems); it comes with"
        }
    };
    if !Path::new("/sys/fs/resctrl/schemata").exists() {
        b.create().fails(message);
        b.is_clean_or_unused();
    }
    for (rdt, message) in [
        (json!({ "closID": "a/b" }), "linux.intelRdt.closID: \"a/b\" is no name of a directory"),
        (
            json!({ "memBwSchema": "0=20" }),
            "linux.intelRdt.memBwSchema: \"0=20\" does not begin with \"MB:\"",
        ),
        (
            json!({ "schemata": ["L3:0=f\nMB:0=9"] }),
            "linux.intelRdt.schemata[0]: \"L3:0=f\\nMB:0=9\" is more than one line",
        ),
    ] {
        let b = Bundle::new().set("/linux/intelRdt", rdt);
        b.create().fails(message);
        assert!(cgroups_named(&b.id).is_empty());
    }
}

#[test]
fn without_the_property_it_is_never_touched() {
    needs_root!();
    needs_program!("strace");
    let b = Bundle::new();
    let log = b.path().join("strace");
    let run = b.making("run");
    let mut c = Command::new("strace");
    c.args(["-f", "-qq", "-e", "trace=%file", "-o"]).arg(&log).arg(run.get_program()).args(run.get_args());
    finish(c.stdin(Stdio::null())).ok();
    let calls = fs::read_to_string(&log).unwrap();
    assert!(calls.contains("state.json") && !calls.contains("resctrl"), "{calls}");
}

trait Untouched {
    fn is_clean_or_unused(&self);
}

impl Untouched for Bundle {
    /// Nothing was made, not even the state root's entry.
    fn is_clean_or_unused(&self) {
        assert!(fs::read_dir(self.state_root()).unwrap().next().is_none());
        assert!(cgroups_named(&self.id).is_empty());
    }
}

/// A directory that stands for the file system, with a group `gold`, and the thread that is its kernel.
struct Fake {
    bundle: Bundle,
    tree: PathBuf,
    stop: Arc<AtomicBool>,
    kernel: Option<std::thread::JoinHandle<()>>,
}

/// What is in every group of its own.
fn furnish(group: &Path, schemata: &str) {
    fs::create_dir_all(group.join("mon_groups")).unwrap();
    for (file, text) in [("tasks", ""), ("schemata", schemata)] {
        if !group.join(file).exists() {
            fs::write(group.join(file), text).unwrap();
        }
    }
}

impl Fake {
    fn new(bundle: Bundle) -> Self {
        let tree = bundle.path().join("resctrl");
        fs::create_dir(&tree).unwrap();
        furnish(&tree, "    L3:0=7ff\n    MB:0=100\n");
        furnish_gold(&tree);
        fs::create_dir_all(tree.join("info/L3_MON")).unwrap();
        fs::create_dir_all(tree.join("info/MB")).unwrap();
        fs::write(tree.join("info/last_cmd_status"), "ok\n").unwrap();
        fs::write(tree.join("info/MB/bandwidth_gran"), "10\n").unwrap();
        fs::write(tree.join("info/MB/min_bandwidth"), "10\n").unwrap();
        fs::write(tree.join("info/L3_MON/mon_features"), "llc_occupancy\n").unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (there, ended) = (tree.clone(), stop.clone());
        let kernel = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                for name in ["web", "bronze"] {
                    if there.join(name).is_dir() {
                        furnish(&there.join(name), "    L3:0=7ff\n    MB:0=100\n");
                    }
                }
                for group in ["gold/mon_groups/web", "web/mon_groups/web"] {
                    let group = there.join(group);
                    if group.is_dir() {
                        // The test may have removed it meanwhile; mon_data is read by none.
                        let _ = fs::write(group.join("mon_data"), "");
                        if !group.join("tasks").exists() {
                            let _ = fs::write(group.join("tasks"), "");
                        }
                    }
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        Self { bundle, tree, stop, kernel: Some(kernel) }
    }

    /// The binary where the tree is at /sys/fs/resctrl; the calls that make or remove directories there, with the outcome.
    fn orlop(&self, args: &[&str]) -> (Outcome, String) {
        let log = self.bundle.path().join("strace");
        let place = "set -e; log=$1 tree=$2; shift 2; mkdir \"$log.cgroup\"; mount --rbind /sys/fs/cgroup \"$log.cgroup\"; \
                     mount -t tmpfs none /sys/fs; mkdir /sys/fs/cgroup /sys/fs/resctrl; \
                     mount --move \"$log.cgroup\" /sys/fs/cgroup; mount --bind \"$tree\" /sys/fs/resctrl; \
                     rmdir \"$log.cgroup\"; exec \"$@\"";
        let mut c = Command::new("unshare");
        c.args(["-m", "sh", "-c", place, "sh"]).arg(&log).arg(&self.tree);
        c.args(["strace", "-qq", "-o"]).arg(&log);
        for path in ["", "/web", "/bronze", "/web/mon_groups/web", "/gold/mon_groups/web"] {
            c.arg("-P").arg(format!("/sys/fs/resctrl{path}"));
        }
        // RDTGROUP_SUPER_MAGIC is the first word of struct statfs; a new directory has two seconds to be furnished.
        c.args(["-e", "trace=statfs,mkdir,rmdir", "-e", "inject=statfs:poke_exit=@arg2=2158650700000000"]);
        c.args(["-e", "inject=mkdir:delay_exit=2s", "-e", "inject=rmdir:retval=0"]);
        c.arg(ORLOP).arg("--root").arg(self.bundle.state_root()).args(args).stdin(Stdio::null());
        let out = finish(&mut c);
        let calls = fs::read_to_string(&log).unwrap_or_default();
        let calls = calls.lines().filter(|l| l.contains("mkdir(") || l.contains("rmdir("));
        // Spaces align the results, and strace notes in parentheses what it did.
        let words =
            |l: &str| l.split(" (").next().unwrap_or(l).split_whitespace().collect::<Vec<_>>().join(" ");
        (out, calls.map(|l| words(l) + "\n").collect())
    }

    fn create(&self, rdt: Value) -> (Outcome, String) {
        let mut config = self.bundle.config.clone();
        config["linux"]["intelRdt"] = rdt;
        fs::write(self.bundle.path().join("config.json"), config.to_string()).unwrap();
        self.orlop(&["create", "--bundle", self.bundle.path().to_str().unwrap(), "web"])
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.tree.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
    }

    fn pid(&self) -> String {
        finish(&mut self.bundle.orlop(["state", "web"])).ok().json()["pid"].to_string()
    }
}

fn furnish_gold(tree: &Path) {
    furnish(&tree.join("gold"), "    L3:0=7f0\n    MB:0= 20\n");
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = finish(&mut self.bundle.orlop(["delete", "--force", "web"]));
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.kernel.take().map(std::thread::JoinHandle::join);
    }
}

macro_rules! needs_strace {
    () => {
        needs_root!();
        needs_program!("strace");
        if has_resctrl() {
            return support::skip("the kernel has resctrl");
        }
    };
}

fn sleeping() -> Bundle {
    Bundle::sleeping().set("/linux/cgroupsPath", json!(format!("/orlop-test-rdt-{}", support::unique())))
}

#[test]
fn a_container_has_a_group_of_its_id_with_its_schemas_and_takes_it_along() {
    needs_strace!();
    let f = Fake::new(sleeping());
    let (out, calls) = f.create(json!({ "memBwSchema": "MB:0=30", "enableMonitoring": true }));
    out.ok();
    assert!(calls.contains("mkdir(\"/sys/fs/resctrl/web\", 0777) = 0"), "{calls}");
    assert!(calls.contains("mkdir(\"/sys/fs/resctrl/web/mon_groups/web\", 0777) = 0"), "{calls}");
    let line = format!("{}\n", f.pid());
    assert_eq!((f.read("web/tasks"), f.read("web/mon_groups/web/tasks")), (line.clone(), line));
    assert!(f.read("web/schemata").starts_with("MB:0=30\n"));
    assert!(f.read("gold/tasks").is_empty() && f.read("tasks").is_empty());
    // What exec starts is no child of init's.
    finish(&mut f.bundle.orlop(["start", "web"])).ok();
    fs::write(f.tree.join("web/tasks"), "").unwrap();
    let pid_file = f.bundle.path().join("pid");
    let exec = ["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), "web", "sleep", "1000"];
    f.orlop(&exec).0.ok();
    assert_eq!(f.read("web/tasks"), format!("{}\n", fs::read_to_string(&pid_file).unwrap()));
    // Somebody has removed it: the container lives on, in the default group.
    fs::rename(f.tree.join("web"), f.tree.join("away")).unwrap();
    let out = f.orlop(&["exec", "web", "true"]).0.ok();
    assert!(out.stderr.contains("web/tasks: no such file or directory"), "{}", out.stderr);
    fs::rename(f.tree.join("away"), f.tree.join("web")).unwrap();
    let (out, calls) = f.orlop(&["delete", "--force", "web"]);
    out.ok();
    assert_eq!(calls, "rmdir(\"/sys/fs/resctrl/web\") = 0\n");
}

#[test]
fn a_named_group_is_joined_when_it_fits_and_stays() {
    needs_strace!();
    let f = Fake::new(sleeping());
    let (out, _) = f.create(json!({ "closID": "gold", "l3CacheSchema": "L3:0=7ff" }));
    out.fails("linux.intelRdt.l3CacheSchema: \"L3:0=7ff\" is not what /sys/fs/resctrl/gold has, \"L3:0=7f0 MB:0= 20\"");
    assert!(f.read("gold/tasks").is_empty());
    let (out, _) = f.create(json!({ "closID": "silver" }));
    out.fails(
        "linux.intelRdt.closID: there is no group /sys/fs/resctrl/silver, and no schema to make it with",
    );
    f.bundle.is_clean_or_unused();
    let (out, calls) = f.create(json!({ "closID": "gold", "enableMonitoring": true }));
    out.ok();
    assert!(!calls.contains("mkdir(\"/sys/fs/resctrl/gold\""), "{calls}");
    let line = format!("{}\n", f.pid());
    assert_eq!((f.read("gold/tasks"), f.read("gold/mon_groups/web/tasks")), (line.clone(), line));
    let (out, calls) = f.orlop(&["delete", "--force", "web"]);
    out.ok();
    assert_eq!(calls, "rmdir(\"/sys/fs/resctrl/gold/mon_groups/web\") = 0\n");
    // One that the document names stays, even when it was made for it.
    fs::rename(f.tree.join("gold/mon_groups/web"), f.bundle.path().join("removed")).unwrap();
    let (out, calls) = f.create(json!({ "closID": "bronze", "schemata": ["L3:0=f", "MB:0=10"] }));
    out.ok();
    assert!(calls.contains("mkdir(\"/sys/fs/resctrl/bronze\", 0777) = 0"), "{calls}");
    assert!(f.read("bronze/schemata").starts_with("MB:0=10\n")); // a plain file has the last line written
    let (out, calls) = f.orlop(&["delete", "--force", "web"]);
    out.ok();
    assert_eq!(calls, "");
}

#[test]
fn schemas_are_updated_and_told_by_events() {
    needs_strace!();
    let f = Fake::new(sleeping());
    f.create(json!({ "closID": "gold" })).0.ok();
    f.orlop(&["update", "--mem-bw-schema", "MB:0=50", "web"]).0.ok();
    assert!(f.read("gold/schemata").starts_with("MB:0=50\n"));
    let message = "--l3-cache-schema: \"MB:0=1\" does not begin with \"L3:\"";
    f.orlop(&["update", "--l3-cache-schema", "MB:0=1", "web"]).0.fails(message);
    let stats = f.orlop(&["events", "--stats", "web"]).0.ok().json();
    let rdt = &stats["data"]["intel_rdt"];
    assert_eq!(rdt["mem_bw_schema"], "MB:0=50");
    assert_eq!(rdt["mem_bw_info"]["bandwidth_gran"], 10);
    assert_eq!(rdt["mem_bw_schema_root"], "MB:0=100");
}
