//! foreground.
