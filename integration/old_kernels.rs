//! Kernels down to 5.10, by a filter that answers as they do: what they have an older way for is the same inside, and what
//! they lack is said.

#[path = "support/filter.rs"]
mod filter;
mod support;

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use support::{Bundle, Outcome, Scratch, finish, skip};

const LOOK: &str = r#"
sed 's/^[0-9]* [0-9]* [0-9:]* //; s/ \(shared\|master\):[0-9]*/ \1/g' /proc/self/mountinfo
ls -lnR /dev | tr -s ' ' | cut -d ' ' -f 1,3-6,10-; id; env | sort
for f in /proc/sys/kernel/shmmax /proc/sysrq-trigger /proc/irq/x /sys/x /rootx /etc/hosts; do
  (: >>$f) 2>/dev/null && echo "$f opens" || echo "$f refused"; done
for f in /proc/kcore /proc/keys /sys/firmware; do ls -ld $f 2>&1 | cut -c 1; done
"#;

/// On the kernel that is here, and on Linux 5.10.
fn twice(b: &Bundle) -> [Outcome; 2] {
    let now = b.run();
    let mut c = b.making("run");
    filter::linux_5_10(&mut c);
    [now, finish(&mut c)]
}

#[track_caller]
fn looks_the_same(name: &str, b: &Bundle) -> String {
    let [now, old] = twice(b).map(|o| o.ok().stdout);
    let (mut there, mut here) = (now.lines(), old.lines());
    loop {
        match (there.next(), here.next()) {
            (None, None) => return old,
            (a, b) => assert_eq!(a, b, "{name}: {old}"),
        }
    }
}

