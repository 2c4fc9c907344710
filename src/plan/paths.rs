//! stand-in
use super::Draft;
use super::step::*;
use crate::error::Result;
use std::ffi::CString;
pub struct Paths {
    pub readonly: Vec<Step>,
    pub masked: Vec<Step>,
    pub propagation: Option<(u64, bool)>,
    pub isolate: u64,
}
pub fn plan(d: &mut Draft) -> Result<Paths> {
    let l = d.config.linux.clone().unwrap_or_default();
    let f = |v: Option<Vec<String>>, m: bool| {
        v.unwrap_or_default()
            .iter()
            .map(|p| {
                let c = CString::new(p.as_str()).unwrap();
                Step::new("linux.maskedPaths", if m { Act::MaskPath(c) } else { Act::ReadonlyPath(c) })
            })
            .collect()
    };
    Ok(Paths {
        readonly: f(l.readonly_paths, false),
        masked: f(l.masked_paths, true),
        propagation: None,
        isolate: 1 << 19,
    })
}
