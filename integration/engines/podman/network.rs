//! Networks by netavark: what is set up in a namespace that the runtime joins.

use super::{Container, podman, prints, run, says};
use crate::image::NAME;
use crate::support::until;
use crate::world::{Engine, sh};
use crate::{Check, check};

const NO_BRIDGE: &str = "needs a kernel with bridges, veth and netfilter for podman's networks";

pub const CHECKS: &[Check] = &[
    check!(bridge_has_an_address).cannot(NO_BRIDGE),
    check!(published_port).cannot(NO_BRIDGE),
    check!(network_of_the_users_own).cannot(NO_BRIDGE),
    check!(network_connect_and_disconnect).cannot(NO_BRIDGE),
    check!(network_container_keeps_its_network).cannot(NO_BRIDGE),
];

fn bridge_has_an_address(e: &Engine) {
    let c = Container::sleeping(e, "bridge", &[]);
    let ip = c.inspect(".NetworkSettings.IPAddress");
    assert!(c.prints("ip -o -4 addr show dev eth0").contains(&format!(" {ip}/16 ")), "{ip}");
    sh(&format!("ping -c 1 -W 5 {ip} >/dev/null || busybox ping -c 1 -W 5 {ip}"));
    let options = ["--mac-address", "02:11:22:33:44:55", "--ip", "10.88.77.7"];
    let printed = prints(e, &options, "cat /sys/class/net/eth0/address; ip -o -4 addr show dev eth0");
    assert!(printed.starts_with("02:11:22:33:44:55") && printed.contains("10.88.77.7/16"), "{printed}");
}

fn published_port(e: &Engine) {
    let c = Container::running(
        e,
        "port",
        &["-p", "127.0.0.1:18080:80"],
        "while :; do echo answer | nc -l -p 80; done",
    );
    assert_eq!(says(e, &["port", c.name]), "80/tcp -> 127.0.0.1:18080");
    let ip = c.inspect(".NetworkSettings.IPAddress");
    until("an answer", || {
        let o = sh(&format!("busybox timeout 2 busybox nc {ip} 80 </dev/null || true"));
        o.stdout == "answer\n"
    });
    assert!(sh("iptables-save -t nat 2>/dev/null || nft list ruleset").stdout.contains("18080"));
}

fn network_of_the_users_own(e: &Engine) {
    says(e, &["network", "create", "--subnet", "10.89.44.0/24", "deck"]);
    let printed = prints(e, &["--network", "deck:ip=10.89.44.9"], "ip -o -4 addr show dev eth0");
    assert!(printed.contains("10.89.44.9/24"), "{printed}");
    let both = prints(e, &["--network", "deck", "--network", "podman"], "ls /sys/class/net | tr '\\n' ' '");
    assert_eq!(both, "eth0 eth1 lo");
    says(e, &["network", "rm", "deck"]);
    assert_eq!(run(e, &["--network", "deck"], "true").code(), 125);
}

fn network_connect_and_disconnect(e: &Engine) {
    says(e, &["network", "create", "second"]);
    let c = Container::sleeping(e, "connect", &[]);
    podman(e, &["network", "connect", "second", c.name]).ok();
    assert_eq!(c.prints("ls /sys/class/net | tr '\\n' ' '"), "eth0 eth1 lo");
    podman(e, &["network", "disconnect", "podman", c.name]).ok();
    assert_eq!(c.prints("ls /sys/class/net | tr '\\n' ' '"), "eth1 lo");
    drop(c);
    says(e, &["network", "rm", "second"]);
}

fn network_container_keeps_its_network(e: &Engine) {
    let c = Container::sleeping(e, "net_owner", &[]);
    let address = c.prints("ip -o -4 addr show dev eth0");
    let o = podman(
        e,
        &[
            "run",
            "--rm",
            "--network",
            "container:net_owner",
            NAME,
            "ip",
            "-o",
            "-4",
            "addr",
            "show",
            "dev",
            "eth0",
        ],
    );
    assert_eq!(o.ok().stdout.trim(), address.trim());
    assert_eq!(c.prints("ip -o -4 addr show dev eth0"), address);
}
