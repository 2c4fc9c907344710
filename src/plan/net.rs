//! Planned: net.
