//! stand-in
use crate::error::Result;
use std::os::fd::*;
use std::path::Path;
pub fn check_socket(_p: &Path) -> Result<()> {
    Ok(())
}
pub fn send_master(_p: &Path, _m: BorrowedFd, _n: &str) -> Result<()> {
    Ok(())
}
pub struct Foreground;
impl Foreground {
    pub fn prepare(_t: bool, _s: bool) -> Result<Foreground> {
        Ok(Foreground)
    }
    pub fn wait(self, pid: i32, _p: BorrowedFd, _m: Option<OwnedFd>) -> Result<i32> {
        Ok(crate::sys::clone::wait(pid, true).ok().flatten().map(|e| e.code()).unwrap_or(0))
    }
}
