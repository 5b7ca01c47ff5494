/* One tick, as docs/tick.md numbers its steps. */
#include "pe_engine.h"

#include <string.h>

#include "pe_crc32.h"
#include "pe_ops.h"
#include "pe_shield.h"

#ifdef PE_ONLY /* a build for one policy: see pe_ops.h */
#ifndef PE_WITH_LOOKUP
#undef pe_lookup
#define pe_lookup NULL
#endif
#ifndef PE_WITH_LOOKUP16
#undef pe_lookup16
#define pe_lookup16 NULL
#endif
#ifndef PE_WITH_ARGMAX
#undef pe_argmax
#define pe_argmax NULL
#endif
#ifndef PE_WITH_AFFINE
#undef pe_affine
#define pe_affine NULL
#endif
#ifndef PE_WITH_CONV
#undef pe_conv
#define pe_conv NULL
#endif
#ifndef PE_WITH_POOL
#undef pe_pool
#define pe_pool NULL
#endif
#ifndef PE_WITH_GRU
#undef pe_gru
#define pe_gru NULL
#endif
#ifndef PE_WITH_LSTM
#undef pe_lstm
#define pe_lstm NULL
#endif
#ifndef PE_WITH_CHOICES
#undef pe_choices
#define pe_choices NULL
#endif
#ifndef PE_WITH_TANH16
#undef pe_tanh16
#define pe_tanh16 NULL
#endif
#endif

pe_kernel *const pe_kernels[PE_KINDS] = {
    NULL, pe_input, pe_dense, pe_lookup, pe_lookup16, pe_argmax, pe_affine, pe_conv, pe_pool, pe_gru, pe_lstm, pe_choices, pe_tanh16,
};

static int16_t *memory_of(const pe_policy *p) { return (int16_t *)(void *)(p->scratch + 2u * p->image->buffer_bytes); }

uint32_t pe_scratch_bytes(const pe_policy *p) { return 2u * p->image->buffer_bytes + ((2u * p->memory + 7u) & ~7u); }

void pe_reset(pe_policy *p)
{
    for (uint32_t j = 0; j < p->image->m; j++) {
        p->previous[j] = p->action[j].initial;
        p->held[j] = p->action[j].safe;
    }
    memset(p->last, 0, sizeof p->last);
    if (p->scratch != NULL)
        memset(memory_of(p), 0, 2u * p->memory);
    p->phase = 0;
    p->stale = p->image->stale_limit + 1u;
}

/* Step 1. Returns MISSED, INVALID, SATURATED or 0. */
static uint32_t observe(pe_policy *p, uint32_t step, const int32_t *observation)
{
    if (step & (PE_STEP_MISSED | PE_STEP_INVALID)) {
        if (p->stale <= p->image->stale_limit)
            p->stale++;
        return step & PE_STEP_INVALID ? PE_INVALID : PE_MISSED;
    }
    uint32_t outcome = 0;
    for (uint32_t i = 0; i < p->image->n; i++) {
        p->last[i] = pe_clamp(observation[i], p->observation[i].low, p->observation[i].high);
        if (p->last[i] != observation[i])
            outcome = PE_SATURATED;
    }
    p->stale = 0;
    return outcome;
}

/* Step 3: the operations one after the other, between the two halves of the scratch memory; what they keep lies behind. */
static void run_program(pe_policy *p)
{
    const uint8_t *at = p->program;
    const void *in = p->last;
    int16_t *memory = memory_of(p);
    for (uint32_t k = 1; k <= p->image->operations; k++) {
        const pe_op *op = (const void *)at;
        void *out = p->scratch + (k & 1u) * p->image->buffer_bytes;
        if (k == p->image->operations)
            out = p->held;
        pe_kernels[op->kind](op, in, out, memory);
        memory += pe_op_memory(op);
        in = out;
        at += pe_op_bytes(op);
    }
}

