//! A world for one engine with one runtime: namespaces, a directory on disk and a cgroup of its own, so that daemons, bridges,
//! firewall rules, mounts and containers end with it.
//!
//! `enter` (the test program) → unshare(1) → `init` (pid 1 there, reaps) → `work` (starts the engine, runs its checks).

use crate::report::Result;
use crate::support::{Outcome, finish_within, patience};
use crate::{Check, Suite, image};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use nix::sys::wait::{WaitStatus, waitpid};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub const INIT: &str = "world-init";
pub const WORKER: &str = "world-worker";
/// A whole column ends within this.
const LIMIT: Duration = Duration::from_secs(600);

/// What a check has to work with.
pub struct Engine {
    /// "runc" or "orlop".
    pub runtime: &'static str,
    /// The runtime's program.
    pub program: PathBuf,
    /// On disk, of this world alone; goes with it.
    pub dir: PathBuf,
    /// The parent of all its cgroups, as `/name`.
    pub cgroup: String,
    /// The image as an archive: `docker save` and OCI layout in one; see `image::NAME`.
    pub archive: PathBuf,
    daemons: Mutex<Vec<Child>>,
}

impl Engine {
    /// A command to its end, within the time that any call has.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = S>) -> Outcome {
        finish_within(Command::new(program).args(args).stdin(Stdio::null()), patience())
    }

    /// Starts a program that stays, its output in `NAME.log`; it is killed when the world ends.
    pub fn daemon(&self, name: &str, command: &mut Command) -> u32 {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join(format!("{name}.log")))
            .expect("log");
        let err = log.try_clone().expect("dup");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(err).spawn().expect("the daemon starts");
        let pid = child.id();
        self.daemons.lock().expect("lock").push(child);
        pid
    }

    /// Kills a program that `daemon` started, and waits for its end.
    pub fn kill_daemon(&self, pid: u32) {
        let mut daemons = self.daemons.lock().expect("lock");
        let n = daemons.iter().position(|d| d.id() == pid).expect("a daemon of ours");
        let mut child = daemons.remove(n);
        drop(daemons);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Whether a program that `daemon` started still runs.
    pub fn is_alive(&self, pid: u32) -> bool {
        let mut daemons = self.daemons.lock().expect("lock");
        daemons.iter_mut().any(|d| d.id() == pid && d.try_wait().expect("wait").is_none())
    }

    /// The end of a daemon's output, for the words of a failure.
    pub fn log(&self, name: &str) -> String {
        let lines = self.said(name, "");
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// The lines of a daemon's output that have these words.
    pub fn said(&self, name: &str, words: &str) -> Vec<String> {
        let text = fs::read(self.dir.join(format!("{name}.log"))).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().filter(|l| l.contains(words)).map(str::to_string).collect()
    }

    /// A file of a v1 controller in a cgroup below the parent.
    #[track_caller]
    pub fn cgroup_file(&self, controller: &str, below: &str, file: &str) -> String {
        let path = Path::new(CGROUPS).join(controller).join(&self.cgroup[1..]).join(below).join(file);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim_end().to_string()
    }
}

thread_local! {
    static NOTES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Information that the report prints beside this check, such as a time.
pub fn note(words: String) {
    NOTES.with_borrow_mut(|n| n.push(words));
}

const CGROUPS: &str = "/sys/fs/cgroup";

/// Runs the selected checks of an engine with a runtime, in a world that is gone afterwards.
pub fn enter(engine: &str, runtime: &str, program: &Path, filters: &[String]) -> Vec<Result> {
    let name = format!("orlop-engines-{}-{engine}-{runtime}", std::process::id());
    let dir = disk().join(format!("{name}-1"));
    fs::create_dir(&dir).expect("mkdir");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    unshare.args(["--propagation", "private"]).arg(std::env::current_exe().expect("our path"));
    unshare.args([INIT, engine, runtime]).arg(program).arg(&dir).arg(&name).args(filters);
    let mut child = unshare.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("unshare");
    let out = child.stdout.take().expect("the pipe");
    let (tx, rx) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
            match serde_json::from_str(&line) {
                Ok(result) => tx.send(result).expect("the receiver is there"),
                Err(_) => eprintln!("{line}"),
            }
        }
    });
    let end = Instant::now() + LIMIT;
    let mut results = Vec::new();
    let progress = std::env::args().any(|a| a == "--nocapture");
    while let Ok::<Result, _>(result) = rx.recv_timeout(end.saturating_duration_since(Instant::now())) {
        if progress {
            let Result { name, failure, seconds, .. } = &result;
            eprintln!("{engine}::{name} {runtime}: {} ({seconds:.1} s)", failure.as_deref().unwrap_or("ok"));
        }
        results.push(result);
    }
    leave(&mut child, &name);
    let _ = fs::remove_dir_all(&dir);
    results
}

