//! Who we are to a registry: the files of docker and of containers-auth.json(5), and the programs that they name.
//! What is found is sent to that registry and its token server, and printed nowhere.

use super::reference::Reference;
use crate::error::{Error, Result};
use crate::image::archive::inside;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a registry knows a user. No `Debug`: it would be printed one day.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password(String, String),
    /// Exchanged for tokens (`identitytoken`).
    Refresh(String),
    /// A token as it is (`registrytoken`).
    Bearer(String),
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a helper prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// Longest wait for a helper; some ask a service on another machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest file and largest answer of a helper in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The login for a registry, the first that the files have.
pub fn find(reference: &Reference) -> Result<Option<Login>> {
    for path in files(&|name| std::env::var_os(name).filter(|v| !v.is_empty())) {
        let at = path.display().to_string();
        let text = match std::fs::File::open(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::io(at, "open", &e)),
            Ok(file) => {
                let mut text = Vec::new();
                file.take(MAX_BYTES).read_to_end(&mut text).map_err(|e| Error::io(&at, "read", &e))?;
                text
            }
        };
        // Only the place: serde's message may quote a value.
        let config: Config = serde_json::from_slice(&text).map_err(|e| {
            Error::invalid(&at, format!("is damaged in line {}, column {}", e.line(), e.column()))
        })?;
        if let Some(login) = config.login(reference, PATIENCE).map_err(|e| inside(&at, e))? {
            return Ok(Some(login));
        }
    }
    Ok(None)
}

/// The files in their order. REGISTRY_AUTH_FILE stands for all of them, as with podman and skopeo.
fn files(var: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(file) = var("REGISTRY_AUTH_FILE") {
        return vec![file.into()];
    }
    let dir = |name: &str, below: &str| var(name).map(|d| Path::new(&d).join(below));
    let runtime = dir("XDG_RUNTIME_DIR", "containers")
        .unwrap_or_else(|| format!("/run/containers/{}", rustix::process::getuid().as_raw()).into());
    let config = dir("XDG_CONFIG_HOME", "containers").or_else(|| dir("HOME", ".config/containers"));
    let docker = dir("DOCKER_CONFIG", "").or_else(|| dir("HOME", ".docker"));
    let containers = [Some(runtime), config].into_iter().flatten().map(|d| d.join("auth.json"));
    containers.chain(docker.map(|d| d.join("config.json"))).collect()
}

/// The spellings of a registry and, of containers-auth.json, its repository and the parts above it; the closest first.
fn keys(reference: &Reference) -> Vec<String> {
    let mut out = Vec::new();
    let mut path = format!("{}/{}", reference.registry, reference.repository);
    while let Some(n) = path.rfind('/') {
        out.push(path.clone());
        path.truncate(n);
    }
    out.push(path);
    if reference.registry == "docker.io" {
        out.extend(["index.docker.io", "registry-1.docker.io"].map(String::from));
    }
    out
}

/// A key without what older versions of docker put around the host.
fn plain(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

/// What stands under a key, or else under another form of it.
fn named<'a, T>(all: &'a BTreeMap<String, T>, key: &str) -> Option<&'a T> {
    all.get(key).or_else(|| all.iter().find(|(k, _)| plain(k) == key).map(|(_, found)| found))
}

impl Config {
    fn login(&self, reference: &Reference, patience: Duration) -> Result<Option<Login>> {
        // Docker's own name for the hub, under which its helpers keep it.
        let hub = reference.registry == "docker.io";
        let server = if hub { "https://index.docker.io/v1/" } else { &reference.registry };
        for key in keys(reference) {
            if let Some(helper) = named(&self.cred_helpers, &key) {
                return help(helper, server, patience);
            }
            // With a store the entry is only a note that there is a login.
            if let Some(login) = named(&self.auths, &key).map_or(Ok(None), Entry::login)? {
                return Ok(Some(login));
            }
        }
        self.creds_store.as_ref().map_or(Ok(None), |helper| help(helper, server, patience))
    }
}

