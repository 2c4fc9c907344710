//! Planned: caps.
