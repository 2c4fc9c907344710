//! stand-in
use super::Draft;
use super::step::*;
use crate::error::Result;
use std::ffi::CString;
pub struct Mounts {
    pub steps: Vec<Step>,
    pub late: Vec<Step>,
    pub dev_is_bind: bool,
}
pub fn tree_propagation(_d: &Draft) -> u64 {
    1 << 19
}
pub fn plan(d: &mut Draft, _c: &str) -> Result<Mounts> {
    let mut steps = vec![];
    for (n, m) in d.config.mounts.clone().unwrap_or_default().iter().enumerate() {
        let k = m.kind.clone().unwrap_or_default();
        if k == "cgroup" || k == "bind" {
            continue;
        }
        let mut params = vec![];
        for o in m.options.clone().unwrap_or_default() {
            if let Some((a, b)) = o.split_once('=') {
                params.push((CString::new(a).unwrap(), Some(CString::new(b).unwrap())))
            }
        }
        steps.push(Step::new(
            format!("mounts[{n}] ({})", m.destination.clone().unwrap()),
            Act::Mount(Mount {
                target: CString::new(m.destination.clone().unwrap()).unwrap(),
                strict_target: k == "proc",
                what: MountWhat::New {
                    fstype: CString::new(k.clone()).unwrap(),
                    source: CString::new(k.clone()).unwrap(),
                    params,
                    copy_up: false,
                    inherit_mode: false,
                    fallback: None,
                },
                attr: Attr::default(),
                rattr: Attr::default(),
                propagation: vec![],
            }),
        ));
    }
    Ok(Mounts { steps, late: vec![], dev_is_bind: false })
}
