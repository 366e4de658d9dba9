/*
 * a valid program of type SOCKET_FILTER (plain): refused
 * Found on 5.10.0-46-cloud-amd64.
 * 	r7 = state[0x0] ll
 * 	call 0x8
 * 	if r0 > 0x0 goto main.1
 * 	goto main.2
 * main.1:
 * main.2:
 * 	r4 = r0
 * 	if r4 s> 0x0 goto main.3
 * 	if r4 s< 0x0 goto main.3
 * 	r5 = r7
 * 	r5 += r4
 * 	r0 = *(u64 *)(r5 + 0x0)
 * main.3:
 * 	exit
 *
 * EACCES: R5 invalid mem access 'inv'
 * 0: (18) r7 = 0xffff88803feb2d10
 * 2: (85) call bpf_get_smp_processor_id#8
 * 3: (25) if r0 > 0x0 goto pc+1
 *
 * from 3 to 5: R0_w=inv(id=0,umin_value=1) R7_w=map_value(id=0,off=0,ks=4,vs=128,imm=0) R10=fp0
 * 5: (bf) r4 = r0
 * 6: (65) if r4 s> 0x0 goto pc+4
 *  R0_w=inv(id=2,smax_value=0,umin_value=1) R4_w=inv(id=2,smax_value=0,umin_value=1) R7_w=map_value(id=0,off=0,ks=4,vs=128,imm=0) R10=fp0
 * 7: (c5) if r4 s< 0x0 goto pc+3
 *  R0_w=inv0 R4_w=inv0 R7_w=map_value(id=0,off=0,ks=4,vs=128,imm=0) R10=fp0
 * 8: (bf) r5 = r7
 * 9: (0f) r5 += r4
 * last_idx 9 first_idx 0
 * regs=10 stack=0 before 8: (bf) r5 = r7
 * regs=10 stack=0 before 7: (c5) if r4 s< 0x0 goto pc+3
 * regs=10 stack=0 before 6: (65) if r4 s> 0x0 goto pc+4
 * regs=10 stack=0 before 5: (bf) r4 = r0
 * regs=1 stack=0 before 3: (25) if r0 > 0x0 goto pc+1
 * regs=1 stack=0 before 2: (85) call bpf_get_smp_processor_id#8
 * 10: (79) r0 = *(u64 *)(r5 +0)
 * R5 invalid mem access 'inv'
 * processed 17 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1 mark_read 1
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
	long fd[2], result, code;
	int bad = 0;
	static unsigned long cpus[1];

	cpus[0] = 1UL << 0;
	if (syscall(SYS_sched_setaffinity, 0, sizeof(cpus), cpus) < 0)
		return 2;

	/* step 0: BPF_MAP_CREATE: the map state */
	{
		static const unsigned char attr_data[92] = { 0x02, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x73, 0x74, 0x61, 0x74, 0x65 };
		unsigned char *attr = edge(attr_data, 92, 92);

		result = syscall(SYS_bpf, 0, attr, 92UL);
		code = result < 0 ? errno : 0;
		fd[0] = result;
		if (code != 0) {
			printf("BPF_MAP_CREATE: expected accepted, seen errno %ld\n", code);
			bad = 1;
		}
		if (fd[0] < 0) {
			printf("cannot go on\n");
			return bad ? 1 : 1;
		}
	}
	/* step 1: BPF_PROG_LOAD: the program */
	{
		static const unsigned char attr_data[168] = { 0x01, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x66, 0x75, 0x7a, 0x7a };
		unsigned char *attr = edge(attr_data, 168, 168);
		static const unsigned char m0_data[96] = { 0x18, 0x27, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x85, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x25, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xbf, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x65, 0x04, 0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0xc5, 0x04, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0xbf, 0x75, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0f, 0x45, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x79, 0x50, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x95 };
		unsigned char *m0 = edge(m0_data, 96, 96);
		put(m0 + 4, fd[0], 4);
		static const unsigned char m1_data[13] = { 0x44, 0x75, 0x61, 0x6c, 0x20, 0x4d, 0x49, 0x54, 0x2f, 0x47, 0x50, 0x4c };
		unsigned char *m1 = edge(m1_data, 13, 13);
		put(attr + 8, (unsigned long)m0, 8);
		put(attr + 16, (unsigned long)m1, 8);

		result = syscall(SYS_bpf, 5, attr, 168UL);
		code = result < 0 ? errno : 0;
		fd[1] = result;
		if (code != 0) {
			printf("BPF_PROG_LOAD: expected accepted, seen errno %ld\n", code);
			bad = 1;
		}
	}
	printf(bad ? "reproduced\n" : "all as expected\n");
	return bad;
}
