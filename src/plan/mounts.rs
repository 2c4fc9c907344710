//! Planned: mounts.
