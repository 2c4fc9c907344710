//! list: every container of the state root.

use crate::container::{Container, StateRoot};
use crate::error::{Kind, Result, clean};
use std::fmt::Write;

/// How the list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Quiet,
}

/// One that vanishes or is half made is left out; one that cannot be read is logged.
pub fn list(root: &StateRoot, format: Format) -> Result<()> {
    let mut found = Vec::new();
    for id in root.ids()? {
        match root.load(&id) {
            Ok(c) => found.push(c),
            Err(e) if e.kind == Kind::NotFound => {}
            Err(e) => tracing::warn!("{e}"),
        }
    }
    super::print(&match format {
        Format::Quiet => found.iter().map(|c| format!("{}\n", c.record.id)).collect(),
        Format::Json => format!("{}\n", found.iter().map(json).collect::<serde_json::Value>()),
        Format::Table => table(&found),
    })
}

fn json(c: &Container) -> serde_json::Value {
    let ((status, pid), r) = (c.status(), &c.record);
    serde_json::json!({
        "ociVersion": r.oci_version, "id": r.id, "pid": pid, "status": status.as_str(), "bundle": r.bundle,
        "rootfs": r.rootfs, "created": r.created, "annotations": r.annotations, "owner": owner_name(r.owner),
    })
}

fn table(list: &[Container]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let cells = list.iter().map(|c| {
        let ((status, pid), r) = (c.status(), &c.record);
        let bundle = clean(&r.bundle.to_string_lossy()).into_owned();
        let (status, created) = (status.as_str().to_string(), r.created.clone());
        [r.id.clone(), pid.to_string(), status, bundle, created, owner_name(r.owner)]
    });
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(cells).collect();
    let width: [usize; 6] =
        std::array::from_fn(|n| lines.iter().map(|l| l[n].chars().count()).max().unwrap_or(0).max(11));
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(width) {
            let _ = write!(text, "{cell:<w$}", w = width + 1); // a String takes everything
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// The user's name from the host's /etc/passwd, read directly: the binary is static and has no NSS. `#uid` otherwise.
pub fn owner_name(uid: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = text.lines().find_map(|l| {
        let mut fields = l.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.to_string())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}
