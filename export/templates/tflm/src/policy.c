/* @title@: input step, action map, shield and tick; printed by puffer-edge, do not edit. */
#include "@name@_policy.h"

#include <string.h>

#include "pe_ops.h"

enum { N = @n@, M = @m@, DIVIDER = @divider@, STALE_LIMIT = @stale_limit@ };

/* Operations as docs/image.md of puffer-edge packs them; their code is the engine's own. */
@operations@

static const int32_t observation_low[N] = {@observation_low@};
static const int32_t observation_high[N] = {@observation_high@};
static const uint8_t observation_shift[N] = {@observation_shift@};
static const int32_t action_low[M] = {@action_low@};
static const int32_t action_high[M] = {@action_high@};
static const int32_t action_safe[M] = {@action_safe@};
static const int32_t action_initial[M] = {@action_initial@};

/* Per step: flags, observation[n], raw[m], applied[m], outcome. */
static const uint32_t vectors[@NAME@_TEST_STEPS][2 + N + 2 * M] = {
@vectors@
};

@shield@
void @name@_input(const int32_t *observation, @name@_value *x)
{
    pe_input((const void *)operation_0, observation, x, NULL);
}

void @name@_action(const int16_t *head, int32_t *raw)
{
@action_map@
}

static void clear(@name@_policy *p)
{
    memcpy(p->previous, action_initial, sizeof action_initial);
    memcpy(p->held, action_safe, sizeof action_safe);
    memset(p->last, 0, sizeof p->last);
    p->phase = 0;
    p->stale = STALE_LIMIT + 1u;
    p->fresh = 1;
}

void @name@_reset(@name@_policy *p, @name@_network *network, void *context)
{
    p->network = network;
    p->context = context;
    clear(p);
}

/* Step 1 of docs/tick.md. */
static uint32_t observe(@name@_policy *p, uint32_t step, const int32_t *observation)
{
    uint32_t outcome = 0;
    if (step & (PE_STEP_MISSED | PE_STEP_INVALID)) {
        if (p->stale <= STALE_LIMIT)
            p->stale++;
        return step & PE_STEP_INVALID ? PE_INVALID : PE_MISSED;
    }
    for (uint32_t i = 0; i < N; i++) {
        p->last[i] = pe_clamp(observation[i], observation_low[i], observation_high[i]);
        if (p->last[i] != observation[i])
            outcome = PE_SATURATED;
    }
    p->stale = 0;
    return outcome;
}

/* Step 3. Returns POLICY_RAN, or 0 where the network failed. */
static uint32_t propose(@name@_policy *p)
{
    @name@_value x[@NAME@_INPUTS];
    int16_t head[@NAME@_OUTPUTS];
    @name@_input(p->last, x);
    if (p->network(p->context, p->fresh, x, head) != 0) {
        memcpy(p->held, action_safe, sizeof action_safe);
        p->fresh = 1;
        return 0;
    }
    p->fresh = 0;
    @name@_action(head, p->held);
    return PE_POLICY_RAN;
}

/* Steps 5 and 6. Returns the stage bits. */
static uint32_t guard(const @name@_policy *p, const int32_t *raw, int32_t fallback, int32_t *applied)
{
    int32_t v[N + 2 * M + 1], out[M + 1];
    for (uint32_t i = 0; i < N; i++)
        v[i] = pe_clamp(p->last[i] >> observation_shift[i], INT16_MIN, INT16_MAX);
    memcpy(v + N, raw, 4 * M);
    memcpy(v + N + M, p->previous, 4 * M);
    v[N + 2 * M] = fallback;
    @name@_shield(v, out);
    for (uint32_t j = 0; j < M; j++)
        applied[j] = pe_clamp(out[j], action_low[j], action_high[j]);
    return (uint32_t)out[M];
}

uint32_t @name@_tick(@name@_policy *p, uint32_t step, const int32_t *observation, int32_t *raw, int32_t *applied)
{
    uint32_t reasons = 0;
    if (step & PE_STEP_RESET)
        clear(p);
    uint32_t outcome = observe(p, step, observation);
    if (p->stale == 0 && p->phase == 0)
        outcome |= propose(p);
    p->phase = p->phase + 1u == DIVIDER ? 0 : p->phase + 1u;
    if (p->stale > STALE_LIMIT) {
        outcome |= PE_STALE;
        reasons = PE_REASON_STALE;
    }
    if (outcome & PE_INVALID)
        reasons = PE_REASON_INVALID;
    memcpy(raw, reasons ? action_safe : p->held, 4 * M);
    reasons |= guard(p, raw, reasons != 0, applied);
    memcpy(p->previous, applied, 4 * M);
    return outcome | reasons << PE_REASON_SHIFT;
}

uint32_t @name@_self_test(@name@_policy *p)
{
    uint32_t different = 0;
    clear(p);
    for (uint32_t k = 0; k < @NAME@_TEST_STEPS && different == 0; k++) {
        int32_t observation[N], action[2 * M];
        memcpy(observation, vectors[k] + 1, sizeof observation);
        const uint32_t outcome = @name@_tick(p, vectors[k][0], observation, action, action + M);
        if (memcmp(action, vectors[k] + 1 + N, sizeof action) != 0 || outcome != vectors[k][1 + N + 2 * M])
            different = k + 1u;
    }
    clear(p);
    return different;
}
