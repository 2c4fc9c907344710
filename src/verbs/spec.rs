//! `spec`: writes a config.json to begin with, the same that runc writes but for what newer versions advise
//! against (no ambient capabilities).

use crate::cli;
use crate::config::*;
use crate::error::{Error, Kind, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes `config.json` into the bundle, or `--file`; what is there already stays as it is.
pub fn run(req: &cli::Spec) -> Result<()> {
    let bundle = req.oci.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let path = bundle.join(req.file.as_deref().unwrap_or(Path::new("config.json")));
    let ids = req.oci.rootless.then(|| (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
    write_new(&path, &to_json(&default_config(ids))?)
}

fn write_new(path: &Path, text: &[u8]) -> Result<()> {
    let at = path.display().to_string();
    let mut file = match std::fs::File::create_new(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new(Kind::Exists, at, "exists and is not overwritten").hint("remove it first"));
        }
        made => made.map_err(|e| Error::io(&at, "create", &e))?,
    };
    file.write_all(text).map_err(|e| {
        // Half a file is ours to remove; the error tells of the cause, not of this.
        let _ = std::fs::remove_file(path);
        Error::io(at, "write", &e)
    })
}

/// The document as runc prints it: indented by tabs, one newline at the end.
pub fn to_json(config: &Config) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(4096);
    let format = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, format);
    serde::Serialize::serialize(config, &mut serializer)
        .map_err(|e| Error::invalid("config.json", e.to_string()))?;
    out.push(b'\n');
    Ok(out)
}

/// The default document. `rootless` has the user and group id of an ordinary user, who becomes root of a user
/// namespace and keeps the network of the host.
pub fn default_config(rootless: Option<(u32, u32)>) -> Config {
    Config {
        oci_version: text(cli::SPEC),
        process: Some(process()),
        root: Some(Root { path: text("rootfs"), readonly: Some(true) }),
        hostname: text("orlop"),
        mounts: Some(mounts(rootless.is_some())),
        linux: Some(linux(rootless)),
        ..Config::default()
    }
}

fn process() -> Process {
    let caps = list(&["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    Process {
        terminal: Some(true),
        user: Some(User { uid: Some(0), gid: Some(0), ..User::default() }),
        args: list(&["sh"]),
        env: list(&["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"]),
        cwd: text("/"),
        // No inheritable set, and so no ambient one: a program that is not root gains nothing by execve(2).
        capabilities: Some(Capabilities {
            bounding: caps.clone(),
            effective: caps.clone(),
            permitted: caps,
            ..Capabilities::default()
        }),
        rlimits: Some(vec![Rlimit { kind: text("RLIMIT_NOFILE"), soft: Some(1024), hard: Some(1024) }]),
        no_new_privileges: Some(true),
        ..Process::default()
    }
}

fn mounts(rootless: bool) -> Vec<Mount> {
    let mut pts = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    // Group tty is not mapped for an ordinary user.
    if !rootless {
        pts.push("gid=5");
    }
    // A new sysfs needs a network namespace of one's own.
    let sys = if rootless {
        mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
    } else {
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
    };
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let shm = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];
    vec![
        mount("/proc", "proc", "proc", &[]),
        mount("/dev", "tmpfs", "tmpfs", &dev),
        mount("/dev/pts", "devpts", "devpts", &pts),
        mount("/dev/shm", "tmpfs", "shm", &shm),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        sys,
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

fn linux(rootless: Option<(u32, u32)>) -> Linux {
    let (own, resources) = match rootless {
        Some(_) => ("user", None),
        None => ("network", Some(deny_all_devices())),
    };
    let kinds = ["pid", own, "ipc", "uts", "mount", "cgroup"];
    let namespaces = kinds.iter().map(|k| Namespace { kind: text(k), path: None }).collect();
    let one =
        |host: u32| vec![IdMapping { container_id: Some(0), host_id: Some(i64::from(host)), size: Some(1) }];
    Linux {
        uid_mappings: rootless.map(|(uid, _)| one(uid)),
        gid_mappings: rootless.map(|(_, gid)| one(gid)),
        resources,
        namespaces: Some(namespaces),
        masked_paths: list(&[
            "/proc/acpi",
            "/proc/asound",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/sys/firmware",
            "/proc/scsi",
        ]),
        readonly_paths: list(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]),
        ..Linux::default()
    }
}

fn deny_all_devices() -> Resources {
    let rule = DeviceRule { allow: Some(false), access: text("rwm"), ..DeviceRule::default() };
    Resources { devices: Some(vec![rule]), ..Resources::default() }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: text(destination),
        kind: text(kind),
        source: text(source),
        options: if options.is_empty() { None } else { list(options) },
        ..Mount::default()
    }
}

