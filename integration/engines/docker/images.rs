//! `docker load` and `docker save` beside imgtool.

use super::{MAIN, run};
use crate::image::NAME;
use crate::images::{CHANGE, TELL, changes, is_here};
use crate::world::Engine;
use crate::{Check, check};
use serde_json::{Value, json};

pub const CHECKS: &[Check] = &[check!(changed_images_are_loaded_and_run), check!(saved_images_are_imported)];

fn inspect(name: &str) -> Value {
    run(&["image", "inspect", name]).ok().json()[0].clone()
}

fn changed_images_are_loaded_and_run(e: &Engine) {
    let Some((c, all)) = changes(e) else { return };
    for i in all {
        run(&["load", "--quiet", "--input", &c.at(&format!("docker/{}.tar", i.kind))]).ok();
        let theirs = inspect(&i.name);
        assert_eq!(theirs["Id"], json!(i.id), "{}", i.kind);
        assert_eq!(&theirs["RootFS"]["Layers"], i.layers());
        for key in ["Env", "Cmd", "User", "WorkingDir", "Labels"] {
            let (a, b) = (&theirs["Config"][key], &i.config["config"][key]);
            assert!(a == b || b.is_null() && (a.is_null() || a == ""), "{}: {key}: {a} {b}", i.kind);
        }
        let steps = run(&["history", "--quiet", &i.name]).ok().stdout.lines().count();
        assert_eq!(steps, i.config["history"].as_array().expect("history").len());
        assert_eq!(run(&["run", "--rm", &i.name]).ok().stdout, i.says, "{}", i.kind);
        // What docker writes of it is what it read.
        let back = c.at(&format!("back-{}.tar", i.kind));
        run(&["save", "--output", &back, &i.name]).ok();
        let name = format!("back/{}:1", i.kind);
        c.imgtool(&["import", &back, &name]).ok();
        assert_eq!(c.imgtool(&["inspect", &name]).ok().json()["configDigest"], json!(i.id));
        run(&["rmi", &i.name]).ok();
    }
}

fn saved_images_are_imported(e: &Engine) {
    let Some((c, _)) = changes(e) else { return };
    run(&["run", "--name", "to-save", NAME, "sh", "-c", CHANGE]).ok();
    let cmd = format!("CMD {}", json!(["sh", "-c", TELL]));
    let options = ["--change", &cmd, "--change", "ENV WORD=d", "--change", "WORKDIR /etc", "--author", "me"];
    run(&[&["commit"], &options[..], &["to-save", "localhost/saved:1"]].concat()).ok();
    run(&["rm", "to-save"]).ok();
    let there = run(&["run", "--rm", "localhost/saved:1"]).ok().stdout;
    let tar = c.at("saved.tar");
    MAIN.run(&["save", "--output", &tar, "localhost/saved:1"]).ok();
    let i = is_here(c, &tar, &there);
    let theirs = inspect("localhost/saved:1");
    assert_eq!((&json!(i.id), i.layers()), (&theirs["Id"], &theirs["RootFS"]["Layers"]));
    // Several at once.
    MAIN.run(&["save", "--output", &tar, "localhost/saved:1", NAME]).ok();
    let told = c.imgtool(&["import", &tar]).ok().stdout;
    assert!(told.contains("localhost/saved:1 ") && told.contains(NAME), "{told}");
}
