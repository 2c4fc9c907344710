//! The overlay mount of a bundle.

use super::view::{Opened, utf8};
use crate::bundle::{IMAGE, Overlay, appends_lowers, is_plain};
use crate::error::{Error, Result};
use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    self, FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

/// Mounts on the directory `target`. Images are mounted for it, unless they are open already.
pub fn mount(o: &Overlay, target: &Path, opened: &mut Opened) -> Result<()> {
    let at = target.display().to_string();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::open(target, flags, Mode::empty())
        .map_err(|e| Error::os(&at, "open", e.raw_os_error()))?;
    if is_mounted(target)? {
        return Err(Error::new(crate::error::Kind::Exists, at, "is mounted already"));
    }
    if !appends_lowers() {
        return mount_by_string(o, target);
    }
    let made = assemble(o, target, opened)?;
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    mount::move_mount(&made, "", &place, "", both).map_err(|e| Error::os(&at, "move_mount", e.raw_os_error()))
}

/// A lower directory: by its path, or the root of a mount.
#[derive(Clone, Copy)]
enum Lower<'a> {
    Dir(&'a str),
    Image(BorrowedFd<'a>),
}

/// The mount without a place; `target` is a directory that the stack does not need.
pub fn assemble(o: &Overlay, target: &Path, opened: &mut Opened) -> Result<OwnedFd> {
    let image = |l: &String| l.strip_prefix(IMAGE).map(|path| opened.layer(Path::new(path))).transpose();
    let images: Vec<Option<Rc<OwnedFd>>> = o.lower.iter().map(image).collect::<Result<_>>()?;
    let lower = |(dir, image)| match image {
        Some(fd) => Lower::Image(AsFd::as_fd(fd)),
        None => Lower::Dir(dir),
    };
    let lowers: Vec<Lower> =
        o.lower.iter().map(String::as_str).zip(images.iter().map(Option::as_deref)).map(lower).collect();
    let has_images = images.iter().any(Option::is_some);
    let dirs = lowers.iter().filter_map(|l| match l {
        Lower::Dir(dir) => Some(*dir),
        Lower::Image(_) => None,
    });
    let own = [&o.upper, &o.work].into_iter().flatten().map(String::as_str);
    let made = match dirs.chain(own).all(|dir| is_plain(dir.as_bytes())) {
        true => create(o, &lowers, target),
        // The others are named by going there.
        false => apart(CloneFlags::CLONE_FS, || create(o, &lowers, target)),
    };
    // Before Linux 6.15 a layer must be a mount that has a place, before 6.13 it must have a path.
    if has_images && made.as_ref().is_err_and(|e| e.errno() == Some(libc::EINVAL)) {
        return apart(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS, || {
            create_in_private(o, &lowers, target)
        });
    }
    made
}

fn create(o: &Overlay, lowers: &[Lower], target: &Path) -> Result<OwnedFd> {
    let at = target.display().to_string();
    let fs = mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| {
        let error = Error::os(&at, "fsopen overlay", e.raw_os_error());
        // overlayfs mounts in user namespaces since Linux 5.11, in a mount namespace of their own.
        if e == Errno::PERM {
            error.hint("orlop run mounts it, in the container's user namespace")
        } else {
            error
        }
    })?;
    configure(&fs, o, lowers).map_err(|(key, e)| refused(&fs, &at, &format!("fsconfig overlay {key}"), e))?;
    mount::fsconfig_create(&fs).map_err(|e| refused(&fs, &at, "mount overlay", e))?;
    mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|e| refused(&fs, &at, "fsmount overlay", e))
}

/// The same with the images at places of a mount namespace that ends with this thread; overlayfs keeps mounts of its
/// own of all its layers.
fn create_in_private(o: &Overlay, lowers: &[Lower], target: &Path) -> Result<OwnedFd> {
    let at = target.display().to_string();
    let os = |call: &'static str| {
        let at = at.clone();
        move |e: Errno| Error::os(at, call, e.raw_os_error())
    };
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount::mount_change("/", private).map_err(os("make mounts private"))?;
    mount::mount("none", target, "tmpfs", MountFlags::empty(), None).map_err(os("mount tmpfs"))?;
    let mut places = Vec::new();
    for (n, lower) in lowers.iter().enumerate() {
        let Lower::Image(fd) = lower else { continue };
        let place = target.join(n.to_string());
        std::fs::create_dir(&place).map_err(|e| Error::io(&at, "make a place for a layer", &e))?;
        mount::move_mount(fd, "", rustix::fs::CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(os("move_mount of a layer"))?;
        places.push((n, utf8(&place)?));
    }
    let mut lowers = lowers.to_vec();
    places.iter().for_each(|(n, name)| lowers[*n] = Lower::Dir(name));
    create(o, &lowers, target)
}

