/* A sorting network on the stack: many slots of it, many comparisons. */
#include "common.h"

#define SWAP(i, j) if (v[i] > v[j]) { u64 t = v[i]; v[i] = v[j]; v[j] = t; }
#define FILL(n) v[n] = m[n] ^ K32(n);
#define DRAIN(n) m[n] = v[(n) ^ 1] + K32(n);
#define PASS(n) SWAP(n, n + 1) SWAP(n + 2, n + 5) SWAP(n, n + 3)

SEC("sort/stack") int stack(u64 *m)
{
	volatile u64 v[40];
	REP16(FILL, 0) REP16(FILL, 16) REP4(FILL, 32) REP4(FILL, 36)
	REP16(PASS, 0) REP16(PASS, 15) REP4(PASS, 30)
	REP16(DRAIN, 0) REP16(DRAIN, 16) REP4(DRAIN, 32) REP4(DRAIN, 36)
	return 0;
}

SEC("sort/narrow") int narrow(u16 *m)
{
	volatile u16 v[48];
	volatile u8 c[48];
	REP16(FILL, 0) REP16(FILL, 16) REP16(FILL, 32)
#define BYTE(n) c[n] = v[n] >> 3; v[n] += c[(n) / 2];
	REP16(BYTE, 0) REP16(BYTE, 16) REP16(BYTE, 32)
	REP16(PASS, 0) REP16(PASS, 16)
	REP16(DRAIN, 0) REP16(DRAIN, 16) REP16(DRAIN, 32)
	return 0;
}
