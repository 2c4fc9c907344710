//! System calls: clone.
