/* Every operation of both widths, with constants and with registers. */
#include "common.h"

#define MIX(n)                                                                                             \
	a += K32(n) >> 1;                                                                                  \
	b ^= a << (n) % 63;                                                                                \
	c -= (b >> (n) % 61) * (s32)(K32(n + 3) >> 1);                                                     \
	d |= c & (s32)(K32(n + 5) >> 2);                                                                   \
	a = (s64)a >> (n) % 57;                                                                            \
	b += d / ((K32(n + 9) >> 20) + 1) + c % ((K32(n + 8) >> 18) + 1);

#define MIX32(n)                                                                                           \
	p += K32(n);                                                                                       \
	q ^= p << (n) % 31;                                                                                \
	r -= (q >> (n) % 29) * K32(n + 3);                                                                 \
	s |= r & K32(n + 5);                                                                               \
	p = (s32)p >> (n) % 27;                                                                            \
	q += s / (K32(n + 9) >> 10 | 1) + r % (K32(n + 8) >> 9 | 1);

SEC("arith/wide") u64 wide(u64 *m)
{
	u64 a = m[0], b = m[1], c = m[2], d = m[3];
	REP64(MIX, 0)
	return a + b + c + d;
}

SEC("arith/narrow") u32 narrow(u32 *m)
{
	u32 p = m[0], q = m[1], r = m[2], s = m[3];
	REP64(MIX32, 100)
	return p + q + r + s;
}

SEC("arith/registers") u64 registers(u64 *m)
{
	u64 x = m[0], y = m[1];
	u32 v = m[2], w = m[3];
#define OPS(n)                                                                                             \
	m[n] = x + y; m[n + 1] = x - y; m[n + 2] = x * y; m[n + 3] = x / (y | 1); m[n + 4] = x % (y | 1);   \
	m[n + 5] = x & y; m[n + 6] = x | y; m[n + 7] = x ^ y; m[n + 8] = x << (y & 63);                     \
	m[n + 9] = x >> (y & 63); m[n + 10] = (s64)x >> (y & 63); m[n + 11] = -x; m[n + 12] = v + w;        \
	m[n + 13] = v - w; m[n + 14] = v * w; m[n + 15] = v / (w | 1); m[n + 16] = v % (w | 1);             \
	m[n + 17] = v << (w & 31); m[n + 18] = v >> (w & 31); m[n + 19] = (s32)v >> (w & 31); m[n + 20] = -v; \
	x += m[n + 21]; y ^= m[n + 22]; v += m[n + 23]; w ^= m[n + 24];
	OPS(4) OPS(30) OPS(60) OPS(90)
	return x;
}
#if __BPF_CPU_VERSION__ >= 4
SEC("arith/signed") s64 signed_division(s64 *m)
{
	s64 x = m[0];
	s32 y = (s32)m[1];
#define DIVIDE(n) x += m[n] / (s32)(K32(n) >> 1 | 1); x ^= m[n] % x; y -= (s32)m[n] % (s32)(K32(n) >> 3 | 1); y ^= (s32)m[n] / y;
	REP64(DIVIDE, 2)
	return x + y;
}
#endif