impl Entry {
    fn login(&self) -> Result<Option<Login>> {
        let set = |v: &Option<String>| v.clone().filter(|v| !v.is_empty());
        if let Some(token) = set(&self.registrytoken) {
            return Ok(Some(Login::Bearer(token)));
        }
        if let Some(token) = set(&self.identitytoken) {
            return Ok(Some(Login::Refresh(token)));
        }
        if let (Some(user), Some(password)) = (set(&self.username), set(&self.password)) {
            return Ok(Some(Login::Password(user, password)));
        }
        let Some(auth) = set(&self.auth) else { return Ok(None) };
        let wrong = || Error::invalid("auth", "is not the base64 form of user:password");
        let text =
            STANDARD.decode(auth.trim()).ok().and_then(|b| String::from_utf8(b).ok()).ok_or_else(wrong)?;
        let (user, password) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Some(Login::Password(user.into(), password.trim_end_matches('\0').into())))
    }
}

/// Asks `docker-credential-NAME`.
fn help(name: &str, server: &str, patience: Duration) -> Result<Option<Login>> {
    let program = format!("docker-credential-{name}");
    if name.is_empty() || name.contains('/') {
        return Err(Error::invalid(&program, "is no name of a program"));
    }
    let failed = |what: &str, e: &std::io::Error| Error::io(&program, what, e);
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed("start", &e))?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read says so by its status.
        let _ = input.write_all(server.as_bytes());
    }
    let answer = answer(&mut child, Instant::now() + patience);
    if answer.is_err() {
        let _ = child.kill(); // it has ended, or it ends now
    }
    let text = answer.map_err(|e| failed("read its answer", &e));
    let status = child.wait().map_err(|e| failed("wait", &e))?;
    let text = text?;
    if !status.success() {
        // The protocol's one expected error.
        let none = String::from_utf8_lossy(&text).contains("credentials not found");
        return if none { Ok(None) } else { Err(Error::invalid(&program, format!("fails: {status}"))) };
    }
    let helped: Helped = serde_json::from_slice(&text)
        .map_err(|_| Error::invalid(&program, "does not answer with a login"))?;
    Ok(Some(match &helped.username[..] {
        "<token>" => Login::Refresh(helped.secret),
        _ => Login::Password(helped.username, helped.secret),
    }))
}

