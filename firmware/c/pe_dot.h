/* Sums of products of a row of weights. They wrap rather than overflow: with an image from this package it is proved that they
 * do neither. */
#ifndef PE_DOT_H
#define PE_DOT_H

#include <stdint.h>

static inline uint32_t pe_dot8(const int8_t *x, const int8_t *w, uint32_t count)
{
    uint32_t a = 0;
    for (uint32_t i = 0; i < count; i++)
        a += (uint32_t)(x[i] * w[i]);
    return a;
}

static inline uint32_t pe_dot16(const int16_t *x, const int8_t *w, uint32_t count)
{
    uint32_t a = 0;
    for (uint32_t i = 0; i < count; i++)
        a += (uint32_t)(x[i] * w[i]);
    return a;
}

/* A weight of 4 bits, the first of a byte in its low half. */
static inline int32_t pe_weight4(const uint8_t *w, uint32_t i) { return ((w[i >> 1] >> (4u * (i & 1u)) & 15) ^ 8) - 8; }

static inline uint32_t pe_dot4(const int8_t *x, const uint8_t *w, uint32_t count)
{
    uint32_t a = 0, i = 0;
    for (; i + 1 < count; i += 2) {
        const int32_t two = w[i >> 1];
        a += (uint32_t)(x[i] * (((two & 15) ^ 8) - 8));
        a += (uint32_t)(x[i + 1] * ((two >> 4 ^ 8) - 8));
    }
    return i < count ? a + (uint32_t)(x[i] * pe_weight4(w, i)) : a;
}

#endif
