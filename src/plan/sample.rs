//! A document, a host and a request for the sections' tests: each test edits them and runs one section.

use super::{Draft, Facts, Request, cgroup, idmap, spawn};
use crate::config::Config;
use serde_json::{Value, json};

pub struct Sample {
    pub config: Value,
    pub host: Facts,
    pub request: Request,
}

/// A container like that of `spec`, without a terminal, on a host where root has every capability.
pub fn sample() -> Sample {
    Sample {
        config: json!({
            "ociVersion": "1.3.0",
            "process": { "args": ["sh"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } },
            "root": { "path": "rootfs" },
            "linux": { "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ] },
        }),
        host: Facts {
            euid: 0,
            egid: 0,
            privileged: true,
            nested: false,
            setgroups_denied: false,
            mknod: true,
            nodes: Vec::new(),
            bounding: (1 << 41) - 1,
            last_cap: 40,
            ignored_signals: 1 << 12,
            apparmor: false,
            selinux: false,
            hard_limits: [u64::MAX; 16],
            cgroups: cgroup::Hierarchies::default(),
            resctrl: super::rdt::Resctrl::default(),
            systemd: None,
        },
        request: Request {
            id: "web".into(),
            bundle: "/bundle".into(),
            foreground: true,
            ..Request::default()
        },
    }
}

impl Sample {
    /// The value at this JSON pointer becomes `value`; missing objects are made.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut at = &mut self.config;
        for key in pointer.split('/').skip(1) {
            at = match key.parse::<usize>() {
                Ok(n) if at.is_array() => &mut at[n],
                _ => &mut at[key],
            };
        }
        *at = value;
        self
    }

    pub fn host(mut self, edit: impl FnOnce(&mut Facts)) -> Self {
        edit(&mut self.host);
        self
    }

    pub fn request(mut self, edit: impl FnOnce(&mut Request)) -> Self {
        edit(&mut self.request);
        self
    }

    /// A namespace more in `linux.namespaces`.
    pub fn namespace(mut self, namespace: Value) -> Self {
        if let Some(list) = self.config["linux"]["namespaces"].as_array_mut() {
            list.push(namespace);
        }
        self
    }

    /// A new user namespace of 1000 ids from 100000 on.
    pub fn user_namespace(self) -> Self {
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 }]);
        self.namespace(json!({ "type": "user" }))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    /// Without the namespace of this type.
    pub fn without(mut self, kind: &str) -> Self {
        if let Some(list) = self.config["linux"]["namespaces"].as_array_mut() {
            list.retain(|n| n["type"] != kind);
        }
        self
    }

    /// Runs a section on a draft of this sample.
    pub fn run<R>(&self, section: impl FnOnce(&mut Draft) -> R) -> R {
        let config: Config = serde_json::from_value(self.config.clone()).expect("the sample parses");
        let ns = spawn::namespaces(config.linux.as_ref()).expect("its namespaces are right");
        let maps = idmap::plan(config.linux.as_ref(), &ns).expect("its mappings are right");
        section(&mut Draft {
            config: &config,
            host: &self.host,
            request: &self.request,
            ns,
            maps,
            opens: Vec::new(),
            warnings: Vec::new(),
        })
    }

    /// The message of the section's error.
    pub fn error<T: std::fmt::Debug>(
        &self,
        section: impl FnOnce(&mut Draft) -> crate::error::Result<T>,
    ) -> String {
        self.run(section).expect_err("an error").to_string()
    }
}
