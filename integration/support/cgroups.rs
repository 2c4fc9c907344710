//! Cgroups of either version, for tests.
#![allow(dead_code)] // each test program uses its part

use crate::support::{Bundle, ORLOP, cgroups_named, unique};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const ROOT: &str = "/sys/fs/cgroup";

/// Limits are cgroup v2's alone.
pub fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Of v1, or of a host that has v2 alone.
pub fn has_controller(name: &str) -> bool {
    let file = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers"));
    let Ok(list) = file else { return Path::new(ROOT).join(name).join("tasks").exists() };
    // The core of v2 does what these do.
    ["freezer", "devices"].contains(&name) || list.split_whitespace().any(|c| c == name)
}

/// Whether this kernel has the file of a limit, which the root cgroup is often without.
pub fn has_limit(controller: &str, file: &str) -> bool {
    if is_unified() {
        let _ = fs::write(Path::new(ROOT).join("cgroup.subtree_control"), format!("+{controller}"));
    }
    Own::new(controller, &format!("orlop-test-{}", unique())).0.join(file).exists()
}

/// Leaves the test, counted as skipped, unless limits of these controllers can be set.
#[macro_export]
macro_rules! needs_controllers {
    ($($controller:expr),*) => {
        needs_root!();
        for c in [$($controller),*] {
            if !$crate::cgroups::has_controller(c) {
                $crate::support::skip(&format!("needs the cgroup controller {c}"));
                return;
            }
        }
    };
}

/// Leaves the test, counted as skipped, on a host with cgroup v2 alone, or on any other.
#[macro_export]
macro_rules! needs_version {
    ($version:expr) => {
        needs_root!();
        if $crate::cgroups::is_unified() != ($version == 2) {
            $crate::support::skip(concat!("needs a host with the controllers on cgroup v", $version));
            return;
        }
    };
}

pub fn dir(controller: &str, name: &str) -> PathBuf {
    if is_unified() { Path::new(ROOT).join(name) } else { Path::new(ROOT).join(controller).join(name) }
}

pub fn read(controller: &str, name: &str, file: &str) -> String {
    let file = dir(controller, name).join(file);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim_end().to_string()
}

/// As the kernel lists all that a cgroup may have.
pub fn all_cpus() -> String {
    read("cpuset", "", if is_unified() { "cpuset.cpus.effective" } else { "cpuset.cpus" })
}

/// Every setting below a container's cgroups: file to content.
pub fn settings(name: &str) -> BTreeMap<String, String> {
    const MEASURED: [&str; 15] = [
        "usage",
        "stat",
        "tasks",
        "procs",
        "threads",
        "failcnt",
        "slabinfo",
        "serviced",
        "service_bytes",
        "events",
        "pressure",
        "effective",
        "peak",
        "current",
        "shown_ram",
    ];
    let mut all = BTreeMap::new();
    for place in cgroups_named(name) {
        for entry in fs::read_dir(&place).expect("read").flatten() {
            let file = entry.file_name().into_string().expect("UTF-8");
            if entry.path().is_dir() || MEASURED.iter().any(|m| file.contains(m)) {
                continue;
            }
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            let mut lines: Vec<_> = text.lines().collect();
            lines.sort_unstable();
            let hierarchy = place.parent().expect("a parent").display();
            all.insert(format!("{hierarchy}: {file}"), lines.join("\n"));
        }
    }
    all
}

/// Processes of a cgroup that are sleep(1) by now.
pub fn sleepers(cgroup: &Path) -> usize {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.lines().filter(|pid| name(pid).trim_end() == "sleep").count()
}

pub fn freeze(cgroup: &Path) {
    let (file, value) = if is_unified() { ("cgroup.freeze", "1") } else { ("freezer.state", "FROZEN") };
    fs::write(cgroup.join(file), value).expect("it freezes");
}

/// A cgroup made by the test, gone at its end.
pub struct Own(pub PathBuf);

impl Own {
    pub fn new(controller: &str, name: &str) -> Self {
        let path = dir(controller, name);
        fs::create_dir_all(&path).expect("mkdir");
        Self(path)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A process of the test, ended with it.
pub struct Sleeper(pub std::process::Child);

impl Sleeper {
    pub fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().expect("sleep"))
    }

    pub fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("wait").is_none()
    }

    pub fn enter(&self, cgroup: &Path) {
        fs::write(cgroup.join("cgroup.procs"), self.0.id().to_string()).expect("it joins");
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn sleeping() -> Bundle {
    Bundle::new().args(&["sleep", "1000"])
}

/// The binary in a mount namespace where this was done before.
pub fn within(view: Option<&str>) -> Command {
    let Some(view) = view else {
        let mut c = Command::new(ORLOP);
        c.stdin(Stdio::null());
        return c;
    };
    let mut c = Command::new("unshare");
    c.args(["-m", "sh", "-ec", &format!("{view}; exec \"$@\""), "sh", ORLOP]).stdin(Stdio::null());
    c
}

/// Makes and opens null, a default device, and loop0, which need not be there: what is refused is not permitted.
pub const DEVICES: &str = "cd /dev; refused() { grep -q 'not permitted' && echo refused $* || echo passed $*; }; \
                           for d in 'null c 1 3' 'loop b 7 0'; do set -- $d; mknod x$1 $2 $3 $4 2>&1 | refused mknod $1; \
                           (: < x$1) 2>&1 | refused read $1; (: > x$1) 2>&1 | refused write $1; done";
pub const NULL: &str = "passed mknod null\npassed read null\npassed write null\n";
