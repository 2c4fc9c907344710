//! Planned: cgroup.
