/* lstm: rows i, f, g, o, as TensorFlow Lite Micro computes them; memory is the hidden state, then the cell. */
#include "pe_gates.h"
#include "pe_squash.h"

enum { HALF = 1 << 30 };

/* The sums in front of two gates' functions. */
static void two_gates(const pe_gates *given, const pe_gates *kept, uint32_t row0, uint32_t row1, const void *in, const int16_t *hidden, int x16,
                      int32_t *gates)
{
    int32_t from_state[2];
    pe_two_gates(given, row0, row1, in, x16, gates);
    pe_two_gates(kept, row0, row1, hidden, 1, from_state);
    gates[0] = pe_sat16(gates[0] + from_state[0]);
    gates[1] = pe_sat16(gates[1] + from_state[1]);
}

void pe_lstm(const pe_op *op, const void *in, void *out, int16_t *memory)
{
    const uint32_t h = op->n_out, bits = *(const uint8_t *)(op + 1);
    const int x16 = op->flags & PE_X16;
    const uint8_t *at = (const uint8_t *)(op + 1) + 4;
    const pe_gates given = pe_gates_at(at, 4 * h, op->n_in);
    const pe_gates kept = pe_gates_at(at + pe_gates_bytes(4 * h, op->n_in), 4 * h, h);
    int16_t *cell = memory + h;
    for (uint32_t j = 0; j < h; j++) {
        int32_t sums[4]; /* i, f, g, o */
        two_gates(&given, &kept, j, h + j, in, memory, x16, sums);
        two_gates(&given, &kept, 2 * h + j, 3 * h + j, in, memory, x16, sums + 2);
        const int32_t opened = pe_logistic(sums[0]), stays = pe_logistic(sums[1]), fresh = pe_tanh(sums[2], 0), shown = pe_logistic(sums[3]);
        const int32_t c = pe_sat16(pe_requantise(stays * cell[j], HALF, 14)) + pe_sat16(pe_requantise(opened * fresh, HALF, 29 - bits));
        cell[j] = (int16_t)pe_sat16(c);
        const int32_t product = shown * pe_tanh(cell[j], 12 - bits);
        if (x16)
            ((int16_t *)out)[j] = (int16_t)pe_sat16(pe_requantise(product, HALF, 14));
        else
            ((int8_t *)out)[j] = (int8_t)pe_clamp(pe_requantise(product, HALF, 22), INT8_MIN, INT8_MAX);
    }
    for (uint32_t j = 0; j < h; j++) /* only now: every row saw the old hidden state */
        memory[j] = x16 ? ((const int16_t *)out)[j] : ((const int8_t *)out)[j];
}
