// The floor under `run`: the kernel's own work for one container, by the fewest system calls, and nothing else.
//   floor default|docker ID BUNDLE V2|- [V1...]
// V2 is the mount point of the cgroup v2 hierarchy, each V1 that of a v1 hierarchy. `default` is the bundle of
// `runc spec` without a terminal, `docker` that of `docker run` (src/plan/golden/docker-run-default.json).
//
// What a runtime must do for its user is done here too: sealed against the container, signals passed on, session,
// keyring, own null device, HOME looked up. Left out is what needs no kernel: reading config, keeping state, hooks,
// messages. Paths are resolved without suspicion, since this bundle is ours; a runtime pays for its own there.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef FILTER
static struct sock_filter filter[] = { // the filter that the measured program loads for Docker's profile
#include FILTER
};
#endif

#define LEN(a) (sizeof(a) / sizeof *(a))
#define CAP(c) (1ull << CAP_##c)
#define OR_DIE(call) ({ long r_ = (long)(call); if (r_ < 0) die(#call); r_; })
#define HARDENED (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

struct rule { const char *text; int type, major, minor; }; // type 1 is block, 2 is char; -1 is any, then for mknod only
#define DEFAULTS {"c *:* m", 2, -1, -1}, {"b *:* m", 1, -1, -1}, {"c 1:3 rwm", 2, 1, 3}, {"c 1:5 rwm", 2, 1, 5}, \
    {"c 1:7 rwm", 2, 1, 7}, {"c 1:8 rwm", 2, 1, 8}, {"c 1:9 rwm", 2, 1, 9}, {"c 5:0 rwm", 2, 5, 0}, \
    {"c 136:* rwm", 2, 136, -1}, {"c 5:2 rwm", 2, 5, 2}, {"c 10:200 rwm", 2, 10, 200}
static const struct rule rules[] = {DEFAULTS, {"c 5:1 rwm", 2, 5, 1}}; // the last is Docker's
static const struct { const char *name; int major, minor; } nodes[] = {
    {"dev/null", 1, 3}, {"dev/zero", 1, 5}, {"dev/full", 1, 7}, {"dev/random", 1, 8}, {"dev/urandom", 1, 9},
    {"dev/tty", 5, 0},
};
static const char *const links[][2] = {
    {"pts/ptmx", "dev/ptmx"}, {"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"},
    {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"},
};
static const char *const readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
static const char *const masked_files[] = {
    "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats", "proc/sched_debug",
};
static const char *const masked_dirs[] = {"proc/acpi", "proc/asound", "proc/scsi", "sys/firmware"};

static int docker, count;        // hierarchies of v1
static char **v1, *v2, *id, *program[] = {"/bin/true", NULL};
static char *env[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", "HOME=/", NULL,
};

static void die(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    _exit(125);
}

static const char *path(const char *a, const char *b, const char *c) {
    static char buffer[4096];
    snprintf(buffer, sizeof buffer, "%s/%s%s", a, b, c);
    return buffer;
}

static int opened(const char *file, int flags) { return OR_DIE(open(file, flags | O_CLOEXEC)); }

static void put(const char *file, const char *text) {
    int fd = opened(file, O_WRONLY);
    OR_DIE(write(fd, text, strlen(text)));
    close(fd);
}

// A read-only clone of our own file (CVE-2019-5736), before the C library starts: as orlop's src/sys/start.rs does it,
// what runs again starts the library once. Nothing of it may be called here. The clone stays open, since its close waits
// for the kernel: init is at work by then.
#define OPEN_TREE_ATTR 467 // since Linux 6.15
static long raw(long number, long a, const void *b, long c, const void *d, long e) {
    long answer;
    register long r10 asm("r10") = (long)d, r8 asm("r8") = e;
    asm volatile("syscall" : "=a"(answer) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
        : "rcx", "r11", "memory");
    return answer;
}
__attribute__((used, no_stack_protector)) static void before_libc(long *stack) {
    static const struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE};
    static const char exe[] = "/proc/self/exe";
    long fs[15]; // struct statfs: number 10 has the flags
    if (raw(SYS_statfs, (long)exe, fs, 0, NULL, 0) < 0 || fs[10] & ST_RDONLY) return;
    long fd = raw(OPEN_TREE_ATTR, AT_FDCWD, exe, OPEN_TREE_CLONE, &attr, sizeof attr);
    if (fd < 0) {
        fd = raw(SYS_open_tree, AT_FDCWD, exe, OPEN_TREE_CLONE, NULL, 0);
        raw(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof attr);
    }
    raw(SYS_execveat, fd, "", (long)(stack + 1), stack + 2 + *stack, AT_EMPTY_PATH);
}
asm(".globl floor_start\n" // the program's entry
    "floor_start: mov %rsp, %rbx; mov %rdx, %r12; mov %rsp, %rdi; and $-16, %rsp\n"
    "call before_libc; mov %rbx, %rsp; mov %r12, %rdx; jmp _start");

