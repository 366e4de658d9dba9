/*
 * a number compared with itself breaks the verifier's invariants (BPF_F_TEST_REG_INVARIANTS)
 * Found on 6.18.44.
 * call 8
 * if w0 > w0 goto a
 * a: exit
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* size bytes of memory, the first of them from data, the others 0; nothing is mapped behind the last one */
static unsigned char *edge(const unsigned char *data, size_t used, size_t size)
{
	size_t page = sysconf(_SC_PAGESIZE), whole = (size + page - (size > 0)) / page * page;
	unsigned char *at = mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED || mprotect(at + whole, page, PROT_NONE)) {
		perror("memory");
		exit(2);
	}
	at += whole - size;
	memcpy(at, data, used < size ? used : size);
	return at;
}

/* memcpy: fields lie at any offset, and may be cut off */
static void put(unsigned char *at, unsigned long long value, int size)
{
	memcpy(at, &value, size);
}

static inline int opened(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		perror(path);
		exit(2);
	}
	return fd;
}

static int check(const char *what, const unsigned char *seen, const unsigned char *want, int size)
{
	int i;

	if (!memcmp(seen, want, size))
		return 0;
	printf("%s: expected ", what);
	for (i = 0; i < size; i++)
		printf("%02x", want[i]);
	printf(", seen ");
	for (i = 0; i < size; i++)
		printf("%02x", seen[i]);
	printf("\n");
	return 1;
}

int main(void)
{
	long fd[1], result, code;
	int bad = 0;

	/* step 0: BPF_PROG_LOAD: the program */
	{
		static const unsigned char attr_data[168] = { 0x01, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x66, 0x75, 0x7a, 0x7a };
		unsigned char *attr = edge(attr_data, 168, 168);
		static const unsigned char m0_data[24] = { 0x85, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x2e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x95 };
		unsigned char *m0 = edge(m0_data, 24, 24);
		static const unsigned char m1_data[13] = { 0x44, 0x75, 0x61, 0x6c, 0x20, 0x4d, 0x49, 0x54, 0x2f, 0x47, 0x50, 0x4c };
		unsigned char *m1 = edge(m1_data, 13, 13);
		put(attr + 8, (unsigned long)m0, 8);
		put(attr + 16, (unsigned long)m1, 8);

		result = syscall(SYS_bpf, 5, attr, 168UL);
		code = result < 0 ? errno : 0;
		fd[0] = result;
		if (code != 0 && code != 22) {
			printf("BPF_PROG_LOAD: expected accepted or EINVAL, seen errno %ld\n", code);
			bad = 1;
		}
	}
	printf(bad ? "reproduced\n" : "all as expected\n");
	return bad;
}
