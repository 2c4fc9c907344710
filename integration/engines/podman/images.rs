//! podman's image commands beside imgtool, by archives, layouts and a registry.

use super::{podman, says};
use crate::image::NAME;
use crate::images::{CHANGE, TELL, changes, is_here};
use crate::support::until;
use crate::world::Engine;
use crate::{Check, check};
use serde_json::json;
use std::fs;
use std::net::TcpStream;
use std::process::Command;

pub const CHECKS: &[Check] = &[
    check!(changed_images_are_loaded_and_run),
    check!(saved_images_are_imported),
    check!(images_go_by_a_registry),
];

fn changed_images_are_loaded_and_run(e: &Engine) {
    let Some((c, all)) = changes(e) else { return };
    for (n, i) in all.iter().enumerate() {
        let form = ["docker", "oci"][n % 2];
        podman(e, &["load", "--quiet", "--input", &c.at(&format!("{form}/{}.tar", i.kind))]).ok();
        let theirs = podman(e, &["image", "inspect", &i.name]).ok().json()[0].clone();
        assert_eq!(theirs["Id"], json!(i.id["sha256:".len()..]), "{}", i.kind);
        assert_eq!(&theirs["RootFS"]["Layers"], i.layers());
        assert_eq!(theirs["History"].as_array().map(Vec::len), i.config["history"].as_array().map(Vec::len));
        assert_eq!(podman(e, &["run", "--rm", &i.name]).ok().stdout, i.says, "{}", i.kind);
        podman(e, &["rmi", &i.name]).ok();
    }
}

fn saved_images_are_imported(e: &Engine) {
    let Some((c, _)) = changes(e) else { return };
    podman(e, &["run", "--name", "to-save", NAME, "sh", "-c", CHANGE]).ok();
    let cmd = format!("CMD {}", json!(["sh", "-c", TELL]));
    for format in ["oci", "docker"] {
        let name = format!("localhost/saved-{format}:1");
        let options = ["--quiet", "--format", format, "--change", &cmd, "--change", "ENV WORD=p"];
        podman(e, &[&["commit"], &options[..], &["to-save", &name]].concat()).ok();
        let there = podman(e, &["run", "--rm", &name]).ok().stdout;
        let id = says(e, &["image", "inspect", "--format", "{{.Id}}", &name]);
        for archive in ["docker-archive", "oci-archive", "oci-dir"] {
            let path = c.at(&format!("{format}-{archive}"));
            podman(e, &["save", "--quiet", "--format", archive, "--output", &path, &name]).ok();
            let i = is_here(c, &path, &there);
            // A configuration is written anew where it gets another form.
            if archive.starts_with(format) {
                assert_eq!(i.id, format!("sha256:{id}"), "{archive}");
            }
        }
    }
    podman(e, &["rm", "to-save"]).ok();
}

fn images_go_by_a_registry(e: &Engine) {
    let Some((c, all)) = changes(e) else { return };
    let config = e.dir.join("registry.yml");
    let text = json!({
        "version": "0.1", "storage": {"filesystem": {"rootdirectory": e.dir.join("registry")}},
        "http": {"addr": "127.0.0.1:5000"},
    });
    fs::write(&config, text.to_string()).expect("write"); // JSON is YAML
    e.daemon("registry", Command::new("docker-registry").arg("serve").arg(&config));
    until("the registry", || TcpStream::connect("127.0.0.1:5000").is_ok());
    for i in all.iter().filter(|i| matches!(i.kind, "config" | "squash")) {
        let there = format!("127.0.0.1:5000/ours/{}:1", i.kind);
        c.imgtool(&["push", &i.name, &there]).ok();
        podman(e, &["pull", "--quiet", "--tls-verify=false", &there]).ok();
        assert_eq!(podman(e, &["run", "--rm", &there]).ok().stdout, i.says);
        for (format, packing) in [("oci", "gzip"), ("v2s2", "gzip")] {
            let theirs = format!("127.0.0.1:5000/theirs/{}:{format}-{packing}", i.kind);
            let options =
                ["--quiet", "--tls-verify=false", "--format", format, "--compression-format", packing];
            podman(e, &[&["push"], &options[..], &[&there, &theirs]].concat()).ok();
            c.imgtool(&["pull", &theirs]).ok();
            let back = c.known("theirs", &theirs);
            assert_eq!((&back.says, back.layers()), (&i.says, i.layers()), "{theirs}");
        }
    }
}
