/* gru: rows r, z, n; the hidden state is int16 in units of 2^-15 whatever flows around it. */
#include <string.h>

#include "pe_gates.h"
#include "pe_squash.h"

void pe_gru(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    const uint32_t h = op->n_out;
    const int x16 = op->flags & PE_X16;
    const pe_gates given = pe_gates_at(op + 1, 3 * h, op->n_in);
    const pe_gates kept = pe_gates_at((const uint8_t *)(op + 1) + pe_gates_bytes(3 * h, op->n_in), 3 * h, h);
    int16_t *state = out; /* every row sees the old state: the new one is collected here */
    int32_t given_n[2], kept_n[2];
    for (uint32_t j = 0; j < h; j++) {
        int32_t from_in[2], from_state[2]; /* r and z */
        pe_two_gates(&given, j, h + j, in, x16, from_in);
        pe_two_gates(&kept, j, h + j, memory, 1, from_state);
        if (j % 2 == 0) { /* rows n of this number and the next one; an odd last row is its own neighbour */
            const uint32_t row = 2 * h + j, next = j + 1 < h ? row + 1 : row;
            pe_two_gates(&given, row, next, in, x16, given_n);
            pe_two_gates(&kept, row, next, memory, 1, kept_n);
        }
        const int32_t reset = pe_logistic(pe_sat16(from_in[0] + from_state[0]));
        const int32_t update = pe_logistic(pe_sat16(from_in[1] + from_state[1]));
        const int32_t past = (reset * kept_n[j % 2] + (1 << 14)) >> 15;
        const int32_t fresh = pe_tanh(pe_sat16(given_n[j % 2] + past), 0);
        state[j] = (int16_t)((update * memory[j] + (32768 - update) * fresh + (1 << 14)) >> 15);
    }
    memcpy(memory, state, 2 * h);
    for (uint32_t j = 0; j < h && !x16; j++) { /* in place: what is written lies behind what is read */
        const int32_t y = (state[j] + 128) >> 8;
        ((int8_t *)out)[j] = (int8_t)(y > INT8_MAX ? INT8_MAX : y);
    }
}
