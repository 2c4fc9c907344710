//! Planned: user.
