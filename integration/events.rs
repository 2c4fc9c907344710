//! events: samples in runc's structure, at their times, and a line for each OOM.

#[macro_use]
#[path = "support/mod.rs"]
mod support;
#[macro_use]
#[path = "support/cgroups.rs"]
mod cgroups;

use cgroups::{dir, freeze, is_unified};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use support::{Bundle, Scratch, finish, patience, skip, until};

fn started(b: &Bundle) {
    b.create().ok();
    b.start().ok();
}

fn sample(b: &Bundle) -> Value {
    let out = b.verb("events", &["--stats"]).ok();
    assert_eq!(out.stdout.lines().count(), 1, "{}", out.stdout);
    let event = out.json();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(b.id)));
    event["data"].clone()
}

/// `events` at work, with its output in a file.
struct Watch {
    child: Child,
    dir: Scratch,
}

impl Watch {
    fn new(b: &Bundle, interval: &str) -> Self {
        let dir = Scratch::new("events");
        let out = File::create(dir.path.join("out")).expect("create");
        let mut c = b.orlop(["events", "--interval", interval, b.id.as_str()]);
        let child = c.stdout(out).spawn().expect("events");
        Self { child, dir }
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.path.join("out")).expect("read");
        // The last line may be half written.
        text.split_inclusive('\n').filter_map(|l| serde_json::from_str(l.strip_suffix('\n')?).ok()).collect()
    }

    fn of(&self, kind: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|l| l["type"] == kind).collect()
    }

    fn end(&mut self) -> ExitStatus {
        let end = Instant::now() + patience();
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < end, "events did not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A container of so little memory that tail(1) of /dev/zero has not enough; one at a time, since on v2 the end of a
/// cgroup together with a kill elsewhere on the host is told as its own.
fn hungry(script: &str) -> (MutexGuard<'static, ()>, Bundle) {
    static ALONE: Mutex<()> = Mutex::new(());
    let memory = json!({ "limit": 32 << 20, "swap": 32 << 20 });
    let b =
        Bundle::new().sh(script).set("/root/readonly", json!(false)).set("/linux/resources/memory", memory);
    (ALONE.lock().unwrap_or_else(PoisonError::into_inner), b)
}

#[test]
fn limits_and_use_are_in_a_sample() {
    needs_controllers!("memory", "cpu", "pids");
    let resources = json!({
        "memory": { "limit": 64 << 20, "swap": 96 << 20 },
        "cpu": { "quota": 20000, "period": 100000 },
        "pids": { "limit": 77 },
    });
    let b = Bundle::new()
        .sh("i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; dd if=/bin/busybox of=/tmp/x; exec sleep 1000")
        .set("/root/readonly", json!(false))
        .set("/linux/resources", resources);
    started(&b);
    let mut s = Value::Null;
    until("it was throttled, wrote, and sleeps", || {
        s = sample(&b);
        let (throttled, cache) = (&s["cpu"]["throttling"]["throttledTime"], &s["memory"]["cache"]);
        throttled.as_u64() > Some(0) && cache.as_u64() > Some(0) && s["pids"]["current"] == 1
    });
    let number = |pointer: &str| s.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    assert_eq!(s["memory"]["usage"]["limit"], json!(64 << 20));
    assert_eq!(s["memory"]["swap"]["limit"], json!(96 << 20));
    assert_eq!(s["pids"], json!({ "current": 1, "limit": 77 }));
    for pointer in ["/cpu/usage/total", "/cpu/usage/user", "/cpu/throttling/periods", "/memory/usage/usage"] {
        assert!(number(pointer) > 0, "{pointer}: {s}");
    }
    // Nanoseconds, whatever the kernel counts in.
    assert!((1_000_000..60_000_000_000).contains(&number("/cpu/usage/total")), "{s}");
    assert!(number("/cpu/usage/user") + number("/cpu/usage/kernel") <= number("/cpu/usage/total") * 2, "{s}");
    let raw = s["memory"]["raw"].as_object().expect("raw");
    assert!(raw.contains_key(if is_unified() { "anon" } else { "total_rss" }), "{s}");
    assert_eq!(s["network_interfaces"], Value::Null);
}

#[test]
fn pressure_is_there_where_the_kernel_counts_it() {
    needs_root!();
    let b = Bundle::sleeping();
    started(&b);
    let cgroup = support::cgroups_named(&b.id).into_iter().find(|d| d.join("cpu.pressure").exists());
    if cgroup.is_none_or(|d| fs::read(d.join("cpu.pressure")).is_err()) {
        skip("the kernel counts no pressure");
        return;
    }
    let s = sample(&b);
    for subject in ["cpu", "memory", "blkio"] {
        for line in ["some", "full"] {
            let line = &s[subject]["psi"][line];
            assert!(["avg10", "avg60", "avg300"].iter().all(|k| line[k].is_f64()), "{subject}: {s}");
            assert!(line["total"].is_u64(), "{subject}: {s}");
        }
    }
}

#[test]
fn samples_come_at_their_interval_until_the_container_stops() {
    needs_root!();
    let b = Bundle::sleeping();
    started(&b);
    let begin = Instant::now();
    let mut watch = Watch::new(&b, "300ms");
    until("three samples came", || watch.lines().len() >= 3);
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    b.verb("kill", &["KILL"]).ok();
    assert!(watch.end().success());
    assert!(watch.lines().iter().all(|l| l["type"] == "stats" && l["id"] == b.id.as_str()));
    b.delete().ok();
    b.is_clean();
}

#[test]
fn a_reader_that_leaves_ends_it_without_a_word() {
    needs_root!();
    let b = Bundle::sleeping();
    started(&b);
    let mut c = b.orlop(["events", "--interval", "100ms", b.id.as_str()]);
    let mut child = c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("orlop");
    drop(child.stdout.take());
    let out = child.wait_with_output().expect("output");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&out.status), Some(libc::SIGPIPE));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
}

