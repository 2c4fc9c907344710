//! One function per system call, no policy; the only room with unsafe code.
#![allow(unsafe_code)]

pub mod bpf;
pub mod clone;
pub mod cred;
pub mod fd;
pub mod mount;
pub mod ns;
pub mod path;
pub mod seccomp;
pub mod signal;
pub mod tty;
