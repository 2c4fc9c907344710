//! One image changed in each way there is. Each tells its tree when it runs, so that whoever runs it can be compared.

use crate::support::{ORLOP, Outcome, finish, finish_within, patience, unique};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Prints every name with what a layer says of it, but for what engines put into a container, and the process itself. What
/// is no directory with its time, which mounts change for directories.
pub const TELL: &str = r#"here=$PWD; cd /; names() { for d in *; do case $d in dev|proc|sys|run|tmp) ;; *)
busybox find $d "$@" ;; esac; done 2>/dev/null | grep -vE '^etc/(hosts|hostname|resolv.conf|mtab)$' | sort; }
names ! -type d | busybox xargs stat -c '%N %A %a %u:%g %h %Y %s %t:%T'; names -type d | busybox xargs stat -c '%n %a %u:%g'
names -type f | busybox xargs md5sum 2>/dev/null; echo "$WORD $(id -u):$(id -g) $here""#;

/// An image of the store, and what is known of it.
pub struct Changed {
    /// How it was made.
    pub kind: &'static str,
    pub name: String,
    /// What its container prints.
    pub says: String,
    /// Digest of its configuration.
    pub id: String,
    pub config: Value,
}

impl Changed {
    pub fn layers(&self) -> &Value {
        &self.config["rootfs"]["diff_ids"]
    }
}

/// A store with bundles and archives beside it.
pub struct Changes {
    pub dir: PathBuf,
}

impl Changes {
    #[track_caller]
    pub fn imgtool(&self, args: &[&str]) -> Outcome {
        let mut c = Command::new(ORLOP);
        c.args(["imgtool", "--store"]).arg(self.dir.join("store")).args(args).stdin(Stdio::null());
        finish(&mut c)
    }

    pub fn at(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("UTF-8").to_string()
    }

    /// What a container of an image prints, by orlop.
    #[track_caller]
    pub fn says(&self, name: &str) -> String {
        let bundle = self.at(&format!("bundle-{}", unique()));
        self.imgtool(&["unpack", "--no-mount", name, &bundle]).ok();
        let mut c = Command::new(ORLOP);
        c.arg("--root").arg(self.dir.join("state")).args(["run", "--bundle", &bundle]);
        let o =
            finish_within(c.arg(format!("orlop-test-{}", unique())).stdin(Stdio::null()), patience()).ok();
        fs::remove_dir_all(&bundle).expect("remove the bundle");
        o.stdout
    }

    #[track_caller]
    pub fn known(&self, kind: &'static str, name: &str) -> Changed {
        let i = self.imgtool(&["inspect", name]).ok().json();
        let id = i["configDigest"].as_str().expect("a digest").to_string();
        Changed { kind, name: name.into(), says: self.says(name), id, config: i["config"].clone() }
    }

    /// Makes all of them from a busybox system without a command.
    #[track_caller]
    pub fn make(&self, base: &str) -> Vec<Changed> {
        let name = |kind: &str| format!("localhost/{kind}:1");
        let imgtool = |args: &[&str]| drop(self.imgtool(args).ok());
        imgtool(&["import", base, &name("base")]);
        let cmd = json!(["/bin/sh", "-c", TELL]).to_string();
        imgtool(&["config", &name("base"), &name("said"), "--cmd", &cmd, "--env", "WORD=w"]);
        let bundle = self.at("changed");
        imgtool(&["unpack", "--mount", &name("said"), &bundle]);
        change(&Path::new(&bundle).join("rootfs"));
        imgtool(&["commit", &bundle, &name("commit"), "-m", "by hand", "--author", "nobody"]);
        imgtool(&["umount", &bundle]);
        fs::remove_dir_all(&bundle).expect("remove the bundle");
        let more = [
            "--env",
            "WORD=v",
            "--user",
            "1000:1000",
            "--workdir",
            "/etc",
            "--label",
            "a=b",
            "--stop-signal",
            "SIGQUIT",
        ];
        imgtool(&[&["config", &name("commit"), &name("config")], &more[..]].concat());
        for (n, kind) in ["mid", "top"].into_iter().enumerate() {
            let add = self.dir.join(kind);
            fs::create_dir_all(add.join("opt/tools")).expect("mkdir");
            fs::write(add.join("opt/tools").join(kind), kind).expect("write");
            fs::write(add.join("opt/shared"), kind).expect("write");
            let from = [name("said"), name("mid")][n].clone();
            imgtool(&["append", &from, add.to_str().expect("UTF-8"), &name(kind)]);
        }
        imgtool(&["rm-layer", &name("top"), "2", &name("rm-layer")]);
        imgtool(&["append", &name("commit"), &self.at("top"), &name("append")]);
        imgtool(&["squash", &name("append"), &name("squash")]);
        imgtool(&["squash", &name("append"), &name("squash-two"), "--from", "2"]);
        imgtool(&["append", &name("base"), &self.at("mid"), &name("other-base")]);
        imgtool(&[
            "rebase",
            &name("commit"),
            &name("rebase"),
            "--onto",
            &name("other-base"),
            "--base",
            &name("said"),
        ]);
        let kinds = ["commit", "config", "append", "squash", "squash-two", "rm-layer", "rebase"];
        let all: Vec<Changed> = kinds.into_iter().map(|k| self.known(k, &name(k))).collect();
        let layers: Vec<usize> = all.iter().map(|c| c.layers().as_array().expect("layers").len()).collect();
        assert_eq!(layers, [2, 2, 3, 1, 2, 2, 3]);
        assert!(all[1].says.ends_with("v 1000:1000 /etc\n"), "{}", all[1].says);
        assert!(all[2].says.contains("made/deep/f -rwsr-xr-x 4755 7:8 2 "), "{}", all[2].says);
        all
    }
}

/// What a container may do to its files, of all that archives of every tool can hold.
fn change(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("made/deep")).expect("mkdir");
    fs::write(at("made/deep/f"), "#!").expect("write");
    fs::hard_link(at("made/deep/f"), at("made/hard")).expect("link");
    chown(at("made/deep/f"), Some(7), Some(8)).expect("chown");
    fs::set_permissions(at("made/deep/f"), fs::Permissions::from_mode(0o4755)).expect("chmod");
    symlink("../made/deep", at("made/deep/s")).expect("symlink");
    nix::unistd::mkfifo(&at("made/pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("mkfifo");
    fs::write(at("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("write");
    fs::remove_file(at("bin/yes")).expect("remove");
    // A directory anew, with nothing of what was in it.
    fs::remove_dir_all(at("root")).expect("remove");
    fs::create_dir(at("root")).expect("mkdir");
    fs::write(at("root/new"), "n".repeat(10_000)).expect("write");
}