static int clone_of_us(void) {
    int fd = -1;
    if (sscanf((const char *)getauxval(AT_EXECFN), "/dev/fd/%d", &fd) != 1) die("not sealed");
    return fd;
}

// ------------------------------------------------------------------------------------------------------- cgroups

static void device_files(const char *dir) {
    put(path(dir, id, "/devices.deny"), "a");
    int fd = opened(path(dir, id, "/devices.allow"), O_WRONLY);
    for (size_t n = 0; n < LEN(rules) - !docker; n++) OR_DIE(write(fd, rules[n].text, strlen(rules[n].text)));
    close(fd);
}

static void cpuset_file(const char *dir, const char *file) { // empty in a new directory, which nobody could enter
    char text[4096];
    int fd = opened(path(dir, "", file), O_RDONLY);
    text[OR_DIE(read(fd, text, sizeof text - 1))] = 0;
    close(fd);
    put(path(dir, id, file), text);
}

static void device_program(int cgroup) {
    struct bpf_insn p[16 * LEN(rules)], *i = p;
#define DO(op, d, s, o, n) (*i++ = (struct bpf_insn){.code = op, .dst_reg = d, .src_reg = s, .off = o, .imm = n})
    DO(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0); // access << 16 | type
    DO(BPF_LDX | BPF_MEM | BPF_W, 4, 1, 4, 0); // major
    DO(BPF_LDX | BPF_MEM | BPF_W, 5, 1, 8, 0); // minor
    DO(BPF_ALU | BPF_MOV | BPF_X, 3, 2, 0, 0);
    DO(BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16);
    DO(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff);
    for (const struct rule *r = rules; r < rules + LEN(rules) - !docker; r++) {
        int mknod = r->major < 0, skip = 2 + mknod + (r->major >= 0) + (r->minor >= 0);
        DO(BPF_JMP | BPF_JNE | BPF_K, 2, 0, skip--, r->type);
        if (mknod) DO(BPF_JMP | BPF_JNE | BPF_K, 3, 0, skip--, BPF_DEVCG_ACC_MKNOD);
        if (r->major >= 0) DO(BPF_JMP | BPF_JNE | BPF_K, 4, 0, skip--, r->major);
        if (r->minor >= 0) DO(BPF_JMP | BPF_JNE | BPF_K, 5, 0, skip--, r->minor);
        DO(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1);
        DO(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    }
    DO(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
    DO(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
    union bpf_attr load = {.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE, .insns = (__u64)p, .insn_cnt = i - p};
    load.license = (__u64) "GPL";
    int fd = OR_DIE(syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load));
    union bpf_attr attach = {.target_fd = cgroup, .attach_bpf_fd = fd, .attach_type = BPF_CGROUP_DEVICE};
    attach.attach_flags = BPF_F_ALLOW_MULTI;
    OR_DIE(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach));
    close(fd);
}

// Returns the directory to be born in.
static int make_cgroups(int *tasks) {
    for (int n = 0; n < count; n++) {
        OR_DIE(mkdir(path(v1[n], id, ""), 0755));
        if (strstr(v1[n], "devices")) device_files(v1[n]);
        if (strstr(v1[n], "cpuset")) cpuset_file(v1[n], "/cpuset.cpus"), cpuset_file(v1[n], "/cpuset.mems");
        tasks[n] = opened(path(v1[n], id, "/tasks"), O_WRONLY);
    }
    if (!v2) return -1;
    OR_DIE(mkdir(path(v2, id, ""), 0755));
    int dir = opened(path(v2, id, ""), O_RDONLY | O_DIRECTORY);
    if (!count) device_program(dir);
    return dir;
}

static void remove_cgroups(void) {
    for (int n = 0; n < count; n++) rmdir(path(v1[n], id, ""));
    if (v2) rmdir(path(v2, id, ""));
}

// -------------------------------------------------------------------------------------------------------- inside

static void loopback(void) {
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = OR_DIE(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    OR_DIE(ioctl(fd, SIOCSIFFLAGS, &lo));
    close(fd);
}

static void cgroup_mount(void) {
    struct mount_attr attr = {.attr_set = HARDENED};
    if (!count) {
        OR_DIE(mount(path(v2, id, ""), "sys/fs/cgroup", NULL, MS_BIND, NULL));
    } else {
        OR_DIE(mount("cgroup", "sys/fs/cgroup", "tmpfs", 0, "mode=755"));
        for (int n = 0; n < count; n++) {
            char at[256];
            snprintf(at, sizeof at, "sys/fs/cgroup%s", strrchr(v1[n], '/'));
            OR_DIE(mkdir(at, 0755));
            OR_DIE(mount(path(v1[n], id, ""), at, NULL, MS_BIND, NULL));
        }
    }
    OR_DIE(mount_setattr(AT_FDCWD, "sys/fs/cgroup", AT_RECURSIVE, &attr, sizeof attr)); // all of them at once
}

static void mounts(void) {
    const int safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    OR_DIE(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
    OR_DIE(mount("rootfs", "rootfs", NULL, MS_BIND | MS_REC, NULL));
    OR_DIE(chdir("rootfs"));
    OR_DIE(mount("proc", "proc", "proc", docker ? safe : 0, NULL));
    OR_DIE(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    OR_DIE(mkdir("dev/pts", 0755));
    OR_DIE(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    OR_DIE(mkdir("dev/shm", 0755));
    OR_DIE(mount("shm", "dev/shm", "tmpfs", safe, "mode=1777,size=65536k"));
    OR_DIE(mkdir("dev/mqueue", 0755));
    OR_DIE(mount("mqueue", "dev/mqueue", "mqueue", safe, NULL));
    OR_DIE(mount("sysfs", "sys", "sysfs", safe | MS_RDONLY, NULL));
    cgroup_mount();
    static const char *const binds[][2] = {
        {"../mounts/etc_resolv.conf", "etc/resolv.conf"}, {"../mounts/etc_hostname", "etc/hostname"},
        {"../mounts/etc_hosts", "etc/hosts"},
    };
    for (size_t n = 0; docker && n < LEN(binds); n++) {
        OR_DIE(mount(binds[n][0], binds[n][1], NULL, MS_BIND | MS_REC, NULL));
        OR_DIE(mount(NULL, binds[n][1], NULL, MS_PRIVATE | MS_REC, NULL));
    }
}

// Covers what is there, all with clones of the first one's cover, which is made read-only once.
static void mask(const char *const *paths, size_t count, const char *source, const char *type) {
    struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};
    const char *cover = NULL;
    for (const char *const *at = paths; at < paths + count; at++) {
        if (mount(cover ? cover : source, *at, type, cover || !type ? MS_BIND : MS_RDONLY, NULL) == 0) {
            if (!cover && !type) OR_DIE(mount_setattr(AT_FDCWD, *at, 0, &ro, sizeof ro));
            cover = *at;
        } else if (errno != ENOENT) die(*at);
    }
}

static void hide(void) {
    struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};
    for (size_t n = 0; n < LEN(readonly); n++) {
        if (mount(readonly[n], readonly[n], NULL, MS_BIND | MS_REC, NULL) == 0)
            OR_DIE(mount_setattr(AT_FDCWD, readonly[n], AT_RECURSIVE, &ro, sizeof ro));
        else if (errno != ENOENT) die(readonly[n]);
    }
    mask(masked_files, LEN(masked_files), "/dev/null", NULL);
    mask(masked_dirs, LEN(masked_dirs), "tmpfs", "tmpfs");
    if (!docker) OR_DIE(mount_setattr(AT_FDCWD, ".", 0, &ro, sizeof ro));
}

static void null_device(void) { // the host's would stay open in the container
    struct stat st;
    for (int fd = 0; fd < 3; fd++) {
        if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3)) continue;
        int own = opened("dev/null", O_RDWR);
        OR_DIE(dup3(own, fd, 0));
        close(own);
    }
}

static void identity(void) {
    __u64 keep = CAP(AUDIT_WRITE) | CAP(KILL) | CAP(NET_BIND_SERVICE);
    if (docker)
        keep |= CAP(CHOWN) | CAP(DAC_OVERRIDE) | CAP(FSETID) | CAP(FOWNER) | CAP(MKNOD) | CAP(NET_RAW) | CAP(SETGID) |
            CAP(SETUID) | CAP(SETFCAP) | CAP(SETPCAP) | CAP(SYS_CHROOT);
#ifdef FILTER
    struct sock_fprog prog = {LEN(filter), filter};
    if (docker) OR_DIE(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &prog));
#endif
    for (int cap = 0; cap <= CAP_CHECKPOINT_RESTORE; cap++)
        if (!(keep >> cap & 1)) OR_DIE(prctl(PR_CAPBSET_DROP, cap, 0, 0, 0));
    gid_t none[1] = {0};
    OR_DIE(syscall(SYS_setgroups, docker, none));
    OR_DIE(syscall(SYS_setresgid, 0, 0, 0));
    OR_DIE(syscall(SYS_setresuid, 0, 0, 0));
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2] = {{.effective = keep, .permitted = keep}};
    caps[1].effective = caps[1].permitted = keep >> 32;
    OR_DIE(syscall(SYS_capset, &head, caps));
    OR_DIE(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    if (!docker) OR_DIE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static void child(const int *tasks) {
    char name[128];
    unsigned char all[128];
    OR_DIE(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)); // CVE-2016-9962
    for (int n = 0; n < count; n++) OR_DIE(write(tasks[n], "0", 1));
    memset(all, 0xff, sizeof all);
    OR_DIE(syscall(SYS_sched_setaffinity, 0, sizeof all, all)); // the caller's own must not stick
    OR_DIE(setsid());
    snprintf(name, sizeof name, "_ses.%s", id);
    OR_DIE(syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, name));
    loopback();
    if (docker) put("/proc/self/oom_score_adj", "0");
    umask(0);
    mounts();
    for (size_t n = 0; n < LEN(nodes); n++)
        OR_DIE(mknod(nodes[n].name, S_IFCHR | 0666, makedev(nodes[n].major, nodes[n].minor)));
    for (size_t n = 0; n < LEN(links); n++) OR_DIE(symlink(links[n][0], links[n][1]));
    OR_DIE(sethostname(docker ? "box" : "runc", docker ? 3 : 4));
    if (docker) put("proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    if (docker) put("proc/sys/net/ipv4/ping_group_range", "0 2147483647");
    hide();
    OR_DIE(syscall(SYS_pivot_root, ".", "."));
    OR_DIE(umount2(".", MNT_DETACH));
    OR_DIE(chdir("/"));
    struct rlimit files = {1024, 1024};
    if (!docker) OR_DIE(setrlimit(RLIMIT_NOFILE, &files));
    null_device();
    int passwd = open("etc/passwd", O_RDONLY | O_CLOEXEC); // HOME; the bundle has none
    if (passwd >= 0) die("etc/passwd in the measured bundle");
    OR_DIE(syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC */));
    umask(022);
    identity();
    sigset_t clear;
    sigemptyset(&clear);
    OR_DIE(sigprocmask(SIG_SETMASK, &clear, NULL));
    OR_DIE(execve(program[0], program, env));
}

