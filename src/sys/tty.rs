//! System calls: tty.
