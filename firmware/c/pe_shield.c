/* The shield's bytecode: no jumps, so that a checked section ends and stays within its registers. */
#include "pe_shield.h"

#include "pe_engine.h"
#include "pe_ops.h"

enum { MAX_INSTRUCTIONS = 1024, MAX_REGISTERS = 96, MAX_CONSTANTS = 512, INSTRUCTION = 5, MAX_SHIFT = 30 };
enum { CONST, IN, ADD, SUB, MUL, SHR, LT, MIN, MAX, WHERE, NE, OPCODES };

typedef struct {
    uint16_t instructions;
    uint8_t registers, stages;
    uint16_t constants, outputs;
} head;

static const int32_t *constants_of(const head *h) { return (const void *)(h + 1); }

static const uint8_t *outputs_of(const head *h) { return (const uint8_t *)(constants_of(h) + h->constants); }

static int is_written(const uint8_t *written, uint32_t reg)
{
    return reg < MAX_REGISTERS && (written[reg >> 3] & 1u << (reg & 7u)) != 0;
}

/* How many of an instruction's operands are registers. */
static uint32_t operands(uint32_t opcode)
{
    return opcode <= IN ? 0 : opcode == SHR ? 1 : opcode == WHERE ? 3 : 2;
}

static int instruction_is_valid(const head *h, const uint8_t *at, const uint8_t *written, uint32_t inputs)
{
    if (at[0] >= OPCODES || at[1] >= h->registers)
        return 0;
    for (uint32_t k = 0; k < operands(at[0]); k++)
        if (!is_written(written, at[2 + k]))
            return 0;
    switch (at[0]) {
    case CONST:
        return at[2] + 256u * at[3] < h->constants;
    case IN:
        return at[2] < inputs;
    case SHR:
        return at[3] <= MAX_SHIFT;
    default:
        return 1;
    }
}

int32_t pe_shield_check(const uint8_t *code, uint32_t bytes, uint32_t n, uint32_t m)
{
    const head *h = (const void *)code;
    if (bytes < sizeof *h || h->instructions > MAX_INSTRUCTIONS || h->registers > MAX_REGISTERS || h->constants > MAX_CONSTANTS)
        return PE_BAD_SHIELD;
    if (h->stages > PE_MAX_STAGES || h->outputs != m + 1)
        return PE_BAD_SHIELD;
    const uint32_t tail = h->outputs + (uint32_t)INSTRUCTION * h->instructions;
    if (bytes != sizeof *h + 4u * h->constants + pe_padded(tail))
        return PE_BAD_SHIELD;
    uint8_t written[MAX_REGISTERS / 8] = {0};
    const uint8_t *at = outputs_of(h) + h->outputs;
    for (uint32_t k = 0; k < h->instructions; k++, at += INSTRUCTION) {
        if (!instruction_is_valid(h, at, written, n + 2 * m + 1))
            return PE_BAD_INSTRUCTION;
        written[at[1] >> 3] = (uint8_t)(written[at[1] >> 3] | 1u << (at[1] & 7u));
    }
    for (uint32_t j = 0; j < h->outputs; j++)
        if (!is_written(written, outputs_of(h)[j]))
            return PE_BAD_INSTRUCTION;
    return PE_OK;
}

void pe_shield_run(const uint8_t *code, const int32_t *in, int32_t *out)
{
    const head *h = (const void *)code;
    const int32_t *constant = constants_of(h);
    const uint8_t *at = outputs_of(h) + h->outputs;
    int32_t r[MAX_REGISTERS];
    for (uint32_t k = h->instructions; k != 0; k--, at += INSTRUCTION) {
        const uint32_t a = at[2], b = at[3];
        int32_t value;
        switch (at[0]) { /* unsigned, so that a hostile section wraps instead of overflowing */
        case CONST: value = constant[a + 256u * b]; break;
        case IN: value = in[a]; break;
        case ADD: value = (int32_t)((uint32_t)r[a] + (uint32_t)r[b]); break;
        case SUB: value = (int32_t)((uint32_t)r[a] - (uint32_t)r[b]); break;
        case MUL: value = (int32_t)((uint32_t)r[a] * (uint32_t)r[b]); break;
        case SHR: value = r[a] >> b; break;
        case LT: value = r[a] < r[b]; break;
        case MIN: value = r[a] < r[b] ? r[a] : r[b]; break;
        case MAX: value = r[a] > r[b] ? r[a] : r[b]; break;
        case WHERE: value = r[a] ? r[b] : r[at[4]]; break;
        default: value = r[a] != r[b]; break;
        }
        r[at[1]] = value;
    }
    for (uint32_t j = 0; j < h->outputs; j++)
        out[j] = r[outputs_of(h)[j]];
}