#[test]
fn what_engines_write_looks_the_same_inside_on_5_10() {
    needs_root!();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plan/golden");
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    for file in files.filter(|f| f.extension().is_some_and(|e| e == "json")) {
        let mut b = Bundle::new();
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["process"]["args"] = json!(["/bin/sh", "-c", LOOK]);
        config["process"]["terminal"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/{}", b.id));
        fs::create_dir(b.path().join("mounts")).unwrap();
        for mount in config["mounts"].as_array().unwrap() {
            let Some(source) = mount["source"].as_str().filter(|s| s.starts_with("mounts/")) else {
                continue;
            };
            let path = b.path().join(source);
            if source.ends_with("shm") { fs::create_dir(path).unwrap() } else { fs::write(path, "").unwrap() }
        }
        if let Some(host) = config["linux"]["uidMappings"][0]["hostID"].as_u64() {
            finish(Command::new("chown").args(["-hR", &format!("{host}:{host}")]).arg(b.path())).ok();
        }
        b.config = config;
        looks_the_same(&file.file_stem().unwrap().to_string_lossy(), &b);
    }
}

#[test]
fn options_of_mounts_do_the_same_on_5_10() {
    needs_root!();
    let host = Scratch::new("source");
    finish(Command::new("mount").args(["-t", "tmpfs", "-o", "nodev,noatime", "tmpfs"]).arg(&host.path)).ok();
    fs::create_dir(host.path.join("below")).unwrap();
    finish(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(host.path.join("below"))).ok();
    fs::write(host.path.join("file"), "").unwrap();
    fs::create_dir(host.path.join("below/a b")).unwrap();
    finish(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(host.path.join("below/a b"))).ok();
    let (source, file) = (host.path.to_str().unwrap(), host.path.join("file"));
    let lists: &[&[&str]] = &[
        &[],
        &["ro", "nosuid", "noexec"],
        &["dev", "atime"],
        &["strictatime", "nodiratime"],
        &["nosymfollow"],
        &["symfollow", "rshared"],
        &["shared", "slave", "ro"],
        &["unbindable"],
        &["rprivate", "nosuid"],
        &["rro"],
        &["rnosuid", "rnodev", "rnoexec", "rnosymfollow"],
        &["rstrictatime", "rnodiratime"],
        &["ro", "rrw", "ratime"],
    ];
    let mut b = Bundle::new();
    for (n, list) in lists.iter().enumerate() {
        b = b.mount(&format!("/t{n}"), "tmpfs", "tmpfs", &[&["size=64k", "mode=755"], *list].concat());
        b = b.mount(&format!("/b{n}"), "bind", source, &[&["rbind"], *list].concat());
        b = b.mount(&format!("/f{n}"), "bind", file.to_str().unwrap(), &[&["bind"], *list].concat());
    }
    b = b.mount("/t0", "tmpfs", "tmpfs", &["remount", "ro", "size=128k"]);
    b = b.mount("/new", "tmpfs", "tmpfs", &["rro", "rnosuid"]); // nothing is below it
    let b = b.set("/root/readonly", json!(true)).set("/linux/rootfsPropagation", json!("rslave"));
    let seen = looks_the_same("mounts", &b.sh(LOOK));
    assert!(seen.contains(" /b4 rw,nodev,noatime,nosymfollow "), "{seen}");
    assert!(seen.contains(" /new ro,nosuid,relatime "), "{seen}");
}

#[test]
fn what_5_10_lacks_is_said_before_the_program_runs() {
    needs_root!();
    let map = json!([{ "containerID": 0, "hostID": 7000, "size": 2000 }]);
    let entry = json!({ "destination": "/v", "source": "/bin", "options": ["rbind", "idmap"], "uidMappings": map, "gidMappings": map });
    let b = Bundle::new().set("/mounts/-", entry);
    let mut c = b.making("run");
    filter::linux_5_10(&mut c);
    let words = "mounts[7] (/v): mount_setattr MOUNT_ATTR_IDMAP: function not implemented; id-mapped mounts need Linux 5.12";
    finish(&mut c).fails(words);
    b.is_clean();
}

#[test]
fn the_life_of_a_container_is_the_same_on_5_10() {
    needs_root!();
    let scratch = Scratch::new("hooks");
    let hook = |name: &str| {
        let script = format!("ls -l /proc/self/fd | wc -l; echo {name} >> {}/ran", scratch.path.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    let b = Bundle::sleeping()
        .set("/root/readonly", json!(false))
        .set("/hooks/createRuntime", hook("createRuntime"))
        .set("/hooks/createContainer", hook("createContainer"))
        .set("/hooks/poststop", hook("poststop"))
        .set("/hooks/startContainer", json!([{ "path": "/bin/touch", "args": ["touch", "/tmp/started"] }]));
    b.write();
    let old = |args: &[&str]| {
        let mut c = b.orlop(args);
        filter::linux_5_10(&mut c);
        finish(&mut c)
    };
    let path = b.path().to_str().unwrap();
    old(&["create", "--bundle", path, &b.id]).ok();
    old(&["start", &b.id]).ok();
    assert_eq!(old(&["exec", &b.id, "ls", "/tmp"]).ok().stdout, "started\n");
    assert!(old(&["exec", "--user", "1000", &b.id, "id"]).ok().stdout.contains("uid=1000"));
    old(&["pause", &b.id]).ok();
    old(&["resume", &b.id]).ok();
    old(&["update", "--pids-limit", "20", &b.id]).ok();
    old(&["kill", "--all", &b.id, "KILL"]).ok();
    b.await_status("stopped");
    old(&["delete", &b.id]).ok();
    let ran = fs::read_to_string(scratch.path.join("ran")).unwrap();
    assert_eq!(ran, "createRuntime\ncreateContainer\npoststop\n");
    b.is_clean();
}

#[test]
fn user_namespaces_are_the_same_on_5_10() {
    needs_root!();
    let b = Bundle::new().in_a_user_namespace().mount("/plain", "bind", "/etc", &["rbind", "ro"]).sh(LOOK);
    looks_the_same("user namespace", &b);
    let seen = looks_the_same("sysfs of the host", &b.without_namespace("network"));
    assert!(seen.contains("/ /sys ro,"), "{seen}");
}

#[test]
fn an_ordinary_user_runs_containers_on_5_10() {
    needs_root!();
    needs_program!("setpriv");
    if fs::read("/proc/sys/user/max_user_namespaces").is_ok_and(|t| t.starts_with(b"0")) {
        return skip("needs user namespaces");
    }
    let mut b = Bundle::new();
    let program = b.path().join("orlop");
    support::copy_orlop(&program);
    fs::set_permissions(b.path(), fs::Permissions::from_mode(0o755)).unwrap();
    support::own(b.path(), 12345);
    let user = |args: &[&str]| {
        let mut c = Command::new("setpriv");
        c.args(["--reuid", "12345", "--regid", "12345", "--clear-groups"]).arg(&program).arg("--root");
        c.arg(b.state_root()).args(args).current_dir("/");
        filter::linux_5_10(&mut c);
        finish(&mut c)
    };
    let path = b.path().to_str().unwrap();
    user(&["spec", "--rootless", "--bundle", path]).ok();
    let mut config: Value = serde_json::from_slice(&fs::read(b.path().join("config.json")).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sh", "-c", "id -u; touch /x 2>/dev/null || echo ro"]);
    fs::write(b.path().join("config.json"), config.to_string()).unwrap();
    let out = user(&["run", "--bundle", path, &b.id]).ok();
    assert_eq!(out.stdout, "0\nro\n");
    b.config = config;
}
