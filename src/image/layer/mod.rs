//! A layer: a tar stream becomes checked entries, and these become files below a directory descriptor.

pub mod apply;
pub mod compress;
pub mod dirs;
pub mod entry;
pub mod pax;
pub mod read;

#[cfg(test)]
mod tests;
