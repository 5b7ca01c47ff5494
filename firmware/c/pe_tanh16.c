/* tanh16: the activation of int16 layers. */
#include "pe_ops.h"
#include "pe_squash.h"

void pe_tanh16(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const int16_t *x = in;
    int16_t *y = out;
    for (uint32_t i = 0; i < op->n_in; i++)
        y[i] = (int16_t)pe_tanh(x[i], 0);
}
