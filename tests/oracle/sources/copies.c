/* Structures copied, set and compared, of all sizes and alignments. */
#include "common.h"

#define SIZED(n) struct sized##n { u8 data[n]; };
#define COPY(n) __builtin_memcpy(to + (n) * 3, from + (n) * 5, (n) + 1);
#define CLEAR(n) __builtin_memset(to + (n) * 7 % 500, K8(n), (n) % 40 + 1);
#define ALIGNED(n) out[n] = in[(n) ^ 5];

struct aligned { u64 a; u32 b; u16 c; u8 d; u8 e[13]; u64 f[3]; };

SEC("copies/bytes") int bytes(u8 *m)
{
	u8 *to = m, *from = m + 1000;
	REP16(COPY, 0) REP16(COPY, 16) REP16(COPY, 32)
	return 0;
}

SEC("copies/clear") int clear(u8 *to)
{
	REP64(CLEAR, 1)
	return 0;
}

SEC("copies/stack") int stack(struct aligned *in)
{
	struct aligned out[8] = {};
	REP4(ALIGNED, 0) REP4(ALIGNED, 4)
	out[in->d & 7].e[in->c % 13] = 4;
	for (int i = 0; i < 8; i++)
		in[i + 10] = out[7 - i];
	return __builtin_memcmp(&out[1], &out[2], 13);
}
