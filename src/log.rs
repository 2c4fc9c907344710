//! `--log`, `--log-format`, `--debug`: records of `tracing` for the file that shims read.
//!
//! A shim takes the last line with `"level":"error"` of the JSON file and shows its `msg`; keys stand at the top
//! level and levels are in lower case, as logrus writes them for runc. Without `--log`, warnings (and debug records
//! when asked for) go to standard error as text. Standard output belongs to the container.

use crate::cli::{Global, LogFormat, LogLevel};
use crate::error::{Error, Result, clean, is_acted_on};
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// Where records go; set once by [`init`].
static SINK: OnceLock<Sink> = OnceLock::new();

/// Runs what writes to a terminal while nothing else stands in its way; set by [`aside`].
static ASIDE: OnceLock<Aside> = OnceLock::new();
type Aside = fn(&mut dyn FnMut());

/// Lets who draws on the terminal step aside for records.
pub fn aside(aside: Aside) {
    let _ = ASIDE.set(aside); // there is one terminal
}

/// How long a record waits for its daemon.
const PATIENCE: Duration = Duration::from_millis(200);

enum Sink {
    Stderr,
    /// Only the file has a format: what reaches a person is text.
    File(File, LogFormat),
    /// Of a daemon that takes one record a datagram, and the name that records carry there.
    Daemon(Daemon, UnixDatagram, String),
}

/// Daemons that crun's callers may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Daemon {
    /// syslog(3)
    Syslog,
    /// systemd's journal, by its native protocol.
    Journal,
}

impl Sink {
    /// `PATH`, or as crun has it `file:PATH`, `syslog:NAME`, `journald:NAME`.
    fn open(target: &Path, format: LogFormat) -> Result<Self> {
        let text = target.to_string_lossy();
        let daemon = |daemon: Daemon, path: &str, name: &str| {
            let socket = UnixDatagram::unbound().and_then(|s| {
                // A daemon that reads no more has a full queue, at which send(2) waits.
                s.set_write_timeout(Some(PATIENCE))?;
                s.connect(path).map(|()| s)
            });
            let name = if name.is_empty() { "orlop" } else { name };
            let socket = socket.map_err(|e| Error::io("--log", format!("connect to {path}"), &e))?;
            Ok(Sink::Daemon(daemon, socket, clean(name).into_owned()))
        };
        match text.split_once(':') {
            Some(("syslog", name)) => return daemon(Daemon::Syslog, "/dev/log", name),
            Some(("journald", name)) => return daemon(Daemon::Journal, "/run/systemd/journal/socket", name),
            _ => {}
        }
        let path = target.as_os_str().as_bytes();
        let path = Path::new(OsStr::from_bytes(path.strip_prefix(b"file:").unwrap_or(path)));
        let file = OpenOptions::new().append(true).create(true).mode(0o644).open(path);
        let file = file.map_err(|e| Error::io(path.display().to_string(), "open the log", &e))?;
        Ok(Sink::File(file, format))
    }

    /// A log that is full or gone must not stop a container.
    fn put(&self, level: &str, msg: &str, fields: &[(&str, String)]) {
        let _ = match self {
            Sink::Stderr => {
                let line = record(LogFormat::Text, SystemTime::now(), level, msg, fields);
                let mut done = Ok(());
                let mut write = || done = std::io::stderr().write_all(line.as_bytes());
                match ASIDE.get() {
                    Some(aside) => aside(&mut write),
                    None => write(),
                }
                done
            }
            Sink::File(file, format) => {
                let line = record(*format, SystemTime::now(), level, msg, fields);
                (&*file).write_all(line.as_bytes())
            }
            Sink::Daemon(daemon, socket, name) => {
                socket.send(datagram(*daemon, name, level, msg, fields).as_bytes()).map(drop)
            }
        };
    }
}

/// One record as the daemon takes it.
fn datagram(daemon: Daemon, name: &str, level: &str, msg: &str, fields: &[(&str, String)]) -> String {
    const USER: u32 = 1 << 3; // the facility of programs, syslog(3)
    let priority = match level {
        "error" => 3,
        "warning" => 4,
        "info" => 6,
        _ => 7,
    };
    let mut text = clean(msg).into_owned();
    for (name, value) in fields {
        let _ = write!(text, " {name}={}", quoted(value)); // a String takes everything
    }
    match daemon {
        Daemon::Syslog => format!("<{}>{name}[{}]: {text}", USER | priority, std::process::id()),
        Daemon::Journal => format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER={name}\nMESSAGE={text}\n"),
    }
}

