//! delete: frees everything that create made (runtime.md#delete).

use super::make;
use crate::cgroup::{Cgroup, FROZEN_ABOVE};
use crate::container::{self, Container, Process, StateRoot, Status};
use crate::error::{Error, Kind, Result};
use crate::sys::fd;
use std::os::fd::AsRawFd;

pub fn delete(root: &StateRoot, id: &str, force: bool) -> Result<()> {
    container::check_id(id)?;
    if force {
        return by_force(root, id);
    }
    let living = |status: Status| {
        let what = format!("cannot delete container that is not stopped: {}", status.as_str());
        Error::new(Kind::WrongState, format!("container {id:?}"), what)
    };
    let c = root.lock(id, || living(Status::Creating))?;
    match c.status() {
        (Status::Stopped, _) => make::remove(&c, c.init().is_some()),
        // Its program never ran: engines rely on this going away without `start` (runc does the same).
        (Status::Created, _) => {
            end(&c)?;
            make::remove(&c, true)
        }
        (status, _) => Err(living(status)),
    }
}

/// Succeeds whatever is there: nothing, half a container, a live one, one whose record cannot be read.
fn by_force(root: &StateRoot, id: &str) -> Result<()> {
    // A create in progress fails and undoes itself once its init is gone; waiting for its lock alone could take long.
    let kill = || {
        if let Some((init, _)) = root.load(id).ok().and_then(|c| c.init()) {
            let _ = container::signal(init, libc::SIGKILL); // gone already is as good
        }
        Ok(())
    };
    let Some(handle) = root.insist_on_lock(id, kill)? else { return Ok(()) };
    match root.load(id) {
        Ok(mut c) => {
            c.hold(handle);
            let lived = end(&c)?;
            make::remove(&c, lived)
        }
        // The next try may read it: what is outside of the directory is found by the record alone.
        Err(e) if e.errno().is_some_and(|e| TRANSIENT.contains(&e)) => Err(e),
        Err(e) => {
            // Without a record nothing outside of the directory was made; a damaged one still leaves us init.
            if e.kind != Kind::NotFound {
                tracing::warn!("{e}; init is killed and the directory removed all the same");
            }
            let c = root.without_record(id, handle);
            let living = c.init().filter(|i| i.0.is_alive()).map(|i| i.0.pid);
            let cgroup = Cgroup::lost(living, id)?;
            end(&c)?;
            // What was found by init is the container's, and no later call finds it.
            cgroup.remove(make::PATIENCE, living.is_some())?;
            c.remove()
        }
    }
}

/// Of a read that says nothing of the file.
const TRANSIENT: [i32; 5] = [libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::EAGAIN, libc::EINTR];

/// Kills init and waits until it is dead, or for the time that a removal has. `false`: there never was one.
fn end(c: &Container) -> Result<bool> {
    let Some((init, _)) = c.init() else { return Ok(false) };
    let Some(pidfd) = init.pidfd() else { return Ok(true) };
    let _ = container::signal(init, libc::SIGKILL); // gone already is as good
    c.cgroup().thaw()?;
    // Only one above is: it was thawed itself.
    await_end(init, &pidfd).map_err(|e| if c.cgroup().is_frozen() { e.hint(FROZEN_ABOVE) } else { e })?;
    Ok(true)
}

fn await_end(init: Process, pidfd: &impl AsRawFd) -> Result<()> {
    let patience = make::PATIENCE.as_millis() as i32;
    match fd::poll([(pidfd.as_raw_fd(), libc::POLLIN)], patience) {
        Ok([0]) => {
            let what = format!("process {} did not end within {patience} ms of SIGKILL", init.pid);
            Err(Error::new(Kind::WrongState, "container process", what))
        }
        _ => Ok(()),
    }
}
