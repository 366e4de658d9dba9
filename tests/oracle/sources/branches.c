/* Every comparison, with constants and with registers, both widths, jumps of many lengths. */
#include "common.h"

#define TEST(n)                                                                                            \
	if (a > (K32(n) >> 1)) x += m[n & 15];                                                             \
	if (b < (K32(n + 1) >> 2)) x -= m[(n + 1) & 15];                                                   \
	if ((s64)a > (s64)(s32)K32(n + 2)) b += n;                                                         \
	if ((s64)b <= (s64)(s32)K32(n + 3)) a ^= x;                                                        \
	if (a & (K32(n + 4) >> 3)) b ^= n + 7;                                                             \
	if (a != b) x += n;                                                                                \
	if (a >= b) x ^= m[n & 7];                                                                         \
	if ((s64)a < (s64)x) a += 3;                                                                       \
	if (p == K32(n + 5)) q += n;                                                                       \
	if ((s32)p >= (s32)K32(n + 6)) q ^= p;                                                             \
	if ((s32)q < (s32)p) p += n;                                                                       \
	if (p <= q) q -= m[3];                                                                             \
	if (q & K32(n + 7)) p ^= q >> 3;

SEC("branch/all") u64 all(volatile u64 *m)
{
	u64 a = m[0], b = m[1], x = 0;
	u32 p = m[2], q = m[3];
	REP64(TEST, 0)
	return a + b + x + p + q;
}

#define NESTED(n) if (m[n] != K8(n)) { x += m[n + 1] * n;
#define CLOSE(n) } else { x ^= K32(n); }

SEC("branch/nested") u64 nested(volatile u64 *m)
{
	u64 x = 0;
	REP64(NESTED, 0) REP64(CLOSE, 0)
	return x;
}
