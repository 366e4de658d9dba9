/* Loops, unrolled and not, backwards jumps. */
#include "common.h"

SEC("loops/plain") u64 plain(u32 *m)
{
	u64 sum = 0;
	for (u32 i = 0; i < (m[0] & 1023); i++) {
		for (int j = 10; j >= 0; j--)
			sum += m[j] * i;
		if (sum > K32(1))
			break;
	}
	return sum;
}

SEC("loops/unrolled") u64 unrolled(volatile u32 *m)
{
	u64 sum = m[200];
#pragma unroll
	for (u32 i = 0; i < 150; i++) {
		if (m[i] > i * 37 + SEED)
			sum += m[i + 1] ^ i * 3;
		else
			sum -= m[i + 2] << (i & 15);
	}
	return sum;
}

SEC("loops/while") u64 collatz(u64 *m)
{
	u64 n = m[0], steps = 0;
	while (n != 1 && steps < 500) {
		n = n & 1 ? 3 * n + 1 : n >> 1;
		steps++;
	}
	do {
		m[steps & 7] ^= n;
	} while (steps-- > 3);
	return steps;
}

static long each(u32 index, u64 *sum)
{
	*sum += index * SEED;
	return *sum > 100000;
}

SEC("loops/callback") u64 callback(u64 *m)
{
	u64 sum = m[0];
	bpf_loop(1000, each, &sum, 0);
	return sum;
}
