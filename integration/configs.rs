//! Documents that real engines wrote, and runc's own, run by this runtime and by Debian's runc: what the container can
//! see of itself must be the same.

mod support;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Bundle, Scratch, finish};

/// Prints all that a process can learn of its container, in sections.
const LOOK: &str = r#"
section() { echo "@@ $1"; }
section status; grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Umask|SigBlk|Cpus_allowed_list)' /proc/self/status
section limits; sed 's/  */ /g' /proc/self/limits
section namespaces; for n in pid net mnt ipc uts user cgroup; do readlink /proc/self/ns/$n; done
section ids; id; cat /proc/self/uid_map /proc/self/gid_map | tr -s ' '
section names; hostname; pwd; cat /proc/self/oom_score_adj /proc/self/personality 2>/dev/null
section env; env | sort
section devices; ls -ln /dev | grep -v '^total' | tr -s ' ' | cut -d ' ' -f 1,3,5-6,10-
section pts; ls -lnd /dev/pts /dev/shm /dev/mqueue 2>/dev/null | tr -s ' ' | cut -d ' ' -f 1,3
section cgroup; cut -d : -f 2,3 /proc/self/cgroup
section mounts; cat /proc/self/mountinfo
section pid; echo $$
section sysctl; cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start
section sealed; for f in /proc/kcore /proc/keys /proc/timer_list /sys/firmware /proc/acpi; do ls -ld $f 2>&1 | cut -c 1; done
for f in /proc/sys/kernel/shmmax /proc/sysrq-trigger /proc/irq/x /sys/x /rootx; do (: >>$f) 2>/dev/null && echo "$f opens" || echo "$f refused"; done
for d in /sys/fs/cgroup/*; do mkdir $d/x 2>/dev/null && rmdir $d/x && echo "$d is writable"; done
exit 0
"#;

type Look = BTreeMap<String, BTreeSet<String>>;

fn sections(text: &str, host: &BTreeSet<String>) -> Look {
    let mut look = Look::new();
    let mut at = String::new();
    for line in text.lines() {
        match line.strip_prefix("@@ ") {
            Some(name) => at = name.to_string(),
            None => {
                let line = match at.as_str() {
                    "mounts" => mount(line),
                    "namespaces" if host.contains(line) => Some(format!("{line} of the host")),
                    "namespaces" => line.split_once(':').map(|n| format!("{} of its own", n.0)),
                    // Without a cgroup namespace on v2, runc shows all of the host's cgroups, writable if the mount is.
                    "sealed" if line.starts_with("/sys/fs/cgroup/") && pure_v2() => None,
                    _ => Some(line.trim().to_string()),
                };
                look.entry(at.clone()).or_default().extend(line);
            }
        }
    }
    look
}

/// A line of mountinfo without what differs from run to run: numbers, peer groups' numbers, the bundle's path. Masks are
/// left out: several tmpfs there, one shared one here; the `sealed` section tells whether they hold.
fn mount(line: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<_> = left.split(' ').collect();
    let right: Vec<_> = right.split(' ').collect();
    let (point, options) = (*left.get(4)?, *left.get(5)?);
    // Newer versions of runc make the mount below the bundle private before they copy from it, others from nothing: what
    // comes in from the host is tested by itself.
    let peers: Vec<_> =
        left[6..].iter().filter_map(|p| p.split(':').next()).filter(|p| *p != "master").collect();
    let (fstype, data) = (right[0], right.get(2).copied().unwrap_or_default());
    let under = |p| point.starts_with(p);
    let masked = ["/proc/", "/sys/firmware", "/sys/devices/virtual/powercap"].into_iter().any(under);
    if masked && fstype == "tmpfs" || under("/sys/dev") || masked && left[3] == "/null" {
        return None;
    }
    // The tmpfs above v1's hierarchies: writable in runc's mount of it, read-only in ours when the entry says `ro`.
    let options = if point == "/sys/fs/cgroup" {
        options.strip_prefix("rw,").or(options.strip_prefix("ro,"))
    } else {
        Some(options)
    }
    .unwrap_or_default();
    let set = |s: &str| s.split(',').map(String::from).collect::<BTreeSet<_>>();
    let mut data = set(data);
    // runc's mount(2) makes the superblock of sysfs read-only beside the mount; `options` tells what holds.
    data.retain(|d| {
        !["inode64", "ro", "rw"].contains(&d.as_str()) && (!d.starts_with("size=") || point != "/dev/shm")
    });
    Some(format!("{point} {fstype} {:?} {peers:?} {data:?}", set(options)))
}

fn pure_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn host_namespaces() -> BTreeSet<String> {
    let dir = fs::read_dir("/proc/self/ns").expect("our namespaces");
    dir.flatten()
        .filter_map(|e| fs::read_link(e.path()).ok())
        .map(|l| l.to_string_lossy().into_owned())
        .collect()
}

/// The sources of its bind mounts, which stand beside the document.
fn make_sources(config: &Value, bundle: &Path) {
    fs::create_dir_all(bundle.join("mounts")).expect("mkdir");
    for mount in config["mounts"].as_array().into_iter().flatten() {
        let Some(source) = mount["source"].as_str().filter(|s| s.starts_with("mounts/")) else { continue };
        let path = bundle.join(source);
        if source.ends_with("shm") {
            fs::create_dir_all(path).expect("mkdir");
        } else {
            fs::write(path, "made for the test\n").expect("write");
        }
    }
}

fn compare(name: &str, mut config: Value) -> Vec<String> {
    let mut b = Bundle::new();
    config["process"]["args"] = json!(["/bin/sh", "-c", LOOK]);
    config["process"]["terminal"] = json!(false);
    config["linux"]["cgroupsPath"] = json!(format!("/{}", b.id));
    // A sandbox's 2 is no time at all on a busy machine; nothing inside shows it.
    if let Some(shares) = config.pointer_mut("/linux/resources/cpu/shares") {
        *shares = json!(1024);
    }
    make_sources(&config, b.path());
    if let Some(host) = config["linux"]["uidMappings"][0]["hostID"].as_u64() {
        // As engines do: the image belongs to the container's root.
        finish(Command::new("chown").args(["-hR", &format!("{host}:{host}")]).arg(b.path())).ok();
    }
    b.config = config;
    // runc of that age leaves the caller's affinity as it is.
    orlop::sys::cred::reset_affinity().expect("affinity");
    let host = host_namespaces();
    let theirs = b.run_by_runc();
    let ours = b.run();
    if !theirs.status.success() || !ours.status.success() {
        return vec![format!(
            "{name}: ours {:?} {}, theirs {:?} {}",
            ours.status, ours.stderr, theirs.status, theirs.stderr
        )];
    }
    let (ours, theirs) = (sections(&ours.stdout, &host), sections(&theirs.stdout, &host));
    let mut differences = Vec::new();
    for (section, lines) in &theirs {
        let none = BTreeSet::new();
        let mine = ours.get(section).unwrap_or(&none);
        differences.extend(lines.difference(mine).map(|l| format!("{name}: {section}: only runc: {l}")));
        differences.extend(mine.difference(lines).map(|l| format!("{name}: {section}: only orlop: {l}")));
    }
    differences
}

/// Documents of Docker, podman, buildah, containerd and Kubernetes.
fn documents() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/golden");
    let mut files: Vec<_> = fs::read_dir(dir).expect("documents").flatten().map(|e| e.path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    files.sort();
    assert!(files.len() >= 12, "{files:?}");
    files
}

#[test]
fn what_engines_write_looks_the_same_inside_as_with_runc() {
    needs_root!();
    needs_program!("runc");
    let mut differences = Vec::new();
    for file in documents() {
        let config = serde_json::from_slice(&fs::read(&file).expect("read")).expect("JSON");
        differences.extend(compare(&file.file_stem().unwrap_or_default().to_string_lossy(), config));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_runc_writes_looks_the_same_inside_as_with_runc() {
    needs_root!();
    needs_program!("runc");
    let scratch = Scratch::new("spec");
    finish(Command::new("runc").args(["spec", "--bundle"]).arg(&scratch.path)).ok();
    let text = fs::read(scratch.path.join("config.json")).expect("runc's document");
    let differences = compare("runc spec", serde_json::from_slice(&text).expect("JSON"));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
