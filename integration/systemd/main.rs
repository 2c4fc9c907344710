//! Cgroups that systemd makes: `--systemd-cgroup`. Against the host's systemd where it is init, and the client against a bus
//! that only says what systemd would.

#[macro_use]
#[path = "../support/mod.rs"]
mod support;
#[macro_use]
#[path = "../support/cgroups.rs"]
mod cgroups;

/// Leaves the test, counted as skipped, unless systemd is init and we are root.
#[macro_export]
macro_rules! needs_systemd {
    () => {
        needs_root!();
        if !std::path::Path::new("/run/systemd/system").is_dir() {
            $crate::support::skip("needs systemd as init");
            return;
        }
        let _alone = $crate::ALONE.lock(); // a systemd that executes itself again answers nobody else's test
    };
}

mod client;
mod fake;
mod session;
mod unit;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Bundle, Outcome, finish};

static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// A verb that makes the container, by way of systemd.
fn making(b: &Bundle, verb: &str) -> Command {
    b.write();
    let mut c = b.orlop(["--systemd-cgroup", verb, "--bundle"]);
    c.arg(b.path()).arg(&b.id);
    c
}

#[track_caller]
fn create(b: &Bundle) -> Outcome {
    finish(&mut making(b, "create"))
}

/// The unit of a container without a cgroupsPath.
fn unit_of(b: &Bundle) -> String {
    format!("orlop-{}.scope", b.id)
}

fn systemctl(args: &[&str]) -> Outcome {
    finish(Command::new("systemctl").args(args))
}

/// One property of a unit; those of one that is not there are empty or what systemd has for any.
#[track_caller]
fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, "--", unit]).ok().stdout.trim().to_string()
}

/// The cgroup in the hierarchy of a controller, with the controllers or without.
fn dir(controller: &str, path: &str) -> PathBuf {
    cgroups::dir(controller, path.trim_start_matches('/'))
}

/// Whatever there is of a unit of this name in whatever hierarchy.
fn cgroups_of(unit: &str) -> Vec<PathBuf> {
    support::cgroups_named(unit)
}

/// Directories that the test's slice left, gone at its end: no systemd makes those of the host for a fake one.
struct Slice(String);

impl Slice {
    fn new() -> Self {
        Self(format!("orloptest{}.slice", support::unique().replace('-', "x")))
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        for dir in support::cgroups_named(&self.0) {
            remove(&dir);
        }
    }
}

fn remove(dir: &Path) {
    for below in std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        remove(&below.path());
    }
    let _ = std::fs::remove_dir(dir);
}
