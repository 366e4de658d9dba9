/* Long switches. */
#include "common.h"

#define CASE(n) case K32(n): result += n * 3 + m[n & 31]; break;
#define DENSE(n) case n: result ^= K32(n + 500); result += m[(n) % 30]; break;
#define WIDE(n) case K64(n): result -= n; break;

SEC("switch/sparse") u32 sparse(u32 *m)
{
	u32 result = 0;
	switch (m[0]) { REP64(CASE, 0) REP64(CASE, 64) default: result = 9; }
	return result;
}

SEC("switch/dense") u32 dense(u32 *m)
{
	u32 result = 0;
	switch (m[1] & 511) { REP256(DENSE, 0) default: result = 1; }
	return result;
}

SEC("switch/wide") u64 wide(u64 *m)
{
	u64 result = 0;
	switch (m[2]) { REP64(WIDE, 200) default: result = 2; }
	return result;
}
