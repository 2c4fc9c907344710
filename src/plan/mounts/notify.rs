//! sd_notify(3): where the program finds its socket.

use super::options::{NODEV, NOEXEC, NOSUID, RDONLY};
use crate::error::Result;
use crate::plan::step::{Act, Attr, Mount, MountWhat, OnProc, Open, OpenWhat, Step, Tree};
use crate::plan::{Draft, cpath, cstring};

/// The variable, in our environment and in the program's.
pub const AT: &str = "NOTIFY_SOCKET";
/// Where the directory of the socket is in the container.
pub const INSIDE: &str = "/run/notify";
pub const NAME: &str = "notify.sock";

/// The directory beside the container's record, which exists only once that does, bound read-only: the socket is ours
/// to make, and takes messages all the same.
pub fn plan(d: &mut Draft) -> Result<Option<Step>> {
    let Some(dir) = &d.request.notify else { return Ok(None) };
    let path = cpath(AT, dir)?;
    let propagation = super::inward(d);
    let tree = match d.host.privileged {
        true => {
            let what = OpenWhat::LateTree { path, own: None, attr: Attr::default(), propagation };
            Tree::Slot(d.open(Open { at: AT.into(), what }))
        }
        false => Tree::Path { path, recursive: false, nofollow: false, propagation },
    };
    let mount = Mount {
        target: cstring(AT, INSIDE)?,
        what: MountWhat::Bind(tree),
        strict_target: false,
        cover_link: false,
        copy_link: false,
        proc: OnProc::Never,
        attr: Attr { set: RDONLY | NOSUID | NODEV | NOEXEC, clear: 0 },
        rattr: Attr::default(),
        propagation: Vec::new(),
    };
    Ok(Some(Step::new(AT, Act::Mount(mount))))
}