fn text(s: &str) -> Option<String> {
    Some(s.to_string())
}

fn list(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|w| w.to_string()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(rootless: Option<(u32, u32)>) -> String {
        String::from_utf8(to_json(&default_config(rootless)).unwrap()).unwrap()
    }

    #[test]
    fn the_example_is_what_spec_writes() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.json.example");
        assert_eq!(std::fs::read_to_string(example).unwrap(), json(None));
    }

    #[test]
    fn both_variants_are_documents_of_the_specification() {
        for rootless in [None, Some((1000, 100))] {
            let text = json(rootless);
            assert!(text.starts_with("{\n\t\"ociVersion\": \"1.3.0\"") && text.ends_with("\n}\n"));
            let back: Config = serde_json::from_str(&text).unwrap();
            assert_eq!(back, default_config(rootless));
            let _: oci_spec::runtime::Spec = serde_json::from_str(&text).unwrap();
        }
    }

    #[test]
    fn capabilities_never_become_ambient() {
        let caps = default_config(None).process.unwrap().capabilities.unwrap();
        assert_eq!((caps.inheritable, caps.ambient), (None, None));
        assert_eq!(caps.bounding.unwrap().len(), 3);
    }

    #[test]
    fn rootless_maps_the_caller_and_shares_the_network() {
        let config = default_config(Some((1000, 100)));
        let linux = config.linux.unwrap();
        let kinds: Vec<_> = linux.namespaces.unwrap().into_iter().filter_map(|n| n.kind).collect();
        assert!(kinds.iter().any(|k| k == "user") && kinds.iter().all(|k| k != "network"), "{kinds:?}");
        let ids = [linux.uid_mappings.unwrap(), linux.gid_mappings.unwrap()].map(|m| m[0].host_id);
        assert_eq!(ids, [Some(1000), Some(100)]);
        assert_eq!(linux.resources, None);
        let mounts = config.mounts.unwrap();
        let sys = mounts.iter().find(|m| m.destination.as_deref() == Some("/sys")).unwrap();
        assert_eq!(sys.source.as_deref(), Some("/sys"));
        let options = mounts.iter().flat_map(|m| m.options.iter().flatten());
        assert_eq!(options.filter(|o| o.starts_with("gid=")).count(), 0);
    }

    #[test]
    fn an_existing_file_is_kept() {
        let dir = std::env::temp_dir().join(format!("orlop-spec-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let request = |file: Option<&str>, rootless| cli::Spec {
            oci: liboci_cli::Spec { bundle: Some(dir.clone()), rootless },
            file: file.map(PathBuf::from),
        };
        run(&request(None, false)).unwrap();
        let again = run(&request(None, true)).unwrap_err();
        run(&request(Some("other.json"), true)).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
        let (kept, other) = (read("config.json"), read("other.json"));
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(again.kind, Kind::Exists);
        assert!(again.to_string().contains("config.json"), "{again}");
        assert_eq!(kept, json(None));
        assert!(other.contains("uidMappings"));
        let gone = run(&request(None, false)).unwrap_err();
        assert_eq!(gone.errno(), Some(libc::ENOENT));
    }
}
