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

static void store(void *out, uint32_t o, int32_t y, uint32_t wide)
{
    if (wide)
        ((int16_t *)out)[o] = (int16_t)y;
    else
        ((int8_t *)out)[o] = (int8_t)y;
}

/* int16 values, 4-bit weights, or no multipliers: a row at a time. */
static void dense_other(const pe_op *op, const void *in, void *out)
{
    const uint32_t n_out = op->n_out, flags = op->flags, stride = pe_stride(op->n_in, flags);
    const int32_t *bias = (const void *)(op + 1);
    const int32_t *multiplier = bias + n_out;
    const uint8_t *shift = (const void *)(flags & PE_SHIFT ? multiplier : multiplier + n_out);
    const int8_t *weight = (const int8_t *)shift + pe_padded(n_out);
    const int32_t zero = op->zero, low = op->low - zero, high = op->high - zero;
    for (uint32_t o = 0; o < n_out; o++, weight += stride) {
        const uint32_t sum = flags & PE_X16    ? pe_dot16(in, weight, op->n_in)
                             : flags & PE_INT4 ? pe_dot4(in, (const uint8_t *)weight, op->n_in)
                                               : pe_dot8(in, weight, op->n_in);
        const int32_t a = (int32_t)((sum + (uint32_t)bias[o]) * (flags & PE_WIDE ? 128u : 1u));
        const int32_t scaled = flags & PE_SHIFT ? pe_shifted(a, shift[o]) : pe_requantise(a, multiplier[o], shift[o]);
        store(out, o, pe_clamp(scaled, low, high) + zero, flags & (PE_WIDE | PE_X16));
    }
}

void pe_dense(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    if (op->flags & (PE_X16 | PE_INT4 | PE_SHIFT)) {
        dense_other(op, in, out);
        return;
    }
    const uint32_t n_out = op->n_out, stride = pe_padded(op->n_in);
    const int32_t *bias = (const void *)(op + 1);
    const int32_t *multiplier = bias + n_out;
    const uint8_t *shift = (const void *)(multiplier + n_out);
    const int8_t *weight = (const int8_t *)shift + pe_padded(n_out);
    const int32_t zero = op->zero, low = op->low - zero, high = op->high - zero;
    const uint32_t wide = op->flags & PE_WIDE;
    uint64_t sums = 0;
    for (uint32_t o = 0; o < n_out; o++) {
        if (o % 2 == 0) { /* an odd last row is its own neighbour */
            sums = dot2(in, weight, o + 1 < n_out ? weight + stride : weight, (int32_t)stride);
            weight += 2 * stride;
        }
        const uint32_t a = (uint32_t)sums + (uint32_t)bias[o];
        store(out, o, pe_clamp(pe_requantise((int32_t)(wide ? a * 128u : a), multiplier[o], shift[o]), low, high) + zero, wide);
        sums >>= 32;
    }
}
