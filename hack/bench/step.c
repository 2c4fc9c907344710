// step PROGRAM WORD…: runs it one instruction at a time, its children too, and writes to descriptor 9 the addresses,
// in units of 16 bytes, at which there was one below 128 MiB (where a program that is not relocated lies).
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned char seen[(128 << 20) / 16];

int main(int argc, char **argv) {
    int status;
    pid_t first = fork(), pid;
    if (argc < 2 || first < 0) return 2;
    if (first == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execv(argv[1], argv + 1);
        _exit(127);
    }
    waitpid(first, &status, 0);
    ptrace(PTRACE_SETOPTIONS, first, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
        PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL);
    ptrace(PTRACE_SINGLESTEP, first, 0, 0);
    while ((pid = waitpid(-1, &status, __WALL)) > 0) {
        int signal = WSTOPSIG(status);
        if (!WIFSTOPPED(status)) {
            if (pid == first) break;
            continue;
        }
        if (signal == SIGTRAP || signal == SIGSTOP) {
            struct user_regs_struct at;
            if (ptrace(PTRACE_GETREGS, pid, 0, &at) == 0 && at.rip / 16 < sizeof seen) seen[at.rip / 16] = 1;
            signal = 0;
        }
        ptrace(PTRACE_SINGLESTEP, pid, 0, signal);
    }
    FILE *out = fdopen(9, "w");
    for (unsigned long n = 0; out && n < sizeof seen; n++)
        if (seen[n]) fprintf(out, "%lu\n", n);
    return !out || fclose(out) || !WIFEXITED(status) ? 1 : WEXITSTATUS(status);
}
