//! A bundle opened: its document, and the overlay description that `imgtool` may have left in it.

use crate::config::{Config, Process};
use crate::error::{Error, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `overlay.json` of a bundle: the parts of its rootfs, written by `imgtool unpack`. What is the bundle's own is named
/// from the bundle, which may be moved or copied, all else by absolute paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Overlay {
    /// Topmost first, as overlayfs wants them: directories, and EROFS images as [`IMAGE`] and their path.
    pub lower: Vec<String>,
    /// Absent for a read-only rootfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<String>,
    /// Further options of overlayfs, `metacopy=on` or `volatile`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// What mounts it, when it is not the kernel's overlayfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The digest of the image's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl Overlay {
    /// All paths absolute, for the bundle at `bundle`, which is one.
    ///
    /// Older descriptions name what is the bundle's own by where it was made. Wherever it went, these are its own `upper`
    /// and `work`; one whose container writes elsewhere has no `work`.
    pub fn resolved(mut self, bundle: &Path) -> Result<Self> {
        let at =
            bundle.to_str().ok_or_else(|| Error::invalid(bundle.display().to_string(), "is not UTF-8"))?;
        let own = |name: &str| format!("{at}/{name}");
        let has = |name: &str| bundle.join(name).is_dir();
        let was_own = |path: &str| path.ends_with("/upper") && Path::new(path).parent() != Some(bundle);
        match (&mut self.upper, self.lower.first_mut()) {
            (Some(upper), _) if was_own(upper) && has("upper") && has("work") => {
                (*upper, self.work) = (own("upper"), Some(own("work")));
            }
            (None, Some(top)) if was_own(top) && has("upper") => *top = own("upper"),
            _ => {}
        }
        let is_own = |path: &&mut String| !path.starts_with('/') && !path.starts_with(IMAGE);
        let all = self.lower.iter_mut().chain(&mut self.upper).chain(&mut self.work);
        all.filter(is_own).for_each(|path| *path = own(path));
        Ok(self)
    }
}

/// Most lower directories that the kernel stacks (OVL_MAX_STACK).
pub const MAX_LOWERS: usize = 500;

/// What stands before the path of a layer that is an EROFS image, to be mounted from its file.
pub const IMAGE: &str = "erofs:";

/// Whether overlayfs takes a directory by this path: fsconfig(2) has 256 bytes for a value, and a backslash in one is
/// an escape. Any other is entered and called `.`.
pub fn is_plain(path: &[u8]) -> bool {
    path.len() < 256 && !path.contains(&b'\\')
}

/// Whether overlayfs takes its layers one by one, as `lowerdir+`: Linux 6.8 does. Older kernels cannot be asked: some
/// take the option and refuse the mount.
pub fn appends_lowers() -> bool {
    kernel_is_at_least((6, 8))
}

/// Whether overlayfs takes mounts without a place for layers, as EROFS images are left to the runtime: Linux 6.15 does.
/// Where they get a place before, `imgtool` mounts.
pub fn takes_images() -> bool {
    kernel_is_at_least((6, 15))
}

/// What is said without it.
pub const NEEDS_DETACHED: &str =
    "needs overlayfs to take layers that are mounted nowhere, which Linux 6.15 does";

/// What is said without it.
pub const NEEDS_APPENDING: &str = "needs overlayfs to take layers one by one, which Linux 6.8 does";

fn kernel_is_at_least(least: (u32, u32)) -> bool {
    is_at_least(&rustix::system::uname().release().to_string_lossy(), least)
}

fn is_at_least(release: &str, (major, minor): (u32, u32)) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse::<u32>().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
}

/// A bundle, opened.
pub struct Bundle {
    /// Absolute.
    pub path: PathBuf,
    pub config: Config,
    /// The document, byte by byte.
    pub text: Vec<u8>,
    /// Layers that `imgtool` left unmounted.
    pub overlay: Option<Overlay>,
}

/// Largest config.json that is read; real ones have some 15 KB.
const MAX_CONFIG: u64 = 10 << 20;

