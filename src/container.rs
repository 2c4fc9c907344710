//! Containers on record: the state root, ids, locks, and a status derived from reality.
//!
//! `ROOT/ID/` is the lock (flock(2) on the directory) and holds `state.json`, written before anything else exists and
//! naming all that must be undone, `config.json`, the document as it was, and `init.creating`, a link whose text is the pid
//! and the start time of init, which is renamed to `init` once the container is created: one atomic step that `state` can
//! see. All appears by rename, or, like a link, by one call, so that a kill at any point leaves something that
//! `delete --force` understands.

use crate::bundle;
use crate::cgroup::Recorded;
use crate::config::Config;
use crate::error::{Error, Kind, Result, os};
use crate::plan::cpath;
use crate::plan::hooks::Hooks;
use crate::sys::{Errno, Sys, clone, dir, fd, path};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// state.json: what delete and state need, and nothing that reality tells.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    pub oci_version: String,
    pub id: String,
    /// Absolute path.
    pub bundle: PathBuf,
    /// Absolute path.
    pub rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub created: String,
    /// uid of whoever made it.
    pub owner: u32,
    pub annotations: BTreeMap<String, String>,
    pub cgroup: Recorded,
    pub rdt: crate::resctrl::Recorded,
    pub attached: crate::attached::Recorded,
    pub hooks: Hooks,
    /// `process.args[0]`, for messages of `start`.
    pub program: String,
    /// It has a pid namespace of its own: the kernel ends every process with init.
    pub private_pids: bool,
    /// It shares its creator's session keyring, and so does what `exec` starts.
    pub no_new_keyring: bool,
    pub criu: crate::criu::Recorded,
}

/// runtime.md#state
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// A process that no pid reuse can be mistaken for: the pid with its start time in clock ticks since boot (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub start: u64,
}

/// What /proc/PID/stat says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcStat {
    pub state: u8,
    pub parent: i32,
    /// PF_* flags of the kernel.
    pub flags: u64,
    pub threads: u64,
    pub start: u64,
}

/// PF_FORKNOEXEC: forked, but has not executed a program. It is what tells `created` from `running`.
const PF_FORKNOEXEC: u64 = 0x40;

impl ProcStat {
    /// A process lives on in its other threads when its first one ends, which looks like a zombie then.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }

    pub fn has_exec(&self) -> bool {
        self.flags & PF_FORKNOEXEC == 0
    }
}

/// Reads /proc/PID/stat; `None` when there is no such process.
pub fn proc_stat(pid: i32) -> Option<ProcStat> {
    let path = CString::new(format!("/proc/{pid}/stat")).ok()?;
    let mut buf = [0; 1024]; // 52 numbers and a name of 16 bytes
    let len = fd::read_value(&path, &mut buf).ok()?;
    parse_stat(&buf[..len])
}

