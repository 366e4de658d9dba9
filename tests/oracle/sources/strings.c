/* Text: comparing with constants, parsing numbers, changing case. */
#include "common.h"

#define STARTS(text) (__builtin_memcmp(s, text, sizeof(text) - 1) == 0)

SEC("strings/match") int match(const char *s)
{
	return STARTS("GET /") ? 1 : STARTS("POST /") ? 2 : STARTS("HEAD") ? 3 : STARTS("OPTIONS *") ? 4 :
	       STARTS("a rather long text that fills many words") ? 5 : STARTS("tcp_v4_connect") ? 6 : 0;
}

SEC("strings/number") s64 number(const char *s)
{
	s64 value = 0;
	int negative = *s == '-';
	for (int i = negative; i < 20; i++) {
		if (s[i] < '0' || s[i] > '9')
			break;
		value = value * 10 + s[i] - '0';
	}
	return negative ? -value : value;
}

SEC("strings/upper") int upper(char *s)
{
#define LETTER(n) if (s[n] >= 'a' && s[n] <= 'z') s[n] -= 32; else if (s[n] == (char)(K8(n) & 127)) s[n] = K8(n) >> 1;
	REP64(LETTER, 0) REP64(LETTER, 64)
	return 0;
}
