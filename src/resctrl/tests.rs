//! On a directory that looks like the file system: what its kernel makes in a new group is made by the tests.

use super::*;
use serde_json::json;
use std::path::PathBuf;

struct Tree(PathBuf);

impl Tree {
    /// Two cache domains, a granularity of 10% for the bandwidth, counters for both; a group `gold`.
    fn new(name: &str) -> Tree {
        let tree = Tree(std::env::temp_dir().join(format!("orlop-resctrl-{name}-{}", std::process::id())));
        for (file, text) in [
            ("info/last_cmd_status", "ok\n"),
            ("info/L3/cbm_mask", "7ff\n"),
            ("info/L3/min_cbm_bits", "1\n"),
            ("info/L3/num_closids", "16\n"),
            ("info/MB/bandwidth_gran", "10\n"),
            ("info/MB/delay_linear", "1\n"),
            ("info/MB/min_bandwidth", "10\n"),
            ("info/MB/num_closids", "8\n"),
            ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
            ("schemata", "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n"),
        ] {
            tree.put(file, text);
        }
        tree.group("", "");
        tree.group("gold", "    MB:0= 20;1= 70\n    L3:0=7f0;1=01f\n");
        tree
    }

    fn put(&self, file: &str, text: &str) {
        let file = self.0.join(file.trim_start_matches('/'));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// What the kernel makes with a directory.
    fn group(&self, name: &str, schemata: &str) {
        self.put(&format!("{name}/tasks"), "");
        fs::create_dir_all(self.0.join(name).join("mon_groups")).unwrap();
        if !schemata.is_empty() {
            self.put(&format!("{name}/schemata"), schemata);
        }
        for (n, domain) in ["mon_L3_01", "mon_L3_00"].iter().enumerate() {
            for (m, counter) in ["llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"].iter().enumerate() {
                self.put(&format!("{name}/mon_data/{domain}/{counter}"), &format!("{}\n", 100 * n + m));
            }
        }
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    fn rdt(&self, group: &str, named: bool) -> Rdt {
        let mount = self.0.to_str().unwrap().to_string();
        Rdt { mount, group: group.into(), named, schemata: Vec::new(), monitor: None }
    }

    fn lines(&self, values: &[&str]) -> Vec<Line> {
        let line = |v: &&str| Line { at: "x".into(), value: (*v).into(), must_match: true };
        values.iter().map(line).collect()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_group_that_is_there_is_joined_and_stays() {
    let t = Tree::new("there");
    for (name, tasks) in [("gold", "gold/tasks"), ("", "tasks")] {
        let plan = t.rdt(name, true);
        let r = Recorded::of(&plan);
        r.create(&plan).unwrap();
        r.join(42).unwrap();
        assert_eq!(t.read(tasks), "42\n");
        r.remove(false).unwrap();
        r.remove(true).unwrap();
        assert!(t.0.join(name).exists());
    }
    let plan = t.rdt("silver", true);
    let e = Recorded::of(&plan).create(&plan).unwrap_err().to_string();
    assert!(e.starts_with("linux.intelRdt.closID: there is no group "), "{e}");
    assert!(!t.0.join("silver").exists());
}

#[test]
fn a_group_that_is_there_must_have_the_schemas() {
    let t = Tree::new("match");
    for (values, fits) in [
        (&["L3:0=7f0;1=1f"][..], true),
        (&["L3:1=1f", "MB:0=15"], true), // rounded up to 20
        (&["L3:0=7ff"], false),
        (&["L3:0=7f0", "MB:0=30"], false),
        (&["L3CODE:0=7f0"], false),
    ] {
        let before = t.read("gold/schemata");
        let plan = Rdt { schemata: t.lines(values), ..t.rdt("gold", true) };
        let created = Recorded::of(&plan).create(&plan);
        assert_eq!(created.is_ok(), fits, "{values:?}: {created:?}");
        if let Err(e) = created {
            assert!(e.what.contains("is not what ") && e.what.contains("L3:0=7f0;1=01f"), "{e}");
            assert_eq!(t.read("gold/schemata"), before);
        }
        t.group("gold", &before);
    }
}

#[test]
fn what_was_made_for_the_container_goes_and_what_it_named_stays() {
    for (named, failed, tasks, stays) in [
        (false, false, "9\n", false),
        (true, false, "9\n", true),
        (true, true, "", false),   // of a creation that failed
        (true, true, "9\n", true), // somebody else's is in it
    ] {
        let t = Tree::new(&format!("made-{named}-{failed}-{}", tasks.len()));
        let plan = Rdt { schemata: t.lines(&["MB:0=10"]), ..t.rdt("web", named) };
        let r = Recorded::of(&plan);
        assert!(r.made);
        fs::create_dir(t.0.join("web")).unwrap();
        if stays || failed {
            t.put("web/tasks", tasks);
        }
        let removed = r.remove(failed);
        // A plain directory goes only when it is empty, and is asked to all the same.
        let asked = removed.is_err() || !t.0.join("web").exists();
        assert_eq!(asked, !stays, "{named} {failed} {tasks:?}: {removed:?}");
    }
    let t = Tree::new("monitor");
    let plan = Rdt { monitor: Some("web".into()), ..t.rdt("gold", true) };
    let r = Recorded::of(&plan);
    r.create(&plan).unwrap();
    t.put("gold/mon_groups/web/tasks", "");
    r.join(7).unwrap();
    assert_eq!((t.read("gold/tasks"), t.read("gold/mon_groups/web/tasks")), ("7\n".into(), "7\n".into()));
    // One that is there is another's.
    let second = Recorded::of(&plan);
    let e = second.create(&plan).unwrap_err().to_string();
    assert!(e.starts_with("linux.intelRdt.enableMonitoring: ") && e.ends_with("is there already"), "{e}");
    second.remove(true).unwrap();
    assert!(t.0.join("gold/mon_groups/web").exists());
    fs::remove_file(t.0.join("gold/mon_groups/web/tasks")).unwrap();
    r.remove(false).unwrap();
    r.remove(false).unwrap(); // once more is fine
    assert!(t.0.join("gold").exists() && !t.0.join("gold/mon_groups/web").exists());
}

#[test]
fn a_failed_creation_leaves_no_group_and_says_what_the_file_system_says() {
    let t = Tree::new("failed");
    t.put("info/last_cmd_status", "Mask 5 has non-consecutive 1-bits\n");
    let plan = Rdt { schemata: t.lines(&["L3:0=5"]), ..t.rdt("web", false) };
    let e = Recorded::of(&plan).create(&plan).unwrap_err().to_string(); // no schemata appears in a plain directory
    assert!(
        e.starts_with("x: write \"L3:0=5\" to ") && e.ends_with("; Mask 5 has non-consecutive 1-bits"),
        "{e}"
    );
    assert!(!t.0.join("web").exists());
}

#[test]
fn lines_are_changed_and_put_back() {
    let t = Tree::new("change");
    let r = Recorded::of(&t.rdt("gold", true));
    let old = r.change(&t.lines(&["MB:0=50"])).unwrap();
    assert_eq!(old.iter().map(|l| l.value.as_str()).collect::<Vec<_>>(), ["MB:0=20;1=70"]);
    assert!(t.read("gold/schemata").starts_with("MB:0=50\n"));
    r.put_back(&old);
    assert!(t.read("gold/schemata").starts_with("MB:0=20;1=70\n"));
}

#[test]
fn statistics_have_the_names_of_runc() {
    let t = Tree::new("stats");
    let r = Recorded::of(&t.rdt("gold", true));
    assert_eq!(
        serde_json::to_value(r.stats().unwrap()).unwrap(),
        json!({
            "l3_cache_info": { "cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16 },
            "l3_cache_schema_root": "L3:0=7ff;1=7ff",
            "l3_cache_schema": "L3:0=7f0;1=01f",
            "mem_bw_info": { "bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8 },
            "mem_bw_schema_root": "MB:0=100;1=100",
            "mem_bw_schema": "MB:0= 20;1= 70",
            "schemata": ["MB:0= 20;1= 70", "L3:0=7f0;1=01f"],
            "mbm_stats": [
                { "mbm_total_bytes": 101, "mbm_local_bytes": 102 }, { "mbm_total_bytes": 1, "mbm_local_bytes": 2 },
            ],
            "cmt_stats": [{ "llc_occupancy": 100 }, { "llc_occupancy": 0 }],
        })
    );
    assert_eq!(serde_json::to_value(Recorded::default().stats().unwrap()).unwrap(), json!({}));
}
