/* affine: the head (int16) to actions in the contract's units (int32). */
#include "pe_ops.h"

void pe_affine(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const uint32_t m = op->n_in;
    const int16_t *x = in;
    const int32_t *multiplier = (const void *)(op + 1);
    const int8_t *shift = (const void *)(multiplier + m);
    const int32_t *offset = (const void *)(shift + pe_padded(m));
    const int32_t *low = offset + m, *high = low + m;
    int32_t *y = out;
    for (uint32_t j = 0; j < m; j++) {
        const int64_t value = (int64_t)pe_requantise_signed(x[j], multiplier[j], shift[j]) + offset[j];
        y[j] = value < low[j] ? low[j] : value > high[j] ? high[j] : (int32_t)value;
    }
}
