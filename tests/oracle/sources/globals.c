/* Data sections: constants of two slots that a loader turns into addresses. */
#include "common.h"

const volatile u32 limit = 7;
volatile u64 hits;
u64 table[64] = { 1, 2, 3 };
static volatile u8 bytes[256];
const char text[] = "a text of some length\n";
static u16 shorts[40];

#define STEP(n)                                                                                            \
	hits += table[n] * limit;                                                                          \
	bytes[n + K8(n) % 100] = hits >> n;                                                                \
	shorts[(n + hits) % 40] += bytes[n] + (u16)K16(n);

SEC("globals/all") u64 all(u64 *context)
{
	REP64(STEP, 0)
	return hits + text[context[0] % sizeof(text)] + shorts[3];
}