/// Clears what test programs left that were killed.
pub fn sweep() {
    let hierarchies = fs::read_dir(CGROUPS).expect("cgroups").flatten().map(|h| h.path());
    for place in hierarchies.chain([disk()]) {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix("orlop-engines-").and_then(|n| n.split('-').next());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                remove_cgroups(&name);
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Ends what is in the world. A frozen process dies only when thawed, and its pid namespace with it.
fn leave(child: &mut Child, cgroup: &str) {
    let begin = Instant::now();
    while child.try_wait().expect("wait").is_none() && begin.elapsed() < patience() {
        if begin.elapsed() > Duration::from_secs(1) {
            let _ = child.kill();
        }
        for dir in below(&Path::new(CGROUPS).join("freezer").join(cgroup)) {
            let _ = fs::write(dir.join("freezer.state"), "THAWED");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    remove_cgroups(cgroup);
}

fn remove_cgroups(name: &str) {
    for hierarchy in fs::read_dir(CGROUPS).expect("cgroups").flatten() {
        for dir in below(&hierarchy.path().join(name)) {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// What has these words in its path or command line: cgroups, mounts, directories in /run, processes.
pub fn left_of(e: &Engine, words: &str) -> Vec<String> {
    let hierarchies = fs::read_dir(CGROUPS).expect("cgroups").flatten();
    let cgroups = hierarchies.flat_map(|h| below(&h.path().join(&e.cgroup[1..])));
    let paths = cgroups.chain(below(Path::new("/run"))).map(|p| p.display().to_string());
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let lines = fs::read_dir("/proc").expect("proc").flatten().map(|p| p.path().join("cmdline"));
    let lines = lines.flat_map(fs::read).map(|l| String::from_utf8_lossy(&l).replace('\0', " "));
    paths.chain(mounts.lines().map(str::to_string)).chain(lines).filter(|l| l.contains(words)).collect()
}

/// A directory and those in it, deepest first.
fn below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let dirs = entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    let mut found: Vec<_> = dirs.flat_map(|e| below(&e.path())).collect();
    found.push(dir.into());
    found
}

/// Where an overlay's upper directory may lie: not on a tmpfs, nor on another overlay.
fn disk() -> PathBuf {
    let temp = std::env::temp_dir();
    let kind = statfs(&temp).expect("statfs").filesystem_type();
    if kind == TMPFS_MAGIC || kind == OVERLAYFS_SUPER_MAGIC {
        env!("CARGO_TARGET_TMPDIR").into()
    } else {
        temp
    }
}

/// The first process of a world: reaps what daemons leave, and ends when the worker does.
pub fn init(args: &[String]) -> ! {
    let mut worker = Command::new(std::env::current_exe().expect("our path"));
    // Daemons get what a service has, and nothing of cargo's.
    let kept = ["PATH", "ORLOP_PATIENCE"].into_iter().filter_map(|k| Some((k, std::env::var_os(k)?)));
    let dir = Path::new(&args[3]);
    worker.arg(WORKER).args(args).env_clear().envs(kept);
    worker.env("TMPDIR", dir.join("tmp")).env("HOME", dir.join("home"));
    let worker = worker.spawn().expect("the worker starts").id() as i32;
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == worker => std::process::exit(code),
            Ok(WaitStatus::Signaled(pid, ..)) if pid.as_raw() == worker => std::process::exit(1),
            _ => {}
        }
    }
}

/// Starts the engine, runs the checks and writes results to the standard output, one a line.
pub fn work(args: &[String], suites: &[Suite]) {
    let [engine, runtime, program, dir, name, filters @ ..] = args else {
        panic!("the arguments of a world")
    };
    let suite = suites.iter().find(|s| s.engine == engine).expect("the engine");
    let (dir, checks) = (PathBuf::from(dir), suite.selected(filters));
    for made in ["tmp", "home"] {
        fs::create_dir(dir.join(made)).expect("mkdir");
    }
    sh("mount -t tmpfs -o mode=755 run /run && mkdir -p /run/lock && ip link set lo up");
    let archive = dir.join("image.tar");
    fs::write(&archive, image::archive()).expect("write the image");
    let runtime = if runtime == "runc" { "runc" } else { "orlop" };
    let daemons = Mutex::new(Vec::new());
    let engine =
        Engine { runtime, program: program.into(), dir, cgroup: format!("/{name}"), archive, daemons };
    std::panic::set_hook(Box::new(|p| {
        let text = p.payload().downcast_ref::<String>().map(String::as_str);
        let words = text.or(p.payload().downcast_ref::<&str>().copied()).unwrap_or("?");
        let place = p.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        PANIC.set(format!("{place}: {words}"));
    }));
    match catch_unwind(AssertUnwindSafe(|| (suite.start)(&engine))) {
        Ok(()) => run_all(&engine, suite.threads, &checks),
        Err(_) => {
            let words = format!("{} did not start: {}", suite.engine, PANIC.take());
            for c in checks {
                say(&Result {
                    name: c.name.into(),
                    failure: Some(words.clone()),
                    notes: Vec::new(),
                    seconds: 0.0,
                });
            }
        }
    }
    for mut daemon in engine.daemons.into_inner().expect("lock") {
        let _ = daemon.kill();
    }
}

fn run_all(engine: &Engine, threads: usize, checks: &[Check]) {
    let (alone, together): (Vec<Check>, Vec<Check>) = checks.iter().partition(|c| c.alone);
    let next = AtomicUsize::new(0);
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                while let Some(check) = together.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run_one(engine, check);
                }
            });
        }
    });
    alone.iter().for_each(|c| run_one(engine, c));
}

fn run_one(engine: &Engine, check: &Check) {
    NOTES.take();
    let begin = Instant::now();
    let failed = catch_unwind(AssertUnwindSafe(|| (check.run)(engine))).is_err();
    let failure = failed.then(|| PANIC.take());
    let seconds = begin.elapsed().as_secs_f64();
    say(&Result { name: check.name.into(), failure, notes: NOTES.take(), seconds });
}

fn say(result: &Result) {
    let line = format!("{}\n", serde_json::to_string(result).expect("JSON"));
    std::io::stdout().lock().write_all(line.as_bytes()).expect("the report takes a line");
}

/// A line for the shell that must succeed.
#[track_caller]
pub fn sh(script: &str) -> Outcome {
    finish_within(Command::new("sh").args(["-ec", script]).stdin(Stdio::null()), patience()).ok()
}
