//! overlayfs in user space, for where the kernel's is refused.

use super::layer::dirs::{failed, open_dir};
use super::layer::entry::join;
use super::rights::Rights;
use super::view::{self, read_dir};
use crate::bundle::{IMAGE, Overlay};
use crate::error::{Error, Result};
use rustix::fs::{AtFlags, FileType, XattrFlags};
use rustix::io::Errno;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NAME: &str = "fuse-overlayfs";

/// Where the program is, if it can be used.
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|dir| dir.join(NAME)).find(|p| p.is_file());
    found.filter(|_| Path::new("/dev/fuse").exists())
}

/// Mounts on the directory `target`. The program stays there until it is unmounted.
pub fn mount(o: &Overlay, target: &Path) -> Result<()> {
    let program = program().ok_or_else(|| Error::unsupported(NAME, "is not there, or /dev/fuse is not"))?;
    let parts = o.lower.iter().chain(&o.upper).chain(&o.work);
    for part in parts {
        if part.starts_with(IMAGE) {
            let error = Error::unsupported(part.as_str(), format!("{NAME} stacks no EROFS images"));
            return Err(error.hint("import with --layers dir"));
        }
        if part.contains([':', ',', '\\']) {
            return Err(Error::unsupported(part.as_str(), format!("{NAME} takes no path with : , or \\")));
        }
    }
    let mut options = format!("lowerdir={}", o.lower.join(":"));
    if let (Some(upper), Some(work)) = (&o.upper, &o.work) {
        options.push_str(&format!(",upperdir={upper},workdir={work}"));
    }
    // What it says goes to a file in memory and not to a pipe, which its daemon would hold open.
    let said = rustix::fs::memfd_create("fuse-overlayfs", rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|e| Error::os(NAME, "memfd_create", e.raw_os_error()))?;
    let mut said = std::fs::File::from(said);
    let at = |e: std::io::Error| Error::io(program.display().to_string(), "run", &e);
    let stderr = said.try_clone().map_err(at)?;
    let status = Command::new(&program)
        .arg("-o")
        .arg(options)
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .status()
        .map_err(at)?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    said.rewind().and_then(|()| said.read_to_end(&mut text)).map_err(at)?;
    let text = String::from_utf8_lossy(&text).trim().replace('\n', "; ");
    Err(Error::invalid(target.display().to_string(), format!("{NAME} ends with {status}: {text}")))
}

/// What the program leaves in an opaque directory.
const MARKS: [&[u8]; 2] = [b".wh..wh..opq", b".wh..opq"];

/// Marks the opaque directories of an upper directory as the kernel's overlayfs does, which the program takes as well.
/// Nothing may be mounted of it.
pub fn settle(upper: &Path) -> Result<()> {
    let root = view::open(upper)?;
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        let mut is_opaque = false;
        for entry in read_dir(&root, &path)? {
            let entry = entry.map_err(|e| failed(&path, "read", e))?;
            let name = entry.file_name().to_bytes();
            is_opaque |= name == MARKS[0];
            if entry.file_type() == FileType::Directory && name != b"." && name != b".." {
                todo.push(join(&path, name));
            }
        }
        if is_opaque {
            let dir = open_dir(&root, &path).map_err(|e| failed(&path, "open", e))?;
            let key = Rights::ours().opaque();
            rustix::fs::fsetxattr(&dir, key, b"y", XattrFlags::empty())
                .map_err(|e| failed(&path, &format!("setxattr {key}"), e))?;
            for mark in MARKS {
                match rustix::fs::unlinkat(&dir, mark, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(failed(&join(&path, mark), "unlinkat", e)),
                }
            }
        }
    }
    Ok(())
}
