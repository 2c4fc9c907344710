//! config.json as it was written: the runtime specification's document, 1.3.0, without its rules.
//!
//! Every property is an `Option` and every enumeration a string, numbers are as wide as JSON's: absent,
//! zero and unknown stay different things, and the plan says what each means, with the path of the property.
//! oci-spec's types cannot tell them apart (an absent `pids.limit` reads as 0, an unknown capability fails the
//! parse without its path, `user` is required), so its enumerations serve as vocabulary, in `plan/`, and not as
//! the document.

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer, forward_to_deserialize_any};
use std::collections::BTreeMap;

macro_rules! document {
    ($($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? })*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
        #[serde(rename_all = "camelCase", default, remote = "Self", expecting = "an object")]
        pub struct $name {
            $($(#[$fmeta])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$ty>,)*
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                $name::deserialize(Object(d))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                $name::serialize(self, s)
            }
        }
    )* };
}

/// Reads a struct from an object only: serde would take an array for one, field by field, and `"process": []` would
/// be an empty process.
struct Object<D>(D);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Object<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

document! {
    /// config.md: the document.
    Config {
        oci_version: String,
        process: Process,
        root: Root,
        hostname: String,
        domainname: String,
        mounts: Vec<Mount>,
        hooks: Hooks,
        annotations: BTreeMap<String, String>,
        linux: Linux,
        vm: serde_json::Value,
    }
    /// config.md#root
    Root { path: String, readonly: bool }
    /// config.md#mounts
    Mount {
        destination: String,
        #[serde(rename = "type")] kind: String,
        source: String,
        options: Vec<String>,
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
    }
    /// config.md#process
    Process {
        terminal: bool,
        console_size: ConsoleSize,
        user: User,
        args: Vec<String>,
        command_line: String,
        env: Vec<String>,
        cwd: String,
        capabilities: Capabilities,
        rlimits: Vec<Rlimit>,
        no_new_privileges: bool,
        apparmor_profile: String,
        oom_score_adj: i64,
        selinux_label: String,
        io_priority: IoPriority,
        scheduler: Scheduler,
        #[serde(rename = "execCPUAffinity")] exec_cpu_affinity: CpuAffinity,
    }
    /// config.md#process: characters
    ConsoleSize { height: u64, width: u64 }
    /// config.md#posix-platform-user
    User { uid: i64, gid: i64, umask: i64, additional_gids: Vec<i64>, username: String }
    /// config.md#linux-process: names with or without `CAP_`
    Capabilities {
        bounding: Vec<String>,
        effective: Vec<String>,
        inheritable: Vec<String>,
        permitted: Vec<String>,
        ambient: Vec<String>,
    }
    /// config.md#posix-process: `u64::MAX` is unlimited
    Rlimit { #[serde(rename = "type")] kind: String, soft: u64, hard: u64 }
    /// config.md#linux-process
    IoPriority { class: String, priority: i64 }
    /// config.md#linux-process: times in nanoseconds
    Scheduler {
        policy: String,
        nice: i64,
        priority: i64,
        flags: Vec<String>,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    /// config.md#linux-process
    CpuAffinity { initial: String, #[serde(rename = "final")] last: String }
    /// config.md#posix-platform-hooks
    Hooks {
        prestart: Vec<Hook>,
        create_runtime: Vec<Hook>,
        create_container: Vec<Hook>,
        start_container: Vec<Hook>,
        poststart: Vec<Hook>,
        poststop: Vec<Hook>,
    }
    /// config.md#posix-platform-hooks: timeout in seconds
    Hook { path: String, args: Vec<String>, env: Vec<String>, timeout: i64 }
    /// config-linux.md
    Linux {
        uid_mappings: Vec<IdMapping>,
        gid_mappings: Vec<IdMapping>,
        sysctl: BTreeMap<String, String>,
        resources: Resources,
        cgroups_path: String,
        namespaces: Vec<Namespace>,
        devices: Vec<Device>,
        net_devices: BTreeMap<String, NetDevice>,
        seccomp: Seccomp,
        rootfs_propagation: String,
        masked_paths: Vec<String>,
        readonly_paths: Vec<String>,
        mount_label: String,
        intel_rdt: IntelRdt,
        memory_policy: MemoryPolicy,
        personality: Personality,
        time_offsets: BTreeMap<String, TimeOffset>,
    }
    /// config-linux.md#user-namespace-mappings
    IdMapping {
        #[serde(rename = "containerID")] container_id: i64,
        #[serde(rename = "hostID")] host_id: i64,
        size: i64,
    }
    /// config-linux.md#namespaces
    Namespace { #[serde(rename = "type")] kind: String, path: String }
    /// config-linux.md#offset-for-time-namespace
    TimeOffset { secs: i64, nanosecs: i64 }
    /// config-linux.md#devices
    Device {
        #[serde(rename = "type")] kind: String,
        path: String,
        major: i64,
        minor: i64,
        file_mode: i64,
        uid: i64,
        gid: i64,
    }
    /// config-linux.md#network-devices
    NetDevice { name: String }
    /// config-linux.md#personality
    Personality { domain: String, flags: Vec<String> }
    /// config-linux.md#memory-policy
    MemoryPolicy { mode: String, nodes: String, flags: Vec<String> }
    /// config-linux.md#intelrdt
    IntelRdt {
        #[serde(rename = "closID")] clos_id: String,
        schemata: Vec<String>,
        l3_cache_schema: String,
        mem_bw_schema: String,
        enable_monitoring: bool,
        #[serde(rename = "enableCMT")] enable_cmt: bool,
        #[serde(rename = "enableMBM")] enable_mbm: bool,
    }
    /// config-linux.md#control-groups
    Resources {
        devices: Vec<DeviceRule>,
        memory: Memory,
        cpu: Cpu,
        pids: Pids,
        #[serde(rename = "blockIO")] block_io: BlockIo,
        hugepage_limits: Vec<HugepageLimit>,
        network: Network,
        rdma: BTreeMap<String, Rdma>,
        unified: BTreeMap<String, String>,
    }
    /// config-linux.md#allowed-device-list
    DeviceRule {
        allow: bool,
        #[serde(rename = "type")] kind: String,
        major: i64,
        minor: i64,
        access: String,
    }
    /// config-linux.md#memory: bytes
    Memory {
        limit: i64,
        reservation: i64,
        swap: i64,
        kernel: i64,
        #[serde(rename = "kernelTCP")] kernel_tcp: i64,
        swappiness: u64,
        #[serde(rename = "disableOOMKiller")] disable_oom_killer: bool,
        use_hierarchy: bool,
        check_before_update: bool,
    }
    /// config-linux.md#cpu: times in microseconds
    Cpu {
        shares: u64,
        quota: i64,
        burst: u64,
        period: u64,
        realtime_runtime: i64,
        realtime_period: u64,
        cpus: String,
        mems: String,
        idle: i64,
    }
    /// config-linux.md#pids
    Pids { limit: i64 }
    /// config-linux.md#block-io
    BlockIo {
        weight: u64,
        leaf_weight: u64,
        weight_device: Vec<WeightDevice>,
        throttle_read_bps_device: Vec<ThrottleDevice>,
        throttle_write_bps_device: Vec<ThrottleDevice>,
        #[serde(rename = "throttleReadIOPSDevice")] throttle_read_iops_device: Vec<ThrottleDevice>,
        #[serde(rename = "throttleWriteIOPSDevice")] throttle_write_iops_device: Vec<ThrottleDevice>,
    }
    /// config-linux.md#block-io
    WeightDevice { major: i64, minor: i64, weight: u64, leaf_weight: u64 }
    /// config-linux.md#block-io: bytes or operations a second
    ThrottleDevice { major: i64, minor: i64, rate: u64 }
    /// config-linux.md#huge-page-limits: bytes
    HugepageLimit { page_size: String, limit: u64 }
    /// config-linux.md#network
    Network { #[serde(rename = "classID")] class_id: u64, priorities: Vec<InterfacePriority> }
    /// config-linux.md#network
    InterfacePriority { name: String, priority: u64 }
    /// config-linux.md#rdma
    Rdma { hca_handles: u64, hca_objects: u64 }
    /// config-linux.md#seccomp
    Seccomp {
        default_action: String,
        default_errno_ret: u64,
        architectures: Vec<String>,
        flags: Vec<String>,
        listener_path: String,
        listener_metadata: String,
        syscalls: Vec<SeccompRule>,
    }
    /// config-linux.md#seccomp
    SeccompRule { names: Vec<String>, action: String, errno_ret: u64, args: Vec<SeccompArg> }
    /// config-linux.md#seccomp
    SeccompArg { index: u64, value: u64, value_two: u64, op: String }
}

impl Config {
    /// The value of an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }
}
