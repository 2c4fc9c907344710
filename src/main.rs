//! The binary: everything is in the library, so that tests reach it too.
#![cfg_attr(target_env = "gnu", no_main)]

orlop::program!(orlop::main);
