//! A running container to image files.

use super::rpc::{Features, Kind, Opts, PageServer, Pair};
use super::swrk::{self, Streams, Swrk};
use super::{Directories, EXTERNAL, STREAMS, mounts};
use crate::cli::Checkpoint;
use crate::container::Container;
use crate::error::{Error, Result, os};
use crate::plan::spawn::{NEWCGROUP, file_of, namespaces};
use crate::sys::fd;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Saves the container, whose init is `pid`. It runs on if that was asked for; otherwise its processes are gone.
pub fn dump(c: &Container, pid: i32, a: &Checkpoint) -> Result<()> {
    let status = a.status_fd.filter(|_| a.images.lazy_pages).filter(|n| *n >= 0);
    status.map_or(Ok(()), check_status)?;
    let server = a.page_server.as_deref().map(page_server).transpose()?;
    let version = swrk::check()?;
    let images = swrk::directory("--image-path", &a.images.image_path, true)?;
    let parent = a.parent_path.as_deref().map(|p| check_parent(&images.1, p)).transpose()?;
    check_features(a)?;
    let dirs = Directories::new(images, a.images.work_path.as_deref(), "dump.log")?;
    let opts = Opts {
        pid: Some(pid),
        root: Some(super::utf8(&c.record.rootfs)?),
        leave_running: a.leave_running,
        tcp_skip_in_flight: a.tcp_skip_in_flight,
        link_remap: a.link_remap,
        freeze_cgroup: freezer(c),
        track_memory: a.pre_dump || parent.is_some(),
        parent_images: parent,
        page_server: server,
        external: external_namespaces(c, pid)?,
        external_mounts: if a.pre_dump { Vec::new() } else { external_mounts(pid)? },
        ..super::options(&a.images, &dirs, &c.record.annotations)?
    };
    if !a.pre_dump {
        let text = serde_json::json!(c.record.criu.streams).to_string();
        let file = dirs.path.join(STREAMS);
        fs::write(&file, text).map_err(|e| Error::io(file.to_string_lossy(), "write", &e))?;
    }
    let kind = if a.pre_dump { Kind::PreDump } else { Kind::Dump };
    let mut criu = Swrk::spawn(Streams::None, &[])?;
    let answer = criu.call(kind, Some(opts), &mut |notify, _| match (notify.script.as_str(), status) {
        ("status-ready", Some(n)) => {
            fd::write(fd::borrow(n), &[0]).map(drop).map_err(os("--status-fd", format!("write to {n}")))
        }
        _ => Ok(()),
    });
    criu.end();
    let answer = answer.map_err(|e| swrk::explained(e, &version, &dirs.log))?;
    match answer.success {
        true => Ok(()),
        false => Err(swrk::refused("dump", &answer, &version, &dirs.log)),
    }
}

/// Asked first: criu aborts where the kernel cannot do it.
fn check_features(a: &Checkpoint) -> Result<()> {
    let (track_memory, lazy_pages) = (a.pre_dump || a.parent_path.is_some(), a.images.lazy_pages);
    if !track_memory && !lazy_pages {
        return Ok(());
    }
    let there = swrk::features(Features { track_memory, lazy_pages })?;
    let missing =
        |flag: &str, what: &str| Err(Error::unsupported(flag, format!("criu or the kernel has no {what}")));
    if track_memory && !there.track_memory {
        let flag = if a.pre_dump { "--pre-dump" } else { "--parent-path" };
        return missing(flag, "tracking of memory that changes (CONFIG_MEM_SOFT_DIRTY)");
    }
    if lazy_pages && !there.lazy_pages {
        return missing("--lazy-pages", "userfaultfd");
    }
    Ok(())
}

/// criu stops processes by the freezer where there is one, and by ptrace(2) otherwise.
fn freezer(c: &Container) -> Option<String> {
    let places = &c.record.cgroup.places;
    let place = places.iter().find(|p| p.freezer).or_else(|| places.iter().find(|p| p.v2));
    place.map(|p| p.name())
}

