//! list: every container of the state root.

use crate::container::{Container, StateRoot};
use crate::error::{Error, Kind, Result, clean};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// How the list is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Quiet,
}

/// One that vanishes or is half made is left out; one that cannot be read is logged. `named`: the caller named the
/// root, which must be there then.
pub fn list(root: &StateRoot, named: bool, format: Format) -> Result<()> {
    if named {
        let at = root.path.to_string_lossy();
        std::fs::metadata(&root.path).map_err(|e| Error::io(at, "open the state root", &e))?;
    }
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
        Format::Json => {
            let states: Vec<_> = found.iter().map(State::of).collect();
            serde_json::to_string(&states).map_err(unwritable)? + "\n"
        }
        Format::Table => table(&found),
    })
}

/// A container as `list` and `state` print it: runtime.md#state with the properties that runc adds, in its order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    status: &'a str,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
    owner: String,
}

impl<'a> State<'a> {
    pub fn of(c: &'a Container) -> Self {
        let ((status, pid), r) = (c.status(), &c.record);
        State {
            oci_version: &r.oci_version,
            id: &r.id,
            pid,
            status: status.as_str(),
            bundle: &r.bundle,
            rootfs: &r.rootfs,
            created: &r.created,
            annotations: &r.annotations,
            owner: owner_name(r.owner),
        }
    }
}

/// A bundle's path need not be UTF-8, JSON must.
pub fn unwritable(e: serde_json::Error) -> Error {
    Error::invalid("", format!("cannot be written as JSON: {e}"))
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
        std::array::from_fn(|n| lines.iter().map(|l| l[n].chars().count() + 3).max().unwrap_or(0).max(12));
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(width) {
            let _ = write!(text, "{cell:<width$}"); // a String takes everything
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// The user's name from the host's /etc/passwd, read directly: the binary is static and has no NSS. `#uid` otherwise.
fn owner_name(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = text.lines().find_map(|l| {
        let mut fields = l.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?);
        (id.parse() == Ok(uid)).then(|| name.to_string())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}
