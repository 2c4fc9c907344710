// Prints what a container sees of itself: run of the measured program and the floor must make the same.
#include <fcntl.h>
#include <unistd.h>

static const char *const files[] = { // relative ones in /proc; those that are not there say nothing
    "self/mountinfo", "self/status", "self/limits", "self/cgroup", "self/oom_score_adj", "sys/kernel/hostname",
    "sys/net/ipv4/ping_group_range", "net/if_inet6", "/sys/fs/cgroup/devices/devices.list",
    "/sys/fs/cgroup/cpuset/cpuset.cpus",
};

int main(void) {
    static char text[1 << 20];
    if (chdir("/proc") < 0) return 1;
    for (unsigned n = 0; n < sizeof files / sizeof *files; n++) {
        int fd = open(files[n], O_RDONLY), len = read(fd, text, sizeof text);
        if (len > 0 && write(1, text, len) != len) return 1;
    }
}
