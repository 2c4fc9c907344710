//! The seccomp section: profile to BPF program.
