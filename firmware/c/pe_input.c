/* input: observations (int32) to int8 or int16, the normaliser folded in, in the order that the network takes. */
#include <stddef.h>

#include "pe_engine.h"
#include "pe_ops.h"

void pe_input(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const uint32_t n = op->n_in;
    const int32_t *x = in;
    const int32_t *mean = (const void *)(op + 1);
    const int32_t *multiplier = mean + n;
    const int8_t *shift = (const void *)(multiplier + n);
    const uint16_t *order = op->flags & PE_ORDERED ? (const void *)(shift + pe_padded(n)) : NULL;
    const int32_t low = op->low - op->zero, high = op->high - op->zero;
    for (uint32_t i = 0; i < n; i++) {
        const int32_t centred = pe_clamp(x[order ? order[i] : i] - mean[i], -PE_LIMIT, PE_LIMIT);
        const int32_t y = pe_clamp(pe_requantise_signed(centred, multiplier[i], shift[i]), low, high) + op->zero;
        if (op->flags & PE_X16)
            ((int16_t *)out)[i] = (int16_t)y;
        else
            ((int8_t *)out)[i] = (int8_t)y;
    }
}
