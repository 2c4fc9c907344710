//! System calls: bpf.
