//! System calls: path.
