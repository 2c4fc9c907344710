//! System calls: cred.
