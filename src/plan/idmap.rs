//! Planned: idmap.
