/* @title@: data, shield and state, printed by puffer-edge; do not edit. */
#include "policy_@name@.h"

#include "pe_engine.h"

#if defined(__GNUC__)
__attribute__((aligned(8)))
#endif
const uint8_t @name@_image[@NAME@_IMAGE_BYTES] = {
@image@
};

@shield@
static pe_policy @name@_policy;
static uint64_t @name@_scratch[(@NAME@_SCRATCH_BYTES + 7u) / 8u];
static int @name@_runs;

int32_t @name@_start(void)
{
    @name@_runs = 0;
    const int32_t check = pe_open(&@name@_policy, @name@_image, @NAME@_IMAGE_BYTES);
    if (check != PE_OK)
        return -check;
    if (pe_scratch_bytes(&@name@_policy) > sizeof @name@_scratch)
        return -PE_BAD_TOTAL;
    @name@_policy.scratch = (uint8_t *)@name@_scratch;
    @name@_policy.shield = @name@_shield;
    const uint32_t different = pe_self_test(&@name@_policy); /* which also resets */
    @name@_runs = different == 0;
    return (int32_t)different;
}

uint32_t @name@_tick(uint32_t step, const int32_t *observation, int32_t *raw, int32_t *applied)
{
    static const int32_t safe[@NAME@_ACTIONS] = {@action_safe@};
    if (@name@_runs)
        return pe_tick(&@name@_policy, step, observation, raw, applied);
    for (uint32_t j = 0; j < @NAME@_ACTIONS; j++)
        raw[j] = applied[j] = safe[j];
    return (uint32_t)PE_INVALID | (uint32_t)PE_REASON_INVALID << PE_REASON_SHIFT;
}

uint32_t @name@_state(void) { return @name@_runs ? pe_state_digest(&@name@_policy) : 0; }
