//! Document + host facts to a decided plan; pure: no I/O, no system calls, no `oci_spec` beyond its vocabulary.

pub mod caps;
pub mod cgroup;
pub mod devices;
pub mod hooks;
pub mod idmap;
pub mod mounts;
pub mod net;
pub mod order;
pub mod paths;
pub mod process;
pub mod seccomp;
pub mod spawn;
pub mod step;
pub mod user;
