//! A directory of the host that no image may touch, and a look at all of it.

use crate::support::Scratch;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

pub struct Canary {
    scratch: Scratch,
    before: Vec<String>,
}

impl Canary {
    pub fn new() -> Self {
        let scratch = Scratch::new("canary");
        let at = |name: &str| scratch.path.join(name);
        fs::write(at("x"), "alive").unwrap();
        fs::set_permissions(at("x"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/y"), "alive too").unwrap();
        symlink("x", at("l")).unwrap();
        let before = look(&scratch.path);
        Self { scratch, before }
    }

    pub fn path(&self) -> &str {
        self.scratch.path.to_str().unwrap()
    }

    /// Nothing was made, removed, written, renamed, linked, or given to another owner or mode.
    #[track_caller]
    pub fn is_untouched(&self, what: &str) {
        assert_eq!(self.before, look(&self.scratch.path), "{what}");
    }
}

/// Every inode with all that stat(2) says but the time of reading, and what it holds.
fn look(root: &Path) -> Vec<String> {
    let (mut out, mut todo) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(path) = todo.pop() {
        let m = fs::symlink_metadata(&path).unwrap();
        let holds = if m.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            String::new()
        } else if m.is_file() {
            fs::read_to_string(&path).unwrap()
        } else {
            format!("{:?}", fs::read_link(&path).unwrap())
        };
        let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        let owner = (m.uid(), m.gid());
        out.push(format!("{path:?} {} {:o} {owner:?} {} {times:?} {holds}", m.ino(), m.mode(), m.nlink()));
    }
    out.sort();
    out
}
