/* The inner parts of hash functions: rotations, wide constants, byte order. */
#include "common.h"

INLINE u32 rotate(u32 x, int n) { return x << n | x >> (32 - n); }
INLINE u64 rotate64(u64 x, int n) { return x << n | x >> (64 - n); }

#define ROUND(n)                                                                                           \
	t = h + (rotate(e, 26) ^ rotate(e, 21) ^ rotate(e, 7)) + ((e & f) ^ (~e & g)) + K32(n) + w[(n) & 15]; \
	h = g; g = f; f = e; e = d + t; d = c; c = b; b = a;                                               \
	a = t + (rotate(b, 30) ^ rotate(b, 19) ^ rotate(b, 10)) + ((b & c) ^ (b & d) ^ (c & d));            \
	w[(n) & 15] += rotate(w[((n) + 1) & 15], 25) + w[((n) + 9) & 15];

SEC("digest/narrow") u32 narrow(u32 *w)
{
	u32 a = w[16], b = w[17], c = w[18], d = w[19], e = w[20], f = w[21], g = w[22], h = w[23], t;
	for (int i = 0; i < 16; i++)
		w[i] = __builtin_bswap32(w[i]);
	REP64(ROUND, 0)
	return a ^ b ^ c ^ d ^ e ^ f ^ g ^ h;
}

#define ROUND64(n)                                                                                         \
	x = (x ^ K64(n)) * 0x9E3779B97F4A7C15ull; y ^= rotate64(x, n % 62 + 1); x += y ^ m[n % 16];          \
	m[n % 16] = __builtin_bswap64(x) + K64(n + 300);

SEC("digest/wide") u64 wide(u64 *m)
{
	u64 x = m[0], y = m[1];
	REP256(ROUND64, 0)
	return x ^ y;
}

SEC("digest/short") u32 internet_checksum(u16 *m)
{
	u32 sum = 0;
#define WORD(n) sum += __builtin_bswap16(m[n]) ^ (u16)K16(n);
	REP64(WORD, 0)
	return ~((sum & 0xFFFF) + (sum >> 16)) & 0xFFFF;
}
