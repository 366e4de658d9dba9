/* Calls of subprograms, near and far, global and static. */
#include "common.h"

#define MAKE(n)                                                                                            \
	static NOINLINE u64 function##n(u64 a, u64 b, u32 c, s32 d, u64 *e)                                 \
	{                                                                                                  \
		u64 x = a * (K32(n) >> 4) + b;                                                             \
		if (x > c + (u64)(K32(n + 1) >> 3))                                                        \
			x ^= e[n] + d;                                                                     \
		e[n + 30] = x - (K32(n + 2) >> 5);                                                         \
		return x;                                                                                  \
	}
#define CALL(n) sum = function##n(sum, m[n], (u32)m[n + 1], (s32)sum, m);

MAKE(0) MAKE(1) MAKE(2) MAKE(3) MAKE(4) MAKE(5) MAKE(6) MAKE(7) MAKE(8) MAKE(9)
MAKE(10) MAKE(11) MAKE(12) MAKE(13) MAKE(14) MAKE(15) MAKE(16) MAKE(17) MAKE(18) MAKE(19)

NOINLINE u64 global_function(u64 a, u64 *m)
{
	return a + m[K8(5)];
}

static NOINLINE void nothing(u64 *m)
{
	m[0] = K32(77);
}

SEC("sub/all") u64 all(u64 *m)
{
	u64 sum = m[0];
	CALL(0) CALL(1) CALL(2) CALL(3) CALL(4) CALL(5) CALL(6) CALL(7) CALL(8) CALL(9)
	CALL(10) CALL(11) CALL(12) CALL(13) CALL(14) CALL(15) CALL(16) CALL(17) CALL(18) CALL(19)
	nothing(m);
	return global_function(sum, m) + global_function(m[1], m);
}
