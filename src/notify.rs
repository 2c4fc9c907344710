//! The seccomp agent: one connection, one message with the state and the listener (config-linux.md#seccomp).

use crate::error::{Error, Result, os};
use crate::plan::seccomp::Listener;
use crate::sys::fd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// config-linux.md#the-container-process-state
pub fn hand_on(l: &Listener, listener: &OwnedFd, state: &serde_json::Value, pid: i32) -> Result<()> {
    let at = "linux.seccomp.listenerPath";
    let socket =
        UnixStream::connect(&l.path).map_err(|e| Error::io(at, format!("connect to {:?}", l.path), &e))?;
    let message = serde_json::json!({
        "ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid, "metadata": l.metadata, "state": state,
    });
    fd::send_fd(&socket, message.to_string().as_bytes(), listener)
        .map_err(os(at, format!("sendmsg to {:?}", l.path)))
}