#[test]
fn without_an_interval_it_is_five_seconds() {
    needs_root!();
    let b = Bundle::sleeping();
    started(&b);
    let begin = Instant::now();
    let mut c = b.orlop(["events", b.id.as_str()]);
    let mut child = c.stdout(Stdio::piped()).spawn().expect("events");
    let mut line = String::new();
    let out = child.stdout.take().expect("stdout");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
    let waited = begin.elapsed();
    b.verb("kill", &["KILL"]).ok();
    let _ = child.wait(); // its output is closed: that may fail it
    assert!(waited >= Duration::from_secs(5), "{waited:?}");
    assert!(line.starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{}\",\"data\":{{", b.id)), "{line}");
}

#[test]
fn each_time_that_memory_runs_out_is_one_line() {
    needs_controllers!("memory");
    let (_alone, b) = hungry(
        "tail /dev/zero; touch /tmp/first; while [ ! -e /tmp/go ]; do sleep 0.1; done; tail /dev/zero; exec sleep 1000",
    );
    b.create().ok();
    let mut watch = Watch::new(&b, "100ms");
    until("it is watched", || !watch.of("stats").is_empty());
    b.start().ok();
    until("memory ran out", || !watch.of("oom").is_empty());
    let tmp = format!("/proc/{}/root/tmp", b.state()["pid"]);
    until("the program goes on", || Path::new(&tmp).join("first").exists());
    assert_eq!(watch.of("oom"), [json!({ "type": "oom", "id": b.id })]);
    // Nothing more is told while nothing more happens.
    let samples = watch.of("stats").len();
    until("more samples came", || watch.of("stats").len() > samples + 3);
    assert_eq!(watch.of("oom").len(), 1);
    fs::write(Path::new(&tmp).join("go"), "").unwrap();
    until("it ran out again", || watch.of("oom").len() == 2);
    b.verb("kill", &["KILL"]).ok();
    assert!(watch.end().success());
    assert_eq!(watch.of("oom").len(), 2);
}

#[test]
fn the_oom_that_ends_the_container_is_told() {
    needs_controllers!("memory");
    let (_alone, b) = hungry("exec tail /dev/zero");
    b.create().ok();
    let mut watch = Watch::new(&b, "100ms");
    until("it is watched", || !watch.of("stats").is_empty());
    b.start().ok();
    assert!(watch.end().success());
    assert_eq!(watch.of("oom"), [json!({ "type": "oom", "id": b.id })]);
    b.await_status("stopped");
}

/// Removed by `run` at once: the line is told before.
#[test]
fn the_oom_of_a_foreground_run_is_told() {
    needs_controllers!("memory");
    let (_alone, b) = hungry("while [ ! -e /tmp/go ]; do sleep 0.1; done; exec tail /dev/zero");
    let mut run = b.making("run").stdout(Stdio::null()).spawn().expect("run");
    until("it runs", || b.verb("state", &[]).stdout.contains("\"running\""));
    let mut watch = Watch::new(&b, "100ms");
    until("it is watched", || !watch.of("stats").is_empty());
    fs::write(format!("/proc/{}/root/tmp/go", b.state()["pid"]), "").unwrap();
    assert!(watch.end().success());
    assert_eq!(run.wait().expect("run").code(), Some(137));
    assert_eq!(watch.of("oom").len(), 1);
}

