/* lookup16: a table over int16 with 512 intervals, linear between its points. */
#include "pe_ops.h"

void pe_lookup16(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const int16_t *table = (const void *)(op + 1), *x = in;
    int16_t *y = out;
    for (uint32_t i = 0; i < op->n_in; i++) {
        const int16_t *point = table + (x[i] >> 7) + 256;
        const int32_t rise = (point[1] - point[0]) * (x[i] & 127);
        y[i] = (int16_t)(point[0] + ((rise + 64) >> 7));
    }
}
