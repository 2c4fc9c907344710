//! stand-in
use super::Draft;
use super::step::*;
use crate::error::Result;
use std::ffi::CString;
pub struct Devices {
    pub steps: Vec<Step>,
    pub nodes: Vec<(char, u32, u32)>,
}
pub fn plan(_d: &mut Draft, _b: bool) -> Result<Devices> {
    let mut steps = vec![];
    for (p, a, b) in [("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/tty", 5, 0)] {
        steps.push(Step::new(
            "linux.devices",
            Act::Device(Device {
                path: CString::new(p).unwrap(),
                kind: 0o020000,
                major: a,
                minor: b,
                mode: 0o666,
                uid: 0,
                gid: 0,
                bind: None,
            }),
        ))
    }
    steps.push(Step::new(
        "linux.devices",
        Act::Symlink {
            target: CString::new("pts/ptmx").unwrap(),
            path: CString::new("/dev/ptmx").unwrap(),
            only_if: None,
            replace: true,
        },
    ));
    Ok(Devices { steps, nodes: vec![] })
}
