//! Planned: step.
