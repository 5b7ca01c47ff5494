/* The operations of a program: their common head, the rounding they share, one function each. */
#ifndef PE_OPS_H
#define PE_OPS_H

#include <stdint.h>

typedef struct {
    uint8_t kind, flags;
    uint16_t n_in, n_out;
    int16_t zero, low, high;
} pe_op; /* its arrays follow */

enum { PE_INPUT = 1, PE_DENSE, PE_LOOKUP, PE_LOOKUP16, PE_ARGMAX, PE_AFFINE, PE_CONV, PE_POOL, PE_GRU, PE_LSTM, PE_CHOICES, PE_TANH16, PE_KINDS };
enum { /* flags */
    PE_ORDERED = 1, /* input: an order follows */
    PE_WIDE = 1,    /* dense: int16 from int8, by the lifted sum */
    PE_X16 = 2,     /* int16 values in and out */
    PE_INT4 = 4,    /* weights of 4 bits */
    PE_SHIFT = 8,   /* no multipliers */
    PE_DEPTHWISE = 16,
    PE_MAX = 32 /* pool: the largest */
};

/* Every operation reads n_in elements and writes n_out, of the types in docs/image.md. Both buffers are 4-aligned. `memory`
 * is what gru and lstm keep, and nobody else's. */
typedef void pe_kernel(const pe_op *op, const void *in, void *out, int16_t *memory);
pe_kernel pe_input, pe_dense, pe_lookup, pe_lookup16, pe_argmax, pe_affine, pe_conv, pe_pool, pe_gru, pe_lstm, pe_choices, pe_tanh16;

/* The kernel of every kind, or null for one that this build leaves out: with PE_ONLY defined, it has the kernels whose
 * PE_WITH_<KIND> is defined (PE_WITH_GRU …) and no others, and pe_open refuses an image that needs them. */
extern pe_kernel *const pe_kernels[PE_KINDS];

/* Bytes of an operation of a known kind with its arrays. n_in and n_out are at most PE_MAX_WIDTH, sizes of a conv valid. */
uint32_t pe_op_bytes(const pe_op *op);

/* Numbers that an operation keeps. */
static inline uint32_t pe_op_memory(const pe_op *op) { return op->kind == PE_GRU ? op->n_out : op->kind == PE_LSTM ? 2u * op->n_out : 0; }

static inline uint32_t pe_padded(uint32_t bytes) { return (bytes + 3u) & ~3u; }

/* Bytes of a row of weights. */
static inline uint32_t pe_stride(uint32_t columns, uint32_t flags) { return pe_padded(flags & PE_INT4 ? (columns + 1u) / 2u : columns); }

static inline int32_t pe_clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* h = floor((a m + 2^30) / 2^31), then h / 2^s rounded as docs/tick.md says; m in [2^30, 2^31) or 0, s in 0..31, any a.
 * In 16-bit limbs, because Cortex-M0+ has no 64-bit product. With a = ah 2^16 + al and m = mh 2^16 + ml,
 * a m = ah mh 2^32 + (al mh + mid) 2^16 + 16 low bits, and u = floor((al mh + mid) / 2) counts units of 2^17.
 * The second rounding halves twice so that the last addition cannot leave 32 bits. */
static inline int32_t pe_requantise(int32_t a, int32_t m, uint32_t s)
{
    const uint32_t al = (uint32_t)a & 0xffffu, ml = (uint32_t)m & 0xffffu;
    const int32_t ah = a >> 16, mh = m >> 16;
    const uint32_t t = al * (uint32_t)mh;
    const int32_t mid = ah * (int32_t)ml + (int32_t)((al * ml) >> 16);
    const int32_t u = (int32_t)(t >> 1) + (mid >> 1) + (int32_t)(t & (uint32_t)mid & 1u);
    const int32_t h = ah * mh * 2 + ((u + (1 << 13)) >> 14);
    return s == 0 ? h : (((h + (h >> 31)) >> (s - 1)) + 1) >> 1;
}

/* The same with a shift in -30..31; a negative one multiplies `a` first, which the packer proves to fit. */
static inline int32_t pe_requantise_signed(int32_t a, int32_t m, int32_t s)
{
    if (s < 0) {
        a = (int32_t)((uint32_t)a << -s);
        s = 0;
    }
    return pe_requantise(a, m, (uint32_t)s);
}

/* A rounding shift alone, s in 0..31; any a, though -2^31, which is proved not to occur, wraps. */
static inline int32_t pe_shifted(int32_t a, uint32_t s)
{
    if (s == 0)
        return a;
    const int32_t t = (int32_t)((uint32_t)a + (uint32_t)(a >> 31)) >> (s - 1);
    return (t >> 1) + (t & 1);
}

static inline int32_t pe_sat16(int32_t a) { return pe_clamp(a, INT16_MIN, INT16_MAX); }

#endif
