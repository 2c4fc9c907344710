//! stand-in
use super::Draft;
use super::step::*;
use crate::error::Result;
use std::ffi::CString;
pub struct Net {
    pub names: Vec<Step>,
    pub sysctl: Vec<Step>,
    pub loopback: bool,
}
pub fn plan(d: &mut Draft) -> Result<Net> {
    Ok(Net {
        names: d
            .config
            .hostname
            .iter()
            .map(|h| Step::new("hostname", Act::Hostname(CString::new(h.as_str()).unwrap())))
            .collect(),
        sysctl: vec![],
        loopback: true,
    })
}
pub fn time_offsets(_d: &mut Draft) -> Result<Option<Step>> {
    Ok(None)
}
