/* What gru and lstm share: rows of weights whose sums become gate inputs, int16 in units of 2^-12. */
#ifndef PE_GATES_H
#define PE_GATES_H

#include "pe_dot.h"
#include "pe_ops.h"

typedef struct {
    const int32_t *bias, *multiplier;
    const int8_t *shift;
    const uint8_t *weight;
    uint32_t columns;
} pe_gates;

/* Bytes of `rows` gates. */
static inline uint32_t pe_gates_bytes(uint32_t rows, uint32_t columns) { return 8u * rows + pe_padded(rows) + rows * pe_padded(columns); }

static inline pe_gates pe_gates_at(const void *at, uint32_t rows, uint32_t columns)
{
    const int32_t *bias = at, *multiplier = bias + rows;
    const int8_t *shift = (const void *)(multiplier + rows);
    const pe_gates g = {bias, multiplier, shift, (const uint8_t *)shift + pe_padded(rows), columns};
    return g;
}

/* A sum of products of a row as a gate's input. */
static inline int32_t pe_gate(const pe_gates *g, uint32_t row, uint32_t sum)
{
    return pe_sat16(pe_requantise_signed((int32_t)(sum + (uint32_t)g->bias[row]), g->multiplier[row], g->shift[row]));
}

/* The inputs of two gates on int8 or int16 values. */
static inline void pe_two_gates(const pe_gates *g, uint32_t row0, uint32_t row1, const void *x, int x16, int32_t *gates)
{
    const uint32_t stride = pe_padded(g->columns);
    const uint64_t sums = (x16 ? pe_dot_16 : pe_dot_8)(x, g->weight + row0 * stride, g->weight + row1 * stride, g->columns);
    gates[0] = pe_gate(g, row0, (uint32_t)sums);
    gates[1] = pe_gate(g, row1, (uint32_t)(sums >> 32));
}

#endif
