//! config.md#mounts in user namespaces: mappings of mounts (idmap), and flags that the host's root has locked.

mod support;

use serde_json::json;
use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;
use support::{Bundle, Scratch, finish};

#[test]
fn id_mapped_binds_shift_owners() {
    needs_root!();
    let host = Scratch::new("source");
    for (name, uid) in [("root", 0), ("user", 1000), ("other", 5000)] {
        fs::write(host.path.join(name), "").unwrap();
        chown(host.path.join(name), Some(uid), Some(uid)).unwrap();
    }
    let source = host.path.to_str().unwrap();
    let map = json!([{ "containerID": 0, "hostID": 7000, "size": 2000 }]);
    let entry = json!({ "destination": "/v", "source": source, "options": ["rbind", "idmap"], "uidMappings": map, "gidMappings": map });
    let b = Bundle::new().set("/mounts/-", entry).sh("stat -c '%n %u:%g' /v/root /v/user /v/other");
    let out = b.run();
    if out.stderr.contains("its file system cannot be id-mapped") {
        return support::skip("the file system of the temporary directory cannot be id-mapped");
    }
    if out.stderr.contains("id-mapped mounts need Linux 5.12") {
        return support::skip("id-mapped mounts need Linux 5.12");
    }
    assert_eq!(out.ok().stdout, "/v/root 7000:7000\n/v/user 8000:8000\n/v/other 65534:65534\n");
}

/// As podman and crun spell them.
#[test]
fn mappings_of_the_option_idmap_are_absolute_or_the_containers() {
    needs_root!();
    let host = Scratch::new("source");
    for (name, uid) in [("root", 0), ("user", 1000)] {
        fs::write(host.path.join(name), "").unwrap();
        chown(host.path.join(name), Some(uid), Some(uid)).unwrap();
    }
    let source = host.path.to_str().unwrap();
    let inside = Bundle::new().in_a_user_namespace().mount(
        "/v",
        "bind",
        source,
        &["rbind", "idmap=uids=@1000-20-1#@0-3-1"],
    );
    let absolute =
        Bundle::new().mount("/v", "bind", source, &["rbind", "idmap=uids=0-7000-1001;gids=0-10-1#1000-20-1"]);
    for (b, want) in [(absolute, "7000:10\n8000:20\n"), (inside, "3:0\n20:1000\n")] {
        let out = b.sh("stat -c %u:%g /v/root /v/user").run();
        if ["cannot be id-mapped", "need Linux 5.12"].iter().any(|w| out.stderr.contains(w)) {
            return support::skip("the file system of the temporary directory cannot be id-mapped");
        }
        assert_eq!(out.ok().stdout, want);
    }
    let wrong = Bundle::new().mount("/v", "bind", source, &["rbind", "idmap=uids=0-1"]);
    wrong.run().fails("mounts[7] (/v).options: \"0-1\" is no range like 0-1000-10 or @0-1000-10");
}

#[test]
fn in_a_user_namespace_mounts_work_and_idmap_takes_its_mappings() {
    needs_root!();
    let host = Scratch::new("source");
    fs::write(host.path.join("file"), "x").unwrap();
    let b = Bundle::new()
        .in_a_user_namespace()
        .mount("/plain", "bind", host.path.to_str().unwrap(), &["rbind", "ro"])
        .mount("/mapped", "bind", host.path.to_str().unwrap(), &["rbind", "idmap"])
        .sh("stat -c '%u' /plain/file /mapped/file; touch /plain/x 2>/dev/null || echo ro");
    let out = b.run();
    if out.stderr.contains("id-mapped mounts need Linux 5.12") {
        return support::skip("id-mapped mounts need Linux 5.12");
    }
    assert_eq!(out.ok().stdout, "65534\n0\nro\n");
}

/// mount_namespaces(7): what root made read-only, an ordinary user's container may not make writable.
#[test]
fn flags_that_root_has_locked_are_named_and_never_cleared() {
    needs_root!();
    needs_program!("setpriv");
    let host = Scratch::new("source");
    let mut mount = Command::new("mount");
    finish(mount.args(["-t", "tmpfs", "-o", "ro,nosuid,nodev,noexec", "tmpfs"]).arg(&host.path)).ok();
    for (option, words) in [
        ("noexec", ""),
        ("rw", "clear ro, which the user namespace above has locked: mount_setattr: operation not permitted"),
        ("suid", "clear nosuid, which"),
        ("dev", "clear nodev, which"),
        ("exec", "clear noexec, which"),
        ("noatime", "change the atime rule, which"),
        ("rrw", "clear ro, which"),
    ] {
        let b = Bundle::new().mount("/v", "bind", host.path.to_str().unwrap(), &["rbind", option]);
        let map = json!([{ "containerID": 0, "hostID": 1000, "size": 1 }]);
        let mut b =
            b.namespace("user", None).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        let list = b.config["mounts"].as_array_mut().unwrap();
        list.retain(|m| !["/dev/pts", "/sys/fs/cgroup"].contains(&m["destination"].as_str().unwrap()));
        b.write();
        support::own(b.path(), 1000);
        let orlop = b.path().join("orlop");
        support::copy_orlop(&orlop);
        let mut c = Command::new("setpriv");
        c.args(["--reuid", "1000", "--regid", "1000", "--clear-groups"]).arg(orlop);
        c.arg("--root").arg(b.state_root()).args(["--cgroup-manager", "disabled", "run", "--bundle"]);
        let out = finish(c.arg(b.path()).arg(&b.id).current_dir("/"));
        if words.is_empty() { drop(out.ok()) } else { drop(out.fails(words)) }
    }
}