/// What the program prints until it closes its output.
fn answer(child: &mut Child, end: Instant) -> std::io::Result<Vec<u8>> {
    let late = || std::io::Error::from_raw_os_error(libc::ETIMEDOUT);
    let Some(mut output) = child.stdout.take() else { return Ok(vec![]) };
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(output.as_fd(), PollFlags::POLLIN)], timeout) {
            Err(nix::Error::EINTR) => continue,
            Err(e) => return Err(e.into()),
            Ok(0) => return Err(late()),
            Ok(_) => {}
        }
        match output.read(&mut chunk)? {
            0 => break,
            n => text.extend(&chunk[..n]),
        }
        if text.len() as u64 > MAX_BYTES {
            return Err(std::io::Error::from_raw_os_error(libc::EFBIG));
        }
    }
    while child.try_wait()?.is_none() {
        if Instant::now() >= end {
            return Err(late());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn shown(login: Option<Login>) -> String {
        match login {
            None => "none".into(),
            Some(Login::Password(u, p)) => format!("{u} {p}"),
            Some(Login::Refresh(t)) => format!("refresh {t}"),
            Some(Login::Bearer(t)) => format!("bearer {t}"),
        }
    }

    fn login(config: &str, name: &str) -> String {
        let config: Config = serde_json::from_str(config).unwrap();
        shown(config.login(&Reference::parse(name).unwrap(), Duration::from_secs(10)).unwrap())
    }

    #[test]
    fn the_closest_entry_is_taken() {
        // me:secret, hub:pass, deep:er
        let config = r#"{"auths": {
            "reg.test:5000": {"auth": "bWU6c2VjcmV0"}, "https://index.docker.io/v1/": {"auth": "aHViOnBhc3M="},
            "reg.test:5000/team/app": {"auth": "ZGVlcDplcg=="}, "empty.test": {},
            "https://old.test/v2/": {"username": "u", "password": "p:q"}, "tok.test": {"registrytoken": "T"},
            "id.test": {"auth": "aHViOnBhc3M=", "identitytoken": "I"}}}"#;
        for (name, want) in [
            ("reg.test:5000/x", "me secret"),
            ("reg.test:5000/team/app/y", "deep er"),
            ("reg.test:5000/team/apple", "me secret"),
            ("alpine", "hub pass"),
            ("old.test/x", "u p:q"),
            ("id.test/x", "refresh I"),
            ("tok.test/x", "bearer T"),
            ("empty.test/x", "none"),
            ("reg.test/x", "none"),
            ("evil.test/reg.test", "none"),
        ] {
            assert_eq!(login(config, name), want, "{name}");
        }
        // Of several forms of one key it is the key itself.
        let two = r#"{"auths": {"https://reg.io": {"auth": "aHViOnBhc3M="}, "reg.io": {"auth": "bWU6c2VjcmV0"},
            "reg.io/v2/": {"auth": "ZGVlcDplcg=="}}}"#;
        (0..20).for_each(|_| assert_eq!(login(two, "reg.io/x"), "me secret"));
        let bad: Config = serde_json::from_str(r#"{"auths": {"a.b": {"auth": "c2VjcmV0"}}}"#).unwrap();
        let e = bad.login(&Reference::parse("a.b/x").unwrap(), PATIENCE).err().unwrap().to_string();
        assert!(e.contains("auth") && !e.contains("secret") && !e.contains("c2V"), "{e}");
    }

    #[test]
    fn files_have_an_order() {
        let names = |set: &[(&str, &str)]| {
            let var = |name: &str| set.iter().find(|s| s.0 == name).map(|s| OsString::from(s.1));
            files(&var).iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        let all = [("XDG_RUNTIME_DIR", "/run/1"), ("HOME", "/h"), ("DOCKER_CONFIG", "/d")];
        let (run, home) = ("/run/1/containers/auth.json", "/h/.config/containers/auth.json");
        assert_eq!(names(&all), format!("{run} {home} /d/config.json"));
        assert_eq!(names(&all[..2]), format!("{run} {home} /h/.docker/config.json"));
        let own = format!("/run/containers/{}/auth.json", rustix::process::getuid().as_raw());
        assert_eq!(names(&[("XDG_CONFIG_HOME", "/c")]), format!("{own} /c/containers/auth.json"));
        assert_eq!(names(&[]), own);
        assert_eq!(names(&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/r")]), "/r");
    }

    #[test]
    fn helpers_answer_refuse_and_hang() {
        let dir = std::env::temp_dir().join(format!("orlop-helpers-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let helper = |name: &str, script: &str| {
            let path = dir.join(format!("docker-credential-{name}"));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            // Without PATH: tests of this process run beside each other.
            format!("../{}", path.display())
        };
        // `help` refuses a name with a slash, as it must; the parts are called as it calls them.
        assert!(help(&helper("x", "true"), "s", PATIENCE).is_err());
        let run = |path: &str, within: Duration| {
            let mut child = Command::new(path.trim_start_matches(".."))
                .arg("get")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(b"reg.test").unwrap();
            let out = answer(&mut child, Instant::now() + within);
            let _ = child.kill();
            child.wait().unwrap();
            out.map(|o| String::from_utf8(o).unwrap()).map_err(|e| e.raw_os_error().unwrap())
        };
        assert_eq!(run(&helper("echo", "echo $1; cat"), PATIENCE).unwrap(), "get\nreg.test");
        let start = Instant::now();
        assert_eq!(run(&helper("hang", "exec sleep 100"), Duration::from_millis(200)), Err(libc::ETIMEDOUT));
        assert_eq!(
            run(&helper("close", "exec >&-; exec sleep 100"), Duration::from_millis(200)),
            Err(libc::ETIMEDOUT)
        );
        assert_eq!(run(&helper("bomb", "exec yes"), PATIENCE), Err(libc::EFBIG));
        assert!(start.elapsed() < Duration::from_secs(20));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
