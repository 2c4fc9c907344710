//! list: every container of the state root.

use crate::container::StateRoot;
use crate::error::{Error, Result};
use std::fmt::Write as _;
use std::io::Write as _;

/// How the list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Quiet,
}

struct Row {
    id: String,
    pid: i32,
    status: &'static str,
    bundle: String,
    created: String,
    owner: String,
    json: serde_json::Value,
}

/// One that vanishes or is half made is left out; one that cannot be read is logged.
pub fn list(root: &StateRoot, format: Format) -> Result<()> {
    let mut rows = Vec::new();
    for id in root.ids()? {
        match root.load(&id) {
            Ok(c) => rows.push(row(&c)),
            Err(e) if e.kind == crate::error::Kind::NotFound => {}
            Err(e) => tracing::warn!("{e}"),
        }
    }
    let text = match format {
        Format::Quiet => rows.iter().map(|r| format!("{}\n", r.id)).collect(),
        Format::Json => {
            let list: Vec<_> = rows.into_iter().map(|r| r.json).collect();
            format!("{}\n", serde_json::Value::Array(list))
        }
        Format::Table => table(&rows),
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| Error::io("standard output", "write", &e))
}

fn row(c: &crate::container::Container) -> Row {
    let (status, pid) = c.status();
    let r = &c.record;
    let owner = owner_name(r.owner);
    let json = serde_json::json!({
        "ociVersion": r.oci_version, "id": r.id, "pid": pid, "status": status.as_str(), "bundle": r.bundle,
        "rootfs": r.rootfs, "created": r.created, "annotations": r.annotations, "owner": owner,
    });
    Row {
        id: r.id.clone(),
        pid,
        status: status.as_str(),
        bundle: r.bundle.to_string_lossy().into_owned(),
        created: r.created.clone(),
        owner,
        json,
    }
}

fn table(rows: &[Row]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let cells = rows.iter().map(|r| {
        [
            r.id.clone(),
            r.pid.to_string(),
            r.status.into(),
            r.bundle.clone(),
            r.created.clone(),
            r.owner.clone(),
        ]
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
