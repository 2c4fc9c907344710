//! A layer as it lies in the store, into its other form. Of an archive nothing is needed: both forms have the same names.

use super::dirs::failed;
use super::entry::{Meta, refuse};
use super::merge::{Node, proc_path, walk};
use super::sink::{Node as Device, Sink};
use super::write::{open_regular, xattrs};
use crate::error::Result;
use crate::image::progress::Task;
use crate::image::view::View;
use rustix::fs::{self, FileType, SeekFrom, Stat};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

/// Gives all names of a layer to `sink`, which is empty. Bytes of files are told to `task`.
pub fn pour(from: Rc<OwnedFd>, sink: &mut impl Sink, task: &Task) -> Result<()> {
    let stat = fs::fstat(&*from).map_err(|e| failed(b"", "fstat", e))?;
    let mut dirs = BTreeMap::from([(Vec::new(), (meta(b"", &stat, &proc_path(&from, b"."))?, false))]);
    let mut links: HashMap<u64, Vec<u8>> = HashMap::new();
    walk(&View { layers: vec![from] }, false, |node| {
        let (path, stat) = (node.path, &node.stat);
        if node.is_whiteout() {
            return sink.whiteout(path).map(drop);
        }
        if stat.st_nlink > 1 && !node.is_dir() {
            if let Some(first) = links.get(&stat.st_ino) {
                return sink.link(first, path).map(drop);
            }
            links.insert(stat.st_ino, path.to_vec());
        }
        let meta = meta(path, stat, &node.proc_path())?;
        let device = || (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
        let special = match node.kind() {
            FileType::Directory => {
                sink.dir(path)?;
                dirs.insert(path.to_vec(), (meta, node.opaque));
                return Ok(());
            }
            FileType::RegularFile => return file(node, &meta, sink, task),
            FileType::Symlink => {
                let target = fs::readlinkat(node.dir, node.name, Vec::new())
                    .map_err(|e| failed(path, "readlinkat", e))?;
                return sink.symlink(path, target.as_bytes(), &meta).map(drop);
            }
            FileType::Fifo => Device::Fifo,
            FileType::CharacterDevice => Device::Char(device().0, device().1),
            FileType::BlockDevice => Device::Block(device().0, device().1),
            kind => return Err(refuse(path, format!("is a {kind:?}, which no layer has"))),
        };
        sink.node(path, special, &meta).map(drop)
    })?;
    let all: Vec<_> = dirs.iter().rev().map(|(path, (meta, opaque))| (&path[..], meta, *opaque)).collect();
    sink.finish(&all)
}

fn meta(path: &[u8], stat: &Stat, place: &[u8]) -> Result<Meta> {
    let mtime = (stat.st_mtime, stat.st_mtime_nsec as u32);
    let mode = stat.st_mode & 0o7777;
    Ok(Meta { mode, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs: xattrs(path, place)? })
}

fn file(node: &Node, meta: &Meta, sink: &mut impl Sink, task: &Task) -> Result<()> {
    let file = open_regular(node.path, node.dir, node.name, &node.stat)?;
    let size = node.stat.st_size as u64;
    let parts = parts(&file, size).map_err(|e| failed(node.path, "lseek", e))?;
    let data = Data { file: &file, parts: &parts, at: 0 };
    sink.file(node.path, size, &parts, meta, &mut BufReader::with_capacity(128 << 10, task.read(data)))?;
    Ok(())
}

/// Offsets and lengths of what is no hole.
fn parts(file: &File, size: u64) -> std::result::Result<Vec<(u64, u64)>, Errno> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match fs::seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => break, // a hole to the end
            start => start?.min(size),
        };
        at = fs::seek(file, SeekFrom::Hole(start))?.min(size);
        out.push((start, at - start));
    }
    Ok(out)
}

/// These parts, one behind the other.
struct Data<'a> {
    file: &'a File,
    parts: &'a [(u64, u64)],
    /// In the first of them.
    at: u64,
}

impl Read for Data<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some((start, length)) = self.parts.first() {
            let left = usize::try_from(length - self.at).unwrap_or(usize::MAX).min(buf.len());
            if left > 0 || buf.is_empty() {
                let n = self.file.read_at(&mut buf[..left], start + self.at)?;
                self.at += n as u64;
                return Ok(n);
            }
            (self.parts, self.at) = (&self.parts[1..], 0);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::layer::files::Files;
    use crate::image::progress;
    use crate::image::rights::Rights;
    use crate::image::tree::compare;
    use crate::image::view::open;
    use rustix::fs::{CWD, Mode, XattrFlags};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn a_layer_is_poured_whole() {
        let dir = std::env::temp_dir().join(format!("orlop-pour-{}", std::process::id()));
        let (a, b) = (dir.join("a"), dir.join("b"));
        std::fs::create_dir_all(a.join("d/opaque")).unwrap();
        std::fs::create_dir(&b).unwrap();
        let sparse = File::create(a.join("sparse")).unwrap();
        sparse.write_all_at(b"middle", 5 << 20).unwrap();
        sparse.set_len(9 << 20).unwrap();
        File::create(a.join("hole")).unwrap().set_len(1 << 20).unwrap();
        std::fs::write(a.join("d/f"), vec![7; 300_000]).unwrap();
        std::fs::hard_link(a.join("d/f"), a.join("z")).unwrap();
        std::fs::set_permissions(a.join("z"), std::fs::Permissions::from_mode(0o4711)).unwrap();
        symlink("t".repeat(300), a.join("link")).unwrap();
        fs::mknodat(CWD, a.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::mknodat(CWD, a.join("d/gone"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        fs::setxattr(a.join("d/opaque"), Rights::ours().opaque(), b"y", XattrFlags::empty()).unwrap();
        let _ = fs::setxattr(a.join("z"), "user.x", b"1", XattrFlags::empty()); // where the file system has them
        let task = progress::open_task("layer", None, None);
        pour(Rc::new(open(&a).unwrap()), &mut Files::new(open(&b).unwrap()), &task).unwrap();
        let mut differences = Vec::new();
        let mut tell = |path: &[u8], what| differences.push((path.to_vec(), what));
        compare(&open(&a).unwrap(), &open(&b).unwrap(), &mut tell).unwrap();
        let blocks = ["sparse", "hole"]
            .map(|name| [&a, &b].map(|root| std::fs::metadata(root.join(name)).unwrap().blocks()));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(differences, []);
        assert!(blocks.iter().all(|[a, b]| a == b), "{blocks:?}");
    }
}
