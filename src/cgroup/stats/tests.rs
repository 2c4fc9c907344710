use super::super::Place;
use super::*;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// A cgroup of plain files.
struct Fake(PathBuf);

impl Fake {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("orlop-stats-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn with(self, hierarchy: &str, files: &[(&str, &str)]) -> Self {
        let dir = self.0.join(hierarchy).join("c");
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        self
    }

    fn stats(&self) -> Result<Value> {
        let mut cgroup = Cgroup::default();
        let dirs = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap());
        let place = |e: fs::DirEntry| Place {
            mount: e.path().to_str().unwrap().into(),
            path: "c".into(),
            v2: e.file_name() == "unified",
            ..Place::default()
        };
        cgroup.places = dirs.map(place).collect();
        cgroup.stats().map(|s| serde_json::to_value(s).unwrap())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PRESSURE: (&str, &str) = (
    "cpu.pressure",
    "some avg10=1.50 avg60=0.25 avg300=0.00 total=4711\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=12\n",
);

fn pressure() -> Value {
    json!({ "some": { "avg10": 1.5, "avg60": 0.25, "avg300": 0.0, "total": 4711 },
            "full": { "avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 12 } })
}

fn entry(op: &str, value: u64) -> Value {
    json!({ "major": 8, "minor": 16, "op": op, "value": value })
}

#[test]
fn v1_files_have_their_places() {
    let fake = Fake::new("v1")
        .with("cpu", &[("cpu.stat", "nr_periods 3\nnr_throttled 2\nthrottled_time 7\n")])
        .with(
            "cpuacct",
            &[
                ("cpuacct.usage", "50\n"),
                ("cpuacct.usage_percpu", "20 30 \n"),
                ("cpuacct.usage_all", "cpu user system\n0 1 2\n1 3 4\n"),
                ("cpuacct.stat", "user 5\nsystem 6\n"),
            ],
        )
        .with(
            "cpuset",
            &[
                ("cpuset.cpus", "0-2,5\n"),
                ("cpuset.mems", "0\n"),
                ("cpuset.sched_load_balance", "1\n"),
                ("cpuset.sched_relax_domain_level", "-1\n"),
            ],
        )
        .with(
            "memory",
            &[
                ("memory.stat", "cache 9\nrss -1\n"),
                ("memory.usage_in_bytes", "10\n"),
                ("memory.max_usage_in_bytes", "11\n"),
                ("memory.limit_in_bytes", "12\n"),
                ("memory.failcnt", "13\n"),
                ("memory.memsw.limit_in_bytes", "14\n"),
                ("memory.kmem.tcp.usage_in_bytes", "15\n"),
            ],
        )
        .with("pids", &[("pids.current", "4\n"), ("pids.max", "20\n")])
        .with(
            "blkio",
            &[
                ("blkio.reset_stats", ""),
                ("blkio.bfq.io_serviced_recursive", ""),
                ("blkio.throttle.io_serviced_recursive", "8:16 Read 1\n8:16 Total 1\nTotal 1\n"),
                ("blkio.throttle.io_service_bytes_recursive", "8:16 Write 512\nTotal 512\n"),
            ],
        )
        .with(
            "hugetlb",
            &[
                ("hugetlb.2MB.usage_in_bytes", "1\n"),
                ("hugetlb.2MB.rsvd.usage_in_bytes", "2\n"),
                ("hugetlb.2MB.max_usage_in_bytes", "3\n"),
                ("hugetlb.2MB.failcnt", "4\n"),
            ],
        );
    let nothing = json!({ "limit": 0, "failcnt": 0 });
    let want = json!({
        "cpu": {
            "usage": { "total": 50, "percpu": [20, 30], "percpu_kernel": [2, 4], "percpu_user": [1, 3],
                       "kernel": 60_000_000, "user": 50_000_000 },
            "throttling": { "periods": 3, "throttledPeriods": 2, "throttledTime": 7 },
        },
        "cpuset": {
            "cpus": [0, 1, 2, 5], "cpu_exclusive": 0, "mems": [0], "mem_hardwall": 0, "mem_exclusive": 0,
            "memory_migrate": 0, "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
            "sched_load_balance": 1, "sched_relax_domain_level": -1,
        },
        "memory": {
            "cache": 9,
            "usage": { "limit": 12, "usage": 10, "max": 11, "failcnt": 13 },
            "swap": { "limit": 14, "failcnt": 0 },
            "kernel": nothing,
            "kernelTCP": { "limit": 0, "usage": 15, "failcnt": 0 },
            "raw": { "cache": 9, "rss": 0 },
        },
        "pids": { "current": 4, "limit": 20 },
        "blkio": {
            "ioServiceBytesRecursive": [entry("Write", 512)],
            "ioServicedRecursive": [entry("Read", 1), entry("Total", 1)],
        },
        "hugetlb": { "2MB": { "usage": 2, "max": 3, "failcnt": 4 } },
        "intel_rdt": {},
        "network_interfaces": null,
    });
    assert_eq!(fake.stats().unwrap(), want);
}

#[test]
fn v2_files_have_the_places_of_v1() {
    let fake = Fake::new("v2").with(
        "unified",
        &[
            (
                "cpu.stat",
                "usage_usec 9\nuser_usec 4\nsystem_usec 5\nnr_periods 1\nnr_throttled 2\nthrottled_usec 3\n",
            ),
            PRESSURE,
            ("memory.stat", "anon 1\nfile 2\n"),
            ("memory.current", "100\n"),
            ("memory.max", "200\n"),
            ("memory.peak", "150\n"),
            ("memory.swap.current", "10\n"),
            ("memory.swap.max", "20\n"),
            ("memory.swap.peak", "15\n"),
            ("io.stat", "8:16 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=7 dios=7\n7:0 \n"),
            ("pids.current", "4\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.current", "1\n"),
            ("hugetlb.2MB.max", "max\n"),
            ("hugetlb.2MB.events", "max 3\n"),
        ],
    );
    let got = fake.stats().unwrap();
    for (pointer, want) in [
        ("/cpu/usage", json!({ "total": 9000, "kernel": 5000, "user": 4000 })),
        ("/cpu/throttling", json!({ "periods": 1, "throttledPeriods": 2, "throttledTime": 3000 })),
        ("/cpu/psi", pressure()),
        ("/cpuset/sched_relax_domain_level", json!(0)),
        ("/memory/cache", json!(2)),
        ("/memory/usage", json!({ "limit": 200, "usage": 100, "max": 150, "failcnt": 0 })),
        ("/memory/swap", json!({ "limit": 220, "usage": 110, "failcnt": 0 })),
        ("/memory/raw", json!({ "anon": 1, "file": 2 })),
        ("/pids", json!({ "current": 4 })),
        ("/hugetlb/2MB", json!({ "usage": 1, "failcnt": 3 })),
    ] {
        assert_eq!(got.pointer(pointer), Some(&want), "{pointer}");
    }
    let (mut idle, read) = (entry("Write", 0), "Read");
    idle.as_object_mut().unwrap().remove("value");
    assert_eq!(got["blkio"]["ioServiceBytesRecursive"], json!([entry(read, 512), idle]));
    assert_eq!(got["blkio"]["ioServicedRecursive"], json!([entry(read, 1), idle]));
}

#[test]
fn without_a_limit_there_is_none_and_without_a_controller_processes_are_counted() {
    let files = [
        ("memory.current", "100\n"),
        ("memory.max", "max\n"),
        ("memory.swap.max", "max\n"),
        ("cgroup.procs", "7\n8\n"),
    ];
    let got = Fake::new("limits").with("unified", &files).stats().unwrap();
    assert_eq!(got["memory"]["usage"]["limit"], json!(u64::MAX));
    assert_eq!(got["memory"]["swap"]["limit"], json!(u64::MAX));
    assert_eq!(got["pids"], json!({ "current": 2 }));
}

#[test]
fn on_a_hybrid_host_each_controller_is_read_where_it_is() {
    let fake = Fake::new("hybrid").with("memory", &[("memory.usage_in_bytes", "10\n")]).with(
        "unified",
        &[
            PRESSURE,
            ("cpu.stat", "usage_usec 1\n"),
            ("hugetlb.2MB.current", "1\n"),
            ("memory.current", "5\n"),
        ],
    );
    let got = fake.stats().unwrap();
    assert_eq!((&got["cpu"]["psi"], &got["cpu"]["usage"]["total"]), (&pressure(), &json!(1000)));
    assert_eq!((&got["memory"]["usage"]["usage"], &got["hugetlb"]["2MB"]["usage"]), (&json!(10), &json!(1)));
}

#[test]
fn a_file_of_another_form_is_named_in_the_error() {
    let fake = Fake::new("form").with("unified", &[("pids.current", "many\n")]);
    let error = fake.stats().unwrap_err().to_string();
    assert!(error.ends_with("unified/c/pids.current: has \"many\", not a number"), "{error}");
    let gone = Cgroup::default().stats().unwrap_err();
    assert_eq!(gone.kind, Kind::NotFound);
}
