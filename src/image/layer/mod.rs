//! A layer: a tar stream becomes checked entries, and these become files below a directory descriptor or one image; and
//! back.

pub mod apply;
pub mod compress;
pub mod dirs;
pub mod entry;
pub mod files;
pub mod merge;
pub mod pack;
pub mod pax;
pub mod pour;
pub mod read;
pub mod sink;
pub mod write;

#[cfg(test)]
mod tests;
