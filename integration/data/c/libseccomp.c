// cc -Wall -lseccomp
/* What libseccomp makes of a profile: commands on standard input, the filter and its refusals on standard output. */
#include <errno.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct instruction { unsigned short code; unsigned char jt, jf; unsigned int k; };

static void numbers(const char *name, char **arches, int count)
{
	for (int n = 0; n < count; n++) {
		int nr = seccomp_syscall_resolve_name_arch(seccomp_arch_resolve_name(arches[n]), name);
		if (nr >= 0)
			printf("number %s %s %u\n", arches[n], name, (unsigned)nr);
	}
}

static int rule(scmp_filter_ctx ctx, char *rest)
{
	unsigned action, count, used = 0, more = 0;
	char name[64];
	struct scmp_arg_cmp tests[6];
	if (sscanf(rest, "%u %63s %u%n", &action, name, &count, &used) != 3 || count > 6)
		exit(3);
	int nr = seccomp_syscall_resolve_name(name);
	if (nr == __NR_SCMP_ERROR)
		return 0;
	for (unsigned n = 0; n < count; n++) {
		unsigned arg, op;
		unsigned long long a, b;
		rest += used;
		if (sscanf(rest, "%u %u %llu %llu%n", &arg, &op, &a, &b, &more) != 4)
			exit(3);
		used = more;
		tests[n] = (struct scmp_arg_cmp){ arg, op, a, b };
	}
	return seccomp_rule_add_array(ctx, action, nr, count, tests);
}

/* argv: the architectures; the first one stands for the machine's own. */
int main(int argc, char **argv)
{
	char line[1024], name[64];
	scmp_filter_ctx ctx = NULL;
	for (int n = 1; fgets(line, sizeof line, stdin); n++) {
		unsigned action;
		int err = 0;
		if (sscanf(line, "default %u", &action) == 1) {
			ctx = seccomp_init(action);
			for (int a = 1; ctx && a < argc; a++) {
				unsigned token = seccomp_arch_resolve_name(argv[a]);
				if (seccomp_arch_exist(ctx, token) != 0 && seccomp_arch_add(ctx, token) != 0)
					return 4;
			}
			unsigned native = seccomp_arch_native(), first = seccomp_arch_resolve_name(argv[1]);
			if (!ctx || (native != first && seccomp_arch_remove(ctx, native) != 0))
				return 4;
		} else if (sscanf(line, "name %63s", name) == 1) {
			if (seccomp_syscall_resolve_name(name) == __NR_SCMP_ERROR)
				printf("unknown %s\n", name);
			else
				numbers(name, argv + 1, argc - 1);
		} else if (strncmp(line, "rule ", 5) == 0) {
			err = rule(ctx, line + 5);
		}
		if (err)
			printf("refused %d %s\n", n, strerror(-err));
	}
	FILE *out = tmpfile();
	if (!out || seccomp_export_bpf(ctx, fileno(out)) != 0 || lseek(fileno(out), 0, SEEK_SET) != 0)
		return 5;
	struct instruction i;
	while (read(fileno(out), &i, sizeof i) == sizeof i)
		printf("i %u %u %u %u\n", i.code, i.jt, i.jf, i.k);
	return 0;
}
