/* Philox4x32-10 (Salmon et al., 2011, "Parallel random numbers: as easy as 1, 2, 3"): counter and key in, four random words out. */
#ifndef PE_PHILOX_H
#define PE_PHILOX_H

#include "pe_math.h"

enum { STREAM_ENVIRONMENT, STREAM_ACTION, STREAM_SHUFFLE };

typedef struct words {
    uint32_t w[4];
} words;

INLINE words philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(b >> 32) ^ c1 ^ k0, n2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)b;
        c3 = (uint32_t)a;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (words){{c0, c1, c2, c3}};
}

/* In [0, 1), 24 bits. */
INLINE real uniform(uint32_t w) { return (real)(w >> 8) * (real)(1.0 / 16777216.0); }

#endif
