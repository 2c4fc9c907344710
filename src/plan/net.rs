//! Host names, config-linux.md#sysctl, #network-devices and #offset-for-time-namespace.

use super::spawn::{NEWIPC, NEWNET, NEWTIME, NEWUSER, NEWUTS, name_of};
use super::step::{Act, Open, OpenWhat, Step};
use super::{Draft, cstring};
use crate::config;
use crate::error::{Error, Result};
use std::ffi::CString;

#[derive(Debug)]
pub struct Net {
    /// Host name and domain name.
    pub names: Vec<Step>,
    pub sysctl: Vec<Step>,
    /// Interfaces that the parent moves into the network namespace.
    pub interfaces: Vec<Interface>,
    /// lo is set up: the network namespace is new.
    pub loopback: bool,
}

/// config-linux.md#network-devices, one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub at: String,
    /// On the host.
    pub name: String,
    /// In the container; with `%d` the kernel puts the first free number there.
    pub rename: String,
}

/// uname(2): __NEW_UTS_LEN
const MAX_NAME: usize = 64;

/// The keys of kernel.* that belong to an ipc namespace (sysvipc(7)); those of fs.mqueue do too.
const IPC: [&str; 12] = [
    "auto_msgmni",
    "msg_next_id",
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "sem_next_id",
    "shm_next_id",
    "shm_rmid_forced",
    "shmall",
    "shmmax",
    "shmmni",
];

/// Reads `hostname`, `domainname` and `linux.sysctl`.
pub fn plan(d: &mut Draft) -> Result<Net> {
    let config = d.config;
    let linux = config.linux.as_ref();
    let interfaces = interfaces(d)?;
    let mut names = Vec::new();
    for (at, name) in [("hostname", &config.hostname), ("domainname", &config.domainname)] {
        let Some(name) = name.as_deref().filter(|n| !n.is_empty()) else { continue };
        own(d, at, NEWUTS)?;
        let name = host_name(at, name)?;
        let act = if at == "hostname" { Act::Hostname(name) } else { Act::Domainname(name) };
        names.push(Step::new(at, act));
    }
    let mut sysctl = Vec::new();
    for (key, value) in linux.and_then(|l| l.sysctl.as_ref()).into_iter().flatten() {
        sysctl.push(one_sysctl(d, key, value)?);
    }
    Ok(Net { names, sysctl, interfaces, loopback: d.ns.is_new(NEWNET) })
}

/// Reads `linux.netDevices`.
fn interfaces(d: &mut Draft) -> Result<Vec<Interface>> {
    let mut out: Vec<Interface> = Vec::new();
    let list = d.config.linux.as_ref().and_then(|l| l.net_devices.as_ref());
    for (name, device) in list.into_iter().flatten() {
        let at = format!("linux.netDevices.{name}");
        if !d.host.privileged {
            return Err(Error::invalid(at, "an ordinary user may not take an interface from the host"));
        }
        own(d, &at, NEWNET)?;
        interface_name(&at, name)?;
        let rename = device.name.as_ref().filter(|n| !n.is_empty()).unwrap_or(name);
        interface_name(&format!("{at}.name"), rename)?;
        if let Some(other) = out.iter().find(|o| o.rename == *rename && !rename.contains('%')) {
            return Err(Error::invalid(format!("{at}.name"), format!("{rename:?} is that of {}", other.at)));
        }
        out.push(Interface { at, name: name.clone(), rename: rename.clone() });
    }
    Ok(out)
}

/// The kernel's rule (IFNAMSIZ is 16, with the NUL).
fn interface_name(at: &str, name: &str) -> Result<()> {
    let odd = |c: char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 15 || matches!(name, "." | "..") || name.contains(odd) {
        let rule = "1 to 15 bytes without slash, colon and space";
        return Err(Error::invalid(at, format!("{name:?} is no name of an interface: {rule}")));
    }
    Ok(())
}

fn host_name(at: &str, name: &str) -> Result<CString> {
    if name.len() > MAX_NAME {
        return Err(Error::invalid(
            at,
            format!("{name:?} has {} bytes; the kernel takes {MAX_NAME}", name.len()),
        ));
    }
    cstring(at, name)
}

/// What is set must be the container's own: the namespace is in the document and, when it is joined, not the
/// runtime's, which only the host can tell.
fn own(d: &mut Draft, at: &str, kind: i32) -> Result<()> {
    if !d.ns.is_own(kind) {
        let name = name_of(kind);
        return Err(Error::invalid(at, format!("needs a {name} namespace of the container's own"))
            .hint(format!("add {{\"type\": \"{name}\"}} to linux.namespaces")));
    }
    let namespace = |o: &Open| matches!(o.what, OpenWhat::Namespace { kind: k, .. } if k == kind);
    if let Some(namespace) = d.opens.iter().position(namespace) {
        let what = OpenWhat::NotOurs { namespace, kind };
        if d.opens.iter().all(|o| o.what != what) {
            d.open(Open { at: at.to_string(), what });
        }
    }
    Ok(())
}

