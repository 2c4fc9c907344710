//! config-linux.md#control-groups: where the container's cgroup is, and what is written into it.

pub mod devices;
mod io;
mod memory;
mod owner;
mod rest;
pub mod systemd;
mod time;
pub mod update;

use super::{Draft, Facts, document};
use crate::config;
use crate::error::{Error, Result};
use owner::owner;
use std::fmt;

/// How the host's cgroups are laid out; asked once by `cgroup::probe`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Mounted v1 hierarchies, named ones too.
    pub v1: Vec<Hierarchy>,
    /// Where cgroup2 is mounted: `/sys/fs/cgroup` (pure v2) or `/sys/fs/cgroup/unified` (hybrid).
    pub v2: Option<Unified>,
}

/// One v1 hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchy {
    /// Absolute path of the mount, `/sys/fs/cgroup/cpu,cpuacct`.
    pub mount: String,
    /// What is attached: `cpu`, `cpuacct`, or `name=systemd`.
    pub controllers: Vec<String>,
    /// Our own cgroup in it, `/` or `/a/b`.
    pub own: String,
}

/// The v2 hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unified {
    /// Absolute path of the mount.
    pub mount: String,
    /// Controllers at the mount's root.
    pub controllers: Vec<String>,
    /// Our own cgroup in it.
    pub own: String,
}

impl Hierarchies {
    /// `--cgroup-manager=disabled`, or a host without cgroups.
    pub fn are_none(&self) -> bool {
        self.v1.is_empty() && self.v2.is_none()
    }

    /// No v1 controller is mounted: limits go to v2.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }
}

/// One value for one file of the cgroup, written in the order planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub file: String,
    pub value: String,
    /// The property that asks for it.
    pub at: String,
    pub need: Need,
    /// File and value for kernels that have not `file`.
    pub or: Option<(String, String)>,
}

/// What may go wrong with a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Must,
    /// The file may be missing: without it the kernel does what is asked, or the plain file says as much.
    IfThere,
    /// Our own addition to the user's list: a parent cgroup that forbids it has the last word.
    IfPermitted,
}

/// The container's cgroup in one v1 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V1 {
    pub mount: String,
    /// Below the mount, without a leading slash.
    pub path: String,
    pub controllers: Vec<String>,
    pub writes: Vec<Write>,
}

/// The container's cgroup in the v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V2 {
    pub mount: String,
    /// Below the mount, without a leading slash.
    pub path: String,
    /// Controllers that a limit needs, each with the property that asks first.
    pub needed: Vec<(String, String)>,
    /// Controllers to have if they can be had: whoever reads statistics expects them.
    pub wanted: Vec<String>,
    pub writes: Vec<Write>,
    /// BPF_CGROUP_DEVICE program; `None` allows every device.
    pub devices: Option<Vec<u64>>,
    /// Whom the cgroup is handed over to, a uid of the host.
    pub owner: Option<u32>,
}

/// Everything that is made and written before init joins.
#[derive(Clone, Debug, Default)]
pub struct CgroupPlan {
    pub v1: Vec<V1>,
    pub v2: Option<V2>,
    /// The unit of systemd that brings the cgroup along, where systemd makes it.
    pub unit: Option<systemd::Unit>,
    /// Device rules are left out: only the host's root may set them.
    pub without_devices: bool,
    /// `--rootless`: a cgroup that may not be made is done without, unless a limit needs it. Unset, whoever is not the
    /// host's root may do without.
    pub tolerant: Option<bool>,
}

/// For whom cgroups are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Root of the host.
    Root,
    /// Root of a user namespace.
    Nested,
    OrdinaryUser,
}

impl Who {
    pub fn of(host: &Facts) -> Who {
        match (host.euid, host.nested) {
            (0, false) => Who::Root,
            (0, true) => Who::Nested,
            _ => Who::OrdinaryUser,
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: write {:?} to {}", self.at, self.value, self.file)
    }
}

impl CgroupPlan {
    /// In words, in the order in which it is done.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(unit) = &self.unit {
            lines.push(format!("linux.cgroupsPath: have systemd start the unit {}", unit.name));
            lines
                .extend(unit.properties.iter().map(|p| format!("  {}: set {} to {}", p.at, p.name, p.value)));
        }
        for v in &self.v1 {
            lines.push(format!("linux.cgroupsPath: make {}/{}", v.mount, v.path));
            lines.extend(v.writes.iter().map(|w| format!("  {w}")));
        }
        if let Some(v) = &self.v2 {
            lines.push(format!("linux.cgroupsPath: make {}/{}", v.mount, v.path));
            let controllers = v.needed.iter().map(|(c, at)| format!("  {at}: enable the controller {c}"));
            lines.extend(controllers.chain(v.writes.iter().map(|w| format!("  {w}"))));
            if let Some(p) = &v.devices {
                lines
                    .push(format!("  linux.resources.devices: attach a program of {} instructions", p.len()));
            }
            lines.extend(v.owner.map(|uid| format!("  linux.cgroupsPath: chown to {uid}")));
        }
        lines
    }
}

