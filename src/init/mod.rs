//! The container side: each step done, or reported.
