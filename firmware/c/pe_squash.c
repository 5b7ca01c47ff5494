/* Logistic and tanh on int16. */
#include "pe_squash.h"

/* The table at n / 2^bits, with that many more bits of fraction; `beyond` past its end. */
static int32_t interpolated(int32_t n, uint32_t bits, int32_t beyond)
{
    const int32_t u = n >> bits;
    if (u >= 255)
        return beyond;
    const int32_t base = pe_squash_table[u], rise = pe_squash_table[u + 1] - base;
    return base * (1 << bits) + (n & ((1 << bits) - 1)) * rise;
}

int32_t pe_logistic(int32_t a)
{
    const int32_t v = 3 * a, r = interpolated(v < 0 ? -v : v, 9, 32767 << 10);
    return (v >= 0 ? r + 512 : (1 << 25) - r + 511) >> 10;
}

int32_t pe_tanh(int32_t a, uint32_t up)
{
    const int32_t v = a * (3 << up), r = interpolated(v < 0 ? -v : v, 8, 65535 << 8);
    return (v >= 0 ? r - (1 << 23) + 128 : (1 << 23) - r + 127) >> 8;
}