impl Bundle {
    /// Reads config.json (or another file of this name) of the bundle.
    pub fn open(path: &Path, file: &Path) -> Result<Self> {
        let at = |p: &Path| p.to_string_lossy().into_owned();
        let path = fs::canonicalize(path).map_err(|e| Error::io(at(path), "open the bundle", &e))?;
        let name = path.join(file);
        let text = read(&name)?;
        let config = parse(&text, &at(&name))?;
        let overlay = Self::overlay(&path, &config)?;
        Self::check_root(&path, &config)?;
        Ok(Self { path, config, text, overlay })
    }

    /// A rootfs that is none is told before anything is made; that it is named at all is a rule of the plan.
    fn check_root(bundle: &Path, config: &Config) -> Result<()> {
        let Some(root) = config.root.as_ref().and_then(|r| r.path.as_deref()).filter(|r| !r.is_empty())
        else {
            return Ok(());
        };
        let root = bundle.join(root);
        let about = fs::metadata(&root).map_err(|e| Error::io("root.path", format!("stat {root:?}"), &e))?;
        if about.is_dir() {
            return Ok(());
        }
        Err(Error::invalid("root.path", format!("{root:?} is not a directory")))
    }

    /// The overlay description counts only while the rootfs is an empty directory: mounted, it is used as it is.
    fn overlay(path: &Path, config: &Config) -> Result<Option<Overlay>> {
        let file = path.join("overlay.json");
        let text = match read(&file) {
            Ok(t) => t,
            Err(e) if e.errno() == Some(libc::ENOENT) => return Ok(None),
            Err(e) => return Err(e),
        };
        let root = config.root.as_ref().and_then(|r| r.path.as_deref()).unwrap_or("rootfs");
        if fs::read_dir(path.join(root)).is_ok_and(|mut d| d.next().is_some()) {
            return Ok(None);
        }
        if !appends_lowers() {
            let error = Error::unsupported(file.to_string_lossy(), NEEDS_APPENDING);
            return Err(error.hint("orlop imgtool mount can mount them"));
        }
        let o: Overlay = serde_json::from_slice(&text)
            .map_err(|e| Error::invalid(file.to_string_lossy(), format!("is no overlay description: {e}")))?;
        match &o.driver {
            None if o.lower.iter().any(|l| l.starts_with(IMAGE)) && !takes_images() => {
                Err(Error::unsupported(file.to_string_lossy(), NEEDS_DETACHED)
                    .hint("orlop imgtool mount can mount them"))
            }
            None => o.resolved(path).map(Some),
            Some(driver) => {
                Err(Error::unsupported(file.to_string_lossy(), format!("has the driver {driver}"))
                    .hint("orlop imgtool mount mounts it"))
            }
        }
    }
}

/// A regular file; opening a FIFO must not wait for a writer.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    let at = file.to_string_lossy();
    let mut options = fs::OpenOptions::new();
    let open = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(file)
        .map_err(|e| Error::io(&*at, "open", &e))?;
    let Some(about) = open.metadata().ok().filter(fs::Metadata::is_file) else {
        return Err(Error::invalid(at, "is not a regular file"));
    };
    if about.len() > MAX_CONFIG {
        return Err(too_large(&at));
    }
    if about.len() == 0 {
        return whole(open, &at); // it may be one of those that the kernel writes when they are read
    }
    to_size(&open, about.len()).map_err(|e| Error::io(&*at, "read", &e))
}

/// So many bytes of a regular file, or all: the end is not asked for.
fn to_size(mut file: &fs::File, size: u64) -> std::io::Result<Vec<u8>> {
    let mut text = vec![0; size as usize];
    let mut len = 0;
    while len < text.len() {
        match file.read(&mut text[len..])? {
            0 => break,
            n => len += n,
        }
    }
    text.truncate(len);
    Ok(text)
}

fn too_large(at: &str) -> Error {
    Error::invalid(at, format!("is larger than {MAX_CONFIG} bytes"))
}

