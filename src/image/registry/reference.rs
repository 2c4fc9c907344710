//! Names of images at registries, normalised as Docker does.

use crate::error::{Error, Result};
use crate::image::digest::Digest;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// `[REGISTRY/]REPOSITORY[:TAG][@DIGEST]` in full: `alpine` is `docker.io/library/alpine:latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host and perhaps port.
    pub registry: String,
    pub repository: String,
    /// `None` only beside a digest.
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

const HUB: &str = "docker.io";

impl Reference {
    /// The grammar of distribution's `reference` package.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| Error::invalid(format!("image {text:?}"), what);
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(&format!("image {text:?}"), digest)?)),
            None => (text, None),
        };
        let name_end = rest.rfind('/').map_or(0, |n| n + 1);
        let (name, tag) = match rest[name_end..].split_once(':') {
            Some((last, tag)) => (&rest[..name_end + last.len()], Some(tag.to_string())),
            None => (rest, None),
        };
        let is_host = |h: &str| {
            h.contains(['.', ':', '[']) || h == "localhost" || h.chars().any(|c| c.is_ascii_uppercase())
        };
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path),
            _ => (HUB, name),
        };
        let registry = if registry == "index.docker.io" { HUB } else { registry };
        let library = registry == HUB && !path.contains('/');
        let repository = if library { format!("library/{path}") } else { path.to_string() };
        if !is_authority(registry) {
            return Err(wrong(&format!("{registry:?} is not host[:port]")));
        }
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(wrong(&format!("{path:?} is no name of a repository"))
                .hint("its parts are lower-case letters and digits, with single . _ or - between"));
        }
        if tag.as_deref().is_some_and(|t| !is_tag(t)) {
            return Err(wrong("has a tag that is none"));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".into()) } else { tag };
        Ok(Self { registry: registry.into(), repository, tag, digest })
    }

    /// Host and port that answer for the registry.
    pub fn authority(&self) -> &str {
        if self.registry == HUB { "registry-1.docker.io" } else { &self.registry }
    }

    /// What the registry is asked for: the digest, or else the tag.
    pub fn version(&self) -> String {
        self.digest.map(|d| d.to_string()).or_else(|| self.tag.clone()).unwrap_or_else(|| "latest".into())
    }

    /// Whether the registry is on this machine, where nobody listens in between: it is spoken to without TLS.
    pub fn is_local(&self) -> bool {
        is_loopback(host_of(&self.registry))
    }

    /// The name that Docker shows: without what is understood.
    pub fn familiar(&self) -> String {
        let path = match (&self.registry[..], self.repository.strip_prefix("library/")) {
            (HUB, Some(short)) if !short.contains('/') => short.to_string(),
            (HUB, _) => self.repository.clone(),
            (host, _) => format!("{host}/{}", self.repository),
        };
        match (&self.digest, &self.tag) {
            (Some(d), _) => format!("{path}@{d}"),
            (None, Some(t)) => format!("{path}:{t}"),
            (None, None) => path,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        self.tag.as_ref().map_or(Ok(()), |t| write!(f, ":{t}"))?;
        self.digest.as_ref().map_or(Ok(()), |d| write!(f, "@{d}"))
    }
}

/// The host of `host[:port]`, without the brackets of an IPv6 address.
pub fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.split(':').next().unwrap_or(authority)
}

pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_authority(text: &str) -> bool {
    let (host, rest) = match text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        Some((v6, rest)) if v6.parse::<Ipv6Addr>().is_ok() => ("v6", rest),
        Some(_) => return false,
        None => text.find(':').map_or((text, ""), |n| text.split_at(n)),
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let port =
        rest.strip_prefix(':').map(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
    host.len() <= 253 && host.split('.').all(label) && (rest.is_empty() || port == Some(true))
}

fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let gap = |g: &str| g.is_empty() || matches!(g, "." | "_" | "__") || g.bytes().all(|b| b == b'-');
    text.starts_with(word) && text.ends_with(word) && text.split(word).all(gap)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    (1..=128).contains(&bytes.len())
        && word(bytes[0])
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        let hex = "ab".repeat(32);
        for (text, full, familiar) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("me/x", "docker.io/me/x:latest", "me/x:latest"),
            ("index.docker.io/me/x:1", "docker.io/me/x:1", "me/x:1"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/a/b__c.d--e:T_1",
                "localhost:5000/a/b__c.d--e:T_1",
                "localhost:5000/a/b__c.d--e:T_1",
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("quay.io/a/b/c", "quay.io/a/b/c:latest", "quay.io/a/b/c:latest"),
        ] {
            let r = Reference::parse(text).unwrap();
            assert_eq!((r.to_string(), r.familiar()), (full.into(), familiar.into()), "{text}");
            assert_eq!(Reference::parse(&r.familiar()).unwrap(), r);
        }
        let r = Reference::parse(&format!("alpine:3@sha256:{hex}")).unwrap();
        assert_eq!(r.to_string(), format!("docker.io/library/alpine:3@sha256:{hex}"));
        assert_eq!(r.familiar(), format!("alpine@sha256:{hex}"));
        assert_eq!((r.version(), r.authority()), (format!("sha256:{hex}"), "registry-1.docker.io"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            "Alpine",
            "a//b",
            "/a",
            "a/",
            "a:",
            "a:b:c",
            "a@sha256:12",
            "a b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:-x",
            "host.x:99999/a",
            "host.x:+5/a",
            "[::x]/a",
            "h_o.x/a",
            "u@host.x/a",
            "a\n",
            "http://host/a",
            "a/../b",
            "host.x/a?b",
            "host.x/a#b",
            "host.x/%2e%2e/b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Reference::parse(&"a/".repeat(200)).is_err());
    }

    #[test]
    fn loopback_is_local() {
        for (name, local) in [
            ("localhost/x", true),
            ("localhost:1/x", true),
            ("127.9.9.9:5000/x", true),
            ("[::1]:5/x", true),
            ("localhost.evil.com/x", false),
            ("127.0.0.1.evil.com/x", false),
            ("10.0.0.1/x", false),
            ("x", false),
        ] {
            assert_eq!(Reference::parse(name).unwrap().is_local(), local, "{name}");
        }
    }
}
