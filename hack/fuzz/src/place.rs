//! A directory for layers, beside a canary.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Place(PathBuf);

impl Place {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = std::env::temp_dir(); // on a disk, most often: from no other file is an EROFS image mounted
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = dir.join(format!("orlop-fuzz-{}-{n}", std::process::id()));
        fs::create_dir_all(dir.join("in")).unwrap();
        fs::write(dir.join("a"), "alive").unwrap();
        fs::set_permissions(dir.join("a"), fs::Permissions::from_mode(0o640)).unwrap();
        Self(dir)
    }

    /// A new directory with this name.
    pub fn make(&self, name: &str) -> PathBuf {
        let path = self.0.join("in").join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// Nothing was made, changed or removed outside of the directories that were made, which are these.
    pub fn check(&self, made: &[&str]) {
        let names = |dir: &Path| {
            let mut all: Vec<_> =
                fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            all.sort();
            all
        };
        assert_eq!(names(&self.0), ["a", "in"]);
        assert_eq!(names(&self.0.join("in")), made);
        let m = fs::symlink_metadata(self.0.join("a")).unwrap();
        assert_eq!((m.mode(), m.nlink(), m.uid(), m.size()), (0o100640, 1, us(), 5));
        for name in ["/a", "/b", "/c", "/d", "/e"] {
            assert!(fs::symlink_metadata(name).is_err(), "{name} was made");
        }
    }
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
