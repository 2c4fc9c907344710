//! Laws of an update, against a model of what the kernel checks.

use super::*;
use crate::plan::cgroup::{Hierarchy, Unified};
use serde_json::{Value, json};

fn hierarchies(v2: bool) -> Hierarchies {
    let list = ["cpu", "cpuset", "memory", "blkio", "pids", "devices"];
    let hierarchy =
        |c: &&str| Hierarchy { mount: format!("/cg/{c}"), controllers: vec![c.to_string()], own: "/".into() };
    match v2 {
        false => Hierarchies { v1: list.iter().map(hierarchy).collect(), v2: None },
        true => {
            let controllers = ["cpu", "cpuset", "memory", "io", "pids"].map(String::from).to_vec();
            Hierarchies {
                v1: vec![],
                v2: Some(Unified { mount: "/cg".into(), controllers, own: "/".into() }),
            }
        }
    }
}

fn in_force(files: &[(&'static str, &str)]) -> InForce {
    InForce(files.iter().map(|(f, v)| (*f, format!("{v}\n"))).collect())
}

fn run(resources: &Value, now: &InForce) -> Result<Vec<Write>> {
    let v2 = now.0.contains_key("memory.max") || now.0.contains_key("cpu.max");
    let r: Resources = serde_json::from_value(resources.clone()).expect("it parses");
    let plan = plan(&r, &hierarchies(v2), now, &mut vec![])?;
    Ok(plan.v1.into_iter().flat_map(|v| v.writes).chain(plan.v2.into_iter().flat_map(|v| v.writes)).collect())
}

/// `file=value` in the order in which they are written, without those in force already.
fn writes(resources: Value, now: &InForce) -> Vec<String> {
    let list = run(&resources, now).expect("a plan");
    let idle = |w: &&Write| now.0.get(w.file.as_str()).is_none_or(|old| old.trim() != w.value);
    list.iter().filter(idle).map(|w| format!("{}={}", w.file, w.value)).collect()
}

fn v1() -> InForce {
    in_force(&[
        ("memory.limit_in_bytes", "100"),
        ("memory.memsw.limit_in_bytes", "200"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_period_us", "200000"),
        ("cpu.cfs_burst_us", "0"),
        ("cpu.rt_period_us", "1000000"),
        ("cpu.rt_runtime_us", "900000"),
    ])
}

fn v2() -> InForce {
    in_force(&[
        ("memory.max", "100"),
        ("memory.swap.max", "100"),
        ("memory.current", "60"),
        ("cpu.max", "50000 200000"),
        ("cpu.max.burst", "0"),
    ])
}

#[test]
fn what_is_not_asked_for_is_left_alone() {
    for (resources, on_v1, on_v2) in [
        (json!({}), vec![], vec![]),
        (
            json!({
                "devices": [{ "allow": false, "access": "rwm" }], "memory": { "limit": 0, "reservation": 0, "swap": 0, "kernel": 0 },
                "cpu": { "shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": "" }, "blockIO": { "weight": 0 }, "pids": { "limit": 0 },
            }),
            vec![],
            vec![],
        ),
        (json!({ "pids": { "limit": -1 } }), vec!["pids.max=max"], vec!["pids.max=max"]),
        // One of a pair.
        (json!({ "cpu": { "quota": 20000 } }), vec!["cpu.cfs_quota_us=20000"], vec!["cpu.max=20000 200000"]),
        (
            json!({ "cpu": { "period": 300000 } }),
            vec!["cpu.cfs_period_us=300000"],
            vec!["cpu.max=50000 300000"],
        ),
        (json!({ "cpu": { "quota": -1 } }), vec!["cpu.cfs_quota_us=-1"], vec!["cpu.max=max 200000"]),
        (json!({ "cpu": { "burst": 50000 } }), vec!["cpu.cfs_burst_us=50000"], vec!["cpu.max.burst=50000"]),
        (
            json!({ "memory": { "swap": 150 } }),
            vec!["memory.memsw.limit_in_bytes=150"],
            vec!["memory.swap.max=50"],
        ),
        (
            json!({ "memory": { "swap": 100 } }),
            vec!["memory.memsw.limit_in_bytes=100"],
            vec!["memory.swap.max=0"],
        ),
        (json!({ "memory": { "limit": 150 } }), vec!["memory.limit_in_bytes=150"], vec!["memory.max=150"]),
        // No limit of memory means none of swap.
        (
            json!({ "memory": { "limit": -1 } }),
            vec!["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"],
            vec!["memory.swap.max=max", "memory.max=max"],
        ),
    ] {
        assert_eq!(writes(resources.clone(), &v1()), on_v1, "v1: {resources}");
        assert_eq!(writes(resources.clone(), &v2()), on_v2, "v2: {resources}");
    }
}

#[test]
fn what_cannot_be_is_named_beforehand() {
    for (resources, now, message) in [
        (
            json!({ "memory": { "limit": 201 } }),
            v1(),
            "linux.resources.memory.limit: 201 is above the memory.swap in force, 200; it counts memory and swap, and has to grow too",
        ),
        (
            json!({ "memory": { "swap": 99 } }),
            v1(),
            "linux.resources.memory.swap: 99 is below memory.limit 100",
        ),
        (
            json!({ "memory": { "swap": 99 } }),
            v2(),
            "linux.resources.memory.swap: 99 is below memory.limit 100",
        ),
        (
            json!({ "memory": { "swap": 99 } }),
            in_force(&[("memory.max", "max")]),
            "linux.resources.memory.swap: 99 needs a memory.limit below it",
        ),
        (
            json!({ "memory": { "limit": 59, "checkBeforeUpdate": true } }),
            v2(),
            "linux.resources.memory.limit: 59 is below the 60 bytes in use; memory.checkBeforeUpdate is set",
        ),
        (
            json!({ "cpu": { "burst": 50001 } }),
            v2(),
            "linux.resources.cpu.burst: 50001 is above cpu.quota 50000",
        ),
        (
            json!({ "cpu": { "quota": 5000 } }),
            in_force(&[("cpu.max", "9000 10000"), ("cpu.max.burst", "5001")]),
            "linux.resources.cpu.quota: 5000 is below the cpu.burst in force, 5001; a burst may not exceed the quota",
        ),
        (json!({ "pids": { "limit": -2 } }), v1(), "linux.resources.pids.limit: -2 is below -1 (unlimited)"),
    ] {
        assert_eq!(run(&resources, &now).unwrap_err().to_string(), message);
    }
    // Above what is in use, or unasked: no question.
    for memory in [json!({ "limit": 59 }), json!({ "limit": 60, "checkBeforeUpdate": true })] {
        run(&json!({ "memory": memory }), &v2()).unwrap();
    }
}

#[test]
fn a_write_is_named_after_what_was_asked_for() {
    for (cpu, at) in [
        (json!({ "period": 200000 }), "linux.resources.cpu.period"),
        (json!({ "quota": 20000 }), "linux.resources.cpu.quota"),
        (json!({ "quota": 20000, "period": 200000 }), "linux.resources.cpu.quota"),
    ] {
        let list = run(&json!({ "cpu": cpu }), &v2()).unwrap();
        assert_eq!(list.iter().find(|w| w.file == "cpu.max").unwrap().at, at);
    }
}

/// The files of a cgroup and the kernel's rules for them.
#[derive(Clone, Debug, PartialEq)]
struct Model(BTreeMap<String, i64>);

impl Model {
    fn get(&self, file: &str) -> i64 {
        self.0.get(file).copied().unwrap_or(UNLIMITED)
    }

    /// A cgroup above has half of a CPU, one below a tenth.
    fn takes(&self) -> bool {
        let (quota, period) = (self.get("cpu.cfs_quota_us"), self.get("cpu.cfs_period_us"));
        let share = quota == UNLIMITED || (quota * 2 <= period && quota * 10 >= period);
        let burst = quota == UNLIMITED || self.get("cpu.cfs_burst_us") <= quota;
        let memory = self.get("memory.limit_in_bytes") <= self.get("memory.memsw.limit_in_bytes");
        share && burst && memory && self.get("cpu.rt_runtime_us") <= self.get("cpu.rt_period_us")
    }

    fn write(&mut self, file: &str, value: &str) -> bool {
        let old = self.clone();
        let value = value.trim().parse().ok().filter(|v| *v >= 0).unwrap_or(UNLIMITED);
        self.0.insert(file.to_string(), value);
        let taken = self.takes();
        if !taken {
            *self = old;
        }
        taken
    }

    fn in_force(&self) -> InForce {
        let known = LOOKED_AT.iter().filter_map(|(_, f)| Some((*f, self.0.get(*f)?)));
        let text = |v: i64| if v == UNLIMITED { "-1".into() } else { v.to_string() };
        InForce(known.map(|(f, v)| (f, text(*v))).collect())
    }
}

/// From every one of these states to every other, each write is taken; and when the last one is not, what came before
/// is put back.
fn every_way(states: &[Model], resources: impl Fn(&Model) -> Value) {
    for from in states {
        for to in states {
            let list = run(&resources(to), &from.in_force()).expect("a plan");
            let mut at = from.clone();
            let mut done: Vec<(&Write, String)> = Vec::new();
            for w in &list {
                let mut back = at.clone();
                for (w, old) in done.iter().rev() {
                    back.write(&w.file, &restoring(&w.file, &w.value, old).expect("it can be"));
                }
                assert_eq!(&back, from, "back from {at:?} by {list:?}");
                done.push((w, or_none(at.0[&w.file]).to_string()));
                assert!(at.write(&w.file, &w.value), "{from:?} to {to:?}: {w} of {list:?} at {at:?}");
            }
            assert_eq!(&at, to, "{list:?}");
        }
    }
}

fn states(files: &[&str], values: &[Vec<i64>]) -> Vec<Model> {
    let model = |v: &Vec<i64>| Model(files.iter().map(|f| f.to_string()).zip(v.iter().copied()).collect());
    values.iter().map(model).filter(Model::takes).collect()
}

fn or_none(v: i64) -> i64 {
    if v == UNLIMITED { -1 } else { v }
}

#[test]
fn memory_and_swap_are_taken_from_any_state_to_any_other() {
    let sizes = [10, 20, 30, 40, UNLIMITED];
    let values: Vec<_> = sizes.iter().flat_map(|l| sizes.iter().map(|s| vec![*l, *s])).collect();
    let all = states(&["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"], &values);
    assert_eq!(all.len(), 15);
    every_way(&all, |to| {
        let [limit, swap] =
            ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"].map(|f| or_none(to.get(f)));
        json!({ "memory": { "limit": limit, "swap": swap } })
    });
}

#[test]
fn quota_period_and_burst_are_taken_from_any_state_to_any_other() {
    let mut values = Vec::new();
    for period in [10_000, 20_000, 100_000, 1_000_000] {
        for share in [10, 5, 3, 2] {
            for part in [0, 1, 2] {
                let quota = period / share;
                values.push(vec![quota, period, quota * part / 2]);
            }
        }
        values.extend([0, 1000, 900_000].map(|burst| vec![UNLIMITED, period, burst]));
    }
    let all = states(&["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"], &values);
    assert!(all.len() > 50);
    every_way(&all, |to| {
        let [quota, period, burst] =
            ["cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.cfs_burst_us"].map(|f| or_none(to.get(f)));
        json!({ "cpu": { "quota": quota, "period": period, "burst": burst } })
    });
}

#[test]
fn real_time_values_are_taken_from_any_state_to_any_other() {
    let values: Vec<_> = [10, 20, 30].iter().flat_map(|p| [5, 10, 20, 30].map(|r| vec![*p, r])).collect();
    let all = states(&["cpu.rt_period_us", "cpu.rt_runtime_us"], &values);
    every_way(&all, |to| {
        let [period, runtime] = ["cpu.rt_period_us", "cpu.rt_runtime_us"].map(|f| to.get(f));
        json!({ "cpu": { "realtimePeriod": period, "realtimeRuntime": runtime } })
    });
}

#[test]
fn swap_of_v2_is_allowed_before_memory_is_short_of_it() {
    for ((limit, swap), files) in [
        ((50, 500), ["memory.swap.max=450", "memory.max=50"]),
        ((50, 60), ["memory.max=50", "memory.swap.max=10"]),
        ((300, 500), ["memory.swap.max=200", "memory.max=300"]),
        ((300, -1), ["memory.swap.max=max", "memory.max=300"]),
    ] {
        assert_eq!(writes(json!({ "memory": { "limit": limit, "swap": swap } }), &v2()), files);
    }
}

#[test]
fn an_idle_cgroup_gets_its_shares_when_it_is_none_any_more() {
    for (cpu, files) in [
        (json!({ "shares": 1024, "idle": 0 }), ["cpu.idle=0", "cpu.shares=1024"]),
        (json!({ "shares": 1024, "idle": 1 }), ["cpu.shares=1024", "cpu.idle=1"]),
    ] {
        assert_eq!(writes(json!({ "cpu": cpu }), &v1()), files);
    }
    // What it had comes back with it when a later value is refused.
    let list = run(&json!({ "cpu": { "idle": 1 } }), &in_force(&[("cpu.shares", "512")])).unwrap();
    let list: Vec<_> = list.iter().map(|w| (w.file.as_str(), w.value.as_str())).collect();
    assert_eq!(list, [("cpu.shares", "512"), ("cpu.idle", "1")]);
}

#[test]
fn old_contents_are_put_back_as_the_file_takes_them() {
    for (file, value, old, back) in [
        ("memory.max", "5", "max\n", Some("max")),
        ("cpu.max", "5000 10000", "max 100000\n", Some("max 100000")),
        ("cpuset.cpus", "0-31:2/4", "0-1\n", Some("0-1")),
        ("cpuset.cpus", "0", "\n", Some("\n")),
        ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", Some("0")),
        ("io.max", "8:0 rbps=5", "", Some("8:0 rbps=max wbps=max riops=max wiops=max")),
        (
            "io.max",
            "8:0 rbps=5",
            "8:16 rbps=1 wbps=max riops=max wiops=max\n8:0 rbps=7 wbps=2 riops=max wiops=max\n",
            Some("8:0 rbps=7 wbps=2 riops=max wiops=max"),
        ),
        ("blkio.throttle.read_bps_device", "8:0 5", "", Some("8:0 0")),
        ("blkio.throttle.read_bps_device", "8:0 5", "8:0 9\n", Some("8:0 9")),
        ("blkio.weight", "500", "100\n", Some("100")),
        ("blkio.bfq.weight", "500", "100\n", Some("100")),
        ("io.weight", "500", "default 100\n8:0 50\n", Some("default 100")),
        ("io.bfq.weight", "500", "default 100\n", Some("default 100")),
        ("io.weight", "8:0 70", "default 100\n", Some("8:0 default")),
        ("rdma.max", "mlx5_0 hca_handle=2", "", Some("mlx5_0 hca_handle=max hca_object=max")),
        (
            "rdma.max",
            "mlx5_0 hca_handle=2",
            "mlx5_0 hca_handle=3 hca_object=max\n",
            Some("mlx5_0 hca_handle=3 hca_object=max"),
        ),
        ("net_prio.ifpriomap", "eth0 5", "lo 0\neth0 1\n", Some("eth0 1")),
        ("net_prio.ifpriomap", "eth0 5", "lo 0\n", None),
        ("hugetlb.2MB.max", "5", "max\n", Some("max")),
    ] {
        assert_eq!(restoring(file, value, old).as_deref(), back, "{file} {value:?} {old:?}");
    }
}
