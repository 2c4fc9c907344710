//! The one-file form of a layer: an EROFS image (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h), which the
//! kernel mounts from the file. An import inflates, hashes and writes one file from its start to its end; no inode of
//! the host is made for what is in it.
//!
//! Data is never compressed. The whole image is addressed as metadata (`meta_blkaddr` 0), so that inodes stand among the
//! data and are written as the files arrive: [`space`] says where, [`format`] what, [`image`] takes a layer's entries and
//! [`mount`] mounts.

pub mod format;
pub mod image;
pub mod mount;
pub mod space;

#[cfg(test)]
pub mod tests;
