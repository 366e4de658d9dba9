/* Sign extension in loads, moves and comparisons. */
#include "common.h"

struct numbers { s8 a[64]; s16 b[64]; s32 c[64]; s64 d[64]; };

#define ADD(n)                                                                                             \
	sum += n1->a[n] * (s64)n1->b[(n) ^ 3] + n1->c[n];                                                  \
	n1->d[n] = (s8)sum + (s16)(sum >> 3) + (s32)(sum >> 5);                                            \
	if (n1->c[n] < (s32)K32(n))                                                                        \
		small += (s8)n1->c[n] - (s16)small;                                                        \
	if (sum < (s32)K32(n + 9) || (s64)sum >= (s32)K32(n + 2))                                          \
		sum -= (s32)small;

SEC("signs/all") s64 all(struct numbers *n1)
{
	s64 sum = n1->d[0];
	s32 small = n1->c[1];
	REP64(ADD, 0)
	return sum + small;
}
