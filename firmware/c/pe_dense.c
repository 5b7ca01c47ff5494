/* dense: int8 or int16 activations times int8 or 4-bit weights into int32, rescaled to int8 or int16. */
#include "pe_dot.h"
#include "pe_rows.h"

/* Two rows to a turn; an odd last row is its own neighbour. */
static inline void dense(const pe_op *op, const void *in, void *out, uint32_t flags, pe_dot *dot)
{
    const uint32_t n_out = op->n_out, stride = pe_stride(op->n_in, flags);
    const uint32_t columns = pe_padded(op->n_in); /* weights of 0 beyond n_in */
    const pe_rows rows = pe_rows_at(op, op + 1, n_out, flags);
    const uint8_t *weight = rows.weight;
    uint64_t sums = 0;
    for (uint32_t o = 0; o < n_out; o++) {
        if (o % 2 == 0) {
            sums = dot(in, weight, o + 1 < n_out ? weight + stride : weight, columns);
            weight += 2 * stride;
        }
        pe_row(&rows, o, (uint32_t)sums, flags, out);
        sums >>= 32;
    }
}

void pe_dense(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    (void)memory;
    const uint32_t flags = op->flags;
    if ((flags & (PE_X16 | PE_INT4 | PE_SHIFT)) == 0) /* by itself, because it is what most policies are made of */
        dense(op, in, out, flags & PE_WIDE, pe_dot_int8);
    else
        dense(op, in, out, flags, flags & PE_X16 ? pe_dot_16 : flags & PE_INT4 ? pe_dot_4 : pe_dot_8);
}
