/* argmax: the first of the largest logits (int16) selects its row of action levels (int32). */
#include "pe_ops.h"

void pe_argmax(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const uint32_t m = op->n_out;
    const int16_t *x = in;
    int32_t *y = out;
    uint32_t best = 0;
    for (uint32_t i = 1; i < op->n_in; i++)
        if (x[i] > x[best])
            best = i;
    const int32_t *level = (const int32_t *)(const void *)(op + 1) + best * m;
    for (uint32_t j = 0; j < m; j++)
        y[j] = level[j];
}