/// The name in parentheses may hold anything, so fields count from the last parenthesis.
fn parse_stat(text: &[u8]) -> Option<ProcStat> {
    let end = text.iter().rposition(|b| *b == b')')?;
    let mut fields = std::str::from_utf8(&text[end + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?.bytes().next()?;
    let parent = fields.next()?.parse().ok()?;
    let flags = fields.nth(4)?.parse().ok()?;
    let threads = fields.nth(10)?.parse().ok()?;
    let start = fields.nth(1)?.parse().ok()?;
    Some(ProcStat { state, parent, flags, threads, start })
}

impl Process {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Self> {
        proc_stat(pid).map(|s| Self { pid, start: s.start })
    }

    /// Its state, unless the pid belongs to another process by now.
    pub fn stat(&self) -> Option<ProcStat> {
        proc_stat(self.pid).filter(|s| s.start == self.start)
    }

    pub fn is_alive(&self) -> bool {
        self.stat().is_some_and(|s| !s.is_dead())
    }

    /// A descriptor of this very process; `None` when it is gone.
    pub fn pidfd(&self) -> Option<OwnedFd> {
        let fd = clone::pidfd(self.pid).ok()?;
        // The descriptor came first, so the start time proves that it is not a later process of the same pid.
        self.is_alive().then_some(fd)
    }
}

/// Letters, digits, `_`, `+`, `-`, `.`; not `.` or `..`; at most 255 bytes, since it names a directory.
pub fn check_id(id: &str) -> Result<()> {
    let bad = |why: String| Err(Error::invalid("container id", why));
    if id.is_empty() {
        return bad("is empty".into());
    }
    if id.len() > 255 {
        return bad(format!("has {} bytes, at most 255 are allowed", id.len()));
    }
    if id == "." || id == ".." {
        return bad(format!("{id:?} is not a name"));
    }
    if let Some(c) = id.chars().find(|c| !c.is_ascii_alphanumeric() && !"_+-.".contains(*c)) {
        return bad(format!("{id:?} has {c:?}; allowed are letters, digits and _ + - ."));
    }
    Ok(())
}

/// The directory of all containers.
#[derive(Clone, Debug)]
pub struct StateRoot {
    pub path: PathBuf,
}

/// A container on record, as long as this value lives locked if it was opened by [`StateRoot::lock`].
#[derive(Debug)]
pub struct Container {
    pub dir: PathBuf,
    pub record: Record,
    /// The directory; holds the lock.
    handle: Option<OwnedFd>,
}

/// How a container's directory is opened for its lock.
const LOCKABLE: i32 = libc::O_RDONLY | libc::O_DIRECTORY;

fn unknown(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("container {id:?}"), "container does not exist")
}

impl StateRoot {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads a container's record. Writers are not waited for: files appear whole.
    pub fn load(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let dir = self.path.join(id);
        let file = dir.join("state.json");
        let text = match bundle::read(&file) {
            Ok(text) => text,
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::ENOTDIR)) => return Err(unknown(id)),
            Err(e) => return Err(e),
        };
        let record: Record = serde_json::from_slice(&text)
            .map_err(|e| Error::invalid(file.to_string_lossy(), format!("is not a state of ours: {e}")))?;
        if record.id != id {
            return Err(Error::invalid(
                file.to_string_lossy(),
                format!("belongs to container {:?}", record.id),
            ));
        }
        Ok(Container { dir, record, handle: None })
    }

    /// As [`StateRoot::load`], with the container's lock held. Whoever has it is waited for, but not a create that has its
    /// init on record: a hook of its own, which that waits for with the lock held, would wait for ever. `creating` has the
    /// words for it.
    pub fn lock(&self, id: &str, creating: impl Fn() -> Error) -> Result<Container> {
        check_id(id)?;
        // Before there is an init no hook runs, and once it is dead none goes on: these are waited for.
        let in_creation = |c: Container| c.init().is_some_and(|(init, made)| !made && init.is_alive());
        let refuse = || if self.load(id).is_ok_and(in_creation) { Err(creating()) } else { Ok(()) };
        let handle = self.insist_on_lock(id, refuse)?.ok_or_else(|| unknown(id))?;
        let mut c = self.load(id)?;
        c.hold(handle);
        Ok(c)
    }

    /// As [`StateRoot::lock`], for verbs that are for a container that was created.
    pub fn lock_made(&self, id: &str) -> Result<Container> {
        let what = "container not running: it is creating";
        self.lock(id, || Error::new(Kind::WrongState, format!("container {id:?}"), what))
    }

    /// The locked directory of a container, even of one that is half made; `None` when there is none.
    fn lock_dir(&self, id: &str) -> Result<Option<OwnedFd>> {
        self.lock_dir_by(id, |handle, at| fd::flock(handle, libc::LOCK_EX).map_err(os(at, "flock")))
    }

    /// As [`StateRoot::lock_dir`]; does `meanwhile` again and again as long as somebody else has the lock, until that
    /// fails.
    pub fn insist_on_lock(&self, id: &str, meanwhile: impl Fn() -> Result<()>) -> Result<Option<OwnedFd>> {
        self.lock_dir_by(id, |handle, at| {
            loop {
                match fd::flock(handle, libc::LOCK_EX | libc::LOCK_NB) {
                    Err(Errno::EWOULDBLOCK) => meanwhile()?,
                    other => return other.map_err(os(at, "flock")),
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    }

    fn lock_dir_by(&self, id: &str, lock: impl Fn(&OwnedFd, &str) -> Result<()>) -> Result<Option<OwnedFd>> {
        let dir = self.path.join(id);
        let at = dir.to_string_lossy().into_owned();
        let handle = match fd::open(&cpath(&at, &dir)?, LOCKABLE, 0) {
            Ok(h) => h,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(e) => return Err(Error::os(at, "open", e as i32)),
        };
        lock(&handle, &at)?;
        // Whoever had the lock may have removed the directory.
        let st = fd::stat(&handle).map_err(os(&at, "fstat"))?;
        Ok((st.st_nlink > 0).then_some(handle))
    }

    /// Makes the directory of a new container, with its `document` as it is (later changes of the bundle have no effect,
    /// runtime.md#lifecycle), and locks it: of two creates of one id, exactly one gets past here.
    pub fn reserve(&self, record: Record, document: &[u8]) -> Result<Container> {
        check_id(&record.id)?;
        let builder = || {
            let mut b = fs::DirBuilder::new();
            b.mode(0o700);
            b
        };
        let dir = self.path.join(&record.id);
        let at = dir.to_string_lossy().into_owned();
        let made = match builder().create(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                builder().recursive(true).create(&self.path).and_then(|()| builder().create(&dir))
            }
            other => other,
        };
        let exists = || {
            let what = "container with given ID already exists";
            Error::new(Kind::Exists, format!("container {:?}", record.id), what)
        };
        match made {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Err(exists()),
            Err(e) => return Err(Error::io(at, "mkdir", &e)),
        }
        let deleted =
            || Error::new(Kind::NotFound, format!("container {:?}", record.id), "was deleted meanwhile");
        let handle = match self.lock_dir(&record.id).transpose() {
            Some(Ok(handle)) => handle,
            Some(Err(e)) => {
                let _ = fs::remove_dir(&dir); // ours as long as it is empty; e tells more than why it stays
                return Err(e);
            }
            None => return Err(deleted()),
        };
        // Before we had the lock, `delete --force` may have removed our directory and another create made this one.
        if dir.join("state.json").exists() {
            return Err(exists());
        }
        let c = Container { dir, record, handle: Some(handle) };
        if let Err(e) = c.save().and_then(|()| c.save_document(document)) {
            let _ = c.remove(); // e tells more than why it stays
            return Err(e);
        }
        Ok(c)
    }

    /// What is known of a container whose record cannot be read: init, if it got that far. `handle` is its lock.
    pub fn without_record(&self, id: &str, handle: OwnedFd) -> Container {
        Container { dir: self.path.join(id), record: Record::default(), handle: Some(handle) }
    }

    /// Names of directories that may be containers, sorted.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(e) => e,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(self.path.to_string_lossy(), "read", &e)),
        };
        let mut ids: Vec<_> = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok())
            .collect();
        ids.sort();
        Ok(ids)
    }
}