int main(int argc, char **argv) {
    if (argc < 5) die("floor default|docker ID BUNDLE V2|- [V1...]");
    int copy = clone_of_us();
    docker = strcmp(argv[1], "docker") == 0, id = argv[2], v2 = *argv[4] == '-' ? NULL : argv[4];
    v1 = argv + 5, count = argc - 5;
    OR_DIE(chdir(argv[3]));
    int tasks[64], pidfd, status;
    sigset_t all;
    sigfillset(&all);
    OR_DIE(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    OR_DIE(sigprocmask(SIG_SETMASK, &all, NULL));
    int signals = OR_DIE(signalfd(-1, &all, SFD_CLOEXEC));
    int dir = make_cgroups(tasks);
    struct clone_args args = {
        .flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET | CLONE_PIDFD,
        .pidfd = (__u64)&pidfd, .exit_signal = SIGCHLD,
    };
    if (dir >= 0) args.flags |= CLONE_INTO_CGROUP, args.cgroup = dir;
    pid_t pid = OR_DIE(syscall(SYS_clone3, &args, sizeof args));
    if (pid == 0) close(copy), child(tasks);
    close(copy);
    struct pollfd wait[] = {{pidfd, POLLIN, 0}, {signals, POLLIN, 0}};
    while (OR_DIE(poll(wait, 2, -1)) >= 0 && !(wait[0].revents & POLLIN)) {
        struct signalfd_siginfo info;
        OR_DIE(read(signals, &info, sizeof info));
        if (info.ssi_signo != SIGCHLD) syscall(SYS_pidfd_send_signal, pidfd, info.ssi_signo, NULL, 0);
    }
    OR_DIE(wait4(pid, &status, 0, NULL));
    remove_cgroups();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
