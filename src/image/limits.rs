//! What an image may cost; each has a flag of the commands that take layers in.

/// Bounds on what is taken from an image (CVE-2023-25153).
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Limits {
    /// Most bytes that a layer may unpack to
    #[arg(long = "max-layer-bytes", value_name = "BYTES", default_value_t = 64 << 30)]
    pub bytes: u64,
    /// Most entries that a layer may have, and most directories that they need
    #[arg(long = "max-entries", value_name = "COUNT", default_value_t = 4_000_000)]
    pub entries: u64,
    /// Most bytes that one compressed byte may become, in what follows the first 256 MiB of a layer
    #[arg(long = "max-ratio", value_name = "FACTOR", default_value_t = 500)]
    pub ratio: u64,
    /// Most bytes of a zstd window, which is held in memory; rounded down to a power of two
    #[arg(
        long = "max-zstd-window",
        value_name = "BYTES",
        default_value_t = 8 << 20,
        value_parser = clap::value_parser!(u64).range(1 << 10..=1 << 31)
    )]
    pub window: u64,
    /// Most directories above an entry
    #[arg(long = "max-depth", value_name = "COUNT", default_value_t = 256)]
    pub depth: usize,
    /// Longest path of an entry in bytes, and longest target of a link
    #[arg(long = "max-path", value_name = "BYTES", default_value_t = 4095)]
    pub path: usize,
    /// Largest manifest or index in bytes
    #[arg(long = "max-manifest-bytes", value_name = "BYTES", default_value_t = 4 << 20)]
    pub manifest: u64,
    /// Largest image configuration in bytes
    #[arg(long = "max-config-bytes", value_name = "BYTES", default_value_t = 8 << 20)]
    pub config: u64,
}

/// Output below this size is never held against the ratio: a small file of zeros is no bomb.
pub const FREE_OUTPUT: u64 = 256 << 20;
/// Most bytes of the extended headers (PAX, long names) in front of one entry.
pub const EXTENSION: u64 = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 64 << 30,
            entries: 4_000_000,
            ratio: 500,
            window: 8 << 20,
            depth: 256,
            path: 4095,
            manifest: 4 << 20,
            config: 8 << 20,
        }
    }
}
