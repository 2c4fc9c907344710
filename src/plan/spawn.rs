//! Planned: spawn.
