// The floor under `imgtool mount` and `imgtool unpack`: the bare mount calls of a bundle, and nothing else.
//   mountfloor TARGET KEY=VALUE...     options of overlayfs in their order; the value `erofs:PATH` mounts that image
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#define OR_DIE(call, what) ({ int r_ = (call); if (r_ < 0) die(#call, what); r_; })

static void die(const char *call, const char *what) {
    fprintf(stderr, "mountfloor: %s: %s: %s\n", what, call, strerror(errno));
    exit(1);
}

static int image(const char *path) {
    int fs = OR_DIE(fsopen("erofs", FSOPEN_CLOEXEC), path);
    OR_DIE(fsconfig(fs, FSCONFIG_SET_STRING, "source", path, 0), path);
    OR_DIE(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), path);
    int root = OR_DIE(fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_RDONLY), path);
    close(fs);
    return root;
}

int main(int argc, char **argv) {
    if (argc < 3) die("mountfloor TARGET KEY=VALUE...", "usage");
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files); // a descriptor for each image
    int fs = OR_DIE(fsopen("overlay", FSOPEN_CLOEXEC), argv[1]);
    for (char **option = argv + 2; *option; option++) {
        char *value = strchr(*option, '=');
        if (value) *value++ = 0;
        if (!value) OR_DIE(fsconfig(fs, FSCONFIG_SET_FLAG, *option, NULL, 0), *option);
        else if (strncmp(value, "erofs:", 6)) OR_DIE(fsconfig(fs, FSCONFIG_SET_STRING, *option, value, 0), value);
        else OR_DIE(fsconfig(fs, FSCONFIG_SET_FD, *option, NULL, image(value + 6)), value);
    }
    OR_DIE(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), argv[1]);
    int root = OR_DIE(fsmount(fs, FSMOUNT_CLOEXEC, 0), argv[1]);
    OR_DIE(move_mount(root, "", AT_FDCWD, argv[1], MOVE_MOUNT_F_EMPTY_PATH), argv[1]);
}
