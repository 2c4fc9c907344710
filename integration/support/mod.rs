//! What integration tests share: a bundle with a real rootfs, the binary under test with a state root of its own, and
//! an end that leaves nothing behind, even when the test fails.
#![allow(dead_code)] // each test program uses its part

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The binary under test.
pub const ORLOP: &str = env!("CARGO_BIN_EXE_orlop");
/// No call of a runtime takes longer, however busy the machine is; ORLOP_PATIENCE has other seconds, for emulated ones.
pub fn patience() -> Duration {
    let asked = std::env::var("ORLOP_PATIENCE").ok();
    Duration::from_secs(asked.map_or(60, |s| s.parse().expect("ORLOP_PATIENCE is a number of seconds")))
}

/// Says why this test cannot run here; `hack/test` counts it and holds it against the list in `hack/skips`.
pub fn skip(why: &str) {
    let name = test_name();
    // Written past the test runner's capture, in one piece, to the line or the file that counts it.
    let _ = std::io::stderr().write_all(format!("skipped: {name}: {why}\n").as_bytes());
    if let Some(file) = std::env::var_os("ORLOP_SKIPS") {
        let mut file = File::options().append(true).create(true).open(file).expect("the list of skips opens");
        file.write_all(format!("{name}: {why}\n").as_bytes()).expect("the list of skips takes a line");
    }
}

fn test_name() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let program = program.rsplit_once('-').map_or(program.as_str(), |p| p.0).to_string();
    format!("{program}::{}", std::thread::current().name().unwrap_or("main"))
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Leaves the test, counted as skipped, unless it runs as root.
#[macro_export]
macro_rules! needs_root {
    () => {
        if !$crate::support::is_root() {
            $crate::support::skip("needs root");
            return;
        }
    };
}

/// Leaves the test, counted as skipped, unless the program is installed.
#[macro_export]
macro_rules! needs_program {
    ($name:expr) => {
        if !$crate::support::has_program($name) {
            $crate::support::skip(concat!("needs ", $name));
            return;
        }
    };
}

pub fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|d| d.join(name).is_file())
}

/// Compiles integration/data/c/NAME.c, whose first line has the compiler's flags; `None`, with the reason counted, where
/// that cannot be. ORLOP_C_PROGRAMS is a directory of compiled ones, for a machine without a compiler.
pub fn compile(name: &str, to: &Path) -> Option<()> {
    fs::create_dir_all(to.parent()?).expect("mkdir");
    if let Some(dir) = std::env::var_os("ORLOP_C_PROGRAMS") {
        fs::copy(Path::new(&dir).join(name), to).expect("the compiled program");
        return Some(());
    }
    let source = format!("{}/integration/data/c/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&source).expect("the program's source");
    let flags = text.lines().next().and_then(|l| l.strip_prefix("// cc ")).expect("a line of flags");
    match Command::new("cc").arg("-o").arg(to).arg(&source).args(flags.split(' ')).output() {
        Ok(o) if o.status.success() => return Some(()),
        Ok(o) => skip(&format!("cc says: {}", String::from_utf8_lossy(&o.stderr).trim())),
        Err(e) => skip(&format!("needs cc: {e}")),
    }
    None
}

/// lchown(2) of it and all below.
pub fn own(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).expect("lchown");
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).expect("read").flatten().for_each(|e| own(&e.path(), id));
    }
}

/// In a process of its own that is a subreaper, as engines' shims are, and collects no orphan by itself: beside other tests it
/// would keep their containers from ending. `false`: the test of this name has run there, and this one is over.
pub fn alone_as_subreaper(test: &str) -> bool {
    const ALONE: &str = "ORLOP_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let mut c = Command::new(std::env::current_exe().expect("this program"));
        c.args(["--exact", test]).env(ALONE, "1").stdin(Stdio::null());
        assert!(finish(&mut c).ok().stdout.contains("1 passed"));
        return false;
    }
    nix::sys::prctl::set_child_subreaper(true).expect("prctl");
    true
}

/// Rounds of a race or load: few in an ordinary run, ORLOP_ROUNDS=all of them, or the fewest, for emulated machines.
pub fn rounds(few: usize, all: usize) -> usize {
    match std::env::var("ORLOP_ROUNDS").as_deref() {
        Ok("all") => all,
        Ok("fewest") => few.div_ceil(10),
        Ok(other) => panic!("ORLOP_ROUNDS is all or fewest, not {other}"),
        Err(_) => few,
    }
}

/// All of these shapes; where rounds are fewest a tenth of them, others each time that the tests are run.
pub fn sample<T>(all: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    let all: Vec<_> = all.into_iter().collect();
    let step = all.len() / rounds(all.len(), all.len());
    all.into_iter().skip(std::process::id() as usize % step).step_by(step)
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.success(), "{:?}: {}{}", self.status, self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the command failed and its message has these words.
    #[track_caller]
    pub fn fails(self, words: &str) -> Self {
        assert!(!self.status.success(), "succeeded: {}", self.stdout);
        assert!(self.stderr.contains(words), "{words:?} is not in: {}", self.stderr);
        self
    }

    /// The standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }

    /// The first line of the standard output that begins with `key`, without it.
    pub fn line(&self, key: &str) -> Option<&str> {
        self.stdout.lines().find_map(|l| l.strip_prefix(key)).map(str::trim)
    }
}

