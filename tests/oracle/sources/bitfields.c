/* Bit fields of all widths, read and written. */
#include "common.h"

struct bits {
	u64 a : 3, b : 11, c : 17, d : 33;
	u32 e : 1, f : 5, g : 26;
	s32 h : 7, i : 12, j : 13;
	s64 k : 40, l : 24;
	u8 m : 4, n : 4;
	u16 o : 9, p : 7;
} __attribute__((packed));

#define USE(x)                                                                                             \
	b[x].a += K32(x); b[x].b ^= b[x].c; b[x].d -= K64(x); b[x].e = !b[x].e; b[x].f |= b[x].g >> 3;      \
	b[x].h += b[x].i; b[x].j = b[x].k; b[x].l ^= b[x].h; b[x].m = b[x].n; b[x].o = b[x].p + K32(x);     \
	sum += b[x].h * b[x].k + b[x].d;

SEC("bits/all") s64 all(struct bits *b)
{
	s64 sum = 0;
	REP64(USE, 0)
	return sum;
}
