/* What dense and conv share: rows of weights, and how a row's sum of products becomes a value. */
#ifndef PE_ROWS_H
#define PE_ROWS_H

#include "pe_ops.h"

typedef struct {
    const int32_t *bias, *multiplier;
    const uint8_t *shift, *weight;
    int32_t zero, low, high; /* low and high without zero */
} pe_rows;

/* The rows of an operation, whose arrays begin at `at`. */
static inline pe_rows pe_rows_at(const pe_op *op, const void *at, uint32_t rows, uint32_t flags)
{
    const int32_t *bias = at, *multiplier = bias + rows;
    const uint8_t *shift = (const void *)(flags & PE_SHIFT ? multiplier : multiplier + rows);
    const pe_rows r = {bias, multiplier, shift, shift + pe_padded(rows), op->zero, op->low - op->zero, op->high - op->zero};
    return r;
}

/* out[row] from the row's sum: int8, or int16 with WIDE or X16. */
static inline void pe_row(const pe_rows *r, uint32_t row, uint32_t sum, uint32_t flags, void *out)
{
    const int32_t a = (int32_t)((sum + (uint32_t)r->bias[row]) * (flags & PE_WIDE ? 128u : 1u));
    const int32_t scaled = flags & PE_SHIFT ? pe_shifted(a, r->shift[row]) : pe_requantise(a, r->multiplier[row], r->shift[row]);
    const int32_t y = pe_clamp(scaled, r->low, r->high) + r->zero;
    if (flags & (PE_WIDE | PE_X16))
        ((int16_t *)out)[row] = (int16_t)y;
    else
        ((int8_t *)out)[row] = (int8_t)y;
}

#endif
