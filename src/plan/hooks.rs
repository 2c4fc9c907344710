//! Planned: hooks.