impl Container {
    /// Writes state.json by rename.
    pub fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record)
            .map_err(|e| Error::invalid("state.json", format!("cannot be written as JSON: {e}")))?;
        self.put("state.json", &text)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let (temp, file) = (self.dir.join(format!(".{name}")), self.dir.join(name));
        write_private(&temp, bytes)
            .and_then(|()| fs::rename(&temp, &file))
            .map_err(|e| Error::io(file.to_string_lossy(), "write", &e))
    }

    /// Writes the document that the container counts as made by.
    pub fn save_document(&self, text: &[u8]) -> Result<()> {
        let file = self.dir.join("config.json");
        write_private(&file, text).map_err(|e| Error::io(file.to_string_lossy(), "write", &e))
    }

    /// The document that it was made by.
    pub fn document(&self) -> Result<Config> {
        let file = self.dir.join("config.json");
        let text = bundle::read(&file)?;
        bundle::parse(&text, &file.to_string_lossy())
    }

    /// Puts init on record, at once after the clone; a process in the middle before it.
    pub fn record_init(&self, p: Process) -> Result<()> {
        let (file, temp) = (self.dir.join("init.creating"), self.dir.join(".init"));
        let words = format!("{} {}", p.pid, p.start);
        let made = match symlink(&words, &file) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                symlink(&words, &temp).and_then(|()| fs::rename(&temp, &file))
            }
            other => other,
        };
        made.map_err(|e| Error::io(file.to_string_lossy(), "symlink", &e))
    }

    /// The container is created from here on.
    pub fn mark_created(&self) -> Result<()> {
        fs::rename(self.dir.join("init.creating"), self.dir.join("init"))
            .map_err(|e| Error::io(self.dir.join("init").to_string_lossy(), "rename", &e))
    }

    /// Init, and whether the container was created completely.
    pub fn init(&self) -> Option<(Process, bool)> {
        // It may be renamed between the first two looks.
        for (name, created) in [("init", true), ("init.creating", false), ("init", true)] {
            let Ok(text) = fs::read_link(self.dir.join(name)) else { continue };
            let text = text.to_string_lossy();
            let mut words = text.split(' ');
            let pid = words.next().and_then(|w| w.parse().ok());
            let start = words.next().and_then(|w| w.parse().ok());
            if let (Some(pid), Some(start)) = (pid, start) {
                return Some((Process { pid, start }, created));
            }
        }
        None
    }

    /// From the process and its cgroup, never from memory: (status, pid or 0).
    pub fn status(&self) -> (Status, i32) {
        let (status, init) = self.seen();
        (status, init.map_or(0, |p| p.pid))
    }

    /// The status, and init unless it is dead.
    pub fn seen(&self) -> (Status, Option<Process>) {
        let Some((process, created)) = self.init() else {
            return (self.status_without_init(), None);
        };
        let status = match process.stat() {
            None => return (Status::Stopped, None),
            Some(s) if s.is_dead() => return (Status::Stopped, None),
            Some(_) if !created => Status::Creating,
            Some(_) if self.cgroup().is_frozen() => Status::Paused,
            Some(s) if !s.has_exec() && !self.record.criu.restored => Status::Created,
            Some(_) => Status::Running,
        };
        (status, Some(process))
    }

    /// A create in progress holds the lock, unless that is us; nobody holds that of a create that died.
    fn status_without_init(&self) -> Status {
        if self.handle.is_some() {
            return Status::Stopped;
        }
        let handle = cpath("", &self.dir).ok().and_then(|dir| fd::open(&dir, LOCKABLE, 0).ok());
        match handle.map(|h| fd::flock(&h, libc::LOCK_SH | libc::LOCK_NB)) {
            Some(Err(Errno::EWOULDBLOCK)) => Status::Creating,
            _ => Status::Stopped,
        }
    }

    pub fn cgroup(&self) -> crate::cgroup::Cgroup {
        crate::cgroup::Cgroup::open(&self.record.cgroup)
    }

    /// runtime.md#state, as hooks and the seccomp agent get it.
    pub fn state(&self, status: &str, pid: i32) -> serde_json::Value {
        let r = &self.record;
        let mut state = serde_json::json!({
            "ociVersion": r.oci_version, "id": r.id, "status": status, "pid": pid, "bundle": r.bundle,
        });
        if !r.annotations.is_empty() {
            state["annotations"] = serde_json::json!(r.annotations);
        }
        state
    }

    /// Takes over the lock, for as long as this value lives.
    pub fn hold(&mut self, lock: OwnedFd) {
        self.handle = Some(lock);
    }

    /// Lets others have the lock.
    pub fn unlock(&mut self) {
        self.handle = None;
    }

    /// Takes the lock back, unless it is held. `false` when this container, whose init is `init`, was deleted meanwhile:
    /// one that has its id by now is somebody else's.
    pub fn relock(&mut self, init: Process) -> Result<bool> {
        if self.handle.is_none() {
            let root = StateRoot::new(self.dir.parent().map(Path::to_path_buf).unwrap_or_default());
            self.handle = root.lock_dir(&self.record.id)?;
        }
        Ok(self.handle.is_some() && self.init().is_some_and(|(there, _)| there == init))
    }

    /// A descriptor that is readable once the record is removed.
    pub fn watch(&self) -> Result<OwnedFd> {
        let at = self.dir.to_string_lossy();
        let dir = cpath(&at, &self.dir)?;
        dir::watch_removal(&dir).map_err(os(at, "inotify"))
    }

    /// Path of a file in the container's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Removes the record; the last step of a deletion, since everything else is found by it.
    pub fn remove(&self) -> Result<()> {
        match self.handle.as_ref().map(|handle| self.remove_by(handle)) {
            Some(Ok(())) => Ok(()),
            _ => remove_dir(&self.dir),
        }
    }

    /// By its descriptor, as long as there are plain files only.
    fn remove_by(&self, handle: &OwnedFd) -> Sys {
        let mut buf = [0; 1024];
        loop {
            let n = dir::entries(handle, &mut buf)?;
            let mut rest = &buf[..n];
            while let Some((name, behind)) = dir::next(rest) {
                if ![c".", c"..", c"state.json"].contains(&name) {
                    path::unlink(handle, name, 0)?;
                }
                rest = behind;
            }
            if n == 0 {
                break;
            }
        }
        path::unlink(handle, c"state.json", 0)?;
        let dir = CString::new(self.dir.as_os_str().as_bytes()).map_err(|_| Errno::ENOENT)?;
        path::remove_dir(&dir)
    }
}