/// `net[4026532000]:extRootNetNS`
fn external_namespaces(c: &Container, pid: i32) -> Result<Vec<String>> {
    let list = namespaces(c.document()?.linux.as_ref())?;
    let joined = EXTERNAL.iter().filter(|e| list.joined.iter().any(|j| j.0 == e.0));
    let key = |(kind, key): &(i32, &str)| {
        let file = file_of(*kind);
        let path = format!("/proc/{pid}/ns/{file}");
        let inode = fs::metadata(&path).map_err(|e| Error::io(&path, "stat", &e))?.ino();
        Ok(format!("{file}[{inode}]:{key}"))
    };
    joined.map(key).collect()
}

fn external_mounts(pid: i32) -> Result<Vec<Pair>> {
    let file = file_of(NEWCGROUP);
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/{file}")).ok();
    let own_cgroups = namespace("self") != namespace(&pid.to_string());
    let pair = |(point, value): (std::path::PathBuf, String)| Ok(Pair { key: super::utf8(&point)?, value });
    mounts::external(pid, own_cgroups)?.into_iter().map(pair).collect()
}

/// criu looks it up in the image directory, also when that was moved together with its parent.
fn check_parent(images: &Path, parent: &Path) -> Result<String> {
    let at = "--parent-path";
    let shown = parent.to_string_lossy();
    if parent.is_absolute() {
        return Err(Error::invalid(
            at,
            format!("{shown:?} is absolute, it must be relative to --image-path"),
        ));
    }
    let there = images.join(parent);
    match fs::metadata(&there) {
        Ok(m) if m.is_dir() => super::utf8(parent),
        Ok(_) => Err(Error::invalid(at, format!("{shown:?} is not a directory"))),
        Err(e) => Err(Error::io(at, format!("stat {:?}", there.to_string_lossy()), &e)),
    }
}

fn check_status(number: i32) -> Result<()> {
    let bad = |what: &str| Err(Error::invalid("--status-fd", format!("descriptor {number} {what}")));
    match fs::read_to_string(format!("/proc/self/fdinfo/{number}")) {
        Err(_) => bad("is not open"),
        Ok(text) => {
            let flags = text.lines().find_map(|l| l.strip_prefix("flags:")).unwrap_or_default();
            let mode = i32::from_str_radix(flags.trim(), 8).unwrap_or_default() & libc::O_ACCMODE;
            if mode == libc::O_RDONLY { bad("is not writable") } else { Ok(()) }
        }
    }
}

fn page_server(text: &str) -> Result<PageServer> {
    let bad = || Error::invalid("--page-server", format!("{text:?} is not ADDRESS:PORT"));
    let (address, port) = text.rsplit_once(':').ok_or_else(bad)?;
    let address = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let port = port.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(bad)?;
    if address.is_empty() {
        return Err(bad());
    }
    Ok(PageServer { address: address.to_string(), port: i32::from(port) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_servers_have_an_address_and_a_port() {
        let server = |address: &str, port| PageServer { address: address.into(), port };
        assert_eq!(page_server("10.0.0.1:27").unwrap(), server("10.0.0.1", 27));
        assert_eq!(page_server("[::1]:27").unwrap(), server("::1", 27));
        for bad in ["", "host", ":27", "host:", "host:0", "host:70000", "host:x"] {
            let e = page_server(bad).unwrap_err().to_string();
            assert_eq!(e, format!("--page-server: {bad:?} is not ADDRESS:PORT"));
        }
    }

    #[test]
    fn a_parent_is_a_directory_beside_the_images() {
        let images = std::env::temp_dir();
        let error = |p: &str| check_parent(&images, Path::new(p)).unwrap_err().to_string();
        assert!(error("/x").ends_with("\"/x\" is absolute, it must be relative to --image-path"));
        assert!(error("no-such-directory").ends_with("no such file or directory"));
        assert_eq!(check_parent(&images, Path::new(".")).unwrap(), ".");
    }
}
