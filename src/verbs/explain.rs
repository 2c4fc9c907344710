//! explain: the plan of a bundle, in words, without touching anything.

use crate::bundle::Bundle;
use crate::cli::CgroupManager;
use crate::error::Result;
use crate::host;
use crate::plan::cgroup::systemd::Manager;
use crate::plan::{Plan, Request, explain, spawn};
use std::path::Path;

pub fn explain(path: &Path, config: Option<&Path>, manager: CgroupManager) -> Result<()> {
    let bundle = Bundle::open(path, config.unwrap_or(Path::new("config.json")))?;
    let mut facts = host::facts(&bundle.config, manager != CgroupManager::Disabled)?;
    if facts.euid != 0 && !spawn::namespaces(bundle.config.linux.as_ref())?.is_own(spawn::NEWUSER) {
        // An ordinary user cannot make this container at all: it is root's plan that is asked for.
        (facts.euid, facts.egid, facts.privileged, facts.mknod) = (0, 0, true, true);
    }
    if manager == CgroupManager::Systemd {
        // Not asked: a new one, of the system.
        facts.systemd = Some(Manager { version: u32::MAX, ..Manager::default() });
    }
    let request = Request {
        id: "ID".into(),
        bundle: bundle.path.clone(),
        foreground: true,
        overlay: bundle.overlay.clone(),
        ..Request::default()
    };
    let text = explain::text(&Plan::for_create(&bundle.config, &facts, &request)?);
    super::print(&text)
}
