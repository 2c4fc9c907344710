//! Planned: paths.
