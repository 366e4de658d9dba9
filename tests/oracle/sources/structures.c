/* A large structure: loads and stores of all widths at many offsets. */
#include "common.h"

struct large { u8 a[300]; u16 b[300]; u32 c[300]; u64 d[300]; };

#define TOUCH(n)                                                                                           \
	x += p->a[n]; p->b[n] = x + (u16)K16(n); y ^= p->c[n]; p->d[n] = y - (s32)K32(n);                   \
	p->a[(n) ^ 9] = K8(n); p->c[(n) ^ 5] = x * y; z -= p->d[(n) ^ 3]; p->c[n] = K32(n) & 0x7FFFFFFF;      \
	p->d[(n) ^ 6] = 5 + n; q->b[(n) ^ 2] = K16(n); q->d[n] += z; q->a[n] ^= y; z += q->b[n];

SEC("struct/one") u64 one(volatile struct large **m)
{
	volatile struct large *p = m[0], *q = m[1];
	u64 y = p->d[0], z = 0;
	u32 x = p->c[0];
	REP256(TOUCH, 0)
	return x + y + z;
}

SEC("struct/two") u64 two(volatile struct large *q, volatile struct large *p)
{
	u64 y = p->d[1], z = q->d[2];
	u32 x = p->c[3];
	REP64(TOUCH, 20)
	if (prandom() & 1) {
		REP64(TOUCH, 90)
	}
	ktime();
	REP64(TOUCH, 150)
	return x ^ y ^ z;
}