/// A document of bounded size, to its end.
pub fn whole(open: impl Read, at: &str) -> Result<Vec<u8>> {
    // Room for most: otherwise read(2) is asked for 32 bytes, and for twice as many each time.
    let mut text = Vec::with_capacity(16 << 10);
    open.take(MAX_CONFIG + 1).read_to_end(&mut text).map_err(|e| Error::io(at, "read", &e))?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(too_large(at));
    }
    Ok(text)
}

/// The `--process FILE` of exec (config.md#process), which may be the pipe of a shell's `<(…)` or /dev/stdin.
pub fn process(file: &Path) -> Result<Process> {
    let at = file.to_string_lossy();
    let open = fs::File::open(file).map_err(|e| Error::io(&*at, "open", &e))?;
    parse(&whole(open, &at)?, &at)
}

/// Parses config.json, or another of these documents; an error names file, line and property. A property that is there
/// twice is one: which counts differs from parser to parser (RFC 8259 section 4), and whoever checked the document may
/// have read the other. The second, slower parse runs only for the message.
pub fn parse<T: DeserializeOwned>(text: &[u8], at: &str) -> Result<T> {
    if let Ok(config) = serde_json::from_slice(text) {
        return Ok(config);
    }
    let mut de = serde_json::Deserializer::from_slice(text);
    match serde_path_to_error::deserialize::<_, T>(&mut de) {
        Ok(_) => Err(Error::invalid(at, "has more behind the document's end")),
        Err(e) => {
            let path = e.path().to_string();
            let whole = path == "." || path == "?";
            let property = if whole { String::new() } else { format!("{path}: ") };
            Err(Error::invalid(at, format!("{property}{}", e.inner())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_as_numbers() {
        for (release, want) in [
            ("6.8.0-45-generic", true),
            ("6.18", true),
            ("7.0-rc1", true),
            ("6.7.9", false),
            ("5.10.0", false),
            ("", false),
        ] {
            assert_eq!(is_at_least(release, (6, 8)), want, "{release}");
        }
    }

    #[test]
    fn a_wrong_type_is_named_with_its_property() {
        for (text, words) in [
            (
                r#"{"process":{"args":"sh"}}"#,
                "process.args: invalid type: string \"sh\", expected a sequence",
            ),
            (
                r#"{"linux":{"namespaces":[{"type":1}]}}"#,
                "linux.namespaces[0].type: invalid type: integer `1`",
            ),
            (
                r#"{"root":{"readonly":"yes"}}"#,
                "root.readonly: invalid type: string \"yes\", expected a boolean",
            ),
            ("{", "EOF while parsing an object at line 1 column 1"),
            ("{} x", "has more behind the document's end"),
            ("[]", "invalid type: sequence, expected an object at line 1 column 0"),
            (r#"{"process":[]}"#, "process: invalid type: sequence, expected an object at line 1"),
            (r#"{"mounts":[["/a"]]}"#, "mounts[0]: invalid type: sequence, expected an object"),
            (r#"{"mounts":[null]}"#, "mounts[0]: invalid type: null, expected an object"),
            (r#"{"linux":{"resources":{"memory":[1]}}}"#, "linux.resources.memory: invalid type: sequence"),
            (r#"{"process":{"args":["a"],"args":["b"]}}"#, "process: duplicate field `args` at line 1"),
            (r#"{"annotations":{"a":1}}"#, "annotations.a: invalid type: integer `1`, expected a string"),
        ] {
            let e = parse::<Config>(text.as_bytes(), "config.json").unwrap_err().to_string();
            assert!(e.starts_with("config.json: ") && e.contains(words), "{text}: {e}");
        }
    }

    #[test]
    fn absent_zero_and_unknown_stay_apart() {
        let c = parse::<Config>(br#"{"linux":{"resources":{"pids":{}}},"unheard":1,"process":{"capabilities":{"bounding":["CAP_X"]}}}"#, "")
            .unwrap();
        let pids = c.linux.unwrap().resources.unwrap().pids.unwrap();
        assert_eq!(pids.limit, None);
        let process = c.process.unwrap();
        assert_eq!(process.capabilities.unwrap().bounding.unwrap(), ["CAP_X"]);
        assert!(process.user.is_none());
    }
}
