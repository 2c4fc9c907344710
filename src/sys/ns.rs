//! System calls: ns.
