/* Atomic operations with and without their result, exchange, compare and exchange. */
#include "common.h"

struct counters { u64 wide[64]; u32 narrow[64]; };
struct counters shared;

#define PLAIN(n)                                                                                           \
	__sync_fetch_and_add(&c->wide[n], K32(n) >> 3);                                                    \
	__sync_fetch_and_add(&c->narrow[n], K32(n + 64) >> 9);

SEC("atomics/plain") int plain(struct counters *c)
{
	REP64(PLAIN, 0)
	__sync_fetch_and_add(&shared.wide[3], 1);
	return 0;
}

#if __BPF_CPU_VERSION__ >= 3
#define FETCH(n)                                                                                           \
	sum += __sync_fetch_and_add(&c->wide[n], sum);                                                     \
	sum ^= __sync_fetch_and_or(&c->wide[n], sum);                                                      \
	sum -= __sync_fetch_and_and(&c->wide[n], sum);                                                     \
	sum += __sync_fetch_and_xor(&c->wide[n], sum);                                                     \
	sum ^= __sync_lock_test_and_set(&c->wide[n], sum);                                                 \
	sum += __sync_val_compare_and_swap(&c->wide[n], sum, n);                                           \
	few += __sync_fetch_and_add(&c->narrow[n], few);                                                   \
	few ^= __sync_fetch_and_or(&c->narrow[n], few);                                                    \
	few -= __sync_fetch_and_and(&c->narrow[n], few);                                                   \
	few += __sync_fetch_and_xor(&c->narrow[n], few);                                                   \
	few ^= __sync_lock_test_and_set(&c->narrow[n], few);                                               \
	few += __sync_val_compare_and_swap(&c->narrow[n], few, n);                                         \
	__sync_fetch_and_or(&c->wide[n], few);                                                             \
	__sync_fetch_and_and(&c->wide[n], sum);                                                            \
	__sync_fetch_and_xor(&c->narrow[n], few);

SEC("atomics/fetch") u64 fetch(struct counters *c)
{
	u64 sum = c->wide[0];
	u32 few = c->narrow[0];
	REP64(FETCH, 0)
	return sum + few;
}
#endif
