/* choices: for each action, the first of the largest logits (int16) of its group selects a level (int32). */
#include "pe_ops.h"

void pe_choices(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const uint32_t m = op->n_out;
    const uint16_t *size = (const void *)(op + 1);
    const int32_t *level = (const void *)((const uint8_t *)size + pe_padded(2 * m));
    const int16_t *x = in;
    int32_t *y = out;
    uint32_t at = 0;
    for (uint32_t j = 0; j < m; j++) {
        uint32_t best = at;
        for (uint32_t i = at + 1; i < at + size[j]; i++)
            if (x[i] > x[best])
                best = i;
        y[j] = level[best];
        at += size[j];
    }
}