/// Runs a command to its end; output goes by files, so that a container which holds them does not hold us.
#[track_caller]
pub fn finish(command: &mut Command) -> Outcome {
    finish_within(command, patience())
}

#[track_caller]
pub fn finish_within(command: &mut Command, patience: Duration) -> Outcome {
    let dir = Scratch::new("out");
    let (out, err) = (dir.path.join("stdout"), dir.path.join("stderr"));
    command.stdout(File::create(&out).expect("create")).stderr(File::create(&err).expect("create"));
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    if !ends_within(&child, patience) {
        let _ = child.kill();
        let _ = child.wait();
        panic!("{command:?} did not end within {patience:?}: {}{}", text(&out), text(&err));
    }
    let status = child.wait().expect("wait");
    Outcome { status, stdout: text(&out), stderr: text(&err) }
}

/// Whether this child ends in time. Nobody asks again and again: a hundred at once would take a whole CPU for it.
pub fn ends_within(child: &Child, patience: Duration) -> bool {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("pidfd_open");
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut set = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut set, PollTimeout::try_from(left).expect("patience is less than days")) {
            Err(nix::Error::EINTR) => {}
            ended => return ended.expect("poll") > 0,
        }
    }
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// A directory of this test alone, removed at its end.
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("orlop-{name}-{}", unique()));
        fs::DirBuilder::new().mode(0o755).create(&path).expect("mkdir");
        Self { path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
        for point in points.filter(|p| p.starts_with(&self.path)).collect::<Vec<_>>().iter().rev() {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Unique among all tests of all programs that run now, and never the beginning of another: what is left of a test is
/// looked for by it.
pub fn unique() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("{}-{:05}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A bundle on disk: a busybox rootfs and an edit of config.json.example.
pub struct Bundle {
    scratch: Scratch,
    pub config: Value,
    /// The id of its container, and the name of its cgroup.
    pub id: String,
}

const APPLETS: &[&str] = &[
    "cat",
    "chmod",
    "cut",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "hostname",
    "id",
    "ip",
    "kill",
    "ln",
    "ls",
    "md5sum",
    "mkdir",
    "mknod",
    "mount",
    "ps",
    "pwd",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "tty",
    "umount",
    "uname",
    "wc",
    "yes",
];

impl Bundle {
    /// The example's container, without a terminal, running `true`; as an ordinary user that of `spec --rootless`.
    pub fn new() -> Self {
        let scratch = Scratch::new("bundle");
        fs::DirBuilder::new().mode(0o700).create(scratch.path.join("state")).expect("mkdir");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.json.example");
        let mut config: Value = serde_json::from_slice(&fs::read(file).expect("the example")).expect("JSON");
        if !is_root() {
            let mut spec = Command::new(ORLOP);
            finish(spec.args(["spec", "--rootless", "--bundle"]).arg(&scratch.path)).ok();
            let written = scratch.path.join("config.json");
            config = serde_json::from_slice(&fs::read(&written).expect("config.json")).expect("JSON");
        }
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["true"]);
        let id = format!("orlop-test-{}", unique());
        let bundle = Self { scratch, config, id };
        make_rootfs(&bundle.rootfs());
        bundle
    }

    /// One whose program does nothing for long enough.
    pub fn sleeping() -> Self {
        Self::new().args(&["sleep", "1000"])
    }

    /// The container's program is this script.
    pub fn sh(self, script: &str) -> Self {
        self.args(&["sh", "-c", script])
    }

    pub fn args(mut self, args: &[&str]) -> Self {
        self.config["process"]["args"] = json!(args);
        self
    }

    /// The value at this JSON pointer becomes `value`; missing objects are made, `-` appends to a list.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.config;
        for key in pointer.split('/').skip(1) {
            at = match key.parse::<usize>() {
                Ok(n) if at.is_array() => &mut at[n],
                _ if key == "-" => {
                    if at.is_null() {
                        *at = json!([]);
                    }
                    let list = at.as_array_mut().expect("a list");
                    list.push(Value::Null);
                    list.last_mut().expect("the entry")
                }
                _ => &mut at[key],
            };
        }
        *at = value;
        self
    }

    /// The object's property at this JSON pointer goes.
    pub fn unset(mut self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        if let Some(object) = self.config.pointer_mut(parent).and_then(Value::as_object_mut) {
            object.remove(key);
        }
        self
    }

    /// One more mount.
    pub fn mount(self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        let entry = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.set("/mounts/-", entry)
    }

    /// A namespace: made, or joined by path.
    pub fn namespace(self, kind: &str, path: Option<&str>) -> Self {
        let mut entry = json!({ "type": kind });
        if let Some(path) = path {
            entry["path"] = json!(path);
        }
        self.without_namespace(kind).set("/linux/namespaces/-", entry)
    }

    pub fn without_namespace(mut self, kind: &str) -> Self {
        let list = self.config["linux"]["namespaces"].as_array_mut().expect("a list");
        list.retain(|n| n["type"] != kind);
        self
    }

    /// With a user namespace, whose root owns the rootfs and can reach it.
    pub fn in_a_user_namespace(self) -> Self {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        own(&self.rootfs(), 100_000);
        fs::set_permissions(self.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        self.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    }

    /// Without a mount namespace, and without what needs one.
    pub fn in_the_hosts_mounts(self) -> Self {
        let b = self.without_namespace("mount").unset("/root/readonly");
        b.unset("/linux/maskedPaths").unset("/linux/readonlyPaths")
    }

    pub fn path(&self) -> &Path {
        &self.scratch.path
    }

    pub fn rootfs(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    /// The state root of this bundle alone.
    pub fn state_root(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Writes config.json.
    pub fn write(&self) -> &Self {
        fs::write(self.path().join("config.json"), self.config.to_string()).expect("write config.json");
        self
    }

    /// The binary with this bundle's state root; the arguments follow.
    pub fn orlop<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut c = Command::new(ORLOP);
        c.arg("--root").arg(self.state_root()).args(args).stdin(Stdio::null());
        c
    }

    /// A verb on this container, to its end.
    #[track_caller]
    pub fn verb(&self, verb: &str, more: &[&str]) -> Outcome {
        finish(&mut self.orlop([&[verb, self.id.as_str()], more].concat()))
    }

    /// The command that creates (or runs) the container, config.json written.
    pub fn making(&self, verb: &str) -> Command {
        self.write();
        let mut c = self.orlop([verb, "--bundle"]);
        c.arg(self.path()).arg(&self.id);
        c
    }

    #[track_caller]
    pub fn run(&self) -> Outcome {
        finish(&mut self.making("run"))
    }

    #[track_caller]
    pub fn create(&self) -> Outcome {
        finish(&mut self.making("create"))
    }

    #[track_caller]
    pub fn start(&self) -> Outcome {
        self.verb("start", &[])
    }

    #[track_caller]
    pub fn delete(&self) -> Outcome {
        self.verb("delete", &["--force"])
    }

    /// The state's JSON.
    #[track_caller]
    pub fn state(&self) -> Value {
        self.verb("state", &[]).ok().json()
    }

    /// Fails the test unless the state root is empty and no cgroup has the container's name.
    #[track_caller]
    pub fn is_clean(&self) {
        let entries = fs::read_dir(self.state_root()).expect("state root").flatten();
        let left: Vec<_> = entries.map(|e| e.path()).chain(cgroups_named(&self.id)).collect();
        assert!(left.is_empty(), "left: {left:?}");
    }

    /// The same bundle in the foreground by Debian's runc, which knows no specification above 1.0.
    #[track_caller]
    pub fn run_by_runc(&self) -> Outcome {
        self.write();
        let mut c = Command::new("runc");
        c.arg("--root").arg(self.path().join("runc-state")).args(["run", "--bundle"]).arg(self.path());
        finish(c.arg(format!("{}-runc", self.id)).stdin(Stdio::null()))
    }

    /// Waits until the container is there and has this status.
    #[track_caller]
    pub fn await_status(&self, status: &str) {
        until(&format!("status {status}"), || {
            let out = self.verb("state", &[]);
            !out.stderr.contains("container does not exist") && out.ok().json()["status"] == status
        });
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let root = self.state_root();
        for entry in fs::read_dir(&root).into_iter().flatten().flatten() {
            let mut c = Command::new(ORLOP);
            c.arg("--root").arg(&root).args(["delete", "--force"]).arg(entry.file_name());
            let _ = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        if has_program("runc") && self.path().join("runc-state").exists() {
            let mut c = Command::new("runc");
            c.arg("--root").arg(self.path().join("runc-state")).args(["delete", "--force"]);
            let _ = c.arg(format!("{}-runc", self.id)).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// Copies the binary under test; not by us, since a fork of another test's would hold the copy busy.
pub fn copy_orlop(to: &Path) {
    finish(Command::new("cp").arg(ORLOP).arg(to)).ok();
}

/// Waits for what must come true.
#[track_caller]
pub fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + patience();
    while !is_true() {
        assert!(Instant::now() < end, "{what} did not come true within {:?}", patience());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A small system around Debian's busybox-static.
pub fn make_rootfs(root: &Path) {
    for dir in ["bin", "etc", "tmp", "root", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).expect("mkdir");
    }
    let busybox = root.join("bin/busybox");
    fs::copy("/bin/busybox", &busybox).expect("Debian's package busybox-static is installed");
    fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).expect("chmod");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("symlink");
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    )
    .expect("write");
    fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("write");
}

/// Paths of every cgroup of this name, in whatever hierarchy.
pub fn cgroups_named(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rest = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = rest.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                continue;
            }
            if entry.file_name() == name {
                found.push(entry.path());
            }
            rest.push(entry.path());
        }
    }
    found
}