/// The container's cgroup, an absolute path below the root of every hierarchy. A relative path starts at the root too,
/// and an absent one is the container's id, as in runc.
pub fn path(p: Option<&str>, id: &str) -> Result<String> {
    let at = "linux.cgroupsPath";
    let asked = p.filter(|p| !p.is_empty()).unwrap_or(id);
    let mut path = String::new();
    for part in asked.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part == ".." {
            return Err(Error::invalid(at, format!("{asked:?} has a \"..\"")));
        }
        if part.len() > 255 {
            return Err(Error::invalid(at, "has a name of more than 255 bytes"));
        }
        if part.contains(['\0', '\n']) {
            return Err(Error::invalid(at, format!("{asked:?} has a byte that no cgroup's name may have")));
        }
        path.push('/');
        path.push_str(part);
    }
    if path.is_empty() {
        return Err(Error::invalid(
            at,
            format!("{asked:?} is the root, which limits and removes everything"),
        ));
    }
    Ok(path)
}

/// Absolute path of the container's cgroup, and the unit for which systemd makes it.
pub fn place(d: &Draft) -> Result<(String, Option<systemd::Place>)> {
    let id = &d.request.id;
    match &d.host.systemd {
        Some(manager) => systemd::place(asked(d), id, manager).map(|p| (p.path.clone(), Some(p))),
        None => Ok((path(asked(d), id)?, None)),
    }
}

fn asked<'a>(d: &Draft<'a>) -> Option<&'a str> {
    d.config.linux.as_ref().and_then(|l| l.cgroups_path.as_deref())
}

/// The cgroup of a new container, in this unit of systemd's if there is one.
pub fn for_create(
    d: &mut Draft,
    unit: Option<&systemd::Place>,
    nodes: &[(char, u32, u32)],
) -> Result<CgroupPlan> {
    let resources = document::resources(d.config);
    let path = unit.map(|u| u.path.as_str()).or(asked(d));
    let (id, who) = (&d.request.id, Who::of(d.host));
    let mut plan = plan(resources.as_deref(), path, id, nodes, &d.host.cgroups, who, &mut d.warnings)?;
    plan.tolerant = d.request.rootless;
    if let (Some(place), Some(manager)) = (unit, &d.host.systemd) {
        plan.unit = Some(systemd::unit(d, place, manager, &plan, nodes)?);
    }
    if let Some(v2) = &mut plan.v2 {
        v2.owner = owner(d);
    }
    Ok(plan)
}

/// Checks `linux.resources` and decides every write. Without hierarchies (`--cgroup-manager=disabled`) values are
/// checked all the same, nothing is made, and what is not applied is warned of. An ordinary user's relative path is
/// below our own cgroup, the only place where there may be rights. `nodes` are the devices that every container has.
pub fn plan(
    r: Option<&config::Resources>,
    p: Option<&str>,
    id: &str,
    nodes: &[(char, u32, u32)],
    h: &Hierarchies,
    who: Who,
    warnings: &mut Vec<String>,
) -> Result<CgroupPlan> {
    let path = path(p, id)?;
    let below_own = who == Who::OrdinaryUser && !p.is_some_and(|p| p.starts_with('/'));
    let none = config::Resources::default();
    let r = r.unwrap_or(&none);
    let mut sheet = Sheet { plan: CgroupPlan::default(), v2: Vec::new(), h, warnings };
    sheet.lay_out(&path, below_own);
    let rules = devices::rules(r.devices.as_deref(), nodes)?;
    if h.are_none() {
        sheet.limits(r)?;
        sheet.warn_of_limits(&rules);
        return Ok(CgroupPlan::default());
    }
    if who == Who::Root {
        devices::plan(&rules, &mut sheet)?;
    } else {
        devices::check_without(&rules)?;
        sheet.plan.without_devices = true;
    }
    sheet.limits(r)?;
    if let Some(v2) = &mut sheet.plan.v2 {
        v2.writes = sheet.v2;
        if below_own && !v2.needed.is_empty() {
            // Our own cgroup has processes, us, and so can give its controllers to nobody (cgroups(7), "no internal
            // processes"): a sibling can have them.
            let own = h.v2.as_ref().map_or("", |u| u.own.rsplit_once('/').map_or("", |(up, _)| up));
            v2.path = join(own, &path);
        }
    }
    Ok(sheet.plan)
}

