/* Maps declared with BTF, and helpers. */
#include "common.h"

#define UINT(name, number) int(*name)[number]
#define TYPE(name, type) typeof(type) *name

struct { UINT(type, 1); UINT(max_entries, 1000); TYPE(key, u32); TYPE(value, u64); } counts SEC(".maps");
struct { UINT(type, 2); UINT(max_entries, 16); TYPE(key, u32); TYPE(value, u64[4]); } array SEC(".maps");
struct { UINT(type, 27); UINT(max_entries, 4096); } ring SEC(".maps");

static void *(*ring_reserve)(void *ring, u64 size, u64 flags) = (void *)131;
static void (*ring_submit)(void *data, u64 flags) = (void *)132;
static u64 (*pid_tgid)(void) = (void *)14;
static long (*probe_read)(void *to, u32 size, const void *from) = (void *)113;

#define COUNT(n)                                                                                           \
	key = K32(n);                                                                                      \
	value = map_lookup(&counts, &key);                                                                 \
	if (value)                                                                                         \
		*value += n;                                                                               \
	else                                                                                               \
		map_update(&counts, &key, &(u64){ K32(n + 99) }, n % 3);

SEC("kprobe/count") int count(void *context)
{
	u32 key;
	u64 *value;
	REP16(COUNT, 0) REP16(COUNT, 16)
	return 0;
}

struct event { u64 time, who; u32 cpu; char name[20]; u64 args[6]; };

SEC("kprobe/emit") int emit(u64 *registers)
{
	struct event *event = ring_reserve(&ring, sizeof(*event), 0);
	u32 zero = 0;
	u64(*slot)[4] = map_lookup(&array, &zero);
	if (!event)
		return 0;
	event->time = ktime();
	event->who = pid_tgid();
	event->cpu = prandom();
	for (int i = 0; i < 6; i++)
		event->args[i] = registers[i * 2 + SEED % 5];
	probe_read(event->name, sizeof(event->name), (void *)registers[9]);
	if (slot)
		(*slot)[registers[3] & 3]++;
	ring_submit(event, 0);
	trace_printk("hit %d\n", 8, 4);
	return 0;
}

char _license[] SEC("license") = "GPL";
