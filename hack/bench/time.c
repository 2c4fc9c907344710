// Times commands: interleaved rounds of series of steps, so that what the machine does meanwhile hits all alike.
//   time [-n ROUNDS] [-w UNCOUNTED] [-g GAP_MS] <LINES      one line each: SERIES<TAB>STEP<TAB>PROGRAM<TAB>ARGUMENT...
//   time -j JOBS <LINES                                     all lines once, JOBS at once; series and step say nothing
// A step named `-` is run and not timed; so are `@wait FILE` (until the process of that pid file has ended), `@drop`
// (the page cache), and `@with FILE`: the next step's CPU time is also that of the daemon of that pid file. GAP_MS
// passes before every timed step. Every other round takes the groups that `@turn` begins from the last to the first. Any
// command that fails ends it all.
// Prints a line for each timed step: series, step, count, then median, 95th percentile and least of the wall time in
// ms, median of the CPU time in ms, greatest peak RSS in KiB, median of page faults, of voluntary context switches, of
// KiB written to disks; then, round by round, what it took more than the first series with that step: median of the wall
// time and of the CPU time in ms.
// With -j: count, wall ms, user ms, system ms.
//
// Small and static: until its exec a child shares our memory, and what we have is counted into its peak.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WALL, CPU, RSS, FAULTS, SWITCHES, WRITTEN, KINDS };
struct step { char *series, *name, **argv; double *of[KINDS]; };
static struct step *steps;
static size_t count;
static int null_fd;
static const char *daemon_file; // for the next step

static void die(const char *what, const char *more) {
    fprintf(stderr, "time: %s %s\n", what, more);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static double ms(struct timeval t) { return t.tv_sec * 1e3 + t.tv_usec / 1e3; }

static void rest(long milliseconds) {
    struct timespec t = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    if (milliseconds) nanosleep(&t, NULL);
}

static void read_steps(int rounds) {
    char *line = NULL;
    size_t size = 0, room = 0;
    while (getline(&line, &size, stdin) > 0) {
        if (count == room) steps = realloc(steps, (room = room * 2 + 64) * sizeof *steps);
        struct step *s = &steps[count++];
        size_t words = 1;
        for (char *c = line; *c; c++) words += *c == '\t';
        char **argv = calloc(words + 1, sizeof *argv), *rest = strdup(line);
        rest[strcspn(rest, "\n")] = 0;
        for (size_t n = 0; n < words; n++) argv[n] = strsep(&rest, "\t");
        if (words < 3) die("a line needs three fields:", line);
        *s = (struct step){argv[0], argv[1], argv + 2, {0}};
        for (int k = 0; k < KINDS; k++) s->of[k] = calloc(rounds + 1, sizeof(double));
    }
    free(line);
}

static void fail(const struct step *s, int status) {
    fprintf(stderr, "time: %s %s: status %#x:", s->series, s->name, status);
    for (char **a = s->argv; *a; a++) fprintf(stderr, " %s", *a);
    fputc('\n', stderr);
    exit(1);
}

static pid_t launch(const struct step *s) {
    pid_t pid;
    posix_spawn_file_actions_t files; // the error stream stays, for what a failing command says
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, null_fd, 0);
    posix_spawn_file_actions_adddup2(&files, null_fd, 1);
    int error = posix_spawnp(&pid, s->argv[0], &files, NULL, s->argv, environ);
    posix_spawn_file_actions_destroy(&files);
    if (error) die(s->argv[0], strerror(error));
    return pid;
}

// Init of a detached container is ours, since we are the subreaper; an older one is not.
static void await_end(const char *file) {
    FILE *f = fopen(file, "re");
    int pid = 0;
    if (!f || fscanf(f, "%d", &pid) != 1) die("no pid in", file);
    fclose(f);
    if (waitpid(pid, NULL, 0) == pid || errno != ECHILD) return;
    char proc[32];
    snprintf(proc, sizeof proc, "/proc/%d", pid);
    while (access(proc, F_OK) == 0) rest(1);
}

static void drop_caches(void) {
    sync();
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "3", 1) != 1) die("drop_caches:", strerror(errno));
    close(fd);
}

// Of the process of a pid file and its children that have ended.
static double daemon_cpu(void) {
    FILE *f = daemon_file ? fopen(daemon_file, "re") : NULL;
    unsigned long ticks[4];
    char proc[64], text[1024], *rest;
    int pid;
    if (!daemon_file) return 0;
    if (!f || fscanf(f, "%d", &pid) != 1) die("no pid in", daemon_file);
    fclose(f);
    snprintf(proc, sizeof proc, "/proc/%d/stat", pid);
    if (!(f = fopen(proc, "re")) || !fgets(text, sizeof text, f) || !(rest = strrchr(text, ')'))) die("no", proc);
    fclose(f);
    if (sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %lu %lu",
            ticks, ticks + 1, ticks + 2, ticks + 3) != 4) die("no times in", proc);
    return (ticks[0] + ticks[1] + ticks[2] + ticks[3]) * 1e3 / sysconf(_SC_CLK_TCK);
}

