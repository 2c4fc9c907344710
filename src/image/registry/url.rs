//! As much of URLs as redirects and queries need (RFC 3986).

use crate::error::{Error, Result};
use ureq::http::Uri;

/// Scheme, host and port: whom a login is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Refuses what is neither http nor https, and a user in the URL: a server that redirects chooses no login for us.
    pub fn of(url: &str) -> Result<Self> {
        let wrong = |what: &str| Error::invalid(shown(url), what);
        let uri: Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let scheme = uri.scheme_str().unwrap_or_default().to_ascii_lowercase();
        let default = match &scheme[..] {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong("is neither http nor https")),
        };
        let authority = uri.authority().map(|a| a.as_str()).unwrap_or_default();
        if authority.contains('@') || authority.is_empty() {
            return Err(wrong("names a user, or no host"));
        }
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        Ok(Self { scheme, host, port: uri.port_u16().unwrap_or(default) })
    }

    pub fn is_tls(&self) -> bool {
        self.scheme == "https"
    }
}

/// The URL without its query, which may hold a signature: for messages.
pub fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Where `location` leads, seen from `base`; never from https to http.
pub fn join(base: &str, location: &str) -> Result<String> {
    let joined = absolute(base, location.split('#').next().unwrap_or_default());
    let (from, to) = (Origin::of(base)?, Origin::of(&joined)?);
    if from.is_tls() && !to.is_tls() {
        return Err(Error::invalid(shown(&joined), "leads from https to http"));
    }
    Ok(joined)
}

fn absolute(base: &str, location: &str) -> String {
    if location.find("://").is_some_and(|n| !location[..n].contains(['/', '?'])) {
        return location.into();
    }
    let scheme_end = base.find("://").map_or(0, |n| n + 3);
    let path_at = base[scheme_end..].find(['/', '?']).map_or(base.len(), |n| scheme_end + n);
    let path = shown(base);
    if let Some(rest) = location.strip_prefix("//") {
        format!("{}{rest}", &base[..scheme_end])
    } else if location.starts_with('/') {
        format!("{}{location}", &base[..path_at])
    } else if location.is_empty() || location.starts_with('?') {
        format!("{path}{location}")
    } else {
        let dir = path.rfind('/').filter(|n| *n >= path_at).map_or(path, |n| &path[..n]);
        format!("{dir}/{location}")
    }
}

/// With one more parameter in its query.
pub fn with_query(url: &str, key: &str, value: &str) -> String {
    let sep = if url.contains('?') { '&' } else { '?' };
    format!("{url}{sep}{key}={}", encode(value))
}

/// Percent-encoded, as a value in a query or a form.
pub fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_joined() {
        for (base, location, want) in [
            ("http://h:1/v2/a?x=1", "https://cdn.test/b?sig=/x", "https://cdn.test/b?sig=/x"),
            ("http://h:1/v2/a?x=1", "//o.test/b", "http://o.test/b"),
            ("http://h:1/v2/a?x=1", "/b?c=http://d", "http://h:1/b?c=http://d"),
            ("http://h:1/v2/a?x=/1", "b", "http://h:1/v2/b"),
            ("http://h:1/v2/a?x=1", "?y=2", "http://h:1/v2/a?y=2"),
            ("http://h:1", "b", "http://h:1/b"),
            ("http://h:1/a", "b#frag", "http://h:1/b"),
        ] {
            assert_eq!(join(base, location).unwrap(), want, "{base} {location}");
        }
        for bad in [
            "ftp://h/x",
            "http://user@h/",
            "http://h:1@evil/",
            "file:///etc/passwd",
            "http://",
            "http://h\n/",
            "http://h h/",
        ] {
            assert!(join("http://h/", bad).is_err(), "{bad}");
        }
        assert!(join("https://h/a", "http://h/b").is_err() && join("https://h/a", "//h/b").is_ok());
    }

    #[test]
    fn origins_compare_by_scheme_host_and_port() {
        let o = |u: &str| Origin::of(u).unwrap();
        assert_eq!(o("https://H.test/a"), o("https://h.test:443/b?c"));
        for other in ["http://h.test:443/", "https://h.test:444/", "https://h.test.evil/"] {
            assert_ne!(o("https://h.test/"), o(other));
        }
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(
            with_query("u?a=b", "scope", "repository:x/y:pull,push"),
            "u?a=b&scope=repository%3Ax%2Fy%3Apull%2Cpush"
        );
        assert_eq!(with_query("u", "k", "é &="), "u?k=%C3%A9%20%26%3D");
    }
}