/// Opens the log and takes the records of `tracing` from here on. A second call changes nothing.
pub fn init(global: &Global) -> Result<()> {
    let sink = match &global.log {
        Some(target) => Sink::open(target, global.log_format)?,
        None => Sink::Stderr,
    };
    if SINK.set(sink).is_ok() {
        // Refused only when another subscriber is set already, which then has the records.
        let _ = tracing::dispatcher::set_global_default(tracing::Dispatch::new(Log(level(global))));
    }
    Ok(())
}

/// The least level that is recorded.
fn level(global: &Global) -> LevelFilter {
    match global.log_level {
        None if global.debug => LevelFilter::DEBUG,
        None if global.log.is_some() => LevelFilter::INFO,
        None | Some(LogLevel::Warning) => LevelFilter::WARN,
        Some(LogLevel::Error) => LevelFilter::ERROR,
        Some(LogLevel::Info) => LevelFilter::INFO,
        Some(LogLevel::Debug) => LevelFilter::DEBUG,
    }
}

/// Prints the error that ends `verb`: on standard error, and as the log's last record.
pub fn fatal(verb: &str, error: &Error) {
    let msg = fatal_message(verb, error);
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stderr(), "{msg}");
    if let Some(sink @ (Sink::File(..) | Sink::Daemon(..))) = SINK.get() {
        sink.put("error", &msg, &[]);
    }
}

fn fatal_message(verb: &str, error: &Error) -> String {
    if verb.is_empty() { format!("orlop: {error}") } else { format!("orlop: {verb}: {error}") }
}

/// One line of the log, with its newline.
fn record(format: LogFormat, at: SystemTime, level: &str, msg: &str, fields: &[(&str, String)]) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let time = rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
    let mut line = String::with_capacity(msg.len() + 80);
    // Writing to a String cannot fail.
    let _ = match format {
        LogFormat::Json => write!(line, "{{\"level\":\"{level}\",\"msg\":{}", quoted(msg)),
        LogFormat::Text => write!(line, "time=\"{time}\" level={level} msg={}", quoted(msg)),
    };
    for (name, value) in fields {
        let _ = match format {
            LogFormat::Json => write!(line, ",{}:{}", quoted(name), quoted(value)),
            LogFormat::Text => write!(line, " {name}={}", quoted(value)),
        };
    }
    line.push_str(&match format {
        LogFormat::Json => format!(",\"time\":\"{time}\"}}\n"),
        LogFormat::Text => "\n".to_string(),
    });
    line
}

