//! config-linux.md#control-groups: where the container's cgroup is, and what is written into it.
use crate::config;
use crate::error::Result;

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
    /// No v1 controller is mounted: limits go to v2.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }
}

#[derive(Clone, Debug, Default)]
pub struct CgroupPlan {}

/// The container's cgroup, an absolute path below the root of every hierarchy.
pub fn path(_p: Option<&str>, id: &str) -> Result<String> {
    Ok(format!("/{id}"))
}

pub fn plan(
    _r: Option<&config::Resources>,
    _p: Option<&str>,
    _id: &str,
    _n: &[(char, u32, u32)],
    _h: &Hierarchies,
    _w: &mut Vec<String>,
) -> Result<CgroupPlan> {
    Ok(CgroupPlan {})
}