/* Steps 5 and 6. Returns the stage bits. */
static uint32_t run_shield(const pe_policy *p, const int32_t *raw, uint32_t fallback, int32_t *applied)
{
    const uint32_t n = p->image->n, m = p->image->m;
    int32_t in[PE_MAX_INPUTS], out[PE_MAX_ACTIONS + 1];
    for (uint32_t i = 0; i < n; i++)
        in[i] = pe_clamp(p->last[i] >> p->observation[i].shift, INT16_MIN, INT16_MAX);
    memcpy(in + n, raw, 4 * m);
    memcpy(in + n + m, p->previous, 4 * m);
    in[n + 2 * m] = fallback != 0;
    memcpy(out, raw, 4 * m);
    out[m] = 0;
    if (p->shield)
        p->shield(in, out);
    else if (p->image->shield_bytes)
        pe_shield_run((const uint8_t *)p->image + p->image->shield_at, in, out);
    for (uint32_t j = 0; j < m; j++)
        applied[j] = pe_clamp(out[j], p->action[j].low, p->action[j].high);
    return (uint32_t)out[m] & ((1u << PE_MAX_STAGES) - 1u);
}

static uint32_t now(const pe_policy *p) { return p->clock ? p->clock() : 0; }

uint32_t pe_tick(pe_policy *p, uint32_t step, const int32_t *observation, int32_t *raw, int32_t *applied)
{
    if (step & PE_STEP_RESET)
        pe_reset(p);
    uint32_t outcome = observe(p, step, observation);
    const uint32_t start = now(p);
    if (p->stale == 0 && p->phase == 0) { /* a good observation came in this tick */
        run_program(p);
        outcome |= PE_POLICY_RAN;
    }
    p->phase = p->phase + 1u == p->image->divider ? 0 : p->phase + 1u;
    const uint32_t middle = now(p);
    uint32_t reasons = 0;
    if (p->stale > p->image->stale_limit) {
        outcome |= PE_STALE;
        reasons = PE_REASON_STALE;
    }
    if (outcome & PE_INVALID)
        reasons = PE_REASON_INVALID;
    for (uint32_t j = 0; j < p->image->m; j++)
        raw[j] = reasons ? p->action[j].safe : p->held[j];
    reasons |= run_shield(p, raw, reasons, applied);
    memcpy(p->previous, applied, 4u * p->image->m);
    p->cycles_policy = middle - start;
    p->cycles_shield = now(p) - middle;
    return outcome | reasons << PE_REASON_SHIFT;
}

uint32_t pe_state_digest(const pe_policy *p)
{
    const uint32_t n = p->image->n, m = p->image->m;
    uint32_t crc = pe_crc32(0, p->previous, 4 * m);
    crc = pe_crc32(crc, p->held, 4 * m);
    crc = pe_crc32(crc, p->last, 4 * n);
    crc = pe_crc32(crc, &p->phase, 4);
    crc = pe_crc32(crc, &p->stale, 4);
    return p->memory ? pe_crc32(crc, memory_of(p), 2 * p->memory) : crc;
}

/* Whether the step at `vector` (flags, observation[n], raw[m], applied[m], outcome, digest) comes out as recorded. */
static int reproduces(pe_policy *p, const uint32_t *vector)
{
    const uint32_t n = p->image->n, m = p->image->m;
    const uint32_t *expected = vector + 1 + n;
    int32_t action[2 * PE_MAX_ACTIONS];
    const uint32_t outcome = pe_tick(p, vector[0], (const int32_t *)(vector + 1), action, action + m);
    return memcmp(action, expected, 8 * m) == 0 && outcome == expected[2 * m] && pe_state_digest(p) == expected[2 * m + 1];
}

uint32_t pe_self_test(pe_policy *p)
{
    const uint32_t *vector = (const void *)((const uint8_t *)p->image + p->image->vectors_at);
    uint32_t different = 0;
    pe_reset(p);
    for (uint32_t k = 0; k < p->image->steps && different == 0; k++) {
        if (!reproduces(p, vector))
            different = k + 1;
        vector += 3u + p->image->n + 2u * p->image->m;
    }
    pe_reset(p);
    return different;
}