/// A JSON string that also is safe on a terminal: what JSON would leave is escaped too.
fn quoted(s: &str) -> String {
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_acted_on(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A moment in UTC as RFC 3339 has it, with nanoseconds unless they are zero: `2026-01-01T00:00:00.5Z`.
pub fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let mut out = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    if since.subsec_nanos() != 0 {
        let fraction = format!(".{:09}", since.subsec_nanos());
        out.push_str(fraction.trim_end_matches('0'));
    }
    out.push('Z');
    out
}

/// Year, month and day of a count of days since 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March, so that a leap day is the last of its year; 1970-01-01 is day 719468 from 0000-03-01.
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The subscriber: events become records, spans are not used.
struct Log(LevelFilter);

impl Subscriber for Log {
    fn enabled(&self, meta: &Metadata<'_>) -> bool {
        meta.is_event() && *meta.level() <= self.0
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.0)
    }

    fn event(&self, event: &Event<'_>) {
        let mut v = Record::default();
        event.record(&mut v);
        let Some(sink) = SINK.get() else { return };
        sink.put(level_name(event.metadata().level()), &v.msg, &v.fields);
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// logrus' names.
fn level_name(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The message of an event and its other fields.
#[derive(Default)]
struct Record {
    msg: String,
    fields: Vec<(&'static str, String)>,
}

impl Record {
    fn put(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.msg = text,
            // These three are ours: a second one would hide the first from a reader.
            "level" | "msg" | "time" => {}
            name => self.fields.push((name, text)),
        }
    }
}

impl Visit for Record {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(s: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(s)
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (at, want) in [
            (seconds(0), "1970-01-01T00:00:00Z"),
            (seconds(951_782_400), "2000-02-29T00:00:00Z"),
            (seconds(951_868_799), "2000-02-29T23:59:59Z"),
            (seconds(951_868_800), "2000-03-01T00:00:00Z"),
            (seconds(1_767_225_599), "2025-12-31T23:59:59Z"),
            (seconds(1_767_225_600), "2026-01-01T00:00:00Z"),
            (seconds(4_107_542_400), "2100-03-01T00:00:00Z"),
            (seconds(1_767_225_600) + Duration::from_nanos(500_000_000), "2026-01-01T00:00:00.5Z"),
            (seconds(1_767_225_600) + Duration::from_nanos(7), "2026-01-01T00:00:00.000000007Z"),
        ] {
            assert_eq!(rfc3339(at), want);
        }
    }

    #[test]
    fn json_has_the_keys_that_shims_read() {
        let line = record(
            LogFormat::Json,
            seconds(1_767_225_600) + Duration::from_nanos(9),
            "error",
            "orlop: create: \"a\"\n\u{1b}[31m\u{9b} é",
            &[("id", "x\"y".into())],
        );
        assert!(line.ends_with("}\n") && line.lines().count() == 1, "{line}");
        assert!(line.starts_with("{\"level\":\"error\",\"msg\":"), "{line}");
        assert!(!line.contains(['\u{1b}', '\u{9b}']), "{line}");
        let v: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(v["msg"], "orlop: create: \"a\"\n\u{1b}[31m\u{9b} é");
        assert_eq!(v["time"], "2026-01-01T00:00:00Z");
        assert_eq!(v["id"], "x\"y");
    }

    #[test]
    fn text_is_that_of_logrus() {
        let line = record(LogFormat::Text, seconds(0), "warning", "a \"b\"", &[("id", "c".into())]);
        assert_eq!(line, "time=\"1970-01-01T00:00:00Z\" level=warning msg=\"a \\\"b\\\"\" id=\"c\"\n");
    }

    #[test]
    fn daemons_take_one_line_with_its_level() {
        let fields = [("id", "c\n".into())];
        let pid = std::process::id();
        for (daemon, want) in [
            (Daemon::Syslog, format!("<11>web[{pid}]: a\\nb id=\"c\\n\"")),
            (Daemon::Journal, "PRIORITY=3\nSYSLOG_IDENTIFIER=web\nMESSAGE=a\\nb id=\"c\\n\"\n".into()),
        ] {
            assert_eq!(datagram(daemon, "web", "error", "a\nb", &fields), want);
        }
        assert!(datagram(Daemon::Syslog, "x", "debug", "", &[]).starts_with("<15>x["));
    }

    #[test]
    fn levels_follow_the_flags() {
        let with = |debug, log_level, log: bool| {
            level(&Global { debug, log_level, log: log.then(|| "l".into()), ..Global::default() })
        };
        assert_eq!(with(false, None, false), LevelFilter::WARN);
        assert_eq!(with(false, None, true), LevelFilter::INFO);
        assert_eq!(with(true, None, false), LevelFilter::DEBUG);
        assert_eq!(with(true, Some(LogLevel::Error), true), LevelFilter::ERROR);
        assert_eq!(with(false, Some(LogLevel::Debug), true), LevelFilter::DEBUG);
        assert_eq!(with(false, Some(LogLevel::Warning), true), LevelFilter::WARN);
    }

    #[test]
    fn fatal_names_the_verb() {
        let e = Error::os("a", "b", libc::EBUSY);
        assert_eq!(fatal_message("create", &e), "orlop: create: a: b: device or resource busy");
        assert_eq!(fatal_message("", &e), "orlop: a: b: device or resource busy");
    }

    #[test]
    fn records_land_in_the_file() {
        let dir = std::env::temp_dir().join(format!("orlop-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("log.json");
        std::fs::write(&path, "kept\n").unwrap();
        let global = Global { log: Some(path.clone()), log_format: LogFormat::Json, ..Global::default() };
        let missing = Global { log: Some(dir.join("no/log")), ..Global::default() };
        let refused = init(&missing).unwrap_err();
        assert_eq!(refused.errno(), Some(libc::ENOENT));
        init(&global).unwrap();
        tracing::debug!("unseen");
        tracing::warn!(id = "c1", n = 3, "cgroup {} is not empty", "x");
        fatal("run", &Error::invalid("process.args", "is empty"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("kept"));
        let ours: Vec<serde_json::Value> = lines
            .map(|l| serde_json::from_str(l).unwrap())
            .filter(|v: &serde_json::Value| v["id"] == "c1" || v["level"] == "error" || v["msg"] == "unseen")
            .collect();
        assert_eq!(ours.len(), 2, "{text}");
        assert_eq!(ours[0]["level"], "warning");
        assert_eq!((&ours[0]["msg"], &ours[0]["n"]), (&"cgroup x is not empty".into(), &"3".into()));
        assert_eq!(ours[1]["msg"], "orlop: run: process.args: is empty");
    }
}