static void perform(struct step *s, int round, long gap) {
    if (strcmp(s->argv[0], "@turn") == 0) return;
    if (strcmp(s->argv[0], "@wait") == 0) return await_end(s->argv[1]);
    if (strcmp(s->argv[0], "@drop") == 0) return drop_caches();
    if (strcmp(s->argv[0], "@with") == 0) { daemon_file = s->argv[1]; return; }
    int timed = *s->name != '-', status;
    if (timed) rest(gap);
    struct rusage use;
    double before = daemon_cpu(), begin = now();
    pid_t pid = launch(s);
    while (wait4(pid, &status, 0, &use) < 0)
        if (errno != EINTR) die("wait4:", strerror(errno));
    double wall = now() - begin, of_daemon = daemon_cpu() - before;
    daemon_file = NULL;
    if (status) fail(s, status);
    if (!timed || round < 0) return;
    s->of[WALL][round] = wall;
    s->of[CPU][round] = ms(use.ru_utime) + ms(use.ru_stime) + of_daemon;
    s->of[RSS][round] = use.ru_maxrss;
    s->of[FAULTS][round] = use.ru_minflt + use.ru_majflt;
    s->of[SWITCHES][round] = use.ru_nvcsw;
    s->of[WRITTEN][round] = use.ru_oublock / 2; // blocks of 512 bytes
}

// The groups that `@turn` begins, forwards in one round and backwards in the next: nobody is always late, nor always
// behind the same.
static void perform_all(int round, long gap) {
    size_t end = count;
    if (round % 2 == 0) {
        for (size_t n = 0; n < count; n++) perform(&steps[n], round, gap);
        return;
    }
    while (end > 0) {
        size_t begin = end - 1;
        while (begin > 0 && strcmp(steps[begin].argv[0], "@turn")) begin--;
        for (size_t n = begin; n < end; n++) perform(&steps[n], round, gap);
        end = begin;
    }
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int counts(const struct step *s) { return *s->name != '-' && *s->argv[0] != '@'; }

static double sorted_median(double *of, int rounds) {
    qsort(of, rounds, sizeof(double), ascending);
    return (of[(rounds - 1) / 2] + of[rounds / 2]) / 2;
}

// What the machine did at the time is in both of a round, and not in their difference.
static double median_over_first(const struct step *s, int kind, int rounds) {
    const struct step *first = steps;
    while (!counts(first) || strcmp(first->name, s->name)) first++;
    double over[rounds];
    for (int r = 0; r < rounds; r++) over[r] = s->of[kind][r] - first->of[kind][r];
    return sorted_median(over, rounds);
}

static void report(int rounds) {
    int p95 = (rounds * 95 + 99) / 100 - 1;
    double (*over)[2] = calloc(count, sizeof *over); // before rounds are sorted
    for (size_t n = 0; n < count; n++)
        for (int k = WALL; counts(&steps[n]) && k <= CPU; k++) over[n][k] = median_over_first(&steps[n], k, rounds);
    for (size_t n = 0; n < count; n++) {
        struct step *s = &steps[n];
        if (!counts(s)) continue;
        double middle[KINDS];
        for (int k = 0; k < KINDS; k++) middle[k] = sorted_median(s->of[k], rounds);
        printf("%s\t%s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%.0f\t%.0f\t%.0f\t%.0f\t%.3f\t%.3f\n", s->series, s->name, rounds,
            middle[WALL], s->of[WALL][p95], s->of[WALL][0], middle[CPU], s->of[RSS][rounds - 1], middle[FAULTS],
            middle[SWITCHES], middle[WRITTEN], over[n][WALL], over[n][CPU]);
    }
}

static void all_at_once(int jobs) {
    struct step **running = calloc(jobs, sizeof *running);
    pid_t *pids = calloc(jobs, sizeof *pids);
    size_t next = 0, done = 0;
    double begin = now(), user = 0, sys = 0;
    while (done < count) {
        for (int j = 0; j < jobs && next < count; j++)
            if (!pids[j]) running[j] = &steps[next++], pids[j] = launch(running[j]);
        int status;
        struct rusage use;
        pid_t pid = wait4(-1, &status, 0, &use);
        for (int j = 0; j < jobs; j++) {
            if (pids[j] != pid) continue; // else an init that was left to us
            if (status) fail(running[j], status);
            pids[j] = 0, done++, user += ms(use.ru_utime), sys += ms(use.ru_stime);
        }
    }
    printf("%zu\t%.3f\t%.3f\t%.3f\n", count, now() - begin, user, sys);
}

int main(int argc, char **argv) {
    int rounds = 20, uncounted = 2, jobs = 0, option;
    long gap = 0;
    while ((option = getopt(argc, argv, "n:w:g:j:")) > 0) {
        int value = atoi(optarg);
        if (option == 'n') rounds = value;
        else if (option == 'w') uncounted = value;
        else if (option == 'g') gap = value;
        else if (option == 'j') jobs = value;
        else return 2;
    }
    if (rounds < 1 || jobs < 0) return 2;
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    read_steps(jobs ? 0 : rounds);
    if (jobs) return all_at_once(jobs), 0;
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    for (int round = -uncounted; round < rounds; round++) perform_all(round, gap);
    report(rounds);
}
