//! Planned: process.
