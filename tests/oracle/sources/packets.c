/* Header parsing with bounds checks, and the loads of old socket filters. */
#include "common.h"

u64 load_byte(void *skb, u64 off) asm("llvm.bpf.load.byte");
u64 load_half(void *skb, u64 off) asm("llvm.bpf.load.half");
u64 load_word(void *skb, u64 off) asm("llvm.bpf.load.word");

struct context { u32 data, data_end, meta, ifindex; };

#define PORT(n) case __builtin_bswap16((u16)K16(n)): verdict = n + 2; break;

SEC("xdp/parse") int parse(struct context *context)
{
	u8 *at = (u8 *)(u64)context->data, *end = (u8 *)(u64)context->data_end;
	u32 verdict = 1, length;
	if (at + 14 > end)
		return 0;
	if (*(u16 *)(at + 12) != __builtin_bswap16(0x0800))
		return 2;
	at += 14;
	if (at + 20 > end)
		return 0;
	length = (*at & 15) * 4;
	if (length < 20 || at + length > end || (at[9] != 6 && at[9] != 17))
		return 1;
	if (__builtin_bswap32(*(u32 *)(at + 12)) >> 8 == (K32(3) >> 8))
		return 3;
	at += length;
	if (at + 8 > end)
		return 0;
	switch (*(u16 *)(at + 2)) { REP64(PORT, 0) }
	*(u16 *)(at + 6) = 0;
	return verdict;
}

#define LOOK(n)                                                                                            \
	sum += load_byte(skb, n * 3 + SEED) ^ load_half(skb, n * 7 + 20) ^ load_word(skb, (n) * 5 + 40);    \
	sum ^= load_byte(skb, sum & 15) + load_half(skb, sum >> 60) + load_word(skb, sum & 7);

SEC("socket/old") u64 old(void *skb)
{
	u64 sum = 0;
	REP64(LOOK, 0)
	return sum;
}
