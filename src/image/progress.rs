//! How far a command is: bars on a terminal, lines or JSON elsewhere, all on standard error.

use super::digest::Digest;
use indicatif::{BinaryBytes, MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Bars on a terminal, lines elsewhere
    Auto,
    /// A line for each thing that is done
    Plain,
    /// A JSON object on a line for each event
    Json,
    /// Nothing
    None,
}

enum Form {
    Bars(MultiProgress),
    Plain,
    Json,
}

/// One terminal, one form: as with logging, whoever works far below need not be handed it.
static FORM: OnceLock<Form> = OnceLock::new();

/// Chooses the form for this process; without it nothing is shown.
pub fn show(mode: Mode) {
    let terminal = || io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    let form = match mode {
        Mode::None => return,
        Mode::Json => Form::Json,
        Mode::Auto if terminal() => {
            crate::log::aside(aside);
            Form::Bars(MultiProgress::new())
        }
        Mode::Auto | Mode::Plain => Form::Plain,
    };
    let _ = FORM.set(form); // a second choice has no effect
}

/// Without the bars, which are drawn again afterwards.
fn aside(write: &mut dyn FnMut()) {
    match FORM.get() {
        Some(Form::Bars(all)) => all.suspend(write),
        _ => write(),
    }
}

/// Takes the bars from the terminal: what failed is told by its error.
pub fn clear() {
    if let Some(Form::Bars(all)) = FORM.get() {
        let _ = all.clear(); // a terminal that is gone has no bars
    }
}

/// Something that is under way. Dropped before it is done, it has failed.
#[derive(Clone)]
pub struct Task(Arc<State>);

struct State {
    what: &'static str,
    /// Of the blob, the layer or the image that it is about.
    digest: Option<Digest>,
    total: AtomicU64,
    is_estimate: bool,
    at: AtomicU64,
    start: Instant,
    /// When it last spoke.
    last: Mutex<Instant>,
    bar: Option<ProgressBar>,
    is_done: std::sync::atomic::AtomicBool,
}

/// How a task ended that was dropped.
const FAILED: &str = "failed";
/// A total that nobody knows.
const UNKNOWN: u64 = u64::MAX;

/// Begins a task of a known number of bytes.
pub fn task(what: &'static str, digest: &Digest, total: u64) -> Task {
    Task::begin(what, Some(*digest), total, false)
}

/// Begins a task whose number of bytes is known at its end; until then it is guessed, or not told.
pub fn open_task(what: &'static str, digest: Option<Digest>, guess: Option<u64>) -> Task {
    Task::begin(what, digest, guess.unwrap_or(UNKNOWN), true)
}

