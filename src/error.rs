//! The one error type, and the one way it is printed.
//!
//! A message is `<where>: <what>: <errno text>; <hint>`. *Where* is a property of the
//! specification (`linux.resources.memory.limit`) or a file; *what* is the rule that was broken or the
//! system call that failed, with its values quoted.

use nix::errno::Errno;
use std::borrow::Cow;
use std::fmt;

/// What a caller may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The input breaks a rule of the specification or of the command line.
    Invalid,
    /// The input is right, but this kernel, host or version cannot do it.
    Unsupported,
    /// The container, image or file is not there.
    NotFound,
    /// The container or file is there already.
    Exists,
    /// The container's status forbids the operation.
    WrongState,
    /// A system call failed with this errno.
    Os(i32),
}

/// An error with its place, its cause and, where there is one, its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    /// A path of the specification (`mounts[3] (/dev/shm)`) or of the file system.
    pub at: String,
    /// The broken rule, or the call that failed with its arguments.
    pub what: String,
    /// The remedy, printed after `;`.
    pub hint: Option<String>,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// For `map_err`: as [`Error::os`], of the errno that a system call answered with.
pub fn os(at: impl Into<String>, what: impl Into<String>) -> impl FnOnce(Errno) -> Error {
    move |e| Error::os(at, what, e as i32)
}

impl Error {
    pub fn new(kind: Kind, at: impl Into<String>, what: impl Into<String>) -> Self {
        Self { kind, at: at.into(), what: what.into(), hint: None }
    }

    /// The input breaks a rule.
    pub fn invalid(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, at, what)
    }

    /// The input is right, but cannot be had here.
    pub fn unsupported(at: impl Into<String>, what: impl Into<String>) -> Self {
        Self::new(Kind::Unsupported, at, what)
    }

    /// The system call described by `what` failed with `errno`.
    pub fn os(at: impl Into<String>, what: impl Into<String>, errno: i32) -> Self {
        Self::new(Kind::Os(errno), at, what)
    }

    /// As [`Error::os`]; without an errno, zero, a broken rule.
    pub fn errno_or_rule(at: impl Into<String>, what: impl Into<String>, errno: i32) -> Self {
        if errno == 0 { Self::invalid(at, what) } else { Self::os(at, what, errno) }
    }

    /// As [`Error::os`], from an `io::Error`; one without an errno becomes `Invalid` with its text.
    pub fn io(at: impl Into<String>, what: impl Into<String>, e: &std::io::Error) -> Self {
        // One of ours that came through a reader knows better where it happened.
        if let Some(own) = e.get_ref().and_then(|e| e.downcast_ref::<Self>()) {
            return own.clone();
        }
        match e.raw_os_error() {
            Some(errno) => Self::os(at, what, errno),
            None => Self::invalid(at, format!("{}: {e}", what.into())),
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The errno of a failed system call.
    pub fn errno(&self) -> Option<i32> {
        match self.kind {
            Kind::Os(e) => Some(e),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.is_empty() {
            f.write_str(&clean(&self.at))?;
            f.write_str(": ")?;
        }
        f.write_str(&clean(&self.what))?;
        if let Kind::Os(errno) = self.kind {
            write!(f, ": {}", errno_text(errno))?;
        }
        if let Some(hint) = &self.hint {
            f.write_str("; ")?;
            f.write_str(&clean(hint))?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// What a terminal acts on rather than shows: controls, and what turns the direction of a text, by which one name looks
/// like another (CVE-2021-42574).
pub fn is_acted_on(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with that escaped: names of an image or a config must not reach a terminal raw.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_acted_on) {
        return text.into();
    }
    let escaped =
        text.chars().map(|c| if is_acted_on(c) { c.escape_default().to_string() } else { c.into() });
    escaped.collect::<String>().into()
}

/// The text of an errno, in lower case: engines match "no such file or directory" and "permission denied"
/// by case, and `strerror` begins with a capital.
pub fn errno_text(errno: i32) -> String {
    let text = Errno::from_raw(errno).desc();
    let mut out = String::with_capacity(text.len());
    for (i, word) in text.split(' ').enumerate() {
        if i > 0 {
            out.push(' ');
        }
        // "RPC", "I/O" and the like stay as they are.
        let shout = word.len() > 1 && word.chars().all(|c| !c.is_ascii_lowercase());
        out.push_str(&if shout { word.to_string() } else { word.to_lowercase() });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_has_place_call_errno_and_hint() {
        let e = Error::os("linux.resources.memory.limit", "write \"4096\" to memory.max", libc::EBUSY)
            .hint("raise it");
        assert_eq!(
            e.to_string(),
            "linux.resources.memory.limit: write \"4096\" to memory.max: device or resource busy; raise it"
        );
    }

    #[test]
    fn texts_that_engines_match_are_lower_case() {
        for (errno, text) in [
            (libc::ENOENT, "no such file or directory"),
            (libc::EACCES, "permission denied"),
            (libc::EPERM, "operation not permitted"),
            (libc::ESRCH, "no such process"),
            (libc::ENOTDIR, "not a directory"),
            (libc::EISDIR, "is a directory"),
        ] {
            assert_eq!(errno_text(errno), text);
        }
    }

    #[test]
    fn control_bytes_are_escaped() {
        assert_eq!(Error::invalid("a\x1b[31m", "b\n").to_string(), "a\\u{1b}[31m: b\\n");
    }
}