/// Runs `job` on a thread that has a working directory of its own, and what else these flags unshare.
fn apart<T: Send>(flags: CloneFlags, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let own = || {
        nix::sched::unshare(flags).map_err(|e| Error::os("", "unshare", e as i32))?;
        job()
    };
    std::thread::scope(|s| match std::thread::Builder::new().spawn_scoped(s, own) {
        Ok(thread) => thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)),
        Err(e) => Err(Error::io("", "make a thread", &e)),
    })
}

fn configure(fs: &OwnedFd, o: &Overlay, lowers: &[Lower]) -> std::result::Result<(), (String, Errno)> {
    let set = |key: &str, value: &str| {
        mount::fsconfig_set_string(fs.as_fd(), key, value).map_err(|e| (key.to_string(), e))
    };
    let set_dir = |key: &str, dir: &str| {
        if is_plain(dir.as_bytes()) {
            return set(key, dir);
        }
        rustix::process::chdir(dir).map_err(|e| (key.to_string(), e))?;
        set(key, ".")
    };
    for lower in lowers {
        match lower {
            Lower::Dir(dir) => set_dir("lowerdir+", dir)?,
            Lower::Image(root) => mount::fsconfig_set_fd(fs.as_fd(), "lowerdir+", root)
                .map_err(|e| ("lowerdir+".to_string(), e))?,
        }
    }
    if let (Some(upper), Some(work)) = (&o.upper, &o.work) {
        set_dir("upperdir", upper)?;
        set_dir("workdir", work)?;
    }
    for option in &o.options {
        match option.split_once('=') {
            Some((key, value)) => set(key, value)?,
            None => mount::fsconfig_set_flag(fs.as_fd(), option).map_err(|e| (option.clone(), e))?,
        }
    }
    Ok(())
}

/// The messages of the kernel: each starts with a letter for its kind (fsopen(2)).
fn log(fs: &OwnedFd) -> Vec<String> {
    let mut out = Vec::new();
    let mut buf = [0; 1024];
    while let Ok(n @ 1..) = rustix::io::read(fs, &mut buf) {
        let text = String::from_utf8_lossy(&buf[..n]);
        let text = text.trim_end();
        out.push(text.get(2..).unwrap_or(text).to_string());
    }
    out
}

fn refused(fs: &OwnedFd, at: &str, call: &str, e: Errno) -> Error {
    let error = Error::os(at, call, e.raw_os_error());
    match &log(fs)[..] {
        [] => error,
        lines => error.hint(lines.join("; ")),
    }
}

/// The directory of short links beside a rootfs, for as long as it is mounted.
pub const LINKS: &str = ".lower";

/// The way of older kernels: all layers in one page of options, which short links keep small.
fn mount_by_string(o: &Overlay, target: &Path) -> Result<()> {
    let at = target.display().to_string();
    if o.lower.iter().any(|l| l.starts_with(IMAGE)) {
        return Err(Error::unsupported(at, "has layers that are EROFS images, which Linux 6.12 mounts"));
    }
    let io = |what: &'static str| {
        let at = at.clone();
        move |e: std::io::Error| Error::io(at, what, &e)
    };
    let links = target.with_file_name(LINKS);
    let _ = std::fs::remove_dir_all(&links); // of a command that was killed: nobody else is at this bundle
    std::fs::create_dir(&links).map_err(io("make links to the layers"))?;
    let mounted = (|| {
        let all = o.lower.iter().map(String::as_str);
        for (n, dir) in all.chain(o.upper.as_deref()).chain(o.work.as_deref()).enumerate() {
            std::os::unix::fs::symlink(dir, links.join(n.to_string()))
                .map_err(io("make links to the layers"))?;
        }
        let count = o.lower.len();
        let lowers: Vec<String> = (0..count).map(|n| n.to_string()).collect();
        let mut data = format!("lowerdir={}", lowers.join(":"));
        if o.upper.is_some() && o.work.is_some() {
            data.push_str(&format!(",upperdir={count},workdir={}", count + 1));
        }
        for option in &o.options {
            data.push(',');
            data.push_str(option);
        }
        let target = std::path::absolute(target).map_err(io("resolve"))?;
        let data = std::ffi::CString::new(data).map_err(|e| Error::invalid(&at, e.to_string()))?;
        let os = |e: Errno| Error::os(&at, "mount overlay", e.raw_os_error());
        apart(CloneFlags::CLONE_FS, || {
            rustix::process::chdir(&links).map_err(os)?;
            mount::mount("overlay", &target, "overlay", MountFlags::empty(), Some(data.as_c_str()))
                .map_err(os)
        })
    })();
    // The kernel has resolved the links; left behind they do no harm.
    let _ = std::fs::remove_dir_all(&links);
    mounted
}

