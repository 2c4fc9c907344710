// cc -static -O1
/* Makes one system call by one of x86's ways in, and prints what it answers: probe 64|x32|32 NUMBER */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	long ret = atol(argv[2]);
	if (strcmp(argv[1], "x32") == 0)
		ret |= 0x40000000;
	if (strcmp(argv[1], "32") == 0)
		__asm__ volatile("int $0x80" : "+a"(ret) : "b"(0), "c"(0), "d"(0), "S"(0), "D"(0)
				 : "memory", "r8", "r9", "r10", "r11");
	else
		__asm__ volatile("syscall" : "+a"(ret) : "D"(0), "S"(0), "d"(0) : "memory", "rcx", "r8", "r9", "r10", "r11");
	printf("%ld\n", strcmp(argv[1], "32") == 0 ? (long)(int)ret : ret);
	return 0;
}
