/* What gru and lstm share: rows of weights whose sums become gate inputs, int16 in units of 2^-12. */
#ifndef PE_GATES_H
#define PE_GATES_H

#include "pe_dot.h"
#include "pe_ops.h"

typedef struct {
    const int32_t *bias, *multiplier;
    const int8_t *shift, *weight;
    uint32_t columns;
} pe_gates;

/* Bytes of `rows` gates. */
static inline uint32_t pe_gates_bytes(uint32_t rows, uint32_t columns) { return 8u * rows + pe_padded(rows) + rows * pe_padded(columns); }

static inline pe_gates pe_gates_at(const void *at, uint32_t rows, uint32_t columns)
{
    const int32_t *bias = at, *multiplier = bias + rows;
    const int8_t *shift = (const void *)(multiplier + rows);
    const pe_gates g = {bias, multiplier, shift, shift + pe_padded(rows), columns};
    return g;
}

/* One row on int8 or int16 values. */
static inline int32_t pe_gate(const pe_gates *g, uint32_t row, const void *x, int x16)
{
    const int8_t *w = g->weight + row * pe_padded(g->columns);
    const uint32_t a = x16 ? pe_dot16(x, w, g->columns) : pe_dot8(x, w, g->columns);
    return pe_sat16(pe_requantise_signed((int32_t)(a + (uint32_t)g->bias[row]), g->multiplier[row], g->shift[row]));
}

#endif
