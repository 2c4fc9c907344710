//! The arguments of each verb, where `liboci-cli` has not all of them.

use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args, Debug)]
#[group(skip)] // its name is that of the type it wraps
pub struct Create {
    #[command(flatten)]
    pub oci: liboci_cli::Create,
    #[command(flatten)]
    pub more: MoreCreate,
    /// Accepted for crun's callers: create never becomes a subreaper
    #[arg(long)]
    pub no_subreaper: bool,
}

#[derive(Args, Debug)]
#[group(skip)] // its name is that of the type it wraps
pub struct Run {
    #[command(flatten)]
    pub oci: liboci_cli::Run,
    #[command(flatten)]
    pub more: MoreCreate,
}

/// What `create` and `run` take beyond `liboci-cli`.
#[derive(Args, Debug, Default)]
pub struct MoreCreate {
    /// Unix socket which receives a pidfd of the container's init
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// Configuration to use in place of the bundle's config.json
    #[arg(short = 'f', long)]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[group(skip)] // its name is that of the type it wraps
pub struct Spec {
    #[command(flatten)]
    pub oci: liboci_cli::Spec,
    /// File to write in place of the bundle's config.json
    #[arg(short, long)]
    pub file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Explain {
    /// Path to the bundle directory
    #[arg(default_value = ".")]
    pub bundle: PathBuf,
    /// Configuration to use in place of the bundle's config.json
    #[arg(short = 'f', long)]
    pub config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Completions {
    /// Shell whose script is printed
    #[arg(value_parser = ["bash", "fish", "zsh"])]
    pub shell: String,
}

#[derive(Args, Debug)]
pub struct Man {
    /// Directory to write the pages to, made where nothing is
    pub dir: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct ImgtoolArgs {
    /// A command of imgtool and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub rest: Vec<OsString>,
}

/// liboci-cli has one `--cgroup`, no `--pidfd-socket`, and keeps a program's own flags from it.
#[derive(Args, Debug, Default)]
pub struct Exec {
    /// Unix socket which receives the master of the process' terminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Unix socket which receives a pidfd of the process
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// NAME=VALUE, set beside the container's own; may be repeated
    #[arg(short, long, num_args = 1)]
    pub env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// UID or UID:GID, numbers
    #[arg(short, long)]
    pub user: Option<String>,
    /// Additional group id; may be repeated
    #[arg(short = 'g', long, num_args = 1)]
    pub additional_gids: Vec<u32>,
    /// File with the process as JSON (runtime-spec config.md#process) in place of a command
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// Return once the program runs
    #[arg(short, long)]
    pub detach: bool,
    /// File to write the pid of the process to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// SELinux label of the process
    #[arg(long)]
    pub process_label: Option<String>,
    /// AppArmor profile of the process
    #[arg(long)]
    pub apparmor: Option<String>,
    /// Keep the process from gaining privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Capability added to those of the container; may be repeated
    #[arg(short, long, num_args = 1)]
    pub cap: Vec<String>,
    /// Pass N more descriptors to the process
    #[arg(long, default_value = "0")]
    pub preserve_fds: i32,
    /// Accepted for runc's callers: do not become a subreaper
    #[arg(long)]
    pub no_subreaper: bool,
    /// Run in a paused container, as soon as that is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    #[arg(
        long,
        num_args = 1,
        help = "[CONTROLLER[,CONTROLLER]:]PATH, a cgroup below the container's to run in; may be repeated"
    )]
    pub cgroup: Vec<String>,
    /// Container identifier
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new(), required = true)]
    pub container_id: String,
    /// Program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

/// liboci-cli's counts are unsigned where -1 lifts a limit, and its sizes take no unit.
#[derive(Args, Debug, Default)]
pub struct Update {
    /// File with the limits as JSON (config-linux.md#control-groups), - for standard input: other options are ignored
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// CFS period in microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CFS quota in microseconds, -1 for none
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CFS burst in microseconds
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// Shares of the CPU
    #[arg(long)]
    pub cpu_share: Option<u64>,
    /// Real-time period in microseconds
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Real-time runtime in microseconds, -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs to run on, as 0-3,7
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, as 0-3,7
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// 1 for SCHED_IDLE, 0 for what is usual
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_idle: Option<i64>,
    /// Bytes of memory, also with a unit (512M), -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    pub memory: Option<String>,
    /// Bytes of memory to keep to when memory is short, -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    pub memory_reservation: Option<String>,
    /// Bytes of memory and swap together, -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    pub memory_swap: Option<String>,
    /// Ignored: the kernel has no such limit any more
    #[arg(long, allow_negative_numbers = true, hide = true)]
    pub kernel_memory: Option<String>,
    /// Ignored: the kernel has no such limit any more
    #[arg(long, allow_negative_numbers = true, hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Number of tasks, -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Schema of the L3 cache (Intel RDT)
    #[arg(long)]
    pub l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth (Intel RDT)
    #[arg(long)]
    pub mem_bw_schema: Option<String>,
    /// Container identifier
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new(), required = true)]
    pub container_id: String,
}