/// Removes a container's directory, the record last: a deletion that is killed can be done again. One that is gone
/// already is fine.
fn remove_dir(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name() != "state.json" {
            let _ = fs::remove_file(entry.path()); // tried again, with the record
        }
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(dir.to_string_lossy(), "remove", &e))
        }
        _ => Ok(()),
    }
}

/// Writes a file that others cannot read.
fn write_private(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(file)?.write_all(bytes)
}

/// Sends a signal to the process, and to no later one of its pid. ESRCH when it is gone.
pub fn signal(p: Process, signal: i32) -> Sys {
    clone::signal(&p.pidfd().ok_or(Errno::ESRCH)?, signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_of_one_directory() {
        for id in ["a", "A-b_c+d.e", "0", "...", &"x".repeat(255)] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "/", "a b", "é", "a\n", "a:b", "a@b", "a\0", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn stat_is_read_behind_the_last_parenthesis() {
        let mut line = b"42 (a) b) S 1 42 42 0 -1 4194624 ".to_vec();
        line.extend(b"100 0 0 0 1 2 3 4 20 0 1 0 777 999 0\n");
        let stat = parse_stat(&line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.start), (b'S', 1, 777));
        assert!(!stat.has_exec()); // 4194624 has 0x40
        assert_eq!(stat.threads, 1);
        for (state, threads, dead) in [(b'S', 1, false), (b'Z', 1, true), (b'Z', 2, false), (b'X', 0, true)] {
            assert_eq!(ProcStat { state, threads, ..stat }.is_dead(), dead, "{state} {threads}");
        }
        for cut in 0..line.len() - 8 {
            let _ = parse_stat(&line[..cut]);
        }
    }

    #[test]
    fn a_process_is_not_mistaken_for_a_later_one() {
        let me = Process::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive() && me.stat().unwrap().has_exec());
        let other = Process { start: me.start + 1, ..me };
        assert!(!other.is_alive() && other.pidfd().is_none());
    }
}
