//! The configuration that containers of an image start with (image-spec config.md#properties).

use super::edit::Edit;
use crate::error::{Error, Result};
use crate::image::made::Made;
use crate::image::store::Store;
use serde_json::{Map, Value, json};

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub struct Changes {
    /// Program that every container runs: a word, given again for more, or a JSON list; "" for none
    #[arg(long, allow_hyphen_values = true, value_name = "WORD")]
    entrypoint: Vec<String>,
    /// Arguments of the entrypoint, or the command where there is none; as --entrypoint
    #[arg(long, allow_hyphen_values = true, value_name = "WORD")]
    cmd: Vec<String>,
    /// Set an environment variable
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "NAME")]
    unset_env: Vec<String>,
    /// Set a label
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Remove a label
    #[arg(long, value_name = "NAME")]
    unset_label: Vec<String>,
    /// User, by name or number, with a group behind a colon; "" for root
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// Add a port that the container listens on
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Add a directory whose data is kept out of the rootfs
    #[arg(long, value_name = "DIR")]
    volume: Vec<String>,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Author of the image
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
}

/// Makes an image that differs in its configuration only: all layers are shared.
pub fn config(store: &Store, image: &str, name: &str, changes: &Changes) -> Result<Made> {
    store.may_name(name, None)?;
    let mut edit = Edit::open(store, image)?;
    let mut history = edit.history();
    let inner = edit.config.entry("config").or_insert_with(|| json!({}));
    if inner.is_null() {
        *inner = json!({});
    }
    let inner = inner.as_object_mut().ok_or_else(|| Error::invalid("config", "is no object"))?;
    let mut done = changes.apply(inner)?;
    if let Some(author) = &changes.author {
        done.push("author".into());
        edit.config.insert("author".into(), author.as_str().into());
    }
    let by = format!("orlop imgtool config: {}", done.join(", "));
    history.push(edit.entry(&by, None, false));
    edit.save(store, name, history)
}

impl Changes {
    /// Applies all but the author; what was changed.
    fn apply(&self, config: &mut Map<String, Value>) -> Result<Vec<String>> {
        let mut done = Vec::new();
        for (key, flag, words) in
            [("Entrypoint", "--entrypoint", &self.entrypoint), ("Cmd", "--cmd", &self.cmd)]
        {
            if !words.is_empty() {
                set(config, key, list(flag, words)?.into());
                done.push(key.to_string());
            }
        }
        for (key, value) in [("User", &self.user), ("WorkingDir", &self.workdir)] {
            if let Some(value) = value {
                set(config, key, value.as_str().into());
                done.push(key.to_string());
            }
        }
        if let Some(signal) = &self.stop_signal {
            crate::verbs::kill::number(signal)
                .map_err(|_| Error::invalid("--stop-signal", format!("{signal:?} is not a signal")))?;
            set(config, "StopSignal", signal.as_str().into());
            done.push("StopSignal".into());
        }
        self.environment(config, &mut done)?;
        self.labels(config, &mut done)?;
        for port in &self.expose {
            set_member(config, "ExposedPorts", &exposed(port)?, json!({}));
            done.push(format!("ExposedPorts {port}"));
        }
        for dir in &self.volume {
            if !dir.starts_with('/') || dir.split('/').any(|p| p == "..") || dir.trim_matches('/').is_empty()
            {
                return Err(Error::invalid("--volume", format!("{dir:?} is not a path below /")));
            }
            set_member(config, "Volumes", dir, json!({}));
            done.push(format!("Volumes {dir}"));
        }
        Ok(done)
    }

    /// Variables keep their place when they are set again.
    fn environment(&self, config: &mut Map<String, Value>, done: &mut Vec<String>) -> Result<()> {
        let mut env: Vec<String> = match config.get("Env") {
            Some(v) if !v.is_null() => {
                serde_json::from_value(v.clone()).map_err(|e| Error::invalid("config.Env", e.to_string()))?
            }
            _ => Vec::new(),
        };
        let name = |e: &str| e.split('=').next().unwrap_or_default().to_string();
        for key in &self.unset_env {
            env.retain(|e| name(e) != *key);
            done.push(format!("Env -{key}"));
        }
        for pair in &self.env {
            let key = pair_of("--env", pair)?.0;
            match env.iter_mut().find(|e| name(e) == key) {
                Some(e) => e.clone_from(pair),
                None => env.push(pair.clone()),
            }
            done.push(format!("Env {key}"));
        }
        if !self.env.is_empty() || !self.unset_env.is_empty() {
            set(config, "Env", if env.is_empty() { Value::Null } else { env.into() });
        }
        Ok(())
    }

    fn labels(&self, config: &mut Map<String, Value>, done: &mut Vec<String>) -> Result<()> {
        for key in &self.unset_label {
            if let Some(labels) = config.get_mut("Labels").and_then(Value::as_object_mut) {
                labels.remove(key);
            }
            done.push(format!("Labels -{key}"));
        }
        for pair in &self.label {
            let (key, value) = pair_of("--label", pair)?;
            set_member(config, "Labels", key, value.into());
            done.push(format!("Labels {key}"));
        }
        Ok(())
    }
}

/// Sets a property; what is empty is left out.
fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    match value {
        Value::Null => drop(config.remove(key)),
        Value::String(s) if s.is_empty() => drop(config.remove(key)),
        Value::Array(a) if a.is_empty() => drop(config.remove(key)),
        value => drop(config.insert(key.into(), value)),
    }
}

fn set_member(config: &mut Map<String, Value>, key: &str, member: &str, value: Value) {
    let place = config.entry(key).or_insert_with(|| json!({}));
    if !place.is_object() {
        *place = json!({});
    }
    place[member] = value;
}

fn pair_of<'a>(flag: &str, pair: &'a str) -> Result<(&'a str, &'a str)> {
    pair.split_once('=')
        .filter(|(key, _)| !key.is_empty() && !pair.contains('\0'))
        .ok_or_else(|| Error::invalid(flag, format!("{pair:?} is not NAME=VALUE")))
}

/// Words, or one JSON list of them.
fn list(flag: &str, words: &[String]) -> Result<Vec<String>> {
    match words {
        [one] if one.is_empty() => Ok(Vec::new()),
        [one] if one.starts_with('[') => serde_json::from_str(one)
            .map_err(|e| Error::invalid(flag, format!("{one:?} is no list of words: {e}"))),
        words => Ok(words.to_vec()),
    }
}

/// `port/protocol`, TCP where none is given.
fn exposed(port: &str) -> Result<String> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let is_port = number.bytes().all(|b| b.is_ascii_digit()) && number.parse::<u16>().is_ok_and(|n| n > 0);
    if !is_port || !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(Error::invalid("--expose", format!("{port:?} is not a port with tcp, udp or sctp")));
    }
    Ok(format!("{number}/{protocol}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_lists_have_one_form() {
        for (text, want) in [
            ("80", Some("80/tcp")),
            ("53/udp", Some("53/udp")),
            ("0", None),
            ("+1", None),
            ("1/x", None),
            ("65536", None),
        ] {
            assert_eq!(exposed(text).ok().as_deref(), want, "{text}");
        }
        let words = |w: &[&str]| list("--cmd", &w.iter().map(|w| w.to_string()).collect::<Vec<_>>());
        assert_eq!(words(&["[\"a\",\"b c\"]"]).unwrap(), ["a", "b c"]);
        assert_eq!(words(&["sh", "-c", "[ x ]"]).unwrap(), ["sh", "-c", "[ x ]"]);
        assert!(words(&[""]).unwrap().is_empty() && words(&["[1]"]).is_err());
    }
}