fn bar(all: &MultiProgress, prefix: String, total: u64) -> ProgressBar {
    let (bar, template) = match total {
        UNKNOWN => {
            (ProgressBar::no_length(), "{prefix:19}  {binary_bytes:>26} {binary_bytes_per_sec:>14} {msg}")
        }
        total => (
            ProgressBar::new(total),
            "{prefix:19} [{wide_bar}] {binary_bytes:>11}/{binary_total_bytes:11} \
             {binary_bytes_per_sec:>13} {eta:>4} {msg}",
        ),
    };
    let bar = all.add(bar.with_prefix(prefix));
    // The templates are ours and right; were they not, the bar would only look otherwise.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

impl Task {
    fn begin(what: &'static str, digest: Option<Digest>, total: u64, is_estimate: bool) -> Self {
        let start = Instant::now();
        let mut state = State {
            what,
            digest,
            total: total.into(),
            is_estimate,
            at: AtomicU64::new(0),
            start,
            last: Mutex::new(start),
            bar: None,
            is_done: false.into(),
        };
        if let Some(Form::Bars(all)) = FORM.get() {
            state.bar = Some(bar(all, state.name(), total));
        }
        state.tell("start", &[]);
        Self(Arc::new(state))
    }

    pub fn add(&self, bytes: u64) {
        let before = self.0.at.fetch_add(bytes, Ordering::Relaxed);
        self.0.moved(before + bytes);
    }

    /// So many bytes are done in all.
    pub fn reached(&self, bytes: u64) {
        self.0.at.store(bytes, Ordering::Relaxed);
        self.0.moved(bytes);
    }

    /// Counts what is read.
    pub fn read<R: Read>(&self, inner: R) -> Counted<R> {
        Counted { inner, task: self.clone() }
    }

    /// Counts what is written.
    pub fn write<W: Write>(&self, inner: W) -> Counted<W> {
        Counted { inner, task: self.clone() }
    }

    /// It has ended, and how: `imported`, `exists`, `pushed`, `mounted`, `exported`, `made`, `converted`, `verified`,
    /// `damaged`.
    pub fn done(&self, how: &str) {
        self.0.end(how);
    }
}

impl State {
    /// What it is about, for people.
    fn name(&self) -> String {
        let digest = self.digest.map(|d| d.hex()[..12].to_string()).unwrap_or_default();
        format!("{} {digest}", self.what).trim_end().to_string()
    }

    fn total(&self) -> Option<u64> {
        Some(self.total.load(Ordering::Relaxed)).filter(|t| *t != UNKNOWN)
    }

    fn moved(&self, at: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(at);
        }
        let pause = match FORM.get() {
            Some(Form::Json) => Duration::from_millis(250),
            Some(Form::Plain) => Duration::from_secs(10),
            _ => return,
        };
        let now = Instant::now();
        // Another thread is about to speak.
        let Ok(mut last) = self.last.try_lock() else { return };
        if now.duration_since(*last) >= pause {
            *last = now;
            drop(last);
            let rate = self.rate(at);
            let left = self.total().and_then(|t| t.saturating_sub(at).checked_div(rate));
            self.tell("progress", &[("bytesPerSecond", json!(rate)), ("secondsLeft", json!(left))]);
        }
    }

    /// Bytes in a second.
    fn rate(&self, at: u64) -> u64 {
        (at as f64 / self.start.elapsed().as_secs_f64().max(1e-3)) as u64
    }

    fn end(&self, how: &str) {
        if self.is_done.swap(true, Ordering::Relaxed) {
            return;
        }
        let at = self.at.load(Ordering::Relaxed);
        if self.is_estimate && how != FAILED {
            self.total.store(at, Ordering::Relaxed);
        }
        match &self.bar {
            None => {}
            Some(bar) if how == FAILED => return bar.finish_and_clear(),
            Some(bar) => {
                if self.is_estimate {
                    bar.set_length(at);
                }
                return bar.abandon_with_message(how.to_string());
            }
        }
        let seconds = (self.start.elapsed().as_secs_f64() * 1000.0).round() / 1000.0;
        self.tell("done", &[("result", json!(how)), ("seconds", json!(seconds))]);
    }

    fn tell(&self, event: &str, more: &[(&str, Value)]) {
        let at = self.at.load(Ordering::Relaxed);
        let value = |name: &str| more.iter().find(|m| m.0 == name).map(|m| &m.1);
        let line = match FORM.get() {
            Some(Form::Json) => {
                let mut object = json!({
                    "event": event, "what": self.what, "digest": self.digest, "bytes": at, "total": self.total(),
                });
                more.iter().for_each(|(name, value)| object[*name] = value.clone());
                object.to_string()
            }
            Some(Form::Plain) => {
                let (name, rate) = (self.name(), BinaryBytes(self.rate(at)));
                let of = self.total().map_or_else(|| "?".into(), |t| BinaryBytes(t).to_string());
                match (event, value("result").and_then(Value::as_str), value("secondsLeft")) {
                    ("progress", _, left) => {
                        let left = left.and_then(Value::as_u64).map_or_else(|| "?".into(), |s| s.to_string());
                        format!("{name}: {} of {of}, {rate}/s, {left} s left", BinaryBytes(at))
                    }
                    (_, Some(how), _) if at > 0 => format!("{name}: {how}, {of}, {rate}/s"),
                    (_, Some(how), _) => format!("{name}: {how}"),
                    _ => return,
                }
            }
            _ => return,
        };
        // Nobody is there to be told that standard error is closed.
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.end(FAILED);
    }
}

/// A reader or writer that tells its task.
pub struct Counted<R> {
    inner: R,
    task: Task,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.task.add(n as u64);
        Ok(n)
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.task.add(n as u64);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
