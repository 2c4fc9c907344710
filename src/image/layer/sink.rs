//! What a layer becomes: files below a directory ([`super::files`]), or one EROFS image ([`crate::image::erofs`]). All
//! checks of entries stand before it, so that both forms take and refuse the same.

use super::entry::Meta;
use crate::error::Result;
use std::io::BufRead;

/// What a name is that is no directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A symbolic link, with its target.
    Link(Vec<u8>),
    Other,
}

/// A device or FIFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Takes the names of a layer, each by its path without links, in directories that it was told to make.
///
/// What makes something returns false, and has done nothing, when the name is taken.
pub trait Sink {
    /// What is at a path that is no directory.
    fn look(&mut self, path: &[u8]) -> Result<Option<Seen>>;
    fn dir(&mut self, path: &[u8]) -> Result<bool>;
    /// A file of `size` bytes with data at these extents, in order; `data` has the data alone.
    fn file(
        &mut self,
        path: &[u8],
        size: u64,
        extents: &[(u64, u64)],
        meta: &Meta,
        data: &mut dyn BufRead,
    ) -> Result<bool>;
    fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<bool>;
    fn node(&mut self, path: &[u8], node: Node, meta: &Meta) -> Result<bool>;
    /// A hard link to `from`, which is there and no directory.
    fn link(&mut self, from: &[u8], path: &[u8]) -> Result<bool>;
    /// overlayfs' mark of a name that is hidden.
    fn whiteout(&mut self, path: &[u8]) -> Result<bool>;
    /// Removes what is there, a directory with all that is in it.
    fn remove(&mut self, path: &[u8], is_dir: bool) -> Result<()>;
    /// Ends with the metadata of all directories, deepest first, and whether each is opaque.
    fn finish(&mut self, dirs: &[(&[u8], &Meta, bool)]) -> Result<()>;
}
