/* pool: a number a channel over all positions, the average rounded half away from zero, or the largest. */
#include "pe_ops.h"

static int32_t value_at(const pe_op *op, const void *in, uint32_t k)
{
    return op->flags & PE_X16 ? ((const int16_t *)in)[k] : ((const int8_t *)in)[k];
}

void pe_pool(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const uint32_t channels = op->n_out;
    const int32_t positions = op->n_in / op->n_out;
    for (uint32_t c = 0; c < channels; c++) {
        int32_t y = value_at(op, in, c);
        for (uint32_t k = c + channels; k < op->n_in; k += channels) {
            const int32_t x = value_at(op, in, k);
            if (!(op->flags & PE_MAX))
                y += x;
            else if (x > y)
                y = x;
        }
        if (!(op->flags & PE_MAX))
            y = (y > 0 ? y + positions / 2 : y - positions / 2) / positions;
        if (op->flags & PE_X16)
            ((int16_t *)out)[c] = (int16_t)y;
        else
            ((int8_t *)out)[c] = (int8_t)y;
    }
}