/// `/a` and `/b` to `a/b`.
fn join(base: &str, path: &str) -> String {
    format!("{}{path}", base.trim_end_matches('/')).trim_start_matches('/').to_string()
}

/// Where limits are written down, each in the hierarchy that has its controller.
struct Sheet<'a> {
    plan: CgroupPlan,
    /// Writes of the v2 side.
    v2: Vec<Write>,
    h: &'a Hierarchies,
    warnings: &'a mut Vec<String>,
}

/// The cgroup version that has a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    V1(usize),
    V2,
}

impl Sheet<'_> {
    fn lay_out(&mut self, path: &str, below_own: bool) {
        let place = |own: &str| join(if below_own { own } else { "" }, path);
        for h in &self.h.v1 {
            self.plan.v1.push(V1 {
                mount: h.mount.clone(),
                path: place(&h.own),
                controllers: h.controllers.clone(),
                writes: Vec::new(),
            });
        }
        if self.h.are_none() {
            let none = String::new;
            // Takes what is written, to be warned of.
            self.plan.v1.push(V1 { mount: none(), path: none(), controllers: vec![], writes: vec![] });
        }
        let unified = self.h.is_unified();
        self.plan.v2 = self.h.v2.as_ref().map(|u| V2 {
            mount: u.mount.clone(),
            path: place(&u.own),
            needed: Vec::new(),
            wanted: if unified { u.controllers.clone() } else { Vec::new() },
            writes: Vec::new(),
            devices: None,
            owner: None,
        });
    }

    fn limits(&mut self, r: &config::Resources) -> Result<()> {
        r.memory.as_ref().map_or(Ok(()), |m| memory::plan(m, self))?;
        r.cpu.as_ref().map_or(Ok(()), |c| time::plan(c, self))?;
        r.block_io.as_ref().map_or(Ok(()), |b| io::plan(b, self))?;
        rest::plan(r, self)
    }

    /// Which side has the controller that `at` needs.
    fn side(&mut self, controller: &str, at: &str) -> Result<Side> {
        if self.h.are_none() {
            return Ok(Side::V1(0));
        }
        let has = |list: &[String]| list.iter().any(|c| c == controller);
        if let Some(n) = self.plan.v1.iter().position(|v| has(&v.controllers)) {
            return Ok(Side::V1(n));
        }
        match (&mut self.plan.v2, &self.h.v2) {
            (Some(v2), Some(u)) if has(&u.controllers) => {
                if !v2.needed.iter().any(|(c, _)| c == controller) {
                    v2.needed.push((controller.to_string(), at.to_string()));
                }
                Ok(Side::V2)
            }
            _ => {
                let what =
                    format!("needs the cgroup controller {controller:?}, which this host does not have");
                Err(Error::unsupported(at, what))
            }
        }
    }

    fn put(&mut self, side: Side, file: &str, value: impl ToString, at: &str) -> &mut Write {
        let list = match side {
            Side::V1(n) => &mut self.plan.v1[n].writes,
            Side::V2 => &mut self.v2,
        };
        list.push(Write {
            file: file.to_string(),
            value: value.to_string(),
            at: at.to_string(),
            need: Need::Must,
            or: None,
        });
        let last = list.len() - 1;
        &mut list[last]
    }

    fn warn_of_limits(&mut self, rules: &[devices::Rule]) {
        let limits = self.plan.v1.iter().flat_map(|v| &v.writes).map(|w| w.at.as_str());
        let mut all: Vec<_> = devices::limit(rules).into_iter().chain(limits).collect();
        all.dedup();
        self.warnings.extend(all.iter().map(|at| format!("{at}: not applied, since no cgroup is used")));
    }
}

impl Write {
    fn need(&mut self, need: Need) -> &mut Self {
        self.need = need;
        self
    }
}

/// There is no v2 file for it: a limit that would not hold must not be taken.
fn v1_only(at: &str) -> Error {
    Error::unsupported(at, "exists on cgroup v1 only")
}

/// What engines send for a field that their user left alone.
fn unset_if_zero<T: PartialEq + Default>(value: Option<T>) -> Option<T> {
    value.filter(|v| *v != T::default())
}

/// v2's word for no limit.
fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

#[cfg(test)]
mod tests;
