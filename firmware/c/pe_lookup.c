/* lookup: an activation function as a table over int8. */
#include "pe_ops.h"

void pe_lookup(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const int8_t *table = (const void *)(op + 1), *x = in;
    int8_t *y = out;
    for (uint32_t i = 0; i < op->n_in; i++)
        y[i] = table[x[i] + 128];
}