#[test]
fn a_paused_container_gives_samples() {
    needs_root!();
    let b = Bundle::sleeping();
    started(&b);
    freeze(&dir("freezer", &b.id));
    b.await_status("paused");
    assert_eq!(sample(&b)["pids"]["current"], json!(1));
}

#[test]
fn what_cannot_be_watched_is_an_error() {
    needs_root!();
    let b = Bundle::new();
    b.verb("events", &["--stats"]).fails("container does not exist");
    started(&b);
    b.await_status("stopped");
    let words = format!("container with id {} is not running", b.id);
    b.verb("events", &["--stats"]).fails(&words);
    b.verb("events", &[]).fails(&words);
    for (interval, words) in [
        ("0", "must be greater than 0"),
        ("-1s", "must be greater than 0"),
        ("0s", "must be greater than 0"),
        ("often", "is not a duration"),
    ] {
        b.verb("events", &["--interval", interval]).fails(words);
    }
}

#[test]
fn without_a_cgroup_there_are_no_numbers() {
    needs_root!();
    let b = Bundle::sleeping();
    b.write();
    let mut create = b.orlop(["--cgroup-manager=disabled", "create", "--bundle"]);
    finish(create.arg(b.path()).arg(&b.id)).ok();
    b.start().ok();
    b.verb("events", &["--stats"]).fails("has no cgroup");
    b.verb("events", &[]).fails("has no cgroup");
}

/// What runc leaves out at zero, and what only newer ones or hybrid hosts have.
const VARIABLE: &[&str] = &[
    "/cpu/psi",
    "/memory/psi",
    "/blkio/psi",
    "/hugetlb",
    "/blkio/ioServiceBytesRecursive",
    "/blkio/ioServicedRecursive",
    "/memory/cache",
    "/memory/usage/max",
    "/memory/swap/max",
    "/memory/kernel/usage",
    "/memory/kernel/max",
    "/memory/kernelTCP/usage",
    "/memory/kernelTCP/max",
    "/cpu/throttling/throttledPeriods",
    "/cpu/throttling/throttledTime",
    "/cpu/throttling/periods",
];

/// Each value's place and type.
fn shape(at: &str, v: &Value, out: &mut BTreeMap<String, &'static str>) {
    if VARIABLE.contains(&at) {
        return;
    }
    let kind = match v {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(list) => {
            list.iter().for_each(|v| shape(&format!("{at}/-"), v, out));
            "list"
        }
        Value::Object(map) => {
            map.iter().for_each(|(k, v)| shape(&format!("{at}/{k}"), v, out));
            "object"
        }
    };
    out.insert(at.to_string(), kind);
}

#[test]
fn runc_prints_the_same_structure_and_limits() {
    needs_root!();
    needs_program!("runc");
    needs_controllers!("memory", "pids", "cpuset");
    let resources = json!({
        "memory": { "limit": 64 << 20, "swap": 96 << 20 },
        "pids": { "limit": 77 },
        "cpu": { "cpus": "0", "mems": "0" },
    });
    let b = Bundle::sleeping().set("/linux/resources", resources).set("/ociVersion", json!("1.0.2"));
    started(&b);
    let runc = |args: &[&str]| {
        let mut c = Command::new("runc");
        finish(c.arg("--root").arg(b.path().join("runc-state")).args(args).stdin(Stdio::null()))
    };
    let theirs = format!("{}-runc", b.id);
    runc(&["run", "-d", "--bundle", b.path().to_str().unwrap(), &theirs]).ok();
    let out = runc(&["events", "--stats", &theirs]).ok();
    let (ours, runcs) = (sample(&b), out.json()["data"].clone());
    let shape_of = |v: &Value| {
        let mut out = BTreeMap::new();
        shape("", v, &mut out);
        out
    };
    assert_eq!(shape_of(&ours), shape_of(&runcs));
    for pointer in [
        "/memory/usage/limit",
        "/memory/swap/limit",
        "/memory/kernel/limit",
        "/memory/kernelTCP",
        "/pids/limit",
        "/cpuset",
    ] {
        assert_eq!(ours.pointer(pointer), runcs.pointer(pointer), "{pointer}");
    }
    // The order of keys is part of what line-based tools match.
    let keys = |text: &str| -> Vec<usize> {
        [
            "\"type\"",
            "\"id\"",
            "\"data\"",
            "\"cpu\"",
            "\"cpuset\"",
            "\"memory\"",
            "\"pids\"",
            "\"blkio\"",
            "\"hugetlb\"",
        ]
        .iter()
        .map(|k| text.find(k).expect("the key"))
        .collect()
    };
    let mine = b.verb("events", &["--stats"]).ok().stdout;
    assert!(keys(&mine).is_sorted() && keys(&out.stdout).is_sorted(), "{mine}");
}
