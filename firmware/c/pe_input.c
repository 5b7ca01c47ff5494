/* input: observations (int32) to int8, the normaliser folded in. */
#include "pe_engine.h"
#include "pe_ops.h"

void pe_input(const pe_op *op, const void *in, void *out)
{
    const uint32_t n = op->n_in;
    const int32_t *x = in;
    const int32_t *mean = (const void *)(op + 1);
    const int32_t *multiplier = mean + n;
    const int8_t *shift = (const void *)(multiplier + n);
    const int32_t low = op->low - op->zero, high = op->high - op->zero;
    int8_t *y = out;
    for (uint32_t i = 0; i < n; i++) {
        const int32_t centred = pe_clamp(x[i] - mean[i], -PE_LIMIT, PE_LIMIT);
        y[i] = (int8_t)(pe_clamp(pe_requantise_signed(centred, multiplier[i], shift[i]), low, high) + op->zero);
    }
}
