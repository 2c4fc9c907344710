//! The verb update, for tests.
#![allow(dead_code)] // each test program uses its part

use crate::cgroups::{all_cpus, read, sleeping};
use crate::support::{Bundle, Outcome, finish};
use serde_json::Value;
use std::fs;

pub fn update(b: &Bundle, args: &[&str]) -> Outcome {
    finish(&mut b.orlop(["update"].iter().chain(args).copied().chain([b.id.as_str()])))
}

/// `--resources -`, with this on standard input.
pub fn update_by(b: &Bundle, resources: &Value) -> Outcome {
    let file = b.path().join("resources.json");
    fs::write(&file, resources.to_string()).expect("write");
    let mut c = b.orlop(["update", "--resources", "-", &b.id]);
    finish(c.stdin(fs::File::open(&file).expect("open")))
}

pub fn running(resources: Value) -> Bundle {
    let b = sleeping().set("/linux/resources", resources);
    b.create().ok();
    b.start().ok();
    b
}

/// `controller file=value` is what is there.
#[track_caller]
pub fn has(b: &Bundle, values: &[&str], why: &str) {
    for v in values {
        let (controller, rest) = v.split_once(' ').expect("a controller");
        let (file, value) = rest.split_once('=').expect("a value");
        assert_eq!(read(controller, &b.id, file), value, "{file} after {why}");
    }
}

const LIMITS: &str = r#"{
    "memory": { "limit": 67108864, "swap": 134217728, "reservation": 33554432 },
    "cpu": { "shares": 512, "quota": 50000, "period": 100000, "cpus": "ALL", "mems": "0" },
    "pids": { "limit": 77 }
}"#;

pub fn limits() -> Value {
    serde_json::from_str(&LIMITS.replace("ALL", &all_cpus())).expect("JSON")
}
