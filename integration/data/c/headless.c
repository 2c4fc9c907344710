// cc -static -pthread
/* Lives on without its first thread. */
#include <pthread.h>
#include <unistd.h>

static void *rest(void *unused)
{
	for (;;)
		pause();
	return unused;
}

int main(void)
{
	pthread_t thread;
	pthread_create(&thread, 0, rest, 0);
	pthread_exit(0);
}
