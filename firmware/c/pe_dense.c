/* dense: int8 or int16 activations times int8 or 4-bit weights into int32, rescaled to int8 or int16. */
#include "pe_dot.h"
#include "pe_ops.h"

/* Two sums of products: of `x` with each of two rows of weights, so that every activation is loaded once for both. They
 * wrap rather than overflow: with an image from this package it is proved that they do neither. `count` is a positive
 * multiple of 4. One negative index serves all three arrays from their ends, and its reaching zero ends the loop.
 * Returns the first sum in the low and the second in the high half: two registers. */
static uint64_t dot2(const int8_t *x, const int8_t *w0, const int8_t *w1, int32_t count)
{
    uint32_t a0 = 0, a1 = 0;
    int32_t i = -count;
    x += count;
    w0 += count;
    w1 += count;
#if defined(__ARM_ARCH_6M__) && defined(__OPTIMIZE__) /* it needs all eight low registers */
    /* The loop below, four columns to a turn: 5.75 cycles for a product, where GCC 12 needs 7. */
    int32_t v, w;
#define COLUMN                                                                                            \
    "ldrsb %[v], [%[x], %[i]]\n ldrsb %[w], [%[w0], %[i]]\n muls %[w], %[v]\n adds %[a0], %[a0], %[w]\n" \
    "ldrsb %[w], [%[w1], %[i]]\n muls %[w], %[v]\n adds %[a1], %[a1], %[w]\n adds %[i], #1\n"
    __asm__(".syntax unified\n1:\n" COLUMN COLUMN COLUMN COLUMN "bne 1b\n"
            : [a0] "+l"(a0), [a1] "+l"(a1), [i] "+l"(i), [v] "=&l"(v), [w] "=&l"(w)
            : [x] "l"(x), [w0] "l"(w0), [w1] "l"(w1)
            : "cc", "memory");
#undef COLUMN
#else
    for (; i != 0; i++) {
        const int32_t v = x[i];
        a0 += (uint32_t)(w0[i] * v);
        a1 += (uint32_t)(w1[i] * v);
    }
#endif
    return a0 | (uint64_t)a1 << 32;
}

/* The sum of a row of int16 values or 4-bit weights, which are rarer: `count` values. */
static uint32_t dot(const void *x, const int8_t *w, uint32_t count, uint32_t flags)
{
    if (flags & PE_X16)
        return pe_dot16(x, w, count);
    return pe_dot4(x, (const uint8_t *)w, count);
}

void pe_dense(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const uint32_t n_out = op->n_out, flags = op->flags, stride = pe_stride(op->n_in, flags);
    const int32_t *bias = (const void *)(op + 1);
    const int32_t *multiplier = bias + n_out;
    const uint8_t *shift = (const void *)(flags & PE_SHIFT ? multiplier : multiplier + n_out);
    const int8_t *weight = (const int8_t *)shift + pe_padded(n_out);
    const int32_t zero = op->zero, low = op->low - zero, high = op->high - zero;
    uint64_t sums = 0;
    for (uint32_t o = 0; o < n_out; o++) {
        if (flags & (PE_X16 | PE_INT4)) {
            sums = dot(in, weight, op->n_in, flags);
            weight += stride;
        } else if (o % 2 == 0) { /* an odd last row is its own neighbour */
            sums = dot2(in, weight, o + 1 < n_out ? weight + stride : weight, (int32_t)stride);
            weight += 2 * stride;
        }
        const uint32_t a = ((uint32_t)sums + (uint32_t)bias[o]) << (flags & PE_WIDE ? 7 : 0);
        const int32_t scaled = flags & PE_SHIFT ? pe_shifted((int32_t)a, shift[o]) : pe_requantise((int32_t)a, multiplier[o], shift[o]);
        const int32_t y = pe_clamp(scaled, low, high) + zero;
        if (flags & (PE_WIDE | PE_X16))
            ((int16_t *)out)[o] = (int16_t)y;
        else
            ((int8_t *)out)[o] = (int8_t)y;
        sums >>= 32;
    }
}
