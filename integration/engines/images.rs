//! Images between imgtool and engines. What was changed by imgtool is loaded, told and run by each as orlop runs it, and what
//! an engine wrote is here what it is there. That does not depend on the runtime below: it is done in orlop's column.

#[path = "../image/changed.rs"]
mod changed;

use crate::support::ORLOP;
use crate::world::{Engine, note};
pub use changed::{Changed, Changes, TELL};
use std::fs;
use std::sync::OnceLock;

/// A store of this world and its changed images, made by the first check that asks; `None` in another column.
pub fn changes(e: &Engine) -> Option<&'static (Changes, Vec<Changed>)> {
    static MADE: OnceLock<(Changes, Vec<Changed>)> = OnceLock::new();
    let make = || {
        let dir = e.dir.join("images");
        fs::create_dir_all(dir.join("docker")).expect("mkdir");
        fs::create_dir_all(dir.join("oci")).expect("mkdir");
        let c = Changes { dir };
        let all = c.make(e.archive.to_str().expect("UTF-8"));
        for i in &all {
            c.imgtool(&["export", "--format", "docker", &i.name, &c.at(&format!("docker/{}.tar", i.kind))])
                .ok();
            c.imgtool(&["export", &i.name, &c.at(&format!("oci/{}.tar", i.kind))]).ok();
        }
        (c, all)
    };
    if e.program.as_os_str() != ORLOP {
        note("not run: done in orlop's column".into());
        return None;
    }
    Some(MADE.get_or_init(make))
}

/// What a container does to its files before an engine makes an image of it.
pub const CHANGE: &str = "rm /etc/readable; mkdir -p /made/deep; echo c >/made/deep/f; ln /made/deep/f /made/hard; \
    chown 7:8 /made/deep/f; chmod 4755 /made/deep/f; ln -s ../deep /made/deep/s; mkfifo /made/pipe; \
    rm -r /home; mkdir -m 700 /home; echo n >/home/new";

/// An engine's image, from an archive or directory that it wrote, prints what it prints there.
#[track_caller]
pub fn is_here(c: &Changes, source: &str, there: &str) -> Changed {
    let name = format!("theirs/{}:1", crate::support::unique());
    c.imgtool(&["import", source, &name]).ok();
    let i = c.known("theirs", &name);
    assert_eq!(i.says, there, "{source}");
    assert!(
        i.says.contains("made/deep/f -rwsr-xr-x 4755 7:8 2 ") && !i.says.contains("etc/readable"),
        "{}",
        i.says
    );
    i
}
