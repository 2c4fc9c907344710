//! Planned: devices.
