/* What the programs here share. They are compiled for their instructions and never loaded. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;

#ifndef SEED
#define SEED 1
#endif

#define SEC(name) __attribute__((section(name), used))
#define NOINLINE __attribute__((noinline))
#define INLINE static inline __attribute__((always_inline))

/* A constant that looks random, different for each n and each SEED. */
#define K32(n) ((u32)(((n) + 1) * 2654435761u + SEED * 40503u) ^ ((u32)((n) + 1) * 0x45d9f3bu >> 7))
#define K64(n) ((u64)K32(n) << 32 | K32((n) + 77))
#define K8(n) (K32(n) >> 24)
#define K16(n) (K32(n) >> 16)

/* X(n) for n, n+1, … */
#define REP4(X, n) X(n) X((n) + 1) X((n) + 2) X((n) + 3)
#define REP16(X, n) REP4(X, n) REP4(X, (n) + 4) REP4(X, (n) + 8) REP4(X, (n) + 12)
#define REP64(X, n) REP16(X, n) REP16(X, (n) + 16) REP16(X, (n) + 32) REP16(X, (n) + 48)
#define REP256(X, n) REP64(X, n) REP64(X, (n) + 64) REP64(X, (n) + 128) REP64(X, (n) + 192)

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*ktime)(void) = (void *)5;
static long (*trace_printk)(const char *format, u32 size, ...) = (void *)6;
static u32 (*prandom)(void) = (void *)7;
static long (*bpf_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;
