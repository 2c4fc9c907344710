//! config.md#posix-platform-hooks

use super::cstring;
use crate::config;
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::time::Duration;

/// A program to run at a point of the container's life.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// With the name first, as execve(2) takes them; empty means the path alone.
    pub args: Vec<String>,
    /// `None` is the runtime's own environment, or none at all for hooks that run inside.
    pub env: Option<Vec<String>>,
    pub timeout: Option<Duration>,
    /// Files that take its standard output and error, by crun's annotations.
    #[serde(default)]
    pub output: [Option<String>; 2],
}

/// What errors call the annotations that say where the output of every hook goes.
pub const OUTPUTS: [&str; 2] =
    ["annotations[\"run.oci.hooks.stdout\"]", "annotations[\"run.oci.hooks.stderr\"]"];

/// Where they have it go, each with what errors call it.
pub fn outputs(config: &config::Config) -> [Option<(&'static str, &str)>; 2] {
    let [out, err] = ["run.oci.hooks.stdout", "run.oci.hooks.stderr"].map(|name| config.annotation(name));
    [out.map(|file| (OUTPUTS[0], file)), err.map(|file| (OUTPUTS[1], file))]
}

/// The six kinds, in the order of their points.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// Longest timeout, in seconds: 136 years, so that no clock overflows.
const MAX_TIMEOUT: u64 = u32::MAX as u64;

/// Reads `hooks`. Whether the programs are there is seen when they run: some paths lie in the container.
pub fn plan(config: &config::Config) -> Result<Hooks> {
    let Some(h) = &config.hooks else { return Ok(Hooks::default()) };
    let output = outputs(config).map(|o| o.map(|(_, file)| file.to_string()));
    let list = |kind: &str, list: &Option<Vec<config::Hook>>| -> Result<Vec<Hook>> {
        let list = list.as_deref().unwrap_or_default().iter().enumerate();
        let one =
            |(n, hook)| Ok(Hook { output: output.clone(), ..one(&format!("hooks.{kind}[{n}]"), hook)? });
        list.map(one).collect()
    };
    Ok(Hooks {
        prestart: list("prestart", &h.prestart)?,
        create_runtime: list("createRuntime", &h.create_runtime)?,
        create_container: list("createContainer", &h.create_container)?,
        start_container: list("startContainer", &h.start_container)?,
        poststart: list("poststart", &h.poststart)?,
        poststop: list("poststop", &h.poststop)?,
    })
}

fn one(at: &str, hook: &config::Hook) -> Result<Hook> {
    let path = hook.path.clone().unwrap_or_default();
    if path.is_empty() {
        return Err(Error::invalid(format!("{at}.path"), "is required"));
    }
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("{at}.path"), format!("{path:?} is not absolute")));
    }
    cstring(&format!("{at}.path"), &path)?;
    for (property, strings) in [("args", &hook.args), ("env", &hook.env)] {
        for (n, s) in strings.iter().flatten().enumerate() {
            cstring(&format!("{at}.{property}[{n}]"), s)?;
        }
    }
    let timeout = match hook.timeout {
        None => None,
        Some(s) if s <= 0 => {
            return Err(Error::invalid(format!("{at}.timeout"), format!("{s} is not above zero")));
        }
        Some(s) => Some(Duration::from_secs(MAX_TIMEOUT.min(s as u64))),
    };
    Ok(Hook {
        path: path.into(),
        args: hook.args.clone().unwrap_or_default(),
        env: hook.env.clone(),
        timeout,
        output: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(hooks: Value) -> Result<Hooks> {
        plan(&serde_json::from_value(json!({ "hooks": hooks })).unwrap())
    }

    #[test]
    fn absent_is_not_empty() {
        let hooks = read(json!({ "poststop": [
            { "path": "/a" },
            { "path": "/b", "args": ["b", "x"], "env": [], "timeout": 2 },
            { "path": "/c", "timeout": i64::MAX },
        ] }))
        .unwrap();
        let [a, b, c] = &hooks.poststop[..] else { panic!("three hooks") };
        assert_eq!((a.args.len(), &a.env, a.timeout), (0, &None, None));
        let b_wanted = Hook {
            path: "/b".into(),
            args: vec!["b".into(), "x".into()],
            env: Some(vec![]),
            timeout: Some(Duration::from_secs(2)),
            output: Default::default(),
        };
        assert_eq!(*b, b_wanted);
        assert_eq!(c.timeout, Some(Duration::from_secs(MAX_TIMEOUT)));
        assert_eq!(plan(&config::Config::default()).unwrap(), Hooks::default());
    }

    #[test]
    fn broken_hooks_name_kind_and_number() {
        for (kind, hook, message) in [
            ("prestart", json!({}), "hooks.prestart[0].path: is required"),
            ("createRuntime", json!({ "path": "x" }), "hooks.createRuntime[0].path: \"x\" is not absolute"),
            (
                "createContainer",
                json!({ "path": "/\0" }),
                "hooks.createContainer[0].path: \"/\\0\" has a NUL byte",
            ),
            (
                "startContainer",
                json!({ "path": "/x", "timeout": 0 }),
                "hooks.startContainer[0].timeout: 0 is not above zero",
            ),
            (
                "poststart",
                json!({ "path": "/x", "timeout": -1 }),
                "hooks.poststart[0].timeout: -1 is not above zero",
            ),
            (
                "poststop",
                json!({ "path": "/x", "args": ["a", "\0"] }),
                "hooks.poststop[0].args[1]: \"\\0\" has a NUL byte",
            ),
            (
                "poststop",
                json!({ "path": "/x", "env": ["\0"] }),
                "hooks.poststop[0].env[0]: \"\\0\" has a NUL byte",
            ),
        ] {
            assert_eq!(read(json!({ kind: [hook] })).unwrap_err().to_string(), message);
        }
    }
}