/// A key is written with dots, or with slashes where a name has dots itself (sysctl(8)): what comes first separates.
fn one_sysctl(d: &mut Draft, key: &str, value: &str) -> Result<Step> {
    let at = format!("linux.sysctl.{key}");
    let dotted = key.find(['.', '/']).is_some_and(|n| key.as_bytes()[n] == b'.');
    let swap = |c: char| match c {
        '.' if dotted => '/',
        '/' if dotted => '.',
        c => c,
    };
    let path: String = key.chars().map(swap).collect();
    let broken = |name: &str| matches!(name, "" | "." | "..") || name.contains(char::is_control);
    if path.split('/').any(broken) {
        return Err(Error::invalid(
            "linux.sysctl",
            format!("{key:?} is no key: a part is empty, a dot or has control characters"),
        ));
    }
    match path.split_once('/').unwrap_or((&path, "")) {
        ("net", _) => own(d, &at, NEWNET)?,
        ("fs", rest) if rest.starts_with("mqueue/") => own(d, &at, NEWIPC)?,
        ("kernel", name) if IPC.contains(&name) => own(d, &at, NEWIPC)?,
        ("user", _) => own(d, &at, NEWUSER)?,
        ("kernel", "hostname") => {
            return Err(Error::invalid(at, "is not set by sysctl").hint("the property hostname is for that"));
        }
        // Docker has no other way; setdomainname(2) also works for the root of a user namespace.
        ("kernel", "domainname") => {
            own(d, &at, NEWUTS)?;
            if let Some(other) = d.config.domainname.as_deref().filter(|o| !o.is_empty() && *o != value) {
                return Err(Error::invalid(at, format!("{value:?} contradicts domainname {other:?}")));
            }
            let name = host_name(&at, value)?;
            return Ok(Step::new(at, Act::Domainname(name)));
        }
        _ => {
            return Err(Error::invalid(at, "belongs to no namespace: it would change the host"));
        }
    }
    let (path, value) = (cstring(&at, &path)?, cstring(&at, value)?);
    Ok(Step::new(at, Act::Sysctl { path, value }))
}

/// Reads `linux.timeOffsets`; a new time namespace is entered with or without them.
pub fn time_offsets(d: &mut Draft) -> Result<Option<Step>> {
    let at = "linux.timeOffsets";
    let offsets = d.config.linux.as_ref().and_then(|l| l.time_offsets.clone()).unwrap_or_default();
    if !offsets.is_empty() && !d.ns.is_new(NEWTIME) {
        let what = match d.ns.is_joined(NEWTIME) {
            true => "the offsets of a time namespace that is joined stand already",
            false => "needs a time namespace in linux.namespaces",
        };
        return Err(Error::invalid(at, what));
    }
    let mut text = String::new();
    for (clock, offset) in &offsets {
        text += &line(&format!("{at}.{clock}"), clock, offset)?;
    }
    let offsets = cstring(at, &text)?;
    Ok(d.ns.is_new(NEWTIME).then(|| Step::new(at, Act::EnterTime { offsets })))
}

