//! Which image of an index is the one for this machine.

use crate::error::{Error, Result};
use std::fmt;

/// `os/arch[/variant]`, in Go's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub arch: String,
    pub variant: Option<String>,
}

impl Platform {
    pub fn host() -> Self {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".into(), arch: arch.into(), variant: (arch == "arm").then(|| "v7".into()) }
    }

    pub fn parse(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, arch, variant) = match parts[..] {
            [os, arch] => (os, arch, None),
            [os, arch, variant] => (os, arch, Some(variant)),
            _ => return Err(Error::invalid("--platform", format!("{text:?} is not os/arch[/variant]"))),
        };
        if os != "linux" {
            return Err(Error::unsupported("--platform", format!("{os:?} is not linux")));
        }
        Ok(Self { os: os.into(), arch: arch.into(), variant: variant.map(Into::into) })
    }

    /// How well an image for `other` fits; `None` when it does not run here.
    pub fn fit(&self, other: &Platform) -> Option<u32> {
        if self.os != other.os || self.arch != other.arch {
            return None;
        }
        match (&self.variant, &other.variant) {
            (a, b) if a == b => Some(100),
            (_, None) => Some(90),
            // The base of the architecture: what everybody means by arm64.
            (None, Some(v)) if self.arch == "arm64" && v == "v8" => Some(95),
            (None, Some(_)) => Some(10),
            // A newer arm runs what was built for an older one.
            (Some(a), Some(b)) if self.arch == "arm" && b < a => {
                Some(50 + b.bytes().next_back().map_or(0, |n| u32::from(n) % 10))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        self.variant.as_ref().map_or(Ok(()), |v| write!(f, "/{v}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_fit_wins() {
        let p = |t: &str| Platform::parse(t).unwrap();
        for (want, offers, best) in [
            ("linux/amd64", &["linux/arm64", "linux/amd64"][..], Some("linux/amd64")),
            ("linux/arm64", &["linux/arm64/v9", "linux/arm64/v8"], Some("linux/arm64/v8")),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], Some("linux/arm/v6")),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/"], Some("linux/arm/v5")),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some("linux/amd64")),
            ("linux/s390x", &["linux/amd64"], None),
        ] {
            let fits = offers.iter().filter_map(|o| Some((p(want).fit(&p(o))?, *o)));
            assert_eq!(fits.max().map(|f| f.1), best, "{want}");
        }
        assert!(Platform::parse("amd64").is_err() && Platform::parse("windows/amd64").is_err());
    }
}