/// liboci-cli takes whole seconds alone, where callers send `5s`.
#[derive(Args, Debug)]
pub struct Events {
    /// Time between two samples, as 5s or 1m30s
    #[arg(long, default_value = "5s", allow_hyphen_values = true)]
    pub interval: String,
    /// Print one sample and end
    #[arg(long)]
    pub stats: bool,
    /// Container identifier
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new(), required = true)]
    pub container_id: String,
}

/// What `checkpoint` and `restore` tell criu alike.
#[derive(Args, Debug, Default)]
pub struct Images {
    /// Directory of the image files
    #[arg(long, default_value = "checkpoint")]
    pub image_path: PathBuf,
    /// Directory of work files and logs (default: that of the images)
    #[arg(long)]
    pub work_path: Option<PathBuf>,
    /// Allow established TCP connections
    #[arg(long)]
    pub tcp_established: bool,
    /// Allow connections by unix sockets to outside of the container
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Allow a program that shares its session and terminal with a shell outside
    #[arg(long)]
    pub shell_job: bool,
    /// Handle file locks
    #[arg(long)]
    pub file_locks: bool,
    /// What becomes of cgroups
    #[arg(long, default_value = "soft", value_parser = ["soft", "full", "strict", "ignore"])]
    pub manage_cgroups_mode: String,
    /// Namespace to save without what is in it: network
    #[arg(long, num_args = 1, value_parser = ["network"])]
    pub empty_ns: Vec<String>,
    /// Drop from earlier images what a later one has
    #[arg(long)]
    pub auto_dedup: bool,
    /// Transfer memory on demand
    #[arg(long)]
    pub lazy_pages: bool,
    /// By what criu holds packets back (default: its own)
    #[arg(long, value_parser = ["iptables", "nftables", "skip"])]
    pub network_lock: Option<String>,
}

/// liboci-cli lacks half of the flags, and has the verb misspelt.
#[derive(Args, Debug, Default)]
pub struct Checkpoint {
    #[command(flatten)]
    pub images: Images,
    /// Directory of the earlier images of a pre-dump, relative to the image path
    #[arg(long)]
    pub parent_path: Option<PathBuf>,
    /// Let the container go on
    #[arg(long)]
    pub leave_running: bool,
    /// Save memory alone and let the container go on; another checkpoint follows
    #[arg(long)]
    pub pre_dump: bool,
    /// Skip TCP connections that are not established yet
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// Link unlinked files back
    #[arg(long)]
    pub link_remap: bool,
    /// Descriptor to write a zero byte to when lazy pages can be served
    #[arg(long, allow_negative_numbers = true)]
    pub status_fd: Option<i32>,
    /// ADDRESS:PORT of a page server
    #[arg(long)]
    pub page_server: Option<String>,
    /// Container identifier
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new(), required = true)]
    pub container_id: String,
}

/// liboci-cli has no restore.
#[derive(Args, Debug, Default)]
pub struct Restore {
    #[command(flatten)]
    pub images: Images,
    /// Path to the bundle directory
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// Unix socket which receives the master of the terminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File to write the pid of init to
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Return once the container runs
    #[arg(short, long)]
    pub detach: bool,
    /// Do not become a subreaper
    #[arg(long)]
    pub no_subreaper: bool,
    /// Accepted as with create
    #[arg(long)]
    pub no_pivot: bool,
    /// Accepted for runc's callers: the program has the descriptors that it was saved with
    #[arg(long, default_value = "0")]
    pub preserve_fds: i32,
    /// Close TCP connections
    #[arg(long)]
    pub tcp_close: bool,
    /// TYPE:LABEL of the security module, in place of the saved one
    #[arg(long)]
    pub lsm_profile: Option<String>,
    /// Context of mounts, in place of the saved one
    #[arg(long)]
    pub lsm_mount_context: Option<String>,
    /// Container identifier
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new(), required = true)]
    pub container_id: String,
}