/// A line of /proc/PID/timens_offsets (time_namespaces(7)).
fn line(at: &str, clock: &str, offset: &config::TimeOffset) -> Result<String> {
    if !matches!(clock, "monotonic" | "boottime") {
        return Err(Error::invalid(at, "is no clock of a time namespace; known are boottime, monotonic"));
    }
    let (secs, nanosecs) = (offset.secs.unwrap_or(0), offset.nanosecs.unwrap_or(0));
    if !(0..1_000_000_000).contains(&nanosecs) {
        return Err(Error::invalid(format!("{at}.nanosecs"), format!("{nanosecs} is not in 0-999999999")));
    }
    Ok(format!("{clock} {secs} {nanosecs}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{Sample, sample};
    use crate::plan::spawn::{KINDS, shape};
    use serde_json::{Value, json};

    fn sysctl(s: Sample, key: &str) -> Result<Step> {
        let mut list = s.set("/linux/sysctl", json!({ key: "1" })).run(plan)?.sysctl;
        Ok(list.remove(0))
    }

    #[test]
    fn host_names_need_a_uts_namespace_and_fit_the_kernel() {
        let s = || sample().set("/hostname", json!("web")).set("/domainname", json!("example.org"));
        let names = s().run(plan).unwrap().names;
        assert_eq!(names[0].act, Act::Hostname(c"web".into()));
        assert_eq!(names[1].act, Act::Domainname(c"example.org".into()));
        assert_eq!(
            s().without("uts").error(plan),
            "hostname: needs a uts namespace of the container's own; add {\"type\": \"uts\"} to linux.namespaces"
        );
        let long = "x".repeat(65);
        assert_eq!(
            sample().set("/domainname", json!(long)).error(plan),
            format!("domainname: \"{long}\" has 65 bytes; the kernel takes 64")
        );
        assert_eq!(sample().set("/hostname", json!("a\0")).error(plan), "hostname: \"a\\0\" has a NUL byte");
        assert!(sample().without("uts").set("/hostname", json!("")).run(plan).unwrap().names.is_empty());
    }

    #[test]
    fn a_sysctl_needs_the_namespace_that_it_belongs_to() {
        for (key, kind) in [
            ("net.ipv4.ip_forward", "network"),
            ("net.ipv4.ip_unprivileged_port_start", "network"),
            ("net.ipv6.conf.all.disable_ipv6", "network"),
            ("net/ipv4/conf/eth0.100/forwarding", "network"),
            ("net.core.somaxconn", "network"),
            ("net.unix.max_dgram_qlen", "network"),
            ("fs.mqueue.msg_max", "ipc"),
            ("fs/mqueue/queues_max", "ipc"),
            ("kernel.msgmax", "ipc"),
            ("kernel.msgmnb", "ipc"),
            ("kernel.msgmni", "ipc"),
            ("kernel.sem", "ipc"),
            ("kernel/shmall", "ipc"),
            ("kernel.shmmax", "ipc"),
            ("kernel.shmmni", "ipc"),
            ("kernel.shm_rmid_forced", "ipc"),
            ("kernel.domainname", "uts"),
            ("user.max_user_namespaces", "user"),
            ("user/max_net_namespaces", "user"),
        ] {
            let with = || if kind == "user" { sample().user_namespace() } else { sample() };
            assert!(sysctl(with(), key).is_ok(), "{key}");
            let message = sysctl(
                with()
                    .without(kind)
                    .set("/linux/uidMappings", json!(null))
                    .set("/linux/gidMappings", json!(null)),
                key,
            )
            .unwrap_err()
            .to_string();
            assert!(
                message.starts_with(&format!("linux.sysctl.{key}: needs a {kind} namespace")),
                "{message}"
            );
            let joined = sample().without(kind).namespace(json!({ "type": kind, "path": "/run/ns" }));
            let joined = joined.set("/linux/sysctl", json!({ key: "1" }));
            let flag = KINDS.iter().find(|k| k.0 == kind).unwrap().1;
            joined.run(|d| {
                shape(d).unwrap();
                plan(d).unwrap();
                let what = OpenWhat::NotOurs { namespace: 0, kind: flag };
                assert_eq!(d.opens[1], Open { at: format!("linux.sysctl.{key}"), what });
            });
        }
    }

    #[test]
    fn sysctls_of_the_host_are_refused() {
        for key in [
            "kernel.core_pattern",
            "kernel.pid_max",
            "kernel.panic",
            "kernel.modprobe",
            "kernel.randomize_va_space",
            "kernel.shmmax.x",
            "kernel.msg",
            "kernel.yama.ptrace_scope",
            "kernel.keys.maxkeys",
            "kernel",
            "fs.file-max",
            "fs.mqueue",
            "fs.binfmt_misc.register",
            "fs/suid_dumpable",
            "vm.overcommit_memory",
            "vm.swappiness",
            "dev.cdrom.autoclose",
            "debug.exception-trace",
            "abi.vsyscall32",
            "network.x",
            "nets",
        ] {
            let message = sysctl(sample().user_namespace(), key).unwrap_err().to_string();
            assert_eq!(
                message,
                format!("linux.sysctl.{key}: belongs to no namespace: it would change the host")
            );
        }
        assert_eq!(
            sysctl(sample(), "kernel.hostname").unwrap_err().to_string(),
            "linux.sysctl.kernel.hostname: is not set by sysctl; the property hostname is for that"
        );
    }

    #[test]
    fn keys_that_lead_elsewhere_are_refused() {
        for key in [
            "",
            ".",
            "/",
            "net..x",
            "net/../kernel/core_pattern",
            "net/./x",
            "/net/x",
            "net/x/",
            "net.x\n",
            "net.\0",
            "net.//.x",
            "../x",
            "net.ipv4.",
        ] {
            let message = sysctl(sample(), key).unwrap_err().to_string();
            assert!(
                message.starts_with("linux.sysctl: \"") && message.contains("is no key"),
                "{key:?}: {message}"
            );
        }
    }

    #[test]
    fn the_first_separator_separates() {
        for (key, path) in [
            ("net.ipv4.conf.eth0/100.forwarding", c"net/ipv4/conf/eth0.100/forwarding"),
            ("net/ipv4/conf/eth0.100/forwarding", c"net/ipv4/conf/eth0.100/forwarding"),
        ] {
            let act = sysctl(sample(), key).unwrap().act;
            assert_eq!(act, Act::Sysctl { path: path.into(), value: c"1".into() });
        }
    }

    #[test]
    fn the_domain_name_has_two_spellings_that_must_agree() {
        let s = |name: &str| {
            sample().set("/domainname", json!(name)).set("/linux/sysctl", json!({ "kernel.domainname": "a" }))
        };
        assert_eq!(s("a").run(plan).unwrap().sysctl[0].act, Act::Domainname(c"a".into()));
        assert_eq!(s("b").error(plan), "linux.sysctl.kernel.domainname: \"a\" contradicts domainname \"b\"");
    }

    #[test]
    fn loopback_comes_up_in_a_new_network_namespace_only() {
        assert!(sample().run(plan).unwrap().loopback);
        let joined = sample().without("network").namespace(json!({ "type": "network", "path": "/run/ns" }));
        assert!(!joined.run(plan).unwrap().loopback);
    }

    #[test]
    fn interfaces_keep_their_name_or_get_another() {
        let s = sample()
            .set("/linux/netDevices", json!({ "a": {}, "b": { "name": "" }, "c": { "name": "eth%d" } }));
        let names: Vec<_> = s.run(plan).unwrap().interfaces.into_iter().map(|i| (i.name, i.rename)).collect();
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(names, [pair("a", "a"), pair("b", "b"), pair("c", "eth%d")]);
    }

    #[test]
    fn broken_interfaces_are_errors() {
        let rule = "is no name of an interface: 1 to 15 bytes without slash, colon and space";
        for (list, message) in [
            (json!({ "a/b": {} }), format!("linux.netDevices.a/b: \"a/b\" {rule}")),
            (json!({ "": {} }), format!("linux.netDevices.: \"\" {rule}")),
            (json!({ "eth0": { "name": ".." } }), format!("linux.netDevices.eth0.name: \"..\" {rule}")),
            (
                json!({ "eth0": { "name": "x23456789abcdef0" } }),
                format!("linux.netDevices.eth0.name: \"x23456789abcdef0\" {rule}"),
            ),
            (
                json!({ "eth0": {}, "eth1": { "name": "eth0" } }),
                "linux.netDevices.eth1.name: \"eth0\" is that of linux.netDevices.eth0".to_string(),
            ),
        ] {
            assert_eq!(sample().set("/linux/netDevices", list).error(plan), message);
        }
        let s = || sample().set("/linux/netDevices", json!({ "eth0": {} }));
        assert!(
            s().without("network")
                .error(plan)
                .starts_with("linux.netDevices.eth0: needs a network namespace")
        );
        assert_eq!(
            s().host(|h| h.privileged = false).error(plan),
            "linux.netDevices.eth0: an ordinary user may not take an interface from the host"
        );
    }

    #[test]
    fn time_offsets_become_lines() {
        let s =
            |offsets: Value| sample().namespace(json!({ "type": "time" })).set("/linux/timeOffsets", offsets);
        for (offsets, text) in [
            (json!(null), c""),
            (json!({ "boottime": { "secs": 10 } }), c"boottime 10 0\n"),
            (
                json!({ "monotonic": { "secs": -5, "nanosecs": 999_999_999 }, "boottime": {} }),
                c"boottime 0 0\nmonotonic -5 999999999\n",
            ),
        ] {
            let step = s(offsets).run(time_offsets).unwrap().unwrap();
            assert_eq!(step.act, Act::EnterTime { offsets: text.into() });
        }
        for (offsets, message) in [
            (
                json!({ "realtime": {} }),
                "linux.timeOffsets.realtime: is no clock of a time namespace; known are boottime, monotonic",
            ),
            (
                json!({ "boottime": { "nanosecs": 1_000_000_000 } }),
                "linux.timeOffsets.boottime.nanosecs: 1000000000 is not in 0-999999999",
            ),
            (
                json!({ "boottime": { "nanosecs": -1 } }),
                "linux.timeOffsets.boottime.nanosecs: -1 is not in 0-999999999",
            ),
        ] {
            assert_eq!(s(offsets).error(time_offsets), message);
        }
    }

    #[test]
    fn time_offsets_need_a_new_time_namespace() {
        let s = || sample().set("/linux/timeOffsets", json!({ "boottime": {} }));
        assert_eq!(s().error(time_offsets), "linux.timeOffsets: needs a time namespace in linux.namespaces");
        let joined = s().namespace(json!({ "type": "time", "path": "/run/ns" }));
        assert_eq!(
            joined.error(time_offsets),
            "linux.timeOffsets: the offsets of a time namespace that is joined stand already"
        );
        assert_eq!(sample().run(time_offsets).unwrap(), None);
    }
}
