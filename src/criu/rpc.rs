//! The messages of criu's `images/rpc.proto` (proto2), with the fields that we use. A `bool` that is false and a list
//! that is empty are not sent: criu's defaults are the same.

use prost::{Enumeration, Message};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Kind {
    Empty = 0,
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
}

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub opts: Option<Opts>,
    #[prost(bool, optional, tag = "3")]
    pub notify_success: Option<bool>,
    #[prost(message, optional, tag = "5")]
    pub features: Option<Features>,
}

/// Asked for when set, and there when set in the answer.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Features {
    /// Pages that were written to are known (CONFIG_MEM_SOFT_DIRTY).
    #[prost(bool, tag = "1")]
    pub track_memory: bool,
    /// userfaultfd(2)
    #[prost(bool, tag = "2")]
    pub lazy_pages: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(enumeration = "Kind", required, tag = "1")]
    pub kind: i32,
    #[prost(bool, required, tag = "2")]
    pub success: bool,
    #[prost(message, optional, tag = "4")]
    pub restore: Option<Restored>,
    #[prost(message, optional, tag = "5")]
    pub notify: Option<Notify>,
    #[prost(message, optional, tag = "8")]
    pub features: Option<Features>,
    /// The first error of the log, if criu is new enough to tell it.
    #[prost(string, optional, tag = "9")]
    pub message: Option<String>,
    #[prost(message, optional, tag = "10")]
    pub version: Option<Version>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Restored {
    #[prost(int32, required, tag = "1")]
    pub pid: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Notify {
    #[prost(string, tag = "1")]
    pub script: String,
    /// Init, where the action knows it.
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Version {
    #[prost(int32, required, tag = "1")]
    pub major: i32,
    #[prost(int32, required, tag = "2")]
    pub minor: i32,
    #[prost(int32, tag = "4")]
    pub sublevel: i32,
}

/// `criu_opts`. Descriptors of directories are numbers of ours, which criu opens through our /proc/PID/fd; those of
/// `inherit_fd` are criu's own.
#[derive(Clone, PartialEq, Message)]
pub struct Opts {
    #[prost(int32, required, tag = "1")]
    pub images_dir_fd: i32,
    #[prost(int32, optional, tag = "2")]
    pub pid: Option<i32>,
    #[prost(bool, tag = "3")]
    pub leave_running: bool,
    #[prost(bool, tag = "4")]
    pub ext_unix_sk: bool,
    #[prost(bool, tag = "5")]
    pub tcp_established: bool,
    #[prost(bool, tag = "6")]
    pub evasive_devices: bool,
    #[prost(bool, tag = "7")]
    pub shell_job: bool,
    #[prost(bool, tag = "8")]
    pub file_locks: bool,
    #[prost(int32, tag = "9")]
    pub log_level: i32,
    #[prost(string, tag = "10")]
    pub log_file: String,
    #[prost(message, optional, tag = "11")]
    pub page_server: Option<PageServer>,
    #[prost(bool, tag = "12")]
    pub notify_scripts: bool,
    #[prost(string, optional, tag = "13")]
    pub root: Option<String>,
    #[prost(string, optional, tag = "14")]
    pub parent_images: Option<String>,
    #[prost(bool, tag = "15")]
    pub track_memory: bool,
    #[prost(bool, tag = "16")]
    pub auto_dedup: bool,
    #[prost(int32, optional, tag = "17")]
    pub work_dir_fd: Option<i32>,
    #[prost(bool, tag = "18")]
    pub link_remap: bool,
    #[prost(message, repeated, tag = "23")]
    pub external_mounts: Vec<Pair>,
    #[prost(bool, tag = "24")]
    pub manage_cgroups: bool,
    #[prost(message, repeated, tag = "25")]
    pub cgroup_roots: Vec<CgroupRoot>,
    #[prost(bool, tag = "26")]
    pub restore_sibling: bool,
    #[prost(message, repeated, tag = "27")]
    pub inherit_fd: Vec<InheritFd>,
    #[prost(enumeration = "CgroupMode", optional, tag = "34")]
    pub manage_cgroups_mode: Option<i32>,
    #[prost(string, repeated, tag = "37")]
    pub external: Vec<String>,
    /// CLONE_NEW* flags.
    #[prost(uint32, tag = "38")]
    pub empty_ns: u32,
    #[prost(message, repeated, tag = "39")]
    pub join_ns: Vec<JoinNamespace>,
    #[prost(string, optional, tag = "44")]
    pub freeze_cgroup: Option<String>,
    #[prost(bool, tag = "46")]
    pub tcp_skip_in_flight: bool,
    #[prost(bool, tag = "48")]
    pub lazy_pages: bool,
    #[prost(bool, tag = "50")]
    pub orphan_pts_master: bool,
    #[prost(string, optional, tag = "51")]
    pub config_file: Option<String>,
    #[prost(bool, tag = "52")]
    pub tcp_close: bool,
    #[prost(string, optional, tag = "53")]
    pub lsm_profile: Option<String>,
    #[prost(string, optional, tag = "63")]
    pub lsm_mount_context: Option<String>,
    #[prost(enumeration = "NetworkLock", optional, tag = "64")]
    pub network_lock: Option<i32>,
}

/// By what packets are held back while connections are saved or restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum NetworkLock {
    Iptables = 1,
    Nftables = 2,
    Skip = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
}

#[derive(Clone, PartialEq, Message)]
pub struct PageServer {
    #[prost(string, tag = "1")]
    pub address: String,
    #[prost(int32, tag = "2")]
    pub port: i32,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Pair {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(string, required, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct JoinNamespace {
    #[prost(string, required, tag = "1")]
    pub kind: String,
    #[prost(string, required, tag = "2")]
    pub file: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct InheritFd {
    #[prost(string, required, tag = "1")]
    pub key: String,
    #[prost(int32, required, tag = "2")]
    pub fd: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct CgroupRoot {
    /// Empty for v2.
    #[prost(string, optional, tag = "1")]
    pub controller: Option<String>,
    #[prost(string, required, tag = "2")]
    pub path: String,
}