/// Whether a directory is the root of a mount (statx(2), Linux 5.8).
pub fn is_mounted(dir: &Path) -> Result<bool> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
    let at = dir.display().to_string();
    let st = rustix::fs::statx(rustix::fs::CWD, dir, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .map_err(|e| Error::os(at, "statx", e.raw_os_error()))?;
    Ok(st.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Unmounts what is on `target`.
pub fn unmount(target: &Path) -> Result<()> {
    let at = target.display().to_string();
    if !is_mounted(target)? {
        return Err(Error::new(crate::error::Kind::WrongState, at, "is not mounted"));
    }
    mount::unmount(target, UnmountFlags::NOFOLLOW).map_err(|e| {
        let error = Error::os(at, "umount", e.raw_os_error());
        if e == Errno::BUSY { error.hint("a container or another process uses it") } else { error }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::erofs::image::Image;
    use crate::image::layer::entry::Meta;
    use crate::image::layer::sink::Sink;
    use std::path::PathBuf;

    /// Both ways to mount give the same tree, for more layers than a page has room for their names.
    #[test]
    fn the_old_way_mounts_the_same() {
        if !rustix::process::geteuid().is_root() {
            return; // an ordinary user cannot mount; the integration tests count that
        }
        let dir = std::env::temp_dir().join(format!("orlop-overlay-{}", std::process::id()));
        let make = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path.to_str().unwrap().to_string()
        };
        let lower: Vec<String> =
            (0..300).map(|n| make(&format!("a-rather-long-name-of-a-layer/{n}"))).collect();
        for (n, l) in lower.iter().enumerate() {
            std::fs::write(format!("{l}/f"), n.to_string()).unwrap();
            std::fs::write(format!("{l}/{n}"), "").unwrap();
        }
        let o = Overlay { lower, upper: Some(make("upper")), work: Some(make("work")), ..Overlay::default() };
        let target = PathBuf::from(make("rootfs"));
        std::fs::write(PathBuf::from(make(LINKS)).join("0"), "left by a kill").unwrap();
        let look = || {
            let seen =
                (std::fs::read_to_string(target.join("f")), std::fs::read_dir(&target).unwrap().count());
            unmount(&target).unwrap();
            seen
        };
        let new = mount(&o, &target, &mut Opened::default()).map(|()| look());
        let old = mount_by_string(&o, &target).map(|()| look());
        let names = std::fs::read_dir(&dir).unwrap().count();
        std::fs::remove_dir_all(&dir).unwrap();
        for seen in [new, old] {
            let (text, count) = seen.unwrap();
            assert_eq!((text.unwrap().as_str(), count), ("0", 301));
        }
        assert_eq!(names, 4, "links are left");
    }

    /// Kernels before 6.15 take no layer without a place.
    #[test]
    fn images_are_stacked_at_places_of_their_own_too() {
        if !rustix::process::geteuid().is_root() {
            return; // as above
        }
        let dir = std::env::temp_dir().join(format!("orlop-private-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("target")).unwrap();
        let lower: Vec<String> = (0..3)
            .map(|n| {
                let path = dir.join(format!("{n}/erofs"));
                std::fs::create_dir(path.parent().unwrap()).unwrap();
                let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path);
                let mut image = Image::new(file.unwrap(), [n; 16]);
                let (meta, text) = (Meta { mode: 0o644, ..Meta::default() }, [b'0' + n]);
                image.file(b"f", 1, &[(0, 1)], &meta, &mut &text[..]).unwrap();
                image.file(&text, 1, &[(0, 1)], &meta, &mut &text[..]).unwrap();
                image.finish(&[(b"", &meta, false)]).unwrap();
                format!("{IMAGE}{}", path.display())
            })
            .collect();
        let o = Overlay { lower, ..Overlay::default() };
        let mut opened = Opened::default();
        // A kernel that mounts no images has been skipped by the integration tests.
        let Ok(images) =
            o.lower.iter().map(|l| opened.layer(Path::new(&l[IMAGE.len()..]))).collect::<Result<Vec<_>>>()
        else {
            std::fs::remove_dir_all(&dir).unwrap();
            return;
        };
        let lowers: Vec<Lower> = images.iter().map(|i| Lower::Image(AsFd::as_fd(&**i))).collect();
        let target = dir.join("target");
        let flags = CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS;
        let made = apart(flags, || create_in_private(&o, &lowers, &target));
        let here = std::fs::read_dir(&target).unwrap().count();
        let seen = made.map(|fd| {
            let root = PathBuf::from(crate::image::view::proc_path(&fd));
            let mut names: Vec<_> = std::fs::read_dir(&root)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            (std::fs::read_to_string(root.join("f")).unwrap(), names.concat())
        });
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(seen.unwrap(), ("0".to_string(), "012f".to_string()));
        assert_eq!(here, 0, "what was mounted is seen outside");
    }
}
