//! TLS, with a name that only /etc/hosts knows.

use crate::make::Place;
use crate::support::{ORLOP, Outcome, Scratch, finish_within, skip};
use crate::{Registry, image, import, needs_program, needs_root};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn openssl(dir: &Path, args: &str) {
    let mut c = Command::new("openssl");
    c.current_dir(dir).args(args.split(' ')).stdin(Stdio::null());
    finish_within(&mut c, Duration::from_secs(60)).ok();
}

/// An authority, and its certificate for registry.test.
fn certificates(dir: &Path) {
    let key = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(dir, &format!("{key} -x509 -days 2 -subj /CN=test-authority -keyout ca.key -out ca.crt"));
    openssl(dir, &format!("{key} -subj /CN=registry.test -keyout key.pem -out csr.pem"));
    fs::write(dir.join("ext"), "subjectAltName=DNS:registry.test,IP:127.0.0.2\n").unwrap();
    openssl(
        dir,
        "x509 -req -in csr.pem -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem",
    );
}

#[test]
fn certificates_are_checked_against_the_systems_roots() {
    needs_root!();
    needs_program!("docker-registry");
    needs_program!("openssl");
    let s = Scratch::new("tls");
    certificates(&s.path);
    let tls = json!({"tls": {"certificate": s.path.join("cert.pem"), "key": s.path.join("key.pem")}});
    let (p, r) = (Place::new(), Registry::start_with(&tls, &json!({})));
    let digest = import(&p, &image().write(), "mine");
    fs::write(s.path.join("hosts"), "127.0.0.2 registry.test other.test\n").unwrap();
    fs::write(s.path.join("resolv.conf"), "nameserver 192.0.2.1\noptions timeout:1 attempts:1\n").unwrap();
    let run = |args: &[&str], roots: &str, certs: &str| -> Outcome {
        let d = s.path.display();
        let script = format!(
            "mount --make-rprivate / && mount --bind {d}/hosts /etc/hosts && \
             mount --bind {d}/resolv.conf /etc/resolv.conf && mount -t tmpfs none /etc/ssl && {certs} exec \"$@\""
        );
        let mut c = Command::new("unshare");
        c.args(["--mount", "sh", "-c", &script, "sh", ORLOP, "imgtool", "-q", "--store"])
            .arg(p.store())
            .args(args);
        c.env_remove("SSL_CERT_DIR").stdin(Stdio::null());
        if roots.is_empty() {
            c.env_remove("SSL_CERT_FILE")
        } else {
            c.env("SSL_CERT_FILE", s.path.join(roots))
        };
        finish_within(&mut c, Duration::from_secs(60))
    };
    let name = |host: &str| format!("{host}:{}/x:1", r.port);
    run(&["push", "mine", &name("registry.test")], "ca.crt", "").ok();
    let out = run(&["pull", &name("registry.test"), "y"], "ca.crt", "").ok();
    assert_eq!(out.stdout, format!("{digest}\n"));
    let out = run(&["pull", &name("registry.test")], "", "").fails("certificate");
    assert!(out.stderr.contains("install ca-certificates or set SSL_CERT_FILE"), "{}", out.stderr);
    let out = run(&["pull", &name("other.test")], "ca.crt", "").fails("certificate");
    assert!(!out.stderr.contains("ca-certificates"), "{}", out.stderr);
    run(&["pull", "--insecure", &name("other.test")], "", "").ok();
    run(&["pull", "--plain-http", &name("registry.test")], "ca.crt", "").fails("400");
    run(&["pull", "nowhere.test/x:1"], "ca.crt", "").fails("name server 192.0.2.1");
    // A registry's own authority, where docker and podman keep it; so it is with TLS on this machine, too.
    let Some(etc) = ["/etc/docker", "/etc/containers"].into_iter().find(|dir| Path::new(dir).is_dir()) else {
        return skip("needs /etc/docker or /etc/containers");
    };
    run(&["pull", &name("127.0.0.2"), "z"], "", "").fails("400");
    for host in ["registry.test", "127.0.0.2"] {
        let (d, to) = (s.path.display(), format!("{etc}/certs.d/{host}:{}", r.port));
        let certs = format!("mount -t tmpfs none {etc} && mkdir -p {to} && cp {d}/ca.crt {to}/ &&");
        run(&["pull", &name(host), "z"], "", &certs).ok();
    }
}
